"""Predicted errors of a gate brought to those observed: an extension of the paper's targets.

A cluster of eq. 11 knows what is seen where a path ends, not what the gate has seen on the way, so
that a gate, which sees the mean of such targets, takes going on for worse than it is where an exit
is sure, and for better where it is not. Small differences between options decide where most inputs
go, and noise in them costs more than it does in the errors themselves. Hence a logistic regression
for each option of a node, over three values with a meaning: how hard the input is for all options,
a constant, and how far this option stands out, which is trusted as far as samples bear it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeq.fit import newton
from edgeq.fit.outputs import Fold, Reals
from edgeq.gates import Gate, Path

LEAST = 1e-3  # an error, or 1 less it: beyond, odds say nothing
PRIOR = np.array([1.0, 0.0, 0.0])  # of hardness, constant, standing out
TRUST = np.array([1.0, 1.0, 50.0])  # precision of that prior


@dataclass(frozen=True, slots=True)
class Calibration:
    """For each node the coefficients (options, 3) of `_values`."""

    coefficients: Mapping[Path, Reals]

    def __call__(self, errors: Mapping[Path, Reals]) -> dict[Path, Reals]:
        """Errors (samples, options) at each node, 0..1, as `learn` takes them."""
        return {
            path: _share(np.einsum("sov,ov->so", _values(errors[path]), found))
            for path, found in self.coefficients.items()
        }


def learn(gate: Gate, errors: Mapping[Path, Reals], fold: Fold) -> Calibration:
    """What brings predicted `errors` (samples, options), 0..1, to those of `fold`, by node."""
    found = {}
    for path in gate.nodes():
        values = _values(errors[path])
        known = [fold.errors[gate.paths[option]] for option in gate.options(path)]
        rows = [_regress(values[:, column], each) for column, each in enumerate(known)]
        found[path] = np.stack(rows)
    return Calibration(found)


def _values(errors: Reals) -> Reals:
    """(samples, options, 3): the mean of the options' log-odds, 1, and what each one has beside."""
    share = np.clip(errors, LEAST, 1 - LEAST)
    odds = np.log(share / (1 - share))
    mean = np.broadcast_to(odds.mean(axis=1, keepdims=True), odds.shape)
    return np.stack([mean, np.ones_like(odds), odds - mean], axis=2)


def _share(odds: Reals) -> Reals:
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30, 30))))


def _regress(values: Reals, errors: Reals) -> Reals:
    """Coefficients of the logistic regression (samples, 3) → errors, 0..1."""

    def loss(at: Reals) -> float:
        odds = values @ at
        unlikely = np.logaddexp(0, odds) - errors * odds
        return float(unlikely.sum() + (TRUST * (at - PRIOR) ** 2).sum() / 2)

    def bend(at: Reals) -> tuple[Reals, Reals]:
        share = _share(values @ at)
        slope = values.T @ (share - errors) + TRUST * (at - PRIOR)
        return slope, (values * (share * (1 - share))[:, None]).T @ values + np.diag(TRUST)

    return newton.minimise(PRIOR, loss, bend)
