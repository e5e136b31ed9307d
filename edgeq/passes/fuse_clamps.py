"""Relu and Clip are gone: each is the clamp of the operator before it."""

from __future__ import annotations

from dataclasses import replace

from edgeq.errors import GraphError
from edgeq.ir import Bounds, Graph, Node, Op
from edgeq.ops import OPS


def fuse_clamps(graph: Graph) -> Graph:
    """No clip is left; the operator before each clamps, and has taken over its output's name.

    Reshapes in between are looked through: clipping and reshaping may change places. Refuses a clip
    of a graph input, of a tensor that something else reads too, and of an operator without clamp.
    """
    for node in graph.nodes:
        if node.op is Op.CLIP:
            graph = _fused(graph, node)
    return graph


def _fused(graph: Graph, clip: Node) -> Graph:
    if clip.clamp is None:
        raise GraphError("EQ0304", f"{clip.name}: clip needs bounds")
    host = _host(graph, clip, clip.inputs[0])
    clamp = _then(host.clamp, clip.clamp)
    nodes = []
    for node in graph.nodes:
        if node.name != clip.name:
            clamps = replace(node, clamp=clamp) if node.name == host.name else node
            last = node.output == clip.inputs[0]
            nodes.append(replace(clamps, output=clip.output) if last else clamps)
    return graph.edit(tuple(nodes))


def _host(graph: Graph, clip: Node, source: str) -> Node:
    """The node that computes what `clip` clips, `source` up to reshapes, and may clamp it."""
    while True:
        producer = graph.producer(source)
        if producer is None:
            raise _refused(clip, f"clips {source}, an input")
        if source in graph.outputs or len(graph.consumers(source)) > 1:
            raise _refused(clip, f"clips {source}, which has another reader")
        if producer.op is not Op.RESHAPE:
            break
        source = producer.inputs[0]
    if not OPS[producer.op].fuses_clamp:
        raise _refused(clip, f"follows {producer.name} ({producer.op.value}), which cannot clamp")
    return producer


def _then(first: Bounds | None, second: Bounds) -> Bounds:
    """The bounds of clamping by `first` and then by `second`, disjoint ones included."""
    if first is None:
        return second
    low, high = second
    return min(max(first[0], low), high), min(max(first[1], low), high)


def _refused(clip: Node, why: str) -> GraphError:
    return GraphError("EQ0316", f"{clip.name}: {why}; supported: {OPS[Op.CLIP].limits}")
