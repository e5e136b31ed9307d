"""Dense storage: n bits a value, least significant first, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.packing import ALIGN, pack_dense, pad, unpack_dense

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
