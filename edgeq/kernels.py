"""The kernel table, `firmware_stubs/kernels.toml`, and which row runs which operator.

The same rows generate the list that firmware is linked with, and give the tests their parameters.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache, partial
from importlib import resources
from typing import Any, Literal, get_args

from edgeq import affine
from edgeq.errors import ModelError, UsageError
from edgeq.ir import Array, Graph, Network, Node, Op, Tensor, qparams_of
from edgeq.ops import OPS, macs
from edgeq.overlap import Lag, lag, order_of
from edgeq.packing import ALIGN, FIELDS_BLOCK, LAYOUTS, PAIRS_GROUP, Scaling, padded_bytes
from edgeq.taps import FORMS, Taps

Optimize = Literal["flash", "time", "ram", "balanced"]
MAX_PORTS = 4  # EQ_MAX_PORTS
UNPACKED_MOST = (1 << 29) // (128 * 255)  # weights of a channel whose sums hold any 8 bits
ALIASED = (Op.RESHAPE,)  # no kernel: the output is the input's memory
ROWS = "rows"  # the family of the kernel that brings the others to packed activations
GATE = "gate"  # and of the one that says where inputs go
GATE_FORMS = {"static": GATE, "table": "gate_table", "mlp": "gate_mlp"}  # what predicts for it
PLANES = "planes"  # the family, and layout, of what brings others to weights of nested levels
FIELD_PLANES = "field_planes"  # the layout of kernels of their own for these
DIGITS = 4  # bits, as far as it counts that they are unpacked
BY_ROWS = ("row", "strip")  # scratch of kernels that read rows of weights
UNCHECKED = {
    *GATE_FORMS.values(),
    PLANES,
}  # families that no operator has, so that none is checked by them
PATCH_CHANNELS = 8  # EQ_PATCH_CHANNELS
TABLES_BYTES = 2048  # EQ_TABLES_BYTES
LONG = 512  # values of an addition that pay for tables
PAIRS_PIXELS = 4  # of a strip of eq_pairs.c
LANES_WORDS = 16  # steps that a word of the input may hold, of which strips are whole numbers
FIELDS_STRIPS = 4  # for which weights of fewer than 8 bits are unpacked once


@dataclass(frozen=True, slots=True)
class Cycles:
    """Modelled cycles of a kernel on a Cortex-M4, fitted by bench/costs.py: for each of these."""

    mac: float  # multiply-accumulate
    tap: float  # place of a window, for each value of the output
    value: float  # value of the output
    unpacked: float  # weight that is not stored in 8 bits, each time
    call: float  # run of the operator
    gathered: float = 0.0  # value put into a window, of all channels
    channel: float = 0.0  # of the output


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
    limits: tuple[str, ...]
    scratch: str
    order: str  # of what it reads and writes: one of overlap.ORDERS
    cycles: Cycles | None  # None: of no operator
    code_bytes: int
    activations: int = 8  # 16: for operators of which an operand has as many; 4: takes packed ones
    sources: tuple[str, ...] = ()  # other files of kernels/

    @property
    def file(self) -> str:
        """The source file that holds it."""
        return f"{self.symbol}.c"

    @property
    def packed(self) -> bool:
        """Whether it takes packed activations as they are."""
        return self.activations == 4 or any(LAYOUTS[name].packed for name in self.layouts)

    @property
    def rules(self) -> str:
        """The C name of what eq_init knows of its layout."""
        return next((f"&eq_{name}_rules" for name in self.layouts), "NULL")


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs one node: the kernel, how its weights are stored, what it needs beside tensors."""

    kernel: Kernel
    weight_bits: int  # 0 without weights
    layout: str
    scratch_bytes: int
    lag: Lag | None  # how its output may lie over its input; None: not at all
    weight_bytes: int  # as they are stored
    table_bytes: int  # what stands beside them, of each channel
    terms: tuple[int, ...]  # how often it takes each of `Cycles`
    rows: Kernel | None = None  # what brings it to its packed activations, where it has any
    packed: int = 0  # values of those
    planes: Kernel | None = None  # what brings it to the planes of a nested store
    digits: int = 0  # of all weights
    store: str | None = None  # whose weights it reads: those of a layer, at any level

    @property
    def cycles(self) -> int:
        """Estimated, on a Cortex-M4, by the kernel's coefficients."""
        assert self.kernel.cycles is not None  # of an operator
        cost: tuple[float, ...] = astuple(self.kernel.cycles)
        brought = 0.0
        if self.rows is not None and self.rows.cycles is not None:
            brought = self.rows.cycles.value * self.packed
        if self.planes is not None and self.planes.cycles is not None:
            brought += self.planes.cycles.unpacked * self.digits
        return round(sum(a * b for a, b in zip(cost, self.terms, strict=True)) + brought)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every kernel that the node needs."""
        return tuple(k for k in (self.kernel, self.rows, self.planes) if k is not None)


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


def linked_bytes(rows: Iterable[Kernel]) -> int:
    """Flash of the kernels `rows`, each file and each family's check once, by kernels.toml."""
    linked = list(rows)
    shared = {file for row in linked for file in row.sources} | {row.family for row in linked}
    sizes: dict[str, int] = _file()["sources"] | _file()["families"]
    return sum(row.code_bytes for row in linked) + sum(
        size for name, size in sizes.items() if name in shared
    )


