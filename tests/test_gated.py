"""Gated networks: the C on this machine and on emulated cores goes where `reference.route` goes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import gated
import numpy as np
import pytest
from programs import SHA256

from edgeq import gates, kernels, parity, reference
from edgeq.exporters import c_arrays, gate_section, image
from edgeq.ir import Array
from edgeq.program import Program
from edgeq.targets import runners, toolchain
from edgeq.targets.runners import HostProgram, HostRunner, Result

TRADEOFFS = (0, 2000, 20_000, 1 << 16, 1 << 20)
CASES = [(form, exits, seed) for seed, exits in enumerate((2, 3, 4)) for form in gated.FORMS]

every = pytest.mark.parametrize(("form", "exits", "seed"), CASES)


@cache
def program(form: str, exits: int, seed: int) -> Program:
    return gated.program(exits, form, seed)


@cache
def samples(form: str, exits: int, seed: int, count: int) -> tuple[dict[str, Array], list[bytes]]:
    made = gated.inputs(program(form, exits, seed), count, seed + 1)
    return made, [parity.sample_bytes(list(made.values()), i) for i in range(count)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProgram]:
    """Runtime and every portable kernel, for this machine."""
    folder = tmp_path_factory.mktemp("host") / "runtime"
    c_arrays.write_runtime(folder, kernels.table())
    made = HostProgram(folder, toolchain.find(toolchain.HOST_COMPILERS))
    yield made
    made.close()


def assert_routed(made: Program, got: list[Result], expected: reference.Routed) -> None:
    """Each sample went where it should, and its outputs, label and cost say so."""
    assert made.gate is not None
    for index, result in enumerate(got):
        at = int(expected.paths[index])
        path = made.gate.paths[at]
        assert (result.exit, result.path) == (len(path) - 1, gate_section.code(path)), index
        assert result.cost == made.gate.costs[at]
        outputs = expected.outputs[index]
        assert result.outputs == outputs.tobytes()
        assert result.label == outputs.argmax()


@every
def test_the_host_routes_as_the_reference(
    host: HostProgram, form: str, exits: int, seed: int
) -> None:
    made = program(form, exits, seed)
    inputs, taken = samples(form, exits, seed, 1000)
    runner = HostRunner(host, image.build(made).data)
    assert made.gate is not None
    for tradeoff in TRADEOFFS:
        expected = reference.route(made.network, made.gate, inputs, tradeoff)
        assert_routed(made, runner.results(taken, tradeoff), expected)
