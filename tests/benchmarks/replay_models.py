"""The models that the replay is timed on, each with its probe batch and loss."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ndt_offline import Recorder

Made = tuple[nn.Module, Tensor, Tensor]


class Block(nn.Module):
    """A transformer block with its norms first, as in GPT-2 and ViT."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        split = (batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = self.attn(self.norm1(x)).view(split).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.out(F.gelu(self.fc(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, vocabulary: int = 512, width: int = 256, length: int = 64) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[Block(width, 4, True) for _ in range(4)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x) + self.places(torch.arange(x.shape[1], device=x.device))
        return self.head(self.norm(self.blocks(x)))


class Vit(nn.Module):
    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*[Block(width, 4, False) for _ in range(4)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


class Residual(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.down = nn.Conv2d(inside, out, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.down(x))


class ResNet18(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *[
                nn.Sequential(Residual(a, b, 1 if i == 0 else 2), Residual(b, b, 1))
                for i, (a, b) in enumerate(pairwise(sizes))
            ]
        )
        self.fc = nn.Linear(sizes[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stages(F.relu(self.bn(self.stem(x)))).mean((2, 3)))


def mlp() -> Made:
    layers = (nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    x, y = torch.rand(512, 784), torch.randint(0, 10, (512,))
    return nn.Sequential(*layers), x * (torch.rand(512, 784) < 0.2), y


def gpt2() -> Made:
    tokens = torch.randint(0, 512, (64, 65))
    return Gpt(), tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def vit() -> Made:
    return Vit(), torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))


def resnet18() -> Made:
    return ResNet18(), torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))


MODELS: dict[str, Callable[[], Made]] = {
    "mlp": mlp,
    "gpt2": gpt2,
    "vit": vit,
    "resnet18": resnet18,
}


def record(path: Path, name: str, checkpoints: int) -> Path:
    """A run of that many checkpoints, one per update on a part of the probe, real gradients."""
    torch.manual_seed(0)
    model, x, y = MODELS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with Recorder(path, model, probe=(x, y), every=1) as recorder:
        for _ in range(checkpoints - 1):
            rows = torch.randperm(len(x))[:8]
            output = model(x[rows])
            loss = F.cross_entropy(output.flatten(0, -2), y[rows].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder(loss=loss)
    return path
