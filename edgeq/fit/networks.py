"""Fitting the MLP form (eqs. 13 to 16): trained in floats, then made the integers of the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeq import fixedpoint, gates
from edgeq.fit.adam import Floats, descend
from edgeq.fit.outputs import Fold, Int64, Reals
from edgeq.gates import Bytes, Gate, Layer, Mlp, Path, Seen

HIDDEN = 16
BATCH = 512
RATE = 3e-3
FOLLOWING = 3_000  # steps behind those of `train`, at a third of the rate
HELD_OUT = 20_000  # samples that early stopping looks at
INT32 = (1 << 31) - 1
MOST_SHIFT = 30  # of hidden values
MOST_SCALE = 0.999  # of the output: the device shifts to the right alone
TINY = 1e-6  # in place of 0: of units that never speak


@dataclass(frozen=True, slots=True)
class Net:
    """Two layers with a ReLU between; inputs are bytes / 255."""

    hidden: Floats  # (hidden, inputs)
    hidden_bias: Floats
    output: Floats  # (outputs, hidden)
    output_bias: Floats

    @property
    def parameters(self) -> tuple[Floats, ...]:
        """What training changes, in place."""
        return self.hidden, self.hidden_bias, self.output, self.output_bias

    def inside(self, inputs: Floats) -> Floats:
        """Hidden values (samples, hidden)."""
        return np.asarray(np.maximum(inputs @ self.hidden.T + self.hidden_bias, 0))

    def __call__(self, inputs: Floats) -> Floats:
        """What comes out, before any sigmoid: (samples, outputs)."""
        return np.asarray(self.inside(inputs) @ self.output.T + self.output_bias)

    def gradients(self, inputs: Floats, inside: Floats, outer: Floats) -> tuple[Floats, ...]:
        """Of every parameter, from the gradient `outer` (samples, outputs) of what comes out."""
        back = (outer @ self.output) * (inside > 0)
        found = back.T @ inputs, back.sum(axis=0), outer.T @ inside, outer.sum(axis=0)
        return tuple(np.asarray(each, np.float32) for each in found)


def start(inputs: int, hidden: int, outputs: int, rng: np.random.Generator) -> Net:
    """A net to train, its weights uniform within 1 / √inputs of their layer."""

    def uniform(rows: int, columns: int) -> Floats:
        drawn = rng.uniform(-1, 1, (rows, columns)) / columns**0.5
        return np.asarray(drawn, np.float32)

    zeros = np.zeros(hidden, np.float32), np.zeros(outputs, np.float32)
    return Net(uniform(hidden, inputs), zeros[0], uniform(outputs, hidden), zeros[1])


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(−z))."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))), np.float32)


@dataclass(frozen=True, slots=True)
class Options:
    """All that one exit's network is asked: any node there, any of its options, any sample."""

    state: Bytes  # (nodes, samples, inputs that tell nothing of the option)
    node: Int64  # (questions,)
    option: Bytes  # (questions, inputs that tell the option)
    target: Floats  # (questions, samples)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Inputs and targets of that many of them."""
        question = rng.integers(0, len(self.node), count)
        sample = rng.integers(0, self.state.shape[1], count)
        state = self.state[self.node[question], sample]
        inputs = np.concatenate([state, self.option[question]], axis=1)
        return inputs.astype(np.float32) / 255, self.target[question, sample]


def options(gate: Gate, exit: int, fold: Fold, target: Mapping[Path, Reals]) -> Options:
    """What the network of exit `exit` (from 1) is asked about `fold`.

    Targets are those of each node's options, (samples, options).
    """
    nodes = [path for path in gate.nodes() if len(path) == exit]
    asked = [(n, option) for n, path in enumerate(nodes) for option in gate.options(path)]
    return Options(
        np.stack([state_inputs(gate, path, fold.seen) for path in nodes]),
        np.array([n for n, _ in asked]),
        np.stack([gates.path_inputs(gate, gate.paths[option]) for _, option in asked]),
        np.concatenate([target[path].T for path in nodes]).astype(np.float32),
    )


