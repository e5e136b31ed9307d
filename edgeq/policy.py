"""Policies: which layer gets how many bits, and how ranges are found.

A policy is JSON or TOML of one schema (`docs/policy.schema.json` is generated from it). Rules apply
in order, a later one wins, and a rule that matches no layer is an error.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from edgeq import gatefile
from edgeq.errors import PolicyError
from edgeq.gatefile import Fitted
from edgeq.ir import Array, Graph

UNIFORM = re.compile(r"w([2-8])a([2-8]|16)")
DEFAULT = "w8a8"


def _no_float(value: object) -> object:
    if isinstance(value, float):  # a Literal takes 8.0 for 8
        raise ValueError("bits are whole numbers")  # noqa: TRY004 (pydantic wants ValueError)
    return value


WeightBits = Annotated[int, Field(strict=True, ge=2, le=8)]
ActivationBits = Annotated[Literal[2, 3, 4, 5, 6, 7, 8, 16], BeforeValidator(_no_float)]
Flag = Annotated[bool, Field(strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Reals = Annotated[tuple[Finite, ...], Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Precision(_Section):
    """Bits of a layer's weights and of its output."""

    weights: WeightBits = 8
    activations: ActivationBits = 8


class Rule(_Section):
    """Bits for the layers whose name matches the pattern (`*`, `?`, `[1-3]`)."""

    match: str
    weights: WeightBits | None = None
    activations: ActivationBits | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if self.weights is None and self.activations is None:
            raise ValueError("a rule sets weights, activations or both")
        return self


class Calibration(_Section):
    """How ranges are found; the defaults are what measured best (docs/quantization.md)."""

    activations: Literal["minmax", "percentile", "mse"] = "mse"
    percentile: Annotated[float, Field(strict=True, gt=50, le=100)] = 99.99
    weights: Literal["minmax", "mse"] = "mse"
    gain: Flag = True
    bias_correction: Flag = True
    rounding: Literal["nearest", "adaround"] = "nearest"
    seed: Annotated[int, Field(strict=True, ge=0, lt=1 << 32)] = 0  # of what draws at random


class InputSpec(_Section):
    """What raw uint8 samples mean: real = (low + u · (high − low) / 255 − mean) / std.

    `mean` and `std` hold one value, or one per channel. `retain` keeps the input's memory whole
    while the model runs, which else computes over it; alone it says nothing of raw samples.
    """

    mean: Reals = (0.0,)
    std: Reals = (1.0,)
    range: tuple[Finite, Finite] = (0.0, 1.0)
    retain: Flag = False

    @model_validator(mode="after")
    def _is_usable(self) -> InputSpec:
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range must rise, got {self.range}")
        if 1 not in (len(self.mean), len(self.std)) and len(self.mean) != len(self.std):
            raise ValueError("mean and std must have one value each, or one per channel")
        with np.errstate(all="ignore"):
            if not np.isfinite(self.real(np.array([[0], [255]]))).all():
                raise ValueError("with this mean, std and range bytes are beyond float32")
        return self

    @property
    def raw(self) -> bool:
        """Whether it says what raw samples mean."""
        return self.model_fields_set != {"retain"}

    def real(self, raw: Array) -> npt.NDArray[np.float32]:
        """Raw bytes, channels last, as the reals that the network takes."""
        low, high = self.range
        unit = low + raw.astype(np.float64) * ((high - low) / 255)
        return np.asarray((unit - np.asarray(self.mean)) / np.asarray(self.std), np.float32)


class Level(_Section):
    """A lower precision of a network with exits: bits of its layers, as a policy has them."""

    default: Precision = Precision()
    rule: tuple[Rule, ...] = ()


class Provenance(_Section):
    """Where a policy came from; carried along, not interpreted."""

    method: str
    seed: int | None = None
    constraint: str | None = None
    note: str | None = None


