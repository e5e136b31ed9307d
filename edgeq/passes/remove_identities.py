"""Identities are gone; their readers read what they read."""

from __future__ import annotations

from dataclasses import replace

from edgeq.errors import GraphError
from edgeq.ir import Graph, Node, Op


def remove_identities(graph: Graph) -> Graph:
    """No identity is left.

    Where an identity computes an output of the graph, the node before it takes over the output's
    name, so that interfaces keep theirs.
    """
    while identity := next((n for n in graph.nodes if n.op is Op.IDENTITY), None):
        graph = _without(graph, identity)
    return graph


def _without(graph: Graph, identity: Node) -> Graph:
    source, result = identity.inputs[0], identity.output
    old, kept = (source, result) if result in graph.outputs else (result, source)
    if old == source and (old in graph.outputs or graph.producer(old) is None):
        raise GraphError(
            "EQ0316",
            f"{identity.name}: output {result} is a copy of {source}, "
            "which is an input or output itself; drop one of the two",
        )
    nodes = tuple(
        replace(
            node,
            inputs=tuple(kept if name == old else name for name in node.inputs),
            output=kept if node.output == old else node.output,
        )
        for node in graph.nodes
        if node.name != identity.name
    )
    return graph.edit(nodes)
