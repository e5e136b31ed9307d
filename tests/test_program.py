"""Programs: inputs with their tables for raw bytes, and what leads to one is checked."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Builder
from programs import compiled, model, reals

from edgeq import pipeline
from edgeq.errors import PolicyError, UsageError
from edgeq.frontends import Port
from edgeq.ir import DType, Graph, QParams, Tensor, qparams_of
from edgeq.policy import InputSpec, Policy
from edgeq.program import make_input
from edgeq.samples import Samples

PORT = Port("image", "image_tensor", (1, 4, 5, 3), "NHWC")
TENSOR = Tensor("image_tensor", (1, 4, 5, 3), DType.S8, QParams((0.0123,), -17))
EVERY_BYTE = np.arange(256, dtype=np.uint8)


def picture() -> Graph:
    b = Builder("picture")
    return b.build(b.fully_connected(b.flatten(b.conv(b.input(4, 4, 3), 2)), 5))


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec(),
        InputSpec(mean=(0.5,), std=(0.25,)),
        InputSpec(mean=(0.1, 0.2, 0.3), std=(0.5,)),
        InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        InputSpec(range=(-3.0, 5.0)),
    ],
)
def test_a_raw_byte_becomes_the_integer_of_its_real(spec: InputSpec) -> None:
    port = make_input(PORT, TENSOR, spec)
    raw = np.repeat(EVERY_BYTE, 3).reshape(1, 256, 1, 3)
    expected = qparams_of(TENSOR).quantize(spec.real(raw))
    assert (port.quantize(raw) == expected).all()


@pytest.mark.parametrize(("mean", "rows"), [((0.0,), 1), ((0.0, 0.1, 0.2), 3)])
def test_the_table_has_a_row_per_channel_only_where_channels_differ(
    mean: tuple[float, ...], rows: int
) -> None:
    lut = make_input(PORT, TENSOR, InputSpec(mean=mean)).lut
    assert lut is not None
    assert (lut.shape, lut.dtype, lut.flags.c_contiguous) == ((rows, 256), np.int8, True)


def test_reals_are_quantised_by_the_tensors_parameters() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    assert make_input(PORT, TENSOR, InputSpec(retain=True)).lut is None
    port = make_input(PORT, TENSOR, InputSpec())
    assert (port.quantize(x) == qparams_of(TENSOR).quantize(x)).all()


def test_an_input_without_a_meaning_of_bytes_has_no_table() -> None:
    assert make_input(PORT, TENSOR, None).lut is None


def test_raw_bytes_without_a_table_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="image has no table"):
        make_input(PORT, TENSOR, None).quantize(np.zeros((1, 4, 5, 3), np.uint8))


@pytest.mark.parametrize("count", [2, 4])
def test_mean_and_deviation_of_other_channels_are_refused(count: int) -> None:
    with pytest.raises(PolicyError, match=f"EQ0325.*of {count} channels; the input has 3"):
        make_input(PORT, TENSOR, InputSpec(mean=(0.5,) * count))


def test_a_section_that_names_no_input_is_refused() -> None:
    policy = Policy.model_validate({"input": {"picture": {}}})
    with pytest.raises(PolicyError, match=r"EQ0326: \[input\.picture\].*the model's are input"):
        pipeline.input_specs(model(picture()), policy, {})


def test_the_policys_word_on_an_input_goes_before_the_settings() -> None:
    policy = Policy.model_validate({"input": {"input": {"std": [2.0]}}})
    specs = pipeline.input_specs(model(picture()), policy, {"input": InputSpec(std=(3.0,))})
    assert specs["input"].std == (2.0,)


@pytest.mark.parametrize("count", [1, 4, 6])
def test_labels_name_every_output_or_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"EQ0227: {count} labels for 5 outputs"):
        compiled(picture(), labels=("a",) * count)


def test_a_program_quantises_samples_by_tensor() -> None:
    graph = picture()
    program = compiled(graph).program
    x = reals(graph)
    got = program.quantize(Samples(x, None, {}))
    assert (got["input"] == program.inputs[0].quantize(x["input"])).all()


def test_compiling_twice_gives_the_same_program() -> None:
    one, two = (compiled(picture(), 4).program for _ in range(2))
    assert (one.network, one.plan, one.choices) == (two.network, two.plan, two.choices)
