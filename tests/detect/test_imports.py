"""What a detector loads: scipy.stats alone would cost seconds in every worker."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

SERIES = "import numpy as np; x = np.random.default_rng(0).normal(size=400); "


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import ndt_offline.detect", ["numpy", "scipy"]),
        (SERIES + "from ndt_offline.detect import detect; detect(x, detector='zscore')", ["scipy"]),
        (
            SERIES + "from ndt_offline.detect import find_peaks, counts; counts(find_peaks(x))",
            ["scipy.stats", "scipy.optimize", "torch", "dask", "matplotlib"],
        ),
    ],
)
def test_light(code: str, absent: list[str]) -> None:
    check = f"import sys; {code}; print([m for m in {absent} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ast.literal_eval(out.stdout.strip().splitlines()[-1]) == []


def test_every_public_name_is_there() -> None:
    import ndt_offline.detect as package

    assert sorted(package.__all__) == dir(package)
    for name in package.__all__:
        assert getattr(package, name).__doc__ or name == "STATUS"
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = package.absent
