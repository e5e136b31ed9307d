"""The TFLite export: what stands in the file, and that every runtime computes the same integers.

TFLite Micro follows the device's rule and LiteRT with XNNPACK its own, bit for bit. The reference
kernels of LiteRT follow the device's but for fully connected layers, which they scale in float64.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundled
import numpy as np
import pytest
from conftest import requires
from graphs import FUNCTIONS, RELU, RELU6, Builder, graphs, in_blocks, random_graph, same_window
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from programs import byte_layers
from test_parity import integers, program_of

from edgeq import fixedpoint, parity, reference
from edgeq.errors import GraphError, MissingToolError
from edgeq.exporters import python_runner, tflite
from edgeq.ir import (
    Array,
    Bounds,
    Function,
    Graph,
    Node,
    Op,
    QParams,
    Unary,
    Window,
    qparams_of,
    single,
)
from edgeq.program import Program
from edgeq.reference import Rounding
from edgeq.targets import interpreter_worker as worker
from edgeq.targets.interpreters import LITERT_REF, TFLM, XNNPACK, Interpreter, RuntimeInfo

GRAPHS = 30
NIGHTLY_GRAPHS = 300
FEW_IMAGES, IMAGES = 200, 1000
SAMPLES = 32  # through run.py
ADDED = 8  # samples of the test of additions, of 1,024 values each

lite = requires("ai_edge_litert")
micro = requires("tflite_micro")
bits = st.lists(st.integers(2, 8), min_size=1, max_size=6)
everywhere = pytest.mark.parametrize(
    "row",
    [
        pytest.param(TFLM, marks=micro),
        pytest.param(XNNPACK, marks=lite),
        pytest.param(LITERT_REF, marks=lite),
    ],
    ids=lambda row: row.name,
)
pytestmark = lite  # the schema to write with


def drawn(examples: int) -> settings:
    return settings(derandomize=True, max_examples=examples, deadline=None)


def sayable(graph: Graph) -> bool:
    """Whether no average pool has pads: TFLite knows those of SAME alone."""
    return not any(
        node.op is Op.AVERAGE_POOL and node.window is not None and any(node.window.pads)
        for node in graph.nodes
    )


def trace(row: RuntimeInfo, program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the program, in this process, which is quicker than one by one."""
    graph = program.network.graphs[0]
    names = [node.output for node in graph.nodes]
    run = worker.RUNTIMES[row.name](tflite.build(program), names)
    count = len(next(iter(inputs.values())))
    samples = [run([inputs[name][i : i + 1] for name in graph.inputs]) for i in range(count)]
    columns = zip(*samples, strict=True)
    return {name: np.concatenate(column) for name, column in zip(names, columns, strict=True)}


def assert_equal(row: RuntimeInfo, program: Program) -> None:
    """Every layer, fed with what the runtime computed before it, is the reference's."""
    inputs = integers(program)
    graph = program.network.graphs[0]
    values = {**inputs, **trace(row, program, inputs)}
    for node in graph.nodes:
        expected = reference.compute(graph, node, values, row.rounding)
        if row is LITERT_REF and node.op is Op.FULLY_CONNECTED:
            expected = scaled_in_float64(graph, node, values)
        np.testing.assert_array_equal(values[node.output], expected, f"{node.name} on {row.name}")


def scaled_in_float64(graph: Graph, node: Node, values: Mapping[str, Array]) -> Array:
    """A fully connected layer of LiteRT's reference kernels: one product, ties away from zero."""
    x, w, y = (qparams_of(graph.tensors[n]) for n in (*node.inputs[:2], node.output))
    wide = values[node.inputs[0]].astype(np.int64) - x.zero_point
    total = wide @ graph.constant(node.inputs[1]).T.astype(np.int64)
    real = (total + graph.constant(node.inputs[2])) * (x.scale[0] * np.array(w.scale) / y.scale[0])
    rounded = np.copysign(np.floor(np.abs(real) + 0.5), real) + y.zero_point
    clamped = np.clip(rounded, *(node.clamp or (y.qmin, y.qmax)))
    return clamped.astype(graph.tensors[node.output].dtype.value)


def loads_everywhere(program: Program) -> bool:
    """Whether no product's step is 256 of its output's: a few random layers of 2 bits are such."""
    try:
        tflite.build(program)
    except GraphError as error:
        if error.id != "EQ0386":
            raise
        return False
    return True


