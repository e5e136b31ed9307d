"""From a program to a finished build: written, linked, executed, measured, recorded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

import edgeq
from edgeq import (
    adaround,
    budget,
    footprint,
    formats,
    gates,
    kernels,
    layers,
    pages,
    parity,
    sqnr,
)
from edgeq.build import Build, sha256, staged, write_files, write_records
from edgeq.calibrate import to_json
from edgeq.errors import (
    BudgetError,
    GraphError,
    IntegrityError,
    MismatchError,
    UsageError,
)
from edgeq.exporters import c_arrays, gate_section, image, python_runner
from edgeq.exporters.c_arrays import Case
from edgeq.exporters.gate_section import code
from edgeq.exporters.image import Image, Kind
from edgeq.ir import Array
from edgeq.kernels import Kernel, Optimize
from edgeq.parity import Expectation
from edgeq.pipeline import Compiled, Model, Progress
from edgeq.policy import Policy
from edgeq.program import Program
from edgeq.report import (
    CALIBRATION,
    Accuracy,
    Artefact,
    Budget,
    ExitUse,
    Export,
    Flash,
    NotCounted,
    PathUse,
    Ram,
    Report,
    Routing,
    Row,
    Store,
    Validate,
    dumps,
)
from edgeq.samples import Samples, drawn
from edgeq.target import Target
from edgeq.targets import emulators, runners, toolchain
from edgeq.targets.emulators import EmulatorFaultError, Firmware
from edgeq.targets.runners import EmulatorRunner, HostProgram, HostRunner, Runner
from edgeq.targets.toolchain import Compiler, CompilerError

Check = Literal["none", "host", "emulator"]

GOLDEN_CASES = 2
HOST_SAMPLES = 64
EMULATED_SAMPLES = 4
HOST_FORCED = 8  # samples on every path of a network with exits; one on the emulated core
LAST_EXIT = "end"
OTHER_STORE = (
    "{} here, and the gates were fitted and their costs counted for {}: fit them again with the "
    "same --optimize"
)
OWN_STORES = (
    "AdaRound learned the weights of each level, which then share no nested store: there is a "
    "layout for each"
)
_DRAWN = "no samples given: checked on random inputs"
DEPENDENCIES = ("numpy", "onnx", "onnx-ir", "onnxruntime")  # named in the manifest


@dataclass(frozen=True, slots=True)
class Tools:
    """What executes the checks that were asked for."""

    target: Compiler | None
    host: Compiler | None


@dataclass(frozen=True, slots=True)
class Request:
    """All that a build is made of."""

    model: Model
    policy: Policy
    compiled: Compiled
    calibration: Samples | None
    labelled: Samples | None
    budget: Budget
    optimize: Optimize
    linked: tuple[Kernel, ...]
    forced: tuple[str, ...]
    notes: tuple[str, ...]
    calibration_sha256: str | None
    plots: bool = False

    @property
    def program(self) -> Program:
        """The program to build."""
        return self.compiled.program

    def samples(self) -> Samples:
        """What the build is checked on: labelled samples, or others, or random integers."""
        return self.labelled or self.calibration or drawn(self.model.source.inputs)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the linked firmware takes, and what running it showed."""

    flash: Flash
    ram: Ram
    not_counted: NotCounted
    rows: tuple[Row, ...]


def find_tools(target: Target, check: Check, compiler: str | None) -> Tools:
    """The compilers and the emulator that `check` needs, before anything is computed.

    A target that no firmware is linked for is checked on this machine.

    Raises:
        MissingToolError: one of them is missing; the message says how to install it.
    """
    formats.needs(target)
    if check == "none":
        return Tools(None, None)
    host = toolchain.find(toolchain.HOST_COMPILERS)
    if check == "host" or not target.linked:
        return Tools(None, host)
    runners.find_emulator(target)
    return Tools(toolchain.find(toolchain.rows_for(target), compiler), host)


