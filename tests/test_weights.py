"""Weights: ranges, the search for a scale, and the gain that it must not lose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq import weights

BITS = range(2, 9)
ROUNDING = 1e-9  # relative: float64 sums of at most 1,000 terms

fixed = settings(derandomize=True, max_examples=150, deadline=None)
Rows = np.ndarray[Any, np.dtype[np.float64]]
drawn = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 12)),
    elements=st.floats(-1e3, 1e3, width=32),
)


def normal(seed: int = 0, outputs: int = 8, values: int = 100) -> Rows:
    return np.random.default_rng(seed).normal(size=(outputs, values))


def squared_error(rows: Rows, scale: Rows, bits: int) -> Rows:
    error = weights.round_to(rows, scale, bits) * scale[:, None] - rows
    return np.asarray((error**2).sum(axis=1))


@pytest.mark.parametrize(
    ("bits", "low", "high"),
    [(2, -2, 1), (3, -4, 3), (4, -8, 7), (5, -16, 15), (6, -32, 31), (7, -64, 63), (8, -127, 127)],
)
def test_ranges_are_whole_but_for_8_bits(bits: int, low: int, high: int) -> None:
    assert weights.limits(bits) == (low, high)


@fixed
@given(drawn, st.sampled_from(BITS))
def test_the_absmax_scale_reaches_the_largest_weight(rows: Rows, bits: int) -> None:
    scale = weights.absmax_scale(rows, bits)
    largest = np.abs(rows).max(axis=1)
    reached = scale * weights.limits(bits)[1]
    assert np.allclose(reached[largest > 0], largest[largest > 0], rtol=ROUNDING)


@fixed
@given(drawn, st.sampled_from(BITS))
def test_integers_stay_in_range(rows: Rows, bits: int) -> None:
    integers = weights.round_to(rows, weights.search_scale(rows, bits), bits)
    low, high = weights.limits(bits)
    assert low <= integers.min()
    assert integers.max() <= high


@fixed
@given(drawn, st.sampled_from(BITS))
def test_the_search_is_never_worse_than_absmax(rows: Rows, bits: int) -> None:
    found = squared_error(rows, weights.search_scale(rows, bits), bits)
    plain = squared_error(rows, weights.absmax_scale(rows, bits), bits)
    assert (found <= plain).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_search_clips_normal_weights_of_few_bits(bits: int) -> None:
    rows = normal()
    assert (weights.search_scale(rows, bits) < weights.absmax_scale(rows, bits)).all()


def test_the_search_treats_every_row_for_itself() -> None:
    rows = normal() * np.logspace(-3, 3, 8)[:, None]
    alone = [weights.search_scale(row[None], 4)[0] for row in rows]
    assert weights.search_scale(rows, 4).tolist() == alone


@pytest.mark.parametrize("bits", BITS)
def test_weights_on_the_grid_are_kept_exactly(bits: int) -> None:
    low, high = weights.limits(bits)
    rows = np.arange(max(low, -high), high + 1)[None] * 0.25
    assert squared_error(rows, weights.search_scale(rows, bits), bits) == 0


@pytest.mark.parametrize("bits", BITS)
def test_a_row_of_zeros_has_scale_one(bits: int) -> None:
    rows = np.zeros((2, 5))
    rows[1] = 3
    assert weights.search_scale(rows, bits)[0] == 1
    assert weights.absmax_scale(rows, bits)[0] == 1


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_search_shrinks_weights_of_few_bits(bits: int) -> None:
    """What `preserve_gain` is for."""
    rows = normal()
    scale = weights.search_scale(rows, bits)
    kept = (rows * weights.round_to(rows, scale, bits)).sum(axis=1) * scale
    assert (kept < (rows * rows).sum(axis=1)).all()


@fixed
@given(drawn, st.sampled_from(BITS))
def test_the_gain_of_every_row_is_restored_or_its_scale_kept(rows: Rows, bits: int) -> None:
    scale = weights.absmax_scale(rows, bits)
    integers = weights.round_to(rows, scale, bits)
    kept = weights.preserve_gain(rows, integers, scale)
    product = (rows * integers).sum(axis=1)
    alive = product > 0
    power = (rows * rows).sum(axis=1)
    assert np.allclose((product * kept)[alive], power[alive], rtol=ROUNDING)
    assert (kept[~alive] == scale[~alive]).all()


def test_a_row_that_became_zero_keeps_its_scale() -> None:
    rows, scale = np.full((1, 4), 0.1), np.array([1.0])
    assert weights.preserve_gain(rows, np.zeros((1, 4)), scale).tolist() == [1.0]
