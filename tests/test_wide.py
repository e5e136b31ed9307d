"""16-bit activations: what they mean and take, who decides, and where they may not be."""

from __future__ import annotations

import importlib.util
import json
import sys

import bundled
import numpy as np
import pytest
import tflm
from graphs import RELU, Builder
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import compiled, uniform

from edgeq import quantize, reference, targets
from edgeq.errors import GraphError, PolicyError
from edgeq.ir import DType, Function, Graph, QParams, Unary, Window, qparams_of, single
from edgeq.pipeline import Compiled
from edgeq.policy import InputSpec, Policy
from edgeq.reference import Rounding


def at(graph: Graph, default: int, **layers: int) -> Compiled:
    """`graph` with activations of so many bits, in some layers of others."""
    rules = [{"match": name, "activations": bits} for name, bits in layers.items()]
    quick = {"activations": "minmax"}
    policy = {"default": {"activations": default}, "rule": rules, "calibration": quick}
    return compiled(graph, Policy.model_validate(policy))


def bits(found: Compiled) -> dict[str, int]:
    tensors = found.program.network.graphs[0].tensors
    return {name: qparams_of(t).bits for name, t in tensors.items() if t.data is None}


def network() -> Graph:
    b = Builder("small")
    x = b.max_pool(b.conv(b.input(6, 6, 2), 5, clamp=RELU), Window((2, 2), (2, 2)))
    return b.build(b.fully_connected(b.flatten(b.conv(x, 3)), 4))


def with_table(kind: Unary = Unary.TANH) -> Graph:
    b = Builder("table")
    x = b.max_pool(b.conv(b.input(6, 6, 2), 5), Window((2, 2), (2, 2)))
    return b.build(b.table(x, Function(kind)))


# What TensorFlow Lite Micro computes


def test_the_reference_computes_what_was_recorded_of_tflite_micro() -> None:
    graph, values = tflm.network()
    computed = reference.run(single(graph), {"input": values})
    recorded = json.loads(tflm.GOLDEN.read_text(encoding="utf-8"))
    assert {n: computed[n].reshape(-1).tolist() for n in graph.outputs} == {
        name: array for name, array in recorded.items() if name != "command"
    }


@pytest.mark.skipif(
    sys.platform != "linux"
    or not (
        importlib.util.find_spec("tflite_micro") and importlib.util.find_spec("ai_edge_litert")
    ),
    reason="needs tflite-micro and ai-edge-litert",
)
def test_tflite_micro_still_computes_what_was_recorded() -> None:
    recorded = json.loads(tflm.GOLDEN.read_text(encoding="utf-8"))
    for name, array in tflm.run(*tflm.network()).items():
        assert array.reshape(-1).tolist() == recorded[name]


# What they mean


