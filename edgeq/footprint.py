"""Flash and RAM of the linked firmware, by what takes them, read from the ELF's symbols.

Counted is what the model costs in the user's firmware: runtime, kernels, image, lookup tables.
Harness, start-up and golden vectors test it and are listed apart. What no symbol names (alignment,
literals, compiler support routines) counts as runtime.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeq import kernels
from edgeq.exporters.image import Image, Kind
from edgeq.kernels import Kernel
from edgeq.program import Program
from edgeq.report import CodeSize, Flash, Ram
from edgeq.targets.emulators import Firmware, Symbol

HARNESS_FILES = ("harness.c", "harness_start.c", "startup.c", "selftest.c", "eq_selftest.c")
HARNESS_NAMES = ("main", "Reset_Handler")
HARNESS_PREFIXES = ("harness_", "eq_selftest")


@dataclass(frozen=True, slots=True)
class CodeBytes:
    """Bytes of flash by purpose; together they are all that the ELF loads."""

    runtime: int
    kernels: int
    model: int
    harness: int


def measure(firmware: Firmware, model: str, kernels: Iterable[Kernel]) -> CodeBytes:
    """The flash of `firmware`, whose model is called `model`."""
    loaded = sum(len(data) for _, data in firmware.segments)
    counts = {"runtime": 0, "kernels": 0, "model": 0, "harness": 0}
    for row in by_symbol(firmware, model, kernels):
        counts[row.purpose] += row.bytes
    counts["runtime"] += loaded - sum(counts.values())
    return CodeBytes(**counts)


def by_symbol(firmware: Firmware, model: str, kernels: Iterable[Kernel]) -> tuple[CodeSize, ...]:
    """Every name that takes flash, the largest first."""
    purposes = _Purposes(model, kernels)
    found: dict[int, CodeSize] = {}
    for symbol in firmware.symbols:
        if symbol.bytes and symbol.address not in found and _loaded(firmware, symbol):
            found[symbol.address] = CodeSize(symbol.name, purposes.of(symbol), symbol.bytes)
    return tuple(sorted(found.values(), key=lambda row: (-row.bytes, row.name)))


def _loaded(firmware: Firmware, symbol: Symbol) -> bool:
    return any(start <= symbol.address < start + len(data) for start, data in firmware.segments)


class _Purposes:
    def __init__(self, model: str, kernels: Iterable[Kernel]) -> None:
        self.model = f"{model}_"
        rows = list(kernels)
        self.kernels = {kernel.symbol for kernel in rows}
        shared = {file.partition(".")[0] for kernel in rows for file in kernel.sources}
        self.files = self.kernels | shared
        self.prefixes = tuple(f"{file}_" for file in shared)

    def of(self, symbol: Symbol) -> str:
        """Statics go by their file, the others by their name."""
        if symbol.file in HARNESS_FILES or symbol.name in HARNESS_NAMES:
            return "harness"
        if symbol.name.startswith(HARNESS_PREFIXES):
            return "harness"
        if symbol.name.startswith(self.model):
            return "model"
        if symbol.name in self.kernels or symbol.file.partition(".")[0] in self.files:
            return "kernels"
        if symbol.name.startswith(self.prefixes):
            return "kernels"
        return "runtime"


def ram(firmware: Firmware) -> int:
    """Bytes of static RAM, the reserved stack not counted."""
    return sum(
        symbol.bytes
        for symbol in firmware.symbols
        if symbol.kind == "STT_OBJECT" and not _loaded(firmware, symbol)
    )


def estimate(program: Program, built: Image, linked: Iterable[Kernel]) -> tuple[Flash, Ram]:
    """Flash and RAM where nothing was linked: code sizes from `kernels.toml`."""
    code = kernels.code_bytes()
    kernel_bytes = kernels.linked_bytes(linked)
    weights = built.bytes_of(Kind.WEIGHTS)
    luts = sum(port.lut.nbytes for port in program.inputs if port.lut is not None)
    gates = built.bytes_of(Kind.GATE)
    tables = len(built.data) - weights - gates + luts
    flash = Flash(
        runtime=code.runtime,
        kernels=kernel_bytes,
        weights=weights,
        tables=tables,
        gates=gates,
        total=code.runtime + kernel_bytes + weights + gates + tables,
        estimated=True,
    )
    arena = program.plan.arena_bytes
    return flash, Ram(arena, code.context, 0, code.stack, arena + code.context + code.stack, True)
