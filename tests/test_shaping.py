"""Grouped convolution, pad, concat and table, from float graph to integers, against definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from graphs import FUNCTIONS, RELU, Builder
from onnx import TensorProto, helper, numpy_helper
from programs import compiled, reals

from edgeq import calibrate, fixedpoint, floatrun, kernels, parity, quantize, reference
from edgeq.errors import GraphError
from edgeq.exporters import image
from edgeq.ir import Array, DType, Function, Graph, Node, Op, QParams, Tensor, Unary, Window
from edgeq.ops import evaluate, groups, macs
from edgeq.policy import Bits, Calibration
from edgeq.reference import Rounding
from edgeq.report import Verdict
from edgeq.samples import Samples
from edgeq.targets.runners import HostProgram, HostRunner

# Sums of 18 products of magnitude 1 in float32: 18 · 2⁻²⁴ ≈ 1e-6, margin 10.
ATOL = 1e-5
EVERY = np.arange(-128, 128)  # each value of int8


def quantized(graph: Graph, bits: int = 8) -> Graph:
    """The integers of `graph`, calibrated on standard normal samples."""
    widths = {node.name: Bits(bits, 8) for node in graph.nodes}
    ranges = calibrate.run(graph, widths, reals(graph), Calibration())
    return quantize.run(graph, widths, ranges, Calibration())


def node_of(graph: Graph, op: Op) -> Node:
    (node,) = (node for node in graph.nodes if node.op is op)
    return node


def qparams_of(graph: Graph, name: str) -> QParams:
    found = graph.tensors[name].qparams
    assert found is not None
    return found


# Shapes #


def broken(make: Callable[[Builder, str], str], **fields: Any) -> Callable[[], Graph]:
    """A graph of one operator with other fields of it."""

    def build() -> Graph:
        b = Builder()
        y = make(b, b.input(4, 5, 6))
        b.nodes[-1] = replace(b.nodes[-1], **fields)
        return b.build(y)

    return build


BROKEN: dict[str, tuple[str, Callable[[], Graph]]] = {
    "groups that do not divide the channels": (
        "EQ0306",
        broken(lambda b, x: b.grouped(x, 4, 4)),
    ),
    "groups that do not divide the filters": ("EQ0306", broken(lambda b, x: b.grouped(x, 3, 4))),
    "a grouped convolution without a window": (
        "EQ0304",
        broken(lambda b, x: b.grouped(x, 3, 3), window=None),
    ),
    "too few pads": ("EQ0306", broken(lambda b, x: b.pad(x, 0, 0, 0, 1, 1, 1), pads=(0, 0, 1, 1))),
    "negative pads": (
        "EQ0306",
        broken(lambda b, x: b.pad(x, 0, 0, 0, 1, 1, 1), pads=(0, -1, 0, 1, 1, 1)),
    ),
    "other pads than the output has": (
        "EQ0306",
        broken(lambda b, x: b.pad(x, 0, 0, 0, 1, 1, 1), pads=(1, 0, 0, 1, 1, 1)),
    ),
    "tensors of other sizes joined": (
        "EQ0306",
        broken(lambda b, x: b.concat(x, b.conv(x, 2), 3), axis=1),
    ),
    "batches joined": ("EQ0306", broken(lambda b, x: b.concat(x, x, 3), axis=0)),
    "an axis too many": ("EQ0306", broken(lambda b, x: b.concat(x, x, 3), axis=4)),
    "a table without a function": (
        "EQ0304",
        broken(lambda b, x: b.table(x, FUNCTIONS[1]), function=None),
    ),
    "a pad that clamps": ("EQ0306", broken(lambda b, x: b.pad(x, *[1] * 6), clamp=RELU)),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_operator_is_refused(fault: str) -> None:
    id, make = BROKEN[fault]
    with pytest.raises(GraphError, match=id):
        make()


def test_a_grouped_convolution_costs_the_channels_of_its_groups() -> None:
    b = Builder()
    graph = b.build(b.grouped(b.input(4, 5, 6), 3, 9))
    node = graph.nodes[0]
    assert groups(graph, node) == 3
    assert macs(graph, node) == 4 * 5 * 9 * 3 * 3 * 2


# Functions #

DEFINITIONS: dict[Unary, Callable[[float, Function], float]] = {
    Unary.IDENTITY: lambda x, f: x,
    Unary.SIGMOID: lambda x, f: 1 / (1 + math.exp(-x)),
    Unary.TANH: lambda x, f: math.tanh(x),
    Unary.HARD_SIGMOID: lambda x, f: min(max(f.alpha * x + f.beta, 0), 1),
    Unary.SILU: lambda x, f: x / (1 + math.exp(-x)),
    Unary.HARD_SWISH: lambda x, f: x * min(max(f.alpha * x + f.beta, 0), 1),
    Unary.LEAKY_RELU: lambda x, f: x if x > 0 else f.alpha * x,
    Unary.LINEAR: lambda x, f: f.alpha * x + f.beta,
}
functions = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.kind.value)


def test_every_function_has_a_definition() -> None:
    assert {f.kind for f in FUNCTIONS} == set(Unary) == set(DEFINITIONS)


@functions
def test_a_function_is_its_definition(function: Function) -> None:
    x = np.linspace(-30, 30, 401)
    expected = [DEFINITIONS[function.kind](v, function) for v in x.tolist()]
    np.testing.assert_allclose(evaluate(function, x), expected, rtol=1e-14, atol=1e-16)


@functions
def test_a_function_of_huge_values_is_finite(function: Function) -> None:
    assert np.isfinite(evaluate(function, np.array([-1e30, -1e4, 0.0, 1e4, 1e30]))).all()


# Floats #


def assert_computes(graph: Graph, expected: Callable[[Array], Array]) -> None:
    x = reals(graph, 2)["input"]
    (result,) = floatrun.run(graph, {"input": x}).values()
    np.testing.assert_allclose(result, expected(x), rtol=0, atol=ATOL)


def test_a_grouped_convolution_is_a_convolution_of_each_group() -> None:
    b = Builder()
    graph = b.build(b.grouped(b.input(5, 6, 4), 2, 6, Window((3, 2), (2, 1), (1, 0, 0, 1))))
    weights, bias = (graph.constant(name) for name in graph.nodes[0].inputs[1:])

    def parts(x: Array) -> Array:
        results = []
        for group in range(2):
            part = Builder()
            window = graph.nodes[0].window
            assert window is not None
            y = part.conv(part.input(5, 6, 2), 3, window)
            chosen = slice(3 * group, 3 * group + 3)
            for name, data in zip(part.nodes[0].inputs[1:], (weights, bias), strict=True):
                part.tensors[name] = replace(part.tensors[name], data=data[chosen])
            inputs = {"input": x[..., 2 * group : 2 * group + 2]}
            results.append(floatrun.run(part.build(y), inputs)[y])
        return np.concatenate(results, axis=3)

    assert_computes(graph, parts)


@pytest.mark.parametrize("pads", [(1, 0, 2, 0, 3, 1), (0, 0, 0, 0, 0, 0)])
@pytest.mark.parametrize("value", [0.0, -1.5])
def test_a_pad_surrounds_with_its_value(pads: tuple[int, ...], value: float) -> None:
    b = Builder()
    graph = b.build(b.pad(b.input(3, 4, 2), *pads, value=value))
    sizes = ((0, 0), *zip(pads[:3], pads[3:], strict=True))
    assert_computes(graph, lambda x: np.pad(x, sizes, constant_values=value))


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_concatenation_keeps_the_order_of_its_inputs(axis: int) -> None:
    b = Builder()
    x = b.input(3, 4, 2)
    graph = b.build(b.concat(x, b.table(x, Function(Unary.TANH)), axis))
    assert_computes(graph, lambda x: np.concatenate((x, np.tanh(x)), axis=axis))


@functions
def test_a_table_is_its_function_clamped(function: Function) -> None:
    b = Builder()
    graph = b.build(b.table(b.input(3, 4, 2), function, (-0.25, 0.5)))
    assert_computes(graph, lambda x: np.clip(evaluate(function, x.astype(np.float64)), -0.25, 0.5))


# Integers #


@pytest.mark.parametrize("rule", Rounding)
def test_a_grouped_convolution_computes_the_integers_of_its_groups(rule: Rounding) -> None:
    b = Builder()
    graph = quantized(b.build(b.grouped(b.input(5, 4, 6), 3, 6, clamp=RELU)), bits=4)
    node = graph.nodes[0]
    x = np.random.default_rng(0).integers(-128, 128, (3, 5, 4, 6), np.int8)
    got = reference.compute(graph, node, {"input": x}, rule)
    # The same layer with every channel, and zeros where a filter does not look.
    weights = graph.constant(node.inputs[1])
    wide = np.zeros((6, 3, 3, 6), np.int8)
    for filter in range(6):
        first = filter // 2 * 2
        wide[filter, :, :, first : first + 2] = weights[filter]
    name = node.inputs[1]
    tensor = replace(graph.tensors[name], data=wide, shape=wide.shape)
    whole = replace(node, op=Op.CONV_2D)
    ungrouped = replace(graph, nodes=(whole,), tensors={**graph.tensors, name: tensor})
    assert (got == reference.compute(ungrouped, whole, {"input": x}, rule)).all()


def test_means_of_a_grouped_convolution_are_those_of_the_channels_that_it_reads() -> None:
    b = Builder()
    graph = b.build(b.grouped(b.input(5, 4, 6), 3, 6, Window((3, 3))))
    node = graph.nodes[0]
    samples = reals(graph, 64)
    means = calibrate.run(graph, {node.name: Bits(8, 8)}, samples, Calibration()).means[node.name]
    assert means.shape == (6, 3, 3, 2)
    bare = replace(graph.tensors[node.inputs[2]], data=np.zeros(6, np.float32))
    unbiased = replace(graph, tensors={**graph.tensors, bare.name: bare})
    expected = floatrun.run(unbiased, samples)[node.output].mean(axis=(0, 1, 2))
    got = (graph.constant(node.inputs[1]) * means).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(got, expected, atol=2e-3)  # means have 12 significant bits


@pytest.mark.parametrize("rule", Rounding)
def test_a_pad_keeps_the_scale_and_pads_with_the_zero_point(rule: Rounding) -> None:
    b = Builder()
    graph = quantized(b.build(b.pad(b.input(3, 4, 2), 1, 0, 2, 0, 3, 1)))
    node = graph.nodes[0]
    q = qparams_of(graph, "input")
    assert qparams_of(graph, node.output) == q
    x = np.random.default_rng(0).integers(-128, 128, (2, 3, 4, 2), np.int8)
    sizes = ((0, 0), (1, 0), (0, 3), (2, 1))
    got = reference.compute(graph, node, {"input": x}, rule)
    assert (got == np.pad(x, sizes, constant_values=q.zero_point)).all()


def padded(value: Callable[[QParams], float]) -> Graph:
    """A pad with what `value` makes of the input's parameters."""
    b = Builder()
    y = b.pad(b.input(3, 4, 2), 1, 1, 0, 1, 1, 0)
    graph = b.build(y)
    q = qparams_of(quantized(graph), "input")
    name = graph.nodes[0].inputs[1]
    tensor = replace(graph.tensors[name], data=np.array([value(q)], np.float32))
    return replace(graph, tensors={**graph.tensors, name: tensor})


