"""Targets of the gates: how often inputs like this one are misclassified at a path's end (eq. 11).

Alike are inputs whose probabilities at that end lie in one cluster of K-means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.errors import UsageError
from edgeq.fit import kmeans
from edgeq.fit.outputs import Fold, Int64, Reals
from edgeq.gates import Gate, Path, Seen

PRIOR = 2.0  # samples of the path's own error rate that every cluster gets beside its own
FEW = 10  # samples a cluster, below which targets get that prior
QUICK = 2  # restarts of K-means where only K is chosen


@dataclass(frozen=True, slots=True)
class Targets:
    """For each path the centroids (clusters, classes) and the error rate of each cluster."""

    centroids: Mapping[Path, Reals]
    errors: Mapping[Path, Reals]

    def estimate(self, fold: Fold) -> dict[Path, Reals]:
        """The error rate of each sample's cluster, (samples,), for every path."""
        return {
            path: self.errors[path][kmeans.nearest(probabilities(fold.seen[path]), centroids)]
            for path, centroids in self.centroids.items()
        }


def by_node(gate: Gate, target: Mapping[Path, Reals]) -> dict[Path, Reals]:
    """What is known of each path, (samples,), for the options of each node: (samples, options)."""
    return {
        path: np.stack([target[gate.paths[option]] for option in gate.options(path)], axis=1)
        for path in gate.nodes()
    }


def probabilities(seen: Seen) -> Reals:
    """(samples, classes), 0..1, of the bytes that the device sees."""
    return seen.probabilities / 255


def rates(mine: Int64, errors: Reals, clusters: int, prior: float) -> Reals:
    """The error rate of each cluster, (err + a·g) / (m + a); g where it is empty."""
    count = np.bincount(mine, minlength=clusters)
    sums = np.bincount(mine, errors, clusters)
    mean = errors.mean()
    return np.asarray(
        np.where(count > 0, (sums + prior * mean) / np.maximum(count + prior, 1e-9), mean)
    )


def learn(
    fold: Fold, paths: Sequence[Path], clusters: int, seed: int, restarts: int = 10
) -> Targets:
    """Clusters and their error rates, found on `fold`.

    Raises:
        UsageError: there are fewer samples than clusters.
    """
    enough(fold, clusters)
    prior = PRIOR if clusters * FEW > len(fold) else 0.0
    centroids, errors = {}, {}
    for path in paths:
        points = probabilities(fold.seen[path])
        centroids[path] = kmeans.fit(points, clusters, seed, restarts)
        mine = kmeans.nearest(points, centroids[path])
        errors[path] = rates(mine, fold.errors[path], len(centroids[path]), prior)
    return Targets(centroids, errors)


def enough(fold: Fold, clusters: int) -> None:
    """Refuse more clusters than there are samples, and none at all."""
    if not 1 <= clusters <= len(fold):
        raise UsageError(
            "EQ0263", f"{clusters} clusters for {len(fold)} samples; 1 to as many can be"
        )


def brier(estimates: Mapping[Path, Reals], fold: Fold) -> float:
    """Mean squared difference between estimated errors and errors, over paths and samples."""
    return float(np.mean([np.mean((e - fold.wrong[p]) ** 2) for p, e in estimates.items()]))


def held_out(
    fold: Fold, other: Fold, paths: Sequence[Path], counts: Sequence[int], seed: int
) -> dict[int, dict[Path, Reals]]:
    """What clusters found on `fold` estimate for `other`, by their number."""
    return {count: learn(fold, paths, count, seed, QUICK).estimate(other) for count in counts}
