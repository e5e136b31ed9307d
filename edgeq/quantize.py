"""Float graph + bits + ranges → integer graph: the one truth that every exporter writes.

Each operator that computes gets its constants: integer weights and biases, a multiplier and shift
per output channel, integer clamps. Nothing after this stage looks at a float to compute.

Scales have 12 significant bits: the product of two is exact in float32, so that formats which keep
scales in float32 give every runtime the multipliers that stand here.

A model that was quantised already keeps what it has, instead of what ranges would give; only layers
whose bits the policy lowers get new weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgeq import fixedpoint, nested, weights
from edgeq.calibrate import Ranges, round_significant
from edgeq.errors import GraphError, PolicyError
from edgeq.ir import (
    Array,
    Bounds,
    DType,
    Graph,
    Node,
    Op,
    QParams,
    Tensor,
    Unary,
    qparams_of,
)
from edgeq.ops import OPS, evaluate, verify
from edgeq.policy import Bits, Calibration

SUM_LIMIT = 1 << 30  # |bias| + Σ|w|·amax stays below, on the device too (eq_init)
WIDE_LIMIT = 1 << 47  # the same for sums of 16-bit activations
BIAS_LIMIT = 1 << 28
WIDE_BIAS_LIMIT = 1 << 30
WIDE_RATIO = 64.0  # shifts left by 7, as far as TFLite Micro does
MIN_SCALE = 2.0**-24  # activations finer than this mean a dead layer; 2^-32 at 16 bits
BYTE_READERS = (Op.SOFTMAX, Op.TABLE)  # of activations of at most 8 bits
SOFTMAX_QPARAMS = QParams((1 / 256,), -128, 8)
PAD_ERROR = 2.0**-3  # steps: 255 of them, each rounded up to 12 significant bits, drift no farther

# (integer graph before the node, node, rows, their scales, bits) → integers, or None for nearest
Rounder = Callable[[Graph, Node, Array, Array, int], Array | None]


@dataclass(slots=True)
class _Build:
    """The integer graph under construction."""

    graph: Graph
    bits: Mapping[str, Bits]
    ranges: Ranges
    settings: Calibration
    rounder: Rounder | None
    kept: Mapping[str, Tensor] = field(default_factory=dict)  # `Source.quantized`
    levels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of nested weights
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def activation(self, name: str, qparams: QParams) -> None:
        dtype = DType.S16 if qparams.wide else DType.S8
        self.tensors[name] = replace(self.graph.tensors[name], dtype=dtype, qparams=qparams)

    def constant(
        self,
        name: str,
        data: Array,
        dtype: DType,
        qparams: QParams | None = None,
        planes: tuple[int, ...] = (),
    ) -> str:
        stored = data.astype(dtype.value)
        self.tensors[name] = Tensor(name, stored.shape, dtype, qparams, stored, planes)
        return name

    def qparams(self, name: str) -> QParams:
        return qparams_of(self.tensors[name])

    def kept_data(self, name: str) -> Array | None:
        """The integers of `name` that a quantised model brought."""
        found = self.kept.get(name)
        return None if found is None else found.data

    def output_qparams(self, node: Node, floor: float) -> QParams:
        """Parameters of the node's output whose scale is at least `floor`.

        What only a concatenation reads takes its range at once, so that joining copies bytes.
        """
        if node.output in self.kept:
            y = qparams_of(self.kept[node.output])
            if y.scale[0] < floor:
                raise GraphError(
                    "EQ0339",
                    f"{node.name}: its output has scale {y.scale[0]:g}; below {floor:g} its sums "
                    "could exceed int32 before they are shifted to it",
                )
            return y
        low, high = self.ranges.bounds[_joined(self.graph, node.output)]
        return affine(low, high, self.bits[node.name].activations, floor)

    def emit(self, node: Node, constants: tuple[str, ...], qparams: QParams) -> None:
        self.activation(node.output, qparams)
        activations = tuple(t.name for t in self.graph.activations(node))
        clamp = integer_clamp(node.clamp, qparams) if OPS[node.op].fuses_clamp else None
        self.nodes.append(replace(node, inputs=(*activations, *constants), clamp=clamp))


def run(
    graph: Graph,
    bits: Mapping[str, Bits],
    ranges: Ranges,
    settings: Calibration,
    rounder: Rounder | None = None,
    kept: Mapping[str, Tensor] | None = None,
    levels: Mapping[str, tuple[int, ...]] | None = None,
) -> Graph:
    """The integer graph of `graph`, verified; `rounder` may choose weights, as AdaRound does.

    An input has 8 bits, or 16 where every layer that reads it gives 16.
    `kept` is `Source.quantized` of a model that was quantised already. Without ranges of its means
    the bias of a layer with fewer bits is not corrected. `levels` says by layer which bits its
    weights have at all levels, the most first: they are those of a nested store then.

    Raises:
        GraphError: a sum of products could exceed what the device holds.
        PolicyError: 16-bit activations reach an operator that reads bytes alone.
    """
    build = _Build(graph, bits, ranges, settings, rounder, kept or {}, levels or {})
    for name in graph.inputs:
        found = build.kept.get(name)
        kept_or_new = (
            qparams_of(found)
            if found is not None
            else affine(*ranges.bounds[name], _input_bits(graph, bits, name))
        )
        build.activation(name, kept_or_new)
    for node in graph.nodes:
        _RULES[node.op](build, node)
    quantized = replace(graph, nodes=tuple(build.nodes), tensors=build.tensors)
    verify(quantized)
    return quantized


def _input_bits(graph: Graph, bits: Mapping[str, Bits], name: str) -> int:
    readers = graph.consumers(name)
    wide = all(n.op not in BYTE_READERS and bits[n.name].activations == 16 for n in readers)
    return 16 if readers and wide else 8


def _joined(graph: Graph, name: str) -> str:
    """The last concatenation that `name` reaches with no other reader on the way; else `name`."""
    reached = name
    while name not in graph.outputs and len(readers := graph.consumers(name)) == 1:
        joins = readers[0].op is Op.CONCAT
        if not joins and not OPS[readers[0].op].keeps_qparams:
            break
        name = readers[0].output
        reached = name if joins else reached
    return reached


def affine(low: float, high: float, bits: int, floor: float = 0.0) -> QParams:
    """Parameters of `bits` bits that cover [low, high] and zero, exactly at an integer.

    16 bits are symmetric, as TFLite has them.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    levels = (1 << bits) - 1
    if bits == 16:
        largest = max(-low, high)
        widest = max(largest / (levels >> 1), floor, MIN_SCALE / 256) if largest > 0 else 1.0
        return QParams((float(round_significant(widest, up=True)),), 0, bits)
    widest = max((high - low) / levels, floor, MIN_SCALE) if high > low else 1.0
    scale = float(round_significant(widest, up=True))
    qmin = -(1 << (bits - 1))
    zero_point = min(max(qmin + round(-low / scale), qmin), qmin + levels)
    return QParams((scale,), zero_point, bits)


