"""K-means (Lloyd's algorithm) from random points, several times over; the best by inertia stays.

Equal points are one point with a weight: outputs of a sure network repeat, and most are that.
"""

from __future__ import annotations

import numpy as np

from edgeq.fit.outputs import Int64, Reals

STEPS = 100
STILL = 1e-4  # centroids move by less, squared, as a share of the variance: done


def fit(points: Reals, clusters: int, seed: int, restarts: int = 10) -> Reals:
    """At most `clusters` centroids (clusters, dimensions) of `points` (points, dimensions)."""
    distinct, weights = np.unique(points, axis=0, return_counts=True)
    if len(distinct) <= clusters:
        return distinct
    rng = np.random.default_rng(seed)
    share = weights / weights.sum()
    best, least = distinct[:clusters], np.inf
    for _ in range(restarts):
        start = distinct[rng.choice(len(distinct), clusters, replace=False, p=share)]
        centroids, inertia = _descend(distinct, weights, start)
        if inertia < least:
            best, least = centroids, inertia
    return best


def nearest(points: Reals, centroids: Reals) -> Int64:
    """The index of the nearest centroid of each point, the first of equals."""
    return np.asarray(_distances(points, centroids).argmin(axis=1), np.int64)


def _distances(points: Reals, centroids: Reals) -> Reals:
    """Squared distances (points, centroids), less each point's own square."""
    return np.asarray((centroids**2).sum(axis=1) - 2 * points @ centroids.T)


def _descend(points: Reals, weights: Int64, centroids: Reals) -> tuple[Reals, float]:
    still = STILL * float(np.var(points, axis=0).mean())
    squares = (points**2).sum(axis=1)
    weighted = points * weights[:, None]
    inertia = np.inf
    for _ in range(STEPS):
        distances = _distances(points, centroids)
        mine = distances.argmin(axis=1)
        inertia = float((weights * (squares + distances[np.arange(len(mine)), mine])).sum())
        count = np.bincount(mine, weights, len(centroids))
        sums = np.stack([np.bincount(mine, w, len(centroids)) for w in weighted.T], axis=1)
        held = count > 0
        moved = centroids.copy()
        moved[held] = sums[held] / count[held, None]
        shift = float(((moved - centroids) ** 2).sum())
        centroids = moved
        if shift <= still:
            break
    return centroids, inertia
