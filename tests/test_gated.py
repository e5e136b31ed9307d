"""Gated networks: the C on this machine and on emulated cores goes where `reference.route` goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache

import gated
import numpy as np
import pytest

from edgeq import parity, reference
from edgeq.exporters import c_arrays, gate_section, image
from edgeq.ir import Array
from edgeq.program import Program
from edgeq.targets import runners, toolchain
from edgeq.targets.emulators import Firmware, read_firmware
from edgeq.targets.runners import EmulatorRunner, HostProgram, HostRunner, Result

Firmwares = Callable[[str, int, int, str], Firmware]

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
    host_program: HostProgram, form: str, exits: int, seed: int
) -> None:
    made = program(form, exits, seed)
    inputs, taken = samples(form, exits, seed, 1000)
    runner = HostRunner(host_program, image.build(made).data)
    assert made.gate is not None
    for tradeoff in TRADEOFFS:
        expected = reference.route(made.network, made.gate, inputs, tradeoff)
        assert_routed(made, runner.results(taken, tradeoff), expected)


# Emulated cores


@pytest.fixture(scope="module")
def firmwares(tmp_path_factory: pytest.TempPathFactory) -> Firmwares:
    @cache
    def make(form: str, exits: int, seed: int, compiler: str) -> Firmware:
        made = program(form, exits, seed)
        folder = tmp_path_factory.mktemp(f"{form}-{exits}-{compiler}")
        c_arrays.export(made, folder, [], made.kernels)
        found = toolchain.find(toolchain.rows_for(made.target), compiler)
        return read_firmware(runners.link_firmware(folder, made.name, made.target, found))

    return make


@contextmanager
def emulated(
    firmware: Firmware, made: Program, emulator: str = "unicorn"
) -> Iterator[EmulatorRunner]:
    row = next(row for row in runners.emulators_of(made.target) if row.name == emulator)
    with closing(EmulatorRunner(firmware, made.target, row)) as runner:
        yield runner


@pytest.mark.emulator
@pytest.mark.parametrize(("form", "exits", "seed"), CASES[-3:])
def test_the_emulated_core_routes_as_the_reference(
    firmwares: Firmwares, compiler: str, form: str, exits: int, seed: int
) -> None:
    made = program(form, exits, seed)
    inputs, taken = samples(form, exits, seed, 50)
    assert made.gate is not None
    with emulated(firmwares(form, exits, seed, compiler), made) as runner:
        for tradeoff in TRADEOFFS:
            expected = reference.route(made.network, made.gate, inputs, tradeoff)
            assert_routed(made, runner.results(taken, tradeoff), expected)
