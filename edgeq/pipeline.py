"""The stages in order: from a model file to a program that exporters can write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgeq import (
    calibrate,
    dispatch,
    exits,
    frontends,
    gatefile,
    gates,
    levels,
    passes,
    policy,
    quantize,
    samples,
)
from edgeq.adaround import AdaRound, Known, Learned, learned_layers
from edgeq.calibrate import Ranges
from edgeq.dispatch import UNLIMITED
from edgeq.errors import EdgeqError, ModelError, PolicyError, UsageError
from edgeq.exits import Head
from edgeq.exporters import image
from edgeq.exporters.image import Kind
from edgeq.frontends import Source
from edgeq.gates import Costs, Gate
from edgeq.ir import Graph, Network, single
from edgeq.kernels import Optimize, code_bytes, flash_bytes
from edgeq.levels import Chain
from edgeq.policy import Bits, Calibration, InputSpec, Policy
from edgeq.program import Program, make_input
from edgeq.report import Budget
from edgeq.samples import Samples
from edgeq.target import Target

Progress = Callable[[str, int, int], None]  # stage, done, total


def quiet(stage: str, done: int, total: int) -> None:
    """The progress of a call whose caller does not watch."""


# File names that a model may not have: of a build and its harness, of C's headers, CMake's targets.
TAKEN = (
    "edgeq", "eq", "main", "selftest", "startup", "all", "clean", "help", "install",
    "assert", "complex", "ctype", "errno", "features", "fenv", "float", "inttypes", "iso646",
    "limits", "locale", "math", "memory", "setjmp", "signal", "stdalign", "stdarg", "stdatomic",
    "stdbool", "stddef", "stdint", "stdio", "stdlib", "stdnoreturn", "string", "strings", "tgmath",
    "threads", "time", "uchar", "wchar", "wctype",
)  # fmt: skip
TAKEN_PREFIXES = ("eq_", "harness")
KEPT_BITS = 8  # of the activations of a model that was quantised already
NO_RANGES = Ranges({}, {}, "none", 0)


@dataclass(frozen=True, slots=True)
class Model:
    """A model, read and tidied."""

    name: str  # a C identifier
    source: Source
    graph: Graph
    sha256: str

    @property
    def classes(self) -> int:
        """How many values output 0 has."""
        return self.graph.tensors[self.graph.outputs[0]].elements


@dataclass(frozen=True, slots=True)
class Compiled:
    """A program with the decisions that led to it.

    `ranges` is None for a model that kept its own and needed no others; `lower` are those of the
    levels below the first. `chain` and `costs` are of a network with exits.
    """

    program: Program
    bits: Mapping[str, Bits]
    ranges: Ranges | None
    learned: tuple[Learned, ...] = ()  # what AdaRound did, by layer and level
    lower: tuple[Ranges, ...] = ()
    chain: Chain | None = None
    costs: Costs | None = None
    stores: tuple[Stored, ...] = ()  # of a network with exits, the one that was taken first


@dataclass(frozen=True, slots=True)
class Stored:
    """A network with exits under one way to store weights: levels share a store, or do not."""

    nested: bool
    chain: Chain
    program: Program


def read(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    name: str | None = None,
    samples_file: Path | None = None,
) -> Model:
    """The model at `path` after every float pass, called `name` or after its file or factory.

    A PyTorch model takes input shapes that `shapes` does not give from `samples_file`.
    """
    seen = partial(samples.shapes, samples_file) if samples_file is not None else dict
    return tidied(frontends.load(path, shapes, seen), name)


def tidied(source: Source, name: str | None = None) -> Model:
    """What was read, after every float pass."""
    graph = passes.run(source.graph, passes.FLOAT_PASSES)
    return Model(identifier(name or source.name), source, graph, source.sha256)


def identifier(text: str) -> str:
    """`text` as a lower-case C identifier that no file of a build or its harness has."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in text.lower()).strip("_")
    taken = plain in TAKEN or plain.startswith(TAKEN_PREFIXES)
    return plain if plain[:1].isalpha() and not taken else f"net_{plain}".strip("_")


