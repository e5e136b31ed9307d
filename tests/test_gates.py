from __future__ import annotations

from dataclasses import replace

import exits
import numpy as np
import pytest

from edgeq import gates
from edgeq.errors import PolicyError
from edgeq.gates import ONE, Gate, Layer, Levels, Mlp, Path, Table

SCALE = exits.SCALE


def levels(blocks: int, count: int) -> Levels:
    return (tuple(range(count)),) * blocks


def table(gate: Gate, clusters: int, seed: int) -> Gate:
    """The gate with a random table."""
    rng = np.random.default_rng(seed)
    shape = gate.exits - 1, clusters, gates.TOP + 1
    errors = {
        path: rng.integers(0, 256, (clusters, len(gate.options(path)))).astype(np.uint8)
        for path in gate.nodes()
    }
    return replace(gate, form=Table(rng.integers(0, 256, shape).astype(np.uint8), errors))


def network(gate: Gate, seed: int, hidden: int = 4) -> Gate:
    """The gate with random networks."""
    rng = np.random.default_rng(seed)
    inputs = 2 * gate.classes + 4 + gate.exits + 1
    layers = tuple(
        Layer(
            rng.integers(-127, 128, (hidden, inputs)).astype(np.int8),
            rng.integers(-9999, 9999, hidden).astype(np.int32),
            7,
            rng.integers(-127, 128, hidden).astype(np.int8),
            int(rng.integers(-9999, 9999)),
            (1 << 30, -4),
        )
        for _ in range(gate.exits - 1)
    )
    return replace(gate, form=Mlp(layers))


def priced(has: Levels, classes: int = 4, factor: float = 1.0) -> Gate:
    return gates.repriced(gates.static(classes, has), exits.costs(has, factor))


# Paths.


@pytest.mark.parametrize(
    ("blocks", "count", "free", "paper"),
    [(3, 3, 19, 10), (4, 3, 34, 20), (5, 3, 55, 35), (5, 4, 125, 70), (4, 1, 4, 4)],
)
def test_paths_are_as_many_as_the_paper_counts(
    blocks: int, count: int, free: int, paper: int
) -> None:
    paths = gates.all_paths(levels(blocks, count))
    assert len(paths) == len(set(paths)) == free
    assert len([path for path in paths if path[0] == 0]) == paper


