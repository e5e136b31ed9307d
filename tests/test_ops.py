"""The table of operators: shapes, costs, and every way in which a graph breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graphs import RELU, Builder, graphs
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import GraphError
from edgeq.ir import Graph, Node, Op, Tensor, Window
from edgeq.ops import OPS, SOFTMAX_MOST, macs, verify, windows

fixed = settings(derandomize=True, max_examples=200, deadline=None)


def chain() -> Graph:
    """conv, depthwise, pools, add, reshape, fully connected, softmax: an operator of each kind."""
    b = Builder("chain")
    x = b.conv(b.input(6, 6, 2), 4, clamp=RELU)
    y = b.add(b.depthwise(x), x)
    y = b.average_pool(b.max_pool(y, Window((2, 2), (2, 2))), Window((3, 3), pads=(1, 1, 1, 1)))
    return b.build(b.softmax(b.fully_connected(b.flatten(y), 5)))


def changed(node: str, **fields: object) -> Graph:
    """The chain with other fields of one node."""
    graph = chain()
    nodes = tuple(replace(n, **fields) if n.name == node else n for n in graph.nodes)
    return replace(graph, nodes=nodes)


def reshaped(name: str, *shape: int) -> Graph:
    """The chain with another shape of one tensor."""
    graph = chain()
    data = None if graph.tensors[name].data is None else np.zeros(shape, np.float32)
    return replace(graph, tensors={**graph.tensors, name: Tensor(name, shape, data=data)})


def reordered() -> Graph:
    graph = chain()
    return replace(graph, nodes=graph.nodes[1:] + graph.nodes[:1])


def pooled(**fields: tuple[int, ...]) -> Graph:
    return changed("average_pool_1", window=Window(**{"kernel": (3, 3), **fields}))  # type: ignore[arg-type]


BROKEN: dict[str, tuple[str, Callable[[], Graph]]] = {
    "a window that does not fit": ("EQ0305", lambda: changed("conv_1", window=Window((9, 9)))),
    "a dilated window that does not fit": (
        "EQ0305",
        lambda: changed("conv_1", window=Window((4, 4), dilations=(3, 3))),
    ),
    "a convolution without a window": ("EQ0304", lambda: changed("conv_1", window=None)),
    "a pool with pads as large as its kernel": ("EQ0305", lambda: pooled(pads=(3, 0, 0, 0))),
    "a pool with bottom pads as large": ("EQ0305", lambda: pooled(pads=(0, 0, 0, 3))),
    "a pool with dilation": ("EQ0305", lambda: pooled(dilations=(2, 2))),
    "weights of other input channels": ("EQ0306", lambda: reshaped("conv_1.weights", 4, 3, 3, 3)),
    "weights of another rank": ("EQ0306", lambda: reshaped("conv_1.weights", 4, 18)),
    "depthwise weights of a rank too many": (
        "EQ0306",
        lambda: reshaped("depthwise_1.weights", 4, 3, 3, 1),
    ),
    "depthwise weights that channels do not divide": (
        "EQ0306",
        lambda: reshaped("depthwise_1.weights", 6, 3, 3),
    ),
    "fully connected weights of another length": (
        "EQ0306",
        lambda: reshaped("fc_1.weights", 5, 35),
    ),
    "an output of another shape": ("EQ0306", lambda: reshaped("conv_1.output", 1, 6, 6, 5)),
    "a sum of two shapes": (
        "EQ0306",
        lambda: changed("add_1", inputs=("depthwise_1.output", "input")),
    ),
    "a reshape to another number of elements": (
        "EQ0306",
        lambda: reshaped("reshape_1.output", 1, 35),
    ),
    "a fully connected layer on an image": (
        "EQ0306",
        lambda: changed("fc_1", inputs=("input", "fc_1.weights", "fc_1.bias")),
    ),
    "an operator with too few inputs": (
        "EQ0306",
        lambda: changed("add_1", inputs=("conv_1.output",)),
    ),
    "an operator that computes with a constant": (
        "EQ0306",
        lambda: changed("add_1", inputs=("conv_1.weights", "conv_1.output")),
    ),
    "a clamp where none can be": ("EQ0306", lambda: changed("reshape_1", clamp=RELU)),
    "two nodes of one name": ("EQ0307", lambda: changed("add_1", name="conv_1")),
    "a tensor that nobody knows": ("EQ0307", lambda: changed("softmax_1", inputs=("nothing",))),
    "a node before its input": ("EQ0307", reordered),
    "a tensor computed twice": ("EQ0307", lambda: changed("depthwise_1", output="conv_1.output")),
    "a tensor computed into a constant": ("EQ0307", lambda: changed("conv_1", output="fc_1.bias")),
    "an output that is never computed": (
        "EQ0307",
        lambda: replace(chain(), outputs=("somewhere",)),
    ),
}


def test_a_whole_graph_is_accepted() -> None:
    verify(chain())


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_graph_is_refused(fault: str) -> None:
    id, make = BROKEN[fault]
    with pytest.raises(GraphError, match=id):
        verify(make())


def test_a_softmax_of_an_image_is_refused() -> None:
    b = Builder()
    b.softmax(b.input(4, 4, 2))
    with pytest.raises(GraphError, match="EQ0306"):
        b.build("softmax_1.output")


@pytest.mark.parametrize(("values", "fits"), [(SOFTMAX_MOST, True), (SOFTMAX_MOST + 1, False)])
def test_a_softmax_takes_what_its_sum_can_hold(values: int, fits: bool) -> None:
    b = Builder()
    y = b.softmax(b.input(values))
    if fits:
        b.build(y)
    else:
        with pytest.raises(GraphError, match="EQ0305"):
            b.build(y)


@fixed
@given(graphs())
def test_the_shapes_of_random_graphs_are_those_of_the_table(graph: Graph) -> None:
    verify(graph)


def test_every_operator_has_a_row() -> None:
    assert set(OPS) == set(Op)


@pytest.mark.parametrize("op", Op)
def test_an_operator_says_in_words_what_it_takes(op: Op) -> None:
    assert OPS[op].sources
    assert OPS[op].limits


@pytest.mark.parametrize("op", [op for op, info in OPS.items() if info.weighted])
def test_weighted_operators_read_one_activation(op: Op) -> None:
    assert OPS[op].activations == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv_1", 6 * 6 * 4 * 3 * 3 * 2),
        ("depthwise_1", 6 * 6 * 4 * 3 * 3),
        ("fc_1", 5 * 36),
        ("add_1", 0),
        ("softmax_1", 0),
    ],
)
def test_macs_are_the_products_of_one_sample(name: str, expected: int) -> None:
    graph = chain()
    node = next(node for node in graph.nodes if node.name == name)
    assert macs(graph, node) == expected


side = st.integers(1, 3)


@fixed
@given(
    st.tuples(st.integers(3, 7), st.integers(3, 7)),
    st.tuples(side, side),
    st.tuples(side, side),
    st.tuples(side, side),
    st.tuples(*[st.integers(0, 2)] * 4),
)
def test_windows_see_what_a_loop_over_positions_sees(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
) -> None:
    window = Window(kernel, strides, pads, dilations)
    height, width = window.output_size(*size)
    if min(height, width) < 1:
        return
    x = np.arange(2 * size[0] * size[1] * 2).reshape(2, *size, 2)
    view = windows(x, window, -1, (height, width))
    for index in np.ndindex(*view.shape):
        n, i, j, a, b, c = index
        row = i * strides[0] + a * dilations[0] - pads[0]
        column = j * strides[1] + b * dilations[1] - pads[1]
        inside = 0 <= row < size[0] and 0 <= column < size[1]
        assert view[index] == (x[n, row, column, c] if inside else -1)


def test_a_batch_norm_keeps_the_shape() -> None:
    b = Builder()
    x = b.input(4, 4, 2)
    for name in ("scale", "shift", "mean", "variance"):
        b.tensors[name] = Tensor(name, (2,), data=np.ones(2, np.float32))
    b.tensors["y"] = Tensor("y", (1, 4, 4, 2))
    b.nodes.append(Node("norm", Op.BATCH_NORM, (x, "scale", "shift", "mean", "variance"), "y"))
    b.build("y")
