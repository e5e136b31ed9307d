"""Operators that move values and compute none: pads, joins, steps, transposes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeq.frontends.builder import unique
from edgeq.frontends.onnx_build import (
    TO_NCHW,
    TO_NHWC,
    Call,
    Computed,
    limits,
    permutation,
)
from edgeq.ir import Op, Window


def transpose(call: Call) -> Computed:
    """Transpose, where it only says in which layout the file has an image."""
    x = call.computed()
    perm = permutation(call.node, len(x.shape))
    if sorted(perm) != list(range(len(x.shape))):
        call.refuse(f"perm {perm} of shape {x.shape}")
    shape = tuple(x.shape[axis] for axis in perm)
    if perm == (TO_NCHW if x.channels_last else TO_NHWC):
        same = call.emit(Op.IDENTITY, x)
        return replace(same, shape=shape, channels_last=not x.channels_last)
    moved = [axis for axis in perm if x.shape[axis] != 1]
    if moved != sorted(moved):
        raise limits(call, Op.IDENTITY, f"perm {perm} of shape {x.shape} reorders its elements")
    return call.emit(Op.IDENTITY, x) if shape == x.shape else call.reshape(x, shape)


def pad(call: Call) -> Computed:
    """Pad with a constant, on any axis but the batch."""
    x = call.rank_4()
    if (mode := call.text("mode", "constant")) != "constant":
        raise limits(call, Op.PAD, f"mode {mode!r}")
    sizes = _integers(call, 1, "pads") or ()
    axes = _axes(call, 3, 4)
    if len(sizes) != 2 * len(axes):
        call.refuse(f"pads {sizes} for the axes {axes}")
    before, after = [0] * 4, [0] * 4
    for position, axis in enumerate(axes):
        before[x.graph_axis(axis)] += sizes[position]
        after[x.graph_axis(axis)] += sizes[len(axes) + position]
    pads = (*before[1:], *after[1:])
    if before[0] or after[0] or min(pads) < 0:
        raise limits(call, Op.PAD, f"pads {sizes}")
    if not any(pads):
        return call.emit(Op.IDENTITY, x)
    given = call.floats(2)
    value = np.array([call.real("value", 0.0)]) if given is None else given.reshape(-1)
    if value.size != 1:
        call.refuse(f"the value must be one number, got {value.size}")
    return call.emit(Op.PAD, x, call.builder.constant(f"{call.name}.value", value), pads=pads)


def concat(call: Call) -> Computed:
    """Concat of computed tensors; more than two are joined in turns."""
    values = [call.computed(index) for index in range(len(call.inputs))]
    first, *rest = values
    axis = call.integer("axis", 1)
    axis += len(first.shape) if axis < 0 else 0
    for value in rest:
        same = len(value.shape) == len(first.shape) and value.channels_last == first.channels_last
        if not same or _without(value.shape, axis) != _without(first.shape, axis):
            raise limits(call, Op.CONCAT, f"joins shapes {first.shape} and {value.shape}")
    if not 1 <= axis < len(first.shape):
        raise limits(call, Op.CONCAT, f"axis {axis} of shape {first.shape}")
    if any(value.image is not None for value in values):
        call.refuse("joins a flattened image, whose elements the device has in another order")
    joined = first
    for index, value in enumerate(rest, start=1):
        last = index == len(rest)
        name = call.name if last else unique(f"{call.name}_{index}", call.builder.node_names)
        step = replace(call, name=name, suffix="" if last else f"_{index}")
        joined = step.emit(Op.CONCAT, joined, value.tensor, axis=first.graph_axis(axis))
    return joined if rest else call.emit(Op.IDENTITY, first)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def slice_(call: Call) -> Computed:
    """Slice, where it takes every n-th row or column: a max pool of one tap."""
    x = call.computed()
    starts, ends = _integers(call, 1, "starts"), _integers(call, 2, "ends")
    if starts is None or ends is None:
        call.refuse("starts and ends must be constants")
    axes = _axes(call, 3, len(starts))
    steps = _integers(call, 4, "steps") or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        call.refuse(f"starts {starts}, ends {ends}, axes {axes} and steps {steps} do not match")
    strides = [1, 1, 1, 1]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis] if axis < len(x.shape) else 0
        taken = range(size)[slice(start, end, step or None)]
        if step < 1 or taken != range(0, size, step):
            raise limits(call, Op.MAX_POOL, f"takes {start}:{end}:{step} of axis {axis} ({size})")
        strides[x.graph_axis(axis)] = step
    if strides == [1, 1, 1, 1]:
        return call.emit(Op.IDENTITY, x)
    if len(x.shape) != 4 or strides[0] != 1 or strides[3] != 1:
        raise limits(call, Op.MAX_POOL, f"steps {steps} along axes {axes} of shape {x.shape}")
    return call.emit(Op.MAX_POOL, x, window=Window((1, 1), (strides[1], strides[2])))


def _integers(call: Call, index: int, name: str) -> tuple[int, ...] | None:
    """Constant integers from the input (newer opsets) or attribute; None where neither is there."""
    given = call.known(index)
    if given is None:
        return call.integers(name, ()) if name in call.node.attributes else None
    if given.array.dtype.kind not in "iu":
        call.refuse(f"{name} must be integers")
    return tuple(int(value) for value in given.array.reshape(-1))


def _axes(call: Call, index: int, count: int) -> tuple[int, ...]:
    """The axes, from 0; the first `count` where the file names none."""
    rank = len(call.computed().shape)
    axes = _integers(call, index, "axes") or tuple(range(count))
    if any(not -rank <= axis < rank for axis in axes):
        call.refuse(f"axes {axes} of rank {rank}")
    return tuple(axis % rank for axis in axes)
