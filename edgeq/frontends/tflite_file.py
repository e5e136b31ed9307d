"""From the bytes of a TFLite file to its tensors and operators, each checked against its own words.

No library is needed. Constants are views of the file; only what is used becomes an array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeq.errors import ModelError
from edgeq.frontends import flatbuffer
from edgeq.frontends import tflite_schema as schema
from edgeq.frontends.flatbuffer import Table
from edgeq.ir import Array

MOST_RANK = 8
MOST_ELEMENTS = 1 << 26  # of a tensor: beyond the memory of any device
MOST_SHARING = 16  # constants' elements for each byte of the file: buffers may be shared

_STORED: Mapping[str, tuple[str, int]] = {  # dtype, bits of a value
    "FLOAT32": ("<f4", 32), "FLOAT16": ("<f2", 16), "INT8": ("i1", 8), "UINT8": ("u1", 8),
    "INT16": ("<i2", 16), "INT32": ("<i4", 32), "INT64": ("<i8", 64),
    "INT4": ("i1", 4), "INT2": ("i1", 2),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scales:
    """A tensor's quantisation: one scale and zero point, or one for each index of `axis`."""

    scale: Array  # float32
    zero_point: Array  # int64
    axis: int


@dataclass(frozen=True, slots=True)
class Info:
    """One tensor of the file: `stored` are the bytes of a constant, None where it is computed."""

    name: str
    kind: str  # of TYPES
    shape: tuple[int, ...]
    signature: tuple[int, ...]  # the shape, −1 where it is open
    scales: Scales | None
    stored: Array | None = field(repr=False)  # a view of the file
    fault: str | None = None  # why it cannot be used

    @property
    def elements(self) -> int:
        """How many values it holds."""
        return math.prod(self.shape)

    @property
    def bits(self) -> int:
        """Bits of a value, 0 of a type that edgeq does not read."""
        return _STORED[self.kind][1] if self.kind in _STORED else 0

    def values(self) -> Array:
        """The integers or reals of a constant, in its shape."""
        dtype, bits = _STORED[self.kind]
        flat = (np.zeros(0, np.uint8) if self.stored is None else self.stored).view(dtype)
        if bits < 8:  # packed, the first value in the lowest bits, two's complement
            raw = flat.view(np.uint8)[:, None] >> np.arange(0, 8, bits, dtype=np.uint8)
            high = raw.reshape(-1)[: self.elements] << (8 - bits)
            flat = high.astype(np.uint8).view(np.int8) >> (8 - bits)
        return flat.reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator of the file; `options` None where it has those of another operator, or none."""

    kind: str  # of OPERATORS, or the name of a custom operator
    custom: bool
    inputs: tuple[int, ...]  # −1: left out
    outputs: tuple[int, ...]
    number: int  # of its options' union
    options: Table | None


@dataclass(frozen=True, slots=True)
class Content:
    """A whole file: operators in the order in which they run."""

    tensors: tuple[Info, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def parse(data: bytes, path: Path) -> Content:
    """What `data`, read from `path`, holds.

    Raises:
        ModelError: EQ0310 a broken file, EQ0315 one that edgeq does not read.
    """
    model = flatbuffer.root(data, str(path), schema.IDENTIFIER)
    version = model.integer(schema.MODEL["version"], "I")
    if version != 3:
        raise ModelError("EQ0315", f"{path}: schema version {version}; edgeq reads version 3")
    graphs = model.tables(schema.MODEL["subgraphs"])
    if len(graphs) != 1:
        raise ModelError("EQ0315", f"{path}: {len(graphs)} subgraphs; edgeq reads models of one")
    buffers = model.tables(schema.MODEL["buffers"])
    codes = [_code(table) for table in model.tables(schema.MODEL["operator_codes"])]
    graph = graphs[0]
    tensors = tuple(_tensor(t, buffers) for t in graph.tables(schema.SUBGRAPH["tensors"]))
    shared = sum(tensor.elements for tensor in tensors if tensor.stored is not None)
    if shared > MOST_SHARING * len(data):
        raise model.broken(f"constants of {shared} values in {len(data)} bytes")
    operations = []
    left = len(data)  # entries of lists; a file of its own lists has a quarter of that
    for table in graph.tables(schema.SUBGRAPH["operators"]):
        operations.append(_operation(table, codes, len(tensors)))
        left -= len(operations[-1].inputs) + len(operations[-1].outputs)
        if left < 0:
            raise model.broken(f"operators read more than {len(data)} tensors")
    inputs, outputs = (
        _indices(graph, schema.SUBGRAPH[name], len(tensors), least=0)
        for name in ("inputs", "outputs")
    )
    if not inputs or not outputs or not operations:
        raise ModelError("EQ0310", f"{path}: empty: it has no inputs, outputs or operators")
    return Content(tensors, tuple(operations), inputs, outputs)


def _code(table: Table) -> tuple[str, bool]:
    """An operator code's name, and whether that is a custom operator's."""
    old = table.integer(schema.OPERATOR_CODE["deprecated_builtin_code"], "b")
    number = max(old, table.integer(schema.OPERATOR_CODE["builtin_code"], "i"))
    if not 0 <= number < len(schema.OPERATORS):
        return f"number {number}", False
    name = schema.OPERATORS[number]
    if name == schema.CUSTOM:
        return table.text(schema.OPERATOR_CODE["custom_code"]) or "without a name", True
    return name, False


def _indices(table: Table, slot: int, count: int, least: int) -> tuple[int, ...]:
    """Tensors of a list, `least` (−1 or 0) to count − 1."""
    numbers = table.numbers(slot, "<i4")
    if len(numbers) > flatbuffer.MOST_TABLES:
        raise table.broken(f"a list of {len(numbers)} tensors")
    found = tuple(int(number) for number in numbers)
    for index in found:
        if not least <= index < count:
            raise table.broken(f"tensor {index} of {count}")
    return found


def _operation(table: Table, codes: list[tuple[str, bool]], tensors: int) -> Operation:
    code = table.integer(schema.OPERATOR["opcode_index"], "I")
    if code >= len(codes):
        raise table.broken(f"operator code {code} of {len(codes)}")
    kind, custom = codes[code]
    return Operation(
        kind,
        custom,
        _indices(table, schema.OPERATOR["inputs"], tensors, least=-1),
        _indices(table, schema.OPERATOR["outputs"], tensors, least=0),
        table.integer(schema.OPERATOR["builtin_options_type"], "B"),
        table.table(schema.OPERATOR["builtin_options"]),
    )


def _tensor(table: Table, buffers: tuple[Table, ...]) -> Info:
    name = table.text(schema.TENSOR["name"])
    number = table.integer(schema.TENSOR["type"], "b")
    kind = schema.TYPES[number] if 0 <= number < len(schema.TYPES) else f"type {number}"
    shape = _shape(table, name, schema.TENSOR["shape"], least=0)
    signature = _shape(table, name, schema.TENSOR["shape_signature"], least=-1) or shape
    if len(signature) != len(shape):
        raise table.broken(f"{name} has shape {shape} and signature {signature}")
    stored = _stored(table, buffers)
    info = Info(name, kind, shape, signature, _scales(table, name), stored, _fault(table))
    if stored is not None and info.bits and not info.fault:
        due = (info.elements * info.bits + 7) // 8
        if len(stored) != due:
            raise table.broken(f"{name} of shape {shape} holds {len(stored)} bytes, {due} are due")
    return info


def _shape(table: Table, name: str, slot: int, least: int) -> tuple[int, ...]:
    numbers = table.numbers(slot, "<i4")
    if len(numbers) > MOST_RANK:
        raise table.broken(f"{name} has {len(numbers)} dimensions; at most {MOST_RANK} are read")
    shape = tuple(int(number) for number in numbers)
    if any(size < least for size in shape) or math.prod(map(abs, shape)) > MOST_ELEMENTS:
        raise table.broken(f"{name} has shape {shape}; at most {MOST_ELEMENTS} values are read")
    return shape


def _stored(table: Table, buffers: tuple[Table, ...]) -> Array | None:
    """The bytes of a constant; None where the buffer is empty."""
    index = table.integer(schema.TENSOR["buffer"], "I")
    if index >= max(len(buffers), 1):
        raise table.broken(f"buffer {index} of {len(buffers)}")
    if index == 0:  # by convention empty
        return None
    buffer = buffers[index]
    offset, size = (buffer.integer(schema.BUFFER[key], "Q") for key in ("offset", "size"))
    if offset > 1:  # behind the flatbuffer, as in files beyond 2 GB
        if offset + size > len(buffer.data):
            raise table.broken(f"buffer {index} has {size} bytes at {offset}")
        return np.frombuffer(buffer.data, np.uint8, size, offset)
    found = buffer.numbers(schema.BUFFER["data"], "u1")
    return found if len(found) else None


def _scales(table: Table, name: str) -> Scales | None:
    quantization = table.table(schema.TENSOR["quantization"])
    if quantization is None:
        return None
    scale = quantization.numbers(schema.QUANTIZATION["scale"], "<f4")
    zero_point = quantization.numbers(schema.QUANTIZATION["zero_point"], "<i8")
    if not len(scale):
        return None
    if len(zero_point) not in (0, len(scale)):
        raise table.broken(f"{name} has {len(scale)} scales and {len(zero_point)} zero points")
    axis = quantization.integer(schema.QUANTIZATION["quantized_dimension"])
    return Scales(scale, zero_point if len(zero_point) else np.zeros(len(scale), np.int64), axis)


def _fault(table: Table) -> str | None:
    """What makes a tensor useless here, beside its type."""
    quantization = table.table(schema.TENSOR["quantization"])
    if quantization is not None and quantization.integer(schema.QUANTIZATION["details_type"], "B"):
        return "is quantised in blocks; edgeq takes one scale a tensor or channel"
    faults = {
        "sparsity": "is sparse; store it dense",
        "external_buffer": "keeps its data outside the file",
        "is_variable": "is a variable; edgeq has no state between inferences",
    }
    forms = {"sparsity": "I", "external_buffer": "I", "is_variable": "B"}
    for key, what in faults.items():
        if table.integer(schema.TENSOR[key], forms[key]):
            return what
    return None
