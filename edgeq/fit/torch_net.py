"""A float graph in PyTorch, its weights ready to be trained; what it gives is what `floatrun` does.

Tensors are channels last, as in the graph. Trained weights go back into a graph as constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgeq.fit.torch_compute import padded, window_sums
from edgeq.ir import Array, Function, Graph, Node, Op, Unary, Window
from edgeq.ops import OPS, groups

Values = dict[str, Tensor]


class Net:
    """`graph` as a function that can be differentiated; `weights` are its parameters, by tensor."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.weights: dict[str, Tensor] = {}
        self._fixed: dict[str, Tensor] = {}
        for node in graph.nodes:
            trained = OPS[node.op].weighted
            for name in node.inputs:
                data = graph.tensors[name].data
                if data is not None and name not in self.weights:
                    value = torch.from_numpy(np.array(data, np.float32)).requires_grad_(trained)
                    (self.weights if trained else self._fixed)[name] = value

    def __call__(
        self, inputs: Mapping[str, Tensor], wanted: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """Each wanted tensor (the outputs, if none are named), first axis samples."""
        values = {**self._fixed, **self.weights, **inputs}
        for node in self.graph.nodes:
            found = _MEANINGS[node.op](self.graph, node, values)
            if node.clamp is not None:
                found = found.clamp(*node.clamp)
            values[node.output] = found
        return {name: values[name] for name in wanted or self.graph.outputs}

    def constants(self) -> dict[str, Array]:
        """The weights as they are now, by tensor name, float32."""
        return {name: w.detach().numpy().copy() for name, w in self.weights.items()}


def _image(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _back(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _window(node: Node) -> Window:
    assert node.window is not None  # the operator table demands it
    return node.window


def _conv(graph: Graph, node: Node, values: Values) -> Tensor:
    x, weights, bias = (values[name] for name in node.inputs)
    window, depthwise = _window(node), node.op is Op.DEPTHWISE_CONV_2D
    count = x.shape[3] if depthwise else groups(graph, node)
    kernel = weights[:, None] if depthwise else _image(weights)
    pixels, pads = padded(x, window, 0.0)
    return _back(
        functional.conv2d(
            _image(pixels), kernel, bias, window.strides, pads, window.dilations, count
        )
    )


def _fully_connected(graph: Graph, node: Node, values: Values) -> Tensor:
    x, weights, bias = (values[name] for name in node.inputs)
    return functional.linear(x, weights, bias)


def _add(graph: Graph, node: Node, values: Values) -> Tensor:
    return values[node.inputs[0]] + values[node.inputs[1]]


def _multiply(graph: Graph, node: Node, values: Values) -> Tensor:
    return values[node.inputs[0]] * values[node.inputs[1]]


def _max_pool(graph: Graph, node: Node, values: Values) -> Tensor:
    window = _window(node)
    pixels, _ = padded(values[node.inputs[0]], window, -torch.inf)
    return _back(functional.max_pool2d(_image(pixels), window.kernel, window.strides))


def _average_pool(graph: Graph, node: Node, values: Values) -> Tensor:
    x, window = values[node.inputs[0]], _window(node)
    return window_sums(x, window) / window_sums(torch.ones_like(x[:1, :, :, :1]), window)


def _reshape(graph: Graph, node: Node, values: Values) -> Tensor:
    return values[node.inputs[0]].reshape(-1, *graph.tensors[node.output].shape[1:])


def _softmax(graph: Graph, node: Node, values: Values) -> Tensor:
    return (node.beta * values[node.inputs[0]]).softmax(-1)


def _batch_norm(graph: Graph, node: Node, values: Values) -> Tensor:
    x, scale, bias, mean, variance = (values[name] for name in node.inputs)
    return (x - mean) * (scale / torch.sqrt(variance + node.epsilon)) + bias


def _same(graph: Graph, node: Node, values: Values) -> Tensor:
    return values[node.inputs[0]]


def _pad(graph: Graph, node: Node, values: Values) -> Tensor:
    top, left, front, bottom, right, back = node.pads
    fill = float(graph.constant(node.inputs[1]).reshape(()))
    return functional.pad(
        values[node.inputs[0]], (front, back, left, right, top, bottom), value=fill
    )


def _concat(graph: Graph, node: Node, values: Values) -> Tensor:
    return torch.cat([values[name] for name in node.inputs], node.axis)


def _table(graph: Graph, node: Node, values: Values) -> Tensor:
    assert node.function is not None  # the operator table demands it
    return _FUNCTIONS[node.function.kind](values[node.inputs[0]], node.function)


def _hard(x: Tensor, f: Function) -> Tensor:
    return (f.alpha * x + f.beta).clamp(0, 1)


_FUNCTIONS: Mapping[Unary, Callable[[Tensor, Function], Tensor]] = {
    Unary.IDENTITY: lambda x, f: x,
    Unary.SIGMOID: lambda x, f: x.sigmoid(),
    Unary.TANH: lambda x, f: x.tanh(),
    Unary.HARD_SIGMOID: _hard,
    Unary.SILU: lambda x, f: x * x.sigmoid(),
    Unary.HARD_SWISH: lambda x, f: x * _hard(x, f),
    Unary.LEAKY_RELU: lambda x, f: torch.where(x < 0, f.alpha * x, x),
    Unary.LINEAR: lambda x, f: f.alpha * x + f.beta,
}

_MEANINGS: Mapping[Op, Callable[[Graph, Node, Values], Tensor]] = {
    Op.CONV_2D: _conv,
    Op.DEPTHWISE_CONV_2D: _conv,
    Op.GROUPED_CONV_2D: _conv,
    Op.FULLY_CONNECTED: _fully_connected,
    Op.ADD: _add,
    Op.MULTIPLY: _multiply,
    Op.MAX_POOL: _max_pool,
    Op.AVERAGE_POOL: _average_pool,
    Op.RESHAPE: _reshape,
    Op.SOFTMAX: _softmax,
    Op.BATCH_NORM: _batch_norm,
    Op.CLIP: _same,  # its bounds are the clamp that every node may have
    Op.IDENTITY: _same,
    Op.PAD: _pad,
    Op.CONCAT: _concat,
    Op.TABLE: _table,
}
