"""The forms that a model takes beside the C: what writes each, and what executes it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import MissingToolError
from edgeq.parity import Executor
from edgeq.program import Program
from edgeq.reference import Rounding
from edgeq.target import Target
from edgeq.targets import interpreters
from edgeq.targets.interpreters import RuntimeInfo

C = "c"  # the format that every target has


@dataclass(frozen=True, slots=True)
class Format:
    """One row. Modules are imported where they are used.

    `exporter` has `export(program, path)`, which writes the artefact; `runner` has `RUNTIMES`, a
    function of (program, path) for each of `runtimes`, by name. The first of them checks exports.
    """

    name: str
    suffix: str
    exporter: str
    runner: str
    runtimes: tuple[RuntimeInfo, ...]

    def path(self, program: Program, folder: Path) -> Path:
        """Where the artefact of `program` stands in a build."""
        return folder / f"{program.name}{self.suffix}"

    def write(self, program: Program, folder: Path) -> Path:
        """The artefact, written into a build."""
        path = self.path(program, folder)
        importlib.import_module(self.exporter).export(program, path)
        return path

    def open(self, program: Program, folder: Path, runtime: RuntimeInfo) -> Executor:
        """The artefact of a build, in a runtime that is here."""
        module = importlib.import_module(self.runner)
        executor: Executor = module.RUNTIMES[runtime.name](program, self.path(program, folder))
        return executor


ONNXRUNTIME = RuntimeInfo("onnxruntime", Rounding.FLOAT32, ("onnxruntime",), "")

FORMATS: tuple[Format, ...] = (
    Format(
        "onnx",
        ".onnx",
        "edgeq.exporters.onnx_qdq",
        "edgeq.exporters.onnx_runner",
        (ONNXRUNTIME,),
    ),
    Format(
        "tflite",
        ".tflite",
        "edgeq.exporters.tflite",
        "edgeq.exporters.tflite_runner",
        (interpreters.XNNPACK, interpreters.TFLM),
    ),
)


def of(target: Target) -> tuple[Format, ...]:
    """The formats of `target` beside the C."""
    return tuple(row for row in FORMATS if row.name in target.formats)


def written(program: Program, folder: Path) -> tuple[Format, ...]:
    """Those that `program` could be written in, of a build for its target."""
    return tuple(row for row in of(program.target) if row.path(program, folder).is_file())


def needs(target: Target) -> None:
    """What writes and checks the formats of `target` must be here.

    Raises:
        MissingToolError: it is not; the message says how to install it.
    """
    for row in of(target):
        first = row.runtimes[0]
        if first.version() is None:
            raise MissingToolError(
                "EQ0608",
                f"{target.name} takes {row.name}, which needs {first.packages[0]}: {first.install}",
            )
