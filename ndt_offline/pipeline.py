"""The story of an analysis: discover, plan, replay, derive, report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import UsageError
from ndt_offline.execute.driven import put_driven
from ndt_offline.execute.estimate import check_fits, estimate
from ndt_offline.execute.keeping import check_kept
from ndt_offline.execute.lock import locked
from ndt_offline.execute.plan import Plan, make_plan, remember_chunks
from ndt_offline.execute.question import Question
from ndt_offline.execute.readiness import check_time, job_of, ready_store
from ndt_offline.execute.refusal import refusals
from ndt_offline.execute.remarks import notes_of, problems_of
from ndt_offline.execute.signals import check_targets, put_signals
from ndt_offline.execute.standing import computed, known_measures, remember_refused
from ndt_offline.execute.telling import left_out, measure_notes, rounding_note
from ndt_offline.measure.catalogue import choose_measures
from ndt_offline.replay.device import check_device, find_device
from ndt_offline.replay.mark import space_keys
from ndt_offline.replay.setup import Parameters, Setup, prepare, setup_key
from ndt_offline.run.attempt import Problem
from ndt_offline.run.reader import open_run
from ndt_offline.storage.location import locate
from ndt_offline.store import schema
from ndt_offline.store.damage import reading
from ndt_offline.store.ownership import take, undisturbed
from ndt_offline.store.results import Results

if TYPE_CHECKING:
    from ndt_offline.execute.replay_all import Executor
    from ndt_offline.report.baselines import Comparison
    from ndt_offline.report.failures import Signature

Progress = Callable[[str, int, int], None]  # what is being done, rows done, rows in all


@dataclass(frozen=True)
class Result:
    """What an analysis gives.

    store: path of the Zarr store. table: one dictionary per series (space, layer, metric), the
    same as `ndt-analyze --json` prints. problems: what could not be used, and why. report: the
    HTML file, if one was written. signs: of failure. alerts: the rules that were met, as sentences.
    command: what makes it again. baseline: where the run leaves the bands of healthy ones, if that
    was asked.
    """

    run: str
    store: Path
    table: list[dict[str, Any]]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    replayed: int = 0
    report: Path | None = None
    signs: list[Signature] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    command: str = ""
    baseline: Comparison | None = None

    @property
    def results(self) -> Results:
        """The store, opened for reading."""
        return Results(self.store)

    @property
    def exit_code(self) -> int:
        """0 all well, 3 finished but some input could not be used, 4 a rule was met."""
        return 4 if self.alerts else 3 if self.problems else 0


def analyze(
    path: str | Path,
    *,
    out: str | Path | None = None,
    parameters: Parameters | None = None,
    executor: Executor | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    report: bool = True,
    fail_on: Sequence[str] = (),
    measures: Sequence[str] | None = None,
    command: str = "",
    baseline: str | None = None,
    replace: bool = False,
    workers: int | None = None,
    **question: Any,
) -> Result:
    """Analyse one run: what `ndt-analyze PATH` does.

    out: the store, `analysis.zarr` in the run by default.
    parameters: of the replay (layers, shapes, centring); another choice replays anew.
    replace: whether that may give up what the store holds; else it is refused.
    executor: where blocks run, by default in this process.
    device: what replays: cpu, cuda, cuda:N, or auto. A store may be gone on with on another.
    report: write report.html beside the store (as OUT.html where `out` is given).
    command: how the report says that it was made.
    measures: what is computed beside the spectra, names of `MEASURES` or package.module:function;
        None is what the store has already.
    baseline: name of healthy runs to compare with, see `report.baselines`.
    workers: processes for what is derived from the spectra, by default one per core.
    fail_on: rules such as "stable_rank(layer2) < 2", see `report.alerts`.
    question: fields of `Question`: metrics, detector, threshold, draws, seed, smooth, ...

    What is already in the store is not computed again: a new threshold opens no checkpoint.
    Raises UsageError for what cannot be opened; unusable checkpoints are in `.problems`.
    """
    from ndt_offline.report import baselines
    from ndt_offline.report.alerts import check_rules, parse_rule
    from ndt_offline.report.failures import find_signatures, signature_lines
    from ndt_offline.report.ownership import check_replaceable
    from ndt_offline.report.summary import summary_rows

    asked, rules = Question(**question), [parse_rule(text) for text in fail_on]
    told = progress or (lambda what, done, total: None)
    parameters = parameters or Parameters()

    asked.check()
    check_device(device)
    run = open_run(path)
    check_targets(asked.targets, run)
    if baseline is not None:
        baselines.read_all(baseline)
    store = _store_path(out) if out else run.path / "analysis.zarr"
    page = _report_path(store, named=out is not None) if report else None
    if page is not None:
        check_replaceable(page)
    with reading(store), ExitStack() as watched:
        with locked(store):
            key = setup_key(run, parameters)
            chosen = choose_measures(known_measures(store) if measures is None else measures)
            plan = make_plan(run, store, key, measures=chosen)
            if not plan.idle:
                setup = prepare(run, parameters)
                refused = refusals(chosen, setup, run)
                fit = {spec: m for spec, m in chosen.items() if spec not in refused}
                plan = make_plan(run, store, key, space_keys(setup), fit)
                check_fits(estimate(setup, plan), store)
                # Still `auto`: workers elsewhere, which may have a GPU.
                check_time(setup, _device(device, executor).replace("auto", "cuda"))
                if not replace:
                    check_kept(run, plan, store, setup)
                with reading(store, always=not plan.create):
                    token = _replay(store, plan, setup, executor, told, device)
                    remember_refused(Results(store, token), chosen, refused)
            else:
                token = take(store)
            results = Results(store, token)
            watched.enter_context(undisturbed(store, token))
            put_driven(results, chosen)
            asked = dataclasses.replace(asked, measures=computed(results, chosen))
            remember_chunks(results)
            put_signals(run, results)
            told("deriving", 0, 0)
            _derive(results, token, asked, workers)

        table = summary_rows(results)
        signs = find_signatures(results, table)
        beside = None
        if baseline is not None:
            beside = baselines.compare(baselines.find(baseline, results), results)
        result = Result(
            run=str(run.path),
            store=store,
            table=table,
            problems=[*run.problems, *problems_of(run, results), *left_out(results, chosen)],
            notes=[
                *notes_of(run, results),
                *rounding_note(results, plan.spectra),
                *measure_notes(results, chosen),
                *signature_lines(signs),
            ],
            replayed=plan.todo,
            report=page,
            signs=signs,
            alerts=check_rules(rules, results, table, beside, signs),
            command=command or f"ndt-analyze {run.path}",
            baseline=beside,
        )
        if result.report is not None:
            from ndt_offline.report.html import write_report

            told("drawing", 0, 0)
            write_report(result, result.report)
        return result


def _replay(
    store: Path,
    plan: Plan,
    setup: Setup,
    executor: Executor | None,
    told: Progress,
    device: str,
) -> str:
    """Bring the store to the run's present rows, and every row to `done`; returns its token."""
    job = job_of(plan, setup, store, _device(device, executor))
    ready_store(job, plan)
    if not plan.blocks:
        return job.token
    from ndt_offline.execute.replay_all import in_process

    count = _Counter(plan.todo, told)
    with closing((executor or in_process)(job, plan.blocks, count)) as reports:
        for report in reports:
            count.failed += len(report.problems)
    return job.token