def test_a_pad_takes_a_value_that_the_scale_represents() -> None:
    graph = quantized(padded(lambda q: 3 * q.scale[0]))
    value = graph.constant(graph.nodes[0].inputs[1])
    assert value.tolist() == [qparams_of(graph, "input").zero_point + 3]


@pytest.mark.parametrize("steps", [0.5, 1e4])
def test_a_pad_refuses_a_value_that_the_scale_does_not_represent(steps: float) -> None:
    with pytest.raises(GraphError, match=r"pad_1: pads with .* 0 always is") as caught:
        quantized(padded(lambda q: steps * q.scale[0]))
    assert caught.value.id == "EQ0337"


def joined(first: QParams, second: QParams, output: QParams) -> tuple[Graph, dict[str, Array]]:
    """A concatenation of every value of both inputs."""
    scales = [q.scale[0] / output.scale[0] for q in (first, second)]
    pairs = [fixedpoint.quantize_multiplier(scale) for scale in scales]
    multiplier, shift = (np.array(part) for part in zip(*pairs, strict=True))
    tensors = (
        Tensor("a", (1, 256), DType.S8, first),
        Tensor("b", (1, 256), DType.S8, second),
        Tensor("y", (1, 512), DType.S8, output),
        Tensor("m", (2,), DType.S32, None, multiplier.astype(np.int32)),
        Tensor("s", (2,), DType.S8, None, shift.astype(np.int8)),
    )
    node = Node("join", Op.CONCAT, ("a", "b", "m", "s"), "y", clamp=(-128, 127), axis=1)
    graph = Graph("g", ("a", "b"), ("y",), (node,), {t.name: t for t in tensors})
    return graph, dict.fromkeys("ab", EVERY.astype(np.int8)[None])


