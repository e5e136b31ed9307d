"""The model image, format 1: the flat binary that a device runs.

The reader is `firmware_stubs/runtime/eq_image.h`; records are packed here field by field in the
same order, and a test compares the two.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from edgeq import affine, gates, packing
from edgeq.exporters import gate_section
from edgeq.ir import Array, Graph, Node, Op, Tensor, qparams_of
from edgeq.kernels import ALIASED, Choice, tables
from edgeq.ops import OPS, groups
from edgeq.packing import LAYOUTS, NESTED, pad, plane_ends
from edgeq.program import Program

MAGIC = int.from_bytes(b"EQIM", "little")
FORMAT = 1
ABI = 1
NONE = 0xFFFF
HEADER = struct.Struct("<IHHII16sI4IIII")
CRC_FROM = 16  # the checksum covers what follows it
SECTION = struct.Struct("<III")
TENSOR = struct.Struct("<I3IfhBB")
OPERATOR = struct.Struct("<4H6I2h2B9H")
VARIANT = struct.Struct("<4H")
BLOCK = struct.Struct("<2H")
PORT = struct.Struct("<2H")


class Kind(IntEnum):
    """Section kinds, `eq_section_kind_t`."""

    TENSORS = 1
    OPERATORS = 2
    VARIANTS = 3
    BLOCKS = 4
    PORTS = 5
    TABLES = 6
    WEIGHTS = 7
    GATE = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the image with the words that label it in the C source."""

    label: str
    kind: Kind | None  # None: header and section table
    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """The image in labelled segments; joined, they are the file."""

    segments: tuple[Segment, ...]

    @property
    def data(self) -> bytes:
        """The bytes of `NAME.eqb`."""
        return b"".join(segment.data for segment in self.segments)

    def bytes_of(self, kind: Kind) -> int:
        """The size of one section."""
        return sum(len(s.data) for s in self.segments if s.kind is kind)