def flash_bytes(choices: Iterable[Choice], linked: Iterable[Kernel] = ()) -> int:
    """Kernels, `linked` ones too, weights and their tables, by the estimates of kernels.toml.

    Weights of nested levels count once.
    """
    taken = list(choices)
    needed = {kernel for choice in taken for kernel in choice.kernels}.union(linked)
    stores: dict[str, int] = {}
    for choice in taken:
        if choice.store is not None:
            stores[choice.store] = max(stores.get(choice.store, 0), choice.weight_bytes)
    own = sum(choice.weight_bytes for choice in taken if choice.store is None)
    tables = sum(choice.table_bytes for choice in taken)
    return linked_bytes(needed) + own + sum(stores.values()) + tables


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
            limits=tuple(row.get("limits", ())),
            scratch=row["scratch"],
            order=row.get("order", "none"),
            cycles=Cycles(**row["cycles"]) if "cycles" in row else None,
            code_bytes=row["code_bytes"],
            activations=row.get("activations", 8),
            sources=tuple(row.get("sources", ())),
        )
        for row in _file()["kernel"]
    ]
    return tuple(sorted(rows, key=lambda kernel: kernel.id))


def of_family(family: str) -> Kernel:
    """The kernel of a family that is of no operator."""
    return next(row for row in table() if row.family == family)


def optimize_of(text: str) -> Optimize:
    """What a report says that a build was optimized for."""
    return next(name for name in get_args(Optimize) if name == text)