@settings(derandomize=True, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_the_range_is_symmetric_and_covers_what_was_seen(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    q = quantize.affine(low, high, 16)
    assert (q.zero_point, q.bits) == (0, 16)
    assert q.scale[0] * 32767 >= max(abs(low), abs(high)) * (1 - 1e-12)


def test_a_zero_point_is_refused() -> None:
    with pytest.raises(GraphError, match=r"EQ0301.*symmetric"):
        QParams((1.0,), 1, 16)


def test_values_are_stored_as_words() -> None:
    tensors = at(network(), 16).program.network.graphs[0].tensors
    assert {t.dtype for t in tensors.values() if t.data is None} == {DType.S16}


def test_they_are_far_less_noisy() -> None:
    """The first layer's error falls by what 8 more bits are worth, up to that of its weights."""
    b = Builder("one", 1)
    graph = b.build(b.add(b.input(8, 8, 4), b.input(8, 8, 4, name="other")))
    reals = {n: np.random.default_rng(1).normal(size=(8, 8, 8, 4)) for n in graph.inputs}
    errors = []
    for default in (8, 16):
        network = at(graph, default).program.network
        given = {t.name: qparams_of(t).quantize(reals[t.name]) for t in network.inputs}
        (output,) = network.outputs
        got = qparams_of(output).dequantize(reference.run(network, given)[output.name])
        clipped = np.clip(sum(reals.values()), got.min(), got.max())
        errors.append(float(np.abs(got - clipped).mean()))
    assert errors[1] < errors[0] / 100


def test_float32_rounding_is_refused() -> None:
    graph, values = tflm.network()
    with pytest.raises(GraphError, match=r"EQ0338.*conv_2d_0.*one rounding rule"):
        reference.run(single(graph), {"input": values}, Rounding.FLOAT32)


# Who decides


def test_an_input_has_16_bits_where_every_reader_gives_as_many() -> None:
    assert bits(at(network(), 16))["input"] == 16
    assert bits(at(network(), 8, conv_1=16))["input"] == 16
    assert bits(at(network(), 16, conv_1=8))["input"] == 8


def test_an_input_that_a_table_reads_has_8_bits() -> None:
    b = Builder("both")
    x = b.input(6, 6, 2)
    graph = b.build(b.conv(x, 3), b.table(x, Function(Unary.SIGMOID)))
    assert bits(at(graph, 16, table_1=8))["input"] == 8


def test_bits_may_change_at_every_layer() -> None:
    found = bits(at(network(), 8, conv_1=16, fc_1=16, conv_2=4))
    assert [found[f"{name}.output"] for name in ("conv_1", "max_pool_1", "conv_2", "fc_1")] == [
        16,
        16,
        4,
        16,
    ]


def test_kernels_for_words_are_linked_only_where_there_are_any() -> None:
    def widths(found: Compiled) -> dict[str, int]:
        return {name: c.kernel.activations for name, c in found.program.choices.items()}

    assert set(widths(at(network(), 8)).values()) == {8}
    mixed = widths(at(network(), 8, fc_1=16))
    assert (mixed["conv_2"], mixed["fc_1"]) == (8, 16)
    assert at(network(), 16).program.choices["conv_1"].rows is None


def test_a_uniform_policy_needs_no_kernel_for_bytes() -> None:
    program = bundled.load("fashion-tiny").compile("w8a16").program
    assert program.inputs[0].tensor.dtype is DType.S16
    assert {k.activations for c in program.choices.values() for k in c.kernels} == {16}


def test_the_arena_doubles() -> None:
    plain = targets.load("stm32f100")  # its kernels take no scratch
    narrow, wide = (
        compiled(network(), uniform(8, n), "time", target=plain).program.plan.arena_bytes
        for n in (8, 16)
    )
    assert wide == pytest.approx(2 * narrow, abs=8)


def test_raw_bytes_become_words_by_a_table() -> None:
    b = Builder("image")
    graph = b.build(b.conv(b.input(6, 6, 2), 3))
    policy = Policy.model_validate({"default": {"activations": 16}})
    spec = InputSpec(mean=(0.2, 0.5), std=(0.25,))
    (source,) = compiled(graph, policy, specs={"input": spec}).program.inputs
    assert source.lut is not None
    assert (source.lut.dtype, source.lut.shape) == (np.int16, (2, 256))
    raw = np.arange(72, dtype=np.uint8).reshape(1, 6, 6, 2)
    exact = qparams_of(source.tensor).quantize(spec.real(raw))
    assert (source.quantize(raw) == exact).all()


# Refusals


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({}, "table_1: table reads activations of at most 8 bits, and conv_1 gives 16"),
        ({"max_pool_1": 8}, "and conv_1 gives 16; give conv_1 activations = 8"),
        ({"conv_1": 8}, "table_1: a table gives activations of at most 8 bits"),
    ],
)
def test_a_table_is_for_bytes(layers: dict[str, int], words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        at(with_table(), 16, **layers)
    assert caught.value.id == "EQ0324"
    assert words in str(caught.value)


def test_a_table_that_clips_keeps_the_bits_of_its_input() -> None:
    graph = with_table(Unary.IDENTITY)
    assert bits(at(graph, 16, conv_1=8))["table_1.output"] == 8


def test_a_softmax_reads_bytes() -> None:
    b = Builder("softmax")
    graph = b.build(b.softmax(b.fully_connected(b.input(8), 4)))
    with pytest.raises(PolicyError, match=r"EQ0324.*fc_1 gives 16"):
        at(graph, 16)
    found = bits(at(graph, 16, fc_1=8))
    assert (found["fc_1.output"], found["softmax_1.output"]) == (8, 8)


@pytest.mark.parametrize(("side", "fits"), [(181, True), (182, False)])
def test_a_pool_whose_sum_would_overflow_is_refused(side: int, *, fits: bool) -> None:
    b = Builder("pool")
    graph = b.build(b.global_average_pool(b.input(side, side, 1)))
    if fits:
        assert bits(at(graph, 16))["average_pool_1.output"] == 16
        return
    with pytest.raises(GraphError, match=r"EQ0331.*sums of 33124 activations of 16 bits"):
        at(graph, 16)