PARAMETERS = [QParams((0.05,), -128), QParams((0.031,), 7), QParams((0.2,), 127)]


@pytest.mark.parametrize("output", PARAMETERS)
@pytest.mark.parametrize("rule", Rounding)
def test_equal_parameters_are_copied(output: QParams, rule: Rounding) -> None:
    graph, values = joined(output, output, output)
    got = reference.compute(graph, graph.nodes[0], values, rule)
    assert got[0].tolist() == [*EVERY, *EVERY]


def test_a_concatenation_rounds_twice_as_tflite_does() -> None:
    first, second, output = PARAMETERS
    graph, values = joined(first, second, output)
    got = reference.compute(graph, graph.nodes[0], values)[0].tolist()
    expected = []
    for i, q in enumerate((first, second)):
        multiplier, shift = (int(graph.constant(name)[i]) for name in "ms")
        for value in EVERY.tolist():
            scaled = fixedpoint.requantize(np.int64(value - q.zero_point), multiplier, shift)
            expected.append(min(max(int(scaled) + output.zero_point, -128), 127))
    assert got == expected


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 2, 1)])
def test_a_concatenation_rounds_as_onnxruntime_does(order: tuple[int, int, int]) -> None:
    parameters = [PARAMETERS[i] for i in order]
    graph, values = joined(*parameters)
    got = reference.compute(graph, graph.nodes[0], values, Rounding.FLOAT32)
    constants = []
    for name, q in zip("aby", parameters, strict=True):
        constants.append(numpy_helper.from_array(np.float32(q.scale[0]), f"{name}s"))
        constants.append(numpy_helper.from_array(np.int8(q.zero_point), f"{name}z"))
    nodes = [
        helper.make_node("DequantizeLinear", [name, f"{name}s", f"{name}z"], [f"{name}r"])
        for name in "ab"
    ]
    nodes.append(helper.make_node("Concat", ["ar", "br"], ["yr"], axis=1))
    nodes.append(helper.make_node("QuantizeLinear", ["yr", "ys", "yz"], ["y"]))
    infos = [helper.make_tensor_value_info(n, TensorProto.INT8, None) for n in "aby"]
    proto = helper.make_graph(nodes, "g", infos[:2], infos[2:], constants)
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert (got == session.run(None, values)[0]).all()


