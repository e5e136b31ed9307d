"""The integer graph as a TFLite model: integer tensors, float32 scales, no TensorFlow needed.

A runtime derives multipliers, clamps and pads from what stands in the file. What it derives is
computed here in its way and held to the integer graph: pads that are neither SAME nor VALID become
a PAD, clamps that no fused activation gives become MINIMUM and MAXIMUM, and scales that would lead
to other multipliers are refused. Values of fewer than 8 bits stand in int8 tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

import edgeq
from edgeq import fixedpoint
from edgeq.errors import GraphError
from edgeq.exporters.tflite_file import Writer, container, load_schema
from edgeq.ir import Array, Bounds, Node, Op, QParams, Tensor, Unary, Window, qparams_of
from edgeq.ops import OPS
from edgeq.program import Program

INFINITY = float("inf")
# Steps of the output in one of an input, or of a product, from which XNNPACK takes no operator: it
# leaves additions to LiteRT, and the model with such a layer does not load.
COARSEST = 256
# What the fused activations clamp to; the plainest that does is taken.
ACTIVATIONS: Mapping[str, Bounds] = {
    "NONE": (-INFINITY, INFINITY),
    "RELU": (0.0, INFINITY),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


def export(program: Program, path: Path) -> None:
    """Writes the model of `program` to `path`; see `build` for what it refuses."""
    path.write_bytes(build(program))


def build(program: Program) -> bytes:
    """The model as a TFLite flatbuffer: the same bytes for the same program.

    Raises:
        MissingToolError: ai-edge-litert, whose schema this is written with, is not installed.
        GraphError: the network has gates, a layer between 8 and 16 bits, an average pool whose pads
            TFLite cannot say, an addition in which LiteRT overflows, a layer that XNNPACK does not
            load, or scales from which TFLite derives other multipliers.
    """
    if len(program.network.graphs) != 1 or program.gate is not None:
        raise GraphError(
            "EQ0381",
            f"{program.name}: TFLite takes one block at one level, the network has more; the C and "
            "ONNX (--target edge, edge-int4) take exits and levels",
        )
    graph = program.network.graphs[0]
    writer = Writer(load_schema(), graph)
    for name in graph.inputs:
        writer.activation(name)
    for node in graph.nodes:
        _RULES[node.op](writer, node)
    inputs = {source.port.name: source.tensor.name for source in program.inputs}
    outputs = {port.name: port.tensor for port in program.outputs}
    return writer.finish(program.name, inputs, outputs, _metadata(program))


def _metadata(program: Program) -> bytes:
    """What the int8 containers do not show: the bits of every layer, and of which model."""
    graph = program.network.graphs[0]
    layers = {}
    for node in graph.nodes:
        bits = {"activations": qparams_of(graph.tensors[node.output]).bits}
        if OPS[node.op].weighted:
            bits["weights"] = qparams_of(graph.tensors[node.inputs[1]]).bits
        layers[node.name] = {"op": node.op.value, "output": node.output, **bits}
    content = {"edgeq": edgeq.__version__, "model": program.model_sha256, "layers": layers}
    return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()


# Clamps #


def limits(q: QParams) -> Bounds:
    """The least and greatest value of the container, int8 or int16."""
    info = np.iinfo(container(q))
    return int(info.min), int(info.max)


def activation_range(name: str, y: QParams) -> Bounds:
    """The integers that TFLite clamps to for a fused activation (CalculateActivationRange)."""
    least, greatest = limits(y)
    bounds: list[float] = []
    for real, limit in zip(ACTIVATIONS[name], limits(y), strict=True):
        if np.isinf(real):
            bounds.append(limit)
        else:
            steps = float(np.float32(real) / np.float32(y.scale[0]))
            away = int(np.copysign(np.floor(abs(steps) + 0.5), steps))
            bounds.append(min(max(y.zero_point + away, least), greatest))
    return bounds[0], bounds[1]


def _fitting_activation(
    names: Sequence[str], wanted: Bounds, reach: Bounds, y: QParams
) -> tuple[str, tuple[bool, bool]]:
    """The activation that leaves least to do, and whether low and high bound are still to do.

    Values lie in `reach` before it.
    """
    best: tuple[str, tuple[bool, bool]] | None = None
    for name in names:
        low, high = _both(activation_range(name, y), reach)
        missing = (low < wanted[0], high > wanted[1])
        cuts = low > wanted[0] or high < wanted[1]
        if not cuts and (best is None or sum(missing) < sum(best[1])):
            best = name, missing
    if best is None:
        raise AssertionError("no activation at all cuts nothing")
    return best


def _both(first: Bounds, second: Bounds) -> Bounds:
    return max(first[0], second[0]), min(first[1], second[1])


def _clamped(
    w: Writer,
    node: Node,
    code: str,
    inputs: Sequence[int],
    options: str,
    fields: Mapping[str, object] | None = None,
    reach: Bounds | None = None,
    activations: Sequence[str] = tuple(ACTIVATIONS),
) -> None:
    """The operator of `node`, and what its fused activation leaves of the clamp to do."""
    y = qparams_of(w.graph.tensors[node.output])
    reach = reach or limits(y)
    wanted = _both(node.clamp or (y.qmin, y.qmax), reach)
    activation, missing = _fitting_activation(activations, wanted, reach, y)
    fused = getattr(w.schema.ActivationFunctionType, activation)
    output = w.activation(node.output, suffix=".unclamped" if any(missing) else "")
    fields = {**(fields or {}), "fusedActivationFunction": fused}
    values = w.operator(code, inputs, output, options, fields)
    if any(missing):
        _clamp(w, node, values, wanted, missing)


def _clamp(w: Writer, node: Node, values: int, bounds: Bounds, missing: tuple[bool, bool]) -> None:
    """MAXIMUM and MINIMUM that hold `values` to the missing bounds, into the node's output."""
    y = qparams_of(w.graph.tensors[node.output])
    rows = zip(("MAXIMUM", "MINIMUM"), ("low", "high"), bounds, missing, strict=True)
    steps = [(code, name, bound) for code, name, bound, needed in rows if needed]
    for code, name, bound in steps:
        last = name == steps[-1][1]
        limit = w.constant(f"{node.name}.{name}", np.array([bound], container(y)), y)
        output = w.activation(node.output, suffix="" if last else f".{name}")
        values = w.operator(code, (values, limit), output, "MaximumMinimumOptions")


