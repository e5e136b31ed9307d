"""What quantisation costs in top-1, on the 10,000 test images or on the 1,000 that are bundled."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import ALL_IMAGES, Example, Images

from edgeq import floatrun, layers, parity
from edgeq.samples import Samples

FLOAT_TOP1 = {"fashion-resnet8": 0.92, "fashion-tiny": 0.85}
W8A8_LOSS = 0.003
SHIPPED_LOSS = 0.010
MOST_BITS = 5.0  # per weight, of the larger example's policy
BATCH = 100

# On 1,000 images: the standard error of a top-1 of 0.9, three times; and of the difference of two
# networks that disagree on 2 % of the images, twice.
FEW_TOP1 = 3 * 0.0095
FEW_LOSS = 2 * 0.0045

both = pytest.mark.parametrize("name", ["fashion-tiny", "fashion-resnet8"])


@pytest.fixture(scope="module")
def float_top1(example: Callable[[str], Example], images: Images) -> Callable[[str], float]:
    """Top-1 of an example before quantisation."""

    @cache
    def measure(name: str) -> float:
        model = example(name).model
        port = model.source.inputs[0]
        samples = Samples({port.tensor: images.raw}, None, {port.tensor: example(name).specs["x"]})
        session = floatrun.FloatRun(model.graph)
        parts = [
            session(samples.take(start, start + BATCH).real())[model.graph.outputs[0]]
            for start in range(0, len(images), BATCH)
        ]
        return share(np.concatenate(parts).argmax(axis=1) == images.labels)

    return measure


def share(right: np.ndarray) -> float:
    return float(right.mean())


def loss(example: Example, images: Images, policy: str | Path, float_top1: float) -> float:
    program = example.compile(policy).program
    outputs = parity.predict(program, images.inputs(program))
    return float_top1 - share(outputs[0].argmax(axis=1) == images.labels)


def slack(images: Images, few: float) -> float:
    return 0.0 if len(images) == ALL_IMAGES else few


@both
def test_the_float_network_is_worth_shipping(
    float_top1: Callable[[str], float], images: Images, name: str
) -> None:
    assert float_top1(name) >= FLOAT_TOP1[name] - slack(images, FEW_TOP1)


@both
def test_8_bits_cost_at_most_a_third_of_a_point(
    example: Callable[[str], Example],
    images: Images,
    float_top1: Callable[[str], float],
    name: str,
) -> None:
    lost = loss(example(name), images, "w8a8", float_top1(name))
    assert lost <= W8A8_LOSS + slack(images, FEW_LOSS)


@both
def test_the_shipped_policy_costs_at_most_a_point(
    example: Callable[[str], Example],
    images: Images,
    float_top1: Callable[[str], float],
    name: str,
) -> None:
    lost = loss(example(name), images, example(name).policy, float_top1(name))
    assert lost <= SHIPPED_LOSS + slack(images, FEW_LOSS)


def test_the_shipped_policy_takes_less_than_5_bits_a_weight(
    example: Callable[[str], Example],
) -> None:
    shipped = example("fashion-resnet8")
    assert layers.bits_per_weight(shipped.compile(shipped.policy).program) < MOST_BITS
