"""`ndt-offline similarity RUN`: how alike the layers are at chosen steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ndt_offline.cli.what import matrix_options, parameters_of

if TYPE_CHECKING:
    from ndt_offline.measure.similarity import Array
    from ndt_offline.replay.likeness import Likeness
    from ndt_offline.run.reader import Run

WIDTH, NAME, CELL = 100, 32, 5  # characters of a line, of a layer's name at most, of a number
EXAMPLE = """
Examples:

\b
  ndt-offline similarity ckpts
  ndt-offline similarity ckpts --steps 0,500,8000 --layers 'encoder.*'
  ndt-offline similarity ckpts --steps last --figure layers.svg
"""


@click.command("similarity", epilog=EXAMPLE)
@click.argument("run", type=click.Path())
@click.option(
    "--steps", default="first,last", show_default=True, metavar="STEP,...",
    help="Recorded steps, or first and last.",
)  # fmt: skip
@matrix_options
@click.option("--figure", type=click.Path(), help="Write the figure here (.svg, .png, .pdf).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str, steps: str, figure: str | None, as_json: bool, **options: Any) -> int:
    """Compare the layers of RUN with each other: linear CKA at chosen steps, and between two.

    1 is the same representation of the probe but for rotation and scale. Only these steps are
    replayed, and nothing is written to the store.
    """
    import json

    from ndt_offline.replay.likeness import likeness
    from ndt_offline.report.table import printable
    from ndt_offline.run.reader import open_run

    opened, parameters = open_run(run), parameters_of({**options, "center": False})
    path = None if figure is None else _drawable(figure)
    found = likeness(opened, _steps(steps, opened), parameters)
    if as_json:
        click.echo(json.dumps(_document(run, found), indent=1))
    else:
        for line in _lines(found):
            click.echo(printable(line))
    if path is not None:
        from ndt_offline.report.heatmap import save_heatmaps

        names = [layer.name for layer in found.layers]
        save_heatmaps({_title(pair): m for pair, m in found.matrices.items()}, names, path)
        click.echo(figure, err=as_json)
    return 0


def _drawable(figure: str) -> Any:
    from pathlib import Path

    from ndt_offline.errors import UsageError
    from ndt_offline.report.gallery import FORMATS

    if Path(figure).suffix[1:] not in FORMATS:
        raise UsageError(f"--figure {figure}", remedy="a name that ends in .svg, .png or .pdf")
    return Path(figure)


def _steps(text: str, run: Run) -> list[int]:
    """The steps that were named; UsageError for words and steps that there are not."""
    from ndt_offline.errors import UsageError

    found = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word in ("first", "last"):
            found.append(run.steps[0 if word == "first" else -1])
            continue
        if not word.isascii() or not word.isdecimal():
            raise UsageError(f"--steps {word!r}", remedy="recorded steps, first, last: 0,500,last")
        step = int(word)
        near = min(run.steps, key=lambda known: abs(known - step))
        if near != step:
            raise UsageError(f"no checkpoint of step {step}", remedy=f"the nearest is {near}")
        found.append(step)
    if not found:
        raise UsageError("--steps names none", remedy="--steps first,last")
    return found


def _title(pair: tuple[int, int]) -> str:
    step, other = pair
    return f"step {step}" if step == other else f"step {step} (down) and {other} (across)"


def _document(run: str, found: Likeness) -> dict[str, Any]:
    return {
        "run": run,
        "steps": list(found.steps),
        "layers": [
            {"layer": layer.name, "rows": layer.rows, "columns": layer.columns, "as": layer.rule}
            for layer in found.layers
        ],
        "matrices": [
            {
                "step": step,
                "other_step": other,
                "linear_cka": [
                    [v if math.isfinite(v) else None for v in row.tolist()] for row in m
                ],
            }
            for (step, other), m in found.matrices.items()
        ],
        "notes": list(found.notes),
    }


def _lines(found: Likeness) -> Iterator[str]:
    yield "linear CKA between layers on the probe, 0 to 1 (\u2013 where there is none)"
    for pair, matrix in found.matrices.items():
        yield ""
        yield f"{_title(pair)}:"
        yield from _table(found, matrix)
    if found.notes:
        yield ""
        yield from (f"note: {note}" for note in found.notes)


def _table(found: Likeness, matrix: Array) -> Iterator[str]:
    """Layers down and, by their numbers, across; as many across as fit, then the next ones."""
    from ndt_offline.report.table import shortened

    digits = len(str(len(matrix)))
    names = [shortened(layer.name, NAME) for layer in found.layers]
    heads = [f"{i + 1:>{digits}} {name}" for i, name in enumerate(names)]
    wide = max(map(len, heads))
    at_once = (WIDTH - wide) // CELL
    for begin in range(0, len(matrix), at_once):
        across = range(begin, min(begin + at_once, len(matrix)))
        yield " " * wide + "".join(f"{i + 1:>{CELL}}" for i in across)
        for head, row in zip(heads, matrix, strict=True):
            yield f"{head:<{wide}}" + "".join(f"{_cell(float(row[i])):>{CELL}}" for i in across)


def _cell(value: float) -> str:
    """Two digits; 1 is only what is 1 up to the rounding of the forward pass."""
    if not math.isfinite(value):
        return "\u2013"
    return "1" if value > 1 - 1e-6 else f"{min(value, 0.994):.2f}"[1:]