def linked_kernels(
    program: Program, which: Literal["own", "all"], images: Sequence[str | os.PathLike[str]]
) -> tuple[Kernel, ...]:
    """The kernels of the firmware: the program's, and those of other images, or all.

    Raises:
        UsageError: there is no such image.
        IntegrityError: it is no whole model image of this format, or its gates are of another.
    """
    if which == "all":
        return kernels.table()
    chosen = set(program.kernels)
    for path in images:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UsageError("EQ0203", f"{path} cannot be read: {error.strerror}") from error
        if not image.is_whole(data):
            raise IntegrityError(
                "EQ0701",
                f"{path} is no whole edgeq model image of format {image.FORMAT}, ABI {image.ABI}",
            )
        if (found := image.gate_version(data)) not in (None, gate_section.VERSION):
            raise IntegrityError(
                "EQ0703",
                f"{path} has gates of layout {found}, this edgeq reads {gate_section.VERSION}: "
                "export it again",
            )
        chosen.update(c_arrays.kernels_of(data))
    return tuple(sorted(chosen, key=lambda kernel: kernel.id))


def run(request: Request, tools: Tools, out: Path, progress: Progress) -> Build:
    """The build of `request` in `out`, checked by `tools`.

    Raises:
        BudgetError: it takes more flash or RAM than it may.
        MismatchError: the C computes something else than the reference.
        UsageError: `out` cannot be written.
    """
    program = request.program
    samples = request.samples()
    progress("predicting", 0, 1)
    expected = parity.expect(program, program.quantize(samples), labels=samples.labels)
    progress("predicting", 1, 1)
    with staged(out) as folder:
        cases = _golden(request, samples, expected.outputs)
        built = c_arrays.export(program, folder, cases, request.linked)
        artefacts, refused = _write_artefacts(program, folder, built)
        if request.compiled.ranges is not None:
            ranges = dumps(to_json(request.compiled.ranges, request.compiled.lower))
            (folder / "ranges.json").write_text(ranges, "utf-8")
        if request.compiled.learned:
            rounding = adaround.to_json(request.compiled.learned)
            (folder / "rounding.json").write_text(dumps(rounding), "utf-8")
        measured = _measure(request, tools, folder, built, expected, progress)
        budget.check(
            program, measured.flash, measured.ram, request.budget, request.optimize, artefacts
        )
        request = replace(request, notes=(*request.notes, *refused))
        report = _report(request, tools, measured, artefacts, samples, expected, progress)
        write_files(folder, pages.files(report, plots=request.plots))
        write_records(folder, report, _facts(request, tools))
    return Build(out, report)


def _write_artefacts(
    program: Program, folder: Path, built: Image
) -> tuple[tuple[Artefact, ...], tuple[str, ...]]:
    """Writes every format of the target beside the C, and says which cannot be written, and why.

    The image is among what was written.

    Raises:
        GraphError: none of them can.
    """
    written = [Artefact(formats.C, f"{program.name}{c_arrays.IMAGE_SUFFIX}", len(built.data))]
    refused: list[tuple[str, GraphError]] = []
    for row in formats.of(program.target):
        try:
            path = row.write(program, folder)
        except GraphError as error:
            refused.append((row.path(program, folder).name, error))
        else:
            written.append(Artefact(row.name, path.name, path.stat().st_size))
    if len(written) > 1:
        python_runner.export(program, folder)
    elif refused:
        raise GraphError(refused[0][1].id, "; ".join(error.message for _, error in refused))
    return tuple(written), tuple(f"no {name}: {error.message}" for name, error in refused)


def _golden(request: Request, samples: Samples, expected: Sequence[Array]) -> list[Case]:
    """The first samples, from what the device reads to what it must give."""
    cases = []
    for index in range(min(GOLDEN_CASES, len(samples))):
        one = samples.take(index, index + 1)
        inputs = []
        for port in request.program.inputs:
            raw = one.inputs[port.tensor.name]
            inputs.append(raw if raw.dtype == np.uint8 else port.quantize(raw))
        cases.append(Case(tuple(inputs), tuple(array[index] for array in expected)))
    return cases


