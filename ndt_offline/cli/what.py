"""What is replayed, as options of the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ndt_offline.replay.setup import Parameters

OPTIONS = (
    click.option(
        "--layers",
        multiple=True,
        metavar="GLOB",
        help="Layers to measure; repeatable.",
    ),
    click.option(
        "--as",
        "shapes",
        multiple=True,
        metavar="GLOB=RULE",
        help="Read a layer as tokens, flatten or channels.",
    ),
    click.option("--center", is_flag=True, help="Subtract the column mean of every matrix."),
    click.option("--upcast", is_flag=True, help="Replay 16-bit weights in float32."),
    click.option(
        "--max-side",
        default=2048,
        show_default=True,
        help="Skip matrices whose smaller side is larger.",
    ),
    click.option("--probe", type=click.Path(), help="A safetensors file with x and y."),
    click.option(
        "--model",
        metavar="MODULE:FACTORY",
        help="Code that makes the model, where no graph was recorded.",
    ),
    click.option(
        "--measures",
        multiple=True,
        metavar="NAME,...",
        help="What to compute beside the spectra, such as motion,units; or all.",
    ),
    click.option(
        "--measure",
        "own",
        multiple=True,
        metavar="MODULE:FUNCTION",
        help="A measure of your own; repeatable.",
    ),
)


def what_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command; `parameters_of` takes them out of its keywords again."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def matrix_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Those that choose layers and say how they are read: no measures, and no centring."""
    for option in reversed((*OPTIONS[:2], *OPTIONS[3:7])):
        command = option(command)
    return command


def parameters_of(options: dict[str, Any]) -> Parameters:
    """The parameters of the replay, taken out of the options of the command line."""
    from ndt_offline.errors import UsageError
    from ndt_offline.replay.setup import Parameters

    pairs = [tuple(text.rpartition("=")[::2]) for text in options.pop("shapes")]
    if any(not glob for glob, _ in pairs):
        raise UsageError("--as expects GLOB=RULE", remedy="--as 'encoder.*=tokens'")
    return Parameters(
        layers=options.pop("layers") or None,
        shapes=tuple(pairs),
        **{key: options.pop(key) for key in ("center", "upcast", "max_side", "model", "probe")},
    )


def measures_of(options: dict[str, Any]) -> tuple[str, ...] | None:
    """The measures asked for, taken out of the options; None where nothing was said."""
    named, own = options.pop("measures"), options.pop("own")
    if not named and not own:
        return None
    names = (name.strip() for text in named for name in text.split(","))
    return (*filter(None, names), *own)


def quantities_of(measures: tuple[str, ...] | None) -> tuple[str, ...]:
    """The names that measures return; of all of ours where none was named."""
    from ndt_offline.measure.catalogue import ALL, choose_measures

    chosen = choose_measures((ALL,) if measures is None else measures)
    return tuple(name for measure in chosen.values() for name in measure.names)
