"""`validate`: one ladder of rows, from the float network to everything that executes a build.

Every rung runs the same samples and is held to the integer reference under the rounding rule that
it shares with it, bit for bit. How far that rule is from the device's stands in a column of its
own; the distance from the float network is cosine and SQNR.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from edgeq import parity, pipeline
from edgeq.build import Build
from edgeq.errors import MissingToolError, UsageError
from edgeq.exporters import c_arrays
from edgeq.formats import FORMATS, Format
from edgeq.ir import Array
from edgeq.parity import Expectation
from edgeq.rebuild import Rebuilt
from edgeq.reference import Rounding
from edgeq.report import Row, Validate, Verdict
from edgeq.samples import Samples
from edgeq.targets import emulators, runners, toolchain
from edgeq.targets.interpreters import RuntimeInfo
from edgeq.targets.runners import (
    FIRMWARE,
    EmulatorRunner,
    HostProgram,
    HostRunner,
    Progress,
)

EMULATED_SAMPLES = 8  # the core is emulated instruction by instruction


@dataclass(frozen=True, slots=True)
class Rung:
    """One row of the ladder: what executes, and what it lacks here (None: nothing).

    `compare` gives its row for what is expected of it; `required` says whether a build must have it
    where the user names no rungs.
    """

    name: str
    rounding: Rounding
    lacks: Callable[[Rebuilt, Path], str | None]
    compare: Callable[[Rebuilt, Path, Expectation, Progress], Row]
    required: Callable[[Rebuilt], bool] = lambda again: False
    most: int | None = None  # samples that it runs at most


def _host_lacks(again: Rebuilt, folder: Path) -> str | None:
    return _reason(lambda: toolchain.find(toolchain.HOST_COMPILERS))


def _host(again: Rebuilt, folder: Path, expected: Expectation, progress: Progress) -> Row:
    compiler = toolchain.find(toolchain.HOST_COMPILERS)
    image = (folder / f"{again.program.name}{c_arrays.IMAGE_SUFFIX}").read_bytes()
    with contextlib.closing(HostProgram(folder / c_arrays.RUNTIME, compiler)) as program:
        return parity.compare(again.program, HostRunner(program, image), expected, progress)


def _emulator_lacks(again: Rebuilt, folder: Path) -> str | None:
    if not runners.emulators_of(again.target):
        return f"no emulator models {again.target.name}"
    if not (folder / FIRMWARE).is_file():
        return f"the build has no {FIRMWARE}: export it with --check emulator"
    return _reason(lambda: runners.find_emulator(again.target))


def _emulator(again: Rebuilt, folder: Path, expected: Expectation, progress: Progress) -> Row:
    firmware = emulators.read_firmware(folder / FIRMWARE)
    with contextlib.closing(EmulatorRunner(firmware, again.target)) as runner:
        return parity.compare(again.program, runner, expected, progress)


def _reason(find: Callable[[], object]) -> str | None:
    try:
        find()
    except MissingToolError as error:
        return error.message
    return None


def _artefact(form: Format, runtime: RuntimeInfo) -> Rung:
    """The rung of an artefact beside the C in one of its runtimes."""

    def lacks(again: Rebuilt, folder: Path) -> str | None:
        if not form.path(again.program, folder).is_file():
            refused = form.name in again.target.formats
            why = "its notes say why" if refused else "--target edge writes one"
            return f"the build has no {form.suffix}: {why}"
        missing = f"{' or '.join(runtime.packages)} is not here: {runtime.install}"
        return missing if runtime.version() is None else None

    def compare(again: Rebuilt, folder: Path, expected: Expectation, progress: Progress) -> Row:
        executor = form.open(again.program, folder, runtime)
        return parity.compare_executor(again.program, executor, expected)

    return Rung(runtime.name, runtime.rounding, lacks, compare)


RUNGS = (
    Rung(HostRunner.name, Rounding.DOUBLE, _host_lacks, _host, required=lambda again: True),
    Rung(
        EmulatorRunner.name,
        Rounding.DOUBLE,
        _emulator_lacks,
        _emulator,
        required=lambda again: bool(runners.emulators_of(again.target)),
        most=EMULATED_SAMPLES,
    ),
    *(_artefact(form, runtime) for form in FORMATS for runtime in form.runtimes),
)


def run(
    build: Build,
    again: Rebuilt,
    samples: Samples,
    require: Sequence[str] | None,
    progress: pipeline.Progress,
) -> Validate:
    """The ladder of `build` on `samples`.

    `require` names the rungs that must run; by default the C on the host and, where the target has
    one, on its emulated core.

    Raises:
        UsageError: `require` names no rung.
        MissingToolError: a required rung cannot run here.
    """
    lacks = {rung.name: rung.lacks(again, build.folder) for rung in RUNGS}
    _refuse_missing(lacks, _required(again, require))
    progress("running float", 0, 1)
    real = parity.real_outputs(again.model.graph, samples)
    progress("running float", 1, 1)
    expected = _expectations(again, samples, real, _rules(lacks), progress)
    device = expected[Rounding.DOUBLE]
    return Validate(
        (
            _float_row(again, device),
            _reference_row(again, device),
            *(_row(build, again, rung, lacks[rung.name], expected, progress) for rung in RUNGS),
        )
    )


def _required(again: Rebuilt, require: Sequence[str] | None) -> tuple[str, ...]:
    known = [rung.name for rung in RUNGS]
    if require is None:
        return tuple(rung.name for rung in RUNGS if rung.required(again))
    for name in require:
        if name not in known:
            raise UsageError("EQ0208", f"--require {name}: there are {', '.join(known)}")
    return tuple(require)


def _refuse_missing(lacks: dict[str, str | None], required: Sequence[str]) -> None:
    missing = [f"{name}: {reason}" for name in required if (reason := lacks[name]) is not None]
    if missing:
        raise MissingToolError(
            "EQ0619",
            f"required rows cannot run. {'; '.join(missing)}. Or name with --require what must run",
        )


def _rules(lacks: dict[str, str | None]) -> tuple[Rounding, ...]:
    """The device's rule, and those of the rungs that run: not every network has every rule."""
    used = {rung.rounding for rung in RUNGS if lacks[rung.name] is None}
    return tuple(rule for rule in Rounding if rule is Rounding.DOUBLE or rule in used)


