"""How weights are stored, in each layout, and what the layouts but dense cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.ir import Array
from edgeq.packing import (
    ALIGN,
    LAYOUTS,
    Scaling,
    pack_dense,
    pack_fields,
    pack_pairs,
    pad,
    unpack_dense,
)
from edgeq.taps import FORMS

BITS = range(2, 9)
fixed = settings(derandomize=True, max_examples=300, deadline=None)


@st.composite
def packed(draw: st.DrawFn) -> tuple[int, list[int]]:
    """(bits, values)"""
    bits = draw(st.sampled_from(BITS))
    limit = 1 << (bits - 1)
    return bits, draw(st.lists(st.integers(-limit, limit - 1), max_size=40))


@fixed
@given(packed())
def test_unpacking_gives_back_what_was_packed(case: tuple[int, list[int]]) -> None:
    bits, values = case
    data = pack_dense(np.array(values, np.int8), bits)
    assert unpack_dense(data, bits, len(values)).tolist() == values


@fixed
@given(packed())
def test_packing_takes_exactly_the_bits(case: tuple[int, list[int]]) -> None:
    bits, values = case
    assert len(pack_dense(np.array(values, np.int8), bits)) == -(-len(values) * bits // 8)


@fixed
@given(packed())
def test_value_i_stands_at_bit_i_times_the_width(case: tuple[int, list[int]]) -> None:
    bits, values = case
    word = int.from_bytes(pack_dense(np.array(values, np.int8), bits), "little")
    mask = (1 << bits) - 1
    assert [word >> i * bits & mask for i in range(len(values))] == [v & mask for v in values]


@pytest.mark.parametrize(
    ("bits", "values", "data"),
    [
        (2, [1, -1, 0, -2], "8d"),
        (3, [1, 2, 3, -4, -1], "d178"),
        (4, [1, -1, 7, -8], "f187"),
        (5, [1, -1], "e103"),
        (7, [-64, 63], "c01f"),
        (8, [-128, 127, 0], "807f00"),
    ],
)
def test_packed_bytes_stay_what_they_are(bits: int, values: list[int], data: str) -> None:
    assert pack_dense(np.array(values, np.int8), bits).hex() == data


@pytest.mark.parametrize("bits", BITS)
def test_a_value_of_more_bits_is_refused(bits: int) -> None:
    for value in (1 << (bits - 1), -(1 << (bits - 1)) - 1):
        with pytest.raises(ValueError, match=f"do not fit {bits} bits"):
            pack_dense(np.array([0, value]), bits)


def test_arrays_are_packed_row_by_row() -> None:
    values = np.arange(-8, 8).reshape(2, 2, 4)
    assert pack_dense(values, 5) == pack_dense(values.reshape(-1), 5)


def test_the_order_in_memory_does_not_matter() -> None:
    values = np.arange(-8, 8).reshape(4, 4)
    assert pack_dense(np.asfortranarray(values), 5) == pack_dense(values, 5)


@pytest.mark.parametrize("size", range(18))
def test_padding_adds_zeros_up_to_a_multiple_of_8(size: int) -> None:
    padded = pad(b"\xff" * size)
    assert len(padded) % ALIGN == 0
    assert padded == b"\xff" * size + bytes(len(padded) - size)
    assert len(padded) - size < ALIGN


# Pairs and fields; test_image.py reads whole images back, test_pairs.c the C


def scaling(
    channels: int,
    shift: int = -8,
    bias: int = 0,
    zero_point: int = -128,
    width: int = 8,
    bits: int = 8,
    pixels: int = 9,
) -> Scaling:
    ones = np.ones(channels, np.int64)
    return Scaling(ones * bias, ones << 30, ones * shift, zero_point, width, 5, bits, pixels)


def is_exact(weights: Array, scale: Scaling) -> bool:
    tables = LAYOUTS["pairs"].tables
    assert tables is not None
    return tables(weights, scale) is not None


def test_two_weights_are_one_number() -> None:
    words = np.frombuffer(pack_pairs(np.array([[1, -2, 3, 4], [-1, 127, 0, -127]]), 8), "<i2")
    assert words.tolist() == [1 - 512, 3 + 1024, -1 + 127 * 256, -127 * 256]


@pytest.mark.parametrize("bits", range(2, 8))
def test_fields_take_exactly_the_bits_of_whole_blocks(bits: int) -> None:
    weights = np.zeros((6, 32), np.int8)
    assert len(pack_fields(weights, bits)) == 6 * 32 * bits // 8


STORED = {
    "dense": range(2, 9),
    "pairs": (8,),
    "fields": range(2, 8),
    "lanes": (2, 3, 4),
    "sixes": (2,),
    "taps_rows": (2, 3, 4),
    "taps": (2, 3, 4),
    "taps12": (2,),
    "halves": (2, 3, 4),
    "planes": range(2, 9),
    "field_planes": range(2, 8),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(("channels", "values"), [(1, 1), (2, 4), (3, 5), (7, 27), (8, 64)])
def test_a_layout_says_how_long_it_is(name: str, channels: int, values: int) -> None:
    layout = LAYOUTS[name]
    values *= 9 if name in FORMS else 1
    for bits in STORED[name]:
        data = layout.pack(np.ones((channels, values), np.int8), bits)
        assert len(data) == layout.size(channels, values, bits)


@pytest.mark.parametrize("name", LAYOUTS)
def test_weights_that_need_more_bits_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="values 8 to 8 do not fit 4 bits"):
        LAYOUTS[name].pack(np.full((2, 4), 8), 4)


@pytest.mark.parametrize(("pair", "exact"), [((-128, -1), True), ((-1, -128), False)])
def test_128_below_a_negative_weight_is_no_pair(pair: tuple[int, int], exact: bool) -> None:
    weights = np.array([[*pair, 0, 0]])
    assert is_exact(weights, scaling(1)) == exact
    if not exact:
        with pytest.raises(ValueError, match="−128"):
            pack_pairs(weights, 8)


@pytest.mark.parametrize(("shift", "exact"), [(-23, False), (-22, True), (7, True), (8, False)])
def test_shifts_beyond_what_is_exact_are_left_to_other_kernels(shift: int, exact: bool) -> None:
    assert is_exact(np.ones((2, 4), np.int8), scaling(2, shift)) == exact


@pytest.mark.parametrize(("count", "bias", "exact"), [(258, 0, True), (260, 0, False)])
def test_sums_stay_below_2_to_23(count: int, bias: int, exact: bool) -> None:
    """127 · 255 · 259 is the last product of the kind below 2^23."""
    assert is_exact(np.full((1, count), 127), scaling(1, bias=bias)) == exact
    assert is_exact(np.full((1, count), -127), scaling(1, bias=bias)) == exact


def test_the_bias_and_the_memory_of_the_input_count() -> None:
    ones = np.ones((1, 1), np.int8)
    most = (1 << 23) - 1
    assert is_exact(ones, scaling(1, bias=most - 255))
    assert not is_exact(ones, scaling(1, bias=most - 254))
    assert is_exact(ones, scaling(1, bias=most - 9, zero_point=-2, width=4))
    assert not is_exact(ones, scaling(1, bias=most - 8, zero_point=-2, width=4))


# Lanes and sixes; test_lanes.c tests the C on the same rules


def lanes_tables(
    name: str, weights: Array, bits: int, width: int, pixels: int = 9, shift: int = -3
) -> Array | None:
    tables = LAYOUTS[name].tables
    assert tables is not None
    low = -(1 << (width - 1))
    scale = scaling(len(weights), shift, zero_point=low, width=width, bits=bits, pixels=pixels)
    return tables(weights, scale)


def operands(name: str, data: bytes, bits: int) -> list[tuple[int, int]]:
    """The weights of both channels, as rotated and masked words have them."""
    words = np.frombuffer(data, "<u4").tolist()
    found = []
    for k in range(len(words) * (8 if bits == 2 else 4)):
        if name == "sixes":
            word, right, apart = words[k // 8], 4 * (k % 8) + 2, 30
        elif bits == 2:
            word, right, apart = words[k // 8], (4, 6, 12, 14, 20, 22, 28, 30)[k % 8], 28
        else:
            word, right, apart = words[k // 4], 8 * (k % 4) + 4, 28
        rotated = (word >> right | word << (32 - right)) & 0xFFFFFFFF
        mask = 3 if bits == 2 else 15
        found.append((rotated & mask, rotated >> apart & mask))
    return found


@pytest.mark.parametrize(("name", "bits"), [("lanes", 4), ("lanes", 3), ("lanes", 2), ("sixes", 2)])
def test_operands_of_lanes_hold_both_channels(name: str, bits: int) -> None:
    limit = 1 << (bits - 1)
    weights = np.random.default_rng(0).integers(-limit, limit, (2, 13))
    filled = np.zeros((2, 16), np.int64)
    filled[:, :13] = weights + limit
    assert operands(name, LAYOUTS[name].pack(weights, bits), bits) == list(
        zip(*filled.tolist(), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "bits", "width", "served"),
    [
        ("lanes", 4, 4, True),
        ("lanes", 2, 4, True),
        ("lanes", 4, 2, True),
        ("lanes", 4, 8, False),
        ("lanes", 5, 4, False),
        ("sixes", 2, 2, True),
        ("sixes", 2, 4, False),
        ("sixes", 3, 2, False),
    ],
)
def test_lanes_are_for_few_bits_of_both(name: str, bits: int, width: int, served: bool) -> None:
    found = lanes_tables(name, np.zeros((2, 8), np.int8), bits, width)
    assert (found is not None) == served


def test_segments_are_what_the_greatest_weights_allow() -> None:
    """Of 15 · 15 a lane of 14 bits holds 72; segments are multiples of 32 steps."""
    for count, units in ((64, 8), (72, 9), (80, 8), (96, 8), (128, 8)):
        found = lanes_tables("lanes", np.full((2, count), 7), 4, 4)
        assert found is not None
        assert found[0] == units
    small = lanes_tables("lanes", np.full((2, 128), -8), 4, 4)
    assert small is not None
    assert small[0] == 16


@pytest.mark.parametrize(("count", "served"), [(1092, True), (1093, False)])
def test_the_values_of_a_pixel_fit_a_lane(count: int, served: bool) -> None:
    weights = np.zeros((2, count), np.int8)
    assert (lanes_tables("lanes", weights, 4, 4) is not None) == served
    assert lanes_tables("lanes", weights, 4, 4, pixels=1) is not None


@pytest.mark.parametrize(("low", "high", "served"), [(100, 141, True), (100, 142, False)])
def test_six_lanes_hold_the_sums_of_both_signs(low: int, high: int, served: bool) -> None:
    """3 · (2 · 100 + 141) is 1023."""
    weights = np.zeros((2, 256), np.int8)
    weights[0, :low] = -2
    weights[1, :high] = 1
    found = lanes_tables("sixes", weights, 2, 2)
    assert (found is not None) == served
    assert found is None or found[1] == 600


@pytest.mark.parametrize(("shift", "served"), [(-23, False), (-22, True), (7, True), (8, False)])
def test_shifts_of_lanes(shift: int, served: bool) -> None:
    found = lanes_tables("lanes", np.ones((2, 8), np.int8), 4, 4, shift=shift)
    assert (found is not None) == served
    assert found is None or found[2] == (shift >= 0)
