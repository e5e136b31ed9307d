"""Emulated cores: firmware loaded into the target's real memory map, functions called by symbol.

Unicorn maps exactly the regions that the target describes, so an access outside them faults as the
device would, and is reported as what it was. It counts no cycles.
"""

from __future__ import annotations

import abc
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from edgeq.errors import MismatchError
from edgeq.target import Target

TIMEOUT_MICROSECONDS = 300_000_000
NEAR = 0x10000  # bytes beside a region whose access is explained by it
PAINT = 0xA5
EQ_MORE = 1  # eq_status_t: operators are left to run


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name in the ELF: its address without the Thumb bit, its size, its file if it is static."""

    name: str
    address: int
    bytes: int
    kind: str  # STT_FUNC, STT_OBJECT, …
    file: str  # "" for global symbols


@dataclass(frozen=True, slots=True)
class Firmware:
    """A linked ELF: what is loaded where, and its symbols."""

    segments: tuple[tuple[int, bytes], ...]  # physical address, contents
    symbols: tuple[Symbol, ...]

    def symbol(self, name: str) -> Symbol:
        """The symbol called `name`."""
        return next(symbol for symbol in self.symbols if symbol.name == name)


def read_firmware(path: Path) -> Firmware:
    """The ELF file at `path`."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        elf = ELFFile(file)
        segments = tuple(
            (int(s["p_paddr"]), s.data()) for s in elf.iter_segments("PT_LOAD") if s["p_filesz"]
        )
        return Firmware(segments, tuple(_symbols(elf)))


def _symbols(elf: Any) -> Iterator[Symbol]:
    file = ""
    thumb = int(elf.get_machine_arch() == "ARM")
    for entry in elf.get_section_by_name(".symtab").iter_symbols():
        kind, bind = entry["st_info"]["type"], entry["st_info"]["bind"]
        if kind == "STT_FILE":  # names the file of the static symbols after it
            file = entry.name.replace("\\", "/").rpartition("/")[2]
        elif entry.name and entry["st_shndx"] != "SHN_UNDEF" and not entry.name.startswith("$"):
            local = file if bind == "STB_LOCAL" else ""
            yield Symbol(entry.name, entry["st_value"] & ~thumb, entry["st_size"], kind, local)


class EmulatorFaultError(MismatchError):
    """The firmware did what the device would have refused."""


@dataclass(frozen=True, slots=True)
class Core:
    """How Unicorn knows the cores that share a board folder."""

    architecture: str
    modes: tuple[str, ...]
    constants: str  # the module of registers and models
    registers: str  # what its names of registers start with
    models: str
    arguments: tuple[str, ...]
    link: str
    thumb: int  # set in the addresses of functions
    conditions: str  # the register that makes the next instructions conditional, or ""
    devices: tuple[tuple[int, int], ...]  # what start-up code touches: base, bytes
    exceptions: Mapping[int, str]
    entry: str


CORES = {
    "cortex_m": Core(
        architecture="UC_ARCH_ARM",
        modes=("UC_MODE_THUMB", "UC_MODE_MCLASS"),
        constants="unicorn.arm_const",
        registers="UC_ARM_REG_",
        models="UC_CPU_ARM_",
        arguments=("R0", "R1", "R2"),
        link="LR",
        thumb=1,
        conditions="CPSR",
        devices=((0xE000_E000, 0x1000),),  # system control; the FPU is enabled there
        exceptions={19: "the stack overflowed its limit"},
        entry="Reset_Handler",
    ),
    "riscv": Core(
        architecture="UC_ARCH_RISCV",
        modes=("UC_MODE_RISCV32",),
        constants="unicorn.riscv_const",
        registers="UC_RISCV_REG_",
        models="UC_CPU_RISCV32_",
        arguments=("A0", "A1", "A2"),
        link="RA",
        thumb=0,
        conditions="",
        devices=(),
        exceptions={2: "illegal instruction"},
        entry="harness_start",  # without the PMP: the map is exact, and says what was accessed
    ),
}


def version() -> str | None:
    """The version of Unicorn, or None where it or the reader of ELF files is missing."""
    if any(importlib.util.find_spec(name) is None for name in ("unicorn", "elftools")):
        return None
    return metadata.version("unicorn")


def where(target: Target, address: int) -> str:
    """What an address that must not be accessed lies beside, as the end of a sentence."""
    ram, flash = target.first("ram"), target.first("flash")
    if ram.base - NEAR <= address < ram.base:
        return f", below {ram.name} at {ram.base:#010x}: the stack overflowed"
    for memory in (ram, flash):
        if 0 <= address - memory.end < NEAR:
            return f", beyond the {memory.bytes} bytes of {memory.name}"
    return ", in flash" if flash.base <= address < flash.end else ""