def _expectations(
    again: Rebuilt,
    samples: Samples,
    real: list[Array],
    rules: Sequence[Rounding],
    progress: pipeline.Progress,
) -> dict[Rounding, Expectation]:
    """What the reference computes under each of `rules`."""
    inputs = again.program.quantize(samples)
    expected = {}
    for index, rounding in enumerate(rules):
        progress("predicting", index, len(rules))
        found = parity.expect(again.program, inputs, rounding, samples.labels)
        expected[rounding] = replace(found, real=real)
    progress("predicting", len(rules), len(rules))
    return expected


def _float_row(again: Rebuilt, expected: Expectation) -> Row:
    return Row(
        runner="float",
        version=f"onnxruntime {version('onnxruntime')}",
        rule="float",
        samples=len(expected),
        mismatches=0,
        max_lsb=0,
        first_diverging_layer=None,
        top1=parity.top1(expected.real or (), expected.labels),
        verdict=Verdict.BASE,
    )


def _reference_row(again: Rebuilt, expected: Expectation) -> Row:
    row = parity.describe(again.program, "reference", "edgeq", expected, expected.outputs)
    return replace(row, verdict=Verdict.BASE)


def _row(
    build: Build,
    again: Rebuilt,
    rung: Rung,
    lacks: str | None,
    expected: dict[Rounding, Expectation],
    progress: pipeline.Progress,
) -> Row:
    if lacks is not None:
        return Row(
            rung.name, "", rung.rounding.value, 0, 0, 0, None, None, Verdict.SKIPPED, reason=lacks
        )
    whole = expected[rung.rounding]
    count = min(rung.most or len(whole), len(whole))
    part = whole.take(count)
    stage = f"running {rung.name}"
    progress(stage, 0, count)
    row = rung.compare(again, build.folder, part, lambda done, total: progress(stage, done, total))
    progress(stage, count, count)
    if rung.rounding is Rounding.DOUBLE:
        return row
    distance = parity.rule_distance(part, expected[Rounding.DOUBLE].take(count))
    return replace(row, rule_distance=distance)
