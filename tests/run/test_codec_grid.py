"""Error-bounded precision: never beyond the bound, no drift, singular values within Weyl's."""

from __future__ import annotations

import numpy as np
import pytest

from ndt_offline.errors import RefusedError, UsageError
from ndt_offline.run import codec, container, grid
from ndt_offline.run.layout import Layout

LAYOUT = Layout.of({"a": ("float32", (200, 150)), "b": ("float32", (7,)), "n": ("int64", (2,))}, {})


def vectors(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "float32": (scale * rng.normal(size=30_007)).astype(np.float32).view(np.uint8),
        "int64": rng.integers(0, 99, 2).view(np.uint8),
    }


def parts(found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    values = found["float32"].view(np.float32).astype(np.float64)
    return values[:30_000].reshape(200, 150), values[30_000:]


@pytest.mark.parametrize("name", sorted(grid.PRECISIONS))
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e20])
def test_no_value_moves_further_than_promised(name: str, scale: float) -> None:
    digits = grid.digits_of(name)
    exact = vectors(0, scale)
    table = grid.choose(LAYOUT, exact, digits)
    coarse = grid.rounded(exact, table, LAYOUT)
    bounds = grid.bounds(LAYOUT, exact, coarse)
    for tensor, before, after in zip("ab", parts(exact), parts(coarse), strict=True):
        error = np.abs(before - after)
        rms = np.sqrt(np.square(before).mean())
        assert error.max() <= 2.0**-digits * rms * 2**0.5  # rms rounded to a power of two
        assert error.max() <= bounds[tensor].absolute
    weight, rounded = parts(exact)[0], parts(coarse)[0]
    assert np.linalg.norm(weight - rounded, 2) <= bounds["a"].spectral
    moved = np.linalg.svd(weight, compute_uv=False) - np.linalg.svd(rounded, compute_uv=False)
    assert np.abs(moved).max() <= bounds["a"].spectral
    assert (coarse["int64"] == exact["int64"]).all()


def test_rounding_again_changes_nothing() -> None:
    exact = vectors(1)
    table = grid.choose(LAYOUT, exact, 12)
    once = grid.rounded(exact, table, LAYOUT)
    twice = grid.rounded(once, table, LAYOUT)
    assert (once["float32"] == twice["float32"]).all()
    assert grid.fits(once, table, LAYOUT)


def test_gridded_checkpoints_come_back_through_the_codec() -> None:
    history = [vectors(0)]
    table = grid.choose(LAYOUT, history[0], 12)
    for seed in (1, 2):
        moved = history[0]["float32"].view(np.float32) + 1e-3 * vectors(seed)["float32"].view("f4")
        history.insert(0, {**vectors(seed), "float32": moved.astype(np.float32).view(np.uint8)})
    history = [grid.rounded(v, table, LAYOUT) for v in history]
    sizes = []
    for before in ([], history[1:2], history[1:3]):
        for small in (False, True):
            data = codec.encode_vectors(LAYOUT, history[0], before, {}, table, small)
            found = codec.decode_vectors(container.parse(data), LAYOUT, before)
            assert all((found[d] == history[0][d]).all() for d in found)
            sizes.append(len(data))
    assert sizes[2] < 0.8 * sizes[0] < 0.8 * 30_007 * 4 / 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_does_not_fit_is_kept_exactly(value: float) -> None:
    exact = vectors(3)
    exact["float32"].view(np.float32)[5] = value
    table = grid.choose(LAYOUT, exact, 12)
    assert table["float32"][0] is None and table["float32"][1] is not None
    coarse = grid.rounded(exact, table, LAYOUT)
    assert (coarse["float32"][:120_000] == exact["float32"][:120_000]).all()
    assert "a" not in grid.bounds(LAYOUT, exact, coarse)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_value_that_leaves_the_grid_is_noticed(value: float) -> None:
    table = grid.choose(LAYOUT, vectors(4), 12)
    exact = vectors(3)
    assert grid.fits(exact, table, LAYOUT)
    exact["float32"].view(np.float32)[5] = value
    assert not grid.fits(exact, table, LAYOUT)


def test_zeros_have_no_grid() -> None:
    zero = {"float32": np.zeros(120_028, np.uint8), "int64": np.zeros(16, np.uint8)}
    assert grid.choose(LAYOUT, zero, 12) == {"float32": [None, None]}


def test_odd_precisions_and_grids_are_refused() -> None:
    assert grid.digits_of(None) is None
    with pytest.raises(UsageError):
        grid.digits_of("q11")
    for exponents in ([1], [1, "2"], [1, 10_000], "no", [True, 1]):
        with pytest.raises(RefusedError):
            grid.scales_of(LAYOUT, exponents, "float32")


@pytest.mark.parametrize("dtype", sorted(grid.GRIDDED))
def test_products_with_powers_are_exact(dtype: str) -> None:
    """To the grid and back is what ldexp gives, at the ends of the exponents too."""
    low, high = grid.EXPONENTS[dtype]
    rng = np.random.default_rng(0)
    for exponent in (low, low + 1, -30, -1, 0, 17, high - 1, high):
        steps = rng.integers(-(2**22), 2**22 + 1, 2000).astype(f"i{grid.GRIDDED[dtype]}")
        steps[:3] = 0, 2**22, -(2**22)
        with np.errstate(over="ignore"):
            expected = np.ldexp(steps.astype(dtype), exponent)
            found = grid.from_grid(steps, dtype, [(slice(0, 2000), exponent)])
        assert found.tobytes() == expected.tobytes()
        near = np.ldexp(rng.uniform(-8, 8, 2000), exponent).astype(dtype)
        near[:4] = -0.0, np.finfo(dtype).tiny / 4, np.ldexp(0.5, exponent), np.ldexp(-1.5, exponent)
        multiples = grid.to_grid(near.view(np.uint8), dtype, [(slice(0, 2000), exponent)])
        assert (multiples == np.rint(np.ldexp(near.astype(np.longdouble), -exponent))).all()
