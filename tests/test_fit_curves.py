from __future__ import annotations

import math
from dataclasses import replace

import exits
import numpy as np
import pytest

from edgeq import gates
from edgeq.errors import UsageError
from edgeq.fit import baselines, curves, tables
from edgeq.fit.curves import Curve, Points
from edgeq.gates import ONE, Gate

LEVELS = exits.LEVELS
PATHS = gates.all_paths(LEVELS)
TEST = exits.fold(LEVELS, 800, 2)


def fitted(clusters: int = 20) -> Gate:
    gate = gates.repriced(gates.static(4, LEVELS), exits.costs())
    table = tables.fit(gate, exits.fold(LEVELS, 1000, 1), clusters, 0, restarts=1)
    return replace(gate, form=table)


def points(*pairs: tuple[float, float], line: bool = True) -> Points:
    cost, accuracy = zip(*pairs, strict=True)
    return Points(np.array(cost), np.array(accuracy), line)


def made(cost: tuple[float, float], correct: list[list[bool]]) -> Curve:
    """A curve of two points, which every sample goes along together."""
    right = np.array(correct)
    taken = np.repeat(np.arange(len(right))[:, None], right.shape[1], axis=1).astype(np.int16)
    return Curve("made", (0.0, 1.0), ((0,), (0, 0)), cost, taken, right)


# Reading curves.


def test_a_curve_is_a_line_between_neighbours_flat_behind_and_nothing_before() -> None:
    found = points((0.2, 0.5), (0.4, 0.7), (0.8, 0.9)).accuracy_at(np.array([0.1, 0.3, 0.8, 1.0]))
    assert math.isnan(found[0])
    assert found[1:].tolist() == pytest.approx([0.6, 0.9, 0.9])


def test_static_points_are_not_joined() -> None:
    static = points((0.2, 0.5), (0.4, 0.7), line=False)
    assert static.accuracy_at(0.39) == 0.5
    assert static.cost_at(0.6) == 0.4


@pytest.mark.parametrize(
    ("accuracy", "cost"), [(0.4, 0.2), (0.5, 0.2), (0.6, 0.3), (0.9, 0.8), (0.91, math.inf)]
)
def test_the_cost_of_an_accuracy_is_where_the_curve_first_has_it(
    accuracy: float, cost: float
) -> None:
    assert points((0.2, 0.5), (0.4, 0.7), (0.8, 0.9)).cost_at(accuracy) == pytest.approx(cost)


def test_area_is_the_mean_accuracy_over_costs() -> None:
    assert points((0.0, 0.0), (0.5, 1.0)).area() == pytest.approx(0.75, abs=1e-3)
    assert points((0.5, 0.8)).area() == pytest.approx(0.8)


# Sweeps.


def test_a_sweep_goes_where_the_gate_routes() -> None:
    gate = fitted()
    curve = curves.sweep(gate, TEST, (0.0, 0.1, 1.0))
    predicted = curves.predicted(gate, TEST)
    for row, tradeoff in enumerate((0, 6554, ONE)):
        routes = gates.route(gate, predicted, tradeoff)
        assert (curve.taken[row] == routes.paths).all()
        right = routes.labels(gate, TEST.logits) == TEST.labels
        assert (curve.correct[row] == right).all()


def test_shares_by_path_and_by_exit_add_up() -> None:
    curve = curves.sweep(fitted(), TEST)
    assert np.allclose(curve.by_path().sum(axis=1), 1)
    exits_of = curve.by_exit()
    assert exits_of.shape == (len(curves.TRADEOFFS), 3)
    assert np.allclose(exits_of.sum(axis=1), 1)
    assert exits_of[-1].tolist() == [1, 0, 0]


@pytest.mark.parametrize("level", [0, 1])
def test_mean_cost_hardly_rises_with_the_tradeoff(level: int) -> None:
    curve = curves.sweep(replace(fitted(), first=((0, level),)), TEST)
    cost = np.array(curve.costs)[curve.taken].mean(axis=1)
    assert np.diff(cost).max() <= 0.005
    assert cost[0] > cost[-1] + 0.2


@pytest.mark.parametrize("tradeoff", [-0.1, math.nan, 65536.0, math.inf])
def test_a_tradeoff_that_is_none_is_refused(tradeoff: float) -> None:
    with pytest.raises(UsageError, match="EQ0264"):
        curves.fixed(tradeoff)


