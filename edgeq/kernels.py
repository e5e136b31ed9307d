"""The kernel table, `firmware_stubs/kernels.toml`, and which row runs which operator.

The same rows generate the list that firmware is linked with, and give the tests their parameters.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any, Literal

from edgeq import affine
from edgeq.errors import ModelError
from edgeq.ir import Array, Graph, Network, Node, Op, Tensor, qparams_of
from edgeq.ops import OPS
from edgeq.packing import ALIGN, FIELDS_BLOCK, LAYOUTS, PAIRS_GROUP, Scaling
from edgeq.taps import FORMS, Taps

Optimize = Literal["flash", "time"]
MAX_PORTS = 4  # EQ_MAX_PORTS
UNPACKED_MOST = (1 << 29) // (128 * 255)  # weights of a channel whose sums hold any 8 bits
ALIASED = (Op.RESHAPE,)  # no kernel: the output is the input's memory
ROWS = "rows"  # the family of the kernel that brings the others to packed activations
PATCH_CHANNELS = 8  # EQ_PATCH_CHANNELS
TABLES_BYTES = 2048  # EQ_TABLES_BYTES
LONG = 512  # values of an addition that pay for tables
PAIRS_PIXELS = 4  # of a strip of eq_pairs.c
LANES_WORDS = 16  # steps that a word of the input may hold, of which strips are whole numbers
FIELDS_STRIPS = 4  # for which weights of fewer than 8 bits are unpacked once


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
    code_bytes: int
    sources: tuple[str, ...] = ()  # other files of kernels/

    @property
    def file(self) -> str:
        """The source file that holds it."""
        return f"{self.symbol}.c"

    @property
    def rules(self) -> str:
        """The C name of what eq_init knows of its layout."""
        return next((f"&eq_{name}_rules" for name in self.layouts if name != "dense"), "NULL")


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs one node: the kernel, how its weights are stored, what it needs beside tensors."""

    kernel: Kernel
    weight_bits: int  # 0 without weights
    layout: str
    scratch_bytes: int
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


def linked_bytes(rows: Iterable[Kernel]) -> int:
    """Flash of the kernels `rows`, each of their files once, by the estimates of kernels.toml."""
    linked = list(rows)
    shared = {file for row in linked for file in row.sources}
    return sum(row.code_bytes for row in linked) + sum(
        size for file, size in _file()["sources"].items() if file in shared
    )


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
            code_bytes=row["code_bytes"],
            sources=tuple(row.get("sources", ())),
        )
        for row in _file()["kernel"]
    ]
    return tuple(sorted(rows, key=lambda kernel: kernel.id))


def scratch_bytes(rule: str, values: int, weight_bits: int, row: int = 0) -> int:
    """Arena bytes that a kernel needs beside its tensors; the C twin stands in eq_check.c.

    `values` counts the weights of one output channel, `row` those of a row of the input. For the
    rule "layout" see `LAYOUT_SCRATCH`.
    """
    unpacked = 0 if weight_bits == 8 else values
    if rule == "row":
        return unpacked
    if rule == "strip":
        return unpacked + row
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


def fields_scratch(node: Node, x: Tensor, y: Tensor, values: int) -> int:
    """What eq_fields.c uses: the same, two channels of unpacked weights, and more strips.

    The least that it takes has one strip; weights are unpacked once for all that there are.
    """
    groups = -(-values // PAIRS_GROUP)
    pixels = math.prod(y.shape[1:-1])
    strips = min(-(-pixels // PAIRS_PIXELS), FIELDS_STRIPS) - 1
    row = 2 * -(-values // FIELDS_BLOCK) * FIELDS_BLOCK
    return row + pairs_scratch(node, x, y, values) + strips * 8 * groups * PAIRS_PIXELS


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
    "fields": fields_scratch,
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


LIMITS: Mapping[str, Callable[[Graph, Node], bool]] = {
    "points": _points,
    "long_bytes": _long_bytes,
    "affine": _affine,
    "three_by_three": _three_by_three,
    **{name: partial(_taps, form=form) for name, form in FORMS.items()},
}


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


def _within_limits(graph: Graph, node: Node, row: Kernel) -> bool:
    """Whether the kernel serves the node, and the layout that it reads is exact for its weights."""
    return all(LIMITS[limit](graph, node) for limit in row.limits) and (
        row.rules == "NULL" or tables(graph, node, row.layouts[0]) is not None
    )


def _best(
    graph: Graph, node: Node, isa: set[str], optimize: Optimize, rows: Sequence[Kernel]
) -> Choice:
    bits = stored = values = 0
    if OPS[node.op].weighted:
        weights = graph.tensors[node.inputs[1]]
        values = weights.elements // weights.shape[0]
        bits = weights.qparams.bits if weights.qparams is not None else 8
        stored = 8 if optimize == "time" and values <= UNPACKED_MOST else bits
    fitting = (
        row
        for row in reversed(rows)
        if row.op is node.op
        and isa.issuperset(row.isa)
        and (not bits or stored in row.weights)
        and _within_limits(graph, node, row)
    )
    if (row := next(fitting, None)) is None:
        raise ModelError("EQ0341", f"{node.name}: no kernel for {node.op.value} on this core")
    layout = row.layouts[0] if row.layouts else "dense"
    inputs, output = graph.activations(node), graph.tensors[node.output]
    packed = any(map(is_packed, (*inputs, output))) and not LAYOUTS[layout].packed
    if row.scratch == "layout":
        own = LAYOUT_SCRATCH[layout](node, inputs[0], output, values)
    else:
        own = scratch_bytes(row.scratch, values, stored, _row(inputs[0]))
    return Choice(
        row,
        stored,
        layout,
        (unpacked_bytes(row.family, node, inputs, output) if packed else 0) + own,
        next(row for row in table() if row.family == ROWS) if packed else None,
    )
