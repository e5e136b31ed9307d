"""What the linked firmware takes and holds, read from its ELF; and how it fails where it must."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import bundled
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Builds, Tool
from programs import with_flipped_weight

from edgeq import Build, assemble, parity, targets
from edgeq.cli import main
from edgeq.errors import MismatchError
from edgeq.exporters import image
from edgeq.ir import Array, Graph, Node
from edgeq.kernels import tables
from edgeq.ops import OPS
from edgeq.program import Program
from edgeq.report import Row, Verdict
from edgeq.target import Target
from edgeq.targets import runners, toolchain
from edgeq.targets.emulators import EmulatorFaultError, Firmware, read_firmware
from edgeq.targets.runners import EmulatorRunner, HostProgram, HostRunner

KB = 1024
# Runtime and kernels on a Cortex-M4; the smaller model has the more operators.
MOST_CODE = {"fashion-resnet8": 18 * KB, "fashion-tiny": 20 * KB}
MOST_STACK = 2 * KB
TINY_ARENA, TINY_FLASH = 6 * KB, 48 * KB
PADDING = 15  # bytes of an arena that a run may leave untouched
PACKED_WITHIN, TENSOR_BYTES = 1.03, 4  # fields fill blocks of 16 weights of two channels
SAMPLES = 16  # of the tests for divergence
CRC = slice(12, 16)  # of the image

HEAP = re.compile(r"_*(malloc|calloc|realloc|free|sbrk)(_r)?")
FLOAT = re.compile(r"__aeabi_(c?[fd]|u?[il]2[fd])\w*|__\w+[sd]f\w*")
VFP = re.compile(r"\tv(add|sub|n?mul|n?ml[as]|fn?m[as]|div|sqrt|cvt\w?|neg|abs|cmpe?)\.")

both = pytest.mark.parametrize("name", ["fashion-tiny", "fashion-resnet8"])
linked = pytest.mark.parametrize(
    ("name", "kernels"), [("fashion-resnet8", "own"), ("fashion-tiny", "all")]
)
pytestmark = pytest.mark.emulator


@cache
def program_of(name: str) -> Program:
    example = bundled.load(name)
    return example.compile(example.policy).program


def firmware_of(build: Build) -> Firmware:
    return read_firmware(build.folder / runners.FIRMWARE)


def inputs_of(program: Program, count: int = SAMPLES) -> dict[str, Array]:
    return bundled.images().inputs(program, count)


def first_sample(program: Program) -> bytes:
    return parity.sample_bytes(list(inputs_of(program, 1).values()), 0)


# What it takes


@both
def test_weights_take_their_bits_and_hardly_more(built: Builds, compiler: str, name: str) -> None:
    graph = program_of(name).network.graphs[0]
    weights = [graph.tensors[node.inputs[1]] for node in graph.nodes if OPS[node.op].weighted]
    least = sum(w.elements * w.qparams.bits for w in weights if w.qparams) / 8
    taken = built(name, compiler).report.export.flash.weights
    assert least <= taken <= PACKED_WITHIN * least + TENSOR_BYTES * len(weights)


@both
def test_runtime_and_kernels_take_what_they_may(built: Builds, compiler: str, name: str) -> None:
    flash = built(name, compiler).report.export.flash
    assert min(flash.runtime, flash.kernels) > 0
    assert flash.runtime + flash.kernels < MOST_CODE[name]


def test_the_tiny_example_fits_a_small_board(built: Builds, compiler: str) -> None:
    export = built("fashion-tiny", compiler).report.export
    assert export.ram.arena < TINY_ARENA
    assert export.flash.total < TINY_FLASH


def touched_bytes(runner: EmulatorRunner, sample: bytes) -> int:
    """Bytes of the arena that one run writes, by painting it with two patterns."""
    arena = runner.board.symbol("harness_arena")
    touched = 0
    for pattern in (b"\x5a", b"\xa5"):
        runner.board.write(arena.address, pattern * arena.bytes)
        runner.run([sample])
        after = runner.board.read(arena.address, arena.bytes)
        touched = max(touched, len(after.rstrip(pattern)))
    return touched


@both
def test_a_run_touches_the_arena_to_its_end_and_not_beyond(
    built: Builds, compiler: str, name: str
) -> None:
    build, program = built(name, compiler), program_of(name)
    runner = EmulatorRunner(firmware_of(build), program.target)
    declared = build.report.export.ram.arena
    assert runner.board.symbol("harness_arena").bytes == declared == program.plan.arena_bytes
    measured = touched_bytes(runner, first_sample(program))
    assert measured <= declared <= measured + PADDING


@both
def test_the_stack_is_measured_and_reported_with_its_compiler(
    built: Builds, compiler: str, name: str
) -> None:
    build, program = built(name, compiler), program_of(name)
    runner = EmulatorRunner(firmware_of(build), program.target)
    measured = runner.measure_stack(first_sample(program))
    assert 0 < measured == build.report.export.ram.stack < MOST_STACK
    assert build.report.export.compiler == str(toolchain.find(toolchain.COMPILERS, compiler))


# What it holds


@linked
def test_nothing_allocates(built: Builds, compiler: str, name: str, kernels: str) -> None:
    names = [symbol.name for symbol in firmware_of(built(name, compiler, kernels)).symbols]
    assert "eq_run" in names
    assert not [name for name in names if HEAP.fullmatch(name)]


@linked
def test_nothing_calls_a_float_routine(
    built: Builds, compiler: str, name: str, kernels: str
) -> None:
    names = [symbol.name for symbol in firmware_of(built(name, compiler, kernels)).symbols]
    assert not [name for name in names if FLOAT.fullmatch(name)]


@linked
def test_no_instruction_computes_in_floating_point(
    built: Builds, tool: Tool, compiler: str, name: str, kernels: str
) -> None:
    elf = built(name, compiler, kernels).folder / runners.FIRMWARE
    command = [*tool("arm-none-eabi-objdump"), "--disassemble", "--no-show-raw-insn", str(elf)]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "<eq_run>:" in code
    assert not [line for line in code.splitlines() if VFP.search(line)]


@linked
def test_only_the_harness_has_writable_globals(
    built: Builds, compiler: str, name: str, kernels: str
) -> None:
    ram = targets.load("mcu").first("ram")
    writable = [
        symbol.name
        for symbol in firmware_of(built(name, compiler, kernels)).symbols
        if symbol.bytes and ram.base <= symbol.address < ram.base + ram.bytes
    ]
    assert "harness_arena" in writable
    assert not [name for name in writable if not name.startswith("harness_")]


# What overflows


def with_ram(target: Target, size: int) -> Target:
    """`target` with less RAM than its firmware was linked for."""
    ram = target.first("ram")
    memory = tuple(m if m != ram else m.model_copy(update={"bytes": size}) for m in target.memory)
    return target.model_copy(update={"memory": memory})


def test_a_stack_that_is_too_small_faults_and_is_named(
    built: Builds, compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = built("fashion-tiny", compiler)
    needed = build.report.export.ram.stack
    monkeypatch.setattr(runners, "STACK_BYTES", needed // 16 * 8)
    found = toolchain.find(toolchain.COMPILERS, compiler)
    folder = tmp_path / "build"
    shutil.copytree(build.folder, folder)
    elf = runners.link_firmware(folder, build.report.model, targets.load("mcu"), found)
    with pytest.raises(EmulatorFaultError, match=r"below sram .* the stack overflowed, in \w+"):
        EmulatorRunner(read_firmware(elf), targets.load("mcu"))


def test_ram_that_is_too_small_faults_and_is_named(built: Builds, compiler: str) -> None:
    build = built("fashion-resnet8", compiler)
    cut = build.report.export.ram.arena // 4096 * 4096
    with pytest.raises(EmulatorFaultError, match=f"write to .* beyond the {cut} bytes of sram"):
        EmulatorRunner(firmware_of(build), with_ram(targets.load("mcu"), cut))


def test_a_write_to_flash_faults_and_is_named(built: Builds, compiler: str) -> None:
    build, program = built("fashion-tiny", compiler), program_of("fashion-tiny")
    board = EmulatorRunner(firmware_of(build), program.target).board
    flash, name = program.target.first("flash"), build.report.model
    config = board.symbol("__bss_end").address
    model = board.symbol(f"{name}_image")
    arena = flash.base + flash.bytes // 2
    fields = (model.address, model.bytes, arena, program.plan.arena_bytes)
    board.write(config, struct.pack("<4I", *fields))
    assert board.call("eq_init", board.symbol("harness_context").address, config) == 0
    with pytest.raises(EmulatorFaultError, match=r"write to .*, in flash, in \w+"):
        board.call("harness_run")


# What diverges


def with_image(firmware: Firmware, name: str, data: bytes) -> Firmware:
    """`firmware` whose model's image was overwritten in flash."""
    address = firmware.symbol(f"{name}_image").address
    segments = []
    for start, content in firmware.segments:
        at = address - start
        inside = 0 <= at < len(content)
        after = content[:at] + data + content[at + len(data) :] if inside else content
        segments.append((start, after))
    return replace(firmware, segments=tuple(segments))


