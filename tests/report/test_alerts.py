"""Rules of --fail-on: what they mean, and that nothing in them is run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndt_offline.errors import UsageError
from ndt_offline.relate.signatures import SIGNATURES
from ndt_offline.report.alerts import MET, check_rules, parse_rule
from ndt_offline.report.failures import Signature

from .conftest import Made


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("stable_rank(fc1) > 2.9", ["activations/fc1"]),
        ("stable_rank(activations/*) < 2.5", ["activations/fc2"]),
        ("first.stable_rank(*/fc1) > 2.9", []),
        ("max.stable_rank(weights/*) >= 1", ["weights/fc1.weight", "weights/fc2.weight"]),
        ("transitions(fc1) == 1", ["1 transitions"]),
        ("transitions > 1", []),
        ("excess > 0.5", ["excess"]),
        ("events >= 1", ["1 events"]),
        ("loss < 0.5", ["loss is"]),
        ("probe_loss > 1", []),
    ],
)
def test_rules_compare_what_was_found(made: Made, text: str, met: list[str]) -> None:
    found = check_rules([parse_rule(text)], made.results, made.table)
    assert len(found) == len(met)
    for said, part in zip(found, met, strict=True):
        assert part in said and said.startswith(text)


def test_a_signature_is_a_rule_by_itself(made: Made) -> None:
    found = [
        Signature("collapse", "activations/fc2/effective_rank", 40, "it fell"),
        Signature("spike", "loss", 10, "it jumped"),
    ]

    def said(text: str) -> list[str]:
        return check_rules([parse_rule(text)], made.results, made.table, signs=found)

    assert len(said("collapse")) == len(said("collapse(fc2)")) == len(said(" spike ")) == 1
    assert "fc2" in said("collapse(activations/fc2/*)")[0] and "step 40" in said("collapse")[0]
    assert said("collapse(fc1)") == said("dying") == []


@pytest.mark.parametrize(
    "text",
    ["", "stable_rank", "stable_rank <", "< 2", "stable_rank(fc1) < two", "stable_rank < 1.2.3",
     "__import__('os').system('x') < 2", "stable_rank(fc1) < 2; import os", "a" * 10_000 + " < 2"],
)  # fmt: skip
def test_what_is_no_rule_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rule(text)
    assert "--fail-on" in str(caught.value.remedy)


@pytest.mark.parametrize("text", ["rank(fc1) < 2", "stable_rank(fc9) < 2", "last.nothing < 2"])
def test_what_does_not_exist_is_named_with_what_does(made: Made, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_rules([parse_rule(text)], made.results, made.table)
    assert caught.value.remedy


@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_a_usage_error(text: str) -> None:
    try:
        rule = parse_rule(text)
    except UsageError:
        return
    named = rule.sign == MET and rule.quantity in SIGNATURES
    assert named or rule.sign in ("<", "<=", ">", ">=", "==", "!=")


def test_a_missing_value_meets_only_unequal() -> None:
    assert not any(parse_rule(f"stable_rank {sign} 2").holds(None) for sign in ("<", ">=", "=="))
    assert parse_rule("stable_rank != 2").holds(None)
