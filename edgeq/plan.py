"""Where every activation lies in the arena, and how large the arena is.

The nodes run in the order in which the graphs hold them; the planner does not change it. Each
variant has its own range of steps, one per node. Two tensors may share memory unless some path,
one variant per block, needs both at once: run a block again only after the blocks before it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgeq.ir import Graph, Network, Node, Op, Tensor
from edgeq.ops import OPS
from edgeq.overlap import Lag

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
    a placement, with the same offset and the lifetime of all of them. An output that lies partly
    over its input has a placement of its own; it is live in the input's last step. `lower_bound` is
    the largest sum of live bytes over the steps, each slot rounded up to `ALIGN`, less what an
    output may share with its input; `arena_bytes` is the end of the highest placement and not
    rounded, so it may lie up to `ALIGN` − 1 below the bound.
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


def plan(
    network: Network,
    scratch: Mapping[str, int],
    lags: Mapping[str, Lag] | None = None,
    retained: Iterable[str] = (),
) -> Plan:
    """Every activation, and the `scratch` bytes of nodes by name, placed without overlap.

    A reshape aliases its input. An operator that may write in place overwrites an input that dies
    there, unless the arena is smaller without; one that has a lag, by name, may lay its output over
    such an input as far as the lag says. `retained` names inputs of the network that no step may
    overwrite. Scratch of a name that no node has is kept for the whole run. The same arguments give
    the same plan: the search is seeded, and bounded by its work, never by a clock.
    """
    kept = frozenset(retained)
    options: list[_Layout] = []
    for choose in (_first, _last, _none):
        layout = _layout(network, scratch, lags or {}, kept, choose)
        if layout not in options:
            options.append(layout)
    bounds = [_lower_bound(layout) for layout in options]
    plans = (
        _plan(layout.slots, _offsets(layout, bound), min(bounds))
        for layout, bound in zip(options, bounds, strict=True)
    )
    best = min(plans, key=lambda plan: plan.arena_bytes)
    if not lags or best.arena_bytes <= best.lower_bound:
        return best
    apart = plan(network, scratch, None, kept)  # the search may have gone astray
    return replace(min(best, apart, key=lambda p: p.arena_bytes), lower_bound=best.lower_bound)


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
class _Over:
    """How the output's slot may lie over the input's, both by index, in their only common step."""

    before: int  # at least so many bytes before it
    after: int  # or behind its start


@dataclass(slots=True)
class _Layout:
    """What is to be placed."""

    slots: list[_Slot]
    over: dict[tuple[int, int], _Over]  # by input and output


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


def _layout(
    network: Network,
    scratch: Mapping[str, int],
    lags: Mapping[str, Lag],
    retained: frozenset[str],
    choose: _Choose,
) -> _Layout:
    """The slots of `network`, aliases merged and dying inputs overwritten as `choose` says."""
    steps = list(_steps(network))
    slots = _activations(network, retained)
    for step in steps:
        if step.node.op is Op.RESHAPE:
            _merge(slots, slots[step.node.inputs[0]], slots[step.node.output])
    for step in steps:
        if OPS[step.node.op].in_place and (chosen := choose(_replaced(step, slots, retained))):
            _merge(slots, chosen, slots[step.node.output])
    runs: dict[str, int] = {}
    for step in steps:
        runs[step.node.name] = runs.get(step.node.name, 0) | 1 << step.index
    unique = {id(slot): slot for slot in slots.values()}
    index = {name: i for i, slot in enumerate(unique.values()) for name in slot.names}
    over = {
        (index[step.node.inputs[0]], index[step.node.output]): _over(step, slots, lag)
        for step in steps
        if (lag := lags.get(step.node.name)) is not None
        and any(slots[step.node.inputs[0]] is slot for slot in _dying(step, slots, retained))
    }
    return _Layout(
        [
            *unique.values(),
            *(
                _Slot([name], size, runs.get(name, _bits(0, len(steps))), scratch=True)
                for name, size in scratch.items()
                if size
            ),
        ],
        over,
    )


def _over(step: _Step, slots: Mapping[str, _Slot], lag: Lag) -> _Over:
    """The lag in whole units of alignment; no nearer than apart, no farther."""
    x, y = slots[step.node.inputs[0]], slots[step.node.output]
    before, after = (-(-distance // ALIGN) * ALIGN for distance in (lag.before, lag.after))
    return _Over(min(before, y.size), min(after, x.size))


def _steps(network: Network) -> Iterator[_Step]:
    total = sum(len(graph.nodes) for graph in network.graphs)
    start = 0
    for block in network.blocks:
        after = start + sum(len(graph.nodes) for graph in block.graphs)
        for graph in block.graphs:
            end = start + len(graph.nodes)
            for index, node in enumerate(graph.nodes, start):
                later = _bits(index + 1, end) | _bits(after, total)
                yield _Step(index, graph, node, later)
            start = end


def _activations(network: Network, retained: frozenset[str]) -> dict[str, _Slot]:
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
    for name in retained:
        slots[name].steps |= _bits(0, start)
    for slot in slots.values():
        slot.steps |= _crossed(network, slot.steps, given=slot.names[0] not in produced)
    return slots


def _crossed(network: Network, steps: int, *, given: bool) -> int:
    """The steps of blocks before and after which a tensor that is live in `steps` is needed."""
    crossed = start = 0
    for block in network.blocks:
        end = start + sum(len(graph.nodes) for graph in block.graphs)
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


def _dying(step: _Step, slots: Mapping[str, _Slot], retained: frozenset[str]) -> list[_Slot]:
    """The inputs of `step` whose memory its output may take.

    Nothing may need them later, and they share no other step with the output, which may have been
    merged with what another variant of the block overwrites.
    """
    output = slots[step.node.output]
    kept = [slots[name] for name in (*step.graph.outputs, *retained)]
    return [
        slot
        for slot in (slots[tensor.name] for tensor in step.graph.activations(step.node))
        if slot.steps & output.steps == 1 << step.index
        and not slot.steps & step.later
        and not any(slot is other for other in kept)
    ]


def _replaced(step: _Step, slots: Mapping[str, _Slot], retained: frozenset[str]) -> list[_Slot]:
    """The dying inputs that the output may replace value by value: they are stored alike."""
    width = _width(step.graph.tensors[step.node.output])
    alike = [slots[t.name] for t in step.graph.activations(step.node) if _width(t) == width]
    size = slots[step.node.output].bytes
    return [
        slot
        for slot in _dying(step, slots, retained)
        if slot.bytes == size and any(slot is other for other in alike)
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


def _offsets(layout: _Layout, bound: int) -> list[int]:
    """Offsets with outputs over inputs only where the arena would else be larger.

    A kernel that works row by row may fetch its weights more often.
    """
    offsets = _pack(layout, bound)
    end = _end(layout.slots, offsets)
    sums = _live_bytes(layout.slots)
    over = {
        pair: lag for pair, lag in layout.over.items() if sums[layout.slots[pair[0]].last] > end
    }
    if over != layout.over:
        fewer = _pack(_Layout(layout.slots, over), end)
        if _end(layout.slots, fewer) <= end:
            return fewer
    return offsets


def _pack(layout: _Layout, bound: int) -> list[int]:
    """Offsets from the best of several orders, then of a local search; `bound` is good enough."""
    slots = layout.slots
    neighbours = _neighbours(slots)
    best: list[int] = []
    best_order: list[int] = []
    for order in _orders(slots, neighbours):
        offsets = _place(layout, neighbours, order)
        if not best or _end(slots, offsets) < _end(slots, best):
            best, best_order = offsets, order
        if _end(slots, best) <= bound:
            return best
    return _search(layout, neighbours, best_order, bound)


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


def _place(layout: _Layout, neighbours: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Each slot in turn at the lowest offset that is free in all its steps."""
    slots = layout.slots
    offsets = [-1] * len(slots)
    for i in order:
        taken = sorted(_taken(layout, i, j, offsets[j]) for j in neighbours[i] if offsets[j] >= 0)
        offset = 0
        for start, end in taken:
            if start - offset >= slots[i].size:
                break
            offset = max(offset, end)
        offsets[i] = offset
    return offsets