# Windows #


def _same(size: int, out: int, reach: int, stride: int, before: int) -> bool:
    """Whether SAME places the window as it stands, on one axis."""
    return out == -(-size // stride) and before == max((out - 1) * stride + reach - size, 0) // 2


def _valid(size: int, out: int, reach: int, stride: int, before: int) -> bool:
    return before == 0 and out == (size - reach) // stride + 1


def _placed(w: Writer, node: Node, fill: int | None) -> tuple[int, dict[str, object]]:
    """The input of a windowed operator, padded with `fill` where need be, and its options.

    Raises:
        GraphError: it needs a pad, and may have none (`fill` is None).
    """
    window = _window(node)
    x, output = w.graph.tensors[node.inputs[0]], w.graph.tensors[node.output]
    reach = [d * (k - 1) + 1 for d, k in zip(window.dilations, window.kernel, strict=True)]
    axes = list(
        zip(x.shape[1:3], output.shape[1:3], reach, window.strides, window.pads[:2], strict=True)
    )
    source = w.index[x.name]
    padding = "VALID"
    if not all(_valid(*axis) for axis in axes):
        if all(_same(*axis) for axis in axes):
            padding = "SAME"
        elif fill is None:
            raise GraphError(
                "EQ0382",
                f"{node.name}: TFLite has no average pool with pads {window.pads} that it does not "
                "count; pads of SAME or none would be right",
            )
        else:
            sizes = [
                (before, max((out - 1) * stride + reach - size - before, 0))
                for size, out, reach, stride, before in axes
            ]
            source = _pad_with(w, node.name, x, ((0, 0), *sizes, (0, 0)), fill, None)
    fields: dict[str, object] = {
        "padding": getattr(w.schema.Padding, padding),
        "strideH": window.strides[0],
        "strideW": window.strides[1],
    }
    return source, fields


def _window(node: Node) -> Window:
    if node.window is None:
        raise GraphError("EQ0304", f"{node.name}: {node.op.value} needs a window")
    return node.window


def _dilation(node: Node) -> dict[str, object]:
    height, width = _window(node).dilations
    return {"dilationHFactor": height, "dilationWFactor": width}


def _pad_with(
    w: Writer,
    name: str,
    x: Tensor,
    sizes: Sequence[tuple[int, int]],
    fill: int,
    output: str | None,
) -> int:
    """The operator that surrounds `x` with the integer `fill`, into the graph's tensor `output`."""
    q = qparams_of(x)
    pads = w.constant(f"{name}.pads", np.array(sizes, np.int32))
    if output is None:
        shape = [size + sum(pair) for size, pair in zip(x.shape, sizes, strict=True)]
        target = w.tensor(f"{name}.padded", shape, container(q), q)
    else:
        target = w.activation(output)
    if fill == q.zero_point:
        return w.operator("PAD", (w.index[x.name], pads), target, "PadOptions")
    value = w.constant(f"{name}.fill", np.array([fill], container(q)), q)
    return w.operator("PADV2", (w.index[x.name], pads, value), target, "PadV2Options")


# Operators #


def _held(w: Writer, node: Node, ratios: Sequence[float], first: int) -> None:
    """The runtime's multipliers, of `ratios` of float32 scales, are those of the integer graph.

    Raises:
        GraphError: they are not.
    """
    wanted = zip(
        w.graph.constant(node.inputs[first]).reshape(-1).tolist(),
        w.graph.constant(node.inputs[first + 1]).reshape(-1).tolist(),
        strict=True,
    )
    for index, (ratio, pair) in enumerate(zip(ratios, wanted, strict=True)):
        if fixedpoint.quantize_multiplier(ratio) != pair:
            raise GraphError(
                "EQ0383",
                f"{node.name}: TFLite derives multiplier and shift "
                f"{fixedpoint.quantize_multiplier(ratio)} from the scales of channel {index}; the "
                f"network has {pair}",
            )


def _of_one_width(node: Node, *tensors: Tensor) -> None:
    """The kernels of TFLite read and give values of one type.

    Raises:
        GraphError: `tensors` have several.
    """
    if len({qparams_of(tensor).wide for tensor in tensors}) > 1:
        raise GraphError(
            "EQ0385",
            f"{node.name}: TFLite has no {node.op.value} of 16-bit activations and of 8-bit ones; "
            "give all that it reads and gives 16, or at most 8",
        )


def _scales(tensor: Tensor) -> list[float]:
    """The scales as the file keeps them, in float32."""
    return [float(np.float32(scale)) for scale in qparams_of(tensor).scale]


def _weights_of_conv(data: Array) -> tuple[Array, int]:
    return data, 0


def _weights_of_depthwise(data: Array) -> tuple[Array, int]:
    return np.moveaxis(data, 0, -1)[None], 3


# How TFLite lays the weights of an operator out, and along which axis their channels run.
_WEIGHTS: Mapping[Op, Callable[[Array], tuple[Array, int]]] = {
    Op.CONV_2D: _weights_of_conv,
    Op.GROUPED_CONV_2D: _weights_of_conv,
    Op.DEPTHWISE_CONV_2D: _weights_of_depthwise,
    Op.FULLY_CONNECTED: _weights_of_conv,
}


def _constants(w: Writer, node: Node) -> tuple[int, int]:
    """Weights and bias of a layer; what they lead to is held to the network's multipliers.

    Raises:
        GraphError: it is not, or XNNPACK loads no model with such a layer.
    """
    x, weights, output = (w.graph.tensors[n] for n in (*node.inputs[:2], node.output))
    (sx,), sw, (sy,) = _scales(x), _scales(weights), _scales(output)
    products = [sx * scale for scale in sw]
    if one_scale := node.op is Op.FULLY_CONNECTED and len(set(sw)) == 1:
        products = [float(np.float32(product)) for product in products]  # as runtimes have it then
    _held(w, node, [product / sy for product in products], 3)
    coarsest = max(products) / sy
    if coarsest >= COARSEST and not qparams_of(x).wide:
        raise GraphError(
            "EQ0386",
            f"{node.name}: a product's step is {coarsest:.0f} of the output's; XNNPACK loads no "
            f"model with a layer from {COARSEST} on",
        )
    data, axis = _WEIGHTS[node.op](w.graph.constant(weights.name))
    _of_one_width(node, x, output)
    kind = np.int64 if qparams_of(x).wide else np.int32
    bias = w.graph.constant(node.inputs[2]).astype(kind)
    written = 1 if one_scale else len(sw)
    return (
        w.constant(weights.name, np.ascontiguousarray(data), _steps(sw[:written]), axis),
        w.constant(node.inputs[2], bias, _steps(products[:written])),
    )


def _steps(scales: Sequence[float]) -> QParams:
    return QParams(tuple(scales), axis=0)


def _conv(w: Writer, node: Node) -> None:
    source, fields = _placed(w, node, qparams_of(w.graph.tensors[node.inputs[0]]).zero_point)
    fields |= _dilation(node)
    _clamped(w, node, "CONV_2D", (source, *_constants(w, node)), "Conv2DOptions", fields)


def _depthwise(w: Writer, node: Node) -> None:
    x, weights = (w.graph.tensors[name] for name in node.inputs[:2])
    source, fields = _placed(w, node, qparams_of(x).zero_point)
    fields |= _dilation(node)
    fields["depthMultiplier"] = weights.shape[0] // x.shape[3]
    inputs = (source, *_constants(w, node))
    _clamped(w, node, "DEPTHWISE_CONV_2D", inputs, "DepthwiseConv2DOptions", fields)


def _fully_connected(w: Writer, node: Node) -> None:
    inputs = (w.index[node.inputs[0]], *_constants(w, node))
    _clamped(w, node, "FULLY_CONNECTED", inputs, "FullyConnectedOptions")


def _add(w: Writer, node: Node) -> None:
    tensors = [w.graph.tensors[name] for name in (*node.inputs[:2], node.output)]
    _of_one_width(node, *tensors)
    first, second, y = (_scales(tensor)[0] for tensor in tensors)
    coarsest = max(first, second)
    if coarsest >= COARSEST * y:
        raise GraphError(
            "EQ0384",
            f"{node.name}: an input's step is {coarsest / y:.0f} of the output's; LiteRT overflows "
            f"in additions from {COARSEST}",
        )
    common = 2 * coarsest
    wide = qparams_of(tensors[0]).wide
    unit = 1 << (fixedpoint.ADD_LEFT_SHIFT_WIDE if wide else fixedpoint.ADD_LEFT_SHIFT)
    _held(w, node, [first / common, second / common, common / (unit * y)], 2)
    inputs = [w.index[name] for name in node.inputs[:2]]
    _clamped(w, node, "ADD", inputs, "AddOptions", {"potScaleInt16": not wide})


def _max_pool(w: Writer, node: Node) -> None:
    least, _ = limits(qparams_of(w.graph.tensors[node.output]))
    _pool(w, node, "MAX_POOL_2D", int(least))


def _average_pool(w: Writer, node: Node) -> None:
    _pool(w, node, "AVERAGE_POOL_2D", None)


def _pool(w: Writer, node: Node, code: str, fill: int | None) -> None:
    q, window = qparams_of(w.graph.tensors[node.output]), _window(node)
    source, fields = _placed(w, node, fill)
    fields |= {"filterHeight": window.kernel[0], "filterWidth": window.kernel[1]}
    _clamped(w, node, code, (source,), "Pool2DOptions", fields, (q.qmin, q.qmax))


def _reshape(w: Writer, node: Node) -> None:
    shape = w.graph.tensors[node.output].shape
    wanted = w.constant(f"{node.name}.shape", np.array(shape, np.int32))
    inputs = (w.index[node.inputs[0]], wanted)
    output = w.activation(node.output)
    w.operator("RESHAPE", inputs, output, "ReshapeOptions", {"newShape": list(shape)})


def _softmax(w: Writer, node: Node) -> None:
    (scale,) = _scales(w.graph.tensors[node.inputs[0]])
    integer_bits = 31 - fixedpoint.SOFTMAX_INTEGER_BITS
    _held(w, node, [min(scale * (1 << integer_bits), (1 << 31) - 1.0)], 1)
    inputs = (w.index[node.inputs[0]],)
    w.operator("SOFTMAX", inputs, w.activation(node.output), "SoftmaxOptions", {"beta": 1.0})


def _pad(w: Writer, node: Node) -> None:
    x = w.graph.tensors[node.inputs[0]]
    sizes = ((0, 0), *zip(node.pads[:3], node.pads[3:], strict=True))
    value = int(w.graph.constant(node.inputs[1]).reshape(-1)[0])
    _pad_with(w, node.name, x, sizes, value, node.output)


def _concat(w: Writer, node: Node) -> None:
    """CONCATENATION joins integers as they are: inputs of other parameters meet QUANTIZE first."""
    y = w.graph.tensors[node.output]
    parts = [w.graph.tensors[name] for name in node.inputs[:2]]
    _held(w, node, [_scales(part)[0] / _scales(y)[0] for part in parts], 2)
    inputs = []
    reach: Bounds = (qparams_of(y).qmin, qparams_of(y).qmax)
    for position, part in enumerate(parts):
        index, q = w.index[part.name], qparams_of(part)
        if (q.scale, q.zero_point) != (qparams_of(y).scale, qparams_of(y).zero_point):
            name = f"{node.name}.input_{position + 1}"
            target = w.tensor(name, part.shape, container(qparams_of(y)), qparams_of(y))
            index = w.operator("QUANTIZE", (index,), target, "QuantizeOptions")
            reach = limits(qparams_of(y))
        elif q.bits > qparams_of(y).bits:
            reach = limits(qparams_of(y))
        inputs.append(index)
    options, fields = "ConcatenationOptions", {"axis": node.axis}
    _clamped(w, node, "CONCATENATION", inputs, options, fields, reach, ("NONE",))


def _table(w: Writer, node: Node) -> None:
    """A clip as MAXIMUM and MINIMUM; any other table by GATHER, the same in every runtime."""
    table = w.graph.constant(node.inputs[1])
    x = w.index[node.inputs[0]]
    if node.function is not None and node.function.kind is Unary.IDENTITY:
        bounds = int(table.min()), int(table.max())
        least, greatest = limits(qparams_of(w.graph.tensors[node.output]))
        cuts_low, cuts_high = bounds[0] > least, bounds[1] < greatest
        _clamp(w, node, x, bounds, (cuts_low, cuts_high or not cuts_low))
        return
    shape = w.graph.tensors[node.output].shape
    types = w.schema.TensorType
    wide = w.tensor(f"{node.name}.integers", shape, np.int32)
    fields = {"inDataType": types.INT8, "outDataType": types.INT32}
    w.operator("CAST", (x,), wide, "CastOptions", fields)
    offset = w.constant(f"{node.name}.offset", np.array([128], np.int32))
    indices = w.tensor(f"{node.name}.indices", shape, np.int32)
    w.operator("ADD", (wide, offset), indices, "AddOptions")
    values = w.constant(node.inputs[1], table, qparams_of(w.graph.tensors[node.output]))
    w.operator("GATHER", (values, indices), w.activation(node.output), "GatherOptions")


_RULES: Mapping[Op, Callable[[Writer, Node], None]] = {
    Op.CONV_2D: _conv,
    Op.GROUPED_CONV_2D: _conv,
    Op.DEPTHWISE_CONV_2D: _depthwise,
    Op.FULLY_CONNECTED: _fully_connected,
    Op.ADD: _add,
    Op.MAX_POOL: _max_pool,
    Op.AVERAGE_POOL: _average_pool,
    Op.RESHAPE: _reshape,
    Op.SOFTMAX: _softmax,
    Op.PAD: _pad,
    Op.CONCAT: _concat,
    Op.TABLE: _table,
}
