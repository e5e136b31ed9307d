"""What other weight bits would change: of one layer (`explain`), of every layer (a cost table).

Each answer is linked and counted on the emulated core, and nothing of it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeq import kernels, profiler, rebuild, sqnr
from edgeq.build import Build, read_manifest
from edgeq.errors import MissingToolError, UsageError
from edgeq.exporters import image
from edgeq.exporters.image import Image, Kind
from edgeq.ops import OPS
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
) -> Explain:
    """What `weights` bits for `layer` would change in `build`.

    Raises:
        UsageError: there is no such layer, or it has no weights.
    """
    _refuse_exits(again)
    _refuse_other_layers(again, layer)
    notes: list[str] = []
    try:
        compiler: Compiler | None = rebuild.compiler_of(build, again.target)
    except MissingToolError as error:
        compiler = None
        notes.append(f"nothing was linked, flash is an estimate without cycles: {error.message}")
    calib = calib or rebuild.samples_file(build, rebuild.CALIBRATION)
    if calib is None:
        notes.append("no SQNR: name the samples with --calib")
    before = _variant(again.program, compiler)
    after = _variant(again.with_weights({layer: weights}), compiler)
    samples = None if calib is None else again.samples(calib)
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

    The others' bits do not change a layer's work, except where values decide a branch (below 1 %)
    or its output comes to lie over its input. At the build's own bits the figures are the build's.
    Widths that the device's memory cannot hold are left out.

    Raises:
        MissingToolError: the build's compiler, the emulator or the disassembler is missing.
    """
    compiler = rebuild.compiler_of(build, again.target)
    rows: dict[str, list[Costs]] = {}
    macs = {layer.name: layer.macs for layer in build.report.export.layers if layer.macs}
    own = rebuild.link(again.program, compiler)  # where outputs lie may decide what a layer takes
    for bits in WIDTHS:
        program = again.with_weights(dict.fromkeys(macs, bits))
        linked = rebuild.link(program, compiler)
        if linked is None:
            continue
        for name in macs:
            as_built = own is not None and again.bits[name].weights == bits
            of, counted = (again.program, own) if as_built else (program, linked)
            assert counted is not None
            counts = counted.counted.layers[_place(of, name)]
            choice = of.choices[name]
            cost = Costs(
                weights=bits,
                kernel=choice.kernel.symbol,
                instructions=counts.instructions,
                cycles_model=counts.cycles,
                flash_bytes=choice.weight_bytes,
                flash_read_bytes=counts.reads,
                scratch_bytes=choice.scratch_bytes,
            )
            rows.setdefault(name, []).append(cost)
    target, counted_by = again.target, profiler.emulator(again.target)
    manifest = read_manifest(build.folder)
    return CostTable(
        model=build.report.model,
        model_sha256=manifest["model"],
        image=manifest["files"][f"{build.report.model}.eqb"],
        target=target.name,
        core=target.core,
        compiler=str(compiler),
        source=f"emulated: each width linked and counted on {counted_by.name} "
        f"{counted_by.version()}",
        cost_source=None if target.cost is None else target.cost.source,
        layers=tuple(LayerCosts(name, macs[name], tuple(costs)) for name, costs in rows.items()),
    )


def _refuse_exits(again: Rebuilt) -> None:
    if again.program.gate is not None:
        raise UsageError(
            "EQ0256",
            f"{again.program.name} has exits: other bits of a layer change what its gates were "
            "fitted to; change the policy, fit the gates again, and compare the builds by edgeq "
            "diff",
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
        own = self.program.kernels
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


def _noise(again: Rebuilt, program: Program, layer: str, samples: Samples) -> float | None:
    found = sqnr.by_layer(again.model.graph, program.network.graphs[0], samples.real())[layer]
    return None if found is None else round(found, 2)
