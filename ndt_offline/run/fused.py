"""What `prediction.restore` does for float32, in one pass: compiled by numba, the same bits.

Importing this module imports numba, and the first call compiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ndt_offline.compiled import compiled


@compiled
def restore(residual: Any, newer: Any, older: Any) -> None:
    """Residuals of the linear prediction from two checkpoints, turned into the bits of floats.

    All are int32 [n]: signed residuals, and the bits of the floats of both checkpoints.
    """
    sign, rest, one = np.int32(31), np.int32(0x7FFFFFFF), np.int32(1)
    for i in range(len(residual)):
        # numba computes in 64 bits: cut to 32 they wrap around as they must.
        last = np.int32(newer[i] ^ ((newer[i] >> sign) & rest))
        before = np.int32(older[i] ^ ((older[i] >> sign) & rest))
        change = np.int32(last - before)
        ordered = np.int32(last + (change >> one) + residual[i])
        residual[i] = ordered ^ ((ordered >> sign) & rest)
