"""The kernel table, `firmware_stubs/kernels.toml`, and which row runs which operator.

The same rows generate the list that firmware is linked with, and give the tests their parameters.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from edgeq.errors import ModelError, UsageError
from edgeq.ir import Graph, Network, Node, Op, Tensor, qparams_of
from edgeq.ops import OPS, macs
from edgeq.overlap import Lag, lag, order_of
from edgeq.packing import ALIGN, stored_bytes

Optimize = Literal["flash", "time", "ram", "balanced"]
LAYOUTS = ("dense",)  # eq_layout_t: the index is the number in the image
MAX_PORTS = 4  # EQ_MAX_PORTS
UNPACKED_MOST = (1 << 29) // (128 * 255)  # weights of a channel whose sums hold any 8 bits
ALIASED = (Op.RESHAPE,)  # no kernel: the output is the input's memory
ROWS = "rows"  # the family of the kernel that brings the others to packed activations
PATCH_CHANNELS = 8  # EQ_PATCH_CHANNELS


@dataclass(frozen=True, slots=True)
class Cycles:
    """Modelled cycles of a kernel on a Cortex-M4, fitted by bench/costs.py: for each of these."""

    mac: float  # multiply-accumulate
    tap: float  # place of a window, for each value of the output
    value: float  # value of the output
    unpacked: float  # weight that is not stored in 8 bits
    call: float  # run of the operator


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
    cycles: Cycles | None  # None: of no operator
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
    weight_bytes: int  # as they are stored
    cycles: int  # estimated, on a Cortex-M4
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
            cycles=Cycles(**row["cycles"]) if "cycles" in row else None,
            code_bytes=row["code_bytes"],
        )
        for row in _file()["kernel"]
    ]
    return tuple(sorted(rows, key=lambda kernel: kernel.id))


def optimize_of(text: str) -> Optimize:
    """What a report says that a build was optimized for."""
    return next(name for name in get_args(Optimize) if name == text)


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
    """The kernel of every node that runs on the device, by node name, whatever the budgets.

    Raises:
        ModelError: no kernel runs a node on this core, or the network has too many ports.
    """
    found = options(network, isa, optimize, rows)
    return {name: choices[0] for name, choices in found.items()}


def options(
    network: Network,
    isa: Iterable[str],
    optimize: Optimize,
    rows: Sequence[Kernel] | None = None,
    forced: Mapping[str, str] | None = None,
) -> Mapping[str, tuple[Choice, ...]]:
    """Every way to run each node, by its name, the best for `optimize` first.

    `flash` wants the fewest bytes of weights, which are those of the policy's bits; `ram` the least
    scratch; `time` and `balanced` the fewest cycles. `forced` names kernels by node.

    Raises:
        UsageError: `forced` names a node or a kernel that there is not.
        ModelError: no kernel runs a node on this core, the forced one does not, or the network has
            too many ports.
    """
    for kind, ports in (("inputs", network.inputs), ("outputs", network.outputs)):
        if len(ports) > MAX_PORTS:
            raise ModelError("EQ0342", f"{len(ports)} {kind}; the runtime has room for {MAX_PORTS}")
    available = frozenset(isa)
    rows = rows or table()
    wanted = _forced(network, forced or {}, rows)
    found = {}
    for graph in network.graphs:
        for node in graph.nodes:
            if node.op not in ALIASED:
                only = wanted.get(node.name)
                choices = _choices(graph, node, available, rows if only is None else (only,))
                found[node.name] = tuple(sorted(choices, key=PREFERENCES[optimize]))
    return found


# What is the better of two ways to run a node; of equal ones the kernel with the greater id.
PREFERENCES: Mapping[Optimize, Callable[[Choice], tuple[int, ...]]] = {
    "flash": lambda c: (c.weight_bytes, c.weight_bits, c.cycles, c.scratch_bytes, -c.kernel.id),
    "time": lambda c: (c.cycles, c.weight_bytes, c.scratch_bytes, -c.kernel.id),
    "ram": lambda c: (c.scratch_bytes, c.cycles, c.weight_bytes, -c.kernel.id),
    "balanced": lambda c: (c.cycles, c.weight_bytes, c.scratch_bytes, -c.kernel.id),
}


def _forced(
    network: Network, forced: Mapping[str, str], rows: Sequence[Kernel]
) -> dict[str, Kernel]:
    names = [n.name for graph in network.graphs for n in graph.nodes if n.op not in ALIASED]
    symbols = {row.symbol: row for row in rows if row.op is not None}
    for name, symbol in forced.items():
        if name not in names:
            raise UsageError(
                "EQ0251", f"--kernel {name}={symbol}: no such layer; there are {', '.join(names)}"
            )
        if symbol not in symbols:
            raise UsageError(
                "EQ0251",
                f"--kernel {name}={symbol}: no such kernel; there are {', '.join(symbols)}",
            )
    return {name: symbols[symbol] for name, symbol in forced.items()}


def _choices(
    graph: Graph, node: Node, isa: frozenset[str], rows: Sequence[Kernel]
) -> Iterator[Choice]:
    """Every row that serves `node`, with every number of bits that its weights may be stored in."""
    refusals = []
    found = 0
    for row in rows:
        for bits in _stored_bits(graph, node):
            if refusal := _refusal(row, node, isa, bits):
                refusals.append(refusal)
            else:
                found += 1
                yield _choice(graph, node, row, bits)
    if not found:
        if len(rows) == 1:
            raise ModelError("EQ0350", f"{node.name}: {rows[0].symbol} cannot serve: {refusals[0]}")
        raise ModelError("EQ0341", f"{node.name}: no kernel for {node.op.value} on this core")


def _stored_bits(graph: Graph, node: Node) -> tuple[int, ...]:
    """The policy's bits, and 8, which need no unpacking; 0 where there are no weights.

    Channels so long that sums of 8-bit weights could overflow stay as they are.
    """
    if not OPS[node.op].weighted:
        return (0,)
    weights = graph.tensors[node.inputs[1]]
    bits = weights.qparams.bits if weights.qparams is not None else 8
    short = weights.elements // weights.shape[0] <= UNPACKED_MOST
    return (bits, 8) if short and bits != 8 else (bits,)


def _refusal(row: Kernel, node: Node, isa: frozenset[str], bits: int) -> str | None:
    """Why `row` cannot run `node` with weights of so many bits; None if it can."""
    if row.op is not node.op:
        own = "none" if row.op is None else row.op.value
        return f"it computes {own}, the layer is {node.op.value}"
    if missing := [name for name in row.isa if name not in isa]:
        return f"it needs a core with {', '.join(missing)}"
    if bits and bits not in row.weights:
        return f"it reads weights of {', '.join(map(str, row.weights))} bits, not {bits}"
    return None


def _choice(graph: Graph, node: Node, row: Kernel, bits: int) -> Choice:
    inputs, output = graph.activations(node), graph.tensors[node.output]
    weights = graph.tensors[node.inputs[1]] if bits else None
    count = weights.elements if weights is not None else 0
    values = count // weights.shape[0] if weights is not None else 0
    packed = any(map(is_packed, (*inputs, output)))
    return Choice(
        row,
        bits,
        row.layouts[0] if row.layouts else LAYOUTS[0],
        unpacked_bytes(row.family, node, inputs, output) + scratch_bytes(row.scratch, values, bits),
        lag(order_of(row.order, row.family, inputs[0], output), node, inputs[0], output),
        stored_bytes(count, bits),
        _cycles(row, graph, node, bits),
        next(row for row in table() if row.family == ROWS) if packed else None,
    )


def _cycles(row: Kernel, graph: Graph, node: Node, bits: int) -> int:
    """What `row` takes for `node` with weights of so many bits, by its coefficients."""
    assert row.cycles is not None  # of an operator
    cost: tuple[float, ...] = astuple(row.cycles)
    return round(sum(a * b for a, b in zip(cost, terms(graph, node, bits), strict=True)))


def terms(graph: Graph, node: Node, bits: int) -> tuple[int, ...]:
    """How often `node`, its weights stored in so many bits, takes each of `Cycles`."""
    values = graph.tensors[node.output].elements
    taps = 0 if node.window is None else values * math.prod(node.window.kernel)
    unpacked = graph.tensors[node.inputs[1]].elements if bits not in (0, 8) else 0
    return macs(graph, node), taps, values, unpacked, 1
