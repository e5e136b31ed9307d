"""How far an output may lie over the input that it is computed from.

A kernel writes its output row by row. Its `order` in kernels.toml says what of the input it still
reads while it writes a row; from that follows the lag between where the two begin. The C twin,
`eq_overlap.h`, is in eq_init.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

from edgeq.ir import Node, Tensor, Window, qparams_of

ORDERS = ("none", "rows", "channels", "values", "pixels", "buffered", "ring")  # eq_order_t
BY_PIXELS = ("values", "pixels")
BY_ROWS = ("rows", "channels")  # from the side on which the output lies
WINDOWS = ("conv", "depthwise", "grouped")  # families that eq_rows_s8_ref runs row by row
NEVER = 1 << 62  # beyond every byte of an arena


@dataclass(frozen=True, slots=True)
class Lag:
    """Where an output may lie over its input: so many bytes before it or more, or behind its start.

    Both are exact, in bytes, and may be negative.
    """

    before: int  # input's start − output's, at least
    after: int  # output's start − input's, at least; the input's bytes where it must lie clear


def order_of(order: str, family: str, x: Tensor, y: Tensor) -> str:
    """What becomes of a kernel's own `order` on activations that share bytes.

    eq_rows_s8_ref calls it there for one row, or for some channels of a pool's pixel.
    """
    packed = [qparams_of(tensor).width < 8 for tensor in (x, y)]
    if not any(packed):
        return order
    return ("ring" if packed[0] else "buffered") if family in WINDOWS else "none"


def lag(order: str, node: Node, x: Tensor, y: Tensor) -> Lag | None:
    """How the output `y` of `node` may lie over its input `x`; None: not at all."""
    window = node.window
    if order == "none" or window is None:
        return None
    (_, height, width, depth), (_, out_height, out_width, channels) = x.shape, y.shape
    rows = _covers(window, 0, height, out_height)
    columns = _covers(window, 1, width, out_width)
    bits_in, bits_out = qparams_of(x).width, qparams_of(y).width
    row_in, row_out = width * depth * bits_in, out_width * channels * bits_out
    # how far a row's output gets beyond the first bit that it still reads of a row
    ahead = row_out - bits_out  # but for its last value, with which it is done
    if order in BY_PIXELS:
        needed = _still_needed(columns)
        if order == "pixels":
            needed = [NEVER, *needed[1:]]  # what a pixel needs is read before it is written
        ahead = max(
            i * channels * bits_out - first * depth * bits_in for i, first in enumerate(needed)
        )
    if order == "channels" and depth == channels:
        ahead = row_out - channels * bits_out
    before = _before(order, rows, row_in, row_out, ahead, window.dilations[0])
    if order not in BY_ROWS:
        return Lag(before, math.ceil(x.elements * bits_in / 8))
    unread = (width - max(end for _, end in columns)) * depth * bits_in  # of every row
    after = _after(rows, row_in // 8, row_out // 8) - unread // 8
    return Lag(max(before, 0), max(after, 1))  # where it begins decides from which side it goes


def _before(
    order: str,
    rows: list[tuple[int, int]],
    row_in: int,
    row_out: int,
    ahead: int,
    dilation: int,
) -> int:
    """From the first row to the last; rows and `ahead` in bits."""
    needed = NEVER  # the first byte that later rows read
    least = -NEVER
    for i in reversed(range(len(rows))):
        first, end = rows[i]
        least = max(least, math.ceil(row_out * (i + 1) / 8) - needed)
        if order == "ring" and dilation == 1 and i:
            first = max(first, rows[i - 1][1])
        if first >= end:
            continue  # all padding, or read before
        if order in (*BY_ROWS, *BY_PIXELS):
            least = max(least, math.ceil((row_out * i + ahead) / 8) - first * row_in // 8)
        needed = min(needed, first * row_in // 8)
    return least


def _after(rows: list[tuple[int, int]], row_in: int, row_out: int) -> int:
    """From the last row to the first; rows in bytes."""
    ends = accumulate((end for _, end in rows), max)
    return max(end * row_in - i * row_out for i, end in enumerate(ends))


def _covers(window: Window, axis: int, size: int, outputs: int) -> list[tuple[int, int]]:
    """For each output of an axis the first input under its window and the end; equal if none."""
    step = window.dilations[axis]
    covers = []
    for i in range(outputs):
        start = i * window.strides[axis] - window.pads[axis]
        first = max(0, -(start // step))
        last = min(window.kernel[axis], -((start - size) // step))
        inside = (start + first * step, start + (last - 1) * step + 1)
        covers.append(inside if first < last else (0, 0))
    return covers


def _still_needed(columns: list[tuple[int, int]]) -> list[int]:
    """For each output column the first input column that it or a later one reads."""
    firsts = [first if first < end else NEVER for first, end in columns]
    return list(accumulate(reversed(firsts), min))[::-1]
