"""Steps over height and then over width are one operator."""

from __future__ import annotations

from dataclasses import replace

from edgeq.ir import Graph, Node, Op, Window


def merge_strides(graph: Graph) -> Graph:
    """A max pool of one tap reads no other max pool of one tap that it could be part of.

    Sliced by rows and then by columns, an image has become two of them. One that clamps, or that
    something else reads, stays.
    """
    for node in graph.nodes:
        second = graph.producer(node.output)  # as earlier merges left it
        if second is not None and _steps(second) is not None:
            first = graph.producer(second.inputs[0])
            if first is not None and _steps(first) is not None and _alone(graph, first):
                graph = _merged(graph, first, second)
    return graph


def _steps(node: Node) -> Window | None:
    """The window of a pool that only takes every n-th pixel."""
    window = node.window
    if node.op is not Op.MAX_POOL or window is None:
        return None
    return window if window.kernel == (1, 1) and not any(window.pads) else None


def _alone(graph: Graph, first: Node) -> bool:
    read = len(graph.consumers(first.output)) == 1 and first.output not in graph.outputs
    return read and first.clamp is None


def _merged(graph: Graph, first: Node, second: Node) -> Graph:
    a, b = _steps(first), _steps(second)
    assert a is not None  # as the caller has seen
    assert b is not None
    strides = (a.strides[0] * b.strides[0], a.strides[1] * b.strides[1])
    merged = replace(second, inputs=first.inputs, window=Window((1, 1), strides))
    nodes = (merged if n.name == second.name else n for n in graph.nodes if n.name != first.name)
    return graph.edit(tuple(nodes))
