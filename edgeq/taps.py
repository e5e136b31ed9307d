"""Layouts "taps", "taps_rows", "taps12" and "halves": rows of three taps as one operand.

How such products give a row of outputs, and when they are exact, stands in eq_taps.h. Unlike the
steps of `lanes.py`, which are extracted before a lane can overflow, all of K is summed at once:
sums start from what the offset of the weights adds, so that lanes hold signed sums of weight and
activation when they are complete, beside half a lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CHANNELS = 4  # input channels are filled up to a multiple of it
GROUP = 3  # blocks that meet an operand of weights
ROWS = 3
BATCH = 4  # channels whose sums there is room for
WORD = 32


@dataclass(frozen=True, slots=True)
class Taps:
    """One row of what eq_taps.h tells apart: eq_taps_t."""

    name: str
    width: int  # bits of a lane
    inputs: int  # activations of an operand, and outputs of a block
    before: int  # outputs of block 0 before the first
    junk: int  # of these, how many are computed nevertheless
    stride: int
    neighbours: int  # taps that meet in a lane
    most_bits: int  # of weights, and of activations in memory
    offset: int  # of all sums
    sums: int = 1  # of a channel: one, or one of each row of the window

    def blocks(self, outputs: int) -> int:
        """How many a row of so many outputs takes."""
        return (outputs - 1 + self.before) // self.inputs + 1

    def scratch_bytes(self, channels: int, outputs: int, output_channels: int) -> int:
        """Arena bytes for rows of so many outputs; `eq_taps_scratch`."""
        blocks = self.blocks(outputs)
        row = 4 * _filled(channels) * self.stride
        finished = (self.inputs * blocks - self.before + self.junk) * output_channels
        sums = 8 * (1 + ROWS + BATCH)
        return -(-blocks // GROUP) * GROUP * (ROWS * row + sums) + -(-finished // 8) * 8

    def exact(self, values: Array, activation_width: int) -> bool:
        """Whether lanes hold the sums of weights (channels, 9 · C) and any such activations."""
        w = values.astype(np.int64).reshape(len(values), ROWS, 3, -1)
        w = w.reshape(len(w) * self.sums, ROWS // self.sums, 3, -1)
        above, below = (np.maximum(sign * w, 0).sum(axis=(1, 3)) for sign in (1, -1))
        most, room = (1 << activation_width) - 1, 1 << (self.width - 1)
        return all(
            above[:, tap : tap + self.neighbours].sum(axis=1).max() * most < room
            and below[:, tap : tap + self.neighbours].sum(axis=1).max() * most <= room
            for tap in range(4 - self.neighbours)
        )

    def position(self, bits: int, channel: int, tap: int) -> int:
        """The bit at which the field of a tap stands in its word."""
        if self.stride == 2:
            odd = ((8, 22) if bits > 2 else (8, 10, 22, 24))[channel]
            return odd if tap == 1 else channel * field_bits(bits) + self.width * (tap == 0)
        if self.width == 12:
            first = 2 * channel
        else:
            first = ((0, 8) if bits > 2 else (0, 2, 8, 10))[channel]
        return (first + self.width * (2 - tap)) % WORD

    def pack(self, values: Array, bits: int) -> bytes:
        """Weights (channels, 9 · C) of 2..4 bits."""
        per_word = 8 // field_bits(bits)
        w = values.astype(np.int64).reshape(len(values), ROWS, 3, -1)
        filled = np.zeros((*w.shape[:3], _filled(w.shape[3])), np.int64)
        filled[..., : w.shape[3]] = w + (1 << (bits - 1))
        fields = filled.reshape(*w.shape[:3], -1, per_word)
        words: npt.NDArray[np.int64] = np.zeros((*w.shape[:2], fields.shape[3]), np.int64)
        for channel in range(per_word):
            for tap in range(3):
                words |= fields[:, :, tap, :, channel] << self.position(bits, channel, tap)
        return words.astype("<u4").tobytes()


def field_bits(bits: int) -> int:
    """What a weight takes in its word."""
    return 4 if bits > 2 else 2


def stored_bytes(channels: int, values: int, bits: int) -> int:
    """What `channels` × `values` weights take: 5.33 bits each, 2.67 those of 2 bits."""
    return channels * ROWS * _filled(-(-values // 9)) * field_bits(bits) // 2


def _filled(channels: int) -> int:
    return -(-channels // CHANNELS) * CHANNELS


FORMS = {
    form.name: form
    for form in (
        Taps("taps_rows", 14, 2, 2, 0, 1, 2, 4, ROWS << 14, ROWS),
        Taps("taps", 14, 2, 2, 0, 1, 2, 4, 1 << 14),
        Taps("taps12", 12, 3, 2, 2, 1, 3, 2, 1 << 11),
        Taps("halves", 14, 3, 1, 1, 2, 3, 4, 1 << 13),
    )
}
