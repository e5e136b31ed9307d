"""The arithmetic against big integers, fractions and exponentials; C is tested on its values."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeq import fixedpoint

VECTORS = Path(__file__).parents[1] / "firmware_stubs" / "tests"
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
ONE = 1 << 31  # 1.0 in Q0.31
# gemmlowp's series around −1/8 drops terms from the fifth power on and rounds nine times.
EXP_ERROR = 512 / ONE
RECIPROCAL_ERROR = 8 / ONE  # three Newton–Raphson steps from 48/17 − 32/17·d, each rounded
MOST_SCALE = 15.9  # of a softmax: quantize stops there, one step is already all or nothing
SOFTMAX_ERROR = 1  # of 256: a last rounding either way; none was ever seen

fixed = settings(derandomize=True, max_examples=300, deadline=None)
int32 = st.integers(INT32_MIN, INT32_MAX)
multipliers = st.just(0) | st.integers(1 << 30, INT32_MAX)


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def half_away(x: Fraction) -> int:
    return half_up(x) if x >= 0 else -half_up(-x)


def requantized(x: int, multiplier: int, shift: int) -> int:
    """MultiplyByQuantizedMultiplier in exact arithmetic."""
    high = half_up(Fraction(x * 2 ** max(shift, 0) * multiplier, 2**31))
    return half_away(Fraction(high, 2 ** max(-shift, 0)))


@fixed
@given(int32, int32)
@example(INT32_MIN, INT32_MAX)
@example(-(1 << 30), 1)
@example(3 << 29, -1)
def test_the_high_word_is_the_product_rounded_half_up(a: int, b: int) -> None:
    expected = min(half_up(Fraction(a * b, 2**31)), INT32_MAX)
    assert fixedpoint.high_multiply(np.int64(a), b) == expected


def test_the_high_word_of_the_least_value_squared_saturates() -> None:
    assert fixedpoint.high_multiply(np.int64(INT32_MIN), INT32_MIN) == INT32_MAX


@fixed
@given(int32, st.integers(0, 31))
@example(INT32_MIN, 31)
@example(-1, 1)
@example(-3, 1)
@example(INT32_MAX, 31)
def test_a_right_shift_rounds_ties_away_from_zero(x: int, exponent: int) -> None:
    expected = half_away(Fraction(x, 2**exponent))
    assert fixedpoint.rounding_shift_right(np.int64(x), exponent) == expected


@fixed
@given(st.data(), multipliers, st.integers(-31, 30))
def test_requantising_equals_exact_arithmetic(
    data: st.DataObject, multiplier: int, shift: int
) -> None:
    most = INT32_MAX >> max(shift, 0)
    x = data.draw(st.integers(-most, most))
    assert fixedpoint.requantize(np.int64(x), multiplier, shift) == requantized(
        x, multiplier, shift
    )


@fixed
@given(st.integers(-(2**20), 2**20), st.floats(2.0**-20, 2.0**9))
def test_requantising_is_within_one_step_of_the_real_product(x: int, real: float) -> None:
    multiplier, shift = fixedpoint.quantize_multiplier(real)
    assert abs(fixedpoint.requantize(np.int64(x), multiplier, shift) - x * real) <= 1


@fixed
@given(
    st.integers(-(1 << 47) + 1, (1 << 47) - 1),
    st.integers(1 << 30, INT32_MAX),
    st.integers(-31, 14),
)
def test_sums_of_words_are_rounded_once_by_a_multiplier_of_15_bits(
    x: int, multiplier: int, shift: int
) -> None:
    reduced = min((multiplier + 0x8000) // 0x10000, 0x7FFF)
    exact = Fraction(x * reduced, 1 << (15 - shift))
    got = int(fixedpoint.requantize_wide(np.int64(x), multiplier, shift))
    assert got == half_up(exact)


@fixed
@given(int32, multipliers, st.integers(-31, 0))
def test_a_product_rounded_once_is_the_nearest_ties_up(x: int, multiplier: int, shift: int) -> None:
    got = int(fixedpoint.requantize_once(np.int64(x), multiplier, shift))
    assert got == half_up(Fraction(x * multiplier, 1 << (31 - shift)))


def test_requantising_works_element_by_element() -> None:
    x, multiplier, shift = np.array([5000, -5000]), np.array([1 << 30, 3 << 29]), np.array([-2, 1])
    single = [fixedpoint.requantize(x[i], multiplier[i], shift[i]) for i in range(2)]
    assert fixedpoint.requantize(x, multiplier, shift).tolist() == single


@fixed
@given(st.floats(2.0**-32, 2.0**29))
@example(math.nextafter(1.0, 0.0))
@example(2.0**-32)
@example(2.0**29)
def test_a_multiplier_is_exact_to_31_bits(real: float) -> None:
    multiplier, shift = fixedpoint.quantize_multiplier(real)
    got = Fraction(multiplier) * Fraction(2) ** (shift - 31)
    assert abs(got - Fraction(real)) <= Fraction(real) / 2**31


@fixed
@given(st.floats(0, 2.0**29))
@example(math.nextafter(1.0, 0.0))
@example(5e-324)
def test_a_multiplier_stays_in_its_ranges(real: float) -> None:
    multiplier, shift = fixedpoint.quantize_multiplier(real)
    assert multiplier == 0 or 1 << 30 <= multiplier < 1 << 31
    assert -31 <= shift <= 30


def test_a_multiplier_between_two_rounds_up_as_in_tflite() -> None:
    assert fixedpoint.quantize_multiplier(((1 << 30) + 0.5) / (1 << 31)) == ((1 << 30) + 1, 0)
    assert fixedpoint.quantize_multiplier(((1 << 30) + 1.5) / (1 << 31)) == ((1 << 30) + 2, 0)


@pytest.mark.parametrize("real", [0.0, 2.0**-33, 1e-300])
def test_a_multiplier_below_the_range_is_nothing(real: float) -> None:
    assert fixedpoint.quantize_multiplier(real) == (0, 0)


@pytest.mark.parametrize("real", [-0.1, math.nan, math.inf, 2.0**30])
def test_a_multiplier_that_cannot_be_is_refused(real: float) -> None:
    with pytest.raises(ValueError, match="a multiplier must be"):
        fixedpoint.quantize_multiplier(real)


@fixed
@given(int32, st.integers(1, 1 << 24))
@example(-7, 2)
@example(7, 2)
def test_a_mean_rounds_ties_away_from_zero(total: int, count: int) -> None:
    expected = half_away(Fraction(total, count))
    assert fixedpoint.round_away_divide(np.int64(total), np.int64(count)) == expected


def q5_26() -> np.ndarray:
    """Arguments of the exponential: 0, the smallest, every fine step near 0, and random ones."""
    rng = np.random.default_rng(3)
    spread = np.exp(rng.uniform(0, math.log(2.0**31), 50_000)).astype(np.int64)
    return -np.unique(np.concatenate([[1 << 31], np.arange(4096), np.arange(32) << 26, spread]))


def test_the_exponential_is_as_accurate_as_its_series() -> None:
    x = q5_26()
    real = fixedpoint.exp_on_negative(x) / ONE
    assert np.abs(real - np.exp(x / 2.0**26)).max() <= EXP_ERROR


def test_the_exponential_of_zero_is_the_greatest_value() -> None:
    assert fixedpoint.exp_on_negative(np.int64(0)) == INT32_MAX


def test_the_exponential_never_falls() -> None:
    x = np.sort(q5_26())
    assert (np.diff(fixedpoint.exp_on_negative(x)) >= 0).all()


def test_the_reciprocal_is_as_accurate_as_three_newton_steps() -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([[0, 1, INT32_MAX], rng.integers(0, ONE, 50_000)])
    real = fixedpoint.reciprocal_one_plus(x) / ONE
    assert np.abs(real - 1 / (1 + x / ONE)).max() <= RECIPROCAL_ERROR


def ideal_softmax(x: np.ndarray, scale: float) -> np.ndarray:
    power = np.exp((x - x.max(axis=-1, keepdims=True)) * scale)
    share = power / power.sum(axis=-1, keepdims=True)
    return np.clip(np.rint(256 * share) - 128, -128, 127)


@fixed
@given(
    st.lists(st.integers(-128, 127), min_size=1, max_size=40),
    st.floats(2.0**-24, MOST_SCALE),
)
@example([0] * 4095, 0.1)
@example([127] + [-128] * 600, 0.01)
@example([-128, 127], MOST_SCALE)
def test_softmax_is_within_one_step_of_the_ideal(values: list[int], scale: float) -> None:
    x = np.array(values)
    multiplier, shift = fixedpoint.quantize_multiplier(scale * 2.0**26)
    got = fixedpoint.softmax(x, multiplier, shift)
    assert np.abs(got - ideal_softmax(x, scale)).max() <= SOFTMAX_ERROR


@fixed
@given(st.lists(st.integers(-28, 27), min_size=2, max_size=12), st.integers(-100, 100))
def test_softmax_looks_at_differences_only(values: list[int], offset: int) -> None:
    x = np.array(values)
    multiplier, shift = fixedpoint.quantize_multiplier(0.1 * 2.0**26)
    moved = fixedpoint.softmax(x + offset, multiplier, shift)
    assert (moved == fixedpoint.softmax(x, multiplier, shift)).all()


def test_softmax_treats_every_row_for_itself() -> None:
    x = np.random.default_rng(5).integers(-128, 128, (3, 2, 7))
    multiplier, shift = fixedpoint.quantize_multiplier(0.05 * 2.0**26)
    rows = fixedpoint.softmax(x, multiplier, shift)
    assert (rows[1, 1] == fixedpoint.softmax(x[1, 1], multiplier, shift)).all()


def test_differences_beyond_the_softmax_table_have_probability_zero() -> None:
    multiplier, shift = fixedpoint.quantize_multiplier(MOST_SCALE * 2.0**26)
    assert fixedpoint.softmax(np.array([0, -2]), multiplier, shift).tolist() == [127, -128]


def test_the_vectors_that_c_is_tested_on_are_what_python_computes_now(tmp_path: Path) -> None:
    (tmp_path / "vectors").mkdir()
    script = shutil.copy(VECTORS / "make_vectors.py", tmp_path)
    subprocess.run([sys.executable, script], check=True, timeout=120)
    made = {file.name: file.read_bytes() for file in (tmp_path / "vectors").iterdir()}
    assert made == {file.name: file.read_bytes() for file in (VECTORS / "vectors").iterdir()}
