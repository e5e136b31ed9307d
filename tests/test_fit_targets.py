from __future__ import annotations

from itertools import product

import exits
import numpy as np
import pytest

from edgeq import gates
from edgeq.errors import ModelError, UsageError
from edgeq.fit import kmeans, targets
from edgeq.fit.outputs import Fold, Outputs, fold, split
from edgeq.gates import Path

PATHS = gates.all_paths(exits.LEVELS)


# Folds.


def test_missing_labels_are_refused() -> None:
    plain = exits.fold(exits.LEVELS, 10, 0)
    with pytest.raises(UsageError, match=r"EQ0260: val\.npz"):
        fold("val.npz", plain.logits, None, exits.SCALE)
    assert len(fold("val.npz", plain.logits, plain.labels, exits.SCALE)) == 10


@pytest.mark.parametrize("labels", [np.zeros(9, np.int64), np.full(10, 4), np.full(10, -1)])
def test_labels_that_do_not_fit_the_outputs_are_refused(labels: gates.Int64) -> None:
    with pytest.raises(ModelError, match="EQ0396"):
        Fold(exits.fold(exits.LEVELS, 10, 0).logits, labels, exits.SCALE)


def test_outputs_of_unlike_shapes_are_refused() -> None:
    with pytest.raises(ModelError, match="EQ0396"):
        Fold({(0,): np.zeros((3, 4), np.int8), (1,): np.zeros((2, 4), np.int8)}, np.zeros(3), 1)


def test_a_path_without_outputs_is_refused() -> None:
    whole = exits.outputs(samples=10)
    lacking = without(whole.val, (1, 1, 1))
    with pytest.raises(ModelError, match=r"EQ0397: val lacks the outputs of path \(1, 1, 1\)"):
        Outputs(exits.LEVELS, whole.train, lacking)
    for path in ((0, 1), (0, 0, 0)):
        folds = without(whole.train, path), without(whole.val, path)
        with pytest.raises(ModelError, match=rf"EQ0397: .* path \({path[0]}, {path[1]}"):
            Outputs(exits.LEVELS, *folds)


def without(fold: Fold, path: Path) -> Fold:
    logits = {p: o for p, o in fold.logits.items() if p != path}
    return Fold(logits, fold.labels, fold.scale)


def test_outputs_may_hold_a_sample_of_the_paths() -> None:
    whole = exits.outputs(samples=10)
    some = Outputs(exits.LEVELS, without(whole.train, (0, 0, 1)), without(whole.val, (0, 0, 1)))
    assert set(PATHS) - set(some.paths) == {(0, 0, 1)}
    assert some.whole_paths == ((0, 0, 0), (0, 1, 1), (1, 1, 1))


def test_equal_folds_and_unseen_classes_are_told() -> None:
    one = exits.fold(exits.LEVELS, 50, 0)
    assert not exits.outputs(samples=50).notes()
    same = Outputs(exits.LEVELS, one, one.take(np.arange(50)))
    assert [note[:6] for note in same.notes()] == ["EQ0261"]
    some = one.take(np.flatnonzero(one.labels != 2))
    (note,) = Outputs(exits.LEVELS, one, some).notes()
    assert note.startswith("EQ0262: the validation data have no samples of classes 2")


def test_a_split_loses_and_doubles_no_sample() -> None:
    whole = exits.fold(exits.LEVELS, 100, 0)
    first, second = split(whole, 0.3, 1)
    assert (len(first), len(second)) == (70, 30)
    rows = np.concatenate([first.logits[0,], second.logits[0,]])
    assert sorted(rows.tolist()) == sorted(whole.logits[0,].tolist())


# K-means.


def inertia(points: kmeans.Reals, centroids: kmeans.Reals) -> float:
    return float(((points[:, None] - centroids) ** 2).sum(axis=2).min(axis=1).sum())


@pytest.mark.parametrize("seed", range(3))
def test_restarts_find_the_best_of_all_clusterings_of_a_few_points(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(8, 2))
    best = np.inf
    for told in product((0, 1), repeat=8):
        groups = [points[np.array(told) == group] for group in (0, 1)]
        if all(len(group) for group in groups):
            best = min(best, inertia(points, np.stack([g.mean(axis=0) for g in groups])))
    assert inertia(points, kmeans.fit(points, 2, 0, restarts=30)) == pytest.approx(best)


def test_a_point_weighs_as_often_as_it_stands() -> None:
    points = np.array([[0.0], [0.0], [0.0], [1.0], [9.0], [10.0]])
    assert sorted(kmeans.fit(points, 2, 0).ravel().tolist()) == [0.25, 9.5]


def test_fewer_distinct_points_than_clusters_are_the_centroids() -> None:
    points = np.repeat([[0.0, 1.0], [1.0, 0.0]], 20, axis=0)
    assert kmeans.fit(points, 7, 0).tolist() == [[0.0, 1.0], [1.0, 0.0]]


# Targets.


@pytest.mark.parametrize("clusters", [1, 5, 20])
def test_clusters_err_on_average_as_their_path_does(clusters: int) -> None:
    val = exits.fold(exits.LEVELS, 1000, 0)
    found = targets.learn(val, PATHS, clusters, 0, restarts=1)
    for path, estimated in found.estimate(val).items():
        assert found.errors[path].min() >= 0
        assert found.errors[path].max() <= 1
        assert estimated.mean() == pytest.approx(val.wrong[path].mean())


def test_small_clusters_lean_on_the_error_of_their_path() -> None:
    mine, wrong = np.array([0, 0, 1]), np.array([True, True, False])
    assert targets.rates(mine, wrong, 3, 0.0).tolist() == [1, 0, 2 / 3]
    with_prior = targets.rates(mine, wrong, 3, 2.0)
    assert with_prior.tolist() == pytest.approx([(2 + 4 / 3) / 4, (4 / 3) / 3, 2 / 3])
    val = exits.fold(exits.LEVELS, 199, 0)
    few = targets.learn(val, [(0,)], 20, 0)
    assert few.errors[0,].min() > 0


@pytest.mark.parametrize("clusters", [0, 31])
def test_more_clusters_than_samples_are_refused(clusters: int) -> None:
    with pytest.raises(UsageError, match=f"EQ0263: {clusters} clusters for 30 samples"):
        targets.learn(exits.fold(exits.LEVELS, 30, 0), PATHS, clusters, 0)


def test_the_brier_score_prefers_sharp_estimates_where_they_hold() -> None:
    fold, other = exits.fold(exits.LEVELS, 1000, 0), exits.fold(exits.LEVELS, 500, 1)
    found = targets.held_out(fold, other, PATHS, (1, 20), 0)
    scores = {count: targets.brier(estimates, other) for count, estimates in found.items()}
    assert scores[20] < scores[1] - 0.01
