"""Small charts as SVG text: scales, ticks, lines, bands. Colours are classes of the page's style.

Written here rather than by a plotting library: a chart costs a millisecond and a few kilobytes,
follows the page's light or dark colours, and its text stays text. `Markup` marks what is safe;
`format` escapes every name.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 30, 18, 34


@dataclass(frozen=True)
class Frame:
    """The drawing area of a chart: data ranges, and whether x is shown as log(x + 1)."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool = False
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT

    @property
    def right(self) -> int:
        return self.width - RIGHT

    @property
    def bottom(self) -> int:
        return self.height - BOTTOM

    def warp(self, x: Floats | float) -> Floats:
        """x in the units of the axis."""
        return np.log1p(np.asarray(x, np.float64)) if self.log else np.asarray(x, np.float64)

    def at_x(self, x: Floats | float) -> Floats:
        low, high = self.warp(np.array(self.x))
        return self.left + (self.warp(x) - low) / ((high - low) or 1.0) * (self.right - self.left)

    def at_y(self, y: Floats | float) -> Floats:
        low, high = self.y
        share = (np.asarray(y, np.float64) - low) / ((high - low) or 1.0)
        return self.bottom - share * (self.bottom - TOP)


def frame_of(
    x: Floats, *ys: Floats, log: bool = False, width: int = WIDTH, zero: bool = False
) -> Frame:
    """A frame that holds every finite value, with a margin."""
    values = np.concatenate([np.ravel(y) for y in ys]) if ys else np.zeros(1)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    low = min(low, 0.0) if zero else low
    margin = 0.06 * ((high - low) or abs(high) or 1.0)
    ends = (float(x[0]), float(x[-1])) if len(x) else (0.0, 1.0)
    return Frame(ends, (low if zero and low == 0 else low - margin, high + margin), log, width)


def chart(frame: Frame, layers: Sequence[Markup], title: str, x_label: str, y_label: str) -> Markup:
    """The whole figure: axes, then the layers in order. `title` is for those who cannot see it."""
    data = (*frame.x, *frame.y)
    return Markup(
        '<svg viewBox="0 0 {w} {h}" role="img" aria-label="{title}" data-frame="{data}" '
        'data-box="{box}" data-log="{log}">{axes}{layers}</svg>'
    ).format(
        w=frame.width,
        h=frame.height,
        title=title,
        data=" ".join(f"{v:.10g}" for v in data),
        box=f"{frame.left} {frame.right} {TOP} {frame.bottom}",
        log=int(frame.log),
        axes=_axes(frame, x_label, y_label),
        layers=Markup("").join(layers),
    )


def line(frame: Frame, x: Floats, y: Floats, style: str) -> Markup:
    """A line that breaks where a value is missing."""
    return Markup('<path class="{s}" d="{d}"/>').format(
        s=style, d=Markup(_path(frame.at_x(x), frame.at_y(y)))
    )


def band(frame: Frame, x: Floats, low: Floats, high: Floats, style: str) -> Markup:
    """The area between two lines, in one piece per stretch without gaps."""
    px, top, bottom = frame.at_x(x), frame.at_y(high), frame.at_y(low)
    known = np.isfinite(top) & np.isfinite(bottom)
    pieces = []
    for part in _stretches(known):
        there, back = _path(px[part], top[part], 1), _path(px[part][::-1], bottom[part][::-1], 1)
        pieces.append(there + "L" + back[1:] + "Z")
    return Markup('<path class="{s}" d="{d}"/>').format(s=style, d=Markup("".join(pieces)))


def column(frame: Frame, start: float, stop: float, style: str, label: str) -> Markup:
    """A shaded stretch of x over the whole height, its label on top where there is room."""
    a, b = (float(np.clip(v, frame.left, frame.right)) for v in frame.at_x(np.array([start, stop])))
    text = Markup("")
    if b - a > 6 * len(label):
        text = words(0.5 * (a + b), TOP - 5, label, "small middle")
    shape = '<rect class="{s}" x="{x:.1f}" y="{y}" width="{w:.1f}" height="{h}"/>{t}'
    return Markup(shape).format(s=style, x=a, y=TOP, w=b - a, h=frame.bottom - TOP, t=text)


def rule(frame: Frame, x: float, style: str, title: str, height: int | None = None) -> Markup:
    """A vertical line over the whole height, or `height` from below; its title is for hovering."""
    top = TOP if height is None else frame.bottom - height
    form = '<path class="{s}" d="M{x:.1f} {a}V{b}"><title>{t}</title></path>'
    return Markup(form).format(s=style, x=float(frame.at_x(x)), a=top, b=frame.bottom, t=title)


def group(name: str, layers: Sequence[Markup]) -> Markup:
    """Layers that many charts share, by a name that `reference` uses."""
    return Markup('<g id="{n}">{layers}</g>').format(n=name, layers=Markup("").join(layers))