def _device(asked: str, executor: Executor | None) -> str:
    """What the job is told; RefusedError where this machine, which replays, has no such device."""
    from ndt_offline.execute.replay_all import Cluster

    if isinstance(executor, Cluster):
        return asked  # its workers know what they have
    found = find_device(asked)
    return found.partition(":")[0] if asked == "auto" else asked


def _derive(results: Results, token: str, asked: Question, workers: int | None) -> None:
    from threadpoolctl import threadpool_limits

    from ndt_offline.execute.derive import derive

    schema.forget_consolidated(results.path)
    with threadpool_limits(limits=1):
        derive(results, asked, workers)
    schema.consolidate(results.path, token)


def _store_path(out: str | Path) -> Path:
    store = locate(out)
    if store.name in ("", ".."):
        raise UsageError("is no name for a store", path=out, remedy="--out analysis.zarr")
    return store


def _report_path(store: Path, named: bool) -> Path:
    return store.with_name(f"{store.name}.html" if named else "report.html")


class _Counter:
    """Rows begun, told on; a block that runs twice counts once."""

    def __init__(self, total: int, told: Progress) -> None:
        self.done, self.failed, self.total, self.told = 0, 0, total, told
        told("replaying", 0, total)

    def __call__(self, rows: int) -> None:
        self.done = min(self.done + rows, self.total)
        what = f"replaying, {self.failed} unusable" if self.failed else "replaying"
        self.told(what, self.done, self.total)
