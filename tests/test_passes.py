"""Each pass on a graph of three nodes, and on one where it must do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeq import floatrun, passes
from edgeq.errors import GraphError
from edgeq.ir import Function, Graph, Node, Op, Tensor, Unary, Window
from edgeq.ops import OPS

# Folding rounds each weight to float32 once more, which 27 products of magnitude 1 carry to the
# result: 27 · 2⁻²⁴ ≈ 2e-6, through two layers, with a margin of 10.
FOLD_ATOL = 2e-5

INF = float("inf")
IMAGE = (1, 5, 4, 3)
RELU = (0.0, INF)
KERNEL = Window((3, 3), pads=(1, 1, 1, 1))


def values(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def constant(name: str, data: np.ndarray[Any, Any]) -> Tensor:
    return Tensor(name, data.shape, data=data)


CONSTANTS = (
    constant("w", values(3, 3, 3, 3)),
    constant("cb", values(3)),
    constant("dw", values(3, 3, 3)),
    constant("fw", values(3, 3)),
    constant("scale", values(3, seed=1)),
    constant("bias", values(3, seed=2)),
    constant("mean", values(3, seed=3)),
    constant("var", 1 + values(3, seed=4) ** 2),
)


def conv(x: str, y: str, **fields: Any) -> Node:
    return Node(f"conv_{y}", Op.CONV_2D, (x, "w", "cb"), y, KERNEL, **fields)


def depthwise(x: str, y: str) -> Node:
    return Node(f"depthwise_{y}", Op.DEPTHWISE_CONV_2D, (x, "dw", "cb"), y, KERNEL)


def fully_connected(x: str, y: str) -> Node:
    return Node(f"fc_{y}", Op.FULLY_CONNECTED, (x, "fw", "cb"), y)


def norm(x: str, y: str) -> Node:
    inputs = (x, "scale", "bias", "mean", "var")
    return Node(f"norm_{y}", Op.BATCH_NORM, inputs, y, epsilon=1e-3)


def clip(x: str, y: str, low: float = 0.0, high: float = INF) -> Node:
    return Node(f"clip_{y}", Op.CLIP, (x,), y, clamp=(low, high))


def identity(x: str, y: str) -> Node:
    return Node(f"identity_{y}", Op.IDENTITY, (x,), y)


def add(a: str, b: str, y: str) -> Node:
    return Node(f"add_{y}", Op.ADD, (a, b), y)


def graph(*nodes: Node, outputs: Sequence[str] = ("y",), shape: tuple[int, ...] = IMAGE) -> Graph:
    activations = [Tensor(name, shape) for name in ("x", *(n.output for n in nodes))]
    tensors = {t.name: t for t in (*CONSTANTS, *activations)}
    return Graph("test", ("x",), tuple(outputs), nodes, tensors).edit(nodes)


def ops(result: Graph) -> list[Op]:
    return [node.op for node in result.nodes]


def assert_same_function(before: Graph, after: Graph) -> None:
    x = {"x": values(2, *before.tensors["x"].shape[1:], seed=9)}
    expected, result = floatrun.run(before, x), floatrun.run(after, x)
    assert expected.keys() == result.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(result[name], array, rtol=0, atol=FOLD_ATOL)


# remove_identities #


def test_readers_of_an_identity_read_its_source() -> None:
    before = graph(conv("x", "a"), identity("a", "b"), conv("b", "y"))
    after = passes.run(before, [passes.remove_identities])
    assert [n.inputs[0] for n in after.nodes] == ["x", "a"]
    assert "b" not in after.tensors


def test_a_chain_of_identities_from_the_input_is_removed() -> None:
    before = graph(identity("x", "a"), identity("a", "b"), conv("b", "y"))
    after = passes.run(before, [passes.remove_identities])
    assert [n.inputs[0] for n in after.nodes] == ["x"]


def test_an_output_keeps_its_name_without_its_identity() -> None:
    before = graph(conv("x", "a"), conv("a", "b"), identity("a", "y"), outputs=("b", "y"))
    after = passes.run(before, [passes.remove_identities])
    assert [(n.inputs[0], n.output) for n in after.nodes] == [("x", "y"), ("y", "b")]
    assert after.outputs == ("b", "y")


def test_an_output_that_copies_an_input_is_refused() -> None:
    before = graph(identity("x", "y"))
    with pytest.raises(GraphError, match="y is a copy of x") as caught:
        passes.run(before, [passes.remove_identities])
    assert caught.value.id == "EQ0316"


def test_an_output_that_copies_an_output_is_refused() -> None:
    before = graph(conv("x", "a"), identity("a", "y"), outputs=("a", "y"))
    with pytest.raises(GraphError, match="y is a copy of a"):
        passes.run(before, [passes.remove_identities])


def test_a_graph_without_identities_is_left_alone() -> None:
    before = graph(conv("x", "a"), clip("a", "y"))
    assert passes.remove_identities(before) is before


# fold_batch_norm #


@pytest.mark.parametrize(
    ("layer", "shape"), [(conv, IMAGE), (depthwise, IMAGE), (fully_connected, (1, 3))]
)
def test_a_batch_norm_is_folded_into_the_layer_before_it(
    layer: Any, shape: tuple[int, ...]
) -> None:
    before = graph(layer("x", "a"), norm("a", "b"), clip("b", "y"), shape=shape)
    after = passes.run(before, [passes.fold_batch_norm])
    assert ops(after) == [before.nodes[0].op, Op.CLIP]
    assert after.nodes[0].name == before.nodes[0].name
    assert after.nodes[0].inputs == before.nodes[0].inputs
    assert_same_function(before, after)


def test_batch_norms_in_a_row_are_folded_into_one_layer() -> None:
    before = graph(conv("x", "a"), norm("a", "b"), norm("b", "y"))
    after = passes.run(before, [passes.fold_batch_norm])
    assert ops(after) == [Op.CONV_2D]
    assert_same_function(before, after)


def test_weights_that_others_read_are_not_changed_for_them() -> None:
    before = graph(conv("x", "a"), norm("a", "b"), conv("b", "y"))
    after = passes.run(before, [passes.fold_batch_norm])
    assert ops(after) == [Op.CONV_2D, Op.CONV_2D]
    assert after.nodes[1].inputs[1] == "w"
    assert_same_function(before, after)


@pytest.mark.parametrize(
    "before",
    [
        graph(conv("x", "a", clamp=RELU), norm("a", "y")),
        graph(conv("x", "a"), norm("a", "y"), outputs=("a", "y")),
        graph(conv("x", "a"), norm("a", "b"), add("a", "b", "y")),
        graph(norm("x", "y")),
        graph(clip("x", "a"), norm("a", "y")),
    ],
    ids=["clamped", "output", "two readers", "input", "no layer"],
)
def test_a_batch_norm_that_cannot_be_folded_becomes_a_layer(before: Graph) -> None:
    after = passes.run(before, [passes.fold_batch_norm])
    layer = after.producer("b") or after.producer("y")
    assert layer is not None
    assert (layer.op, layer.window) == (Op.DEPTHWISE_CONV_2D, Window((1, 1)))
    assert_same_function(before, after)


def test_a_batch_norm_of_a_vector_that_cannot_be_folded_becomes_a_layer_of_one_pixel() -> None:
    before = graph(norm("x", "y"), shape=(1, 3))
    after = passes.run(before, [passes.fold_batch_norm])
    assert ops(after) == [Op.RESHAPE, Op.DEPTHWISE_CONV_2D, Op.RESHAPE]
    assert after.nodes[1].name == "norm_y"
    assert_same_function(before, after)


def unpadded(x: str, y: str) -> Node:
    return Node(f"conv_{y}", Op.CONV_2D, (x, "w", "cb"), y, Window((3, 3)))


def unpadded_depthwise(x: str, y: str) -> Node:
    return Node(f"depthwise_{y}", Op.DEPTHWISE_CONV_2D, (x, "dw2", "cb6"), y, Window((3, 3)))


def unpadded_grouped(x: str, y: str) -> Node:
    return Node(f"grouped_{y}", Op.GROUPED_CONV_2D, (x, "gw", "cb6"), y, Window((3, 3)))


@pytest.mark.parametrize(
    ("layer", "channels"),
    [(unpadded, 3), (unpadded_depthwise, 6), (unpadded_grouped, 6)],
    ids=["conv", "depthwise", "grouped"],
)
def test_a_batch_norm_of_the_input_is_folded_into_an_unpadded_layer(
    layer: Any, channels: int
) -> None:
    more = [constant("dw2", values(6, 3, 3)), constant("cb6", values(6))]
    more.append(constant("gw", values(6, 3, 3, 1)))
    before = graph(norm("x", "a"), layer("a", "y"))
    tensors = {**before.tensors, **{t.name: t for t in more}, "y": Tensor("y", (1, 3, 2, channels))}
    before = replace(before, tensors=tensors)
    after = passes.run(before, [passes.fold_batch_norm])
    assert [(n.op, n.inputs[0]) for n in after.nodes] == [(before.nodes[1].op, "x")]
    assert_same_function(before, after)


def test_a_batch_norm_is_folded_into_the_layer_that_reads_it_flattened() -> None:
    before = flattened(norm("x", "a"))
    after = passes.run(before, [passes.fold_batch_norm])
    assert ops(after) == [Op.RESHAPE, Op.FULLY_CONNECTED]
    assert_same_function(before, after)


def test_a_batch_norm_of_a_vector_is_not_folded_into_the_layer_that_reads_it_as_an_image() -> None:
    unfold = Node("unfold", Op.RESHAPE, ("a",), "f")
    vector = Node("norm_a", Op.BATCH_NORM, ("x", *"pqrs"), "a", epsilon=1e-3)
    before = graph(vector, unfold, unpadded("f", "y"))
    new = [Tensor(name, (1, 60)) for name in ("x", "a")]
    new += [Tensor("f", IMAGE), Tensor("y", (1, 3, 2, 3))]
    new += [constant(name, values(60, seed=n) ** 2 + 0.5) for n, name in enumerate("pqrs")]
    before = replace(before, tensors={**before.tensors, **{t.name: t for t in new}})
    after = passes.run(before, [passes.fold_batch_norm])
    assert Op.DEPTHWISE_CONV_2D in ops(after)
    assert_same_function(before, after)


def flattened(first: Node) -> Graph:
    """`first` on the input image, then a fully connected layer."""
    flatten = Node("flatten", Op.RESHAPE, ("a",), "f")
    before = graph(first, flatten, Node("fc", Op.FULLY_CONNECTED, ("f", "ffw", "cb"), "y"))
    new = (Tensor("f", (1, 60)), Tensor("y", (1, 3)), constant("ffw", values(3, 60) / 8))
    return replace(before, tensors={**before.tensors, **{t.name: t for t in new}})


def test_a_batch_norm_without_offset_is_folded_into_a_padded_layer() -> None:
    before = graph(norm("x", "a"), conv("a", "y"))
    zero = {name: constant(name, np.zeros(3, np.float32)) for name in ("bias", "mean")}
    before = replace(before, tensors={**before.tensors, **zero})
    after = passes.run(before, [passes.fold_batch_norm])
    assert ops(after) == [Op.CONV_2D]
    assert_same_function(before, after)


def test_a_batch_norm_with_offset_stays_before_a_padded_layer() -> None:
    before = graph(norm("x", "a"), norm("a", "b"), conv("b", "y"))
    after = passes.run(before, [passes.fold_batch_norm])
    assert ops(after) == [Op.DEPTHWISE_CONV_2D, Op.CONV_2D]
    assert_same_function(before, after)


def test_a_negative_variance_is_refused() -> None:
    before = graph(conv("x", "a"), norm("a", "y"))
    tensors = {**before.tensors, "var": constant("var", np.full(3, -1, np.float32))}
    with pytest.raises(GraphError, match="variance"):
        passes.fold_batch_norm(replace(before, tensors=tensors))


def test_a_graph_without_batch_norm_is_left_alone() -> None:
    before = graph(conv("x", "a"), clip("a", "b"), conv("b", "y"))
    assert passes.fold_batch_norm(before) is before


# fuse_clamps #


def test_a_clip_becomes_the_clamp_of_the_operator_before_it() -> None:
    before = graph(conv("x", "a"), clip("a", "b"), conv("b", "y"))
    after = passes.run(before, [passes.fuse_clamps])
    assert [(n.output, n.clamp) for n in after.nodes] == [("b", RELU), ("y", None)]
    assert_same_function(before, after)


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ((0.0, INF), (-1.0, 6.0), (0.0, 6.0)),
        ((-1.0, 1.0), (0.0, INF), (0.0, 1.0)),
        ((0.0, 1.0), (2.0, 3.0), (2.0, 2.0)),
        ((4.0, 5.0), (2.0, 3.0), (3.0, 3.0)),
    ],
)
def test_clips_in_a_row_are_merged(
    first: tuple[float, float], second: tuple[float, float], both: tuple[float, float]
) -> None:
    before = graph(conv("x", "a"), clip("a", "b", *first), clip("b", "y", *second))
    after = passes.run(before, [passes.fuse_clamps])
    assert [(n.output, n.clamp) for n in after.nodes] == [("y", both)]
    assert_same_function(before, after)


def test_a_clip_is_moved_before_the_reshape_that_it_follows() -> None:
    flatten = Node("flatten", Op.RESHAPE, ("a",), "f")
    before = graph(conv("x", "a"), flatten, clip("f", "y"))
    vectors = {name: Tensor(name, (1, 60)) for name in ("f", "y")}
    before = replace(before, tensors={**before.tensors, **vectors})
    after = passes.run(before, [passes.fuse_clamps])
    assert [(n.op, n.output, n.clamp) for n in after.nodes] == [
        (Op.CONV_2D, "a", RELU),
        (Op.RESHAPE, "y", None),
    ]
    assert_same_function(before, after)


@pytest.mark.parametrize(
    "before",
    [
        graph(clip("x", "y")),
        graph(conv("x", "a"), clip("a", "y"), outputs=("a", "y")),
        graph(conv("x", "a"), clip("a", "b"), add("a", "b", "y")),
        graph(conv("x", "a"), norm("a", "b"), clip("b", "y")),
    ],
    ids=["input", "output", "another reader", "batch norm"],
)
def test_a_clip_that_cannot_be_fused_becomes_a_table(before: Graph) -> None:
    after = passes.run(before, [passes.fuse_clamps])
    (table,) = (node for node in after.nodes if node.op is Op.TABLE)
    assert (table.function, table.clamp) == (Function(Unary.IDENTITY), RELU)
    assert_same_function(before, after)


def test_a_graph_without_clips_is_left_alone() -> None:
    before = graph(conv("x", "a", clamp=RELU), conv("a", "y"))
    assert passes.fuse_clamps(before) is before


# fuse_products #

SIGMOID = Function(Unary.SIGMOID)
HARD = Function(Unary.HARD_SIGMOID, 0.25, 0.5)


def table(x: str, y: str, function: Function, **fields: Any) -> Node:
    return Node(f"table_{y}", Op.TABLE, (x,), y, function=function, **fields)


def multiply(a: str, b: str, y: str) -> Node:
    return Node(f"multiply_{y}", Op.MULTIPLY, (a, b), y)


@pytest.mark.parametrize(
    ("gate", "fused"),
    [(SIGMOID, Function(Unary.SILU)), (HARD, Function(Unary.HARD_SWISH, 0.25, 0.5))],
)
@pytest.mark.parametrize("order", [("a", "g"), ("g", "a")])
def test_a_tensor_times_its_gate_is_one_function(
    gate: Function, fused: Function, order: tuple[str, str]
) -> None:
    before = graph(conv("x", "a"), table("a", "g", gate), multiply(*order, "y"))
    after = passes.run(before, [passes.fuse_products])
    assert [(n.op, n.function) for n in after.nodes] == [(Op.CONV_2D, None), (Op.TABLE, fused)]
    assert_same_function(before, after)


def test_a_gate_that_something_else_reads_stays() -> None:
    before = graph(table("x", "g", SIGMOID), multiply("x", "g", "y"), outputs=("g", "y"))
    after = passes.run(before, [passes.fuse_products])
    assert [n.output for n in after.nodes] == ["g", "y"]
    assert_same_function(before, after)


@pytest.mark.parametrize(
    "before",
    [
        graph(table("x", "g", Function(Unary.TANH)), multiply("x", "g", "y")),
        graph(conv("x", "a"), table("a", "g", SIGMOID), multiply("x", "g", "y")),
        graph(table("x", "g", SIGMOID, clamp=(0.25, 0.5)), multiply("x", "g", "y")),
        graph(multiply("x", "x", "y")),
    ],
    ids=["no gate", "of another tensor", "clamped", "square"],
)
def test_any_other_product_of_two_tensors_is_refused(before: Graph) -> None:
    with pytest.raises(GraphError, match="multiply_y: multiplies x") as caught:
        passes.run(before, [passes.fuse_products])
    assert caught.value.id == "EQ0316"
    assert OPS[Op.MULTIPLY].limits in caught.value.message


# fuse_pads #

ROWS = (1, 0, 0, 2, 1, 0)  # a row above, two below, a column to the right


def padded(pads: tuple[int, ...], *nodes: Node, value: float = 0.0, **fields: Any) -> Graph:
    """The input, padded to p, then `nodes`."""
    pad = Node("pad", Op.PAD, ("x", "v"), "p", pads=pads)
    before = graph(pad, *nodes, **fields)
    _, height, width, channels = IMAGE
    shape = (1, height + pads[0] + pads[3], width + pads[1] + pads[4], channels + pads[2] + pads[5])
    shapes = {n.output: shape for n in nodes} | {"p": shape}
    new = {name: Tensor(name, size) for name, size in shapes.items()}
    new["v"] = constant("v", np.full(1, value, np.float32))
    return replace(before, tensors={**before.tensors, **new})


@pytest.mark.parametrize("layer", [conv, depthwise])
def test_zeros_around_the_input_of_a_convolution_are_its_padding(layer: Any) -> None:
    before = padded(ROWS, layer("p", "y"))
    after = passes.run(before, [passes.fuse_pads])
    assert [n.window for n in after.nodes] == [Window((3, 3), pads=(2, 1, 3, 2))]
    assert_same_function(before, after)


@pytest.mark.parametrize(
    "before",
    [
        padded(ROWS, conv("p", "y"), value=1.0),
        padded(ROWS, conv("p", "y"), outputs=("p", "y")),
        padded(ROWS, conv("p", "a"), add("p", "a", "y")),
        padded(ROWS, add("p", "p", "y")),
    ],
    ids=["value", "output", "two readers", "no convolution"],
)
def test_a_pad_that_is_no_padding_stays(before: Graph) -> None:
    assert passes.fuse_pads(before) is before


def test_padded_channels_stay() -> None:
    before = padded((0, 0, 1, 0, 0, 0), Node("pool", Op.MAX_POOL, ("p",), "y", Window((1, 1))))
    assert passes.fuse_pads(before) is before


# merge_strides #


def steps(x: str, y: str, strides: tuple[int, int], **fields: Any) -> Node:
    return Node(f"steps_{y}", Op.MAX_POOL, (x,), y, Window((1, 1), strides), **fields)


def stepped(*nodes: Node, **shapes: tuple[int, ...]) -> Graph:
    before = graph(*nodes)
    return replace(
        before, tensors={**before.tensors, **{n: Tensor(n, s) for n, s in shapes.items()}}
    )


def test_steps_by_rows_and_by_columns_are_one_operator() -> None:
    nodes = (steps("x", "a", (2, 1)), steps("a", "b", (1, 2)), steps("b", "y", (2, 1)))
    before = stepped(*nodes, a=(1, 3, 4, 3), b=(1, 3, 2, 3), y=(1, 2, 2, 3))
    after = passes.run(before, [passes.merge_strides])
    assert [(n.name, n.window) for n in after.nodes] == [("steps_y", Window((1, 1), (4, 2)))]
    assert_same_function(before, after)


@pytest.mark.parametrize(
    "nodes",
    [
        (steps("x", "a", (2, 1), clamp=RELU), steps("a", "y", (1, 2))),
        (steps("x", "a", (2, 1)), Node("pool", Op.AVERAGE_POOL, ("a",), "y", Window((1, 1)))),
    ],
    ids=["clamped", "another pool"],
)
def test_steps_that_cannot_be_merged_stay(nodes: tuple[Node, ...]) -> None:
    before = stepped(*nodes, a=(1, 3, 4, 3), y=(1, 3, 2, 3))
    assert passes.merge_strides(before) is before


# run #


def test_the_float_passes_leave_only_what_devices_have() -> None:
    before = graph(
        conv("x", "a"), norm("a", "b"), identity("b", "c"), clip("c", "d"), norm("d", "y")
    )
    after = passes.run(before, passes.FLOAT_PASSES)
    assert ops(after) == [Op.CONV_2D, Op.DEPTHWISE_CONV_2D]
    assert all(OPS[op].device for op in ops(after))
    assert_same_function(before, after)


def test_running_the_float_passes_twice_changes_nothing() -> None:
    once = passes.run(graph(conv("x", "a"), norm("a", "b"), clip("b", "y")))
    assert passes.run(once) is once


def test_a_pass_that_breaks_the_graph_is_named() -> None:
    def break_graph(before: Graph) -> Graph:
        return replace(before, outputs=("nowhere",))

    with pytest.raises(GraphError, match="after break_graph: output nowhere") as caught:
        passes.run(graph(conv("x", "y")), [break_graph])
    assert caught.value.id == "EQ0307"