def reference(name: str) -> Markup:
    return Markup('<use href="#{n}"/>').format(n=name)


def mark(frame: Frame, x: float, y: float, style: str, title: str, shape: str = "dot") -> Markup:
    """A point: dot, ring, up or down; its title is read by hovering."""
    px, py = float(frame.at_x(x)), float(frame.at_y(y))
    drawn = {
        "dot": f"M{px - 3.5:.1f} {py:.1f}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0Z",
        "up": f"M{px:.1f} {py - 8:.1f}l4 7h-8Z",
        "down": f"M{px:.1f} {py + 8:.1f}l4 -7h-8Z",
        "diamond": f"M{px:.1f} {py - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5Z",
    }[shape]
    form = '<path class="{s}" d="{d}"><title>{t}</title></path>'
    return Markup(form).format(s=style, d=drawn, t=title)


def words(x: float, y: float, text: str, style: str) -> Markup:
    return Markup('<text class="{s}" x="{x:.1f}" y="{y:.1f}">{t}</text>').format(
        s=style, x=x, y=y, t=text
    )


def picture(frame: Frame, pixels: NDArray[np.uint8]) -> Markup:
    """An image [height, width, 3] stretched over the frame."""
    data = base64.b64encode(png_of(pixels)).decode()
    form = (
        '<image x="{x}" y="{y}" width="{w}" height="{h}" preserveAspectRatio="none" '
        'href="data:image/png;base64,{d}"/>'
    )
    return Markup(form).format(
        x=frame.left, y=TOP, w=frame.right - frame.left, h=frame.bottom - TOP, d=data
    )


def png_of(pixels: NDArray[np.uint8]) -> bytes:
    """An RGB image [height, width, 3] as PNG."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within a range: steps of 1, 2 or 5 times a power of ten."""
    low, high = min(low, high), max(low, high)
    span = high - low
    if not span > 0 or not np.isfinite(span):
        return [low]
    raw = span / most
    power = 10.0 ** np.floor(np.log10(raw))
    step = min((k * power for k in (1, 2, 5, 10)), key=lambda step: abs(span / step - most))
    first = np.ceil(low / step - 1e-9)
    return [float(i * step) + 0.0 for i in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """0 and powers of ten, for an axis of log(x + 1)."""
    powers = [10.0**k for k in range(16) if low <= 10.0**k <= high]
    powers = powers[:: 1 + len(powers) // 7]
    return [0.0, *powers] if low <= 0 else powers or [low]


def number(value: float) -> str:
    """A tick's label: 8000, 150k, 2M, 0.25, 0.00015, 2e12."""
    for least, size, sign in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if least <= abs(value) < 1e10:
            return f"{value / size:.6g}{sign}"
    if value and not 1e-3 <= abs(value) < 1e10:
        head, _, power = f"{value:.3g}".partition("e")
        return f"{head}e{int(power)}" if power else head
    return f"{value:.6g}"


def _axes(frame: Frame, x_label: str, y_label: str) -> Markup:
    parts = []
    for y in ticks(*frame.y, 4) if frame.y[0] != frame.y[1] else ():
        py = float(frame.at_y(y))
        form = '<path class="grid" d="M{a} {y:.1f}H{b}"/>'
        parts.append(Markup(form).format(a=frame.left, b=frame.right, y=py))
        parts.append(words(frame.left - 4, py + 3.5, number(y), "tick end"))
    marks = log_ticks(*frame.x) if frame.log else ticks(*frame.x, 5 if frame.width < 500 else 8)
    for x in marks:
        px = float(frame.at_x(x))
        form = '<path class="axis" d="M{x:.1f} {y}v4"/>'
        parts.append(Markup(form).format(x=px, y=frame.bottom))
        parts.append(words(px, frame.bottom + 14, number(x), "tick middle"))
    form = '<path class="axis" d="M{a} {y}H{b}"/>'
    parts.append(Markup(form).format(a=frame.left, b=frame.right, y=frame.bottom))
    middle = 0.5 * (frame.left + frame.right)
    parts.append(words(middle, frame.height - 5, x_label, "label middle"))
    if y_label:
        parts.append(words(2, 9, y_label, "label"))
    return Markup("").join(parts)


def _path(px: Floats, py: Floats, digits: int = 2) -> str:
    known = np.isfinite(px) & np.isfinite(py)
    xs, ys = np.round(px, 1), np.round(py, digits)
    return "".join(
        "M" + "L".join(f"{a:g} {b:g}" for a, b in zip(xs[p].tolist(), ys[p].tolist(), strict=True))
        for p in _stretches(known)
    )


def _stretches(known: NDArray[np.bool_]) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.r_[False, known, False].astype(np.int8)))
    return [slice(a, b) for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]
