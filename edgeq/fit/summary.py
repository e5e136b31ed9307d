"""What a fit found, as the report has it: curve, operating points, baselines, classes, reliability.

All figures but the choices themselves are of the test fold, which nothing was fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeq import report
from edgeq.fit import baselines, curves, reliability
from edgeq.fit.curves import Curve, Interval, intervals, shares
from edgeq.fit.fitting import Fitted
from edgeq.fit.outputs import Fold, Outputs
from edgeq.gates import ONE, Costs, Gate, Table
from edgeq.report import (
    Accuracy,
    Baseline,
    ClassUse,
    Clustering,
    Comparison,
    CurvePoint,
    Dropped,
    FormFit,
    OperatingPoint,
    Reliability,
    ReliabilityBin,
    Standing,
)

DROPS = (0.5, 1.0, 2.0, 5.0)  # points below the best accuracy, of the operating points
COMPARED_COSTS = (0.25, 0.5)
COMPARED_DROP = 0.5  # points below the top, the whole network at level 0
DIGITS = 6

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class About:
    """What the figures are of, in the words of policy and target."""

    target: str
    exits: tuple[str, ...]
    levels: tuple[str, ...]
    accuracy: Accuracy | None  # of the float network, and of the integers at level 0
    folds: tuple[report.Fold, ...]
    dropped: tuple[Dropped, ...]
    seed: int
    notes: tuple[str, ...]


def describe(
    fitted: Fitted, outputs: Outputs, costs: Costs, about: About, others: Mapping[str, Curve]
) -> report.Gate:
    """The section `gate` of a report; `others` are baselines on the test fold, by name."""
    gate, test = fitted.gate, _test(outputs)
    curve = curves.sweep(gate, test)
    top = baselines.uniform(gate.levels, gate.levels[0][0])
    whole = baselines.plain(outputs, test, costs)
    return report.Gate(
        target=about.target,
        exits=about.exits,
        levels=about.levels,
        form=_form(gate),
        bytes=fitted.bytes[fitted.kind],
        clusters=fitted.clusters[fitted.kind],
        paths=len(gate.paths),
        unit=costs.unit,
        cost_source=costs.source,
        dearest=_dearest(gate, costs),
        ungated=_round(shares(costs, [top], outputs.paths, 0, 0)[0]),
        accuracy=about.accuracy,
        tradeoff=gate.tradeoff / ONE,
        curve=_points(curve),
        area=_round(curve.points().area()),
        points=_operating(fitted, outputs, costs),
        baselines={name: _baseline(curve, other, whole) for name, other in others.items()},
        forms=tuple(
            FormFit(kind, fitted.bytes[kind], _round(area), kind == fitted.kind)
            for kind, area in fitted.areas.items()
        ),
        classes=_classes(gate, test),
        reliability=_reliability(gate, test),
        clusterings=tuple(
            Clustering(
                count,
                _round(fitted.brier[count]),
                _round(fitted.ece[count]),
                _round(area),
                count == fitted.clusters[fitted.kind],
            )
            for count, area in fitted.table_areas.items()
        ),
        dropped=about.dropped,
        folds=about.folds,
        seed=about.seed,
        notes=(*fitted.notes, *(n for other in others.values() for n in other.notes), *about.notes),
    )


def compared(
    outputs: Outputs, costs: Costs, level: str, seed: int, progress: Progress
) -> dict[str, Curve]:
    """The curve of every baseline on the test fold; `level` is what level 0 is called."""
    test = _test(outputs)
    rows: dict[str, Callable[[], Curve]] = {
        f"thresholds at {level}": lambda: baselines.thresholds(outputs, test, costs),
        "thresholds, best path": lambda: baselines.static_thresholds(outputs, test, costs),
        "plain PTQ": lambda: baselines.plain(outputs, test, costs),
        "DQNet-gate": lambda: baselines.dqnet(outputs, test, costs, seed=seed),
        "JEI-DNN": lambda: baselines.jei_dnn(outputs, test, costs, seed=seed),
        "oracle": lambda: baselines.oracle(outputs, test, costs),
    }
    found = {}
    for name, make in rows.items():
        progress(name)
        found[name] = make()
    return found


def _test(outputs: Outputs) -> Fold:
    assert outputs.test is not None  # the verb always keeps one
    return outputs.test


def _form(gate: Gate) -> str:
    return "table" if isinstance(gate.form, Table) else "mlp"


def _dearest(gate: Gate, costs: Costs) -> float:
    return max(costs.of(path) for path in gate.paths)


def _round(value: float) -> float:
    return round(float(value), DIGITS)


def _points(curve: Curve) -> tuple[CurvePoint, ...]:
    """The curve, each set of routes once: at the first parameter that makes it."""
    cost = np.array(curve.costs)[curve.taken].mean(axis=1)
    exits = curve.by_exit()
    return tuple(
        CurvePoint(
            _round(parameter) if math.isfinite(parameter) else None,
            _round(cost[index]),
            _round(curve.correct[index].mean()),
            tuple(map(_round, exits[index])),
        )
        for index, parameter in enumerate(curve.parameters)
        if not index or not np.array_equal(curve.taken[index], curve.taken[index - 1])
    )


def _operating(fitted: Fitted, outputs: Outputs, costs: Costs) -> tuple[OperatingPoint, ...]:
    """Tradeoffs chosen on the validation fold, and what they give on the test fold."""
    gate = fitted.gate
    names = {gate.tradeoff: "at start", 0: "top"}
    within = fitted.tradeoffs_within([drop / 100 for drop in DROPS])
    names |= {at: f"top - {drop:g}" for at, drop in zip(within, DROPS, strict=True)}
    dearest = _dearest(gate, costs)
    found = []
    for tradeoff, name in sorted(names.items()):
        curve = curves.sweep(gate, _test(outputs), [tradeoff / ONE])
        (point,) = _points(curve)
        found.append(
            OperatingPoint(
                name=name,
                tradeoff=tradeoff / ONE,
                cost=point.cost,
                accuracy=point.accuracy,
                exits=point.exits,
                levels=_level_shares(curve, gate),
                mean=round(point.cost * dearest, 1),
                worst=round(_worst(gate, costs, tradeoff), 1),
            )
        )
    return tuple(found)


def _level_shares(curve: Curve, gate: Gate) -> tuple[float, ...]:
    """The shares of all blocks that a curve's only point runs at each level of the network."""
    count = gate.level_count
    runs = sum(
        share * np.bincount(path, minlength=count)
        for share, path in zip(curve.by_path()[0], curve.paths, strict=True)
    )
    return tuple(_round(one) for one in np.asarray(runs) / np.sum(runs))


