"""How probably each path errs on each sample: an extension of the paper's counting of labels.

Whether one path is right where another is wrong shows in few samples, and each of them counts as
a whole error: the mean difference of two levels over 5,000 samples is known to a third of a point,
and that of a cluster hardly at all. Gates that learn such noise leave early, or drop precision,
where it costs accuracy. All paths together say more of a sample than its label does: their outputs,
each times a weight, are the log-odds of the classes (a conditional logistic regression, one weight
a path, so that samples are many against weights). What a path gives is then wrong by the
probability that is left for other classes. Paths that give the same class err alike, and where they
do not the difference is as sure as the network is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeq.fit import newton
from edgeq.fit.outputs import Fold, Int64, Reals
from edgeq.gates import Path

TRUST = 10.0  # precision of the prior: the most precise path alone, as it stands
VALUES = 1 << 22  # outputs of all paths that are looked at together


@dataclass(frozen=True, slots=True)
class Posterior:
    """The classes' probabilities by what all of `paths` give; `weights` (paths,) are theirs."""

    paths: tuple[Path, ...]
    weights: Reals

    def classes(self, fold: Fold) -> Reals:
        """(samples, classes)."""
        parts = _parts(fold, self.paths)
        return np.concatenate([np.exp(_logs(values @ self.weights)) for values, _ in parts])

    def expecting(self, fold: Fold) -> Fold:
        """The same samples, with the errors that are expected of each of the paths."""
        at, known = np.arange(len(fold)), self.classes(fold)
        errors = {path: 1 - known[at, fold.logits[path].argmax(axis=1)] for path in self.paths}
        return replace(fold, expected=errors)


def learn(fold: Fold, paths: Sequence[Path]) -> Posterior:
    """What the labels of `fold` say of `paths`."""
    ordered = tuple(sorted(paths, key=lambda path: (-len(path), path)))
    count = len(ordered)
    prior = np.eye(count)[0]

    def loss(weights: Reals) -> float:
        away = weights - prior
        total = TRUST * away @ away / 2
        for values, labels in _parts(fold, ordered):
            total -= _logs(values @ weights)[np.arange(len(labels)), labels].sum()
        return float(total)

    def bend(weights: Reals) -> tuple[Reals, Reals]:
        slope, hessian = TRUST * (weights - prior), TRUST * np.eye(count)
        for values, labels in _parts(fold, ordered):
            share = np.exp(_logs(values @ weights))
            mean = np.einsum("sc,scp->sp", share, values)
            slope += (mean - values[np.arange(len(labels)), labels]).sum(axis=0)
            values *= np.sqrt(share)[:, :, None]
            flat = values.reshape(-1, count)
            hessian += flat.T @ flat - mean.T @ mean
        return slope, hessian

    return Posterior(ordered, newton.minimise(prior, loss, bend))


def _parts(fold: Fold, paths: Sequence[Path]) -> Iterator[tuple[Reals, Int64]]:
    """What paths give, (samples, classes, paths), and the labels; some samples at a time."""
    step = max(1, VALUES // (fold.classes * len(paths)))
    for start in range(0, len(fold), step):
        part = slice(start, start + step)
        values = np.stack([fold.logits[path][part] for path in paths], axis=2)
        yield np.asarray(fold.scale * values, np.float64), fold.labels[part]


def _logs(logits: Reals) -> Reals:
    """The logarithms of the softmax."""
    away = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(away - np.log(np.exp(away).sum(axis=1, keepdims=True)))
