"""Operators that keep the shape: sums and products, clips, functions of one value."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgeq.frontends.onnx_build import Call, Computed, Known, in_graph_order, limits
from edgeq.ir import Array, Function, Op, Unary

Converter = Callable[[Call], Computed]

# With constants #


def per_channel(call: Call, values: Array, channels: int, *, rank: int, axis: int = 1) -> Array:
    """`values`, as they broadcast onto the file's shape of that rank, as one for each channel."""
    shape = (1,) * (rank - values.ndim) + values.shape
    if len(shape) != rank or shape[axis] not in (1, channels) or values.size != shape[axis]:
        call.refuse(
            f"a constant of shape {values.shape} is neither one number nor one for each of "
            f"{channels} channels"
        )
    return np.broadcast_to(values.reshape(-1), (channels,))


def _with_constant(call: Call) -> tuple[Computed, Array, int] | None:
    """The computed input, the other one for each of its channels, and that one's index."""
    for index, value in enumerate(call.inputs):
        values = call.floats(index) if isinstance(value, Known) else None
        if values is not None:
            x = call.computed(1 - index)
            axis = x.channel_axis
            size = x.shape[axis]
            return x, per_channel(call, values, size, rank=len(x.shape), axis=axis), index
    return None


def _affine(call: Call, x: Computed, factor: Array | float, offset: Array | float) -> Computed:
    """The value of factor · x + offset: a batch norm of mean 0 and variance 1."""
    channels = x.shape[x.channel_axis]
    constants = {"factor": factor, "offset": offset, "mean": 0.0, "variance": 1.0}
    names = []
    for name, value in constants.items():
        values = np.broadcast_to(np.asarray(value, np.float32), (channels,))
        ordered = in_graph_order(values, x, axis=0)
        names.append(call.builder.constant(f"{call.name}.{name}", ordered))
    return call.emit(Op.BATCH_NORM, x, *names)


def add(call: Call) -> Computed:
    """Add: of two tensors, or of a bias to the layer that computes the other input."""
    found = _with_constant(call)
    if found is None:
        return _pair(call, Op.ADD)
    x, values, index = found
    source = call.node.inputs[1 - index]
    if source is not None and not source.is_graph_output() and len(source.uses()) == 1:
        renamed = call.builder.add_bias(x.tensor, values, call.output)
        if renamed:
            return Computed(renamed, x.shape, x.image, x.channels_last)
    return _affine(call, x, 1.0, values)


def subtract(call: Call) -> Computed:
    """Sub: of a constant from a tensor, or the other way."""
    found = _with_constant(call)
    if found is None:
        raise limits(call, Op.BATCH_NORM, "subtracts one computed tensor from another")
    x, values, index = found
    return _affine(call, x, -1.0, values) if index == 0 else _affine(call, x, 1.0, -values)


def multiply(call: Call) -> Computed:
    """Mul: by a constant, or of two tensors, which a pass must recognise."""
    found = _with_constant(call)
    if found is None:
        return _pair(call, Op.MULTIPLY)
    return _affine(call, found[0], found[1], 0.0)


def divide(call: Call) -> Computed:
    """Div: by a constant."""
    found = _with_constant(call)
    if found is None or found[2] == 0:
        raise limits(call, Op.BATCH_NORM, "divides by a computed tensor")
    if not found[1].all():
        call.refuse("divides by 0")
    return _affine(call, found[0], 1 / found[1].astype(np.float64), 0.0)


def _pair(call: Call, op: Op) -> Computed:
    x, y = call.computed(0), call.computed(1)
    if x.shape != y.shape or x.channels_last != y.channels_last:
        raise limits(call, op, f"shapes {x.shape} and {y.shape} differ")
    if x.image != y.image:
        call.refuse("takes a flattened image and a vector in another order")
    return call.emit(op, x, y.tensor)


# Of one value #


def relu(call: Call) -> Computed:
    """Relu."""
    return call.emit(Op.CLIP, call.computed(), clamp=(0.0, math.inf))


def clip(call: Call) -> Computed:
    """Clip, with bounds from inputs (newer opsets) or attributes."""
    low = _bound(call, 1, "min", -math.inf)
    high = _bound(call, 2, "max", math.inf)
    if not low <= high:
        call.refuse(f"min {low} is above max {high}")
    return call.emit(Op.CLIP, call.computed(), clamp=(low, high))


def _bound(call: Call, index: int, name: str, default: float) -> float:
    given = call.known(index)
    if given is None:
        return call.real(name, default)
    if given.array.size != 1:
        call.refuse(f"{name} must be one number, got shape {given.array.shape}")
    return float(given.array.reshape(-1)[0])


def table(kind: Unary, alpha: float = 0.0, beta: float = 0.0) -> Converter:
    """A function of one value; `alpha` and `beta` where the file does not say otherwise."""

    def convert(call: Call) -> Computed:
        function = Function(kind, call.real("alpha", alpha), call.real("beta", beta))
        return call.emit(Op.TABLE, call.computed(), function=function)

    return convert
