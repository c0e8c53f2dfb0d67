"""Figures for papers: a small function for each, drawing into matplotlib Axes.

    from ndt_offline.report.figures import plot_series
    axes = plot_series("ckpts", "2", "stable_rank")
    axes.figure.savefig("layer2.pdf")

`store` is a path (of the run or its store) or opened `Results`. Colours are those of Okabe and
Ito, which colour-blind readers can tell apart. Names are drawn as they are: no mathematics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ndt_offline.errors import UsageError, nearest
from ndt_offline.report.columns import SERIES_KEYS
from ndt_offline.report.marks import marks_of
from ndt_offline.report.runs import open_results
from ndt_offline.report.table import HEAD, shortened, unit_of
from ndt_offline.report.tidy import event_members, rows_of, tidy_table
from ndt_offline.store.results import Results

Axes: TypeAlias = Any
Store: TypeAlias = Results | str | Path
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#a3004f", "#8a8f98"
CYCLE = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#e69f00", "#000000")
SHADES = {"falls": ORANGE, "rises": BLUE, "stable": GREY, "unclear": "none"}


def plot_series(
    store: Store,
    layer: str,
    metric: str = HEAD,
    *,
    space: str = "activations",
    axes: Axes | None = None,
    log: bool = False,
) -> Axes:
    """One layer's metric over the steps, with phases (shaded), jumps (triangles), events (dots).

    Restarts, changes of the learning rate and epochs are thin lines, named in a legend. Orange
    falls, blue rises, grey is stable. The training loss is behind it in grey, its axis at the
    right.
    """
    results, own, axes = opened(store), axes is None, axes or new_axes()
    name = space, layer, metric
    values = known_series(results, *name)
    steps = results.steps
    _phases(axes, results, name)
    loss = results.signal("loss")
    if np.isfinite(loss).any():
        behind = axes.twinx()
        behind.plot(steps, loss, color=GREY, linewidth=0.5, alpha=0.6)
        behind.set_ylabel("training loss", color=GREY)
        axes.set_zorder(behind.get_zorder() + 1)
        axes.patch.set_visible(False)
    axes.plot(steps, values, color=BLUE, linewidth=1)
    low, high = axes.get_ylim()
    for row in _of(results, "transitions", name):
        up = (row["size"] or 0.0) > 0
        marker, at = ("^", low) if up else ("v", high)
        axes.plot(row["step"], at, marker, color=PURPLE, markersize=5, clip_on=False)
    events = tidy_table(results, "events")
    for number in {number for number, member in event_members(results) if member == name}:
        axes.axvline(events["step"][number], color=PURPLE, linewidth=0.7, linestyle=":")
    _marks(axes, results, own)
    axes.set_ylim(low, high)
    step_axis(axes, log)
    axes.set_ylabel(labelled(metric))
    axes.set_title(shortened(f"{layer} ({space})"))
    return axes


def plot_spectrum(
    store: Store, layer: str, *, space: str = "activations", axes: Axes | None = None
) -> Axes:
    """Heat map of log10(s_i / s_1): training steps across, components down."""
    from ndt_offline.report.panels import CELLS, heat_rows

    results, axes = opened(store), axes or new_axes()
    names = [x.name for s in results.spaces if s.name == space for x in s.layers]
    if layer not in names:
        raise UsageError(f"{space} has no layer {layer!r}", remedy=nearest(layer, names))
    rows = heat_rows(results)[: 2 * CELLS]
    array = results.root[f"{space}/singular_values"]
    spectra = np.asarray(array.oindex[rows, names.index(layer), slice(None)])
    spectra = spectra[:, np.isfinite(spectra).any(axis=0)]
    with np.errstate(all="ignore"):
        level = np.log10(spectra / np.nanmax(spectra, axis=1, keepdims=True))
    mesh = axes.pcolormesh(
        results.steps[rows], np.arange(1, spectra.shape[1] + 1), level.T, cmap="cividis",
        vmin=-4, vmax=0, shading="nearest", rasterized=True,
    )  # fmt: skip
    axes.figure.colorbar(mesh, ax=axes, label="log10(singular value / largest)")
    axes.invert_yaxis()
    axes.set(xlabel="training step", ylabel="component", title=shortened(f"{layer} ({space})"))
    return axes


def plot_spaces(
    store: Store, layer: str, weight: str, metric: str = HEAD, *, axes: Axes | None = None
) -> Axes:
    """A layer's activations and its weight, each relative to its first value."""
    results, axes = opened(store), axes or new_axes()
    for space, name, colour in (("activations", layer, BLUE), ("weights", weight, ORANGE)):
        values = known_series(results, space, name, metric)
        finite = values[np.isfinite(values) & (values != 0)]
        start = finite[0] if len(finite) else np.nan
        axes.plot(results.steps, values / start, color=colour, linewidth=1, label=space)
    axes.legend(frameon=False)
    axes.set(ylabel=f"{metric} over its first value", title=shortened(layer))
    step_axis(axes, False)
    return axes


