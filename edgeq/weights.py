"""Weights as n-bit integers: a scale per output channel, found by search, then corrected in gain.

Rows are output channels, (O, K). Ranges are symmetric: 8-bit weights use [−127, 127] as TFLite
does, fewer bits the whole two's complement range.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

SEARCH_STEPS = 100
SEARCH_FROM = 0.15  # least share of the absolute maximum that the search tries


def limits(bits: int) -> tuple[int, int]:
    """The least and greatest weight of `bits` bits."""
    high = (1 << (bits - 1)) - 1
    return (-high if bits == 8 else -high - 1), high


def absmax_scale(rows: Float64, bits: int) -> Float64:
    """The scale of each row at which its largest weight is the greatest integer; 1 for zeros."""
    largest = np.abs(rows).max(axis=1)
    return np.where(largest > 0, largest / limits(bits)[1], 1.0)


def round_to(rows: Float64, scale: Float64, bits: int) -> Float64:
    """The rows divided by their scales, as integers of `bits` bits (float64), ties to even."""
    return np.clip(np.rint(rows / scale[:, None]), *limits(bits))


def search_scale(rows: Float64, bits: int) -> Float64:
    """The scale of each row with the least squared error among 100 shares of its absmax scale."""
    widest = absmax_scale(rows, bits)
    best = widest
    least = np.full(len(rows), np.inf)
    for share in np.linspace(1.0, SEARCH_FROM, SEARCH_STEPS):
        scale = widest * share
        error = round_to(rows, scale, bits)
        error *= scale[:, None]
        error -= rows
        squared = np.einsum("ok,ok->o", error, error)
        best = np.where(squared < least, scale, best)
        least = np.minimum(squared, least)
    return best


def preserve_gain(rows: Float64, integers: Float64, scale: Float64) -> Float64:
    """The scale with which the integers keep the gain ⟨w, ŵ⟩ = ⟨w, w⟩ of each row.

    The search for least error shrinks weights, and shrinkage compounds from layer to layer: scale ×
    ⟨w, w⟩ / ⟨w, ŵ⟩ undoes it (docs/quantization.md has the measurement).
    """
    kept = scale * np.einsum("ok,ok->o", rows, integers)
    power = np.einsum("ok,ok->o", rows, rows)
    return np.where(kept > 0, scale * power / np.where(kept > 0, kept, 1.0), scale)
