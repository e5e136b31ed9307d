from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise

import exits
import numpy as np
import pytest

from edgeq import gates
from edgeq.errors import UsageError
from edgeq.fit import (
    Fitted,
    Settings,
    best_step,
    calibrate,
    choose,
    curves,
    digest,
    fit,
    fitting,
    kept,
    networks,
    recosted,
    reliability,
    tables,
    targets,
)
from edgeq.fit.adam import descend
from edgeq.fit.outputs import Fold, Int64, Reals
from edgeq.gates import ONE, Gate, Levels, Mlp, Path, Table

LEVELS = exits.LEVELS
OUTPUTS = exits.outputs()
COSTS = exits.costs()
TEST = exits.fold(LEVELS, 1500, 2)
SETTINGS = Settings(clusters=(5, 20), steps=600)  # enough for samples as simple as these


def plain(levels: Levels = LEVELS, classes: int = 4) -> Gate:
    return gates.repriced(gates.static(classes, levels), exits.costs(levels))


def in_q16(errors: Mapping[Path, Reals]) -> dict[Path, Int64]:
    return {path: np.rint(ONE * each).astype(np.int64) for path, each in errors.items()}


@cache
def trained() -> networks.Trained:
    found = targets.learn(OUTPUTS.val, plain().paths, 20, 0, restarts=1)
    folds = [
        (fold, targets.by_node(plain(), found.estimate(fold)))
        for fold in (OUTPUTS.train, OUTPUTS.val)
    ]
    return networks.train(plain(), folds[0], folds[1], 0, most=2_000)


@cache
def whole() -> Fitted:
    return fit(OUTPUTS, COSTS, SETTINGS)


# Training.


def test_adam_finds_the_least_squares() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    y = x @ np.array([1, -2, 0.5], np.float32)
    weights = np.zeros(3, np.float32)

    def loss() -> float:
        return float(np.mean((x @ weights - y) ** 2))

    left = descend((weights,), lambda _: [2 * (x @ weights - y) @ x / 200], loss, rate=0.01)
    assert left == loss() < 1e-4


def test_training_ends_early_and_at_the_best_it_has_seen() -> None:
    value, scores = np.zeros(1, np.float32), iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 0.0])
    seen = []

    def score() -> float:
        seen.append(float(value[0]))
        return next(scores)

    best = descend((value,), lambda _: [np.ones(1)], score, least=1, every=10, patience=3)
    assert best == 1.0
    assert len(seen) == 5
    assert value[0] == np.float32(seen[1])


@pytest.mark.parametrize("name", ["hidden", "hidden_bias", "output", "output_bias"])
def test_gradients_are_those_of_the_squared_error(name: str) -> None:
    rng = np.random.default_rng(1)
    net = networks.start(5, 4, 2, rng)
    net = networks.Net(*(p.astype(np.float64) for p in net.parameters))
    x, y = rng.normal(size=(7, 5)), rng.normal(size=(7, 2))
    index = list(networks.Net.__slots__).index(name)
    told = net.gradients(x, net.inside(x), 2 * (net(x) - y))[index]
    weights = net.parameters[index]
    for at in np.ndindex(weights.shape):
        losses = []
        for step in (1e-5, -2e-5):
            weights[at] += step
            losses.append(((net(x) - y) ** 2).sum())
        weights[at] += 1e-5
        assert told[at] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-3, abs=1e-4)


def test_networks_learn_more_than_the_mean_error() -> None:
    found = targets.learn(OUTPUTS.val, plain().paths, 20, 0, restarts=1).estimate(OUTPUTS.val)
    for exit, rmse in enumerate(trained().rmse):
        told = targets.by_node(plain(), found)
        asked = networks.options(plain(), exit + 1, OUTPUTS.val, told)
        spread = asked.target - asked.target.mean(axis=1, keepdims=True)
        assert rmse < 0.93 * float(np.sqrt((spread**2).mean()))


def test_what_networks_are_asked_is_what_the_device_asks_them() -> None:
    gate = plain()
    index = {path: np.full(len(TEST), number / 100) for number, path in enumerate(gate.paths)}
    asked = networks.options(gate, 2, TEST, targets.by_node(gate, index))
    nodes = [path for path in gate.nodes() if len(path) == 2]
    wanted = [(n, option) for n, path in enumerate(nodes) for option in gate.options(path)]
    for question, (n, option) in enumerate(wanted):
        path = nodes[n]
        assert (asked.target[question] == np.float32(option / 100)).all()
        told = gates.inputs_of(gate, TEST.seen[path], TEST.seen[path[:1]], gate.paths[option])
        row = np.broadcast_to(asked.option[question], (len(TEST), asked.option.shape[1]))
        assert (np.concatenate([asked.state[asked.node[question]], row], axis=1) == told).all()
    inputs, target = asked.draw(50, np.random.default_rng(0))
    assert inputs.shape == (50, 2 * 4 + 4 + 4)
    assert set(target.tolist()) <= set(asked.target[:, 0].tolist())


