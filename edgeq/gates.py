"""Gates (QuEE, arXiv 2406.14404): which inputs leave at an exit, at which level the others go on.

All of it is what the device computes, integer for integer: the twin is
`firmware_stubs/runtime/eq_gate.c`. A *level* is the index of a precision, 0 the most precise; a
*path* is the levels of the blocks that ran, so that its length says at which exit it ends. After
each exit but the last, the gate gives every path that continues the one taken so far a score,
predicted error + tradeoff · cost, and takes one step towards the path of least score (eq. 18).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgeq import fixedpoint
from edgeq.errors import PolicyError, UsageError

Path = tuple[int, ...]
Levels = tuple[tuple[int, ...], ...]  # of each block: those that it has, the most precise first
Bytes = npt.NDArray[np.uint8]
Half = npt.NDArray[np.uint16]
Int64 = npt.NDArray[np.int64]

ONE = 1 << 16  # of costs, tradeoffs and errors, Q16.16
PROBABILITY_ONE = 1 << 15
MOST_TRADEOFF = (1 << 32) - 1
MOST_PATHS = 50  # the paper samples as many where there are more (§4.3)
MOST_HELD = 254  # paths that an image holds
MOST_BLOCKS = 8  # 4 bits each in eq_result_t.path
MOST_SIZE = 255  # clusters or hidden values
TOP = 5  # probabilities that a table looks at, the greatest first; the entropy follows them
ENTROPY_LINE = 512  # of a probability in Q15, from one value of their table to the next
SIGMOID_KNOTS = 65  # of the sigmoid: from −6 to 2, of errors from 0.002 to 0.88
SIGMOID_LINE = 16  # steps from one to the next
SIGMOID_STEP = 8 / (SIGMOID_KNOTS - 1) / SIGMOID_LINE
SIGMOID_ZERO = 768  # the step of 0
STATE = "gate"  # what the planner calls the memory that gates keep for a run


def all_paths(levels: Levels) -> tuple[Path, ...]:
    """Every path through blocks of those levels, short ones first; precision never rises."""
    found: list[Path] = []
    reached: list[Path] = [()]
    for block in levels:
        reached = [(*p, level) for p in reached for level in block if not p or level >= p[-1]]
        found += reached
    return tuple(found)


def sampled(paths: Sequence[Path], seed: int, most: int = MOST_PATHS) -> tuple[Path, ...]:
    """At most about `most` of `paths`, the same in training and use (§4.3).

    The paths of the most precise level and each one's beginnings always stay, so that there is a
    decision everywhere; the order is kept.
    """
    if len(paths) <= most:
        return tuple(paths)
    best = min(path[0] for path in paths)
    kept = {path for path in paths if path == (best,) * len(path)}
    kept |= {path for path in paths if len(path) == 1}
    order = np.random.default_rng(seed).permutation(len(paths))
    for index in order:
        path = paths[int(index)]
        begun = {path[:n] for n in range(1, len(path) + 1)}
        if len(kept | begun) <= most:
            kept |= begun
    return tuple(path for path in paths if path in kept)


@dataclass(frozen=True, slots=True)
class Costs:
    """What each part takes on one target, in `unit`, and what measured it.

    `heads` and `gates` are of the exits before the last, which has neither: its head belongs to
    the last block.
    """

    unit: str  # cycles_model, instructions, bitops_linear or bops
    source: str
    blocks: tuple[Mapping[int, float], ...]  # by level
    heads: tuple[float, ...]
    gates: tuple[float, ...]

    def of(self, path: Path) -> float:
        """The cost of `path`, every head and gate on its way included (spec §8.4)."""
        blocks = sum(block[level] for block, level in zip(self.blocks, path, strict=False))
        return blocks + sum(self.heads[: len(path)]) + sum(self.gates[: len(path)])

    @property
    def dominated(self) -> frozenset[tuple[int, int]]:
        """The (block, level) that cost as much as a more precise level of that block, or more.

        Only from the first block on, since precision never rises: a level that pays in a block has
        to be one that the blocks behind it can go on at.
        """
        found: set[tuple[int, int]] = set()
        for level in sorted({level for block in self.blocks for level in block}):
            for index, block in enumerate(self.blocks):
                if level not in block:
                    continue
                if all(block[level] < block[above] for above in block if above < level):
                    break
                found.add((index, level))
        return frozenset(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell the user of dominated levels."""
        dropped = sorted(self.dominated)
        if not dropped:
            return ()
        names = ", ".join(f"level {level} of block {index + 1}" for index, level in dropped)
        found = [
            UsageError(
                "EQ0265", f"no cheaper than a more precise level ({self.unit}), left out: {names}"
            )
        ]
        if len(dropped) == sum(len(block) - 1 for block in self.blocks):
            found.append(
                UsageError("EQ0266", "no lower level pays on this target: only exits are left")
            )
        return tuple(map(str, found))