def scratch_bytes(rule: str, values: int, weight_bits: int, rows: int = 0) -> int:
    """Arena bytes that a kernel needs beside its tensors; the C twin stands in eq_check.c.

    `values` counts the weights of one output channel, `rows` the values of a row of the input and
    of two of the output. For the
    rule "layout" see `LAYOUT_SCRATCH` and `fields_scratch`.
    """
    unpacked = 0 if weight_bits == 8 else values
    if rule == "row":
        return unpacked
    if rule == "strip":
        return unpacked + rows
    if rule == "pairs":
        return 16 * ((values + 1) // 2)
    if rule == "tables":
        return TABLES_BYTES
    return 0


def pairs_scratch(node: Node, x: Tensor, y: Tensor, values: int) -> int:
    """What eq_pairs.c takes: a strip of pixels, and a patch where windows are no runs of groups."""
    pixels = min(math.prod(y.shape[1:-1]), PAIRS_PIXELS)
    groups = -(-values // PAIRS_GROUP)
    return 8 * groups * pixels + _patch(node, x, y, pixels, groups)


def fields_scratch(node: Node, x: Tensor, y: Tensor, values: int, strips: int = 1) -> int:
    """What eq_fields.c takes: the same, two channels of unpacked weights, and further strips."""
    groups = -(-values // PAIRS_GROUP)
    row = 2 * -(-values // FIELDS_BLOCK) * FIELDS_BLOCK
    return row + pairs_scratch(node, x, y, values) + (strips - 1) * 8 * groups * PAIRS_PIXELS


def _patch(node: Node, x: Tensor, y: Tensor, pixels: int, groups: int) -> int:
    window = node.window
    if window is None:
        return 0  # fully connected
    run = window.kernel[1] * x.shape[-1]
    whole = run % PAIRS_GROUP == 0
    inside = all(
        (outputs - 1) * stride + (taps - 1) * dilation < size
        for outputs, size, taps, stride, dilation in zip(
            y.shape[1:3], x.shape[1:3], window.kernel, window.strides, window.dilations, strict=True
        )
    )
    clear = inside and window.pads[:2] == (0, 0) and window.dilations[1] == 1
    if clear and (whole or (window.kernel == (1, 1) and pixels == 1)):
        return 0
    return -(-pixels * (run if whole else PAIRS_GROUP * groups) // ALIGN) * ALIGN


def lanes_scratch(node: Node, x: Tensor, y: Tensor, values: int) -> int:
    """What eq_lanes.c takes for four pixels at a time, or for one that is alone."""
    return _lanes_scratch(x, y, values, 1 if math.prod(y.shape[1:-1]) == 1 else 4)


def sixes_scratch(node: Node, x: Tensor, y: Tensor, values: int) -> int:
    """The same for six pixels."""
    return _lanes_scratch(x, y, values, 6)


def _lanes_scratch(x: Tensor, y: Tensor, values: int, pixels: int) -> int:
    """Operands of a strip; where they are no whole words or bytes, pixels of input and output."""
    width, out_width = qparams_of(x).width, qparams_of(y).width
    steps = -(-values // LANES_WORDS) * LANES_WORDS
    own = pixels != 1 and out_width in (8, 2 if pixels == 6 else 4)
    whole = y.shape[-1] % (4 if out_width == 2 else 2) == 0
    needs = [
        4 * (steps * (1 if pixels == 1 else 2) + pixels),
        pixels * steps * width // 8 if values * width % 32 else 0,
        0
        if own and whole and math.prod(y.shape[1:-1]) % pixels == 0
        else pixels * -(-y.shape[-1] // 2) * 2,
    ]
    return sum(-(-size // ALIGN) * ALIGN for size in needs)


def taps_scratch(node: Node, x: Tensor, y: Tensor, values: int, form: Taps) -> int:
    """What eq_taps.c takes: operands of three rows of the input, sums, a row of the output."""
    return form.scratch_bytes(x.shape[3], y.shape[2], y.shape[3])


LAYOUT_SCRATCH: Mapping[str, Callable[[Node, Tensor, Tensor, int], int]] = {
    "pairs": pairs_scratch,
    "lanes": lanes_scratch,
    "sixes": sixes_scratch,
    **{name: partial(taps_scratch, form=form) for name, form in FORMS.items()},
}


def scaling(graph: Graph, node: Node) -> Scaling:
    """How the sums of a weighted node of an integer graph become values."""
    x, y = qparams_of(graph.tensors[node.inputs[0]]), qparams_of(graph.tensors[node.output])
    bias, multiplier, shift = map(graph.constant, node.inputs[-3:])
    weights = graph.tensors[node.inputs[1]].qparams
    bits = 8 if weights is None else weights.bits
    pixels = math.prod(graph.tensors[node.output].shape[1:-1])
    return Scaling(bias, multiplier, shift, x.zero_point, x.width, y.zero_point, bits, pixels)


def tables(graph: Graph, node: Node, layout: str) -> Array | None:
    """What stands in the image in place of bias, multiplier and shift; None: beyond its limits."""
    make = LAYOUTS[layout].tables
    weights = graph.constant(node.inputs[1])
    return None if make is None else make(weights.reshape(len(weights), -1), scaling(graph, node))


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


def _long_bytes(graph: Graph, node: Node) -> bool:
    """As many values as tables are worth, and none packed, for which they would be made anew."""
    output = graph.tensors[node.output]
    tensors = (*graph.activations(node), output)
    return output.elements >= LONG and not any(map(is_packed, tensors))


def _narrows(graph: Graph, node: Node) -> bool:
    """From bytes to packed activations."""
    return not is_packed(graph.tensors[node.inputs[0]]) and is_packed(graph.tensors[node.output])


def _affine(graph: Graph, node: Node) -> bool:
    """An addition that an affine form equals."""
    return affine.find(graph, node) is not None


def _three_by_three(graph: Graph, node: Node) -> bool:
    """Windows of 3×3 at stride 1 or 2 that leave the input by at most a row and a column.

    Each channel has one output. The C twin is `serves` of the kernel.
    """
    x, y, w = graph.tensors[node.inputs[0]], graph.tensors[node.output], node.window
    if w is None or w.kernel != (3, 3) or w.dilations != (1, 1) or x.shape[3] != y.shape[3]:
        return False
    beyond = [
        (y.shape[axis + 1] - 1) * w.strides[axis] - w.pads[axis] + 3 - x.shape[axis + 1]
        for axis in range(2)
    ]
    return w.strides in ((1, 1), (2, 2)) and max(*w.pads[:2], *beyond) <= 1


def _points(graph: Graph, node: Node) -> bool:
    """Windows of one place, which all lie inside the input."""
    x, y, w = graph.tensors[node.inputs[0]], graph.tensors[node.output], node.window
    return (
        w is not None
        and w.kernel == (1, 1)
        and w.pads[:2] == (0, 0)
        and all(
            (y.shape[axis] - 1) * stride < x.shape[axis]
            for axis, stride in enumerate(w.strides, start=1)
        )
    )


def _taps(graph: Graph, node: Node, form: Taps) -> bool:
    """Windows of 3×3 on packed activations, at the stride of the layout.

    Rows of the output end with a byte.
    """
    x, y, w = graph.tensors[node.inputs[0]], graph.tensors[node.output], node.window
    return (
        w is not None
        and (w.kernel, w.strides, w.dilations) == ((3, 3), (form.stride,) * 2, (1, 1))
        and is_packed(x)
        and qparams_of(x).width <= form.most_bits
        and _row(y) * qparams_of(y).width % 8 == 0
    )


@dataclass(frozen=True, slots=True)
class Limit:
    """What an operator must be for a kernel, and how that is said."""

    holds: Callable[[Graph, Node], bool]
    text: str


LIMITS: Mapping[str, Limit] = {
    "points": Limit(_points, "windows of one place that all lie inside the input"),
    "narrows": Limit(_narrows, "tables from bytes to packed activations"),
    "long_bytes": Limit(_long_bytes, f"additions of {LONG} values or more, none of them packed"),
    "affine": Limit(_affine, "additions that an affine form equals for every pair of values"),
    "three_by_three": Limit(
        _three_by_three,
        "windows of 3×3 at stride 1 or 2 that reach one row or column beyond the input at most",
    ),
    **{
        name: Limit(
            partial(_taps, form=form),
            f"windows of 3×3 at stride {form.stride} on inputs of {form.most_bits} bits or fewer, "
            "with rows of the output that end with a byte",
        )
        for name, form in FORMS.items()
    },
}


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

    `flash` wants weights of nested levels in their store, others in the policy's bits, and then the
    fewest cycles; `time`,
    `ram` and `balanced` the fewest cycles. `forced` names kernels by node.

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
    "flash": lambda c: (
        c.store is None,
        c.weight_bits,
        c.cycles,
        c.weight_bytes,
        c.scratch_bytes,
        -c.kernel.id,
    ),
    "time": lambda c: (c.cycles, c.weight_bytes, c.scratch_bytes, -c.kernel.id),
    "ram": lambda c: (c.cycles, c.scratch_bytes, c.weight_bytes, -c.kernel.id),
    "balanced": lambda c: (c.cycles, c.weight_bytes, c.scratch_bytes, -c.kernel.id),
}


def shared(options: Mapping[str, tuple[Choice, ...]]) -> dict[str, tuple[Choice, ...]]:
    """`options` with the levels of each layer first in one nested store: the one of fewest cycles.

    Layers whose first choice is in none, or that have none in common, stay as they are.
    """
    found = dict(options)
    layers: dict[str, list[str]] = {}
    for name, choices in options.items():
        if choices[0].store is not None:
            layers.setdefault(name.partition("@")[0], []).append(name)
    for names in layers.values():
        each = [{c.store for c in options[name]} for name in names]
        stores = sorted(store for store in set.intersection(*each) if store is not None)
        ways = [
            {name: sorted(options[name], key=partial(_apart, store)) for name in names}
            for store in stores
        ]
        best = min(ways, key=lambda way: sum(c[0].cycles for c in way.values()), default={})
        found |= {name: tuple(choices) for name, choices in best.items()}
    return found


def _apart(store: str, choice: Choice) -> bool:
    return choice.store != store


def with_bits(graph: Graph, node: Node, isa: Iterable[str], bits: int) -> tuple[Choice, ...]:
    """Every way to run a weighted node if its weights had so many bits.

    Limits of kernels are judged by the weights without their lowest bits.
    """
    name = node.inputs[OPS[node.op].activations]
    tensor = graph.tensors[name]
    own = qparams_of(tensor)
    less = graph.constant(name) >> (own.bits - bits)
    changed = replace(tensor, qparams=replace(own, bits=bits), data=less, planes=())
    changed_graph = replace(graph, tensors={**graph.tensors, name: changed})
    return tuple(_choices(changed_graph, node, frozenset(isa), table()))


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
            refusal = _refusal(row, graph, node, isa, bits)
            beside = None if refusal else _table_bytes(graph, node, row)
            if beside is not None:
                found += 1
                yield from _ways(graph, node, row, bits, beside)
            else:
                refusals.append(refusal or _beyond(row))
    if not found:
        if len(rows) == 1:
            raise ModelError("EQ0350", f"{node.name}: {rows[0].symbol} cannot serve: {refusals[0]}")
        raise ModelError(
            "EQ0341",
            f"{node.name}: no kernel for {node.op.value} of {_activations(graph, node)}-bit "
            "activations on this core",
        )


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


def _activations(graph: Graph, node: Node) -> int:
    """16 where an operand has as many bits, else 8."""
    operands = (*graph.activations(node), graph.tensors[node.output])
    return 16 if any(qparams_of(tensor).wide for tensor in operands) else 8


def _refusal(row: Kernel, graph: Graph, node: Node, isa: frozenset[str], bits: int) -> str | None:
    """Why `row` cannot run `node` with weights of so many bits; None if it can."""
    if row.op is not node.op:
        own = "none" if row.op is None else row.op.value
        return f"it computes {own}, the layer is {node.op.value}"
    if max(row.activations, 8) != (needed := _activations(graph, node)):
        return f"it is for activations of {row.activations} bits, the layer has {needed}"
    if missing := [name for name in row.isa if name not in isa]:
        return f"it needs a core with {', '.join(missing)}"
    if bits and bits not in row.weights:
        return f"it reads weights of {', '.join(map(str, row.weights))} bits, not {bits}"
    for limit in row.limits:
        if not LIMITS[limit].holds(graph, node):
            return f"it serves {LIMITS[limit].text}"
    if row.layouts[:1] == (FIELD_PLANES,) and not _reads_nested(graph, node, bits):
        return "it reads weights of nested levels"
    return None


def _beyond(row: Kernel) -> str:
    """Why `row` cannot run a node whose tables its layout does not have."""
    return f"the layout {row.layouts[0]} takes {LAYOUTS[row.layouts[0]].limits}"


def _ways(graph: Graph, node: Node, row: Kernel, bits: int, beside: int) -> Iterator[Choice]:
    """How `row` runs `node` with weights of so many bits: once for each scratch that it can use.

    `beside` is what stands in the image beside its weights.
    """
    inputs, output = graph.activations(node), graph.tensors[node.output]
    weights = graph.tensors[node.inputs[1]] if bits else None
    channels = weights.shape[0] if weights is not None else 0
    values = weights.elements // channels if weights is not None else 0
    layout = row.layouts[0] if row.layouts else "dense"
    reads_bytes = not row.packed
    packed = sum(t.elements for t in (*inputs, output) if is_packed(t)) if reads_bytes else 0
    unpacked = unpacked_bytes(row.family, node, inputs, output) if packed else 0
    order = order_of(row.order, row.family, inputs[0], output) if reads_bytes else row.order
    planes = len(weights.planes) if weights is not None and layout == FIELD_PLANES else 1
    store = None if weights is None else _store(node, layout, weights.planes, bits)
    for own, times in _scratch(row, node, inputs[0], output, values, bits):
        yield Choice(
            row,
            bits,
            layout,
            unpacked + own,
            lag(order, node, inputs[0], output),
            padded_bytes(LAYOUTS[layout].size(channels, values, bits)) if bits else 0,
            beside,
            terms(graph, node, *((bits, times) if planes == 1 else (DIGITS, times * planes))),
            of_family(ROWS) if packed else None,
            packed,
            store=store,
        )
    if layout == "dense" and weights is not None and _reads_planes(row, weights, bits):
        own, times = scratch_bytes(row.scratch, values, 0, _row(inputs[0]) + 2 * _row(output)), 1
        yield Choice(
            row,
            bits,
            PLANES,
            unpacked + own,
            lag(order, node, inputs[0], output),
            padded_bytes(LAYOUTS[PLANES].size(channels, values, bits)),
            beside,
            terms(graph, node, 0),
            of_family(ROWS) if packed else None,
            packed,
            of_family(PLANES),
            weights.elements * len(weights.planes),
            _store(node, PLANES, weights.planes, bits),
        )


def _store(node: Node, layout: str, planes: tuple[int, ...], bits: int) -> str | None:
    """The name of the nested store that weights in `layout` are the beginning of, if of any."""
    own = node.name.partition("@")[0]
    lowest = planes == (bits,)
    if layout == PLANES or (layout == "dense" and lowest):
        return f"{own}, planes"
    if layout == FIELD_PLANES or (layout == "fields" and lowest):
        return f"{own}, field planes"
    return None


def _reads_nested(graph: Graph, node: Node, bits: int) -> bool:
    """Whether weights of so many bits have several planes."""
    planes = graph.tensors[node.inputs[1]].planes
    return len(planes) > 1 and sum(planes) == bits


def _reads_planes(row: Kernel, weights: Tensor, bits: int) -> bool:
    """Whether `row` may read weights of so many bits from a nested store."""
    nested = bits == sum(weights.planes)
    return nested and row.scratch in BY_ROWS and row.family != "grouped"


def _table_bytes(graph: Graph, node: Node, row: Kernel) -> int | None:
    """Bias, multiplier and shift of each channel, or what a layout has in their place.

    None where weights or scales are beyond what the layout holds.
    """
    if row.layouts and LAYOUTS[row.layouts[0]].tables is not None:
        own = tables(graph, node, row.layouts[0])
        return None if own is None else own.nbytes
    channels = len(graph.constant(node.inputs[1])) if OPS[node.op].weighted else 0
    return 2 * padded_bytes(4 * channels) + padded_bytes(channels)


def _scratch(
    row: Kernel, node: Node, x: Tensor, y: Tensor, values: int, bits: int
) -> Iterator[tuple[int, int]]:
    """The bytes of its own that `row` can use, and how often it unpacks each weight with them."""
    if row.scratch != "layout":
        yield scratch_bytes(row.scratch, values, bits, _row(x) + 2 * _row(y)), 1
    elif row.layouts[0] in LAYOUT_SCRATCH:
        yield LAYOUT_SCRATCH[row.layouts[0]](node, x, y, values), 0
    else:
        strips = -(-math.prod(y.shape[1:-1]) // PAIRS_PIXELS)
        for used in sorted({1, min(strips, FIELDS_STRIPS)}):
            yield fields_scratch(node, x, y, values, used), -(-strips // used)


def terms(graph: Graph, node: Node, bits: int, times: int = 1) -> tuple[int, ...]:
    """How often `node` takes each of `Cycles`; weights of so many bits are unpacked `times`."""
    values = graph.tensors[node.output].elements
    taps = 0 if node.window is None else values * math.prod(node.window.kernel)
    unpacked = times * graph.tensors[node.inputs[1]].elements if bits not in (0, 8) else 0
    channels = graph.tensors[node.output].shape[-1]
    gathered = macs(graph, node) // channels
    return macs(graph, node), taps, values, unpacked, 1, gathered, channels
