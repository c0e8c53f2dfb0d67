"""A segment: what the next checkpoint is predicted from, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ndt_offline.run import grid
from ndt_offline.run.layout import Layout, Vectors

LENGTH = 32  # checkpoints, those stored raw or dropped included: a reader decodes at most these


@dataclass(frozen=True)
class Segment:
    """A keyframe and what followed. `first` is the number of its first checkpoint."""

    first: int
    layout: str
    before: tuple[tuple[int, Vectors], ...] = ()  # (step, vectors), newest first
    grid: dict[str, list[int | None]] | None = None

    def holds(self, number: int, step: int, layout: Layout) -> bool:
        """Whether the checkpoint of this number can be coded here: never on later ones."""
        later = bool(self.before) and self.before[0][0] >= step
        inside = self.first <= number < self.first + LENGTH
        return layout.key == self.layout and inside and not later

    def after(self, step: int, vectors: Vectors) -> Segment:
        return replace(self, before=((step, vectors), *self.before)[:2])


def on_grid(
    segment: Segment, number: int, layout: Layout, vectors: Vectors, digits: int
) -> tuple[Segment, Vectors]:
    """The vectors rounded to the segment's grid; a new segment where they do not fit it."""
    known, coarse = grid.round_to(segment.grid, layout, vectors, digits)
    if segment.grid is not None and known is not segment.grid:
        segment = Segment(number, layout.key)
    return replace(segment, grid=known), coarse
