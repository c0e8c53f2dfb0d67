"""Rules that turn a finding into an exit code: `--fail-on "stable_rank(layer2) < 2"`.

    rule     =  subject  comparison  number
             |  signature [ "(" where ")" ]    collapse, overfitting, ...: `relate.signatures`
    subject  =  quantity [ "(" where ")" ]     of a series
             |  signal                         loss, grad_norm, probe_loss, probe_accuracy, ...
    quantity =  a metric: its last value       also first.METRIC, min.METRIC, max.METRIC
             |  transitions                    found, over the chosen series of all metrics
             |  excess                         transitions minus those expected by chance
             |  events                         of the whole run
             |  outside                        series outside the bands of --baseline
    where    =  [space "/"] glob               layers, such as  layer2, weights/*, */encoder.*
    comparison = < | <= | > | >= | == | !=

A rule about a metric is met if any chosen series meets it; a rule about counts compares the sum.
A value that is not a number meets no rule but `!=`. Nothing is evaluated as code.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ndt_offline.errors import UsageError, nearest
from ndt_offline.relate.signatures import SIGNATURES
from ndt_offline.report.baselines import Comparison
from ndt_offline.report.failures import Signature, signature_lines
from ndt_offline.report.summary import Row, last_signal
from ndt_offline.report.tidy import tidy_table
from ndt_offline.store.results import SPACES, Results

COMPARE = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, ">": operator.gt,
}  # fmt: skip
COUNTS = ("transitions", "excess", "events", "outside")
ENDS = {"first": "first", "min": "lowest", "max": "highest", "last": "last"}
_RULE = re.compile(
    r"\s*(?P<quantity>[A-Za-z_][\w.\-]*)\s*(?:\(\s*(?P<where>[^()]*?)\s*\))?"
    r"\s*(?P<sign><=|>=|==|!=|<|>)\s*(?P<number>[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*"
)
_SIGN = re.compile(r"\s*(?P<name>[a-z]+)\s*(?:\(\s*(?P<where>[^()]*?)\s*\))?\s*")
MET = "is met"  # the comparison of a rule that is a signature
EXAMPLE = '--fail-on "stable_rank(layer2) < 2"'


@dataclass(frozen=True)
class Rule:
    """One comparison. `where` is a glob of layers, `space` one of the spaces or any."""

    text: str
    quantity: str
    space: str | None
    where: str
    sign: str
    number: float

    def holds(self, value: float | None) -> bool:
        """Whether a value meets the comparison; a missing one is not a number."""
        return bool(COMPARE[self.sign](math.nan if value is None else value, self.number))


def parse_rule(text: str) -> Rule:
    """Read one rule. Raises UsageError that says what a rule looks like."""
    sign = _SIGN.fullmatch(text) if len(text) <= 500 else None
    if sign is not None and sign["name"] in SIGNATURES:
        return Rule(text.strip(), sign["name"], None, sign["where"] or "*", MET, 0.0)
    match = _RULE.fullmatch(text) if len(text) <= 500 else None
    try:
        number = float(match["number"]) if match else math.nan
    except ValueError:
        match = None
    if match is None:
        raise UsageError(f"--fail-on {text[:80]!r} is no rule", remedy=EXAMPLE)
    where = match["where"] or "*"
    space, _, rest = where.partition("/")
    if rest and space in (*SPACES, "model", "*"):
        chosen = None if space == "*" else space
        return Rule(text.strip(), match["quantity"], chosen, rest, match["sign"], number)
    return Rule(text.strip(), match["quantity"], None, where, match["sign"], number)


def check_rules(
    rules: Sequence[Rule],
    results: Results,
    rows: Sequence[Row],
    baseline: Comparison | None = None,
    signs: Sequence[Signature] = (),
) -> list[str]:
    """A sentence for every rule that is met. Raises UsageError for what does not exist.

    signs: of failure, see `report.failures.find_signatures`.
    """
    found = []
    for rule in rules:
        if rule.sign == MET:
            found += _signature(rule, signs)
        elif rule.quantity == "outside":
            found += _outside(rule, baseline)
        elif rule.quantity in COUNTS:
            found += _count(rule, results, rows)
        elif rule.quantity in results.signal_names:
            value = last_signal(results, rule.quantity)
            found += [f"{rule.text}: {rule.quantity} is {value:g}"] if rule.holds(value) else []
        else:
            found += _metric(rule, results, rows)
    return found


def _signature(rule: Rule, found: Sequence[Signature]) -> list[str]:
    """A sentence for each series that meets it; `where` is a glob of series, or of layers."""
    return [
        f"{rule.text}: {line}"
        for one in found
        if one.name == rule.quantity
        and any(fnmatchcase(part, rule.where) for part in (one.where, *one.where.split("/")[1:2]))
        for line in signature_lines([one])
    ]


def _outside(rule: Rule, baseline: Comparison | None) -> list[str]:
    if baseline is None:
        raise UsageError(f"--fail-on {rule.text!r} needs a baseline", remedy="--baseline NAME")
    if not rule.holds(len(baseline.departures)):
        return []
    first = baseline.departures[:1]
    where = f", first {first[0]['series']} at step {first[0]['step']}" if first else ""
    return [f"{rule.text}: {len(baseline.departures)} series outside {baseline.baseline}{where}"]


def _count(rule: Rule, results: Results, rows: Sequence[Row]) -> list[str]:
    if rule.quantity == "events":
        value = float(len(tidy_table(results, "events").get("event", ())))
    else:
        chosen = _chosen(rule, rows)
        value = float(sum(row["transitions"] for row in chosen))
        if rule.quantity == "excess":
            value -= sum(_expected(row) for row in chosen)
    return [f"{rule.text}: {value:g} {rule.quantity}"] if rule.holds(value) else []


def _expected(row: Row) -> float:
    """By chance; not a number where jumps were found and nothing was drawn (`--draws 0`)."""
    unknown = math.nan if row["transitions"] else 0.0
    return unknown if row["expected"] is None else float(row["expected"])


def _metric(rule: Rule, results: Results, rows: Sequence[Row]) -> list[str]:
    end, _, metric = rule.quantity.rpartition(".")
    of_metric = [row for row in rows if row["metric"] == metric]
    if end not in ("", *ENDS) or not of_metric:
        known = [*dict.fromkeys(row["metric"] for row in rows), *COUNTS, *results.signal_names]
        raise UsageError(
            f"--fail-on {rule.text!r}: there is no {rule.quantity!r}",
            remedy=nearest(rule.quantity, known),
        )
    key = ENDS[end or "last"]
    return [
        f"{rule.text}: {row['space']}/{row['layer']} {key} {metric} is {_said(row[key])}"
        for row in _chosen(rule, of_metric)
        if rule.holds(row[key])
    ]


def _chosen(rule: Rule, rows: Sequence[Row]) -> list[Row]:
    chosen = [
        row
        for row in rows
        if fnmatchcase(row["layer"], rule.where) and rule.space in (None, row["space"])
    ]
    if not chosen:
        names = dict.fromkeys(row["layer"] for row in rows[:200])
        raise UsageError(
            f"--fail-on {rule.text!r}: no layer is named {rule.where!r}",
            remedy=nearest(rule.where, names)[:300],
        )
    return chosen


def _said(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"
