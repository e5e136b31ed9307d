"""The 256 values of functions that a quantised model applies to integers, as TFLM computes them.

TensorFlow Lite Micro does not round the exact function: each operator has fixed-point arithmetic of
its own. Here it runs once for every integer, so that the table on the device holds its results.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgeq import fixedpoint
from edgeq.fixedpoint import Int64, requantize
from edgeq.ir import QParams

EVERY = np.arange(-128, 128, dtype=np.int64)
_GATE_BITS = 4  # integer bits of what logistic and tanh take

Limits = tuple[int, int]  # the least and the greatest integer of the output


def logistic(x: QParams) -> Int64:
    """LOGISTIC, whose output has scale 1/256 and zero point −128."""
    return _gate(x, lambda q: fixedpoint.rounding_shift_right(fixedpoint.logistic(q), 23) - 128)


def tanh(x: QParams) -> Int64:
    """TANH, whose output has scale 1/128 and zero point 0."""
    return _gate(x, lambda q: fixedpoint.rounding_shift_right(fixedpoint.tanh(q), 24))


def _gate(x: QParams, function: Callable[[Int64], Int64]) -> Int64:
    """`function` of Q4.27; inputs beyond its range are −128 and 127."""
    multiplier, shift = fixedpoint.quantize_multiplier(x.scale[0] * (1 << (31 - _GATE_BITS)))
    radius = math.floor(math.ldexp(((1 << _GATE_BITS) - 1) << (31 - _GATE_BITS), -shift))
    centred = EVERY - x.zero_point
    inside = np.abs(centred) < radius
    value = function(requantize(np.where(inside, centred, 0), multiplier, shift))
    return _int8(np.where(inside, value, np.where(centred < 0, -128, 127)))


def requantized(x: QParams, y: QParams, bounds: Limits) -> Int64:
    """QUANTIZE of int8 to int8, and RELU and its kin: `bounds` are integers of the output."""
    scaled = requantize(EVERY - x.zero_point, *_ratio(x.scale[0] / y.scale[0]))
    return _bounded(scaled + y.zero_point, bounds)


def leaky_relu(x: QParams, y: QParams, alpha: float) -> Int64:
    """LEAKY_RELU: a multiplier for each sign, found in float32."""
    scale, out = np.float32(x.scale[0]), np.float32(y.scale[0])
    centred = EVERY - x.zero_point
    above = requantize(np.maximum(centred, 0), *_ratio(float(scale / out)))
    below = requantize(np.minimum(centred, 0), *_ratio(float(scale * np.float32(alpha) / out)))
    return _int8(y.zero_point + above + below)


def product(x: QParams, y: QParams, bounds: Limits, constant: int, of: QParams) -> Int64:
    """MUL by the number that the integer `constant` stands for."""
    ratio = _ratio(x.scale[0] * of.scale[0] / y.scale[0])
    scaled = requantize((EVERY - x.zero_point) * (constant - of.zero_point), *ratio)
    return _bounded(scaled + y.zero_point, bounds)


def total(x: QParams, y: QParams, bounds: Limits, constant: int, of: QParams) -> Int64:
    """ADD of the number that the integer `constant` stands for."""
    common = 2 * max(x.scale[0], of.scale[0])
    unit = common / ((1 << fixedpoint.ADD_LEFT_SHIFT) * y.scale[0])
    left, right = _wide(x, EVERY, x.scale[0] / common), _wide(of, constant, of.scale[0] / common)
    return _bounded(requantize(left + right, *_ratio(unit)) + y.zero_point, bounds)


def difference(
    x: QParams, y: QParams, bounds: Limits, constant: int, of: QParams, sign: int
) -> Int64:
    """SUB of that number from x (`sign` 1), or of x from it (−1); ratios are found in float32."""
    scale, other, out = (np.float32(q.scale[0]) for q in (x, of, y))
    common = np.float32(2) * max(scale, other)
    unit = common / (np.float32(1 << fixedpoint.ADD_LEFT_SHIFT) * out)
    left = _wide(x, EVERY, float(scale / common))
    right = _wide(of, constant, float(other / common))
    scaled = requantize(sign * (left - right), *_ratio(float(unit)))
    return _bounded(scaled + y.zero_point, bounds)


def _wide(q: QParams, values: Int64 | int, ratio: float) -> Int64:
    """The values on the common scale of an addition."""
    shifted = (np.asarray(values, np.int64) - q.zero_point) << fixedpoint.ADD_LEFT_SHIFT
    return requantize(shifted, *_ratio(ratio))


def mean_ratio(x: QParams, y: QParams, taps: int) -> tuple[int, int]:
    """Multiplier and shift of MEAN over `taps` values: the ratio's multiplier, divided by them."""
    multiplier, shift = _ratio(x.scale[0] / y.scale[0])
    more = min(taps.bit_length() - 1, 31 + shift)
    return (multiplier << more) // taps, shift - more


def hard_swish(x: QParams, y: QParams) -> Int64:
    """HARD_SWISH in 16-bit fixed point.

    Raises:
        ValueError: the output's scale is less than a 128th of the input's.
    """
    fine = np.float32(1 / 128) * np.float32(x.scale[0])
    out, shift = _halfword(float(fine / np.float32(y.scale[0])))
    gate, gate_shift = _halfword(float(fine / (np.float32(3) / np.float32(32768))))
    if shift > 0:
        raise ValueError(f"the output's scale {y.scale[0]:g} is less than a 128th of the input's")
    wide = (EVERY - x.zero_point) << 7
    before = _high_multiply_16(wide, out)
    relu = _saturated_16(wide << max(gate_shift - 1, 0))
    relu = _high_multiply_16(relu, gate)
    if gate_shift > 0:
        relu = _saturated_16(relu << 1)
    relu = fixedpoint.rounding_shift_right(relu, max(-gate_shift, 0))
    relu = (relu + (1 << 15)) >> 1
    both = relu * before
    towards_zero = np.sign(both) * (np.abs(both) >> 15)
    return _int8(fixedpoint.rounding_shift_right(towards_zero, -shift) + y.zero_point)


def _halfword(real: float) -> tuple[int, int]:
    """Multiplier of 16 bits and shift."""
    multiplier, shift = fixedpoint.quantize_multiplier(real)
    return min((multiplier + (1 << 15)) >> 16, (1 << 15) - 1), shift


def _high_multiply_16(a: Int64, b: int) -> Int64:
    return _saturated_16((a * b + (1 << 14)) >> 15)


def _saturated_16(x: Int64) -> Int64:
    return np.asarray(np.clip(x, -(1 << 15), (1 << 15) - 1), np.int64)


def _int8(x: Int64) -> Int64:
    return _bounded(x, (-128, 127))


def _bounded(x: Int64, bounds: Limits) -> Int64:
    return np.asarray(np.clip(x, *bounds), np.int64)


def _ratio(real: float) -> tuple[int, int]:
    """Multiplier and shift of a ratio of scales."""
    return fixedpoint.quantize_multiplier(real)
