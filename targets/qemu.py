"""Devices emulated by QEMU, driven through its debugger port on standard input and output.

The firmware boots by itself on the machine that the target names, and stops where the debugger has
a breakpoint; samples, outputs and calls of functions go through the debugger as well. So the
firmware is the one that Unicorn runs, to the byte, and needs no files, ports or semihosting.
"""

from __future__ import annotations

import functools
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeq.target import Qemu, Target
from edgeq.targets.emulators import EQ_MORE, Device, EmulatorFaultError, Firmware, where

TIMEOUT_SECONDS = 300
CHUNK = 1024  # bytes in one packet
FAULT_WORDS = 5  # of harness_fault_t
NOTHING = 1  # instructions of harness_nothing: the return
TASK = struct.Struct("<5I")  # harness_task_t


@dataclass(frozen=True, slots=True)
class Core:
    """How a debugger knows the cores that share a board folder."""

    arguments: tuple[int, ...]  # registers, by number
    stack: int
    link: int
    pc: int
    thumb: int  # set in return addresses
    starts: bool  # whether QEMU starts it in the flash, by the vectors there
    causes: Callable[[int], str]


# Arm DDI 0403E §B3.2.15, Armv8-M DDI 0553 §D1.2.48: CFSR; bits that name a cause.
CFSR = {
    0: "execution where that is not allowed",
    1: "access that is not allowed",
    4: "access that is not allowed",
    8: "execution where nothing is",
    9: "access where nothing is",
    10: "access where nothing is",
    12: "access where nothing is",
    16: "undefined instruction",
    17: "jump to Arm code",
    18: "jump to an exception that was not",
    19: "floating point without the unit",
    20: "the stack overflowed its limit",
    24: "unaligned access",
    25: "division by zero",
}
# RISC-V privileged specification 1.12, table 3.6.
MCAUSE = {
    0: "jump to an odd address",
    1: "execution where that is not allowed",
    2: "illegal instruction",
    4: "unaligned read",
    5: "read that is not allowed",
    6: "unaligned write",
    7: "write that is not allowed",
}


def _cortex_m_cause(cfsr: int) -> str:
    return next((text for bit, text in CFSR.items() if cfsr >> bit & 1), "hard fault")


def _riscv_cause(mcause: int) -> str:
    return MCAUSE.get(mcause, f"trap {mcause}")


CORES = {
    "cortex_m": Core((0, 1, 2), 13, 14, 15, 1, True, _cortex_m_cause),
    "riscv": Core((10, 11, 12), 2, 1, 32, 0, False, _riscv_cause),
}


def program(qemu: Qemu) -> str:
    """The program that emulates the machine."""
    return f"qemu-system-{qemu.system}"


def version(name: str) -> str | None:
    """The version of the program `name`, or None where it is missing."""
    path = shutil.which(name)
    return None if path is None else _version_at(path)


@functools.cache
def _version_at(path: str) -> str:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", done.stdout)
    return found[0] if found else "unknown"


class _Debugger:
    """GDB's remote protocol over a process's standard input and output."""

    def __init__(self, process: subprocess.Popen[bytes], log: Callable[[], str]) -> None:
        self._in, self._out = process.stdin, process.stdout
        self._kill, self._log = process.kill, log
        self._acknowledges = True
        self.ask("QStartNoAckMode")
        self._acknowledges = False
        self.ask("qXfer:features:read:target.xml:0,ffb")  # else registers have no numbers

    def ask(self, text: str) -> str:
        """The answer to a packet."""
        assert self._in is not None
        sum_ = sum(text.encode()) & 0xFF
        try:
            self._in.write(f"${text}#{sum_:02x}".encode())
            self._in.flush()
        except OSError as error:
            raise EmulatorFaultError("EQ0501", f"QEMU stopped: {self._log()}") from error
        return self._answer(self._in)

    def _answer(self, to: IO[bytes]) -> str:
        assert self._out is not None
        skipped = b""
        while skipped[-1:] != b"$":
            byte = self._out.read(1)
            if not byte:
                raise EmulatorFaultError("EQ0501", f"QEMU stopped: {self._log()}")
            skipped = byte
        text = bytearray()
        while (byte := self._out.read(1)) not in (b"#", b""):
            text += byte
        self._out.read(2)
        if self._acknowledges:
            to.write(b"+")
            to.flush()
        return _unescaped(bytes(text)).decode("latin-1")

    @contextmanager
    def limit(self) -> Iterator[list[bool]]:
        """Kills the process where the block takes too long; the value says whether it did."""
        late: list[bool] = []

        def kill() -> None:
            late.append(True)
            self._kill()

        timer = threading.Timer(TIMEOUT_SECONDS, kill)
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()


