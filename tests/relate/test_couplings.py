"""Records of couplings: planted truth, gaps, ties, constants, uneven steps, and who leads."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from scipy.stats import spearmanr

from ndt_offline.errors import UsageError
from ndt_offline.relate import STATUS, Coupling, correlate, coupling_records, couplings_table
from ndt_offline.relate.cells import COUPLED, LAGGED, NULLS
from ndt_offline.relate.levels import partial_rho
from ndt_offline.relate.shift import p_of_shift, shifts_for


def pair(name: str, seed: int = 0, n: int = 1600) -> tuple[np.ndarray, np.ndarray]:
    draw = COUPLED[name] if name in COUPLED else LAGGED[name]
    return draw(np.random.default_rng(seed), 1, n)


def test_records_are_series_major_and_agree_with_scipy() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(3, 200)), rng.normal(size=(2, 200))
    records = correlate(x, y)
    assert [(r.series, r.target) for r in records] == [(i, j) for i in range(3) for j in range(2)]
    for r in records:
        assert r.rho == pytest.approx(spearmanr(x[r.series], y[r.target]).statistic, abs=1e-12)
        time = spearmanr(np.arange(200), y[r.target]).statistic
        assert r.rho_time == pytest.approx(time, abs=1e-12)
        assert r.low < r.rho < r.high and r.n == 200 and r.status == "ok"


def test_the_table_holds_every_field_of_a_record_as_a_column() -> None:
    rng = np.random.default_rng(2)
    table = couplings_table(rng.normal(size=(3, 150)), rng.normal(size=(2, 150)))
    assert set(table) == {f.name for f in fields(Coupling)} - {"series", "target"}
    assert all(column.shape == (3, 2) for column in table.values())
    assert table["status"].dtype == np.uint8
    assert coupling_records(table)[3].rho == table["rho"][1, 1]


def test_two_trends_have_a_high_rho_and_no_coupling() -> None:
    rng = np.random.default_rng(3)
    t = np.arange(1600) / 1600
    x = -8 * t + rng.normal(size=1600)
    y = 5 * np.exp(-4 * t) + 0.1 * rng.normal(size=1600)
    (r,) = correlate(x, y)
    assert r.rho > 0.8 and r.rho_time < -0.8
    assert abs(r.partial) < 0.1
    assert r.p > 0.05 and not r.coupled


@pytest.mark.parametrize("name", [*COUPLED, *LAGGED])
def test_planted_couplings_are_found_at_their_lag(name: str) -> None:
    (r,) = correlate(*pair(name, seed=4), steps=np.arange(1600) * 5)
    assert r.coupled
    lag = 25 if name in LAGGED else 0
    assert r.lag_low <= lag <= r.lag_high
    assert r.lag % 5 == 0


def test_the_sign_of_the_lag_says_who_leads() -> None:
    x, y = pair("lag 5: AR .9 + noise", seed=5)
    (ahead,), (behind,) = correlate(x, y), correlate(y, x)
    assert ahead.lag_low > 0 and behind.lag_high < 0
    assert ahead.lag == -behind.lag


def test_p_does_not_change_under_units_and_growing_scales() -> None:
    x, y = pair("AR .9, shocks .2", seed=6)
    (plain,), (moved,) = correlate(x, y), correlate(1e6 * x - 3e6, -0.001 * y)
    assert moved.p == pytest.approx(plain.p, rel=1e-6)
    assert moved.rho == pytest.approx(-plain.rho, abs=1e-9)


def test_partial_rho_is_the_correlation_of_what_a_line_in_time_leaves() -> None:
    rng = np.random.default_rng(7)
    a, b, t = rng.normal(size=(3, 500))
    a, b = a + t, b - 2 * t

    def corr(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.array(np.corrcoef(u, v)[0, 1])

    def left(u: np.ndarray) -> np.ndarray:
        return u - np.polyval(np.polyfit(t, u, 1), t)

    got = partial_rho(corr(a, b), corr(a, t), corr(b, t))
    assert got == pytest.approx(corr(left(a), left(b)), abs=1e-9)


def test_truncated_shift_counts_shifts_as_a_loop_does() -> None:
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(2, 1600)).cumsum(1)
    assert shifts_for(1600) == list(range(-200, 201, 10))
    at = [abs(spearmanr(x[200:-200], y[200 + s : 1400 + s]).statistic) for s in shifts_for(1600)]
    want = np.mean(np.array(at) >= at[20] - 1e-12)
    assert p_of_shift(x[None], y[None]).item() == pytest.approx(want)


def test_gaps_are_pairwise_complete_and_said() -> None:
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(2, 400)), rng.normal(size=(2, 400))
    x[0, [5, 50, 51]] = np.nan
    y[1, 7] = np.inf
    records = correlate(x, y)
    ok = np.isfinite(x[0]) & np.isfinite(y[1])
    assert records[1].n == 396
    assert records[1].rho == pytest.approx(spearmanr(x[0][ok], y[1][ok]).statistic, abs=1e-12)
    assert [r.status for r in records] == ["gaps filled", "gaps filled", "ok", "gaps filled"]
    assert all(np.isfinite(r.p) for r in records)
    x[0, 100:200] = np.nan
    (r, *_) = correlate(x, y)
    assert r.status == "too many gaps" and np.isnan(r.p) and np.isfinite(r.rho)


def test_what_is_missing_at_the_ends_is_no_gap() -> None:
    x, y = np.random.default_rng(9).normal(size=(2, 2, 400))
    x[0, :3], y[0, -1], y[1, 200] = np.nan, np.nan, np.nan
    for steps in (None, np.append(np.arange(3), 5 * np.arange(1, 398))):
        records = correlate(x, y, steps)
        assert [r.status for r in records] == ["ok", "gaps filled"] * 2
    assert records[0].n == 396
    rounded = np.where(np.isnan(y), y, y > 1)
    assert [r.status for r in correlate(x, rounded)] == ["many ties"] * 4


def test_what_has_no_answer_says_why() -> None:
    rng = np.random.default_rng(10)
    noise = rng.normal(size=300)
    series = np.vstack([np.full(300, 3.0), np.full(300, np.nan), noise > 0, noise])
    targets = np.vstack([noise[::-1], np.zeros(300)])
    status = [r.status for r in correlate(series, targets)]
    assert status[:4] == ["constant series", "constant series", "too short", "too short"]
    assert status[4:] == ["many ties", "constant target", "ok", "constant target"]
    (short,) = correlate(noise[:60], noise[60:120])
    assert short.status == "too short" and np.isnan(short.p) and np.isfinite(short.rho)


def test_a_pair_without_p_does_not_dilute_the_q_of_others() -> None:
    x, y = pair("AR .5 + noise", seed=11)
    alone = correlate(x, y)[0]
    among = correlate(np.vstack([x, np.zeros((5, 1600))]), y)[0]
    assert among.q == pytest.approx(alone.q)


def test_uneven_steps_are_thinned_filled_or_refused_by_name() -> None:
    x, y = pair("AR .5 + noise", seed=12)
    steps = np.arange(1600) * 5.0
    even = correlate(x, y, steps)[0]
    lost = np.delete(np.arange(1600), [10, 500, 501, 1200])
    thin = correlate(x[:, lost], y[:, lost], steps[lost])[0]
    assert thin.status == "gaps filled"
    assert thin.n == 1596 and thin.coupled
    assert thin.rho_detrended == pytest.approx(even.rho_detrended, abs=0.02)
    odd = np.cumsum(np.random.default_rng(0).uniform(1, 9, 1600))
    refused = correlate(x, y, odd)[0]
    assert refused.status == "irregular steps"
    assert np.isnan(refused.p) and refused.rho == pytest.approx(even.rho)


def test_dense_first_steps_change_nothing_of_the_tests() -> None:
    x, y = pair("AR .5 + noise", seed=13)
    regular = correlate(x, y, np.arange(1600) * 5)[0]
    rng = np.random.default_rng(0)
    steps = np.concatenate([np.arange(0, 5.0), np.arange(1, 1600) * 5.0])
    dense_x = np.insert(x, [1] * 4, rng.normal(size=(1, 4)), axis=1)
    dense_y = np.insert(y, [1] * 4, rng.normal(size=(1, 4)), axis=1)
    dense = correlate(dense_x, dense_y, steps)[0]
    assert dense.p == pytest.approx(regular.p) and dense.status == "ok"
    assert dense.n == 1604


def test_smoothing_stands_beside_and_inflates() -> None:
    rng = np.random.default_rng(14)
    t = np.arange(1600) / 1600
    x, y = 2 * t + rng.normal(size=1600), -2 * t + rng.normal(size=1600)
    (plain,), (smooth,) = correlate(x, y), correlate(x, y, smooth=151)
    assert np.isnan(plain.rho_smooth)
    assert smooth.rho == plain.rho and smooth.p == plain.p
    assert smooth.rho_smooth < -0.8 < smooth.rho
    assert smooth.rho_time_smooth < -0.9


def test_noise_free_curves_are_not_called_coupled() -> None:
    t = np.arange(1600) / 1600
    (r,) = correlate(np.exp(-3 * t), 1 / (1 + 9 * t))
    assert r.rho == pytest.approx(1)
    assert r.status == "no fluctuations" and np.isnan(r.p) and not r.coupled
    noisy = np.exp(-3 * t) + 0.1 * np.random.default_rng(0).normal(size=1600)
    (line,) = correlate(noisy, 3.0 + 2.0 * t)
    assert line.status == "no fluctuations" and np.isnan(line.p)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="samples"):
        correlate(np.zeros((2, 5)), np.zeros((1, 6)))
    with pytest.raises(UsageError, match="array"):
        correlate(np.zeros((2, 5, 1)), np.zeros((1, 5)))
    with pytest.raises(UsageError, match="smooth"):
        correlate(np.zeros((2, 5)), np.zeros((1, 5)), smooth=0)
    assert correlate(np.zeros((0, 5)), np.zeros((1, 5))) == []


def test_status_code_zero_is_left_to_the_store() -> None:
    assert STATUS[0] == "not computed"
    table = couplings_table(NULLS["white noise"](np.random.default_rng(0), 2, 150), np.zeros(150))
    assert (table["status"] > 0).all()


def test_many_series_in_chunks_are_the_same_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(15)
    x, y = NULLS["AR(1) .5"](rng, 150, 200), NULLS["AR(1) .5"](rng, 2, 200)
    whole = couplings_table(x, y)
    monkeypatch.setattr("ndt_offline.relate.beyond.CHUNK", 1)
    parts = couplings_table(x, y)
    for name, column in whole.items():
        np.testing.assert_allclose(parts[name], column, rtol=1e-9, atol=1e-12)


def test_every_series_with_a_gap_of_its_own() -> None:
    rng = np.random.default_rng(16)
    x, y = NULLS["AR(1) .5"](rng, 30, 300), NULLS["AR(1) .5"](rng, 1, 300)
    x[np.arange(30), rng.integers(1, 299, 30)] = np.nan
    alone = [correlate(row, y)[0] for row in x]
    for one, many in zip(alone, correlate(x, y), strict=True):
        assert many.n == 299 and many.status == "gaps filled"
        assert many.rho == pytest.approx(one.rho, abs=1e-12)
        assert many.p == pytest.approx(one.p, rel=1e-6)
