"""Where every activation lies in the arena, and how large the arena is.

The nodes run in the order in which the graphs hold them; the planner does not change it. Each
variant has its own range of steps, one per node. Two tensors may share memory unless some path,
one variant per block, needs both at once: run a block again only after the blocks before it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeq.ir import Graph, Network, Node, Op, Tensor
from edgeq.ops import OPS

ALIGN = 8
SEARCH_MOVES = 400  # small networks gain nothing from more (bench/plan.py)
SEARCH_WORK = 200_000  # pairs of neighbours that one search looks at, about 0.1 s: for large ones


@dataclass(frozen=True, slots=True)
class Placement:
    """A range of the arena, taken from step `first` to step `last`, both included.

    A tensor that crosses a block boundary is free in those steps between that are of other paths.
    """

    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The arena of a network.

    Tensors that share memory (a reshape and its input, an output written over an input) each have
    a placement, with the same offset and the lifetime of all of them. `lower_bound` is the largest
    sum of live bytes over the steps, each slot rounded up to `ALIGN`; `arena_bytes` is the end of
    the highest placement and not rounded, so it may lie up to `ALIGN` − 1 below the bound.
    """

    arena_bytes: int
    tensors: Mapping[str, Placement]  # every activation
    scratch: Mapping[str, Placement]  # by node name, where the node has scratch
    lower_bound: int