class Device(abc.ABC):
    """An emulated target with firmware in its flash."""

    emulator: ClassVar[str]

    def __init__(self, firmware: Firmware, target: Target) -> None:
        self.firmware, self.target = firmware, target
        self._symbols = {symbol.name: symbol for symbol in firmware.symbols}

    @abc.abstractmethod
    def read(self, address: int, size: int) -> bytes:
        """Bytes of the device's memory."""

    @abc.abstractmethod
    def write(self, address: int, data: bytes) -> None:
        """Puts bytes into the device's RAM."""

    @abc.abstractmethod
    def boot(self) -> None:
        """Starts the firmware and runs it until it stops itself.

        Raises:
            EmulatorFaultError: it never got there.
        """

    @abc.abstractmethod
    def call(self, name: str, *arguments: int, stack: int | None = None) -> int:
        """Calls a function on a fresh stack, or on the one given; the word that it returns.

        Raises:
            EmulatorFaultError: it did not return.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the emulation."""

    def symbol(self, name: str) -> Symbol:
        """The symbol `name` of the firmware."""
        return self._symbols[name]

    def read_word(self, address: int) -> int:
        """A 32-bit word of the device's memory."""
        return int.from_bytes(self.read(address, 4), "little")

    def paint_stack(self) -> None:
        """Fills the stack with a pattern that `stack_bytes` looks for."""
        bottom, top = (self.symbol(name).address for name in ("__stack_bottom", "__stack_top"))
        self.write(bottom, bytes([PAINT]) * (top - bottom))

    def stack_bytes(self) -> int:
        """The deepest use of the stack since it was painted."""
        bottom, top = (self.symbol(name).address for name in ("__stack_bottom", "__stack_top"))
        stack = self.read(bottom, top - bottom)
        return len(stack) - next((i for i, byte in enumerate(stack) if byte != PAINT), len(stack))

    def function(self, address: int) -> str:
        """The name of the function that holds `address`, or the address itself."""
        for symbol in self._symbols.values():
            if symbol.address <= address < symbol.address + symbol.bytes:
                return symbol.name
        return f"{address:#010x}"


class Board(Device):
    """A device emulated by Unicorn, which maps exactly the target's first flash and RAM."""

    emulator = "unicorn"

    def __init__(self, firmware: Firmware, target: Target) -> None:
        super().__init__(firmware, target)
        if target.emulator.unicorn is None:
            raise AssertionError(f"Unicorn has no model of {target.name}")
        unicorn: Any = importlib.import_module("unicorn")  # untyped
        self._core = core = CORES[target.board]
        self._constants: Any = importlib.import_module(core.constants)
        modes = [getattr(unicorn, name) for name in core.modes]
        self._uc: Any = unicorn.Uc(getattr(unicorn, core.architecture), sum(modes))
        model = core.models + target.emulator.unicorn.model
        self._uc.ctl_set_cpu_model(getattr(self._constants, model))
        self._error = unicorn.UcError
        self._writes = (unicorn.UC_MEM_WRITE_UNMAPPED, unicorn.UC_MEM_WRITE_PROT)
        self._fault = ""
        self._stop = self.symbol("harness_stop").address
        flash, ram = target.first("flash"), target.first("ram")
        self._uc.mem_map(flash.base, flash.bytes, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self._uc.mem_map(ram.base, ram.bytes, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        for device in core.devices:
            self._uc.mem_map(*device)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_invalid)
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._on_interrupt)
        for address, data in firmware.segments:
            self._uc.mem_write(address, data)

    @property
    def engine(self) -> Any:
        """Unicorn itself, for hooks."""
        return self._uc

    @property
    def conditions(self) -> int:
        """Unicorn's number of the register that makes the next instructions conditional, or 0."""
        name = self._core.conditions
        return int(getattr(self._constants, self._core.registers + name)) if name else 0

    def _on_invalid(
        self, uc: Any, access: int, address: int, size: int, value: int, data: object
    ) -> bool:
        kind = "write to" if access in self._writes else "read of"
        self._fault = f"{kind} {size} bytes at {address:#010x}{where(self.target, address)}"
        return False

    def _on_interrupt(self, uc: Any, number: int, data: object) -> None:
        named = self._core.exceptions.get(number, f"exception {number}")
        self._fault = self._fault or named
        uc.emu_stop()

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the device's memory."""
        return bytes(self._uc.mem_read(address, size))

    def write(self, address: int, data: bytes) -> None:
        """Puts bytes into the device's RAM, or flash."""
        self._uc.mem_write(address, data)

    def boot(self) -> None:
        """Starts the firmware and runs it until it stops itself."""
        self._set("SP", self.symbol("__stack_top").address)
        self._start(self._core.entry)

    def call(self, name: str, *arguments: int, stack: int | None = None) -> int:
        """Calls a function on a fresh stack, or on the one given; the word that it returns."""
        for register, value in zip(self._core.arguments, arguments, strict=False):
            self._set(register, value)
        self._set("SP", self.symbol("__stack_top").address if stack is None else stack)
        self._set(self._core.link, self._stop | self._core.thumb)
        self._start(name)
        return self._get(self._core.arguments[0])

    def close(self) -> None:
        """Nothing: Unicorn ends with its object."""

    def _set(self, register: str, value: int) -> None:
        self._uc.reg_write(getattr(self._constants, self._core.registers + register), value)

    def _get(self, register: str) -> int:
        return int(self._uc.reg_read(getattr(self._constants, self._core.registers + register)))

    def _start(self, name: str) -> None:
        self._fault = ""
        start = self.symbol(name).address | self._core.thumb
        try:
            self._uc.emu_start(start, self._stop, timeout=TIMEOUT_MICROSECONDS)
        except self._error as error:
            self._fault = self._fault or str(error)
        pc = self._get("PC") & ~self._core.thumb
        if self._fault:
            raise EmulatorFaultError(
                "EQ0501", f"{self.target.name}: {self._fault}, in {self.function(pc)}"
            )
        if pc != self._stop:
            raise EmulatorFaultError("EQ0502", f"{self.target.name}: {name} did not return")
