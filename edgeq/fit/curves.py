"""Curves of accuracy over mean cost, and paired bootstrap intervals of what is read off them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgeq import gates
from edgeq.errors import UsageError
from edgeq.fit.outputs import Fold, Int64, Reals
from edgeq.gates import ONE, Costs, Gate, Path

TRADEOFFS = (0.0, *np.logspace(-4, 1, 60).tolist(), 100.0, 1000.0)
DRAWS = 1000
CHUNK = 100  # draws at once
GRID = 1024  # points of an integral
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Points:
    """Operating points of a curve, mean cost and accuracy, by cost.

    Between neighbours it is a line, which a mix of both gives; unless `line` is false: then each
    point serves until the next one. Dearer than the last one is no better; below the first is none.
    """

    cost: Reals
    accuracy: Reals
    line: bool = True

    def accuracy_at(self, cost: float | Reals) -> Reals:
        """The accuracy for that mean cost; nan below the cheapest point."""
        at = np.asarray(cost, np.float64)
        if self.line:
            found = np.interp(at, self.cost, self.accuracy)
        else:
            index = np.searchsorted(self.cost, at, side="right") - 1
            found = self.accuracy[np.maximum(index, 0)]
        return np.where(at < self.cost[0], np.nan, found)

    def cost_at(self, accuracy: float) -> float:
        """The least mean cost from which on the curve has once had that accuracy; inf if never."""
        reached = np.flatnonzero(self.accuracy >= accuracy)
        if not len(reached):
            return float("inf")
        first = int(reached[0])
        if not first or not self.line:
            return float(self.cost[first])
        low, high = self.accuracy[first - 1 : first + 1]
        share = (accuracy - low) / (high - low)
        return float(self.cost[first - 1] + share * (self.cost[first] - self.cost[first - 1]))

    def area(self, low: float | None = None, high: float = 1.0) -> float:
        """The mean accuracy over costs from `low` (the cheapest point's) to `high`."""
        start = float(self.cost[0]) if low is None else max(low, float(self.cost[0]))
        return float(self.accuracy_at(np.linspace(start, max(high, start), GRID)).mean())


@dataclass(frozen=True)
class Curve:
    """Where every sample leaves, at every operating point.

    `parameters` are tradeoffs, thresholds or levels; `taken` (points, samples) are indices of
    `paths`; `costs` are theirs as a share of the dearest path's with all its heads and gates.
    """

    name: str
    parameters: tuple[float, ...]
    paths: tuple[Path, ...]
    costs: tuple[float, ...]
    taken: npt.NDArray[np.int16]
    correct: Reals  # how probably it is right: 0 or 1 where that was counted
    line: bool = True
    notes: tuple[str, ...] = ()

    def points(self) -> Points:
        """Mean cost and accuracy over all samples."""
        weights = np.full((1, self.taken.shape[1]), 1 / self.taken.shape[1])
        return self.resampled(weights)[0]

    def by_path(self) -> Reals:
        """The share of samples that take each path: (points, paths)."""
        count = len(self.paths)
        rows = [np.bincount(row, minlength=count) for row in self.taken]
        return np.asarray(np.stack(rows) / self.taken.shape[1])

    def by_exit(self) -> Reals:
        """The share of samples that leave at each exit: (points, exits)."""
        lengths = np.array([len(path) for path in self.paths])
        return np.asarray(self.by_path() @ (lengths[:, None] == np.arange(1, lengths.max() + 1)))

    def resampled(self, weights: Reals) -> list[Points]:
        """The points for every row of weights (draws, samples), whose sums are 1."""
        table = np.array(self.costs, np.float64)
        costs = weights @ table[self.taken].T
        accuracies = weights @ self.correct.T
        return [_ordered(c, a, self.line) for c, a in zip(costs, accuracies, strict=True)]


def _ordered(cost: Reals, accuracy: Reals, line: bool) -> Points:
    order = np.lexsort((accuracy, cost))
    return Points(cost[order], accuracy[order], line)


def curve(
    name: str,
    parameters: Sequence[float],
    paths: Sequence[Path],
    costs: Sequence[float],
    taken: Sequence[Int64],
    fold: Fold,
    *,
    line: bool = True,
    notes: tuple[str, ...] = (),
) -> Curve:
    """The curve of samples of `fold` that take these paths at each operating point."""
    routes = np.stack(taken).astype(np.int16)
    right = 1 - np.stack([fold.errors[path] for path in paths])
    correct = right[routes, np.arange(len(fold))]
    return Curve(name, tuple(parameters), tuple(paths), tuple(costs), routes, correct, line, notes)


def shares(
    costs: Costs, paths: Sequence[Path], among: Sequence[Path], heads: int, gates: int
) -> tuple[float, ...]:
    """The cost of each of `paths` as a share of what the dearest of `among` takes, whole.

    Only the first `heads` heads and `gates` gates count: a network without exits has neither.
    """
    whole = max(costs.of(path) for path in among)
    plain = replace(costs, heads=_first(costs.heads, heads), gates=_first(costs.gates, gates))
    return tuple(plain.of(path) / whole for path in paths)


def _first(each: Sequence[float], count: int) -> tuple[float, ...]:
    return tuple(cost if index < count else 0.0 for index, cost in enumerate(each))


def fixed(tradeoff: float) -> int:
    """The tradeoff as Q16.16.

    Raises:
        UsageError: it is negative, not a number, or too great.
    """
    if not 0 <= tradeoff <= gates.MOST_TRADEOFF / ONE:
        most = gates.MOST_TRADEOFF // ONE
        raise UsageError("EQ0264", f"tradeoff {tradeoff}: it must be 0 to {most} (Q16.16)")
    return min(round(tradeoff * ONE), gates.MOST_TRADEOFF)


def predicted(gate: Gate, fold: Fold) -> dict[Path, Int64]:
    """The errors that the gates predict at every node, Q16: (samples, options)."""
    return {path: gates.predict(gate, path, fold.seen) for path in gate.nodes()}


def sweep(
    gate: Gate,
    fold: Fold,
    tradeoffs: Sequence[float] = TRADEOFFS,
    name: str = "quee",
    errors: Mapping[Path, Int64] | None = None,
) -> Curve:
    """The gate's curve; `errors` stand for those that it predicts."""
    known = predicted(gate, fold) if errors is None else errors
    taken = [gates.route(gate, known, fixed(tradeoff)).paths for tradeoff in tradeoffs]
    costs = [cost / ONE for cost in gate.costs]
    return curve(name, tradeoffs, gate.paths, costs, taken, fold)


# Intervals.


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % interval by percentiles; `lost` is the share of draws without one."""

    value: float
    low: float
    high: float
    lost: float = 0.0

    @property
    def tie(self) -> bool:
        """Whether a difference may as well be none."""
        return self.low <= 0 <= self.high


Statistic = Callable[[Sequence[Points]], float]


def interval(
    seeds: Sequence[Sequence[Curve]], statistic: Statistic, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """The interval of one statistic."""
    return intervals(seeds, [statistic], draws, seed)[0]


def intervals(
    seeds: Sequence[Sequence[Curve]],
    statistics: Sequence[Statistic],
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Interval]:
    """The mean of each statistic over seeds, each with its curves of the same samples.

    Paired: a draw takes samples with replacement, the same ones for every curve, and seeds with
    replacement where there are several.
    """
    whole = [[s([curve.points() for curve in curves]) for curves in seeds] for s in statistics]
    found = []
    rng = np.random.default_rng(seed)
    for weights in _weights(seeds[0][0].taken.shape[1], draws, rng):
        each = []
        for curves in seeds:
            points = zip(*(curve.resampled(weights) for curve in curves), strict=True)
            each.append([[statistic(drawn) for statistic in statistics] for drawn in points])
        table = np.array(each)  # seeds × draws × statistics
        rows = rng.integers(0, len(seeds), (table.shape[1], len(seeds)))
        found.append(table[rows, np.arange(table.shape[1])[:, None]].mean(axis=1))
    drawn = np.concatenate(found)
    return [_interval(float(np.mean(w)), d) for w, d in zip(whole, drawn.T, strict=True)]


def _interval(value: float, drawn: Reals) -> Interval:
    usable = drawn[~np.isnan(drawn)]
    lost = 1 - len(usable) / len(drawn)
    if not len(usable):
        return Interval(value, float("nan"), float("nan"), lost)
    tail = (1 - CONFIDENCE) / 2
    low = float(np.quantile(usable, tail, method="lower"))
    high = float(np.quantile(usable, 1 - tail, method="higher"))
    return Interval(value, low, high, lost)


def _weights(samples: int, draws: int, rng: np.random.Generator) -> Iterator[Reals]:
    even = np.full(samples, 1 / samples)
    for start in range(0, draws, CHUNK):
        yield rng.multinomial(samples, even, min(CHUNK, draws - start)) / samples


def accuracy_difference(cost: float) -> Statistic:
    """Accuracy of the first curve less the second's at that mean cost."""
    return lambda points: float(points[0].accuracy_at(cost) - points[1].accuracy_at(cost))


def area_difference(high: float = 1.0) -> Statistic:
    """Mean accuracy of the first curve less the second's, over the costs that both reach."""

    def of(points: Sequence[Points]) -> float:
        low = max(float(p.cost[0]) for p in points)
        return points[0].area(low, high) - points[1].area(low, high)

    return of


def cost_ratio(drop: float) -> Statistic:
    """Cost of the first curve over the second's at `drop` below the accuracy of the third one.

    The third is the top: the last of its points.
    """

    def of(points: Sequence[Points]) -> float:
        aim = float(points[2].accuracy[-1]) - drop
        first, second = points[0].cost_at(aim), points[1].cost_at(aim)
        return first / second if np.isfinite(first) or np.isfinite(second) else float("nan")

    return of
