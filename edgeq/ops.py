"""The table of operators: what each takes, gives and costs, and the sentence that users read.

`verify` holds a graph to this table. `docs/SUPPORTED_OPS.md` is generated from the same rows.
Constants are laid out as the device reads them: convolution weights (O, H, W, I), depthwise
(O, H, W) with O a multiple of the input's channels, fully connected (O, I).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Array, Graph, Node, Op, Tensor, Window

SOFTMAX_MOST = 4095  # values in a row: sums of exponentials are Q12.19

Shape = tuple[int, ...]
ShapeRule = Callable[[Node, Sequence[Tensor], Tensor], Shape]


@dataclass(frozen=True, slots=True)
class OpInfo:
    """One row. `activations` counts the inputs that are computed, the rest are constants."""

    activations: int
    shape: ShapeRule
    sources: str  # ONNX operators that become this one
    limits: str  # the sentence that a refusal and the docs both show
    weighted: bool = False  # (weights, bias) follow the activations
    windowed: bool = False
    in_place: bool = False  # the output may overwrite an input that dies here
    keeps_qparams: bool = False  # output integers mean what the input's meant
    fuses_clamp: bool = True
    device: bool = True  # False: a pass must have removed it before quantisation


def _windowed_shape(node: Node, inputs: Sequence[Tensor], channels: int) -> Shape:
    batch, height, width, _ = inputs[0].shape
    if node.window is None:
        raise GraphError("EQ0304", f"{node.name}: {node.op.value} needs a window")
    out_height, out_width = node.window.output_size(height, width)
    if min(out_height, out_width) < 1:
        raise GraphError(
            "EQ0305",
            f"{node.name}: a {node.window.kernel} window with strides {node.window.strides} "
            f"does not fit an input of {height}×{width} with pads {node.window.pads}",
        )
    return (batch, out_height, out_width, channels)


def _conv_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    x, weights = inputs[0], inputs[1]
    _expect_rank(node, x, 4)
    if len(weights.shape) != 4 or weights.shape[3] != x.shape[3]:
        raise GraphError("EQ0306", f"{node.name}: weights {weights.shape} for input {x.shape}")
    return _windowed_shape(node, inputs, weights.shape[0])


def _depthwise_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    x, weights = inputs[0], inputs[1]
    _expect_rank(node, x, 4)
    if len(weights.shape) != 3 or weights.shape[0] % x.shape[3]:
        raise GraphError("EQ0306", f"{node.name}: weights {weights.shape} for input {x.shape}")
    return _windowed_shape(node, inputs, weights.shape[0])


def _fully_connected_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    x, weights = inputs[0], inputs[1]
    _expect_rank(node, x, 2)
    if len(weights.shape) != 2 or weights.shape[1] != x.shape[1]:
        raise GraphError("EQ0306", f"{node.name}: weights {weights.shape} for input {x.shape}")
    return (x.shape[0], weights.shape[0])


def _pool_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    _expect_rank(node, inputs[0], 4)
    window = node.window
    if window is not None and window.dilations != (1, 1):
        raise GraphError("EQ0305", f"{node.name}: pools have no dilation, got {window.dilations}")
    if window is not None and (
        max(window.pads[0], window.pads[2]) >= window.kernel[0]
        or max(window.pads[1], window.pads[3]) >= window.kernel[1]
    ):
        raise GraphError(
            "EQ0305",
            f"{node.name}: pads {window.pads} leave windows of {window.kernel} without any input",
        )
    return _windowed_shape(node, inputs, inputs[0].shape[3])


def _add_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    if inputs[0].shape != inputs[1].shape:
        raise GraphError(
            "EQ0306",
            f"{node.name}: adds shapes {inputs[0].shape} and {inputs[1].shape}; they must be equal",
        )
    return inputs[0].shape


def _reshape_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    if math.prod(output.shape) != math.prod(inputs[0].shape):
        raise GraphError("EQ0306", f"{node.name}: {inputs[0].shape} cannot become {output.shape}")
    return output.shape


def _softmax_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    _expect_rank(node, inputs[0], 2)
    if inputs[0].shape[1] > SOFTMAX_MOST:
        raise GraphError(
            "EQ0305",
            f"{node.name}: a softmax over {inputs[0].shape[1]} values; at most {SOFTMAX_MOST} fit",
        )
    return inputs[0].shape


def _same_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    return inputs[0].shape


def _expect_rank(node: Node, tensor: Tensor, rank: int) -> None:
    if len(tensor.shape) != rank:
        raise GraphError(
            "EQ0306", f"{node.name}: {node.op.value} takes rank {rank}, got shape {tensor.shape}"
        )


OPS: Mapping[Op, OpInfo] = {
    Op.CONV_2D: OpInfo(
        1, _conv_shape, "Conv", weighted=True, windowed=True,
        limits="2-D, constant weights, group 1; any kernel, stride, dilation and zero padding",
    ),
    Op.DEPTHWISE_CONV_2D: OpInfo(
        1, _depthwise_shape, "Conv", weighted=True, windowed=True,
        limits="2-D, constant weights, one group per input channel, any channel multiplier",
    ),
    Op.FULLY_CONNECTED: OpInfo(
        1, _fully_connected_shape, "Gemm, MatMul (+ Add)", weighted=True,
        limits="constant weights; an input of rank 2, or flattened to it",
    ),
    Op.ADD: OpInfo(
        2, _add_shape, "Add", in_place=True,
        limits="two computed tensors of the same shape",
    ),
    Op.MAX_POOL: OpInfo(
        1, _pool_shape, "MaxPool, GlobalMaxPool", windowed=True, keeps_qparams=True,
        limits="2-D, no dilation; pads smaller than the kernel",
    ),
    Op.AVERAGE_POOL: OpInfo(
        1, _pool_shape, "AveragePool, GlobalAveragePool, ReduceMean", windowed=True,
        keeps_qparams=True,
        limits="2-D, no dilation, padding not counted (count_include_pad 0); "
        "ReduceMean over height and width",
    ),
    Op.RESHAPE: OpInfo(
        1, _reshape_shape, "Reshape, Flatten, Squeeze, Unsqueeze", keeps_qparams=True,
        fuses_clamp=False,
        limits="static shapes; a flattened image may feed fully connected layers only",
    ),
    Op.SOFTMAX: OpInfo(
        1, _softmax_shape, "Softmax", in_place=True, fuses_clamp=False,
        limits="over the last axis of a rank-2 tensor of at most 4095 values",
    ),
    Op.BATCH_NORM: OpInfo(
        1, _same_shape, "BatchNormalization", device=False, fuses_clamp=False,
        limits="inference form; folded into the convolution or fully connected layer before it, "
        "else kept as a 1×1 depthwise convolution",
    ),
    Op.CLIP: OpInfo(
        1, _same_shape, "Relu, Clip (Relu6)", device=False,
        limits="fused into the operator before it, which must have no other reader",
    ),
    Op.IDENTITY: OpInfo(
        1, _same_shape, "Identity, Dropout", device=False, fuses_clamp=False,
        limits="removed",
    ),
}  # fmt: skip


def windows(x: Array, window: Window, fill: float, size: tuple[int, int]) -> Array:
    """What `window` sees of NHWC `x`, padded with `fill`: a view (N, Ho, Wo, kh, kw, C)."""
    top, left, bottom, right = window.pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    reach = [d * (k - 1) + 1 for d, k in zip(window.dilations, window.kernel, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
    (sh, sw), (dh, dw) = window.strides, window.dilations
    view = view[:, ::sh, ::sw, :, ::dh, ::dw][:, : size[0], : size[1]]
    return view.transpose(0, 1, 2, 4, 5, 3)


def macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of `node` for one sample; 0 where it has no weights."""
    if not OPS[node.op].weighted:
        return 0
    output = graph.tensors[node.output]
    weights = graph.tensors[node.inputs[1]]
    return output.elements * (weights.elements // weights.shape[0])


def verify(graph: Graph) -> None:
    """Every tensor is known, defined once before use, and of the shape that its operator gives.

    Raises:
        GraphError: naming the node or tensor that breaks a rule.
    """
    defined = {name for name, t in graph.tensors.items() if t.data is not None} | set(graph.inputs)
    names: set[str] = set()
    for node in graph.nodes:
        if node.name in names:
            raise GraphError("EQ0307", f"two nodes are called {node.name}")
        names.add(node.name)
        for name in (*node.inputs, node.output):
            if name not in graph.tensors:
                raise GraphError("EQ0307", f"{node.name}: unknown tensor {name}")
        if missing := [name for name in node.inputs if name not in defined]:
            raise GraphError("EQ0307", f"{node.name}: reads {missing[0]} before it is computed")
        if node.output in defined:
            raise GraphError("EQ0307", f"{node.name}: {node.output} is computed twice")
        defined.add(node.output)
        _verify_node(graph, node)
    if missing := [name for name in graph.outputs if name not in defined]:
        raise GraphError("EQ0307", f"output {missing[0]} is never computed")


def _verify_node(graph: Graph, node: Node) -> None:
    info = OPS[node.op]
    inputs = [graph.tensors[name] for name in node.inputs]
    output = graph.tensors[node.output]
    computed = len(graph.activations(node))
    if computed != info.activations or any(t.data is not None for t in inputs[: info.activations]):
        raise GraphError(
            "EQ0306", f"{node.name}: {node.op.value} takes {info.activations} computed inputs"
        )
    if node.clamp is not None and not info.fuses_clamp:
        raise GraphError("EQ0306", f"{node.name}: {node.op.value} has no fused activation")
    expected = info.shape(node, inputs, output)
    if output.shape != expected:
        raise GraphError("EQ0306", f"{node.name}: output {output.shape}, expected {expected}")
