"""From a model, a policy with exits and labelled samples to the same policy with fitted gates."""

from __future__ import annotations

import importlib.util
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from edgeq import build, exits, fit, gatefile, gates, levels, parity, pipeline
from edgeq import costs as pricing
from edgeq.adaround import Known
from edgeq.build import sha256 as hashed
from edgeq.errors import MissingToolError, UsageError
from edgeq.exits import Cut, Head
from edgeq.fit import Outputs, Settings, baselines, curves, execute, heads, summary
from edgeq.fit.fitting import HELD_OUT
from edgeq.gates import Costs, Levels
from edgeq.ir import Array, Graph, Network, qparams_of
from edgeq.kernels import Optimize
from edgeq.ops import OPS, macs
from edgeq.pipeline import Compiled, Model, Progress
from edgeq.policy import InputSpec, Policy
from edgeq.program import Program, stored
from edgeq.report import CALIBRATION, Accuracy, Dropped, Fold, Gate, dumps
from edgeq.samples import Samples
from edgeq.target import Target
from edgeq.targets.toolchain import Compiler

Cost = Literal["measured", "bitops_linear", "bops"]
FORMULAS = gatefile.FORMULAS

MEASURED = "measured"
VAL, TEST = 0.6, 0.4  # of --data, where there is --train
TRAIN = 0.5  # of --data, where it stands for both
INPUT_BITS = 8  # of what the first layers multiply


@dataclass(frozen=True, slots=True)
class File:
    """A file of samples as it was read, and its hash."""

    samples: Samples
    sha256: str


@dataclass(frozen=True, slots=True)
class Request:
    """All that gates are fitted from."""

    model: Model
    policy: Policy
    specs: Mapping[str, InputSpec]
    calibration: File
    data: File
    train: File | None
    target: Target
    compiler: Compiler | None  # None: costs are counted in bits
    cost: Cost | Path  # or a table that `costs.read` reads
    tradeoff: float | None
    baselines: bool
    joint: bool
    recost: bool
    seed: int
    optimize: Optimize = "flash"  # as the export that takes the policy will be told
    known: Known = field(default_factory=dict)  # what AdaRound learned on the way


@dataclass(frozen=True, slots=True)
class Gated:
    """A policy with gates, where it was written, and what they are worth."""

    file: Path
    model: str
    policy: Policy
    section: Gate


@dataclass(frozen=True, slots=True)
class _Folds:
    """Samples by purpose; `heads` of them are trained and chosen on `train` and `val` alone."""

    train: Samples
    val: Samples
    test: Samples
    described: tuple[Fold, ...]
    notes: tuple[str, ...]


def cost_of(name: str | os.PathLike[str]) -> Cost | Path:
    """What costs are counted by, from what a user calls it: a name, or a file."""
    known: Mapping[str, Cost] = {one: one for one in get_args(Cost)}
    return known.get(os.fspath(name)) or Path(name)


def read(path: Path, model: Model, specs: Mapping[str, InputSpec], labelled: bool = True) -> File:
    """The samples of `path`, checked against the model.

    Raises:
        UsageError: they have no labels, or the file is not what it should be.
    """
    found = pipeline.read_samples(path, model, specs)
    if labelled:
        fit.labelled(str(path), found.labels)
    return File(found, hashed(path.read_bytes()))


def trainable(joint: bool, recost: bool) -> None:
    """Nothing, if what is asked for contradicts nothing, and can be trained here.

    Raises:
        UsageError: `recost` trains nothing.
        MissingToolError: `joint` needs PyTorch, which is not installed.
    """
    if not joint:
        return
    if recost:
        raise UsageError("EQ0272", "--recost trains nothing, and --joint would: take one of them")
    if importlib.util.find_spec("torch") is None:
        raise MissingToolError(
            "EQ0613", '--joint trains with PyTorch: python -m pip install "edgeq[torch]"'
        )


