"""What an emulated core executes, counted by basic block, and what it reads from the flash.

Unicorn's hooks are C where this machine has a compiler for `counter.c` (no slow-down), else Python
with the same result (about 8 million instructions a second).

Unicorn 2.1 restores the state of the running instruction before a hook sees its read. Inside an IT
block that leaves the block's conditions set, and the next block would be taken as conditional: so
the hook clears them. Within a block they are always 0, as the translated code holds them itself.
"""

from __future__ import annotations

import ctypes
import importlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from edgeq.errors import MissingToolError
from edgeq.targets import toolchain
from edgeq.targets.emulators import Board

CAPACITY = 1 << 14  # blocks; a network's firmware has some hundred
LIBRARY = "counter.so"
CONDITIONS = 0x0600_FC00  # ITSTATE in CPSR: Arm DDI 0406C §B1.3.3


@dataclass(slots=True)
class Count:
    """How often a block ran, how often the next began right at its end, bytes read from flash."""

    times: int = 0
    fallen: int = 0
    reads: int = 0


Blocks = Mapping[tuple[int, int], Count]  # by address and bytes


class Counter(Protocol):
    """Counts what a board executes."""

    def take(self) -> Blocks:
        """What ran since it was last asked."""


@contextmanager
def counting(board: Board) -> Iterator[Counter]:
    """A counter of what `board` executes inside the block."""
    with (
        tempfile.TemporaryDirectory(prefix="edgeq-counter-", ignore_cleanup_errors=True) as folder,
        _hooked(board, _native(Path(folder)) or PythonCounter()) as counter,
    ):
        yield counter


@contextmanager
def _hooked(board: Board, counter: PythonCounter | NativeCounter) -> Iterator[Counter]:
    flash = board.target.first("flash")
    counter.attach(board.engine, flash.base, flash.base + flash.bytes - 1, board.conditions)
    board.engine.ctl_flush_tb()  # what was translated before would run without the hooks
    try:
        yield counter
    finally:
        counter.detach(board.engine)
        board.engine.ctl_flush_tb()


@dataclass(slots=True)
class PythonCounter:
    """The hooks in Python."""

    blocks: dict[tuple[int, int], Count] = field(default_factory=dict)
    at: Count = field(default_factory=Count)  # of the block that runs
    end: int = -1  # where it ends
    hooks: list[Any] = field(default_factory=list)
    conditions: int = 0

    def attach(self, engine: Any, first: int, last: int, conditions: int) -> None:
        """Sees every block from now on, and every read of `first` to `last`.

        `conditions` is the register that holds those of an IT block, or 0.
        """
        self.conditions = conditions
        unicorn: Any = importlib.import_module("unicorn")  # untyped
        self.hooks = [
            engine.hook_add(unicorn.UC_HOOK_BLOCK, self.enter),
            engine.hook_add(unicorn.UC_HOOK_MEM_READ, self.read, begin=first, end=last),
        ]

    def detach(self, engine: Any) -> None:
        """Sees no more."""
        for hook in self.hooks:
            engine.hook_del(hook)

    def enter(self, engine: object, address: int, size: int, data: object) -> None:
        """A block begins."""
        if address == self.end:
            self.at.fallen += 1
        key = (address, size)
        self.at = self.blocks.get(key) or self.blocks.setdefault(key, Count())
        self.at.times += 1
        self.end = address + size

    def read(
        self, engine: Any, access: int, address: int, size: int, value: int, data: object
    ) -> None:
        """The flash is read."""
        self.at.reads += size
        if self.conditions and (state := engine.reg_read(self.conditions)) & CONDITIONS:
            engine.reg_write(self.conditions, state & ~CONDITIONS)

    def take(self) -> Blocks:
        """What ran since it was last asked."""
        taken, self.blocks, self.at, self.end = self.blocks, {}, Count(), -1
        return taken


class _Block(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64) for name in ("address", "bytes", "times", "fallen", "reads")
    ]


class _Trace(ctypes.Structure):
    _fields_ = [
        ("capacity", ctypes.c_uint64),
        ("lost", ctypes.c_uint64),
        ("at", ctypes.c_void_p),
        ("blocks", ctypes.POINTER(_Block)),
        ("get", ctypes.c_void_p),
        ("set", ctypes.c_void_p),
        ("conditions", ctypes.c_int64),
        ("pending", ctypes.c_uint64),
    ]


class NativeCounter:
    """The hooks of `counter.c`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._unicorn: Any = importlib.import_module("unicorn.unicorn_py3.unicorn").uclib
        self._blocks = (_Block * CAPACITY)()
        get, set_ = (
            ctypes.cast(function, ctypes.c_void_p)
            for function in (self._unicorn.uc_reg_read, self._unicorn.uc_reg_write)
        )
        self._trace = _Trace(CAPACITY, 0, None, self._blocks, get, set_, 0, CONDITIONS)
        self._hooks: list[ctypes.c_size_t] = []

    def attach(self, engine: Any, first: int, last: int, conditions: int) -> None:
        """Sees every block from now on, and every read of `first` to `last`; as in Python."""
        unicorn: Any = importlib.import_module("unicorn")
        self._trace.conditions = conditions
        everywhere = (1, 0)
        for kind, function, bounds in (
            (unicorn.UC_HOOK_BLOCK, self._library.enter, everywhere),
            (unicorn.UC_HOOK_MEM_READ, self._library.flash_read, (first, last)),
        ):
            hook = ctypes.c_size_t()
            callback = ctypes.cast(function, ctypes.c_void_p)
            trace = ctypes.cast(ctypes.byref(self._trace), ctypes.c_void_p)
            status = self._unicorn.uc_hook_add(
                engine._uch, ctypes.byref(hook), kind, callback, trace, *bounds
            )
            if status:
                raise AssertionError(f"uc_hook_add gives {status}")
            self._hooks.append(hook)

    def detach(self, engine: Any) -> None:
        """Sees no more."""
        for hook in self._hooks:
            self._unicorn.uc_hook_del(engine._uch, hook)

    def take(self) -> Blocks:
        """What ran since it was last asked."""
        if self._trace.lost:
            raise AssertionError(f"more than {CAPACITY} basic blocks")
        taken = {
            (int(block.address), int(block.bytes)): Count(block.times, block.fallen, block.reads)
            for block in self._blocks
            if block.bytes
        }
        ctypes.memset(self._blocks, 0, ctypes.sizeof(self._blocks))
        self._trace.at = None
        return taken


def _native(folder: Path) -> NativeCounter | None:
    """The counter in C, compiled into `folder`; None where no compiler makes it."""
    try:
        compiler = toolchain.find(toolchain.HOST_COMPILERS)
        source = resources.files("edgeq.targets").joinpath("counter.c").read_bytes()
        (folder / "counter.c").write_bytes(source)
        toolchain.build_host(compiler, ["-shared", "-fPIC", "counter.c"], folder, LIBRARY)
        return NativeCounter(ctypes.CDLL(str(folder / LIBRARY)))
    except (MissingToolError, toolchain.CompilerError, OSError, AttributeError, ImportError):
        return None
