"""The interpreter of integer graphs: against loops over Python integers and onnxruntime."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import onnxruntime
import pytest
from graphs import in_blocks, random_graph, resnet8
from onnx import TensorProto, helper, numpy_helper
from programs import compiled

from edgeq import fixedpoint, reference
from edgeq.errors import GraphError
from edgeq.ir import Array, DType, Graph, Network, Node, Op, QParams, Tensor, Window, single
from edgeq.reference import Rounding

CASES = range(30)  # seeds of random operators
GRAPHS = range(20)  # seeds of random networks
RULES = tuple(Rounding)
# Products of 8 × 8 bits may saturate in onnxruntime on cores without VNNI; of 8 × 7 they cannot.
ONNXRUNTIME_BITS = 7
needs_fma = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="onnxruntime adds in another order on other cores"
)

Finish = Callable[[int, int], int]  # (sum, output channel) to output integer


@dataclass(frozen=True)
class Case:
    """One operator with what it reads."""

    graph: Graph
    node: Node
    values: dict[str, Array]

    @property
    def window(self) -> Window:
        assert self.node.window is not None
        return self.node.window

    def tensor(self, index: int) -> Tensor:
        return self.graph.tensors[self.node.inputs[index]]

    def data(self, index: int) -> Array:
        return self.graph.constant(self.node.inputs[index])

    @property
    def output(self) -> Tensor:
        return self.graph.tensors[self.node.output]

    def compute(self, rule: Rounding = Rounding.DOUBLE) -> list[Any]:
        return list(reference.compute(self.graph, self.node, self.values, rule).tolist())


def qparams(rng: np.random.Generator) -> QParams:
    zero_point = int(rng.choice((-128, 127, rng.integers(-128, 128))))
    return QParams((float(np.exp(rng.uniform(-6, 0))),), zero_point)


def values(rng: np.random.Generator, *shape: int) -> Array:
    """int8, each extreme in one of ten."""
    drawn = rng.integers(-128, 128, shape)
    return np.where(rng.random(shape) < 0.2, np.where(drawn < 0, -128, 127), drawn).astype(np.int8)


def case(
    op: Op,
    inputs: Sequence[Tensor],
    constants: Sequence[Tensor],
    output: Tensor,
    window: Window | None,
    rng: np.random.Generator,
) -> Case:
    """The operator with random input values and, in half of the cases, a narrow clamp."""
    low, high = sorted(rng.integers(-128, 128, 2).tolist()) if rng.random() < 0.5 else (-128, 127)
    names = tuple(t.name for t in (*inputs, *constants))
    node = Node("node", op, names, output.name, window, (low, high))
    tensors = {t.name: t for t in (*inputs, *constants, output)}
    graph = Graph("g", tuple(t.name for t in inputs), (output.name,), (node,), tensors)
    given = {t.name: values(rng, 2, *t.shape[1:]) for t in inputs}
    return Case(graph, node, given)


def activation(name: str, shape: tuple[int, ...], q: QParams) -> Tensor:
    return Tensor(name, shape, DType.S8, q)


def constant(name: str, data: Array, kind: DType, q: QParams | None = None) -> Tensor:
    data = data.astype(kind.value)
    return Tensor(name, data.shape, kind, q, data)


def random_window(rng: np.random.Generator, size: tuple[int, int], *, pool: bool) -> Window:
    """A window that fits, each thing about it different along both axes."""
    while True:
        kernel = tuple(rng.integers(1, 4, 2).tolist())
        strides = tuple(rng.integers(1, 3, 2).tolist())
        dilations = (1, 1) if pool else tuple(rng.integers(1, 3, 2).tolist())
        pads = tuple(int(rng.integers(0, k if pool else 3)) for k in (*kernel, *kernel))
        window = Window(kernel, strides, pads, dilations)  # type: ignore[arg-type]
        if min(window.output_size(*size)) >= 1:
            return window


def weighted(op: Op, seed: int, bits: int = 8) -> Case:
    """A random convolution, depthwise convolution or fully connected layer."""
    rng = np.random.default_rng(seed)
    size, channels, outputs = (5, 4), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    window = None
    if op is Op.FULLY_CONNECTED:
        shape, out, kernel = (1, 7), (1, outputs), (outputs, 7)
    else:
        window = random_window(rng, size, pool=False)
        depthwise = op is Op.DEPTHWISE_CONV_2D
        outputs = channels * int(rng.integers(1, 3)) if depthwise else outputs
        shape, out = (1, *size, channels), (1, *window.output_size(*size), outputs)
        kernel = (outputs, *window.kernel) if depthwise else (outputs, *window.kernel, channels)
    x, low = qparams(rng), -(1 << (bits - 1))
    weights = np.clip(rng.integers(low, -low, kernel), 1 + low if bits == 8 else low, None)
    scales = np.exp(rng.uniform(-5, -2, outputs))
    spread = x.scale[0] * scales.mean() * 100 * math.sqrt(math.prod(kernel[1:]))
    y = QParams((float(spread * math.exp(rng.uniform(-2, 1))),), int(rng.integers(-128, 128)))
    pairs = [fixedpoint.quantize_multiplier(x.scale[0] * s / y.scale[0]) for s in scales]
    return case(
        op,
        [activation("x", shape, x)],
        [
            constant("w", weights, DType.S8, QParams(tuple(scales.tolist()), 0, bits, axis=0)),
            constant("b", rng.integers(-(1 << 14), 1 << 14, outputs), DType.S32),
            constant("m", np.array([m for m, _ in pairs]), DType.S32),
            constant("s", np.array([s for _, s in pairs]), DType.S8),
        ],
        activation("y", out, y),
        window,
        rng,
    )


# Loops


def rescaled(x: int, multiplier: int, shift: int) -> int:
    """Requantisation in Python integers."""
    high = (x * 2 ** max(shift, 0) * multiplier + 2**30) // 2**31
    unit = 2 ** max(-shift, 0)
    magnitude = (2 * abs(high) + unit) // (2 * unit)
    return magnitude if high >= 0 else -magnitude


def finish(c: Case, rule: Rounding) -> Finish:
    """From a sum to the output of a weighted operator."""
    y = c.output.qparams
    assert y is not None

    def double(total: int, channel: int) -> int:
        scaled = rescaled(total, int(c.data(3)[channel]), int(c.data(4)[channel]))
        return clamped(c, scaled + y.zero_point)

    def float32(total: int, channel: int) -> int:
        x, w = c.tensor(0).qparams, c.tensor(1).qparams
        assert x is not None
        assert w is not None
        ratio = np.float32(x.scale[0]) * np.float32(w.scale[channel]) / np.float32(y.scale[0])
        return clamped(c, round(float(np.float32(total) * ratio)) + y.zero_point)

    return double if rule is Rounding.DOUBLE else float32


def clamped(c: Case, value: int) -> int:
    assert c.node.clamp is not None
    low, high = c.node.clamp
    return int(min(max(value, low), high))


def taps(c: Case, image: Array, row: int, column: int) -> list[tuple[int, int, Array]]:
    """(kernel row, kernel column, pixel) of every tap that falls on the image."""
    w = c.window
    found = []
    for i, j in product(range(w.kernel[0]), range(w.kernel[1])):
        y = row * w.strides[0] + i * w.dilations[0] - w.pads[0]
        x = column * w.strides[1] + j * w.dilations[1] - w.pads[1]
        if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
            found.append((i, j, image[y, x]))
    return found


def loop(c: Case, value: Callable[[Array, int, int, int], int]) -> list[Any]:
    """`value(image, row, column, channel)` at every place of the output."""
    _, height, width, channels = c.output.shape
    return [
        [
            [[value(image, i, j, k) for k in range(channels)] for j in range(width)]
            for i in range(height)
        ]
        for image in c.values["x"].astype(object)
    ]


def zero_point(c: Case, index: int = 0) -> int:
    q = c.tensor(index).qparams
    assert q is not None
    return q.zero_point


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", CASES)
def test_a_convolution_is_a_loop_over_taps_and_channels(seed: int, rule: Rounding) -> None:
    c = weighted(Op.CONV_2D, seed)
    weights, bias, zero = c.data(1).astype(object), c.data(2).astype(object), zero_point(c)
    done = finish(c, rule)

    def value(image: Array, row: int, column: int, channel: int) -> int:
        total = bias[channel]
        for i, j, pixel in taps(c, image, row, column):
            total += sum(weights[channel, i, j, k] * (p - zero) for k, p in enumerate(pixel))
        return done(total, channel)

    assert c.compute(rule) == loop(c, value)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", CASES)
def test_a_depthwise_convolution_is_a_loop_over_taps(seed: int, rule: Rounding) -> None:
    c = weighted(Op.DEPTHWISE_CONV_2D, seed)
    weights, bias, zero = c.data(1).astype(object), c.data(2).astype(object), zero_point(c)
    multiplier = len(weights) // c.tensor(0).shape[3]
    done = finish(c, rule)

    def value(image: Array, row: int, column: int, channel: int) -> int:
        total = bias[channel]
        for i, j, pixel in taps(c, image, row, column):
            total += weights[channel, i, j] * (pixel[channel // multiplier] - zero)
        return done(total, channel)

    assert c.compute(rule) == loop(c, value)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", CASES)
def test_a_fully_connected_layer_is_a_loop_over_inputs(seed: int, rule: Rounding) -> None:
    c = weighted(Op.FULLY_CONNECTED, seed)
    weights, bias, zero = c.data(1).astype(object), c.data(2).astype(object), zero_point(c)
    done = finish(c, rule)
    expected = [
        [done(b + sum(w * (v - zero) for w, v in zip(row, x, strict=True)), channel)
         for channel, (row, b) in enumerate(zip(weights, bias, strict=True))]
        for x in c.values["x"].astype(object)
    ]  # fmt: skip
    assert c.compute(rule) == expected


def addition(seed: int) -> Case:
    """A sum of two images, or of one with itself, with the constants that quantize gives it."""
    rng = np.random.default_rng(seed)
    a, b, y = (qparams(rng) for _ in range(3))
    common = 2 * max(a.scale[0], b.scale[0])
    unit = 1 << fixedpoint.ADD_LEFT_SHIFT
    ratios = (a.scale[0] / common, b.scale[0] / common, common / (unit * y.scale[0]))
    pairs = [fixedpoint.quantize_multiplier(r) for r in ratios]
    return case(
        Op.ADD,
        [activation("x", (1, 3, 2, 4), a), activation("other", (1, 3, 2, 4), b)],
        [
            constant("m", np.array([m for m, _ in pairs]), DType.S32),
            constant("s", np.array([s for _, s in pairs]), DType.S8),
        ],
        activation("y", (1, 3, 2, 4), y),
        None,
        rng,
    )


@pytest.mark.parametrize("seed", CASES)
def test_a_sum_rescales_both_inputs_then_itself(seed: int) -> None:
    c = addition(seed)
    m, s = c.data(2).tolist(), c.data(3).tolist()
    zeros = zero_point(c, 0), zero_point(c, 1)
    assert c.output.qparams is not None

    def total(x: int, other: int) -> int:
        parts = [
            rescaled((v - zero) << fixedpoint.ADD_LEFT_SHIFT, m[i], s[i])
            for i, (v, zero) in enumerate(zip((x, other), zeros, strict=True))
        ]
        return clamped(c, rescaled(sum(parts), m[2], s[2]) + c.output.qparams.zero_point)  # type: ignore[union-attr]

    x, other = (c.values[name].reshape(-1).tolist() for name in ("x", "other"))
    expected = [total(p, q) for p, q in zip(x, other, strict=True)]
    assert np.array(c.compute()).reshape(-1).tolist() == expected


def pool(op: Op, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    size, channels, q = (5, 4), int(rng.integers(1, 4)), qparams(rng)
    window = random_window(rng, size, pool=True)
    out = (1, *window.output_size(*size), channels)
    x, y = activation("x", (1, *size, channels), q), activation("y", out, q)
    return case(op, [x], [], y, window, rng)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", CASES)
def test_a_max_pool_looks_at_the_image_only(seed: int, rule: Rounding) -> None:
    c = pool(Op.MAX_POOL, seed)

    def value(image: Array, row: int, column: int, channel: int) -> int:
        return clamped(c, max(pixel[channel] for _, _, pixel in taps(c, image, row, column)))

    assert c.compute(rule) == loop(c, value)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", CASES)
def test_an_average_pool_counts_the_image_only(seed: int, rule: Rounding) -> None:
    c = pool(Op.AVERAGE_POOL, seed)

    def value(image: Array, row: int, column: int, channel: int) -> int:
        seen = [pixel[channel] for _, _, pixel in taps(c, image, row, column)]
        total, count = sum(seen), len(seen)
        if rule is Rounding.FLOAT32:
            return clamped(c, round(float(np.float32(total) / np.float32(count))))
        away = (2 * abs(total) + count) // (2 * count)
        return clamped(c, away if total >= 0 else -away)

    assert c.compute(rule) == loop(c, value)


def softmax_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    q = qparams(rng)
    multiplier, shift = fixedpoint.quantize_multiplier(q.scale[0] * 2.0**26)
    constants = [
        constant("m", np.array([multiplier]), DType.S32),
        constant("s", np.array([shift]), DType.S8),
    ]
    output = activation("y", (1, 9), QParams((1 / 256,), -128))
    return case(Op.SOFTMAX, [activation("x", (1, 9), q)], constants, output, None, rng)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", CASES)
def test_a_softmax_is_within_one_step_of_the_ideal(seed: int, rule: Rounding) -> None:
    c = softmax_case(seed)
    q = c.tensor(0).qparams
    assert q is not None
    for x, got in zip(c.values["x"].tolist(), c.compute(rule), strict=True):
        powers = [math.exp((v - max(x)) * q.scale[0]) for v in x]
        ideal = [min(round(256 * p / sum(powers)) - 128, 127) for p in powers]
        assert max(abs(a - b) for a, b in zip(got, ideal, strict=True)) <= 1


def test_a_reshape_changes_no_value() -> None:
    q = QParams((0.5,), 3)
    x, y = activation("x", (1, 2, 3, 4), q), activation("y", (1, 24), q)
    rng = np.random.default_rng(0)
    c = case(Op.RESHAPE, [x], [], y, None, rng)
    assert c.compute() == c.values["x"].reshape(2, 24).tolist()


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("count", [10, 600, 30_000])
def test_sums_of_extremes_are_exact(count: int, sign: int) -> None:
    """Beyond 2^24 float32 would round them; the bias leaves what is lost then."""
    weights = np.full((1, count), sign * 127)
    weights[0, 0] -= sign
    multiplier, shift = fixedpoint.quantize_multiplier(1.0)
    constants = [
        constant("w", weights, DType.S8, QParams((1.0,), 0, 8, axis=0)),
        constant("b", weights.sum(axis=1) * 255 + 57, DType.S32),
        constant("m", np.array([multiplier]), DType.S32),
        constant("s", np.array([shift]), DType.S8),
    ]
    x = activation("x", (1, count), QParams((1.0,), 127))
    y = activation("y", (1, 1), QParams((1.0,)))
    c = case(Op.FULLY_CONNECTED, [x], constants, y, None, np.random.default_rng(0))
    c.values["x"][:] = -128
    node = replace(c.node, clamp=(-128, 127))
    assert reference.compute(c.graph, node, c.values).tolist() == [[57], [57]]


# Networks


def integers(network: Network, count: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {t.name: values(rng, count, *t.shape[1:]) for t in network.inputs}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", GRAPHS)
def test_a_batch_equals_its_samples_one_by_one(
    seed: int, rule: Rounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = compiled(random_graph(seed)).program.network
    batch = integers(network, 5)
    together = reference.run(network, batch, rule)
    monkeypatch.setattr(reference, "PATCH_BYTES", 1)  # convolutions go sample by sample
    apart = [
        reference.run(network, {n: v[i : i + 1] for n, v in batch.items()}, rule) for i in range(5)
    ]
    for name, value in together.items():
        assert (value == np.concatenate([one[name] for one in apart])).all(), name


@pytest.mark.parametrize("seed", GRAPHS)
def test_results_are_stored_as_the_graph_says(seed: int) -> None:
    network = compiled(random_graph(seed)).program.network
    graph = network.graphs[0]
    for name, value in reference.run(network, integers(network, 2)).items():
        assert (value.dtype.name, value.shape[1:]) == ("int8", graph.tensors[name].shape[1:])


@pytest.mark.parametrize("seed", GRAPHS)
def test_clamps_hold_at_every_layer(seed: int) -> None:
    network = compiled(random_graph(seed)).program.network
    found = reference.run(network, integers(network, 4))
    for node in network.graphs[0].nodes:
        if node.clamp is not None:
            low, high = node.clamp
            assert low <= found[node.output].min()
            assert found[node.output].max() <= high


def two_levels() -> tuple[Network, Network]:
    """An integer network, and the same in two blocks at two levels that compute the same."""
    graph = compiled(resnet8(8, 8, 1)).program.network.graphs[0]
    return single(graph), in_blocks(graph, cuts=(4,), levels=2)


def test_every_choice_of_equal_levels_computes_the_same() -> None:
    whole, network = two_levels()
    batch = integers(whole, 3)
    output = whole.outputs[0].name
    expected = reference.run(whole, batch)[output]
    for levels in product(range(2), repeat=2):
        assert (reference.run(network, batch, levels=levels)[output] == expected).all(), levels


def test_levels_pick_the_variants_that_run() -> None:
    _, network = two_levels()
    computed = reference.run(network, integers(network, 1), levels=(1, 0))
    first, second = (block.variants for block in network.blocks)
    run = {node.output for graph in (first[1].graph, second[0].graph) for node in graph.nodes}
    assert set(computed) == run | {"input"}


def test_an_operator_without_its_constants_is_refused() -> None:
    c = weighted(Op.FULLY_CONNECTED, 0)
    bare = replace(c.graph.tensors["b"], data=None)
    graph = replace(c.graph, tensors={**c.graph.tensors, "b": bare})
    with pytest.raises(GraphError, match="EQ0303"):
        reference.compute(graph, c.node, {**c.values, "b": np.zeros(1)})


# onnxruntime


def session(nodes: Sequence[Any], inputs: dict[str, Array], constants: dict[str, Array]) -> Array:
    """Output `y` of ONNX nodes on uint8 inputs."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, TensorProto.UINT8, v.shape) for n, v in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    run = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (y,) = run.run(None, inputs)
    return np.asarray(y)


