"""Small models of many architectures, each with a batch: what a graph must be able to hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm
from torch.utils.checkpoint import checkpoint

from ndt_offline.graph import Graph, export_graph

Batch = Any
ZOO: dict[str, Callable[[], tuple[nn.Module, Batch]]] = {}


def model(make: Callable[[], tuple[nn.Module, Batch]]) -> Callable[[], tuple[nn.Module, Batch]]:
    ZOO[make.__name__] = make
    return make


@cache
def _once(name: str) -> tuple[Graph, nn.Module, Batch]:
    torch.manual_seed(3)
    net, batch = ZOO[name]()
    return export_graph(net, batch), net, batch


def exported(name: str) -> tuple[Graph, nn.Module, Batch]:
    """Graph, model and batch; exported once for all tests, the model is the caller's own copy."""
    graph, net, batch = _once(name)
    try:
        return graph, copy.deepcopy(net), batch
    except RuntimeError:  # the old weight norm keeps a computed weight
        return graph, net, batch


@model
def mlp() -> tuple[nn.Module, Batch]:
    layers = (nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4), nn.LogSoftmax(-1))
    return nn.Sequential(*layers), torch.randn(6, 12)


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.fc = nn.Conv2d(6, 8, 3), nn.Linear(8 * 3 * 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.adaptive_avg_pool2d(F.gelu(self.conv2(x)), 3)
        return self.fc(torch.flatten(x, 1))


@model
def cnn() -> tuple[nn.Module, Batch]:
    net = ConvNet()
    net(torch.randn(32, 1, 12, 12))  # running statistics that are not the initial ones
    return net, torch.randn(4, 1, 12, 12)


class Block(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(out), nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.down: nn.Module = nn.Identity()
        if stride != 1 or inside != out:
            self.down = nn.Sequential(
                nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.down(x)
        return self.relu(y)


class ResNet18(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        blocks, inside = [], width
        for stage, out in enumerate((width, 2 * width, 4 * width, 8 * width)):
            blocks += [Block(inside, out, 1 if stage == 0 else 2), Block(out, out, 1)]
            inside = out
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(inside, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


@model
def resnet18() -> tuple[nn.Module, Batch]:
    return ResNet18(8), torch.randn(3, 3, 32, 32)


class ViTBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.pos = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.blocks = nn.ModuleList([ViTBlock(width) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


@model
def vit() -> tuple[nn.Module, Batch]:
    return ViT(), torch.randn(3, 3, 16, 16)


class Decoder(nn.Module):
    """A causal TransformerEncoder whose output embedding is its input embedding."""

    def __init__(self, words: int = 23, width: int = 16) -> None:
        super().__init__()
        self.embed, self.pos = nn.Embedding(words, width), nn.Embedding(32, width)
        layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.1, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.embed(tokens) + self.pos(torch.arange(length, device=tokens.device))
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        x = self.body(x, mask=mask, is_causal=True)
        return F.linear(x, self.embed.weight) * self.scale


@model
def decoder() -> tuple[nn.Module, Batch]:
    return Decoder(), torch.randint(23, (3, 9))


class Attending(nn.Module):
    def __init__(self, batch_first: bool, weights: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(16, 4, batch_first=batch_first, kdim=12, vdim=12)
        self.weights, self.fc = weights, nn.Linear(16, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(self.attn(x, y, y, need_weights=self.weights)[0])


@model
def attention() -> tuple[nn.Module, Batch]:
    return Attending(True, False), (torch.randn(3, 5, 16), torch.randn(3, 7, 12))


@model
def attention_with_weights() -> tuple[nn.Module, Batch]:
    return Attending(False, True), (torch.randn(5, 3, 16), torch.randn(7, 3, 12))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module], **options: Any) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(20, 8), kind(8, 12, batch_first=True, **options)
        self.fc = nn.Linear(24 if options.get("bidirectional") else 12, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc(self.rnn(self.embed(tokens))[0][:, -1])


@model
def lstm() -> tuple[nn.Module, Batch]:
    net = Recurrent(nn.LSTM, num_layers=2, bidirectional=True, dropout=0.2)
    return net, torch.randint(20, (4, 6))


@model
def lstm_projected() -> tuple[nn.Module, Batch]:
    net = nn.LSTM(8, 12, proj_size=6)
    return net, torch.randn(5, 4, 8)


@model
def gru() -> tuple[nn.Module, Batch]:
    return Recurrent(nn.GRU, num_layers=2), torch.randint(20, (4, 6))


@model
def rnn() -> tuple[nn.Module, Batch]:
    return Recurrent(nn.RNN, nonlinearity="relu"), torch.randint(20, (4, 6))


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.fc = nn.GRUCell(5, 9), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 9)
        for time in range(x.shape[1]):
            state = self.cell(x[:, time], state)
        return self.fc(state)


@model
def gru_cell() -> tuple[nn.Module, Batch]:
    return Cells(), torch.randn(4, 3, 5)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.SiLU(True))
        self.middle = nn.Conv2d(6, 12, 3, 2, 1)
        self.up, self.out = nn.ConvTranspose2d(12, 6, 2, 2), nn.Conv2d(18, 1, 1)
        self.norm = nn.InstanceNorm2d(12, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        x = F.leaky_relu_(self.norm(self.middle(skip)), 0.1)
        wide = F.interpolate(skip, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out(torch.cat([self.up(x), skip, F.avg_pool2d(wide, 2)], 1))


@model
def unet() -> tuple[nn.Module, Batch]:
    return UNet(), torch.randn(3, 1, 8, 8)


@model
def grouped() -> tuple[nn.Module, Batch]:
    layers = (
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Hardswish(inplace=True),
        nn.Conv2d(8, 8, 3, groups=8, dilation=2, padding=2, padding_mode="circular"),
        nn.PReLU(8),
        nn.Conv2d(8, 4, 1, groups=2),
        nn.PixelShuffle(2),
        nn.Flatten(),
    )
    return nn.Sequential(*layers), torch.randn(3, 4, 8, 8)


@model
def conv1d_and_3d() -> tuple[nn.Module, Batch]:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.cube = nn.Conv1d(2, 4, 3, stride=2), nn.Conv3d(1, 2, 2)

        def forward(self, line: Tensor, cube: Tensor) -> Tensor:
            return self.line(line).relu().mean(-1) @ self.cube(cube).flatten(2).mean(-1).T.tile(
                2, 1
            )

    return Both(), (torch.randn(3, 2, 9), torch.randn(3, 1, 4, 4, 4))


@model
def norms() -> tuple[nn.Module, Batch]:
    layers = (
        nn.Linear(10, 12),
        nn.RMSNorm(12),
        nn.Linear(12, 12, bias=False),
        nn.LayerNorm(12, elementwise_affine=False),
        nn.Tanh(),
        nn.BatchNorm1d(12),
        nn.Softplus(),
        nn.GroupNorm(3, 12),
    )
    return nn.Sequential(*layers), torch.randn(6, 10)


@model
def reparametrised() -> tuple[nn.Module, Batch]:
    layers = (
        parametrizations.weight_norm(nn.Linear(8, 12)),
        nn.ELU(),
        parametrizations.spectral_norm(nn.Linear(12, 12)),
        nn.Sigmoid(),
        parametrizations.orthogonal(nn.Linear(12, 12), orthogonal_map="cayley"),
    )
    return nn.Sequential(*layers), torch.randn(5, 8)


@model
def old_weight_norm() -> tuple[nn.Module, Batch]:
    return nn.Sequential(weight_norm(nn.Linear(8, 12)), nn.ReLU()), torch.randn(5, 8)


class Keyed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Bilinear(3, 6, 5)

    def forward(self, tokens: Tensor, *, side: Tensor | None = None) -> dict[str, Any]:
        hidden = self.left(tokens)
        assert side is not None
        return {"aux": (hidden,), "logits": self.right(side, torch.tanh(hidden))}


@model
def keywords() -> tuple[nn.Module, Batch]:
    return Keyed(), {"side": torch.randn(7, 3), "tokens": torch.randn(7, 4)}


class OneDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.fc(batch["a"]) * batch["b"].to(torch.float32)


@model
def one_dict() -> tuple[nn.Module, Batch]:
    return OneDict(), {"a": torch.randn(7, 4), "b": torch.randint(3, (7, 1))}


class GPTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.Linear(width, 3 * width)
        self.proj, self.drop = nn.Linear(width, width), nn.Dropout(0.1)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU("tanh"), nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        parts = self.attn(self.ln_1(x)).split(c, 2)
        q, k, v = (p.view(b, t, self.heads, c // self.heads).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.proj(y.transpose(1, 2).contiguous().view(b, t, c)))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, words: int = 30, width: int = 32) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(words, width), nn.Embedding(16, width)
        self.h = nn.ModuleList([GPTBlock(width, 4) for _ in range(2)])
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x)), None


@model
def gpt() -> tuple[nn.Module, Batch]:
    return GPT(), torch.randint(30, (2, 11))


class WrittenOut(nn.Module):
    """Attention without the fused operation, with a mask kept as a non-persistent buffer."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        mask = torch.ones(6, 6, dtype=torch.bool).tril()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = (q @ k.transpose(-1, -2)) / 12**0.5
        weights = scores.masked_fill(~self.mask, float("-inf")).softmax(-1)
        return self.out(weights @ v)


@model
def written_out_attention() -> tuple[nn.Module, Batch]:
    return nn.Sequential(WrittenOut(), nn.ReLU(), WrittenOut()), torch.randn(3, 6, 12)


class Shared(nn.Module):
    """One module called three times, once under a second name, and raw parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.again = self.fc
        self.matrix = nn.Parameter(torch.randn(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fc(x))
        x = torch.relu_(self.fc(x))
        return self.again(x) @ self.matrix


@model
def shared_module() -> tuple[nn.Module, Batch]:
    return Shared(), torch.randn(5, 6)


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Parameter(torch.randn(3, 6, 4))
        self.experts = nn.Parameter(torch.randn(3, 4, 5))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("btd,hdk->bhtk", x, self.heads)
        return torch.einsum("bhtk,hkm->btm", y, self.experts)


@model
def einsum() -> tuple[nn.Module, Batch]:
    return Einsum(), torch.randn(2, 5, 6)


class Mutating(nn.Module):
    """In-place writes to views, a buffer that counts calls, a branch that leaves no trace."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.side = nn.Linear(6, 6), nn.Linear(6, 3)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        y = self.fc(x)
        y[:, :2].mul_(3.0)
        y[:, 3] = 0.5
        self.side(y)
        return y.add_(1.0)


@model
def mutating() -> tuple[nn.Module, Batch]:
    return Mutating(), torch.randn(5, 6)


@model
def half_precision() -> tuple[nn.Module, Batch]:
    layers = (nn.Linear(12, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))
    return nn.Sequential(*layers).to(torch.bfloat16), torch.randn(6, 12).to(torch.bfloat16)


@model
def encoder_decoder() -> tuple[nn.Module, Batch]:
    net = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
    return net, (torch.randn(2, 5, 16), torch.randn(2, 4, 16))


class Frozen(nn.Module):
    """Gradients switched off inside, mixed precision switched off, recomputed activations."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.middle, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = torch.relu(self.body(x))
        with torch.autocast("cpu", enabled=False):
            x = checkpoint(self.middle, x, use_reentrant=False)
        with torch.enable_grad():
            return self.head(x)


@model
def frozen() -> tuple[nn.Module, Batch]:
    return Frozen(), torch.randn(4, 6)


class WithLoss(nn.Module):
    """Computes its loss and draws random numbers on the side, as many models do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.loss, self.noise = nn.Linear(6, 5), nn.CrossEntropyLoss(), Noise()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.fc(x)
        return {"loss": self.loss(logits + self.noise(logits), labels), "logits": logits}


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)


@model
def with_loss() -> tuple[nn.Module, Batch]:
    return WithLoss(), {"x": torch.randn(4, 6), "labels": torch.randint(5, (4,))}


class Rotary(nn.Module):
    """Rotary embedding by complex numbers, kept in a plain attribute, and Fourier mixing."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, angles = nn.Linear(8, 8), torch.outer(torch.arange(5.0), 0.5 ** torch.arange(4.0))
        self.register_buffer("turn", torch.polar(torch.ones_like(angles), angles), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.view_as_complex(self.fc(x).reshape(*x.shape[:-1], 4, 2)) * self.turn
        return self.fc(torch.view_as_real(y).flatten(-2)) + torch.fft.fft(x, dim=-1).real


@model
def rotary() -> tuple[nn.Module, Batch]:
    return Rotary(), torch.randn(2, 5, 8)


class Windows(nn.Module):
    """Shifted windows: rolls, grids, and slices written one by one into a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.table = nn.Linear(4, 4), nn.Parameter(torch.randn(9, 4))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        mask = x.new_zeros(4, 4)
        mask[:2, 1:] = x[0, :2, 1:, 0]
        mask[rows > columns] = 2.0
        y = torch.roll(self.fc(x), (1, -1), (1, 2)) + mask[None, :, :, None]
        return y + self.table[(rows + columns).flatten()].view(4, 4, 4)


@model
def windows() -> tuple[nn.Module, Batch]:
    return Windows(), torch.randn(2, 4, 4, 4)


class OnlyLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.fc(x), y)


@model
def only_loss() -> tuple[nn.Module, Batch]:
    return OnlyLoss(), (torch.randn(4, 6), torch.randint(5, (4,)))