def input_specs(
    model: Model, chosen: Policy, others: Mapping[str, InputSpec]
) -> dict[str, InputSpec]:
    """What raw samples of each input mean: the policy's word, then the settings', then the model's.

    Raises:
        PolicyError: a section names no input.
    """
    ports = model.source.inputs
    own = {port.name: InputSpec(range=port.raw) for port in ports if port.raw is not None}
    specs = {**own, **others, **chosen.input}
    known = [port.name for port in ports]
    for name in specs:
        if name not in known:
            raise PolicyError(
                "EQ0326", f"[input.{name}] names no input; the model's are {', '.join(known)}"
            )
    return specs


def read_samples(path: Path, model: Model, specs: Mapping[str, InputSpec]) -> Samples:
    """The samples of `path`, checked against the model."""
    return samples.load(path, model.source.inputs, specs, model.classes)


def compile(
    model: Model,
    chosen: Policy,
    specs: Mapping[str, InputSpec],
    calibration: Samples | None,
    target: Target,
    optimize: Optimize,
    labels: tuple[str, ...],
    progress: Progress,
    budget: Budget = UNLIMITED,
    forced: Mapping[str, str] | None = None,
    known: Known | None = None,
) -> Compiled:
    """Every decision about `model`, as a program for `target` within `budget`, if there is one.

    A model that was quantised already needs no calibration. `known` is what AdaRound learned for
    it before; what it learns here is added.
    """
    if labels and len(labels) != model.classes:
        raise UsageError("EQ0227", f"{len(labels)} labels for {model.classes} outputs")
    if chosen.gated:
        held = fitted(model, chosen)
        seen = _ranges(model, chosen, held.heads, calibration, target.isa, progress)
        means = Means(specs, target, optimize, labels, budget, forced)
        rounder = level_learner(model, chosen, calibration, target.isa, progress, known)
        ways = stores(model, chosen, held, seen, chosen.calibration, means, rounder)
        chain, learned = ways[0].chain, () if rounder is None else rounder.log
        return Compiled(
            ways[0].program, chain.bits, seen[0], learned, seen[1:], chain, held.costs, ways
        )
    bits = policy.resolve(chosen, model.graph)
    decide = _calibrated if model.source.quantized is None else _kept
    ranges, rounder = decide(model, bits, chosen.calibration, calibration, progress)
    integer = to_integers(model, bits, ranges, chosen.calibration, rounder)
    program = place(model, single(integer), specs, target, optimize, labels, budget, forced)
    return Compiled(program, bits, ranges, rounder.log if rounder is not None else ())


def _calibrated(
    model: Model,
    bits: Mapping[str, Bits],
    settings: Calibration,
    calibration: Samples | None,
    progress: Progress,
) -> tuple[Ranges | None, AdaRound | None]:
    """What the samples show of a float model, and what rounds its weights."""
    if calibration is None:
        raise UsageError("EQ0202", "export needs --calib: samples to find activation ranges on")
    ranges = calibrate.run(
        model.graph,
        bits,
        calibration.real(),
        settings,
        lambda done, total: progress("calibrating", done, total),
    )
    return ranges, learner(model.graph, (bits,), calibration, settings, progress)


def _kept(
    model: Model,
    bits: Mapping[str, Bits],
    settings: Calibration,
    calibration: Samples | None,
    progress: Progress,
) -> tuple[Ranges | None, AdaRound | None]:
    """Nothing for a model that keeps its integers; where bits are lowered, samples serve it too."""
    lowered = any(one.weights < KEPT_BITS for one in bits.values())
    if calibration is None or not lowered:
        return None, None
    return _calibrated(model, bits, settings, calibration, progress)


