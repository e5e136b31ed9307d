"""Runners: where the exported C can be executed, all with the same two verbs.

`run` gives the outputs of samples; `trace` the arena after every operator of one sample, which
tells the first layer that diverges.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Protocol

from edgeq.errors import MismatchError, MissingToolError
from edgeq.kernels import MAX_PORTS
from edgeq.packing import ALIGN
from edgeq.target import Target
from edgeq.targets import emulators, qemu, toolchain
from edgeq.targets.emulators import EQ_MORE, Board, Device, Firmware
from edgeq.targets.qemu import QemuBoard
from edgeq.targets.toolchain import Compiler, CompilerError

TIMEOUT_SECONDS = 3600
CHUNK = 64  # samples between two steps of a progress bar
FIRMWARE = "firmware.elf"
PROGRAM = "main.exe"
STACK_BYTES = 4096  # reserved while measuring; the report states what was used
ROUTE = 0xFFFFFFFF  # EQ_ROUTE
LEAST_STACK = 256  # less is no stack: the model does not fit
# GNU ld and lld: region `RAM' overflowed by 8 bytes, section '.bss' … 'RAM': overflowed by 8 bytes
RAM_OVERFLOW = re.compile(r"[`']RAM':? overflowed by (\d+) bytes")
HARNESS = "harness"  # the folder of boards that all of them share

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave: the bytes of all outputs, back to back, and the fields of eq_result_t."""

    outputs: bytes
    label: int
    confidence: int
    exit: int
    path: int  # levels, 4 bits a block, the first block lowest
    cost: int


RESULT = struct.Struct("<5I")  # eq_result_t


class Runner(Protocol):
    """Executes a model's C on int8 samples (each the bytes of all inputs, back to back)."""

    name: str
    version: str

    def run(self, samples: Sequence[bytes], progress: Progress | None = None) -> list[bytes]:
        """The bytes of all outputs, back to back, of every sample."""

    def trace(self, sample: bytes) -> bytes:
        """The arena after every operator, back to back."""

    def results(
        self, samples: Sequence[bytes], tradeoff: int = 0, forced: tuple[int, int] | None = None
    ) -> list[Result]:
        """What every sample of a model with gates gives, routed at `tradeoff` or forced."""


def harness_header(name: str) -> str:
    """`harness_model.h`: what the generic harness needs to know of the model `name`."""
    upper = name.upper()
    return (
        f'#include "{name}.h"\n'
        f"#define HARNESS_IMAGE {name}_image\n"
        f"#define HARNESS_IMAGE_BYTES {upper}_IMAGE_BYTES\n"
        f"#define HARNESS_ARENA_BYTES {upper}_ARENA_BYTES\n"
        f"#ifdef {upper}_EXITS\n#define HARNESS_GATED\n#endif\n"
    )


def _copy_folder(board: str, folder: Path) -> tuple[str, ...]:
    """Copies a folder of boards into `folder`; the names of its C files."""
    names = []
    for source in resources.files("edgeq.firmware_stubs").joinpath("boards", board).iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
        if source.name.endswith(".c"):
            names.append(source.name)
    return tuple(sorted(names))


def model_sources(build: Path, name: str, folder: Path) -> tuple[str, ...]:
    """Copies what a firmware is linked from into `folder`: no path enters an object file."""
    shutil.copytree(build / "runtime", folder / "runtime")
    for file in (f"{name}.h", f"{name}.c", "selftest.c"):
        shutil.copy(build / file, folder / file)
    (folder / "harness_model.h").write_text(harness_header(name), encoding="utf-8")
    runtime = sorted(f"runtime/{file.name}" for file in (folder / "runtime").glob("*.[cS]"))
    return (*runtime, f"{name}.c")


class HostProgram:
    """The runtime compiled for this machine: runs any image whose kernels it has."""

    def __init__(self, runtime: Path, compiler: Compiler, flags: Sequence[str] = ()) -> None:
        self.version = str(compiler)
        self._folder = tempfile.TemporaryDirectory(prefix="edgeq-host-")
        self.folder = Path(self._folder.name)
        shutil.copytree(runtime, self.folder / "runtime")
        sources = [f"runtime/{f.name}" for f in sorted((self.folder / "runtime").glob("*.c"))]
        sources += _copy_folder("host", self.folder)
        toolchain.build_host(compiler, [*flags, *sources], self.folder, PROGRAM)

    def close(self) -> None:
        """Deletes the program."""
        self._folder.cleanup()


