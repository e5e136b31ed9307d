"""Layers as ONNX nodes, with QuantizeLinear and DequantizeLinear around what computes.

Every activation is uint8, 128 above our integer, and every weight int8. A range of fewer bits, and
a fused activation, is a Clip between Q and DQ; there is none where it is the type's range, so that
a Relu is a zero point. What only moves values (maxima, pads, reshapes, tables) works on the
integers. Images are NCHW inside.

The fused kernels compute what `reference.Rounding.FLOAT32` says. Where onnxruntime's own kernel
would be a step off now and then, another form is exact: averages are taken of the integers
themselves, and softmax is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeq.ir import Array, Graph, Node, Op, QParams, Tensor, Window, qparams_of
from edgeq.ops import OPS, windows
from edgeq.packing import pack_dense

OFFSET = 128  # of uint8 above int8
BYTE = (0, 255)
INT4 = 4  # the fewest bits that onnxruntime has a type for
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)  # the axis that each axis comes from
# Under its parameters reals are the uint8 integers themselves; no other tensor has no name.
UNIT = Tensor("", (1,), qparams=QParams((1.0,), -OFFSET))

Properties = Mapping[str, str]


def integers(tensor: Tensor) -> str:
    """The name of the uint8 tensor that holds the integers of `tensor`, images in NCHW."""
    return f"{tensor.name}/q"


def stored_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of those integers, of one sample."""
    shape = tensor.shape
    return tuple(shape[axis] for axis in TO_NCHW) if len(shape) == 4 else shape


def describe(proto: onnx.ModelProto | onnx.NodeProto, properties: Properties) -> None:
    """Adds `properties` to the metadata, which Netron shows."""
    for key, value in properties.items():
        proto.metadata_props.add(key=f"edgeq.{key}", value=value)


def _properties(graph: Graph, node: Node) -> dict[str, str]:
    """What there is to know of a layer: bits, scale and zero point of its integers here."""
    info, y = OPS[node.op], qparams_of(graph.tensors[node.output])
    found = {"operator": node.op.value}
    if info.weighted:
        weights = graph.tensors[node.inputs[info.activations]]
        found["weight_bits"] = str(qparams_of(weights).bits)
    found["activation_bits"] = str(y.bits)
    found["scale"] = f"{y.scale[0]:.9g}"
    found["zero_point"] = str(y.zero_point + OFFSET)
    return found