def activation_bytes(tensor: Tensor) -> int:
    """What `tensor` takes: 2 bytes an element at 16 bits, 1 at 8..5, 1/2 at 4..3, 1/4 at 2.

    The sum is rounded up. A tensor without quantisation parameters counts as 8 bits.
    """
    return -(-tensor.elements * _width(tensor) // 8)


def _width(tensor: Tensor) -> int:
    return 8 if tensor.qparams is None else tensor.qparams.width


def plan(network: Network, scratch: Mapping[str, int]) -> Plan:
    """Every activation, and the `scratch` bytes of nodes by name, placed without overlap.

    A reshape aliases its input. An operator that may write in place overwrites an input that dies
    there, unless the arena is smaller without. The same arguments give the same plan: the search
    is seeded, and bounded by its work, never by a clock.
    """
    options: list[list[_Slot]] = []
    for choose in (_first, _last, _none):
        slots = _slots(network, scratch, choose)
        if slots not in options:
            options.append(slots)
    bounds = [_lower_bound(slots) for slots in options]
    plans = (
        _plan(slots, _pack(slots, bound), min(bounds))
        for slots, bound in zip(options, bounds, strict=True)
    )
    return min(plans, key=lambda plan: plan.arena_bytes)


# Slots: what must have memory of its own, and when.


@dataclass(slots=True)
class _Slot:
    """Tensors that share memory, or the scratch of one node (then `scratch` is set)."""

    names: list[str]
    bytes: int
    steps: int  # bit set of the steps in which it is live, on the paths that use it
    scratch: bool = False

    @property
    def size(self) -> int:
        return -(-self.bytes // ALIGN) * ALIGN

    @property
    def first(self) -> int:
        return (self.steps & -self.steps).bit_length() - 1

    @property
    def last(self) -> int:
        return self.steps.bit_length() - 1


@dataclass(frozen=True, slots=True)
class _Step:
    """One node; `later` is the bit set of the steps that may still run after it."""

    index: int
    graph: Graph
    node: Node
    later: int


_Choose = Callable[[Sequence[_Slot]], _Slot | None]  # which of the dying inputs to overwrite


def _first(dying: Sequence[_Slot]) -> _Slot | None:
    return dying[0] if dying else None


def _last(dying: Sequence[_Slot]) -> _Slot | None:
    return dying[-1] if dying else None


def _none(dying: Sequence[_Slot]) -> _Slot | None:
    return None


def _slots(network: Network, scratch: Mapping[str, int], choose: _Choose) -> list[_Slot]:
    """The slots of `network`, aliases merged and dying inputs overwritten as `choose` says."""
    steps = list(_steps(network))
    slots = _activations(network)
    for step in steps:
        if step.node.op is Op.RESHAPE:
            _merge(slots, slots[step.node.inputs[0]], slots[step.node.output])
    for step in steps:
        if OPS[step.node.op].in_place and (chosen := choose(_dying(step, slots))):
            _merge(slots, chosen, slots[step.node.output])
    runs: dict[str, int] = {}
    for step in steps:
        runs[step.node.name] = runs.get(step.node.name, 0) | 1 << step.index
    unique = {id(slot): slot for slot in slots.values()}
    return [
        *unique.values(),
        *(_Slot([name], size, runs[name], scratch=True) for name, size in scratch.items() if size),
    ]


def _steps(network: Network) -> Iterator[_Step]:
    total = sum(len(graph.nodes) for graph in network.graphs)
    start = 0
    for block in network.blocks:
        after = start + sum(len(variant.graph.nodes) for variant in block.variants)
        for variant in block.variants:
            end = start + len(variant.graph.nodes)
            for index, node in enumerate(variant.graph.nodes, start):
                later = _bits(index + 1, end) | _bits(after, total)
                yield _Step(index, variant.graph, node, later)
            start = end


def _activations(network: Network) -> dict[str, _Slot]:
    """A slot of its own for every activation, live where a path through the network needs it."""
    slots: dict[str, _Slot] = {}
    produced: set[str] = set()
    start = 0
    for graph in network.graphs:
        produced.update(node.output for node in graph.nodes)
        for name, (first, last) in _spans(graph).items():
            slot = slots.setdefault(name, _Slot([name], 0, 0))
            slot.bytes = max(slot.bytes, activation_bytes(graph.tensors[name]))
            slot.steps |= _bits(start + first, start + last + 1)
        start += len(graph.nodes)
    for name in slots.keys() - produced:
        slots[name].steps |= 1  # the caller writes the inputs before the first step
    for slot in slots.values():
        slot.steps |= _crossed(network, slot.steps, given=slot.names[0] not in produced)
    return slots


def _crossed(network: Network, steps: int, *, given: bool) -> int:
    """The steps of blocks before and after which a tensor that is live in `steps` is needed."""
    crossed = start = 0
    for block in network.blocks:
        end = start + sum(len(variant.graph.nodes) for variant in block.variants)
        if steps >> end and (given or steps & _bits(0, start)):
            crossed |= _bits(start, end)
        start = end
    return crossed


def _spans(graph: Graph) -> dict[str, tuple[int, int]]:
    """The first and last node of `graph` at which each of its activations is live."""
    spans = dict.fromkeys(graph.inputs, (0, 0))
    for index, node in enumerate(graph.nodes):
        for tensor in graph.activations(node):
            spans[tensor.name] = (spans[tensor.name][0], index)
        spans[node.output] = (index, index)
    end = max(len(graph.nodes) - 1, 0)
    return spans | {name: (spans[name][0], end) for name in graph.outputs}


def _dying(step: _Step, slots: Mapping[str, _Slot]) -> list[_Slot]:
    """The inputs of `step` that its output may overwrite.

    They are stored in as many bits. Nothing may need them later, and they share no other step with
    the output, which may have been merged with what another variant of the block overwrites.
    """
    output = slots[step.node.output]
    kept = [slots[name] for name in step.graph.outputs]
    width = _width(step.graph.tensors[step.node.output])
    inputs = [t for t in step.graph.activations(step.node) if _width(t) == width]
    return [
        slot
        for slot in (slots[tensor.name] for tensor in inputs)
        if slot.bytes == output.bytes
        and slot.steps & output.steps == 1 << step.index
        and not slot.steps & step.later
        and not any(slot is other for other in kept)
    ]


def _merge(slots: dict[str, _Slot], slot: _Slot, other: _Slot) -> None:
    """`slot` holds what `other` held, too."""
    if slot is not other:
        slot.names += other.names
        slot.bytes = max(slot.bytes, other.bytes)
        slot.steps |= other.steps
        slots.update(dict.fromkeys(other.names, slot))


def _bits(start: int, stop: int) -> int:
    return (1 << stop) - (1 << start)


# Packing: an offset for every slot.


def _pack(slots: Sequence[_Slot], bound: int) -> list[int]:
    """Offsets from the best of several orders, then of a local search; `bound` is good enough."""
    neighbours = _neighbours(slots)
    best: list[int] = []
    best_order: list[int] = []
    for order in _orders(slots, neighbours):
        offsets = _place(slots, neighbours, order)
        if not best or _end(slots, offsets) < _end(slots, best):
            best, best_order = offsets, order
        if _end(slots, best) <= bound:
            return best
    return _search(slots, neighbours, best_order, bound)


def _neighbours(slots: Sequence[_Slot]) -> list[list[int]]:
    """For each slot those that are live in a step in which it is live, too."""
    return [
        [j for j, other in enumerate(slots) if j != i and other.steps & slot.steps]
        for i, slot in enumerate(slots)
    ]


def _orders(slots: Sequence[_Slot], neighbours: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Greedy by size comes first, so that the result is never above it."""
    crowd = [sum(slots[j].size for j in near) for near in neighbours]
    keys: tuple[Callable[[int], int], ...] = (
        lambda i: -slots[i].size,
        lambda i: -slots[i].size * (slots[i].last - slots[i].first + 1),
        lambda i: -slots[i].size - crowd[i],
        lambda i: slots[i].first,
        lambda i: -slots[i].last,
    )
    by_life = sorted(range(len(slots)), key=lambda i: (slots[i].first, slots[i].last))
    for key in keys:
        yield sorted(by_life, key=key)


def _place(
    slots: Sequence[_Slot], neighbours: Sequence[Sequence[int]], order: Sequence[int]
) -> list[int]:
    """Each slot in turn at the lowest offset that is free in all its steps."""
    offsets = [-1] * len(slots)
    for i in order:
        taken = sorted((offsets[j], slots[j].size) for j in neighbours[i] if offsets[j] >= 0)
        offset = 0
        for start, size in taken:
            if start - offset >= slots[i].size:
                break
            offset = max(offset, start + size)
        offsets[i] = offset
    return offsets


def _search(
    slots: Sequence[_Slot], neighbours: Sequence[Sequence[int]], order: list[int], bound: int
) -> list[int]:
    """The best offsets met while slots at the top of the arena move to the front of the order."""
    rng = random.Random(0)
    best = current = _place(slots, neighbours, order)
    work = len(slots) + sum(map(len, neighbours))
    for _ in range(min(SEARCH_MOVES, SEARCH_WORK // work)):
        end = _end(slots, current)
        top = [i for i, slot in enumerate(slots) if current[i] + slot.bytes == end]
        moved = top[int(rng.random() * len(top))]
        tried = [i for i in order if i != moved]
        tried.insert(int(rng.random() * order.index(moved)), moved)
        offsets = _place(slots, neighbours, tried)
        if _end(slots, offsets) <= end:
            order, current = tried, offsets
        if _end(slots, current) < _end(slots, best):
            best = current
        if _end(slots, best) <= bound:
            break
    return best


def _end(slots: Sequence[_Slot], offsets: Sequence[int]) -> int:
    return max((o + slot.bytes for o, slot in zip(offsets, slots, strict=True)), default=0)


def _lower_bound(slots: Sequence[_Slot]) -> int:
    end = max((slot.last + 1 for slot in slots), default=0)
    return max((sum(s.size for s in slots if s.steps >> t & 1) for t in range(end)), default=0)


def _plan(slots: Sequence[_Slot], offsets: Sequence[int], lower_bound: int) -> Plan:
    tensors: dict[str, Placement] = {}
    scratch: dict[str, Placement] = {}
    for slot, offset in zip(slots, offsets, strict=True):
        placement = Placement(offset, slot.bytes, slot.first, slot.last)
        (scratch if slot.scratch else tensors).update(dict.fromkeys(slot.names, placement))
    return Plan(_end(slots, offsets), tensors, scratch, lower_bound)
