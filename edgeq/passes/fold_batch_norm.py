"""Batch norms are gone: part of the layer before or after them, or a layer of their own."""

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

    One that alone reads a layer without clamp is folded into its weights, and so is one that a
    layer alone reads, perhaps flattened, unless its padding would then need another value than 0.
    Those in a row are one. Any other becomes a 1×1 depthwise convolution; if it is of rank 2, on an
    image of one pixel.
    """
    while norm := next((node for node in graph.nodes if node.op is Op.BATCH_NORM), None):
        layer = graph.producer(norm.inputs[0])
        if layer is not None and _foldable(graph, layer):
            graph = _folded(graph, layer, norm)
        elif (second := _second(graph, norm)) is not None:
            graph = _composed(graph, norm, second)
        elif (reader := _reader(graph, norm)) is not None:
            graph = _folded_forward(graph, norm, reader)
        else:
            graph = _as_layer(graph, norm)
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


def _second(graph: Graph, norm: Node) -> Node | None:
    """The batch norm that alone reads this one."""
    readers = graph.consumers(norm.output)
    alone = len(readers) == 1 and norm.output not in graph.outputs
    return readers[0] if alone and readers[0].op is Op.BATCH_NORM else None


def _composed(graph: Graph, first: Node, second: Node) -> Graph:
    (factor, offset), (factor_2, offset_2) = _factors(graph, first), _factors(graph, second)
    values = {
        "scale": factor_2 * factor,
        "bias": factor_2 * offset + offset_2,
        "mean": np.zeros_like(factor),
        "variance": np.ones_like(factor),
    }
    new = tuple(
        Tensor(f"{second.name}.{name}", data.shape, data=data.astype(np.float32))
        for name, data in values.items()
    )
    inputs = (first.inputs[0], *(t.name for t in new))
    both = replace(second, inputs=inputs, epsilon=0.0)
    nodes = (both if n.name == second.name else n for n in graph.nodes if n.name != first.name)
    return graph.edit(tuple(nodes), new)


def _reader(graph: Graph, norm: Node) -> Node | None:
    """The layer that alone reads the norm, up to reshapes, and may take it over."""
    source = norm.output
    while source not in graph.outputs and len(readers := graph.consumers(source)) == 1:
        reader = readers[0]
        if OPS[reader.op].weighted:
            factor, offset = _factors(graph, norm)
            padded = reader.window is not None and any(reader.window.pads)
            # A vector that became an image has other factors from pixel to pixel.
            repeats = graph.tensors[source].shape[-1] % factor.size == 0
            return reader if repeats and not (padded and offset.any()) else None
        if reader.op is not Op.RESHAPE:
            return None
        source = reader.output
    return None


def _folded_forward(graph: Graph, norm: Node, layer: Node) -> Graph:
    weights = graph.constant(layer.inputs[1]).astype(np.float64)
    bias = graph.constant(layer.inputs[2])
    channels = graph.tensors[layer.inputs[0]].shape[-1]
    # Channels are innermost: in a flattened image they repeat for every pixel.
    factor, offset = (
        _met(layer, weights, np.resize(values, channels)) for values in _factors(graph, norm)
    )
    added = (weights * offset).sum(axis=tuple(range(1, weights.ndim)))
    new = (
        _constant(graph, layer, 1, weights * factor),
        _constant(graph, layer, 2, bias + added),
    )
    merged = replace(layer, inputs=(layer.inputs[0], *(t.name for t in new)))
    nodes = []
    for node in graph.nodes:
        if node.name != norm.name:
            kept = merged if node.name == layer.name else node
            inputs = tuple(norm.inputs[0] if n == norm.output else n for n in kept.inputs)
            nodes.append(replace(kept, inputs=inputs))
    return graph.edit(tuple(nodes), new)


def _met(layer: Node, weights: Reals, values: Reals) -> Reals:
    """For each weight the one of `values`, by input channel, that it meets; broadcasts to them."""
    filters = len(weights)
    if layer.op is Op.DEPTHWISE_CONV_2D:
        return values.repeat(filters // len(values)).reshape(-1, 1, 1)
    if layer.op is Op.GROUPED_CONV_2D:
        groups = values.reshape(-1, 1, 1, weights.shape[3])
        return groups.repeat(filters // len(groups), axis=0)
    return values


def _constant(graph: Graph, layer: Node, index: int, data: Array) -> Tensor:
    """A constant in place of the layer's input `index`, under that name unless others read it."""
    name = layer.inputs[index]
    if len(graph.consumers(name)) > 1:
        name = f"{name}.{layer.name}"
    return Tensor(name, data.shape, data=data.astype(np.float32))


def _as_layer(graph: Graph, norm: Node) -> Graph:
    source, result = norm.inputs[0], norm.output
    shape = graph.tensors[source].shape
    factor, offset = _factors(graph, norm)
    weights = Tensor(
        f"{norm.name}.factor", (factor.size, 1, 1), data=factor.astype(np.float32).reshape(-1, 1, 1)
    )
    bias = Tensor(f"{norm.name}.offset", offset.shape, data=offset.astype(np.float32))
    new, before, after = [weights, bias], [], []
    if len(shape) == 2:  # an image of one pixel, and back
        image = (shape[0], 1, 1, shape[1])
        read, made = f"{norm.name}.read", f"{norm.name}.made"
        new += [Tensor(read, image), Tensor(made, image)]
        before = [Node(read, Op.RESHAPE, (source,), read)]
        after = [Node(made, Op.RESHAPE, (made,), result)]
        source, result = read, made
    inputs = (source, weights.name, bias.name)
    layer = Node(norm.name, Op.DEPTHWISE_CONV_2D, inputs, result, Window((1, 1)))
    index = next(i for i, node in enumerate(graph.nodes) if node.name == norm.name)
    nodes = (*graph.nodes[:index], *before, layer, *after, *graph.nodes[index + 1 :])
    return graph.edit(nodes, tuple(new))