def test_quantised_networks_predict_and_route_as_the_float_ones_do() -> None:
    gate = replace(plain(), form=networks.quantised(plain(), trained(), OUTPUTS.val))
    exact = in_q16(networks.predict(gate, trained(), TEST))
    integer = curves.predicted(gate, TEST)
    squares = [((integer[p] - exact[p]) / ONE) ** 2 for p in exact]
    assert float(np.sqrt(np.mean(np.concatenate([s.ravel() for s in squares])))) < 0.006
    areas = [curves.sweep(gate, TEST, errors=e).points().area() for e in (integer, exact)]
    assert abs(areas[0] - areas[1]) < 0.003  # noise of 1,500 samples


def test_a_unit_that_hardly_speaks_takes_no_precision_from_the_others() -> None:
    gate = plain()
    nets = tuple(networks.Net(*(p.copy() for p in net.parameters)) for net in trained().nets)
    for net in nets:
        net.hidden[0] = -8  # far below 0 for nearly every input
        net.hidden_bias[0] = 8
    faint = networks.Trained(nets, trained().rmse)
    integer = replace(gate, form=networks.quantised(gate, faint, OUTPUTS.val))
    exact = in_q16(networks.predict(gate, faint, TEST))
    told = curves.predicted(integer, TEST)
    squares = np.concatenate([((told[p] - exact[p]) / ONE).ravel() ** 2 for p in exact])
    assert float(np.sqrt(np.mean(squares))) < 0.008


# Tables.


def test_a_table_holds_how_often_each_option_erred_in_each_cluster() -> None:
    gate = plain()
    table = tables.fit(gate, OUTPUTS.val, 5, 0)
    mine = gates.cluster(table, 1, OUTPUTS.val.seen[0,])
    for column, option in enumerate(gate.options((0,))):
        wrong = OUTPUTS.val.wrong[gate.paths[option]]
        for cluster in range(5):
            here = wrong[mine == cluster]
            told = table.errors[0,][cluster, column] / 256
            assert abs(told - here.mean()) < 0.02 + 2.5 * (told * (1 - told) / len(here)) ** 0.5


def test_one_cluster_routes_everybody_alike() -> None:
    gate = replace(plain(), form=tables.fit(plain(), OUTPUTS.val, 1, 0))
    taken = curves.sweep(gate, TEST).taken
    assert (taken == taken[:, :1]).all()


def test_where_outputs_are_fewer_than_clusters_each_is_a_centroid() -> None:
    gate = plain()
    few = OUTPUTS.val.take(np.arange(12))
    table = tables.fit(gate, few.take(np.arange(12).repeat(3)), 30, 0)
    assert table.centroids.shape == (2, 30, gates.TOP + 1)
    distinct = {tuple(row) for path in gate.nodes()[:2] for row in few.seen[path].top.tolist()}
    assert {tuple(row) for row in table.centroids[0].tolist()} == distinct


@pytest.mark.parametrize(("levels", "clusters", "classes"), [(3, 20, 4), (2, 7, 10), (1, 20, 4)])
def test_forms_take_the_bytes_of_the_formulas(levels: int, clusters: int, classes: int) -> None:
    has = (tuple(range(levels)),) * 4
    gate = plain(has, classes)
    options = sum(len(gate.options(path)) for path in gate.nodes())
    table = tables.fit(gate, exits.fold(has, 50, 0, classes), clusters, 0, restarts=1)
    assert choose.form_bytes(table) == 3 * clusters * 6 + clusters * options
    net = networks.start(2 * classes + 4 + 5, 16, 1, np.random.default_rng(0))
    mlp = networks.quantised(
        gate, networks.Trained((net,) * 3, (0.0,) * 3), exits.fold(has, 50, 0, classes)
    )
    assert choose.form_bytes(mlp) == 3 * ((2 * classes + 4 + 5) * 16 + 16 + 4 * 17)