def parsed(program: Program) -> Any:
    """The model as the schema reads it back."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(tflite.build(program))


def operators(program: Program) -> list[str]:
    """The names of the operators in the file, in order."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    model = parsed(program)
    names = {code: name for name, code in vars(BuiltinOperator).items() if name.isupper()}
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def of(graph: Graph, weights: Sequence[int] = (8,), activations: Sequence[int] = (8,)) -> Program:
    return program_of(graph, weights, "flash", (), activations)


def with_network(program: Program, graph: Graph) -> Program:
    return replace(program, network=single(graph))


# Equality #


@everywhere
@drawn(GRAPHS)
@given(graphs().filter(sayable), bits, bits)
def test_every_layer_of_random_graphs_equals_the_reference(
    row: RuntimeInfo, graph: Graph, weights: list[int], activations: list[int]
) -> None:
    program = of(graph, weights, activations)
    assume(loads_everywhere(program))
    assert_equal(row, program)


@pytest.mark.nightly
@everywhere
@drawn(NIGHTLY_GRAPHS)
@given(graphs().filter(sayable), bits, bits)
def test_every_layer_of_many_random_graphs_equals_the_reference(
    row: RuntimeInfo, graph: Graph, weights: list[int], activations: list[int]
) -> None:
    program = of(graph, weights, activations)
    assume(loads_everywhere(program))
    assert_equal(row, program)


def of_words(graph: Graph) -> bool:
    """Whether every activation can have 16 bits: TFLite has no layer between those and 8."""
    return sayable(graph) and not byte_layers(graph)


@everywhere
@drawn(GRAPHS)
@given(graphs().filter(of_words), bits)
@example(random_graph(117095303), [5])  # an addition that tells LiteRT's rounding from the device's
def test_every_layer_of_16_bits_equals_the_reference(
    row: RuntimeInfo, graph: Graph, weights: list[int]
) -> None:
    assert_equal(row, of(graph, weights, [16]))


@pytest.mark.nightly
@everywhere
@drawn(NIGHTLY_GRAPHS)
@given(graphs().filter(of_words), bits)
def test_every_layer_of_many_graphs_of_16_bits_equals_the_reference(
    row: RuntimeInfo, graph: Graph, weights: list[int]
) -> None:
    assert_equal(row, of(graph, weights, [16]))


@everywhere
@pytest.mark.parametrize("activations", [[16, 16, 8], [8, 8, 16]])
def test_a_concatenation_takes_one_width_to_another(
    row: RuntimeInfo, activations: list[int]
) -> None:
    b = Builder()
    x = b.input(8, 8, 4)
    program = of(b.build(b.concat(b.conv(x, 3), b.conv(x, 2))), [8], activations)
    assert operators(program).count("QUANTIZE") == 2
    assert_equal(row, program)


def test_a_layer_between_8_and_16_bits_is_refused() -> None:
    b = Builder()
    graph = b.build(b.conv(b.conv(b.input(4, 4, 2), 3), 3))
    with pytest.raises(GraphError, match=r"conv_2: TFLite has no conv_2d of 16-bit") as caught:
        tflite.build(of(graph, [8], [8, 16]))
    assert caught.value.id == "EQ0385"


def assert_no_output_is_off(name: str, row: RuntimeInfo, images: int) -> None:
    example = bundled.load(name)
    program = example.compile(example.policy).program
    inputs = bundled.images().inputs(program, images)
    got = Interpreter(row, tflite.build(program)).run(list(inputs.values()))
    for values, expected in zip(got, parity.predict(program, inputs, row.rounding), strict=True):
        assert len(values) == images
        np.testing.assert_array_equal(values, expected)


the_examples = pytest.mark.parametrize("name", ["fashion-tiny", "fashion-resnet8"])
exact = pytest.mark.parametrize(
    "row", [pytest.param(TFLM, marks=micro), XNNPACK], ids=lambda row: row.name
)


@the_examples
@exact
def test_no_output_of_the_examples_is_off(name: str, row: RuntimeInfo) -> None:
    assert_no_output_is_off(name, row, FEW_IMAGES)


@pytest.mark.nightly
@the_examples
@exact
def test_no_output_of_the_examples_is_off_on_many_images(name: str, row: RuntimeInfo) -> None:
    assert_no_output_is_off(name, row, IMAGES)


