"""What is claimed of gates, the figures behind it with their intervals, and the paper's findings.

Every claim is printed as held or not held. Intervals are of 95 %, by bootstrap over images and
seeds, paired; a claim marked `outside` holds where the whole interval does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from edgeq import fit
from edgeq.fit import baselines, best_step, curves, networks, reliability, targets
from edgeq.fit.curves import Curve, Points
from edgeq.fit.outputs import Fold, Outputs
from edgeq.gates import ONE, Costs, Gate

STEPS = (50, 200, 2_000)  # of the gates that learn too little, and of one that learns enough
BEST_STEP = (0.01, 0.1, 0.3, 1.0)  # tradeoffs that it is trained for
COUNTS = (5, 20, 70)  # of clusters
COUNTS_STEPS = 2_000  # of the networks over them
LIMIT_S = 60.0  # for the trainings of JEI-DNN
DRAWS = 400
LOW, HIGH = 0.3, 0.7  # mean costs
WITHIN = 0.005  # below the top: the point that classes are looked at
NAMES = {
    "quee": "QuEE",
    "thresholds": "thresholds at W8A8",
    "static": "thresholds, best static path",
    "plain": "plain PTQ",
    "oracle": "oracle",
    "dqnet": "DQNet-gate",
    "jei": "JEI-DNN",
}


@dataclass(frozen=True, slots=True)
class Seed:
    """The curves of one seed on the test images, at one kind of cost."""

    quee: Curve
    thresholds: Curve
    static: Curve
    plain: Curve
    oracle: Curve
    dqnet: Curve | None
    jei: Curve | None


@dataclass(frozen=True, slots=True)
class Findings:
    """What the first seed alone shows, at costs by formula."""

    steps: Mapping[int, tuple[float, Curve]]  # RMSE on held-out targets, and the curve
    mlp: Curve
    best: Curve
    clusters: Sequence[Clusters]
    exits: npt.NDArray[np.float64]  # (classes, exits)
    levels: npt.NDArray[np.float64]  # (classes, levels)
    tradeoff: float


@dataclass(frozen=True, slots=True)
class Fits:
    """All that was fitted to one network and seed; gates by kind of cost, of its first fold."""

    curves: Mapping[str, Seed]
    gates: Mapping[str, Gate]
    costs: Mapping[str, Costs]
    form: str
    bytes: int
    clusters: int
    findings: Findings | None


def fit_all(
    folds: Sequence[Outputs],
    prices: Mapping[str, Costs],
    seed: int,
    say: Callable[[str], None],
    *,
    slow: bool,
) -> Fits:
    """Gates at the first kind of costs, priced anew for the others; curves of all.

    Each of `folds` is fitted to by itself, and its curves are of the samples that it reports on.
    With `slow` also the baselines that train for each point, and the findings.
    """
    first, *others = (
        _fit(outputs, prices, seed, say, slow=slow, findings=slow and not number)
        for number, outputs in enumerate(folds)
    )
    both = {kind: _together([one.curves[kind] for one in (first, *others)]) for kind in prices}
    return replace(first, curves=both)


def merged(parts: Sequence[Fits]) -> Fits:
    """What was fitted for each kind of costs, as one; what is said of the form is the first's."""
    first, *others = parts
    return replace(
        first,
        curves={kind: one for part in (first, *others) for kind, one in part.curves.items()},
        gates={kind: one for part in (first, *others) for kind, one in part.gates.items()},
        costs={kind: one for part in (first, *others) for kind, one in part.costs.items()},
    )


def _together(seeds: Sequence[Seed]) -> Seed:
    """The curves of different samples as one each; trainings that one lacks are left out."""
    found = {}
    for field in fields(Seed):
        parts: list[Curve] = [one for seed in seeds if (one := getattr(seed, field.name))]
        found[field.name] = _joined(parts) if parts else None
    return Seed(**found)


