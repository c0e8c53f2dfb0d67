"""One task: a block of rows replayed and written to the store, the marks last.

A block is one chunk along `step`. Rows already done are read back and written again with the
rest, so that a chunk is always written whole; the mark that a row is done is written after
everything it speaks of. A task that is run twice finds its marks and computes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ndt_offline.errors import DamagedError, NdtError
from ndt_offline.measure.catalogue import choose_measures
from ndt_offline.replay.batch import BatchReplayer
from ndt_offline.replay.chunk import Chunk, written_arrays
from ndt_offline.replay.device import find_device
from ndt_offline.replay.footprint import peak_memory
from ndt_offline.replay.forward import Replayer, Row
from ndt_offline.replay.group import Group
from ndt_offline.replay.job import Job
from ndt_offline.replay.lanes import ROWS, make_lanes
from ndt_offline.replay.ledger import stored_parts
from ndt_offline.replay.mark import Block, BlockReport, bad_mark, row_mark
from ndt_offline.replay.setup import Setup
from ndt_offline.replay.survey import Survey
from ndt_offline.replay.tridiagonal import find_reduction
from ndt_offline.replay.witness import FAULTS, Watch, make_witness
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.reader import Decoder, Run
from ndt_offline.storage.location import locate
from ndt_offline.store.schema import OUTCOME, Space

Starting = Callable[[int], None]  # told the row before it is begun, and -1 at the end


@dataclass(frozen=True)
class Needs:
    """What a row still lacks: spectra of these spaces, these measures.

    waits: whether its layers may wait to be solved together with those of other rows.
    """

    spaces: frozenset[str]
    measures: tuple[str, ...] = ()
    waits: bool = True


Ended = tuple[int, Needs, str, Row]  # a row, what it lacked, its outcome and results


class BlockRunner:
    """Replays blocks of one run into one store; kept by a process for all its blocks."""

    def __init__(self, job: Job) -> None:
        self._job, self._setup = job, job.setup
        self._run = Run(locate(self._setup.run), [], [])
        self._device = find_device(job.device)
        self._arrays = cache(lambda: written_arrays(job))
        self._ledgers = cache(self._open_ledgers)
        self._replayer = cache(self._make_replayer)
        self._batches = cache(self._make_batches)
        self._group = Group()
        compiled = job.compiled and self._device == "cpu"
        self._lanes = make_lanes() if compiled else None
        self._reduction = find_reduction() if compiled else None
        self._measures = choose_measures(tuple(job.measures))
        self._witness = make_witness(self._run, self._setup, self._measures, self._pass)

    def __call__(self, block: Block, starting: Starting = lambda row: None) -> BlockReport:
        started = time.perf_counter()
        chunk = Chunk(self._job, block, self._arrays())
        decoder = Decoder(self._run.path, (*block.before, *block.entries))
        watched = self._witness, self._measures, self._ledgers()
        survey = Survey(self._job, block, decoder, *watched)
        given_up = dict(block.given_up)
        problems: list[tuple[int, str]] = []
        ended: list[Ended] = []
        for row in block.todo:
            stands, measures = self._stands(chunk, block, row), survey.lacking(row)
            if stands and not measures:
                continue
            needs = Needs(frozenset() if stands else self._needs(chunk, block, row), measures)
            if row in given_up:
                needs = replace(needs, spaces=chunk.spaces)
                outcome, result = "failed", self._none(given_up[row])
            elif not needs.spaces and not measures:
                outcome, result = "ok", self._none("")
            else:
                starting(row)
                self._survey = survey
                outcome, result = self._one(decoder, block, row, needs)
            survey.put(row, measures, "" if outcome == "ok" else result.problem)
            if result.problem:
                problems.append((block.entries[row - block.start].step, result.problem))
            if not stands:
                ended.append((row, needs, outcome, result))
            if self._lanes is None or len(ended) == ROWS:
                problems += self._keep(ended, chunk, decoder, block, starting)
                ended = []
        problems += self._keep(ended, chunk, decoder, block, starting)
        starting(-1)
        survey.write()
        chunk.write()
        seconds = time.perf_counter() - started
        return BlockReport(block.start, len(block.todo), seconds, tuple(problems), peak_memory())

    def measure(self, block: Block, rows: int, spectra: bool = True) -> float:
        """Seconds per row, nothing written: what a plan can be made with.

        One row is replayed before the time is taken: it loads libraries, and what measures look
        back at. spectra: without them, what measures take that are added to a store.
        """
        decoder = Decoder(self._run.path, (*block.before, *block.entries))
        survey = Survey(self._job, block, decoder, self._witness, self._measures, {})
        spaces = frozenset(self._job.keys) if spectra else frozenset[str]()
        self._try(survey, decoder, block, block.todo[0], spaces)
        tried = block.todo[1 : rows + 1] or block.todo[:1]
        return sum(self._try(survey, decoder, block, r, spaces) for r in tried) / len(tried)

    def _try(
        self, survey: Survey, decoder: Decoder, block: Block, row: int, spaces: frozenset[str]
    ) -> float:
        """Seconds of one row; a device takes several at once."""
        entry, names, seconds = block.entries[row - block.start], tuple(self._measures), 0.0
        started = time.perf_counter()
        with suppress(NdtError, *FAULTS):
            decoded = decoder.read(entry)
            if self._device != "cpu" and spaces:
                replayer = self._batches(spaces)
                replayer.measure(decoded)
                seconds = (time.perf_counter() - started) / replayer.size
                started, spaces = time.perf_counter(), frozenset()
            watch = survey.begin(row, names)
            if spaces or watch is not None:
                self._replayer(spaces, watch is not None).measure(decoded, watch)
            if names:
                survey.finish(row, decoded, "")
        return seconds + time.perf_counter() - started

    def _stands(self, chunk: Chunk, block: Block, row: int) -> bool:
        """Whether a row is done as it is: this task ran before, and died or was lost after it."""
        mark, key = chunk.mark(row), self._setup.key
        if not mark:
            return False
        if chunk.outcome(row) == OUTCOME["ok"]:
            return mark == row_mark(key, block.entries[row - block.start])
        return mark == bad_mark(key, block.window(row))

    def _needs(self, chunk: Chunk, block: Block, row: int) -> frozenset[str]:
        """The spaces in which a row is not done: all of them where it could not be used before."""
        if chunk.outcome(row) != OUTCOME["ok"]:
            return chunk.spaces
        entry, keys = block.entries[row - block.start], self._job.keys
        marks = {space: row_mark(key, entry) for space, key in keys.items()}
        return frozenset(s for s, mark in marks.items() if chunk.measured(row, s) != mark)

    def _keep(
        self,
        ended: list[Ended],
        chunk: Chunk,
        decoder: Decoder,
        block: Block,
        starting: Starting,
    ) -> list[tuple[int, str]]:
        """Put rows that have come to their end; the (step, problem) of those that had to do more.

        A row whose small values are seen in the matrix alone is measured again, by itself.
        """
        lost = {id(row) for row in self._lanes.settle()} if self._lanes and ended else set()
        problems = []
        for row, needs, outcome, result in ended:
            if id(result) in lost:
                starting(row)
                needs = replace(needs, measures=(), waits=False)
                known, (outcome, result) = result, self._one(decoder, block, row, needs)
                if result.problem != known.problem:
                    problems.append((block.entries[row - block.start].step, result.problem))
            self._put(chunk, block, row, needs.spaces, outcome, result)
        return problems

    def _one(self, decoder: Decoder, block: Block, row: int, needs: Needs) -> tuple[str, Row]:
        entry = block.entries[row - block.start]
        try:
            watch = self._survey.begin(row, needs.measures)
            decoded, unseen = None, ""
            if self._device == "cpu":
                decoded = decoder.read(entry)
                replayer = self._replayer(needs.spaces, watch is not None)
                lanes = self._lanes if needs.waits else None
                more = (watch, lanes) if watch or lanes else ()
                result = replayer.measure(decoded, *more)
            else:
                result = self._on_device(decoder, block, row, needs.spaces)
                if watch is not None:  # measures look at activations here
                    unseen = self._pass(decoder.read(entry), watch)
            if needs.measures:
                decoded = decoded or decoder.read(entry)
                self._survey.finish(row, decoded, result.problem or unseen)
        except NdtError as error:
            damaged = isinstance(error, DamagedError)
            problem = f"{error.path or entry.path}: {error.what}"
            return ("damaged" if damaged else "refused"), self._none(problem)
        except (ArithmeticError, MemoryError, ValueError, RuntimeError) as error:
            what = str(error) or "out of memory"
            return "failed", self._none(f"{entry.path}: {type(error).__name__}: {what}")
        return ("failed" if result.problem else "ok"), result

    def _on_device(self, decoder: Decoder, block: Block, row: int, spaces: frozenset[str]) -> Row:
        if not spaces:
            return self._none("")
        return self._group.measure(self._batches(spaces), decoder, block, row, spaces)

    def _pass(self, decoded: Decoded, watch: Watch) -> str:
        """The probe through a checkpoint that a measure looks at; what went wrong, or nothing."""
        return self._replayer(frozenset(), True).measure(decoded, watch).problem

    def _open_ledgers(self) -> dict[str, dict[str, Any]]:
        keys, measures = self._job.measures, self._measures.items()
        return {spec: stored_parts(self._job, m.name, keys[spec]) for spec, m in measures}

    def _make_batches(self, spaces: frozenset[str]) -> BatchReplayer:
        return BatchReplayer(self._run, only(self._setup, spaces), self._device)

    def _make_replayer(self, spaces: frozenset[str], watched: bool) -> Replayer:
        reached = spaces | {"activations"} if watched else spaces
        return Replayer(self._run, only(self._setup, reached), spaces, self._reduction)

    def _none(self, problem: str) -> Row:
        row = Row.empty(self._setup.spaces)
        row.problem = problem
        return row

    def _put(
        self,
        chunk: Chunk,
        block: Block,
        row: int,
        needs: frozenset[str],
        outcome: str,
        result: Row,
    ) -> None:
        entry, key = block.entries[row - block.start], self._setup.key
        good = outcome == "ok"
        mark = row_mark(key, entry) if good else bad_mark(key, block.window(row))
        marks = {s: row_mark(self._job.keys[s], entry) if good else 0 for s in chunk.spaces}
        chunk.put(row, needs, OUTCOME[outcome], result, mark, marks)


def only(setup: Setup, needs: frozenset[str]) -> Setup:
    """The same replay, measuring these spaces alone."""
    none = tuple(Space(s.name, s.layers if s.name in needs else ()) for s in setup.spaces)
    activations = setup.activations if "activations" in needs else ()
    return replace(setup, activations=activations, spaces=(none[0], none[1]))
