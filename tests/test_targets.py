"""Every target: its firmware computes what the reference predicts, and leaving its RAM is a fault.

Each compiler and each emulator that a target has. The bundled targets with memory of their own run
in the normal suite with both compilers, the generic cores, which share their flags, with one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bundled
import numpy as np
import pytest
from conftest import PROGRAMS, Tool
from graphs import RELU, Builder
from programs import compiled

from edgeq import parity, profiler, targets
from edgeq.errors import BudgetError, MismatchError, MissingToolError, UsageError
from edgeq.exporters import c_arrays, image
from edgeq.ir import Graph
from edgeq.program import Program
from edgeq.report import Verdict
from edgeq.target import Target
from edgeq.targets import counters, qemu, runners, toolchain
from edgeq.targets.emulators import Board, Device, EmulatorFaultError, Firmware, read_firmware
from edgeq.targets.qemu import QemuBoard
from edgeq.targets.runners import EmulatorRunner, HostProgram, HostRunner

SAMPLES = 8
KB = 1024
CONFIG = struct.Struct("<4I")  # eq_config_t
SHORT_STACK = 96  # bytes: enough for nothing that runs an operator
BEYOND = 1 * KB  # of an arena that is placed across the end of RAM
SMALL = 16 * KB  # RAM of a board that has room for the tiny example only
FEW = 64 * KB

ALL = [target for target in map(targets.load, targets.names()) if target.linked]
BOARDS = [target.name for target in ALL if not target.generic]
CORES = [target.name for target in ALL if target.generic]
LARGE = [target.name for target in ALL if target.first("ram").bytes >= FEW]
EMULATORS = {"unicorn": "unicorn", "qemu": "qemu-system-arm"}  # name: what a test needs


def cases(names: list[str], *compilers: str) -> list[Any]:
    return [
        pytest.param(name, compiler, row.name, id=f"{name}-{compiler}-{row.name}")
        for name in names
        for compiler in compilers
        for row in runners.emulators_of(targets.load(name))
    ]


NORMAL = [*cases(BOARDS, "gcc", "zig"), *cases(CORES, "gcc")]
NIGHTLY = cases(CORES, "zig")
everywhere = pytest.mark.parametrize(
    ("name", "compiler_name", "emulator"),
    [*NORMAL, *(pytest.param(*c.values, id=c.id, marks=pytest.mark.nightly) for c in NIGHTLY)],
)
each_emulator = pytest.mark.parametrize(("name", "compiler_name", "emulator"), cases(BOARDS, "gcc"))
pytestmark = pytest.mark.emulator


def need(tool: Tool, target: Target, compiler: str, emulator: str) -> None:
    """Skips, or fails in CI, where the target's compiler or emulator is missing."""
    for row in toolchain.rows_for(target):
        if row.name == compiler and row.command() is None:
            tool(row.program)
    for row in runners.emulators_of(target):
        if row.name == emulator and row.version() is None:
            tool(row.program)


@cache
def program_of(example: str, name: str) -> Program:
    chosen = bundled.load(example)
    return chosen.compile(chosen.policy, targets.load(name)).program


@dataclass(frozen=True)
class Firmwares:
    """Links programs, each once."""

    link: Callable[[str, str, str], Firmware]


def link(program: Program, folder: Path, compiler: str) -> Firmware:
    c_arrays.export(program, folder, [], program.kernels)
    found = toolchain.find(toolchain.rows_for(program.target), compiler)
    return read_firmware(runners.link_firmware(folder, program.name, program.target, found))


@pytest.fixture(scope="module")
def firmwares(tmp_path_factory: pytest.TempPathFactory) -> Firmwares:
    @cache
    def make(example: str, name: str, compiler: str) -> Firmware:
        folder = tmp_path_factory.mktemp(f"{example}-{name}-{compiler}")
        return link(program_of(example, name), folder, compiler)

    return Firmwares(make)


def row_of(target: Target, emulator: str) -> runners.EmulatorInfo:
    return next(row for row in runners.emulators_of(target) if row.name == emulator)


@contextmanager
def running(firmware: Firmware, target: Target, emulator: str) -> Iterator[EmulatorRunner]:
    with closing(EmulatorRunner(firmware, target, row_of(target, emulator))) as runner:
        yield runner


def assert_exact(example: str, name: str, firmware: Firmware, emulator: str) -> None:
    program = program_of(example, name)
    inputs = bundled.images().inputs(program, SAMPLES)
    with running(firmware, program.target, emulator) as runner:
        assert runner.failed_cases == 0
        row = parity.compare(program, runner, parity.expect(program, inputs))
    assert (row.verdict, row.mismatches, row.samples) == (Verdict.EXACT, 0, SAMPLES), row


# Parity


