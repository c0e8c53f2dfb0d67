"""What else happened in training, for charts: restarts, learning rates, epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ndt_offline.store.results import Results

MOST = 40  # drawn of one kind; of more, every n-th
_SAID = {"restart": "restart", "learning rate": "learning rate changes", "epoch": "epoch begins"}


@dataclass(frozen=True)
class Marks:
    """One kind of mark: its training steps as drawn, of how many only every n-th."""

    kind: str
    steps: tuple[int, ...]
    every: int

    @property
    def style(self) -> str:
        """Its class in the page."""
        return self.kind.replace(" ", "-")

    @property
    def said(self) -> str:
        """For a legend: what the mark is, and whether only some are drawn."""
        words = _SAID.get(self.kind, self.kind)
        return words if self.every == 1 else f"{words} (one in {self.every} drawn)"

    def words(self, step: int) -> str:
        return f"{_SAID.get(self.kind, self.kind)} at step {step}"


def marks_of(results: Results) -> list[Marks]:
    """The marks that the newest answers know, a kind each, in the order of the store."""
    group = results.answer("events")
    known = dict(group.attrs).get("marks", {}) if group is not None else {}
    return list(_thinned(known))


def _thinned(known: dict[str, list[int]]) -> Iterator[Marks]:
    for kind, steps in known.items():
        every = -(-len(steps) // MOST)
        if every:
            yield Marks(kind, tuple(int(step) for step in steps[::every]), every)
