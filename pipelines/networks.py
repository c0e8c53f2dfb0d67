"""Small networks of five kinds: MLP, CNN, ResNet and ViT for digits, a Transformer for text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

SIDE, PATCH = 28, 7
LETTERS, CONTEXT = 96, 32  # printable ASCII and one for the rest; characters in a row


class Block(nn.Module):
    """Two convolutions with batch normalisation, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(inside)))


class VisionTransformer(nn.Module):
    """16 patches of 7 x 7 as tokens; their mean is classified."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.patches = nn.Linear(PATCH**2, width)
        self.places = nn.Parameter(torch.randn((SIDE // PATCH) ** 2, width) / 50)
        self.body = encoder(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = F.unfold(x.view(-1, 1, SIDE, SIDE), PATCH, stride=PATCH).transpose(1, 2)
        return self.head(self.body(self.patches(tokens) + self.places).mean(1))


class Writer(nn.Module):
    """A causal Transformer that guesses each next character."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(LETTERS, width)
        self.places = nn.Parameter(torch.randn(CONTEXT, width) / 50)
        self.body = encoder(width)
        self.head = nn.Linear(width, LETTERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        return self.head(self.body(self.embed(x) + self.places, mask=mask, is_causal=True))


def encoder(width: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(SIDE**2, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE, SIDE)),
        nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 5 * 5, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE, SIDE)),
        nn.Conv2d(1, 8, 5, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        Block(8), Block(8),
        nn.Flatten(), nn.Linear(8 * 6 * 6, 10),
    )  # fmt: skip


DIGITS: dict[str, Callable[[], nn.Module]] = {
    "MLP": mlp, "CNN": cnn, "ResNet": resnet, "ViT": VisionTransformer,
}  # fmt: skip
