"""ONNX files in, float graphs out: equal to onnxruntime on the same file, or refused by name."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq import floatrun, frontends, passes
from edgeq.errors import EdgeqError, ModelError, UsageError
from edgeq.ir import Op

# Both sides compute in float32 and differ in the order of sums of up to about 100 products of
# magnitude 1: 100 · 2⁻²⁴ ≈ 6e-6, with a margin of 3.
ATOL = 2e-5

EXAMPLES = Path(__file__).parents[1] / "examples"
Array = np.ndarray[Any, Any]
X = (1, 4, 7, 6)  # every side differs, so that a swapped axis shows


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    name = attributes.pop("name", f"{op}_{output}")
    return helper.make_node(op, inputs, [output], name=name, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array] | None = None,
    inputs: Mapping[str, Sequence[int | str | None]] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (inputs or {"x": X}).items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def load(folder: Path, proto: onnx.ModelProto, **shapes: tuple[int, ...]) -> frontends.Source:
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return frontends.load(path, shapes)


def assert_agrees(folder: Path, proto: onnx.ModelProto) -> frontends.Source:
    """The graph, as read and after the passes, computes what onnxruntime computes of the file."""
    source = load(folder, proto)
    feeds = {p.name: weights(*p.shape, seed=n + 7) for n, p in enumerate(source.inputs)}
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run([p.name for p in source.outputs], feeds)
    inputs = {p.tensor: p.to_graph(feeds[p.name]) for p in source.inputs}
    for graph in (source.graph, passes.run(source.graph)):
        results = floatrun.run(graph, inputs)
        for port, array in zip(source.outputs, expected, strict=True):
            result = port.to_source(results[port.tensor])
            assert result.shape == array.shape
            np.testing.assert_allclose(result, array, rtol=0, atol=ATOL)
    return source


def refusal(folder: Path, proto: onnx.ModelProto, id: str, **shapes: tuple[int, ...]) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder, proto, **shapes)
    assert caught.value.id == id
    return caught.value.message


def conv(
    shape: tuple[int, ...] = (5, 4, 3, 3), *, bias: bool = True, **attributes: Any
) -> onnx.ModelProto:
    constants = {"c.weight": weights(*shape)} | ({"c.bias": weights(shape[0])} if bias else {})
    return model([node("Conv", ["x", *constants], "y", **attributes)], constants)


# Convolutions #


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 2, 1, 0], "strides": [2, 1]},
        {"pads": [2, 1, 2, 1], "dilations": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
        {"kernel_shape": [3, 3], "group": 1, "auto_pad": "NOTSET"},
    ],
    ids=str,
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_agrees(tmp_path: Path, attributes: dict[str, Any], bias: bool) -> None:
    source = assert_agrees(tmp_path, conv(bias=bias, **attributes))
    assert [n.op for n in source.graph.nodes] == [Op.CONV_2D]


@pytest.mark.parametrize("multiplier", [1, 3])
def test_a_depthwise_convolution_agrees(tmp_path: Path, multiplier: int) -> None:
    proto = conv((4 * multiplier, 1, 3, 2), group=4, pads=[1, 0, 0, 1], strides=[2, 1])
    source = assert_agrees(tmp_path, proto)
    assert [n.op for n in source.graph.nodes] == [Op.DEPTHWISE_CONV_2D]


def test_a_constant_added_after_a_convolution_is_its_bias(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], "c"), node("Add", ["b", "c"], "y")]
    proto = model(nodes, {"w": weights(5, 4, 1, 1), "b": weights(5, 1, 1)})
    assert len(assert_agrees(tmp_path, proto).graph.nodes) == 1


def test_weights_that_two_layers_share_are_read_for_each(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], "c"), node("Conv", ["c", "w"], "y")]
    assert_agrees(tmp_path, model(nodes, {"w": weights(4, 4, 3, 3) / 4}))


# Fully connected #


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [(5,), (1, 5), (1,), ()])
def test_a_gemm_agrees(tmp_path: Path, transposed: int, bias: tuple[int, ...]) -> None:
    constants = {"w": weights(*((5, 9) if transposed else (9, 5))), "b": weights(*bias)}
    fc = node("Gemm", ["x", "w", "b"], "y", transB=transposed, alpha=0.5, beta=2.0)
    assert_agrees(tmp_path, model([fc], constants, {"x": (1, 9)}))


def test_a_matmul_takes_the_vector_added_to_it_as_its_bias(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"], "y")]
    proto = model(nodes, {"w": weights(9, 5), "b": weights(5)}, {"x": (1, 9)})
    source = assert_agrees(tmp_path, proto)
    assert [n.op for n in source.graph.nodes] == [Op.FULLY_CONNECTED]


def test_transposed_and_cast_weights_are_computed_on_reading(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", ["w16"], "t", perm=[1, 0]),
        node("Cast", ["t"], "w", to=TensorProto.FLOAT),
        node("MatMul", ["x", "w"], "y"),
    ]
    constants = {"w16": weights(5, 9).astype(np.float16)}
    assert_agrees(tmp_path, model(nodes, constants, {"x": (1, 9)}))


# Element order #

FLATTEN: dict[str, tuple[list[onnx.NodeProto], dict[str, Array]]] = {
    "flatten": ([node("Flatten", ["x"], "f", axis=1)], {}),
    "negative axis": ([node("Flatten", ["x"], "f", axis=-3)], {}),
    "reshape": ([node("Reshape", ["x", "s"], "f")], {"s": np.array([1, -1])}),
    "reshape copies": ([node("Reshape", ["x", "s"], "f")], {"s": np.array([0, 168])}),
    "torch view": (
        [
            node("Shape", ["x"], "s"),
            helper.make_node("Constant", [], ["zero"], value_int=0),
            helper.make_node("Constant", [], ["axes"], value_ints=[0]),
            node("Gather", ["s", "zero"], "n", axis=0),
            node("Unsqueeze", ["n", "axes"], "n1"),
            node("Concat", ["n1", "rest"], "shape", axis=0),
            node("Cast", ["shape"], "cast", to=TensorProto.INT64),
            node("Reshape", ["x", "cast"], "f"),
        ],
        {"rest": np.array([-1])},
    ),
    "torch size by slice": (
        [
            node("Shape", ["x"], "s", end=1),
            node("Concat", ["s", "rest"], "shape", axis=0),
            node("Reshape", ["x", "shape"], "f"),
        ],
        {"rest": np.array([-1])},
    ),
}


@pytest.mark.parametrize("how", FLATTEN)
def test_a_flattened_image_feeds_a_layer_in_the_graphs_order(tmp_path: Path, how: str) -> None:
    nodes, constants = FLATTEN[how]
    fc = node("Gemm", ["f", "w"], "y", transB=1)
    source = assert_agrees(tmp_path, model([*nodes, fc], {"w": weights(5, 168), **constants}))
    assert [n.op for n in source.graph.nodes] == [Op.RESHAPE, Op.FULLY_CONNECTED]


def test_order_insensitive_operators_pass_the_order_on(tmp_path: Path) -> None:
    norm = {name: weights(168, seed=n) ** 2 for n, name in enumerate("smbv")}
    nodes = [
        node("Relu", ["x"], "r"),
        node("Flatten", ["x"], "f"),
        node("Flatten", ["r"], "g"),
        node("Identity", ["g"], "i"),
        node("Add", ["f", "i"], "a"),
        node("Clip", ["a", "low"], "c"),
        node("BatchNormalization", ["c", *"smbv"], "n"),
        node("MatMul", ["n", "w"], "y"),
    ]
    proto = model(nodes, {"w": weights(168, 5) / 50, "low": scalar(-1), **norm})
    source = load(tmp_path, proto)
    x = weights(*X)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    result = floatrun.run(source.graph, {"x": source.inputs[0].to_graph(x)})["y"]
    np.testing.assert_allclose(result, session.run(None, {"x": x})[0], rtol=0, atol=ATOL)


def test_a_vector_of_one_channel_may_become_an_image(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "s"], "i"), node("Conv", ["i", "w"], "y")]
    proto = model(nodes, {"s": np.array([1, 1, 6, 4]), "w": weights(3, 1, 3, 3)}, {"x": (1, 24)})
    assert_agrees(tmp_path, proto)


def test_a_vector_may_become_an_image_of_one_pixel_and_back(tmp_path: Path) -> None:
    nodes = [
        node("Unsqueeze", ["x", "a"], "i"),
        node("Conv", ["i", "w"], "c"),
        node("Squeeze", ["c", "a"], "y"),
    ]
    constants = {"a": np.array([2, -1]), "w": weights(3, 8, 1, 1)}
    assert_agrees(tmp_path, model(nodes, constants, {"x": (1, 8)}))


def test_a_reshape_that_mixes_channels_and_pixels_is_refused(tmp_path: Path) -> None:
    proto = model([node("Reshape", ["x", "s"], "y")], {"s": np.array([1, 7, 4, 6])})
    assert "mixes channels and pixels" in refusal(tmp_path, proto, "EQ0315")


@pytest.mark.parametrize("last", ["Softmax", "Relu"])
def test_a_flattened_image_is_refused_where_its_order_shows(tmp_path: Path, last: str) -> None:
    proto = model([node("Flatten", ["x"], "f"), node(last, ["f"], "y")])
    assert "flattened image" in refusal(tmp_path, proto, "EQ0315")


# Pools #


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 3]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 0]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 0, 1], "ceil_mode": 1},
        {"kernel_shape": [1, 1], "strides": [4, 4], "ceil_mode": 1},
    ],
    ids=str,
)
def test_a_pool_agrees(tmp_path: Path, op: str, attributes: dict[str, Any]) -> None:
    assert_agrees(tmp_path, model([node(op, ["x"], "y", **attributes)]))


def test_a_max_pool_may_have_a_storage_order(tmp_path: Path) -> None:
    pool = node("MaxPool", ["x"], "y", kernel_shape=[2, 2], storage_order=1)
    assert_agrees(tmp_path, model([pool]))


def test_count_include_pad_without_pads_changes_nothing(tmp_path: Path) -> None:
    pool = node("AveragePool", ["x"], "y", kernel_shape=[2, 2], count_include_pad=1)
    assert_agrees(tmp_path, model([pool]))


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_a_global_pool_agrees(tmp_path: Path, op: str) -> None:
    assert_agrees(tmp_path, model([node(op, ["x"], "y")]))


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
@pytest.mark.parametrize("opset", [13, 18])
def test_a_mean_over_height_and_width_agrees(
    tmp_path: Path, keepdims: int, axes: list[int], opset: int
) -> None:
    if opset == 13:
        mean, constants = node("ReduceMean", ["x"], "y", axes=axes, keepdims=keepdims), {}
    else:
        mean = node("ReduceMean", ["x", "axes"], "y", keepdims=keepdims)
        constants = {"axes": np.array(axes)}
    assert_agrees(tmp_path, model([mean], constants, opset=opset))


# The rest #


def test_a_residual_block_agrees(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], "a", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", *"smbv"], "n", epsilon=1e-3),
        node("Relu", ["n"], "r"),
        node("Conv", ["r", "u", "ub"], "c"),
        node("Add", ["c", "x"], "sum"),
        node("Clip", ["sum", "zero", "six"], "y"),
    ]
    norm = {name: weights(4, seed=n) ** 2 for n, name in enumerate("smbv")}
    layers = {"w": weights(4, 4, 3, 3), "u": weights(4, 4, 1, 1), "ub": weights(4)}
    bounds = {"zero": scalar(0), "six": scalar(6)}
    source = assert_agrees(tmp_path, model(nodes, {**norm, **layers, **bounds}))
    graph = passes.run(source.graph)
    assert [n.op for n in graph.nodes] == [Op.CONV_2D, Op.CONV_2D, Op.ADD]
    assert [n.clamp for n in graph.nodes] == [(0.0, np.inf), None, (0.0, 6.0)]


@pytest.mark.parametrize("opset", [7, 9, 13, 18])
def test_a_small_network_agrees_in_every_opset(tmp_path: Path, opset: int) -> None:
    modern = opset >= 11
    clip = (
        node("Clip", ["c", "", "six"], "k")
        if modern
        else node("Clip", ["c"], "k", min=-1.0, max=6.0)
    )
    nodes = [
        node("Conv", ["x", "w"], "c"),
        clip,
        node("Dropout", ["k"], "d"),
        node("GlobalAveragePool", ["d"], "p"),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "v", "b"], "g", transB=1),
        node("Softmax", ["g"], "y"),
    ]
    constants = {"w": weights(3, 4, 3, 3), "v": weights(5, 3), "b": weights(5)}
    constants |= {"six": scalar(6)} if modern else {}
    assert_agrees(tmp_path, model(nodes, constants, opset=opset))


def test_several_inputs_and_outputs_keep_names_and_order(tmp_path: Path) -> None:
    nodes = [
        node("Add", ["in:0", "b"], "sum"),
        node("GlobalAveragePool", ["sum"], "out/1"),
        node("Identity", ["sum"], "out/0"),
    ]
    proto = model(nodes, inputs={"b": X, "in:0": X}, outputs=["out/0", "out/1"])
    source = assert_agrees(tmp_path, proto)
    assert [p.name for p in source.inputs] == ["b", "in:0"]
    assert [p.name for p in source.outputs] == ["out/0", "out/1"]
    assert source.graph.outputs == ("out.0", "out.1")
    assert [p.layout for p in source.inputs] == ["NCHW", "NCHW"]


def test_initialisers_listed_as_inputs_are_constants(tmp_path: Path) -> None:
    proto = conv()
    proto.graph.input.append(
        helper.make_tensor_value_info("c.weight", TensorProto.FLOAT, (5, 4, 3, 3))
    )
    assert [p.name for p in assert_agrees(tmp_path, proto).inputs] == ["x"]


def test_what_no_output_needs_is_not_read(tmp_path: Path) -> None:
    proto = conv()
    proto.graph.node.append(node("Erf", ["x"], "unused"))
    assert_agrees(tmp_path, proto)


# Shaping #


def simple(op: str, constants: Mapping[str, Array] | None = None, **attributes: Any) -> Any:
    """One node on the input and its constants."""
    return model([node(op, ["x", *(constants or {})], "y", **attributes)], constants)


@pytest.mark.parametrize("groups", [(4, 8, 2), (4, 2, 2), (6, 9, 3)])
def test_a_grouped_convolution_agrees(tmp_path: Path, groups: tuple[int, int, int]) -> None:
    channels, filters, count = groups
    constants = {"w": weights(filters, channels // count, 3, 2), "b": weights(filters)}
    proto = model(
        [node("Conv", ["x", "w", "b"], "y", group=count, pads=[1, 0, 0, 1], strides=[2, 1])],
        constants,
        {"x": (1, channels, 7, 6)},
    )
    assert [n.op for n in assert_agrees(tmp_path, proto).graph.nodes] == [Op.GROUPED_CONV_2D]


PADS: dict[str, tuple[list[int], dict[str, Array]]] = {
    "all axes": ([0, 1, 2, 0, 0, 0, 1, 3], {}),
    "value": ([0, 0, 1, 1, 0, 0, 1, 1], {"v": scalar(-1.5)}),
    "some axes": ([2, 1, 0, 1], {"v": scalar(0), "axes": np.array([-1, 1])}),
}


@pytest.mark.parametrize("how", PADS)
def test_a_pad_agrees(tmp_path: Path, how: str) -> None:
    sizes, more = PADS[how]
    assert_agrees(tmp_path, simple("Pad", {"p": np.array(sizes), **more}))


def test_a_pad_of_nothing_vanishes(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], "r"), node("Pad", ["r", "p"], "y")]
    source = assert_agrees(tmp_path, model(nodes, {"p": np.array([0] * 8)}))
    assert len(passes.run(source.graph).nodes) == 1


def test_a_pad_by_attributes_agrees(tmp_path: Path) -> None:
    pad = node("Pad", ["x"], "y", mode="constant", pads=[0, 1, 0, 2, 0, 0, 1, 0], value=0.5)
    assert_agrees(tmp_path, model([pad], opset=9))


def test_a_pad_before_a_convolution_is_its_padding(tmp_path: Path) -> None:
    nodes = [node("Pad", ["x", "p"], "a"), node("Conv", ["a", "w"], "y", strides=[2, 2])]
    constants = {"p": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "w": weights(5, 4, 3, 3)}
    source = assert_agrees(tmp_path, model(nodes, constants))
    assert len(passes.run(source.graph).nodes) == 1


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_concatenation_agrees(tmp_path: Path, axis: int, count: int) -> None:
    names = ["r", "x", "x", "s"][:count]
    nodes = [node("Relu", ["x"], "r"), node("Sigmoid", ["x"], "s")]
    source = assert_agrees(tmp_path, model([*nodes, node("Concat", names, "y", axis=axis)]))
    joins = [n for n in source.graph.nodes if n.op is Op.CONCAT]
    assert len(joins) == count - 1
    assert not joins or joins[-1].name == "Concat_y"


def test_vectors_are_concatenated(tmp_path: Path) -> None:
    nodes = [node("Tanh", ["x"], "t"), node("Concat", ["x", "t"], "y", axis=-1)]
    assert_agrees(tmp_path, model(nodes, inputs={"x": (1, 5)}))


def test_concatenated_flattened_images_are_refused(tmp_path: Path) -> None:
    nodes = [node("Flatten", ["x"], "f"), node("Concat", ["f", "f"], "y", axis=1)]
    assert "joins a flattened image" in refusal(tmp_path, model(nodes), "EQ0315")


STEPS: dict[str, tuple[list[str], list[tuple[int, int]]]] = {
    "rows": (["zero", "huge", "two", "two"], [(2, 1)]),
    "both": (["zeros", "huges", "spatial", "steps"], [(2, 3)]),
    "all": (["zero", "huge", "two"], []),
    "no axes": (["none", "whole"], []),
}


@pytest.mark.parametrize("how", STEPS)
def test_a_slice_by_steps_agrees(tmp_path: Path, how: str) -> None:
    inputs, strides = STEPS[how]
    known = {
        "zero": [0], "huge": [2**63 - 1], "two": [2], "zeros": [0, -9], "huges": [7, 9],
        "spatial": [2, -1], "steps": [2, 3], "none": [0, 0], "whole": [1, 4],
    }  # fmt: skip
    constants = {name: np.array(known[name]) for name in dict.fromkeys(inputs)}
    proto = model([node("Slice", ["x", *inputs], "s"), node("Relu", ["s"], "y")], constants)
    graph = passes.run(assert_agrees(tmp_path, proto).graph)
    pools = [n.window.strides for n in graph.nodes if n.op is Op.MAX_POOL and n.window]
    assert pools == strides


def test_a_shortcut_of_a_resnet_agrees(tmp_path: Path) -> None:
    """Option A: every other pixel, zeros for new channels; sliced as PyTorch exports it."""
    known = {"zero": [0], "huge": [2**63 - 1], "two": [2], "three": [3]}
    known["p"] = [0, 2, 0, 0, 0, 2, 0, 0]
    nodes = [
        node("Conv", ["x", "w"], "c", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Slice", ["x", "zero", "huge", "two", "two"], "rows"),
        node("Slice", ["rows", "zero", "huge", "three", "two"], "pixels"),
        node("Pad", ["pixels", "p"], "s"),
        node("Add", ["c", "s"], "a"),
        node("Relu", ["a"], "y"),
    ]
    constants = {name: np.array(values) for name, values in known.items()}
    source = assert_agrees(tmp_path, model(nodes, {"w": weights(8, 4, 3, 3), **constants}))
    graph = passes.run(source.graph)
    assert [n.op for n in graph.nodes] == [Op.CONV_2D, Op.MAX_POOL, Op.PAD, Op.ADD]


# Functions of one value #

FUNCTIONS: dict[str, tuple[str, dict[str, float]]] = {
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "hard sigmoid": ("HardSigmoid", {}),
    "PyTorch's hard sigmoid": ("HardSigmoid", {"alpha": 1 / 6}),
    "hard swish": ("HardSwish", {}),
    "leaky relu": ("LeakyRelu", {}),
    "leakier relu": ("LeakyRelu", {"alpha": 0.3}),
    "relu": ("Relu", {}),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [X, (1, 9)])
def test_a_function_agrees(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    op, attributes = FUNCTIONS[name]
    proto = model([node(op, ["x"], "y", **attributes)], inputs={"x": shape})
    graph = passes.run(assert_agrees(tmp_path, proto).graph)
    assert [n.op for n in graph.nodes] == [Op.TABLE]


@pytest.mark.parametrize("gate", ["Sigmoid", "HardSigmoid"])
def test_a_tensor_times_its_gate_agrees(tmp_path: Path, gate: str) -> None:
    proto = model([node(gate, ["x"], "g"), node("Mul", ["g", "x"], "y")])
    graph = passes.run(assert_agrees(tmp_path, proto).graph)
    assert [n.op for n in graph.nodes] == [Op.TABLE]


def test_a_product_of_other_shapes_is_refused(tmp_path: Path) -> None:
    nodes = [node("GlobalAveragePool", ["x"], "g"), node("Mul", ["x", "g"], "y")]
    assert "shapes (1, 4, 7, 6) and (1, 4, 1, 1)" in refusal(tmp_path, model(nodes), "EQ0315")


# Constants #

CONSTANTS = (scalar(1.5), weights(4, 1, 1), weights(1, 4, 1, 1), weights(1, 1, 1, 1))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda c: str(c.shape))
def test_arithmetic_with_a_constant_agrees(tmp_path: Path, op: str, constant: Array) -> None:
    assert_agrees(tmp_path, simple(op, {"c": constant}))
    if op != "Div":
        assert_agrees(tmp_path, model([node(op, ["c", "x"], "y")], {"c": constant}))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_arithmetic_with_a_constant_for_a_vector_agrees(tmp_path: Path, op: str) -> None:
    proto = model([node(op, ["x", "c"], "y")], {"c": weights(5)}, {"x": (1, 5)})
    assert_agrees(tmp_path, proto)


def test_preprocessing_is_folded_into_an_unpadded_convolution(tmp_path: Path) -> None:
    nodes = [
        node("Div", ["x", "most"], "unit"),
        node("Sub", ["unit", "mean"], "centred"),
        node("Div", ["centred", "std"], "n"),
        node("Conv", ["n", "w", "b"], "y"),
    ]
    constants = {"most": scalar(2), "mean": weights(1, 4, 1, 1), "std": weights(4, 1, 1) ** 2 + 0.5}
    proto = model(nodes, {"w": weights(5, 4, 3, 3), "b": weights(5), **constants})
    graph = passes.run(assert_agrees(tmp_path, proto).graph)
    assert [n.op for n in graph.nodes] == [Op.CONV_2D]


def test_preprocessing_before_a_padded_convolution_is_one_layer(tmp_path: Path) -> None:
    nodes = [
        node("Sub", ["x", "mean"], "centred"),
        node("Div", ["centred", "std"], "n"),
        node("Conv", ["n", "w"], "y", pads=[1, 1, 1, 1]),
    ]
    constants = {"mean": weights(4, 1, 1), "std": weights(4, 1, 1) ** 2 + 0.5}
    graph = passes.run(
        assert_agrees(tmp_path, model(nodes, {"w": weights(5, 4, 3, 3), **constants})).graph
    )
    assert [n.op for n in graph.nodes] == [Op.DEPTHWISE_CONV_2D, Op.CONV_2D]


def test_a_batch_norm_after_flatten_is_folded_into_the_layer_behind_it(tmp_path: Path) -> None:
    norm = {name: weights(168, seed=n) ** 2 + 0.1 for n, name in enumerate("smbv")}
    nodes = [
        node("Relu", ["x"], "r"),
        node("Flatten", ["r"], "f"),
        node("BatchNormalization", ["f", *"smbv"], "n"),
        node("Gemm", ["n", "w"], "y", transB=1),
    ]
    source = assert_agrees(tmp_path, model(nodes, {"w": weights(5, 168) / 50, **norm}))
    ops = [n.op for n in passes.run(source.graph).nodes]
    assert ops == [Op.TABLE, Op.RESHAPE, Op.FULLY_CONNECTED]


# Layouts #

LAST = {"x": (1, 7, 6, 4)}  # NHWC
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


def test_transposes_around_a_convolution_vanish(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", ["x"], "a", perm=TO_NCHW),
        node("Conv", ["a", "w"], "c", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], "r"),
        node("Transpose", ["r"], "y", perm=TO_NHWC),
    ]
    source = assert_agrees(tmp_path, model(nodes, {"w": weights(5, 4, 3, 3)}, LAST))
    assert (source.inputs[0].layout, source.outputs[0].layout) == ("NHWC", "NHWC")
    assert source.outputs[0].shape == (1, 7, 6, 5)
    assert [n.op for n in passes.run(source.graph).nodes] == [Op.CONV_2D]


def test_an_image_is_computed_with_in_the_layout_of_tensorflow(tmp_path: Path) -> None:
    nodes = [
        node("Sub", ["x", "mean"], "centred"),
        node("Transpose", ["centred"], "a", perm=TO_NCHW),
        node("Conv", ["a", "w"], "c"),
        node("Transpose", ["c"], "t", perm=TO_NHWC),
        node("Mul", ["t", "scale"], "s"),
        node("LeakyRelu", ["s"], "r"),
        node("Concat", ["r", "t"], "j", axis=3),
        node("Pad", ["j", "p"], "padded"),
        node("ReduceMean", ["padded", "axes"], "m", keepdims=0),
        node("Reshape", ["t", "flat"], "f"),
        node("MatMul", ["f", "v"], "g"),
        node("Concat", ["m", "g"], "y", axis=1),
    ]
    constants = {
        "mean": weights(4), "w": weights(5, 4, 3, 3), "scale": weights(1, 1, 1, 5),
        "p": np.array([0, 1, 0, 2, 0, 0, 1, 0]), "axes": np.array([1, 2]),
        "flat": np.array([1, -1]), "v": weights(100, 3) / 10,
    }  # fmt: skip
    source = assert_agrees(tmp_path, model(nodes, constants, LAST))
    assert source.inputs[0].layout == "NHWC"


def test_a_vector_becomes_an_image_of_the_layout_that_its_readers_expect(tmp_path: Path) -> None:
    nodes = [
        node("Reshape", ["x", "s"], "i"),
        node("Transpose", ["i"], "a", perm=TO_NCHW),
        node("Conv", ["a", "w"], "y"),
    ]
    constants = {"s": np.array([1, 7, 6, 4]), "w": weights(5, 4, 3, 3)}
    assert_agrees(tmp_path, model(nodes, constants, {"x": (1, 168)}))


@pytest.mark.parametrize(
    ("shape", "perm"),
    [((1, 4, 1, 1), TO_NHWC), ((1, 4, 7, 1), [0, 1, 3, 2]), (X, [0, 1, 2, 3]), ((1, 5), [0, 1])],
)
def test_a_transpose_that_moves_nothing_agrees(
    tmp_path: Path, shape: tuple[int, ...], perm: list[int]
) -> None:
    nodes = [node("Relu", ["x"], "r"), node("Transpose", ["r"], "y", perm=perm)]
    assert_agrees(tmp_path, model(nodes, inputs={"x": shape}))


def test_an_operator_that_gets_the_other_layout_is_refused(tmp_path: Path) -> None:
    nodes = [node("Transpose", ["x"], "t", perm=TO_NHWC), node("GlobalMaxPool", ["t"], "y")]
    message = refusal(tmp_path, model(nodes), "EQ0315")
    assert "takes an image in NCHW and gets one in NHWC" in message


def test_shuffled_channels_are_refused(tmp_path: Path) -> None:
    nodes = [
        node("Reshape", ["x", "s"], "g"),
        node("Transpose", ["g"], "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["t", "back"], "y"),
    ]
    constants = {"s": np.array([1, 2, 2, 7, 6]), "back": np.array([1, 4, 7, 6])}
    assert "edgeq has rank 2 (1, N) and rank 4" in refusal(
        tmp_path, model(nodes, constants), "EQ0315"
    )


# Names #


def names(folder: Path, *node_names: str) -> list[str]:
    nodes, last = [], "x"
    for n, name in enumerate(node_names):
        inputs = [last, "layer1.0.weight"] if n == 0 else [last]
        nodes.append(node("Conv" if n == 0 else "Relu", inputs, f"t{n}", name=name))
        last = f"t{n}"
    proto = model(nodes, {"layer1.0.weight": weights(4, 4, 1, 1)}, outputs=[last])
    return [n.name for n in load(folder, proto).graph.nodes]


def test_layers_are_called_as_their_nodes_are(tmp_path: Path) -> None:
    assert names(tmp_path, "first", "/body/1/Relu") == ["first", "body.1.Relu"]


def test_equal_node_names_are_told_apart(tmp_path: Path) -> None:
    assert names(tmp_path, "a", "b", "b") == ["a", "b", "b_2"]


@pytest.mark.parametrize("numbered", ["", "node_conv2d"])
def test_unnamed_layers_are_called_as_their_weights_are(tmp_path: Path, numbered: str) -> None:
    assert names(tmp_path, numbered, "") == ["layer1.0", "relu_1"]


# Shapes of inputs #


def test_a_dynamic_batch_axis_becomes_one_with_a_note(tmp_path: Path) -> None:
    proto = model([node("GlobalMaxPool", ["x"], "y")], inputs={"x": ("N", 3, 4, 5)})
    source = load(tmp_path, proto)
    assert source.inputs[0].shape == (1, 3, 4, 5)
    assert source.graph.tensors["x"].shape == (1, 4, 5, 3)
    assert source.notes == ("input x: batch axis N is fixed to 1",)


@pytest.mark.parametrize("size", ["height", None])
def test_a_dynamic_axis_names_the_flag_that_fixes_it(tmp_path: Path, size: str | None) -> None:
    proto = model([node("GlobalMaxPool", ["x"], "y")], inputs={"x": (None, 3, size, 5)})
    message = refusal(tmp_path, proto, "EQ0312")
    assert f"input x: axis 2 ({size or '?'})" in message
    assert f"--shape x=1,3,{size or '?'},5" in message
    assert load(tmp_path, proto, x=(1, 3, 4, 5)).inputs[0].shape == (1, 3, 4, 5)


@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (1, 3, 4), (2, 3, 4, 5)])
def test_a_shape_that_contradicts_the_model_is_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    proto = model([node("GlobalMaxPool", ["x"], "y")], inputs={"x": ("N", 3, "H", 5)})
    assert "--shape x=" in refusal(tmp_path, proto, "EQ0312", x=shape)


def test_a_fixed_batch_is_refused_unless_the_flag_makes_it_one(tmp_path: Path) -> None:
    proto = model([node("GlobalMaxPool", ["x"], "y")], inputs={"x": (8, 3, 4, 5)})
    assert "axis 0 is 8" in refusal(tmp_path, proto, "EQ0312")
    assert load(tmp_path, proto, x=(1, 3, 4, 5)).inputs[0].shape == (1, 3, 4, 5)


def test_an_input_of_no_declared_rank_needs_the_flag(tmp_path: Path) -> None:
    proto = model([node("GlobalMaxPool", ["x"], "y")])
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert "input x has no shape" in refusal(tmp_path, proto, "EQ0312")
    assert load(tmp_path, proto, x=(1, 3, 4, 5)).inputs[0].shape == (1, 3, 4, 5)


def test_an_empty_input_axis_is_refused(tmp_path: Path) -> None:
    proto = model([node("Relu", ["x"], "y")], inputs={"x": (1, 3, 0, 5)})
    assert "input x" in refusal(tmp_path, proto, "EQ0313")


@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 3, 4, 5, 6), (1,)])
def test_an_input_of_another_rank_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    proto = model([node("Relu", ["x"], "y")], inputs={"x": shape})
    assert "input x has shape" in refusal(tmp_path, proto, "EQ0315")


def test_an_input_of_integers_is_refused(tmp_path: Path) -> None:
    proto = model([node("Relu", ["x"], "y")])
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert "input x is UINT8" in refusal(tmp_path, proto, "EQ0315")


def test_a_shape_for_no_input_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="z; inputs are x") as caught:
        load(tmp_path, conv(), z=(1, 2))
    assert caught.value.id == "EQ0211"


def test_an_input_of_another_float_is_noted(tmp_path: Path) -> None:
    proto = model([node("GlobalMaxPool", ["x"], "y")])
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert load(tmp_path, proto).notes[0].startswith("input x: float32 here")


# Files #


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.onnx") as caught:
        frontends.load(tmp_path / "absent.onnx")
    assert caught.value.id == "EQ0210"


def test_an_unknown_suffix_names_the_formats(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"ONNX \(\.onnx\)") as caught:
        frontends.load(tmp_path / "net.bin")
    assert caught.value.id == "EQ0310"


@pytest.mark.parametrize("contents", [b"", b"not a model", b"\x08\x0a", bytes(64)])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(contents)
    with pytest.raises(ModelError, match=r"net\.onnx") as caught:
        frontends.load(tmp_path / "net.onnx")
    assert caught.value.id == "EQ0310"


def test_damaged_files_are_refused_or_read_and_never_crash(tmp_path: Path) -> None:
    whole = conv().SerializeToString()
    draw = random.Random(20)
    path = tmp_path / "net.onnx"
    for trial in range(400):
        damaged = bytearray(whole)
        if trial % 4 == 0:
            del damaged[draw.randrange(len(damaged)) :]
        for _ in range(draw.randrange(1, 4)):
            if damaged:
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(bytes(damaged))
        try:
            frontends.load(path)
        except EdgeqError as error:
            assert error.exit_code in (2, 3)  # the id is free, the kind is not


@pytest.mark.parametrize("held", [4, 5 * 4 * 9 * 4 + 4])
def test_a_tensor_that_holds_another_size_than_it_declares_is_refused(
    tmp_path: Path, held: int
) -> None:
    proto = conv()
    proto.graph.initializer[0].raw_data = bytes(held)
    message = refusal(tmp_path, proto, "EQ0310")
    assert f"c.weight of shape [5, 4, 3, 3] holds {held} bytes where 720 are due" in message


def test_a_tensor_too_large_for_memory_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    proto = conv()
    proto.graph.initializer[0].dims[:] = [2**40, 2**20]
    assert "c.weight" in refusal(tmp_path, proto, "EQ0310")


def test_a_reader_of_what_nothing_computes_is_named(tmp_path: Path) -> None:
    proto = model([node("Add", ["x", "ghost"], "y", name="sum")])
    assert "sum: reads ghost" in refusal(tmp_path, proto, "EQ0310")


def external(proto: onnx.ModelProto, location: str, length: int = 720) -> onnx.ModelProto:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "16"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return proto


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    proto = conv()
    (tmp_path / "net.data").write_bytes(bytes(16) + proto.graph.initializer[0].raw_data)
    source = load(tmp_path, external(conv(), "net.data"))
    whole = load(tmp_path, proto)
    for graph in (source.graph, whole.graph):
        assert graph.constant("c.weight").shape == (5, 3, 3, 4)
    np.testing.assert_array_equal(
        source.graph.constant("c.weight"), whole.graph.constant("c.weight")
    )


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link", ""])
def test_external_data_outside_the_models_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(1000))
    (folder / "link").symlink_to(tmp_path / "secret")
    assert "c.weight" in refusal(folder, external(conv(), location), "EQ0311")


@pytest.mark.parametrize(("size", "length"), [(100, 720), (2000, 100), (0, 720)])
def test_external_data_of_another_size_is_refused(tmp_path: Path, size: int, length: int) -> None:
    (tmp_path / "net.data").write_bytes(bytes(size))
    assert "c.weight needs 720 bytes" in refusal(
        tmp_path, external(conv(), "net.data", length), "EQ0310"
    )


# Weights #


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, bad: float) -> None:
    proto = conv()
    array = weights(5, 4, 3, 3)
    array[1, 2] = bad
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "c.weight"))
    assert refusal(tmp_path, proto, "EQ0314").startswith("c.weight: 9 of 180 values")


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_weights_of_another_float_are_widened_with_a_note(tmp_path: Path, kind: Any) -> None:
    proto = model([node("Conv", ["x", "w"], "y")], {"w": weights(5, 4, 3, 3).astype(kind)})
    source = load(tmp_path, proto)
    assert source.graph.constant("w").dtype == np.float32
    assert source.notes == (f"1 initialisers of {np.dtype(kind).name} read as float32",)


def test_weights_of_integers_are_refused(tmp_path: Path) -> None:
    proto = model([node("Conv", ["x", "w"], "y")], {"w": np.ones((5, 4, 3, 3), np.int8)})
    assert "w holds int8" in refusal(tmp_path, proto, "EQ0315")


# Refusals #

NO_MEAN = {"axes": np.array([1])}
NORM = dict.fromkeys("smbv", np.ones(4, np.float32))
FC = {"w": weights(9, 5)}
BIAS = {"b": weights(4, 1, 1)}
SLICED = {name: np.array([n]) for name, n in (("zero", 0), ("one", 1), ("two", 2), ("nine", 9))}
REFUSED: dict[str, tuple[onnx.NodeProto, dict[str, Array], str]] = {
    "uneven groups": (
        node("Conv", ["x", "w"], "y", group=2), {"w": weights(5, 2, 1, 1)}, "group 2",
    ),
    "1-D": (node("Conv", ["x", "w"], "y"), {"w": weights(6, 4, 3)}, "2-D"),
    "kernel": (
        node("Conv", ["x", "w"], "y", kernel_shape=[1, 3]), {"w": weights(6, 4, 3, 3)},
        "kernel_shape (1, 3)",
    ),
    "computed weights": (node("MatMul", ["x", "x"], "y"), {}, "must be a constant"),
    "negative pads": (
        node("MaxPool", ["x"], "y", kernel_shape=[2, 2], pads=[0, -1, 0, 0]), {}, "pads (0, -1",
    ),
    "unknown attribute": (node("Relu", ["x"], "y", slope=1), {}, "attribute slope"),
    "padded average": (
        node("AveragePool", ["x"], "y", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
        {}, "count_include_pad 1",
    ),
    "dilated average": (
        node("AveragePool", ["x"], "y", kernel_shape=[2, 2], dilations=[2, 2]), {}, "dilations",
    ),
    "dilated maximum": (
        node("MaxPool", ["x"], "y", kernel_shape=[2, 2], dilations=[2, 2]), {}, "dilations",
    ),
    "mean over channels": (node("ReduceMean", ["x", "axes"], "y"), NO_MEAN, "axes (1,)"),
    "mean over an axis too many": (
        node("ReduceMean", ["x", "axes"], "y"), {"axes": np.array([2, 7])}, "axes (2, 7)",
    ),
    "mean over all": (node("ReduceMean", ["x"], "y"), {}, "axes None"),
    "log softmax": (node("LogSoftmax", ["x"], "y"), {}, "operator LogSoftmax"),
    "image softmax": (node("Softmax", ["x"], "y", axis=1), {}, "axis 1"),
    "constant for each pixel": (
        node("Add", ["x", "b"], "y"), {"b": weights(7, 6)}, "one for each of 4 channels",
    ),
    "computed divisor": (node("Div", ["b", "x"], "y"), BIAS, "divides by a computed tensor"),
    "zero divisor": (node("Div", ["x", "z"], "y"), {"z": scalar(0)}, "divides by 0"),
    "difference": (node("Sub", ["x", "x"], "y"), {}, "subtracts one computed tensor"),
    "reflection": (
        node("Pad", ["x", "p"], "y", mode="reflect"), {"p": np.array([0, 0, 1, 1] * 2)},
        "mode 'reflect'",
    ),
    "cropping": (node("Pad", ["x", "p"], "y"), {"p": np.array([0, 0, -1, 0] * 2)}, "pads (0, 0"),
    "padded batch": (node("Pad", ["x", "p"], "y"), {"p": np.array([1, 0, 0, 0] * 2)}, "pads (1, 0"),
    "later start": (
        node("Slice", ["x", "one", "nine", "two"], "y"), SLICED, "takes 1:9:1 of axis 2 (7)",
    ),
    "every other channel": (
        node("Slice", ["x", "zero", "nine", "one", "two"], "y"), SLICED, "steps (2,) along",
    ),
    "concatenated batch": (node("Concat", ["x", "x"], "y", axis=0), {}, "axis 0"),
    "concatenated constant": (node("Concat", ["x", "b"], "y", axis=1), BIAS, "input 1 must be"),
    "swapped height and width": (
        node("Transpose", ["x"], "y", perm=[0, 1, 3, 2]), {}, "perm (0, 1, 3, 2)",
    ),
    "rank 4 gemm": (node("Gemm", ["x", "w"], "y"), FC, "rank 2, got shape"),
    "training": (
        node("BatchNormalization", ["x", *"smbv"], "y", training_mode=1), NORM, "training mode",
    ),
    "quantised": (node("DequantizeLinear", ["x", "s"], "y"), {"s": weights(1)}, "quantised"),
    "rank 3": (node("Reshape", ["x", "s"], "y"), {"s": np.array([1, 4, -1])}, "(1, 4, 42)"),
    "empty bounds": (
        node("Clip", ["x", "a", "b"], "y"), {"a": scalar(2), "b": scalar(1)}, "min 2.0",
    ),
    "foreign": (node("Relu", ["x"], "y", domain="com.acme"), {}, "com.acme::Relu"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, what: str) -> None:
    proto, constants, reason = REFUSED[what]
    message = refusal(tmp_path, model([proto], constants), "EQ0315")
    assert f"{proto.name} ({proto.op_type}):" in message
    assert reason in message


def test_indices_of_a_max_pool_are_refused(tmp_path: Path) -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y", "where"], "pool", kernel_shape=[2, 2])
    proto = model([pool], outputs=["y", "where"])
    assert "output where is used" in refusal(tmp_path, proto, "EQ0315")


def test_every_unsupported_node_is_listed_and_nothing_twice(tmp_path: Path) -> None:
    nodes, last = [], "x"
    for n in range(12):
        nodes.append(node("Erf" if n % 4 else "Elu", [last], f"t{n}"))
        nodes.append(node("Relu", [f"t{n}"], f"r{n}"))
        last = f"r{n}"
    message = refusal(tmp_path, model(nodes, outputs=[last]), "EQ0315")
    lines = message.splitlines()
    assert "Elu_t0 (Elu): operator Elu is not supported" in lines[0]
    assert "Erf_t1" in lines[1]
    assert lines[10].strip() == "and 2 more"
    assert "Conv" in lines[11]
    assert "Relu_" not in message


@pytest.mark.parametrize("output", ["x", "w"])
def test_an_output_that_is_an_input_or_constant_is_refused(tmp_path: Path, output: str) -> None:
    proto = model([node("Conv", ["x", "w"], "y")], {"w": weights(5, 4, 1, 1)}, outputs=[output])
    assert f"output {output}" in refusal(tmp_path, proto, "EQ0317")


def test_an_old_opset_is_refused(tmp_path: Path) -> None:
    assert "opset 6" in refusal(tmp_path, model([node("Relu", ["x"], "y")], opset=6), "EQ0315")


def test_a_window_larger_than_its_input_is_refused_by_the_operator_table(tmp_path: Path) -> None:
    proto = conv((5, 4, 9, 9), name="big")
    assert "big" in refusal(tmp_path, proto, "EQ0305")


def test_importing_the_front_ends_loads_no_format_library() -> None:
    code = "import sys, edgeq.frontends; assert not {'onnx', 'onnx_ir'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=EXAMPLES.parent)


# Bundled examples #


@pytest.mark.parametrize("example", ["fashion_resnet8", "fashion_tiny"])
def test_the_bundled_examples_agree(tmp_path: Path, example: str) -> None:
    assert_agrees(tmp_path, onnx.load(EXAMPLES / example / "model.onnx"))
