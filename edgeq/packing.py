"""Storage of n-bit weights, in the layouts that kernels read, and of n-bit activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from edgeq import lanes, nested, taps
from edgeq.ir import Array

ALIGN = 8  # every table and tensor of an image ends at a multiple of it
PAIRS_GROUP = 4  # weights of a word of the layout "pairs"
FIELDS_BLOCK = 16  # weights of a channel in a block of the layout "fields"
PAIRS_MOST_RIGHT, PAIRS_MOST_LEFT = 22, 7  # shifts that its requantisation is exact for
PAIRS_ANY = 1 << 16  # EQ_STAGE_ANY
PAIRS_SUM = (1 << 23) - 1  # what sums may reach
LANES_UNIT = 8  # steps of the layouts "lanes" and "sixes"
LANES_EXACT = 1 << 16  # EQ_LANES_EXACT
LANES_ONE = 28  # bits of a lane where a pixel is alone
PLANES_BLOCK = 32  # weights to which a plane is filled up
LANES_ONE_SUM = 1 << 24  # below which the values of such a pixel sum up


def pad(data: bytes) -> bytes:
    """`data` with zeros up to the next multiple of 8 bytes."""
    return data + bytes(-len(data) % ALIGN)


def padded_bytes(size: int) -> int:
    """The next multiple of 8 bytes."""
    return -(-size // ALIGN) * ALIGN


def stored_bytes(count: int, bits: int) -> int:
    """What `count` values of `bits` bits take, dense and padded."""
    return padded_bytes(-(-count * bits // 8))


def pack_dense(values: Array, bits: int) -> bytes:
    """Exactly `bits` bits a value, two's complement, least significant bit first; not padded.

    The C twin is `eq_unpack.c`.

    Raises:
        ValueError: a value needs more bits.
    """
    flat = _fitting(values.reshape(-1).astype(np.int64), bits)
    digits = (flat[:, None] >> np.arange(bits)) & 1
    return np.packbits(digits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def unpack_dense(data: bytes, bits: int, count: int) -> Array:
    """The first `count` values that `pack_dense` stored, as int8."""
    digits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: bits * count]
    weight = (1 << np.arange(bits, dtype=np.int64)).astype(np.int64)
    weight[-1] = -weight[-1]
    return (digits.reshape(count, bits).astype(np.int64) @ weight).astype(np.int8)


@dataclass(frozen=True, slots=True)
class Scaling:
    """How the sums of a layer become values: what a layout other than dense has in its tables."""

    bias: Array  # of each channel, int32
    multiplier: Array
    shift: Array
    input_zero_point: int
    input_width: int  # bits of memory that an input value takes: 8, 4 or 2
    output_zero_point: int
    weight_bits: int  # of the policy
    pixels: int  # of the output


@dataclass(frozen=True, slots=True)
class Layout:
    """How the weights of an operator lie in the image: a row, one row of the weights a channel.

    `tables` gives the int32 that stand in the image in place of bias, multiplier and shift, and
    None where weights or scaling are beyond the layout's limits; "dense" has none. Kernels of a
    layout that is `packed` take packed activations as they are.
    """

    name: str
    id: int  # eq_layout_t
    size: Callable[[int, int, int], int]  # bytes of channels, weights a channel, bits; unpadded
    pack: Callable[[Array, int], bytes]  # weights (channels, K), bits
    limits: str = "all weights"  # that it holds
    tables: Callable[[Array, Scaling], Array | None] | None = None
    packed: bool = False


PAIRS_LIMITS = (
    "sums below 2^23, shifts of 22 to the right to 7 to the left, and no weight of −128 beside a "
    "negative one"
)


LANES_LIMITS = (
    "packed activations, sums that its lanes hold, and shifts of 22 to the right to 7 to the left"
)


def dense_bytes(channels: int, values: int, bits: int) -> int:
    """What `channels` × `values` weights take in the layout "dense"."""
    return -(-channels * values * bits // 8)


def pairs_bytes(channels: int, values: int, bits: int) -> int:
    """What `channels` × `values` weights of 8 bits take in the layout "pairs"."""
    return -(-channels // 2) * 2 * -(-values // PAIRS_GROUP) * PAIRS_GROUP


def fields_bytes(channels: int, values: int, bits: int) -> int:
    """What `channels` × `values` weights of 2..7 bits take in the layout "fields"."""
    return -(-channels // 2) * -(-values // FIELDS_BLOCK) * FIELDS_BLOCK * 2 * bits // 8


def lanes_bytes(channels: int, values: int, bits: int) -> int:
    """What `channels` × `values` weights of 2..4 bits take in "lanes" or "sixes"."""
    return -(-channels // 2) * 2 * -(-values // LANES_UNIT) * (2 if bits == 2 else 4)


def pack_pairs(values: Array, bits: int) -> bytes:
    """Weights (channels, K) of 8 bits as eq_pairs.h describes them.

    Raises:
        ValueError: a value is no int8, or −128 where its neighbour is negative.
    """
    halves = _pair_halves(_fitting(values, bits), PAIRS_GROUP)
    if halves.min(initial=0) < -(1 << 15):
        raise ValueError("a weight of −128 whose neighbour is negative is no pair")
    return halves.astype("<i2").tobytes()


def pack_fields(values: Array, bits: int) -> bytes:
    """Weights (channels, K) of 2..7 bits as eq_fields.h describes them.

    Raises:
        ValueError: a value needs more bits.
    """
    limit = 1 << (bits - 1)
    halves = _pair_halves(_fitting(values, bits), FIELDS_BLOCK) + limit * 0x101
    blocks = halves.astype("<i2").reshape(-1, 8, 2).view(np.uint8)
    parts = []
    shift = 0
    for width in (4, 2, 1):
        if bits & width:
            share = 8 // width
            part = (blocks >> shift & (1 << width) - 1).reshape(-1, width, share, 4)
            places = (np.arange(share) * width).astype(np.uint8)[:, None]
            parts.append(np.bitwise_or.reduce(part << places, axis=2))
            shift += width
    return np.concatenate(parts, axis=1).astype(np.uint8).tobytes()


def pack_lanes(values: Array, bits: int) -> bytes:
    """Weights (channels, K) of 2..4 bits as eq_lanes.h describes the layout "lanes".

    Raises:
        ValueError: a value needs more bits.
    """
    fields = _lane_fields(_fitting(values, bits), bits)
    if bits != 2:
        return (fields[..., 1] | fields[..., 0] << 4).astype(np.uint8).tobytes()
    first, second = fields[:, 0::2], fields[:, 1::2]
    low, high = (step[..., 1] | step[..., 0] << 4 for step in (first, second))
    return (low | high << 2).astype(np.uint8).tobytes()


def pack_sixes(values: Array, bits: int) -> bytes:
    """Weights (channels, K) of 2 bits as eq_lanes.h describes the layout "sixes".

    Raises:
        ValueError: a value needs more bits.
    """
    fields = _lane_fields(_fitting(values, bits), bits)
    both = fields[..., 1] | fields[..., 0] << 2
    return (both[:, 0::2] | both[:, 1::2] << 4).astype(np.uint8).tobytes()


def _lane_fields(values: Array, bits: int) -> npt.NDArray[np.int64]:
    """Fields w + 2^(bits−1) as (pairs of channels, steps of whole units, channel of the pair)."""
    channels, count = values.shape
    filled = np.zeros((-(-channels // 2) * 2, -(-count // LANES_UNIT) * LANES_UNIT), np.int64)
    filled[:channels, :count] = values.astype(np.int64) + (1 << (bits - 1))
    return filled.reshape(len(filled) // 2, 2, -1).transpose(0, 2, 1)


def _fitting(values: Array, bits: int) -> Array:
    limit = 1 << (bits - 1)
    if values.size and not -limit <= values.min() <= values.max() < limit:
        raise ValueError(f"values {values.min()} to {values.max()} do not fit {bits} bits")
    return values


def _pair_halves(values: Array, step: int) -> npt.NDArray[np.int64]:
    """256·w1 + w0 of neighbours, (pairs of channels, groups, channel of the pair, 2)."""
    channels, count = values.shape
    filled = np.zeros((-(-channels // 2) * 2, -(-count // step) * step), np.int64)
    filled[:channels, :count] = values
    halves = 256 * filled[:, 1::2] + filled[:, 0::2]
    return halves.reshape(len(filled) // 2, 2, -1, 2).transpose(0, 2, 1, 3)


@dataclass(frozen=True, slots=True)
class _Shifts:
    """Shifts of each channel, and what is added before one to the right."""

    right: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]  # half of what is shifted out, and the zero point


def _shifts(scaling: Scaling) -> _Shifts | None:
    """The shifts of `scaling`; None where one is beyond what the layouts' kernels do exactly."""
    shift = scaling.shift.astype(np.int64)
    if shift.min() < -PAIRS_MOST_RIGHT or shift.max() > PAIRS_MOST_LEFT:
        return None
    right, left = np.maximum(-shift, 0), np.maximum(shift, 0)
    half = np.where(right > 0, 1 << np.maximum(right - 1, 0), 0)
    return _Shifts(right, left, half + (scaling.output_zero_point << right))


