"""The callbacks, with the real packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ndt_offline import open_run

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def test_the_modules_load_no_framework() -> None:
    code = (
        "import sys, ndt_offline.record.lightning, ndt_offline.record.huggingface;"
        "print({'lightning', 'pytorch_lightning', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path: Path) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from ndt_offline.record.lightning import RecorderCallback

    class Lit(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
            self.losses: list[float] = []

        def training_step(self, batch, index):
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    callback = RecorderCallback(str(tmp_path / "run"), module="net", probe=(X, Y), every=2)
    torch.manual_seed(0)
    model = Lit()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        gradient_clip_val=1e-3,
    )
    trainer.fit(model, loader)
    run = open_run(tmp_path / "run")
    assert run.steps == list(range(0, 17, 2))
    for name, value in model.net.state_dict().items():
        assert torch.equal(run.checkpoint(16)[name], value)
    expected = [model.losses[step - 1] for step in run.steps[1:]]
    assert run.scalar("loss")[1:] == pytest.approx(expected, rel=1e-6)
    assert (run.scalar("grad_norm")[1:] > 1e-2).all()  # before clipping
    assert (tmp_path / "run" / "graph.json").exists()


@pytest.mark.filterwarnings("ignore")
def test_hugging_face(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from ndt_offline.record.huggingface import RecorderCallback

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=16, vocab_size=32, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    tokens = torch.randint(32, (32, 8), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": row, "labels": row} for row in tokens]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=6,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        max_grad_norm=0.0,
        disable_tqdm=True,
    )
    probe = ({"input_ids": tokens[:4]}, tokens[:4])
    callback = RecorderCallback(str(tmp_path / "run"), probe=probe, every=2)
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[callback])
    trainer.train()
    run = open_run(tmp_path / "run")
    assert run.steps == [0, 2, 4, 6]
    for name, value in model.state_dict().items():
        assert torch.equal(run.checkpoint(6)[name], value)
    logged = {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}
    assert run.scalar("loss")[1:] == pytest.approx([logged[s] for s in (2, 4, 6)], rel=1e-3)
    norms = {r["step"]: r["grad_norm"] for r in trainer.state.log_history if "grad_norm" in r}
    assert run.scalar("grad_norm")[1:] == pytest.approx([norms[s] for s in (2, 4, 6)], rel=1e-3)
    assert len(set(run.scalar("lr")[1:])) == 3