def test_the_bytes_of_the_papers_four_exits_and_three_levels() -> None:
    has = ((0, 1, 2),) * 4
    paths = choose.paths_of(gates.all_paths(has), frozenset(), paper=True)
    gate = Gate(10, has, tuple(paths), (1,) * len(paths), ((0, 0),), 0, gates.Static())
    assert len(gate.nodes()) == 10
    assert sum(len(gate.options(path)) for path in gate.nodes()) == 55
    assert 20 * (55 + 10 * (10 + 4)) == 3900  # spec §8.3's table, of which the options are these


# Calibration.


def predictions(gate: Gate, fold: Fold) -> dict[Path, Reals]:
    form = replace(gate, form=tables.fit(gate, OUTPUTS.val, 20, 0, restarts=1))
    return {path: each / ONE for path, each in curves.predicted(form, fold).items()}


def test_odds_that_are_shifted_and_stretched_are_brought_back() -> None:
    gate = plain()
    rng = np.random.default_rng(0)
    hard = rng.normal(-1.5, 1.5, 40_000)
    true: dict[Path, Reals] = {}
    told: dict[Path, Reals] = {}
    logits = {path: np.zeros((len(hard), 4), np.int8) for path in gate.paths}
    for option, path in enumerate(gate.paths):
        share = 1 / (1 + np.exp(0.15 * option - hard))
        logits[path][:, 1] = rng.random(len(hard)) < share
        true[path] = share
        told[path] = 1 / (1 + np.exp(-(0.5 * (hard - 0.15 * option) + 0.4)))
    fold = Fold(logits, np.zeros(len(hard), np.int64), 1.0)
    found = calibrate.learn(gate, targets.by_node(gate, told), fold)
    wanted = targets.by_node(gate, true)
    for path, errors in found(targets.by_node(gate, told)).items():
        assert np.abs(errors - wanted[path]).max() < 0.04


def test_noise_that_tells_two_options_apart_is_not_believed() -> None:
    gate = plain()
    rng = np.random.default_rng(0)
    share = rng.uniform(0.02, 0.5, 3_000)
    logits = {path: np.zeros((3_000, 4), np.int8) for path in gate.paths}
    for each in logits.values():
        each[:, 1] = rng.random(3_000) < share
    fold = Fold(logits, np.zeros(3_000, np.int64), 1.0)
    noisy = {p: np.clip(share * rng.uniform(0.5, 2, 3_000), 0.001, 0.99) for p in gate.paths}
    told = targets.by_node(gate, noisy)
    for path, errors in calibrate.learn(gate, told, fold)(told).items():
        if errors.shape[1] > 1:
            assert errors.std(axis=1).mean() < 0.6 * told[path].std(axis=1).mean()


def test_calibrated_errors_have_the_mean_of_those_observed() -> None:
    gate = plain()
    told = predictions(gate, OUTPUTS.val)
    skewed = {path: errors**1.5 for path, errors in told.items()}
    for path, errors in calibrate.learn(gate, skewed, OUTPUTS.val)(skewed).items():
        wrong = [OUTPUTS.val.wrong[gate.paths[option]].mean() for option in gate.options(path)]
        assert errors.mean(axis=0).tolist() == pytest.approx(wrong, abs=0.005)


def test_few_samples_and_paths_that_never_err_leave_errors_between_0_and_1() -> None:
    gate = plain()
    few = OUTPUTS.val.take(np.arange(6))
    right = {path: np.eye(4, dtype=np.int8)[few.labels] for path in gate.paths}
    sure = Fold(right, few.labels, 1.0)
    told = targets.by_node(gate, {path: np.linspace(0, 1, 6) for path in gate.paths})
    for errors in calibrate.learn(gate, told, sure)(told).values():
        assert np.isfinite(errors).all()
        assert errors.min() > 0
        assert errors.max() < 1


def test_gates_that_no_cost_holds_back_come_to_the_top() -> None:
    top = 1 - TEST.wrong[0, 0, 0].mean()
    enough = Settings(clusters=(20,), steps=2_000)  # the paper's least; 600 end 2 points below
    for gate in fit(OUTPUTS, COSTS, enough).forms.values():
        curve = curves.sweep(gate, TEST, [0.0])
        assert curve.correct.mean() > top - 0.003


