"""Ranges: the bounds of every activation by each method, and mean inputs, against plain loops."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import RELU, Builder, random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import reals

from edgeq import calibrate, floatrun
from edgeq.calibrate import Ranges
from edgeq.errors import ModelError
from edgeq.ir import Array, Graph, Op, Window
from edgeq.ops import OPS
from edgeq.policy import Bits, Calibration

SEEDS = range(10)
METHODS = ("minmax", "percentile", "mse")
SIGNIFICANT = 2.0**-12  # relative error of 12 bits of mantissa
# Means are rounded to 12 bits, and summed in float64 from float32 values.
MEAN = {"rtol": 2 * SIGNIFICANT, "atol": 1e-6}
# The search looks at a histogram of 2,048 bins, its winner is measured on the values themselves.
HISTOGRAM = 1.01

fixed = settings(derandomize=True, max_examples=300, deadline=None)


def run(graph: Graph, inputs: Mapping[str, Array], bits: int = 8, **how: Any) -> Ranges:
    chosen = {node.name: Bits(8, bits) for node in graph.nodes}
    return calibrate.run(graph, chosen, inputs, Calibration(**how))


def values(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    names = [*graph.inputs, *(node.output for node in graph.nodes)]
    return floatrun.run(graph, inputs, names)


def chain(seed: int = 0) -> Graph:
    b = Builder("chain", seed)
    y = b.conv(b.input(8, 8, 3), 6, clamp=RELU)
    return b.build(b.fully_connected(b.flatten(b.conv(y, 4)), 5))


# Rounding


@fixed
@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_what_is_found_is_rounded_to_12_bits(value: float) -> None:
    rounded = float(calibrate.round_significant(value))
    assert abs(rounded - value) <= abs(value) * SIGNIFICANT
    mantissa, _ = math.frexp(rounded)
    assert mantissa * 2**12 == int(mantissa * 2**12)


@fixed
@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_rounding_twice_changes_nothing(value: float) -> None:
    once = calibrate.round_significant(value)
    assert calibrate.round_significant(once) == once


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_bound_and_mean_has_12_bits(seed: int, method: str) -> None:
    graph = random_graph(seed)
    ranges = run(graph, reals(graph), activations=method)
    found = [bound for pair in ranges.bounds.values() for bound in pair]
    found += [value for mean in ranges.means.values() for value in mean.reshape(-1).tolist()]
    assert found == calibrate.round_significant(np.array(found)).tolist()


# Bounds


@pytest.mark.parametrize("seed", SEEDS)
def test_minmax_is_the_least_and_the_greatest_value_and_zero(seed: int) -> None:
    graph = random_graph(seed)
    inputs = reals(graph)
    ranges = run(graph, inputs, activations="minmax")
    for name, seen in values(graph, inputs).items():
        expected = min(seen.min(), 0), max(seen.max(), 0)
        assert np.allclose(ranges.bounds[name], expected, rtol=SIGNIFICANT, atol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_range_holds_zero(seed: int, method: str) -> None:
    graph = random_graph(seed)
    inputs = {name: x + np.float32(9) for name, x in reals(graph).items()}
    for low, high in run(graph, inputs, activations=method).bounds.values():
        assert low <= 0 <= high


@pytest.mark.parametrize("seed", SEEDS)
def test_the_hundredth_percentile_is_minmax(seed: int) -> None:
    graph = random_graph(seed)
    inputs = reals(graph)
    plain = run(graph, inputs, activations="minmax").bounds
    assert run(graph, inputs, activations="percentile", percentile=100).bounds == plain


def test_a_percentile_cuts_both_tails() -> None:
    graph = chain()
    inputs = reals(graph, 64)
    bounds = run(graph, inputs, activations="percentile", percentile=99).bounds["conv_2.output"]
    seen = values(graph, inputs)["conv_2.output"]
    assert np.allclose(bounds, np.percentile(seen, [1, 99]), rtol=SIGNIFICANT)


def squared_error(seen: Array, bounds: tuple[float, float], bits: int) -> float:
    scale = (bounds[1] - bounds[0]) / ((1 << bits) - 1)
    near = np.rint(np.clip(seen.astype(np.float64), *bounds) / scale) * scale
    return float(((near - seen) ** 2).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_mse_search_is_no_worse_than_minmax(seed: int, bits: int) -> None:
    graph = chain(seed)
    inputs = reals(graph, 16)
    found, plain = (run(graph, inputs, bits, activations=how).bounds for how in ("mse", "minmax"))
    for name in ("conv_1.output", "conv_2.output"):
        seen = values(graph, inputs)[name]
        error = squared_error(seen, found[name], bits)
        assert error <= squared_error(seen, plain[name], bits) * HISTOGRAM


def test_the_mse_search_knows_the_bits() -> None:
    """Of few bits it clips more, and gains more."""
    graph = chain()
    inputs = reals(graph, 16)
    seen = values(graph, inputs)["conv_2.output"]
    plain = run(graph, inputs, activations="minmax").bounds["conv_2.output"]
    kept = []
    for bits in (2, 4, 8):
        found = run(graph, inputs, bits, activations="mse").bounds["conv_2.output"]
        kept.append(found[1] / plain[1])
        if bits == 2:
            assert squared_error(seen, found, 2) < 0.8 * squared_error(seen, plain, 2)
    assert kept == sorted(kept)
    assert kept[0] < 0.7


@pytest.mark.parametrize(
    "how", [{"activations": "mse"}, {"activations": "percentile", "percentile": 60}]
)
def test_inputs_and_outputs_keep_their_whole_range(how: dict[str, Any]) -> None:
    graph = chain()
    inputs = reals(graph, 16)
    found, plain = (
        run(graph, inputs, 2, **how).bounds,
        run(graph, inputs, activations="minmax").bounds,
    )
    ends = (*graph.inputs, *graph.outputs)
    assert {n: found[n] for n in ends} == {n: plain[n] for n in ends}
    assert found["conv_2.output"] != plain["conv_2.output"]


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_every_channel_counts_where_values_are_too_many_to_keep(method: str) -> None:
    """Channels last, a stride of 16 would see the first of 16 channels only, and it is narrow."""
    b = Builder("wide")
    y = b.conv(b.input(32, 32, 1), 16, 1)
    graph = b.build(b.global_average_pool(y))
    kernel = np.ones((16, 1, 1, 1), np.float32)
    kernel[0] = 1e-3
    tensors = dict(graph.tensors)
    for name, data in (("conv_1.weights", kernel), ("conv_1.bias", np.zeros(16, np.float32))):
        tensors[name] = replace(tensors[name], data=data)
    graph = replace(graph, tensors=tensors)
    samples = 16 * calibrate.KEPT_VALUES // (32 * 32 * 16)
    bounds = run(graph, reals(graph, samples), activations=method, percentile=99).bounds
    assert bounds["conv_1.output"][1] > 2  # the 99th percentile of a normal distribution is 2.3


def test_a_tensor_of_zeros_has_no_range() -> None:
    b = Builder("dead")
    y = b.conv(b.input(4, 4, 1), 2, clamp=(0.0, 0.0))
    graph = b.build(b.fully_connected(b.flatten(y), 2))
    for method in METHODS:
        assert run(graph, reals(graph), activations=method).bounds["conv_1.output"] == (0, 0)


# Means


def brute_mean(graph: Graph, inputs: Mapping[str, Array]) -> Array:
    """What each weight of the only layer meets on average, by loops."""
    (node,) = graph.nodes
    kernel = graph.constant(node.inputs[1])
    x = inputs["input"].astype(np.float64)
    if node.window is None:
        return np.asarray(x.mean(axis=0))
    window, (_, height, width, _) = node.window, graph.tensors[node.output].shape
    seen = np.zeros((*window.kernel, x.shape[3]))
    for i, j in np.ndindex(height, width):
        for a, b in np.ndindex(*window.kernel):
            row = i * window.strides[0] + a * window.dilations[0] - window.pads[0]
            column = j * window.strides[1] + b * window.dilations[1] - window.pads[1]
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                seen[a, b] += x[:, row, column].mean(axis=0)
    seen /= height * width
    if node.op is Op.CONV_2D:
        return seen
    multiplier = len(kernel) // x.shape[3]
    return np.stack([seen[:, :, channel // multiplier] for channel in range(len(kernel))])


WINDOWS = {
    "plain": Window((3, 2)),
    "padded": Window((3, 3), pads=(1, 0, 2, 1)),
    "strided": Window((3, 3), (2, 3), (1, 1, 1, 1)),
    "dilated": Window((2, 3), (1, 2), (0, 2, 1, 1), (2, 2)),
}


@pytest.mark.parametrize("multiplier", [0, 1, 2])
@pytest.mark.parametrize("name", WINDOWS)
def test_a_mean_is_what_each_weight_meets_padding_included(name: str, multiplier: int) -> None:
    b = Builder("one")
    x = b.input(7, 6, 3)
    y = b.depthwise(x, multiplier, WINDOWS[name]) if multiplier else b.conv(x, 4, WINDOWS[name])
    graph = b.build(y)
    inputs = {"input": reals(graph, 5)["input"] + np.float32(2)}
    (mean,) = run(graph, inputs).means.values()
    assert np.allclose(mean.reshape(-1), brute_mean(graph, inputs).reshape(-1), **MEAN)


def test_the_mean_of_a_fully_connected_layer_is_that_of_its_inputs() -> None:
    b = Builder("one")
    graph = b.build(b.fully_connected(b.input(9), 4))
    inputs = reals(graph, 5)
    (mean,) = run(graph, inputs).means.values()
    assert np.allclose(mean, brute_mean(graph, inputs), **MEAN)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_weighted_layer_has_a_mean_of_its_weights_shape(seed: int) -> None:
    graph = random_graph(seed)
    means = run(graph, reals(graph)).means
    weighted = [node for node in graph.nodes if OPS[node.op].weighted]
    assert list(means) == [node.name for node in weighted]
    for node in weighted:
        kernel = graph.tensors[node.inputs[1]].shape
        each = node.op in (Op.DEPTHWISE_CONV_2D, Op.GROUPED_CONV_2D)  # filter has its own inputs
        expected = kernel if each else kernel[1:]
        assert means[node.name].shape == expected


# Running


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain()
    inputs = reals(graph, 9)
    whole = run(graph, inputs, activations="percentile")
    monkeypatch.setattr(calibrate, "BATCH", 2)
    assert calibrate.to_json(run(graph, inputs, activations="percentile")) == calibrate.to_json(
        whole
    )


def test_progress_counts_up_to_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "BATCH", 4)
    graph = chain()
    seen: list[tuple[int, int]] = []
    bits = {node.name: Bits(8, 8) for node in graph.nodes}
    calibrate.run(graph, bits, reals(graph, 9), Calibration(), lambda *at: seen.append(at))
    assert seen == [(4, 9), (8, 9), (9, 9)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused(value: float) -> None:
    graph = chain()
    inputs = reals(graph)
    inputs["input"][2, 3, 4, 1] = value
    with pytest.raises(ModelError, match="EQ0332: chain: input overflows"):
        run(graph, inputs)


def test_an_overflow_is_refused_where_it_happens() -> None:
    graph = chain()
    kernel = graph.tensors["conv_2.weights"]
    data = np.full(kernel.shape, 1e38, np.float32)
    tensors = {**graph.tensors, "conv_2.weights": replace(kernel, data=data)}
    with pytest.raises(ModelError, match=r"EQ0332: chain: conv_2\.output overflows"):
        run(replace(graph, tensors=tensors), {"input": np.full((1, 8, 8, 3), 1e3, np.float32)})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e30, 1e37])
def test_activations_of_any_size_have_a_range(size: float, method: str) -> None:
    b = Builder("pools")
    y = b.max_pool(b.max_pool(b.input(8, 8, 2), Window((2, 2))), Window((2, 2)))
    graph = b.build(y)
    inputs = {"input": (reals(graph)["input"] * size).astype(np.float32)}
    low, high = run(graph, inputs, activations=method).bounds["max_pool_1.output"]
    assert low <= 0 < high <= 10 * size


def test_ranges_survive_json() -> None:
    graph = chain()
    ranges = run(graph, reals(graph))
    content = calibrate.to_json(ranges)
    assert json.loads(json.dumps(content)) == content
    assert content["bounds"] == {name: list(pair) for name, pair in ranges.bounds.items()}
