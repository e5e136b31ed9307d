"""Lanes against integers of any size, at the extremes of what they sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq import lanes
from edgeq.lanes import Scheme

# Worst cases, by hand: ⌊(2^width − 1) / ((2^w − 1)(2^a − 1)·products of a lane)⌋; None: no room.
STEPS = {
    (4, 4): (72, None, 36, 12, 6),
    (2, 4): (364, 22, 182, 60, 30),
    (3, 3): (334, None, 167, 55, 27),
    (2, 2): (1820, 113, 910, 303, 151),
}


def summed(scheme: Scheme, weights: np.ndarray, activations: np.ndarray) -> dict[int, int]:
    """The lanes of the sum of all steps, (steps, weights) and (steps, activations), by UMLAL."""
    total = 0
    for w, a in zip(weights.tolist(), activations.tolist(), strict=True):
        left = sum(value << at for value, at in zip(w, scheme.weights, strict=True))
        right = sum(value << at for value, at in zip(a, scheme.activations, strict=True))
        assert left < 1 << 32 and right < 1 << 32
        total = total + left * right & (1 << 64) - 1
    return {at: total >> at & (1 << scheme.width) - 1 for at in scheme.lanes}


def expected(scheme: Scheme, weights: np.ndarray, activations: np.ndarray) -> dict[int, int]:
    products = weights.T.astype(object) @ activations.astype(object)
    sums = dict.fromkeys(scheme.lanes, 0)
    for i, w in enumerate(scheme.weights):
        for j, a in enumerate(scheme.activations):
            sums[w + a] += int(products[i, j])
    return sums


@pytest.mark.parametrize("bits", STEPS)
def test_steps_of_the_worst_case(bits):
    for scheme, steps in zip(lanes.SCHEMES, STEPS[bits], strict=True):
        assert scheme.fits(*bits) == (steps is not None), scheme.name
        if steps is not None:
            assert scheme.steps(*bits) == steps


FITTING = [
    (scheme, (w, a))
    for scheme in lanes.SCHEMES
    for w in (2, 3, 4)
    for a in (2, 3, 4)
    if scheme.fits(w, a)
]


@pytest.mark.parametrize(("scheme", "bits"), FITTING)
def test_lanes_are_exact_up_to_their_steps_and_not_beyond(scheme, bits):
    steps = scheme.steps(*bits)
    most = [(1 << b) - 1 for b in bits]

    def filled(count):
        return (
            np.full((count, len(scheme.weights)), most[0]),
            np.full((count, len(scheme.activations)), most[1]),
        )

    assert summed(scheme, *filled(steps)) == expected(scheme, *filled(steps))
    assert summed(scheme, *filled(steps + 1)) != expected(scheme, *filled(steps + 1))
    assert scheme.real_steps(filled(steps)[0], bits[1]) == steps
    assert scheme.real_steps(filled(steps + 1)[0], bits[1]) < steps + 1


@given(st.data())
def test_steps_of_real_weights_are_exact_at_the_extremes(data):
    scheme, bits = data.draw(st.sampled_from(FITTING))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    count, unit = data.draw(st.integers(1, 300)), data.draw(st.sampled_from([1, 2, 8]))
    weights = rng.integers(0, 1 << bits[0], (count, len(scheme.weights)))
    steps = scheme.real_steps(weights, bits[1], unit)
    if steps == 0:
        assert not scheme.safe(weights, bits[1], unit)
        return
    assert steps % unit == 0
    for first in range(0, count, steps):
        part = weights[first : first + steps]
        for activations in (
            np.full((len(part), len(scheme.activations)), (1 << bits[1]) - 1),
            rng.integers(0, 1 << bits[1], (len(part), len(scheme.activations))),
        ):
            assert summed(scheme, part, activations) == expected(scheme, part, activations)


def test_every_pair_of_bits_in_use_has_room():
    for table in (lanes.POINT, lanes.TAPS):
        for bits, scheme in table.items():
            assert scheme.fits(*bits)
