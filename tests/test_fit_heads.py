"""Heads: what they read of a network's integers, and how they are trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import resnet8
from programs import compiled
from test_fit_execute import CUTS, along, quantised, with_heads

from edgeq import reference
from edgeq.errors import ModelError
from edgeq.exits import head_window
from edgeq.fit import heads
from edgeq.ir import DType, Graph, Node, Op, QParams, Tensor

SIDES = [(1, 1), (3, 4), (5, 9), (8, 8), (11, 6), (13, 1)]


@pytest.mark.parametrize(("height", "width"), SIDES)
def test_a_head_reads_what_the_device_pools(height: int, width: int) -> None:
    q, window = QParams((0.37,), -3, 8), head_window(height, width)
    x = Tensor("x", (1, height, width, 3), DType.S8, q)
    y = Tensor("y", (1, *window.output_size(height, width), 3), DType.S8, q)
    node = Node("pool", Op.AVERAGE_POOL, ("x",), "y", window, (-128, 127))
    graph = Graph("net", ("x",), ("y",), (node,), {"x": x, "y": y})
    values = np.random.default_rng(height).integers(-128, 128, (7, height, width, 3), np.int8)
    integers = reference.compute(graph, node, {"x": values})
    found = heads.pooled(x, values)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, q.dequantize(integers).reshape(7, -1), rtol=1e-6)


def test_a_vector_is_read_as_it_is() -> None:
    q = QParams((0.5,), 1, 4)
    values = np.array([[-8, 7], [1, 0]], np.int8)
    found = heads.pooled(Tensor("x", (1, 2), DType.S8, q), values)
    np.testing.assert_array_equal(found, [[-4.5, 3.0], [0.0, -0.5]])


def test_features_are_those_of_every_path_but_the_whole_ones() -> None:
    program = compiled(resnet8(12, 12, 2)).program
    network, values = with_heads(program, CUTS, 1), quantised(program, 9)
    seen: list[int] = []
    found = heads.features(network, values, seen.append)
    assert [set(exit_) for exit_ in found] == [{(0,)}, {(0, 0), (0, 1)}]
    assert seen == [9]
    for exit_ in found:
        for path, x in exit_.items():
            boundary, _ = along(network, path, values)
            body = network.blocks[2 * (len(path) - 1)].variants[0].graph
            tensor = body.tensors[body.outputs[0]]
            np.testing.assert_array_equal(x, heads.pooled(tensor, boundary))


def drawn(samples: int, seed: int, shift: float = 0.0) -> tuple[heads.Reals, heads.Int64]:
    """Three classes around centres far from 0, in 6 values and one that never varies."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(3, 6))
    labels = rng.integers(0, 3, samples)
    x = 50 + 20 * (centres[labels] + 0.3 * rng.normal(size=(samples, 6))) + shift
    return np.hstack([x, np.full((samples, 1), 9.0)]).astype(np.float32), labels


def trained(seed: int = 0) -> heads.Trained:
    (x, y), (held, truth) = drawn(2000, 0), drawn(500, 1)
    return heads.train({(0,): x}, y, {(0,): held}, truth, 3, seed)


def test_a_head_learns_and_takes_values_as_they_are() -> None:
    found, (x, y) = trained(), drawn(1000, 2)
    assert heads.accuracy(found.head, {(0,): x}, y)[(0,)] > 0.9
    assert found.head.weights.dtype == found.head.bias.dtype == np.float32
    assert not found.head.weights[:, -1].any()  # the value that never varies
    held, truth = drawn(500, 1)
    assert found.accuracy == heads.accuracy(found.head, {(0,): held}, truth)


def test_a_value_that_hardly_varies_takes_no_range_from_the_others() -> None:
    """A head of ResNet-20 had 54 % in floats and 30 % in integers: one weight was 1,000 others."""
    (x, y), (held, truth) = drawn(2000, 0), drawn(500, 1)
    rng = np.random.default_rng(5)
    for values in (x, held):
        values[:, -1] = 9 + 1e-3 * rng.normal(size=len(values))
    head = heads.train({(0,): x}, y, {(0,): held}, truth, 3).head
    scale = np.abs(head.weights).max(axis=1, keepdims=True) / 127
    rounded = replace(head, weights=np.rint(head.weights / scale) * scale)
    floats, integers = (heads.accuracy(one, {(0,): held}, truth)[(0,)] for one in (head, rounded))
    assert integers > floats - 0.02 > 0.88


def test_the_seed_decides() -> None:
    first, again, other = trained(), trained(), trained(1)
    np.testing.assert_array_equal(first.head.weights, again.head.weights)
    np.testing.assert_array_equal(first.head.bias, again.head.bias)
    assert (first.head.weights != other.head.weights).any()


def test_one_head_serves_the_features_of_all_levels() -> None:
    (x, y), (held, truth) = drawn(2000, 0), drawn(500, 1)
    (low, _), (held_low, _) = drawn(2000, 0, -60.0), drawn(500, 1, -60.0)
    alone = heads.train({(0,): x}, y, {(0,): held}, truth, 3).head
    data, held_out = {(0,): x, (1,): low}, {(0,): held, (1,): held_low}
    both = heads.train(data, y, held_out, truth, 3)
    assert heads.accuracy(alone, {(1,): held_low}, truth)[(1,)] < min(both.accuracy.values()) - 0.1


def test_the_best_look_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of noise: validation accuracy wanders, and training stops long before its end."""
    rng = np.random.default_rng(3)
    x, held = (rng.normal(size=(n, 8)).astype(np.float32) for n in (512, 256))
    y, truth = (rng.integers(0, 4, n) for n in (512, 256))
    seen: list[float] = []
    original = heads.accuracy

    def watched(*args: object) -> object:
        found = original(*args)  # type: ignore[arg-type]
        seen.append(found[(0,)])
        return found

    monkeypatch.setattr(heads, "accuracy", watched)
    found = heads.train({(0,): x}, y, {(0,): held}, truth, 4)
    *looks, last = seen
    assert last == max(looks) == found.accuracy[(0,)]
    assert len(looks) == looks.index(max(looks)) + 1 + heads.PATIENCE < heads.LOOKS


@pytest.mark.parametrize(
    ("labels", "held_out_labels", "words"),
    [
        (
            np.zeros(3, np.int64),
            np.zeros(4, np.int64),
            "labels of shape (3,) for 4 training samples",
        ),
        (np.zeros(4, np.int64), np.zeros(0, np.int64), "there are no validation samples"),
        (np.full(4, 2), np.zeros(4, np.int64), "labels of training samples must be 0 to 1"),
        (np.zeros(4, np.int64), np.full(4, -1), "labels of validation samples must be 0 to 1"),
    ],
)
def test_labels_that_fit_nothing_are_refused(
    labels: heads.Int64, held_out_labels: heads.Int64, words: str
) -> None:
    x = {(0,): np.zeros((4, 2), np.float32)}
    with pytest.raises(ModelError, match="EQ0396") as caught:
        heads.train(x, labels, x, held_out_labels, 2)
    assert words in str(caught.value)
