"""Machine code to instruction classes, for the cycle model; capstone disassembles Thumb.

Other code is counted, but not classed: no core that runs it has a cost table.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.errors import MissingToolError
from edgeq.target import InstructionClass

# Capstone's names. Conditions and widths are no part of them.
BRANCHES = ("B", "BX", "BLX", "CBZ", "CBNZ")
CALLS = ("BL",)
JUMP_TABLES = ("TBB", "TBH")
LOADS = ("LDR", "LDRB", "LDRH", "LDRSB", "LDRSH", "LDREX", "VLDR")
STORES = ("STR", "STRB", "STRH", "STREX", "VSTR")
LISTS = ("PUSH", "POP", "VPUSH", "VPOP")  # every operand is moved
BASED = ("LDM", "LDMDB", "STM", "STMDB", "VLDMIA", "VLDMDB", "VSTMIA", "VSTMDB")  # but the first
PAIRS = ("LDRD", "STRD")
ACCUMULATES = ("MLA", "MLS")
LONGS = ("SMULL", "UMULL")
LONG_ACCUMULATES = ("SMLAL", "UMLAL")
DIVISIONS = ("SDIV", "UDIV")
DUAL_MACS = ("SMLAD", "SMLADX", "SMLSD", "SMLSDX", "SMUAD", "SMUADX", "SMLALD", "SMLALDX")


@dataclass(frozen=True, slots=True)
class Code:
    """A basic block. `classes` holds what it costs each time, whether its branch is taken or not.

    `refills` is 1 where it ends in an instruction that may branch: a refill for each that does.
    """

    instructions: int
    dual_macs: int
    classes: Counter[InstructionClass]
    refills: int


Decoder = Callable[[bytes, int], Code]  # of the bytes of a basic block, and its address


def decoder(board: str) -> Decoder:
    """What decodes the code of the cores that share a board folder.

    Raises:
        MissingToolError: capstone is needed and not installed.
    """
    return DECODERS[board]()


def _thumb() -> Decoder:
    if importlib.util.find_spec("capstone") is None:
        raise MissingToolError(
            "EQ0605", 'profile needs capstone: python -m pip install "edgeq[mcu]"'
        )
    capstone: Any = importlib.import_module("capstone")  # untyped
    arm: Any = importlib.import_module("capstone.arm_const")
    engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    engine.detail = True

    def ids(names: tuple[str, ...]) -> frozenset[int]:
        return frozenset(getattr(arm, f"ARM_INS_{name}") for name in names)

    kinds: dict[int, InstructionClass] = {}
    for names, kind in (
        (BRANCHES, "branch"),
        (CALLS, "call"),
        (("MUL",), "multiply"),
        (ACCUMULATES, "accumulate"),
        (LONGS, "long"),
        (LONG_ACCUMULATES, "long_accumulate"),
        ((*LOADS, *JUMP_TABLES), "load"),
        (STORES, "store"),
        ((*LISTS, *BASED, *PAIRS), "multiple"),
        (DIVISIONS, "divide"),
    ):
        kinds |= dict.fromkeys(ids(names), kind)  # type: ignore[arg-type]
    based, pairs, dual = ids(BASED), ids(PAIRS), ids(DUAL_MACS)
    branches = ids((*BRANCHES, *CALLS, *JUMP_TABLES))

    def registers(instruction: Any) -> int:
        if instruction.id in pairs:
            return 2
        return len(instruction.operands) - (instruction.id in based)

    def writes_pc(instruction: Any) -> bool:
        return arm.ARM_REG_PC in instruction.regs_access()[1]

    def decode(code: bytes, address: int) -> Code:
        classes: Counter[InstructionClass] = Counter()
        instructions = dual_macs = size = refills = 0
        moved = False  # the instruction before was a single load or store
        for instruction in engine.disasm(code, address):
            kind = kinds.get(instruction.id, "other")
            single = kind in ("load", "store")
            branching = instruction.id in branches or writes_pc(instruction)
            if kind == "multiple":
                classes["register"] += registers(instruction)
                kind = "return" if branching else kind
            classes["next" if single and moved else kind] += 1
            moved = single
            instructions += 1
            size += instruction.size
            dual_macs += instruction.id in dual
            refills = int(branching)
        if size != len(code):
            raise AssertionError(f"capstone knows no instruction at {address + size:#010x}")
        return Code(instructions, dual_macs, classes, refills)

    return decode


def _riscv() -> Decoder:
    """Counts: the two lowest bits of an instruction tell 2 bytes from 4 (RISC-V ISA §1.5)."""

    def decode(code: bytes, address: int) -> Code:
        at = instructions = 0
        while at < len(code):
            at += 4 if code[at] & 3 == 3 else 2
            instructions += 1
        return Code(instructions, 0, Counter(), 0)

    return decode


DECODERS: Mapping[str, Callable[[], Decoder]] = {"cortex_m": _thumb, "riscv": _riscv}
