"""`diff`: what changed from one build to another, and whether more than it may."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeq.errors import BudgetError, UsageError
from edgeq.report import Change, Difference, Layer, PartChange, Report

Figure = Callable[[Report], float | None]
Facts = dict[str, str | float]


def _accuracy(report: Report) -> float | None:
    accuracy = report.export.accuracy
    return None if accuracy is None else accuracy.int


def _instructions(report: Report) -> float | None:
    return None if report.profile is None else report.profile.totals.instructions


def _cycles(report: Report) -> float | None:
    return None if report.profile is None else report.profile.totals.cycles_model


def _gates(report: Report) -> float | None:
    return None if report.export.routing is None else report.export.flash.gates


def _cost(report: Report) -> float | None:
    """What an input takes on average in a build with exits."""
    return None if report.export.routing is None else report.export.routing.mean_cost


def _worst(report: Report) -> float | None:
    return None if report.export.routing is None else report.export.routing.worst_cost


# Every figure by the name that --fail-on takes. Fractions are 0..1, all else counts.
FIGURES: Mapping[str, Figure] = {
    "flash": lambda report: report.export.flash.total,
    "weights": lambda report: report.export.flash.weights,
    "code": lambda report: report.export.flash.kernels + report.export.flash.runtime,
    "ram": lambda report: report.export.ram.total,
    "arena": lambda report: report.export.ram.arena,
    "bits": lambda report: report.export.bits_per_weight,
    "accuracy": _accuracy,
    "instructions": _instructions,
    "cycles": _cycles,
    "gates": _gates,
    "cost": _cost,
    "worst": _worst,
}
POINTS = ("accuracy",)  # fractions: limits and differences are in points of a hundred


@dataclass(frozen=True, slots=True)
class Limit:
    """How far a figure may move: up (`sign` 1) or down (−1), by `most` or a share of the old."""

    figure: str
    sign: int
    most: float
    relative: bool
    text: str

    def exceeded(self, change: Change) -> bool:
        """Whether `change` moved further; False where a build lacks the figure."""
        if change.old is None or change.new is None:
            return False
        moved = self.sign * (change.new - change.old)
        scale = 100 if self.figure in POINTS else 1
        # A hair of float arithmetic is no change: 0.2 points are 0.2 points.
        allowed = self.most / 100 * abs(change.old) if self.relative else self.most / scale
        return moved > allowed + 1e-9 * max(1.0, abs(allowed))


LIMIT = re.compile(r"([a-z]+)([+-])(\d+(?:\.\d+)?)(%?)")


def limits(text: str) -> tuple[Limit, ...]:
    """The limits of `flash+1%,accuracy-0.2`.

    Raises:
        UsageError: the text says no such thing.
    """
    found = []
    for part in text.split(","):
        match = LIMIT.fullmatch(part.strip())
        if match is None or match[1] not in FIGURES:
            raise UsageError(
                "EQ0209",
                f"--fail-on {part.strip()}: expected a figure, + or -, and how far it may go, as "
                f"flash+1% or accuracy-0.2; figures are {', '.join(FIGURES)}",
            )
        sign = 1 if match[2] == "+" else -1
        found.append(Limit(match[1], sign, float(match[3]), bool(match[4]), part.strip()))
    return tuple(found)


def compare(old: Report, new: Report) -> Difference:
    """What changed from `old` to `new`."""
    figures = tuple(Change(name, figure(old), figure(new)) for name, figure in FIGURES.items())
    notes = []
    for name, one, other in (
        ("model", old.model, new.model),
        ("target", old.target, new.target),
        ("compiler", old.export.compiler, new.export.compiler),
        ("optimize", old.export.optimize, new.export.optimize),
        ("gates", _routing(old), _routing(new)),
    ):
        if one != other:
            notes.append(f"{name}: {one} → {other}")
    layers, exits = _layers(old, new), _exits(old, new)
    return Difference(old.model, new.model, figures, layers, exits, tuple(notes))


def _routing(report: Report) -> str:
    routing = report.export.routing
    return "none" if routing is None else f"tradeoff {routing.tradeoff:g}, costs in {routing.unit}"


def require(difference: Difference, allowed: Sequence[Limit]) -> None:
    """Ends with an error where a figure moved further than `allowed`.

    Raises:
        BudgetError: it did.
        UsageError: a build lacks a figure that is limited.
    """
    changes = {change.name: change for change in difference.figures}
    for limit in allowed:
        change = changes[limit.figure]
        if change.old is None or change.new is None:
            raise UsageError(
                "EQ0247",
                f"--fail-on {limit.text}: a build has no {limit.figure}; accuracy needs --data at "
                "export, instructions and cycles edgeq profile, gates, cost and worst exits",
            )
    broken = [limit for limit in allowed if limit.exceeded(changes[limit.figure])]
    if broken:
        moves = [
            f"{limit.figure} {changes[limit.figure].old:,} → {changes[limit.figure].new:,} "
            f"(may be {limit.text})"
            for limit in broken
        ]
        raise BudgetError(
            "EQ0409", f"{difference.new} went further than it may: {'; '.join(moves)}"
        )


def _layers(old: Report, new: Report) -> tuple[PartChange, ...]:
    sides = [{layer.name: _facts(layer) for layer in r.export.layers} for r in (old, new)]
    for side, report in zip(sides, (old, new), strict=True):
        for work in report.profile.layers if report.profile is not None else ():
            side[work.name]["instructions"] = work.instructions
    return tuple(_changed(*sides))


def _exits(old: Report, new: Report) -> tuple[PartChange, ...]:
    sides = []
    for report in (old, new):
        uses = () if report.export.routing is None else report.export.routing.exits
        sides.append({use.name: _known({"share": use.share, "top1": use.top1}) for use in uses})
    return tuple(_changed(*sides))


def _changed(old: Mapping[str, Facts], new: Mapping[str, Facts]) -> Iterator[PartChange]:
    """The parts, by name, of which a figure is not the same; those of one side whole."""
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name, {}), new.get(name, {})
        keys = [key for key in before | after if before.get(key) != after.get(key)]
        if before and after:  # some figures are known only where a build was profiled, or labelled
            keys = [key for key in keys if key in before and key in after]
        if keys:
            yield PartChange(
                name,
                {key: before[key] for key in keys if key in before},
                {key: after[key] for key in keys if key in after},
            )


def _known(facts: Mapping[str, str | float | None]) -> Facts:
    return {key: fact for key, fact in facts.items() if fact is not None}


def _facts(layer: Layer) -> Facts:
    weights = layer.bits.weights
    return _known(
        {
            "op": layer.op,
            "output_bits": layer.bits.activations.stored,
            "weight_bits": None if weights is None else weights.stored,
            "weight_bytes": None if weights is None else layer.weight_bytes,
            "kernel": layer.kernel,
            "layout": layer.layout,
        }
    )
