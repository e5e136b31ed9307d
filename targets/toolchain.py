"""Compilers: which are there, and how each builds firmware for a target or code for the host."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import EdgeqError, MissingToolError
from edgeq.target import Target

TIMEOUT_SECONDS = 300
COMMON = ("-std=c99", "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-fno-common")
LINK = ("-Wl,--gc-sections", "-Wl,-e,Reset_Handler", "-Tlink.ld")


class CompilerError(EdgeqError):
    """A compiler refused sources that edgeq wrote: a bug, with the compiler's words."""


@dataclass(frozen=True, slots=True)
class CompilerInfo:
    """One row: where a compiler is found, what it adds to the common flags, how to get it."""

    name: str
    program: str
    command: Callable[[], tuple[str, ...] | None]
    flags: tuple[str, ...]
    install: str
    unlocks: str
    boards: tuple[str, ...] = ()  # that it builds for; none: all


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler that was found."""

    name: str
    command: tuple[str, ...]
    version: str
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def _on_path(name: str) -> tuple[str, ...] | None:
    path = shutil.which(name)
    return (path,) if path else None


def _zig() -> tuple[str, ...] | None:
    if importlib.util.find_spec("ziglang") is None:
        return None
    return (sys.executable, "-m", "ziglang", "cc")


ZIG_FLAGS = (
    "-g",  # without it zig drops the symbols; link.ld drops what it adds
    "-fno-sanitize=undefined",  # zig turns it on by default, and it needs a runtime
    "-fno-stack-protector",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
)
GCC_FLAGS = ("-nostartfiles", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables")
PIP_ZIG = 'python -m pip install "edgeq[mcu]"'
COMPILERS = (
    CompilerInfo(
        "gcc",
        "arm-none-eabi-gcc",
        lambda: _on_path("arm-none-eabi-gcc"),
        GCC_FLAGS,
        "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi",
        "firmware for Cortex-M",
        ("cortex_m",),
    ),
    CompilerInfo(
        "gcc",
        "riscv64-unknown-elf-gcc",
        lambda: _on_path("riscv64-unknown-elf-gcc"),
        GCC_FLAGS,
        "apt install gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
        "firmware for RISC-V",
        ("riscv",),
    ),
    CompilerInfo("zig", "ziglang", _zig, ZIG_FLAGS, PIP_ZIG, "firmware for every core"),
)
HOST_COMPILERS = (
    CompilerInfo(
        "cc", "cc", lambda: _on_path("cc"), (), "apt install gcc", "checks on this machine"
    ),
    CompilerInfo(
        "zig",
        "ziglang",
        _zig,
        ("-fno-sanitize=undefined",),
        PIP_ZIG,
        "checks on this machine, without cc",
    ),
)


def names() -> tuple[str, ...]:
    """The compilers that `--compiler` may name."""
    return tuple(dict.fromkeys(row.name for row in COMPILERS))


def rows_for(target: Target) -> tuple[CompilerInfo, ...]:
    """The compilers that build for `target`: they know its core, and it has flags for them."""
    return tuple(
        row
        for row in COMPILERS
        if row.name in target.compiler and target.board in (row.boards or (target.board,))
    )


def find(rows: Sequence[CompilerInfo] = COMPILERS, wanted: str | None = None) -> Compiler:
    """The first compiler of `rows` that is there, or the wanted one.

    Raises:
        MissingToolError: it is not; the message says how to install it.
    """
    candidates = [row for row in rows if wanted in (None, row.name)]
    for row in candidates:
        if command := row.command():
            return Compiler(row.name, command, version_of(command), row.flags)
    hints = " or ".join(f"{row.name}: {row.install}" for row in candidates)
    raise MissingToolError("EQ0601", f"no compiler found. Install one of them: {hints}")


@functools.cache
def version_of(command: tuple[str, ...]) -> str:
    """The version that a compiler says it has."""
    if command[-2:] == ("ziglang", "cc"):
        from importlib.metadata import version

        return version("ziglang")
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", done.stdout)
    return found[0] if found else "unknown"


def build_firmware(
    compiler: Compiler, target: Target, sources: Sequence[str], folder: Path, output: str
) -> None:
    """Compiles and links `sources` (relative to `folder`, as is `link.ld`) into the ELF `output`.

    Raises:
        CompilerError: the compiler failed.
        MissingToolError: the target has no flags for this compiler.
    """
    chain = target.compiler.get(compiler.name)
    if chain is None:
        known = ", ".join(target.compiler)
        raise MissingToolError(
            "EQ0602", f"{target.name} is built with {known}, not {compiler.name}"
        )
    flags = (*chain.flags, *compiler.flags, *COMMON, *LINK)
    _run(compiler, [*flags, "-Iruntime", "-o", output, *sources], folder)


def build_host(compiler: Compiler, sources: Sequence[str], folder: Path, output: str) -> None:
    """Compiles `sources` for this machine into the shared library or program `output`.

    Raises:
        CompilerError: the compiler failed.
    """
    _run(
        compiler, ["-std=c99", "-O2", *compiler.flags, "-Iruntime", "-o", output, *sources], folder
    )


def _run(compiler: Compiler, arguments: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        [*compiler.command, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise CompilerError("EQ0101", f"{compiler} failed:\n{done.stderr.strip()[-4000:]}")