def joined(op: Op, gain: float, clamp: Bounds | None) -> Program:
    """Two layers of 16 × 16 × 4 values, one `gain` times as strong, added or concatenated."""
    b = Builder("joined")
    x = b.input(16, 16, 4)
    strong, weak = b.conv(x, 4, 1), b.conv(x, 4, 1)
    for name in b.nodes[0].inputs[1:]:
        data = np.asarray(b.tensors[name].data) * np.float32(gain)
        b.tensors[name] = replace(b.tensors[name], data=data)
    joins = {Op.ADD: b.add, Op.CONCAT: b.concat}
    return of(b.build(joins[op](strong, weak, clamp=clamp), strong, weak))


@everywhere
@pytest.mark.parametrize("op", [Op.ADD, Op.CONCAT])
@pytest.mark.parametrize("gain", [2.0**power for power in (-12, -9, -7, -1, 0, 1, 7, 9, 12)])
@pytest.mark.parametrize("clamp", [None, (-1.0, 1.0), (-0.01, 0.01)])
def test_any_two_scales_meet_by_the_rule(
    row: RuntimeInfo, op: Op, gain: float, clamp: Bounds | None
) -> None:
    program = joined(op, gain, clamp)
    graph = program.network.graphs[0]
    node = graph.nodes[-1]
    *steps, step = (qparams_of(graph.tensors[n]).scale[0] for n in (*node.inputs[:2], node.output))
    if op is Op.ADD and max(steps) >= 256 * step:
        with pytest.raises(GraphError, match="LiteRT overflows") as caught:
            tflite.build(program)
        assert caught.value.id == "EQ0384"
        return
    inputs = {"input": np.random.default_rng(0).integers(-128, 128, (ADDED, 16, 16, 4), np.int8)}
    values = {**inputs, **trace(row, program, inputs)}
    expected = reference.compute(graph, node, values, row.rounding)
    np.testing.assert_array_equal(values[node.output], expected)


def with_product_step(program: Program, steps: float) -> Program:
    """The output's scale such that the coarsest product's step is `steps` of it."""
    graph = program.network.graphs[0]
    (node,) = graph.nodes
    x, w, y = (qparams_of(graph.tensors[name]) for name in (*node.inputs[:2], node.output))
    scale = float(np.float32(x.scale[0] * max(w.scale) / steps))
    ratios = [float(np.float32(x.scale[0])) * float(np.float32(s)) / scale for s in w.scale]
    columns = zip(*map(fixedpoint.quantize_multiplier, ratios), strict=True)
    tensors = {
        **graph.tensors,
        node.output: replace(graph.tensors[node.output], qparams=replace(y, scale=(scale,))),
    }
    for name, column in zip(node.inputs[3:], columns, strict=True):
        kind = graph.constant(name).dtype
        tensors[name] = replace(tensors[name], data=np.array(column, kind))
    return with_network(program, replace(graph, tensors=tensors))


@pytest.mark.parametrize("op", [Op.CONV_2D, Op.DEPTHWISE_CONV_2D, Op.FULLY_CONNECTED])
def test_a_layer_that_xnnpack_does_not_load_is_refused(op: Op) -> None:
    b = Builder()
    if op is Op.FULLY_CONNECTED:
        layer = b.fully_connected(b.input(8), 4)
    else:
        x = b.input(4, 4, 8)
        layer = b.conv(x, 4, 1) if op is Op.CONV_2D else b.depthwise(x)
    program = of(b.build(layer))
    assert_equal(XNNPACK, with_product_step(program, 255.9))
    with pytest.raises(GraphError, match=r"1: a product's step is 256 of") as caught:
        tflite.build(with_product_step(program, 256.1))
    assert caught.value.id == "EQ0386"


def test_xnnpack_adds_and_converts_otherwise_than_onnxruntime() -> None:
    b = Builder()
    x = b.input(16, 16, 4)
    a, c = b.conv(x, 4, 1), b.max_pool(x, Window((1, 1)))
    network = of(b.build(b.add(a, c), b.concat(a, c))).network
    inputs = {"input": np.random.default_rng(0).integers(-128, 128, (50, 16, 16, 4), np.int8)}
    own, other = (
        reference.run(network, inputs, rule) for rule in (Rounding.XNNPACK, Rounding.FLOAT32)
    )
    for name in network.graphs[0].outputs:
        differences = np.abs(own[name].astype(int) - other[name])
        assert differences.max() == 1
        assert differences.mean() < 0.1


# Scales #


