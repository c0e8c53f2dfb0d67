"""Measures beside the spectra: their numbers, what they leave alone, what they are refused for."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from zarr.storage import LocalStore

from ndt_offline import Recorder, analyze, open_run
from ndt_offline.errors import DamagedError, UsageError
from ndt_offline.execute.replay_all import in_process
from ndt_offline.execute.standing import measure_keys
from ndt_offline.measure.catalogue import MEASURES, choose_measures
from ndt_offline.replay.capture import Capture
from ndt_offline.replay.history import CHAIN
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import BACK, Block, BlockReport
from ndt_offline.replay.numbers import Numbers
from ndt_offline.replay.setup import Parameters
from ndt_offline.report.export import write_netcdf
from ndt_offline.report.tidy import tidy_table
from ndt_offline.run.reader import Decoder
from ndt_offline.store.measures import drop_measures
from ndt_offline.store.results import Results
from ndt_offline.store.schema import open_root
from tests.conftest import record_small, small_model

QUICK = {
    "metrics": ("stable_rank",), "detector": "zscore", "draws": 0, "phase_draws": 0, "phases": (),
    "report": False,
}  # fmt: skip
ASKED = (
    "motion", "similarity", "units", "separability",
    "gradients", "noise_scale", "learning_rate", "curvature",
)  # fmt: skip


def looked_at(run: Path, measures: Sequence[str] | None = ASKED, **more: object) -> Results:
    return analyze(run, measures=measures, **(QUICK | more)).results  # type: ignore[arg-type]


def arrays(results: Results) -> dict[str, np.ndarray]:
    found = {}
    for name, group in results.measures.items():
        found |= {f"{name}/{part}": group[part][:] for part in ("values", "mark", "problem")}
    return found


def assert_same(one: Results, other: Results) -> None:
    a, b = arrays(one), arrays(other)
    assert a.keys() == b.keys() and a
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_motion_is_what_its_formulas_say(run_path: Path) -> None:
    results, run = looked_at(run_path, ["motion"]), open_run(run_path)
    states = [run.checkpoint(step)["0.weight"].double() for step in run.steps]
    for row in (1, 40, 63, 64, 65, 80):
        now, before = states[row], states[row - 1]
        update = (now - before).norm()
        values = {
            "update_norm": update,
            "relative_update": update / before.norm(),
            "distance": (now - states[0]).norm(),
        }
        if row > 1:
            pair = ((now - before).ravel(), (before - states[row - 2]).ravel())
            values["update_cosine"] = torch.cosine_similarity(*pair, dim=0)
        for name, value in values.items():
            got = results.series("weights", "0.weight", name)[row]
            assert got == pytest.approx(float(value), rel=1e-9), (row, name)
    assert np.isnan(results.series("weights", "0.weight", "update_norm")[0])
    assert results.series("weights", "0.weight", "distance")[0] == 0


def test_similarity_compares_the_rows_it_says(run_path: Path) -> None:
    results, run = looked_at(run_path, ["similarity", "similarity_last"]), open_run(run_path)
    from safetensors.torch import load_file

    probe = load_file(run_path / "probe.safetensors")["x"]

    def outputs(step: int) -> np.ndarray:
        model = small_model()
        model.load_state_dict(run.checkpoint(step))
        with torch.no_grad():
            first: torch.Tensor = model[0](probe)
        return first.double().numpy()

    def cka(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a - a.mean(0), b - b.mean(0)
        k, other = a @ a.T, b @ b.T
        return float((k * other).sum() / np.sqrt((k * k).sum() * (other * other).sum()))

    for row in (1, 64, 80):
        pairs = {"cka_previous": run.steps[row - 1], "cka_first": 0, "cka_last": run.steps[-1]}
        for name, step in pairs.items():
            got = results.series("activations", "0", name)[row]
            assert got == pytest.approx(cka(outputs(run.steps[row]), outputs(step)), abs=1e-6)


def test_gradients_and_curvature_are_those_of_the_probes_loss(run_path: Path) -> None:
    from safetensors.torch import load_file

    results = looked_at(run_path, ["gradients", "noise_scale", "learning_rate", "curvature"])
    run, probe = open_run(run_path), load_file(run_path / "probe.safetensors")
    for row in (9, 64):
        model = small_model()
        model.load_state_dict(run.checkpoint(run.steps[row]))
        names = [name for name, _ in model.named_parameters()]
        flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().double()

        def loss(vector: torch.Tensor, model: torch.nn.Module = model) -> torch.Tensor:
            parts = vector.split([p.numel() for p in model.parameters()])
            shaped = [v.reshape(p.shape) for v, p in zip(parts, model.parameters(), strict=True)]
            weights = dict(zip(names, shaped, strict=True))  # noqa: B023
            output = torch.func.functional_call(model, weights, probe["x"].double())
            return torch.nn.functional.cross_entropy(output, probe["y"])

        slope = torch.func.grad(loss)(flat)
        first = slope[: model[0].weight.numel()].norm()  # type: ignore[union-attr, operator]
        got = results.series("weights", "0.weight", "probe_gradient")[row]
        assert got == pytest.approx(float(first), rel=1e-5)
        whole = results.series("model", "whole", "model_gradient")[row]
        assert whole == pytest.approx(float(slope.norm()), rel=1e-5)
        update = results.series("weights", "0.weight", "effective_rate")[row] * 5 * got
        motion = (run.checkpoint(run.steps[row])["0.weight"]
                  - run.checkpoint(run.steps[row - 1])["0.weight"]).norm()  # fmt: skip
        assert update == pytest.approx(float(motion), rel=1e-5)
        values, vectors = torch.linalg.eigh(torch.func.hessian(loss)(flat))
        top = results.series("model", "whole", "top_eigenvalue")[row]
        assert top == pytest.approx(float(values[-1]), rel=1e-3)
        share = float((vectors[:, -1] @ slope) ** 2 / (slope @ slope))
        got = results.series("model", "whole", "gradient_in_top")[row]
        assert got == pytest.approx(share, rel=1e-3)


class Tied(torch.nn.Module):
    """The graph knows the shared tensor by its first name, a checkpoint by `head.weight`."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.mid = torch.nn.Embedding(11, 6), torch.nn.Linear(6, 6)
        self.head = torch.nn.Linear(6, 11, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.mid(self.wte(tokens).mean(1))))  # type: ignore[no-any-return]


