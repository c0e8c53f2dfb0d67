"""A figure of the detectors' battery: each null and each kind of planted steps once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ndt_offline.detect.battery.examples import Example
from ndt_offline.detect.battery.validation import NEAR, match

ACROSS = 6
WIDE, HIGH = 2.3, 1.05  # inches of a panel
LINE, TRUTH, FOUND, WRONG = "#4a6378", "#2a9d5c", "#1b1b1b", "#c8352b"


def battery_figure(examples: Sequence[Example], detector: str = "steps") -> Any:
    """One panel per series: what was planted as a line, what was reported as a mark below.

    A mark within 10 points of a planted step is black, any other red. The matplotlib figure.
    """
    from matplotlib.figure import Figure

    groups = [[e for e in examples if e.kind == kind] for kind in ("null", "steps")]
    groups = [group for group in groups if group]
    rows = [-(-len(group) // ACROSS) for group in groups]
    size = (ACROSS * WIDE, sum(rows) * HIGH + 0.8 + 0.45 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    heights = [r * HIGH + 0.45 for r in rows]
    parts: Any = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=heights)
    for part, group, count in zip(parts[:, 0], groups, rows, strict=True):
        part.suptitle(_heading(group, detector), fontsize=10, x=0.01, ha="left", weight="bold")
        panels = part.subplots(count, ACROSS, squeeze=False).ravel()
        for axes, example in zip(panels, group, strict=False):
            _draw(axes, example)
        for axes in panels[len(group) :]:
            axes.set_axis_off()
    return figure


def _heading(group: Sequence[Example], detector: str) -> str:
    if group[0].kind == "null":
        wrong = sum(len(e.reported) for e in group)
        return (
            f"Nothing to find: {wrong} false reports of {detector!r} (red) in {len(group)} series"
        )
    planted = sum(len(e.planted) for e in group)
    found = sum(len(match(e.planted, e.reported)[0]) for e in group)
    return f"Planted steps (green): {found} of {planted} found by {detector!r} (black; false: red)"


def _draw(axes: Any, example: Example) -> None:
    axes.set_title(example.name, fontsize=7.5, loc="left", pad=2)
    for at in example.planted.tolist():
        axes.axvline(at, color=TRUTH, linewidth=1.0, alpha=0.7)
    axes.plot(example.values, color=LINE, linewidth=0.45)
    for at in example.reported.tolist():
        near = len(example.planted) and np.abs(example.planted - at).min() <= NEAR
        axes.plot(
            at, 0.0, "^", transform=axes.get_xaxis_transform(), clip_on=False,
            color=FOUND if near else WRONG, markersize=4, markeredgewidth=0,
        )  # fmt: skip
    axes.set(xticks=[], yticks=[], xlim=(0, len(example.values)))
    axes.margins(y=0.12)
    for side in axes.spines.values():
        side.set_linewidth(0.4)