def _worst(gate: Gate, costs: Costs, tradeoff: int) -> float:
    """What the dearest path takes that an input may go at that tradeoff."""
    first = gate.first_level(tradeoff)
    return max(costs.of(path) for path in gate.paths if path[0] == first)


def _baseline(ours: Curve, other: Curve, whole: Curve) -> Baseline:
    top = replace(whole, parameters=whole.parameters[:1], taken=whole.taken[:1],
                  correct=whole.correct[:1])  # fmt: skip
    rows = [
        ("area", False, curves.area_difference()),
        *((f"at cost {c:g}", False, curves.accuracy_difference(c)) for c in COMPARED_COSTS),
        (f"cost at top - {COMPARED_DROP:g}", True, curves.cost_ratio(COMPARED_DROP / 100)),
    ]
    found = intervals([[ours, other, top]], [statistic for _, _, statistic in rows])
    return Baseline(
        _points(other),
        _round(other.points().area()),
        tuple(
            _comparison(figure, ratio, one)
            for (figure, ratio, _), one in zip(rows, found, strict=True)
        ),
    )


def _comparison(figure: str, ratio: bool, found: Interval) -> Comparison:
    if not all(math.isfinite(value) for value in (found.value, found.low, found.high)):
        return Comparison(figure, ratio, None, None, None, None)
    even, sign = (1, -1) if ratio else (0, 1)  # less cost is better, and more accuracy
    ends = sorted((sign * (found.low - even), sign * (found.high - even)))
    standing = Standing.TIE
    if ends[0] > 0 or ends[1] < 0:
        standing = Standing.AHEAD if ends[0] > 0 else Standing.BEHIND
    value, low, high = map(_round, (found.value, found.low, found.high))
    return Comparison(figure, ratio, value, low, high, standing)


def _classes(gate: Gate, test: Fold) -> tuple[ClassUse, ...]:
    """Where the samples of each class go at the tradeoff that the gates start with."""
    curve = curves.sweep(gate, test, [gate.tradeoff / ONE])
    exits = reliability.exits_by_class(curve, 0, test.labels)
    levels = reliability.levels_by_class(curve, 0, test.labels)
    return tuple(
        ClassUse(
            str(label),
            int((test.labels == label).sum()),
            tuple(map(_round, exits[label])),
            _filled(levels[label], gate.level_count),
        )
        for label in np.unique(test.labels).tolist()
    )


def _filled(shares: Sequence[float], count: int) -> tuple[float, ...]:
    """Shares by level, 0 of those that no path takes."""
    found = tuple(map(_round, shares))
    return found + (0.0,) * (count - len(found))


def _reliability(gate: Gate, test: Fold) -> Reliability:
    found = reliability.of_gate(gate, test)
    questions = sum(len(gate.options(path)) for path in gate.nodes()) * len(test)
    return Reliability(
        _round(found.brier),
        _round(found.ece_mass),
        _round(found.ece_width),
        tuple(
            ReliabilityBin(_round(1 - told), _round(1 - wrong), round(share * questions))
            for told, wrong, share in found.bins
        ),
    )
