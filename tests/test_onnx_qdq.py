"""The ONNX artefact: what onnxruntime computes of it, how it is fused, what stands in the file."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import bundled
import numpy as np
import onnx
import pytest
from graphs import RELU, Builder, graphs, in_blocks
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from test_parity import drawn, integers, program_of
from test_reference import needs_fma

from edgeq import parity, reference, targets
from edgeq.errors import GraphError
from edgeq.exporters import onnx_layers, onnx_qdq, onnx_runner, run
from edgeq.frontends import Port
from edgeq.ir import Array, Function, Graph, Op, QParams, Unary, Window, single
from edgeq.ops import OPS
from edgeq.program import Program
from edgeq.reference import Rounding
from edgeq.report import Verdict

GRAPHS = 30
NIGHTLY_GRAPHS = 300
IMAGES, FEW = 1_000, 100
TRACED = 32  # samples whose every layer is compared
FUSED = {"QLinearConv": 9, "QLinearAdd": 3, "QGemm": 1}  # of fashion-resnet8
FLOAT = {"Conv", "Gemm", "MatMul", "Add", "FusedConv", "AveragePool"}

weights = st.lists(st.integers(2, 8), min_size=1, max_size=6)
activations = st.lists(st.integers(2, 8), min_size=1, max_size=4)
examples = pytest.mark.parametrize("name", ["fashion-tiny", "fashion-resnet8"])
policies = pytest.mark.parametrize("policy", ["shipped", "w8a8", "w4a4"])

Write = Callable[[Program], Path]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Writes a program as ONNX; its path."""

    def write(program: Program) -> Path:
        path = tmp_path / "net.onnx"
        onnx_qdq.export(program, path)
        return path

    return write


def example(name: str, policy: str, target: str = "edge") -> Program:
    found = bundled.load(name)
    chosen = found.policy if policy == "shipped" else policy
    return found.compile(chosen, targets.load(target)).program


def by_rule(program: Program, inputs: dict[str, Array]) -> parity.Expectation:
    """What onnxruntime is held to."""
    return parity.expect(program, inputs, Rounding.FLOAT32)


def assert_exact(program: Program, path: Path, inputs: dict[str, Array]) -> None:
    """Every output, and every layer of the first samples, as the float32 rule has it."""
    runner = onnx_runner.Runner(program, path)
    row = parity.compare_executor(program, runner, by_rule(program, inputs))
    assert (row.verdict, row.mismatches, row.max_lsb) == (Verdict.EXACT, 0, 0), row
    assert row.rule == "float32"
    first = {name: values[:TRACED] for name, values in inputs.items()}
    expected = reference.run(program.network, first, Rounding.FLOAT32)
    nodes = program.network.graphs[0].nodes
    traced = runner.trace(first)
    assert set(traced) == {node.output for node in nodes if node.op is not Op.RESHAPE}
    for name, values in traced.items():
        assert np.array_equal(values, expected[name]), name


def kernels(path: Path) -> Counter[str]:
    """How often each operator stands in what onnxruntime makes of the file by default."""
    optimized = path.with_suffix(".optimized.onnx")
    onnx_runner.session(path.read_bytes(), optimized)
    return operators(optimized)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def program(graph: Graph, bits: Iterable[int] = (8,), out: Iterable[int] = (8,)) -> Program:
    return program_of(graph, list(bits), "flash", (), list(out))


# What it computes


def assert_exported_exact(folders: pytest.TempPathFactory, made: Program) -> None:
    path = folders.mktemp("onnx") / "net.onnx"
    onnx_qdq.export(made, path)
    assert_exact(made, path, integers(made))


@needs_fma
@drawn(GRAPHS)
@given(graphs(), weights, activations)
def test_onnxruntime_computes_what_the_float32_rule_says(
    tmp_path_factory: pytest.TempPathFactory, graph: Graph, bits: list[int], out: list[int]
) -> None:
    assert_exported_exact(tmp_path_factory, program(graph, bits, out))


@needs_fma
@pytest.mark.nightly
@drawn(NIGHTLY_GRAPHS)
@given(graphs(10), weights, activations)
def test_onnxruntime_computes_what_the_float32_rule_says_of_many(
    tmp_path_factory: pytest.TempPathFactory, graph: Graph, bits: list[int], out: list[int]
) -> None:
    assert_exported_exact(tmp_path_factory, program(graph, bits, out))


