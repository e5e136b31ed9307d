"""The float run against plain NumPy, written as loops over the definition of each operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgeq.errors import GraphError
from edgeq.floatrun import FloatRun, run
from edgeq.ir import Graph, Node, Op, Tensor, Window

# Sums of up to 27 products of magnitude 1 in float32 against float64: 27 · 2⁻²⁴ ≈ 2e-6, margin 5.
ATOL = 1e-5

Array = np.ndarray[Any, Any]
X = (1, 5, 6, 3)
WINDOWS = [
    Window((3, 3)),
    Window((2, 3), (2, 1), (1, 0, 0, 1)),
    Window((2, 2), (1, 2), (1, 1, 0, 0), (2, 1)),
]


def values(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def single(
    op: Op,
    y: tuple[int, ...],
    constants: Sequence[Array] = (),
    x: tuple[int, ...] = X,
    **fields: Any,
) -> Graph:
    """One node from x to y."""
    named = {f"k{n}": Tensor(f"k{n}", k.shape, data=k) for n, k in enumerate(constants)}
    node = Node("node", op, ("x", *named), "y", **fields)
    tensors = {"x": Tensor("x", x), "y": Tensor("y", y), **named}
    return Graph("test", ("x",), ("y",), (node,), tensors)


def patches(x: Array, window: Window, fill: float) -> Array:
    """(samples, out height, out width, kernel height, kernel width, channels)."""
    top, left, bottom, right = window.pads
    padded = np.pad(
        x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill
    )
    height, width = window.output_size(*x.shape[1:3])
    rows = [
        [
            padded[:, r : r + reach(window, 0) : window.dilations[0],
                   c : c + reach(window, 1) : window.dilations[1]]
            for c in range(0, width * window.strides[1], window.strides[1])
        ]
        for r in range(0, height * window.strides[0], window.strides[0])
    ]  # fmt: skip
    return np.moveaxis(np.array(rows), 2, 0)


def reach(window: Window, axis: int) -> int:
    return window.dilations[axis] * (window.kernel[axis] - 1) + 1


def close(result: Array, expected: Array) -> None:
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_convolution_is_its_definition(window: Window) -> None:
    weights, bias, x = values(4, *window.kernel, 3), values(4), values(2, *X[1:], seed=1)
    y = (1, *window.output_size(5, 6), 4)
    result = run(single(Op.CONV_2D, y, (weights, bias), window=window), {"x": x})["y"]
    close(result, np.einsum("nhwklc,oklc->nhwo", patches(x, window, 0), weights) + bias)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_depthwise_convolution_is_its_definition(window: Window) -> None:
    weights, bias, x = values(6, *window.kernel), values(6), values(2, *X[1:], seed=1)
    y = (1, *window.output_size(5, 6), 6)
    result = run(single(Op.DEPTHWISE_CONV_2D, y, (weights, bias), window=window), {"x": x})["y"]
    repeated = np.repeat(patches(x, window, 0), 2, axis=-1)  # output o reads channel o // 2
    close(result, np.einsum("nhwklo,okl->nhwo", repeated, weights) + bias)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_max_pool_is_its_definition(window: Window) -> None:
    x = values(2, *X[1:])
    y = (1, *window.output_size(5, 6), 3)
    result = run(single(Op.MAX_POOL, y, window=window), {"x": x})["y"]
    close(result, patches(x, window, -np.inf).max(axis=(3, 4)))


@pytest.mark.parametrize("window", WINDOWS[:2])
def test_an_average_pool_does_not_count_padding(window: Window) -> None:
    x = values(2, *X[1:])
    y = (1, *window.output_size(5, 6), 3)
    result = run(single(Op.AVERAGE_POOL, y, window=window), {"x": x})["y"]
    close(result, np.nanmean(patches(x, window, np.nan), axis=(3, 4)))


def test_a_fully_connected_layer_is_its_definition() -> None:
    weights, bias, x = values(4, 9), values(4), values(3, 9, seed=1)
    graph = single(Op.FULLY_CONNECTED, (1, 4), (weights, bias), x=(1, 9))
    close(run(graph, {"x": x})["y"], x @ weights.T + bias)


def test_a_batch_norm_is_its_definition() -> None:
    scale, bias, mean, variance = (values(3, seed=n) ** 2 for n in range(4))
    x = values(2, *X[1:])
    graph = single(Op.BATCH_NORM, X, (scale, bias, mean, variance), epsilon=0.5)
    close(run(graph, {"x": x})["y"], (x - mean) / np.sqrt(variance + 0.5) * scale + bias)


def test_a_softmax_sums_to_one_over_the_last_axis() -> None:
    result = run(single(Op.SOFTMAX, (1, 9), x=(1, 9)), {"x": values(3, 9)})["y"]
    close(result.sum(axis=1), np.ones(3))


@pytest.mark.parametrize(("old", "new"), [(X, (1, 90)), ((1, 90), X), (X, (1, 3, 5, 6))])
def test_a_reshape_keeps_the_order_of_the_graph(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    x = values(2, *old[1:])
    np.testing.assert_array_equal(
        run(single(Op.RESHAPE, new, x=old), {"x": x})["y"], x.reshape(2, *new[1:])
    )


@pytest.mark.parametrize("clamp", [(0.0, np.inf), (-0.5, 0.25), (-np.inf, 0.0)])
def test_a_wanted_tensor_is_the_clamped_one(clamp: tuple[float, float]) -> None:
    x = values(2, *X[1:])
    window = Window((1, 1))
    clamped = run(single(Op.MAX_POOL, X, window=window, clamp=clamp), {"x": x})["y"]
    clipped = run(single(Op.CLIP, X, clamp=clamp), {"x": x})["y"]
    np.testing.assert_array_equal(clamped, np.clip(x, *clamp))
    np.testing.assert_array_equal(clipped, np.clip(x, *clamp))


def chain() -> Graph:
    """A pool, an addition of the input, an identity."""
    nodes = (
        Node("pool", Op.MAX_POOL, ("x",), "a", Window((3, 3), pads=(1, 1, 1, 1))),
        Node("add", Op.ADD, ("a", "x"), "b", clamp=(0.0, 6.0)),
        Node("copy", Op.IDENTITY, ("b",), "y"),
    )
    return Graph("chain", ("x",), ("y",), nodes, {name: Tensor(name, X) for name in "xaby"})


def test_any_activation_may_be_wanted_inputs_included() -> None:
    x = values(2, *X[1:])
    results = run(chain(), {"x": x}, ["b", "x", "a", "b"])
    assert list(results) == ["b", "x", "a"]
    np.testing.assert_array_equal(results["x"], x)
    np.testing.assert_array_equal(results["b"], np.clip(results["a"] + x, 0, 6))


def test_only_inputs_may_be_wanted() -> None:
    x = values(2, *X[1:])
    assert list(run(chain(), {"x": x}, ["x"])) == ["x"]


def test_one_session_takes_any_number_of_samples() -> None:
    prepared = FloatRun(chain())
    for samples in (1, 7, 2):
        assert prepared({"x": values(samples, *X[1:])})["y"].shape == (samples, *X[1:])


def test_two_runs_give_the_same_bits() -> None:
    window = Window((3, 3), pads=(1, 1, 1, 1))
    graph = single(Op.CONV_2D, (1, 5, 6, 32), (values(32, 3, 3, 3), values(32)), window=window)
    x = values(64, *X[1:])
    first, second = (FloatRun(graph)({"x": x})["y"] for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("name", ["nowhere", "k0"])
def test_what_the_graph_does_not_compute_is_refused(name: str) -> None:
    graph = single(Op.FULLY_CONNECTED, (1, 4), (values(4, 9), values(4)), x=(1, 9))
    with pytest.raises(GraphError, match=name):
        FloatRun(graph, [name])


@pytest.mark.parametrize("inputs", [{}, {"x": values(2, 6, 5, 3)}])
def test_samples_of_another_shape_are_refused(inputs: dict[str, Array]) -> None:
    with pytest.raises(GraphError, match=r"input x.*expected \(5, 6, 3\)"):
        run(chain(), inputs)
