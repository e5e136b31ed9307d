"""The report's values: what each verb found out, and nothing about how it is shown.

`report.json` is these dataclasses as JSON; `docs/report.schema.json` is generated from them. Bytes
are integers, fractions run from 0 to 1, layers are joined by name. No times, paths or dates.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

# Names of their own, since two fields are called float and int.
Fraction = float  # 0..1
Count = int


class Verdict(StrEnum):
    """What a parity row found."""

    EXACT = "exact"
    DIFFERS = "differs"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class BitCounts:
    """Bits that the policy asked for, that storage takes, and that the values need."""

    requested: int
    stored: int
    effective: int


@dataclass(frozen=True, slots=True)
class LayerBits:
    """Bits of a layer's weights (None without weights) and of its output."""

    weights: BitCounts | None
    activations: BitCounts


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator. `sqnr_db` compares it with float on the same inputs, alone; None if exact."""

    name: str
    op: str
    macs: int
    bits: LayerBits
    layout: str | None
    kernel: str | None
    weight_bytes: int
    sqnr_db: float | None


@dataclass(frozen=True, slots=True)
class Flash:
    """Bytes of flash that the model costs in the user's firmware."""

    runtime: int
    kernels: int
    weights: int
    tables: int
    gates: int
    total: int
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Ram:
    """Bytes of RAM; `stack` was measured by painting."""

    arena: int
    context: int
    io: int
    stack: int
    total: int
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class NotCounted:
    """Bytes of the firmware that test it and would not ship: harness, start-up, golden vectors."""

    flash: int
    ram: int


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits in bytes, from the flags or the target."""

    flash: int
    ram: int


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 on labelled samples: the float network and the integers that the device computes."""

    samples: Count
    float: Fraction
    int: Fraction


@dataclass(frozen=True, slots=True)
class Export:
    """What `export` did."""

    layers: tuple[Layer, ...]
    bits_per_weight: float
    flash: Flash
    ram: Ram
    not_counted: NotCounted
    budget: Budget
    accuracy: Accuracy | None
    compiler: str | None
    optimize: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One rung of the parity ladder, against the integer reference."""

    runner: str
    version: str
    rule: str
    samples: int
    mismatches: int
    max_lsb: int
    first_diverging_layer: str | None
    top1: float | None
    verdict: Verdict
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Validate:
    """The ladder; what `export` checks is a short one."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Each verb owns one section and replaces only that."""

    model: str
    target: str
    export: Export
    validate: Validate
    schema: int = 1

    def with_validate(self, section: Validate) -> Report:
        """This report with another `validate` section."""
        return replace(self, validate=section)

    def to_json(self) -> dict[str, Any]:
        """The report as `report.json` holds it."""
        return asdict(self)


def dumps(value: object) -> str:
    """JSON as every file of a build has it: two spaces, a final newline, stable order."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of `report.json`."""
    from pydantic import TypeAdapter

    return TypeAdapter(Report).json_schema()
