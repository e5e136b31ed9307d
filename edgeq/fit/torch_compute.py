"""The integers of `reference.compute` by PyTorch, several times faster: the rule `DOUBLE` alone.

Sums of products run through its convolutions in floating point where every partial sum is an
integer that the type holds exactly (as in the reference), additions and tables as look-ups of what
the reference computes for every byte. What has no row here, and all that has 16-bit operands, is
left to the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgeq import reference
from edgeq.ir import Array, Graph, Node, Op, QParams, Window, qparams_of
from edgeq.ops import groups

CHUNK = 1 << 15  # sums requantised at a time: they stay in the cache of a core
_EXACT = 1 << 24  # integers below it are exact in float32

Row = Callable[[Mapping[str, Array]], Array]


@dataclass(slots=True)
class Compute:
    """Called as `reference.compute` is; what a node needs is prepared once."""

    _rows: dict[tuple[int, str], tuple[Graph, Row]] = field(default_factory=dict)

    def __call__(self, graph: Graph, node: Node, values: Mapping[str, Array]) -> Array:
        """The output integers of one node, in the output tensor's storage type."""
        key = id(graph), node.name
        if key not in self._rows:  # the graph is held, so that its id stays its own
            self._rows[key] = graph, _prepare(graph, node)
        with (
            torch.inference_mode(),
            torch.backends.nnpack.flags(enabled=False),  # its convolutions are transforms
            torch.backends.mkldnn.flags(enabled=True, allow_tf32=None, fp32_precision="ieee"),
        ):
            return self._rows[key][1](values)


def _prepare(graph: Graph, node: Node) -> Row:
    tensors = [graph.tensors[name] for name in (*node.inputs, node.output)]
    wide = any(tensor.qparams is not None and tensor.qparams.wide for tensor in tensors)
    make = None if wide else _ROWS.get(node.op)
    if make is None:
        return lambda values: reference.compute(graph, node, values)
    return make(graph, node)


def _weighted(graph: Graph, node: Node) -> Row:
    x = qparams_of(graph.tensors[node.inputs[0]])
    weights = graph.constant(node.inputs[1]).astype(np.int64)
    bias = graph.constant(node.inputs[2]).astype(np.int64)
    half = 1 << (x.width - 1)
    largest = max(half - 1 - x.zero_point, x.zero_point + half)
    bound = np.abs(weights).reshape(len(weights), -1).sum(axis=1) * largest + np.abs(bias)
    exact = torch.float32 if bound.max() < _EXACT else torch.float64
    kernel, addend = torch.from_numpy(weights).to(exact), torch.from_numpy(bias).to(exact)
    finish = _finish(graph, node)
    if node.op is Op.FULLY_CONNECTED:
        return lambda values: finish(_shifted(values, node, x, exact) @ kernel.T + addend)
    depthwise = node.op is Op.DEPTHWISE_CONV_2D
    oihw = kernel[:, None] if depthwise else kernel.permute(0, 3, 1, 2)
    oihw = oihw.contiguous(memory_format=torch.channels_last)
    count = graph.tensors[node.inputs[0]].shape[3] if depthwise else groups(graph, node)
    window = _window(node)

    def convolve(values: Mapping[str, Array]) -> Array:
        pixels, pads = padded(_shifted(values, node, x, exact), window, 0.0)
        return finish(
            functional.conv2d(
                pixels.permute(0, 3, 1, 2),
                oihw,
                addend,
                window.strides,
                pads,
                window.dilations,
                count,
            ).permute(0, 2, 3, 1)
        )

    return convolve


def _window(node: Node) -> Window:
    assert node.window is not None  # the operator table demands it
    return node.window


def _shifted(values: Mapping[str, Array], node: Node, x: QParams, exact: torch.dtype) -> Tensor:
    return _tensor(values, node).to(exact).sub_(x.zero_point)


def _tensor(values: Mapping[str, Array], node: Node) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values[node.inputs[0]]))


def padded(x: Tensor, window: Window, fill: float) -> tuple[Tensor, tuple[int, int]]:
    """NHWC `x` with what pads of `window` an operator cannot add itself, and those that it can."""
    top, left, bottom, right = window.pads
    if (top, left) == (bottom, right) and fill == 0.0:
        return x, (top, left)
    return functional.pad(x, (0, 0, left, right, top, bottom), value=fill), (0, 0)