def run(request: Request, progress: Progress) -> tuple[Policy, Gate]:
    """The policy with gates, and the section of a report that says what they are worth.

    Raises:
        EdgeqError: as `errors` draws them.
    """
    folds = _split(request)
    policy = request.policy
    if not request.recost:
        policy = _with_heads(request, _with_exits(request), folds, progress)
    compiled = _compiled(request, policy, progress)
    program, nested = compiled.program, compiled.stores[0].nested
    gate = program.gate
    assert gate is not None  # `_with_heads` sees to it, or `write`
    if request.recost:
        bare = gates.static(gate.classes, gate.levels)
        unpriced = _holding(policy, bare, _unpriced(gate.levels, request.cost))
        bare_program = _compiled(request, unpriced, progress).program
        costs = _with_gates(request, _costs(request, bare_program, progress), policy, progress)
        outputs = _outputs(request, program, folds, progress)
        fitted = fit.kept(gate, costs, outputs.val, request.tradeoff)
    else:
        costs = _costs(request, program, progress)
        outputs = _outputs(request, program, folds, progress)
        progress("fitting gates", 0, 1)
        fitted = fit.fit(outputs, costs, _settings(outputs, request))
        progress("fitting gates", 1, 1)
        held = _holding(policy, fitted.gate, costs)
        costs = _with_gates(request, costs, held, progress)
        fitted = fit.priced(fitted, costs)
    model = pipeline.prepared(request.model, policy)
    names = _level_names(policy, model.graph, request.target)
    others = {}
    if request.baselines:
        others = summary.compared(
            outputs, costs, names[0], request.seed, lambda name: progress(name, 0, 1)
        )
    about = summary.About(
        target=request.target.name,
        exits=(*policy.exits, model.graph.nodes[-1].name),
        levels=names,
        accuracy=_accuracy(model, folds.test, outputs),
        folds=folds.described,
        dropped=_dropped(costs, outputs, names),
        seed=request.seed,
        notes=folds.notes,
    )
    section = summary.describe(fitted, outputs, costs, about, others)
    found = _holding(policy, fitted.gate, costs, section)
    assert found.gate is not None  # it has just been fitted
    return found.model_copy(
        update={"gate": found.gate.model_copy(update={"nested": nested})}
    ), section


def _holding(policy: Policy, gate: gates.Gate, costs: Costs, section: Gate | None = None) -> Policy:
    """The policy with other gates for its heads and weights."""
    assert policy.gate is not None  # it has heads
    before = policy.gate
    learned = {
        "heads": before.heads,
        "weights": before.weights,
        "drop": before.drop,
        "report": section,
    }
    found = gatefile.of_gate(gate, (), costs, before.model_sha256)
    return policy.model_copy(update={"gate": found.model_copy(update=learned)})


def _compiled(request: Request, policy: Policy, progress: Progress) -> Compiled:
    """What `export` makes of the policy, whose gates may be those before any are fitted."""
    return pipeline.compile(
        pipeline.prepared(request.model, policy),
        policy,
        request.specs,
        request.calibration.samples,
        request.target,
        request.optimize,
        (),
        progress,
        known=request.known,
    )


def write(file: Path, request: Request, progress: Progress) -> Gated:
    """The fitted policy in `file`, whole or not at all.

    Raises:
        EdgeqError: as `errors` draws them.
    """
    if request.recost and request.policy.gate is None:
        raise UsageError("EQ0271", "--recost: the policy has no gates yet; fit them without it")
    if request.tradeoff is not None:
        curves.fixed(request.tradeoff)
    policy, section = run(request, progress)
    assert policy.gate is not None  # it has just been fitted
    said = policy.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"gate"})
    held = policy.gate.model_dump(mode="json")
    build.write(file, dumps({"schema": policy.version, **said, "gate": held}))
    return Gated(file, request.model.name, policy, section)


# Samples.


def _split(request: Request) -> _Folds:
    """Samples to fit to, to choose by and to report on, which have none in common."""
    data, train = request.data, request.train
    notes: list[str] = []
    order = np.random.default_rng(request.seed).permutation(len(data.samples))
    if train is None:
        ends = [round(share * len(order)) for share in (TRAIN, 1 - TEST / 2)]
        notes.append(
            "no --train: half of --data trained heads and gates, three tenths chose between them, "
            "and a fifth is what figures are of"
        )
        parts = [_take(data.samples, at) for at in np.split(order, ends)]
    else:
        ends = [round(VAL * len(order))]
        parts = [train.samples, *(_take(data.samples, at) for at in np.split(order, ends))]
        if train.sha256 == data.sha256:
            notes.append(fit.same_data())
    sources = (train or data, data, data)
    described = tuple(
        Fold(name, len(part), source.sha256)
        for name, part, source in zip(("train", "val", "test"), parts, sources, strict=True)
    )
    calibration = request.calibration
    own = Fold(CALIBRATION, len(calibration.samples), calibration.sha256)
    if not all(map(len, parts)):
        raise UsageError(
            "EQ0273", f"{len(order)} samples are too few to fit gates to, choose and report on"
        )
    return _Folds(parts[0], parts[1], parts[2], (*described, own), tuple(notes))