@everywhere
def test_the_tiny_example_computes_what_the_reference_predicts(
    firmwares: Firmwares, tool: Tool, name: str, compiler_name: str, emulator: str
) -> None:
    need(tool, targets.load(name), compiler_name, emulator)
    assert_exact(
        "fashion-tiny", name, firmwares.link("fashion-tiny", name, compiler_name), emulator
    )


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "compiler_name", "emulator"), cases([n for n in LARGE if n in BOARDS], "gcc", "zig")
)
def test_the_larger_example_computes_what_the_reference_predicts(
    firmwares: Firmwares, tool: Tool, name: str, compiler_name: str, emulator: str
) -> None:
    need(tool, targets.load(name), compiler_name, emulator)
    firmware = firmwares.link("fashion-resnet8", name, compiler_name)
    assert_exact("fashion-resnet8", name, firmware, emulator)


@pytest.mark.parametrize("name", targets.names())  # an edge box runs the C as this machine does
def test_the_host_computes_the_image_of_every_target(host_program: HostProgram, name: str) -> None:
    program = program_of("fashion-tiny", name)
    inputs = bundled.images().inputs(program, SAMPLES)
    runner = HostRunner(host_program, image.build(program).data)
    row = parity.compare(program, runner, parity.expect(program, inputs))
    assert row.verdict is Verdict.EXACT


# Instructions


def thumb_or_compressed(board: Board) -> Callable[[bytes], int]:
    """How many instructions a block holds: both encodings tell the length first."""
    arm = board.target.board == "cortex_m"

    def count(code: bytes) -> int:
        at = instructions = 0
        while at < len(code):
            half = int.from_bytes(code[at : at + 2], "little")
            wide = half >> 11 >= 0x1D if arm else half & 3 == 3
            at += 4 if wide else 2
            instructions += 1
        return instructions

    return count


def instructions_by_unicorn(board: Board) -> int:
    """Instructions of one eq_run."""
    import unicorn

    count, blocks = thumb_or_compressed(board), [0]

    def enter(uc: Any, address: int, size: int, data: object) -> None:
        blocks[0] += count(bytes(uc.mem_read(address, size)))

    board._uc.hook_add(unicorn.UC_HOOK_BLOCK, enter)
    board._uc.ctl_flush_tb()
    names = ("harness_context", "harness_result")
    board.call("eq_run", *(board.symbol(name).address for name in names))
    return blocks[0]


def counted(firmware: Firmware, program: Program, sample: bytes) -> int:
    """The same by QEMU's timer."""
    with closing(QemuBoard(firmware, program.target, counting=True)) as board:
        counting = runners.EmulatorInfo(
            "qemu", "", lambda _: True, lambda: "", lambda *_: board, "", ""
        )
        runner = EmulatorRunner(firmware, program.target, counting)
        runner.fill(sample)
        board.start_timer()
        names = ("harness_context", "harness_result")
        return board.instructions("eq_run", *(board.symbol(name).address for name in names))


@pytest.mark.parametrize("name", BOARDS)
def test_both_emulators_count_the_same_instructions_every_time(
    firmwares: Firmwares, tool: Tool, name: str
) -> None:
    program = program_of("fashion-tiny", name)
    need(tool, program.target, "gcc", "qemu")
    firmware = firmwares.link("fashion-tiny", name, "gcc")
    sample = parity.sample_bytes(list(bundled.images().inputs(program, 1).values()), 0)
    counts = {counted(firmware, program, sample) for _ in range(2)}
    if program.target.emulator.unicorn is not None:
        runner = EmulatorRunner(firmware, program.target, runners.UNICORN)
        runner.fill(sample)
        assert isinstance(runner.board, Board)
        counts.add(instructions_by_unicorn(runner.board))
    assert len(counts) == 1, counts


@pytest.mark.parametrize("compiler_name", ["gcc", "zig"])
@pytest.mark.parametrize("name", BOARDS)
def test_layers_and_overhead_are_the_same_by_blocks_and_by_the_timer(
    firmwares: Firmwares, tool: Tool, name: str, compiler_name: str
) -> None:
    """Wherever both count. Cortex-M55, where QEMU is alone, has the same code as its neighbours."""
    target = targets.load(name)
    firmware = firmwares.link("fashion-tiny", name, compiler_name)
    found = set()
    for row in runners.emulators_of(target):
        need(tool, target, compiler_name, row.name)
        counted = profiler.count(firmware, target, row)
        layers = tuple(layer.instructions for layer in counted.layers)
        whole, overhead = counted.whole.instructions, counted.overhead.instructions
        assert sum(layers) + overhead == whole
        assert overhead > 0
        found.add((layers, whole, counted.start.instructions))
    assert len(found) == 1, found