def test_a_network_that_follows_others_comes_near_them_and_leaves_what_it_began_with() -> None:
    gate = plain()
    folds = OUTPUTS.train, OUTPUTS.val
    errors = [networks.predict(gate, trained(), fold) for fold in folds]
    aims = [{path: each**1.2 for path, each in e.items()} for e in errors]
    before = [p.copy() for net in trained().nets for p in net.parameters]
    found = networks.follow(gate, trained(), (folds[0], aims[0]), (folds[1], aims[1]), 0, 2_000)
    told = networks.predict(gate, found, TEST)
    for path, each in networks.predict(gate, trained(), TEST).items():
        left = float(np.sqrt(np.mean((told[path] - each**1.2) ** 2)))
        assert left < 0.5 * float(np.sqrt(np.mean((each - each**1.2) ** 2)))
    after = [p for net in trained().nets for p in net.parameters]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


# Choices.


def test_of_almost_equal_forms_the_smaller_one_is_chosen() -> None:
    sizes = {"table": 2400, "mlp": 1644}
    assert fitting.chosen({"table": 0.9015, "mlp": 0.9}, sizes) == "table"
    assert fitting.chosen({"table": 0.9005, "mlp": 0.9}, sizes) == "mlp"


def test_first_levels_are_the_best_static_ones_and_neighbours_differ() -> None:
    gate = replace(plain(), form=tables.fit(plain(), OUTPUTS.val, 20, 0, restarts=1))
    tradeoffs = (0.0, 0.05, 0.3, 2.0)
    found = choose.first_levels(gate, OUTPUTS.val, tradeoffs)
    assert all(a[1] != b[1] for a, b in pairwise(found))
    chosen = replace(gate, first=found)
    for tradeoff in tradeoffs:
        scores = {}
        for level in (0, 1):
            curve = curves.sweep(replace(gate, first=((0, level),)), OUTPUTS.val, (tradeoff,))
            points = curve.points()
            scores[level] = tradeoff * points.cost[0] + 1 - points.accuracy[0]
        assert chosen.first_level(curves.fixed(tradeoff)) == min(scores, key=scores.__getitem__)
    assert found[-1][1] == 1  # the cheaper start, where cost counts for much


@pytest.mark.parametrize(
    ("prices", "dropped"),
    [
        (((9, 5), (9, 5), (9, 5)), set()),
        (((9, 9), (9, 5), (9, 5)), {(0, 1)}),
        (((9, 12), (9, 10), (9, 5)), {(0, 1), (1, 1)}),
        (((9, 5), (9, 10), (9, 5)), set()),
        (((9, 9), (9, 9), (9, 9)), {(0, 1), (1, 1), (2, 1)}),
    ],
)
def test_levels_that_do_not_pay_are_dropped_from_the_first_block_on(
    prices: tuple[tuple[int, int], ...], dropped: set[tuple[int, int]]
) -> None:
    blocks = tuple(dict(enumerate(pair)) for pair in prices)
    costs = replace(COSTS, blocks=blocks)
    assert costs.dominated == dropped
    paths = choose.paths_of(gates.all_paths(LEVELS), costs.dominated, paper=False)
    assert {path[:-1] for path in paths} - {()} <= set(paths)


@pytest.mark.parametrize(
    ("blocks", "levels", "count"), [(3, 3, 10), (4, 3, 20), (5, 3, 35), (5, 4, 70)]
)
def test_paper_mode_has_the_papers_paths(blocks: int, levels: int, count: int) -> None:
    has = (tuple(range(levels)),) * blocks
    assert len(choose.paths_of(gates.all_paths(has), frozenset(), paper=True)) == count


# All of it.


def test_a_fit_has_both_forms_and_takes_the_better_one() -> None:
    found = whole()
    assert {type(gate.form) for gate in found.forms.values()} == {Table, Mlp}
    assert found.gate is found.forms[fitting.chosen(found.areas, found.bytes)]
    assert found.clusters["table"] == max(found.table_areas, key=found.table_areas.__getitem__)
    assert found.clusters["mlp"] == min(found.brier, key=found.brier.__getitem__)
    assert not found.notes


def test_gates_beat_the_best_static_point_between_their_ends() -> None:
    for gate in whole().forms.values():
        points = curves.sweep(gate, TEST).points()
        whole_path = 1 - TEST.wrong[1, 1, 1].mean()
        share = COSTS.of((1, 1, 1)) / COSTS.of((0, 0, 0))
        assert float(points.accuracy_at(share)) > whole_path


def test_the_same_seed_gives_the_same_gate_with_test_data_or_without() -> None:
    again = fit(replace(OUTPUTS, test=None), COSTS, SETTINGS)
    for kind, gate in whole().forms.items():
        assert digest(again.forms[kind].form) == digest(gate.form)
        assert again.forms[kind].first == gate.first


