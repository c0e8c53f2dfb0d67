"""The callbacks on updates of several batches, with schedules, and when training starts again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ndt_offline import open_run

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def lightning(tmp_path: Path) -> Any:
    """(model, trainer): 64 rows in batches of 8, a rate that halves at every update."""
    pl = pytest.importorskip("lightning.pytorch")

    class Lit(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(8, 2)
            self.losses: list[float] = []
            self.rates: list[float] = []

        def training_step(self, batch, index):
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            return {"loss": loss}

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.8)
            halving = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            optimizer.register_step_pre_hook(
                lambda o, *_: self.rates.append(o.param_groups[0]["lr"])
            )
            return [optimizer], [{"scheduler": halving, "interval": "step"}]

    def make(**options: Any) -> Any:
        torch.manual_seed(0)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        place = {"accelerator": "cpu", "default_root_dir": tmp_path}
        return Lit(), pl.Trainer(max_epochs=1, **quiet, **place, **options)

    return make


def loader() -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)


@pytest.mark.parametrize("batches", [1, 4, 3])
def test_lightning_gives_the_mean_loss_of_an_update_and_its_rate(
    tmp_path: Path, lightning, batches: int
) -> None:
    from ndt_offline.record.lightning import RecorderCallback

    callback = RecorderCallback(str(tmp_path / "run"), probe=(X, Y), every=1, module="net")
    model, trainer = lightning(callbacks=[callback], accumulate_grad_batches=batches)
    trainer.fit(model, loader())
    losses = [model.losses[at : at + batches] for at in range(0, 8, batches)]
    run = open_run(tmp_path / "run")
    assert run.steps == list(range(len(losses) + 1))
    expected = [sum(some) / len(some) for some in losses]
    assert run.scalar("loss")[1:] == pytest.approx(expected, rel=1e-6)
    assert model.rates == [0.8 * 0.5**step for step in range(len(losses))]
    assert run.scalar("lr")[1:] == pytest.approx(model.rates, rel=1e-9)


def tokens() -> torch.Tensor:
    return torch.randint(32, (32, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hugging_face(tmp_path: Path) -> Any:
    """A trainer of 8 updates of a tiny GPT-2."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def make(callbacks: list[Any], **options: Any) -> Any:
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            n_layer=1, n_head=2, n_embd=16, vocab_size=32, n_positions=8,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        rows = [{"input_ids": row, "labels": row} for row in tokens()]
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / "out"), max_steps=8, per_device_train_batch_size=4,
            logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
            **options,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
        return transformers.Trainer(model, arguments, train_dataset=rows, callbacks=callbacks)

    return make


def test_the_rate_is_what_the_trainer_logs_for_the_step(tmp_path: Path, hugging_face) -> None:
    from ndt_offline.record.huggingface import RecorderCallback

    callback = RecorderCallback(str(tmp_path / "run"), probe=({"input_ids": tokens()[:4]}, None))
    callback.options["every"] = 2
    trainer = hugging_face([callback], learning_rate=0.01, warmup_steps=3)
    used: list[float] = []
    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(lambda o, *_: used.append(o.param_groups[0]["lr"]))
    trainer.train()
    run = open_run(tmp_path / "run")
    logged = {r["step"]: r["learning_rate"] for r in trainer.state.log_history if "loss" in r}
    assert run.scalar("lr")[1:] == pytest.approx([logged[step] for step in run.steps[1:]])
    assert run.scalar("lr")[1:] == pytest.approx([used[step - 1] for step in run.steps[1:]])


class Interrupting:
    """Stops a training after three updates, once."""

    def __new__(cls, error: type[BaseException]) -> Any:
        from transformers import TrainerCallback

        class Stop(TrainerCallback):
            done = False

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == 3 and not self.done:
                    self.done = True
                    raise error("CUDA out of memory. Tried to allocate")

        return Stop()


@pytest.mark.parametrize("automatic", [False, True])
def test_training_starts_again_after_it_was_broken_off(
    tmp_path: Path, hugging_face, automatic: bool
) -> None:
    from ndt_offline.record.huggingface import RecorderCallback

    probe = ({"input_ids": tokens()[:4]}, None)
    callback = RecorderCallback(str(tmp_path / "run"), probe=probe, every=1)
    stop = Interrupting(RuntimeError if automatic else KeyboardInterrupt)
    trainer = hugging_face([callback, stop], auto_find_batch_size=automatic)
    if not automatic:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    trainer.train()
    run = open_run(tmp_path / "run")
    assert [len(attempt.entries) for attempt in run.attempts] == [4, 9]
    assert run.steps == list(range(9))
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row][-8:]
    assert run.scalar("loss")[1:] == pytest.approx(logged, rel=1e-3)
    assert not trainer.model._forward_hooks