@pytest.mark.parametrize("name", BOARDS)
def test_counts_are_exact_wherever_the_ticks_of_the_timer_fall(name: str) -> None:
    """The 24 MHz of stm32f100 give 3 ticks an instruction: a count was off by one now and then."""
    settings = targets.load(name).emulator.qemu
    assert settings is not None
    timer = settings.timer
    rate = timer.ticks_per_second * (1 << timer.shift) / 1e9
    board = object.__new__(QemuBoard)
    board._timer = timer
    board.symbol = lambda name: SimpleNamespace(address=0)  # type: ignore[method-assign,return-value]
    around = 40  # instructions that measuring takes

    for count, phase in enumerate(np.random.default_rng(0).random((500, 2)), start=528_000):
        phases = iter(phase)

        def ticks(address: int, *_: int, stack: int | None = None, phases: Any = phases) -> int:
            begin = next(phases)
            return int(begin + rate * (around + (address or qemu.NOTHING))) - int(begin)

        board._ticks = ticks  # type: ignore[method-assign]
        assert board._instructions(count) == count


@pytest.mark.parametrize("native", [True, False], ids=["c", "python"])
def test_a_conditional_read_of_the_flash_leaves_no_condition_behind(
    firmwares: Firmwares, tool: Tool, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    """Unicorn's hooks do: here eq_init jumped over a check, and refused the image."""
    target = targets.load("mps2-an500")
    need(tool, target, "zig", "unicorn")
    if not native:
        monkeypatch.setattr(counters, "_native", lambda folder: None)
    firmware = firmwares.link("fashion-tiny", target.name, "zig")
    assert profiler.count(firmware, target).start.instructions > 0
    monkeypatch.setattr(counters, "CONDITIONS", 0)
    with pytest.raises(MismatchError, match="eq_init refused"):
        profiler.count(firmware, target)


# Overflow


@each_emulator
def test_a_stack_that_is_too_small_is_named(
    firmwares: Firmwares, tool: Tool, name: str, compiler_name: str, emulator: str
) -> None:
    target = targets.load(name)
    need(tool, target, compiler_name, emulator)
    firmware = firmwares.link("fashion-tiny", name, compiler_name)
    with running(firmware, target, emulator) as runner:
        bottom = runner.board.symbol("__stack_bottom").address
        with pytest.raises(EmulatorFaultError, match=f"{name}: .*the stack overflowed"):
            runner.board.call("harness_run", stack=bottom + SHORT_STACK)


@each_emulator
def test_an_arena_beyond_ram_is_named(
    firmwares: Firmwares, tool: Tool, name: str, compiler_name: str, emulator: str
) -> None:
    program = program_of("fashion-tiny", name)
    target = program.target
    need(tool, target, compiler_name, emulator)
    firmware = firmwares.link("fashion-tiny", name, compiler_name)
    ram = target.first("ram")
    with running(firmware, target, emulator) as runner:
        place_arena(runner.board, program, ram.end + BEYOND - program.plan.arena_bytes)
        with pytest.raises(
            EmulatorFaultError, match=f"{name}: .*, beyond the {ram.bytes} bytes of {ram.name}"
        ):
            runner.board.call("harness_run")


def place_arena(board: Device, program: Program, arena: int) -> None:
    """Initialises the model again, with its arena somewhere else; the stack keeps the config."""
    config = board.symbol("__stack_bottom").address
    model = board.symbol(f"{program.name}_image")
    board.write(config, CONFIG.pack(model.address, model.bytes, arena, program.plan.arena_bytes))
    assert board.call("eq_init", board.symbol("harness_context").address, config) == 0


def filling(channels: int) -> Graph:
    """A network whose arena is mostly one tensor."""
    b = Builder("filling")
    x = b.conv(b.input(8, 8, 1), channels, clamp=RELU)
    return b.build(b.fully_connected(b.flatten(b.global_average_pool(x)), 4))


@pytest.fixture(scope="module", params=PROGRAMS)
def full(
    request: pytest.FixtureRequest, tool: Tool, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Program, Firmware]:
    """A firmware that fills the RAM of an nRF51822, and a program that states 15.9 KB of it."""
    tool(PROGRAMS[request.param])
    target = targets.load("nrf51822")
    program = compiled(filling(236), target=target).program
    folder = tmp_path_factory.mktemp("full")
    return program, link(program, folder, request.param)


def sample_of(program: Program) -> bytes:
    return bytes(sum(tensor.elements for tensor in program.network.inputs))


@pytest.mark.parametrize("emulator", EMULATORS)
def test_a_model_that_takes_all_but_100_bytes_of_ram_runs(
    full: tuple[Program, Firmware], tool: Tool, emulator: str
) -> None:
    program, firmware = full
    need(tool, program.target, "gcc", emulator)
    with running(firmware, program.target, emulator) as runner:
        stack = runner.measure_stack(sample_of(program))
        context = runner.board.symbol("harness_context").bytes
        taken = program.plan.arena_bytes + context + stack
        assert 15.5 * KB < taken <= SMALL
        assert runner.run([sample_of(program)])


def cut(target: Target, size: int) -> Target:
    ram = target.first("ram")
    memory = tuple(m if m != ram else m.model_copy(update={"bytes": size}) for m in target.memory)
    return target.model_copy(update={"memory": memory})


def test_a_board_with_1_kb_less_refuses_it_by_name_in_unicorn(
    full: tuple[Program, Firmware],
) -> None:
    program, firmware = full
    less = cut(program.target, 15 * KB)
    with pytest.raises(EmulatorFaultError, match=r"nrf51822: write .*, beyond the 15360 bytes of"):
        EmulatorRunner(firmware, less, runners.UNICORN)


def test_a_board_with_1_kb_less_refuses_it_by_name_in_qemu(
    full: tuple[Program, Firmware], tool: Tool
) -> None:
    program, firmware = full
    need(tool, program.target, "gcc", "qemu")
    smaller = ("-global", f"nrf51-soc.sram-size={15 * KB}")
    board = QemuBoard(firmware, cut(program.target, 15 * KB), arguments=smaller)
    with closing(board), pytest.raises(EmulatorFaultError, match="beyond the 15360 bytes of ram"):
        board.boot()


# Alignment


@pytest.mark.parametrize("name", ["nrf51822", "riscv-virt"])
def test_a_core_that_reads_no_crooked_word_is_asked_for_none(
    firmwares: Firmwares, name: str
) -> None:
    import unicorn

    program = program_of("fashion-tiny", name)
    runner = EmulatorRunner(
        firmwares.link("fashion-tiny", name, "zig"), program.target, runners.UNICORN
    )
    crooked = []

    def look(uc: Any, access: int, address: int, size: int, value: int, data: object) -> None:
        if address % size:
            crooked.append((hex(address), size))

    assert isinstance(runner.board, Board)
    runner.board._uc.hook_add(unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE, look)
    runner.board._uc.ctl_flush_tb()
    runner.run([sample_of(program)])
    assert crooked == []


# Tools and budgets


@pytest.fixture
def no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "version", lambda name: None)


