"""The report's values: what each verb found out, and nothing about how it is shown.

`report.json` is these dataclasses as JSON; `docs/report.schema.json` is generated from them. Bytes
are integers, fractions run from 0 to 1, layers are joined by name. No times, paths or dates.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

# Names of their own, since two fields are called float and int.
Fraction = float  # 0..1
Count = int


class Verdict(StrEnum):
    """What a row found; `base` is what other rows are compared with."""

    BASE = "base"
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
class Alternative:
    """Another way to run a layer: the kernel, and the bits and layout of its weights."""

    kernel: str
    bits: int | None
    layout: str | None
    cycles_estimate: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator. `sqnr_db` compares it with float on the same inputs, alone; None if exact.

    `cycles_estimate` is what kernels were chosen by: coefficients fitted on a Cortex-M4, whatever
    the core. `next_best` would be taken if there were not what is. `block` and `level` are those
    of a network with exits; a head has no level.
    """

    name: str
    op: str
    macs: int
    bits: LayerBits
    layout: str | None
    kernel: str | None
    weight_bytes: int
    sqnr_db: float | None
    cycles_estimate: int | None = None
    next_best: Alternative | None = None
    block: str | None = None
    level: int | None = None


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
class Slot:
    """Arena bytes of a tensor, or of a layer's scratch, from step `first` to `last` inclusive.

    A step is a layer, by its index in `layers`. Tensors that share memory have equal slots.
    """

    name: str
    scratch: bool
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits in bytes, from the flags or the target; None where there is none."""

    flash: int | None
    ram: int | None


@dataclass(frozen=True, slots=True)
class Artefact:
    """One form of the model in the build: its file there, and the bytes of that."""

    format: str
    file: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 on labelled samples: the float network and the integers that the device computes."""

    samples: Count
    float: Fraction
    int: Fraction


@dataclass(frozen=True, slots=True)
class ExitUse:
    """An exit: the share of the samples that leave there, and how many of those are right."""

    name: str
    share: Fraction
    top1: Fraction | None


@dataclass(frozen=True, slots=True)
class PathUse:
    """A path, as the level of each block: its cost, and the share of the samples that take it."""

    levels: tuple[Count, ...]
    cost: float
    share: Fraction


@dataclass(frozen=True, slots=True)
class Store:
    """A way to store the weights of levels: `nested`, or `levels`, a layout for each.

    `image` and `weights` are bytes. `mean` and `worst` are estimated cycles of the samples, and of
    the dearest path, heads included, over those of level 0 without exits under `--optimize time`.
    `top1` and `mean` are None where no labelled samples ran.
    """

    name: str
    chosen: bool
    image: int
    weights: int
    top1: Fraction | None
    mean: float | None
    worst: float


@dataclass(frozen=True, slots=True)
class Routing:
    """How the gates route the samples at their tradeoff; costs are in `unit`, by `source`.

    `whole_cost` is that of the last exit at level 0, every head and gate on the way included, and
    `plain_cost` the same without them: the network without exits, its weights stored alike.
    `worst_cost` is that of the dearest path.
    """

    samples: Count
    tradeoff: float
    unit: str
    source: str
    mean_cost: float
    worst_cost: float
    whole_cost: float
    plain_cost: float
    exits: tuple[ExitUse, ...]
    paths: tuple[PathUse, ...]
    stores: tuple[Store, ...] = ()


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
    arena: tuple[Slot, ...] = ()
    artefacts: tuple[Artefact, ...] = ()
    forced: tuple[str, ...] = ()  # LAYER=KERNEL, as --kernel named them
    routing: Routing | None = None  # of a network with exits


