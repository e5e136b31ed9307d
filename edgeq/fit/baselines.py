"""What gates are compared with: curves of the same kind, from the same outputs.

Costs are shares of the dearest path with all its heads and gates; each baseline pays for what it
runs: thresholds for heads, a plain network for neither heads nor gates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from edgeq import gates
from edgeq.fit import networks
from edgeq.fit.adam import Floats, descend
from edgeq.fit.curves import TRADEOFFS, Curve, curve, shares
from edgeq.fit.networks import BATCH, sigmoid
from edgeq.fit.outputs import Fold, Int64, Outputs, Reals
from edgeq.gates import Costs, Levels, Path

ALPHAS = (0.0, 0.01, 0.05, 0.1, 0.3, 0.5, 2.0, 10.0)  # DQNet
JEI_TRADEOFFS = (0.0, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0)
CONTROLLER = 64  # hidden values of DQNet's
CERTAIN = 1e-12


def softmax(logits: Reals) -> Reals:
    """Probabilities (…, classes)."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def uniform(levels: Levels, level: int) -> Path:
    """The path at `level` throughout, or at the next more precise one where a block lacks it."""
    return tuple(max(has for has in block if has <= level) for block in levels)


def taus(classes: int) -> tuple[float, ...]:
    """Thresholds from 1 / classes to 1, close to each other at the top; then never."""
    even = np.linspace(1 / classes, 0.95, 40)
    return (*even.tolist(), *(1 - np.logspace(-1.35, -6, 30)).tolist(), math.inf)


# Thresholds.


def thresholds(outputs: Outputs, fold: Fold, costs: Costs) -> Curve:
    """Every block at level 0; an input leaves at the first exit that is sure enough."""
    path = uniform(outputs.levels, outputs.levels[0][0])
    grid = taus(fold.classes)
    return _curve(
        "thresholds",
        outputs,
        costs,
        grid,
        _leave(fold, outputs.paths, path, grid),
        fold,
    )


def static_thresholds(outputs: Outputs, fold: Fold, costs: Costs) -> Curve:
    """Thresholds on the path of levels that is best for the tradeoff, the first block included.

    For each tradeoff that pair of path and threshold which is best on the validation data.
    """
    paths = outputs.paths
    prices = np.array(shares(costs, paths, paths, len(outputs.levels), 0))
    wrong = np.stack([outputs.val.wrong[path] for path in paths])
    grid = taus(fold.classes)
    pairs, cost, error = [], [], []
    for whole in outputs.whole_paths:
        taken = np.stack(_leave(outputs.val, paths, whole, grid))
        pairs += [(whole, tau) for tau in grid]
        cost += prices[taken].mean(axis=1).tolist()
        error += wrong[taken, np.arange(len(outputs.val))].mean(axis=1).tolist()
    score = np.array(TRADEOFFS)[:, None] * np.array(cost) + np.array(error)
    best = [pairs[index] for index in score.argmin(axis=1)]
    taken_here = [_leave(fold, paths, whole, [tau])[0] for whole, tau in best]
    return _curve("thresholds, best static path", outputs, costs, TRADEOFFS, taken_here, fold)


def _leave(fold: Fold, paths: Sequence[Path], whole: Path, grid: Sequence[float]) -> list[Int64]:
    """Where samples leave along `whole` at each threshold, as indices of `paths`."""
    ends = [whole[:count] for count in range(1, len(whole) + 1)]
    sure = [softmax(fold.real(path)).max(axis=1) for path in ends[:-1]]
    index = np.array([paths.index(path) for path in ends])
    found = []
    for tau in grid:
        leaves = np.stack([*(s >= tau for s in sure), np.ones(len(fold), np.bool_)])
        found.append(np.asarray(index[leaves.argmax(axis=0)], np.int64))
    return found


def _curve(
    name: str,
    outputs: Outputs,
    costs: Costs,
    parameters: Sequence[float],
    taken: Sequence[Int64],
    fold: Fold,
    notes: tuple[str, ...] = (),
    gates_too: bool = False,
) -> Curve:
    """A curve over all paths; heads are paid, gates only where there are some."""
    paths = outputs.paths
    exits = len(outputs.levels)
    prices = shares(costs, paths, paths, exits, exits if gates_too else 0)
    return curve(name, parameters, paths, prices, taken, fold, notes=notes)


# Without exits.


