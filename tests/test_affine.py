"""Additions in affine form: equal to TensorFlow Lite's on every pair of values, or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import RELU, Builder
from programs import compiled

from edgeq import affine, reference
from edgeq.affine import Affine, find
from edgeq.ir import Array, Graph, qparams_of

SIDE = 256  # every pair of two bytes is an image of 256 × 256


def addition(seed: int, bits: int = 8, *, relu: bool = False) -> Graph:
    """An integer addition of two images of every pair, of random scales and zero points."""
    b = Builder("add")
    inputs = (b.input(SIDE, SIDE, 1, name=name) for name in "ab")
    graph = b.build(b.add(*inputs, RELU if relu else None))
    rng = np.random.default_rng(seed)
    samples: dict[str, Array] = {
        name: rng.normal(rng.uniform(-2, 2), rng.uniform(0.1, 5), (1, SIDE, SIDE, 1)).astype("f4")
        for name in "ab"
    }
    made = compiled(graph, inputs=samples).program.network.graphs[0]
    if bits == 8:
        return made
    tensors = {
        name: replace(t, qparams=replace(qparams_of(t), bits=bits, zero_point=1))
        for name, t in made.tensors.items()
        if t.data is None
    }
    return replace(made, tensors={**made.tensors, **tensors})


def every_pair(bits: int = 8) -> dict[str, Array]:
    values = np.resize(np.arange(-(1 << bits - 1), 1 << bits - 1), SIDE).astype(np.int8)
    a, b = np.meshgrid(values, values, indexing="ij")
    return {"a": a[None, :, :, None], "b": b[None, :, :, None]}


def sums(form: Affine, graph: Graph, pairs: dict[str, Array]) -> Array:
    (node,) = graph.nodes
    output = qparams_of(graph.tensors[node.output])
    low, high = node.clamp or (output.qmin, output.qmax)
    a, b = (pairs[name].astype(np.int64) for name in "ab")
    return np.clip(form(a, b), low, high)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_a_form_gives_the_reference_on_every_pair(seed: int, relu: bool) -> None:
    graph = addition(seed, relu=relu)
    form = find(graph, graph.nodes[0])
    if form is not None:
        pairs = every_pair()
        wanted = reference.compute(graph, graph.nodes[0], pairs)
        assert form.fits
        assert (sums(form, graph, pairs) == wanted).all()


def test_most_scales_have_a_form() -> None:
    graphs = [addition(seed) for seed in range(20)]
    assert sum(find(graph, graph.nodes[0]) is not None for graph in graphs) >= 14


def test_packed_inputs_need_agree_on_their_own_values_only() -> None:
    graph = addition(3, bits=4)
    form = find(graph, graph.nodes[0])
    assert form is not None
    pairs = every_pair(4)
    wanted = reference.compute(graph, graph.nodes[0], pairs)
    assert (sums(form, graph, pairs) == wanted).all()


def test_ties_away_from_zero_on_both_sides_have_no_form() -> None:
    """Half of a sum: −½ goes to −1 and ½ to 1, which no offset gives."""
    graph = addition(0)
    (node,) = graph.nodes
    tensors = dict(graph.tensors)
    for name, values in zip(node.inputs[2:], ([1 << 30] * 3, [0, 0, -19]), strict=True):
        data = np.array(values, tensors[name].data.dtype)  # type: ignore[union-attr]
        tensors[name] = replace(tensors[name], data=data)
    for name in (*node.inputs[:2], node.output):
        tensors[name] = replace(
            tensors[name], qparams=replace(qparams_of(tensors[name]), zero_point=0)
        )
    assert find(replace(graph, tensors=tensors), node) is None


@pytest.mark.parametrize(
    ("constants", "fits"),
    [
        ((1 << 31, 0, 0), False),
        (((1 << 31) - 1, 0, (1 << 30) - 1), True),
        (((1 << 31) - 1, 0, 1 << 30), False),
        ((-(1 << 30), 1 << 30, (1 << 30) - 1), True),
        ((-(1 << 30), 1 << 30, -(1 << 30)), False),
    ],
)
def test_no_sum_leaves_int32(constants: tuple[int, int, int], fits: bool) -> None:
    assert Affine(*constants).fits is fits


def test_a_form_rounds_each_term_down() -> None:
    form = Affine((1 << 29) + 1, 0, -1)
    assert form(np.array([1]), np.array([0])).tolist() == [0]
    assert affine.FRACTION + affine.GUARD == 29