@needs_fma
@pytest.mark.parametrize(("policy", "images"), [("shipped", IMAGES), ("w8a8", FEW), ("w4a4", FEW)])
@examples
def test_an_example_is_exact(written: Write, name: str, policy: str, images: int) -> None:
    made = example(name, policy)
    assert_exact(made, written(made), bundled.images().inputs(made, images))


@needs_fma
@pytest.mark.nightly
@policies
@examples
def test_an_example_is_exact_on_all_images(written: Write, name: str, policy: str) -> None:
    made = example(name, policy)
    row = parity.compare_executor(
        made,
        onnx_runner.Runner(made, written(made)),
        by_rule(made, bundled.images().inputs(made)),
    )
    assert row.verdict is Verdict.EXACT


def test_every_operator_of_the_device_is_written() -> None:
    assert set(onnx_layers.WRITERS) == {op for op, info in OPS.items() if info.device}


@pytest.mark.parametrize("size", [(2, 7), (13, 2), (6, 5), (4, 4), (2, 1)])
def test_every_tie_of_an_average_goes_to_even(written: Write, size: tuple[int, int]) -> None:
    b = Builder()
    made = program(b.build(b.global_average_pool(b.input(*size, 255))))
    below = np.arange(-128, 127)
    values = np.tile(below, (*size, 1))
    values.reshape(-1, 255)[::2] += 1  # half of them: the mean lies in the middle
    name = made.network.inputs[0].name
    assert_exact(made, written(made), {name: values[None].astype(np.int8)})


def test_the_averages_that_a_reciprocal_gets_wrong_are_known() -> None:
    wrong = [count for count in range(1, 50) if not onnx_layers._has_reciprocal(count)]
    assert wrong == [14, 26, 28, 30] + [c for c in wrong if c > 30]


def test_windows_over_the_edge_are_divided_by_what_they_see(written: Write) -> None:
    b = Builder()
    x = b.average_pool(b.input(9, 9, 4), Window((5, 6), (1, 1), (2, 3, 2, 2)))
    made = program(b.build(x))
    assert {"Div", "Round"} <= set(operators(written(made)))
    assert_exact(made, written(made), integers(made))


@pytest.mark.parametrize("name", ["unit", "scale", "x.q"])
def test_no_tensor_takes_the_name_of_another(written: Write, name: str) -> None:
    b = Builder()
    x = b.conv(b.input(7, 7, 3, name=name), 4, clamp=RELU)
    made = program(b.build(b.softmax(b.flatten(b.global_average_pool(x)))))
    assert_exact(made, written(made), integers(made))


@pytest.mark.parametrize("classes", [1, 2, 10, 512])
def test_a_softmax_is_that_of_float64(written: Write, classes: int) -> None:
    b = Builder()
    made = program(b.build(b.softmax(b.input(classes))))
    values = np.random.default_rng(0).integers(-128, 128, (4000, classes)).astype(np.int8)
    values[0] = 5
    assert_exact(made, written(made), {made.network.inputs[0].name: values})


@pytest.mark.parametrize("op", ["Softmax", "GlobalAveragePool"])
def test_onnxruntimes_own_kernels_are_a_step_off_now_and_then(op: str) -> None:
    """Why neither is exported as it is: this is the difference that would remain."""
    shape = (2000, 10) if op == "Softmax" else (2000, 8, 7, 7)
    scales = (0.05, 1 / 256) if op == "Softmax" else (0.0417, 0.0417)
    zeros = (128, 0) if op == "Softmax" else (3, 3)
    x = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "xs", "xz"], ["r"]),
        helper.make_node(op, ["r"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "ys", "yz"], ["y"]),
    ]
    constants = {
        name: np.asarray(value)
        for name, value in zip(
            ("xs", "ys", "xz", "yz"), (*map(np.float32, scales), *map(np.uint8, zeros)), strict=True
        )
    }
    infos = [helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in "xy"]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    opsets = [helper.make_opsetid("", onnx_qdq.OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=onnx_qdq.IR_VERSION)
    (got,) = onnx_runner.session(model.SerializeToString()).run(None, {"x": x})
    if op == "Softmax":
        powers = np.exp((x - 255.0) * scales[0])
        ideal = np.minimum(np.rint(256 * powers / powers.sum(axis=1, keepdims=True)), 255)
    else:
        ideal = np.rint(x.astype(np.float64).sum(axis=(2, 3), keepdims=True) / 49)
    difference = np.abs(got - ideal)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.1


# How it is fused


@policies
def test_every_layer_of_the_example_is_an_integer_kernel(written: Write, policy: str) -> None:
    found = kernels(written(example("fashion-resnet8", policy)))
    assert {name: found[name] for name in FUSED} == FUSED
    assert not FLOAT & set(found)
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1)  # input and output