def test_tradeoffs_are_rounded_to_sixteen_binary_places() -> None:
    assert [curves.fixed(t) for t in (0, 1, 0.25, 65535.9999)] == [0, ONE, ONE // 4, (1 << 32) - 7]


# Intervals.


def test_the_interval_of_a_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.5
    better = right | (rng.random(400) < 0.1)
    first, second = (made((0.5, 1.0), [row.tolist()] * 2) for row in (better, right))
    found = curves.interval([[first, second]], curves.accuracy_difference(0.7))
    assert found.value == pytest.approx(better.mean() - right.mean())
    assert found.high - found.low < 0.05  # unpaired, the noise of 400 coins would make it 0.14
    assert not found.tie
    swapped = curves.interval([[second, first]], curves.accuracy_difference(0.7))
    assert swapped.high == pytest.approx(-found.low)


def test_the_interval_covers_what_it_estimates() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        right = rng.random(200) < 0.7
        curve = made((0.5, 1.0), [right.tolist()] * 2)
        found = curves.interval([[curve]], lambda p: float(p[0].accuracy_at(0.7)), draws=300)
        covered += found.low <= 0.7 <= found.high
    assert 88 <= covered <= 100


def test_seeds_that_disagree_widen_the_interval() -> None:
    def curve(share: int) -> Curve:
        return made((0.5, 1.0), [[n < share for n in range(100)]] * 2)

    def width(*seeds: Curve) -> float:
        read = curves.interval([[c] for c in seeds], lambda p: float(p[0].accuracy_at(0.7)))
        return read.high - read.low

    assert width(curve(50), curve(90)) > 1.5 * width(curve(70), curve(70))


def test_a_figure_that_some_draws_lack_says_so() -> None:
    rising = made((0.5, 1.0), [[n < 50 for n in range(100)], [n < 52 for n in range(100)]])
    top = made((0.5, 1.0), [[n < 52 for n in range(100)]] * 2)
    found = curves.interval([[top, rising, top]], curves.cost_ratio(0.0))
    assert (found.value, found.lost) == (0.5, 0.0)
    both = [curves.cost_ratio(0.0), curves.accuracy_difference(0.9)]
    assert curves.intervals([[top, rising, top]], both)[0] == found
    never = made((0.5, 1.0), [[False] * 100] * 2)
    lost = curves.interval([[never, never, top]], curves.cost_ratio(0.0))
    assert lost.lost == 1
    assert math.isnan(lost.low)


def test_areas_are_compared_where_both_curves_are() -> None:
    difference = curves.area_difference()([points((0.2, 0.1), (0.6, 0.9)), points((0.6, 0.8))])
    assert difference == pytest.approx(0.1)


# Baselines.

OUTPUTS = exits.outputs(samples=800)
COSTS = exits.costs()


def test_an_oracle_dominates_every_curve() -> None:
    found = baselines.oracle(OUTPUTS, TEST, COSTS)
    others = [
        curves.sweep(fitted(), TEST),
        baselines.thresholds(OUTPUTS, TEST, replace(COSTS, gates=(0.0, 0.0))),
    ]
    free = baselines.oracle(OUTPUTS, TEST, replace(COSTS, gates=(0.0, 0.0)))
    for oracle, other in zip((found, free), others, strict=True):
        best, rest = oracle.points(), other.points()
        for tradeoff in (0.0, 0.01, 0.1, 1.0):
            least = (tradeoff * best.cost + 1 - best.accuracy).min()
            assert least <= (tradeoff * rest.cost + 1 - rest.accuracy).min() + 1e-4


def test_thresholds_go_from_the_first_exit_to_the_last() -> None:
    curve = baselines.thresholds(OUTPUTS, TEST, COSTS)
    shares = curve.by_exit()
    assert shares[0].tolist() == [1, 0, 0]
    assert shares[-1].tolist() == [0, 0, 1]
    assert (np.diff(np.array(curve.costs)[curve.taken].mean(axis=1)) >= 0).all()
    assert {level for index in np.unique(curve.taken) for level in curve.paths[index]} == {0}


def test_thresholds_pay_for_heads_and_a_plain_network_for_none() -> None:
    dearest = COSTS.of((0, 0, 0))
    curve = baselines.thresholds(OUTPUTS, TEST, COSTS)
    assert max(curve.costs) == pytest.approx((dearest - 0.6) / dearest)
    plain = baselines.plain(OUTPUTS, TEST, COSTS)
    assert plain.paths == ((0, 0, 0), (1, 1, 1))
    assert plain.costs[0] == pytest.approx((dearest - 2.6) / dearest)
    assert [row.mean() for row in plain.correct] == [
        1 - TEST.wrong[0, 0, 0].mean(),
        1 - TEST.wrong[1, 1, 1].mean(),
    ]


def test_a_block_that_lacks_a_level_runs_at_the_next_more_precise_one() -> None:
    assert baselines.uniform(((0,), (0, 1), (0, 2)), 2) == (0, 1, 2)


def test_the_best_static_path_is_no_worse_than_the_precise_one_where_it_was_chosen() -> None:
    static = baselines.static_thresholds(OUTPUTS, OUTPUTS.val, COSTS).points()
    plain = baselines.thresholds(OUTPUTS, OUTPUTS.val, COSTS).points()
    assert static.area(0.35) > plain.area(0.35)
    for tradeoff in (0.0, 0.1, 1.0):
        least = (tradeoff * static.cost - static.accuracy).min()
        assert least <= (tradeoff * plain.cost - plain.accuracy).min() + 1e-3


def test_jei_dnn_leaves_earlier_as_cost_weighs_more() -> None:
    curve = baselines.jei_dnn(OUTPUTS, TEST, COSTS, (0.0, 20.0))
    cost = curve.points().cost
    assert curve.by_exit()[1, 0] > 0.9
    assert cost[1] > cost[0] + 0.1
    assert not curve.notes


def test_jei_dnn_stops_when_its_time_is_up_and_says_so() -> None:
    curve = baselines.jei_dnn(OUTPUTS, TEST, COSTS, (0.1, 3.0), limit_s=1e-9)
    assert (curve.parameters, curve.notes) == (
        (0.1,),
        ("1 of 2 trainings did not fit into 1e-09 s",),
    )


def test_dqnet_takes_cheap_levels_where_they_weigh_and_always_runs_to_the_end() -> None:
    curve = baselines.dqnet(OUTPUTS, TEST, COSTS, (0.0, 10.0), steps=600)
    assert {len(path) for path in curve.paths} == {3}
    assert {path[0] for path in curve.paths} == {0}
    assert {curve.paths[index] for index in curve.taken[1]} == {(0, 1, 1)}
    dearest = COSTS.of((0, 0, 0))
    assert max(curve.costs) == pytest.approx((dearest - 1.3) / dearest)
    assert curve.points().accuracy[-1] > curve.points().accuracy[0]
