"""Emulated cores: firmware loaded into the target's real memory map, functions called by symbol.

Unicorn maps exactly the regions that the target describes, so an access outside them faults as the
device would, and is reported as what it was. It counts no cycles.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import MismatchError, MissingToolError
from edgeq.target import Memory, Target

TIMEOUT_MICROSECONDS = 300_000_000
PAINT = 0xA5


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
    for entry in elf.get_section_by_name(".symtab").iter_symbols():
        kind, bind = entry["st_info"]["type"], entry["st_info"]["bind"]
        if kind == "STT_FILE":  # names the file of the static symbols after it
            file = entry.name.replace("\\", "/").rpartition("/")[2]
        elif entry.name and entry["st_shndx"] != "SHN_UNDEF" and not entry.name.startswith("$"):
            local = file if bind == "STB_LOCAL" else ""
            yield Symbol(entry.name, entry["st_value"] & ~1, entry["st_size"], kind, local)


class EmulatorFaultError(MismatchError):
    """The firmware did what the device would have refused."""


def needs(target: Target) -> str:
    """The version of the emulator that runs `target`.

    Raises:
        MissingToolError: it is not installed, or none runs this target.
    """
    if target.emulator.unicorn is None:
        raise MissingToolError("EQ0603", f"no emulator runs {target.name}")
    missing = [name for name in ("unicorn", "elftools") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingToolError(
            "EQ0603",
            f"the emulator of {target.name} needs {' and '.join(missing)}: "
            'python -m pip install "edgeq[mcu]"',
        )
    from importlib.metadata import version

    return version("unicorn")


class Board:
    """A target with firmware in its flash, emulated by Unicorn."""

    def __init__(self, firmware: Firmware, target: Target) -> None:
        unicorn: Any = importlib.import_module("unicorn")  # untyped
        arm_const: Any = importlib.import_module("unicorn.arm_const")
        self._symbols = {symbol.name: symbol for symbol in firmware.symbols}
        self.target = target
        self._uc: Any = unicorn.Uc(
            unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS
        )
        self._uc.ctl_set_cpu_model(getattr(arm_const, f"UC_CPU_ARM_{target.emulator.unicorn}"))
        self._registers = arm_const
        self._error = unicorn.UcError
        self._writes = (unicorn.UC_MEM_WRITE_UNMAPPED, unicorn.UC_MEM_WRITE_PROT)
        self._fault = ""
        self._stopped = False
        flash, ram = target.first("flash"), target.first("ram")
        self._uc.mem_map(flash.base, flash.bytes, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self._uc.mem_map(ram.base, ram.bytes, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        self._uc.mem_map(0xE000_E000, 0x1000)  # system control: the FPU is enabled there
        self._return = flash.base + flash.bytes - 4
        self._uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_invalid)
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._on_interrupt)
        for address, data in firmware.segments:
            self._uc.mem_write(address, data)

    def _on_invalid(
        self, uc: Any, access: int, address: int, size: int, value: int, data: object
    ) -> bool:
        kind = "write to" if access in self._writes else "read of"
        self._fault = f"{kind} {size} bytes at {address:#010x}{self._where(address)}"
        return False

    def _where(self, address: int) -> str:
        ram, flash = self.target.first("ram"), self.target.first("flash")
        if ram.base - 0x10000 <= address < ram.base:
            return f", below {ram.name} at {ram.base:#010x}: the stack overflowed"
        for memory in (ram, flash):
            if 0 <= address - memory.base - memory.bytes < 0x10000:
                return f", beyond the {memory.bytes} bytes of {memory.name}"
        return ", in flash" if _inside(flash, address) else ""

    def _on_interrupt(self, uc: Any, number: int, data: object) -> None:
        if number == 7:  # BKPT: the firmware stopped on purpose
            self._stopped = True
        else:
            self._fault = self._fault or f"exception {number}"
        uc.emu_stop()

    @property
    def engine(self) -> Any:
        """Unicorn itself, for hooks."""
        return self._uc

    def symbol(self, name: str) -> Symbol:
        """The symbol `name` of the firmware."""
        return self._symbols[name]

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the device's memory."""
        return bytes(self._uc.mem_read(address, size))

    def read_word(self, address: int) -> int:
        """A 32-bit word of the device's memory."""
        return int.from_bytes(self.read(address, 4), "little")

    def write(self, address: int, data: bytes) -> None:
        """Puts bytes into the device's RAM."""
        self._uc.mem_write(address, data)

    def boot(self) -> None:
        """Starts at the reset vector and runs until the firmware stops itself.

        Raises:
            EmulatorFaultError: it never got there.
        """
        vectors = self.target.first("flash").base
        self._uc.reg_write(self._registers.UC_ARM_REG_SP, self.read_word(vectors))
        self._start(self.read_word(vectors + 4))
        if not self._stopped:
            raise EmulatorFaultError("EQ0502", f"{self.target.name}: the firmware never stopped")

    def call(self, name: str, *arguments: int) -> int:
        """Calls a function on a fresh stack; the value of r0 when it returns.

        Raises:
            EmulatorFaultError: it did not return.
        """
        reg = self._registers
        for register, value in zip(
            (reg.UC_ARM_REG_R0, reg.UC_ARM_REG_R1, reg.UC_ARM_REG_R2), arguments, strict=False
        ):
            self._uc.reg_write(register, value)
        self._uc.reg_write(reg.UC_ARM_REG_SP, self.symbol("__stack_top").address)
        self._uc.reg_write(reg.UC_ARM_REG_LR, self._return | 1)
        self._start(self.symbol(name).address | 1)
        if self._uc.reg_read(reg.UC_ARM_REG_PC) & ~1 != self._return:
            raise EmulatorFaultError("EQ0502", f"{self.target.name}: {name} did not return")
        return int(self._uc.reg_read(reg.UC_ARM_REG_R0))

    def _start(self, address: int) -> None:
        self._fault, self._stopped = "", False
        try:
            self._uc.emu_start(address, self._return, timeout=TIMEOUT_MICROSECONDS)
        except self._error as error:
            self._fault = self._fault or str(error)
        if self._fault:
            raise EmulatorFaultError(
                "EQ0501", f"{self.target.name}: {self._fault}, in {self._function()}"
            )

    def _function(self) -> str:
        pc = self._uc.reg_read(self._registers.UC_ARM_REG_PC) & ~1
        for symbol in self._symbols.values():
            if symbol.address <= pc < symbol.address + symbol.bytes:
                return symbol.name
        return f"{pc:#010x}"

    def paint_stack(self) -> None:
        """Fills the stack with a pattern that `stack_bytes` looks for."""
        bottom, top = (self.symbol(name).address for name in ("__stack_bottom", "__stack_top"))
        self.write(bottom, bytes([PAINT]) * (top - bottom))

    def stack_bytes(self) -> int:
        """The deepest use of the stack since it was painted."""
        bottom, top = (self.symbol(name).address for name in ("__stack_bottom", "__stack_top"))
        stack = self.read(bottom, top - bottom)
        return len(stack) - next((i for i, byte in enumerate(stack) if byte != PAINT), len(stack))


def _inside(memory: Memory, address: int) -> bool:
    return memory.base <= address < memory.base + memory.bytes