def _unescaped(text: bytes) -> bytes:
    return re.sub(rb"}(.)", lambda match: bytes([match[1][0] ^ 0x20]), text, flags=re.DOTALL)


def _swapped(value: int) -> str:
    return value.to_bytes(4, "little").hex()


def _end(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    process.kill()
    process.communicate()
    folder.cleanup()


class QemuBoard(Device):
    """A device emulated by QEMU. With `counting`, its timer counts instructions."""

    emulator = "qemu"

    def __init__(
        self,
        firmware: Firmware,
        target: Target,
        *,
        counting: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__(firmware, target)
        qemu = target.emulator.qemu
        if qemu is None:
            raise AssertionError(f"QEMU has no machine for {target.name}")
        self._core, self._timer = CORES[target.board], qemu.timer
        self._stop = self.symbol("harness_stop").address
        folder = tempfile.TemporaryDirectory(prefix="edgeq-qemu-")
        self._folder = Path(folder.name)
        command = [program(qemu), "-M", qemu.machine, *qemu.arguments, *arguments]
        command += ["-display", "none", "-serial", "none", "-monitor", "none"]
        command += ["-S", "-gdb", "stdio", "-d", "int,guest_errors", "-D", "log"]
        if counting:
            command += ["-icount", f"shift={qemu.timer.shift}"]
        for index, (address, data) in enumerate(firmware.segments):
            (self._folder / f"segment{index}").write_bytes(data)
            command += ["-device", f"loader,file=segment{index},addr={address},force-raw=on"]
        with (self._folder / "errors").open("wb") as errors:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._close = weakref.finalize(self, _end, process, folder)
        self._gdb = _Debugger(process, self._errors)

    def _errors(self) -> str:
        return (self._folder / "errors").read_text("utf-8", "replace").strip()[-500:]

    def close(self) -> None:
        """Ends QEMU."""
        self._close()

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the device's memory."""
        data = b""
        while len(data) < size:
            part = min(CHUNK, size - len(data))
            answer = self._gdb.ask(f"m{address + len(data):x},{part:x}")
            if len(answer) != 2 * part:
                raise EmulatorFaultError(
                    "EQ0501", f"{self.target.name}: nothing at {address + len(data):#010x}"
                )
            data += bytes.fromhex(answer)
        return data

    def write(self, address: int, data: bytes) -> None:
        """Puts bytes into the device's RAM, or flash."""
        for start in range(0, len(data), CHUNK):
            part = data[start : start + CHUNK]
            self._gdb.ask(f"M{address + start:x},{len(part):x}:{part.hex()}")

    def boot(self) -> None:
        """Starts the firmware and runs it until it stops itself."""
        self._break_at([self._stop])
        if not self._core.starts:
            self._set(self._core.pc, self.symbol("Reset_Handler").address)
        self._run("Reset_Handler")

    def call(self, name: str, *arguments: int, stack: int | None = None) -> int:
        """Calls a function on a fresh stack, or on the one given; the word that it returns."""
        self._enter(name, *arguments, stack=stack)
        self._run(name)
        return self._get(self._core.arguments[0])

    def start_timer(self) -> None:
        """Starts what `instructions` reads."""
        for address, value in self._timer.start:
            self.call("harness_poke", address, value)

    def instructions(self, name: str, *arguments: int) -> int:
        """Instructions of a function; needs `counting` and a started timer.

        As many as the timer holds: of more it loses whole rounds.
        """
        return self._instructions(self.symbol(name).address, *arguments)

    def operators(self, kernels: Iterable[str]) -> Iterator[int]:
        """Instructions of the kernel of each operator, of what the inputs hold, in their order.

        An operator stops at its kernel, which is then called from the timer instead.
        """
        entries = [self.symbol(name).address for name in kernels]
        status = EQ_MORE
        while status == EQ_MORE:
            self._break_at(entries)
            self._enter("harness_step")
            entry = self._resume("harness_step")
            self._break_at(entries, "z0")  # a kernel may call another
            if entry not in entries:
                raise AssertionError(f"an operator of {self.target.name} calls no kernel")
            core = self._core
            call, stack, link = map(self._get, (core.arguments[0], core.stack, core.link))
            yield self._instructions(entry, call, stack=stack)
            self._set(core.stack, stack)
            self._set(core.pc, link & ~core.thumb)
            self._run("harness_step")
            status = self._get(core.arguments[0])

    def _instructions(self, address: int, *arguments: int, stack: int | None = None) -> int:
        nothing = self._measured(self.symbol("harness_nothing").address, stack=stack)
        return self._measured(address, *arguments, stack=stack) - nothing + NOTHING

    def _measured(self, address: int, *arguments: int, stack: int | None = None) -> int:
        """Instructions of a function, and a constant.

        Ticks are off by less than one, which rounding mends; it does not mend differences of ticks,
        which are off by less than two.
        """
        ticks_per_instruction = self._timer.ticks_per_second * (1 << self._timer.shift) / 1e9
        return round(self._ticks(address, *arguments, stack=stack) / ticks_per_instruction)

    def _ticks(self, address: int, *arguments: int, stack: int | None = None) -> int:
        """Ticks of the timer while a function runs, and a constant."""
        first, second, *_ = (*arguments, 0, 0)
        work, timer = address | self._core.thumb, self._timer
        task = self.symbol("__stack_bottom").address
        self.write(task, TASK.pack(work, first, second, timer.address, timer.latch))
        elapsed = self.call("harness_measure", task, stack=stack)
        return (-elapsed if timer.down else elapsed) & ((1 << timer.bits) - 1)

    def _break_at(self, addresses: Iterable[int], packet: str = "Z0") -> None:
        for address in addresses:
            self._gdb.ask(f"{packet},{address:x},2")

    def _enter(self, name: str, *arguments: int, stack: int | None = None) -> None:
        """Makes the core stand at the start of a function."""
        for register, value in zip(self._core.arguments, arguments, strict=False):
            self._set(register, value)
        top = self.symbol("__stack_top").address
        self._set(self._core.stack, top if stack is None else stack)
        self._set(self._core.link, self._stop | self._core.thumb)
        self._set(self._core.pc, self.symbol(name).address)

    def _set(self, register: int, value: int) -> None:
        self._gdb.ask(f"P{register:x}={_swapped(value)}")

    def _get(self, register: int) -> int:
        return int.from_bytes(bytes.fromhex(self._gdb.ask(f"p{register:x}")), "little")

    def _run(self, name: str) -> None:
        """Runs until the firmware stops itself."""
        if self._resume(name) != self._stop:
            raise EmulatorFaultError("EQ0502", f"{self.target.name}: {name} did not return")

    def _resume(self, name: str) -> int:
        """Runs until a breakpoint, and finds out of faults; where it stopped."""
        with self._gdb.limit() as late:
            try:
                self._gdb.ask("c")
            except EmulatorFaultError as error:
                if late:
                    raise EmulatorFaultError(
                        "EQ0502", f"{self.target.name}: {name} did not return"
                    ) from error
                raise EmulatorFaultError(
                    "EQ0501", f"{self.target.name}: {self._logged_fault()}{error.message}"
                ) from error
        fault = self.symbol("harness_fault").address
        words = self.read(fault, 4 * FAULT_WORDS)
        taken, cause, address, stack, pc = (
            int.from_bytes(words[i : i + 4], "little") for i in range(0, len(words), 4)
        )
        if taken:
            raise EmulatorFaultError(
                "EQ0501", f"{self.target.name}: {self._explain(cause, address, stack, pc)}"
            )
        return self._get(self._core.pc) & ~1

    def _explain(self, cause: int, address: int, stack: int, pc: int) -> str:
        """What the firmware recorded of a fault, in words."""
        at = address or self._logged_address()
        text = self._core.causes(cause)
        if at is not None:
            text += f" at {at:#010x}"
        if stack < self.symbol("__stack_bottom").address:
            ram = self.target.first("ram")
            text += f", below {ram.name} at {ram.base:#010x}: the stack overflowed"
        elif at is not None:
            text += where(self.target, at)
        return text + (f", in {self.function(pc)}" if pc else "")

    def _logged_address(self) -> int | None:
        """The address of the last fault by QEMU's log: Armv6-M has no register for it."""
        found = re.findall(r"(?:BFAR|MMFAR) 0x([0-9a-f]+)", self._log())
        return int(found[-1], 16) if found else None

    def _logged_fault(self) -> str:
        address = self._logged_address()
        return (
            "" if address is None else f"access at {address:#010x}{where(self.target, address)}; "
        )

    def _log(self) -> str:
        log = self._folder / "log"
        return log.read_text("utf-8", "replace")[-4000:] if log.is_file() else ""