def _taken(layout: _Layout, i: int, j: int, offset: int) -> tuple[int, int]:
    """What slot `i` must end before or begin behind, where `j` lies at `offset`.

    That is the range of `j`; less, even below nothing, where one may lie over the other.
    """
    slots = layout.slots
    if over := layout.over.get((j, i)):
        return offset - over.before + slots[i].size, offset + over.after
    if over := layout.over.get((i, j)):
        return offset - over.after + slots[i].size, offset + over.before
    return offset, offset + slots[j].size


def _search(
    layout: _Layout, neighbours: Sequence[Sequence[int]], order: list[int], bound: int
) -> list[int]:
    """The best offsets met while slots at the top of the arena move to the front of the order."""
    slots = layout.slots
    rng = random.Random(0)
    best = current = _place(layout, neighbours, order)
    work = len(slots) + sum(map(len, neighbours))
    for _ in range(min(SEARCH_MOVES, SEARCH_WORK // work)):
        end = _end(slots, current)
        top = [i for i, slot in enumerate(slots) if current[i] + slot.bytes == end]
        moved = top[int(rng.random() * len(top))]
        tried = [i for i in order if i != moved]
        tried.insert(int(rng.random() * order.index(moved)), moved)
        offsets = _place(layout, neighbours, tried)
        if _end(slots, offsets) <= end:
            order, current = tried, offsets
        if _end(slots, current) < _end(slots, best):
            best = current
        if _end(slots, best) <= bound:
            break
    return best


def _end(slots: Sequence[_Slot], offsets: Sequence[int]) -> int:
    return max((o + slot.bytes for o, slot in zip(offsets, slots, strict=True)), default=0)


def _live_bytes(slots: Sequence[_Slot]) -> list[int]:
    """The bytes of the slots that are live in each step."""
    steps = max((slot.last + 1 for slot in slots), default=0)
    return [sum(slot.size for slot in slots if slot.steps >> t & 1) for t in range(steps)]


def _lower_bound(layout: _Layout) -> int:
    slots = layout.slots
    sums = _live_bytes(slots)
    for (i, j), over in layout.over.items():
        sums[slots[i].last] -= _shared(slots[i].size, slots[j].size, over)
    return max(sums, default=0)


def _shared(x: int, y: int, over: _Over) -> int:
    """The most bytes that an output of `y` bytes shares with its input of `x`."""
    return max(min(y - max(over.before, 0), x), min(x - max(over.after, 0), y), 0)


def _plan(slots: Sequence[_Slot], offsets: Sequence[int], lower_bound: int) -> Plan:
    tensors: dict[str, Placement] = {}
    scratch: dict[str, Placement] = {}
    for slot, offset in zip(slots, offsets, strict=True):
        placement = Placement(offset, slot.bytes, slot.first, slot.last)
        (scratch if slot.scratch else tensors).update(dict.fromkeys(slot.names, placement))
    return Plan(_end(slots, offsets), tensors, scratch, lower_bound)
