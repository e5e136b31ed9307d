"""Integer graphs: every constant within what the device checks, every value near float."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from graphs import RELU, RELU6, Builder, random_graph, same_window
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs import reals

from edgeq import calibrate, floatrun, kernels, quantize, reference, weights
from edgeq.calibrate import Ranges
from edgeq.errors import GraphError
from edgeq.ir import Array, DType, Graph, Node, Op, QParams, Tensor, Window, qparams_of, single
from edgeq.kernels import Optimize
from edgeq.ops import OPS
from edgeq.policy import Bits, Calibration

GRAPHS = range(200)  # seeds
NEAR_FLOAT = range(60)  # seeds; a run of the float network costs 20 ms
# Rounding to 8 bits costs 50 dB a layer; up to 20 layers leave 38 in the median of 200 graphs, 25
# in the worst.
LEAST_SQNR_DB = 20.0
CHAINS = range(4)  # seeds of chains of 12 convolutions
SUM_LIMIT, INT32_LIMIT = 1 << 30, 1 << 31

fixed = settings(derandomize=True, max_examples=300, deadline=None)


@dataclass(frozen=True)
class Case:
    """A float graph, what its activations hold, and samples."""

    graph: Graph
    inputs: Mapping[str, Array]
    ranges: Ranges

    def quantized(self, bits: Mapping[str, int] | int = 8, **how: object) -> Graph:
        """The integer graph; `bits` of the weights, of all layers or by name."""
        chosen = {
            node.name: Bits(bits if isinstance(bits, int) else bits[node.name], 8)
            for node in self.graph.nodes
        }
        return quantize.run(self.graph, chosen, self.ranges, Calibration.model_validate(how))


def observed(graph: Graph, count: int = 8, inputs: Mapping[str, Array] | None = None) -> Case:
    inputs = inputs or reals(graph, count)
    bits = {node.name: Bits(8, 8) for node in graph.nodes}
    how = Calibration(activations="minmax")  # a quarter of the time of mse
    return Case(graph, inputs, calibrate.run(graph, bits, inputs, how))


@cache
def drawn(seed: int) -> Case:
    return observed(random_graph(seed))


@cache
def mixed(seed: int) -> Graph:
    """A random network under a random policy, as integers."""
    rng = np.random.default_rng(seed)
    nodes = drawn(seed).graph.nodes
    return drawn(seed).quantized({node.name: int(rng.integers(2, 9)) for node in nodes})


def outputs(integer: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The reals that the integer network computes, by tensor."""
    given = {n: qparams_of(integer.tensors[n]).quantize(v) for n, v in inputs.items()}
    values = reference.run(single(integer), given)
    return {n: qparams_of(integer.tensors[n]).dequantize(v) for n, v in values.items()}


# What eq_init checks


def reach(tensor: Tensor) -> int:
    q = qparams_of(tensor)
    return max(q.zero_point - q.qmin, q.qmax - q.zero_point)


def assert_scales(multiplier: Array, shift: Array, bounds: list[int]) -> None:
    for m, s, bound in zip(multiplier.tolist(), shift.tolist(), bounds, strict=True):
        assert m == 0 or 1 << 30 <= m < 1 << 31
        assert -31 <= s <= 30
        assert bound << max(s, 0) < INT32_LIMIT


def assert_weighted(graph: Graph, node: Node, stored_bits: int) -> None:
    kernel, bias, multiplier, shift = (graph.constant(name) for name in node.inputs[1:])
    low, high = weights.limits(qparams_of(graph.tensors[node.inputs[1]]).bits)
    assert low <= kernel.min()
    assert kernel.max() <= high
    most = (kernel[0].size << (stored_bits - 1)) * reach(graph.tensors[node.inputs[0]])
    bounds = [abs(b) + most for b in bias.tolist()]
    assert max(bounds) < SUM_LIMIT
    assert_scales(multiplier, shift, bounds)


def assert_added(graph: Graph, node: Node) -> None:
    multiplier, shift = (graph.constant(name) for name in node.inputs[2:])
    terms = [reach(graph.tensors[name]) << 20 for name in node.inputs[:2]]
    ratios = [m * 2.0 ** (s - 31) for m, s in zip(multiplier.tolist(), shift.tolist(), strict=True)]
    total = sum(math.ceil(term * ratio) + 1 for term, ratio in zip(terms, ratios, strict=False))
    assert_scales(multiplier, shift, [*terms, total])


