"""The model image: the same structures as in C, and everything of the program in them."""

from __future__ import annotations

import math
import re
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.make import COMMAND, files, program
from graphs import Builder, in_blocks, random_graph, resnet8
from programs import SHA256, compiled

from edgeq import affine, fixedpoint, kernels, ops, plan
from edgeq.exporters import gate_section, image
from edgeq.exporters.image import Kind
from edgeq.ir import Array, Graph, Node, Op, qparams_of
from edgeq.kernels import ALIASED
from edgeq.ops import OPS
from edgeq.packing import ALIGN, LAYOUTS, unpack_dense
from edgeq.program import Program
from edgeq.targets import runners

RUNTIME = Path(__file__).parents[1] / "firmware_stubs" / "runtime"
GOLDEN = Path(__file__).parent / "golden"
SEEDS = range(12)
HEADER = (RUNTIME / "eq_image.h").read_text(encoding="utf-8")
MANUAL = (RUNTIME / "edgeq.h").read_text(encoding="utf-8")
CHECK = (RUNTIME / "eq_check.c").read_text(encoding="utf-8")

STRUCTS = {
    "eq_header_t": image.HEADER,
    "eq_section_t": image.SECTION,
    "eq_tensor_record_t": image.TENSOR,
    "eq_operator_t": image.OPERATOR,
    "eq_variant_t": image.VARIANT,
    "eq_block_t": image.BLOCK,
    "eq_port_t": image.PORT,
    "eq_gate_t": gate_section.GATE,
    "eq_path_t": gate_section.PATH,
    "eq_first_t": gate_section.FIRST,
    "eq_gate_layer_t": gate_section.LAYER,
}
CODES = {
    "uint8_t": "B",
    "uint16_t": "H",
    "int16_t": "h",
    "uint32_t": "I",
    "int32_t": "i",
    "float": "f",
}
Tool = Callable[[str], tuple[str, ...]]


# C and Python


def fields(name: str) -> list[tuple[str, str, int]]:
    """(type, name, count) of every field of a structure of eq_image.h."""
    plain = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.S)
    body = re.search(rf"typedef struct \{{([^}}]*)\}} {name};", plain)
    assert body is not None
    found = re.findall(r"(\w+) (\w+)(?:\[(\d+)\])?;", body[1])
    return [(kind, field, int(count or 1)) for kind, field, count in found]


def format_of(name: str) -> str:
    """The structure as `struct` would write it without padding."""
    parts = []
    for kind, _, count in fields(name):
        parts.append(f"{count}s" if (kind, count) == ("uint8_t", 16) else CODES[kind] * count)
    return "<" + "".join(parts)


def spelled(code: str) -> str:
    """A format with every repeat written out, bytes apart."""
    spread = (m[2] * int(m[1] or 1) for m in re.finditer(r"(\d*)([BHhIifb])", code[1:]))
    strings = re.sub(r"\d+s", "", code)
    assert strings.count("s") == 0
    return "".join(spread)


def defined(macro: str, text: str) -> int:
    match = re.search(rf"#define {macro} (\w+)", text)
    assert match is not None
    return int(match[1].rstrip("uU"), 0)


def enumerated(prefix: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(rf"{prefix}_(\w+) = (\d+)", HEADER)}


@pytest.mark.parametrize("name", STRUCTS)
def test_a_structure_has_the_fields_of_c_in_their_order(name: str) -> None:
    ours, theirs = STRUCTS[name].format, format_of(name)
    assert re.findall(r"\d+s", ours) == re.findall(r"\d+s", theirs)
    assert spelled(re.sub(r"\d+s", "", ours)) == spelled(re.sub(r"\d+s", "", theirs))


