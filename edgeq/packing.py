"""Storage of n-bit weights, in the layouts that kernels read, and of n-bit activations."""

from __future__ import annotations

import numpy as np

from edgeq.ir import Array

ALIGN = 8  # every table and tensor of an image ends at a multiple of it


def pad(data: bytes) -> bytes:
    """`data` with zeros up to the next multiple of 8 bytes."""
    return data + bytes(-len(data) % ALIGN)


def stored_bytes(count: int, bits: int) -> int:
    """What `count` values of `bits` bits take, dense and padded."""
    return -(-count * bits // (8 * ALIGN)) * ALIGN


def pack_dense(values: Array, bits: int) -> bytes:
    """Exactly `bits` bits a value, two's complement, least significant bit first; not padded.

    The C twin is `eq_unpack.c`.

    Raises:
        ValueError: a value needs more bits.
    """
    flat = values.reshape(-1).astype(np.int64)
    limit = 1 << (bits - 1)
    if flat.size and not -limit <= flat.min() <= flat.max() < limit:
        raise ValueError(f"values {flat.min()} to {flat.max()} do not fit {bits} bits")
    digits = (flat[:, None] >> np.arange(bits)) & 1
    return np.packbits(digits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def unpack_dense(data: bytes, bits: int, count: int) -> Array:
    """The first `count` values that `pack_dense` stored, as int8."""
    digits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: bits * count]
    weight = (1 << np.arange(bits, dtype=np.int64)).astype(np.int64)
    weight[-1] = -weight[-1]
    return (digits.reshape(count, bits).astype(np.int64) @ weight).astype(np.int8)


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