def _measure(
    request: Request,
    tools: Tools,
    folder: Path,
    built: Image,
    expected: Expectation,
    progress: Progress,
) -> _Measured:
    """Links and runs what `tools` allow; without a target compiler sizes are estimates."""
    program = request.program
    rows = []
    if tools.host is not None:
        progress("compiling for this machine", 0, 1)
        with contextlib.closing(HostProgram(folder / c_arrays.RUNTIME, tools.host)) as compiled:
            host = HostRunner(compiled, built.data)
            rows.append(_row(request, host, expected, HOST_SAMPLES, progress))
            rows += _paths_row(program, host, expected, HOST_FORCED, progress)
        rows += _execute_artefacts(request, folder, expected.take(HOST_SAMPLES), progress)
    if tools.target is None:
        flash, ram = footprint.estimate(program, built, request.linked)
        return _Measured(flash, ram, NotCounted(0, 0), tuple(rows))
    _refuse_unlinkable(request, built)
    progress("compiling for the target", 0, 1)
    firmware = emulators.read_firmware(_link(request, tools.target, folder))
    with _stack_for(request, firmware):
        emulated = EmulatorRunner(firmware, program.target)
        with contextlib.closing(emulated):
            if emulated.failed_cases:
                raise MismatchError(
                    "EQ0505",
                    f"{emulated.failed_cases} golden vectors fail on {program.target.name}",
                )
            rows.append(_row(request, emulated, expected, EMULATED_SAMPLES, progress))
            rows += _paths_row(program, emulated, expected, 1, progress)
            sample = parity.sample_bytes(list(expected.inputs.values()), 0)
            stack = emulated.measure_stack(sample, _whole_paths(program))
    used = footprint.measure(firmware, program.name, request.linked)
    weights, routing = built.bytes_of(Kind.WEIGHTS), built.bytes_of(Kind.GATE)
    flash = Flash(
        runtime=used.runtime,
        kernels=used.kernels,
        weights=weights,
        tables=used.model - weights - routing,
        gates=routing,
        total=used.runtime + used.kernels + used.model,
    )
    context = firmware.symbol("harness_context").bytes
    arena = program.plan.arena_bytes
    ram = Ram(arena, context, 0, stack, arena + context + stack)
    harness_ram = footprint.ram(firmware) - arena - context
    return _Measured(flash, ram, NotCounted(used.harness, harness_ram), tuple(rows))


def _whole_paths(program: Program) -> list[tuple[int, int]]:
    """The paths to the last exit, as runners are told them; none without gates."""
    gate = program.gate
    if gate is None:
        return []
    return [(code(path), len(path) - 1) for path in gate.paths if len(path) == gate.exits]


def _paths_row(
    program: Program, runner: Runner, expected: Expectation, samples: int, progress: Progress
) -> Iterator[Row]:
    """A row for every path of a network with exits, forced; a difference ends the export."""
    if program.gate is None:
        return
    stage = f"running {runner.name}, every path"
    progress(stage, 0, 1)
    row = parity.compare_paths(program, runner, expected.take(samples))
    progress(stage, 1, 1)
    parity.require_equal(row)
    yield row


def _refuse_unlinkable(request: Request, built: Image) -> None:
    """What cannot be linked into the device's memories gets the table, not the linker's words."""
    flash, ram = footprint.estimate(request.program, built, request.linked)
    stack = runners.LEAST_STACK  # the linker gives what is left
    ram = replace(ram, stack=stack, total=ram.total - ram.stack + stack)
    budget.check(request.program, flash, ram, _memories(request.program.target), request.optimize)


@contextlib.contextmanager
def _stack_for(request: Request, firmware: Firmware) -> Iterator[None]:
    """Where a full RAM left the stack less than it is usually given, its overflow is a budget's."""
    try:
        yield
    except EmulatorFaultError as error:
        stack = firmware.symbol("__stack_top").address - firmware.symbol("__stack_bottom").address
        if stack >= runners.STACK_BYTES or "the stack overflowed" not in error.message:
            raise
        program = request.program
        raise BudgetError(
            "EQ0404",
            f"RAM of {program.target.name} is full: its {program.target.first('ram').bytes} bytes "
            f"hold an arena of {program.plan.arena_bytes}, and leave {stack} for the stack, which "
            f"needs more ({error.message})",
        ) from error