def assert_found(row: Row, layer: str, expected: list[Array], changed: list[Array]) -> None:
    """`row` says what the arrays say: how many samples differ, by how much, from which layer."""
    difference = np.abs(expected[0].astype(np.int64) - changed[0])
    assert difference.any()
    assert row.verdict is Verdict.DIFFERS
    assert row.mismatches == difference.any(axis=1).sum()
    assert row.max_lsb == difference.max()
    assert row.first_diverging_layer == layer


layers = pytest.mark.parametrize("layer", ["conv", "block2.depthwise", "block3.pointwise"])


@layers
def test_a_changed_weight_on_the_core_is_found_in_its_layer(
    built: Builds, compiler: str, layer: str
) -> None:
    program = program_of("fashion-tiny")
    changed = with_flipped_weight(program, layer)
    inputs = inputs_of(program)
    expected = parity.expect(program, inputs)
    build = built("fashion-tiny", compiler)
    damaged = with_image(firmware_of(build), build.report.model, image.build(changed).data)
    row = parity.compare(program, EmulatorRunner(damaged, program.target), expected)
    assert_found(row, layer, expected.outputs, parity.predict(changed, inputs))


@layers
def test_a_changed_weight_on_the_host_is_found_in_its_layer(
    host_program: HostProgram, layer: str
) -> None:
    program = program_of("fashion-tiny")
    changed = with_flipped_weight(program, layer)
    inputs = inputs_of(program)
    expected = parity.expect(program, inputs)
    runner = HostRunner(host_program, image.build(changed).data)
    row = parity.compare(program, runner, expected)
    assert_found(row, layer, expected.outputs, parity.predict(changed, inputs))


