"""Record the training of an MLP on MNIST: the article's experiment, or a small one.

    python pipelines/record_mnist.py --mnist mnist.npz --out ckpts
    python pipelines/record_mnist.py --mnist mnist.npz --out small --small

The article's: 784-256-128-10 with ReLU, Adam 1e-3, batch 64, 8000 updates, recorded every 5:
1601 checkpoints with the initial one, probe of 512 test images. --small: digits pooled to
14 x 14, 196-16-16-10, 2000 updates, 401 checkpoints.
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ndt_offline import Recorder

MEAN, SD = 0.1307, 0.3081  # of the training images, as usual for MNIST
PROBE = 512

mnist_option = click.option(
    "--mnist",
    envvar="NDT_MNIST",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="mnist.npz (x_train, y_train, x_test, y_test).",
)


def load_digits(path: Path, pooled: bool) -> dict[str, torch.Tensor]:
    """Images as normalised rows, float32, and labels."""
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    digits = {}
    for part in ("train", "test"):
        images = arrays[f"x_{part}"].float()[:, None] / 255
        images = F.avg_pool2d(images, 2) if pooled else images
        digits[f"x_{part}"] = ((images - MEAN) / SD).flatten(1)
        digits[f"y_{part}"] = arrays[f"y_{part}"].long()
    return digits


def make_model(sizes: list[int]) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train(
    digits: dict[str, torch.Tensor], sizes: list[int], updates: int, seed: int, out: Path | None
) -> nn.Module:
    """Train for that many updates, recording into `out` where it is given."""
    torch.manual_seed(seed)
    model = make_model(sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = torch.Generator().manual_seed(seed)
    record = None
    if out is not None:
        probe = digits["x_test"][:PROBE], digits["y_test"][:PROBE]
        record = Recorder(out, model, probe=probe, loss="cross_entropy", every=5)
    for _ in range(updates):
        rows = torch.randint(len(digits["x_train"]), (64,), generator=batches)
        loss = F.cross_entropy(model(digits["x_train"][rows]), digits["y_train"][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if record:
            record(loss=loss)
    if record:
        record.close()
    return model


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@mnist_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run directory.")
@click.option("--small", is_flag=True, help="A small network on pooled digits.")
@click.option("--seed", default=0, show_default=True)
def main(mnist: Path, out: Path, small: bool, seed: int) -> None:
    """Record one training run on MNIST; then: ndt-analyze OUT."""
    sizes, updates = ([196, 16, 16, 10], 2000) if small else ([784, 256, 128, 10], 8000)
    started = time.perf_counter()
    train(load_digits(mnist, pooled=small), sizes, updates, seed, out)
    seconds = time.perf_counter() - started
    click.echo(f"{updates} updates in {seconds:.1f} s, recorded in {out}; next: ndt-analyze {out}")


if __name__ == "__main__":
    main()
