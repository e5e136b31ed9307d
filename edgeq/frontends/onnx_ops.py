"""One function per ONNX operator, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgeq.frontends.onnx_build import Call, Computed, Known, in_graph_order, limits
from edgeq.frontends.onnx_elementwise import (
    add,
    clip,
    divide,
    multiply,
    per_channel,
    relu,
    subtract,
    table,
)
from edgeq.frontends.onnx_layout import concat, pad, slice_, transpose
from edgeq.frontends.onnx_windows import conv_window, pool_window
from edgeq.ir import Array, Op, Unary, Window
from edgeq.ops import OPS


@dataclass(frozen=True, slots=True)
class Row:
    """How an operator becomes nodes; attributes that are not listed are refused."""

    convert: Callable[[Call], Computed]
    op: Op
    attributes: frozenset[str] = frozenset()
    any_layout: bool = False  # takes an image in NHWC, too


def check(call: Call) -> Row:
    """The operator's row; says nothing yet about shapes and values.

    Raises:
        ModelError: EQ0315 naming the node, the operator and what edgeq takes instead.
    """
    row = CONVERTERS.get(call.node.op_type) if call.node.domain in ("", "ai.onnx") else None
    if row is None:
        call.refuse(_unknown(call.node.domain, call.node.op_type))
    if surplus := sorted(set(call.node.attributes) - row.attributes):
        call.refuse(f"attribute {surplus[0]} is not supported; {OPS[row.op].limits}")
    for extra in call.node.outputs[1:]:
        if extra.uses() or extra.is_graph_output():
            call.refuse(f"output {extra.name} is used; edgeq computes the first output only")
    return row


def convert(call: Call) -> Computed:
    """The value of the first output, its nodes appended; raises as `check` does."""
    row = check(call)
    for value in call.inputs:
        if isinstance(value, Computed) and value.channels_last and not row.any_layout:
            call.refuse(f"takes an image in NCHW and gets one in NHWC, of shape {value.shape}")
    return row.convert(call)


def _unknown(domain: str, op_type: str) -> str:
    if "quantize" in op_type.lower() or "QLinear" in op_type or op_type.endswith("Integer"):
        return "the model is quantised already; edgeq takes the float model and quantises it"
    operator = f"{domain}::{op_type}" if domain else op_type
    return f"operator {operator} is not supported"


# Layers with weights #


def _conv(call: Call) -> Computed:
    weights = call.floats(1)
    x = call.computed()
    if len(x.shape) != 4 or weights is None or weights.ndim != 4:
        raise limits(call, Op.CONV_2D, f"input of shape {x.shape} is not 2-D")
    filters, channels, groups = weights.shape[0], x.shape[1], call.integer("group", 1)
    window = conv_window(call, (weights.shape[2], weights.shape[3]), (x.shape[2], x.shape[3]))
    if groups == 1 and weights.shape[1] == channels:
        op, laid_out = Op.CONV_2D, weights.transpose(0, 2, 3, 1)
    elif groups == channels and weights.shape[1] == 1 and filters % channels == 0:
        op, laid_out = Op.DEPTHWISE_CONV_2D, weights[:, 0]
    elif groups > 1 and weights.shape[1] * groups == channels and filters % groups == 0:
        op, laid_out = Op.GROUPED_CONV_2D, weights.transpose(0, 2, 3, 1)
    else:
        call.refuse(
            f"group {groups} divides neither {channels} input channels into parts of "
            f"{weights.shape[1]} nor {filters} filters into parts"
        )
    return call.emit(op, x, *_constants(call, laid_out, call.floats(2)), window=window)


def _gemm(call: Call) -> Computed:
    weights = call.floats(1)
    if weights is None or weights.ndim != 2 or call.integer("transA", 0):
        raise limits(call, Op.FULLY_CONNECTED, "transA, or weights that are not of rank 2")
    weights = weights if call.integer("transB", 0) else weights.T
    bias = call.floats(2)
    if bias is not None:
        bias = bias * np.float32(call.real("beta", 1.0))
    return _fully_connected(call, weights * np.float32(call.real("alpha", 1.0)), bias)


def _matmul(call: Call) -> Computed:
    weights = call.floats(1)
    if weights is None or weights.ndim != 2:
        raise limits(call, Op.FULLY_CONNECTED, "the second input is not of rank 2")
    return _fully_connected(call, weights.T, None)


def _fully_connected(call: Call, weights: Array, bias: Array | None) -> Computed:
    x = call.vector()
    if weights.shape[1] != x.shape[1]:
        call.refuse(f"{weights.shape[1]} weights per output for an input of {x.shape[1]}")
    constants = _constants(call, in_graph_order(weights, x, axis=1), bias)
    return replace(call.emit(Op.FULLY_CONNECTED, x, *constants), image=None)


def _constants(call: Call, weights: Array, bias: Array | None) -> tuple[str, str]:
    """The layer's two constants; the bias is zeros where the file has none."""
    filters = weights.shape[0]
    named = [v.name if isinstance(v, Known) else "" for v in call.inputs] + ["", "", ""]
    vector = per_channel(call, np.zeros(1) if bias is None else bias, filters, rank=2)
    return (
        call.builder.constant(named[1] or f"{call.name}.weight", weights),
        call.builder.constant(named[2] or f"{call.name}.bias", vector),
    )


