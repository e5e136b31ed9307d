"""The oracle: a NumPy interpreter of the integer graph, under either rounding rule.

Whatever edgeq exports is held to these integers. `Rounding.DOUBLE` is what the device computes
(`fixedpoint`); `Rounding.FLOAT32` is how onnxruntime requantises: one float32 multiplication, ties
to even; `Rounding.XNNPACK` does so, too, but adds and converts in integers of its own. Layers with
16-bit activations round once, to a 15-bit multiplier (`fixedpoint.requantize_wide`); LiteRT, which
XNNPACK leaves them to, scales fully connected ones in float64 and rounds each input of an addition
once; onnxruntime has no rule for them.
Sums of products run through BLAS in floating point where every partial sum is an integer that the
type holds exactly, and so are exact in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from edgeq import fixedpoint, gates
from edgeq.errors import GraphError
from edgeq.gates import Gate, Path, Seen
from edgeq.ir import Array, Graph, Network, Node, Op, QParams, Tensor, Window, qparams_of
from edgeq.ops import windows

Int64 = npt.NDArray[np.int64]

PATCH_BYTES = 1 << 22  # most memory for the patches of one step of a convolution


class Rounding(Enum):
    """How a sum of products becomes an n-bit integer, and whose arithmetic the rest follows."""

    DOUBLE = "double"  # this runtime's and TFLite Micro's
    FLOAT32 = "float32"  # onnxruntime's
    XNNPACK = "xnnpack"  # LiteRT's, with its default delegate


@dataclass(frozen=True, slots=True)
class Operands:
    """What one node computes with: its tensors, the computed inputs' values, the rule."""

    node: Node
    tensors: tuple[Tensor, ...]  # all inputs, constants too
    output: Tensor
    values: tuple[Array, ...]  # of the computed inputs, batch first
    rounding: Rounding

    def constant(self, index: int) -> Int64:
        """The data of input `index` as int64."""
        data = self.tensors[index].data
        if data is None:
            raise GraphError("EQ0303", f"{self.node.name}: input {index} is no constant")
        return data.astype(np.int64)

    @property
    def window(self) -> Window:
        """The node's window."""
        if self.node.window is None:
            raise GraphError("EQ0304", f"{self.node.name} needs a window")
        return self.node.window


def run(
    network: Network,
    inputs: Mapping[str, Array],
    rounding: Rounding = Rounding.DOUBLE,
    levels: Sequence[int] | None = None,
) -> dict[str, Array]:
    """Every activation tensor's integers, by name, for a batch of quantised inputs.

    `levels` picks the variant of each block, the first of each by default.
    """
    values: dict[str, Array] = dict(inputs)
    for index, block in enumerate(network.blocks):
        graph = block.variants[levels[index] if levels else 0].graph
        for node in graph.nodes:
            values[node.output] = compute(graph, node, values, rounding)
    return values


def variant(network: Network, block: int, level: int) -> Graph:
    """The graph of a block at that level, which it has."""
    return next(v.graph for v in network.blocks[block].variants if v.level == level)


def graphs_on(network: Network, path: Sequence[int]) -> list[Graph]:
    """What an input on `path` runs through, of a network with exits: bodies and heads."""
    found = []
    for body, level in enumerate(path):
        found.append(variant(network, 2 * body, level))
        found += [v.graph for b in network.blocks[2 * body + 1 : 2 * body + 2] for v in b.variants]
    return found


def run_path(
    network: Network,
    inputs: Mapping[str, Array],
    path: Sequence[int],
    rounding: Rounding = Rounding.DOUBLE,
) -> dict[str, Array]:
    """As `run`, of a network with exits: its bodies at the levels of `path`, and their heads.

    The outputs are those of the exit at the end of the path.
    """
    values: dict[str, Array] = dict(inputs)
    for graph in graphs_on(network, path):
        for node in graph.nodes:
            values[node.output] = compute(graph, node, values, rounding)
    return values


