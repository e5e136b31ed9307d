"""What a device description may say. The descriptions are TOML files in `edgeq.targets`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeq.errors import ModelError
from edgeq.policy import describe

ADDRESSES = 1 << 32
LINKED = ("mcu",)  # families whose members get firmware


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Memory(_Section):
    """One contiguous region. `erase_bytes` lists the sectors of a flash, in order.

    A number stands for sectors that are all of that size.
    """

    name: str
    kind: Literal["flash", "ram"]
    base: Annotated[int, Field(ge=0, lt=ADDRESSES)]
    bytes: Annotated[int, Field(gt=0)]
    source: str
    erase_bytes: tuple[Annotated[int, Field(gt=0)], ...] = ()
    note: str = ""

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.base + self.bytes

    @model_validator(mode="before")
    @classmethod
    def _spell_out_sectors(cls, section: Any) -> Any:
        size, each = section.get("bytes"), section.get("erase_bytes")
        if type(size) is not int or type(each) is not int or not 0 < each <= size:
            return section
        return {**section, "erase_bytes": (each,) * (size // each)}

    @model_validator(mode="after")
    def _sectors_fill_it(self) -> Memory:
        if self.erase_bytes and sum(self.erase_bytes) != self.bytes:
            raise ValueError(f"erase_bytes of {self.name} sum to {sum(self.erase_bytes)}")
        return self

    @model_validator(mode="after")
    def _ends_in_32_bits(self) -> Memory:
        if self.end > ADDRESSES:
            raise ValueError(f"{self.name} ends at {self.end:#x}, beyond 4 GB")
        return self


class Toolchain(_Section):
    """Flags that one compiler needs for this core, and what they are for."""

    flags: tuple[str, ...]
    source: str


class Unicorn(_Section):
    """The model of the core in Unicorn, which maps the regions above exactly."""

    model: str
    source: str


class Timer(_Section):
    """A counter of emulated time, read as one word; with -icount it counts instructions.

    An instruction takes 2^`shift` ns then: enough for over two ticks, so that rounding is exact.
    """

    address: Annotated[int, Field(ge=0, lt=ADDRESSES)]
    ticks_per_second: Annotated[int, Field(gt=0)]
    bits: Annotated[int, Field(gt=0, le=32)] = 32
    down: bool = False
    shift: Annotated[int, Field(ge=0, le=10)]
    start: tuple[tuple[int, int], ...] = ()  # stores that start it: address, value
    latch: int = 0  # a register that makes it readable by a store of 1, if it needs one
    source: str


class Qemu(_Section):
    """The machine of QEMU that has the core, and the regions above or more."""

    system: Literal["arm", "riscv32"]  # the program is qemu-system-…
    machine: str
    arguments: tuple[str, ...] = ()
    timer: Timer
    source: str


class Emulator(_Section):
    """Which models stand in for the device."""

    unicorn: Unicorn | None = None
    qemu: Qemu | None = None


# What an instruction is to the cycle model: `long` multiplies to 64 bits, `next` is a load or store
# right after another. `register` and `refill` come on top of `multiple` and `return` (a `multiple`
# that branches), which move so many registers, and of any instruction that branches.
InstructionClass = Literal[
    "other",
    "multiply",
    "accumulate",
    "long",
    "long_accumulate",
    "divide",
    "load",
    "next",
    "store",
    "multiple",
    "return",
    "register",
    "branch",
    "call",
    "refill",
]


class Cycles(_Section):
    """What one instruction of a class costs, and which page says so."""

    cycles: Annotated[int, Field(ge=0)]
    source: str


class Cost(_Section):
    """The published model that turns instructions into cycles: no wait states, no caches."""

    source: str
    macs_per_instruction: Annotated[int, Field(gt=0)]  # the most that one instruction multiplies
    cycles: Mapping[InstructionClass, Cycles]

    @model_validator(mode="after")
    def _is_complete(self) -> Cost:
        missing = [name for name in get_args(InstructionClass) if name not in self.cycles]
        if missing:
            raise ValueError(f"cost.cycles lacks {', '.join(missing)}")
        return self


class Target(_Section):
    """One device or core. Bytes are bytes, addresses are addresses; every number has a source."""

    version: Annotated[Literal[1], Field(alias="schema")]
    name: str
    description: str
    family: Literal["mcu", "npu", "edge"]
    core: str = ""  # what firmware is linked for; none where an operating system runs the model
    board: str = ""  # the folder of firmware_stubs/boards that starts it; a core family has one
    generic: bool = False  # a core: the regions are those of the emulated board, no budgets
    isa: tuple[str, ...] = ()
    formats: Annotated[tuple[str, ...], Field(min_length=1)]
    int4_weights: bool = False  # whether ONNX stores 4-bit weights as INT4; its runtimes need it
    memory: tuple[Memory, ...] = ()
    compiler: Mapping[str, Toolchain] = {}
    emulator: Emulator = Emulator()
    cost: Cost | None = None
    no_cost: str = ""  # why there is none

    @model_validator(mode="after")
    def _is_a_whole_device(self) -> Target:
        """What firmware is linked for has all that linking needs; another has nothing of it."""
        kinds = {memory.kind for memory in self.memory}
        parts = {
            "core": self.core,
            "board": self.board,
            "a [[memory]] of kind flash": "flash" in kinds,
            "a [[memory]] of kind ram": "ram" in kinds,
            "a [compiler.NAME]": self.compiler,
        }
        missing = [name for name, there in parts.items() if not there]
        if missing and (self.family in LINKED or len(missing) < len(parts)):
            raise ValueError(f"{self.name} needs {', '.join(missing)} to be linked for")
        return self

    @model_validator(mode="after")
    def _has_a_cost_or_the_reason_why_not(self) -> Target:
        if self.linked and (self.cost is None) == (not self.no_cost):
            raise ValueError("a target has [cost], or says in no_cost why there is none")
        return self

    @model_validator(mode="after")
    def _regions_lie_apart(self) -> Target:
        for low, high in pairwise(sorted(self.memory, key=lambda memory: memory.base)):
            if low.end > high.base:
                raise ValueError(
                    f"{low.name} ends at {low.end:#010x}, but {high.name} begins at "
                    f"{high.base:#010x}"
                )
        return self

    @property
    def linked(self) -> bool:
        """Whether edgeq links firmware for it; an operating system runs the model otherwise."""
        return bool(self.board)

    @property
    def sized(self) -> bool:
        """Whether its memories are those of one device, and so the default budgets."""
        return bool(self.memory) and not self.generic

    def first(self, kind: Literal["flash", "ram"]) -> Memory:
        """The first region of that kind: the one that edgeq plans into."""
        return next(memory for memory in self.memory if memory.kind == kind)

    def unused(self) -> tuple[Memory, ...]:
        """The regions that edgeq leaves to the application."""
        used = {memory.kind: memory for memory in reversed(self.memory)}
        return tuple(memory for memory in self.memory if memory != used[memory.kind])


def parse(text: str, name: str) -> Target:
    """The target that the TOML `text` describes; `name` stands in errors.

    Raises:
        ModelError: the text breaks the schema.
    """
    try:
        return Target.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        message = (
            describe(error, name) if isinstance(error, ValidationError) else f"{name}: {error}"
        )
        raise ModelError("EQ0340", message) from error
