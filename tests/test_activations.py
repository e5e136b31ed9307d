"""Activations below 8 bits, from the policy to the report: what they take, and who decides."""

from __future__ import annotations

import bundled
import numpy as np
import pytest
from graphs import RELU, Builder
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import compiled

from edgeq import kernels, layers
from edgeq.ir import Graph, Window, qparams_of
from edgeq.packing import pack_activations, unpack_activations
from edgeq.pipeline import Compiled
from edgeq.policy import Policy
from edgeq.report import Layer

MOST_ARENA = 0.60  # of what W8A8 takes


def network() -> Graph:
    b = Builder("small")
    x = b.max_pool(b.conv(b.input(6, 6, 2), 5, clamp=RELU), Window((2, 2), (2, 2)))
    return b.build(b.softmax(b.fully_connected(b.flatten(b.conv(x, 3)), 4)))


def at(activations: int, **layers: int) -> Compiled:
    """`network` with activations of so many bits, in some layers of others."""
    rules = [{"match": name, "activations": bits} for name, bits in layers.items()]
    policy = {"default": {"activations": activations}, "rule": rules}
    return compiled(network(), Policy.model_validate(policy))


def bits(compiled: Compiled) -> dict[str, int]:
    graph = compiled.program.network.graphs[0]
    return {node.name: qparams_of(graph.tensors[node.output]).bits for node in graph.nodes}


def rows(compiled: Compiled) -> dict[str, Layer]:
    noise = dict.fromkeys(compiled.bits, 1.0)
    return {row.name: row for row in layers.describe(compiled.program, compiled.bits, noise)}


def arena(policy: str) -> int:
    """With outputs apart: those of bytes may lie nearer over their inputs than packed ones."""
    compiled = bundled.load("fashion-resnet8").compile(policy, optimize="time")
    return compiled.program.plan.arena_bytes


# Storage


@pytest.mark.parametrize(
    ("width", "stored"),
    [(8, b"\x01\xfe\x03"), (4, b"\xe1\x03"), (2, b"\x39"), (16, b"\x01\0\xfe\xff\x03\0")],
)
def test_the_first_value_lies_in_the_lowest_bits(width: int, stored: bytes) -> None:
    values = np.array([1, -2, -1 if width == 2 else 3])
    assert pack_activations(values, width) == stored


@settings(derandomize=True, deadline=None)
@given(st.sampled_from([2, 4, 8, 16]), st.integers(1, 70), st.integers(0, 99))
def test_unpacking_gives_what_was_packed(width: int, count: int, seed: int) -> None:
    half = 1 << (width - 1)
    values = np.random.default_rng(seed).integers(-half, half, count)
    assert unpack_activations(pack_activations(values, width), width, count).tolist() == list(
        values
    )


def test_a_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit 4 bits"):
        pack_activations(np.array([8]), 4)


@pytest.mark.parametrize("policy", ["w8a4", "w4a4"])
def test_half_the_bits_take_at_most_60_percent_of_the_arena(policy: str) -> None:
    assert arena(policy) <= MOST_ARENA * arena("w8a8")


def test_what_unpacks_is_linked_only_where_something_is_packed() -> None:
    def families(compiled: Compiled) -> set[str]:
        return {k.family for c in compiled.program.choices.values() for k in c.kernels}

    assert kernels.ROWS in families(at(4))
    assert kernels.ROWS not in families(at(5))


# Who decides


@pytest.mark.parametrize("activations", [2, 3, 4, 5, 6, 7, 8])
def test_a_layer_has_the_bits_that_the_policy_says(activations: int) -> None:
    found = bits(at(activations))
    assert found["conv_1"] == found["conv_2"] == found["fc_1"] == activations


def test_a_pool_has_the_bits_of_its_input() -> None:
    assert bits(at(8, conv_1=4))["max_pool_1"] == 4
    assert bits(at(8, max_pool_1=4))["max_pool_1"] == 8


def test_a_softmax_has_8_bits() -> None:
    assert bits(at(4))["softmax_1"] == 8


def test_an_input_has_8_bits() -> None:
    program = at(2).program
    assert [qparams_of(port.tensor).bits for port in program.inputs] == [8]


def test_the_report_says_what_was_asked_what_is_stored_and_what_is_needed() -> None:
    found = rows(at(4, conv_1=3, max_pool_1=8))
    conv, pool = found["conv_1"].bits.activations, found["max_pool_1"].bits.activations
    assert (conv.requested, conv.stored) == (3, 4)
    assert (pool.requested, pool.stored) == (8, 4)
    assert conv.effective <= 3
