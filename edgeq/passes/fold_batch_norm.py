"""Batch norms are gone: part of the layer before them, or a layer of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgeq.errors import GraphError
from edgeq.ir import Array, Graph, Node, Op, Tensor, Window
from edgeq.ops import OPS

Reals = npt.NDArray[np.float64]


def fold_batch_norm(graph: Graph) -> Graph:
    """No batch norm is left.

    One that alone reads a layer without clamp is folded into its weights. Any other becomes a 1×1
    depthwise convolution; of rank 2 there is none, so those are refused.
    """
    for node in graph.nodes:
        if node.op is Op.BATCH_NORM:
            layer = graph.producer(node.inputs[0])
            if layer is not None and _foldable(graph, layer):
                graph = _folded(graph, layer, node)
            else:
                graph = _as_layer(graph, node)
    return graph


def _foldable(graph: Graph, layer: Node) -> bool:
    return (
        OPS[layer.op].weighted
        and layer.clamp is None
        and layer.output not in graph.outputs
        and len(graph.consumers(layer.output)) == 1
    )


def _factors(graph: Graph, norm: Node) -> tuple[Reals, Reals]:
    """Factor and offset for each channel: y = factor · x + offset."""
    scale, bias, mean, variance = (
        graph.constant(name).astype(np.float64) for name in norm.inputs[1:5]
    )
    if (variance + norm.epsilon <= 0).any():
        raise GraphError("EQ0316", f"{norm.name}: variance plus epsilon must be positive")
    factor = scale / np.sqrt(variance + norm.epsilon)
    return factor, bias - mean * factor


def _folded(graph: Graph, layer: Node, norm: Node) -> Graph:
    factor, offset = _factors(graph, norm)
    weights, bias = graph.constant(layer.inputs[1]), graph.constant(layer.inputs[2])
    per_filter = factor.reshape(-1, *(1,) * (weights.ndim - 1))
    new = (
        _constant(graph, layer, 1, weights * per_filter),
        _constant(graph, layer, 2, bias * factor + offset),
    )
    merged = replace(layer, inputs=(layer.inputs[0], *(t.name for t in new)), output=norm.output)
    nodes = tuple(merged if n.name == layer.name else n for n in graph.nodes if n.name != norm.name)
    return graph.edit(nodes, new)


def _constant(graph: Graph, layer: Node, index: int, data: Array) -> Tensor:
    """A constant in place of the layer's input `index`, under that name unless others read it."""
    name = layer.inputs[index]
    if len(graph.consumers(name)) > 1:
        name = f"{name}.{layer.name}"
    return Tensor(name, data.shape, data=data.astype(np.float32))


def _as_layer(graph: Graph, norm: Node) -> Graph:
    x = graph.tensors[norm.inputs[0]]
    if len(x.shape) != 4:
        raise GraphError(
            "EQ0316",
            f"{norm.name}: batch norm on {x.name} of shape {x.shape} follows no layer that it "
            f"could be folded into; supported: {OPS[Op.BATCH_NORM].limits}",
        )
    factor, offset = _factors(graph, norm)
    weights = Tensor(
        f"{norm.name}.factor", (factor.size, 1, 1), data=factor.astype(np.float32).reshape(-1, 1, 1)
    )
    bias = Tensor(f"{norm.name}.offset", offset.shape, data=offset.astype(np.float32))
    layer = Node(
        norm.name,
        Op.DEPTHWISE_CONV_2D,
        (x.name, weights.name, bias.name),
        norm.output,
        Window((1, 1)),
    )
    nodes = tuple(layer if node.name == norm.name else node for node in graph.nodes)
    return graph.edit(nodes, (weights, bias))
