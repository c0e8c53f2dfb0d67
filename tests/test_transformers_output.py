"""A real training by Hugging Face's Trainer, analysed straight from its output folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ndt_offline import analyze, open_run
from ndt_offline.errors import DamagedError, NdtError, RefusedError, UsageError
from ndt_offline.graph.pretrained import model_of_config
from ndt_offline.pipeline import Result
from ndt_offline.replay.setup import Parameters

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


def gpt2() -> Any:
    config = transformers.GPT2Config(
        n_positions=16, n_embd=16, n_layer=2, n_head=2, vocab_size=30, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 updates, a checkpoint every 2; losses logged every update, evaluated every 6."""
    out = tmp_path_factory.mktemp("trainer") / "out"
    torch.manual_seed(0)
    rows = [{"input_ids": t, "labels": t} for t in torch.randint(30, (64, 8))]
    arguments = transformers.TrainingArguments(
        str(out), max_steps=12, save_steps=2, logging_steps=1, eval_strategy="steps", eval_steps=6,
        per_device_train_batch_size=4, report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = transformers.Trainer(gpt2(), arguments, train_dataset=rows, eval_dataset=rows[:8])
    trainer.train()
    return out


@pytest.fixture
def output(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "out"))


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    x = torch.randint(30, (16, 8))
    path = tmp_path_factory.mktemp("probe") / "probe.safetensors"
    save_file({"x.input_ids": x, "y": x.roll(-1, 1)}, path)
    return path


def quick(path: Path, probe: Path | None = None) -> Result:
    parameters = Parameters(probe=str(probe) if probe else None)
    return analyze(path, parameters=parameters, draws=1, report=False, phases=())


def test_the_output_folder_as_it_is(output: Path, probe: Path) -> None:
    result = quick(output, probe)
    assert result.exit_code == 0 and not result.problems
    store = result.results
    assert store.steps.tolist() == [2, 4, 6, 8, 10, 12]
    state = json.loads((output / "checkpoint-12/trainer_state.json").read_text())
    logged = {row["step"]: row for row in state["log_history"] if "loss" in row}
    for name, key in (("loss", "loss"), ("grad_norm", "grad_norm"), ("lr", "learning_rate")):
        assert store.signal(name).tolist() == [logged[s][key] for s in store.steps.tolist()]
    assert np.isfinite(store.signal("eval_loss")).tolist() == [False, False, True] * 2
    layers = {layer.name for layer in store.space("activations").layers}
    assert layers >= {"transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj", "lm_head"}
    # Against the model itself, loaded by transformers: the probe's loss and a layer's spectrum.
    given = load_file(probe)
    model = transformers.GPT2LMHeadModel.from_pretrained(output / "checkpoint-8").eval()
    seen: list[torch.Tensor] = []
    model.transformer.h[1].mlp.c_fc.register_forward_hook(lambda m, i, o: seen.append(o))
    with torch.no_grad():
        logits = model(given["x.input_ids"]).logits
    loss = torch.nn.functional.cross_entropy(logits.double().flatten(0, 1), given["y"].flatten())
    np.testing.assert_allclose(store.signal("probe_loss")[3], loss.item(), rtol=1e-6)
    s = torch.linalg.svdvals(seen[0].flatten(0, 1).double()).numpy()
    at = [layer.name for layer in store.space("activations").layers].index(
        "transformer.h.1.mlp.c_fc"
    )
    np.testing.assert_allclose(store.spectra("activations")[3, at][: len(s)], s, rtol=1e-5)
    assert quick(output, probe).replayed == 0


def test_without_a_probe_weights_and_how_to_get_the_rest(output: Path) -> None:
    result = quick(output)
    assert result.exit_code == 0 and not result.results.space("activations").layers
    assert any("--probe FILE.safetensors" in note for note in result.notes)


def test_shards_by_transformers_itself(output: Path, probe: Path) -> None:
    whole = open_run(output).checkpoint(12)
    folder = output / "checkpoint-12"
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    run = open_run(output)
    assert run.steps[-1] == 12 and not run.problems
    found = run.checkpoint(12)
    assert set(found) == set(whole) and all(torch.equal(found[n], whole[n]) for n in whole)
    assert quick(output, probe).exit_code == 0


Change = Callable[[dict[str, Any]], Any]
HOSTILE: dict[str, tuple[Change, str]] = {
    "code": (lambda c: c.update(auto_map={"AutoModel": "modeling.Evil"}), "auto_map"),
    "elsewhere": (lambda c: c.update(architectures=["os.system"]), "architectures"),
    "two": (lambda c: c.update(architectures=["GPT2Model", "GPT2LMHeadModel"]), "architectures"),
    "no model": (lambda c: c.update(architectures=["AutoModel"]), "no model"),
    "unknown": (lambda c: c.update(architectures=["EvilModel"]), "no model"),
    "a function": (lambda c: c.update(architectures=["Trainer"]), "no model"),
    "another": (lambda c: c.update(model_type="bert"), "model_type"),
    "huge": (lambda c: c.update(n_embd=2**40), "n_embd"),
    "large": (lambda c: c.update(n_embd=10**7, vocab_size=10**7), "bytes"),
    "deep": (lambda c: c.update(n_layer=10**6), "n_layer"),
    "quantized": (lambda c: c.update(quantization_config={"x": 1}), "quantization_config"),
    "wrong": (lambda c: c.update(n_head=7), "makes no model"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_config_that_asks_for_more_is_refused(output: Path, probe: Path, name: str) -> None:
    path = output / "checkpoint-12/config.json"
    change, said = HOSTILE[name]
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))
    (output / "checkpoint-12/modeling.py").write_text("raise SystemExit('run')")
    with pytest.raises((RefusedError, UsageError), match=said):
        model_of_config(path)
    if name == "code":  # the weights are measured all the same, and the reason is told
        result = quick(output, probe)
        assert result.exit_code == 3 and "auto_map" in result.problems[0].what
        assert result.results.usable.all()


@pytest.mark.parametrize("text", ["", "[]", "3", "[" * 10**5, " " * 2**21 + "{}"])
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises((DamagedError, RefusedError)):
        model_of_config(path)


def test_another_attention_or_kernels_are_not_asked_for(output: Path) -> None:
    path = output / "checkpoint-12/config.json"
    body = json.loads(path.read_text())
    asked = {"attn_implementation": "evil/kernels", "_attn_implementation": "evil/kernels"}
    path.write_text(json.dumps(body | asked))
    model = model_of_config(path)
    assert model.config._attn_implementation in ("sdpa", "eager")


def test_a_config_of_another_model_is_told(output: Path, probe: Path) -> None:
    path = output / "checkpoint-12/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_layer": 3}))
    result = quick(output, probe)
    assert result.exit_code == 3
    assert "the checkpoint has no transformer.h.2" in result.problems[0].what


def test_nothing_of_the_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(NdtError):
        model_of_config(tmp_path / "config.json")