def normalised(costs: Costs, paths: Sequence[Path]) -> tuple[int, ...]:
    """The cost of each path as a share of the dearest one, Q16.16, at least 1."""
    plain = [costs.of(path) for path in paths]
    return tuple(max(round(ONE * cost / max(plain)), 1) for cost in plain)


@dataclass(frozen=True, slots=True)
class Static:
    """No prediction: every input goes to the last exit, on the first path that leads there.

    Where none does, it leaves.
    """


@dataclass(frozen=True, slots=True)
class Table:
    """Errors by cluster of what an exit sees: its greatest probabilities and their entropy."""

    centroids: Bytes  # (exits − 1, clusters, TOP + 1)
    errors: Mapping[Path, Bytes]  # by path so far: (clusters, its options), in 1/256


@dataclass(frozen=True, slots=True)
class Layer:
    """One gate's network: hidden values are sums · 2^−shift, rounded down and clamped to 0..255.

    The output is a step of `sigmoids`, counted from that of 0.
    """

    hidden: npt.NDArray[np.int8]  # (hidden, inputs): `inputs_of`; hidden a multiple of 4
    hidden_bias: npt.NDArray[np.int32]  # (hidden,)
    hidden_shift: int  # 0..30
    output: npt.NDArray[np.int8]  # (hidden,)
    output_bias: int
    output_scale: tuple[int, int]  # multiplier, shift (to the right: -31..0)


@dataclass(frozen=True, slots=True)
class Mlp:
    """The paper's predictor (eqs. 13 to 15) with 8-bit weights: a network for each gate."""

    layers: tuple[Layer, ...]  # of the exits before the last


Form = Static | Table | Mlp