class _Pool:
    """A section that grows by labelled, padded pieces."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.segments: list[Segment] = []
        self.size = 0  # padded: where the next piece begins
        self.used = 0  # what the section table states

    def share(self, label: str, data: bytes) -> int:
        """The offset at which `data` stands: new, or as the beginning of a piece that is there."""
        offset = 0
        for segment in self.segments:
            if data and segment.data.startswith(data):
                return offset
            offset += len(segment.data)
        return self.add(label, data)

    def add(self, label: str, data: bytes) -> int:
        """The offset at which `data` stands."""
        offset = self.size
        self.segments.append(Segment(label, self.kind, pad(data)))
        self.size += len(pad(data))
        self.used = offset + len(data)
        return offset


def build(program: Program) -> Image:
    """The image of `program`."""
    pools = {kind: _Pool(kind) for kind in Kind}
    names = _tensor_names(program)
    index = {name: i for i, name in enumerate(names)}
    tensors = {name: t for g in program.network.graphs for name, t in g.tensors.items()}
    records = [_tensor(tensors[name], program.plan.tensors[name].offset) for name in names]
    pools[Kind.TENSORS].add(f"tensors: {', '.join(names)}", b"".join(records))
    operators: list[bytes] = []
    variants: list[bytes] = []
    blocks: list[bytes] = []
    for block in program.network.blocks:
        blocks.append(BLOCK.pack(len(variants), len(block.variants)))
        places: dict[int, tuple[int, int]] = {}  # of graphs that levels share
        for variant in block.variants:
            if id(variant.graph) not in places:
                nodes = [node for node in variant.graph.nodes if node.op not in ALIASED]
                places[id(variant.graph)] = len(operators), len(nodes)
                operators += [_operator(program, variant.graph, n, index, pools) for n in nodes]
            variants.append(VARIANT.pack(*places[id(variant.graph)], variant.level, 0))
    pools[Kind.OPERATORS].add("operators", b"".join(operators))
    pools[Kind.VARIANTS].add("variants", b"".join(variants))
    pools[Kind.BLOCKS].add("blocks", b"".join(blocks))
    ports = [PORT.pack(index[t.name], 0) for t in program.network.inputs]
    ports += [PORT.pack(index[t.name], 1) for t in program.network.outputs]
    pools[Kind.PORTS].add("inputs and outputs", b"".join(ports))
    if program.gate is not None:
        state = program.plan.scratch.get(gates.STATE)
        scale = qparams_of(program.network.outputs[0]).scale[0]
        for label, data in gate_section.pieces(program.gate, scale, state):
            pools[Kind.GATE].add(label, data)
    # Weights and gates may be missing: a network of pools has tables of no bytes.
    present = [p for p in pools.values() if p.size or p.kind not in (Kind.WEIGHTS, Kind.GATE)]
    body = [segment for pool in present for segment in pool.segments]
    head = _head(program, present, body)
    return Image((Segment("header and section table", None, head), *body))


def _tensor_names(program: Program) -> list[str]:
    """Every activation, in the order of the image, each once."""
    names: dict[str, None] = {}
    for graph in program.network.graphs:
        names |= dict.fromkeys(graph.inputs)
        names |= dict.fromkeys(node.output for node in graph.nodes)
    return list(names)


def _tensor(tensor: Tensor, offset: int) -> bytes:
    q = qparams_of(tensor)
    shape = tensor.shape[1:] if len(tensor.shape) == 4 else (1, 1, tensor.elements)
    return TENSOR.pack(offset, *shape, q.scale[0], q.zero_point, q.bits, len(tensor.shape))


def _operator(
    program: Program, graph: Graph, node: Node, index: dict[str, int], pools: dict[Kind, _Pool]
) -> bytes:
    choice = program.choices[node.name]
    computed = [index[t.name] for t in graph.activations(node)]
    constants = [n for n in node.inputs if graph.tensors[n].data is not None]
    weights = bias = multiplier = shift = 0
    if OPS[node.op].weighted:
        kernel = graph.tensors[constants[0]]
        rows = graph.constant(constants[0]).reshape(kernel.shape[0], -1)
        weights = pools[Kind.WEIGHTS].share(
            f"{node.name}: weights {'x'.join(map(str, kernel.shape))}, "
            f"{choice.weight_bits} bits, {choice.layout}",
            packing.pack(rows, choice.layout, choice.weight_bits, kernel.planes),
        )
        stages = tables(graph, node, choice.layout)
        if stages is not None:
            bias = _table(pools, f"{node.name}: sums and scales, {choice.layout}", stages, "<i4")
            constants = []
        else:
            bias = _table(pools, f"{node.name}: bias", graph.constant(constants[1]), "<i4")
    if node.op is Op.PAD:
        bias = _table(pools, f"{node.name}: value", graph.constant(constants[0]), "<i4")
    elif node.op is Op.TABLE:
        shift = _table(pools, f"{node.name}: table", graph.constant(constants[0]), "<i1")
    elif choice.kernel.family == "affine":
        multiplier = _table(pools, f"{node.name}: affine form", _affine(graph, node), "<i4")
    elif constants:
        label = f"{node.name}: multiplier"
        multiplier = _table(pools, label, graph.constant(constants[-2]), "<i4")
        shift = _table(pools, f"{node.name}: shift", graph.constant(constants[-1]), "<i1")
    output = qparams_of(graph.tensors[node.output])
    low, high = node.clamp or (output.qmin, output.qmax)
    scratch = program.plan.scratch[node.name].offset if choice.scratch_bytes else 0
    return OPERATOR.pack(
        choice.kernel.id,
        *[*computed, NONE][:2],
        index[node.output],
        weights,
        bias,
        multiplier,
        shift,
        scratch,
        choice.scratch_bytes,
        int(low),
        int(high),
        choice.weight_bits,
        LAYOUTS[choice.layout].id if choice.weight_bits else 0,
        *_window(node),
        _parameter(graph, node, choice),
    )


def _affine(graph: Graph, node: Node) -> Array:
    form = affine.find(graph, node)
    assert form is not None  # the kernel was chosen because there is one
    return np.array([form.first, form.second, form.offset])


def _table(pools: dict[Kind, _Pool], label: str, values: Array, dtype: str) -> int:
    return pools[Kind.TABLES].add(label, values.astype(np.dtype(dtype)).tobytes())


def _parameter(graph: Graph, node: Node, choice: Choice) -> int:
    """The number that only some families have, and weights in planes."""
    if choice.layout in NESTED:
        return plane_ends(graph.tensors[node.inputs[1]].planes)
    if node.op is Op.GROUPED_CONV_2D:
        return groups(graph, node)
    if node.op is Op.PAD:
        return node.pads[2]
    if node.op is Op.CONCAT:
        return node.axis - 1 if len(graph.tensors[node.output].shape) == 4 else 2
    return 0


def _window(node: Node) -> tuple[int, ...]:
    if node.op is Op.PAD:
        return (*(0,) * 6, *node.pads[:2])
    if node.window is None:
        return (0,) * 8
    w = node.window
    return (*w.kernel, *w.strides, *w.dilations, w.pads[0], w.pads[1])


def _head(program: Program, present: Sequence[_Pool], body: Sequence[Segment]) -> bytes:
    """Header and section table, with the checksum of everything behind it."""
    kernels = sum(1 << kernel.id for kernel in program.kernels)
    layouts = 0
    for choice in program.choices.values():
        if choice.weight_bits:
            layouts |= 1 << LAYOUTS[choice.layout].id
    offset = len(pad(bytes(HEADER.size + SECTION.size * len(present))))
    sections = b""
    for pool in present:
        sections += SECTION.pack(pool.kind, offset, pool.used)
        offset += pool.size
    fields = (
        bytes.fromhex(program.model_sha256)[:16],
        layouts,
        *(kernels >> 32 * word & 0xFFFFFFFF for word in range(4)),
        program.plan.arena_bytes,
        len(present),
        0,
    )

    def packed(crc: int) -> bytes:
        return pad(HEADER.pack(MAGIC, FORMAT, ABI, offset, crc, *fields) + sections)

    covered = packed(0)[CRC_FROM:] + b"".join(segment.data for segment in body)
    return packed(zlib.crc32(covered))


def gate_version(data: bytes) -> int | None:
    """The version of the section of gates in a whole image (`is_whole`); None where it has none."""
    *_, sections, _ = HEADER.unpack_from(data)
    for kind, offset, size in SECTION.iter_unpack(
        data[HEADER.size : HEADER.size + SECTION.size * sections]
    ):
        if kind == Kind.GATE:
            return gate_section.version(data[offset : offset + size])
    return None


def is_whole(data: bytes) -> bool:
    """Whether `data` is an undamaged image of this format, as far as header and checksum say."""
    if len(data) < HEADER.size:
        return False
    magic, layout, abi, length, crc = HEADER.unpack_from(data)[:5]
    whole = (magic, layout, abi, length) == (MAGIC, FORMAT, ABI, len(data))
    return whole and crc == zlib.crc32(data[CRC_FROM:])
