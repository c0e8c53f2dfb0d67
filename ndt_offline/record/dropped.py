"""The steps whose weights were not stored: kept by the trainer until the writer has heard of them.

The first are told with their scalars, a few with every checkpoint; what is left at the end goes as
ranges, which have room for any number: steps that follow a schedule are few ranges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

AT_ONCE = 40  # told with one message
NAMED = 10_000  # kept with their scalars
ROOM = 8000  # characters of them
RANGES = 200  # at the end

Told = list[tuple[int, dict[str, Any]]]


class Dropped:
    """Counts dropped steps, and hands them on."""

    def __init__(self) -> None:
        self.count = 0
        self._named: Told = []
        self._ranges: list[list[int]] = []  # first, last, stride

    def add(self, step: int, record: dict[str, Any]) -> None:
        self.count += 1
        if len(self._named) < NAMED:
            self._named.append((step, record))
        else:
            _extend(self._ranges, step)

    @property
    def untold(self) -> int:
        return len(self._named) + sum(1 for _ in _steps(self._ranges))

    def some(self) -> Told:
        """What the next message has room for; `told` when it has gone."""
        some = self._named[:AT_ONCE]
        while some and len(json.dumps(some)) > ROOM:  # one alone goes without its scalars
            some = some[: len(some) // 2] if len(some) > 1 else [(some[0][0], {})]
        return some

    def told(self, count: int) -> None:
        del self._named[:count]

    def clear(self) -> None:
        self._named, self._ranges = [], []

    def rest(self) -> dict[str, Any]:
        """All that is left, for the last message."""
        named, ranges = self.some(), list[list[int]]()
        for step, _ in self._named[len(named) :]:
            _extend(ranges, step)
        return {"dropped_steps": named, "dropped_ranges": (ranges + self._ranges)[:RANGES]}


def rest_of(said: dict[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The steps of a last message, taken out of it."""
    yield from said.pop("dropped_steps", [])
    yield from ((step, {}) for step in _steps(said.pop("dropped_ranges", [])))


def _extend(ranges: list[list[int]], step: int) -> None:
    if ranges:
        first, last, stride = ranges[-1]
        if first == last or step - last == stride:
            ranges[-1] = [first, step, step - last]
            return
    ranges.append([step, step, 1])


def _steps(ranges: list[list[int]]) -> Iterator[int]:
    for first, last, stride in islice(ranges, RANGES):
        yield from range(first, last + 1, stride)
