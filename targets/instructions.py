"""Machine code to instruction classes, for the cycle model; capstone disassembles."""

from __future__ import annotations

import importlib
import importlib.util
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeq.errors import MissingToolError
from edgeq.target import InstructionClass

# Capstone's names. Conditions and widths are no part of them.
BRANCHES = ("B", "BL", "BX", "BLX", "CBZ", "CBNZ")
JUMP_TABLES = ("TBB", "TBH")
LOADS = ("LDR", "LDRB", "LDRH", "LDRSB", "LDRSH", "LDREX", "VLDR")
STORES = ("STR", "STRB", "STRH", "STREX", "VSTR")
LISTS = ("PUSH", "POP", "VPUSH", "VPOP")  # every operand is moved
BASED = ("LDM", "LDMDB", "STM", "STMDB", "VLDMIA", "VLDMDB", "VSTMIA", "VSTMDB")  # but the first
PAIRS = ("LDRD", "STRD")
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


def needs() -> None:
    """Nothing, if the disassembler is there.

    Raises:
        MissingToolError: it is not.
    """
    if importlib.util.find_spec("capstone") is None:
        raise MissingToolError(
            "EQ0605", 'profile needs capstone: python -m pip install "edgeq[mcu]"'
        )


def decoder() -> Callable[[bytes, int], Code]:
    """A function from the bytes of a basic block, and its address, to what they are.

    Raises:
        MissingToolError: capstone is not installed.
    """
    needs()
    capstone: Any = importlib.import_module("capstone")  # untyped
    arm: Any = importlib.import_module("capstone.arm_const")
    engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    engine.detail = True

    def ids(names: tuple[str, ...]) -> frozenset[int]:
        return frozenset(getattr(arm, f"ARM_INS_{name}") for name in names)

    kinds: dict[int, InstructionClass] = {}
    for names, kind in (
        (BRANCHES, "branch"),
        ((*LOADS, *JUMP_TABLES), "load"),
        (STORES, "store"),
        ((*LISTS, *BASED, *PAIRS), "multiple"),
        (DIVISIONS, "divide"),
    ):
        kinds |= dict.fromkeys(ids(names), kind)  # type: ignore[arg-type]
    based, pairs, dual = ids(BASED), ids(PAIRS), ids(DUAL_MACS)
    branches = ids((*BRANCHES, *JUMP_TABLES))

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
            classes["next" if single and moved else kind] += 1
            if kind == "multiple":
                classes["register"] += registers(instruction)
            moved = single
            instructions += 1
            size += instruction.size
            dual_macs += instruction.id in dual
            refills = int(instruction.id in branches or writes_pc(instruction))
        if size != len(code):
            raise AssertionError(f"capstone knows no instruction at {address + size:#010x}")
        return Code(instructions, dual_macs, classes, refills)

    return decode