def test_new_costs_keep_what_was_learned_and_old_ones_give_the_same_gate() -> None:
    for gate in whole().forms.values():
        same = recosted(gate, COSTS, whole().val)
        assert (same.first, same.costs) == (gate.first, gate.costs)
        dear = replace(COSTS, blocks=({0: 1.0, 1: 100.0}, *COSTS.blocks[1:]))
        other = recosted(gate, dear, whole().val)
        assert other.costs != gate.costs
        assert other.first == ((0, 0),)
        assert digest(other.form) == digest(gate.form)


@pytest.mark.parametrize("pays", [True, False])
def test_gates_kept_at_the_same_costs_start_as_they_did(pays: bool) -> None:
    """Also where the outputs have paths beside the gate's own, of a level that does not pay."""
    dear = replace(COSTS, blocks=({0: 100.0, 1: 100.0}, *COSTS.blocks[1:]))
    costs = COSTS if pays else dear
    found = whole() if pays else fit(OUTPUTS, dear, replace(SETTINGS, clusters=(5,)))
    assert (len(found.gate.paths) == len(OUTPUTS.paths)) == pays
    again = kept(found.gate, costs, OUTPUTS.val)
    assert again.gate.first == found.gate.first
    assert again.val.errors.keys() == found.val.errors.keys()
    for path, errors in again.val.errors.items():
        assert (errors == found.val.errors[path]).all()
    assert again.areas[again.kind] == fitting.area(found.gate, OUTPUTS.val)


def test_a_digest_sees_a_changed_weight() -> None:
    gate = whole().forms["mlp"]
    assert isinstance(gate.form, Mlp)
    changed = replace(gate.form.layers[0], output_bias=gate.form.layers[0].output_bias + 1)
    assert digest(Mlp((changed, *gate.form.layers[1:]))) != digest(gate.form)


def test_a_table_keeps_within_3_kb_if_fewer_clusters_do(monkeypatch: pytest.MonkeyPatch) -> None:
    known = whole()
    larger = choose.form_bytes(known.forms["table"].form)
    assert known.clusters["table"] == 20
    monkeypatch.setattr(fitting, "MOST_BYTES", larger)
    found = fit(OUTPUTS, COSTS, SETTINGS)
    assert found.clusters["table"] == 5
    assert sorted(found.table_areas) == [5, 20]
    monkeypatch.setattr(fitting, "MOST_BYTES", 1)
    assert fit(OUTPUTS, COSTS, replace(SETTINGS, steps=50)).clusters["table"] == 5


def test_paper_mode_starts_at_the_top_whatever_it_costs() -> None:
    found = fit(OUTPUTS, COSTS, replace(SETTINGS, paper=True, form="table"))
    assert found.gate.first == ((0, 0),)
    assert len(found.gate.paths) == 6
    mlp = found.forms["mlp"].form
    told = targets.learn(OUTPUTS.val, found.gate.paths, found.clusters["mlp"], 0)
    folds = [
        (fold, targets.by_node(found.gate, told.estimate(fold)))
        for fold in (OUTPUTS.train, OUTPUTS.val)
    ]
    plainly = networks.train(found.gate, *folds, 0, most=SETTINGS.steps)
    assert digest(mlp) == digest(networks.quantised(found.gate, plainly, OUTPUTS.val))
    assert isinstance(found.gate.form, Table)


def test_the_tradeoff_is_the_given_one_or_the_greatest_that_loses_little() -> None:
    """On the samples that the gate has learned from, and on those that one like it has not."""
    found = whole()
    assert found.held_out is not None
    sides = (found.gate, found.val), (found.early[found.kind], found.held_out)
    swept = [curves.sweep(gate, fold) for gate, fold in sides]
    right = np.array([curve.correct.mean(axis=1) for curve in swept])
    little = (right >= right.max(axis=1, keepdims=True) - SETTINGS.within).all(axis=0)
    at = [curves.fixed(t) for t in swept[0].parameters].index(found.gate.tradeoff)
    assert little[at]
    assert not little[at + 1 :].any()
    with pytest.raises(UsageError, match="EQ0264"):
        fit(OUTPUTS, COSTS, replace(SETTINGS, tradeoff=-1.0))


