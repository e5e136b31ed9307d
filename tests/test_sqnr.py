"""Noise of each operator alone, in dB."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import Builder, random_graph
from programs import compiled, reals, uniform

from edgeq import floatrun, reference, sqnr
from edgeq.ir import Graph, Window, qparams_of
from edgeq.policy import Policy

SEEDS = range(8)
DB = 0.01  # figures are compared to a hundredth: float32 sums in another order


def measured(graph: Graph, bits: int = 8) -> dict[str, float | None]:
    integer = compiled(graph, bits).program.network.graphs[0]
    return sqnr.by_layer(graph, integer, reals(graph))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_operator_has_a_figure(seed: int) -> None:
    graph = random_graph(seed)
    assert list(measured(graph)) == [node.name for node in graph.nodes]


def test_the_figure_is_signal_over_noise_in_decibels() -> None:
    b = Builder("one")
    graph = b.build(b.fully_connected(b.input(20), 5))
    integer = compiled(graph).program.network.graphs[0]
    x = reals(graph)
    given = {"input": qparams_of(integer.tensors["input"]).quantize(x["input"])}
    got = reference.compute(integer, integer.nodes[0], given)
    real = floatrun.run(graph, x)["fc_1.output"].astype(np.float64)
    noise = qparams_of(integer.tensors["fc_1.output"]).dequantize(got) - real
    expected = 10 * math.log10((real**2).sum() / (noise**2).sum())
    assert measured(graph)["fc_1"] == pytest.approx(expected, abs=DB)


def test_noise_of_the_layers_before_does_not_count() -> None:
    """The second layer has the same figure, whatever the bits of the first."""
    b = Builder("two")
    graph = b.build(b.conv(b.conv(b.input(8, 8, 3), 4), 4))
    fine = uniform(8).model_dump(by_alias=True)
    coarse = Policy.model_validate({**fine, "rule": [{"match": "conv_1", "weights": 2}]})
    one, two = (
        sqnr.by_layer(graph, compiled(graph, policy).program.network.graphs[0], reals(graph))
        for policy in (8, coarse)
    )
    assert one["conv_2"] == pytest.approx(two["conv_2"], abs=DB)
    assert (one["conv_1"] or 0) > (two["conv_1"] or 0) + 20


def test_fewer_bits_are_noisier() -> None:
    b = Builder("one")
    graph = b.build(b.conv(b.input(8, 8, 3), 8))
    figures = [measured(graph, bits)["conv_1"] or 0.0 for bits in (2, 4, 6)]
    assert figures == sorted(figures)


def test_an_operator_without_noise_has_no_figure() -> None:
    """A maximum of values that lie on the grid is on the grid."""
    b = Builder("pool")
    graph = b.build(b.max_pool(b.input(4, 4, 1), Window((2, 2), (2, 2))))
    x = {"input": ((np.arange(256) - 128) / 16).reshape(16, 4, 4, 1).astype(np.float32)}
    integer = compiled(graph, inputs=x).program.network.graphs[0]
    assert sqnr.by_layer(graph, integer, x) == {"max_pool_1": None}


@pytest.mark.parametrize(("count", "same"), [(sqnr.SAMPLES, True), (sqnr.SAMPLES - 1, False)])
def test_the_first_sixteen_samples_are_used(count: int, *, same: bool) -> None:
    graph = random_graph(1)
    integer = compiled(graph).program.network.graphs[0]
    x = reals(graph, 2 * sqnr.SAMPLES)
    first = {name: array[:count] for name, array in x.items()}
    figures = (sqnr.by_layer(graph, integer, inputs) for inputs in (x, first))
    assert (next(figures) == next(figures)) is same
