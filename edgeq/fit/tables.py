"""Fitting the table form: clusters of what an exit sees, and how often each option errs in them."""

from __future__ import annotations

import numpy as np

from edgeq import gates
from edgeq.fit import calibrate, kmeans
from edgeq.fit.outputs import Fold, Reals
from edgeq.fit.targets import PRIOR, enough, rates
from edgeq.gates import Bytes, Gate, Path, Table

MOST_POINTS = 30_000  # of one exit's K-means, drawn from those of all its paths


def fit(gate: Gate, fold: Fold, clusters: int, seed: int, restarts: int = 10) -> Table:
    """A table of `clusters` clusters for the paths of `gate`, from `fold`.

    All paths that end at an exit share its clusters (spec §8.3 (e)). Their errors are calibrated.

    Raises:
        UsageError: there are fewer samples than clusters.
    """
    enough(fold, clusters)
    nodes = gate.nodes()
    found = np.zeros((gate.exits - 1, clusters, gates.TOP + 1), np.uint8)
    for exit in range(gate.exits - 1):
        tops = [fold.seen[path].top for path in nodes if len(path) == exit + 1]
        found[exit] = _centroids(np.concatenate(tops), clusters, seed + exit, restarts)
    table = Table(found, {})
    rows: dict[Path, Reals] = {}
    told: dict[Path, Reals] = {}
    for path in nodes:
        mine = gates.cluster(table, len(path), fold.seen[path])
        columns = [
            rates(mine, fold.errors[gate.paths[option]], clusters, PRIOR)
            for option in gate.options(path)
        ]
        rows[path] = np.stack(columns, axis=1)
        told[path] = rows[path][mine]
    calibrated = calibrate.learn(gate, told, fold)(rows)
    return Table(found, {path: _bytes(errors) for path, errors in calibrated.items()})


def _bytes(errors: Reals) -> Bytes:
    return np.clip(np.rint(256 * errors), 0, 255).astype(np.uint8)


def _centroids(tops: Bytes, clusters: int, seed: int, restarts: int) -> Bytes:
    """Bytes (clusters, features); where points are fewer than clusters, the last one repeats."""
    if len(tops) > MOST_POINTS:
        tops = tops[np.random.default_rng(seed).choice(len(tops), MOST_POINTS, replace=False)]
    found = kmeans.fit(tops.astype(np.float64), clusters, seed, restarts)
    rows = np.minimum(np.arange(clusters), len(found) - 1)
    return np.rint(found[rows]).astype(np.uint8)
