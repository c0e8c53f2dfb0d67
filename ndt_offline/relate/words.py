"""Plain words for couplings and phases: the rules, and nothing that the numbers do not say.

Trend of a series, by its rho with training time:
    rho_series_time >= .5      "grows with training"       (>= .9 "grows steadily with training")
    rho_series_time <= -.5     "shrinks with training"     (<= -.9 "shrinks steadily ...")
    otherwise                  "has no clear trend"
Coupling to a target, by q, then p (the Simes p), never by rho of the levels:
    no p                       "coupling to loss not tested: " and the status
    q <= .05                   "moves with loss" or "moves against loss", "beyond that" after a
                               trend, with rho of the fluctuations (detrended, differenced or
                               at the lag: that with the smallest p) and p
    q > .05, p <= .05          "a hint of coupling to loss (p .03) that does not hold among all
                               pairs (q .21)"
    p > .05                    "no coupling to loss beyond that (p .46)"
Lead, only of a coupled pair, by the interval of the lag:
    all above 0                "leading it by about 20 steps (10 to 30)"
    all below 0                "following it by about ..."
    otherwise                  nothing: no lead is shown
Phases: the labels in order with the steps at which they end: "falls to step 46, then
rises to step 3081, then stable"; neighbours of one label are said once, and if all have the
same label it is "falls throughout". "..., or a random walk" is added where slow noise may
have done it: where the noise around the phases is as persistent as that of fits to random
walks (.975 and above from sample to sample; 22 of 30 walks of 1600 samples bent, against 2 of
30 with AR .99), or where the phases are no more than 2, 7, 12 (of one, two, three) in
log-likelihood above the simplest course, a straight line or for one phase none, in slower noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from ndt_offline.relate.couplings import ALPHA, Coupling
from ndt_offline.relate.phase import PhaseFit

OR_WALK = ", or a random walk"
TREND = 0.5
STEADY = 0.9
WALKS = 0.975
# Of straight lines in noise up to AR .99, white noise added or not, .09 and less bend and pass.
ENOUGH = (2.0, 7.0, 12.0)


def trend_words(rho_series_time: float) -> str:
    """What the series does with training time; empty if that is unknown."""
    if np.isnan(rho_series_time):
        return ""
    if abs(rho_series_time) < TREND:
        return "has no clear trend"
    verb = "grows" if rho_series_time > 0 else "shrinks"
    return (
        f"{verb} steadily with training"
        if abs(rho_series_time) >= STEADY
        else f"{verb} with training"
    )


def coupling_words(coupling: Coupling, target: str) -> str:
    """What one pair shows beyond the clock they share."""
    if np.isnan(coupling.p):
        return f"coupling to {target} not tested: {coupling.status}"
    trends = abs(coupling.rho_series_time) >= TREND
    beyond = " beyond that" if trends else ""
    p = f"p {number(coupling.p)}"
    if coupling.coupled:
        rho = fluctuation_rho(coupling)
        way = "moves with" if rho > 0 else "moves against"
        head = f"{way} {target}{beyond} (rho {rho:+.2f} of the fluctuations, {p})"
        return head + lead_words(coupling)
    if coupling.p <= ALPHA:
        return (
            f"a hint of coupling to {target}{beyond} ({p}) that does not hold among all pairs "
            f"(q {number(coupling.q)})"
        )
    return f"no coupling to {target}{beyond} ({p})"


def fluctuation_rho(coupling: Coupling) -> float:
    """rho of the detrended pair, the differenced, or the one at its lag: that of the smallest p."""
    shown = (
        (coupling.p_detrended, coupling.rho_detrended),
        (coupling.p_differenced, coupling.rho_differenced),
        (coupling.p_lag, coupling.rho_lag),
    )
    tested = [pair for pair in shown if not np.isnan(pair[0])]
    return min(tested, key=lambda pair: pair[0])[1] if tested else coupling.partial


def lead_words(coupling: Coupling) -> str:
    """Who moves first, where the interval of the lag leaves no doubt; else empty."""
    if coupling.lag_low > 0:
        verb, near, far = "leading", coupling.lag_low, coupling.lag_high
    elif coupling.lag_high < 0:
        verb, near, far = "following", -coupling.lag_high, -coupling.lag_low
    else:
        return ""
    return f", {verb} it by about {abs(coupling.lag):.0f} steps ({near:.0f} to {far:.0f})"


def phase_words(fit: PhaseFit) -> str:
    """The phases in order, with the steps at which they end."""
    if not fit.phases:
        return f"no phases: {fit.status}"
    groups = [(label, list(same)) for label, same in groupby(fit.phases, lambda p: p.label)]
    ends = [(name, same[-1].end) for name, same in groups]
    *before, (last, _) = ends
    words = [f"{name} to step {end:.0f}" for name, end in before]
    said = ", then ".join([*words, last]) if before else f"{last} throughout"
    decided = any(phase.label in ("falls", "rises") for phase in fit.phases)
    slow = fit.persistence >= WALKS or fit.evidence < ENOUGH[len(fit.phases) - 1]
    return f"{said}{OR_WALK}" if decided and slow else said


def layer_words(
    couplings: Sequence[Coupling], targets: Sequence[str], fit: PhaseFit | None = None
) -> str:
    """One line for one series: its trend, its coupling to every target, its phases.

    `couplings` are the records of one series; `targets` names the targets they point at.
    """
    trend = trend_words(couplings[0].rho_series_time) if couplings else ""
    clauses = [trend] if trend else []
    clauses += [coupling_words(c, targets[c.target]) for c in couplings]
    if fit is not None:
        clauses.append(phase_words(fit))
    return "; ".join(clauses)


def number(p: float) -> str:
    """A p or q in two digits: .46, .031, <.0001."""
    if p < 1e-4:
        return "<.0001"
    digits = 2 if p >= 0.1 else 3 if p >= 0.01 else 4
    return f"{p:.{digits}f}".removeprefix("0")
