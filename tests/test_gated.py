"""Gated networks: the C on this machine and on emulated cores goes where `reference.route` goes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gated
import numpy as np
import pytest

from edgeq import costs, gates, kernels, parity, profiler, reference
from edgeq.errors import MismatchError, PolicyError
from edgeq.exporters import c_arrays, gate_section, image
from edgeq.exporters.image import Kind
from edgeq.gates import Layer, Mlp, Table
from edgeq.ir import Array, qparams_of
from edgeq.packing import pad
from edgeq.program import Program
from edgeq.targets import runners, toolchain
from edgeq.targets.emulators import Firmware, read_firmware
from edgeq.targets.runners import EmulatorRunner, HostProgram, HostRunner, Result

Firmwares = Callable[[str, int, int, str], Firmware]
Tool = Callable[[str], tuple[str, ...]]

TRADEOFFS = (0, 2000, 20_000, 1 << 16, 1 << 20)
EMULATED = 50  # samples
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
    inputs, taken = samples(form, exits, seed, EMULATED)
    assert made.gate is not None
    with emulated(firmwares(form, exits, seed, compiler), made) as runner:
        for tradeoff in TRADEOFFS:
            expected = reference.route(made.network, made.gate, inputs, tradeoff)
            assert_routed(made, runner.results(taken, tradeoff), expected)


@pytest.mark.emulator
def test_qemu_routes_as_the_reference(firmwares: Firmwares, compiler: str, tool: Tool) -> None:
    tool("qemu-system-arm")
    made = program(*CASES[-1])
    inputs, taken = samples(*CASES[-1], 4)
    assert made.gate is not None
    with emulated(firmwares(*CASES[-1], compiler), made, "qemu") as runner:
        for tradeoff in TRADEOFFS[::2]:
            expected = reference.route(made.network, made.gate, inputs, tradeoff)
            assert_routed(made, runner.results(taken, tradeoff), expected)


@pytest.mark.emulator
def test_the_self_test_of_a_gated_model_holds_its_routes(tmp_path: Path, tool: Tool) -> None:
    tool("arm-none-eabi-gcc")
    made = program(*CASES[-1])
    inputs, _ = samples(*CASES[-1], 3)
    assert made.gate is not None
    expected = reference.route(made.network, made.gate, inputs)
    failed = []
    for wrong in (0, 1):
        cases = [
            c_arrays.Case(
                tuple(x[i : i + 1] for x in inputs.values()),
                (expected.outputs[i],),
                (int(expected.paths[i]) + wrong) % len(made.gate.paths),
            )
            for i in range(3)
        ]
        folder = tmp_path / str(wrong)
        folder.mkdir()
        c_arrays.export(made, folder, cases, made.kernels)
        found = toolchain.find(toolchain.rows_for(made.target), "gcc")
        elf = runners.link_firmware(folder, made.name, made.target, found)
        with emulated(read_firmware(elf), made) as runner:
            failed.append(runner.failed_cases)
    assert failed == [0, 3]


# Forced paths


@every
def test_a_forced_path_is_that_of_the_reference(
    host_program: HostProgram, form: str, exits: int, seed: int
) -> None:
    made = program(form, exits, seed)
    inputs, taken = samples(form, exits, seed, 8)
    runner = HostRunner(host_program, image.build(made).data)
    assert made.gate is not None
    for index, path in enumerate(made.gate.paths):
        outputs = reference.run_path(made.network, inputs, path)[gated.OUTPUT]
        expected = reference.Routed(np.full(8, index), outputs.reshape(8, -1))
        forced = gate_section.code(path), len(path) - 1
        assert_routed(made, runner.results(taken, 20_000, forced), expected)


@pytest.mark.emulator
def test_a_forced_path_is_that_of_the_reference_on_the_core(
    firmwares: Firmwares, compiler: str
) -> None:
    made = program(*CASES[-1])
    inputs, taken = samples(*CASES[-1], 2)
    assert made.gate is not None
    with emulated(firmwares(*CASES[-1], compiler), made) as runner:
        for index, path in enumerate(made.gate.paths):
            outputs = reference.run_path(made.network, inputs, path)[gated.OUTPUT]
            expected = reference.Routed(np.full(2, index), outputs.reshape(2, -1))
            forced = gate_section.code(path), len(path) - 1
            assert_routed(made, runner.results(taken, 0, forced), expected)
        with pytest.raises(MismatchError, match="harness_force refused with status -1"):
            runner.results(taken, 0, (0x01, 1))  # precision would rise


@every
def test_the_reference_runs_the_blocks_of_a_route_and_their_gates_alone(
    form: str, exits: int, seed: int
) -> None:
    """What it says for all inputs at once is what whole paths and `gates.route` say."""
    made = program(form, exits, seed)
    inputs, _ = samples(form, exits, seed, 50)
    gate = made.gate
    assert gate is not None
    scale = qparams_of(made.network.outputs[0]).scale[0]
    logits = {
        path: reference.run_path(made.network, inputs, path)[gated.OUTPUT].reshape(50, -1)
        for path in gate.paths
    }
    seen = {path: gates.see(logits[path], scale) for path in gate.nodes()}
    predicted = {path: gates.predict(gate, path, seen) for path in gate.nodes()}
    for tradeoff in TRADEOFFS:
        whole = gates.route(gate, predicted, tradeoff)
        routed = reference.route(made.network, gate, inputs, tradeoff)
        assert np.array_equal(whole.paths, routed.paths)
        assert np.array_equal(whole.labels(gate, logits), routed.outputs.argmax(axis=1))


@pytest.mark.parametrize(("form", "lengths"), [("table", {1, 2, 3, 4}), ("mlp", {1, 3})])
def test_random_gates_send_inputs_here_and_there(form: str, lengths: set[int]) -> None:
    """Else the tests above would show little."""
    case = (form, 4, CASES[-1][2])
    made, (inputs, _) = program(*case), samples(*case, 1000)
    assert made.gate is not None
    taken = set()
    for tradeoff in TRADEOFFS:
        routed = reference.route(made.network, made.gate, inputs, tradeoff)
        taken |= {made.gate.paths[int(path)] for path in np.unique(routed.paths)}
    assert {len(path) for path in taken} >= lengths
    assert len(taken) > 4


# Image and plan


def test_firmware_without_gates_refuses_the_image(tmp_path: Path, tool: Tool) -> None:
    tool("cc")
    made = program(*CASES[0])
    runtime = tmp_path / "runtime"
    c_arrays.write_runtime(runtime, [row for row in made.kernels if row.family != kernels.GATE])
    with closing(HostProgram(runtime, toolchain.find(toolchain.HOST_COMPILERS))) as without:
        runner = HostRunner(without, image.build(made).data)
        with pytest.raises(MismatchError, match="EQ_E_KERNEL"):
            runner.results([bytes(1)])


def test_only_gated_images_have_the_section_and_the_kernel() -> None:
    made = program(*CASES[-1])
    plain = replace(made, gate=None)
    gate = kernels.of_family(kernels.GATE)
    assert image.build(made).bytes_of(Kind.GATE) > 0
    assert image.build(plain).bytes_of(Kind.GATE) == 0
    assert gate in made.kernels
    assert gate not in plain.kernels
    assert c_arrays.kernels_of(image.build(made).data) == made.kernels


@every
def test_nothing_lies_on_the_state_of_the_gates(form: str, exits: int, seed: int) -> None:
    made = program(form, exits, seed)
    assert made.gate is not None
    places = {**made.plan.tensors, **made.plan.scratch}
    state = places.pop(gates.STATE, None)
    assert (state is None) == (made.gate.state_bytes == 0)
    if state is not None:
        assert state.bytes == made.gate.state_bytes
        assert state.offset + state.bytes <= made.plan.arena_bytes
        for place in places.values():
            assert place.offset + place.bytes <= state.offset or (
                state.offset + state.bytes <= place.offset
            )


LOOK_UP = ("gate: exponentials", "gate: entropies", "gate: sigmoids")
SIZES = {"table": 20, "mlp": 16}
MOST_TABLES, MOST_IN_ALL = 3 * 1024, 6 * 1024  # bytes, of ten classes and four exits


def parts_of(form: str, levels: int) -> dict[str, bytes]:
    """The section of four exits that all have these levels, by what its parts are."""
    gate = gated.random_gate((tuple(range(levels)),) * 4, form, 1, size=SIZES[form])
    return dict(gate_section.pieces(gate, 0.1, None))


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("form", SIZES)
def test_tables_of_four_exits_and_ten_classes_take_what_they_may(form: str, levels: int) -> None:
    parts = parts_of(form, levels)
    assert sum(len(data) for label, data in parts.items() if label not in LOOK_UP) < MOST_TABLES
    assert sum(len(parts.get(label, b"")) for label in LOOK_UP) <= 64 + 132 + 130
    section = sum(len(pad(data)) for data in parts.values())
    linked = [kernels.of_family(family) for family in {kernels.GATE, kernels.GATE_FORMS[form]}]
    assert section + kernels.linked_bytes(linked) < MOST_IN_ALL


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in SIZES and case[1] == 4])
def test_tables_and_the_code_that_reads_them_take_what_they_may(
    firmwares: Firmwares, compiler: str, case: tuple[str, int, int]
) -> None:
    own = {
        symbol.address: symbol.bytes
        for symbol in firmwares(*case, compiler).symbols
        if "eq_gate" in (symbol.name[:7], symbol.file[:7]) and symbol.kind == "STT_FUNC"
    }
    section = sum(len(pad(data)) for data in parts_of(case[0], levels=3).values())
    code = sum(own.values())
    assert code > 2 * 1024  # all of it was found
    assert section + code < MOST_IN_ALL


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_section_is_refused_or_runs_safely(
    sanitized_program: HostProgram, seed: int
) -> None:
    """The C's own fuzzer has hand-made models; this is one of the exporter's."""
    rng = np.random.default_rng(seed)
    case = CASES[seed % len(CASES)]
    made = program(*case)
    _, taken = samples(*case, 2)
    data = bytearray(image.build(made).data)
    start = len(data) - image.build(made).bytes_of(Kind.GATE)
    for at in rng.integers(start, min(start + 700, len(data)), int(rng.integers(1, 5))):
        data[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1, (data[at] + 1) & 0xFF]))
    data[12:16] = zlib.crc32(data[image.CRC_FROM :]).to_bytes(4, "little")
    runner = HostRunner(sanitized_program, bytes(data))
    try:
        results = runner.results(taken, int(rng.integers(0, 1 << 32)))
    except MismatchError as refused:
        assert re.search(r": EQ_E_(FORMAT|GATES|ARITHMETIC)", str(refused)), refused
    else:
        assert all(result.exit < 4 and 1 <= result.cost <= gates.ONE for result in results)


# What is no gate


def _layer(hidden: int, inputs: int) -> Layer:
    rows, words = np.zeros((hidden, inputs), np.int8), np.zeros(hidden, np.int32)
    return Layer(rows, words, 9, np.zeros(hidden, np.int8), 0, (1 << 30, -9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": ((0,), (0, 1), (0, 0), (1,), (1, 1))}, "in order"),
        ({"costs": (9, 9, 8, 9, 9)}, "costs less than its beginning"),
        ({"costs": (0, 9, 9, 9, 9)}, "costs lie in"),
        ({"costs": (1, 9, 9, 9, gates.ONE + 1)}, "costs lie in"),
        ({"form": Table(np.zeros((1, 3, 5), np.uint8), {})}, "shapes"),
        ({"form": Table(np.zeros((1, 3, 6), np.uint8), {})}, "shapes"),
        ({"form": Table(np.zeros((1, 256, 6), np.uint8), {})}, "shapes"),
        ({"form": Mlp((_layer(4, 13), _layer(4, 13)))}, "shapes"),
        ({"form": Mlp((_layer(4, 12),))}, "shapes"),
        ({"form": Mlp((_layer(3, 13),))}, "shapes"),
    ],
)
def test_a_gate_that_does_not_fit_its_paths_is_refused(
    change: dict[str, Any], message: str
) -> None:
    whole = gates.static(3, ((0, 1), (0, 1)))
    assert replace(whole, form=Mlp((_layer(4, 13),))).size == 4
    with pytest.raises(PolicyError, match=message) as refused:
        replace(whole, **change)
    assert refused.value.id == "EQ0395"


def test_a_gate_of_more_paths_than_an_image_holds_is_refused() -> None:
    levels = (tuple(range(4)),) * 8
    paths = gates.all_paths(levels)
    assert len(paths) > gates.MOST_HELD >= len(gates.static(3, levels).paths)
    with pytest.raises(PolicyError, match=f"{len(paths)} paths; an image holds 254"):
        gates.Gate(3, levels, paths, (1,) * len(paths), ((0, 0),), 0, gates.Static())


@pytest.mark.emulator
def test_a_routed_inference_takes_what_its_path_costs(firmwares: Firmwares, compiler: str) -> None:
    made = program(*CASES[-1])
    inputs = {t.name: np.zeros((1, *t.shape[1:]), np.int8) for t in made.network.inputs}
    taken = [parity.sample_bytes(list(inputs.values()), 0)]  # what prices are counted on
    assert made.gate is not None
    firmware = firmwares(*CASES[-1], compiler)
    found = toolchain.find(toolchain.rows_for(made.target), compiler)
    prices = costs.measured(made, made.target, found, costs.INSTRUCTIONS)
    # at low tradeoffs gates look at more options
    tradeoff = made.gate.tradeoff
    expected = reference.route(made.network, made.gate, inputs, tradeoff)
    (one,) = profiler.routed(firmware, made.target, taken, tradeoff)
    path = made.gate.paths[int(expected.paths[0])]
    assert one.instructions == pytest.approx(prices.of(path), rel=0.02)
    (all_on,) = profiler.routed(firmware, made.target, taken, 0)
    (none_on,) = profiler.routed(firmware, made.target, taken, 1 << 24)
    assert all_on.instructions > none_on.instructions