def test_depthwise_and_grouped_layers_are_integer_kernels(written: Write) -> None:
    b = Builder()
    x = b.depthwise(b.input(8, 8, 4), 2, clamp=RELU)
    x = b.grouped(x, 2, 8, clamp=(0.0, 6.0))
    found = kernels(written(program(b.build(x), [3, 8], [8, 5])))
    assert found["QLinearConv"] == 2
    assert not FLOAT & set(found)


def test_a_relu_is_no_node(written: Write) -> None:
    b = Builder()
    made = program(b.build(b.conv(b.input(8, 8, 3), 4, clamp=RELU)))
    assert not {"Relu", "Clip"} & set(operators(written(made)))


def test_fewer_bits_are_a_clip_between_q_and_dq(written: Write) -> None:
    b = Builder()
    made = program(b.build(b.conv(b.input(8, 8, 3), 4)), out=[4])
    nodes = {node.output[0]: node for node in onnx.load(written(made)).graph.node}
    clip = nodes["conv_1.output/q"]
    assert (clip.op_type, nodes[clip.input[0]].op_type) == ("Clip", "QuantizeLinear")


# What stands in the file


def test_inputs_and_outputs_are_the_models_own(written: Write) -> None:
    found = bundled.load("fashion-resnet8")
    path = written(example("fashion-resnet8", "w8a8"))
    session = onnx_runner.session(path.read_bytes())
    source = onnx.load(found.folder / "model.onnx").graph
    assert [port.name for port in session.get_inputs()] == [port.name for port in source.input]
    assert [port.name for port in session.get_outputs()] == [port.name for port in source.output]
    assert session.get_inputs()[0].shape == ["batch", 1, 28, 28]
    assert "Transpose" not in operators(path)


def test_images_with_channels_last_are_turned_once(written: Write) -> None:
    b = Builder()
    x = b.conv(b.conv(b.input(6, 6, 3), 4), 4)
    assert operators(written(program(b.build(x))))["Transpose"] == 2  # input and output


def test_images_with_channels_first_are_not_turned(written: Write) -> None:
    b = Builder()
    made = program(b.build(b.conv(b.conv(b.input(6, 5, 3), 4), 4)))
    first, last = made.inputs[0], made.outputs[0]
    there = Port("image", first.port.tensor, (1, 3, 6, 5), "NCHW")
    back = Port("map", last.tensor, (1, 4, 6, 5), "NCHW")
    moved = replace(made, inputs=(replace(first, port=there),), outputs=(back,))
    path = written(moved)
    assert "Transpose" not in operators(path)
    (output,) = onnx_runner.session(path.read_bytes()).get_outputs()
    assert (output.name, output.shape) == ("map", ["batch", 4, 6, 5])
    assert_exact(moved, path, integers(moved))


def flattened(read: Callable[[Builder, str], str]) -> Graph:
    b = Builder()
    return b.build(read(b, b.flatten(b.conv(b.input(6, 5, 3), 4))))


@pytest.mark.parametrize(
    ("read", "turned"),
    [
        (lambda b, x: b.fully_connected(x, 7), 1),
        (lambda b, x: b.concat(b.fully_connected(x, 7), b.fully_connected(x, 3), 1), 1),
        (lambda b, x: b.fully_connected(b.table(x, Function(Unary.TANH)), 7), 2),
        (lambda b, x: x, 2),
    ],
    ids=["fc", "two", "function", "output"],
)
def test_a_flattened_image_moves_columns_where_it_can(
    written: Write, read: Callable[[Builder, str], str], turned: int
) -> None:
    made = program(flattened(read))
    assert operators(written(made))["Transpose"] == turned  # one is the input's
    assert_exact(made, written(made), integers(made))