def plain(outputs: Outputs, fold: Fold, costs: Costs) -> Curve:
    """The whole network at each level, without heads and gates: a point each, and no line."""
    levels = sorted({level for block in outputs.levels for level in block})
    found = [uniform(outputs.levels, level) for level in levels]
    paths = [path for path in found if path in outputs.paths]
    prices = shares(costs, paths, outputs.paths, 0, 0)
    taken = [np.full(len(fold), index, np.int64) for index in range(len(paths))]
    return curve("plain", [path[-1] for path in paths], paths, prices, taken, fold, line=False)


def oracle(
    outputs: Outputs, fold: Fold, costs: Costs, tradeoffs: Sequence[float] = TRADEOFFS
) -> Curve:
    """Who knows every error beforehand: the path of least tradeoff · cost + error for each."""
    paths = outputs.paths
    exits = len(outputs.levels)
    prices = np.array(shares(costs, paths, paths, exits, exits))
    order = np.argsort(prices, kind="stable")
    wrong = np.stack([fold.wrong[path] for path in paths], axis=1)[:, order]
    taken = [
        np.asarray(order[(t * prices[order] + wrong).argmin(axis=1)], np.int64) for t in tradeoffs
    ]
    return curve("oracle", tradeoffs, paths, prices.tolist(), taken, fold)


# Learned ones.


def jei_dnn(
    outputs: Outputs,
    fold: Fold,
    costs: Costs,
    tradeoffs: Sequence[float] = JEI_TRADEOFFS,
    seed: int = 0,
    limit_s: float = 300.0,
) -> Curve:
    """JEI-DNN's gates on heads that stay as they are: logistic regressions of four values.

    Every block at level 0. One training for each tradeoff; those that would start when the time is
    up are missing, and the curve's notes say so.
    """
    path = uniform(outputs.levels, outputs.levels[0][0])
    ends = [path[:count] for count in range(1, len(path) + 1)]
    among = outputs.paths
    prices = np.array(shares(costs, ends, among, len(path), len(path)))
    inputs = [np.stack([_jei_inputs(f, p) for p in ends[:-1]]) for f in (outputs.train, fold)]
    held_out = np.stack([_jei_inputs(outputs.val, p) for p in ends[:-1]])
    losses = [np.stack([_cross_entropy(f, p) for p in ends]) for f in (outputs.train, outputs.val)]
    index = np.array([among.index(path) for path in ends])
    until = time.monotonic() + limit_s
    done: list[float] = []
    taken = []
    for tradeoff in tradeoffs:
        if done and time.monotonic() >= until:
            break
        labels = [_jei_labels(loss, tradeoff * prices) for loss in losses]
        weight, bias = _jei_gates(inputs[0], labels[0], held_out, labels[1], seed)
        leaves = np.einsum("gni,gi->gn", inputs[1], weight) + bias[:, None] >= 0
        last = np.ones((1, len(fold)), np.bool_)
        taken.append(np.asarray(index[np.concatenate([leaves, last]).argmax(axis=0)], np.int64))
        done.append(tradeoff)
    late = len(tradeoffs) - len(done)
    notes = (
        (f"{late} of {len(tradeoffs)} trainings did not fit into {limit_s:g} s",) if late else ()
    )
    return _curve("jei-dnn", outputs, costs, done, taken, fold, notes, gates_too=True)


def _jei_inputs(fold: Fold, path: Path) -> Floats:
    """Greatest probability, entropy, margin, entropy of the squared probabilities: (samples, 4)."""
    p = softmax(fold.real(path))
    top = np.sort(p, axis=1)[:, -2:]
    squared = p**2 / (p**2).sum(axis=1, keepdims=True)
    found = [top[:, 1], _entropy(p), top[:, 1] - top[:, 0], _entropy(squared)]
    return np.stack(found, axis=1).astype(np.float32)


def _entropy(p: Reals) -> Reals:
    return np.asarray(-(p * np.log(np.maximum(p, CERTAIN))).sum(axis=1))


def _cross_entropy(fold: Fold, path: Path) -> Reals:
    p = softmax(fold.real(path))[np.arange(len(fold)), fold.labels]
    return np.asarray(-np.log(np.maximum(p, CERTAIN)))


def _jei_labels(losses: Reals, prices: Reals) -> Floats:
    """Whether to leave at each exit or before it, (exits − 1, samples), from losses at all."""
    best = (losses + prices[:, None]).argmin(axis=0)
    return np.stack([best <= exit for exit in range(len(prices) - 1)]).astype(np.float32)


