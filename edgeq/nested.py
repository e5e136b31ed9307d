"""One nested store for the levels of a layer: integers whose upper digits are lower precisions.

An integer of the most bits is a sum of balanced digits, q = Σ digit_i · 2^shift_i, where a digit
of d bits is in [−2^(d−1), 2^(d−1) − 1]. The integers of a level of fewer bits are what the upper
digits say: q rounded half up, and nothing carries when lower digits are left out.
The digits of one place, of all weights, are a *plane*; the top one is what the lowest level is.

The greatest integer is clamped so that the top digit has room (`most`), which is head-room for the
lower levels rather than a loss: see docs/quantization.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgeq import weights

Float64 = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]
LEAST_BITS, MOST_BITS = 2, 8
MOST_LOSS = 2  # steps of the first level that nearest digits of the others may cost it


def widths(levels: Sequence[int]) -> tuple[int, ...]:
    """The bits of each plane, from the top, of a store whose levels have so many bits.

    (8, 6, 4) has planes of 4, 2 and 2 bits.

    Raises:
        ValueError: bits do not fall from level to level, or are not 2..8.
    """
    falls = all(a > b for a, b in pairwise(levels))
    if not levels or not falls or not LEAST_BITS <= levels[-1] <= levels[0] <= MOST_BITS:
        raise ValueError(f"levels of a nested store fall within 8..2 bits, not {tuple(levels)}")
    return (levels[-1], *(above - below for below, above in pairwise(reversed(levels))))


def levels_of(planes: Sequence[int]) -> tuple[int, ...]:
    """The bits of the levels that planes of those widths hold, the most first."""
    return tuple(int(bits) for bits in np.cumsum(planes)[::-1])


def most(levels: Sequence[int]) -> int:
    """The greatest integer of the first level that balanced digits hold."""
    shift, found = levels[0], 0
    for width in widths(levels):
        shift -= width
        found += ((1 << (width - 1)) - 1) << shift
    return found


def digits(integers: npt.NDArray[np.integer], planes: Sequence[int]) -> tuple[Int8, ...]:
    """The balanced digits of `integers`, a plane each, from the top.

    Raises:
        ValueError: an integer is beyond what the digits hold.
    """
    left, found = integers.astype(np.int64), []
    for width in reversed(planes[1:]):
        half = 1 << (width - 1)
        low = ((left + half) & (2 * half - 1)) - half
        found.append(low.astype(np.int8))
        left = (left - low) >> width
    limit = 1 << (planes[0] - 1)
    if left.size and not -limit <= left.min() <= left.max() < limit:
        raise ValueError(f"values {left.min()} to {left.max()} do not fit {planes[0]} bits")
    return (left.astype(np.int8), *reversed(found))


def joined(planes: Sequence[Int8], levels: Sequence[int]) -> npt.NDArray[np.int64]:
    """The integers of the level of as many planes, from the top; `widths(levels)` are theirs."""
    found = np.zeros(planes[0].shape, np.int64)
    for plane, width in zip(planes, widths(levels), strict=False):
        found = (found << width) + plane
    return found


@dataclass(frozen=True, slots=True)
class Store:
    """Rows (O, K) at every level; the scale is that of the first level, one a row."""

    levels: tuple[int, ...]
    scale: Float64
    planes: tuple[Int8, ...]

    def at(self, bits: int) -> tuple[npt.NDArray[np.int64], Float64]:
        """The integers of the level of so many bits, and their scales: exact multiples."""
        count = len(self.levels) - self.levels.index(bits)
        scale = self.scale * 2.0 ** (self.levels[0] - bits)
        return joined(self.planes[:count], self.levels), scale


def absmax_scale(rows: Float64, levels: Sequence[int]) -> Float64:
    """The scale of each row's first level that clips no weight; 1 for zeros.

    The greatest integer is `most`, the least that of the bits.
    """
    above, below = np.maximum(rows.max(axis=1), 0), np.maximum(-rows.min(axis=1), 0)
    scale = np.maximum(above / most(levels), below / -weights.limits(levels[0])[0])
    return np.where(scale > 0, scale, 1.0)


def split(rows: Float64, levels: Sequence[int], scale: Float64) -> Store:
    """Rows (O, K), rounded to nearest at the first level, in digits of `levels`.

    Digits are taken from the top, each the nearest, as far as what they leave is no more than
    `MOST_LOSS` beyond the lower ones: rounding step by step has a bias where digits are short.
    """
    low = weights.limits(levels[0])[0]
    integers = np.clip(np.rint(rows / scale[:, None]), low, most(levels)).astype(np.int64)
    planes = widths(levels)
    left, shift, nearest = integers, levels[0], []
    for width in planes:
        shift -= width
        half = 1 << (width - 1)
        nearest.append(np.clip((left + (1 << shift >> 1)) >> shift, -half, half - 1))
        left = left - (nearest[-1] << shift)
    pairs = zip(nearest, digits(integers, planes), strict=True)
    found = (np.where(np.abs(left) <= MOST_LOSS, direct, exact) for direct, exact in pairs)
    return Store(tuple(levels), scale, tuple(plane.astype(np.int8) for plane in found))
