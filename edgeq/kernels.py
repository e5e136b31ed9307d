"""The kernel table, `firmware_stubs/kernels.toml`, and which row runs which operator.

The same rows generate the list that firmware is linked with, and give the tests their parameters.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from edgeq.errors import ModelError
from edgeq.ir import Graph, Network, Node, Op, Tensor, qparams_of
from edgeq.ops import OPS
from edgeq.overlap import Lag, lag, order_of
from edgeq.packing import ALIGN

Optimize = Literal["flash", "time"]
LAYOUTS = ("dense",)  # eq_layout_t: the index is the number in the image
MAX_PORTS = 4  # EQ_MAX_PORTS
UNPACKED_MOST = (1 << 29) // (128 * 255)  # weights of a channel whose sums hold any 8 bits
ALIASED = (Op.RESHAPE,)  # no kernel: the output is the input's memory
ROWS = "rows"  # the family of the kernel that brings the others to packed activations
PATCH_CHANNELS = 8  # EQ_PATCH_CHANNELS


@dataclass(frozen=True, slots=True)
class Kernel:
    """One row of kernels.toml."""

    id: int
    symbol: str
    family: str
    op: Op | None  # None: of no operator
    isa: tuple[str, ...]
    layouts: tuple[str, ...]
    weights: tuple[int, ...]
    scratch: str
    order: str  # of what it reads and writes: one of overlap.ORDERS
    code_bytes: int

    @property
    def file(self) -> str:
        """The source file that holds it."""
        return f"{self.symbol}.c"


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs one node: the kernel, how its weights are stored, what it needs beside tensors."""

    kernel: Kernel
    weight_bits: int  # 0 without weights
    layout: str
    scratch_bytes: int
    lag: Lag | None  # how its output may lie over its input; None: not at all
    rows: Kernel | None = None  # what brings it to its packed activations, where it has any

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every kernel that the node needs."""
        return (self.kernel,) if self.rows is None else (self.kernel, self.rows)


@dataclass(frozen=True, slots=True)
class CodeBytes:
    """What the runtime takes beside kernels and model, for estimates: code, context, stack."""

    runtime: int
    context: int
    stack: int


@cache
def _file() -> dict[str, Any]:
    text = resources.files("edgeq.firmware_stubs").joinpath("kernels.toml").read_text("utf-8")
    return tomllib.loads(text)


def code_bytes() -> CodeBytes:
    """The figures of `[runtime]` in kernels.toml."""
    return CodeBytes(**_file()["runtime"])


@cache
def table() -> tuple[Kernel, ...]:
    """All rows, by id."""
    rows = [
        Kernel(
            id=row["id"],
            symbol=row["symbol"],
            family=row["family"],
            op=Op(row["op"]) if "op" in row else None,
            isa=tuple(row["isa"]),
            layouts=tuple(row.get("layouts", ())),
            weights=tuple(row.get("weights", ())),
            scratch=row["scratch"],
            order=row.get("order", "none"),
            code_bytes=row["code_bytes"],
        )
        for row in _file()["kernel"]
    ]
    return tuple(sorted(rows, key=lambda kernel: kernel.id))


def scratch_bytes(rule: str, values: int, weight_bits: int) -> int:
    """Arena bytes that a kernel needs beside its tensors; the C twin stands in eq_check.c.

    `values` counts the weights of one output channel.
    """
    if rule == "row":
        return 0 if weight_bits == 8 else values
    if rule == "pairs":
        return 16 * ((values + 1) // 2)
    return 0


def unpacked_bytes(family: str, node: Node, inputs: Sequence[Tensor], y: Tensor) -> int:
    """Arena bytes for unpacked activations of one output step; the C twin is `eq_rows_scratch`."""
    x = inputs[0]
    read = written = 0
    if family in ("conv", "depthwise", "grouped") and node.window is not None:
        read = min(node.window.kernel[0], x.shape[1]) * _row(x)
        written = _row(y)
    elif family in ("pad", "concat"):
        read, written = _row(x), _row(y)
    elif family == "pool" and node.window is not None:
        read = math.prod(map(min, node.window.kernel, x.shape[1:3])) * PATCH_CHANNELS
        written = PATCH_CHANNELS
    elif family in ("fc", "softmax"):
        read, written = x.shape[-1], y.shape[-1]
    others = inputs[1:] if family == "concat" else ()
    return sum(
        -(-values // ALIGN) * ALIGN
        for tensor, values in ((x, read), (y, written), *((t, _row(t)) for t in others))
        if is_packed(tensor)
    )


def _row(tensor: Tensor) -> int:
    """Values of a row of an image, or of a whole vector."""
    return math.prod(tensor.shape[2:]) if len(tensor.shape) == 4 else tensor.elements


def is_packed(tensor: Tensor) -> bool:
    """Whether the activations share bytes."""
    return qparams_of(tensor).width < 8


def choose(
    network: Network, isa: Iterable[str], optimize: Optimize, rows: Sequence[Kernel] | None = None
) -> Mapping[str, Choice]:
    """The kernel of every node that runs on the device, by node name.

    `flash` stores weights in the bits that the policy asked for, `time` in 8 bits, which saves
    their unpacking.

    Raises:
        ModelError: no kernel runs a node on this core, or the network has too many ports.
    """
    for kind, ports in (("inputs", network.inputs), ("outputs", network.outputs)):
        if len(ports) > MAX_PORTS:
            raise ModelError("EQ0342", f"{len(ports)} {kind}; the runtime has room for {MAX_PORTS}")
    available = set(isa)
    choices = {}
    for graph in network.graphs:
        for node in graph.nodes:
            if node.op not in ALIASED:
                choices[node.name] = _best(graph, node, available, optimize, rows or table())
    return choices


def _best(
    graph: Graph, node: Node, isa: set[str], optimize: Optimize, rows: Sequence[Kernel]
) -> Choice:
    bits = stored = values = 0
    if OPS[node.op].weighted:
        weights = graph.tensors[node.inputs[1]]
        values = weights.elements // weights.shape[0]
        bits = weights.qparams.bits if weights.qparams is not None else 8
        stored = 8 if optimize == "time" and values <= UNPACKED_MOST else bits
    fitting = [
        row
        for row in rows
        if row.op is node.op and isa.issuperset(row.isa) and (not bits or stored in row.weights)
    ]
    if not fitting:
        raise ModelError("EQ0341", f"{node.name}: no kernel for {node.op.value} on this core")
    row = fitting[-1]
    layout = row.layouts[0] if row.layouts else LAYOUTS[0]
    inputs, output = graph.activations(node), graph.tensors[node.output]
    packed = any(map(is_packed, (*inputs, output)))
    return Choice(
        row,
        stored,
        layout,
        unpacked_bytes(row.family, node, inputs, output)
        + scratch_bytes(row.scratch, values, stored),
        lag(order_of(row.order, row.family, inputs[0], output), node, inputs[0], output),
        next(row for row in table() if row.family == ROWS) if packed else None,
    )