def test_a_c_compiler_lays_the_structures_out_as_python_packs_them(
    tool: Tool, tmp_path: Path
) -> None:
    expected, prints = [], []
    for name in STRUCTS:
        offset = 0
        for kind, field, count in fields(name):
            prints.append(f'printf("{name}.{field} %u\\n", (unsigned)offsetof({name}, {field}));')
            expected.append(f"{name}.{field} {offset}")
            offset += struct.calcsize("<" + CODES[kind] * count)
        prints.append(f'printf("{name} %u\\n", (unsigned)sizeof({name}));')
        expected.append(f"{name} {STRUCTS[name].size}")
    source = tmp_path / "offsets.c"
    source.write_text(
        '#include <stddef.h>\n#include <stdio.h>\n#include "eq_image.h"\n'
        f"int main(void) {{ {' '.join(prints)} return 0; }}\n"
    )
    command = [
        *tool("cc"),
        "-std=c99",
        f"-I{RUNTIME}",
        str(source),
        "-o",
        str(tmp_path / "offsets"),
    ]
    subprocess.run(command, check=True, timeout=60)
    done = subprocess.run([tmp_path / "offsets"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize(
    ("python", "c"),
    [
        (image.MAGIC, defined("EQ_IMAGE_MAGIC", HEADER)),
        (image.FORMAT, defined("EQ_IMAGE_FORMAT", HEADER)),
        (image.ABI, defined("EQ_ABI", MANUAL)),
        (gate_section.VERSION, defined("EQ_GATE_VERSION", HEADER)),
        (image.NONE, defined("EQ_NONE", HEADER)),
        (ALIGN, defined("EQ_IMAGE_ALIGN", HEADER)),
        (plan.ALIGN, defined("EQ_IMAGE_ALIGN", HEADER)),
        (kernels.MAX_PORTS, defined("EQ_MAX_PORTS", MANUAL)),
        (runners.MAX_PORTS, defined("EQ_MAX_PORTS", MANUAL)),
        (runners.EQ_MORE, int(re.findall(r"EQ_MORE = (\d+)", MANUAL)[0])),
        (ops.SOFTMAX_MOST, defined("MOST_SOFTMAX", CHECK)),
        (
            fixedpoint.ADD_LEFT_SHIFT,
            defined("EQ_ADD_LEFT_SHIFT", (RUNTIME / "eq_fixed.h").read_text("utf-8")),
        ),
    ],
    ids=[
        "magic",
        "format",
        "abi",
        "gates",
        "none",
        "align",
        "arena",
        "ports",
        "runner",
        "more",
        "softmax",
        "add",
    ],
)
def test_a_number_is_the_same_in_c_and_python(python: int, c: int) -> None:
    assert python == c


def test_sections_have_the_numbers_of_c() -> None:
    assert enumerated("EQ_SECTION") == {kind.name: kind.value for kind in Kind}


def test_layouts_have_the_numbers_of_c() -> None:
    numbers = {name.upper(): layout.id for name, layout in LAYOUTS.items()}
    assert enumerated("EQ_LAYOUT") == numbers


# Reading it back


@dataclass(frozen=True)
class Read:
    """An image, taken apart by its own header and section table."""

    data: bytes
    header: dict[str, Any]
    sections: dict[Kind, tuple[int, int]]

    def section(self, kind: Kind) -> bytes:
        offset, size = self.sections[kind]
        return self.data[offset : offset + size]

    def records(self, kind: Kind, layout: struct.Struct, name: str) -> list[dict[str, Any]]:
        return [named(name, values) for values in layout.iter_unpack(self.section(kind))]

    def table(self, offset: int, count: int, kind: str) -> list[int]:
        found = np.frombuffer(self.section(Kind.TABLES), kind, count, offset)
        return [int(v) for v in found]


def named(struct_name: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """Unpacked values by the names of C; arrays as tuples."""
    rest: Iterator[Any] = iter(values)
    found = {}
    for kind, field, count in fields(struct_name):
        if count == 1 or (kind, count) == ("uint8_t", 16):
            found[field] = next(rest)
        else:
            found[field] = tuple(next(rest) for _ in range(count))
    return found


def parsed(data: bytes) -> Read:
    header = named("eq_header_t", image.HEADER.unpack_from(data))
    sections = {}
    for i in range(header["section_count"]):
        place = image.HEADER.size + i * image.SECTION.size
        kind, offset, size = image.SECTION.unpack_from(data, place)
        sections[Kind(kind)] = (offset, size)
    return Read(data, header, sections)


@cache
def made(seed: int) -> Program:
    """A random program; the bits of its weights depend on the seed, too."""
    return compiled(random_graph(seed), 2 + seed % 7).program


@cache
def gated() -> Program:
    """A program of two blocks at two levels."""
    whole = compiled(resnet8(8, 8, 1), 4).program
    network = in_blocks(whole.network.graphs[0], cuts=(4,), levels=2)
    choices = kernels.choose(network, whole.target.isa, "flash")
    scratch = {name: choice.scratch_bytes for name, choice in choices.items()}
    placed = plan.plan(network, {name: size for name, size in scratch.items() if size})
    return replace(whole, network=network, choices=choices, plan=placed)


PROGRAMS = [
    *(pytest.param(lambda s=s: made(s), id=str(s)) for s in SEEDS),
    pytest.param(gated, id="gated"),
]
every_program = pytest.mark.parametrize("make", PROGRAMS)
Make = Callable[[], Program]


def device_nodes(p: Program) -> list[tuple[Graph, Node]]:
    return [(g, node) for g in p.network.graphs for node in g.nodes if node.op not in ALIASED]


def tensors(p: Program) -> list[str]:
    """Names in the order of the image."""
    names: dict[str, None] = {}
    for graph in p.network.graphs:
        names |= dict.fromkeys([*graph.inputs, *(node.output for node in graph.nodes)])
    return list(names)


@every_program
def test_the_header_says_what_the_image_is(make: Make) -> None:
    p = make()
    read = parsed(image.build(p).data)
    assert read.header == {
        "magic": int.from_bytes(b"EQIM", "little"),
        "format": 1,
        "abi": 1,
        "length": len(read.data),
        "crc32": zlib.crc32(read.data[16:]),
        "model_hash": bytes.fromhex(SHA256)[:16],
        "layouts": sum(
            1 << LAYOUTS[name].id
            for name in {p.choices[n.name].layout for _, n in device_nodes(p) if weighted(n)}
        ),
        "kernels": kernel_words(p),
        "arena_bytes": p.plan.arena_bytes,
        "section_count": len(read.sections),
        "reserved": 0,
    }


def weighted(node: Node) -> bool:
    return OPS[node.op].weighted


def kernel_words(p: Program) -> tuple[int, ...]:
    """The bit set of the kernels' ids, in words of 32."""
    ids = {choice.kernel.id for choice in p.choices.values()}
    return tuple(sum(1 << (i - 32 * w) for i in ids if i // 32 == w) for w in range(4))


@pytest.mark.parametrize("id", [1, 31, 32, 63, 64, 127])
def test_a_kernels_bit_is_at_its_id(id: int) -> None:
    p = made(0)
    name = next(iter(p.choices))
    row = replace(p.choices[name].kernel, id=id)
    choices = {**p.choices, name: replace(p.choices[name], kernel=row)}
    other = replace(p, choices=choices)
    assert parsed(image.build(other).data).header["kernels"] == kernel_words(other)


@every_program
def test_sections_stand_in_order_aligned_and_without_gaps(make: Make) -> None:
    read = parsed(image.build(make()).data)
    end = image.HEADER.size + image.SECTION.size * len(read.sections)
    for offset, size in read.sections.values():
        assert offset == -(-end // ALIGN) * ALIGN
        assert not any(read.data[end:offset])
        end = offset + size
    assert len(read.data) == -(-end // ALIGN) * ALIGN


@every_program
def test_every_section_but_weights_and_gates_is_there(make: Make) -> None:
    read = parsed(image.build(make()).data)
    assert set(Kind) - {Kind.WEIGHTS, Kind.GATE} <= set(read.sections)


@every_program
def test_tensors_lie_where_the_plan_put_them(make: Make) -> None:
    p = make()
    every = {name: t for g in p.network.graphs for name, t in g.tensors.items()}
    read = parsed(image.build(p).data)
    records = read.records(Kind.TENSORS, image.TENSOR, "eq_tensor_record_t")
    for name, record in zip(tensors(p), records, strict=True):
        q, shape = qparams_of(every[name]), every[name].shape
        assert record == {
            "offset": p.plan.tensors[name].offset,
            "shape": shape[1:] if len(shape) == 4 else (1, 1, math.prod(shape)),
            "scale": float(np.float32(q.scale[0])),
            "zero_point": q.zero_point,
            "bits": q.bits,
            "rank": len(shape),
        }


def operators(p: Program) -> tuple[Read, list[tuple[Graph, Node, dict[str, Any]]]]:
    read = parsed(image.build(p).data)
    records = read.records(Kind.OPERATORS, image.OPERATOR, "eq_operator_t")
    return read, [(*pair, r) for pair, r in zip(device_nodes(p), records, strict=True)]


@every_program
def test_operators_read_and_write_the_tensors_of_their_node(make: Make) -> None:
    p = make()
    index = {name: i for i, name in enumerate(tensors(p))}
    for graph, node, record in operators(p)[1]:
        inputs = [index[t.name] for t in graph.activations(node)]
        assert record["input"] == (*inputs, image.NONE)[:2]
        assert record["output"] == index[node.output]


@every_program
def test_operators_carry_kernel_window_clamp_and_scratch(make: Make) -> None:
    p = make()
    for _, node, record in operators(p)[1]:
        choice, w = p.choices[node.name], node.window
        assert record["kernel"] == choice.kernel.id
        assert record["scratch_bytes"] == choice.scratch_bytes
        if choice.scratch_bytes:
            assert record["scratch"] == p.plan.scratch[node.name].offset
        if node.clamp is not None:
            assert (record["clamp_min"], record["clamp_max"]) == node.clamp
        sides = [
            record[f"{part}_{axis}"]
            for part in ("kernel", "stride", "dilation")
            for axis in ("height", "width")
        ]
        pads = [record["pad_top"], record["pad_left"]]
        expected = [*w.kernel, *w.strides, *w.dilations, *w.pads[:2]] if w else [0] * 8
        if node.op is Op.PAD:
            expected = [*[0] * 6, *node.pads[:2]]
        assert sides + pads == expected


def test_operators_carry_groups_channels_before_and_axes() -> None:
    b = Builder()
    x = b.pad(b.grouped(b.input(4, 5, 6), 3, 9), 0, 1, 2, 0, 0, 1)
    y = b.concat(b.concat(x, x, 1), b.concat(x, x, 1))
    vector = b.flatten(b.global_average_pool(y))
    found = operators(compiled(b.build(b.concat(vector, vector, 1))).program)[1]
    parameters = [(node.op, record["parameter"]) for _, node, record in found]
    assert parameters == [
        (Op.GROUPED_CONV_2D, 3),
        (Op.PAD, 2),
        (Op.CONCAT, 0),
        (Op.CONCAT, 0),
        (Op.CONCAT, 2),
        (Op.AVERAGE_POOL, 0),
        (Op.CONCAT, 2),
    ]


@every_program
def test_weights_unpack_to_the_integers_of_the_graph(make: Make) -> None:
    p = make()
    read, found = operators(p)
    for graph, node, record in found:
        if OPS[node.op].weighted:
            kernel = graph.constant(node.inputs[1])
            stored = read.section(Kind.WEIGHTS)[record["weights"] :]
            got = unpacked(record, stored, kernel.reshape(len(kernel), -1).shape)
            assert record["weight_bits"] == p.choices[node.name].weight_bits
            assert (got.reshape(-1) == kernel.reshape(-1)).all()
        else:
            assert (record["weights"], record["bias"], record["weight_bits"]) == (0, 0, 0)


def unpacked(record: dict[str, int], stored: bytes, shape: tuple[int, ...]) -> Array:
    """Weights (channels, K) from their layout, word by word as eq_pairs.h and eq_fields.h say."""
    bits, (channels, count) = record["weight_bits"], shape
    if record["layout"] == LAYOUTS["dense"].id:
        return unpack_dense(stored, bits, channels * count).reshape(shape)
    assert record["layout"] == LAYOUTS["pairs" if bits == 8 else "fields"].id
    groups = -(-count // 4)
    row = 2 * groups if bits == 8 else -(-groups // 4) * bits
    words = np.frombuffer(stored, "<u4", row * -(-channels // 2)).reshape(-1, row)
    values = np.zeros(shape, np.int64)
    for channel, k in np.ndindex(shape):
        position = k // 4 * 2 + channel % 2
        if bits == 8:
            word = int(words[channel // 2, position])
        else:
            block = [int(w) for w in words[channel // 2, position // 8 * bits :][:bits]]
            word = field(block, bits, position % 8)
        half = word >> 16 * (k % 4 // 2) & 0xFFFF
        low = (half & 0xFF) - (0 if bits < 8 else 256 * (half >> 7 & 1))
        value = low if k % 2 == 0 else ((half - low & 0xFFFF) >> 8)
        offset = 1 << (bits - 1)
        values[channel, k] = value - offset if bits < 8 else (value + 128) % 256 - 128
    return values


def field(block: list[int], bits: int, j: int) -> int:
    """Word j of a block of 8, as eq_fields.c puts it together."""
    word = shift = 0
    for width, mask in ((4, 0x0F0F0F0F), (2, 0x03030303), (1, 0x01010101)):
        if bits & width:
            share = 8 // width
            word |= (block[j // share] >> j % share * width & mask) << shift
            block = block[width:]
            shift += width
    return word


def check_stages(read: Read, record: dict[str, int], graph: Graph, node: Node) -> None:
    """The tables of "pairs" and "fields" mean the bias, multiplier and shift of the graph."""
    kernel, bias, multiplier, shift = map(graph.constant, node.inputs[1:])
    w = kernel.reshape(len(kernel), -1).astype(np.int64)
    x = qparams_of(graph.tensors[node.inputs[0]])
    y = qparams_of(graph.tensors[node.output])
    assert (record["multiplier"], record["shift"]) == (0, 0)
    stages = read.table(record["bias"], 8 * -(-len(w) // 2), "<i4")
    for c in range(len(w)):
        pair = stages[8 * (c // 2) :][:8]
        start = pair[c % 2] + 127 * int(w[c, 0::2].sum())
        assert start % 256 == 0
        assert start // 256 + x.zero_point * int(w[c].sum()) == bias[c]
        scale, offset, shifts = pair[2 + 3 * (c % 2) :][:3]
        right = shifts & 0xFF
        left = 7 - (shifts >> 8 & 0xFF)
        assert (scale, left - right) == (multiplier[c], shift[c])
        assert offset == (1 << right >> 1) + (y.zero_point << right)


@every_program
def test_tables_hold_biases_multipliers_and_shifts(make: Make) -> None:
    p = make()
    read, found = operators(p)
    for graph, node, record in found:
        constants = [n for n in node.inputs if graph.tensors[n].data is not None]
        if OPS[node.op].weighted and record["layout"] != LAYOUTS["dense"].id:
            check_stages(read, record, graph, node)
            continue
        if OPS[node.op].weighted:
            bias = graph.constant(constants[1]).tolist()
            assert read.table(record["bias"], len(bias), "<i4") == bias
        if node.op is Op.PAD:
            value = graph.constant(constants[0]).tolist()
            assert read.table(record["bias"], 1, "<i4") == value
        elif node.op is Op.TABLE:
            table = graph.constant(constants[0]).tolist()
            assert read.table(record["shift"], 256, "<i1") == table
        elif p.choices[node.name].kernel.family == "affine":
            form = affine.find(graph, node)
            assert form is not None
            factors = [form.first, form.second, form.offset]
            assert read.table(record["multiplier"], 3, "<i4") == factors
            assert record["shift"] == 0
        elif constants:
            multiplier, shift = (graph.constant(name).tolist() for name in constants[-2:])
            assert read.table(record["multiplier"], len(multiplier), "<i4") == multiplier
            assert read.table(record["shift"], len(shift), "<i1") == shift


@every_program
def test_every_offset_is_aligned(make: Make) -> None:
    p = make()
    read, found = operators(p)
    for record in read.records(Kind.TENSORS, image.TENSOR, "eq_tensor_record_t"):
        assert record["offset"] % ALIGN == 0
    for _, _, record in found:
        for field in ("weights", "bias", "multiplier", "shift", "scratch"):
            assert record[field] % ALIGN == 0


@every_program
def test_blocks_and_variants_count_the_operators(make: Make) -> None:
    p = make()
    read = parsed(image.build(p).data)
    blocks = read.records(Kind.BLOCKS, image.BLOCK, "eq_block_t")
    variants = read.records(Kind.VARIANTS, image.VARIANT, "eq_variant_t")
    operators_before = variants_before = 0
    for block, record in zip(p.network.blocks, blocks, strict=True):
        assert record == {"first_variant": variants_before, "variant_count": len(block.variants)}
        for variant in block.variants:
            count = sum(node.op not in ALIASED for node in variant.graph.nodes)
            assert variants[variants_before] == {
                "first_operator": operators_before,
                "operator_count": count,
                "level": variant.level,
                "reserved": 0,
            }
            operators_before += count
            variants_before += 1
    assert variants_before == len(variants)


@every_program
def test_ports_are_the_networks_inputs_then_its_outputs(make: Make) -> None:
    p = make()
    ports = parsed(image.build(p).data).records(Kind.PORTS, image.PORT, "eq_port_t")
    names = tensors(p)
    expected = [(t.name, 0) for t in p.network.inputs] + [(t.name, 1) for t in p.network.outputs]
    assert [(names[port["tensor"]], port["direction"]) for port in ports] == expected


@every_program
def test_segments_joined_are_the_file(make: Make) -> None:
    built = image.build(make())
    assert b"".join(segment.data for segment in built.segments) == built.data
    assert all(len(segment.data) % ALIGN == 0 for segment in built.segments)


def test_a_segment_is_labelled_with_its_layer() -> None:
    labels = [segment.label for segment in image.build(program()).segments]
    assert "conv_2: weights 3x1x1x3, 3 bits, dense" in labels


@every_program
def test_the_same_program_gives_the_same_bytes(make: Make) -> None:
    assert image.build(make()).data == image.build(make()).data


@pytest.mark.parametrize("name", files())
def test_golden_files_are_what_this_tree_makes(name: str) -> None:
    text = (GOLDEN / name).read_text(encoding="utf-8")
    assert text.startswith(f"# {COMMAND}\n")
    assert text == files()[name]


# Damage


WHOLE = image.build(program()).data


def test_an_image_is_whole() -> None:
    assert image.is_whole(WHOLE)


def test_a_change_of_any_byte_shows() -> None:
    seen = []
    for i in range(len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[i] ^= 1 << i % 8
        seen.append(image.is_whole(bytes(damaged)))
    assert not any(seen)


@pytest.mark.parametrize(
    "size", [0, 1, 15, image.HEADER.size - 1, image.HEADER.size, len(WHOLE) - 1]
)
def test_a_part_of_an_image_is_not_whole(size: int) -> None:
    assert not image.is_whole(WHOLE[:size])


def test_an_image_with_bytes_behind_it_is_not_whole() -> None:
    assert not image.is_whole(WHOLE + b"\0")


@pytest.mark.parametrize("field", ["magic", "format", "abi", "length"])
def test_another_kind_of_file_with_a_good_checksum_is_not_whole(field: str) -> None:
    names = [name for _, name, _ in fields("eq_header_t")]
    values = list(image.HEADER.unpack_from(WHOLE))
    values[names.index(field)] += 1
    assert not image.is_whole(image.HEADER.pack(*values) + WHOLE[image.HEADER.size :])