def test_what_only_a_concatenation_reads_takes_its_scale() -> None:
    b = Builder()
    x = b.input(4, 4, 3)
    pooled = b.max_pool(b.conv(x, 2, clamp=RELU), Window((1, 1)))
    inner = b.concat(pooled, b.conv(x, 2))
    graph = quantized(b.build(b.concat(inner, b.depthwise(x))))
    outer = qparams_of(graph, graph.outputs[0])
    parts = [n for n in graph.nodes if n.output != graph.outputs[0]]
    assert [qparams_of(graph, n.output) == outer for n in parts] == [True] * 5


def test_what_something_else_reads_keeps_its_own_scale() -> None:
    b = Builder()
    x = b.input(4, 4, 3)
    y = b.conv(x, 3, clamp=(0.0, 0.25))
    graph = quantized(b.build(b.concat(y, x), b.add(y, x)))
    assert qparams_of(graph, y) != qparams_of(graph, graph.outputs[0])


@functions
@pytest.mark.parametrize("rule", Rounding)
def test_a_table_holds_its_function_of_every_value(function: Function, rule: Rounding) -> None:
    b = Builder()
    clamp = (-0.1, 0.6)
    graph = quantized(b.build(b.table(b.input(1, 16, 16), function, clamp)))
    node = node_of(graph, Op.TABLE)
    x, y = qparams_of(graph, "input"), qparams_of(graph, node.output)
    wanted = [
        round(min(max(DEFINITIONS[function.kind](v, function), clamp[0]), clamp[1]) / y.scale[0])
        + y.zero_point
        for v in x.dequantize(EVERY).tolist()
    ]
    values = EVERY.astype(np.int8).reshape(1, 1, 16, 16)
    got = reference.compute(graph, node, {"input": values}, rule)
    assert got.reshape(-1).tolist() == np.clip(wanted, -128, 127).tolist()


