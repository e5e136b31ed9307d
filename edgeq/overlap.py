"""How far an output may lie over the input that it is computed from.

A kernel writes its output row by row. Its `order` in kernels.toml says what of the input it still
reads while it writes a row; from that follows the lag between where the two begin. The C twin,
`eq_overlap.h`, is in eq_init.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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

    eq_rows_s8_ref calls it there for one row, or for some channels of a pool's pixel. What has
    16 bits lies apart from all else.
    """
    if any(qparams_of(tensor).wide for tensor in (x, y)):
        return "none"
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
    if order == "channels" and depth == channels:
        ahead = row_out - channels * bits_out
    elif order in BY_PIXELS:
        # what a pixel needs is read before it is written, or not
        some = list(enumerate(columns))[1 if order == "pixels" else 0 :]
        ahead = max(
            (i * channels * bits_out - at * depth * bits_in for i, (at, _) in some if at < width),
            default=-NEVER,
        )
    elif order not in BY_ROWS:
        ahead = -NEVER
    once = order == "ring" and window.dilations[0] == 1
    before, after = -NEVER, -NEVER
    for i, (first, end) in enumerate(rows):
        if i + 1 < out_height:
            needed = max(rows[i + 1][0], end if once else 0)  # by later rows
            if needed < height:
                before = max(before, math.ceil(row_out * (i + 1) / 8) - needed * row_in // 8)
        if first < end:
            before = max(before, math.ceil((row_out * i + ahead) / 8) - first * row_in // 8)
        after = max(after, (end * row_in - i * row_out) // 8)
    if order not in BY_ROWS:
        return Lag(before, math.ceil(x.elements * bits_in / 8))
    after -= (width - columns[-1][1]) * depth * bits_in // 8  # which no row reads
    return Lag(max(before, 0), max(after, 1))  # where it begins decides from which side it goes


def _covers(window: Window, axis: int, size: int, outputs: int) -> list[tuple[int, int]]:
    """For each output of an axis the inputs under its window, skipped ones too: first and end."""
    span = window.dilations[axis] * (window.kernel[axis] - 1) + 1
    starts = [i * window.strides[axis] - window.pads[axis] for i in range(outputs)]
    return [(min(max(s, 0), size), min(max(s + span, 0), size)) for s in starts]