def test_precision_never_rises_along_a_path() -> None:
    assert all(list(path) == sorted(path) for path in gates.all_paths(levels(4, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_sampled_paths_are_closed_and_hold_the_precise_ones(seed: int) -> None:
    paths = gates.all_paths(levels(5, 4))
    kept = gates.sampled(paths, seed)
    assert len(kept) <= gates.MOST_PATHS
    assert {(0,) * n for n in range(1, 6)} | {(level,) for level in range(4)} <= set(kept)
    assert all(path[:-1] in kept for path in kept if len(path) > 1)
    assert kept == gates.sampled(paths, seed)


def test_few_paths_are_all_kept() -> None:
    paths = gates.all_paths(levels(4, 3))
    assert gates.sampled(paths, 0) == paths


# Costs.


def test_the_dearest_path_costs_one_and_a_beginning_less_than_what_goes_on() -> None:
    has = levels(4, 3)
    gate = priced(has)
    price = dict(zip(gate.paths, gate.costs, strict=True))
    assert price[0, 0, 0, 0] == ONE == max(price.values())
    assert min(price.values()) > 0
    assert all(price[path[:-1]] < price[path] for path in gate.paths if len(path) > 1)


def test_doubled_costs_change_nothing() -> None:
    has = levels(4, 3)
    assert priced(has).costs == priced(has, factor=2.0).costs


def test_a_path_pays_for_every_head_and_gate_on_its_way_and_the_last_exit_has_neither() -> None:
    costs = exits.costs(levels(3, 2))
    blocks = costs.blocks
    assert costs.of((0, 1)) == pytest.approx(blocks[0][0] + blocks[1][1] + 2 * 1.3)
    assert costs.of((0, 0, 1)) == pytest.approx(2 * blocks[0][0] + blocks[2][1] + 2 * 1.3)


def test_new_costs_change_no_weight() -> None:
    gate = network(priced(levels(3, 2)), 0)
    cheap = exits.costs(levels(3, 2))
    again = gates.repriced(gate, replace(cheap, heads=(50.0, 50.0)))
    assert again.costs != gate.costs
    assert again.form is gate.form


# What a gate refuses to be.


@pytest.mark.parametrize(
    "change",
    [
        {"levels": ((0, 1),)},
        {"levels": ((0, 1),) * 9},
        {"costs": (1, 2)},
        {"paths": ((0,), (0,))},
        {"first": ()},
        {"first": ((5, 0),)},
        {"first": ((0, 0), (0, 1))},
        {"first": ((0, 7),)},
        {"tradeoff": -1},
        {"tradeoff": 1 << 32},
    ],
)
def test_a_gate_that_breaks_its_rules_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(PolicyError, match="EQ0395"):
        replace(priced(levels(3, 2)), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("paths", [((0,), (0, 0, 0)), ((0,), (1,), (1, 0)), ((0,), (0, 2))])
def test_paths_with_gaps_or_rising_precision_are_refused(paths: tuple[Path, ...]) -> None:
    with pytest.raises(PolicyError, match="EQ0395"):
        Gate(4, levels(3, 2), paths, (1,) * len(paths), ((0, 0),), 0, gates.Static())


# What it sees.


def test_probabilities_are_those_of_a_softmax_within_a_step() -> None:
    logits = np.random.default_rng(0).integers(-128, 128, (500, 10)).astype(np.int8)
    seen = gates.see(logits, 0.05)
    raised = np.exp(0.05 * logits.astype(float))
    real = raised / raised.sum(axis=1, keepdims=True)
    assert np.abs(seen.probabilities / 256 - real).max() <= 1.01 / 256
    entropy = -(real * np.log(real)).sum(axis=1) / np.log(10)
    assert np.abs(seen.entropy / 256 - entropy).max() < 0.05  # ten p of k / 256, rounded down


@pytest.mark.parametrize("classes", [2, 4, 10, 100])
def test_a_sure_head_has_no_entropy_and_a_level_one_all_of_it(classes: int) -> None:
    sure = np.full((1, classes), -128, np.int8)
    sure[0, 1] = 127
    seen = gates.see(sure, 0.2)
    assert (seen.probabilities[0, 1], seen.entropy[0]) == (255, 0)
    level = gates.see(np.zeros((1, classes), np.int8), 0.2)
    assert level.entropy[0] >= (250 if classes < 10 else 150)


def test_what_a_table_looks_at_is_sorted_and_filled_up() -> None:
    logits = np.random.default_rng(0).integers(-40, 40, (50, 3)).astype(np.int8)
    top = gates.see(logits, SCALE).top.astype(int)
    assert top.shape == (50, gates.TOP + 1)
    assert (np.diff(top[:, :3], axis=1) <= 0).all()
    assert not top[:, 3 : gates.TOP].any()


def test_inputs_of_the_first_exit_know_of_no_earlier_one() -> None:
    gate = priced(levels(3, 2))
    seen = exits.fold(levels(3, 2), 20, 0).seen
    inputs = gates.inputs_of(gate, seen[0,], None, (0, 1))
    assert inputs.shape == (20, 2 * 4 + 4 + 4)
    assert not inputs[:, 4:8].any()
    assert not inputs[:, [9, 10]].any()
    assert inputs[0, -4:].tolist() == [127, 255, 0, 170]


# Routing.


def brute_force(gate: Gate, predicted: dict[Path, gates.Int64], tradeoff: int, n: int) -> Path:
    """One sample's way, as eq. 18 says it."""
    path: Path = (gate.first_level(tradeoff),)
    while len(path) < gate.exits:
        ranked = [
            (int(predicted[path][n, k]) + (tradeoff * gate.costs[o] >> 16), gate.costs[o], k)
            for k, o in enumerate(gate.options(path))
        ]
        best = gate.paths[gate.options(path)[min(ranked)[2]]]
        if best == path:
            return path
        path = best[: len(path) + 1]
    return path


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", [table, lambda gate, _, seed: network(gate, seed)])
def test_routing_is_what_brute_force_finds(form: type, seed: int) -> None:
    has = levels(3, 3)
    gate = replace(form(priced(has), 7, seed), first=((0, 1), (20_000, 0)))
    fold = exits.fold(has, 100, seed)
    predicted = {path: gates.predict(gate, path, fold.seen) for path in gate.nodes()}
    for tradeoff in (0, 300, 9_000, 20_000, 1 << 20):
        routes = gates.route(gate, predicted, tradeoff)
        found = [gate.paths[index] for index in routes.paths]
        assert found == [brute_force(gate, predicted, tradeoff, n) for n in range(100)]


def test_of_equal_scores_the_cheapest_path_wins_then_the_first() -> None:
    gate = replace(priced(levels(2, 2)), costs=(10, 10, 40, 20, 20))
    options = gate.options((0,))
    errors = np.zeros((1, len(options)), np.int64)
    assert gates.decide(gate, options, errors, 0).tolist() == [0]
    assert gates.decide(gate, options[1:], errors[:, 1:], 0).tolist() == [1]
    assert gates.decide(gate, options[:2], errors[:, :2] - [[0, 1]], 0).tolist() == [1]


def test_every_input_leaves_at_once_where_nothing_but_cost_counts() -> None:
    gate = table(priced(levels(3, 2)), 9, 0)
    fold = exits.fold(levels(3, 2), 200, 0)
    predicted = {path: gates.predict(gate, path, fold.seen) for path in gate.nodes()}
    routes = gates.route(gate, predicted, gates.MOST_TRADEOFF)
    assert {gate.paths[index] for index in routes.paths} == {(0,)}


def test_one_cluster_sends_all_the_same_way() -> None:
    gate = table(priced(levels(3, 3)), 1, 3)
    fold = exits.fold(levels(3, 3), 200, 0)
    predicted = {path: gates.predict(gate, path, fold.seen) for path in gate.nodes()}
    for tradeoff in (0, 1000, 30_000):
        assert len(set(gates.route(gate, predicted, tradeoff).paths.tolist())) == 1


def test_without_a_form_every_input_runs_whole_at_the_top() -> None:
    gate = gates.static(4, levels(3, 2))
    fold = exits.fold(levels(3, 2), 50, 0)
    predicted = {path: gates.predict(gate, path, fold.seen) for path in gate.nodes()}
    routes = gates.route(gate, predicted)
    assert {gate.paths[index] for index in routes.paths} == {(0, 0, 0)}
    assert (routes.labels(gate, fold.logits) == fold.logits[0, 0, 0].argmax(axis=1)).all()


def test_labels_are_those_of_the_exit_where_an_input_left() -> None:
    gate = table(priced(levels(3, 2)), 9, 1)
    fold = exits.fold(levels(3, 2), 100, 1)
    predicted = {path: gates.predict(gate, path, fold.seen) for path in gate.nodes()}
    routes = gates.route(gate, predicted, 6000)
    assert len(set(routes.paths.tolist())) > 1
    for n, label in enumerate(routes.labels(gate, fold.logits)):
        assert label == fold.logits[gate.paths[routes.paths[n]]][n].argmax()


def test_the_first_level_is_the_last_one_whose_tradeoff_is_reached() -> None:
    gate = replace(priced(levels(3, 2)), first=((0, 1), (500, 0)))
    assert [gate.first_level(at) for at in (0, 499, 500, 1 << 30)] == [1, 1, 0, 0]