@pytest.mark.parametrize("shape", [(1, 1, 12), (2, 3, 2), (12, 1, 1)])
def test_a_vector_becomes_an_image(written: Write, shape: tuple[int, ...]) -> None:
    b = Builder()
    made = program(b.build(b.reshape(b.fully_connected(b.input(5), 12), *shape)))
    assert_exact(made, written(made), integers(made))


def test_the_same_program_gives_the_same_bytes(written: Write) -> None:
    made = example("fashion-tiny", "shipped")
    assert written(made).read_bytes() == written(made).read_bytes()


def test_no_path_and_no_date_stand_in_the_file(written: Write) -> None:
    data = written(example("fashion-tiny", "shipped")).read_bytes()
    assert str(Path.home()).encode() not in data
    assert str(bundled.load("fashion-tiny").folder).encode() not in data
    assert not onnx.load_from_string(data).doc_string


def test_every_layer_says_its_bits(written: Write) -> None:
    model = onnx.load(written(example("fashion-resnet8", "shipped")))
    layers = {node.name: {p.key: p.value for p in node.metadata_props} for node in model.graph.node}
    assert layers["stack3.conv2"]["edgeq.weight_bits"] == "3"
    assert layers["stack3.conv2"]["edgeq.activation_bits"] == "8"
    assert float(layers["stack1.add"]["edgeq.scale"]) > 0
    properties = {p.key: p.value for p in model.metadata_props}
    named = {name: known for name, known in layers.items() if known}
    assert {
        layer: {f"edgeq.{key}": value for key, value in known.items()}
        for layer, known in json.loads(properties["edgeq.layers"]).items()
    } == named
    assert properties["edgeq.target"] == "edge"


def initializer_types(path: Path) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("bits", range(2, 8))
def test_fewer_bits_are_a_part_of_int8(written: Write, bits: int) -> None:
    path = written(example("fashion-tiny", f"w{bits}a8"))
    types = {TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32}
    assert initializer_types(path) <= types | {TensorProto.INT64}
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    weights = [array for array in tensors.values() if array.dtype == np.int8 and array.ndim > 1]
    assert weights
    assert max(np.abs(array.astype(int)).max() for array in weights) <= 1 << (bits - 1)


@needs_fma
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_up_to_four_bits_are_int4_where_the_target_says_so(written: Write, bits: int) -> None:
    plain = len(written(example("fashion-resnet8", f"w{bits}a8")).read_bytes())
    made = example("fashion-resnet8", f"w{bits}a8", "edge-int4")
    path = written(made)
    assert TensorProto.INT4 in initializer_types(path)
    assert path.stat().st_size < 0.7 * plain
    found = kernels(path)
    assert {name: found[name] for name in FUSED} == FUSED
    assert_exact(made, path, bundled.images().inputs(made, 20))


def test_more_bits_than_four_stay_int8_on_every_target(written: Write) -> None:
    path = written(example("fashion-tiny", "w5a8", "edge-int4"))
    assert TensorProto.INT4 not in initializer_types(path)


def test_activations_of_16_bits_are_refused() -> None:
    b = Builder()
    made = program(b.build(b.conv(b.input(6, 6, 3), 4)))
    graph = made.network.graphs[0]
    wide = replace(graph.tensors["conv_1.output"], qparams=QParams((0.1,), 0, 16))
    network = single(replace(graph, tensors={**graph.tensors, wide.name: wide}))
    with pytest.raises(GraphError, match=r"EQ0347: conv_1\.output has 16 bits"):
        onnx_qdq.model(replace(made, network=network))


def test_levels_are_refused(written: Write) -> None:
    b = Builder()
    made = program(b.build(b.conv(b.conv(b.input(6, 6, 3), 4), 4)))
    chain = in_blocks(made.network.graphs[0], [1], 2)
    with pytest.raises(GraphError, match="EQ0346: block_1 has 2 levels"):
        onnx_qdq.model(replace(made, network=chain))


