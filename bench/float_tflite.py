"""A float graph as a TFLite model: what peers that take no ONNX are given.

Knows the operators of the networks that are compared, batch norms folded. Pads that are neither
SAME nor VALID become a PAD, as in the converters of TensorFlow and PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgeq.exporters.tflite_file import Writer, load_schema
from edgeq.ir import Array, Graph, Node, Op, Tensor

ACTIVATIONS = {None: "NONE", (0.0, float("inf")): "RELU", (0.0, 6.0): "RELU6"}


def build(graph: Graph) -> bytes:
    """The model of `graph`, float32 throughout, its tensors named as in the graph."""
    w = Writer(load_schema(), graph)
    for name in graph.inputs:
        activation(w, name)
    for node in graph.nodes:
        RULES[node.op](w, node)
    inputs, outputs = ({name: name for name in names} for names in (graph.inputs, graph.outputs))
    return w.finish(graph.name, inputs, outputs, b"{}")


def activation(w: Writer, name: str) -> int:
    return w.tensor(name, w.graph.tensors[name].shape, np.float32)


def constant(w: Writer, name: str) -> int:
    return w.constant(name, np.ascontiguousarray(w.graph.constant(name), np.float32))


def fused(w: Writer, node: Node) -> dict[str, object]:
    types = w.schema.ActivationFunctionType
    return {"fusedActivationFunction": getattr(types, ACTIVATIONS[node.clamp])}


def padded(w: Writer, name: str, x: Tensor, sizes: Array, output: str | None = None) -> int:
    """The operator that surrounds `x` with zeros, by axis `sizes` before and behind it."""
    shape = [size + int(sum(pair)) for size, pair in zip(x.shape, sizes, strict=True)]
    target = w.tensor(output or f"{name}.padded", shape, np.float32)
    pads = w.constant(f"{name}.pads", sizes.astype(np.int32))
    return w.operator("PAD", (w.index[x.name], pads), target, "PadOptions")


def placed(w: Writer, node: Node) -> tuple[int, dict[str, object]]:
    """The input of a windowed operator, and how its window walks."""
    assert node.window is not None
    window, x = node.window, w.graph.tensors[node.inputs[0]]
    (top, left, bottom, right), output = window.pads, w.graph.tensors[node.output].shape[1:3]
    total = [
        max((out - 1) * stride + kernel - size, 0)
        for out, stride, kernel, size in zip(
            output, window.strides, window.kernel, x.shape[1:3], strict=True
        )
    ]
    ceiling = tuple(-(-size // s) for size, s in zip(x.shape[1:3], window.strides, strict=True))
    source, padding = w.index[x.name], "VALID"
    if any(window.pads):
        if (top, left) == (total[0] // 2, total[1] // 2) and output == ceiling:
            padding = "SAME"
        else:
            sizes = np.array([(0, 0), (top, bottom), (left, right), (0, 0)])
            source = padded(w, node.name, x, sizes)
    fields: dict[str, object] = {"padding": getattr(w.schema.Padding, padding)}
    return source, fields | {"strideH": window.strides[0], "strideW": window.strides[1]}


def conv(w: Writer, node: Node) -> None:
    source, fields = placed(w, node)
    inputs = (source, *(constant(w, name) for name in node.inputs[1:]))
    fields |= {**fused(w, node), "dilationHFactor": 1, "dilationWFactor": 1}
    w.operator("CONV_2D", inputs, activation(w, node.output), "Conv2DOptions", fields)


def fully_connected(w: Writer, node: Node) -> None:
    inputs = (w.index[node.inputs[0]], *(constant(w, name) for name in node.inputs[1:]))
    output = activation(w, node.output)
    w.operator("FULLY_CONNECTED", inputs, output, "FullyConnectedOptions", fused(w, node))


def add(w: Writer, node: Node) -> None:
    inputs = [w.index[name] for name in node.inputs]
    w.operator("ADD", inputs, activation(w, node.output), "AddOptions", fused(w, node))


def pool(w: Writer, node: Node) -> None:
    assert node.window is not None
    source, fields = placed(w, node)
    height, width = node.window.kernel
    fields |= {"filterHeight": height, "filterWidth": width, **fused(w, node)}
    code = {Op.MAX_POOL: "MAX_POOL_2D", Op.AVERAGE_POOL: "AVERAGE_POOL_2D"}[node.op]
    w.operator(code, (source,), activation(w, node.output), "Pool2DOptions", fields)


def pad(w: Writer, node: Node) -> None:
    assert not w.graph.constant(node.inputs[1]).any()
    sizes = np.array([(0, 0), *zip(node.pads[:3], node.pads[3:], strict=True)])
    padded(w, node.name, w.graph.tensors[node.inputs[0]], sizes, node.output)


def reshape(w: Writer, node: Node) -> None:
    shape = np.array(w.graph.tensors[node.output].shape, np.int32)
    inputs = (w.index[node.inputs[0]], w.constant(f"{node.name}.shape", shape))
    fields = {"newShape": shape.tolist()}
    w.operator("RESHAPE", inputs, activation(w, node.output), "ReshapeOptions", fields)


RULES: Mapping[Op, Callable[[Writer, Node], None]] = {
    Op.CONV_2D: conv,
    Op.FULLY_CONNECTED: fully_connected,
    Op.ADD: add,
    Op.MAX_POOL: pool,
    Op.AVERAGE_POOL: pool,
    Op.PAD: pad,
    Op.RESHAPE: reshape,
}