def unsigned(values: Array) -> Array:
    return (values.astype(np.int64) + 128).astype(np.uint8)


def parameters(prefix: str, q: QParams | None) -> dict[str, Array]:
    assert q is not None
    return {
        f"{prefix}_scale": np.float32(q.scale[0]),
        f"{prefix}_zero": np.uint8(q.zero_point + 128),
    }  # type: ignore[dict-item]


@pytest.mark.parametrize("op", [Op.CONV_2D, Op.DEPTHWISE_CONV_2D])
@pytest.mark.parametrize("seed", CASES)
def test_the_float32_rule_is_onnxruntimes_convolution(op: Op, seed: int) -> None:
    c = weighted(op, seed, ONNXRUNTIME_BITS)
    c = replace(c, node=replace(c.node, clamp=(-128, 127)))
    weights, window, w = c.data(1), c.window, c.tensor(1).qparams
    assert w is not None
    depthwise = op is Op.DEPTHWISE_CONV_2D
    constants = {
        **parameters("x", c.tensor(0).qparams),
        **parameters("y", c.output.qparams),
        "w": weights[:, None] if depthwise else weights.transpose(0, 3, 1, 2),
        "w_scale": np.asarray(w.scale, np.float32),
        "w_zero": np.zeros(len(weights), np.int8),
        "b": c.data(2),
    }
    node = helper.make_node(
        "QLinearConv",
        ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero", "b"],
        ["y"],
        group=c.tensor(0).shape[3] if depthwise else 1,
        kernel_shape=window.kernel,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
    )
    x = np.ascontiguousarray(unsigned(c.values["x"]).transpose(0, 3, 1, 2))
    expected = session([node], {"x": x}, constants).transpose(0, 2, 3, 1)
    assert (unsigned(np.array(c.compute(Rounding.FLOAT32))) == expected).all()


