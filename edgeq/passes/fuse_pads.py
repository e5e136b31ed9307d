"""Zeros around the input of a convolution are its window's padding."""

from __future__ import annotations

from dataclasses import replace

from edgeq.ir import Graph, Node, Op, Window

LAYERS = (Op.CONV_2D, Op.DEPTHWISE_CONV_2D, Op.GROUPED_CONV_2D)


def fuse_pads(graph: Graph) -> Graph:
    """A pad of zeros over height and width that one convolution alone reads is gone.

    Other values, padded channels and other readers keep theirs: pools do not count their padding.
    """
    for node in graph.nodes:
        if node.op is Op.PAD and (layer := _layer(graph, node)) is not None:
            graph = _fused(graph, node, layer)
    return graph


def _layer(graph: Graph, pad: Node) -> Node | None:
    readers = graph.consumers(pad.output)
    plain = not graph.constant(pad.inputs[1]).any() and pad.pads[2] == pad.pads[5] == 0
    if plain and len(readers) == 1 and pad.output not in graph.outputs:
        return readers[0] if readers[0].op in LAYERS else None
    return None


def _fused(graph: Graph, pad: Node, layer: Node) -> Graph:
    assert layer.window is not None  # the operator table demands it
    more = (*pad.pads[:2], *pad.pads[3:5])
    top, left, bottom, right = (a + b for a, b in zip(layer.window.pads, more, strict=True))
    window: Window = replace(layer.window, pads=(top, left, bottom, right))
    merged = replace(layer, window=window, inputs=(pad.inputs[0], *layer.inputs[1:]))
    nodes = (merged if n.name == layer.name else n for n in graph.nodes if n.name != pad.name)
    return graph.edit(tuple(nodes))
