"""An addition as one affine form of its two bytes, where that gives the same 65,536 sums.

TensorFlow Lite's ADD requantises each input and their sum. The form is

    y = clamp((⌊first · x₁ / 2^8⌋ + ⌊second · x₂ / 2^8⌋ + offset) >> 21)

two SMLAW and one SSAT a value on cores with the DSP extension. Whether an offset exists is
decided exactly, by every pair of values that the inputs' memory can hold.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from edgeq import fixedpoint
from edgeq.fixedpoint import Int64
from edgeq.ir import Graph, Node, qparams_of

FRACTION = 21  # bits of the accumulator below the point: EQ_AFFINE_FRACTION
GUARD = 8  # bits of a factor below those
TRIED = (0, 4, -4, 16, -16, 64, -64)  # steps of a factor: a near tie that one misses another meets


@dataclass(frozen=True, slots=True)
class Affine:
    """The constants, int32 each: no sum leaves int32, which `eq_init` checks again."""

    first: int
    second: int
    offset: int

    @property
    def fits(self) -> bool:
        """Whether every sum is an int32."""
        factors = (abs(self.first), abs(self.second))
        return max(factors) < 1 << 31 and sum((f + 1) // 2 for f in factors) + abs(self.offset) < (
            1 << 31
        )

    def __call__(self, a: Int64, b: Int64) -> Int64:
        """The value before its clamp."""
        terms = (self.first * a >> GUARD) + (self.second * b >> GUARD)
        return np.asarray((terms + self.offset) >> FRACTION, np.int64)


def find(graph: Graph, node: Node) -> Affine | None:
    """The form of an integer addition, or None where none equals TensorFlow Lite's arithmetic."""
    multiplier, shift = (graph.constant(name).astype(np.int64) for name in node.inputs[2:])
    inputs = [qparams_of(tensor) for tensor in graph.activations(node)]
    output = qparams_of(graph.tensors[node.output])
    low, high = (int(bound) for bound in node.clamp or (output.qmin, output.qmax))
    values = [np.arange(-(1 << q.width - 1), 1 << q.width - 1, dtype=np.int64) for q in inputs]
    scaled = [
        fixedpoint.requantize(
            (x - q.zero_point) << fixedpoint.ADD_LEFT_SHIFT, multiplier[i], shift[i]
        )
        for i, (x, q) in enumerate(zip(values, inputs, strict=True))
    ]
    total = scaled[0][:, None] + scaled[1][None, :]
    sums = fixedpoint.requantize(total, multiplier[2], shift[2]) + output.zero_point
    wanted = np.clip(sums, low, high)
    factors = [
        round(int(multiplier[i]) * int(multiplier[2]) * 2.0 ** float(shift[i] + shift[2] - 13))
        for i in range(2)
    ]
    for steps in sorted(itertools.product(TRIED, repeat=2), key=lambda pair: sum(map(abs, pair))):
        first, second = (factor + step for factor, step in zip(factors, steps, strict=True))
        offset = _offset(first, second, values, wanted, (low, high))
        if offset is not None and (form := Affine(first, second, offset)).fits:
            return form
    return None


def _offset(
    first: int, second: int, values: list[Int64], wanted: Int64, clamp: tuple[int, int]
) -> int | None:
    """The middle of the offsets that give `wanted` for every pair, if there are any."""
    terms = (first * values[0] >> GUARD)[:, None] + (second * values[1] >> GUARD)[None, :]
    low, high = clamp
    least = (wanted << FRACTION) - terms
    above, below = wanted > low, wanted < high
    if not (above.any() and below.any()):
        return None
    lower = int(least[above].max())
    upper = int((least[below] + (1 << FRACTION) - 1).min())
    return (lower + upper) // 2 if lower <= upper else None
