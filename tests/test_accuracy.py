"""What quantisation costs in top-1, on the 10,000 test images or on the 1,000 that are bundled."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import bundled
import pytest

from edgeq import layers, parity

FLOAT_TOP1 = {"fashion-tiny": 0.85, "fashion-resnet8": 0.92}
W8A8_LOSS = 0.003
SHIPPED_LOSS = 0.010
MOST_BITS = 5.0  # a weight, by the larger example's policy

# Added on 1,000 images: three standard errors of a top-1 of 0.9; two of the difference of networks
# that disagree on 2 % of the images.
FEW_TOP1 = 3 * 0.0095
FEW_LOSS = 2 * 0.0045

both = pytest.mark.parametrize("name", FLOAT_TOP1)


@cache
def float_top1(name: str) -> float:
    return bundled.images().float_top1(bundled.load(name))


def loss(name: str, policy: str | Path) -> float:
    """What the integers under `policy` lose against the float network."""
    images = bundled.images()
    program = bundled.load(name).compile(policy).program
    return float_top1(name) - images.top1(parity.predict(program, images.inputs(program))[0])


def slack(few: float) -> float:
    return 0.0 if bundled.images().complete else few


@both
def test_the_float_network_is_worth_shipping(name: str) -> None:
    assert float_top1(name) >= FLOAT_TOP1[name] - slack(FEW_TOP1)


@both
def test_8_bits_cost_at_most_0_3_points(name: str) -> None:
    assert loss(name, "w8a8") <= W8A8_LOSS + slack(FEW_LOSS)


@both
def test_activations_of_16_bits_cost_no_more(name: str) -> None:
    assert loss(name, "w8a16") <= W8A8_LOSS + slack(FEW_LOSS)


@both
def test_the_shipped_policy_costs_at_most_a_point(name: str) -> None:
    assert loss(name, bundled.load(name).policy) <= SHIPPED_LOSS + slack(FEW_LOSS)


def test_the_shipped_policy_takes_less_than_5_bits_a_weight() -> None:
    example = bundled.load("fashion-resnet8")
    assert layers.bits_per_weight(example.compile(example.policy).program) < MOST_BITS
