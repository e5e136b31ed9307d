"""Integer arithmetic, defined once: rounding, saturation, multiplier and shift.

The C twin is `firmware_stubs/runtime/eq_fixed.h`; both are tested on the same golden vectors. The
rules are those of gemmlowp as TensorFlow Lite Micro uses them ("double rounding"): a saturating
rounding doubling high multiply, then a rounding division by a power of two.

Arrays are int64 NumPy arrays that hold int32 values, so that intermediate products are exact.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

INT32_MAX = (1 << 31) - 1
ADD_LEFT_SHIFT = 20  # head-room bits of both inputs of an addition
ADD_LEFT_SHIFT_WIDE = 15  # where an operand has 16 bits
SOFTMAX_INTEGER_BITS = 5  # softmax differences are Q5.26
SOFTMAX_SUM_BITS = 12  # sums of exponentials are Q12.19


def quantize_multiplier(real: float) -> tuple[int, int]:
    """The (multiplier, shift) with real ≈ multiplier · 2^(shift − 31).

    The multiplier is 0 or in [2^30, 2^31); the shift is in [−31, 30], positive to the left. Reals
    too small for that range become (0, 0).

    Raises:
        ValueError: `real` is negative, not finite, or 2^30 and above.
    """
    if not math.isfinite(real) or real < 0:
        raise ValueError(f"a multiplier must be finite and not negative, got {real}")
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * (1 << 31) + 0.5)  # ties up, as TFLite's round takes them
    if multiplier == 1 << 31:
        multiplier, shift = 1 << 30, shift + 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        raise ValueError(f"a multiplier must be below 2^30, got {real}")
    return multiplier, shift


def high_multiply(a: Int64, b: Int64 | int) -> Int64:
    """The rounded high word of 2·a·b, saturated (gemmlowp SaturatingRoundingDoublingHighMul)."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    product += 1 << 30
    product >>= 31
    return np.asarray(np.minimum(product, INT32_MAX), np.int64)  # only −2^31 · −2^31 exceeds it


def rounding_shift_right(x: Int64, exponent: Int64 | int) -> Int64:
    """The quotient x / 2^exponent, ties away from zero (gemmlowp RoundingDivideByPOT)."""
    x = np.asarray(x, np.int64)
    exponent = np.asarray(exponent, np.int64)
    half = (np.int64(1) << exponent) >> 1
    rounded = x + half
    rounded -= (x < 0) & (half > 0)  # floor would take negative ties the other way
    rounded >>= exponent
    return rounded


