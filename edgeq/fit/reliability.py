"""How far predicted errors can be trusted, and who leaves where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeq.fit.curves import Curve, predicted
from edgeq.fit.outputs import Bools, Fold, Int64, Reals
from edgeq.gates import ONE, Gate, Path

BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """Brier score, ECE by bins of equal mass and of equal width, and the former's bins.

    A bin is (mean predicted error, share of wrong samples, its share of all).
    """

    brier: float
    ece_mass: float
    ece_width: float
    bins: tuple[tuple[float, float, float], ...]


def of_errors(errors: Reals, wrong: Bools, bins: int = BINS) -> Reliability:
    """The reliability of predicted errors (samples,), which lie in 0..1."""
    order = np.argsort(errors, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    rows = tuple(
        (float(errors[p].mean()), float(wrong[p].mean()), len(p) / len(errors)) for p in parts
    )
    mass = sum(share * abs(told - found) for told, found, share in rows)
    which = np.minimum((errors * bins).astype(np.int64), bins - 1)
    gap = np.abs(np.bincount(which, errors - wrong, bins)).sum() / len(errors)
    return Reliability(float(np.mean((errors - wrong) ** 2)), float(mass), float(gap), rows)


def of_gate(gate: Gate, fold: Fold) -> Reliability:
    """The reliability of all that the gate predicts: each option behind each node."""
    pairs = [
        (errors[:, column] / ONE, fold.wrong[gate.paths[option]])
        for path, errors in predicted(gate, fold).items()
        for column, option in enumerate(gate.options(path))
    ]
    told = np.concatenate([errors for errors, _ in pairs])
    return of_errors(told, np.concatenate([wrong for _, wrong in pairs]))


def of_targets(estimates: Mapping[Path, Reals], fold: Fold) -> Reliability:
    """The reliability of estimated errors, over paths and samples."""
    wrong = np.concatenate([fold.wrong[path] for path in estimates])
    return of_errors(np.concatenate(list(estimates.values())), wrong)


def rmse(gate: Gate, errors: Mapping[Path, Int64], target: Mapping[Path, Reals]) -> float:
    """The root mean squared difference of predicted errors (Q16) to their targets."""
    squares = [
        np.mean((found[:, column] / ONE - target[gate.paths[option]]) ** 2)
        for path, found in errors.items()
        for column, option in enumerate(gate.options(path))
    ]
    return float(np.sqrt(np.mean(squares)))


def exits_by_class(curve: Curve, point: int, labels: Int64) -> Reals:
    """The share of each class's samples that leave at each exit: (classes, exits)."""
    lengths = np.array([len(path) for path in curve.paths])
    return _rows(lengths[curve.taken[point]] - 1, labels, int(lengths.max()))


def levels_by_class(curve: Curve, point: int, labels: Int64) -> Reals:
    """The share of the blocks run for each class at each level: (classes, levels)."""
    count = 1 + max(level for path in curve.paths for level in path)
    per_path = np.stack([np.bincount(path, minlength=count) for path in curve.paths])
    runs = per_path[curve.taken[point]]
    sums = np.stack([np.bincount(labels, column) for column in runs.T], axis=1)
    return np.asarray(sums / np.maximum(sums.sum(axis=1, keepdims=True), 1))


def _rows(values: Int64, labels: Int64, count: int) -> Reals:
    table = np.zeros((int(labels.max()) + 1, count))
    np.add.at(table, (labels, values), 1)
    return np.asarray(table / np.maximum(table.sum(axis=1, keepdims=True), 1))
