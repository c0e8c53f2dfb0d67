"""What a run recorded with `precision=` lost, as a sentence for every place that shows results."""

from __future__ import annotations

import numpy as np

from ndt_offline.run.attempt import ERRORS
from ndt_offline.run.reader import Run


def rounding(run: Run) -> list[str]:
    """The largest error over the visible checkpoints; nothing for a lossless run.

    The first is of single values, max |E|; the second bounds ||E||_2 of every weight's E, and so
    (Weyl's inequality) how far each singular value of a weight can be from that of the training.
    """
    known = set(run.scalar_names)
    if not known.issuperset(ERRORS):
        return []
    single, spectral = (float(np.nanmax(run.scalar(name), initial=0.0)) for name in ERRORS)
    shown = {entry.attempt for entry in run.entries}
    names = {str(a.about.get("precision")) for a in run.attempts if a.number in shown} - {"None"}
    told = f" at {', '.join(sorted(names))}" if names else ""
    return [
        f"weights were recorded{told}: no value moved by more than {single:.2g}, "
        f"and no singular value of a weight by more than {spectral:.2g}"
    ]