def test_levels_that_do_not_pay_are_told() -> None:
    flat = replace(COSTS, blocks=({0: 100.0, 1: 100.0},) * 3)
    found = fit(OUTPUTS, flat, replace(SETTINGS, clusters=(5,)))
    assert {path for path in found.gate.paths if any(path)} == set()
    assert found.notes == flat.notes
    assert [note[:6] for note in found.notes] == ["EQ0265", "EQ0266"]


def test_one_level_alone_is_no_level_that_does_not_pay() -> None:
    levels: Levels = ((0,),) * 3
    found = fit(exits.outputs(levels), exits.costs(levels), replace(SETTINGS, clusters=(5,)))
    assert found.gate.paths == ((0,), (0, 0), (0, 0, 0))
    assert not found.notes


def test_more_clusters_tell_more_until_samples_run_out() -> None:
    one, some = (fit(OUTPUTS, COSTS, replace(SETTINGS, clusters=(n,))) for n in (1, 20))
    assert some.brier[20] < one.brier[1]
    assert one.ece[1] < 0.03
    for kind, gate in some.forms.items():
        assert (
            reliability.of_gate(gate, TEST).brier < reliability.of_gate(one.forms[kind], TEST).brier
        )
    assert fitting.area(some.forms["table"], TEST) > fitting.area(one.forms["table"], TEST) - 0.01


# The best-step variant.


def test_best_step_leaves_at_once_where_cost_counts_and_goes_on_where_it_does_not() -> None:
    gate = plain()
    found = targets.learn(OUTPUTS.val, gate.paths, 20, 0, restarts=1)
    folds = OUTPUTS.train, OUTPUTS.val, TEST
    curve = best_step.fit(gate, found, folds, (0.0, 3.0), 0, steps=1_000)
    assert curve.by_exit()[1, 0] > 0.99
    assert curve.by_exit()[0, 0] < 0.5
    points = curve.points()
    full = curves.sweep(whole().forms["mlp"], TEST).points()
    assert points.accuracy[-1] > float(full.accuracy.max()) - 0.02


# Reliability.


def test_errors_that_come_true_are_reliable_and_shifted_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    errors = rng.random(20_000)
    wrong = rng.random(20_000) < errors
    good = reliability.of_errors(errors, wrong)
    assert max(good.ece_mass, good.ece_width) < 0.02
    assert good.brier == pytest.approx(1 / 6, abs=0.01)
    assert sum(share for _, _, share in good.bins) == pytest.approx(1)
    shifted = reliability.of_errors(0.8 * errors + 0.2, wrong)
    assert shifted.ece_mass == pytest.approx(0.1, abs=0.02)
    assert shifted.ece_width == pytest.approx(0.1, abs=0.02)


def test_a_constant_is_calibrated_and_not_sharp() -> None:
    wrong = np.arange(1000) % 4 == 0
    found = reliability.of_errors(np.full(1000, 0.25), wrong)
    assert found.ece_width == pytest.approx(0)
    assert found.brier == pytest.approx(0.25 * 0.75)


def test_what_a_gate_predicts_is_reliable_on_new_samples() -> None:
    for gate in whole().forms.values():
        found = reliability.of_gate(gate, TEST)
        assert found.ece_mass < 0.05
        base = np.mean([TEST.wrong[p].mean() for p in gate.paths])
        assert found.brier < base * (1 - base)


def test_rmse_is_zero_for_the_targets_themselves() -> None:
    gate = plain()
    target = targets.learn(OUTPUTS.val, gate.paths, 5, 0, restarts=1).estimate(TEST)
    errors = {
        path: np.rint(
            ONE * np.stack([target[gate.paths[o]] for o in gate.options(path)], axis=1)
        ).astype(np.int64)
        for path in gate.nodes()
    }
    assert reliability.rmse(gate, errors, target) < 1e-4
    assert reliability.rmse(gate, {p: e + ONE // 10 for p, e in errors.items()}, target) == (
        pytest.approx(0.1, abs=1e-3)
    )


def test_classes_are_counted_by_exit_and_by_level() -> None:
    curve = curves.curve(
        "made",
        (0.0,),
        ((0,), (0, 1), (1, 1)),
        (0.1, 0.2, 0.3),
        [np.array([0, 1, 2, 2])],
        TEST.take(np.arange(4)),
    )
    labels = np.array([0, 0, 1, 1])
    assert reliability.exits_by_class(curve, 0, labels).tolist() == [[0.5, 0.5], [0, 1]]
    assert reliability.levels_by_class(curve, 0, labels).tolist() == [[2 / 3, 1 / 3], [0, 1]]