def to_integers(
    model: Model,
    bits: Mapping[str, Bits],
    ranges: Ranges | None,
    settings: Calibration,
    rounder: AdaRound | None = None,
    levels: Mapping[str, tuple[int, ...]] | None = None,
) -> Graph:
    """The integer graph of `model`, from ranges or from what the model kept.

    `levels` are the bits, by layer, of all levels whose weights share a store (`quantize.run`).

    Raises:
        PolicyError: the activations of a quantised model should have other bits.
    """
    kept = model.source.quantized
    for name, one in bits.items():
        if kept is not None and one.activations != KEPT_BITS:
            raise PolicyError(
                "EQ0327",
                f"{name} asks for {one.activations}-bit activations; the model was quantised to "
                f"{KEPT_BITS} bits already, and a policy can lower its weights alone",
            )
    learns = None if rounder is None else rounder.of(model.graph)
    return quantize.run(model.graph, bits, ranges or NO_RANGES, settings, learns, kept, levels)


def place(
    model: Model,
    network: Network,
    specs: Mapping[str, InputSpec],
    target: Target,
    optimize: Optimize,
    labels: tuple[str, ...],
    budget: Budget = UNLIMITED,
    forced: Mapping[str, str] | None = None,
    gate: Gate | None = None,
) -> Program:
    """The integer network of `model` as a program: kernels chosen, arena planned."""
    ports = model.source.inputs
    retained = [p.tensor for p in ports if p.name in specs and specs[p.name].retain]
    state = 0 if gate is None else gate.state_bytes
    chosen = dispatch.run(network, target.isa, optimize, budget, forced, retained, state)
    given = {tensor.name: tensor for tensor in network.inputs}
    inputs = tuple(make_input(port, given[port.tensor], specs.get(port.name)) for port in ports)
    program = Program(
        name=model.name,
        network=network,
        choices=chosen.choices,
        plan=chosen.plan,
        target=target,
        inputs=inputs,
        outputs=model.source.outputs,
        labels=labels,
        model_sha256=model.sha256,
        next_best=chosen.next_best,
        gate=gate,
    )
    if optimize not in ("balanced", "flash") or budget.flash is None:
        return program
    left = budget.flash - _fixed_bytes(program)
    if code_bytes().runtime + flash_bytes(chosen.choices.values()) <= left:
        return program
    tighter = replace(budget, flash=left)
    chosen = dispatch.run(network, target.isa, optimize, tighter, forced, retained, state)
    return replace(program, choices=chosen.choices, plan=chosen.plan, next_best=chosen.next_best)


# Networks with exits #

NO_SOFTMAX = "the softmax at the end was left out: gates see what would go into it"


@dataclass(frozen=True, slots=True)
class FittedGate:
    """What a policy holds beside exits and levels: heads, gates, and the costs they go by."""

    heads: tuple[Head, ...]
    gate: Gate
    costs: Costs
    drop: bool  # as in the policy

    @property
    def first(self) -> tuple[int, ...]:
        """The levels of the first body."""
        return self.gate.levels[0]

    def gate_for(self, network: Network) -> Gate:
        """The gate, which must be one for the bodies of `network`.

        Raises:
            PolicyError: it is for other exits or levels.
        """
        own, classes = levels.levels_of(network), network.outputs[0].elements
        if (self.gate.levels, self.gate.classes) != (own, classes):
            raise PolicyError(
                "EQ0393",
                f"gate: fitted for {self.gate.classes} classes and blocks of levels "
                f"{self.gate.levels}; the policy's exits and levels make {classes} and {own}: fit "
                "the gates again",
            )
        return self.gate