def integer_clamp(clamp: Bounds | None, qparams: QParams) -> Bounds:
    """A fused activation's bounds as integers of the output."""
    low, high = clamp or (-math.inf, math.inf)
    bounds = []
    for real, limit in ((low, qparams.qmin), (high, qparams.qmax)):
        if math.isinf(real):
            bounds.append(limit)
        else:
            nearest = qparams.zero_point + round(real / qparams.scale[0])
            bounds.append(min(max(nearest, qparams.qmin), qparams.qmax))
    return bounds[0], bounds[1]


def _quantize_rows(
    build: _Build,
    node: Node,
    rows: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
    floor: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Integer rows, their scales, the bias that goes with them.

    No scale is below `floor`, which keeps biases inside int32. Weights that a rounder chose have
    their output's gain and mean already; those rounded to nearest get them back here.
    """
    bits, settings = build.bits[node.name].weights, build.settings
    levels = build.levels.get(node.name, ())
    if bits in levels:
        integers, scale = _nested_rows(rows, levels, bits, floor)
        return integers, scale, _corrected(build, node, rows, integers, scale, bias)
    search = weights.search_scale if settings.weights == "mse" else weights.absmax_scale
    scale = np.maximum(round_significant(search(rows, bits)), floor)
    if build.rounder is not None:
        before = replace(build.graph, nodes=tuple(build.nodes), tensors=dict(build.tensors))
        chosen = build.rounder(before, node, rows, scale, bits)
        if chosen is not None:
            return chosen, scale, bias
    integers = weights.round_to(rows, scale, bits)
    if settings.gain:
        gained = round_significant(weights.preserve_gain(rows, integers, scale))
        scale = np.maximum(gained, floor)
    return integers, scale, _corrected(build, node, rows, integers, scale, bias)


def _nested_rows(
    rows: npt.NDArray[np.float64],
    levels: tuple[int, ...],
    bits: int,
    floor: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The integers of one level of a nested store, and their scales, none below `floor`.

    Where that binds the row is not the one of the other levels, and the layer stands in the image
    once for each.
    """
    scale = round_significant(nested.absmax_scale(rows, levels))
    scale = np.maximum(scale, floor * 2.0 ** (bits - levels[0]))
    integers, scale = nested.split(rows, levels, scale).at(bits)
    return integers.astype(np.float64), scale


def _corrected(
    build: _Build,
    node: Node,
    rows: npt.NDArray[np.float64],
    integers: npt.NDArray[np.float64],
    scale: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """The bias that gives the output its mean back, as far as the mean of the input is known."""
    if not build.settings.bias_correction or node.name not in build.ranges.means:
        return bias
    mean = build.ranges.means[node.name].reshape(-1, rows.shape[1])
    return np.asarray(bias + ((rows - integers * scale[:, None]) * mean).sum(axis=1))


@dataclass(frozen=True, slots=True)
class _Layer:
    """Integer rows, the step of each row's sums, integer biases; scales and bits of the rows."""

    rows: Array
    steps: npt.NDArray[np.float64]
    bias: Array
    scale: npt.NDArray[np.float64]
    bits: int
    planes: tuple[int, ...] = ()  # of a nested store


def _weighted(build: _Build, node: Node) -> None:
    """Convolutions and fully connected layers: weights, bias, multiplier, shift."""
    x = build.qparams(node.inputs[0])
    shape = build.graph.tensors[node.inputs[1]].shape
    layer = _kept_layer(build, node, x) or _new_layer(build, node, x)
    taps = layer.rows.shape[1]
    half = 1 << (x.width - 1)  # of what memory may hold: eq_init trusts nothing else
    largest = max(half - 1 - x.zero_point, x.zero_point + half)
    bound, unpacked = (
        np.abs(layer.bias) + taps * (1 << (b - 1)) * largest for b in (layer.bits, 8)
    )
    limit = WIDE_LIMIT if x.wide else SUM_LIMIT
    if bound.max() >= limit or np.abs(layer.bias).max() > fixedpoint.INT32_MAX:
        raise GraphError(
            "EQ0331",
            f"{node.name}: sums of {taps} products could reach {bound.max():.0f}; "
            f"{'int64' if x.wide else 'int32'} arithmetic needs them below {limit}",
        )
    largest_sum = np.minimum(unpacked, limit - 1)
    y = build.output_qparams(node, float((layer.steps / _largest_ratio(largest_sum, x)).max()))
    name = node.name
    multiplier, shift = (build.kept_data(f"{name}.{what}") for what in ("multiplier", "shift"))
    if multiplier is None or shift is None:
        multiplier, shift = _multipliers(layer.steps / y.scale[0])
    build.emit(
        node,
        (
            build.constant(
                f"{name}.weights",
                layer.rows.reshape(shape),
                DType.S8,
                QParams(tuple(float(s) for s in layer.scale), 0, layer.bits, axis=0),
                layer.planes,
            ),
            build.constant(f"{name}.bias", layer.bias, DType.S32),
            build.constant(f"{name}.multiplier", multiplier, DType.S32),
            build.constant(f"{name}.shift", shift, DType.S8),
        ),
        y,
    )


def _largest_ratio(largest_sum: npt.NDArray[np.float64], x: QParams) -> npt.NDArray[np.float64]:
    """The greatest ratio of input to output steps with which sums of `x` may be requantised.

    A ratio of 2^h shifts left by up to h + 1. Sums of bytes must stay below 2^31 then, also where
    --optimize time stores the weights in 8 bits; of 16-bit values the results must, and the shift
    is at most 7.
    """
    if x.wide:
        return np.asarray(np.minimum((SUM_LIMIT >> 2) / (largest_sum + 1), WIDE_RATIO), np.float64)
    headroom = np.floor(np.log2((SUM_LIMIT << 1) / (largest_sum + 1))) - 1
    return np.asarray(np.exp2(headroom), np.float64)


def _new_layer(build: _Build, node: Node, x: QParams) -> _Layer:
    """What a layer's reals become."""
    kernel = build.graph.constant(node.inputs[1]).astype(np.float64)
    bias = build.graph.constant(node.inputs[2]).astype(np.float64)
    rows = kernel.reshape(len(kernel), -1)
    # A channel of zeros has no scale of its own: its bias needs one that keeps it exact enough.
    idle = ~rows.any(axis=1)
    least = np.abs(bias) / (x.scale[0] * (WIDE_BIAS_LIMIT if x.wide else BIAS_LIMIT))
    floor = round_significant(least, up=True)
    integers, scale, bias = _quantize_rows(build, node, rows, bias, floor)
    scale = np.where(idle, np.where(bias == 0, 1.0, floor * (1 << 12)), scale)
    steps = x.scale[0] * scale
    bits = build.bits[node.name].weights
    below = [level for level in build.levels.get(node.name, ()) if level <= bits]
    planes = nested.widths(below) if bits in below else ()
    return _Layer(integers, steps, np.rint(bias / steps), scale, bits, planes)


def _kept_layer(build: _Build, node: Node, x: QParams) -> _Layer | None:
    """What a layer had in a quantised model, if its bits were not lowered."""
    weights, bias = (build.kept_data(name) for name in node.inputs[1:3])
    if weights is None or bias is None:
        return None
    q = qparams_of(build.kept[node.inputs[1]])
    if build.bits[node.name].weights < q.bits:
        return None
    rows = weights.reshape(len(weights), -1).astype(np.int64)
    scale = np.broadcast_to(np.asarray(q.scale), len(rows))
    steps = x.scale[0] * scale
    if node.op is Op.FULLY_CONNECTED and q.axis is None:  # this product TFLM takes in float32
        steps = (np.float32(x.scale[0]) * scale.astype(np.float32)).astype(np.float64)
    return _Layer(rows, steps, bias.astype(np.int64), scale, q.bits)


def _multipliers(reals: Array) -> tuple[Array, Array]:
    pairs = [fixedpoint.quantize_multiplier(float(real)) for real in reals]
    return np.array([m for m, _ in pairs]), np.array([s for _, s in pairs])


def _add(build: _Build, node: Node) -> None:
    """TFLite's ADD: both inputs to a common scale of 2·max with 20 bits of head-room, or 15."""
    a, b = (build.qparams(name) for name in node.inputs)
    common = 2 * max(a.scale[0], b.scale[0])
    wide = a.wide or b.wide or build.bits[node.name].activations == 16
    unit = 1 << (fixedpoint.ADD_LEFT_SHIFT_WIDE if wide else fixedpoint.ADD_LEFT_SHIFT)
    y = build.output_qparams(node, 2 * common / unit)  # TFLite takes ratios below 1 only
    reals = np.array([a.scale[0] / common, b.scale[0] / common, common / (unit * y.scale[0])])
    multiplier, shift = _multipliers(reals)
    constants = (
        build.constant(f"{node.name}.multiplier", multiplier, DType.S32),
        build.constant(f"{node.name}.shift", shift, DType.S8),
    )
    build.emit(node, constants, y)


def _refuse_wide(build: _Build, node: Node) -> None:
    """Refuses 16-bit activations that `node` would read."""
    if not build.qparams(node.inputs[0]).wide:
        return
    decides, source = node, build.graph.producer(node.inputs[0])
    while source is not None:
        decides = source
        keeps = OPS[source.op].keeps_qparams
        source = build.graph.producer(source.inputs[0]) if keeps else None
    raise PolicyError(
        "EQ0324",
        f"{node.name}: {node.op.value} reads activations of at most 8 bits, and {decides.name} "
        f"gives 16; give {decides.name} activations = 8",
    )


def _softmax(build: _Build, node: Node) -> None:
    _refuse_wide(build, node)
    x = build.qparams(node.inputs[0])
    scaled = node.beta * x.scale[0] * (1 << (31 - fixedpoint.SOFTMAX_INTEGER_BITS))
    multiplier, shift = _multipliers(np.array([min(scaled, 2.0**30 - 1)]))
    constants = (
        build.constant(f"{node.name}.multiplier", multiplier, DType.S32),
        build.constant(f"{node.name}.shift", shift, DType.S8),
    )
    build.emit(node, constants, SOFTMAX_QPARAMS)


def _unchanged(build: _Build, node: Node) -> None:
    """Reshapes: the output's integers mean what the input's meant."""
    build.emit(node, (), build.qparams(node.inputs[0]))


def _pool(build: _Build, node: Node) -> None:
    """As `_unchanged`; a sum over the window must fit int32."""
    x, window = build.qparams(node.inputs[0]), node.window
    assert window is not None  # the operator table demands it
    taps = window.kernel[0] * window.kernel[1]
    if taps << (x.width - 1) >= SUM_LIMIT:
        raise GraphError(
            "EQ0331",
            f"{node.name}: sums of {taps} activations of {x.bits} bits could reach "
            f"{taps << (x.width - 1)}; int32 arithmetic needs them below {SUM_LIMIT}",
        )
    _unchanged(build, node)


def _pad(build: _Build, node: Node) -> None:
    """The output's integers mean what the input's meant; the value becomes one of them."""
    x = build.qparams(node.inputs[0])
    value = float(build.graph.constant(node.inputs[1]).reshape(-1)[0])
    kept = build.kept_data(node.inputs[1])
    steps = value / x.scale[0] + x.zero_point if kept is None else float(kept[0])
    if not (x.qmin <= round(steps) <= x.qmax and abs(steps - round(steps)) <= PAD_ERROR):
        raise GraphError(
            "EQ0337",
            f"{node.name}: pads with {value:g}, which is no multiple of the input's scale "
            f"{x.scale[0]:g} in its range; 0 always is",
        )
    constant = build.constant(f"{node.name}.value", np.array([round(steps)]), DType.S32)
    build.emit(node, (constant,), x)


def _concat(build: _Build, node: Node) -> None:
    """TFLite's QUANTIZE of each input to the output's parameters; equal ones are copied."""
    inputs = [build.qparams(name) for name in node.inputs]
    # A ratio of 2^h shifts differences, of at most 2^bits, left by up to h + 1.
    floor = max(x.scale[0] * 2.0 ** (x.bits - 29) for x in inputs)
    y = build.output_qparams(node, floor)
    multiplier, shift = _multipliers(np.array([x.scale[0] / y.scale[0] for x in inputs]))
    constants = (
        build.constant(f"{node.name}.multiplier", multiplier, DType.S32),
        build.constant(f"{node.name}.shift", shift, DType.S8),
    )
    build.emit(node, constants, y)


def _table(build: _Build, node: Node) -> None:
    """The output for every integer of the input: float64, ties to even, clipped."""
    function, name = node.function, f"{node.name}.table"
    assert function is not None  # the operator table demands it
    _refuse_wide(build, node)
    kept = build.kept_data(name)
    if kept is not None:
        y = build.output_qparams(node, 0.0)
        build.emit(node, (build.constant(name, kept, DType.S8),), y)
        return
    x, bits = build.qparams(node.inputs[0]), build.bits[node.name].activations
    if function.kind is Unary.IDENTITY:
        y = x  # a clip of integers: nothing is rounded again
    elif bits == 16:
        raise PolicyError(
            "EQ0324",
            f"{node.name}: a table gives activations of at most 8 bits, and the policy asks for "
            f"16; give {node.name} activations = 8",
        )
    elif function.kind is Unary.SIGMOID:
        y = QParams((2.0**-bits,), -(1 << (bits - 1)), bits)  # TFLite's LOGISTIC
    elif function.kind is Unary.TANH:
        y = QParams((2.0 ** (1 - bits),), 0, bits)  # TFLite's TANH
    else:
        y = build.output_qparams(node, 0.0)
    reals = evaluate(function, x.dequantize(np.arange(-128, 128)))
    low, high = integer_clamp(node.clamp, y)
    table = np.clip(y.quantize(reals), low, high)
    build.emit(node, (build.constant(name, table, DType.S8),), y)


_RULES: Mapping[Op, Callable[[_Build, Node], None]] = {
    Op.SOFTMAX: _softmax,
    Op.ADD: _add,
    **{op: _unchanged for op, info in OPS.items() if info.keeps_qparams},
    **{op: _weighted for op, info in OPS.items() if info.weighted},
    Op.MAX_POOL: _pool,
    Op.AVERAGE_POOL: _pool,
    Op.PAD: _pad,
    Op.CONCAT: _concat,
    Op.TABLE: _table,
}