@dataclass(frozen=True, slots=True)
class Distance:
    """Samples that differ, and the largest difference of a value in steps.

    `routes` counts the samples that take another path; None of a network without exits.
    """

    mismatches: int
    max_lsb: int
    routes: Count | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One rung of the ladder, against the integer reference under the rounding rule `rule`.

    `cosine` and `sqnr_db` compare all output values with the float network's; None where that did
    not run, or there is no noise.
    """

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
    cosine: float | None = None
    sqnr_db: float | None = None
    rule_distance: Distance | None = None


@dataclass(frozen=True, slots=True)
class Validate:
    """The ladder; what `export` checks is a short one."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What a stretch of code took. Instructions were emulated; cycles are modelled from them.

    `cycles_model` is None where the target has no cost table. `flash_read_bytes` counts data reads
    of the flash: weights, tables, literals; None where the emulator tells instructions alone.
    """

    instructions: int
    cycles_model: int | None
    flash_read_bytes: int | None


@dataclass(frozen=True, slots=True)
class LayerWork:
    """What one operator took in one inference; `cycles_measured` comes from a board's log.

    `dual_macs` counts instructions that multiply two pairs and add both (SMLAD and its kin).
    """

    name: str
    kernel: str
    macs: int
    instructions: int
    cycles_model: int | None
    cycles_measured: int | None
    flash_read_bytes: int | None
    dual_macs: int | None


@dataclass(frozen=True, slots=True)
class Totals:
    """One inference, whole: the layers and the overhead add up to it."""

    instructions: int
    cycles_model: int | None
    cycles_measured: int | None
    flash_read_bytes: int | None
    macs: int


@dataclass(frozen=True, slots=True)
class PathWork:
    """One inference on a path, as the level of each block, heads and gates on its way included."""

    levels: tuple[Count, ...]
    instructions: int
    cycles_model: int | None


@dataclass(frozen=True, slots=True)
class CodeSize:
    """Bytes of flash of one name in the firmware; `purpose` as in `flash`, or `harness`."""

    name: str
    purpose: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Where `cycles_measured` come from, in the words of the log."""

    board: str
    clock_hz: int
    compiler: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What one inference takes. `overhead` is what runs between the kernels, `start` is eq_init.

    `notes` say why figures are missing. Of a network with exits `layers` has every level and head,
    `gates` what decides behind each head, and totals and overhead are those of the whole network at
    level 0.
    """

    core: str
    emulator: str
    compiler: str | None
    cost_source: str | None
    macs_per_instruction: int | None
    layers: tuple[LayerWork, ...]
    overhead: Work
    start: Work
    totals: Totals
    flash: Flash
    ram: Ram
    symbols: tuple[CodeSize, ...]
    notes: tuple[str, ...]
    measured: Measured | None = None
    gates: tuple[Work, ...] = ()
    paths: tuple[PathWork, ...] = ()


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Samples of the test fold at one tradeoff; None where what made the point has none.

    `cost` is the mean, as a share of the dearest path's; `exits` are the shares that leave there.
    """

    tradeoff: float | None
    cost: Fraction
    accuracy: Fraction
    exits: tuple[Fraction, ...]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A point of the curve that is worth a name; `mean` and `worst` are in the unit of costs.

    `levels` are the shares of all blocks run that ran at each; `worst` is what any input may take.
    """

    name: str
    tradeoff: float
    cost: Fraction
    accuracy: Fraction
    exits: tuple[Fraction, ...]
    levels: tuple[Fraction, ...]
    mean: float
    worst: float


class Standing(StrEnum):
    """The gates beside a baseline; a tie where the interval holds 0, or 1 for a ratio."""

    AHEAD = "ahead"
    TIE = "tie"
    BEHIND = "behind"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The gates' `figure` less the baseline's, or over it if `ratio`, with its paired 95 % bounds.

    None where a curve does not get there.
    """

    figure: str
    ratio: bool
    value: float | None
    low: float | None
    high: float | None
    standing: Standing | None


@dataclass(frozen=True, slots=True)
class Baseline:
    """What else spends less on some inputs, on the same samples at the same costs."""

    curve: tuple[CurvePoint, ...]
    area: Fraction
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class FormFit:
    """One form of the gates: bytes of its tables, and its area on held-out samples."""

    form: str
    bytes: int
    area: Fraction
    chosen: bool


@dataclass(frozen=True, slots=True)
class ClassUse:
    """Where the samples of one class leave, and at which levels their blocks ran."""

    name: str
    samples: Count
    exits: tuple[Fraction, ...]
    levels: tuple[Fraction, ...]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Samples of like confidence, 1 − predicted error, and how many of them were right."""

    confidence: Fraction
    accuracy: Fraction
    samples: Count


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far predicted errors may be trusted; ECE in bins of equal mass and of equal width."""

    brier: float
    ece_mass: float
    ece_width: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class Clustering:
    """What one number of clusters gives: Brier score and ECE held out, accuracy over all costs."""

    clusters: Count
    brier: float
    ece: float
    accuracy: Fraction
    chosen: bool


@dataclass(frozen=True, slots=True)
class Dropped:
    """A level that one block does not have, and why."""

    block: int
    level: str
    reason: str


CALIBRATION = "calibration"  # the fold that ranges come from


@dataclass(frozen=True, slots=True)
class Fold:
    """Samples by their purpose; `sha256` is that of the file that they come from."""

    name: str
    samples: Count
    sha256: str


@dataclass(frozen=True, slots=True)
class Gate:
    """What `gate` fitted, and what it is worth on samples that nothing was chosen by.

    Costs are shares of the dearest path's, which takes `dearest` of the `unit`; `ungated` is the
    same for the network without heads and gates at the most precise level.
    """

    target: str
    exits: tuple[str, ...]  # the layers; the last one is the network's own
    levels: tuple[str, ...]
    form: str
    bytes: int
    clusters: Count
    paths: Count
    unit: str
    cost_source: str
    dearest: float
    ungated: Fraction
    accuracy: Accuracy | None
    tradeoff: float
    curve: tuple[CurvePoint, ...]
    area: Fraction
    points: tuple[OperatingPoint, ...]
    baselines: dict[str, Baseline]
    forms: tuple[FormFit, ...]
    classes: tuple[ClassUse, ...]
    reliability: Reliability | None
    clusterings: tuple[Clustering, ...]
    dropped: tuple[Dropped, ...]
    folds: tuple[Fold, ...]
    seed: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Each verb owns one section and replaces only that; `gate` comes with the policy."""

    model: str
    target: str
    export: Export
    validate: Validate
    profile: Profile | None = None
    gate: Gate | None = None
    schema: int = 1

    def with_validate(self, section: Validate) -> Report:
        """This report with another `validate` section."""
        return replace(self, validate=section)

    def with_profile(self, section: Profile) -> Report:
        """This report with another `profile` section."""
        return replace(self, profile=section)

    def with_gate(self, section: Gate | None) -> Report:
        """This report with another `gate` section."""
        return replace(self, gate=section)

    def to_json(self) -> dict[str, Any]:
        """The report as `report.json` holds it."""
        return asdict(self)


def from_json(data: object) -> Report:
    """The report that `report.json` holds.

    Raises:
        ValueError: it is none of this schema.
    """
    from pydantic import TypeAdapter

    report = TypeAdapter(Report).validate_python(data)
    if report.schema != Report.__dataclass_fields__["schema"].default:
        raise ValueError(f"schema {report.schema}")
    return report


def dumps(value: object) -> str:
    """JSON as every file of a build has it: two spaces, a final newline, stable order."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of `report.json`."""
    from pydantic import TypeAdapter

    return TypeAdapter(Report).json_schema()


