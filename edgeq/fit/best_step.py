"""The best-step variant (App. 7.3): a gate predicts the least score behind each step it can take.

Tradeoffs are trained in: a set of gates is good for one of them. Outputs are linear, and floats.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq import gates
from edgeq.fit import networks
from edgeq.fit.adam import Floats, descend
from edgeq.fit.curves import Curve, curve
from edgeq.fit.networks import BATCH, HELD_OUT, Net
from edgeq.fit.outputs import Fold, Int64
from edgeq.fit.targets import Targets
from edgeq.gates import ONE, Gate, Path


def fit(
    gate: Gate,
    found: Targets,
    folds: tuple[Fold, Fold, Fold],
    tradeoffs: Sequence[float],
    seed: int,
    steps: int = 8_000,
) -> Curve:
    """The curve on the last of train, val and reported folds; trained anew for each tradeoff.

    Paths, costs and first levels are those of `gate`.
    """
    train, val, test = folds
    taken = []
    for tradeoff in tradeoffs:
        nets = [
            _train(gate, found, (train, val), tradeoff, exit, seed, steps)
            for exit in range(1, gate.exits)
        ]
        taken.append(_route(gate, nets, test, round(tradeoff * ONE)))
    costs = [cost / ONE for cost in gate.costs]
    return curve("best step", tradeoffs, gate.paths, costs, taken, test)


def _steps(gate: Gate) -> list[int | None]:
    """What a gate may do: leave (None), or go on at a level."""
    return [None, *sorted({level for block in gate.levels for level in block})]


def _ahead(gate: Gate, path: Path, step: int | None) -> list[int]:
    """The options, by index, that taking that step keeps open."""
    if step is None:
        return [gate.paths.index(path)]
    begun = (*path, step)
    return [o for o in gate.options(path) if gate.paths[o][: len(begun)] == begun]


def _questions(
    gate: Gate, found: Targets, fold: Fold, tradeoff: float, exit: int
) -> tuple[Floats, Floats]:
    """Inputs (nodes, samples, inputs) and least scores (nodes, samples, steps), nan where none."""
    nodes = [path for path in gate.nodes() if len(path) == exit]
    errors = found.estimate(fold)
    inputs = np.stack([_inputs(gate, fold, path) for path in nodes])
    scores = np.full((len(nodes), len(fold), len(_steps(gate))), np.nan, np.float32)
    for n, path in enumerate(nodes):
        for column, step in enumerate(_steps(gate)):
            each = [
                errors[gate.paths[o]] + tradeoff * gate.costs[o] / ONE
                for o in _ahead(gate, path, step)
            ]
            if each:
                scores[n, :, column] = np.min(each, axis=0)
    return inputs, scores


def _inputs(gate: Gate, fold: Fold, path: Path) -> Floats:
    whole = gates.inputs_of(gate, fold.seen[path], fold.seen.get(path[:-1]), path)
    return whole.astype(np.float32) / 255


def _train(
    gate: Gate,
    found: Targets,
    folds: tuple[Fold, Fold],
    tradeoff: float,
    exit: int,
    seed: int,
    steps: int,
) -> Net:
    rng = np.random.default_rng([seed, exit])
    inputs, scores = _questions(gate, found, folds[0], tradeoff, exit)
    net = networks.start(inputs.shape[2], networks.HIDDEN, scores.shape[2], rng)
    possible = ~np.isnan(scores).all(axis=(0, 1))
    net.output_bias[possible] = np.nanmean(scores[:, :, possible], axis=(0, 1))
    held_out = _draw(*_questions(gate, found, folds[1], tradeoff, exit), HELD_OUT, rng)

    def step(_: int) -> Sequence[Floats]:
        x, y = _draw(inputs, scores, BATCH, rng)
        inside = net.inside(x)
        outer = 2 * np.nan_to_num(inside @ net.output.T + net.output_bias - y) / len(x)
        return net.gradients(x, inside, outer)

    def score() -> float:
        x, y = held_out
        return float(np.sqrt(np.nanmean((net(x) - y) ** 2)))

    descend(net.parameters, step, score, most=steps)
    return net


def _draw(
    inputs: Floats, scores: Floats, count: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    node = rng.integers(0, inputs.shape[0], count)
    sample = rng.integers(0, inputs.shape[1], count)
    return inputs[node, sample], scores[node, sample]


def _route(gate: Gate, nets: Sequence[Net], fold: Fold, tradeoff: int) -> Int64:
    taken = np.full(len(fold), gate.paths.index((gate.first_level(tradeoff),)), np.int64)
    for path in sorted(gate.nodes(), key=len):
        here = np.flatnonzero(taken == gate.paths.index(path))
        if not len(here):
            continue
        scores = nets[len(path) - 1](_inputs(gate, fold, path)[here])
        steps = _steps(gate)
        for column, step in enumerate(steps):
            if not _ahead(gate, path, step):
                scores[:, column] = np.inf
        ends = [path if step is None else (*path, step) for step in steps]
        index = np.array([gate.paths.index(p) if p in gate.paths else -1 for p in ends])
        taken[here] = index[scores.argmin(axis=1)]
    return taken
