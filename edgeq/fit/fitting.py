"""From outputs and costs to gates, and from gates to others at new costs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgeq import gates
from edgeq.fit import calibrate, networks, posterior, reliability, tables, targets
from edgeq.fit.choose import (
    first_levels,
    form_bytes,
    paths_of,
    tradeoffs_within,
)
from edgeq.fit.curves import fixed, sweep
from edgeq.fit.outputs import Fold, Outputs, split
from edgeq.gates import Costs, Form, Gate, Path, Table

Kind = Literal["table", "mlp"]

HELD_OUT = 0.4  # of the validation data, which choose between what the rest has fitted
EQUAL = 0.001  # of area: the form of fewer bytes wins
MOST_BYTES = 3 << 10  # of a table, if fewer clusters keep within them


@dataclass(frozen=True, slots=True)
class Settings:
    """How gates are fitted; the defaults are edgeq's own.

    `paper` starts at the top always, and leaves networks as eq. 16 makes them.
    """

    clusters: tuple[int, ...] = (20, 40, 70, 100)  # to choose from
    hidden: int = networks.HIDDEN
    steps: int = 8_000  # at most, of each network
    form: Kind | None = None  # None: what the held-out data say
    paper: bool = False
    tradeoff: float | None = None  # at start; None: the greatest that loses `within` at most
    within: float = 0.005
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fitted:
    """A gate, and what led to it. Areas are counted on held-out data; `forms` has one of each form.

    `val` are the validation data with the errors that gates learn. `early` has the gates that
    learned from a part of them, and `held_out` is the rest, with errors that this part expects.
    """

    gate: Gate
    val: Fold
    forms: Mapping[Kind, Gate]
    early: Mapping[Kind, Gate]
    held_out: Fold | None
    areas: Mapping[Kind, float]
    bytes: Mapping[Kind, int]
    table_areas: Mapping[int, float]  # by clusters
    brier: Mapping[int, float]  # of the targets, by clusters
    ece: Mapping[int, float]  # likewise, in bins of equal mass
    clusters: Mapping[Kind, int]
    rmse: tuple[float, ...]  # of each exit's network, to the targets of the validation data
    notes: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """The form that was chosen."""
        return next(kind for kind, gate in self.forms.items() if gate is self.gate)

    def tradeoffs_within(self, drops: Sequence[float]) -> tuple[int, ...]:
        """For each drop (a share) the greatest tradeoff that loses at most so much accuracy.

        Both on `val`, from which the gate has learned, and on the part that a gate of its form has
        not seen: what is chosen on known samples alone loses more on others.
        """
        found = [tradeoffs_within(self.gate, self.val, drops)]
        if self.held_out is not None:
            found.append(tradeoffs_within(self.early[self.kind], self.held_out, drops))
        return tuple(map(min, zip(*found, strict=True)))

    def starting(self, tradeoff: int) -> Fitted:
        """The same with that tradeoff at start."""
        forms = {kind: replace(gate, tradeoff=tradeoff) for kind, gate in self.forms.items()}
        return replace(self, gate=forms[self.kind], forms=forms)


def fit(outputs: Outputs, costs: Costs, settings: Settings = Settings()) -> Fitted:
    """Gates for that network at those costs.

    Clusters, forms and K are chosen on a part of `val` that took no part in fitting them, by its
    labels; the chosen are then fitted again to all of it. A table of 3 KB or more is only taken
    where fewer clusters need as much. `test` is not looked at.

    Raises:
        UsageError: fewer samples than clusters, or a tradeoff that is none.
    """
    start = None if settings.tradeoff is None else fixed(settings.tradeoff)
    plain = _plain(outputs, costs, settings)
    part, counted = split(outputs.val, HELD_OUT, settings.seed)
    val, held_out = outputs.val, counted
    if not settings.paper:
        (val,) = _expecting(val, plain.paths)
        part, held_out = _expecting(part, plain.paths, counted)

    by_count = {
        count: _with(plain, tables.fit(plain, part, count, settings.seed, targets.QUICK), held_out)
        for count in settings.clusters
    }
    table_areas = {count: area(gate, counted) for count, gate in by_count.items()}
    small = [c for c, gate in by_count.items() if form_bytes(gate.form) < MOST_BYTES]
    tried = {count: table_areas[count] for count in small or [min(by_count)]}
    told = targets.held_out(part, counted, plain.paths, settings.clusters, settings.seed)
    brier = {count: targets.brier(found, counted) for count, found in told.items()}
    ece = {count: reliability.of_targets(found, counted).ece_mass for count, found in told.items()}
    counts: dict[Kind, int] = {"table": _best(tried, 1), "mlp": _best(brier, -1)}
    network, _ = _network(plain, outputs.train, part, counts["mlp"], settings)
    early: dict[Kind, Gate] = {
        "table": by_count[counts["table"]],
        "mlp": _with(plain, network, held_out),
    }
    areas = {kind: area(gate, counted) for kind, gate in early.items()}

    network, rmse = _network(plain, outputs.train, val, counts["mlp"], settings)
    table = tables.fit(plain, val, counts["table"], settings.seed)
    learned: dict[Kind, Form] = {"table": table, "mlp": network}
    forms = {kind: _with(plain, form, val) for kind, form in learned.items()}
    sizes = {kind: form_bytes(form) for kind, form in learned.items()}
    kind = settings.form or chosen(areas, sizes)
    fitted = Fitted(
        forms[kind], val, forms, early, held_out, areas, sizes, table_areas, brier, ece, counts,
        rmse, (*outputs.notes(), *costs.notes),
    )  # fmt: skip
    at = fitted.tradeoffs_within([settings.within])[0] if start is None else start
    return fitted.starting(at)


def kept(gate: Gate, costs: Costs, labelled: Fold, tradeoff: float | None = None) -> Fitted:
    """Gates that were fitted before, at other costs: they learn nothing, first levels are new."""
    (val,) = _expecting(labelled, gate.paths)
    again = recosted(gate, costs, val)
    within = Settings().within
    at = tradeoffs_within(again, val, [within])[0] if tradeoff is None else fixed(tradeoff)
    again = replace(again, tradeoff=at)
    kind: Kind = "table" if isinstance(gate.form, Table) else "mlp"
    return Fitted(
        again, val, {kind: again}, {}, None, {kind: area(again, labelled)},
        {kind: form_bytes(gate.form)}, {}, {}, {}, {kind: gate.size}, (), (),
    )  # fmt: skip


def recosted(gate: Gate, costs: Costs, val: Fold) -> Gate:
    """The same gate at other costs: what it has learned stays, only its first levels are new."""
    priced = gates.repriced(gate, costs)
    return replace(priced, first=first_levels(priced, val))


def priced(fitted: Fitted, costs: Costs) -> Fitted:
    """What was fitted, at other costs: all gates as `recosted`."""
    forms = {kind: recosted(gate, costs, fitted.val) for kind, gate in fitted.forms.items()}
    part = fitted.held_out or fitted.val
    early = {kind: recosted(gate, costs, part) for kind, gate in fitted.early.items()}
    return replace(fitted, gate=forms[fitted.kind], forms=forms, early=early)


def digest(form: Form) -> str:
    """A hash of all that a form has learned."""
    found = hashlib.sha256(type(form).__name__.encode())
    if isinstance(form, Table):
        found.update(repr(form.centroids.shape).encode() + form.centroids.tobytes())
        for path in sorted(form.errors):
            found.update(repr(path).encode() + form.errors[path].tobytes())
    elif isinstance(form, gates.Mlp):
        for layer in form.layers:
            for weights in (layer.hidden, layer.hidden_bias, layer.output):
                found.update(weights.tobytes())
            found.update(repr((layer.hidden_shift, layer.output_bias, layer.output_scale)).encode())
    return found.hexdigest()


def area(gate: Gate, fold: Fold) -> float:
    """The mean accuracy over costs from the cheapest path's to the dearest one's."""
    return sweep(gate, fold).points().area()


def chosen(areas: Mapping[Kind, float], sizes: Mapping[Kind, int]) -> Kind:
    """The form of the larger area; within 0.1 points of it, that of fewer bytes."""
    best = max(areas.values())
    near = [kind for kind, found in areas.items() if found >= best - EQUAL]
    return min(near, key=lambda kind: sizes[kind])


def _plain(outputs: Outputs, costs: Costs, settings: Settings) -> Gate:
    """Paths, costs and levels of the gate; nothing learned yet."""
    every = paths_of(outputs.paths, costs.dominated, paper=settings.paper)
    paths = gates.sampled(every, settings.seed)
    level = outputs.levels[0][0]
    prices = gates.normalised(costs, paths)
    classes = outputs.val.classes
    return Gate(classes, outputs.levels, paths, prices, ((0, level),), 0, gates.Static())


def _expecting(fold: Fold, paths: Sequence[Path], *others: Fold) -> tuple[Fold, ...]:
    """`fold` and others with the errors that its labels make expected of `paths`."""
    known = posterior.learn(fold, paths)
    return tuple(known.expecting(one) for one in (fold, *others))


def _with(plain: Gate, form: Form, fold: Fold) -> Gate:
    """The gate of that form, its first levels found on `fold`."""
    gate = replace(plain, form=form)
    return replace(gate, first=first_levels(gate, fold))


def _network(
    plain: Gate, train: Fold, val: Fold, clusters: int, settings: Settings
) -> tuple[gates.Mlp, tuple[float, ...]]:
    """Networks fitted to the clusters of `val`, then calibrated; and their RMSE to the clusters."""
    found = targets.learn(val, plain.paths, clusters, settings.seed)
    told = [(fold, targets.by_node(plain, found.estimate(fold))) for fold in (train, val)]
    trained = networks.train(
        plain, told[0], told[1], settings.seed, settings.hidden, settings.steps
    )
    rmse = trained.rmse
    if not settings.paper:
        errors = [networks.predict(plain, trained, fold) for fold in (train, val)]
        calibrated = calibrate.learn(plain, errors[1], val)
        again = (train, calibrated(errors[0])), (val, calibrated(errors[1]))
        most = min(settings.steps, networks.FOLLOWING)
        trained = networks.follow(plain, trained, *again, settings.seed, most)
    return networks.quantised(plain, trained, val), rmse


def _best(found: Mapping[int, float], sign: int) -> int:
    """The number of clusters of the greatest value, or of the least; the smaller of equals."""
    return max(sorted(found), key=lambda count: sign * found[count])