def plot_couplings(
    store: Store, target: str = "loss", metric: str = HEAD, *, axes: Axes | None = None
) -> Axes:
    """rho of every layer with a target, beside that of training time, and without trends."""
    results, own = opened(store), axes is None
    rows = [r for r in rows_of(tidy_table(results, "couplings"))
            if r["target"] == target and r["metric"] == metric]  # fmt: skip
    if not rows:
        raise UsageError(f"there is no coupling of {metric} with {target}")
    axes = axes or new_axes(6.0, 1.4 + 0.22 * len(rows))
    at = np.arange(len(rows))[::-1]
    for key, marker, fill, label in (
        ("rho_time", "o", "none", "training time alone"),
        ("rho", "o", BLUE, "series"),
        ("rho_detrended", "D", ORANGE, "without trends"),
    ):
        values = [np.nan if row[key] is None else row[key] for row in rows]
        edge = "black" if fill == "none" else fill
        axes.scatter(values, at, marker=marker, facecolors=fill, edgecolors=edge, s=26, label=label)
    axes.axvline(0, color=GREY, linewidth=0.7)
    axes.set_yticks(at, [shortened(f"{row['space']} {row['layer']}") for row in rows])
    axes.set(xlim=(-1.05, 1.05), xlabel=f"Spearman's rho with {target}", title=metric)
    _legend_below(axes, own)
    return axes


def plot_sweep(store: Store, *, axes: Axes | None = None) -> Axes:
    """Jumps in all series by threshold, beside those on matched noise."""
    results, axes = opened(store), axes or new_axes()
    sweep = tidy_table(results, "sweep")
    if not len(sweep.get("threshold", ())):
        raise UsageError("this detector has no thresholds to sweep")
    at = sweep["threshold"]
    axes.fill_between(at, sweep["matched_low"], sweep["matched_high"], color=ORANGE, alpha=0.2)
    axes.plot(at, sweep["matched"], color=ORANGE, label="by chance (matched noise)")
    axes.plot(at, sweep["observed"], color=BLUE, label="found")
    axes.legend(frameon=False)
    axes.set(xlabel="threshold", ylabel="jumps in all series", ylim=(0, None))
    return axes


def plot_rates(store: Store, *, axes: Axes | None = None) -> Axes:
    """Jumps by sampling interval; needs `ndt-offline sampling` first."""
    results, axes = opened(store), axes or new_axes()
    rates = tidy_table(results, "rates")
    if not len(rates.get("every", ())):
        raise UsageError("no sampling rates are stored", remedy="ndt-offline sampling RUN")
    axes.errorbar(rates["every"], rates["found"], rates["spread"], color=BLUE, label="found")
    axes.plot(rates["every"], rates["matched"], "o--", color=ORANGE, label="by chance")
    axes.set_xscale("log")
    axes.set_xticks(rates["every"], [str(n) for n in rates["every"]], minor=False)
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False)
    axes.set(xlabel="training steps between samples", ylabel="jumps", ylim=(0, None))
    return axes


def opened(store: Store) -> Results:
    return store if isinstance(store, Results) else open_results(store)


def new_axes(width: float = 5.0, height: float = 3.0) -> Axes:
    """Axes of a figure of its own, which needs no screen and is closed with its last reference."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").subplots()


def step_axis(axes: Axes, log: bool) -> None:
    axes.set_xlabel("training step")
    if log:
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def known_series(results: Results, space: str, layer: str, metric: str) -> np.ndarray:
    """The series of that name; UsageError with what there is."""
    try:
        return results.series(space, layer, metric)
    except KeyError:
        layers = [x.name for s in results.spaces if s.name == space for x in s.layers]
        known = f"layers {', '.join(layers)}; metrics {', '.join(results.metric_names(space))}"
        raise UsageError(f"there is no {metric} of {layer!r} in {space}", remedy=known) from None


def _of(results: Results, table: str, name: tuple[str, str, str]) -> list[dict[str, Any]]:
    rows = rows_of(tidy_table(results, table))
    return [row for row in rows if tuple(row[key] for key in SERIES_KEYS) == name]


def _phases(axes: Axes, results: Results, name: tuple[str, str, str]) -> None:
    for row in _of(results, "phases", name):
        axes.axvspan(
            row["start"],
            row["end"],
            color=SHADES.get(row["label"], "white"),
            alpha=0.12,
            linewidth=0,
        )
        at = np.expm1(np.linspace(np.log1p(row["start"]), np.log1p(row["end"]), 40))
        fit = np.linspace(row["value_start"], row["value_end"], 40)
        axes.plot(at, fit, color="black", linewidth=0.8, linestyle="--")


def _marks(axes: Axes, results: Results, own: bool) -> None:
    """Thin lines at what else happened in training; of epochs, which are many, only feet."""
    for kind in marks_of(results):
        look = _MARK.get(kind.kind, (":", 0.8, 1.0))
        for number, step in enumerate(kind.steps):
            axes.axvline(
                step, ymax=look[2], color="black", alpha=0.55, linestyle=look[0],
                linewidth=look[1], label=kind.said if number == 0 else None,
            )  # fmt: skip
    if axes.get_legend_handles_labels()[1]:
        _legend_below(axes, own)


_MARK = {"restart": ("-", 1.4, 1.0), "learning rate": ("-.", 0.8, 1.0), "epoch": ("-", 0.8, 0.06)}


def _legend_below(axes: Axes, own: bool) -> None:
    """A legend; in a figure of our `own` below it, where it covers no data."""
    if own:
        handles, labels = axes.get_legend_handles_labels()
        axes.figure.legend(
            handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small"
        )
    else:
        axes.legend(frameon=False, fontsize="small")


def labelled(metric: str) -> str:
    """An axis' label: the metric and its unit."""
    unit = unit_of(metric)
    return f"{metric} ({unit})" if unit else metric
