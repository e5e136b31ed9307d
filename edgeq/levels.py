"""A float graph with exits, at every level → the integer network: a chain of bodies and heads.

Level 0 is the policy's own, the most precise. A body has a variant for each level; what crosses an
exit has one name and one format at all of them, and so has the network's output, which heads and
last body write. Nodes and inner tensors of level n are called `NAME@n`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from edgeq import exits, kernels, policy, quantize
from edgeq.adaround import AdaRound
from edgeq.calibrate import Ranges
from edgeq.errors import PolicyError
from edgeq.exits import Cut, Head
from edgeq.gates import Levels, Path, all_paths
from edgeq.ir import (
    Block,
    Function,
    Graph,
    Network,
    Node,
    Op,
    QParams,
    Tensor,
    Unary,
    Variant,
    qparams_of,
    renamed,
    single,
)
from edgeq.kernels import Choice
from edgeq.ops import OPS
from edgeq.policy import Bits, Calibration, Policy

HEAD_BITS = Bits(8, 8)
OUTPUT_BITS = 8  # what gates read
LOW_BITS = 4  # of the level that there is where the policy names none
# Additions go by bytes; averages have the scale of what they are taken of, but are much smaller.
WIDE = (Op.ADD, Op.AVERAGE_POOL)
MOST_LEVELS = 16
WORTH = 0.95  # of the cycles above it a level may take: estimates are some per cent off
NESTED = (Op.CONV_2D, Op.FULLY_CONNECTED)  # others have few weights, and pay more for digits
TAKEN = re.compile(r".*@\d+")


@dataclass(frozen=True, slots=True)
class Chain:
    """The integer network, and what each of its nodes stands for.

    `origin` names the node of the float graph; an entry, which brings what crosses
    an exit to a level's format, stands for the layer before it and is among `entries`.
    """

    network: Network
    graph: Graph  # float, with the heads
    bits: Mapping[str, Bits]  # as the policy asked
    origin: Mapping[str, str]
    entries: frozenset[str]


def levels_of(network: Network) -> Levels:
    """The levels of each body, as gates take them."""
    bodies = (block for block in network.blocks if not block.head)
    return tuple(tuple(variant.level for variant in body.variants) for body in bodies)


def resolve(
    chosen: Policy, graph: Graph, isa: Iterable[str], name: str = "policy"
) -> tuple[dict[str, Bits], ...]:
    """The bits of every layer of `graph` at each level, level 0 first.

    The first layers keep their bits. Where the policy names no levels there is one, with weights
    of 4 bits, and activations of 4 where the core multiplies them faster (DSP); the last layer with
    weights keeps its bits there, and so does what additions and average pools read. Of a layer
    before an exit the activations are those that an entry brings its output to.

    Raises:
        PolicyError: exits do not fit, a rule matches no layer, levels rise or repeat, or there are
            too many.
    """
    taken = [node.name for node in graph.nodes if TAKEN.fullmatch(node.name)]
    if taken:
        raise PolicyError(
            "EQ0379",
            f"layer {taken[0]}: names that end in @ and a number are those of lower levels",
        )
    cuts = exits.named(graph, chosen.exits)
    top = policy.resolve(chosen, graph, name)
    if chosen.level is None:
        lower = [_default_level(graph, top, cuts, isa)]
    else:
        lower = [
            policy.resolve(level, graph, f"{name}, level {number}")
            for number, level in enumerate(chosen.level, start=1)
        ]
    if len(lower) >= MOST_LEVELS:
        raise PolicyError("EQ0374", f"{len(lower) + 1} levels; at most {MOST_LEVELS}")
    first = exits.first_layers(graph)
    crosses = {writer(graph, cut.tensor) for cut in cuts}

    def kept(name: str, asked: Bits) -> Bits:
        if name not in first:
            return asked
        return Bits(top[name].weights, asked.activations) if name in crosses else top[name]

    found = [top, *({name: kept(name, b) for name, b in bits.items()} for bits in lower)]
    for number in range(1, len(found)):
        _require_lower(graph, found[number - 1], found[number], number, chosen)
    return tuple(found)


def _default_level(
    graph: Graph, top: Mapping[str, Bits], cuts: Sequence[Cut], isa: Iterable[str]
) -> dict[str, Bits]:
    last = [node.name for node in graph.nodes if OPS[node.op].weighted][-1:]
    wide = {writer(graph, name) for node in graph.nodes if node.op in WIDE for name in node.inputs}
    wide -= {writer(graph, cut.tensor) for cut in cuts}  # these operators read those as they cross
    found = {}
    for name, bits in top.items():
        low = min(bits.activations, LOW_BITS)
        activations = low if "dsp" in isa and name not in wide else bits.activations
        found[name] = Bits(min(bits.weights, LOW_BITS), activations)
    return found | {name: top[name] for name in last}


def _require_lower(
    graph: Graph, above: Mapping[str, Bits], below: Mapping[str, Bits], number: int, chosen: Policy
) -> None:
    lower = False
    for node in graph.nodes:
        for what, counts in (
            ("weights", OPS[node.op].weighted),
            ("activations", not OPS[node.op].keeps_qparams),
        ):
            before, after = getattr(above[node.name], what), getattr(below[node.name], what)
            if counts and after > before:
                raise PolicyError(
                    "EQ0374",
                    f"level {number} gives {node.name} {what} of {after} bits, the level above it "
                    f"{before}: precision falls from level to level",
                )
            lower |= counts and after < before
    if not lower:
        hint = "" if chosen.level is not None else "; level = [] says that there is none below"
        raise PolicyError("EQ0375", f"level {number} has the bits of the level above it{hint}")


def run(
    graph: Graph,
    cuts: Sequence[Cut],
    levels: Sequence[Mapping[str, Bits]],
    ranges: Sequence[Ranges],
    settings: Calibration,
    heads: Sequence[Head] | None,
    isa: Iterable[str],
    *,
    drop: bool = True,
    nested: bool = False,
    first: Sequence[int] | None = None,
    rounder: AdaRound | None = None,
) -> Chain:
    """The network of `graph`, cut at `cuts`, at each of `levels` with its `ranges`.

    Without heads there are bodies alone: what heads are trained on. `isa` says which kernels there
    are, by whose estimates a level's body begins with an entry or reads the boundary as it is.
    Where they say that a level saves less than a twentieth in a body, it has the graph of the level
    above, unless `drop` is False; `first` are the levels of the first body, whatever they say.
    `nested`: the levels of a layer have their weights in one store, and estimates are of what
    reads it. Else `rounder` may choose the weights of each level; it sees of a body what the bodies
    before it give at that level.
    """
    builder = _Chain(
        graph, cuts, levels, ranges, settings, frozenset(isa), drop, nested, first, rounder
    )
    return builder.build(heads)


class _Make(Protocol):
    """Makes a graph whose output has that format, or its own; its weights nearest or learned."""

    def __call__(self, wanted: QParams | None, learned: bool = False) -> Graph: ...


@dataclass(slots=True)
class _Chain:
    graph: Graph
    cuts: Sequence[Cut]
    levels: Sequence[Mapping[str, Bits]]
    ranges: Sequence[Ranges]
    settings: Calibration
    isa: frozenset[str]
    drop: bool
    nested: bool
    first: Sequence[int] | None
    rounder: AdaRound | None
    bodies: list[list[Graph]] = field(default_factory=list)  # so far, at each level

    def build(self, heads: Sequence[Head] | None) -> Chain:
        """Every body and head."""
        output = self.graph.outputs[0]
        ends = [0, *(cut.nodes for cut in self.cuts), len(self.graph.nodes)]
        formats: dict[str, Tensor] = {}  # of what crosses
        for index in range(len(ends) - 2):
            part = exits.part(self.graph, ends[index], ends[index + 1])
            body, _ = self._settled(part, formats, index)
            name = part.outputs[0]
            formats[name] = body[0].tensors[name]
            self.bodies.append(body)
        last = exits.part(self.graph, ends[-2], ends[-1])
        made = [self._head(index, head, formats) for index, head in enumerate(heads or ())]
        body, settled = self._settled(last, formats, len(ends) - 2, made)
        self.bodies.append(body)
        graphs = [renamed(g, {g.outputs[0]: output}) for g in settled]
        seen = self.graph if heads is None else exits.attach(self.graph, self.cuts, heads)
        return self._chain(seen, graphs)

    def _chain(self, seen: Graph, heads: Sequence[Graph]) -> Chain:
        bits: dict[str, Bits] = {}
        origin: dict[str, str] = {}
        entries: set[str] = set()
        blocks = []
        for index, body in enumerate(self.bodies):
            variants: list[Variant] = []
            above: Graph | None = None
            for level, graph in enumerate(body):
                if graph is above:
                    if index:  # the first body may always begin at the more precise of equals
                        variants.append(Variant(level, variants[-1].graph))
                    continue
                above = graph
                made = _of_level(graph, level)
                variants.append(Variant(level, made))
                for before, after in zip(graph.nodes, made.nodes, strict=True):
                    entry = index > 0 and before.name == _entry_name(self.cuts[index - 1])
                    entries |= {after.name} if entry else set()
                    origin[after.name] = self.cuts[index - 1].layer if entry else before.name
                    asked = self.levels[level][origin[after.name]]
                    bits[after.name] = Bits(8, asked.activations) if entry else asked
            blocks.append(Block(f"block{index + 1}", tuple(variants)))
            if index < len(heads):
                head = heads[index]
                blocks.append(Block(f"exit{index + 1}", (Variant(0, head),), head=True))
                bits |= {node.name: HEAD_BITS for node in head.nodes}
                origin |= {node.name: node.name for node in head.nodes}
        network = Network(self.graph.name, tuple(blocks))
        return Chain(network, seen, bits, origin, frozenset(entries))

    def _settled(
        self,
        part: Graph,
        formats: dict[str, Tensor],
        index: int,
        heads: Sequence[_Make] = (),
    ) -> tuple[list[Graph], list[Graph]]:
        """The body at each level, and heads, with outputs in one format.

        A level that gains nothing has the graph of the level above, and nothing is learned for it.
        """
        has = range(len(self.levels))
        found = _settle([*self._makers(part, formats, index, has), *heads])
        kept = self._kept(found[: len(has)], index)
        # In a nested store others need no digits for levels that went.
        if self.rounder is not None or (self.nested and len(kept) < len(has)):
            found = _settle([*self._makers(part, formats, index, kept), *heads], learned=True)
        else:
            found = [*(found[level] for level in kept), *found[len(has) :]]
        body = [found[sum(other <= level for other in kept) - 1] for level in has]
        return body, found[len(kept) :]

    def _kept(self, graphs: Sequence[Graph], index: int) -> tuple[int, ...]:
        """The levels that gain something over the ones above them."""
        if index == 0 and self.first is not None:
            return tuple(level for level in self.first if level < len(graphs))
        cycles = self._cycles(graphs)
        kept = [0]
        for level, graph in enumerate(graphs):
            above = kept[-1]
            dropped = self.drop and cycles[level] > WORTH * cycles[above]
            if not dropped and not _same(graph, graphs[above]):
                kept.append(level)
        return tuple(kept)

    def _makers(
        self, part: Graph, formats: dict[str, Tensor], index: int, kept: Sequence[int]
    ) -> list[_Make]:
        if not index:  # all levels read the input in one format
            top = self._maker(part, formats, 0, kept)(None)
            formats |= {name: top.tensors[name] for name in part.inputs}
        makers = []
        for level in kept:
            plain = self._maker(part, formats, level, kept)
            entered = self._entered(part, formats, index, level, kept) if index and level else None
            if entered is not None:
                own, other = (self._cycles([make(None)])[0] for make in (plain, entered))
                plain = entered if other < own else plain
            makers.append(plain)
        return makers

    def _stores(self, part: Graph, kept: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The bits of each layer whose weights differ between levels, if they share a store."""
        found = {}
        for node in part.nodes:
            if self.nested and node.op in NESTED:
                bits = {self.levels[level][node.name].weights for level in kept}
                if len(bits) > 1:
                    found[node.name] = tuple(sorted(bits, reverse=True))
        return found

    def _maker(
        self, part: Graph, formats: Mapping[str, Tensor], level: int, kept: Sequence[int]
    ) -> _Make:
        """How `part` becomes integers at `level`, with an output as level 0 has it."""
        written = _origin(part, part.outputs[0])
        bits, ranges = dict(self.levels[level]), self.ranges[level]
        bounds = dict(ranges.bounds)
        for name in (written, *part.outputs):
            bounds[name] = self.ranges[0].bounds[name]
        if part.outputs == self.graph.outputs:
            bounds |= dict.fromkeys((written, *part.outputs), self._output_bounds())
        source = writer(part, written)
        if source is not None:
            own, above = bits[source], self.levels[0][source].activations
            last = part.outputs == self.graph.outputs
            bits[source] = Bits(own.weights, OUTPUT_BITS if last else above)
        stores = self._stores(part, kept)
        ranges = replace(ranges, bounds=bounds)
        return self._quantizer(part, bits, ranges, formats, written, level, stores)

    def _quantizer(
        self,
        part: Graph,
        bits: Mapping[str, Bits],
        ranges: Ranges,
        formats: Mapping[str, Tensor],
        written: str,
        level: int = 0,
        stores: Mapping[str, tuple[int, ...]] | None = None,
    ) -> _Make:
        given = {name: formats[name] for name in part.inputs if name in formats}

        def make(wanted: QParams | None, learned: bool = False) -> Graph:
            kept, rounder = dict(given), None
            if wanted is not None:
                kept[written] = replace(part.tensors[written], qparams=wanted)
            if learned and self.rounder is not None:
                before = [body[level] for body in self.bodies]
                rounder = self.rounder.of(part, before, _suffix(level))
            return quantize.run(part, bits, ranges, self.settings, rounder, kept, stores)

        return make

    def _output_bounds(self) -> tuple[float, float]:
        """What the outputs of all exits hold."""
        bounds = self.ranges[0].bounds
        names = [exits.head_names(index)[2] + ".output" for index in range(len(self.cuts))]
        found = [bounds[name] for name in (*names, *self.graph.outputs) if name in bounds]
        return min(low for low, _ in found), max(high for _, high in found)

    def _entered(
        self,
        part: Graph,
        formats: Mapping[str, Tensor],
        index: int,
        level: int,
        kept: Sequence[int],
    ) -> _Make | None:
        """The same with an entry: a table that brings what crosses to the bits of `level`."""
        cut = self.cuts[index - 1]
        crossing, source = qparams_of(formats[cut.tensor]), writer(self.graph, cut.tensor)
        if source is None or crossing.wide:
            return None
        wanted = self.levels[level][source].activations
        if wanted >= crossing.bits:
            return None
        name, tensor = _entry_name(cut), f"{cut.tensor}.entry"
        nodes = tuple(
            replace(node, inputs=tuple(tensor if n == cut.tensor else n for n in node.inputs))
            if OPS[node.op].weighted
            else node
            for node in part.nodes
        )
        if nodes == part.nodes:
            return None
        entry = Node(
            name, Op.TABLE, (cut.tensor,), tensor, function=Function(Unary.LINEAR, alpha=1.0)
        )
        own = replace(part.tensors[cut.tensor], name=tensor)
        changed = replace(part, nodes=(entry, *nodes), tensors={**part.tensors, tensor: own})
        bits, ranges = list(self.levels), list(self.ranges)
        bits[level] = {**bits[level], name: Bits(8, wanted)}
        bounds = ranges[level].bounds
        ranges[level] = replace(ranges[level], bounds={**bounds, tensor: bounds[cut.tensor]})
        other = replace(self, levels=bits, ranges=ranges)
        return other._maker(changed, formats, level, kept)

    def _head(self, index: int, head: Head, formats: Mapping[str, Tensor]) -> _Make:
        cut = self.cuts[index]
        nodes, new = exits.head_graph(self.graph, cut, index, head)
        tensors = {t.name: t for t in (self.graph.tensors[cut.tensor], *new)}
        output = nodes[-1].output
        graph = Graph(self.graph.name, (cut.tensor,), (output,), tuple(nodes), tensors)
        bounds = {**self.ranges[0].bounds, output: self._output_bounds()}
        bits = {node.name: HEAD_BITS for node in nodes}
        ranges = replace(self.ranges[0], bounds=bounds)
        return self._quantizer(graph, bits, ranges, formats, output)

    def _cycles(self, graphs: Sequence[Graph]) -> list[int]:
        """The estimates of a body's levels."""
        if not self.nested:
            return [_estimate(kernels.options(single(g), self.isa, "time"), g) for g in graphs]
        named = [_of_level(graph, level) for level, graph in enumerate(graphs)]
        variants = tuple(Variant(level, graph) for level, graph in enumerate(named))
        body = Network(self.graph.name, (Block(self.graph.name, variants),))
        shared = kernels.shared(kernels.options(body, self.isa, "flash"))
        return [_estimate(shared, graph) for graph in named]