def assert_runs_on_the_device(graph: Graph, optimize: Optimize) -> None:
    """Every bound of eq_check.c that depends on what `quantize` chose."""
    choices = kernels.choose(single(graph), ("dsp",), optimize)
    for tensor in graph.tensors.values():
        assert tensor.dtype is not DType.F32
    for node in graph.nodes:
        output = qparams_of(graph.tensors[node.output])
        if OPS[node.op].fuses_clamp:
            assert node.clamp is not None
            assert output.qmin <= node.clamp[0] <= node.clamp[1] <= output.qmax
        if OPS[node.op].weighted:
            assert_weighted(graph, node, choices[node.name].weight_bits)
        elif node.op is Op.ADD:
            assert_added(graph, node)
        elif node.op is Op.SOFTMAX:
            multiplier, shift = (graph.constant(name) for name in node.inputs[1:])
            assert shift[0] >= 0
            assert_scales(multiplier, shift, [0])
        elif node.op is Op.CONCAT:
            multiplier, shift = (graph.constant(name) for name in node.inputs[2:])
            assert_scales(multiplier, shift, [reach(graph.tensors[n]) for n in node.inputs[:2]])
        elif node.op is Op.TABLE:
            table = graph.constant(node.inputs[1])
            assert table.shape == (256,)
            assert output.qmin <= table.min()
            assert table.max() <= output.qmax
        else:
            assert output == qparams_of(graph.tensors[node.inputs[0]])


@pytest.mark.parametrize("optimize", ["flash", "time"])
@pytest.mark.parametrize("seed", GRAPHS)
def test_random_networks_under_random_policies_run_on_the_device(
    seed: int, optimize: Optimize
) -> None:
    assert_runs_on_the_device(mixed(seed), optimize)


def layer(kernel: Array, bias: Array, x: Array, clamp: tuple[float, float] | None = None) -> Case:
    """A fully connected layer on the samples `x`."""
    b = Builder("layer")
    b.fully_connected(b.input(x.shape[1]), len(kernel), clamp)
    tensors = dict(b.tensors)
    for name, data in (("fc_1.weights", kernel), ("fc_1.bias", bias)):
        tensors[name] = replace(tensors[name], data=data.astype(np.float32))
    graph = replace(b.build("fc_1.output"), tensors=tensors)
    return observed(graph, inputs={"input": x.astype(np.float32)})


def noise(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape)


def cancelling() -> Case:
    """Inputs that come in equal pairs, and weights that take their difference."""
    return layer(np.array([[1.0, -1.0]]), np.array([1e-6]), np.repeat(noise(16, 1), 2, axis=1))


EXTREMES: dict[str, Callable[[], Case]] = {
    "a dead channel": lambda: layer(noise(3, 4) * [[1], [0], [1]], noise(3), noise(8, 4)),
    "a dead channel without bias": lambda: layer(np.zeros((1, 4)), np.zeros(1), noise(8, 4)),
    "a dead channel with a huge bias": lambda: layer(
        np.zeros((1, 4)), np.full(1, 1e6), noise(8, 4)
    ),
    "a dead channel with a tiny bias": lambda: layer(
        np.zeros((1, 4)), np.full(1, 1e-20), noise(8, 4)
    ),
    "a huge bias": lambda: layer(noise(3, 4), np.array([1e6, -1e6, 0]), noise(8, 4)),
    "a bias beyond the weights' scale": lambda: layer(noise(3, 4) * 1e-9, noise(3), noise(8, 4)),
    "tiny weights": lambda: layer(noise(3, 4) * 1e-20, np.zeros(3), noise(8, 4)),
    "denormal weights": lambda: layer(np.full((1, 4), 1e-45), np.zeros(1), noise(8, 4)),
    "huge weights": lambda: layer(noise(3, 4) * 1e20, noise(3), noise(8, 4)),
    "channels of every size": lambda: layer(
        noise(9, 4) * np.logspace(-12, 12, 9)[:, None], noise(9), noise(8, 4)
    ),
    "an input of zeros": lambda: layer(noise(3, 4), noise(3), np.zeros((8, 4))),
    "a tiny input": lambda: layer(noise(3, 4), noise(3), noise(8, 4) * 1e-20),
    "an output of zeros": lambda: layer(noise(3, 4), np.full(3, -99.0), noise(8, 4), RELU),
    "an output that is nearly zero": cancelling,
    "a narrow clamp": lambda: layer(noise(3, 4), noise(3), noise(8, 4), (0.0, 1e-9)),
    "a clamp beyond the values": lambda: layer(noise(3, 4), noise(3), noise(8, 4), (50.0, 60.0)),
    "many inputs": lambda: layer(noise(2, 30_000), noise(2), noise(2, 30_000)),
}