# What `check` prints; there is no build that it could be a section of #


@dataclass(frozen=True, slots=True)
class CheckedOperator:
    """One operator of the model file; `refusal` is the sentence why it is not supported."""

    name: str
    op: str
    refusal: str | None


@dataclass(frozen=True, slots=True)
class CheckedLayer:
    """A layer by the name that policies match, and what its weights take at 8, 4 and 2 bits."""

    name: str
    op: str
    shape: tuple[int, ...]
    macs: int
    weights: Count
    bytes_8: int
    bytes_4: int
    bytes_2: int
    bits: int | None
    kernel: str | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Estimates under the policy, against the budget. `peak` holds the activations alone."""

    flash: Flash
    ram: Ram
    budget: Budget
    peak: int
    fits: bool


@dataclass(frozen=True, slots=True)
class Check:
    """What edgeq would make of a model. Without `refusals` there are layers and a fit."""

    model: str
    target: str
    policy: str
    operators: tuple[CheckedOperator, ...]
    refusals: tuple[str, ...]
    layers: tuple[CheckedLayer, ...]
    macs: int
    fit: Fit | None
    notes: tuple[str, ...]
    schema: int = 1


# What `explain` prints, and what `profile --cost-table` writes #


@dataclass(frozen=True, slots=True)
class State:
    """A build with one layer at some bits. Work is of one inference; None where nothing was linked.

    `sqnr_db` is None without samples, or where there is no noise.
    """

    weights: int
    kernel: str
    weight_bytes: int
    flash: int
    arena: int
    sqnr_db: float | None
    instructions: int | None
    cycles_model: int | None
    total_instructions: int | None
    total_cycles_model: int | None


@dataclass(frozen=True, slots=True)
class Explain:
    """What one layer's bits would change, all else as it is."""

    model: str
    target: str
    compiler: str | None
    layer: str
    before: State
    after: State
    notes: tuple[str, ...]
    schema: int = 1


@dataclass(frozen=True, slots=True)
class Costs:
    """What a layer takes with its weights in so many bits."""

    weights: int
    kernel: str
    instructions: int
    cycles_model: int | None
    flash_bytes: int
    flash_read_bytes: int | None
    scratch_bytes: int


@dataclass(frozen=True, slots=True)
class LayerCosts:
    """A layer at every width that the device can hold."""

    name: str
    macs: int
    costs: tuple[Costs, ...]


@dataclass(frozen=True, slots=True)
class CostTable:
    """Costs for searches and gates; of one model, core and compiler, whose words it carries.

    `model_sha256` is of the model's file, `image` of the build's image.
    """

    model: str
    model_sha256: str
    image: str
    target: str
    core: str
    compiler: str
    source: str
    cost_source: str | None
    layers: tuple[LayerCosts, ...]
    schema: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class PathCosts:
    """Costs for gates: of every block by level, head and gate; of one model, core and compiler.

    What `profile --cost-table` writes of a build with exits, and `gate --cost` reads; `unit` may be
    any, such as microjoules that somebody measured.
    """

    model: str
    model_sha256: str
    target: str
    core: str
    compiler: str
    unit: str
    source: str
    blocks: tuple[dict[str, float], ...]
    heads: tuple[float, ...]
    gates: tuple[float, ...]
    schema: Literal[1] = 1


# What `diff` prints #


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of two builds; None where one of them does not have it."""

    name: str
    old: float | None
    new: float | None


@dataclass(frozen=True, slots=True)
class PartChange:
    """What differs in a layer or an exit, by figure; one that a build lacks has nothing there."""

    name: str
    old: dict[str, str | float]
    new: dict[str, str | float]


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed from one build to another. `figures` are all that both reports have.

    `exits` have `share`, of the inputs, and `top1` of those, both 0..1.
    """

    old: str
    new: str
    figures: tuple[Change, ...]
    layers: tuple[PartChange, ...]
    exits: tuple[PartChange, ...]
    notes: tuple[str, ...]
    schema: int = 1
