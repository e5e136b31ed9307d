"""AdaRound: which weights to round up and which down, so that each layer's output changes least.

Layer by layer, in order: the input is what the integer network computes up to here, the target
what the float network gives, fused activation included. A body of a network with exits is learned
at every level, behind the bodies before it at that level. Up or down is h = clip(1.2·σ(V) − 0.1,
0, 1) while it is learned, with a penalty that drives it to 0 or 1 (Nagel et al., arXiv 2004.10568,
eq. 20–24). The gradient is written out, so that NumPy is all it takes. No labels; the same seed
gives the same integers on the same machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgeq import floatrun, reference, weights
from edgeq.ir import Array, Bounds, Graph, Node, Op, digest, qparams_of
from edgeq.ops import OPS, windows

Reals = npt.NDArray[np.float32]

ITERATIONS = 1000
BATCH = 1024  # output positions of a step
RATE = 1e-2
PENALTY = 100.0  # times a weight's share of the error of rounding to nearest: scales cancel
BETA = (20.0, 2.0)  # the penalty's exponent falls: first h only leaves the middle
WARM_UP = 0.2  # share of the steps without penalty
MEAN_DECAY, POWER_DECAY, TINY = 0.9, 0.999, 1e-8  # Adam
STRETCH = 1.2, 0.1  # h reaches 0 and 1 before V reaches infinity

SAMPLES = 256  # most samples looked at
POSITIONS = 1 << 17  # most output positions of a layer looked at
PATCH_VALUES = 1 << 25  # most input values kept for them
FLOAT_BATCH = 32
EXACT_BITS = 8  # layers of as many are rounded to nearest: nothing is left to gain

Progress = Callable[[int], None]  # layers done


@dataclass(frozen=True, slots=True)
class Learned:
    """What rounding changed in one layer: the mean squared error of its output, either way."""

    layer: str
    nearest: float
    learned: float


# Integers and errors, nearest and theirs, by the digest of what they were learned from.
Known = dict[str, tuple[Array, tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Patches:
    """What a layer computes with at some output positions: groups × positions × K, and targets."""

    inputs: Reals
    target: Reals  # positions × output channels

    def outputs(self, rows: Reals, bias: Reals, at: Array | slice = slice(None)) -> Reals:
        """The layer's sums at positions `at` with the weights `rows`."""
        groups, _, size = self.inputs.shape
        filters = rows.reshape(groups, -1, size).transpose(0, 2, 1)
        sums = np.matmul(self.inputs[:, at], filters)
        return np.asarray(sums.transpose(1, 0, 2).reshape(-1, len(rows)) + bias)


@dataclass(slots=True)
class AdaRound:
    """Chooses integers for the layers of the float network `graph`, on samples of its `inputs`.

    What is `known` is not learned again: another one may have learned it from the same.
    """

    graph: Graph
    inputs: Mapping[str, Array]  # reals
    seed: int
    progress: Progress = lambda done: None
    known: Known = field(default_factory=dict)
    _log: dict[str, Learned] = field(default_factory=dict)
    _entering: dict[str, dict[str, Array]] = field(default_factory=dict)  # by bodies before
    _about: str = ""  # digest of network, samples and seed

    def __post_init__(self) -> None:
        samples = len(next(iter(self.inputs.values())))
        kept = np.linspace(0, samples - 1, min(samples, SAMPLES)).astype(np.intp)
        self.inputs = {name: array[kept] for name, array in self.inputs.items()}
        found = hashlib.sha256(f"{self.seed} {digest([self.graph])}".encode())
        for name, array in self.inputs.items():
            found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        self._about = found.hexdigest()

    @property
    def log(self) -> tuple[Learned, ...]:
        """What was gained so far, a row for each layer and level."""
        return tuple(self._log.values())

    def of(self, part: Graph, before: Sequence[Graph] = (), suffix: str = "") -> Rounding:
        """What the quantiser of `part` calls, a stretch of the network.

        `before` are the integer graphs that lead to it; its layers are logged under their names
        and `suffix`.
        """
        return Rounding(self, part, tuple(before), suffix)

    def integers(self, graph: Graph, before: tuple[Graph, ...]) -> dict[str, Array]:
        """What an integer graph behind those reads, on the samples."""
        if not before:
            found = {}
            for name in graph.inputs:
                tensor = graph.tensors[name]
                real = qparams_of(tensor).quantize(self.inputs[name])
                found[name] = real.astype(tensor.dtype.value)
            return found
        key = digest(before)
        if key not in self._entering:
            last = before[-1]
            self._entering[key] = _computed(last, last, 0, self.integers(last, before[:-1]))
        return self._entering[key]

    def targets(self, node: Node, chosen: Array, positions: int) -> Reals:
        """What the float network gives at the `chosen` of `positions` a sample."""
        session = floatrun.FloatRun(self.graph, (node.output,))
        parts = []
        for start in range(0, len(next(iter(self.inputs.values()))), FLOAT_BATCH):
            stop = start + FLOAT_BATCH
            batch = {name: array[start:stop] for name, array in self.inputs.items()}
            output = session(batch)[node.output]
            here = chosen[(chosen >= start * positions) & (chosen < stop * positions)]
            parts.append(output.reshape(-1, output.shape[-1])[here - start * positions])
        return np.concatenate(parts)

    def keep(self, name: str, key: str) -> Array:
        """The integers that are known under `key`, logged as those of layer `name`."""
        integers, errors = self.known[key]
        self._log[name] = Learned(name, *errors)
        self.progress(len(self._log))
        return integers

    def key(self, *what: object, graphs: Sequence[Graph]) -> str:
        """The digest of a problem: the integer graphs before a layer, and `what` else there is."""
        return hashlib.sha256(repr((self._about, digest(graphs), what)).encode()).hexdigest()