class HostRunner:
    """A model image in a host program, in a process of its own."""

    name = "c-host"

    def __init__(self, program: HostProgram, image: bytes) -> None:
        self.version = program.version
        self._program = program
        self._image = image

    def run(self, samples: Sequence[bytes], progress: Progress | None = None) -> list[bytes]:
        """The outputs of every sample.

        Raises:
            MismatchError: the program failed; its words follow.
        """
        outputs: list[bytes] = []
        for start in range(0, len(samples), CHUNK):
            part = samples[start : start + CHUNK]
            data = self._execute(b"".join(part))
            size = len(data) // len(part)
            outputs += [data[i * size : (i + 1) * size] for i in range(len(part))]
            if progress is not None:
                progress(len(outputs), len(samples))
        return outputs

    def trace(self, sample: bytes) -> bytes:
        """The arena after every operator, back to back."""
        return self._execute(sample, "trace")

    def results(
        self, samples: Sequence[bytes], tradeoff: int = 0, forced: tuple[int, int] | None = None
    ) -> list[Result]:
        """The results of every sample of a model with gates.

        They route at `tradeoff` (Q16.16), or take a forced path: its levels and exit, as in
        `Result`.
        """
        words = [str(number) for number in (tradeoff, *(forced or ()))]
        data = self._execute(b"".join(samples), "results", *words)
        size = len(data) // len(samples)
        rows = (data[i * size : (i + 1) * size] for i in range(len(samples)))
        return [Result(row[: -RESULT.size], *RESULT.unpack(row[-RESULT.size :])) for row in rows]

    def _execute(self, data: bytes, *arguments: str) -> bytes:
        folder = self._program.folder
        (folder / "image").write_bytes(self._image)
        (folder / "in").write_bytes(data)
        done = subprocess.run(
            [folder / PROGRAM, "image", "in", "out", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise MismatchError("EQ0503", f"{self.name}: {done.stderr.strip()[-2000:]}")
        return (folder / "out").read_bytes()


def copy_board(target: Target, folder: Path) -> tuple[str, ...]:
    """Copies what boots firmware on `target` into `folder`; the names of its C files."""
    return (*_copy_folder(HARNESS, folder), *_copy_folder(target.board, folder))


def write_linker_script(folder: Path, target: Target, stack_bytes: int | None = None) -> None:
    """Fills the memories of `target` into `link.ld`, from the template in `folder`."""
    flash, ram = target.first("flash"), target.first("ram")
    script = Template((folder / "link.ld.in").read_text(encoding="utf-8"))
    text = script.substitute(
        flash_base=flash.base,
        flash_bytes=flash.bytes,
        ram_base=ram.base,
        ram_bytes=ram.bytes,
        stack_bytes=STACK_BYTES if stack_bytes is None else stack_bytes,
    )
    (folder / "link.ld").write_text(text, encoding="utf-8")


def link_firmware(build: Path, model: str, target: Target, compiler: Compiler) -> Path:
    """Links the build with the board harness for `target` into `firmware.elf`; its path.

    A model that leaves less RAM than `STACK_BYTES` gets what it leaves as its stack.

    Raises:
        CompilerError: the compiler failed.
    """
    with tempfile.TemporaryDirectory(prefix="edgeq-firmware-") as name:
        folder = Path(name)
        sources = (*model_sources(build, model, folder), "selftest.c")
        sources += copy_board(target, folder)
        try:
            _link(folder, sources, target, compiler, STACK_BYTES)
        except CompilerError as error:
            left = STACK_BYTES - _ram_lacks(error)
            if not LEAST_STACK <= left < STACK_BYTES:
                raise
            _link(folder, sources, target, compiler, left)
        shutil.copyfile(folder / FIRMWARE, build / FIRMWARE)
    return build / FIRMWARE


def _link(
    folder: Path, sources: Sequence[str], target: Target, compiler: Compiler, stack_bytes: int
) -> None:
    write_linker_script(folder, target, stack_bytes)
    toolchain.build_firmware(compiler, target, ["-I.", *sources], folder, FIRMWARE)


def _ram_lacks(error: CompilerError) -> int:
    """The bytes that RAM lacks by the linker's words, in doublewords; 0 where it lacks none."""
    found = [int(size) for size in RAM_OVERFLOW.findall(error.message)]
    return -(-max(found, default=0) // ALIGN) * ALIGN


@dataclass(frozen=True, slots=True)
class EmulatorInfo:
    """One row: which targets an emulator models, where it is found, how to get it."""

    name: str
    program: str
    models: Callable[[Target], bool]
    version: Callable[[], str | None]  # None: it is missing
    board: Callable[[Firmware, Target], Device]
    install: str
    unlocks: str


UNICORN = EmulatorInfo(
    "unicorn",
    "unicorn",
    lambda target: target.emulator.unicorn is not None,
    emulators.version,
    Board,
    'python -m pip install "edgeq[mcu]"',
    "running firmware for Cortex-M0 to M33 and RISC-V",
)


def _qemu(system: str, package: str, unlocks: str) -> EmulatorInfo:
    return EmulatorInfo(
        "qemu",
        f"qemu-system-{system}",
        lambda target: target.emulator.qemu is not None and target.emulator.qemu.system == system,
        lambda: qemu.version(f"qemu-system-{system}"),
        QemuBoard,
        f"apt install {package}",
        unlocks,
    )


EMULATORS = (
    UNICORN,
    _qemu("arm", "qemu-system-arm", "running firmware for Cortex-M55, and a second opinion on all"),
    _qemu("riscv32", "qemu-system-misc", "a second opinion on RISC-V"),
)


def emulators_of(target: Target) -> tuple[EmulatorInfo, ...]:
    """The emulators that model `target`, there or not, the preferred one first."""
    return tuple(row for row in EMULATORS if row.models(target))


def find_emulator(target: Target, wanted: str | None = None) -> EmulatorInfo:
    """The first emulator of `target` that is there, or the wanted one.

    Raises:
        MissingToolError: it is not; the message says how to install it.
    """
    rows = [row for row in emulators_of(target) if wanted in (None, row.name)]
    for row in rows:
        if row.version() is not None:
            return row
    if not rows:
        raise MissingToolError("EQ0604", f"no emulator models {target.name}: use --check host")
    hints = " or ".join(f"{row.name}: {row.install}" for row in rows)
    raise MissingToolError(
        "EQ0603",
        f"the core of {target.name} has no emulator here. Install one of them: {hints}; "
        "or write the build unchecked, with --check host",
    )


class EmulatorRunner:
    """`firmware.elf` on the target's emulated core, by the first emulator or the one given."""

    name = "emulator"

    def __init__(
        self, firmware: Firmware, target: Target, emulator: EmulatorInfo | None = None
    ) -> None:
        emulator = emulator or find_emulator(target)
        self.version = f"{emulator.name} {emulator.version()}, {target.name}"
        self.board = emulator.board(firmware, target)
        self.board.boot()
        self.failed_cases = _signed(self.board.read_word(self._address("harness_status")))
        self._call("harness_init")

    def run(self, samples: Sequence[bytes], progress: Progress | None = None) -> list[bytes]:
        """The outputs of every sample.

        Raises:
            EmulatorFaultError: the firmware faulted.
            MismatchError: it refused to run.
        """
        outputs = []
        for index, sample in enumerate(samples, start=1):
            self.fill(sample)
            self.infer()
            outputs.append(b"".join(self.board.read(*port) for port in self._ports("output")))
            if progress is not None:
                progress(index, len(samples))
        return outputs

    def trace(self, sample: bytes) -> bytes:
        """The arena after every operator, back to back."""
        arena = self.board.symbol("harness_arena")
        self.fill(sample)
        return b"".join(self.board.read(arena.address, arena.bytes) for _ in self.steps())

    def results(
        self, samples: Sequence[bytes], tradeoff: int = 0, forced: tuple[int, int] | None = None
    ) -> list[Result]:
        """As those of `HostRunner`."""
        self.route(tradeoff, forced)
        found = []
        for sample in samples:
            (outputs,) = self.run([sample])
            words = self.board.read(self._address("harness_result"), RESULT.size)
            found.append(Result(outputs, *RESULT.unpack(words)))
        return found

    def route(self, tradeoff: int, forced: tuple[int, int] | None = None) -> None:
        """Has samples routed at `tradeoff` (Q16.16), or take a forced path."""
        self._call("harness_set_tradeoff", tradeoff)
        self.force(forced)

    def force(self, path: tuple[int, int] | None) -> None:
        """Has samples take a path, its levels and exit as in `Result`; None gives routing back."""
        self._call("harness_force", *(path or (0, ROUTE)))

    def infer(self) -> None:
        """Runs the sample that the inputs hold."""
        self._call("harness_run")

    def steps(self) -> Iterator[None]:
        """The same, an operator to each step."""
        status = EQ_MORE
        while status == EQ_MORE:
            status = self._call("harness_step")
            yield

    def start(self) -> None:
        """Initialises the model again."""
        self._call("eq_init", *map(self._address, ("harness_context", "harness_config")))

    @property
    def input_bytes(self) -> int:
        """Bytes of one sample."""
        return sum(size for _, size in self._ports("input"))

    def measure_stack(self, sample: bytes, forced: Iterable[tuple[int, int]] = ()) -> int:
        """Bytes of stack that checking the image and running one sample take, by painting.

        The sample runs on every path of `forced`, too.
        """
        self.board.paint_stack()
        self._call("harness_init")
        self.run([sample])
        for path in forced:
            self.results([sample], 0, path)
        return self.board.stack_bytes()

    def close(self) -> None:
        """Ends the emulation."""
        self.board.close()

    def _address(self, name: str) -> int:
        return self.board.symbol(name).address

    def _call(self, name: str, *arguments: int) -> int:
        status = _signed(self.board.call(name, *arguments))
        if status < 0:
            raise MismatchError("EQ0504", f"{self.version}: {name} refused with status {status}")
        return status

    def _ports(self, kind: str) -> list[tuple[int, int]]:
        """Address and bytes of every input or output: the first two fields of eq_tensor_t."""
        ports = []
        context = self._address("harness_context")
        for index in range(MAX_PORTS):
            port = self.board.call(f"eq_{kind}", context, index)
            if port == 0:
                break
            ports.append((self.board.read_word(port), self.board.read_word(port + 4)))
        return ports

    def fill(self, sample: bytes) -> None:
        """Puts a sample into the inputs, which later operators may overwrite."""
        start = 0
        for address, size in self._ports("input"):
            self.board.write(address, sample[start : start + size])
            start += size


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
