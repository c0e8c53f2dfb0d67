"""Forks: independent pieces of work in children of this process, on all cores.

For what follows from stored spectra: it needs neither torch nor Dask, and a fork costs
milliseconds and shares what is loaded. What the work takes in memory goes with the children.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from ndt_offline.execute.guard import CAN_FORK, die_with_parent, fork, portable
from ndt_offline.replay.processors import cores

T = TypeVar("T")
AHEAD = 2  # pieces that a child has been given at most: it never waits for the next one


def in_forks(
    task: Callable[[int], T], count: int, workers: int | None = None, loads: Iterable[str] = ()
) -> list[T]:
    """[task(0), ..., task(count - 1)], computed in children; the order of work is not said.

    workers: children at most, default one per core. The task may use whatever the caller has in
    memory, must not print, and returns what can be pickled. Its errors are raised here. A piece
    whose child was killed is computed in this process.
    loads: modules that the task imports: once, here, and not in every child of every call.
    """
    if not CAN_FORK or not count:
        return [task(number) for number in range(count)]
    for name in loads:
        import_module(name)
    found: dict[int, T] = {}
    waiting = deque(range(count))
    children = [_start(task) for _ in range(min(workers or cores(), count))]
    given: dict[Connection, deque[int]] = {pipe: deque() for _, pipe in children}
    try:
        for _ in range(AHEAD):
            for pipe in list(given):
                _give(pipe, waiting, given)
        while any(given.values()):
            for ready in wait([pipe for pipe, numbers in given.items() if numbers]):
                _take(ready, waiting, given, found)  # type: ignore[arg-type]
    finally:
        _end(children)
    return [found[number] if number in found else task(number) for number in range(count)]


def _give(pipe: Connection, waiting: deque[int], given: dict[Connection, deque[int]]) -> None:
    if waiting:
        number = waiting.popleft()
        given[pipe].append(number)
        try:
            pipe.send(number)
        except OSError:  # it died; reading from it says so next
            return


def _take(
    pipe: Connection,
    waiting: deque[int],
    given: dict[Connection, deque[int]],
    found: dict[int, Any],
) -> None:
    """One result, and the next piece for who sent it; from a dead one its pieces stay undone."""
    try:
        result, error = pipe.recv()
    except (EOFError, OSError):
        given[pipe].clear()
        return
    if error is not None:
        raise error
    found[given[pipe].popleft()] = result
    _give(pipe, waiting, given)


def _start(task: Callable[[int], Any]) -> tuple[int, Connection]:
    mine, theirs = Pipe()
    child = fork()
    if child == 0:
        mine.close()
        _child(task, theirs)  # does not return
    theirs.close()
    return child, mine


def _child(task: Callable[[int], Any], pipe: Connection) -> None:
    try:
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        while True:
            number = pipe.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = (task(number), None)
            except Exception as error:
                answer = (None, portable(error))
            pipe.send(answer)
    finally:
        os._exit(0)  # without the parent's exit handlers and buffers


def _end(children: list[tuple[int, Connection]]) -> None:
    for child, pipe in children:
        os.kill(child, signal.SIGKILL)  # not yet reaped, so the number is still its own
        os.waitpid(child, 0)
        pipe.close()