@pytest.mark.usefixtures("no_qemu")
def test_a_core_whose_emulator_is_missing_says_what_to_install() -> None:
    with pytest.raises(MissingToolError, match=r"EQ0603.*apt install qemu-system-arm.*--check"):
        runners.find_emulator(targets.load("mps3-an547"))


@pytest.mark.usefixtures("no_qemu")
def test_a_core_whose_emulator_is_missing_is_written_unchecked(tmp_path: Path) -> None:
    example = bundled.load("fashion-tiny")
    build = example.export(tmp_path / "build", target="mps3-an547", check="none")
    assert any("unchecked on mps3-an547" in note for note in build.report.export.notes)


def test_unicorn_is_preferred_where_it_models_the_core() -> None:
    rows = {target.name: runners.emulators_of(target)[0].name for target in ALL}
    assert {name for name, row in rows.items() if row == "qemu"} == {"mps3-an547", "cortex-m55"}


def test_a_generic_core_without_budgets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"EQ0213: cortex-m4 .* give --flash and --ram"):
        bundled.load("fashion-tiny").export(tmp_path / "build", target="cortex-m4")


def test_a_generic_core_asks_for_the_budget_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"EQ0213: rv32imac .* give --ram, as --ram 64KB"):
        bundled.load("fashion-tiny").export(tmp_path / "build", target="rv32imac", flash=64 * KB)


def test_a_generic_core_is_held_to_the_budgets(tmp_path: Path) -> None:
    example = bundled.load("fashion-tiny")
    options = {"target": "cortex-m0", "flash": 64 * KB, "ram": 3 * KB}
    with pytest.raises(BudgetError, match="EQ0402"):
        example.export(tmp_path / "build", **options)
    build = example.export(tmp_path / "build", **{**options, "ram": 6 * KB})
    assert build.report.export.budget.ram == 6 * KB


def test_a_small_board_gives_the_stack_what_the_model_leaves(tmp_path: Path) -> None:
    build = bundled.load("fashion-tiny").export(
        tmp_path / "build", target="stm32f100", optimize="time"
    )
    export = build.report.export
    assert export.ram.total <= export.budget.ram == 8 * KB
    firmware = read_firmware(build.folder / runners.FIRMWARE)
    reserved = firmware.symbol("__stack_top").address - firmware.symbol("__stack_bottom").address
    assert export.ram.stack <= reserved < runners.STACK_BYTES
