"""Every figure of a run, as files: SVG, PNG or PDF."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ndt_offline.errors import UsageError, nearest
from ndt_offline.report import figures
from ndt_offline.report.pairs import matched_layers
from ndt_offline.report.table import HEAD
from ndt_offline.report.tidy import tidy_table
from ndt_offline.store.results import Results

FORMATS = ("svg", "png", "pdf")
_UNSAFE = re.compile(r"[^A-Za-z0-9._\-]+")
# Names are drawn as they are ($ starts no formula), and text stays text in every format.
STYLE: Any = {
    "text.parse_math": False, "svg.fonttype": "none", "pdf.fonttype": 42, "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 200,
    "svg.hashsalt": "ndt-offline", "axes.titlesize": "medium",
}  # fmt: skip


def save_figures(
    results: Results,
    folder: Path,
    formats: Sequence[str] = FORMATS,
    metric: str = HEAD,
    told: Callable[[str], None] | None = None,
) -> list[Path]:
    """Draw every figure of a run for one metric; the files written, in order."""
    from matplotlib import rc_context

    for form in formats:
        if form not in FORMATS:
            raise UsageError(f"--format {form!r}", remedy="one of " + ", ".join(FORMATS))
    known = results.metric_names("activations") + results.metric_names("weights")
    if metric not in known:
        raise UsageError(f"--metric {metric!r} was not derived", remedy=nearest(metric, known))
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with rc_context(STYLE):
        for name, draw in _all(results, metric):
            paths = [_free(folder / f"{file_name(name)}.{form}", written) for form in formats]
            save(draw(), paths)
            written += paths
            if told is not None:
                told(name)
    return written


def save(axes: Any, paths: Sequence[Path]) -> None:
    """Write one figure to each path, in the format its suffix names, without a date in it."""
    for path in paths:
        about = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix[1:])
        axes.figure.savefig(path, metadata=about)


def file_name(name: str) -> str:
    """A name that is a file's on every system: letters, digits, dots, dashes."""
    return _UNSAFE.sub("-", name).strip("-.")[:120] or "figure"


def _free(path: Path, taken: Sequence[Path]) -> Path:
    # Two layers may differ only in characters that files cannot have.
    number, free = 2, path
    while free in taken:
        free, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return free


def _all(results: Results, metric: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    for space in results.spaces:
        for layer in space.layers:
            name = f"{space.name}-{layer.name}"
            yield (
                f"{metric}-{name}",
                partial(figures.plot_series, results, layer.name, metric, space=space.name),
            )
            yield (
                f"spectrum-{name}",
                partial(figures.plot_spectrum, results, layer.name, space=space.name),
            )
    for activation, weight in matched_layers(results):
        draw = partial(figures.plot_spaces, results, activation, weight, metric)
        yield f"spaces-{metric}-{activation}", draw
    for target in dict.fromkeys(map(str, tidy_table(results, "couplings")["target"])):
        draw = partial(figures.plot_couplings, results, target, metric)
        yield f"couplings-{metric}-{target}", draw
    if len(tidy_table(results, "sweep").get("threshold", ())):
        yield "sweep", partial(figures.plot_sweep, results)
    if len(tidy_table(results, "rates").get("every", ())):
        yield "sampling", partial(figures.plot_rates, results)