def _extend(
    network: Network, body: int, level: int, values: Mapping[str, Array], rounding: Rounding
) -> dict[str, Array]:
    """What a body computes, by its place in the chain, and its head, if it has one."""
    found = dict(values)
    heads = [v.graph for block in network.blocks[body + 1 : body + 2] for v in block.variants]
    for graph in (variant(network, body, level), *heads):
        for node in graph.nodes:
            found[node.output] = compute(graph, node, found, rounding)
    return found


@dataclass(frozen=True, slots=True)
class Routed:
    """Where inputs went and what they got there, each by the index of its path."""

    paths: Int64
    outputs: Array  # (inputs, classes), of the network's first output


def route(
    network: Network,
    gate: Gate,
    inputs: Mapping[str, Array],
    tradeoff: int | None = None,
    rounding: Rounding = Rounding.DOUBLE,
) -> Routed:
    """Every input through the blocks that the gates choose for it, and no others."""
    weight = gate.tradeoff if tradeoff is None else tradeoff
    output = network.outputs[0]
    count = len(next(iter(inputs.values())))
    routed = Routed(np.zeros(count, np.int64), np.zeros((count, gate.classes), np.int8))
    ahead: list[tuple[Path, Int64, dict[str, Array], Seen | None]] = [
        ((gate.first_level(weight),), np.arange(count), dict(inputs), None)
    ]
    while ahead:
        path, index, values, before = ahead.pop()
        body = 2 * (len(path) - 1)
        values = _extend(network, body, path[-1], values, rounding)
        logits = values[output.name].reshape(len(index), -1)
        chosen = [path] * len(index)
        seen = None
        if len(path) < gate.exits:
            seen = gates.see(logits, qparams_of(output).scale[0])
            known = {path: seen} | ({} if before is None else {path[:-1]: before})
            options = gate.options(path)
            best = gates.decide(gate, options, gates.predict(gate, path, known), weight)
            chosen = [gate.paths[options[i]][: len(path) + 1] for i in best]
        kept = variant(network, body, path[-1]).outputs
        for onward in set(chosen):
            rows = np.flatnonzero([step == onward for step in chosen])
            if onward == path:
                routed.paths[index[rows]] = gate.paths.index(path)
                routed.outputs[index[rows]] = logits[rows]
            else:
                part = {name: values[name][rows] for name in kept}
                ahead.append((onward, index[rows], part, None if seen is None else seen.take(rows)))
    return routed


def compute(
    graph: Graph, node: Node, values: Mapping[str, Array], rounding: Rounding = Rounding.DOUBLE
) -> Array:
    """The output integers of one node, in the output tensor's storage type."""
    tensors = tuple(graph.tensors[name] for name in node.inputs)
    output = graph.tensors[node.output]
    if rounding is Rounding.FLOAT32 and any(
        t.qparams is not None and t.qparams.wide for t in (*tensors, output)
    ):
        raise GraphError(
            "EQ0338",
            f"{node.name}: 16-bit activations have one rounding rule, {Rounding.DOUBLE.value}",
        )
    computed = tuple(values[t.name] for t in tensors if t.data is None)
    result = MEANINGS[node.op](Operands(node, tensors, output, computed, rounding))
    return result.astype(output.dtype.value)


def _finish(o: Operands, total: Int64, multiplier: Int64, shift: Int64) -> Int64:
    """Sums to output integers: requantised, zero point added, clamped."""
    y = qparams_of(o.output)
    x = qparams_of(o.tensors[0])
    if x.wide:
        scaled = fixedpoint.requantize_wide(total, multiplier, shift)
    elif o.rounding is Rounding.DOUBLE:
        scaled = fixedpoint.requantize(total, multiplier, shift)
    else:
        w = qparams_of(o.tensors[1])
        ratio = np.float32(x.scale[0]) * np.asarray(w.scale, np.float32) / np.float32(y.scale[0])
        scaled = np.rint(total.astype(np.float32) * ratio).astype(np.int64)
    return _clamp(o, scaled + y.zero_point)


