"""Ways in which a training fails, as hands that reach into it before every update."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from record_mnist import make_model
from torch import nn
from torch.nn import functional as F

SIZES, BATCH = [196, 64, 32, 10], 64
Digits = Mapping[str, torch.Tensor]


class Training:
    """One training that a failure can reach into."""

    def __init__(self, digits: Digits, seed: int) -> None:
        torch.manual_seed(seed)
        self.digits = digits
        self.model = make_model(SIZES)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.random = torch.Generator().manual_seed(seed)
        self.shuffled, self.penalty = False, 0.0

    def update(self) -> torch.Tensor:
        rows = torch.randint(len(self.digits["x_train"]), (BATCH,), generator=self.random)
        x, y = self.digits["x_train"][rows], self.digits["y_train"][rows]
        y = torch.randint(10, y.shape, generator=self.random) if self.shuffled else y
        hidden = self.model[:4](x)
        loss = F.cross_entropy(self.model[4](hidden), y)
        spread = (hidden - hidden.mean(0)).pow(2).mean()
        self.optimizer.zero_grad()
        (loss + self.penalty * spread).backward()
        self.optimizer.step()
        return loss


def too_fast(training: Training) -> None:
    training.optimizer.param_groups[0]["lr"] = 3e-2


def dying(training: Training) -> None:
    """Biases of half of the units of the first layer sink a little with every update."""
    layer = training.model[0]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.bias[:32] -= 0.05


def noisy(training: Training) -> None:
    training.shuffled = True


def shrinking(training: Training) -> None:
    """A penalty on the spread of the hidden layer: it shrinks, in all directions alike."""
    training.penalty = 1.0


def frozen(training: Training) -> None:
    training.model[2].requires_grad_(False)
    for parameter in training.model[2].parameters():
        parameter.grad = None


FAILURES: dict[str, Callable[[Training], None]] = {
    "learning rate x 30": too_fast, "dying units": dying, "random labels": noisy,
    "shrunken representation": shrinking, "frozen layer": frozen,
}  # fmt: skip
