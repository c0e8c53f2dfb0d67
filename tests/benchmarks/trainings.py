"""Models and data for the benchmarks: an MLP, a CNN, a small transformer; float32 and bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Characters(nn.Module):
    """A small causal transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 128)
        layer = nn.TransformerEncoderLayer(128, 4, 256, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(128, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(
            x.shape[1], dtype=self.head.weight.dtype
        )
        return self.head(self.body(self.embed(x), mask=mask, is_causal=True)).flatten(0, 1)


def make(kind: str, images: torch.Tensor, labels: torch.Tensor) -> tuple[nn.Module, Any, Any]:
    """Model, optimizer, and a function that gives the i-th batch."""
    torch.manual_seed(0)
    kind, _, dtype = kind.partition("-")
    if kind == "mlp":
        model: nn.Module = nn.Sequential(
            nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        optimizer: Any = torch.optim.Adam(model.parameters(), 1e-3)
    elif kind == "wide":  # 50 ms and more an update
        model = nn.Sequential(nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 10))
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    elif kind == "cnn":
        model = nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 42),
            nn.ReLU(), nn.Linear(42, 10),
        )  # fmt: skip
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    else:
        model = Characters()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    if dtype == "bf16":
        model = model.bfloat16()
        optimizer = type(optimizer)(model.parameters(), lr=optimizer.defaults["lr"])

    def batch(i: int) -> tuple[torch.Tensor, torch.Tensor]:
        draw = torch.Generator().manual_seed(i)
        if kind in ("mlp", "cnn", "wide"):
            rows = torch.randint(len(images), (1024 if kind == "wide" else 64,), generator=draw)
            return images[rows].to(next(model.parameters()).dtype), labels[rows]
        x = torch.randint(64, (16, 33), generator=draw).cumsum(1) % 64
        return x[:, :-1], x[:, 1:].flatten()

    return model, optimizer, batch


def update(model: nn.Module, optimizer: Any, batch: Any, i: int) -> torch.Tensor:
    x, y = batch(i)
    loss = F.cross_entropy(model(x).float(), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def load(mnist: Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    if mnist is None:
        draw = torch.Generator().manual_seed(0)
        images = torch.randn(5000, 784, generator=draw)
        return images, (images[:, :10]).argmax(1)
    with np.load(mnist) as file:
        images = torch.from_numpy(file["x_train"]).float().flatten(1) / 255
        return (images - 0.1307) / 0.3081, torch.from_numpy(file["y_train"]).long()
