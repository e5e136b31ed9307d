"""Malformed TFLite files: an error with its id, whatever the bytes; never a crash, never slow."""

from __future__ import annotations

import resource
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_frontend_tflite import concat, float_net, padded_conv, save, shapes, stored

from edgeq import budget, feasibility, policy, targets
from edgeq.errors import EdgeqError, ModelError
from edgeq.frontends import flatbuffer, tflite_file
from edgeq.frontends import tflite_schema as schema

Rng = np.random.Generator

FILES, NIGHTLY_FILES = 300, 10_000
MOST_SECONDS = 5.0  # of one file; a good one takes some milliseconds
MOST_BYTES = 1 << 30  # of this process, beside what it has
WORDS = (
    0,
    1,
    2,
    4,
    127,
    128,
    255,
    256,
    0x7FFF,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)


def bases() -> list[bytes]:
    """Good files of every kind."""
    rng = np.random.default_rng(0)
    made = [float_net(rng), padded_conv(rng), concat(rng), shapes(rng)]
    return [*made, stored("FLOAT16", rng), stored("INT8", rng)]


def mutated(data: bytes, rng: Rng) -> bytes:
    """`data` with a few words or bytes changed, copied or cut."""
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        at = int(rng.integers(len(changed) - 4))
        kind = int(rng.integers(6))
        if kind == 0:
            changed[at] = int(rng.integers(256))
        elif kind == 1:
            word = at & ~3
            struct.pack_into("<I", changed, word, int(rng.choice(WORDS)))
        elif kind == 2:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 3:
            word = at & ~3
            old = struct.unpack_from("<i", changed, word)[0]
            new = (old + int(rng.integers(-64, 65))) & 0xFFFFFFFF
            struct.pack_into("<I", changed, word, new)
        elif kind == 4:
            other = int(rng.integers(len(changed) - 4))
            changed[at : at + 4] = changed[other : other + 4]
        else:
            del changed[max(at, 16) :]
    return bytes(changed)


def check(path: Path) -> None:
    """What `edgeq check` does."""
    target = targets.load("mcu")
    feasibility.run(path, policy.load("w8a8"), "w8a8", target, budget.limits(target, None, None))