def test_an_image_that_was_damaged_is_refused(built: Builds, compiler: str) -> None:
    build = built("fashion-tiny", compiler)
    data = bytearray((build.folder / f"{build.report.model}.eqb").read_bytes())
    data[-9] ^= 1
    damaged = with_image(firmware_of(build), build.report.model, bytes(data))
    with pytest.raises(MismatchError, match="harness_init refused with status -6"):
        EmulatorRunner(damaged, targets.load("mcu"))


def corrupt_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sum of every layer in pairs begins with a thousand too much."""

    def corrupt(graph: Graph, node: Node, layout: str) -> Array | None:
        found = tables(graph, node, layout)
        if found is not None:
            found[0, 0] += 256 * 1000
        return found

    monkeypatch.setattr(image, "tables", corrupt)


def corrupt_firmware(monkeypatch: pytest.MonkeyPatch) -> None:
    """The firmware is linked with another image than the one that was exported."""
    link = runners.link_firmware

    def corrupt(build: Path, name: str, *rest: Any) -> Path:
        elf = link(build, name, *rest)
        good = (build / f"{name}.eqb").read_bytes()
        wrong = image.build(with_flipped_weight(program_of("fashion-tiny"), "conv")).data
        assert good in elf.read_bytes()
        elf.write_bytes(elf.read_bytes().replace(good, wrong))
        return elf

    monkeypatch.setattr(assemble.runners, "link_firmware", corrupt)


@pytest.mark.parametrize("corrupt", [corrupt_tables, corrupt_firmware])
def test_an_export_that_diverges_raises_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corrupt: Any
) -> None:
    corrupt(monkeypatch)
    with pytest.raises(MismatchError) as refused:
        bundled.load("fashion-tiny").export(tmp_path / "build")
    assert refused.value.exit_code == 5
    assert not list(tmp_path.iterdir())


def test_a_build_that_diverges_ends_the_command_with_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt_tables(monkeypatch)
    example = bundled.load("fashion-tiny")
    files = {"--policy": example.policy, "--calib": example.folder / "calib.npz"}
    options = [str(part) for pair in files.items() for part in pair]
    command = ["export", str(example.folder / "model.onnx"), *options, "-o", f"{tmp_path}/build"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 5
    assert "differs from the prediction" in done.output
    assert not list(tmp_path.iterdir())
