"""Matrices of similarity between layers as heat maps, one panel each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ndt_offline.report.gallery import STYLE, save
from ndt_offline.report.table import shortened

_NUMBERED = 12  # layers up to which each entry is written into its field


def plot_heatmap(matrix: np.ndarray, names: Sequence[str], title: str, axes: Any) -> Any:
    """Similarity [layer, layer] in 0 to 1, the first layer at the lower left; grey where NaN."""
    from matplotlib import colormaps

    image = axes.imshow(
        np.ma.masked_invalid(matrix), vmin=0, vmax=1, origin="lower",
        cmap=colormaps["viridis"].with_extremes(bad="#dddddd"),
    )  # fmt: skip
    places, labels = range(len(names)), [shortened(name, 24) for name in names]
    axes.set_xticks(places, labels, rotation=90)
    axes.set_yticks(places, labels)
    axes.set_title(title)
    if len(names) <= _NUMBERED:
        for (down, across), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                shade = "black" if value > 0.6 else "white"
                axes.text(across, down, f"{value:.2f}", ha="center", va="center", color=shade)
    return image


def save_heatmaps(matrices: Mapping[str, np.ndarray], names: Sequence[str], path: Path) -> None:
    """One file, in the format its suffix names; `matrices` by title, side by side."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    side = max(3.2, 0.34 * len(names) + 1.6)
    across = min(3, len(matrices))
    down = -(-len(matrices) // across)
    with rc_context(STYLE):
        figure = Figure(figsize=(side * across, side * down), layout="constrained")
        grid = np.ravel(figure.subplots(down, across, squeeze=False))
        for axes, (title, matrix) in zip(grid, matrices.items(), strict=False):
            image = plot_heatmap(matrix, names, title, axes)
        for axes in grid[len(matrices) :]:
            axes.set_visible(False)
        figure.colorbar(image, ax=list(grid), shrink=0.6, label="linear CKA")
        save(grid[0], [path])
