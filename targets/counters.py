"""What an emulated core executes, counted by basic block, and what it reads from the flash."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from edgeq.targets.emulators import Board


@dataclass(slots=True)
class Trace:
    """Everything since `clear`, which the emulator keeps adding to.

    `blocks` counts (address, bytes); `fallen` counts, by the address where a block ends, how often
    the next one began right there: its last instruction did not branch. `reads` holds the bytes
    read from the flash as data, by the address of the block that read.
    """

    blocks: dict[tuple[int, int], int] = field(default_factory=dict)
    fallen: dict[int, int] = field(default_factory=dict)
    reads: dict[int, int] = field(default_factory=dict)
    at: int = 0  # the block that runs
    end: int = 0  # where it ends

    def clear(self) -> None:
        """Forgets everything."""
        self.blocks.clear()
        self.fallen.clear()
        self.reads.clear()
        self.at = self.end = 0

    def enter(self, uc: object, address: int, size: int, data: object) -> None:
        """A block begins: Unicorn's hook."""
        key = (address, size)
        self.blocks[key] = self.blocks.get(key, 0) + 1
        if address == self.end:
            self.fallen[address] = self.fallen.get(address, 0) + 1
        self.at, self.end = address, address + size

    def read(
        self, uc: object, access: int, address: int, size: int, value: int, data: object
    ) -> None:
        """The flash is read: Unicorn's hook."""
        self.reads[self.at] = self.reads.get(self.at, 0) + size


@contextmanager
def counting(board: Board) -> Iterator[Trace]:
    """A trace of what `board` executes inside the block."""
    unicorn: Any = importlib.import_module("unicorn")  # untyped
    trace = Trace()
    flash = board.target.first("flash")
    engine = board.engine
    hooks = [
        engine.hook_add(unicorn.UC_HOOK_BLOCK, trace.enter),
        engine.hook_add(
            unicorn.UC_HOOK_MEM_READ,
            trace.read,
            begin=flash.base,
            end=flash.base + flash.bytes - 1,
        ),
    ]
    engine.ctl_flush_tb()  # what was translated before would run without the hooks
    try:
        yield trace
    finally:
        for hook in hooks:
            engine.hook_del(hook)
        engine.ctl_flush_tb()
