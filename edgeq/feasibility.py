"""Whether a model can be exported, and about what it would take: no calibration, no compiler.

Sizes do not depend on what the weights and ranges are, only on how many bits they have. So an
integer graph with invented ranges stands in for the one that calibration would give.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeq import exits, footprint, frontends, levels, pipeline
from edgeq import plan as planner
from edgeq import policy as policies
from edgeq.budget import excess
from edgeq.calibrate import Ranges
from edgeq.errors import ModelError, PolicyError
from edgeq.exporters import image
from edgeq.ir import Graph, Node, single
from edgeq.ops import OPS, macs
from edgeq.packing import stored_bytes
from edgeq.pipeline import Model
from edgeq.policy import Calibration, InputSpec, Policy
from edgeq.program import Program
from edgeq.report import Budget, Check, CheckedLayer, CheckedOperator, Fit
from edgeq.target import Target

STAND_IN = (-1.0, 1.0)  # the range of every activation
SETTINGS = Calibration(activations="minmax", weights="minmax", gain=False, bias_correction=False)


def run(
    path: Path,
    policy: Policy,
    policy_name: str,
    target: Target,
    budget: Budget,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    inputs: Mapping[str, InputSpec] | None = None,
    name: str | None = None,
) -> Check:
    """What edgeq would make of the model at `path`.

    Raises:
        ModelError: the file is broken, so that its operators cannot be told.
        PolicyError: the policy does not fit the model.
    """
    survey = frontends.survey(path, shapes)
    refusals = survey.refusals
    layers: tuple[CheckedLayer, ...] = ()
    fit = None
    notes: tuple[str, ...] = ()
    if survey.source is not None:
        notes = survey.source.notes
        try:
            model = pipeline.prepared(pipeline.tidied(survey.source, name), policy)
            notes = model.source.notes
            program = _stand_in(model, policy, target, inputs or {}, budget)
        except PolicyError:
            raise
        except ModelError as error:  # a rule of the whole graph, or no kernel for this core
            refusals = (error.message,)
        else:
            layers, fit = _layers(program), _fit(program, budget)
    return Check(
        model=pipeline.identifier(name or path.stem),
        target=target.name,
        policy=policy_name,
        operators=tuple(CheckedOperator(o.name, o.kind, o.refusal) for o in survey.operators),
        refusals=refusals,
        layers=layers,
        macs=sum(layer.macs for layer in layers),
        fit=fit,
        notes=notes,
    )


def _stand_in(
    model: Model,
    policy: Policy,
    target: Target,
    inputs: Mapping[str, InputSpec],
    budget: Budget,
) -> Program:
    """The program of `model` with invented ranges."""
    graph = model.graph
    specs = pipeline.input_specs(model, policy, inputs)
    if policy.gated:
        return _gated_stand_in(model, policy, target, specs, budget)
    bits = policies.resolve(policy, graph)
    names = [*graph.inputs, *(node.output for node in graph.nodes)]
    ranges = Ranges(dict.fromkeys(names, STAND_IN), {}, "none", 0)
    integer = pipeline.to_integers(model, bits, ranges, SETTINGS)
    return pipeline.place(model, single(integer), specs, target, "flash", (), budget)


def _gated_stand_in(
    model: Model,
    policy: Policy,
    target: Target,
    specs: Mapping[str, InputSpec],
    budget: Budget,
) -> Program:
    """The same of a network with exits, whose gates know nothing where `policy` has none."""
    graph = model.graph
    cuts = exits.named(graph, policy.exits)
    seen = exits.attach(graph, cuts, [exits.no_head(graph, cut) for cut in cuts])
    names = [*seen.inputs, *(node.output for node in seen.nodes)]
    ranges = Ranges(dict.fromkeys(names, STAND_IN), {}, "none", 0)
    held = None if policy.gate is None else pipeline.fitted(model, policy)
    each = [ranges] * len(levels.resolve(policy, graph, target.isa))
    means = pipeline.Means(specs, target, "flash", (), budget)
    return pipeline.stores(model, policy, held, each, SETTINGS, means)[0].program


def _layers(program: Program) -> tuple[CheckedLayer, ...]:
    return tuple(
        _layer(program, graph, node) for graph in program.network.graphs for node in graph.nodes
    )


def _layer(program: Program, graph: Graph, node: Node) -> CheckedLayer:
    choice = program.choices.get(node.name)
    weighted = OPS[node.op].weighted
    weights = graph.tensors[node.inputs[OPS[node.op].activations]].elements if weighted else 0
    bytes_8, bytes_4, bytes_2 = (stored_bytes(weights, bits) for bits in (8, 4, 2))
    return CheckedLayer(
        name=node.name,
        op=node.op.value,
        shape=graph.tensors[node.output].shape,
        macs=macs(graph, node),
        weights=weights,
        bytes_8=bytes_8,
        bytes_4=bytes_4,
        bytes_2=bytes_2,
        bits=choice.weight_bits if weighted and choice is not None else None,
        kernel=choice.kernel.symbol if choice is not None else None,
    )


def _fit(program: Program, budget: Budget) -> Fit:
    flash, ram = footprint.estimate(program, image.build(program), program.kernels)
    lags = {name: c.lag for name, c in program.choices.items() if c.lag is not None}
    peak = planner.plan(program.network, {}, lags).arena_bytes
    beyond = excess(flash.total, budget.flash) + excess(ram.total, budget.ram)
    return Fit(flash, ram, budget, peak, not beyond)
