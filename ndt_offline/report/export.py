"""Tables as files: CSV, JSON, NetCDF; names are made harmless for whoever opens them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from ndt_offline.errors import UsageError
from ndt_offline.report.columns import COLUMNS
from ndt_offline.report.table import printable
from ndt_offline.report.tidy import Table, rows_of, tidy_table
from ndt_offline.store.results import SPACES, WHOLE, Results
from ndt_offline.store.whole_file import replacing

FORMATS = ("csv", "json", "netcdf")
# A spreadsheet runs a cell that begins with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def export(results: Results, folder: Path, form: str, tables: Sequence[str] = ()) -> list[Path]:
    """Write tables (default: all of `columns.COLUMNS`) into a folder; the files written.

    csv: one file per table, and `columns.csv`, which explains them. json: the same as
    `{columns: meanings, rows: [...]}`. netcdf: one file, every layer by step (needs xarray).
    """
    if form not in FORMATS:
        raise UsageError(f"--format {form!r}", remedy="one of " + ", ".join(FORMATS))
    folder.mkdir(parents=True, exist_ok=True)
    if form == "netcdf":
        return [write_netcdf(results, folder / "analysis.nc")]
    write = {"csv": _write_csv, "json": _write_json}[form]
    paths = []
    for name in tables or COLUMNS:
        path = folder / f"{name}.{form}"
        table = tidy_table(results, name)
        _replaced(path, lambda file, name=name, table=table: write(file, name, table))  # type: ignore[misc]
        paths.append(path)
    if form == "csv":
        paths.append(folder / "columns.csv")
        _replaced(paths[-1], _write_columns)
    return paths


def safe_cell(value: Any) -> Any:
    """A CSV cell that no spreadsheet takes for a formula: names get an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return "'" + text if text.lstrip().startswith(_FORMULA) else text


def write_netcdf(results: Results, path: Path) -> Path:
    """Series [step, layer] of every space, and signals [step], as one NetCDF file."""
    xarray = _xarray()
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {"step": results.steps}
    for name in (*SPACES, WHOLE.kind):
        axis = f"{name}_layer"
        metrics = results.metric_names(name)
        if metrics or name in SPACES:
            coordinates[axis] = [printable(layer.name) for layer in results.layers(name)]
        for metric in metrics:
            about = {"long_name": f"{metric} of {name}", "units": "1"}
            values = results.metric(name, metric)
            variables[f"{name}_{metric}"] = (("step", axis), values, about)
    for signal in results.signal_names:
        variables[f"signal_{signal}"] = ("step", results.signal(signal))
    data = xarray.Dataset(variables, coordinates, {"source": "ndt-offline"})
    with replacing(path) as draft:
        data.to_netcdf(draft)
    return path


def _xarray() -> Any:
    try:
        import xarray
    except ImportError as error:
        remedy = "pip install 'ndt-offline[xarray]'"
        raise UsageError("--format netcdf needs xarray", remedy=remedy) from error
    return xarray


def _write_csv(file: TextIO, name: str, table: Table) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table or COLUMNS[name])
    columns = [map(safe_cell, column.tolist()) for column in table.values()]
    writer.writerows(zip(*columns, strict=True))


def _write_columns(file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("table", "column", "meaning"))
    writer.writerows(
        (table, c, said) for table, known in COLUMNS.items() for c, said in known.items()
    )


def _write_json(file: TextIO, name: str, table: Table) -> None:
    json.dump({"columns": COLUMNS[name], "rows": rows_of(table)}, file, indent=1, allow_nan=False)


def _replaced(path: Path, write: Callable[[TextIO], None]) -> None:
    """A file that is either the old one or the whole new one."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        write(file)