@dataclass(frozen=True, slots=True)
class Gate:
    """The gates of a network, as the image holds them.

    `paths` is closed: every beginning of a path is one; short ones come first, then those of lower
    levels. `costs` are theirs, Q16.16 of the dearest; no path costs less than its beginning.
    `first` says at which level the first block runs, by the tradeoff from which it does so,
    ascending from 0.
    """

    classes: int
    levels: Levels
    paths: tuple[Path, ...]
    costs: tuple[int, ...]
    first: tuple[tuple[int, int], ...]
    tradeoff: int  # at start, Q16.16
    form: Form

    def __post_init__(self) -> None:
        if not 2 <= len(self.levels) <= MOST_BLOCKS:
            raise PolicyError("EQ0395", f"{len(self.levels)} exits; gates need 2 to {MOST_BLOCKS}")
        known = set(self.paths)
        if len(known) != len(self.paths) or len(self.costs) != len(self.paths):
            raise PolicyError("EQ0395", "each path of a gate stands once, and has one cost")
        if any(path[:-1] and path[:-1] not in known for path in self.paths):
            raise PolicyError("EQ0395", "every beginning of a path must be a path of the gate")
        if list(self.paths) != sorted(self.paths, key=lambda path: (len(path), path)):
            raise PolicyError("EQ0395", "paths of a gate stand in order, short ones first")
        cost = dict(zip(self.paths, self.costs, strict=True))
        if not all(cost.get(p[:-1], 1) <= cost[p] <= ONE for p in self.paths):
            raise PolicyError(
                "EQ0395", f"costs lie in 1..{ONE}, and no path costs less than its beginning"
            )
        for path in self.paths:
            has = all(level in block for level, block in zip(path, self.levels, strict=False))
            if not has or any(b < a for a, b in pairwise(path)):
                raise PolicyError("EQ0395", f"path {path} does not go through levels {self.levels}")
        tradeoffs = [tradeoff for tradeoff, _ in self.first]
        if not tradeoffs or tradeoffs[0] != 0 or any(b <= a for a, b in pairwise(tradeoffs)):
            raise PolicyError("EQ0395", f"first levels must start at 0 and ascend: {self.first}")
        if any((level,) not in known for _, level in self.first):
            raise PolicyError("EQ0395", f"first levels must be paths: {self.first}")
        if not 0 <= self.tradeoff <= MOST_TRADEOFF:
            raise PolicyError("EQ0395", f"tradeoff {self.tradeoff} is no Q16.16")
        if len(self.paths) > MOST_HELD:
            raise PolicyError("EQ0395", f"{len(self.paths)} paths; an image holds {MOST_HELD}")
        if not self._form_fits():
            raise PolicyError("EQ0395", "the tables of a gate do not have the shapes of its paths")

    def _form_fits(self) -> bool:
        form, size, gates = self.form, self.size, self.exits - 1
        if isinstance(form, Static):
            return True
        if not 1 <= size <= MOST_SIZE:
            return False
        if isinstance(form, Table):
            return form.centroids.shape == (gates, size, TOP + 1) and all(
                path in form.errors and form.errors[path].shape == (size, len(self.options(path)))
                for path in self.nodes()
            )
        shapes = (size, 2 * self.classes + 4 + self.exits + 1), (size,), (size,)
        return (
            size % 4 == 0
            and len(form.layers) == gates
            and all(
                (layer.hidden.shape, layer.hidden_bias.shape, layer.output.shape) == shapes
                for layer in form.layers
            )
        )

    @property
    def kind(self) -> str:
        """The form's name: static, table or mlp."""
        return type(self.form).__name__.lower()

    @property
    def size(self) -> int:
        """Clusters of the table, hidden values of the MLP."""
        if isinstance(self.form, Static):
            return 0
        if isinstance(self.form, Table):
            return int(self.form.centroids.shape[1])
        return len(self.form.layers[0].output)

    @property
    def level_count(self) -> int:
        """One more than the greatest level."""
        return 1 + max(level for block in self.levels for level in block)

    @property
    def state_bytes(self) -> int:
        """Arena bytes that the gates keep for a run; the C twin is `eq_gate_state_bytes`.

        What they saw, as bytes; an MLP's hidden sums of a path of each length, too.
        """
        if isinstance(self.form, Mlp):
            return -(-(2 * self.classes + 4) // 4) * 4 + 4 * self.exits * self.size
        return self.classes if isinstance(self.form, Table) else 0

    @property
    def exits(self) -> int:
        """How many exits there are, the last one included."""
        return len(self.levels)

    def options(self, path: Path) -> tuple[int, ...]:
        """The paths, by index, that go on from `path`, which is among them; short ones first."""
        return tuple(i for i, p in enumerate(self.paths) if p[: len(path)] == path)

    def nodes(self) -> tuple[Path, ...]:
        """The paths behind which a gate decides: those that end before the last exit."""
        return tuple(path for path in self.paths if len(path) < self.exits)

    def first_level(self, tradeoff: int) -> int:
        """The level of the first block."""
        return next(level for at, level in reversed(self.first) if at <= tradeoff)


def static(classes: int, levels: Levels) -> Gate:
    """What a network with exits has before its gates are fitted: it runs whole unless forced."""
    paths = sampled(all_paths(levels), 0, MOST_HELD)
    cost = tuple(max(ONE * len(path) // len(levels), 1) for path in paths)
    return Gate(classes, levels, paths, cost, ((0, levels[0][0]),), 0, Static())


# What a gate sees of a head.


@dataclass(frozen=True, slots=True)
class Seen:
    """Probabilities (inputs, classes) and entropies (inputs,) as bytes: 255 is 1, or uniform."""

    probabilities: Bytes
    entropy: Bytes

    def take(self, rows: Int64) -> Seen:
        """Of those inputs alone."""
        return Seen(self.probabilities[rows], self.entropy[rows])

    @property
    def top(self) -> Bytes:
        """(inputs, TOP + 1): the greatest probabilities, 0 where classes lack, then the entropy."""
        ordered = -np.sort(-self.probabilities.astype(np.int16), axis=1)[:, :TOP]
        found = np.zeros((len(ordered), TOP + 1), np.uint8)
        found[:, : ordered.shape[1]] = ordered
        found[:, TOP] = self.entropy
        return found


def exponential_factors(scale: float) -> Half:
    """(2, 16): round(65535 · exp(−scale · d)), d = 0..15, then d = 0, 16, …, 240."""
    steps = np.arange(16) * np.array([[1], [16]])
    return np.asarray(np.rint(65535 * np.exp(-scale * steps)), np.uint16)


def exponentials(scale: float) -> Half:
    """65535 · exp(−scale · d), d = 0..255 steps below the greatest: products of two factors."""
    low, high = exponential_factors(scale).astype(np.int64)
    return np.asarray((high[:, None] * low + (1 << 15)) >> 16, np.uint16).ravel()


def entropies(classes: int) -> Half:
    """The 66 values of −p · ln p / ln classes at p = k / 64, Q15; between them run lines.

    What comes behind p = 1 is 0.
    """
    p = np.arange(1, 65) / 64
    plain = np.zeros(66)
    plain[1:65] = -p * np.log(p) / math.log(max(classes, 2))
    return np.asarray(np.rint(PROBABILITY_ONE * plain), np.uint16)


def sigmoid_knots() -> Half:
    """Of each SIGMOID_LINE steps the first: round(65535 / (1 + exp(−z))), and that of their end."""
    z = (np.arange(SIGMOID_KNOTS) * SIGMOID_LINE - SIGMOID_ZERO) * SIGMOID_STEP
    return np.asarray(np.rint(65535 / (1 + np.exp(-z))), np.uint16)


def sigmoids() -> Half:
    """Those of every step, on lines between the knots, rounded down."""
    knots = sigmoid_knots().astype(np.int64)
    rise = np.diff(knots)[:, None] * np.arange(SIGMOID_LINE) // SIGMOID_LINE
    return np.asarray(knots[:-1, None] + rise, np.uint16).ravel()


def see(logits: npt.NDArray[np.int8], scale: float) -> Seen:
    """What a gate sees of a head's outputs (inputs, classes), of that scale."""
    values = logits.astype(np.int64)
    below = values.max(axis=1, keepdims=True) - values
    weights = exponentials(scale).astype(np.int64)[below]
    total = weights.sum(axis=1, keepdims=True)
    probability = (weights * PROBABILITY_ONE + total // 2) // total
    table = entropies(logits.shape[1]).astype(np.int64)
    at, past = probability // ENTROPY_LINE, probability % ENTROPY_LINE
    terms = table[at] * ENTROPY_LINE + (table[at + 1] - table[at]) * past
    return Seen(_byte(probability), _byte(terms.sum(axis=1) // ENTROPY_LINE))


def _byte(q15: Int64) -> Bytes:
    return np.asarray(np.minimum(q15 >> 7, 255), np.uint8)


# What it predicts.


def inputs_of(gate: Gate, seen: Seen, before: Seen | None, path: Path) -> Bytes:
    """The inputs of a gate's network for one option: u of eq. 13, then p of eq. 14, as bytes.

    u: probabilities here and at the exit before (0 at the first), both entropies, both maxima, the
    earlier one first. p: each block's level, counted from 1, over their number; blocks over exits.
    """
    n = len(seen.entropy)
    if before is None:
        before = Seen(np.zeros((n, gate.classes), np.uint8), np.zeros(n, np.uint8))
    u = (
        seen.probabilities,
        before.probabilities,
        seen.entropy[:, None],
        before.entropy[:, None],
        before.probabilities.max(axis=1)[:, None],
        seen.probabilities.max(axis=1)[:, None],
    )
    return np.concatenate([*u, np.broadcast_to(path_inputs(gate, path), (n, gate.exits + 1))], 1)


def path_inputs(gate: Gate, path: Path) -> Bytes:
    """The part of `inputs_of` that says which option it is, (exits + 1,)."""
    levels = [255 * (level + 1) // gate.level_count for level in path]
    levels += [0] * (gate.exits - len(path))
    return np.array([*levels, 255 * len(path) // gate.exits], np.uint8)


def predict(gate: Gate, path: Path, seen: Mapping[Path, Seen]) -> Int64:
    """Errors (inputs, options of `path`), Q16, from what the exits on `path` saw."""
    here, options = seen[path], gate.options(path)
    form = gate.form
    if isinstance(form, Table):
        return form.errors[path].astype(np.int64)[cluster(form, len(path), here)] << 8
    if isinstance(form, Mlp):
        layer, before = form.layers[len(path) - 1], seen.get(path[:-1])
        columns = [
            _network(layer, inputs_of(gate, here, before, gate.paths[option])) for option in options
        ]
        return np.stack(columns, axis=1)
    goal = gate.paths.index(_whole(gate, path))
    errors = np.where(np.array(options) == goal, 0, MOST_TRADEOFF)
    return np.broadcast_to(errors, (len(here.entropy), len(options)))


def _whole(gate: Gate, path: Path) -> Path:
    whole = (p for p in gate.paths if len(p) == gate.exits and p[: len(path)] == path)
    return next(whole, path)


def cluster(table: Table, exit: int, seen: Seen) -> Int64:
    """The nearest centroid of exit `exit` (from 1), the first of equals: (inputs,)."""
    centroids = table.centroids[exit - 1].astype(np.int64)
    distance = ((seen.top.astype(np.int64)[:, None] - centroids) ** 2).sum(axis=2)
    return np.asarray(distance.argmin(axis=1), np.int64)


def _network(layer: Layer, inputs: Bytes) -> Int64:
    """Errors (inputs,), Q16."""
    sums = inputs.astype(np.int64) @ layer.hidden.T.astype(np.int64) + layer.hidden_bias
    hidden = np.clip(sums >> layer.hidden_shift, 0, 255)
    sums = hidden @ layer.output.astype(np.int64) + layer.output_bias
    table = sigmoids().astype(np.int64)
    return table[np.clip(_requantize(sums, layer.output_scale) + SIGMOID_ZERO, 0, len(table) - 1)]


def _requantize(values: Int64, scale: tuple[int, int]) -> Int64:
    multiplier, shift = (np.full(values.shape, part, np.int64) for part in scale)
    return np.asarray(fixedpoint.requantize(values, multiplier, shift), np.int64)


# Where inputs go.


@dataclass(frozen=True, slots=True)
class Routes:
    """For each input the index of the path that it took."""

    paths: Int64

    def labels(self, gate: Gate, logits: Mapping[Path, npt.NDArray[np.int8]]) -> Int64:
        """The class given to each input: its greatest output where it left, the first of equals."""
        found = np.zeros(len(self.paths), np.int64)
        for index in np.unique(self.paths):
            took = self.paths == index
            found[took] = logits[gate.paths[index]][took].argmax(axis=1)
        return found


def route(gate: Gate, predicted: Mapping[Path, Int64], tradeoff: int | None = None) -> Routes:
    """The way of every input, by the errors (`predict`) at each path of `gate.nodes()`."""
    weight = gate.tradeoff if tradeoff is None else tradeoff
    start = gate.paths.index((gate.first_level(weight),))
    count = len(next(iter(predicted.values())))
    taken = np.full(count, start, np.int64)
    for path in _by_length(gate.nodes()):
        index = gate.paths.index(path)
        here = np.flatnonzero(taken == index)
        if not len(here):
            continue
        options = gate.options(path)
        best = np.array(options)[decide(gate, options, predicted[path][here], weight)]
        step = [gate.paths.index(gate.paths[o][: len(path) + 1]) for o in options]
        ahead = dict(zip(options, step, strict=True))
        taken[here] = [ahead[int(option)] for option in best]
        # An option that ends here is an exit: its input stays.
    return Routes(taken)


def _by_length(paths: Sequence[Path]) -> Iterator[Path]:
    yield from sorted(paths, key=len)


def decide(gate: Gate, options: Sequence[int], errors: Int64, tradeoff: int) -> Int64:
    """The option of least score, by its place in `options`; of equals the cheapest, then the first.

    Scores are error + (tradeoff · cost >> 16), which 64 bits hold.
    """
    costs = np.array([gate.costs[option] for option in options], np.int64)
    priced = np.array([tradeoff * int(cost) >> 16 for cost in costs], np.int64)
    order = np.argsort(costs, kind="stable")
    return np.asarray(order[(errors + priced)[:, order].argmin(axis=1)], np.int64)


def repriced(gate: Gate, costs: Costs) -> Gate:
    """The same gates at other costs: nothing of what was learned changes."""
    return replace(gate, costs=normalised(costs, gate.paths))
