"""Lags, against kernels that are played out byte by byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.ir import Node, Op, QParams, Tensor, Window
from edgeq.overlap import BY_ROWS, ORDERS, lag, order_of

fixed = settings(derandomize=True, max_examples=300, deadline=None)
Event = tuple[str, int]  # read or write, and which value


def tensor(name: str, *shape: int, bits: int = 8) -> Tensor:
    return Tensor(name, (1, *shape), qparams=QParams((1.0,), bits=bits))


def node(window: Window) -> Node:
    return Node("n", Op.CONV_2D, ("x", "w"), "y", window=window)


@st.composite
def layers(draw: st.DrawFn) -> tuple[Window, Tensor, Tensor]:
    """A window on an image of at least two channels, and what it gives."""
    sides = st.integers(1, 3)
    kernel, strides = (draw(sides), draw(sides)), (draw(sides), draw(sides))
    pads = tuple(draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4))
    window = Window(kernel, strides, (pads[0], pads[1], pads[2], pads[3]), (1, 1))
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    out_height, out_width = window.output_size(height, width)
    if min(out_height, out_width) < 1:
        window, out_height, out_width = Window((1, 1)), height, width
    channels, filters = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    return window, tensor("x", height, width, channels), tensor("y", out_height, out_width, filters)


def taps(window: Window, x: Tensor, row: int, column: int) -> list[tuple[int, int]]:
    """The pixels of `x` under the window of an output pixel."""
    top, left = (
        row * window.strides[0] - window.pads[0],
        column * window.strides[1] - window.pads[1],
    )
    return [
        (i, j)
        for i, j in product(
            range(top, top + window.kernel[0]), range(left, left + window.kernel[1])
        )
        if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]
    ]


def read(x: Tensor, pixels: Iterable[tuple[int, int]], channels: Iterable[int]) -> Iterator[Event]:
    for (i, j), channel in product(pixels, list(channels)):
        yield "read", (i * x.shape[2] + j) * x.shape[3] + channel


def play(order: str, window: Window, x: Tensor, y: Tensor, *, upward: bool) -> Iterator[Event]:
    """What a kernel of that order reads and writes, in time."""
    _, height, width, channels = y.shape
    seen = 0  # rows that a ring has read
    for row in reversed(range(height)) if upward else range(height):
        pixels = {p for column in range(width) for p in taps(window, x, row, column)}
        start = row * width * channels
        everything = list(read(x, sorted(pixels), range(x.shape[3])))
        writes: list[Event] = [("write", start + i) for i in range(width * channels)]
        if order == "rows":
            yield from (*writes[:-1], *everything, writes[-1])
        elif order == "channels":
            for channel, column in product(range(channels), range(width)):
                yield from read(x, taps(window, x, row, column), (channel,))
                yield writes[column * channels + channel]
        elif order == "values":
            for column, channel in product(range(width), range(channels)):
                yield from read(x, taps(window, x, row, column), (channel,))
                yield writes[column * channels + channel]
        elif order == "pixels":
            for column in range(width):
                yield from read(x, taps(window, x, row, column), range(x.shape[3]))
                yield from writes[column * channels : (column + 1) * channels]
        elif order == "buffered":
            yield from (*everything, *writes)
        else:
            fresh = {(i, j) for i, j in pixels if i >= seen}
            seen = max((i + 1 for i, _ in pixels), default=seen)
            yield from (*read(x, sorted(fresh), range(x.shape[3])), *writes)


def survives(events: Iterable[Event], distance: int) -> bool:
    """Whether every value is read before the output, `distance` behind the input, is over it."""
    lost = set()
    for kind, value in events:
        if kind == "write":
            lost.add(value + distance)
        elif value in lost:
            return False
    return True


def of_one_channel(order: str) -> bool:
    return order in ("channels", "values")


@pytest.mark.parametrize("order", ORDERS[1:])
@fixed
@given(layers())
def test_a_kernel_at_its_lag_or_farther_reads_what_it_needs(
    order: str, layer: tuple[Window, Tensor, Tensor]
) -> None:
    window, x, y = layer
    y = tensor("y", *y.shape[1:3], x.shape[3]) if of_one_channel(order) else y
    found = lag(order, node(window), x, y)
    assert found is not None
    events = list(play(order, window, x, y, upward=False))
    nearest = -max(found.before, -x.elements)
    for distance in (nearest, nearest - 1, nearest - 2, -y.elements):
        assert survives(events, min(distance, nearest))
    events = list(play(order, window, x, y, upward=order in BY_ROWS))
    for distance in (found.after, found.after + 1, x.elements):
        assert survives(events, max(distance, found.after))


@pytest.mark.parametrize("order", ["rows", "pixels", "buffered", "ring"])
@fixed
@given(layers())
def test_one_byte_nearer_it_does_not(order: str, layer: tuple[Window, Tensor, Tensor]) -> None:
    window, x, y = layer
    if max(window.strides) > min(window.kernel) or x.shape[1:3] < window.kernel:
        return  # pixels that no window reads lie at the edges of what is read
    found = lag(order, node(window), x, y)
    assert found is not None
    nearer = 1 - found.before
    if nearer < min(found.after, x.elements):  # else that is the other side
        assert not survives(play(order, window, x, y, upward=False), nearer)
    if order == "rows" and found.after - 1 > max(-found.before, 0):
        assert not survives(play(order, window, x, y, upward=True), found.after - 1)


def test_kernels_without_an_order_and_operators_without_a_window_lie_apart() -> None:
    x = tensor("x", 4, 4, 2)
    assert lag("none", node(Window((1, 1))), x, x) is None
    assert lag("rows", Node("n", Op.FULLY_CONNECTED, ("x", "w"), "y"), x, x) is None


@pytest.mark.parametrize(
    ("order", "family", "bits_in", "bits_out", "expected"),
    [
        ("rows", "conv", 8, 8, "rows"),
        ("rows", "conv", 8, 4, "buffered"),
        ("rows", "depthwise", 4, 8, "ring"),
        ("none", "grouped", 2, 2, "ring"),
        ("values", "pool", 4, 4, "none"),
        ("none", "fc", 4, 4, "none"),
    ],
)
def test_packed_activations_have_the_order_of_the_kernel_that_unpacks_them(
    order: str, family: str, bits_in: int, bits_out: int, expected: str
) -> None:
    x, y = tensor("x", 4, 4, 2, bits=bits_in), tensor("y", 4, 4, 2, bits=bits_out)
    assert order_of(order, family, x, y) == expected


def test_resnet8s_second_convolution_needs_two_rows_less_a_value() -> None:
    x = tensor("x", 32, 32, 16)
    found = lag("rows", node(Window((3, 3), pads=(1, 1, 1, 1))), x, x)
    assert found is not None
    assert (found.before, found.after) == (2 * 512 - 1, 2 * 512)