def state_inputs(gate: Gate, path: Path, seen: Mapping[Path, Seen]) -> Bytes:
    """The part of `gates.inputs_of` that tells nothing of the option: u of eq. 13."""
    whole = gates.inputs_of(gate, seen[path], seen.get(path[:-1]), path)
    return whole[:, : -(gate.exits + 1)]


@dataclass(frozen=True, slots=True)
class Trained:
    """A network for each exit but the last, and the RMSE of each on the held-out fold."""

    nets: tuple[Net, ...]
    rmse: tuple[float, ...]


def train(
    gate: Gate,
    train: tuple[Fold, Mapping[Path, Reals]],
    val: tuple[Fold, Mapping[Path, Reals]],
    seed: int,
    hidden: int = HIDDEN,
    most: int = 8_000,
) -> Trained:
    """Networks that predict the targets of each fold's samples, fitted to `train`.

    Targets are by node, (samples, options). Training stops early by the RMSE on `val`. `most`
    limits the steps; fewer than 2,000 of them make gates that are of no use.
    """
    rngs = _rngs(gate, seed)
    inputs = 2 * gate.classes + 4 + gate.exits + 1
    nets = tuple(start(inputs, hidden, 1, rng) for rng in rngs)
    for net in nets:
        net.output_bias[:] = -2  # an error of 0.12: nearer to what comes than 0.5
    return _trained(gate, nets, train, val, rngs, RATE, most)


def follow(
    gate: Gate,
    begun: Trained,
    train: tuple[Fold, Mapping[Path, Reals]],
    val: tuple[Fold, Mapping[Path, Reals]],
    seed: int,
    most: int = FOLLOWING,
) -> Trained:
    """The networks `begun`, trained on for other targets, which lie near what they predict."""
    nets = tuple(Net(*(p.copy() for p in net.parameters)) for net in begun.nets)
    return _trained(gate, nets, train, val, _rngs(gate, seed), RATE / 3, most)


def _rngs(gate: Gate, seed: int) -> tuple[np.random.Generator, ...]:
    return tuple(np.random.default_rng([seed, exit]) for exit in range(1, gate.exits))


def _trained(
    gate: Gate,
    nets: tuple[Net, ...],
    train: tuple[Fold, Mapping[Path, Reals]],
    val: tuple[Fold, Mapping[Path, Reals]],
    rngs: Sequence[np.random.Generator],
    rate: float,
    most: int,
) -> Trained:
    """Those networks, which change in place."""
    rmse = []
    for exit, (net, rng) in enumerate(zip(nets, rngs, strict=True), start=1):
        asked, check = options(gate, exit, *train), options(gate, exit, *val).draw(HELD_OUT, rng)
        step, score = _predict_errors(net, asked, check, rng)
        rmse.append(descend(net.parameters, step, score, rate=rate, most=most))
    return Trained(nets, tuple(rmse))


def _predict_errors(
    net: Net, asked: Options, check: tuple[Floats, Floats], rng: np.random.Generator
) -> tuple[Callable[[int], Sequence[Floats]], Callable[[], float]]:
    """Gradients of the squared error (eq. 16) of a batch, and the RMSE on `check`."""

    def step(_: int) -> Sequence[Floats]:
        inputs, target = asked.draw(BATCH, rng)
        inside = net.inside(inputs)
        error = sigmoid((inside @ net.output.T + net.output_bias)[:, 0])
        outer = 2 * (error - target) * error * (1 - error) / len(target)
        return net.gradients(inputs, inside, outer[:, None])

    def score() -> float:
        inputs, target = check
        return float(np.sqrt(np.mean((sigmoid(net(inputs)[:, 0]) - target) ** 2)))

    return step, score