def requantize(x: Int64, multiplier: Int64 | int, shift: Int64 | int) -> Int64:
    """X · multiplier · 2^(shift − 31) with double rounding (MultiplyByQuantizedMultiplier).

    Exact as long as |x| · 2^max(shift, 0) < 2^31, which `eq_init` and `quantize` both check.
    """
    shift = np.asarray(shift, np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    return rounding_shift_right(high_multiply(np.asarray(x, np.int64) << left, multiplier), right)


def requantize_wide(x: Int64, multiplier: Int64 | int, shift: Int64 | int) -> Int64:
    """X · multiplier · 2^(shift − 31) rounded once, ties up: sums of layers with 16-bit inputs.

    The int64 MultiplyByQuantizedMultiplier of TFLite: the multiplier is reduced to 15 bits first.
    Exact as long as |x| < 2^47 and the shift is in [−31, 14], which `eq_init` and `quantize` check.
    """
    reduced = np.minimum((np.asarray(multiplier, np.int64) + (1 << 15)) >> 16, (1 << 15) - 1)
    return _rounded_once(x, reduced, 15 - np.asarray(shift, np.int64))


def requantize_once(x: Int64, multiplier: Int64 | int, shift: Int64 | int) -> Int64:
    """X · multiplier · 2^(shift − 31) rounded once, ties up, with the whole multiplier.

    Exact as long as |x| < 2^31 and the shift is at most 30.
    """
    return _rounded_once(x, multiplier, 31 - np.asarray(shift, np.int64))


def _rounded_once(x: Int64, factor: Int64 | int, right: Int64) -> Int64:
    half = np.int64(1) << (right - 1)
    return np.asarray((np.asarray(x, np.int64) * factor + half) >> right, np.int64)


def round_away_divide(total: Int64, count: Int64) -> Int64:
    """Total / count, ties away from zero: the mean of an average pool."""
    magnitude = (np.abs(total) + count // 2) // count
    return np.asarray(np.where(total < 0, -magnitude, magnitude), np.int64)


def softmax_minimum_difference(shift: int) -> int:
    """Differences to the row's maximum below this one have probability 0."""
    return -((((1 << SOFTMAX_INTEGER_BITS) - 1) << (31 - SOFTMAX_INTEGER_BITS)) >> shift)


def _shift_left_saturate(x: Int64, exponent: int) -> Int64:
    return np.asarray(np.clip(x << exponent, -(1 << 31), INT32_MAX), np.int64)


def exp_on_negative(x: Int64, integer_bits: int = SOFTMAX_INTEGER_BITS) -> Int64:
    """exp(x) as Q0.31 for x ≤ 0 in Q5.26, or with 4 integer bits (gemmlowp exp_on_negative_values).

    A Taylor series around −1/8 covers [−1/4, 0); each set bit of the rest multiplies by a constant.
    """
    x = np.asarray(x, np.int64)
    quarter = 1 << (31 - integer_bits - 2)
    reduced = (x & (quarter - 1)) - quarter
    a = (reduced << integer_bits) + (1 << 28)
    a2 = high_multiply(a, a)
    a3 = high_multiply(a2, a)
    a4 = high_multiply(a2, a2)
    third = 715827883  # 1/3
    series = high_multiply(rounding_shift_right(a4, 2) + a3, third) + a2
    centre = 1895147668  # exp(−1/8)
    result = centre + high_multiply(a + rounding_shift_right(series, 1), centre)
    rest = reduced - x
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
    for exponent, factor in enumerate(factors[: integer_bits + 2], start=-2):  # exp(−2^exponent)
        bit = 1 << (31 - integer_bits + exponent)
        result = np.where(rest & bit, high_multiply(result, factor), result)
    return np.asarray(np.where(x == 0, INT32_MAX, result), np.int64)


def reciprocal_one_plus(x: Int64) -> Int64:
    """1 / (1 + x) as Q0.31 for x in [0, 1) as Q0.31 (gemmlowp one_over_one_plus_x)."""
    return _shift_left_saturate(_reciprocal(x), 1)


def _reciprocal(x: Int64) -> Int64:
    """2 / (1 + x) as Q2.29: three Newton–Raphson steps."""
    half_denominator = (np.asarray(x, np.int64) + INT32_MAX + 1) >> 1
    estimate = 1515870810 + high_multiply(half_denominator, -1010580540)  # 48/17 − 32/17·d, Q2.29
    for _ in range(3):
        error = (1 << 29) - high_multiply(half_denominator, estimate)
        estimate = estimate + _shift_left_saturate(high_multiply(estimate, error), 2)
    return np.asarray(estimate, np.int64)


def logistic(x: Int64) -> Int64:
    """1 / (1 + exp(−x)) as Q0.31 for x in Q4.27 (gemmlowp logistic)."""
    positive = reciprocal_one_plus(exp_on_negative(-np.abs(x), 4))
    value = np.where(x > 0, positive, INT32_MAX - positive)
    return np.asarray(np.where(x == 0, 1 << 30, value), np.int64)


def tanh(x: Int64) -> Int64:
    """The hyperbolic tangent as Q0.31 of x in Q4.27 (gemmlowp tanh)."""
    exponential = exp_on_negative(-np.abs(x))  # of 2·x: the same bits with 5 integer bits
    positive = _shift_left_saturate(_reciprocal(exponential) - (1 << 29), 2)
    return np.asarray(np.where(x == 0, 0, np.where(x < 0, -positive, positive)), np.int64)


def softmax(x: Int64, multiplier: int, shift: int) -> Int64:
    """int8 softmax over the last axis: scale 1/256, zero point −128 (TFLite SOFTMAX).

    `multiplier` and `shift` hold beta · input scale · 2^26; int8 in, int8 values out.
    """
    difference = np.asarray(x, np.int64) - x.max(axis=-1, keepdims=True)
    kept = difference >= softmax_minimum_difference(shift)
    scaled = high_multiply(np.where(kept, difference, 0) << shift, multiplier)
    exponential = exp_on_negative(scaled)
    rescaled = rounding_shift_right(exponential, SOFTMAX_SUM_BITS)
    total = np.where(kept, rescaled, 0).sum(axis=-1, keepdims=True)
    bits = np.floor(np.log2(total)).astype(np.int64)  # exact: total < 2^31
    over_unit = bits - (31 - SOFTMAX_SUM_BITS)
    scale = reciprocal_one_plus((total << (31 - bits)) - (1 << 31))
    value = rounding_shift_right(high_multiply(exponential, scale), over_unit + 31 - 8) - 128
    return np.asarray(np.where(kept, np.clip(value, -128, 127), -128), np.int64)
