"""The report's charts: a series with what was found in it, spectra, comparisons, couplings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ndt_offline.report import svg
from ndt_offline.report.aggregate import Envelope, chosen_rows, envelope
from ndt_offline.report.marks import Marks
from ndt_offline.report.table import figure, shortened
from ndt_offline.store.results import Results

Floats = NDArray[np.float64]
Row = dict[str, Any]
BYTES_READ = 192 * 2**20  # of stored spectra, for all heat maps together
CELLS = 200  # columns of a heat map
COMPONENTS = 64  # rows of a heat map
EPOCH = 9  # height of the mark of an epoch: there are many
DECADES = 4.0  # below the largest singular value that colours tell apart
# Dark blue over grey to yellow: lightness rises evenly, so it reads without colour vision too.
RAMP = np.array([(0, 32, 77), (62, 75, 108), (124, 123, 120), (186, 174, 108), (255, 234, 70)])


def series_chart(
    steps: Floats,
    values: Floats,
    most: int,
    *,
    title: str,
    phases: Sequence[Row] = (),
    transitions: Sequence[Row] = (),
    events: Sequence[Row] = (),
    log: bool = False,
) -> Markup:
    """One series over the steps with its phases, transitions, events, and what all charts share."""
    frame, shape = _framed(steps, values, most, log)
    layers = [
        svg.column(frame, p["start"], p["end"], f"phase {p['label']}", p["label"]) for p in phases
    ]
    layers.append(svg.reference(behind_name(log)))
    layers += [
        svg.rule(frame, e["step"], "event", f"event at step {e['step']}: {e['series']} series")
        for e in events
    ]
    layers += _drawn(frame, shape, "value")
    for p in phases:
        ends = np.array([p["start"], p["end"]], np.float64)
        many = 2 if log else 24  # straight in log(step + 1), and a curve in steps
        if not all(frame.y[0] <= p[end] <= frame.y[1] for end in ("value_start", "value_end")):
            many = 24  # what leaves the frame is left out
        between = np.expm1(np.linspace(np.log1p(ends[0]), np.log1p(ends[1]), many))
        share = np.linspace(p["value_start"], p["value_end"], many)
        inside = (share >= frame.y[0]) & (share <= frame.y[1])
        layers.append(svg.line(frame, between, np.where(inside, share, np.nan), "fit"))
    for t in transitions:
        up = (t["size"] or 0.0) > 0
        where = frame.y[0] if up else frame.y[1]
        layers.append(
            svg.mark(frame, t["step"], where, "jump", _jump_words(t), "up" if up else "down")
        )
    return svg.chart(frame, layers, title, "training step", "")


def line_chart(
    x: Floats,
    lines: Sequence[tuple[str, Floats]],
    most: int,
    *,
    title: str,
    x_label: str,
    log: bool = False,
    zero: bool = False,
    bands: Sequence[tuple[Floats, Floats]] = (),
    width: int = svg.WIDTH,
    y_label: str = "",
) -> Markup:
    """Several lines [(class, values)] over one axis, with optional bands behind."""
    every = [values for _, values in lines] + [edge for pair in bands for edge in pair]
    frame = svg.frame_of(x, *every, log=log, zero=zero, width=width)
    layers = [svg.band(frame, x, low, high, "range") for low, high in bands]
    for style, values in lines:
        shape = _binned(frame, x, values, most)
        layers += _drawn(frame, shape, style)
    return svg.chart(frame, layers, title, x_label, y_label)


def spectrum_chart(steps: Floats, spectra: Floats, title: str, log: bool) -> Markup:
    """Heat map of log10(s_i / s_1): steps across, components down from the largest.

    spectra [row, component] at the given steps; drawn on CELLS columns of equal width.
    """
    known = np.isfinite(spectra).any(axis=0).sum()
    count = max(int(known), 1)
    frame = svg.Frame((float(steps[0]), float(steps[-1])), (count + 0.5, 0.5), log)
    top = np.nanmax(np.where(np.isfinite(spectra), spectra, 0.0), axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        level = 1.0 + np.log10(spectra[:, :count] / top) / DECADES
    across = frame.warp(steps)
    # Every column shows the nearest row at or before it: nothing is interpolated.
    cells = np.searchsorted(across, np.linspace(across[0], across[-1], CELLS), side="right") - 1
    rows = np.unique(np.linspace(0, count - 1, min(COMPONENTS, count)).round().astype(int))
    pixels = coloured(level[np.clip(cells, 0, None)][:, rows].T)
    return svg.chart(frame, [svg.picture(frame, pixels)], title, "training step", "component")


def coloured(level: Floats) -> NDArray[np.uint8]:
    """Levels 0..1 [h, w] as colours [h, w, 3]; what is unknown is mid-grey red."""
    at = np.clip(np.nan_to_num(level, nan=0.0, neginf=0.0), 0, 1) * (len(RAMP) - 1)
    base = np.minimum(at.astype(int), len(RAMP) - 2)
    share = (at - base)[..., None]
    mixed = RAMP[base] * (1 - share) + RAMP[base + 1] * share
    mixed[np.isnan(level)] = (150, 90, 90)
    return mixed.round().astype(np.uint8)


def heat_rows(results: Results) -> list[int]:
    """The rows of the store that heat maps show, so that reading stays bounded."""
    array = results.root["activations/singular_values"]
    per_chunk = 8 * sum(
        results.root[f"{s.name}/singular_values"].chunks[0] * len(s.layers) * s.width
        for s in results.spaces
    )
    return chosen_rows(len(results.steps), array.chunks[0], per_chunk, BYTES_READ, 2 * CELLS)


def coupling_chart(rows: Sequence[Row], target: str) -> Markup:
    """A row per series: rho of levels, rho of time with the target, rho of the fluctuations."""
    height = 46 + 20 * len(rows)
    frame = svg.Frame((-1.05, 1.05), (0.0, float(len(rows))), width=720, height=height, left=300)
    layers = [svg.rule(frame, 0.0, "axis", "0")]
    for at, row in enumerate(rows):
        y = len(rows) - at - 0.5
        name = shortened(f"{row['space']} {row['layer']}", 46)
        layers.append(svg.words(292, float(frame.at_y(y)) + 4, name, "tick end"))
        for key, style, shape in (
            ("rho_time", "clock", "dot"), ("rho", "level", "dot"),
            ("rho_detrended", "own", "diamond"),
        ):  # fmt: skip
            if row[key] is not None:
                said = f"{name}: {key} with {target} {row[key]:+.2f}"
                layers.append(svg.mark(frame, row[key], y, style, said, shape))
    bare = svg.Frame(frame.x, (1.0, 1.0), width=720, height=height, left=300)
    return svg.chart(bare, layers, f"couplings with {target}", f"rho with {target}", "")


def _framed(steps: Floats, values: Floats, most: int, log: bool) -> tuple[svg.Frame, Envelope]:
    frame = svg.frame_of(steps, values, log=log)
    return frame, _binned(frame, steps, values, most)


def _binned(frame: svg.Frame, x: Floats, values: Floats, most: int) -> Envelope:
    across = frame.warp(x)
    shape = envelope(across, values, most)
    back = np.expm1(shape.x) if frame.log else shape.x
    return Envelope(back, shape.mean, shape.low, shape.high, shape.exact)


def _drawn(frame: svg.Frame, shape: Envelope, style: str) -> list[Markup]:
    parts = []
    if not shape.exact:
        parts.append(svg.band(frame, shape.x, shape.low, shape.high, f"{style} spread"))
    return [*parts, svg.line(frame, shape.x, shape.mean, style)]


def behind_name(log: bool) -> str:
    """The name of what stands behind every series, which the page holds once."""
    return "behind-log" if log else "behind-linear"


def behind(steps: Floats, loss: Floats, most: int, marks: Sequence[Marks], log: bool) -> Markup:
    """The loss and the marks of the training, as all series' charts show them behind the series."""
    ends = (float(steps[0]), float(steps[-1])) if len(steps) else (0.0, 1.0)
    frame = svg.Frame(ends, (0.0, 1.0), log)
    layers = [_loss_line(frame, steps, loss, most)] if np.isfinite(loss).any() else []
    for kind in marks:
        height = EPOCH if kind.kind == "epoch" else None
        layers += [
            svg.rule(frame, step, f"mark {kind.style}", kind.words(step), height)
            for step in kind.steps
            if ends[0] <= step <= ends[1]
        ]
    return svg.group(behind_name(log), layers)


def _loss_line(frame: svg.Frame, steps: Floats, loss: Floats, most: int) -> Markup:
    """The loss on a scale of its own, its ends written at the right."""
    shape = _binned(frame, steps, loss, most)
    low, high = float(np.nanmin(shape.mean)), float(np.nanmax(shape.mean))
    inner = svg.Frame(frame.x, (low, high if high > low else low + 1), frame.log)
    words = [
        svg.words(frame.right + 3, float(inner.at_y(v)) + 3.5, figure(v), "tick faint")
        for v in (low, high)
    ]
    return svg.line(inner, shape.x, shape.mean, "loss") + Markup("").join(words)


def _jump_words(t: Row) -> str:
    said = f"step {t['step']}: {figure(t['size'], 3)}"
    if t["T"] is not None:
        said += f" (T {t['T']:.1f})"
    if t["low"] is not None and t["high"] is not None:
        said += f", between {t['low']:.0f} and {t['high']:.0f}"
    return said
