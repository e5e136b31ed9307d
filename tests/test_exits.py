"""Exits: which tensors cut a graph, which are proposed, what a head is."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import bundled
import numpy as np
import pytest
from exitnets import SMALL_EXITS, gated_graphs, heads, small
from graphs import RELU, Builder, random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import reals

from edgeq import exits, floatrun
from edgeq.errors import PolicyError
from edgeq.exits import Head
from edgeq.ir import Graph, Op
from edgeq.ops import macs

fixed = settings(derandomize=True, max_examples=150, deadline=None)


def refused(id: str, *words: str) -> pytest.RaisesExc[PolicyError]:
    return pytest.raises(
        PolicyError, check=lambda e: e.id == id and all(w in str(e) for w in words)
    )


def reaches_the_end(graph: Graph, without: str) -> bool:
    """Whether an output computes from the inputs in some way that does not need `without`."""
    alive = set(graph.inputs)
    for node in graph.nodes:
        if node.output != without and any(name in alive for name in node.inputs):
            alive.add(node.output)
    return any(name in alive for name in graph.outputs)


@fixed
@given(st.integers(0, 2**32 - 1))
def test_cuts_are_the_tensors_without_which_nothing_reaches_the_end(seed: int) -> None:
    graph = random_graph(seed)
    expected = [n.output for n in graph.nodes[:-1] if not reaches_the_end(graph, n.output)]
    assert [cut.tensor for cut in exits.cuts(graph)] == expected


@fixed
@given(st.integers(0, 2**32 - 1))
def test_a_cut_has_the_share_of_the_products_before_it(seed: int) -> None:
    graph = random_graph(seed)
    total = max(sum(macs(graph, node) for node in graph.nodes), 1)
    for cut in exits.cuts(graph):
        assert graph.nodes[cut.nodes - 1].name == cut.layer
        done = sum(macs(graph, node) for node in graph.nodes[: cut.nodes])
        assert math.isclose(cut.share, done / total)


def test_resnet8_gets_exits_behind_its_stem_and_two_stacks() -> None:
    graph = bundled.load("fashion-resnet8").model.graph
    assert exits.proposed(graph) == ("conv", "stack1.add", "stack2.add")


@pytest.mark.parametrize("graph", gated_graphs(20), ids=lambda graph: graph.name)
def test_no_other_cuts_are_nearer_to_the_shares_than_those_proposed(graph: Graph) -> None:
    found = exits.proposed(graph)
    by_name = {cut.layer: cut for cut in exits.cuts(graph)}
    shares = exits.PROPOSED[: len(found)]

    def apart(names: tuple[str, ...]) -> float:
        return sum(abs(by_name[n].share - s) for n, s in zip(names, shares, strict=True))

    some = [name for name, cut in by_name.items() if 0 < cut.share < 1]
    distinct = (
        names
        for names in combinations(some, len(found))
        if len({by_name[name].share for name in names}) == len(names)
    )
    assert math.isclose(apart(found), min(map(apart, distinct)), abs_tol=1e-12)
    assert len({by_name[name].share for name in found}) == len(found) <= 3


def test_a_network_of_one_residual_block_has_no_exits() -> None:
    b = Builder("one")
    x = b.input(4, 4, 2)
    graph = b.build(b.add(x, b.conv(x, 2)))
    with refused("EQ0377", "one"):
        exits.proposed(graph)


def test_exits_must_be_named() -> None:
    with refused("EQ0370", "a single exit", "conv_1, add_1"):
        exits.named(small(), ())


def test_the_last_layer_is_no_other_exit() -> None:
    with refused("EQ0370", "fc_1 is the network's end"):
        exits.named(small(), ("conv_1", "fc_1"))


def test_more_exits_than_a_path_can_hold_are_refused() -> None:
    b = Builder()
    x = b.input(4, 4, 2)
    for _ in range(10):
        x = b.conv(x, 2)
    graph = b.build(b.fully_connected(b.flatten(x), 3))
    with refused("EQ0370", "8 exits", "at most 8 in all"):
        exits.named(graph, [f"conv_{i + 1}" for i in range(8)])


def test_an_unknown_exit_is_named_with_near_misses() -> None:
    with refused("EQ0371", '"conv1"', "did you mean", "conv_1"):
        exits.named(small(), ("conv1",))
    with refused("EQ0371", '"zzz"', "layers are conv_1, conv_2"):
        exits.named(small(), ("zzz",))


def test_an_exit_inside_a_residual_block_is_refused_with_what_crosses_it() -> None:
    with refused("EQ0372", "conv_2", "conv_1.output is needed behind it, too", "add_1"):
        exits.named(small(), ("conv_2",))


@pytest.mark.parametrize("names", [("add_1", "conv_1"), ("add_1", "add_1")])
def test_exits_out_of_order_or_doubled_are_refused(names: tuple[str, ...]) -> None:
    with refused("EQ0373", names[1], "each once"):
        exits.named(small(), names)


@given(st.integers(1, 300), st.integers(1, 300))
def test_heads_pool_to_at_most_four_by_four_with_even_pads(height: int, width: int) -> None:
    window = exits.head_window(height, width)
    assert window.kernel == window.strides == (math.ceil(height / 4), math.ceil(width / 4))
    assert max(window.output_size(height, width)) <= 4
    top, left, bottom, right = window.pads
    for size, kernel, before, after in (
        (height, window.kernel[0], top, bottom),
        (width, window.kernel[1], left, right),
    ):
        assert (size + before + after) % kernel == 0
        assert before + after < kernel
        assert 0 <= after - before <= 1


def test_a_head_is_the_mean_of_its_windows_times_its_weights() -> None:
    graph = small(3)
    cuts = exits.named(graph, SMALL_EXITS)
    made = heads(graph, cuts)
    attached = exits.attach(graph, cuts, made)
    assert len(attached.outputs) == 4
    assert attached.outputs[-1] == graph.outputs[0]
    inputs = reals(graph)
    found = floatrun.run(attached, inputs, (*attached.outputs, *(cut.tensor for cut in cuts)))
    for cut, head, output in zip(cuts, made, attached.outputs, strict=False):
        x = found[cut.tensor]
        side = math.ceil(x.shape[1] / 4)
        pooled = [
            x[:, i : i + side, j : j + side].mean(axis=(1, 2))
            for i in range(0, x.shape[1], side)
            for j in range(0, x.shape[2], side)
        ]
        features = np.stack(pooled, axis=1).reshape(len(x), -1)
        expected = features @ head.weights.T + head.bias
        np.testing.assert_allclose(found[output], expected, rtol=1e-4, atol=1e-5)


def test_a_vector_needs_no_pool_and_a_small_image_no_windows() -> None:
    b = Builder()
    x = b.conv(b.input(4, 4, 2), 3, clamp=RELU)
    y = b.fully_connected(b.flatten(x), 6, RELU)
    graph = b.build(b.fully_connected(y, 3))
    cuts = exits.named(graph, ("conv_1", "fc_1"))
    attached = exits.attach(graph, cuts, heads(graph, cuts))
    added = [node.op for node in attached.nodes[len(graph.nodes) :]]
    assert added == [Op.RESHAPE, Op.FULLY_CONNECTED, Op.FULLY_CONNECTED]


def test_a_head_of_another_size_is_refused() -> None:
    graph = small()
    cuts = exits.named(graph, ("conv_1",))
    one = heads(graph, cuts)[0]
    with refused("EQ0378", "behind conv_1", "(4, 128)", "(5, 128)"):
        exits.attach(graph, cuts, [Head(one.weights[:4], one.bias)])


def test_a_final_softmax_is_left_out() -> None:
    b = Builder()
    logits = b.fully_connected(b.input(6), 3)
    graph = exits.without_softmax(b.build(b.softmax(logits)))
    assert graph.outputs == (logits,)
    assert [node.op for node in graph.nodes] == [Op.FULLY_CONNECTED]
    assert exits.without_softmax(graph) == graph


def test_exits_need_one_vector_of_classes_that_nothing_reads() -> None:
    b = Builder()
    x = b.input(4, 4, 2)
    y = b.conv(x, 2)
    z = b.fully_connected(b.flatten(y), 3)
    two = b.build(y, z)
    with refused("EQ0376", "2 outputs"):
        exits.without_softmax(two)
    with refused("EQ0376", "shape (1, 4, 4, 2)"):
        exits.without_softmax(replace(two, outputs=(y,)))
    b.fully_connected(z, 3)
    with refused("EQ0376", "is read within the network"):
        exits.without_softmax(b.build(z))
