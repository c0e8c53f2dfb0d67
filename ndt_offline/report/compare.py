"""Several runs side by side: seeds or architectures, read from their stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ndt_offline.errors import UsageError, nearest
from ndt_offline.report.figures import CYCLE, Axes, labelled, new_axes, step_axis
from ndt_offline.report.runs import run_name
from ndt_offline.report.summary import Row, last_signal, summary_rows
from ndt_offline.report.table import HEAD, shortened
from ndt_offline.report.tidy import plain, tidy_table
from ndt_offline.store.results import Results

FEWEST_POOLED = 5  # runs that the permutation test over runs needs


def compare_rows(runs: Sequence[Results], metric: str = HEAD) -> list[Row]:
    """A row per run, space and layer: `summary_rows`, and the run, its events and its probe."""
    rows = []
    for name, results in zip(names_of_runs(runs), runs, strict=True):
        events = len(tidy_table(results, "events").get("step", ()))
        accuracy, loss = (plain(last_signal(results, f"probe_{n}")) for n in ("accuracy", "loss"))
        for row in summary_rows(results):
            if row["metric"] == metric:
                kept = {"run": name, **row, "events": events}
                rows.append(kept | {"probe_loss": loss, "probe_accuracy": accuracy})
    if not rows:
        known = [name for r in runs for s in r.spaces for name in r.metric_names(s.name)]
        raise UsageError(f"no run has the metric {metric!r}", remedy=nearest(metric, known))
    return rows


def spread_rows(rows: Sequence[Row]) -> list[Row]:
    """A row per space and layer of one shape that two or more runs have: mean and SD over runs."""
    groups: dict[tuple[str, str, int, int], list[Row]] = {}
    for each in rows:
        key = each["space"], each["layer"], each["rows"], each["columns"]
        groups.setdefault(key, []).append(each)
    found = []
    for (space, layer, *_), group in groups.items():
        mean: Row = {"space": space, "layer": layer, "runs": len(group)}
        for name in ("first", "last", "transitions", "expected"):
            values = np.array([r[name] for r in group if r[name] is not None], np.float64)
            mean[name] = float(values.mean()) if len(values) else None
            mean[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else None
        found.append(mean)
    return [row for row in found if row["runs"] > 1]


def pooled_rows(runs: Sequence[Results], metric: str = HEAD, target: str = "loss") -> list[Row]:
    """Coupling over five or more runs of one experiment: the permutation test over runs.

    Empty where there are fewer runs, or where they differ in layers or steps.
    """
    from ndt_offline.relate.runs import across_runs

    if len(runs) < FEWEST_POOLED or not _alike(runs):
        return []
    first = runs[0]
    names = [(s.name, layer.name) for s in first.spaces for layer in s.layers]
    series = np.array([[r.series(*name, metric) for name in names] for r in runs])
    targets = np.array([[r.signal(target)] for r in runs])
    rows: list[Row] = []
    for pair in across_runs(series, targets):
        space, layer = names[pair.series]
        row: dict[str, Any] = {"space": space, "layer": layer, "target": target}
        rows.append(row | {key: getattr(pair, key) for key in _POOLED})
    return rows


_POOLED = ("runs", "rho", "lowest", "highest", "rho_beyond", "p", "q")


def plot_compare(
    runs: Sequence[Results],
    layer: str,
    metric: str = HEAD,
    *,
    space: str = "activations",
    axes: Axes | None = None,
    share: bool = False,
) -> Axes:
    """One layer's metric of several runs on a common axis.

    `share` shows training steps as a share of each run's own, for runs of different length.
    """
    axes = axes or new_axes()
    for number, (name, results) in enumerate(zip(names_of_runs(runs), runs, strict=True)):
        if layer not in [x.name for s in results.spaces if s.name == space for x in s.layers]:
            continue
        steps = results.steps / results.steps[-1] if share else results.steps
        colour, dash = CYCLE[number % len(CYCLE)], ("-", "--", ":")[number // len(CYCLE) % 3]
        values = results.series(space, layer, metric)
        axes.plot(steps, values, dash, color=colour, linewidth=1, label=shortened(name))
    step_axis(axes, False)
    if share:
        axes.set_xlabel("share of the training steps")
    axes.set(ylabel=labelled(metric), title=shortened(f"{layer} ({space})"))
    return axes


def compare_figure(runs: Sequence[Results], metric: str = HEAD, share: bool = False) -> Any:
    """Every layer of the first run, one panel each; the matplotlib figure."""
    from matplotlib.figure import Figure

    names = [(s.name, layer.name) for s in runs[0].spaces for layer in s.layers][:24]
    across = min(3, max(1, len(names)))
    down = -(-max(1, len(names)) // across)
    figure = Figure(figsize=(3.6 * across, 2.5 * down), layout="constrained")
    grid = np.ravel(figure.subplots(down, across, squeeze=False))
    for axes, (space, layer) in zip(grid, names, strict=False):
        plot_compare(runs, layer, metric, space=space, axes=axes, share=share)
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    if names:
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    return figure


def names_of_runs(runs: Sequence[Results]) -> list[str]:
    """Directory names, numbered where two are the same."""
    names: list[str] = []
    for results in runs:
        name, number = run_name(results), 2
        while name in names:
            name, number = f"{run_name(results)} ({number})", number + 1
        names.append(name)
    return names


def _alike(runs: Sequence[Results]) -> bool:
    layers = [[x for s in r.spaces for x in s.layers] for r in runs]
    same = all(x == layers[0] for x in layers)
    return same and all(np.array_equal(r.steps, runs[0].steps) for r in runs)
