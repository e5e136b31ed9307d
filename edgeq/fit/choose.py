"""What held-out data decide: the level of the first block, the tradeoff, which levels pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgeq.fit.curves import TRADEOFFS, Curve, fixed, predicted, sweep
from edgeq.fit.outputs import Fold, Int64
from edgeq.gates import Form, Gate, Path, Static, Table


def first_levels(
    gate: Gate,
    fold: Fold,
    tradeoffs: Sequence[float] = TRADEOFFS,
    errors: Mapping[Path, Int64] | None = None,
) -> tuple[tuple[int, int], ...]:
    """`Gate.first`: the level that has the least tradeoff · cost + error, at each tradeoff.

    With no input to look at, the best first decision is the same for all (eq. 5 with nothing
    known). Of equals the cheaper level wins.
    """
    known = predicted(gate, fold) if errors is None else errors
    singles = [(cost, p[0]) for p, cost in zip(gate.paths, gate.costs, strict=True) if len(p) == 1]
    levels = [level for _, level in sorted(singles)]
    weights = np.array(tradeoffs)
    scores = []
    for level in levels:
        points = sweep(replace(gate, first=((0, level),)), fold, tradeoffs, errors=known)
        scores.append(weights * _costs(points) + 1 - points.correct.mean(axis=1))
    best = np.array(levels)[np.argmin(scores, axis=0)]
    found: list[tuple[int, int]] = []
    for tradeoff, level in zip(tradeoffs, best.tolist(), strict=True):
        if not found or found[-1][1] != level:
            found.append((fixed(tradeoff), level))
    return tuple(found)


def _costs(curve: Curve) -> np.typing.NDArray[np.float64]:
    return np.asarray(np.array(curve.costs)[curve.taken].mean(axis=1))


def tradeoffs_within(gate: Gate, fold: Fold, drops: Sequence[float]) -> tuple[int, ...]:
    """For each drop (a share) the greatest tradeoff that is at most so far below the best one."""
    accuracy = sweep(gate, fold).correct.mean(axis=1)
    near = (np.flatnonzero(accuracy >= accuracy.max() - drop) for drop in drops)
    return tuple(fixed(TRADEOFFS[int(found[-1])]) for found in near)


def paths_of(
    paths: Sequence[Path], dropped: frozenset[tuple[int, int]], *, paper: bool
) -> list[Path]:
    """The paths that take none of `dropped`; in paper mode those that start at the top."""
    top = min(path[0] for path in paths)
    return [
        path
        for path in paths
        if not dropped & set(enumerate(path)) and not (paper and path[0] != top)
    ]


def form_bytes(form: Form) -> int:
    """What the tables or weights of a form take in the image (spec §8.3)."""
    if isinstance(form, Static):
        return 0
    if isinstance(form, Table):
        return form.centroids.size + sum(row.size for row in form.errors.values())
    return sum(
        layer.hidden.nbytes + layer.hidden_bias.nbytes + layer.output.nbytes + 4
        for layer in form.layers
    )