@drawn(GRAPHS)
@given(graphs().filter(sayable), bits)
def test_the_scales_in_the_file_lead_to_the_multipliers_of_the_graph(
    graph: Graph, weights: list[int]
) -> None:
    program = of(graph, weights)
    integer = program.network.graphs[0]
    scales = {t.name.decode(): t.quantization for t in parsed(program).subgraphs[0].tensors}

    def stored(name: str) -> Array:
        found = np.asarray(scales[name].scale)
        assert found.dtype == np.float32
        return found.astype(np.float64)

    for node in integer.nodes:
        if node.op not in (
            Op.CONV_2D,
            Op.DEPTHWISE_CONV_2D,
            Op.GROUPED_CONV_2D,
            Op.FULLY_CONNECTED,
        ):
            continue
        x, w, y = (stored(name) for name in (*node.inputs[:2], node.output))
        ratios = np.broadcast_to(x * w / y, integer.constant(node.inputs[3]).shape)
        pairs = [fixedpoint.quantize_multiplier(float(ratio)) for ratio in ratios]
        assert [m for m, _ in pairs] == integer.constant(node.inputs[3]).tolist(), node.name
        assert [s for _, s in pairs] == integer.constant(node.inputs[4]).tolist(), node.name
        np.testing.assert_array_equal(stored(node.inputs[2]), x * w)


def test_products_of_two_scales_are_exact_in_float32() -> None:
    b = Builder()
    graph = of(b.build(b.conv(b.input(4, 4, 3), 16)), [4]).network.graphs[0]
    x, w = (qparams_of(graph.tensors[name]).scale for name in graph.nodes[0].inputs[:2])
    products = np.array(x) * np.array(w)
    np.testing.assert_array_equal(products, products.astype(np.float32))


def test_scales_that_lead_to_other_multipliers_are_refused() -> None:
    b = Builder()
    program = of(b.build(b.conv(b.input(4, 4, 2), 3)))
    graph = program.network.graphs[0]
    name = graph.nodes[0].inputs[3]
    tensor = graph.tensors[name]
    changed = replace(tensor, data=graph.constant(name) + np.array([0, 1, 0], np.int32))
    with pytest.raises(GraphError, match=r"conv_1: TFLite derives .* channel 1; the network has"):
        tflite.build(
            with_network(program, replace(graph, tensors={**graph.tensors, name: changed}))
        )


def test_a_fully_connected_layer_of_one_channel_has_one_scale() -> None:
    b = Builder()
    program = of(b.build(b.fully_connected(b.input(5), 1)))
    assert operators(program) == ["FULLY_CONNECTED"]
    assert_equal(XNNPACK, program)


# Windows #


@everywhere
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0), (2, 0, 0, 2)])
@pytest.mark.parametrize("size", [5, 6])
def test_pads_of_any_kind_are_kept(
    row: RuntimeInfo, stride: int, pads: tuple[int, int, int, int], size: int
) -> None:
    b = Builder()
    window = Window((3, 3), (stride, stride), pads)
    x = b.input(size, size, 2)
    y = b.conv(x, 4, window), b.depthwise(x, 2, window), b.max_pool(x, window)
    assert_equal(row, of(b.build(*y)))


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (Window((3, 3), (1, 1), (1, 1, 1, 1)), ["CONV_2D"]),  # SAME
        (Window((3, 3), (2, 2), (0, 0, 1, 1)), ["CONV_2D"]),  # SAME, of an even size
        (Window((3, 3)), ["CONV_2D"]),  # VALID
        (Window((2, 2), (2, 2), (0, 0, 1, 1)), ["CONV_2D"]),  # VALID: the pads are never reached
        (Window((3, 3), (2, 2), (1, 1, 1, 1)), ["PAD", "CONV_2D"]),
    ],
)
def test_only_pads_that_tflite_does_not_know_are_an_operator(
    window: Window, expected: list[str]
) -> None:
    b = Builder()
    assert operators(of(b.build(b.conv(b.input(6, 6, 2), 3, window)))) == expected


@everywhere
def test_an_average_pool_does_not_count_the_pads_of_same(row: RuntimeInfo) -> None:
    b = Builder()
    x = b.input(5, 6, 3)
    program = of(b.build(b.average_pool(x, same_window(b.shape(x), (3, 3), (2, 2)))))
    assert operators(program) == ["AVERAGE_POOL_2D"]
    assert_equal(row, program)


