"""The kernel table, `firmware_stubs/kernels.toml`, and which row runs which operator.

The same rows generate the list that firmware is linked with, and give the tests their parameters.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from edgeq.errors import ModelError
from edgeq.ir import Graph, Network, Node, Op
from edgeq.ops import OPS

Optimize = Literal["flash", "time"]
LAYOUTS = ("dense",)  # eq_layout_t: the index is the number in the image
MAX_PORTS = 4  # EQ_MAX_PORTS
UNPACKED_MOST = (1 << 29) // (128 * 255)  # weights of a channel whose sums hold any 8 bits
ALIASED = (Op.RESHAPE,)  # no kernel: the output is the input's memory


@dataclass(frozen=True, slots=True)
class Kernel:
    """One row of kernels.toml."""

    id: int
    symbol: str
    family: str
    op: Op
    isa: tuple[str, ...]
    layouts: tuple[str, ...]
    weights: tuple[int, ...]
    scratch: str
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
            op=Op(row["op"]),
            isa=tuple(row["isa"]),
            layouts=tuple(row.get("layouts", ())),
            weights=tuple(row.get("weights", ())),
            scratch=row["scratch"],
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
    return Choice(row, stored, layout, scratch_bytes(row.scratch, values, stored))
