"""Each pass on a graph of three nodes, and on one where it must do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeq import floatrun, passes
from edgeq.errors import GraphError
from edgeq.ir import Graph, Node, Op, Tensor, Window
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


def test_a_batch_norm_of_a_vector_that_cannot_be_folded_is_refused() -> None:
    with pytest.raises(GraphError, match="norm_y") as caught:
        passes.run(graph(norm("x", "y"), shape=(1, 3)), [passes.fold_batch_norm])
    assert caught.value.id == "EQ0316"
    assert OPS[Op.BATCH_NORM].limits in caught.value.message


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
    ("before", "reason"),
    [
        (graph(clip("x", "y")), "clips x, an input"),
        (graph(conv("x", "a"), clip("a", "y"), outputs=("a", "y")), "another reader"),
        (graph(conv("x", "a"), clip("a", "b"), add("a", "b", "y")), "another reader"),
        (graph(conv("x", "a"), norm("a", "b"), clip("b", "y")), "norm_b (batch_norm)"),
    ],
)
def test_a_clip_that_cannot_be_fused_is_refused(before: Graph, reason: str) -> None:
    with pytest.raises(GraphError) as caught:
        passes.run(before, [passes.fuse_clamps])
    assert caught.value.id == "EQ0316"
    assert "clip_" in caught.value.message
    assert reason in caught.value.message
    assert OPS[Op.CLIP].limits in caught.value.message


def test_a_graph_without_clips_is_left_alone() -> None:
    before = graph(conv("x", "a", clamp=RELU), conv("a", "y"))
    assert passes.fuse_clamps(before) is before


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