def _batch_norm(call: Call) -> Computed:
    x = call.computed()
    if len(x.shape) not in (2, 4) or call.integer("training_mode", 0):
        raise limits(call, Op.BATCH_NORM, f"training mode, or an input of shape {x.shape}")
    if call.integer("spatial", 1) != 1:
        raise limits(call, Op.BATCH_NORM, "spatial 0")
    names = []
    for index in (1, 2, 3, 4):
        array = call.floats(index)
        if array is None or array.shape != (x.shape[1],):
            call.refuse(f"input {index} must hold one value for each of {x.shape[1]} channels")
        value = call.inputs[index]
        name = value.name if isinstance(value, Known) else call.name
        names.append(call.builder.constant(name, in_graph_order(array, x, axis=0)))
    return call.emit(Op.BATCH_NORM, x, *names, epsilon=call.real("epsilon", 1e-5))


# Pools #


def _max_pool(call: Call) -> Computed:
    x = call.image()
    return call.emit(Op.MAX_POOL, x, window=_undilated(call, Op.MAX_POOL, x))


def _undilated(call: Call, op: Op, x: Computed) -> Window:
    window = pool_window(call, (x.shape[2], x.shape[3]))
    if window.dilations != (1, 1):
        raise limits(call, op, f"dilations {window.dilations}")
    return window


def _average_pool(call: Call) -> Computed:
    x = call.image()
    window = _undilated(call, Op.AVERAGE_POOL, x)
    if call.integer("count_include_pad", 0) and any(window.pads):
        raise limits(call, Op.AVERAGE_POOL, f"count_include_pad 1 with pads {window.pads}")
    return call.emit(Op.AVERAGE_POOL, x, window=window)


def _global_pool(op: Op) -> Callable[[Call], Computed]:
    def pool(call: Call) -> Computed:
        x = call.image()
        return call.emit(op, x, window=Window((x.shape[2], x.shape[3])))

    return pool


def _reduce_mean(call: Call) -> Computed:
    x = call.computed()
    axes = _axes(call)
    first = 1 if x.channels_last else 2
    wanted = [first, first + 1]
    if len(x.shape) != 4 or axes is None or sorted(a + 4 * (a < 0) for a in axes) != wanted:
        raise limits(call, Op.AVERAGE_POOL, f"axes {axes} of shape {x.shape}")
    window = Window((x.shape[first], x.shape[first + 1]))
    if call.integer("keepdims", 1):
        return call.emit(Op.AVERAGE_POOL, x, window=window)
    pooled = replace(call, suffix="_pooled").emit(Op.AVERAGE_POOL, x, window=window)
    return replace(call, name=f"{call.name}_reshape").reshape(
        pooled, (x.shape[0], x.shape[x.channel_axis])
    )


def _axes(call: Call) -> tuple[int, ...] | None:
    """The axes from the input (newer opsets) or attribute; None where neither is there."""
    given = call.known(1)
    if given is not None:
        return tuple(int(a) for a in given.array.reshape(-1))
    return call.integers("axes", ()) or None


# Shapes #