def prepared(model: Model, chosen: Policy) -> Model:
    """`model` as a policy with exits takes it; the same model where there are none.

    A final softmax is left out, and weights that were trained with the gates take their place.

    Raises:
        PolicyError: the model is quantised already, or the weights are of another.
    """
    if not chosen.gated:
        return model
    if model.source.quantized is not None:
        raise PolicyError(
            "EQ0388",
            f"{model.name} is quantised already, and exits need a float model: export the one that "
            "it was made of",
        )
    graph = exits.without_softmax(_tuned(model, chosen))
    notes = model.source.notes
    if graph.outputs != model.graph.outputs:
        notes = (*notes, NO_SOFTMAX)
    ports = tuple(
        replace(port, tensor=name)
        for port, name in zip(model.source.outputs, graph.outputs, strict=True)
    )
    return replace(model, graph=graph, source=replace(model.source, outputs=ports, notes=notes))


def _tuned(model: Model, chosen: Policy) -> Graph:
    """The model's graph with the weights that were trained together with its heads."""
    tensors = dict(model.graph.tensors)
    for name, data in (chosen.gate.weights if chosen.gate is not None else {}).items():
        own = tensors.get(name)
        if own is None or own.data is None:
            raise PolicyError("EQ0393", f"gate: {name} is no constant of {model.name}")
        tensors[name] = replace(own, data=data.values(name, "float32", own.shape))
    return replace(model.graph, tensors=tensors)


def fitted(model: Model, chosen: Policy) -> FittedGate:
    """The gates of `chosen`, which must be of this model and its exits.

    Raises:
        PolicyError: there are none, or they are of another model, version or policy.
    """
    held = chosen.gate
    exits.named(model.graph, chosen.exits)
    if held is None:
        raise PolicyError(
            "EQ0392",
            "the policy has exits, but no gates yet: fit them with edgeq gate, and export what it "
            "writes",
        )
    gatefile.require_model(held, model.sha256)
    if len(held.heads) != len(chosen.exits):
        raise PolicyError(
            "EQ0393", f"gate: {len(held.heads)} heads for {len(chosen.exits)} exits of the policy"
        )
    heads = tuple(
        Head(
            head.weights.values(f"the weights of head {number}", "float32"),
            head.bias.values(f"the bias of head {number}", "float32"),
        )
        for number, head in enumerate(held.heads, start=1)
    )
    return FittedGate(heads, gatefile.to_gate(held), gatefile.costs_of(held), held.drop)


def with_exits(
    model: Model,
    chosen: Policy,
    heads: Sequence[Head] | None,
    calibration: Samples | None,
    isa: Iterable[str],
    progress: Progress = quiet,
    *,
    drop: bool = True,
    known: Known | None = None,
) -> tuple[Chain, tuple[Ranges, ...]]:
    """The integer network of a prepared model at every level, and the ranges of each.

    Without heads there are the bodies alone, on which heads are trained. `drop` is that of
    `levels.run`: costs of a target want it, and formulas such as `bitops_linear` do not; `known`
    that of `compile`.
    """
    ranges = _ranges(model, chosen, heads, calibration, isa, progress)
    cuts = exits.named(model.graph, chosen.exits)
    bits = levels.resolve(chosen, model.graph, isa)
    settings = chosen.calibration
    rounder = level_learner(model, chosen, calibration, isa, progress, known)
    chain = levels.run(
        model.graph, cuts, bits, ranges, settings, heads, isa, drop=drop, rounder=rounder
    )
    return chain, ranges


def _ranges(
    model: Model,
    chosen: Policy,
    heads: Sequence[Head] | None,
    calibration: Samples | None,
    isa: Iterable[str],
    progress: Progress,
) -> tuple[Ranges, ...]:
    """What the samples show of a network with exits, at each level."""
    if calibration is None:
        raise UsageError("EQ0202", "export needs --calib: samples to find activation ranges on")
    cuts = exits.named(model.graph, chosen.exits)
    return calibrate.by_level(
        model.graph if heads is None else exits.attach(model.graph, cuts, heads),
        levels.resolve(chosen, model.graph, isa),
        calibration.real(),
        chosen.calibration,
        lambda done, total: progress("calibrating", done, total),
    )


