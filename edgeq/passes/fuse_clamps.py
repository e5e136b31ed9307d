"""Relu and Clip are gone: each is the clamp of the operator before it, or a table."""

from __future__ import annotations

from dataclasses import replace

from edgeq.errors import GraphError
from edgeq.ir import Bounds, Function, Graph, Node, Op, Unary
from edgeq.ops import OPS


def fuse_clamps(graph: Graph) -> Graph:
    """No clip is left; the operator before each clamps, and has taken over its output's name.

    Reshapes in between are looked through: clipping and reshaping may change places. A clip of a
    graph input, of a tensor that something else reads too, and of an operator without clamp becomes
    a table.
    """
    for node in graph.nodes:
        if node.op is Op.CLIP:
            graph = _fused(graph, node)
    return graph


def _fused(graph: Graph, clip: Node) -> Graph:
    if clip.clamp is None:
        raise GraphError("EQ0304", f"{clip.name}: clip needs bounds")
    host = _host(graph, clip.inputs[0])
    if host is None:
        table = replace(clip, op=Op.TABLE, function=Function(Unary.IDENTITY))
        return graph.edit(tuple(table if n.name == clip.name else n for n in graph.nodes))
    clamp = _then(host.clamp, clip.clamp)
    nodes = []
    for node in graph.nodes:
        if node.name != clip.name:
            clamps = replace(node, clamp=clamp) if node.name == host.name else node
            last = node.output == clip.inputs[0]
            nodes.append(replace(clamps, output=clip.output) if last else clamps)
    return graph.edit(tuple(nodes))


def _host(graph: Graph, source: str) -> Node | None:
    """The node that computes `source` up to reshapes, if it may clamp for its only reader."""
    while True:
        producer = graph.producer(source)
        alone = source not in graph.outputs and len(graph.consumers(source)) == 1
        if producer is None or not alone:
            return None
        if producer.op is not Op.RESHAPE:
            return producer if OPS[producer.op].fuses_clamp else None
        source = producer.inputs[0]


def _then(first: Bounds | None, second: Bounds) -> Bounds:
    """The bounds of clamping by `first` and then by `second`, disjoint ones included."""
    if first is None:
        return second
    low, high = second
    return min(max(first[0], low), high), min(max(first[1], low), high)