@needs_fma
@pytest.mark.parametrize("seed", CASES)
def test_the_float32_rule_is_onnxruntimes_addition(seed: int) -> None:
    """On all pairs of int8 values; scales that are powers of two apart give ties."""
    rng = np.random.default_rng(seed)
    a, b, y = (qparams(rng) for _ in range(3))
    if seed % 3 == 0:
        b, y = (replace(q, scale=(a.scale[0] * 2.0 ** rng.integers(-1, 3),)) for q in (b, y))
    grid = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    left, right = (axis.reshape(1, -1).astype(np.int8) for axis in grid)
    x, other = activation("a", left.shape, a), activation("b", left.shape, b)
    c = case(Op.ADD, [x, other], [], activation("y", left.shape, y), None, rng)
    node = replace(c.node, clamp=(-128, 127))
    got = reference.compute(c.graph, node, {"a": left, "b": right}, Rounding.FLOAT32)
    constants = {**parameters("a", a), **parameters("b", b), **parameters("y", y)}
    names = ["a", "a_scale", "a_zero", "b", "b_scale", "b_zero", "y_scale", "y_zero"]
    qlinear = helper.make_node("QLinearAdd", names, ["y"], domain="com.microsoft")
    expected = session([qlinear], {"a": unsigned(left), "b": unsigned(right)}, constants)
    assert (unsigned(got) == expected).all()