def _joined(parts: Sequence[Curve]) -> Curve:
    count = min(len(part.parameters) for part in parts)
    shared = {(part.parameters[:count], part.paths, part.costs) for part in parts}
    assert len(shared) == 1
    return replace(
        parts[0],
        parameters=parts[0].parameters[:count],
        taken=np.concatenate([part.taken[:count] for part in parts], axis=1),
        correct=np.concatenate([part.correct[:count] for part in parts], axis=1),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _fit(
    outputs: Outputs,
    prices: Mapping[str, Costs],
    seed: int,
    say: Callable[[str], None],
    *,
    slow: bool,
    findings: bool,
) -> Fits:
    test = outputs.test
    assert test is not None
    formula = next(iter(prices))
    settings = fit.Settings(seed=seed)
    fitted = fit.fit(outputs, prices[formula], settings)
    say(f"{fitted.kind}, {fitted.bytes[fitted.kind]} bytes")
    found, known = {}, {}
    for kind, costs in prices.items():
        priced = fit.priced(fitted, costs)
        started = priced.starting(*priced.tradeoffs_within([WITHIN]))
        gate = known[kind] = started.gate
        trained = slow and kind == formula
        found[kind] = Seed(
            curves.sweep(gate, test),
            baselines.thresholds(outputs, test, costs),
            baselines.static_thresholds(outputs, test, costs),
            baselines.plain(outputs, test, costs),
            baselines.oracle(outputs, test, costs),
            baselines.dqnet(outputs, test, costs, seed=seed) if trained else None,
            baselines.jei_dnn(outputs, test, costs, seed=seed, limit_s=LIMIT_S)
            if trained
            else None,
        )
        say(f"{kind}: curves")
    finding = _findings(outputs, prices[formula], fitted, settings, say) if findings else None
    kind_of = fitted.kind
    return Fits(
        found, known, prices, kind_of, fitted.bytes[kind_of], fitted.clusters[kind_of], finding
    )


def _findings(
    outputs: Outputs,
    costs: Costs,
    fitted: fit.Fitted,
    settings: fit.Settings,
    say: Callable[[str], None],
) -> Findings:
    test, gate = outputs.test, fitted.forms["mlp"]
    assert test is not None
    told = targets.learn(fitted.val, gate.paths, fitted.clusters["mlp"], settings.seed)
    train, val = (
        (one, targets.by_node(gate, told.estimate(one))) for one in (outputs.train, fitted.val)
    )
    steps = {}
    for most in STEPS:
        trained = networks.train(gate, train, val, settings.seed, settings.hidden, most)
        other = replace(gate, form=networks.quantised(gate, trained, outputs.val))
        steps[most] = float(np.mean(trained.rmse)), curves.sweep(other, test)
    say("gates of few steps")
    folds = outputs.train, fitted.val, test
    best = best_step.fit(gate, told, folds, BEST_STEP, settings.seed, steps=STEPS[-1])
    own = networks.train(gate, train, val, settings.seed, settings.hidden, STEPS[-1])
    same = replace(gate, form=networks.quantised(gate, own, outputs.val))
    mlp = curves.sweep(same, test, BEST_STEP)
    say("best step")
    less = replace(settings, steps=COUNTS_STEPS)
    clusters = by_clusters(outputs, costs, test, COUNTS, less)
    say("clusters")
    at = fitted.tradeoffs_within([WITHIN])[0] / ONE
    point = curves.sweep(fitted.gate, test, [at])
    return Findings(
        steps,
        mlp,
        best,
        clusters,
        reliability.exits_by_class(point, 0, test.labels),
        reliability.levels_by_class(point, 0, test.labels),
        at,
    )


@dataclass(frozen=True, slots=True)
class Clusters:
    """What a number of clusters makes of a fit, on a fold of its own."""

    count: int
    target_brier: float
    target_ece: float
    areas: Mapping[str, float]
    reliability: Mapping[str, reliability.Reliability]


def by_clusters(
    outputs: Outputs,
    costs: Costs,
    fold: Fold,
    counts: Sequence[int],
    settings: fit.Settings,
) -> list[Clusters]:
    """Accuracy and reliability on `fold` over the number of clusters (figs. 5 and 9)."""
    found = []
    for count in counts:
        fitted = fit.fit(outputs, costs, replace(settings, clusters=(count,)))
        paths = fitted.gate.paths
        told = targets.learn(fitted.val, paths, count, settings.seed).estimate(fold)
        errors = np.concatenate([told[path] for path in paths])
        trust = reliability.of_errors(errors, np.concatenate([fold.wrong[path] for path in paths]))
        areas = {kind: fit.fitting.area(gate, fold) for kind, gate in fitted.forms.items()}
        each = {kind: reliability.of_gate(gate, fold) for kind, gate in fitted.forms.items()}
        found.append(Clusters(count, trust.brier, trust.ece_mass, areas, each))
    return found


# Claims.


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, the figure behind it, and what it has to be."""

    text: str
    of: Callable[[Seed], Sequence[Curve]]
    statistic: curves.Statistic
    most: float | None = None
    least: float | None = None
    outside: bool = False  # the whole interval has to hold, not the figure alone

    def show(self, seeds: Sequence[Seed]) -> str:
        """The claim's line: held or not, with its interval."""
        found = curves.interval([self.of(seed) for seed in seeds], self.statistic, DRAWS)
        low, high = (found.low, found.high) if self.outside else (found.value, found.value)
        held = (self.most is None or high <= self.most) and (
            self.least is None or low >= self.least
        )
        bound = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        lost = f"; {found.lost:.0%} of draws have none" if found.lost else ""
        return (
            f"| {self.text} | {found.value:.3f} | {found.low:.3f} … {found.high:.3f}{lost} | "
            f"{bound}{', outside' if self.outside else ''} | {'held' if held else 'NOT held'} |"
        )


def _lowest(points: Sequence[Points]) -> float:
    """Cost of the first over the second's at the accuracy of the second's cheapest point."""
    own, plain = points
    found = own.cost_at(float(plain.accuracy[0])) / float(plain.cost[0])
    return found if np.isfinite(found) else float("nan")


def _least_lead(points: Sequence[Points]) -> float:
    """How far the first is ahead of the second at worst, from 1 point below the top upwards."""
    own, other, plain = points
    start = other.cost_at(float(plain.accuracy[-1]) - 0.01)
    if not np.isfinite(start):
        return float("nan")
    at = np.linspace(max(start, float(own.cost[0])), 1.0, 256)
    return float((own.accuracy_at(at) - other.accuracy_at(at)).min())


def _at_lowest(points: Sequence[Points]) -> float:
    """Accuracy of the first above the second's, at the cost of the second's cheapest point."""
    own, plain = points
    return float(own.accuracy_at(float(plain.cost[0]))) - float(plain.accuracy[0])


def _over_better(points: Sequence[Points]) -> float:
    """The first's area less that of the better one of the others, over costs that all reach."""
    low = max(float(p.cost[0]) for p in points)
    own, *others = (p.area(low) for p in points)
    return own - max(others)


def claims(name: str, kind: str) -> list[Claim]:
    """What is claimed of that network at that kind of cost."""
    balanced = Claim(
        "(iii) area above the better of thresholds and plain PTQ",
        lambda s: (s.quee, s.thresholds, s.plain),
        _over_better,
        least=0.0,
        outside=True,
    )
    if name.startswith("weak"):
        return [balanced]
    cheaper = {
        ("fashion-resnet8", "measured"): 1.05,
        ("cifar-resnet8", "measured"): 0.85,
        ("resnet20", "measured"): None,
    }.get((name, kind), 0.8)
    lowest = {"fashion-resnet8": 0.5, "cifar-resnet8": 0.75, "resnet20": 1.0}[name]
    found = []
    if cheaper is not None:
        found.append(
            Claim(
                "cost at top − 0.5, over that of thresholds",
                lambda s: (s.quee, s.thresholds, s.plain),
                curves.cost_ratio(0.005),
                most=cheaper,
            )
        )
    ahead = name != "fashion-resnet8"
    found += [
        Claim(
            f"{'lead' if ahead else '(i) lead'} over thresholds at a cost of {cost:g}",
            lambda s: (s.quee, s.thresholds),
            curves.accuracy_difference(cost),
            least=0.0,
            outside=True,
        )
        for cost in ((0.25, 0.3, 0.4, 0.5) if ahead else (0.1, 0.15))
    ]
    found += [
        Claim(
            "cost at the lowest level's accuracy, over that level's",
            lambda s: (s.quee, s.plain),
            _lowest,
            most=lowest,
        ),
        Claim(
            "least lead over thresholds on the best static path, from top − 1",
            lambda s: (s.quee, s.static, s.plain),
            _least_lead,
            least=-0.005,
        ),
        balanced,
        Claim(
            "(ii) lead over plain PTQ at the lowest level's cost",
            lambda s: (s.quee, s.plain),
            _at_lowest,
            least=0.0,
            outside=True,
        ),
    ]
    return found


def show(name: str, fits: Sequence[Fits]) -> str:
    """The network's tables, in Markdown."""
    count = "one seed" if len(fits) == 1 else f"{len(fits)} seeds"
    lines = [f"## {name}, {count}", ""]
    for number, one in enumerate(fits):
        lines.append(
            f"- Seed {number}: {one.form}, {one.bytes} bytes, fitted to {one.clusters} clusters."
        )
    for kind in fits[0].curves:
        lines += ["", *_kind(name, kind, [one.curves[kind] for one in fits])]
    for one in fits:
        if one.findings is not None:
            lines += ["", *_found(one.findings)]
    return "\n".join(lines) + "\n"


def _kind(name: str, kind: str, seeds: Sequence[Seed]) -> Iterator[str]:
    yield f"### {name}: costs {kind}"
    yield ""
    yield "| curve | area | cost at top − 0.5 | at 0.25 | at 0.4 | at 0.5 | at 1 |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    top = np.mean([seed.plain.points().accuracy[-1] for seed in seeds])
    for row, called in NAMES.items():
        points = [one.points() for seed in seeds if (one := getattr(seed, row)) is not None]
        if not points:
            continue
        cost = np.mean([p.cost_at(float(top) - 0.005) for p in points])
        at = [np.mean([p.accuracy_at(c) for p in points]) for c in (0.25, 0.4, 0.5, 1.0)]
        area = np.mean([p.area() for p in points])
        cells = " | ".join(f"{a:.2%}" if math.isfinite(a) else "–" for a in at)
        shown = f"{cost:.3f}" if math.isfinite(cost) else "–"
        yield f"| {called} | {area:.2%} | {shown} | {cells} |"
    yield ""
    for number, seed in enumerate(seeds):
        points = seed.plain.points()
        each = ", ".join(
            f"{a:.2%} at {c:.3f}" for a, c in zip(points.accuracy, points.cost, strict=True)
        )
        yield f"- Plain PTQ, seed {number}: {each}."
        for one in (seed.dqnet, seed.jei):
            for note in one.notes if one is not None else ():
                yield f"- {one.name}, seed {number}: {note}." if one is not None else ""
    yield ""
    yield "| claim | figure | 95 % | has to be | |"
    yield "| --- | ---: | --- | --- | --- |"
    for claim in claims(name, kind):
        yield claim.show(seeds)


# Findings.


def _found(found: Findings) -> Iterator[str]:
    yield "### Findings of the first seed, costs bitops_linear"
    yield ""
    yield "| steps of the gates' training | RMSE | accuracy at 0.3 | at 0.7 |"
    yield "| ---: | ---: | ---: | ---: |"
    for most, (rmse, one) in found.steps.items():
        at = one.points().accuracy_at(np.array([LOW, HIGH]))
        yield f"| {most} | {rmse:.4f} | {at[0]:.2%} | {at[1]:.2%} |"
    yield ""
    yield "| finding | figure | 95 % | |"
    yield "| --- | ---: | --- | --- |"
    few, enough = found.steps[STEPS[0]][1], found.steps[STEPS[-1]][1]
    for cost in (LOW, HIGH):
        yield _line(
            f"(iv) lead of {STEPS[-1]} steps over {STEPS[0]} at a cost of {cost:g}",
            (enough, few),
            curves.accuracy_difference(cost),
        )
    yield _line("(iv) that lead at the high cost less that at the low one", (enough, few), _growing)
    for index, tradeoff in enumerate(BEST_STEP):
        yield _line(
            f"(vi) score of best step above QuEE's, λ = {tradeoff:g}",
            (_point(found.mlp, index), _point(found.best, index)),
            _score(tradeoff),
        )
    yield ""
    yield "| K | Brier | ECE | accuracy, table | network | Brier of both | ECE of both |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for row in found.clusters:
        areas = " | ".join(f"{row.areas[form]:.2%}" for form in ("table", "mlp"))
        both = [row.reliability[form] for form in ("table", "mlp")]
        brier = " / ".join(f"{one.brier:.4f}" for one in both)
        ece = " / ".join(f"{one.ece_mass:.4f}" for one in both)
        told = f"{row.target_brier:.4f} | {row.target_ece:.4f}"
        yield f"| {row.count} | {told} | {areas} | {brier} | {ece} |"
    yield ""
    yield f"(vii) Shares by class, {WITHIN:.1%} below the top, λ = {found.tradeoff:.4g}:"
    yield ""
    exits, levels = found.exits.shape[1], found.levels.shape[1]
    heads = [*(f"exit {n + 1}" for n in range(exits)), *(f"level {n}" for n in range(levels))]
    yield f"| class | {' | '.join(heads)} |"
    yield f"| ---: |{' ---: |' * len(heads)}"
    for label in range(len(found.exits)):
        shares = (*found.exits[label], *found.levels[label])
        yield f"| {label} | {' | '.join(f'{share:.0%}' for share in shares)} |"


def _line(text: str, pair: Sequence[Curve], statistic: curves.Statistic) -> str:
    found = curves.interval([pair], statistic, DRAWS)
    ends = f"{found.low:+.4f} … {found.high:+.4f}"
    said = "tie" if found.tie else "reproduced" if found.value > 0 else "refuted"
    return f"| {text} | {found.value:+.4f} | {ends} | {said} |"


def _growing(points: Sequence[Points]) -> float:
    high, low = (curves.accuracy_difference(cost)(points) for cost in (HIGH, LOW))
    return high - low


def _point(whole: Curve, index: int) -> Curve:
    at = slice(index, index + 1)
    return replace(
        whole,
        parameters=whole.parameters[at],
        taken=whole.taken[at],
        correct=whole.correct[at],
    )


def _score(tradeoff: float) -> curves.Statistic:
    """How much worse the second's tradeoff · cost + error is than the first's."""

    def of(points: Sequence[Points]) -> float:
        first, second = (tradeoff * p.cost[0] - p.accuracy[0] for p in points)
        return float(second - first)

    return of