@pytest.mark.parametrize("optimize", ["flash", "time"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_layers_run_on_the_device(name: str, bits: int, optimize: Optimize) -> None:
    assert_runs_on_the_device(cache(EXTREMES[name])().quantized(bits), optimize)


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_layers_run_on_the_device_without_gain_correction(name: str) -> None:
    assert_runs_on_the_device(EXTREMES[name]().quantized(4, gain=False), "flash")


@pytest.mark.parametrize("optimize", ["flash", "time"])
def test_a_sum_that_nearly_cancels_runs_on_the_device(optimize: Optimize) -> None:
    b = Builder("cancel")
    x = b.input(4, 4, 2)
    graph = b.build(b.add(b.conv(x, 3, 1), b.conv(x, 3, 1)))
    tensors = dict(graph.tensors)
    for part, left in (("weights", 0), ("bias", 1e-5)):
        data = np.float32(left) - graph.constant(f"conv_1.{part}")
        tensors[f"conv_2.{part}"] = replace(tensors[f"conv_2.{part}"], data=data)
    inputs = {"input": reals(graph)["input"] * np.float32(100)}
    case = observed(replace(graph, tensors=tensors), inputs=inputs)
    assert_runs_on_the_device(case.quantized(), optimize)


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_layers_compute_what_float_computes(name: str) -> None:
    """To two steps of the output: input, weights and output are rounded."""
    case = EXTREMES[name]()
    integer = case.quantized()
    real = floatrun.run(case.graph, case.inputs)["fc_1.output"].astype(np.float64)
    step = qparams_of(integer.tensors["fc_1.output"]).scale[0]
    error = np.abs(outputs(integer, case.inputs)["fc_1.output"] - real).max()
    x, w = (qparams_of(integer.tensors[n]).scale for n in ("input", "fc_1.weights"))
    kernel = np.abs(case.graph.constant("fc_1.weights").astype(np.float64))
    rounding = max(kernel.sum(axis=1)) * x[0] / 2
    rounding += max(w) / 2 * np.abs(case.inputs["input"].astype(np.float64)).sum(axis=1).max()
    assert error <= 2 * step + 2 * rounding


@pytest.mark.parametrize(("bits", "fits"), [(8, False), (4, True)])
def test_a_sum_beyond_int32_is_refused(bits: int, fits: bool) -> None:
    case = layer(noise(1, 40_000), np.zeros(1), np.abs(noise(1, 40_000)))
    if fits:
        assert_runs_on_the_device(case.quantized(bits), "flash")
        assert_runs_on_the_device(case.quantized(bits), "time")
    else:
        with pytest.raises(GraphError, match="EQ0331: fc_1: sums of 40000 products"):
            case.quantized(bits)


# Near float


@pytest.mark.parametrize("seed", NEAR_FLOAT)
def test_at_8_bits_the_integer_network_computes_what_float_computes(seed: int) -> None:
    case = drawn(seed)
    got = outputs(case.quantized(), case.inputs)
    for name, real in floatrun.run(case.graph, case.inputs).items():
        power = (real.astype(np.float64) ** 2).sum()
        error = ((got[name] - real) ** 2).sum()
        assert 10 * math.log10(power / error) > LEAST_SQNR_DB


def one_layer(op: Op) -> Case:
    """A layer with padding, strides and inputs whose mean is far from zero."""
    b = Builder("one", 2)
    if op is Op.FULLY_CONNECTED:
        graph = b.build(b.fully_connected(b.input(30), 6))
    else:
        x = b.input(7, 6, 3)
        window = Window((3, 2), (2, 1), (1, 0, 2, 1), (1, 2))
        y = b.conv(x, 6, window) if op is Op.CONV_2D else b.depthwise(x, 2, window)
        graph = b.build(y)
    return observed(graph, inputs={"input": reals(graph, 64)["input"] + np.float32(0.7)})


def mean_error(case: Case, integer: Graph) -> Array:
    """The mean output of each channel with quantised weights less that of the float layer."""
    node = integer.nodes[0]
    x, kernel = (qparams_of(integer.tensors[name]) for name in node.inputs[:2])
    scale = np.asarray(kernel.scale)
    data = integer.constant(node.inputs[1])
    near = {
        node.inputs[1]: data * scale.reshape(-1, *[1] * (data.ndim - 1)),
        node.inputs[2]: integer.constant(node.inputs[2]) * scale * x.scale[0],
    }
    tensors = dict(case.graph.tensors)
    for name, data in near.items():
        tensors[name] = replace(tensors[name], data=data.astype(np.float32))
    graph = replace(case.graph, tensors=tensors)
    got, real = (floatrun.run(g, case.inputs)[node.output] for g in (graph, case.graph))
    return np.asarray((got - real).reshape(-1, got.shape[-1]).mean(axis=0, dtype=np.float64))


@pytest.mark.parametrize("op", [op for op, info in OPS.items() if info.weighted])
def test_bias_correction_removes_the_mean_error_of_coarse_weights(op: Op) -> None:
    """Left is half a step of the bias, and the mean's rounding to 12 bits."""
    case = one_layer(op)
    integer, plain = (case.quantized(3, bias_correction=flag) for flag in (True, False))
    node = integer.nodes[0]
    x, kernel = (qparams_of(integer.tensors[name]) for name in node.inputs[:2])
    weight_error = np.asarray(kernel.scale) * np.abs(case.inputs["input"]).max()
    allowed = x.scale[0] * np.asarray(kernel.scale) / 2 + weight_error * 2.0**-12 * 30
    assert (np.abs(mean_error(case, integer)) <= allowed).all()
    assert np.abs(mean_error(case, plain)).mean() > 10 * np.abs(mean_error(case, integer)).mean()


@pytest.mark.parametrize("seed", CHAINS)
def test_gain_correction_keeps_the_signal_of_a_deep_chain_at_3_bits(seed: int) -> None:
    b = Builder("chain", seed)
    y = b.input(8, 8, 8)
    for _ in range(12):
        y = b.conv(y, 16, clamp=RELU)
    case = observed(b.build(b.fully_connected(b.flatten(b.global_average_pool(y)), 10)), 32)
    real = floatrun.run(case.graph, case.inputs)["fc_1.output"].astype(np.float64)

    def lost(*, gain: bool) -> float:
        got = outputs(case.quantized(3, gain=gain), case.inputs)["fc_1.output"]
        return abs(1 - float((got * real).sum() / (real * real).sum()))

    assert lost(gain=True) < lost(gain=False) / 2


@pytest.mark.parametrize("seed", range(20))
def test_the_same_ranges_give_the_same_constants(seed: int) -> None:
    case = drawn(seed)
    one, two = case.quantized(4), case.quantized(4)
    assert one.nodes == two.nodes
    for name, tensor in one.tensors.items():
        assert tensor == two.tensors[name]
        if tensor.data is not None:
            assert (tensor.data == two.constant(name)).all()


# Parameters


@fixed
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 8))
@example(0.0, 0.0, 8)
@example(0.5, 1.0, 8)
@example(-1.0, -0.5, 8)
def test_a_range_is_covered_and_zero_is_exact(a: float, b: float, bits: int) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    q = quantize.affine(min(a, b), max(a, b), bits)
    assert q.dequantize(np.array([q.zero_point])) == 0
    ends = np.array([low, high])
    assert np.abs(q.dequantize(q.quantize(ends)) - ends).max() <= q.scale[0] * 0.51