def _clamp(o: Operands, values: Int64) -> Int64:
    y = qparams_of(o.output)
    low, high = o.node.clamp or (y.qmin, y.qmax)
    return np.asarray(np.clip(values, int(low), int(high)), np.int64)


def _products(x: Array, weights: Array) -> Int64:
    """X @ weights.T, exact: x (rows, K) and weights (O, K) hold integers."""
    bound = int(np.abs(weights).sum(axis=1).max()) * max(int(np.abs(x).max(initial=0)), 1)
    exact = np.float32 if bound < 1 << 24 else np.float64
    return np.asarray(x.astype(exact) @ weights.T.astype(exact), np.int64)


def _conv_2d(o: Operands) -> Int64:
    x, weights = o.values[0], o.constant(1)
    zero = qparams_of(o.tensors[0]).zero_point
    _, height, width, channels = o.output.shape
    rows = weights.reshape(channels, -1)
    shifted = x.astype(np.float32) - zero
    step = max(1, PATCH_BYTES // (4 * height * width * rows.shape[1]))
    parts = []
    for start in range(0, len(x), step):
        view = windows(shifted[start : start + step], o.window, 0, (height, width))
        total = _products(view.reshape(-1, rows.shape[1]), rows) + o.constant(2)
        parts.append(_finish(o, total, o.constant(3), o.constant(4)))
    return np.concatenate(parts).reshape(len(x), height, width, channels)


def _grouped_conv_2d(o: Operands) -> Int64:
    x, weights = o.values[0], o.constant(1)
    zero = qparams_of(o.tensors[0]).zero_point
    _, height, width, channels = o.output.shape
    depth = weights.shape[3]
    groups = x.shape[3] // depth
    filters = channels // groups
    view = windows(x.astype(np.float32) - zero, o.window, 0, (height, width))
    totals = []
    for group in range(groups):
        rows = weights[group * filters : (group + 1) * filters].reshape(filters, -1)
        part = view[..., group * depth : (group + 1) * depth].reshape(-1, rows.shape[1])
        totals.append(_products(part, rows))
    total = np.concatenate(totals, axis=1) + o.constant(2)
    return _finish(o, total, o.constant(3), o.constant(4)).reshape(-1, height, width, channels)


def _depthwise_conv_2d(o: Operands) -> Int64:
    x, weights = o.values[0], o.constant(1)
    zero = qparams_of(o.tensors[0]).zero_point
    _, height, width, channels = o.output.shape
    shifted = np.repeat(x.astype(np.int32) - zero, channels // x.shape[3], axis=3)
    view = windows(shifted, o.window, 0, (height, width))
    total = np.zeros((len(x), height, width, channels), np.int64)
    for row in range(weights.shape[1]):
        for column in range(weights.shape[2]):
            total += view[:, :, :, row, column] * weights[:, row, column]
    return _finish(o, total + o.constant(2), o.constant(3), o.constant(4))


def _fully_connected(o: Operands) -> Int64:
    x = o.values[0].astype(np.float32) - qparams_of(o.tensors[0]).zero_point
    total = _products(x, o.constant(1)) + o.constant(2)
    if o.rounding is Rounding.XNNPACK and qparams_of(o.tensors[0]).wide:
        return _clamp(o, _scaled_in_float64(o, total))
    return _finish(o, total, o.constant(3), o.constant(4))


def _scaled_in_float64(o: Operands, total: Int64) -> Int64:
    """Sums as LiteRT's int16 fully connected layers scale them: one product, ties away from 0."""
    x, w, y = (qparams_of(t) for t in (*o.tensors[:2], o.output))
    real = total * (x.scale[0] * np.asarray(w.scale) / y.scale[0])
    return np.asarray(np.copysign(np.floor(np.abs(real) + 0.5), real), np.int64) + y.zero_point


def _add(o: Operands) -> Int64:
    a, b, y = (qparams_of(t) for t in (*o.tensors[:2], o.output))
    if o.rounding is Rounding.FLOAT32:
        return _clamp(o, _add_float32(o.values, (a, b), y))
    wide = a.wide or b.wide or y.wide
    if o.rounding is Rounding.XNNPACK and not wide:
        return _clamp(o, _add_xnnpack(o.values, (a, b), y))
    multiplier, shift = o.constant(2), o.constant(3)
    total = np.zeros(o.values[0].shape, np.int64)
    left = fixedpoint.ADD_LEFT_SHIFT_WIDE if wide else fixedpoint.ADD_LEFT_SHIFT
    once = o.rounding is Rounding.XNNPACK
    to_common = fixedpoint.requantize_once if once else fixedpoint.requantize
    for i, q in enumerate((a, b)):
        every = np.arange(q.qmin, q.qmax + 1, dtype=np.int64)  # an input has few values
        table = to_common((every - q.zero_point) << left, multiplier[i], shift[i])
        total += table[o.values[i].astype(np.intp) - q.qmin]
    scaled = fixedpoint.requantize(total, multiplier[2], shift[2])
    return _clamp(o, scaled + y.zero_point)


def _add_float32(values: Sequence[Array], inputs: Sequence[QParams], y: QParams) -> Int64:
    """The sum as onnxruntime's QLinearAdd rounds it on uint8 tensors, on x86-64 with FMA.

    Values and zero points stand 128 above ours; the output's zero point is added before rounding.
    """
    first, second = (np.float32(q.scale[0]) / np.float32(y.scale[0]) for q in inputs)
    zeros = [np.float32(q.zero_point + 128) for q in (*inputs, y)]
    fixed = zeros[2] - _fused(zeros[0], first, second * zeros[1])
    left, right = (v.astype(np.float32) + 128 for v in values)
    real = _fused(left, first, _fused(right, second, fixed))
    return np.asarray(np.rint(real), np.int64) - 128


def _add_xnnpack(values: Sequence[Array], inputs: Sequence[QParams], y: QParams) -> Int64:
    """The sum as XNNPACK's qs8-vadd-minmax has it: factors of 21 bits, ties upwards.

    It takes inputs whose steps are finer than 256 of the output's.
    """
    ratios = [np.float32(q.scale[0]) / np.float32(y.scale[0]) for q in inputs]
    shift = 21 - int(np.frexp(max(ratios))[1])
    total = np.full(values[0].shape, 1 << (shift - 1), np.int64)
    for q, ratio, x in zip(inputs, ratios, values, strict=True):
        total += (x.astype(np.int64) - q.zero_point) * int(np.rint(np.ldexp(ratio, shift)))
    return (total >> shift) + y.zero_point


def _convert_xnnpack(values: Array, x: QParams, y: QParams) -> Int64:
    """The integers of `x` in those of `y` as XNNPACK's qs8-vcvt has them: a factor in 1/256.

    It takes ratios of scales in [2^-8, 2^7); others are LiteRT's, which rounds as the device does.
    """
    ratio = np.float32(x.scale[0]) / np.float32(y.scale[0])
    scaled = (values.astype(np.int64) - x.zero_point) * int(np.rint(ratio * 256))
    return ((scaled + 128) >> 8) + y.zero_point


def _fused(x: Array | np.float32, factor: np.float32, addend: Array | np.float32) -> Array:
    """X · factor + addend in float32, rounded once: float64 holds the product exactly."""
    wide = np.asarray(x, np.float64) * np.float64(factor) + np.asarray(addend, np.float64)
    return np.asarray(wide, np.float32)


def _max_pool(o: Operands) -> Int64:
    size = o.output.shape[1], o.output.shape[2]
    view = windows(o.values[0].astype(np.int64), o.window, -(1 << 31), size)
    return _clamp(o, view.max(axis=(3, 4)))


def _average_pool(o: Operands) -> Int64:
    size = o.output.shape[1], o.output.shape[2]
    total = windows(o.values[0].astype(np.int64), o.window, 0, size).sum(axis=(3, 4))
    ones = np.ones((1, *o.tensors[0].shape[1:3], 1), np.int64)
    count = windows(ones, o.window, 0, size).sum(axis=(3, 4))
    if o.rounding is not Rounding.FLOAT32:  # XNNPACK leaves integer pools to LiteRT
        return _clamp(o, fixedpoint.round_away_divide(total, count))
    return _clamp(o, np.rint(total.astype(np.float32) / count.astype(np.float32)).astype(np.int64))


def _reshape(o: Operands) -> Int64:
    return o.values[0].astype(np.int64).reshape(len(o.values[0]), *o.output.shape[1:])


def _softmax(o: Operands) -> Int64:
    x = o.values[0].astype(np.int64)
    if o.rounding is Rounding.DOUBLE:
        multiplier, shift = o.constant(1), o.constant(2)
        return fixedpoint.softmax(x, int(multiplier[0]), int(shift[0]))
    scale = o.node.beta * qparams_of(o.tensors[0]).scale[0]
    scaled = (x - x.max(axis=-1, keepdims=True)) * scale
    exponential = np.exp(scaled)
    share = exponential / exponential.sum(axis=-1, keepdims=True)
    return np.asarray(np.clip(np.rint(share * 256) - 128, -128, 127), np.int64)


def _pad(o: Operands) -> Int64:
    sizes = zip(o.node.pads[:3], o.node.pads[3:], strict=True)
    value = int(o.constant(1)[0])
    return np.pad(o.values[0].astype(np.int64), ((0, 0), *sizes), constant_values=value)


def _concat(o: Operands) -> Int64:
    parts = [_converted(o, i) for i in range(len(o.values))]
    return np.concatenate([_clamp(o, part) for part in parts], axis=o.node.axis)


def _converted(o: Operands, index: int) -> Int64:
    """An input in the output's integers, as TFLite's QUANTIZE or a dequantised copy gives it."""
    x, y, values = qparams_of(o.tensors[index]), qparams_of(o.output), o.values[index]
    if (x.scale, x.zero_point) == (y.scale, y.zero_point):
        return values.astype(np.int64)
    bytes_only = not (x.wide or y.wide)
    if o.rounding is Rounding.XNNPACK and bytes_only and 2**-8 <= x.scale[0] / y.scale[0] < 2**7:
        return _convert_xnnpack(values, x, y)
    difference = values.astype(np.int64) - x.zero_point
    if o.rounding is not Rounding.FLOAT32:
        scaled = fixedpoint.requantize(difference, o.constant(2)[index], o.constant(3)[index])
    else:
        real = difference.astype(np.float32) * np.float32(x.scale[0])
        scaled = np.rint(real / np.float32(y.scale[0])).astype(np.int64)
    return scaled + y.zero_point


def _table(o: Operands) -> Int64:
    return o.constant(1)[o.values[0].astype(np.intp) + 128]


MEANINGS: Mapping[Op, Callable[[Operands], Int64]] = {
    Op.CONV_2D: _conv_2d,
    Op.DEPTHWISE_CONV_2D: _depthwise_conv_2d,
    Op.FULLY_CONNECTED: _fully_connected,
    Op.ADD: _add,
    Op.MAX_POOL: _max_pool,
    Op.AVERAGE_POOL: _average_pool,
    Op.RESHAPE: _reshape,
    Op.SOFTMAX: _softmax,
    Op.GROUPED_CONV_2D: _grouped_conv_2d,
    Op.PAD: _pad,
    Op.CONCAT: _concat,
    Op.TABLE: _table,
}