def test_blocks_of_one_level_are_one_model(written: Write) -> None:
    b = Builder()
    made = program(b.build(b.conv(b.conv(b.input(6, 6, 3), 4), 4)))
    chain = replace(made, network=in_blocks(made.network.graphs[0], [1], 1))
    values = integers(made)
    got = onnx_runner.Runner(chain, written(chain)).run(values)
    expected = parity.predict(made, values, Rounding.FLOAT32)
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


# A difference is found


def test_the_first_layer_that_differs_is_named(written: Write) -> None:
    made = example("fashion-tiny", "w8a8")
    path = written(made)
    names = [n.name for n in made.network.graphs[0].nodes if OPS[n.op].weighted]
    model = onnx.load(path)
    (bias,) = (t for t in model.graph.initializer if t.name == f"{names[2]}.bias/q")
    moved = numpy_helper.to_array(bias) + np.int32(4000)
    bias.CopyFrom(numpy_helper.from_array(moved, bias.name))
    path.write_bytes(model.SerializeToString())
    row = parity.compare_executor(
        made,
        onnx_runner.Runner(made, path),
        by_rule(made, bundled.images().inputs(made, 4)),
    )
    assert (row.verdict, row.first_diverging_layer) == (Verdict.DIFFERS, names[2])
    assert row.mismatches and row.max_lsb


# The runner of a build


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the tiny example for an edge box, unchecked."""
    out = tmp_path_factory.mktemp("edge") / "build"
    return bundled.load("fashion-tiny").export(out, target="edge", check="none").folder


def ran(build: Path, *arguments: str) -> str:
    command = [sys.executable, str(build / "run.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_runner_counts_hits_on_raw_bytes(build: Path, tmp_path: Path) -> None:
    found = bundled.load("fashion-tiny")
    made = found.compile(found.policy, targets.load("edge")).program
    out = tmp_path / "out.npz"
    shown = ran(build, str(build / "model.onnx"), str(found.folder / "test.npz"), "-o", str(out))
    with np.load(found.folder / "test.npz") as archive:
        raw, labels = np.moveaxis(archive["x"], 1, -1), archive["y"]
    inputs = {port.tensor.name: port.quantize(raw) for port in made.inputs}
    (expected,) = parity.predict(made, inputs, Rounding.FLOAT32)
    with np.load(out) as archive:
        (got,) = archive.values()
    tensor = made.network.outputs[0]
    assert tensor.qparams is not None
    assert np.array_equal(tensor.qparams.quantize(got), expected)
    hits = int((got.argmax(axis=1) == labels).sum())
    assert shown.startswith(f"{hits} of {len(labels)} samples at their label")


def test_the_runner_names_a_file_that_is_not_there(build: Path) -> None:
    command = [sys.executable, str(build / "run.py"), "none.onnx", "none.npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (1, "none.onnx: no such file")


def test_the_runner_speaks_old_python() -> None:
    ast.parse(Path(run.__file__).read_text("utf-8"), feature_version=(3, 9))


def test_the_runner_takes_reals_by_any_name() -> None:
    reals = np.zeros((2, 3), np.float64)
    facts = {"inputs": {"image": {"axis": 1, "reals": None}}}
    found = run.read({"x": reals}, facts)
    assert (list(found), found["image"].dtype) == (["image"], np.float32)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"z": np.zeros((1, 2), np.float32)}, "no array image; there are z"),
        ({"x": np.zeros((1, 2), np.uint8)}, "image: raw bytes, but the export was not told"),
    ],
)
def test_the_runner_says_what_it_lacks(arrays: dict[str, Array], says: str) -> None:
    with pytest.raises(SystemExit, match=says):
        run.read(arrays, {"inputs": {"image": {"axis": 1, "reals": None}}})


def test_the_runner_says_what_it_runs() -> None:
    with pytest.raises(SystemExit, match=r"net\.txt: this runs \.onnx"):
        run.load(Path("net.txt"), {})


@pytest.mark.parametrize("axis", [1, 2])
def test_bytes_mean_what_their_channel_says(axis: int) -> None:
    table = np.arange(3)[:, None] * 1000 + np.arange(256)[None]
    samples = np.random.default_rng(0).integers(0, 256, (4, 3, 3)).astype(np.uint8)
    got = run.from_bytes(samples, axis, table)
    for index, value in np.ndenumerate(samples):
        assert got[index] == 1000 * index[axis] + int(value)
