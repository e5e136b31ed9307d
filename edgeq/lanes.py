"""Lanes: many small products by one multiplication of 32 × 32 bits, summed in 64 (UMLAL).

An operand holds unsigned weights some bits apart, the other unsigned activations. Their product
holds, at every sum of two positions, a product of a weight and an activation: a lane. Where two
pairs of positions have the same sum, their products add up there, which is what a row of a window
does (a product of polynomials). Lanes are exact until one of them reaches `width` bits; until then
steps may be summed, and after it they are extracted and cleared.

Weights are stored as w + 2^(bits−1), activations meet them as q − qmin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

OPERAND = 32  # bits

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scheme:
    """Where weights and activations stand in their operands, and so where the lanes are."""

    name: str
    width: int  # bits of a lane
    weights: tuple[int, ...]  # position of each weight in its operand
    activations: tuple[int, ...]

    @property
    def lanes(self) -> Mapping[int, tuple[int, ...]]:
        """The position of each lane, and which weights contribute to it."""
        positions = sorted({w + a for w in self.weights for a in self.activations})
        return {
            lane: tuple(i for i, w in enumerate(self.weights) if lane - w in self.activations)
            for lane in positions
        }

    def fits(self, weight_bits: int, activation_bits: int) -> bool:
        """Whether operands of such values have at most 32 bits, and no two values overlap."""
        return (
            max(self.weights) + weight_bits <= OPERAND
            and max(self.activations) + activation_bits <= OPERAND
            and self.steps(weight_bits, activation_bits) > 0
        )

    def steps(self, weight_bits: int, activation_bits: int) -> int:
        """Multiplications whose sum is exact whatever the values."""
        most = ((1 << weight_bits) - 1) * ((1 << activation_bits) - 1)
        return ((1 << self.width) - 1) // (most * max(map(len, self.lanes.values())))

    def greatest(self, weights: Integers, activation_bits: int) -> int:
        """What a lane can reach at most by the steps of `weights`, summed.

        `weights` are unsigned, (..., steps, weights of an operand); the activations are any.
        """
        sums = weights.sum(axis=-2)
        lanes = [sums[..., contributing].sum(axis=-1) for contributing in self.lanes.values()]
        return int(np.max(lanes, initial=0)) * ((1 << activation_bits) - 1)

    def safe(self, weights: Integers, activation_bits: int, steps: int) -> bool:
        """Whether lanes extracted after each `steps` steps of these very weights are exact."""
        count = weights.shape[-2]
        return all(
            self.greatest(weights[..., first : first + steps, :], activation_bits) >> self.width
            == 0
            for first in range(0, count, steps)
        )

    def real_steps(self, weights: Integers, activation_bits: int, unit: int = 1) -> int:
        """The most steps, a multiple of `unit`, after which lanes of these weights are extracted.

        The steps of `weights` (see `greatest`) are divided as evenly as units allow; 0 where not
        even `unit` steps are exact.
        """
        units = -(-int(weights.shape[-2]) // unit)
        for parts in range(1, units + 1):
            steps = -(-units // parts) * unit
            if self.safe(weights, activation_bits, steps):
                return steps
        return 0


PAIRS_14 = Scheme("pairs", 14, (0, 28), (0, 14))  # two channels, four pixels by two operands
SIX_10 = Scheme("six", 10, (0, 30), (0, 10, 20))  # two channels, six pixels by two operands
TAPS_14 = Scheme("taps 2x3", 14, (0, 14, 28), (0, 14))  # three taps of a row, two inputs
TAPS_13 = Scheme("taps 3x3, 13", 13, (0, 13, 26), (0, 13, 26))
TAPS_12 = Scheme("taps 3x3, 12", 12, (0, 12, 24), (0, 12, 24))

SCHEMES = (PAIRS_14, SIX_10, TAPS_14, TAPS_13, TAPS_12)

# By bits of weights and bits of memory of activations, what kernels use: for windows of one tap,
# and for rows of three taps. Six lanes are for few bits only: others would be extracted too often.
POINT: Mapping[tuple[int, int], Scheme] = {
    (4, 4): PAIRS_14,
    (3, 4): PAIRS_14,
    (2, 4): PAIRS_14,
    (4, 2): PAIRS_14,
    (3, 2): PAIRS_14,
    (2, 2): SIX_10,
}
TAPS: Mapping[tuple[int, int], Scheme] = {
    (4, 4): TAPS_14,
    (3, 4): TAPS_14,
    (2, 4): TAPS_14,
    (4, 2): TAPS_14,
    (3, 2): TAPS_14,
    (2, 2): TAPS_12,
}