class Writer:
    """Nodes and constants of a graph in the making.

    Constants of layers stand in the graph that reads them: what onnxruntime makes of weights on
    some cores it does there alone. The scales of activations stand in the outermost graph.
    """

    def __init__(self, *, int4: bool, outer: Writer | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.columns: dict[str, Array] = {}  # of images that were flattened as they lay
        self.root: Writer = self if outer is None else outer.root
        self.layers: dict[str, Properties] = {} if outer is None else outer.layers
        self._int4 = int4
        self._reals: set[str] = set()
        self._graphs = 0  # within the root
        self._suffix = ""

    def inside(self) -> Writer:
        """The writer of a graph within this one, which sees the tensors of this."""
        made = Writer(int4=self._int4, outer=self)
        self.root._graphs += 1
        made._suffix = str(self.root._graphs)
        return made

    def graph(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.GraphProto:
        """The graph of what was written."""
        constants = list(self.constants.values())
        return helper.make_graph(self.nodes, name, inputs, outputs, constants)

    def input(self, name: str, layout: str, tensor: Tensor) -> None:
        """The integers of an input of the model."""
        there = integers(tensor) if layout != "NHWC" else f"{tensor.name}/nhwc"
        self.add("QuantizeLinear", [name, *self.parameters(tensor)], there)
        if layout == "NHWC":
            self.add("Transpose", [there], integers(tensor), perm=TO_NCHW)

    def output(self, name: str, layout: str, tensor: Tensor) -> None:
        """The reals of an output of the model."""
        found = integers(tensor)
        if layout == "NHWC":
            found = self.add("Transpose", [found], f"{name}/nhwc", perm=TO_NHWC)
        self.add("DequantizeLinear", [found, *self.parameters(tensor)], name)

    def layers_of(self, graph: Graph) -> None:
        """The nodes of every operator of `graph`."""
        for node in graph.nodes:
            self.layer(graph, node)

    def layer(self, graph: Graph, node: Node) -> None:
        """The nodes of one operator; the one that computes has its name and properties."""
        start = len(self.nodes)
        kind = WRITERS[node.op]
        kind.write(self, graph, node)
        (main,) = (made for made in self.nodes[start:] if made.op_type == kind.operator)
        main.name = node.name
        properties = _properties(graph, node)
        describe(main, properties)
        self.layers[node.name] = properties

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Appends one node; its output."""
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, name: str, array: Array | np.generic) -> str:
        """Adds a constant; its name."""
        self.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def parameters(self, tensor: Tensor) -> tuple[str, str]:
        """The names of the scale and the zero point of an activation."""
        q = qparams_of(tensor)
        return (
            self.root.constant(f"{tensor.name}/scale", np.float32(q.scale[0])),
            self.root.constant(f"{tensor.name}/zero_point", np.uint8(q.zero_point + OFFSET)),
        )

    def real(self, tensor: Tensor) -> str:
        """The reals of an activation, dequantised once for all readers in this graph."""
        name = f"{tensor.name}/real{self._suffix}"
        if name not in self._reals:
            self._reals.add(name)
            self.add("DequantizeLinear", [integers(tensor), *self.parameters(tensor)], name)
        return name

    def quantize(self, node: Node, output: Tensor, real: str) -> None:
        """The integers of `output`, clamped as its bits and the node say."""
        self.clamped("QuantizeLinear", [real, *self.parameters(output)], node, output, BYTE)

    def clamped(
        self,
        op: str,
        inputs: Sequence[str],
        node: Node,
        output: Tensor,
        given: tuple[int, int],
        **attributes: Any,
    ) -> None:
        """A node whose integers are in `given`, and a Clip where the output's are in less."""
        q = qparams_of(output)
        bounds = [int(bound) + OFFSET for bound in node.clamp or (q.qmin, q.qmax)]
        if bounds[0] <= given[0] and given[1] <= bounds[1]:
            self.add(op, inputs, integers(output), **attributes)
            return
        limits = [
            self.constant(f"{output.name}/{name}", np.uint8(bound))
            for name, bound in zip(("low", "high"), bounds, strict=True)
        ]
        wide = self.add(op, inputs, f"{output.name}/wide", **attributes)
        self.add("Clip", [wide, *limits], integers(output))

    def weights(self, tensor: Tensor, array: Array) -> str:
        """The reals of weights, one scale for each channel of axis 0."""
        name, q = tensor.name, qparams_of(tensor)
        scale = self.constant(f"{name}/scale", np.asarray(q.scale, np.float32))
        stored = self.constant(f"{name}/q", np.ascontiguousarray(array, np.int8))
        if self._int4 and q.bits <= INT4:
            # A cast of a constant is folded when the model is loaded: kernels find int8.
            data = pack_dense(array, INT4)
            packed = helper.make_tensor(
                f"{name}/int4", TensorProto.INT4, array.shape, data, raw=True
            )
            self.constants[packed.name] = packed
            del self.constants[stored]
            self.add("Cast", [packed.name], stored, to=TensorProto.INT8)
        zero = self.constant(f"{name}/zero_point", np.zeros(len(array), np.int8))  # Gemm needs it
        return self.add("DequantizeLinear", [stored, scale, zero], f"{name}/real", axis=0)

    def bias(self, x: Tensor, weights: Tensor, bias: Tensor, array: Array) -> str:
        """The reals of a bias, whose scale is that of the products."""
        steps = np.float32(qparams_of(x).scale[0]) * np.asarray(
            qparams_of(weights).scale, np.float32
        )
        inputs = [
            self.constant(f"{bias.name}/q", np.asarray(array, np.int32)),
            self.constant(f"{bias.name}/scale", steps),
        ]
        return self.add("DequantizeLinear", inputs, f"{bias.name}/real", axis=0)


def _convolution(writer: Writer, graph: Graph, node: Node) -> None:
    x, weights, bias = (graph.tensors[name] for name in node.inputs[:3])
    array = graph.constant(weights.name)
    array = array.transpose(TO_NCHW) if array.ndim == 4 else array[:, None]
    inputs = [
        writer.real(x),
        writer.weights(weights, array),
        writer.bias(x, weights, bias, graph.constant(bias.name)),
    ]
    group = x.shape[3] // array.shape[1]
    attributes = {**_window(node), "dilations": _window_of(node).dilations, "group": group}
    result = writer.add("Conv", inputs, f"{node.output}/sum", **attributes)
    writer.quantize(node, graph.tensors[node.output], result)


def _fully_connected(writer: Writer, graph: Graph, node: Node) -> None:
    x, weights, bias = (graph.tensors[name] for name in node.inputs[:3])
    array = graph.constant(weights.name)
    inputs = [
        writer.real(x),
        writer.weights(weights, array[:, writer.columns.get(x.name, slice(None))]),
        writer.bias(x, weights, bias, graph.constant(bias.name)),
    ]
    result = writer.add("Gemm", inputs, f"{node.output}/sum", transB=1)
    writer.quantize(node, graph.tensors[node.output], result)


def _window_of(node: Node) -> Window:
    assert node.window is not None  # the operator table demands it
    return node.window


def _window(node: Node) -> dict[str, Any]:
    """The attributes of a window."""
    window = _window_of(node)
    return {"kernel_shape": window.kernel, "strides": window.strides, "pads": window.pads}


def _add(writer: Writer, graph: Graph, node: Node) -> None:
    inputs = [writer.real(graph.tensors[name]) for name in node.inputs[:2]]
    result = writer.add("Add", inputs, f"{node.output}/sum")
    writer.quantize(node, graph.tensors[node.output], result)


def _concat(writer: Writer, graph: Graph, node: Node) -> None:
    inputs = [writer.real(graph.tensors[name]) for name in node.inputs[:2]]
    output = graph.tensors[node.output]
    axis = TO_NCHW.index(node.axis) if len(output.shape) == 4 else node.axis
    result = writer.add("Concat", inputs, f"{node.output}/joined", axis=axis)
    writer.quantize(node, output, result)


def _max_pool(writer: Writer, graph: Graph, node: Node) -> None:
    x, output = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    q = qparams_of(x)
    given = (q.qmin + OFFSET, q.qmax + OFFSET)
    writer.clamped("MaxPool", [integers(x)], node, output, given, **_window(node))


def _average_pool(writer: Writer, graph: Graph, node: Node) -> None:
    """The mean of the integers: the scale cancels out, and ties are those of the integers."""
    x, output = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    name = node.output
    unit = writer.parameters(UNIT)
    real = writer.add("DequantizeLinear", [integers(x), *unit], f"{name}/values")
    mean = writer.add("AveragePool", [real], f"{name}/mean", **_window(node))
    counts = _counts(x, node)
    if not all(map(_has_reciprocal, np.unique(counts).tolist())):
        count = writer.constant(f"{name}/count", counts.astype(np.float32))
        near = writer.add("Mul", [mean, count], f"{name}/near")
        total = writer.add("Round", [near], f"{name}/total")
        mean = writer.add("Div", [total, count], f"{name}/quotient")
    writer.clamped("QuantizeLinear", [mean, *unit], node, output, BYTE)


def _counts(x: Tensor, node: Node) -> Array:
    """How many values of the image each window sees: (1, 1, height, width)."""
    window = _window_of(node)
    size = window.output_size(*x.shape[1:3])
    seen = windows(np.ones((1, *x.shape[1:3], 1), np.int64), window, 0, size)
    return np.asarray(seen.sum(axis=(3, 4)).transpose(TO_NCHW))


def _has_reciprocal(count: int) -> bool:
    """Whether sums of `count` bytes, times its reciprocal as float32, round as if divided.

    onnxruntime multiplies; where that takes a tie to another side (14, 26, 30, …) it must not.
    """
    sums = np.arange(BYTE[1] * count + 1, dtype=np.float32)
    product = sums * (np.float32(1) / np.float32(count))
    return np.array_equal(np.rint(product), np.rint(sums / np.float32(count)))


def _softmax(writer: Writer, graph: Graph, node: Node) -> None:
    """In float64, rounded there: a float32 exponential would decide some ties otherwise."""
    x, output = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    unit = writer.parameters(UNIT)
    name = node.output
    step = writer.constant(f"{name}/step", np.float64(qparams_of(x).scale[0]))
    steps = writer.constant(f"{name}/steps", np.float64(1 / qparams_of(output).scale[0]))
    wide = writer.add("Cast", [integers(x)], f"{name}/wide", to=TensorProto.DOUBLE)
    real = writer.add("Mul", [wide, step], f"{name}/exponents")
    share = writer.add("Softmax", [real], f"{name}/shares", axis=-1)
    scaled = writer.add("Mul", [share, steps], f"{name}/scaled")
    whole = writer.add("Round", [scaled], f"{name}/rounded")
    narrow = writer.add("Cast", [whole], f"{name}/narrow", to=TensorProto.FLOAT)
    writer.clamped("QuantizeLinear", [narrow, *unit], node, output, BYTE)


def _pad(writer: Writer, graph: Graph, node: Node) -> None:
    value = int(graph.constant(node.inputs[1])[0]) + OFFSET
    (top, left, first), (bottom, right, last) = node.pads[:3], node.pads[3:]
    sizes = np.array((0, first, top, left, 0, last, bottom, right), np.int64)
    inputs = [
        integers(graph.tensors[node.inputs[0]]),
        writer.constant(f"{node.output}/sizes", sizes),
        writer.constant(f"{node.output}/value", np.uint8(value)),
    ]
    writer.add("Pad", inputs, integers(graph.tensors[node.output]))


def _reshape(writer: Writer, graph: Graph, node: Node) -> None:
    """Channels last: fully connected layers alone take an image as it lies, by moved columns."""
    x, output = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    found, made = integers(x), integers(output)
    readers = {reader.op for reader in graph.consumers(output.name)}
    if not _same_in_both(x):
        if readers == {Op.FULLY_CONNECTED} and output.name not in graph.outputs:
            order = np.arange(x.elements).reshape(x.shape[1:])
            writer.columns[output.name] = order.transpose(2, 0, 1).reshape(-1)
        else:
            found = writer.add("Transpose", [found], f"{node.output}/nhwc", perm=TO_NHWC)
    sizes = output.shape[1:]
    moved = not _same_in_both(output)
    if len(sizes) == 3 and not moved:
        sizes = (sizes[2], *sizes[:2])
    shape = writer.constant(f"{node.output}/shape", np.array((0, *sizes), np.int64))
    made = f"{node.output}/reshaped" if moved else integers(output)
    writer.add("Reshape", [found, shape], made)
    if moved:
        writer.add("Transpose", [made], integers(output), perm=TO_NCHW)


def _same_in_both(tensor: Tensor) -> bool:
    """Whether `tensor` is the same bytes in NHWC and in NCHW."""
    shape = tensor.shape
    return len(shape) != 4 or shape[3] == 1 or shape[1] * shape[2] == 1


def _table(writer: Writer, graph: Graph, node: Node) -> None:
    table = graph.constant(node.inputs[1]).astype(np.int16) + OFFSET
    entries = writer.constant(f"{node.output}/table", table.astype(np.uint8))
    index = writer.add(
        "Cast", [integers(graph.tensors[node.inputs[0]])], f"{node.output}/index",
        to=TensorProto.INT32,
    )  # fmt: skip
    writer.add("Gather", [entries, index], integers(graph.tensors[node.output]), axis=0)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One row: the ONNX operator that computes, and what writes it with all around it."""

    operator: str
    write: Callable[[Writer, Graph, Node], None]


WRITERS: Mapping[Op, _Kind] = {
    Op.CONV_2D: _Kind("Conv", _convolution),
    Op.DEPTHWISE_CONV_2D: _Kind("Conv", _convolution),
    Op.GROUPED_CONV_2D: _Kind("Conv", _convolution),
    Op.FULLY_CONNECTED: _Kind("Gemm", _fully_connected),
    Op.ADD: _Kind("Add", _add),
    Op.CONCAT: _Kind("Concat", _concat),
    Op.MAX_POOL: _Kind("MaxPool", _max_pool),
    Op.AVERAGE_POOL: _Kind("AveragePool", _average_pool),
    Op.SOFTMAX: _Kind("Softmax", _softmax),
    Op.PAD: _Kind("Pad", _pad),
    Op.RESHAPE: _Kind("Reshape", _reshape),
    Op.TABLE: _Kind("Gather", _table),
}