def test_a_range_of_nothing_but_zero_has_scale_one() -> None:
    assert quantize.affine(0.0, 0.0, 8) == QParams((1.0,), -128, 8)


def test_a_scale_is_never_below_the_floor() -> None:
    assert quantize.affine(-1.0, 1.0, 8, floor=0.5).scale == (0.5,)


@pytest.mark.parametrize(
    ("clamp", "expected"),
    [
        (None, (-128, 127)),
        (RELU, (-100, 127)),
        (RELU6, (-100, -40)),
        ((-math.inf, 0.0), (-128, -100)),
        ((-99.0, 99.0), (-128, 127)),
        ((50.0, 60.0), (127, 127)),
        ((0.04, 0.06), (-100, -99)),
    ],
)
def test_a_clamp_becomes_integers_of_the_output(
    clamp: tuple[float, float] | None, expected: tuple[int, int]
) -> None:
    assert quantize.integer_clamp(clamp, QParams((0.1,), -100)) == expected


def test_pools_and_reshapes_keep_their_inputs_parameters() -> None:
    b = Builder("kept")
    y = b.max_pool(b.conv(b.input(6, 6, 2), 3), Window((2, 2), (2, 2)))
    y = b.average_pool(y, same_window(b.shape(y), (3, 3)))
    graph = b.build(b.fully_connected(b.flatten(y), 4))
    integer = observed(graph).quantized()
    names = ("conv_1", "max_pool_1", "average_pool_1", "reshape_1")
    assert len({qparams_of(integer.tensors[f"{name}.output"]) for name in names}) == 1


def test_a_softmax_has_the_parameters_of_a_probability() -> None:
    b = Builder("softmax")
    graph = b.build(b.softmax(b.fully_connected(b.input(9), 4)))
    q = qparams_of(observed(graph).quantized().tensors["softmax_1.output"])
    assert q == QParams((1 / 256,), -128)


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_get_the_bits_that_the_policy_says(bits: int) -> None:
    integer = one_layer(Op.CONV_2D).quantized(bits)
    assert qparams_of(integer.tensors["conv_1.weights"]).bits == bits


def test_every_operator_of_a_device_can_be_quantised() -> None:
    ops = {node.op for seed in GRAPHS for node in mixed(seed).nodes}
    assert ops == {op for op, info in OPS.items() if info.device}
