"""What other weight bits would change: of one layer (`explain`), of every layer (a cost table).

Each answer is linked and counted on the emulated core, and nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq import kernels, pipeline, profiler, rebuild, sqnr
from edgeq.build import Build, read_manifest
from edgeq.errors import MissingToolError, UsageError
from edgeq.exporters import c_arrays, image
from edgeq.exporters.image import Image, Kind
from edgeq.ops import OPS
from edgeq.packing import stored_bytes
from edgeq.policy import InputSpec
from edgeq.program import Program
from edgeq.rebuild import Linked, Rebuilt
from edgeq.report import Costs, CostTable, Explain, LayerCosts, State
from edgeq.samples import Samples
from edgeq.targets.toolchain import Compiler

WIDTHS = range(2, 9)


def explain(
    build: Build,
    again: Rebuilt,
    layer: str,
    weights: int,
    calib: Path | None = None,
    inputs: Mapping[str, InputSpec] | None = None,
) -> Explain:
    """What `weights` bits for `layer` would change in `build`.

    Raises:
        UsageError: there is no such layer, or it has no weights.
    """
    _refuse_other_layers(again, layer)
    notes: list[str] = []
    try:
        compiler: Compiler | None = rebuild.compiler_of(build, again.target)
    except MissingToolError as error:
        compiler = None
        notes.append(f"nothing was linked, flash is an estimate without cycles: {error.message}")
    folder = rebuild.example_of(build)
    calib = calib or (folder / "calib.npz" if folder is not None else None)
    if calib is None:
        notes.append("no SQNR: name the samples with --calib")
    before = _variant(again.program, compiler)
    after = _variant(again.with_weights({layer: weights}), compiler)
    samples = None if calib is None else _samples(again, calib, inputs or {})
    states = [_state(again, variant, layer, samples) for variant in (before, after)]
    # What the report measured is the ground; the image's table for raw input stays what it is.
    start = build.report.export.flash.total
    return Explain(
        model=build.report.model,
        target=build.report.target,
        compiler=None if compiler is None else str(compiler),
        layer=layer,
        before=replace(states[0], flash=start),
        after=replace(states[1], flash=start + states[1].flash - states[0].flash),
        notes=tuple(notes),
    )


def cost_table(build: Build, again: Rebuilt) -> CostTable:
    """What every weighted layer of `build` costs at each width, all layers at that width at once.

    The others' bits do not change a layer's work, except where values decide a branch (below 1 %).
    Widths that the device's memory cannot hold are left out.

    Raises:
        MissingToolError: the build's compiler, the emulator or the disassembler is missing.
    """
    compiler = rebuild.compiler_of(build, again.target)
    rows: dict[str, list[Costs]] = {}
    macs = {layer.name: layer.macs for layer in build.report.export.layers if layer.macs}
    for bits in WIDTHS:
        program = again.with_weights(dict.fromkeys(macs, bits))
        linked = rebuild.link(program, compiler)
        if linked is None:
            continue
        for name in macs:
            counts = linked.counted.layers[_place(program, name)]
            choice = program.choices[name]
            graph = program.network.graphs[0]
            node = next(node for node in graph.nodes if node.name == name)
            weights = graph.tensors[node.inputs[OPS[node.op].activations]].elements
            cost = Costs(
                weights=bits,
                kernel=choice.kernel.symbol,
                instructions=counts.instructions,
                cycles_model=counts.cycles,
                flash_bytes=stored_bytes(weights, choice.weight_bits),
                flash_read_bytes=counts.reads,
                scratch_bytes=choice.scratch_bytes,
            )
            rows.setdefault(name, []).append(cost)
    target = again.target
    return CostTable(
        model=build.report.model,
        image=read_manifest(build.folder)["files"][f"{build.report.model}.eqb"],
        target=target.name,
        core=target.core,
        compiler=str(compiler),
        source="emulated: each width linked and counted on unicorn "
        f"{profiler.emulator(target).version()}",
        cost_source=None if target.cost is None else target.cost.source,
        layers=tuple(LayerCosts(name, macs[name], tuple(costs)) for name, costs in rows.items()),
    )


def _refuse_other_layers(again: Rebuilt, layer: str) -> None:
    weighted = [
        node.name
        for graph in again.program.network.graphs
        for node in graph.nodes
        if OPS[node.op].weighted
    ]
    if layer not in weighted:
        raise UsageError(
            "EQ0243", f"no layer with weights is called {layer}; there are {', '.join(weighted)}"
        )


@dataclass(frozen=True, slots=True)
class _Variant:
    """A program as it would be built, and as it was counted, if it was."""

    program: Program
    image: Image
    linked: Linked | None

    @property
    def code(self) -> int:
        """Bytes of runtime and kernels: linked, or by `kernels.toml`."""
        if self.linked is not None:
            return self.linked.code.runtime + self.linked.code.kernels
        own = c_arrays.own_kernels(self.program)
        return kernels.code_bytes().runtime + kernels.linked_bytes(own)


def _variant(program: Program, compiler: Compiler | None) -> _Variant:
    linked = None if compiler is None else rebuild.link(program, compiler)
    return _Variant(program, image.build(program), linked)


def _state(again: Rebuilt, variant: _Variant, layer: str, samples: Samples | None) -> State:
    program, linked = variant.program, variant.linked
    counts = None if linked is None else linked.counted.layers[_place(program, layer)]
    choice = program.choices[layer]
    return State(
        weights=choice.weight_bits,
        kernel=choice.kernel.symbol,
        weight_bytes=variant.image.bytes_of(Kind.WEIGHTS),
        flash=len(variant.image.data) + variant.code,
        arena=program.plan.arena_bytes,
        sqnr_db=None if samples is None else _noise(again, program, layer, samples),
        instructions=None if counts is None else counts.instructions,
        cycles_model=None if counts is None else counts.cycles,
        total_instructions=None if linked is None else linked.counted.whole.instructions,
        total_cycles_model=None if linked is None else linked.counted.whole.cycles,
    )


def _place(program: Program, layer: str) -> int:
    """Which of the operators that run is `layer`."""
    names = [node.name for graph in program.network.graphs for node in graph.nodes]
    return [name for name in names if name in program.choices].index(layer)


def _samples(again: Rebuilt, calib: Path, inputs: Mapping[str, InputSpec]) -> Samples:
    specs = pipeline.input_specs(again.model, again.policy, inputs)
    return pipeline.read_samples(calib, again.model, specs)


def _noise(again: Rebuilt, program: Program, layer: str, samples: Samples) -> float | None:
    found = sqnr.by_layer(again.model.graph, program.network.graphs[0], samples.real())[layer]
    return None if found is None else round(found, 2)