def test_an_average_pool_with_other_pads_is_refused() -> None:
    b = Builder()
    graph = b.build(b.average_pool(b.input(6, 6, 2), Window((3, 3), (2, 2), (1, 1, 1, 1))))
    with pytest.raises(GraphError, match=r"average_pool_1: .* pads \(1, 1, 1, 1\)") as caught:
        tflite.build(of(graph))
    assert caught.value.id == "EQ0382"


@everywhere
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_pad_keeps_its_value(row: RuntimeInfo, value: float) -> None:
    b = Builder()
    program = of(b.build(b.pad(b.input(3, 4, 2), 1, 0, 2, 0, 3, 1, value=value)))
    assert operators(program) == ["PAD" if value == 0 else "PADV2"]
    assert_equal(row, program)


# Clamps #


@pytest.mark.parametrize(
    ("clamp", "activations", "expected"),
    [
        (None, 8, ["CONV_2D"]),
        (RELU, 8, ["CONV_2D"]),
        (RELU6, 8, ["CONV_2D"]),
        ((-1.0, 1.0), 8, ["CONV_2D"]),
        (RELU, 4, ["CONV_2D", "MINIMUM"]),
        (None, 4, ["CONV_2D", "MAXIMUM", "MINIMUM"]),
    ],
)
def test_a_clamp_is_fused_where_tflite_has_it(
    clamp: Bounds | None, activations: int, expected: list[str]
) -> None:
    b = Builder()
    program = of(b.build(b.conv(b.input(4, 4, 2), 3, 1, clamp)), [8], [activations])
    assert operators(program) == expected
    assert_equal(XNNPACK, program)


@everywhere
@pytest.mark.parametrize(
    ("clamp", "expected"),
    [
        ((-20, 90), ["CONV_2D", "MAXIMUM", "MINIMUM"]),
        ((-128, 90), ["CONV_2D", "MINIMUM"]),
        ((-20, 127), ["CONV_2D", "MAXIMUM"]),
    ],
)
def test_any_integers_can_be_a_clamp(row: RuntimeInfo, clamp: Bounds, expected: list[str]) -> None:
    b = Builder()
    program = of(b.build(b.conv(b.input(4, 4, 2), 3)))
    graph = program.network.graphs[0]
    nodes = (replace(graph.nodes[0], clamp=clamp),)
    changed = with_network(program, replace(graph, nodes=nodes))
    assert operators(changed) == expected
    assert_equal(row, changed)


def test_a_pool_of_few_bits_needs_no_clamp() -> None:
    b = Builder()
    pooled = b.max_pool(b.conv(b.input(4, 4, 2), 3, 1, RELU), Window((2, 2)))
    assert operators(of(b.build(pooled), [8], [4])) == ["CONV_2D", "MINIMUM", "MAX_POOL_2D"]


@pytest.mark.parametrize("zero_point", [-128, -3, 0, 127])
@pytest.mark.parametrize("scale", [2.0**-10, 6 / 255, 0.25, 0.4])
def test_ranges_of_activations_are_tflites(scale: float, zero_point: int) -> None:
    """What a RELU6 and a RELU_N1_TO_1 let through, asked of LiteRT with a product by one."""
    y = QParams((float(np.float32(scale)),), zero_point)
    for name in ("RELU", "RELU6", "RELU_N1_TO_1"):
        low, high = tflite.activation_range(name, y)
        assert (low, high) == measured_range(name, y)


def measured_range(activation: str, y: QParams) -> Bounds:
    """The least and greatest result of an addition of zero, for all 256 values."""
    from ai_edge_litert import schema_py_generated as schema

    from edgeq.exporters.tflite_file import Writer

    b = Builder()
    graph = b.build(b.add(b.input(256, name="x"), b.input(256, name="zero")))
    names = ("x", "zero", graph.outputs[0])
    tensors = {name: replace(graph.tensors[name], qparams=y) for name in names}
    writer = Writer(schema, replace(graph, tensors=tensors))
    inputs = [writer.activation(name) for name in names[:2]]
    fused = {"fusedActivationFunction": getattr(schema.ActivationFunctionType, activation)}
    writer.operator("ADD", inputs, writer.activation(names[2]), "AddOptions", fused)
    model = writer.finish("net", {"x": "x"}, {"y": names[2]}, b"{}")
    every = np.arange(-128, 128).astype(np.int8)[None]
    (result,) = worker.RUNTIMES[LITERT_REF.name](model, None)(
        [every, np.full((1, 256), y.zero_point, np.int8)]
    )
    return int(result.min()), int(result.max())


# Tables and concatenations #


