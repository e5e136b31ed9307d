"""What paths through a network with exits cost: counted on the emulated core, or by formula.

Costs are decoupled from gates: other ones reprice a gate, and nothing that it learned changes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path as File
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from edgeq import profiler, rebuild
from edgeq.build import Build, read_manifest
from edgeq.errors import IntegrityError, UsageError
from edgeq.exporters.gate_section import code
from edgeq.gates import Costs, Levels, Path, static
from edgeq.ir import Graph, Network, qparams_of
from edgeq.ops import OPS, macs
from edgeq.policy import describe
from edgeq.profiler import Counts, Walk
from edgeq.program import Program
from edgeq.rebuild import Rebuilt
from edgeq.reference import graphs_on
from edgeq.report import PathCosts
from edgeq.target import Target
from edgeq.targets.toolchain import Compiler

Formula = Literal["bitops_linear", "bops"]
CYCLES, INSTRUCTIONS = "cycles_model", "instructions"


def bitops(network: Network, kind: Formula) -> Costs:
    """The paper's costs: multiply-accumulates times bits; heads and gates cost nothing.

    `bitops_linear` takes the mean of a layer's bits of weights and of the activations that it
    reads (eq. 17), `bops` their product.
    """
    blocks = tuple(
        {v.level: float(_bit_operations(v.graph, kind)) for v in block.variants}
        for block in network.blocks
        if not block.head
    )
    none = (0.0,) * (len(blocks) - 1)
    return Costs(kind, "multiply-accumulates × bits, heads and gates free", blocks, none, none)


def _bit_operations(graph: Graph, kind: Formula) -> float:
    total = 0.0
    for node in graph.nodes:
        if OPS[node.op].weighted:
            read, weights = (qparams_of(graph.tensors[name]).bits for name in node.inputs[:2])
            each = (read + weights) / 2 if kind == "bitops_linear" else read * weights
            total += macs(graph, node) * each
    return total


def measured(
    program: Program, target: Target, compiler: Compiler, unit: str | None = None
) -> Costs:
    """What each body and level, head and gate of `program` takes on the emulated core of `target`.

    Without a unit: modelled cycles where the target has a cost table, else instructions.

    Raises:
        MissingToolError: the emulator or the disassembler is missing.
        UsageError: the device cannot hold the program.
    """
    gate = program.gate
    assert gate is not None  # a program with exits
    covering = profiler.cover(gate.paths)
    walks = [Walk((code(path), len(path) - 1), operators_on(program, path)) for path in covering]
    linked = rebuild.firmware(program, compiler)
    if linked is None:
        raise UsageError(
            "EQ0254", f"{target.name} cannot hold {program.name}: its costs cannot be counted there"
        )
    if unit is None:
        unit = INSTRUCTIONS if target.cost is None else CYCLES
    found = profiler.walk(linked, target, walks)
    blocks: list[dict[int, float]] = [{} for _ in gate.levels]
    heads, gates = [0.0] * (gate.exits - 1), [0.0] * (gate.exits - 1)
    for path, walked in zip(covering, found, strict=True):
        for body, level in enumerate(path):
            blocks[body][level] = _cost(walked.parts[2 * body], unit)
        for index, part in enumerate(walked.parts[1::2]):
            heads[index] = max(heads[index], _cost(part, unit))
        for index, one in enumerate(walked.gates):
            gates[index] = max(gates[index], _cost(one, unit))
    by = profiler.emulator(target)
    source = f"{target.core}, {compiler}, counted on {by.name} {by.version()}"
    ordered = tuple(dict(sorted(block.items())) for block in blocks)
    return Costs(unit, source, ordered, tuple(heads), tuple(gates))


def table(build: Build, again: Rebuilt) -> PathCosts:
    """The costs of a build with exits, counted, for `read`."""
    compiler = rebuild.compiler_of(build, again.target)
    gate = again.program.gate
    assert gate is not None  # whoever asks for costs of another network gets another table
    own = measured(again.program, again.target, compiler)
    bare = replace(again.program, gate=static(gate.classes, gate.levels))  # on every path
    found = replace(measured(bare, again.target, compiler), gates=own.gates)
    return PathCosts(
        model=build.report.model,
        model_sha256=read_manifest(build.folder)["model"],
        target=again.target.name,
        core=again.target.core,
        compiler=str(compiler),
        unit=found.unit,
        source=found.source,
        blocks=tuple({str(level): cost for level, cost in b.items()} for b in found.blocks),
        heads=found.heads,
        gates=found.gates,
    )


def read(path: File, model_sha256: str, target: Target, compiler: str, levels: Levels) -> Costs:
    """The costs that `table` found, for this model, the core of `target` and this compiler.

    Raises:
        UsageError: the file cannot be read.
        IntegrityError: it is no table of costs, or of something else.
    """
    try:
        found = TypeAdapter(PathCosts).validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise UsageError("EQ0258", f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise IntegrityError(
            "EQ0742", f"{path} is no table of costs for gates: {describe(error, path.name)}"
        ) from error
    has = tuple(tuple(sorted(map(int, block))) for block in found.blocks)
    for what, own, wanted in (
        ("model", found.model_sha256, model_sha256),
        ("core", found.core, target.core),
        ("compiler", found.compiler, compiler),
        ("network", has, levels),
    ):
        if own != wanted:
            raise IntegrityError(
                "EQ0743", f"{path} is for another {what}: {own}, here it is {wanted}"
            )
    blocks = tuple({int(level): cost for level, cost in b.items()} for b in found.blocks)
    return Costs(found.unit, found.source, blocks, found.heads, found.gates)


def _cost(counts: Counts, unit: str) -> float:
    return float(counts.instructions if counts.cycles is None or unit != CYCLES else counts.cycles)


def operators_on(program: Program, path: Path) -> tuple[int, ...]:
    """How many operators run in each body on `path`, and in the heads between and behind them."""
    return tuple(
        sum(node.name in program.choices for node in graph.nodes)
        for graph in graphs_on(program.network, path)
    )
