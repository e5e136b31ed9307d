"""The report's rows about layers."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import RELU, Builder, random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import compiled

from edgeq import layers
from edgeq.exporters import image
from edgeq.exporters.image import Kind
from edgeq.ir import Graph
from edgeq.kernels import Optimize
from edgeq.pipeline import Compiled
from edgeq.policy import Policy
from edgeq.report import BitCounts, Layer

SEEDS = range(10)
MIXED = Policy.model_validate({"rule": [{"match": "fc_1", "weights": 4}]})


def small() -> Graph:
    b = Builder("small")
    y = b.conv(b.input(6, 6, 2), 4, clamp=RELU)
    return b.build(b.fully_connected(b.flatten(y), 5))


def described(made: Compiled) -> dict[str, Layer]:
    noise = dict.fromkeys(made.bits, 12.3456)
    return {row.name: row for row in layers.describe(made.program, made.bits, noise)}


def rows(optimize: Optimize = "flash") -> dict[str, Layer]:
    return described(compiled(small(), MIXED, optimize))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_operator_has_a_row_in_its_order(seed: int) -> None:
    graph = random_graph(seed)
    assert list(described(compiled(graph))) == [node.name for node in graph.nodes]


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_rows_weights_are_the_images(seed: int, bits: int) -> None:
    made = compiled(random_graph(seed), bits)
    total = sum(row.weight_bytes for row in described(made).values())
    assert total == image.build(made.program).bytes_of(Kind.WEIGHTS)


@pytest.mark.parametrize(("optimize", "stored"), [("flash", 4), ("time", 8)])
def test_requested_bits_are_the_policys_and_stored_bits_the_images(
    optimize: Optimize, stored: int
) -> None:
    weights = rows(optimize)["fc_1"].bits.weights
    assert weights is not None
    assert (weights.requested, weights.stored, weights.effective) == (4, stored, 4)


def test_the_effective_bits_of_an_activation_are_those_that_its_clamp_leaves() -> None:
    assert described(compiled(small()))["conv_1"].bits.activations == BitCounts(8, 8, 8)


def test_a_reshape_has_no_kernel_and_no_weights() -> None:
    row = rows()["reshape_1"]
    assert (row.kernel, row.layout, row.weight_bytes, row.bits.weights) == (None, None, 0, None)


def test_a_row_says_what_runs_it_and_what_it_costs() -> None:
    row = rows()["fc_1"]
    assert (row.op, row.kernel, row.layout) == ("fully_connected", "eq_fc_fields_s8_dsp", "fields")
    assert (row.macs, row.weight_bytes) == (5 * 144, 432)


def test_noise_is_told_to_a_hundredth() -> None:
    assert rows()["fc_1"].sqnr_db == 12.35


def test_bits_per_weight_is_a_mean_over_weights() -> None:
    conv, fc = 4 * 9 * 2, 5 * 144
    expected = (8 * conv + 4 * fc) / (conv + fc)
    assert layers.bits_per_weight(compiled(small(), MIXED).program) == expected


def test_a_network_without_weights_has_no_bits_per_weight() -> None:
    b = Builder("none")
    assert layers.bits_per_weight(compiled(b.build(b.softmax(b.input(4)))).program) == 0


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.integers(-128, 127), st.integers(-128, 127))
def test_the_needed_bits_are_the_fewest_that_hold_both_ends(a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    bits = layers.needed_bits(low, high)
    limits = np.array([-(1 << (bits - 1)), (1 << (bits - 1)) - 1])
    assert limits[0] <= low
    assert high <= limits[1]
    if bits > 1:
        assert low < -(1 << (bits - 2)) or high > (1 << (bits - 2)) - 1