def pairs_tables(values: Array, scaling: Scaling) -> Array | None:
    """The stages of eq_pairs.h for weights (channels, K), 8 words for each two channels.

    None where the layout would not be exact: sums of 2^23 and more are possible, a shift is out of
    range, or a pair holds −128 beside a negative weight.
    """
    channels = len(values)
    w = values.astype(np.int64)
    shifts = _shifts(scaling)
    half = 1 << (scaling.input_width - 1)
    start = scaling.bias.astype(np.int64) - scaling.input_zero_point * w.sum(axis=1)
    above, below = np.maximum(w, 0).sum(axis=1), np.minimum(w, 0).sum(axis=1)
    highest = start + above * (half - 1) - below * half
    lowest = start + below * (half - 1) - above * half
    if (
        shifts is None
        or max(highest.max(), -lowest.min()) > PAIRS_SUM
        or _pair_halves(values, PAIRS_GROUP).min(initial=0) < -(1 << 15)
    ):
        return None
    stages = np.zeros((-(-channels // 2), 2, 4), np.int64)  # sum, then three words
    flat = stages.reshape(-1, 4)
    flat[:, 3] = 1 | PAIRS_MOST_LEFT << 8  # of a channel that is not there
    flat[:, 2] = 1 + 2 * scaling.output_zero_point
    flat[:channels, 0] = 256 * start - 127 * w[:, 0::2].sum(axis=1)
    flat[:channels, 1] = scaling.multiplier
    flat[:channels, 2] = shifts.offset
    flat[:channels, 3] = shifts.right | PAIRS_MOST_LEFT - shifts.left << 8
    stages[(stages[:, :, 3] & 0xFF == 0).any(axis=1), 0, 3] |= PAIRS_ANY
    rows = np.concatenate([stages[:, :, 0], stages[:, :, 1:].reshape(-1, 6)], axis=1)
    return rows.astype(np.uint32).view(np.int32)


def lanes_tables(values: Array, scaling: Scaling) -> Array | None:
    """The tables of eq_lanes.h for weights (channels, K): three words, then four for each channel.

    None where activations are not packed, or sums cannot be kept exact: lanes are too narrow for
    the values of a pixel or for 32 steps, doubled sums take 32 bits, a shift is out of range.
    """
    return _lanes_tables(values, scaling, lanes.PAIRS_14)


def sixes_tables(values: Array, scaling: Scaling) -> Array | None:
    """The same for six pixels of 2 bits, whose channels are one segment."""
    return _lanes_tables(values, scaling, lanes.SIX_10)


def _lanes_tables(values: Array, scaling: Scaling, scheme: lanes.Scheme) -> Array | None:
    bits, width = scaling.weight_bits, scaling.input_width
    if bits > 4 or width > 4 or (scheme is lanes.SIX_10 and (bits, width) != (2, 2)):
        return None
    channels, count = values.shape
    alone = scheme is lanes.PAIRS_14 and scaling.pixels == 1
    most = (1 << width) - 1
    fields = _lane_fields(values, bits)
    units = fields.shape[1] // LANES_UNIT
    if alone:
        if count * most >= LANES_ONE_SUM or (fields.sum(axis=1) * most >> LANES_ONE).any():
            return None
        steps = units * LANES_UNIT
    elif count * most >> scheme.width:
        return None
    elif scheme is lanes.SIX_10:
        steps = units * LANES_UNIT
    else:
        steps = scheme.real_steps(fields[:, ::-1], width, 4 * LANES_UNIT)
    segment = units if steps >= units * LANES_UNIT else steps // LANES_UNIT
    if segment == 0:
        return None
    shifts = _shifts(scaling)
    if shifts is None:
        return None
    w = values.astype(np.int64)
    start = scaling.bias.astype(np.int64)
    start = start - (scaling.input_zero_point + (1 << (width - 1))) * w.sum(axis=1)
    high = np.maximum(w, 0).sum(axis=1) * most
    low = np.minimum(w, 0).sum(axis=1) * most
    above, below = start + high, start + low
    first = -int(low.min()) if scheme is lanes.SIX_10 else 0
    if (scheme is lanes.SIX_10 and first + high.max() >> scheme.width != 0) or (
        np.maximum(above, -below) << shifts.left
    ).max() >= 1 << 30:
        return None
    stages = np.zeros((-(-channels // 2) * 2, 4), np.int64)
    stages[:, 2:] = scaling.output_zero_point, LANES_EXACT  # of a channel that is not there
    stages[:channels, 0] = 2 * (start - first)
    stages[:channels, 1] = scaling.multiplier
    stages[:channels, 2] = shifts.offset
    stages[:channels, 3] = shifts.right | shifts.left << 8
    stages[:channels, 3] |= np.where(shifts.right == 0, LANES_EXACT, 0)
    header = segment, first, (stages[:, 3] & LANES_EXACT).any()
    words = np.concatenate([header, stages.reshape(-1)])
    return words.astype(np.uint32).view(np.int32)


def pack_taps(values: Array, bits: int, form: taps.Taps) -> bytes:
    """Weights (channels, 9 · C) of 2..4 bits as eq_taps.h describes them.

    Raises:
        ValueError: a value needs more bits.
    """
    return form.pack(_fitting(values, bits), bits)


def taps_tables(values: Array, scaling: Scaling, form: taps.Taps) -> Array | None:
    """The stages of eq_taps.h for weights (channels, K), 4 words a channel.

    None where the layout would not be exact: a lane does not hold what its sums can reach, or a
    shift is out of range.
    """
    shifts = _shifts(scaling)
    zero_point = scaling.input_zero_point + (1 << (scaling.input_width - 1))
    sums = scaling.bias.astype(np.int64) - zero_point * values.astype(np.int64).sum(axis=1)
    twice = 2 * (sums - form.offset)
    reach = (form.sums * 4 << form.width) + np.abs(twice)
    if (
        shifts is None
        or values.shape[1] % 9
        or not form.exact(values, scaling.input_width)
        or (reach << shifts.left).max() >= 1 << 31
    ):
        return None
    inexact = (shifts.right == 0) | (shifts.left > 0)
    word = shifts.right | shifts.left << 8 | np.where(inexact, PAIRS_ANY, 0)
    return np.stack([twice, scaling.multiplier, shifts.offset, word], axis=1).astype(np.int32)


def planes_bytes(channels: int, values: int, bits: int) -> int:
    """What `channels` × `values` weights take in the layout "planes", of any planes."""
    return -(-channels * values // PLANES_BLOCK) * (PLANES_BLOCK // 8) * bits


def pack_planes(values: Array, planes: Sequence[int]) -> bytes:
    """Weights as eq_planes_s8_ref.c describes them: digits of `planes` bits, the top plane first.

    Those of a level of fewer bits are the beginning, and dense weights of the lowest level, too.

    Raises:
        ValueError: a weight is beyond what the digits hold.
    """
    size = planes_bytes(1, values.size, 1)
    parts = zip(nested.digits(values.reshape(-1), planes), planes, strict=True)
    return b"".join(pack_dense(digits, width).ljust(size * width, b"\0") for digits, width in parts)


def pack_field_planes(values: Array, planes: Sequence[int]) -> bytes:
    """Weights (channels, K) as eq_fields.h describes the layout "field_planes".

    Those of a level of fewer bits are the beginning, in "fields" if it is the lowest.

    Raises:
        ValueError: a weight is beyond what the digits hold.
    """
    parts = zip(nested.digits(values, planes), planes, strict=True)
    return b"".join(pack_fields(digits, width) for digits, width in parts)


def pack(values: Array, layout: str, bits: int, planes: Sequence[int]) -> bytes:
    """Weights (channels, K) in `layout`, whose planes those of nested levels are."""
    if layout in NESTED:
        return NESTED[layout](values, planes or (bits,))
    return LAYOUTS[layout].pack(values, bits)


def pack_plane(values: Array, bits: int, layout: str) -> bytes:
    """A store of one level."""
    return NESTED[layout](values, (bits,))


NESTED: Mapping[str, Callable[[Array, Sequence[int]], bytes]] = {
    "planes": pack_planes,
    "field_planes": pack_field_planes,
}


def plane_ends(planes: Sequence[int]) -> int:
    """A bit set of where planes end: bit i says that one ends with bit i + 1."""
    return sum(1 << (int(end) - 1) for end in np.cumsum(planes))


LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("dense", 0, dense_bytes, pack_dense),
        Layout("pairs", 1, pairs_bytes, pack_pairs, PAIRS_LIMITS, pairs_tables),
        Layout("fields", 2, fields_bytes, pack_fields, PAIRS_LIMITS, pairs_tables),
        Layout("lanes", 3, lanes_bytes, pack_lanes, LANES_LIMITS, lanes_tables, packed=True),
        Layout("sixes", 4, lanes_bytes, pack_sixes, LANES_LIMITS, sixes_tables, packed=True),
        *(
            Layout(
                form.name,
                number,
                taps.stored_bytes,
                partial(pack_taps, form=form),
                LANES_LIMITS,
                partial(taps_tables, form=form),
                packed=True,
            )
            for number, form in enumerate(taps.FORMS.values(), 5)
        ),
        Layout("planes", 9, planes_bytes, partial(pack_plane, layout="planes")),
        Layout(
            "field_planes",
            10,
            fields_bytes,
            partial(pack_plane, layout="field_planes"),
            PAIRS_LIMITS,
            pairs_tables,
        ),
    )
}


def pack_activations(values: Array, width: int) -> bytes:
    """Activations as the device has them, `width` (16, 8, 4 or 2) bits a value.

    Flat, element 0 in the lowest bits of byte 0, two's complement, unused bits 0. The C twin is
    `eq_rows.h`.

    Raises:
        ValueError: a value needs more bits.
    """
    return pack_dense(values, width)


def unpack_activations(data: bytes, width: int, count: int) -> Array:
    """The first `count` values that `pack_activations` stored, as int16 or int8."""
    if width == 16:
        return np.frombuffer(data, "<i2", count).astype(np.int16)
    return unpack_dense(data, width, count)