def _estimate(options: Mapping[str, Sequence[Choice]], graph: Graph) -> int:
    return sum(options[node.name][0].cycles for node in graph.nodes if node.name in options)


def _entry_name(cut: Cut) -> str:
    return f"{cut.layer}.entry"


def paths_of(network: Network) -> tuple[Path, ...]:
    """Every path of which no other computes the same: short ones first.

    Where levels of a body share a graph, a path takes the most precise of them that it may.
    """
    bodies = [block for block in network.blocks if not block.head]

    def first(path: Path) -> bool:
        for before, body, level in zip((0, *path), bodies, path, strict=False):
            graph = next(v.graph for v in body.variants if v.level == level)
            if any(v.graph is graph and before <= v.level < level for v in body.variants):
                return False
        return True

    return tuple(path for path in all_paths(levels_of(network)) if first(path))


def shares(network: Network) -> bool:
    """Whether some layer has weights of which those of a lower level are the upper digits."""
    tensors = (tensor for graph in network.graphs for tensor in graph.tensors.values())
    return any(len(tensor.planes) > 1 for tensor in tensors)


def writer(graph: Graph, name: str) -> str | None:
    """The node that decides the format of tensor `name`; None for an input's."""
    node = graph.producer(_origin(graph, name))
    return None if node is None else node.name


