"""The report's view of every operator: bits, layout, kernel, bytes, noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgeq import kernels
from edgeq.gates import Path
from edgeq.ir import Block, Graph, Node, qparams_of, single
from edgeq.kernels import Choice
from edgeq.ops import OPS, macs
from edgeq.policy import Bits
from edgeq.program import Program
from edgeq.reference import graphs_on
from edgeq.report import Alternative, BitCounts, Layer, LayerBits, Slot


def describe(
    program: Program, bits: Mapping[str, Bits], noise: Mapping[str, float | None]
) -> tuple[Layer, ...]:
    """One row for every operator of every variant, in the order of the image."""
    gated = program.gate is not None
    return tuple(
        replace(
            _layer(program, graph, node, bits[node.name], noise[node.name]),
            block=block.name if gated else None,
            level=_level(block, graph) if gated and not block.head else None,
        )
        for block in program.network.blocks
        for graph in block.graphs
        for node in graph.nodes
    )


def _level(block: Block, graph: Graph) -> int:
    """The most precise level at which the block computes `graph`."""
    return next(variant.level for variant in block.variants if variant.graph is graph)


def arena(program: Program) -> tuple[Slot, ...]:
    """The planner's placements, in the order in which they come to life."""
    named = [(False, *item) for item in program.plan.tensors.items()]
    named += [(True, *item) for item in program.plan.scratch.items()]
    slots = [
        Slot(name, scratch, place.offset, place.bytes, place.first, place.last)
        for scratch, name, place in named
    ]
    return tuple(sorted(slots, key=lambda slot: (slot.first, slot.scratch, slot.offset)))


def path_estimates(program: Program) -> dict[Path, int]:
    """The estimated cycles of every path, heads on the way included."""
    gate, choices = program.gate, program.choices
    assert gate is not None  # a program with exits
    return {
        path: sum(
            choices[node.name].cycles
            for graph in graphs_on(program.network, path)
            for node in graph.nodes
            if node.name in choices
        )
        for path in gate.paths
    }


def plain_estimate(program: Program) -> int:
    """The fewest estimated cycles of level 0 to the end without heads."""
    bodies = (block for block in program.network.blocks if not block.head)
    found = (
        kernels.options(single(body.variants[0].graph), program.target.isa, "time")
        for body in bodies
    )
    return sum(choices[0].cycles for options in found for choices in options.values())


def bits_per_weight(program: Program) -> float:
    """The mean of the weights' stored bits."""
    total = count = 0
    for graph in program.network.graphs:
        for node in graph.nodes:
            if OPS[node.op].weighted:
                elements = graph.tensors[node.inputs[1]].elements
                total += elements * program.choices[node.name].weight_bits
                count += elements
    return total / count if count else 0.0


def _layer(program: Program, graph: Graph, node: Node, bits: Bits, sqnr_db: float | None) -> Layer:
    choice = program.choices.get(node.name)
    weights, layout, weight_bytes = None, None, 0
    if choice is not None and OPS[node.op].weighted:
        values = graph.constant(node.inputs[1])
        stored = choice.weight_bits
        layout = choice.layout
        weight_bytes = choice.weight_bytes
        needed = needed_bits(int(values.min()), int(values.max()))
        weights = BitCounts(bits.weights, stored, needed)
    output = qparams_of(graph.tensors[node.output])
    low, high = node.clamp or (output.qmin, output.qmax)
    spread = int(high - low).bit_length()
    activations = BitCounts(bits.activations, output.width, spread)
    return Layer(
        name=node.name,
        op=node.op.value,
        macs=macs(graph, node),
        bits=LayerBits(weights, activations),
        layout=layout,
        kernel=choice.kernel.symbol if choice is not None else None,
        weight_bytes=weight_bytes,
        sqnr_db=None if sqnr_db is None else round(sqnr_db, 2),
        cycles_estimate=choice.cycles if choice is not None else None,
        next_best=_alternative(program.next_best.get(node.name)),
    )


def _alternative(choice: Choice | None) -> Alternative | None:
    if choice is None:
        return None
    stored = choice.weight_bits or None
    layout = None if stored is None else choice.layout
    return Alternative(choice.kernel.symbol, stored, layout, choice.cycles)


def needed_bits(low: int, high: int) -> int:
    """The least number of bits, sign included, that hold low .. high."""
    return 1 + max(max(high, 0).bit_length(), max(-low - 1, 0).bit_length())