def _link(request: Request, compiler: Compiler, folder: Path) -> Path:
    program = request.program
    try:
        return runners.link_firmware(folder, program.name, program.target, compiler)
    except CompilerError as error:
        if "overflowed" not in error.message:  # the word of both linkers for a full memory
            raise
        limits = _memories(program.target)
        raise BudgetError(
            "EQ0403",
            f"the firmware that tests the model does not fit {program.target.name} "
            f"({limits.flash} bytes of flash, {limits.ram} of RAM):\n{error.message}",
        ) from error


def _memories(target: Target) -> Budget:
    return Budget(target.first("flash").bytes, target.first("ram").bytes)


def _row(
    request: Request,
    runner: Runner,
    expected: Expectation,
    samples: int,
    progress: Progress,
) -> Row:
    """The parity row of `runner` on the first `samples`; a difference ends the export."""
    part = expected.take(samples)
    progress(f"running {runner.name}", 0, len(part))
    row = parity.compare(
        request.program,
        runner,
        part,
        lambda done, total: progress(f"running {runner.name}", done, total),
    )
    parity.require_equal(row)
    return row


def _execute_artefacts(
    request: Request, folder: Path, device: Expectation, progress: Progress
) -> Iterator[Row]:
    """A parity row for every artefact beside the C, in its own runtime, under its own rounding."""
    program = request.program
    for row in formats.written(program, folder):
        executor = row.open(program, folder, row.runtimes[0])
        expected = parity.expect(program, device.inputs, executor.rounding, device.labels)
        progress(f"running {executor.name}", 0, 1)
        found = parity.compare_executor(program, executor, expected)
        progress(f"running {executor.name}", 1, 1)
        parity.require_equal(found)
        yield found


def _report(
    request: Request,
    tools: Tools,
    measured: _Measured,
    artefacts: tuple[Artefact, ...],
    samples: Samples,
    expected: Expectation,
    progress: Progress,
) -> Report:
    program, compiled = request.program, request.compiled
    real = (request.calibration or samples).real()
    chain = compiled.chain
    if chain is None:
        noise = sqnr.by_layer(request.model.graph, program.network.graphs[0], real)
    else:
        noise = sqnr.by_node(chain.graph, program.network.graphs, chain.origin, real, chain.entries)
    checked = () if tools.target is not None else (_unchecked(program.target, measured.rows),)
    section = Export(
        layers=layers.describe(program, compiled.bits, noise),
        bits_per_weight=round(layers.bits_per_weight(program), 4),
        flash=measured.flash,
        ram=measured.ram,
        not_counted=measured.not_counted,
        budget=request.budget,
        accuracy=_accuracy(request, expected.outputs),
        compiler=None if tools.target is None else str(tools.target),
        optimize=request.optimize,
        notes=(
            *request.notes,
            *request.model.source.notes,
            *_spare(program.target),
            *checked,
            *(() if compiled.costs is None else compiled.costs.notes),
            *(() if request.labelled or request.calibration else (_DRAWN,)),
            *_other_samples(request),
            *_other_store(request),
        ),
        arena=layers.arena(program),
        artefacts=artefacts,
        forced=request.forced,
        routing=_routing(request, expected, progress),
    )
    held = request.policy.gate
    found = Report(program.name, program.target.name, section, Validate(measured.rows))
    return found.with_gate(None if held is None else held.report)


def _routing(request: Request, expected: Expectation, progress: Progress) -> Routing | None:
    """Where the gates send the samples, and what that costs."""
    gate, costs = request.program.gate, request.compiled.costs
    if gate is None or costs is None or expected.paths is None:
        return None
    taken = [gate.paths[index] for index in expected.paths]
    by_path = {path: costs.of(path) for path in gate.paths}
    first = [block[0] for block in gate.levels]
    plain = sum(block[level] for block, level in zip(costs.blocks, first, strict=True))
    names = [block.name for block in request.program.network.blocks if block.head]
    uses = []
    for number, name in enumerate([*names, LAST_EXIT], start=1):
        here = np.array([len(path) == number for path in taken])
        right = None
        if expected.labels is not None and here.any():
            right = parity.top1([expected.outputs[0][here]], expected.labels[here])
        uses.append(ExitUse(name, float(here.mean()), right))
    return Routing(
        samples=len(taken),
        tradeoff=gate.tradeoff / gates.ONE,
        unit=costs.unit,
        source=costs.source,
        mean_cost=float(np.mean([by_path[path] for path in taken])),
        worst_cost=max(by_path.values()),
        whole_cost=costs.of(tuple(first)),
        plain_cost=plain,
        exits=tuple(uses),
        paths=tuple(
            PathUse(path, cost, taken.count(path) / len(taken)) for path, cost in by_path.items()
        ),
        stores=tuple(_stores(request, expected, progress)),
    )