def _reshape(call: Call) -> Computed:
    x, wanted = call.computed(), call.known(1)
    if wanted is None or wanted.array.dtype.kind != "i" or wanted.array.ndim != 1:
        raise limits(call, Op.RESHAPE, "the shape is no constant list")
    sizes = [int(size) for size in wanted.array]
    if not call.integer("allowzero", 0):
        sizes = [x.shape[i] if s == 0 and i < len(x.shape) else s for i, s in enumerate(sizes)]
    rest = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) > 1 or rest < 1 or math.prod(x.shape) % rest:
        call.refuse(f"cannot make shape {sizes} of {x.shape}")
    return call.reshape(x, tuple(math.prod(x.shape) // rest if s == -1 else s for s in sizes))


def _flatten(call: Call) -> Computed:
    x = call.computed()
    axis = call.integer("axis", 1)
    if not -len(x.shape) <= axis <= len(x.shape):
        call.refuse(f"axis {axis} of shape {x.shape}")
    axis += len(x.shape) if axis < 0 else 0
    return call.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _squeeze(call: Call) -> Computed:
    x = call.computed()
    rank = len(x.shape)
    axes = _axes(call) or tuple(i for i, size in enumerate(x.shape) if size == 1)
    gone = {a % rank for a in axes if -rank <= a < rank and x.shape[a] == 1}
    if len(gone) != len(axes):
        call.refuse(f"axes {axes} of shape {x.shape} are not all of size 1")
    return call.reshape(x, tuple(size for i, size in enumerate(x.shape) if i not in gone))


def _unsqueeze(call: Call) -> Computed:
    x, axes = call.computed(), _axes(call) or ()
    rank = len(x.shape) + len(axes)
    new = {a % rank for a in axes if -rank <= a < rank}
    if not axes or len(new) != len(axes):
        call.refuse(f"axes {axes} for a result of rank {rank}")
    old = iter(x.shape)
    return call.reshape(x, tuple(1 if i in new else next(old) for i in range(rank)))


# The rest #


def _softmax(call: Call) -> Computed:
    x = call.computed()
    axis = call.integer("axis", -1 if call.opset >= 13 else 1)
    if len(x.shape) != 2 or axis not in (1, -1):
        raise limits(call, Op.SOFTMAX, f"axis {axis} of shape {x.shape}")
    if x.image is not None:
        call.refuse("works on a flattened image, whose elements the device has in another order")
    return call.emit(Op.SOFTMAX, x)


def _dropout(call: Call) -> Computed:
    training = call.known(2)
    if training is not None and training.array.any():
        call.refuse("training_mode is set; export the model in inference mode")
    return _identity(call)


def _identity(call: Call) -> Computed:
    return call.emit(Op.IDENTITY, call.computed())


_WALK = frozenset({"auto_pad", "dilations", "kernel_shape", "pads", "strides"})
_POOL = _WALK | {"ceil_mode"}

CONVERTERS: Mapping[str, Row] = {
    "Add": Row(add, Op.ADD, any_layout=True),
    "AveragePool": Row(_average_pool, Op.AVERAGE_POOL, _POOL | {"count_include_pad"}),
    "BatchNormalization": Row(
        _batch_norm, Op.BATCH_NORM, frozenset({"epsilon", "momentum", "training_mode", "spatial"})
    ),
    "Clip": Row(clip, Op.CLIP, frozenset({"min", "max"}), any_layout=True),
    "Concat": Row(concat, Op.CONCAT, frozenset({"axis"}), any_layout=True),
    "Conv": Row(_conv, Op.CONV_2D, _WALK | {"group"}),
    "Div": Row(divide, Op.BATCH_NORM, any_layout=True),
    "Dropout": Row(_dropout, Op.IDENTITY, frozenset({"ratio", "seed"}), any_layout=True),
    "Flatten": Row(_flatten, Op.RESHAPE, frozenset({"axis"}), any_layout=True),
    "Gemm": Row(_gemm, Op.FULLY_CONNECTED, frozenset({"alpha", "beta", "transA", "transB"})),
    "GlobalAveragePool": Row(_global_pool(Op.AVERAGE_POOL), Op.AVERAGE_POOL),
    "GlobalMaxPool": Row(_global_pool(Op.MAX_POOL), Op.MAX_POOL),
    "HardSigmoid": Row(
        table(Unary.HARD_SIGMOID, 0.2, 0.5), Op.TABLE, frozenset({"alpha", "beta"}), any_layout=True
    ),
    "HardSwish": Row(table(Unary.HARD_SWISH, 1 / 6, 0.5), Op.TABLE, any_layout=True),
    "Identity": Row(_identity, Op.IDENTITY, any_layout=True),
    "LeakyRelu": Row(
        table(Unary.LEAKY_RELU, 0.01), Op.TABLE, frozenset({"alpha"}), any_layout=True
    ),
    "MatMul": Row(_matmul, Op.FULLY_CONNECTED),
    # storage_order concerns the second output, which is refused where it is used
    "MaxPool": Row(_max_pool, Op.MAX_POOL, _POOL | {"storage_order"}),
    "Mul": Row(multiply, Op.MULTIPLY, any_layout=True),
    "Pad": Row(pad, Op.PAD, frozenset({"mode", "pads", "value"}), any_layout=True),
    "ReduceMean": Row(
        _reduce_mean,
        Op.AVERAGE_POOL,
        frozenset({"axes", "keepdims", "noop_with_empty_axes"}),
        any_layout=True,
    ),
    "Relu": Row(relu, Op.CLIP, any_layout=True),
    "Reshape": Row(_reshape, Op.RESHAPE, frozenset({"allowzero"}), any_layout=True),
    "Sigmoid": Row(table(Unary.SIGMOID), Op.TABLE, any_layout=True),
    "Slice": Row(slice_, Op.MAX_POOL, frozenset({"starts", "ends", "axes"}), any_layout=True),
    "Softmax": Row(_softmax, Op.SOFTMAX, frozenset({"axis"})),
    "Squeeze": Row(_squeeze, Op.RESHAPE, frozenset({"axes"}), any_layout=True),
    "Sub": Row(subtract, Op.BATCH_NORM, any_layout=True),
    "Tanh": Row(table(Unary.TANH), Op.TABLE, any_layout=True),
    "Transpose": Row(transpose, Op.IDENTITY, frozenset({"perm"}), any_layout=True),
    "Unsqueeze": Row(_unsqueeze, Op.RESHAPE, frozenset({"axes"}), any_layout=True),
}
