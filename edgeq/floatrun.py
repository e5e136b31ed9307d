"""A float graph through onnxruntime: what every tensor is, for many samples at once.

The graph is written as an ONNX model in memory, in NCHW and with an open batch axis. One thread and
a fixed order: a machine gives the same bits every time. They may differ between machines, and, by
the last bits, with the number of samples in a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Array, Graph, Node, Op, Tensor, Unary, Window
from edgeq.ops import OPS, groups

if TYPE_CHECKING:
    import onnx

_OPSET, _IR_VERSION = 18, 10  # old enough for every onnxruntime that pyproject.toml admits
_ERRORS_ONLY = 3


class FloatRun:
    """`graph`, ready to give the tensors `wanted` (the outputs, if none are named)."""

    def __init__(self, graph: Graph, wanted: Sequence[str] = ()) -> None:
        import onnxruntime

        self.graph = graph
        self.wanted = tuple(dict.fromkeys(wanted or graph.outputs))
        for name in self.wanted:
            if name not in graph.tensors or graph.tensors[name].data is not None:
                raise GraphError("EQ0307", f"{graph.name} computes no tensor {name}")
        self._computed = tuple(name for name in self.wanted if name not in graph.inputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.use_deterministic_compute = True
        model = _model(graph, self._computed or graph.outputs)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Each wanted tensor for `inputs`, by name; float32, NHWC, first axis samples."""
        feeds = {}
        for name in self.graph.inputs:
            expected = self.graph.tensors[name].shape[1:]
            if name not in inputs or inputs[name].shape[1:] != expected:
                given = inputs[name].shape[1:] if name in inputs else None
                raise GraphError("EQ0306", f"input {name}: samples {given}, expected {expected}")
            feeds[name] = np.asarray(inputs[name], np.float32)
        nchw = {name: np.ascontiguousarray(_moved(x, -1, 1)) for name, x in feeds.items()}
        values = self._session.run(list(self._computed), nchw) if self._computed else []
        results = dict(zip(self._computed, (_moved(v, 1, -1) for v in values), strict=True))
        return {name: results[name] if name in results else feeds[name] for name in self.wanted}


def run(graph: Graph, inputs: Mapping[str, Array], wanted: Sequence[str] = ()) -> dict[str, Array]:
    """Each wanted tensor (the outputs, if none are named) for `inputs`, once."""
    return FloatRun(graph, wanted)(inputs)


def _moved(array: Array, source: int, destination: int) -> Array:
    return np.moveaxis(array, source, destination) if array.ndim == 4 else array


def _model(graph: Graph, outputs: Sequence[str]) -> onnx.ModelProto:
    from onnx import helper, numpy_helper

    writer = _Writer(graph)
    for node in graph.nodes:
        writer.write(node)
    infos = {
        name: helper.make_tensor_value_info(name, 1, ["batch", *_nchw(graph.tensors[name])[1:]])
        for name in (*graph.inputs, *outputs)
    }
    proto = helper.make_graph(
        [helper.make_node(*args, **attributes) for args, attributes in writer.nodes],
        graph.name or "graph",
        [infos[name] for name in graph.inputs],
        [infos[name] for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in writer.constants.items()],
    )
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(proto, opset_imports=[opset], ir_version=_IR_VERSION)