class Policy(_Section):
    """The whole file.

    `exits` names the layers behind which inputs may leave. Its own bits are level 0, `level` holds
    those below; without it there is one that suits the target. `gate` was fitted for them.
    """

    version: Annotated[Literal[1], Field(alias="schema")] = 1
    default: Precision = Precision()
    rule: tuple[Rule, ...] = ()
    calibration: Calibration = Calibration()
    input: Mapping[str, InputSpec] = {}
    exits: tuple[str, ...] = ()
    level: tuple[Level, ...] | None = None
    gate: Fitted | None = None
    provenance: Provenance | None = None

    @property
    def gated(self) -> bool:
        """Whether it says anything of exits."""
        return bool(self.exits) or self.level is not None or self.gate is not None

    def without_exits(self) -> Policy:
        """The same for the network as it is, whole."""
        return self.model_copy(update={"exits": (), "level": None, "gate": None})

    def record(self) -> str:
        """The policy as JSON, of which the manifest has the hash; exits only where there are."""
        left_out = None if self.gated else {"exits", "level", "gate"}
        return self.model_dump_json(by_alias=True, exclude=left_out)


@dataclass(frozen=True, slots=True)
class Bits:
    """Resolved bits of one layer."""

    weights: int
    activations: int


def load(source: str | os.PathLike[str]) -> Policy:
    """The policy named by `source`: `w4a8` and its like, or a JSON or TOML file.

    Raises:
        PolicyError: there is no such file, it cannot be read, or it breaks the schema.
    """
    text = os.fspath(source)
    if match := UNIFORM.fullmatch(text):
        return _validate(
            {"default": {"weights": int(match[1]), "activations": int(match[2])}}, text
        )
    path = Path(source)
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PolicyError(
            "EQ0320", f"{text}: no such policy file, and no uniform policy such as w8a8 or w4a8"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError("EQ0320", f"{text} cannot be read: {error}") from error
    try:
        if path.suffix == ".toml":
            data = tomllib.loads(content)
        else:
            data = json.loads(content, object_pairs_hook=_unique)
    except _DuplicateKeyError as error:
        raise PolicyError("EQ0321", f"{path.name}: the key {error} stands twice") from error
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise PolicyError("EQ0320", f"{path.name} is no valid {kind}: {error}") from error
    return _validate(data, path.name)


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKeyError(repr(key))
        found[key] = value
    return found


def _validate(data: object, name: str) -> Policy:
    if isinstance(data, dict):
        gatefile.require_version(data.get("gate"))
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise PolicyError("EQ0322", describe(error, name)) from error


def describe(error: ValidationError, name: str) -> str:
    """The first fault of a file as a sentence: where, what stands there, what would be right."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    value = first["input"]
    shown = "" if isinstance(value, dict | list) else f" = {value!r}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{name}: {place}{shown}: {first['msg']}{more}"


def resolve(policy: Policy | Level, graph: Graph, name: str = "policy") -> dict[str, Bits]:
    """The bits of every layer of `graph`; later rules win.

    Raises:
        PolicyError: a rule matches no layer (near misses are named).
    """
    layers = [node.name for node in graph.nodes]
    chosen = {layer: Bits(policy.default.weights, policy.default.activations) for layer in layers}
    for index, rule in enumerate(policy.rule, start=1):
        matched = [layer for layer in layers if fnmatchcase(layer, rule.match)]
        if not matched:
            raise PolicyError(
                "EQ0323",
                f'{name}: rule {index} "{rule.match}" matches no layer; '
                + _near(rule.match, layers),
            )
        for layer in matched:
            chosen[layer] = Bits(
                rule.weights or chosen[layer].weights, rule.activations or chosen[layer].activations
            )
    return chosen


def _near(pattern: str, layers: list[str]) -> str:
    plain = re.sub(r"[*?]|\[[^\]]*\]", "", pattern)
    near = difflib.get_close_matches(plain, layers, n=3, cutoff=0.4)
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"layers are {', '.join(layers[:8])}{' …' if len(layers) > 8 else ''}"