@dataclass(slots=True)
class Rounding:
    """The integer graph of `part` on its way, layer by layer."""

    owner: AdaRound
    part: Graph
    before: tuple[Graph, ...]
    suffix: str
    _values: dict[str, Array] = field(default_factory=dict)
    _done: int = 0  # how many nodes stand in _values

    def __call__(
        self, prefix: Graph, node: Node, rows: Array, scale: Array, bits: int
    ) -> Array | None:
        """Integers for `rows`, at their scales; None where rounding to nearest will do.

        `prefix` is the integer graph of what comes before `node`.
        """
        if bits >= EXACT_BITS:
            return None
        owner = self.owner
        key = owner.key(node, scale.tobytes(), bits, graphs=(*self.before, prefix))
        if key not in owner.known:
            rng = np.random.default_rng((owner.seed, len(prefix.nodes)))
            patches = self._patches(prefix, node, rows.shape[1], rng)
            bias = self.part.constant(node.inputs[2]).astype(np.float32)
            owner.known[key] = learn(patches, rows, scale, bits, bias, node.clamp, rng)
        return owner.keep(f"{node.name}{self.suffix}", key)

    def _patches(self, prefix: Graph, node: Node, size: int, rng: np.random.Generator) -> Patches:
        if not self._values:
            self._values = dict(self.owner.integers(prefix, self.before))
        self._values = _computed(prefix, self.part, self._done, self._values)
        self._done = len(prefix.nodes)
        source = node.inputs[0]
        x = qparams_of(prefix.tensors[source]).dequantize(self._values[source]).astype(np.float32)
        shape = (len(x), *self.part.tensors[node.output].shape[1:-1])
        total = int(np.prod(shape))
        filters = self.part.tensors[node.inputs[1]].shape
        channels = 1 if node.op is Op.DEPTHWISE_CONV_2D else filters[-1]  # that one filter reads
        groups = x.shape[-1] // channels
        count = max(1, min(total, POSITIONS, PATCH_VALUES // (groups * size)))
        chosen = np.sort(rng.choice(total, count, replace=False))
        at = np.unravel_index(chosen, shape)
        if node.window is None:
            seen = x[at]
        else:
            seen = windows(x, node.window, 0, (shape[1], shape[2]))[at]
        by_group = np.moveaxis(seen.reshape(count, -1, groups, channels), 2, 0)
        inputs = np.ascontiguousarray(by_group).reshape(groups, count, size)
        return Patches(inputs, self.owner.targets(node, chosen, total // len(x)))


def _computed(
    prefix: Graph, part: Graph, done: int, values: Mapping[str, Array]
) -> dict[str, Array]:
    """The integers of all nodes of `prefix`, `done` of which stand in `values` already.

    Those alone that `part`, which `prefix` begins, needs further on.
    """
    found = dict(values)
    for index, node in enumerate(prefix.nodes[done:], start=done + 1):
        found[node.output] = reference.compute(prefix, node, found)
        needed = {*part.outputs, *(name for later in part.nodes[index:] for name in later.inputs)}
        found = {name: array for name, array in found.items() if name in needed}
    return found


def learned_layers(graph: Graph, bits: Mapping[str, int]) -> int:
    """How many layers of `graph` AdaRound has work with."""
    return sum(OPS[node.op].weighted and bits[node.name] < EXACT_BITS for node in graph.nodes)


def learn(
    patches: Patches,
    rows: Array,
    scale: Array,
    bits: int,
    bias: Reals,
    clamp: Bounds | None,
    rng: np.random.Generator,
) -> tuple[Array, tuple[float, float]]:
    """Integers for `rows`, each the one below or above, and the output's error: nearest, these.

    An output channel that rounding to nearest serves as well keeps that.
    """
    low, high = weights.limits(bits)
    bounds = clamp or (-np.inf, np.inf)
    nearest = weights.round_to(rows, scale, bits)
    before = _errors(patches, nearest, scale, bias, bounds)
    penalty = PENALTY * float(before.sum()) / rows.size
    below = np.floor(rows / scale[:, None])
    lowest, step = below.astype(np.float32), scale[:, None].astype(np.float32)
    variable = _start(rows / scale[:, None] - below)
    mean, power = np.zeros_like(variable), np.zeros_like(variable)
    count = patches.target.shape[0]
    for iteration in range(ITERATIONS):
        at = rng.integers(0, count, min(BATCH, count))
        up, slope = _up(variable)
        inside = (lowest + up >= low) & (lowest + up <= high)
        slope *= (up > 0) & (up < 1)
        sums = patches.outputs(np.clip(lowest + up, low, high) * step, bias, at)
        error = np.clip(sums, *bounds) - patches.target[at]
        error *= (sums > bounds[0]) & (sums < bounds[1])
        gradient = _weight_gradient(patches, at, error) * (step * inside)
        gradient = (gradient + penalty * _pull(up, iteration / ITERATIONS)) * slope
        mean += (1 - MEAN_DECAY) * (gradient - mean)
        power += (1 - POWER_DECAY) * (gradient**2 - power)
        first, second = (1 - decay ** (iteration + 1) for decay in (MEAN_DECAY, POWER_DECAY))
        variable -= RATE * (mean / first) / (np.sqrt(power / second) + TINY)
    learned = np.clip(below + (_up(variable)[0] >= 0.5), low, high)
    after = _errors(patches, learned, scale, bias, bounds)
    chosen = np.where((after < before)[:, None], learned, nearest)
    return chosen, (float(before.mean()), float(np.minimum(before, after).mean()))


def _errors(
    patches: Patches, integers: Array, scale: Array, bias: Reals, bounds: Bounds
) -> npt.NDArray[np.float64]:
    """The mean squared error of each output channel."""
    outputs = patches.outputs((integers * scale[:, None]).astype(np.float32), bias)
    square = np.square(np.clip(outputs, *bounds) - patches.target)
    return np.asarray(square.mean(axis=0, dtype=np.float64))


def _start(fraction: Array) -> Reals:
    """The V at which h is the weight's fraction: learning starts from the float weights."""
    width, offset = STRETCH
    share = (fraction + offset) / width
    return np.asarray(np.log(share / (1 - share)), np.float32)


def _up(variable: Reals) -> tuple[Reals, Reals]:
    """The h of each V, and its derivative between the ends."""
    width, offset = STRETCH
    sigmoid = 1 / (1 + np.exp(-variable))
    up = np.asarray(np.clip(width * sigmoid - offset, 0, 1), np.float32)
    return up, np.asarray(width * sigmoid * (1 - sigmoid), np.float32)


def _weight_gradient(patches: Patches, at: Array, error: Reals) -> Reals:
    """The derivative of the squared error, summed over channels, mean over positions."""
    groups, _, size = patches.inputs.shape
    by_group = error.reshape(len(at), groups, -1).transpose(1, 2, 0)
    gradient = np.matmul(by_group, patches.inputs[:, at]).reshape(-1, size)
    return np.asarray(gradient * np.float32(2 / len(at)))


def _pull(up: Reals, progress: float) -> Reals | float:
    """The derivative of Σ (1 − |2h − 1|^β): the penalty's pull towards 0 and 1."""
    if progress < WARM_UP:
        return 0.0
    start, end = BETA
    beta = end + (start - end) * (1 - progress) / (1 - WARM_UP)
    away = 2 * up - 1
    return np.asarray(-2 * beta * np.abs(away) ** (beta - 1) * np.sign(away))


def to_json(log: Sequence[Learned]) -> dict[str, object]:
    """What `rounding.json` holds."""
    rows = [
        {"name": row.layer, "mse_nearest": _short(row.nearest), "mse": _short(row.learned)}
        for row in log
    ]
    return {"schema": 1, "method": "adaround", "layers": rows}


def _short(value: float) -> float:
    return float(f"{value:.6g}")