def survives(files: Iterator[bytes], folder: Path) -> tuple[int, int]:
    """How many files were refused, and how many read."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    refused = read = 0
    for data in files:
        path = save(folder, data)
        start = time.perf_counter()
        try:
            check(path)
        except EdgeqError as error:
            assert error.id.startswith("EQ03")
            refused += 1
        else:
            read += 1
        assert time.perf_counter() - start < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MOST_BYTES
    return refused, read


def mutations(count: int) -> Iterator[bytes]:
    made = bases()
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield mutated(made[seed % len(made)], rng)


def test_mutated_files_are_refused_or_read(tmp_path: Path) -> None:
    refused, read = survives(mutations(FILES), tmp_path)
    assert refused > FILES // 4  # a mutation usually matters
    assert read > FILES // 20  # and sometimes does not


@pytest.mark.nightly
def test_many_mutated_files_are_refused_or_read(tmp_path: Path) -> None:
    survives(mutations(NIGHTLY_FILES), tmp_path)


def test_every_cut_is_refused(tmp_path: Path) -> None:
    data = padded_conv(np.random.default_rng(0))
    files = [data[:size] for size in range(0, len(data), 8)]
    assert survives(iter(files), tmp_path) == (len(files), 0)


def test_shared_lists_and_buffers_cost_no_more_than_a_file_of_its_size(tmp_path: Path) -> None:
    """The most that a small file can ask for: every table of a list is the same one."""
    good = padded_conv(np.random.default_rng(0))
    graph = flatbuffer.root(good, "net", b"TFL3").tables(2)[0]
    for slot, many in ((0, flatbuffer.MOST_TABLES), (3, flatbuffer.MOST_TABLES), (3, 1 << 20)):
        data = bytearray(good)  # then a list, then a copy of the file, to whose tables it points
        start = len(good) + 4
        target = start + 4 * many + graph.tables(slot)[0].at
        offsets = target - (start + 4 * np.arange(many, dtype=np.uint32))
        field = graph.at + struct.unpack_from("<H", data, graph.vtable + 4 + 2 * slot)[0]
        struct.pack_into("<I", data, field, len(good) - field)
        file = bytes(data) + struct.pack("<I", many) + offsets.astype("<u4").tobytes() + good
        assert survives(iter([file]), tmp_path) == (1, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: struct.pack_into("<I", data, 0, len(data)), "a table at byte"),
        (lambda data: struct.pack_into("<I", data, 0, 0xFFFFFFFF), "a table at byte 4294967295"),
        (lambda data: struct.pack_into("<i", data, root_at(data), -(1 << 30)), "a vtable at byte"),
        (lambda data: struct.pack_into("<H", data, vtable_at(data), 2), "2 in its vtable"),
        (lambda data: struct.pack_into("<H", data, vtable_at(data), 0xFFFF), "65535 in its vtable"),
        (lambda data: struct.pack_into("<H", data, vtable_at(data) + 2, 0xFFFF), "has 65535 bytes"),
        (
            lambda data: struct.pack_into("<H", data, vtable_at(data) + 6, 0x7FFF),
            "field 1 lies outside",
        ),
        (
            lambda data: struct.pack_into("<I", data, field_at(data, 2), 0x7FFFFFFF),
            "field 2 points to",
        ),
        (
            lambda data: struct.pack_into("<I", data, list_at(data, 2), 0x7FFFFFFF),
            "items of 4 bytes",
        ),
        (lambda data: struct.pack_into("<I", data, list_at(data, 2), 1 << 15), "items of 4 bytes"),
    ],
)
def test_offsets_that_leave_the_file_are_refused(change: Any, said: str) -> None:
    data = bytearray(padded_conv(np.random.default_rng(0)))
    change(data)
    with pytest.raises(ModelError) as caught:
        tflite_file.parse(bytes(data), Path("net.tflite"))
    assert caught.value.id == "EQ0310"
    assert "net.tflite: malformed flatbuffer: " in caught.value.message
    assert said in caught.value.message


def root_at(data: bytearray) -> int:
    return int(struct.unpack_from("<I", data)[0])


def vtable_at(data: bytearray) -> int:
    return root_at(data) - int(struct.unpack_from("<i", data, root_at(data))[0])


def field_at(data: bytearray, slot: int) -> int:
    return root_at(data) + int(struct.unpack_from("<H", data, vtable_at(data) + 4 + 2 * slot)[0])


def list_at(data: bytearray, slot: int) -> int:
    at = field_at(data, slot)
    return at + int(struct.unpack_from("<I", data, at)[0])


# The schema #


def test_the_numbers_are_those_of_the_schema() -> None:
    s = pytest.importorskip("ai_edge_litert.schema_py_generated")
    tables = {
        "Model": schema.MODEL,
        "SubGraph": schema.SUBGRAPH,
        "OperatorCode": schema.OPERATOR_CODE,
        "Operator": schema.OPERATOR,
        "Tensor": schema.TENSOR,
        "Buffer": schema.BUFFER,
        "QuantizationParameters": schema.QUANTIZATION,
        **{name: options.fields for name, options in schema.OPTIONS.items()},
    }
    for name, fields in tables.items():
        for field, number in fields.items():
            assert slot(s, name, field) == number, f"{name}.{field}"
    for names, enum in (
        (schema.TYPES, s.TensorType),
        (schema.ACTIVATIONS, s.ActivationFunctionType),
        (schema.PADDINGS, s.Padding),
        (schema.OPERATORS, s.BuiltinOperator),
    ):
        assert [getattr(enum, name) for name in names] == list(range(len(names)))
    for name, options in schema.OPTIONS.items():
        assert getattr(s.BuiltinOptions, name) == options.number


def slot(s: Any, table: str, field: str) -> int:
    """The number of a field, as the schema's own writer gives it to the builder."""
    camel = "".join(part.capitalize() for part in field.split("_"))
    calls: list[int] = []

    class Builder:
        def __getattr__(self, name: str) -> Any:
            return lambda number, *rest: calls.append(number)

    add = getattr(s, f"{table}Add{camel}")
    add(Builder(), 0)
    return calls[0]