def _take(samples: Samples, at: Array) -> Samples:
    rows = np.sort(at)
    assert samples.labels is not None  # `read` sees to it
    inputs = {name: array[rows] for name, array in samples.inputs.items()}
    return replace(samples, inputs=inputs, labels=samples.labels[rows])


# Exits, heads and weights.


def _with_exits(request: Request) -> Policy:
    """The policy with its own exits or those that are proposed, and without gates."""
    policy = request.policy.model_copy(update={"gate": None})
    layers = policy.exits or exits.proposed(exits.without_softmax(request.model.graph))
    return policy.model_copy(update={"exits": layers})


def _with_heads(request: Request, policy: Policy, folds: _Folds, progress: Progress) -> Policy:
    """A policy with exits with trained heads, and gates that send every input to the last exit."""
    weights = _joint(request, policy, folds, progress) if request.joint else {}
    sha256 = request.model.sha256
    if weights:
        started = gates.static(2, ((0,),) * (len(policy.exits) + 1))
        tuned = gatefile.of_gate(started, (), _unpriced(((0,),), request.cost), sha256, weights)
        policy = policy.model_copy(update={"gate": tuned})
    model = pipeline.prepared(request.model, policy)
    chain, _ = pipeline.with_exits(
        model,
        policy,
        None,
        request.calibration.samples,
        request.target.isa,
        progress,
        drop=request.cost not in FORMULAS,
        known=request.known,
    )
    bodies = chain.network
    train, val = (
        heads.features(
            bodies,
            _integers(bodies, samples),
            partial(_tell, progress, f"features, {name}", len(samples)),
        )
        for name, samples in (("train", folds.train), ("val", folds.val))
    )
    progress("training heads", 0, 1)
    classes = bodies.outputs[0].elements
    found = heads.train_all(
        train, _labels(folds.train), val, _labels(folds.val), classes, request.seed
    )
    progress("training heads", 1, 1)
    has = levels.levels_of(bodies)
    learned = tuple((one.head.weights, one.head.bias) for one in found)
    fitted = gatefile.of_gate(
        gates.static(classes, has), learned, _unpriced(has, request.cost), sha256, weights
    )
    return policy.model_copy(update={"gate": fitted})


def _tell(progress: Progress, stage: str, total: int, done: int) -> None:
    progress(stage, done, total)


def _joint(request: Request, policy: Policy, folds: _Folds, progress: Progress) -> dict[str, Array]:
    """The constants of the network, trained together with heads that are then trained anew."""
    from edgeq.fit.torch_joint import fine_tune

    graph = pipeline.prepared(request.model, policy).graph
    cuts = exits.named(graph, policy.exits)
    classes = graph.tensors[graph.outputs[0]].elements
    rng = np.random.default_rng(request.seed)
    started = exits.attach(graph, cuts, [_random_head(graph, cut, classes, rng) for cut in cuts])
    found = fine_tune(
        started,
        folds.train.real(),
        _labels(folds.train),
        folds.val.real(),
        _labels(folds.val),
        seed=request.seed,
        progress=lambda done, total: progress("fine-tuning", done, total),
    )
    return {name: data for name, data in found.items() if name in graph.tensors}


def _random_head(graph: Graph, cut: Cut, classes: int, rng: np.random.Generator) -> Head:
    values = math.prod(exits.pooled_shape(graph.tensors[cut.tensor].shape)[1:])
    weights = rng.normal(0, values**-0.5, (classes, values)).astype(np.float32)
    return Head(weights, np.zeros(classes, np.float32))


def _unpriced(has: Levels, cost: Cost | Path) -> Costs:
    """Costs before there are any: blocks alike, in what they will be counted in."""
    free = (0.0,) * (len(has) - 1)
    unit = cost if isinstance(cost, str) and cost in FORMULAS else pricing.CYCLES
    return Costs(unit, "none", tuple(dict.fromkeys(block, 1.0) for block in has), free, free)


