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
import numpy.typing as npt

from edgeq.errors import GraphError
from edgeq.ir import Array, Function, Graph, Node, Op, Tensor, Unary, Window

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


def _grouped_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    x, weights = inputs[0], inputs[1]
    _expect_rank(node, x, 4)
    per_group = weights.shape[3] if len(weights.shape) == 4 else 0
    if not per_group or x.shape[3] % per_group or weights.shape[0] % (x.shape[3] // per_group):
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


def _pad_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    _expect_rank(node, inputs[0], 4)
    if len(node.pads) != 6 or min(node.pads) < 0 or len(inputs) != 2 or inputs[1].elements != 1:
        raise GraphError("EQ0306", f"{node.name}: a pad has six sizes from 0 and one value")
    sizes = zip(inputs[0].shape[1:], node.pads[:3], node.pads[3:], strict=True)
    return (inputs[0].shape[0], *(size + before + after for size, before, after in sizes))


def _concat_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    first, second = inputs[0].shape, inputs[1].shape
    axis = node.axis
    fits = len(first) == len(second) and len(first) in (2, 4) and 1 <= axis < len(first)
    if not fits or first[:axis] + first[axis + 1 :] != second[:axis] + second[axis + 1 :]:
        raise GraphError(
            "EQ0306", f"{node.name}: joins shapes {first} and {second} along axis {axis}"
        )
    return (*first[:axis], first[axis] + second[axis], *first[axis + 1 :])


def _table_shape(node: Node, inputs: Sequence[Tensor], output: Tensor) -> Shape:
    if node.function is None:
        raise GraphError("EQ0304", f"{node.name}: {node.op.value} needs a function")
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
        limits="2-D, constant weights; any kernel, stride, dilation and zero padding",
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
        1, _pool_shape, "MaxPool, GlobalMaxPool, Slice (steps over height and width)",
        windowed=True, keeps_qparams=True,
        limits="2-D, no dilation; pads smaller than the kernel; a slice starts at 0, reaches the "
        "end, and takes every n-th row or column",
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
        limits="over the last axis of a rank-2 tensor of at most 4095 values, of at most 8 bits",
    ),
    Op.BATCH_NORM: OpInfo(
        1, _same_shape, "BatchNormalization; Mul, Div, Add, Sub with a constant", device=False,
        fuses_clamp=False,
        limits="inference form, or a constant that is one number or one for each channel; folded "
        "into the layer before or after it, else kept as a 1×1 depthwise convolution",
    ),
    Op.CLIP: OpInfo(
        1, _same_shape, "Relu, Clip (Relu6)", device=False,
        limits="fused into the operator before it; a table where that has another reader or "
        "cannot clamp",
    ),
    Op.IDENTITY: OpInfo(
        1, _same_shape, "Identity, Dropout, Transpose", device=False, fuses_clamp=False,
        limits="removed; a transpose goes from NCHW to NHWC or back, or moves axes of size 1",
    ),
    Op.GROUPED_CONV_2D: OpInfo(
        1, _grouped_shape, "Conv", weighted=True, windowed=True,
        limits="2-D, constant weights, several input channels a group; any kernel, stride, "
        "dilation and zero padding",
    ),
    Op.PAD: OpInfo(
        1, _pad_shape, "Pad", keeps_qparams=True, fuses_clamp=False,
        limits="mode constant on height, width and channels, no negative sizes, a value that the "
        "input's scale represents exactly (0 always is); zeros around height and width become the "
        "padding of a convolution that alone reads them",
    ),
    Op.CONCAT: OpInfo(
        2, _concat_shape, "Concat",
        limits="computed tensors, equal but for the axis: channels, height or width; three and "
        "more are joined in turns",
    ),
    Op.TABLE: OpInfo(
        1, _table_shape, "Sigmoid, HardSigmoid, HardSwish, Tanh, LeakyRelu, Relu, Clip; "
        "Mul(x, Sigmoid(x)), Mul(x, HardSigmoid(x))", in_place=True,
        limits="any shape; 256 values, one for each integer of the input; "
        "at most 8 bits, in and out",
    ),
    Op.MULTIPLY: OpInfo(
        2, _add_shape, "Mul", device=False, fuses_clamp=False,
        limits="a constant, or x and Sigmoid(x) or HardSigmoid(x) of the same x",
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


def groups(graph: Graph, node: Node) -> int:
    """Groups of a grouped convolution: input channels by channels of a filter."""
    return graph.tensors[node.inputs[0]].shape[3] // graph.tensors[node.inputs[1]].shape[3]


def evaluate(function: Function, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The float64 values of `function` at `x`: what its table is rounded from."""
    alpha, beta = function.alpha, function.beta
    hard = np.clip(alpha * x + beta, 0.0, 1.0)
    soft = np.exp(np.minimum(x, 0.0)) / (1.0 + np.exp(-np.abs(x)))  # no exponential overflows
    values = {
        Unary.IDENTITY: x,
        Unary.SIGMOID: soft,
        Unary.TANH: np.tanh(x),
        Unary.HARD_SIGMOID: hard,
        Unary.SILU: x * soft,
        Unary.HARD_SWISH: x * hard,
        Unary.LEAKY_RELU: np.where(x < 0, alpha * x, x),
        Unary.LINEAR: alpha * x + beta,
    }
    return np.asarray(values[function.kind], np.float64)


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
