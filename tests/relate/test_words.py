"""The words follow from the numbers: every rule of the module's docstring, one by one."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from ndt_offline.relate import Coupling, Phase, PhaseFit, coupling_words, layer_words, phase_words
from ndt_offline.relate.words import number, trend_words

BLANK = Coupling(
    **{f.name: np.nan for f in fields(Coupling)} | {"series": 0, "target": 0, "status": "ok"}
)
NULL = replace(BLANK, rho=-0.951, rho_time=-0.959, rho_series_time=0.7, p=0.46, q=0.8)
FOUND = replace(
    NULL,
    p=0.0005,
    q=0.002,
    rho_detrended=0.41,
    p_detrended=0.0002,
    rho_differenced=0.1,
    p_differenced=0.3,
    rho_lag=0.41,
    p_lag=0.02,
    lag=0.0,
    lag_low=-5.0,
    lag_high=5.0,
)


@pytest.mark.parametrize(
    ("rho", "words"),
    [
        (0.95, "grows steadily with training"),
        (0.6, "grows with training"),
        (0.3, "has no clear trend"),
        (-0.49, "has no clear trend"),
        (-0.5, "shrinks with training"),
        (-0.9, "shrinks steadily with training"),
        (np.nan, ""),
    ],
)
def test_trend(rho: float, words: str) -> None:
    assert trend_words(rho) == words


def test_the_line_of_the_article() -> None:
    line = layer_words([NULL], ["loss"])
    assert line == "grows with training; no coupling to loss beyond that (p .46)"


def test_without_a_trend_there_is_nothing_to_be_beyond() -> None:
    flat = replace(NULL, rho_series_time=0.1)
    assert layer_words([flat], ["loss"]) == "has no clear trend; no coupling to loss (p .46)"


def test_a_high_rho_of_the_levels_alone_is_never_called_a_coupling() -> None:
    assert coupling_words(replace(NULL, rho=1.0), "loss").startswith("no coupling")


def test_coupled() -> None:
    want = "moves with loss beyond that (rho +0.41 of the fluctuations, p .0005)"
    assert coupling_words(FOUND, "loss") == want
    other = replace(FOUND, p_differenced=1e-6, rho_differenced=-0.3)
    assert coupling_words(other, "loss").startswith("moves against loss beyond that (rho -0.30")


def test_a_hint_is_called_a_hint() -> None:
    hint = replace(FOUND, p=0.03, q=0.21)
    want = (
        "a hint of coupling to loss beyond that (p .030) that does not hold among all pairs (q .21)"
    )
    assert coupling_words(hint, "loss") == want


def test_a_lead_is_named_only_when_its_interval_leaves_out_zero() -> None:
    ahead = replace(FOUND, lag=20.0, lag_low=10.0, lag_high=30.0)
    behind = replace(FOUND, lag=-20.0, lag_low=-30.0, lag_high=-10.0)
    assert coupling_words(ahead, "loss").endswith(", leading it by about 20 steps (10 to 30)")
    assert coupling_words(behind, "loss").endswith(", following it by about 20 steps (10 to 30)")
    assert "steps" not in coupling_words(replace(ahead, lag_low=0.0), "loss")
    assert "steps" not in coupling_words(replace(ahead, p=0.3, q=0.5), "loss")


def test_untested_says_why() -> None:
    gone = replace(BLANK, status="constant series")
    assert layer_words([gone], ["loss"]) == "coupling to loss not tested: constant series"


def test_several_targets_are_one_line() -> None:
    line = layer_words([NULL, replace(NULL, target=1, p=0.2)], ["loss", "gradient norm"])
    assert line.endswith("(p .46); no coupling to gradient norm beyond that (p .20)")


def phase(label: str, end: float) -> Phase:
    return Phase(label, 0.0, 0.0, 0.0, end, 1.0, 0.5, 1.5)


def test_phases() -> None:
    names = [("falls", 46.4), ("rises", 3081.0), ("stable", 8000.0)]
    fit = PhaseFit(0, "ok", tuple(phase(*n) for n in names))
    assert phase_words(fit) == "falls to step 46, then rises to step 3081, then stable"
    assert phase_words(replace(fit, phases=fit.phases[:1])) == "falls throughout"
    twice = (phase("stable", 9.0), phase("stable", 40.0), phase("falls", 80.0))
    assert phase_words(replace(fit, phases=twice)) == "stable to step 40, then falls"
    assert phase_words(replace(fit, phases=twice[:2])) == "stable throughout"
    assert phase_words(replace(fit, persistence=0.97)) == phase_words(fit)
    assert phase_words(replace(fit, persistence=0.98)) == phase_words(fit) + ", or a random walk"
    flat = replace(fit, phases=twice[:2], persistence=0.99)
    assert phase_words(flat) == "stable throughout"
    for count, enough in ((1, 2.0), (2, 7.0), (3, 12.0)):
        some = replace(fit, phases=fit.phases[-count - 1 : -1] if count < 3 else fit.phases)
        assert phase_words(replace(some, evidence=enough)) == phase_words(some)
        doubted = replace(some, evidence=enough - 0.1)
        assert phase_words(doubted) == phase_words(some) + ", or a random walk"
    assert phase_words(PhaseFit(0, "too short")) == "no phases: too short"


@pytest.mark.parametrize(
    ("p", "words"),
    [(0.46, ".46"), (0.031, ".031"), (0.0005, ".0005"), (1e-9, "<.0001"), (1, "1.00")],
)
def test_numbers(p: float, words: str) -> None:
    assert number(p) == words