# What the integers give, and what they cost.


def _integers(network: Network, samples: Samples) -> dict[str, Array]:
    """The device's input integers."""
    real = samples.real()
    return {tensor.name: stored(tensor, real[tensor.name]) for tensor in network.inputs}


def _labels(samples: Samples) -> npt.NDArray[np.int64]:
    assert samples.labels is not None  # `read` sees to it
    return samples.labels


def _outputs(request: Request, program: Program, folds: _Folds, progress: Progress) -> Outputs:
    """The integers on every fold where each path ends; those of gates that are kept are theirs."""
    network = program.network
    paths = gates.sampled(levels.paths_of(network), request.seed)
    if request.recost and program.gate is not None:
        paths = program.gate.paths
    scale = qparams_of(network.outputs[0]).scale[0]
    found = [
        fit.fold(
            name,
            execute.logits(
                network,
                program.quantize(samples),
                paths,
                partial(_tell, progress, f"every path, {name}", len(samples)),
            ),
            samples.labels,
            scale,
        )
        for name, samples in (("train", folds.train), ("val", folds.val), ("test", folds.test))
    ]
    return Outputs(levels.levels_of(network), *found)


def _costs(request: Request, program: Program, progress: Progress) -> Costs:
    """What every body and level, and each head, takes; the program's gates predict nothing."""
    cost = request.cost
    if cost == "bitops_linear" or cost == "bops":
        return pricing.bitops(program.network, cost)
    assert request.compiler is not None  # what counts was found before
    if isinstance(cost, Path):
        return pricing.read(
            cost,
            request.model.sha256,
            request.target,
            str(request.compiler),
            levels.levels_of(program.network),
        )
    progress("counting costs", 0, 1)
    found = pricing.measured(program, request.target, request.compiler)
    progress("counting costs", 1, 1)
    return found


def _with_gates(request: Request, costs: Costs, policy: Policy, progress: Progress) -> Costs:
    """The same with what the gates of `policy` take themselves."""
    if request.cost != MEASURED:
        return costs
    own = _costs(request, _compiled(request, policy, progress).program, progress)
    return replace(costs, gates=own.gates)


def _settings(outputs: Outputs, request: Request) -> Settings:
    """The numbers of clusters to choose from: no more than there are samples to find them on."""
    plain = Settings(seed=request.seed, tradeoff=request.tradeoff)
    most = len(outputs.val) * (1 - HELD_OUT)
    few = tuple(count for count in plain.clusters if count <= most)
    return replace(plain, clusters=few or plain.clusters[:1])


def _level_names(policy: Policy, graph: Graph, target: Target) -> tuple[str, ...]:
    """Each level by the bits that most of its products are of, as policies are called."""
    names = []
    for bits in levels.resolve(policy, graph, target.isa):
        counts: Counter[str] = Counter()
        for node in graph.nodes:
            if OPS[node.op].weighted:
                source = levels.writer(graph, node.inputs[0])
                reads = INPUT_BITS if source is None else bits[source].activations
                counts[f"w{bits[node.name].weights}a{reads}"] += macs(graph, node)
        names.append(counts.most_common(1)[0][0] if counts else "w8a8")
    return tuple(f"{n}, level {i}" if names.count(n) > 1 else n for i, n in enumerate(names))


def _dropped(costs: Costs, outputs: Outputs, names: Sequence[str]) -> tuple[Dropped, ...]:
    """The levels that no path takes, since they save nothing here."""
    found = []
    for block, level in sorted(costs.dominated):
        price = costs.blocks[block]
        better = min((other for other in price if other < level), key=lambda other: price[other])
        found.append(
            Dropped(
                block + 1,
                names[level],
                f"{price[level]:,.0f} {costs.unit}, {names[better]} takes {price[better]:,.0f}",
            )
        )
    return tuple(found)


def _accuracy(model: Model, test: Samples, outputs: Outputs) -> Accuracy:
    """Of the float network, and of its integers at level 0, on the samples that are reported on."""
    real = parity.top1(parity.real_outputs(model.graph, test), test.labels)
    assert real is not None and outputs.test is not None
    whole = baselines.uniform(outputs.levels, outputs.levels[0][0])
    right = 1 - outputs.test.wrong[whole].mean()
    return Accuracy(len(test), round(real, 6), round(float(right), 6))