@dataclass(frozen=True, slots=True)
class Means:
    """What a network is placed by, as `place` takes it."""

    specs: Mapping[str, InputSpec]
    target: Target
    optimize: Optimize
    labels: tuple[str, ...] = ()
    budget: Budget = UNLIMITED
    forced: Mapping[str, str] | None = None


def stores(
    model: Model,
    chosen: Policy,
    held: FittedGate | None,
    ranges: Sequence[Ranges],
    settings: Calibration,
    means: Means,
    rounder: AdaRound | None = None,
) -> tuple[Stored, ...]:
    """A network with exits under both ways to store the weights of its levels, the one taken first.

    They share a nested store, or have a layout each. `--optimize flash` takes what gives the
    smaller image, all else a layout for each level. One way alone where no layer that differs
    between levels is left in the store, where the other does not serve what `means` force, or where
    the policy wants AdaRound: what it learns for one level is no digit of another's. Without gates,
    heads know nothing and inputs go to the end.

    Raises:
        EdgeqError: neither can be made.
    """
    graph, isa = model.graph, means.target.isa
    cuts = exits.named(graph, chosen.exits)
    heads = held.heads if held is not None else [exits.no_head(graph, cut) for cut in cuts]
    found: list[Stored] = []
    refused: list[EdgeqError] = []
    for nested in (False, True) if chosen.calibration.rounding == "nearest" else (False,):
        chain = levels.run(
            graph,
            cuts,
            levels.resolve(chosen, graph, isa),
            ranges,
            settings,
            heads,
            isa,
            drop=held is None or held.drop,
            nested=nested,
            first=None if held is None else held.first,
            rounder=rounder,
        )
        if nested and not levels.shares(chain.network):
            continue
        if held is None:
            gate = gates.static(model.classes, levels.levels_of(chain.network))
        else:
            gate = held.gate_for(chain.network)
        aim: Optimize = "flash" if nested else means.optimize
        try:
            program = place(
                model,
                chain.network,
                means.specs,
                means.target,
                aim,
                means.labels,
                means.budget,
                means.forced,
                gate,
            )
        except (ModelError, UsageError) as error:
            refused.append(error)
        else:
            found.append(Stored(nested, chain, program))
    if not found:
        raise refused[0]
    if means.optimize == "flash":
        found.sort(key=lambda way: len(image.build(way.program).data))
    return tuple(found)


def _fixed_bytes(program: Program) -> int:
    """What a program takes in flash beside code, weights and their tables, whatever its kernels."""
    built = image.build(program)
    luts = sum(port.lut.nbytes for port in program.inputs if port.lut is not None)
    chosen = sum(choice.table_bytes for choice in program.choices.values())
    return len(built.data) - built.bytes_of(Kind.WEIGHTS) - chosen + luts


def level_learner(
    model: Model,
    chosen: Policy,
    calibration: Samples | None,
    isa: Iterable[str],
    progress: Progress,
    known: Known | None = None,
) -> AdaRound | None:
    """The `learner` of a network with exits."""
    if calibration is None:
        return None
    bits = levels.resolve(chosen, model.graph, isa)
    return learner(model.graph, bits, calibration, chosen.calibration, progress, known)


def learner(
    graph: Graph,
    levels: Sequence[Mapping[str, Bits]],
    calibration: Samples,
    settings: Calibration,
    progress: Progress,
    known: Known | None = None,
) -> AdaRound | None:
    """What learns how weights are rounded, on the calibration samples; None for nearest.

    `known` is what was learned before, and is added to.
    """
    if settings.rounding == "nearest":
        return None
    layers = sum(
        learned_layers(graph, {name: one.weights for name, one in bits.items()}) for bits in levels
    )
    return AdaRound(
        graph,
        calibration.real(),
        settings.seed,
        lambda done: progress("rounding weights", done, layers),
        {} if known is None else known,
    )
