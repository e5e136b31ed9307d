"""Products of a tensor and a gate of the same tensor are gone: each is one function."""

from __future__ import annotations

from dataclasses import replace

from edgeq.errors import GraphError
from edgeq.ir import Function, Graph, Node, Op, Unary
from edgeq.ops import OPS

PRODUCTS = {Unary.SIGMOID: Unary.SILU, Unary.HARD_SIGMOID: Unary.HARD_SWISH}


def fuse_products(graph: Graph) -> Graph:
    """No product is left: x · sigmoid(x) is SiLU, x · hard_sigmoid(x) a hard swish.

    The gate stays where something else reads it. Refuses any other product of two tensors.
    """
    for node in graph.nodes:
        if node.op is Op.MULTIPLY:
            graph = _fused(graph, node)
    return graph


def _fused(graph: Graph, product: Node) -> Graph:
    for x, other in (product.inputs, product.inputs[::-1]):
        gate = graph.producer(other)
        if gate is not None and gate.inputs == (x,) and gate.clamp is None:
            function = gate.function and _product(gate.function)
            if function is not None:
                return _replaced(graph, product, gate, function)
    first, second = product.inputs
    raise GraphError(
        "EQ0316",
        f"{product.name}: multiplies {first} by {second}; supported: {OPS[Op.MULTIPLY].limits}",
    )


def _product(gate: Function) -> Function | None:
    kind = PRODUCTS.get(gate.kind)
    return None if kind is None else replace(gate, kind=kind)


def _replaced(graph: Graph, product: Node, gate: Node, function: Function) -> Graph:
    table = replace(product, op=Op.TABLE, inputs=gate.inputs, function=function)
    kept = gate.output in graph.outputs or len(graph.consumers(gate.output)) > 1
    nodes = (table if n.name == product.name else n for n in graph.nodes)
    return graph.edit(tuple(n for n in nodes if kept or n.name != gate.name))