def predict(gate: Gate, trained: Trained, fold: Fold) -> dict[Path, Reals]:
    """What the float networks predict at every node, (samples, options)."""
    found = {}
    for path in gate.nodes():
        state = state_inputs(gate, path, fold.seen).astype(np.float32) / 255
        net = trained.nets[len(path) - 1]
        columns = []
        for option in gate.options(path):
            told = gates.path_inputs(gate, gate.paths[option]).astype(np.float32) / 255
            rows = np.broadcast_to(told, (len(state), len(told)))
            columns.append(sigmoid(net(np.concatenate([state, rows], axis=1))[:, 0]))
        found[path] = np.stack(columns, axis=1).astype(np.float64)
    return found


def quantised(gate: Gate, trained: Trained, fold: Fold) -> Mlp:
    """The networks as the device computes them; `fold` says how great hidden values become."""
    zeros = {path: np.zeros((len(fold), len(gate.options(path)))) for path in gate.nodes()}
    layers = []
    for index, net in enumerate(trained.nets):
        inputs, _ = options(gate, index + 1, fold, zeros).draw(
            HELD_OUT, np.random.default_rng(index)
        )
        layers.append(_layer(net, inputs))
    return Mlp(tuple(layers))


def _layer(net: Net, inputs: Floats) -> Layer:
    """The net in 8 bits, whose predictions on `inputs` come nearest to its own.

    Every hidden value is scaled to fill its byte, which the output's weight takes back; but where
    that needs much greater weights than other rows have, it leaves less for those: how far to go is
    tried. The scale is a power of two: all hidden values may fill less of their bytes instead.
    """
    reach = np.maximum(net.inside(inputs).max(axis=0).astype(np.float64), TINY)
    weights = np.maximum(np.abs(net.hidden).max(axis=1), TINY)
    exact = sigmoid(net(inputs)[:, 0])
    best, least = None, np.inf
    for cap in np.unique(weights / reach):
        filled = np.maximum(reach, weights / cap)
        fine = max(float((weights / filled).max()) / 127, 2.0**-MOST_SHIFT)  # a weight's step
        for step in {fine, 2.0 ** math.ceil(math.log2(fine))}:
            layer, told = _scaled(net, filled, step, inputs)
            loss = float(np.mean((told - exact) ** 2))
            if loss < least:
                best, least = layer, loss
    assert best is not None
    return best


def _scaled(net: Net, reach: Reals, step: float, inputs: Floats) -> tuple[Layer, Floats]:
    """The layer whose hidden bytes stand for 0 to `reach`, or more, and the errors it predicts.

    More, where `step` is no power of two but a weight's step shall be as fine.
    """
    shift = min(max(math.floor(-math.log2(step)), 0), MOST_SHIFT)
    reach = reach * (step * 2**shift)
    hidden = net.hidden / reach[:, None]  # hidden values then end at 1, or before
    output = net.output[0] * reach
    scale = 2.0**-shift
    out_scale = float(np.abs(output).max()) / 127 or 1.0
    layer = Layer(
        np.rint(hidden / scale).astype(np.int8),
        _int32(net.hidden_bias / reach * 255 / scale + 1 / (2 * scale)),  # it rounds down
        shift,  # (scale / 255) of inputs, 255 of hidden values
        np.rint(output / out_scale).astype(np.int8),
        int(_int32(net.output_bias[:1] * 255 / out_scale)[0]),
        fixedpoint.quantize_multiplier(min(out_scale / 255 / gates.SIGMOID_STEP, MOST_SCALE)),
    )
    sums = 255 * inputs.astype(np.float64) @ layer.hidden.T + layer.hidden_bias
    inside = np.clip(np.floor(scale * sums), 0, 255)
    told = out_scale / 255 * (inside @ layer.output + layer.output_bias)
    return layer, sigmoid(told)


def _int32(values: Reals | Floats) -> np.typing.NDArray[np.int32]:
    return np.clip(np.rint(values), -INT32, INT32).astype(np.int32)