def _stores(request: Request, expected: Expectation, progress: Progress) -> Iterator[Store]:
    """What the ways to store weights of levels are worth; the one not taken runs if labelled."""
    labelled = request.labelled
    for way in request.compiled.stores:
        program, ran = way.program, expected if way.program is request.program else None
        if ran is None and labelled is not None and labelled.labels is not None:
            progress("predicting the other store", 0, 1)
            ran = parity.expect(program, program.quantize(labelled), labels=labelled.labels)
            progress("predicting the other store", 1, 1)
        plain, cost = layers.plain_estimate(program), layers.path_estimates(program)
        mean = None
        if ran is not None and ran.paths is not None and program.gate is not None:
            each = [cost[program.gate.paths[index]] for index in ran.paths]
            mean = round(float(np.mean(each)) / plain, 6)
        right = None if ran is None else parity.top1(ran.outputs, ran.labels)
        built = image.build(program)
        yield Store(
            name="nested" if way.nested else "levels",
            chosen=program is request.program,
            image=len(built.data),
            weights=built.bytes_of(Kind.WEIGHTS),
            top1=None if right is None else round(right, 6),
            mean=mean,
            worst=round(max(cost.values()) / plain, 6),
        )


def _other_store(request: Request) -> Iterable[str]:
    """What to know where there is one way to store levels, or the gates' costs are of another."""
    compiled, held, stores = request.compiled, request.policy.gate, request.compiled.stores
    nestable = request.optimize == "flash" and compiled.lower
    if nestable and compiled.learned:
        yield OWN_STORES
    if held is not None and stores and stores[0].nested != held.nested:
        ways = pages.STORES["nested"], pages.STORES["levels"]
        yield OTHER_STORE.format(*(ways if stores[0].nested else ways[::-1]))


def _other_samples(request: Request) -> Iterable[str]:
    """What to know where ranges come from other samples than those of the gates' integers."""
    held = request.policy.gate
    for fold in held.report.folds if held is not None and held.report is not None else ():
        if fold.name == CALIBRATION and fold.sha256 != request.calibration_sha256:
            yield (
                "the gates were fitted to integers that other calibration samples gave: export "
                "with those, or fit them again"
            )


def _unchecked(target: Target, rows: Sequence[Row]) -> str:
    where = "this machine alone executed this build" if rows else "nothing executed this build"
    what = (
        "flash and RAM are estimates" if target.linked else "flash and RAM of the C are estimates"
    )
    return f"unchecked on {target.name}: {where}; {what}"


def _spare(target: Target) -> Iterable[str]:
    for memory in target.unused():
        note = f", {memory.note}" if memory.note else ""
        yield f"{memory.name} ({budget.show_size(memory.bytes)}) is not used{note}"


def _accuracy(request: Request, expected: Sequence[Array]) -> Accuracy | None:
    """Top-1 of the float network and of the integers, on labelled samples only."""
    labelled = request.labelled
    if labelled is None or labelled.labels is None:
        return None
    real = parity.top1(parity.real_outputs(request.model.graph, labelled), labelled.labels)
    integer = parity.top1(expected, labelled.labels)
    if real is None or integer is None:
        return None
    return Accuracy(len(labelled), round(real, 6), round(integer, 6))


def _facts(request: Request, tools: Tools) -> dict[str, object]:
    """What the manifest says of where the build came from. No dates, no paths."""
    return {
        "edgeq": edgeq.__version__,
        "target": request.program.target.name,
        "compiler": None if tools.target is None else str(tools.target),
        "dependencies": {name: version(name) for name in DEPENDENCIES},
        "model": request.model.sha256,
        "policy": sha256(request.policy.record().encode()),
        "calibration": request.calibration_sha256,
        # AdaRound alone draws random numbers
        "seed": request.policy.calibration.seed if request.compiled.learned else None,
    }