def _settle(makers: Sequence[_Make], learned: bool = False) -> list[Graph]:
    """What `makers` make, with outputs in one format: the widest that one of them needs."""
    graphs = [make(None, learned) for make in makers]
    formats = [qparams_of(graph.tensors[graph.outputs[0]]) for graph in graphs]
    widest = max(formats, key=lambda q: q.scale[0])
    return [
        graph if own == widest else make(widest, learned)
        for graph, own, make in zip(graphs, formats, makers, strict=True)
    ]


def _keeps(node: Node) -> bool:
    """Whether its output's integers mean what its input's meant."""
    identity = node.function is not None and node.function.kind is Unary.IDENTITY
    return OPS[node.op].keeps_qparams or identity


def _origin(graph: Graph, name: str) -> str:
    """The tensor whose format `name` has: the one before all nodes that keep it."""
    node = graph.producer(name)
    while node is not None and _keeps(node):
        name = node.inputs[0]
        node = graph.producer(name)
    return name


def _same(a: Graph, b: Graph) -> bool:
    """Whether two graphs compute the same, in the same way."""
    return (
        a.nodes == b.nodes
        and a.tensors == b.tensors
        and all(
            t.data is None or np.array_equal(t.data, b.constant(name))
            for name, t in a.tensors.items()
        )
    )


def _of_level(graph: Graph, level: int) -> Graph:
    """`graph` under the names of a level; what crosses keeps its name."""
    suffix = _suffix(level)
    if not suffix:
        return graph
    crosses = {*graph.inputs, *graph.outputs}
    names = {name: f"{name}{suffix}" for name in graph.tensors if name not in crosses}
    made = renamed(graph, names)
    nodes = tuple(replace(node, name=f"{node.name}{suffix}") for node in made.nodes)
    return replace(made, nodes=nodes)


def _suffix(level: int) -> str:
    """What follows the names of a level."""
    return f"@{level}" if level else ""