def _finish(graph: Graph, node: Node) -> Callable[[Tensor], Array]:
    """Sums to output integers: `fixedpoint.requantize`, zero point added, clamped."""
    y = qparams_of(graph.tensors[node.output])
    multiplier, shift = (
        torch.from_numpy(graph.constant(name).astype(np.int64)) for name in node.inputs[3:5]
    )
    low, high = (int(bound) for bound in node.clamp or (y.qmin, y.qmax))
    right = (-shift).clamp(min=0)
    factor = multiplier << shift.clamp(min=0)
    half = (torch.ones_like(right) << right) >> 1
    tie = (half > 0).long()  # ties go away from zero; the shift alone would take them up
    addend = half + (y.zero_point << right)

    def finish(total: Tensor) -> Array:
        rows = total.reshape(-1, total.shape[-1])
        out = torch.empty(rows.shape, dtype=torch.int8)
        step = max(1, CHUNK // rows.shape[1])
        for start in range(0, len(rows), step):
            high_word = rows[start : start + step].long().mul_(factor).add_(1 << 30)
            high_word.bitwise_right_shift_(31)
            high_word.sub_((high_word < 0) * tie).add_(addend)
            high_word.bitwise_right_shift_(right).clamp_(low, high)
            out[start : start + step] = high_word
        return np.asarray(out.reshape(total.shape).numpy())

    return finish


def _add(graph: Graph, node: Node) -> Row:
    """One look-up for each pair of bytes."""
    first, second = (qparams_of(graph.tensors[name]) for name in node.inputs[:2])
    grid = np.meshgrid(_every(first), _every(second), indexing="ij")
    table = reference.compute(graph, node, dict(zip(node.inputs[:2], grid, strict=True)))
    flat = torch.from_numpy(np.ascontiguousarray(table).reshape(-1))
    origin = -first.qmin * table.shape[1] - second.qmin

    def add(values: Mapping[str, Array]) -> Array:
        a, b = (
            torch.from_numpy(np.ascontiguousarray(values[name])).reshape(-1)
            for name in node.inputs[:2]
        )
        out = torch.empty_like(a)
        for start in range(0, len(a), CHUNK):
            part = slice(start, start + CHUNK)
            index = a[part].long().mul_(table.shape[1]).add_(b[part]).add_(origin)
            torch.take(flat, index, out=out[part])
        return np.asarray(out.numpy()).reshape(values[node.inputs[0]].shape)

    return add


def _every(q: QParams) -> Array:
    return np.arange(q.qmin, q.qmax + 1, dtype=np.int8)


def _table(graph: Graph, node: Node) -> Row:
    table = graph.constant(node.inputs[1]).astype(np.int8)
    return lambda values: np.take(np.roll(table, 128), values[node.inputs[0]].view(np.uint8))


def _average_pool(graph: Graph, node: Node) -> Row:
    y, window = qparams_of(graph.tensors[node.output]), _window(node)
    low, high = (int(bound) for bound in node.clamp or (y.qmin, y.qmax))
    ones = torch.ones((1, *graph.tensors[node.inputs[0]].shape[1:3], 1), dtype=torch.float64)
    count = window_sums(ones, window).long()

    def pool(values: Mapping[str, Array]) -> Array:
        total = window_sums(_tensor(values, node).double(), window).long()
        magnitude = (total.abs() + count // 2) // count
        mean = torch.where(total < 0, -magnitude, magnitude).clamp_(low, high)
        return np.asarray(mean.to(torch.int8).contiguous().numpy())

    return pool


def window_sums(x: Tensor, window: Window) -> Tensor:
    """The sum of what `window` sees of each channel of NHWC `x`, pads 0."""
    pixels, pads = padded(x, window, 0.0)
    total = functional.avg_pool2d(
        functional.pad(pixels, (0, 0, pads[1], pads[1], pads[0], pads[0])).permute(0, 3, 1, 2),
        window.kernel,
        window.strides,
        divisor_override=1,
    )
    return total.permute(0, 2, 3, 1)


def _max_pool(graph: Graph, node: Node) -> Row:
    y, window = qparams_of(graph.tensors[node.output]), _window(node)
    low, high = (int(bound) for bound in node.clamp or (y.qmin, y.qmax))

    def pool(values: Mapping[str, Array]) -> Array:
        pixels, _ = padded(_tensor(values, node).float(), window, -torch.inf)
        found = functional.max_pool2d(pixels.permute(0, 3, 1, 2), window.kernel, window.strides)
        clipped = found.permute(0, 2, 3, 1).clamp(low, high)
        return np.asarray(clipped.to(torch.int8).contiguous().numpy())

    return pool


def _reshape(graph: Graph, node: Node) -> Row:
    shape = graph.tensors[node.output].shape[1:]
    return lambda values: values[node.inputs[0]].reshape(-1, *shape)


_ROWS: Mapping[Op, Callable[[Graph, Node], Row]] = {
    Op.CONV_2D: _weighted,
    Op.DEPTHWISE_CONV_2D: _weighted,
    Op.GROUPED_CONV_2D: _weighted,
    Op.FULLY_CONNECTED: _weighted,
    Op.ADD: _add,
    Op.TABLE: _table,
    Op.AVERAGE_POOL: _average_pool,
    Op.MAX_POOL: _max_pool,
    Op.RESHAPE: _reshape,
}
