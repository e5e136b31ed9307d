"""`validate`: one ladder of rows, from the float network to everything that executes a build.

Every rung runs the same samples and is held to the integer reference under the rounding rule that
it shares with it, bit for bit. How far that rule is from the device's stands in a column of its
own; the distance from the float network is cosine and SQNR.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edgeq import floatrun, parity
from edgeq.build import Build
from edgeq.errors import MissingToolError, UsageError
from edgeq.exporters import c_arrays
from edgeq.ir import Array
from edgeq.parity import Expectation
from edgeq.pipeline import Progress
from edgeq.rebuild import Rebuilt
from edgeq.reference import Rounding
from edgeq.report import Row, Validate, Verdict
from edgeq.samples import Samples
from edgeq.targets import emulators, runners, toolchain
from edgeq.targets.runners import FIRMWARE, EmulatorRunner, HostProgram, HostRunner, Runner

EMULATED_SAMPLES = 8  # the core is emulated instruction by instruction
FLOAT_BATCH = 100


@dataclass(frozen=True, slots=True)
class Rung:
    """One row of the ladder: what executes, and what it lacks here (None: nothing).

    `opened` gives the runner for as long as it is used. `applies` says whether the build's target
    could ever have it; only such rungs are required by default.
    """

    name: str
    rounding: Rounding
    lacks: Callable[[Rebuilt, Path], str | None]
    opened: Callable[[Rebuilt, Path], contextlib.AbstractContextManager[Runner]]
    applies: Callable[[Rebuilt], bool] = lambda again: True
    required: bool = False
    most: int | None = None  # samples that it runs at most


def _host_lacks(again: Rebuilt, folder: Path) -> str | None:
    return _reason(lambda: toolchain.find(toolchain.HOST_COMPILERS))


@contextlib.contextmanager
def _host(again: Rebuilt, folder: Path) -> Iterator[Runner]:
    compiler = toolchain.find(toolchain.HOST_COMPILERS)
    with contextlib.closing(HostProgram(folder / c_arrays.RUNTIME, compiler)) as program:
        yield HostRunner(program, (folder / f"{again.program.name}.eqb").read_bytes())


def _emulator_lacks(again: Rebuilt, folder: Path) -> str | None:
    if not (folder / FIRMWARE).is_file():
        return f"the build has no {FIRMWARE}: export it with --check emulator"
    return _reason(lambda: runners.find_emulator(again.target))


@contextlib.contextmanager
def _emulator(again: Rebuilt, folder: Path) -> Iterator[Runner]:
    firmware = emulators.read_firmware(folder / FIRMWARE)
    with contextlib.closing(EmulatorRunner(firmware, again.target)) as runner:
        yield runner


def _reason(find: Callable[[], object]) -> str | None:
    try:
        find()
    except MissingToolError as error:
        return error.message
    return None


RUNGS = (
    Rung(HostRunner.name, Rounding.DOUBLE, _host_lacks, _host, required=True),
    Rung(
        EmulatorRunner.name,
        Rounding.DOUBLE,
        _emulator_lacks,
        _emulator,
        applies=lambda again: bool(runners.emulators_of(again.target)),
        required=True,
        most=EMULATED_SAMPLES,
    ),
)


def run(
    build: Build,
    again: Rebuilt,
    samples: Samples,
    require: Sequence[str] | None,
    progress: Progress,
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
    real = _float(again, samples, progress)
    expected = _expectations(again, samples, real, progress)
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
        return tuple(rung.name for rung in RUNGS if rung.required and rung.applies(again))
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


def _float(again: Rebuilt, samples: Samples, progress: Progress) -> list[Array]:
    """The float network's outputs, one array each."""
    graph = again.model.graph
    session = floatrun.FloatRun(graph)
    parts = []
    for start in range(0, len(samples), FLOAT_BATCH):
        progress("running float", start, len(samples))
        parts.append(session(samples.take(start, start + FLOAT_BATCH).real()))
    progress("running float", len(samples), len(samples))
    return [np.concatenate([part[name] for part in parts]) for name in graph.outputs]


def _expectations(
    again: Rebuilt, samples: Samples, real: list[Array], progress: Progress
) -> dict[Rounding, Expectation]:
    """What the reference computes under every rule."""
    inputs = again.program.quantize(samples)
    expected = {}
    for index, rounding in enumerate(Rounding):
        progress("predicting", index, len(Rounding))
        found = parity.expect(again.program, inputs, rounding, samples.labels)
        expected[rounding] = replace(found, real=real)
    progress("predicting", len(Rounding), len(Rounding))
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
    progress: Progress,
) -> Row:
    if lacks is not None:
        return Row(
            rung.name, "", rung.rounding.value, 0, 0, 0, None, None, Verdict.SKIPPED, reason=lacks
        )
    count = min(rung.most or len(expected[rung.rounding]), len(expected[rung.rounding]))
    part = expected[rung.rounding].take(count)
    stage = f"running {rung.name}"
    progress(stage, 0, count)
    with rung.opened(again, build.folder) as runner:
        row = parity.compare(
            again.program, runner, part, lambda done, total: progress(stage, done, total)
        )
    if rung.rounding is Rounding.DOUBLE:
        return row
    distance = parity.distance(part.outputs, expected[Rounding.DOUBLE].take(count).outputs)
    return replace(row, rule_distance=distance)
