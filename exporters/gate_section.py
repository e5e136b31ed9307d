"""The section of gates in a model image: `eq_gate_t` of `eq_image.h` and the tables behind it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from edgeq import gates
from edgeq.gates import Gate, Layer, Mlp, Path, Table
from edgeq.packing import pad
from edgeq.plan import Placement

VERSION = 1  # of the layout; sections from before it was stored have 0 there
GATE = struct.Struct("<4B4H9I")
PATH = struct.Struct("<IHBB")
FIRST = struct.Struct("<2I")
LAYER = struct.Struct("<4i")
FORMS = (gates.Static, Table, Mlp)  # eq_form_t

Piece = tuple[str, bytes]


def pieces(gate: Gate, scale: float, state: Placement | None) -> tuple[Piece, ...]:
    """The section in labelled pieces, the record first; the image pads each to its alignment.

    `scale` is that of the network's outputs, `state` where the gate's state lies.
    """
    order = tree(gate)
    parts: dict[str, bytes] = {
        "paths": b"".join(_paths(gate, order)),
        "first": b"".join(
            FIRST.pack(at, order.index(gate.paths.index((level,)))) for at, level in gate.first
        ),
    }
    if not isinstance(gate.form, gates.Static):
        parts["exponentials"] = _half_words(gates.exponential_factors(scale))
        parts["entropies"] = _half_words(gates.entropies(gate.classes))
    if isinstance(gate.form, Mlp):
        parts["sigmoids"] = _half_words(gates.sigmoid_knots())
        parts["predictor"] = b"".join(_layer(gate, layer) for layer in gate.form.layers)
    if isinstance(gate.form, Table):
        rows = (_errors(gate, gate.form, order, gate.paths[i]) for i in order)
        parts["predictor"] = gate.form.centroids.tobytes() + b"".join(rows)
    sizes = (len(pad(data)) for data in parts.values())
    starts = accumulate(sizes, initial=len(pad(bytes(GATE.size))))
    offset = dict(zip(parts, starts, strict=False))
    record = GATE.pack(
        FORMS.index(type(gate.form)),
        gate.exits,
        len(gate.paths),
        len(gate.first),
        gate.classes,
        gate.size,
        gate.level_count,
        VERSION,
        gate.tradeoff,
        0 if state is None else state.offset,
        0 if state is None else state.bytes,
        *(
            offset.get(name, 0)
            for name in ("paths", "first", "exponentials", "entropies", "sigmoids", "predictor")
        ),
    )
    return (("gate", record), *((f"gate: {name}", data) for name, data in parts.items()))


def version(section: bytes) -> int:
    """The layout that a section of gates says it has."""
    return int(GATE.unpack_from(section)[7]) if len(section) >= GATE.size else 0


def tree(gate: Gate) -> list[int]:
    """The paths by index, each before those that continue it, these by their levels."""
    return sorted(range(len(gate.paths)), key=lambda i: gate.paths[i])


def code(path: Path) -> int:
    """The levels of a path as the device has them: 4 bits a block, the first block lowest."""
    return sum(level << 4 * block for block, level in enumerate(path))


def _paths(gate: Gate, order: Sequence[int]) -> Iterator[bytes]:
    for index in order:
        path = gate.paths[index]
        yield PATH.pack(code(path), gate.costs[index] - 1, len(path), len(gate.options(path)))


def _errors(gate: Gate, table: Table, order: Sequence[int], path: Path) -> bytes:
    """The errors behind `path`: its options in the order of the tree."""
    if len(path) == gate.exits:
        return b""
    options = gate.options(path)
    columns = [options.index(i) for i in order if i in options]
    return np.ascontiguousarray(table.errors[path][:, columns]).tobytes()


def _layer(gate: Gate, layer: Layer) -> bytes:
    seen = layer.hidden.shape[1] - gate.exits - 1
    weights = (layer.hidden[:, :seen], layer.hidden[:, seen:].T, layer.output)
    multiplier, shift = layer.output_scale
    data = LAYER.pack(layer.hidden_shift, layer.output_bias, multiplier, -shift)
    data += layer.hidden_bias.astype("<i4").tobytes()
    data += b"".join(np.ascontiguousarray(part, np.int8).tobytes() for part in weights)
    return data + bytes(-len(data) % 4)


def _half_words(values: gates.Half) -> bytes:
    return values.astype("<u2").tobytes()
