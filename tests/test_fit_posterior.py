from __future__ import annotations

from functools import cache

import exits
import numpy as np
import pytest

from edgeq import gates
from edgeq.fit import Settings, fit, posterior
from edgeq.fit.outputs import Fold, Reals, split

PATHS = gates.all_paths(exits.LEVELS)
SCALE = 0.1


NOISE = {0: 0.1, 1: 0.5}  # of a path's outputs, by the level it ends at


def drawn(samples: int, seed: int) -> tuple[Fold, Reals]:
    """Paths that see the same, each with a noise of its own; labels are drawn from the shares."""
    rng = np.random.default_rng(seed)
    true = 3 * rng.normal(size=(samples, 4))
    logits = {}
    for path in PATHS:
        own = rng.normal(size=true.shape) * NOISE[path[-1]] * (4 - len(path))
        logits[path] = np.clip(np.rint((true + own) / SCALE), -128, 127).astype(np.int8)
    share = softmax(0.5 * true)
    labels = (share.cumsum(axis=1) < rng.random((samples, 1))).sum(axis=1)
    return Fold(logits, np.minimum(labels, 3), SCALE), share


@cache
def many() -> tuple[Fold, Reals]:
    return drawn(20_000, 0)


def expecting(fold: Fold) -> Fold:
    return posterior.learn(fold, PATHS).expecting(fold)


def softmax(logits: Reals) -> Reals:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def test_probabilities_are_those_that_labels_were_drawn_with() -> None:
    fold, share = many()
    found = posterior.learn(fold, PATHS).classes(fold)
    assert found.sum(axis=1) == pytest.approx(1)
    assert np.abs(found - share).mean() < 0.01
    assert np.abs(softmax(fold.real((0, 0, 0))) - share).mean() > 0.05


def test_expected_errors_have_the_mean_of_those_counted() -> None:
    fold = expecting(many()[0])
    for path in PATHS:
        assert fold.errors[path].mean() == pytest.approx(fold.wrong[path].mean(), abs=0.005)


def test_differences_between_paths_are_known_better_than_by_counting() -> None:
    """By 1,000 samples at a time, against the shares that all labels were drawn with."""
    whole, share = many()
    at = np.arange(len(whole))
    truth = {path: 1 - share[at, o.argmax(axis=1)].mean() for path, o in whole.logits.items()}
    counted, expected = [], []
    for start in range(0, len(whole), 1_000):
        fold = expecting(whole.take(np.arange(start, start + 1_000)))
        for one, other in (((0, 0, 0), (1, 1, 1)), ((0, 0), (1, 1)), ((0, 0, 0), (0, 0, 1))):
            lead = truth[other] - truth[one]
            counted.append(fold.wrong[other].mean() - fold.wrong[one].mean() - lead)
            expected.append((fold.errors[other] - fold.errors[one]).mean() - lead)
    assert np.std(expected) < 0.6 * np.std(counted)
    assert abs(np.mean(expected)) < 0.002


def test_paths_that_agree_err_alike() -> None:
    fold = expecting(many()[0].take(np.arange(500)))
    classes = {path: outputs.argmax(axis=1) for path, outputs in fold.logits.items()}
    for path in PATHS:
        same = classes[path] == classes[0, 0, 0]
        assert (fold.errors[path][same] == fold.errors[0, 0, 0][same]).all()
        assert ((fold.errors[path] >= 0) & (fold.errors[path] <= 1)).all()


def test_few_samples_leave_the_most_precise_path_nearly_as_it_stands() -> None:
    few = many()[0].take(np.arange(3))
    own = softmax(few.real((0, 0, 0)))
    assert np.abs(posterior.learn(few, PATHS).classes(few) - own).max() < 0.2


@pytest.mark.parametrize("seed", range(4))
def test_networks_that_are_sure_of_what_is_wrong_are_not_believed(seed: int) -> None:
    """Where a loss that has an upper bound is flat, Newton's method would stay at the prior."""
    rng, count = np.random.default_rng(seed), 1_000
    labels = rng.integers(0, 4, count)
    seen = np.where(rng.random(count) < 0.18, rng.integers(0, 4, count), labels)
    logits = {}
    for path in PATHS:
        own = np.where(rng.random(count) < 0.05, rng.integers(0, 4, count), seen)
        values = rng.normal(0, 5, (count, 4))
        values[np.arange(count), own] += rng.uniform(60, 80, count)
        logits[path] = np.clip(np.rint(values), -128, 127).astype(np.int8)
    fold = Fold(logits, labels, 3.0)  # margins of hundreds
    for path, errors in expecting(fold).errors.items():
        assert errors.mean() == pytest.approx(fold.wrong[path].mean(), abs=0.01)


def test_outputs_that_tell_nothing_leave_even_odds() -> None:
    flat = {path: np.zeros((30, 4), np.int8) for path in PATHS}
    fold = Fold(flat, np.zeros(30, np.int64), 1.0)
    assert posterior.learn(fold, PATHS).classes(fold) == pytest.approx(0.25)


def test_one_path_alone_is_calibrated() -> None:
    fold, share = many()
    one = posterior.learn(fold, [(0, 0, 0)])
    assert one.weights == pytest.approx([0.5], abs=0.05)
    assert np.abs(one.classes(fold) - share).mean() < 0.01


def test_samples_looked_at_by_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fold = many()[0].take(np.arange(700))
    whole = posterior.learn(fold, PATHS)
    monkeypatch.setattr(posterior, "VALUES", 4 * len(PATHS) * 100)
    parts = posterior.learn(fold, PATHS)
    assert parts.weights == pytest.approx(whole.weights, abs=1e-6)
    assert parts.classes(fold) == pytest.approx(whole.classes(fold), abs=1e-6)


def test_parts_keep_what_the_whole_expects() -> None:
    whole = expecting(many()[0].take(np.arange(300)))
    order = np.array([5, 3, 8])
    for path in PATHS:
        assert (whole.take(order).errors[path] == whole.errors[path][order]).all()
    assert sum(len(part.errors[0, 0]) for part in split(whole, 0.4, 0)) == 300


def test_errors_are_counted_where_none_are_expected() -> None:
    fold = many()[0].take(np.arange(50))
    assert (fold.errors[0, 1] == fold.wrong[0, 1]).all()
    outputs = exits.outputs(samples=300)
    quick = Settings(clusters=(5,), steps=50, paper=True)
    assert fit(outputs, exits.costs(), quick).val.expected is None