def test_a_clip_keeps_the_integers_that_it_does_not_clip() -> None:
    b = Builder()
    graph = quantized(b.build(b.table(b.input(1, 16, 16), Function(Unary.IDENTITY), RELU)))
    node = node_of(graph, Op.TABLE)
    zero = qparams_of(graph, "input").zero_point
    assert qparams_of(graph, node.output) == qparams_of(graph, "input")
    assert graph.constant(node.inputs[1]).tolist() == np.maximum(EVERY, zero).tolist()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Unary.SIGMOID, QParams((1 / 256,), -128)), (Unary.TANH, QParams((1 / 128,), 0))],
)
def test_sigmoid_and_tanh_have_the_parameters_of_tflite(kind: Unary, expected: QParams) -> None:
    b = Builder()
    graph = quantized(b.build(b.table(b.input(4, 4, 2), Function(kind))))
    assert qparams_of(graph, graph.outputs[0]) == expected


# The device #


def everything() -> Graph:
    """Each of the operators, and tables that may be computed in place."""
    b = Builder("everything")
    x = b.grouped(b.input(6, 5, 4), 2, 6, clamp=RELU)
    x = b.table(b.pad(x, 1, 0, 1, 0, 1, 1), Function(Unary.HARD_SWISH, 1 / 6, 0.5))
    y = b.table(b.conv(x, 4), Function(Unary.SIGMOID))
    x = b.concat(x, y)
    x = b.concat(x, x, 2)  # one tensor may be both inputs
    return b.build(b.concat(b.flatten(b.global_average_pool(x)), b.flatten(b.max_pool(y, TINY)), 1))


TINY = Window((7, 6))


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_the_device_computes_what_the_reference_predicts(
    host_program: HostProgram, bits: int
) -> None:
    program = compiled(everything(), bits).program
    inputs = program.quantize(program_samples(everything()))
    runner = HostRunner(host_program, image.build(program).data)
    row = parity.compare(program, runner, parity.expect(program, inputs))
    assert (row.verdict, row.mismatches) == (Verdict.EXACT, 0), row


def program_samples(graph: Graph) -> Samples:
    return Samples(reals(graph, 8, seed=1), None, {})


def test_a_network_without_any_constant_runs(host_program: HostProgram) -> None:
    b = Builder()
    x = b.max_pool(b.input(5, 6, 3), Window((1, 1), (2, 2)))
    program = compiled(b.build(b.flatten(x))).program
    inputs = program.quantize(program_samples(b.build(program.network.outputs[0].name)))
    runner = HostRunner(host_program, image.build(program).data)
    row = parity.compare(program, runner, parity.expect(program, inputs))
    assert (row.verdict, row.mismatches) == (Verdict.EXACT, 0), row


def test_a_table_overwrites_what_dies_in_it() -> None:
    program = compiled(everything()).program
    tables = [n for n in program.network.graphs[0].nodes if n.op is Op.TABLE]
    places = program.plan.tensors
    assert any(places[n.output].offset == places[n.inputs[0]].offset for n in tables)


def test_every_kernel_of_these_operators_is_portable() -> None:
    ops = {Op.GROUPED_CONV_2D, Op.PAD, Op.CONCAT, Op.TABLE}
    assert {row.op for row in kernels.table() if row.op in ops and not row.isa} == ops