def _nchw(tensor: Tensor) -> tuple[int, ...]:
    shape = tensor.shape
    return (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape


class _Writer:
    """ONNX nodes, as arguments of `make_node`, and their constants."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[tuple[tuple[str, list[str], list[str]], dict[str, Any]]] = []
        self.constants: dict[str, Array] = {}

    def write(self, node: Node) -> None:
        """Append what `node` is in ONNX; a clamp becomes a node of its own."""
        if node.clamp is None or node.op is Op.CLIP:
            _WRITERS[node.op](self, node, node.output)
        else:
            unclamped = f"{node.output}/unclamped"
            _WRITERS[node.op](self, node, unclamped)
            self.clip(node.clamp, unclamped, node.output)

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """Append one ONNX node."""
        self.nodes.append(((op, list(inputs), [output]), attributes))

    def constant(self, name: str, array: Array) -> str:
        """Add a constant; its name."""
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def clip(self, clamp: tuple[float, float], source: str, output: str) -> None:
        """Append a Clip."""
        low, high = (
            self.constant(f"{output}/{side}", np.array(value, np.float32))
            for side, value in zip(("min", "max"), clamp, strict=True)
        )
        self.add("Clip", (source, low, high), output)


def _conv(writer: _Writer, node: Node, output: str) -> None:
    x, weights_name, bias_name = node.inputs
    weights = writer.graph.constant(weights_name)
    depthwise = node.op is Op.DEPTHWISE_CONV_2D
    oihw = weights[:, None] if depthwise else weights.transpose(0, 3, 1, 2)
    inputs = (
        x,
        writer.constant(f"{node.name}/weights", oihw),
        writer.constant(f"{node.name}/bias", writer.graph.constant(bias_name)),
    )
    group = writer.graph.tensors[x].shape[3] if depthwise else groups(writer.graph, node)
    writer.add("Conv", inputs, output, group=group, **_window(node.window))


def _fully_connected(writer: _Writer, node: Node, output: str) -> None:
    x, weights, bias = node.inputs
    inputs = (
        x,
        writer.constant(f"{node.name}/weights", writer.graph.constant(weights)),
        writer.constant(f"{node.name}/bias", writer.graph.constant(bias)),
    )
    writer.add("Gemm", inputs, output, transB=1)


def _window(window: Window | None) -> dict[str, Any]:
    assert window is not None  # the operator table demands it
    return {
        "kernel_shape": window.kernel,
        "strides": window.strides,
        "pads": window.pads,
        "dilations": window.dilations,
    }


def _max_pool(writer: _Writer, node: Node, output: str) -> None:
    writer.add("MaxPool", node.inputs, output, **_window(node.window))


def _average_pool(writer: _Writer, node: Node, output: str) -> None:
    attributes = _window(node.window)
    if attributes.pop("dilations") != (1, 1):
        raise GraphError("EQ0306", f"{node.name}: {OPS[node.op].limits}; no dilations")
    writer.add("AveragePool", node.inputs, output, count_include_pad=0, **attributes)


def _reshape(writer: _Writer, node: Node, output: str) -> None:
    source = node.inputs[0]
    if len(writer.graph.tensors[source].shape) == 4:
        source = f"{output}/nhwc"
        writer.add("Transpose", node.inputs, source, perm=(0, 2, 3, 1))
    wanted = writer.graph.tensors[node.output].shape
    shape = writer.constant(f"{output}/shape", np.array((-1, *wanted[1:]), np.int64))
    reshaped = f"{output}/reshaped" if len(wanted) == 4 else output
    writer.add("Reshape", (source, shape), reshaped)
    if len(wanted) == 4:
        writer.add("Transpose", (reshaped,), output, perm=(0, 3, 1, 2))


def _batch_norm(writer: _Writer, node: Node, output: str) -> None:
    for name in node.inputs[1:]:
        writer.constant(name, writer.graph.constant(name))
    writer.add("BatchNormalization", node.inputs, output, epsilon=node.epsilon)


def _clip(writer: _Writer, node: Node, output: str) -> None:
    assert node.clamp is not None  # as written by the front end
    writer.clip(node.clamp, node.inputs[0], output)


def _pad(writer: _Writer, node: Node, output: str) -> None:
    top, left, front, bottom, right, back = node.pads
    pads = np.array((0, front, top, left, 0, back, bottom, right), np.int64)
    value = writer.graph.constant(node.inputs[1]).reshape(())
    inputs = (
        node.inputs[0],
        writer.constant(f"{output}/pads", pads),
        writer.constant(f"{output}/value", value),
    )
    writer.add("Pad", inputs, output)


def _concat(writer: _Writer, node: Node, output: str) -> None:
    rank = len(writer.graph.tensors[node.output].shape)
    axis = (0, 2, 3, 1)[node.axis] if rank == 4 else node.axis
    writer.add("Concat", node.inputs, output, axis=axis)


def _table(writer: _Writer, node: Node, output: str) -> None:
    x, function = node.inputs[0], node.function
    assert function is not None  # the operator table demands it
    hard = {"alpha": function.alpha, "beta": function.beta}
    gate = f"{output}/gate"
    match function.kind:
        case Unary.IDENTITY:
            writer.add("Identity", (x,), output)
        case Unary.SIGMOID:
            writer.add("Sigmoid", (x,), output)
        case Unary.TANH:
            writer.add("Tanh", (x,), output)
        case Unary.HARD_SIGMOID:
            writer.add("HardSigmoid", (x,), output, **hard)
        case Unary.SILU:
            writer.add("Sigmoid", (x,), gate)
            writer.add("Mul", (x, gate), output)
        case Unary.HARD_SWISH:
            writer.add("HardSigmoid", (x,), gate, **hard)
            writer.add("Mul", (x, gate), output)
        case Unary.LEAKY_RELU:
            writer.add("LeakyRelu", (x,), output, alpha=function.alpha)
        case Unary.LINEAR:
            product = f"{output}/product"
            writer.add(
                "Mul", (x, writer.constant(f"{output}/alpha", _real(function.alpha))), product
            )
            writer.add(
                "Add", (product, writer.constant(f"{output}/beta", _real(function.beta))), output
            )


def _softmax(writer: _Writer, node: Node, output: str) -> None:
    scaled = f"{output}/scaled"
    writer.add("Mul", (*node.inputs, writer.constant(f"{output}/factor", _real(node.beta))), scaled)
    writer.add("Softmax", (scaled,), output, axis=1)


def _real(value: float) -> Array:
    return np.array(value, np.float32)


def _plain(op: str, **attributes: Any) -> Callable[[_Writer, Node, str], None]:
    def write(writer: _Writer, node: Node, output: str) -> None:
        writer.add(op, node.inputs, output, **attributes)

    return write


_WRITERS: Mapping[Op, Callable[[_Writer, Node, str], None]] = {
    Op.CONV_2D: _conv,
    Op.DEPTHWISE_CONV_2D: _conv,
    Op.FULLY_CONNECTED: _fully_connected,
    Op.ADD: _plain("Add"),
    Op.MAX_POOL: _max_pool,
    Op.AVERAGE_POOL: _average_pool,
    Op.RESHAPE: _reshape,
    Op.SOFTMAX: _softmax,
    Op.BATCH_NORM: _batch_norm,
    Op.CLIP: _clip,
    Op.IDENTITY: _plain("Identity"),
    Op.GROUPED_CONV_2D: _conv,
    Op.PAD: _pad,
    Op.CONCAT: _concat,
    Op.TABLE: _table,
    Op.MULTIPLY: _plain("Mul"),
}