@everywhere
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.kind.value)
@pytest.mark.parametrize("activations", [8, 4])
def test_a_table_is_the_same_in_every_runtime(
    row: RuntimeInfo, function: Function, activations: int
) -> None:
    b = Builder()
    assert_equal(row, of(b.build(b.table(b.input(16, 16, 4), function, RELU6)), [8], [activations]))


def test_a_clip_is_no_gather() -> None:
    b = Builder()
    table = b.table(b.input(4, 4, 2), Function(Unary.IDENTITY), RELU)
    assert operators(of(b.build(table))) == ["MAXIMUM"]


def test_inputs_of_the_same_scale_are_joined_as_they_are() -> None:
    b = Builder()
    x = b.input(4, 4, 2)
    program = of(b.build(b.concat(b.conv(x, 2, 1), b.conv(x, 3, 1))))
    assert operators(program) == ["CONV_2D", "CONV_2D", "CONCATENATION"]


# The file #


def test_the_same_program_gives_the_same_bytes() -> None:
    b = Builder()
    graph = b.build(b.conv(b.input(4, 4, 2), 3))
    assert tflite.build(of(graph)) == tflite.build(of(graph))


def test_constants_lie_at_multiples_of_16_bytes() -> None:
    b = Builder()
    program = of(b.build(b.fully_connected(b.fully_connected(b.input(7), 5), 3)))
    data, graph = tflite.build(program), program.network.graphs[0]
    for name in graph.nodes[0].inputs[1:3]:
        content = graph.constant(name).tobytes()
        assert data.count(content) == 1
        assert data.index(content) % 16 == 0


def test_the_metadata_say_bits_by_layer() -> None:
    b = Builder()
    model = parsed(of(b.build(b.fully_connected(b.input(7), 5)), [3], [5]))
    (entry,) = model.metadata
    content = json.loads(bytes(model.buffers[entry.buffer].data))
    layer = {"op": "fully_connected", "output": "fc_1.output", "weights": 3, "activations": 5}
    assert entry.name == b"edgeq"
    assert content["layers"] == {"fc_1": layer}


def test_a_signature_names_the_inputs_as_the_source_model_does() -> None:
    example = bundled.load("fashion-tiny")
    (signature,) = parsed(example.compile("w8a8").program).signatureDefs
    assert [entry.name for entry in signature.inputs] == [b"x"]


def test_weights_are_integers_of_the_bits_that_the_policy_gave() -> None:
    b = Builder()
    model = parsed(of(b.build(b.conv(b.input(4, 4, 2), 3)), [3]))
    (weights,) = [t for t in model.subgraphs[0].tensors if t.name == b"conv_1.weights"]
    stored = np.asarray(model.buffers[weights.buffer].data).view(np.int8)
    assert (stored.min(), stored.max()) == (-4, 3)


def test_without_the_schema_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    b = Builder()
    program = of(b.build(b.conv(b.input(4, 4, 2), 3)))
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingToolError, match=r'install "edgeq\[tflite\]"') as caught:
        tflite.export(program, tmp_path / "net.tflite")
    assert caught.value.id == "EQ0621"
    assert not list(tmp_path.iterdir())


def test_a_network_of_blocks_is_refused() -> None:
    b = Builder()
    program = of(b.build(b.conv(b.conv(b.input(4, 4, 2), 3), 3)))
    network = in_blocks(program.network.graphs[0], [1], 2)
    with pytest.raises(GraphError, match="one block at one level") as caught:
        tflite.build(replace(program, network=network))
    assert caught.value.id == "EQ0381"


def test_the_runner_of_a_build_gives_the_outputs_of_xnnpack(tmp_path: Path) -> None:
    example = bundled.load("fashion-tiny")
    program = example.compile("w4a8").program
    tflite.export(program, tmp_path / "net.tflite")
    python_runner.export(program, tmp_path)
    raw = bundled.images().raw[:SAMPLES]
    np.savez(tmp_path / "samples.npz", x=np.moveaxis(raw, -1, 1))
    command = [sys.executable, "run.py", "net.tflite", "samples.npz", "-o", "outputs.npz"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (port,), (tensor,) = program.outputs, program.network.outputs
    (expected,) = parity.predict(
        program, bundled.images().inputs(program, SAMPLES), Rounding.XNNPACK
    )
    with np.load(tmp_path / "outputs.npz") as archive:
        real = qparams_of(tensor).dequantize(expected).astype(np.float32)
        np.testing.assert_array_equal(archive[port.name], real)