def _jei_gates(
    inputs: Floats, labels: Floats, held_out: Floats, held_out_labels: Floats, seed: int
) -> tuple[Floats, Floats]:
    """Weights (exits − 1, 4) and biases of all gates, by weighted cross-entropy."""
    rng = np.random.default_rng(seed)
    weight, bias = np.zeros((len(inputs), 4), np.float32), np.zeros(len(inputs), np.float32)
    ones = held_out_labels.sum(axis=1)
    positive = (held_out_labels.shape[1] - ones + 1) / (ones + 1)

    def odds(x: Floats) -> Floats:
        return sigmoid(np.einsum("gni,gi->gn", x, weight) + bias[:, None])

    def step(_: int) -> Sequence[Floats]:
        at = rng.integers(0, inputs.shape[1], BATCH)
        x, y = inputs[:, at], labels[:, at]
        p = odds(x)
        outer = (p * (1 - y) - positive[:, None] * y * (1 - p)) / BATCH
        return np.einsum("gn,gni->gi", outer, x).astype(np.float32), outer.sum(axis=1)

    def score() -> float:
        p = np.clip(odds(held_out), 1e-7, 1 - 1e-7)
        y = held_out_labels
        return float(-np.mean(positive[:, None] * y * np.log(p) + (1 - y) * np.log(1 - p)))

    descend((weight, bias), step, score, rate=1e-2, most=4_000)
    return weight, bias


def dqnet(
    outputs: Outputs,
    fold: Fold,
    costs: Costs,
    alphas: Sequence[float] = ALPHAS,
    seed: int = 0,
    steps: int = 4_000,
) -> Curve:
    """DQNet's bit controller on a frozen network: levels of all further blocks after exit 1.

    The first block runs at level 0; the controller reads what a gate sees at exit 1 (pooled
    features are not among the outputs), and its levels stand for bits: precision never rises.
    Hinge form: the cost above that of the cheapest path, times alpha.
    """
    first = outputs.levels[0][0]
    wholes = [path for path in outputs.whole_paths if path[0] == first]
    among = outputs.paths
    prices = np.array(shares(costs, wholes, among, 1, 1), np.float32)
    taken = []
    for alpha in alphas:
        choose = _controller(outputs, wholes, alpha * (prices - prices.min()), seed, steps)
        taken.append(choose(fold))
    return curve("dqnet", alphas, wholes, prices.tolist(), taken, fold)


def _controller(
    outputs: Outputs, wholes: Sequence[Path], price: Floats, seed: int, steps: int
) -> Callable[[Fold], Int64]:
    """A function from samples to the index of their path."""
    rng = np.random.default_rng(seed)
    count = 1 + max(level for block in outputs.levels for level in block)
    exits = len(outputs.levels)
    says = np.zeros((len(wholes), (exits - 1) * count), np.float32)  # a path's own outputs
    for row, path in enumerate(wholes):
        says[row, [block * count + level for block, level in enumerate(path[1:])]] = 1
    gate = gates.static(outputs.val.classes, outputs.levels)

    def read(fold: Fold) -> Floats:
        state = networks.state_inputs(gate, wholes[0][:1], fold.seen)
        return state.astype(np.float32) / 255

    def stacked(fold: Fold) -> Floats:
        return np.stack([fold.real(path) for path in wholes], axis=1).astype(np.float32)

    inputs, logits, labels = read(outputs.train), stacked(outputs.train), outputs.train.labels
    net = networks.start(inputs.shape[1], CONTROLLER, says.shape[1], rng)
    check = read(outputs.val)
    loss = np.stack([_cross_entropy(outputs.val, path) for path in wholes], axis=1) + price

    def step(_: int) -> Sequence[Floats]:
        at = rng.integers(0, len(inputs), BATCH)
        inside = net.inside(inputs[at])
        score = (inside @ net.output.T + net.output_bias) @ says.T
        noisy = score + rng.gumbel(size=score.shape)
        soft = softmax(noisy)
        mine = logits[at, noisy.argmax(axis=1)]
        wrong = softmax(mine.astype(np.float64))
        wrong[np.arange(BATCH), labels[at]] -= 1
        pull = np.einsum("nc,npc->np", wrong, logits[at]) + price  # straight through the choice
        outer = soft * (pull - (soft * pull).sum(axis=1, keepdims=True)) / BATCH
        return net.gradients(inputs[at], inside, (outer @ says).astype(np.float32))

    def held_out() -> float:
        best = (net(check) @ says.T).argmax(axis=1)
        return float(loss[np.arange(len(best)), best].mean())

    descend(net.parameters, step, held_out, rate=1e-3, most=steps)
    return lambda fold: np.asarray((net(read(fold)) @ says.T).argmax(axis=1), np.int64)