def test_a_tied_weight_has_its_gradient_under_either_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x, y = Tied(), torch.randint(0, 11, (16, 5)), torch.randint(0, 11, (16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    slopes = []
    with Recorder(tmp_path / "run", model, probe=(x, y)) as record:
        for _ in range(20):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            slopes.append(float(model.wte.weight.grad.norm()))  # type: ignore[union-attr]
            optimizer.step()
            record(loss=loss)
    results = looked_at(tmp_path / "run", ["gradients", "learning_rate"])
    assert {layer.name for layer in results.layers("weights")} >= {"head.weight"}
    got = results.series("weights", "head.weight", "probe_gradient")
    np.testing.assert_allclose(got[:-1], slopes[::5], rtol=1e-4)
    assert np.isfinite(results.series("weights", "head.weight", "effective_rate")[1:]).all()


class Normed(torch.nn.Module):
    """Floating inputs, and buffers that are in half precision with the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = torch.nn.Linear(12, 8), torch.nn.BatchNorm1d(8)
        self.two = torch.nn.Linear(8, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.norm(self.one(x))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Normed, Tied])
def test_upcast_gives_what_the_same_weights_give_in_single(
    tmp_path: Path, kind: type[torch.nn.Module]
) -> None:
    torch.manual_seed(0)
    model, y = kind().bfloat16(), torch.randint(0, 11, (16,))
    x = torch.randint(0, 11, (16, 5)) if kind is Tied else torch.randn(16, 12).bfloat16()
    found = []
    for name, wide in (("half", False), ("single", True)):
        given = x.float() if wide and x.is_floating_point() else x
        with Recorder(tmp_path / name, model.float() if wide else model, probe=(given, y)) as rec:
            for _ in range(10):
                rec(loss=1.0)
        parameters = Parameters(upcast=not wide)
        asked = ["gradients", "curvature"]
        result = analyze(tmp_path / name, measures=asked, parameters=parameters, **QUICK)  # type: ignore[arg-type]
        assert not result.problems, result.problems
        found.append(result.results)
    half, single = found
    for space in ("activations", "weights"):
        assert half.layers(space) == single.layers(space)
        np.testing.assert_allclose(half.spectra(space), single.spectra(space), rtol=1e-6)
    np.testing.assert_allclose(half.signal("probe_loss"), single.signal("probe_loss"), rtol=1e-6)
    for measure in ("gradients", "curvature"):
        assert np.isfinite(half.measured(measure)).any()
        np.testing.assert_allclose(half.measured(measure), single.measured(measure), rtol=1e-4)


def test_two_probes_and_their_gap(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x, y = small_model(), torch.randn(64, 12), torch.randint(0, 4, (64,))
    probes = {"probe": (x[:32], y[:32]), "val_probe": (x[32:], y[32:])}
    with Recorder(tmp_path / "run", model, **probes) as record:  # type: ignore[arg-type]
        for _ in range(50):
            record(loss=1.0)
    results = looked_at(tmp_path / "run", ["generalisation"])
    a, b, gap = (
        results.series("model", "whole", name)
        for name in ("loss_on_probe", "loss_on_second", "loss_gap")
    )
    np.testing.assert_array_equal(gap, b - a)
    np.testing.assert_array_equal(a, results.signal("probe_loss"))
    assert np.isfinite(gap).all()
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(write_netcdf(results, tmp_path / "run.nc")) as data:
        there = data["model_loss_gap"].sel(model_layer="whole").values
    np.testing.assert_array_equal(there, gap)


def test_a_measure_that_is_added_leaves_every_other_file_as_it_is(run_path: Path) -> None:
    store = looked_at(run_path, []).path
    before = files(store)
    results = looked_at(run_path, ["motion"])
    after = files(store)
    assert {name: after[name] for name in before} == before
    assert results.metric_names("weights")[-1] == "update_cosine"
    assert analyze(run_path, measures=["motion"], **QUICK).replayed == 0  # type: ignore[arg-type]
    motion = files(store, "measures/motion")
    looked_at(run_path, ["motion", "units"])
    assert files(store, "measures/motion") == motion


def files(store: Path, inside: str = "") -> dict[str, tuple[str, int]]:
    """{file: (hash, time)} of a store but for its root's attributes, and answers."""
    found = {}
    for path in sorted((store / inside).rglob("*")):
        name = path.relative_to(store).as_posix()
        if path.is_file() and name != "zarr.json" and not name.startswith("derived"):
            about = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns
            found[name] = about
    return found


def test_measured_together_or_one_by_one_is_the_same(run_path: Path, tmp_path: Path) -> None:
    names = ("motion", "similarity", "curvature")
    together = looked_at(run_path, names)
    other = tmp_path / "other.zarr"
    for name in names:
        looked_at(run_path, [name], out=other)
    assert_same(Results(other), together)


def test_an_interrupted_replay_gives_the_same(tmp_path: Path) -> None:
    record_small(tmp_path / "run", updates=500)
    whole = looked_at(tmp_path / "run", out=tmp_path / "whole.zarr")

    def first(job: Job, blocks: Sequence[Block], told: object) -> Iterator[BlockReport]:
        yield from islice(in_process(job, blocks[::-1], lambda rows: None), 1)

    looked_at(tmp_path / "run", executor=first, out=tmp_path / "part.zarr")
    marks = Results(tmp_path / "part.zarr").measures["motion"]["mark"][:]
    assert 0 < (marks != 0).sum() < len(marks)
    assert_same(looked_at(tmp_path / "run", out=tmp_path / "part.zarr"), whole)


def test_a_run_that_grows_gives_the_same(tmp_path: Path) -> None:
    record_small(tmp_path / "run", updates=400)
    whole = looked_at(tmp_path / "run", out=tmp_path / "whole.zarr")
    part = Path(shutil.copytree(tmp_path / "run", tmp_path / "part"))
    journal = part / "attempts/0001/journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for count in (30, 70, len(lines)):
        journal.write_bytes(b"".join(lines[:count]))
        results = looked_at(part, None if count > 30 else ASKED)
    # A part's raw checkpoints may be known by their time: only the marks may differ.
    for name, values in arrays(whole).items():
        if name.endswith("mark"):
            continue
        np.testing.assert_array_equal(arrays(results)[name], values, err_msg=name)


def damage(run: Path, step: int) -> Callable[[], object]:
    """One bit of a checkpoint is another; gives what takes that back."""
    entry = open_run(run).entry(step)
    assert entry.path is not None and entry.size is not None
    good = entry.path.read_bytes()
    at = (entry.offset or 0) + entry.size - 2
    entry.path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    return partial(entry.path.write_bytes, good)


def test_a_row_beside_a_damaged_one_says_what_it_lacks(run_path: Path) -> None:
    heal = damage(run_path, 165)
    results = looked_at(run_path, ["motion"])
    norms = results.series("weights", "0.weight", "update_norm")
    bad = np.flatnonzero(~results.usable)
    after = int(bad[-1]) + 1
    assert 165 in results.steps[bad] and after < len(norms)
    assert np.isnan(norms[bad]).all() and np.isnan(norms[after])
    assert np.isfinite(norms[[bad[0] - 1, after + 1]]).all()
    assert (
        "the previous row cannot be read"
        in dict(results.unmeasured("motion"))[int(results.steps[after])]
    )
    assert analyze(run_path, measures=["motion"], **QUICK).replayed == 0  # type: ignore[arg-type]
    heal()
    healed = looked_at(run_path, ["motion"])
    assert np.isfinite(healed.series("weights", "0.weight", "update_norm")[1:]).all()
    assert healed.unmeasured("motion") == []


def test_curvature_after_a_gap_is_found_again_when_the_gap_is_closed(run_path: Path) -> None:
    """Each row is started from the one before: all of a chain lack a lost row, not one of them."""
    whole = arrays(looked_at(run_path, ["curvature"], out=run_path / "whole.zarr"))
    heal = damage(run_path, 165)
    broken = looked_at(run_path, ["curvature"])
    lost = set(np.flatnonzero(~broken.usable).tolist())
    behind = {row for row in range(81) if lost & set(range(row - row % CHAIN, row))}
    told = {int(np.searchsorted(broken.steps, step)) for step, _ in broken.unmeasured("curvature")}
    assert 33 in lost and told == lost | behind
    heal()
    healed = arrays(looked_at(run_path, ["curvature"]))
    np.testing.assert_array_equal(healed["curvature/values"], whole["curvature/values"])


def test_rows_that_lack_the_last_one_are_computed_again_when_it_can_be_read(
    run_path: Path,
) -> None:
    """It builds on a file that was damaged, far from them and before it."""
    whole = arrays(looked_at(run_path, ["similarity_last"], out=run_path / "whole.zarr"))
    opened = open_run(run_path)
    for step in range(350, 400, 5):
        heal = damage(run_path, step)
        try:
            Decoder(run_path, opened.entries).read(opened.entries[-1])
        except DamagedError:
            break
        heal()
    else:
        pytest.skip("on a busy machine the last checkpoint may build on none")
    broken = looked_at(run_path, ["similarity_last"])
    assert len(broken.unmeasured("similarity_last")) == 81
    heal()
    healed = arrays(looked_at(run_path, ["similarity_last"]))
    np.testing.assert_array_equal(healed["similarity_last/values"], whole["similarity_last/values"])


def test_a_block_knows_what_the_rows_before_it_build_on(run_path: Path) -> None:
    entries = open_run(run_path).entries
    block = Block.of(entries, 64, 81, [64])
    for row in range(64 - BACK, 81):
        assert [e.step for e in block.window(row)] == [e.step for e in entries[row - 32 : row + 1]]


def test_a_row_behind_that_there_was_no_memory_for_is_tried_again(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = run_path / "attempts/0001/journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:45]))
    looked_at(run_path, ["similarity"])
    journal.write_bytes(whole)
    original = Capture.outputs

    def short(*given: Any, all_probes: bool = True) -> Any:
        if not all_probes:  # who only watches: the row behind
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return original(*given, all_probes=all_probes)

    monkeypatch.setattr(Capture, "outputs", short)
    results = looked_at(run_path, ["similarity"])
    said = {step: why for step, why in results.unmeasured("similarity") if "row behind" in why}
    assert said and all("allocate memory" in why for why in said.values())
    short_of = np.isin(results.steps, list(said))
    assert np.isnan(results.series("activations", "0", "cka_first")[short_of]).all()
    monkeypatch.undo()
    again = looked_at(run_path, ["similarity"])
    assert_same(again, looked_at(run_path, ["similarity"], out=tmp_path / "b.zarr"))


def test_what_a_kill_left_of_removed_groups_is_no_obstacle(run_path: Path) -> None:
    """A folder is not removed at once: its zarr.json may go first, arrays below it stay."""
    whole = arrays(looked_at(run_path, ["motion"]))
    store = open_run(run_path).path / "analysis.zarr"
    derived = [path for path in (store / "derived").iterdir() if path.is_dir()]
    for group in (store / "measures/motion", *derived):
        (group / "zarr.json").unlink()
    assert derived
    again = looked_at(run_path, ["motion"])
    for name, values in arrays(again).items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)
    assert len(tidy_table(again, "couplings")) > 0


def test_a_measure_that_was_half_removed_is_computed_again(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its zarr.json, with the key, may go last."""
    whole, cut = arrays(looked_at(run_path, ["motion"])), []

    async def delete_dir(store: LocalStore, prefix: str) -> None:
        cut.append(prefix)
        shutil.rmtree(store.root / prefix / "mark")
        raise OSError("cut off")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="cut off"):
        patched.setattr(LocalStore, "delete_dir", delete_dir)
        drop_measures(open_root(run_path / "analysis.zarr"), "weights", "another")
    assert cut == ["measures/motion"]
    found = arrays(looked_at(run_path, ["motion"]))
    assert found.keys() == whole.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)


def test_values_that_were_lost_of_a_measure_of_the_probe_are_computed_again(tmp_path: Path) -> None:
    x, y = torch.randn(40, 12), torch.randint(0, 4, (40,))
    with Recorder(
        tmp_path / "run", small_model(), probe=(x, y), val_probe=(x[:9], y[:9])
    ) as record:
        for _ in range(12):
            record(loss=1.0)
    whole = arrays(looked_at(tmp_path / "run", ["generalisation"]))
    shutil.rmtree(tmp_path / "run/analysis.zarr/measures/generalisation/values/c")
    found = arrays(looked_at(tmp_path / "run", ["generalisation"]))
    for name, values in found.items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)
    assert np.isfinite(found["generalisation/values"]).any()


def test_a_lost_chunk_of_some_layers_is_missed(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndt_offline.store.schema.MAX_CHUNK", 1)  # a chunk for each layer
    whole = looked_at(run_path, ["motion"])
    assert looked_at(run_path, ["motion"]).measures["motion"]["values"].chunks[1] == 1
    before = arrays(whole)
    (whole.path / "measures/motion/values/c/0/1/0").unlink()
    result = analyze(run_path, measures=["motion"], **QUICK)  # type: ignore[arg-type]
    assert result.replayed == 64
    for name, values in arrays(result.results).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    assert analyze(run_path, measures=["motion"], **QUICK).replayed == 0  # type: ignore[arg-type]


def test_what_cannot_be_measured_is_refused_by_name(tmp_path: Path) -> None:
    model = small_model()
    with Recorder(tmp_path / "run", model) as record:
        for _ in range(12):
            record(loss=1.0)
    result = analyze(tmp_path / "run", measures=["all"], **QUICK)  # type: ignore[arg-type]
    said = "\n".join(problem.what for problem in result.problems)
    for name, measure in MEASURES.items():
        assert (f"measure {name} was left out" in said) == measure.forward, name
    assert "no probe" in said
    assert "motion" in result.results.measures
    assert analyze(tmp_path / "run", measures=["all"], **QUICK).replayed == 0  # type: ignore[arg-type]


def test_what_was_refused_once_is_computed_as_soon_as_it_can_be(run_path: Path) -> None:
    journal = run_path / "attempts/0001/journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:45]))
    results = looked_at(run_path, ["motion"])
    keys = measure_keys(choose_measures(["units"]), results.attrs["spaces"])
    results.say(refused={"units": {"key": keys["units"], "reason": "as it was then"}})
    assert "units" not in looked_at(run_path, ["units"]).measures  # no reason to prepare a replay
    journal.write_bytes(whole)
    result = analyze(run_path, measures=["units"], **QUICK)  # type: ignore[arg-type]
    assert (
        not result.problems
        and np.isfinite(result.results.series("activations", "0", "dead_share")).all()
    )
    assert result.results.attrs["refused"] == {}


def test_without_one_readable_checkpoint_nothing_is_refused_for_good(run_path: Path) -> None:
    good = {path: path.read_bytes() for path in run_path.glob("attempts/*/checkpoints/*")}
    for path in good:
        path.write_bytes(b"")
    first = analyze(run_path, measures=["gradients"], **QUICK)  # type: ignore[arg-type]
    assert first.exit_code == 3 and not first.results.usable.any()
    for path, content in good.items():
        path.write_bytes(content)
    healed = looked_at(run_path, ["gradients"]).series("weights", "0.weight", "probe_gradient")
    assert np.isfinite(healed).all()


class Batched(torch.nn.Module):
    """Without running statistics each sample's output depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)
        self.norm = torch.nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.norm(self.one(x))))  # type: ignore[no-any-return]


def test_curvature_asks_for_no_gradients_of_single_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, x, y = Batched(), torch.randn(16, 5), torch.randint(0, 3, (16,))
    with Recorder(tmp_path / "run", model, probe=(x, y)) as record:
        for _ in range(4):
            record(loss=1.0)
    tries = []
    original = Numbers.maker
    monkeypatch.setattr(Numbers, "maker", lambda *given: tries.append(given) or original(*given))
    asked = ["gradients", "noise_scale", "learning_rate", "curvature"]
    result = analyze(tmp_path / "run", measures=asked, **QUICK)  # type: ignore[arg-type]
    assert [p.what.split()[1] for p in result.problems] == asked[:3]
    assert all("depend on each other" in p.what for p in result.problems)
    assert len(tries) == 1
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().double()

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([p.numel() for p in model.parameters()])
        pairs = zip(model.named_parameters(), parts, strict=True)
        weights = {name: part.reshape(p.shape) for (name, p), part in pairs}
        output = torch.func.functional_call(model, weights, x.double())
        return torch.nn.functional.cross_entropy(output, y)

    # Twice in reverse: the forward derivative of batch statistics is wrong in torch 2.13.
    top = torch.linalg.eigvalsh(torch.func.jacrev(torch.func.grad(loss))(flat))[-1]
    got = result.results.series("model", "whole", "top_eigenvalue")
    np.testing.assert_allclose(got, float(top), rtol=1e-3)


def test_too_few_rows_for_a_dimension_are_refused(run_path: Path) -> None:
    result = analyze(run_path, measures=["dimension", "units"], **QUICK)  # type: ignore[arg-type]
    assert [p.what for p in result.problems] == [
        "measure dimension was left out: 32 rows, 300 are the least that dimension needs"
    ]
    assert result.exit_code == 3
    assert {row["metric"] for row in result.table} >= {"dead_share"}


def test_series_go_where_those_of_metrics_go(run_path: Path) -> None:
    result = analyze(
        run_path, measures=["motion"], draws=1, phase_draws=0, report=True,
        fail_on=["distance(0.weight) > 0.01", "max.relative_update(weights/2.*) < 0"],
    )  # fmt: skip
    assert len(result.alerts) == 1 and "weights/0.weight last distance" in result.alerts[0]
    rows = [row for row in result.table if row["metric"] == "relative_update"]
    assert {row["layer"] for row in rows} == {"0.weight", "2.weight"}
    assert all(row["phases"] is not None and "words_loss" in row for row in rows)
    for table in ("series", "couplings", "fits"):
        assert "update_cosine" in set(tidy_table(result.results, table)["metric"]), table
    assert result.report and "relative_update" in result.report.read_text()


def test_xarray_opens_them(run_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    store = looked_at(run_path, ["motion"]).path
    tree = xarray.open_datatree(store, engine="zarr")
    values = tree["measures/motion/values"]
    assert values.dims == ("step", "layer", "quantity")
    one = values.sel(layer="2.weight", quantity="distance")
    assert one.sel(step=400).item() > 0


OWN = """
from ndt_offline.measure.plugin import Measure, Quantity

def largest():
    return Measure(
        name="extent", space="activations", needs=frozenset({"activations"}),
        quantities=(Quantity("largest_entry"),),
        compute=lambda view: {"largest_entry": float(abs(view.now).max()) * FACTOR},
        about="the largest entry",
    )
"""


def test_a_measure_of_ones_own(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_measure_1.py").write_text(OWN.replace("FACTOR", "1"))
    (tmp_path / "own_measure_2.py").write_text(OWN.replace("FACTOR", "2"))
    once = looked_at(run_path, ["own_measure_1:largest"]).series(
        "activations", "0", "largest_entry"
    )
    assert (once > 0).all()
    twice = looked_at(run_path, ["own_measure_2:largest"])
    np.testing.assert_array_equal(twice.series("activations", "0", "largest_entry"), 2 * once)
    # What lies in a store never leads to code: without its name it is not asked for.
    monkeypatch.delitem(sys.modules, "own_measure_2")
    assert "largest_entry" not in {r["metric"] for r in analyze(run_path, **QUICK).table}  # type: ignore[arg-type]
    assert "own_measure_2" not in sys.modules


SEEN = """
from ndt_offline.measure.plugin import Measure, Quantity

def made(space):
    def compute(view):
        return {f"updates_{space}": view.updates, f"kind_{space}": KINDS.index(view.kind)}
    names = (f"updates_{space}", f"kind_{space}")
    needs = {"model": "gradients"}.get(space, space)
    return Measure(name=f"seen_{space}", space=space, needs=frozenset({needs}), about="a view",
                   quantities=tuple(Quantity(name) for name in names), compute=compute)

KINDS = ("linear", "weight", "model")
activations, weights, model = (made(s) for s in ("activations", "weights", "model"))
"""


def test_a_view_says_what_it_is_of_and_how_many_updates_it_is_after_the_last(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_views.py").write_text(SEEN)
    spaces = ("activations", "weights", "model")
    results = looked_at(run_path, [f"own_views:{space}" for space in spaces])
    for kind, (space, layer) in enumerate(zip(spaces, ("0", "0.weight", "whole"), strict=True)):
        updates = results.series(space, layer, f"updates_{space}")
        assert updates[0] == 0 and (updates[1:] == 5).all()
        assert (results.series(space, layer, f"kind_{space}") == kind).all()
    assert results.layers("weights")[0].kind == "weight"


@pytest.mark.parametrize(
    ("space", "need"),
    [
        ("activations", "gradients"),
        ("activations", "weights"),
        ("weights", "labels"),
        ("weights", "curvature"),
        ("model", "previous"),
        ("model", "weights"),
    ],
)
def test_a_measure_is_refused_what_is_never_brought(space: str, need: str) -> None:
    own = next(measure for measure in MEASURES.values() if measure.space == space)
    with pytest.raises(UsageError, match=f"needs '{need}', which no layer of the space '{space}'"):
        replace(own, needs=frozenset({need})).check()
    for measure in MEASURES.values():
        assert measure.check() is measure


def test_of_two_measures_with_one_quantity_the_one_that_is_asked_for_speaks(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for factor, name in (("1", "zextent"), ("2", "extent")):
        text = OWN.replace("FACTOR", factor).replace('name="extent"', f'name="{name}"')
        (tmp_path / f"own_twin_{factor}.py").write_text(text)
    found = {}
    for factor in ("1", "2", "1"):
        result = analyze(run_path, measures=[f"own_twin_{factor}:largest"], **QUICK)  # type: ignore[arg-type]
        found[factor] = result.results.series("activations", "0", "largest_entry")
        table = [row for row in result.table if row["metric"] == "largest_entry"]
        assert {row["layer"] for row in table} == {"0", "2"}
        last = next(row["last"] for row in table if row["layer"] == "0")
        assert last == pytest.approx(found[factor][-1])
    np.testing.assert_array_equal(found["2"], 2 * found["1"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["motoin"], "'motoin' is not known"),
        (["nowhere_at_all:f"], "importing"),
        (["json:dumps"], "failed"),
        (["json:nothing"], "no such function"),
    ],
)
def test_a_wrong_name_is_told(names: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        choose_measures(names)
    assert raised.value.remedy
    if ":" not in names[0]:
        assert all(name in raised.value.remedy for name in MEASURES)
