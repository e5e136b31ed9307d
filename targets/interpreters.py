"""What executes TFLite models: LiteRT with XNNPACK or its reference kernels, and TFLite Micro.

Each runs in a process of its own: TFLite Micro ends the process on a model that it dislikes.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edgeq.errors import MismatchError, MissingToolError
from edgeq.ir import Array
from edgeq.reference import Rounding
from edgeq.targets import interpreter_worker as worker
from edgeq.targets.runners import TIMEOUT_SECONDS

WORKER = "edgeq.targets.interpreter_worker"


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """One row: a runtime, the rule that it rounds by, the packages of which one has it."""

    name: str
    rounding: Rounding
    packages: tuple[str, ...]
    extra: str  # of edgeq that installs the first of them

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f'python -m pip install "edgeq{f"[{self.extra}]" if self.extra else ""}"'

    def version(self) -> str | None:
        """The package and its version; None where there is none."""
        for package in self.packages:
            try:
                return f"{package} {metadata.version(package)}"
            except metadata.PackageNotFoundError:
                continue
        return None


LITE = ("ai-edge-litert", "tflite-runtime")
TFLM = RuntimeInfo("tflm", Rounding.DOUBLE, ("tflite-micro",), "tflm")
XNNPACK = RuntimeInfo("xnnpack", Rounding.XNNPACK, LITE, "tflite")
# Its fully connected layers multiply in floating point: a second opinion on all others.
LITERT_REF = RuntimeInfo("litert-ref", Rounding.DOUBLE, LITE, "tflite")
INTERPRETERS = (TFLM, XNNPACK, LITERT_REF)


class Interpreter:
    """A TFLite model in one of the runtimes.

    Inputs and outputs are integers in the model's order, batch first; sample after sample is run.
    """

    def __init__(self, row: RuntimeInfo, model: bytes) -> None:
        """Finds the runtime.

        Raises:
            MissingToolError: it is not installed; the message says how to install it.
        """
        version = row.version()
        if version is None:
            raise MissingToolError(
                "EQ0622",
                f"{row.name} needs {' or '.join(row.packages)}, which is not here: {row.install}",
            )
        self.name = row.name
        self.version = version
        self.rounding = row.rounding
        self._model = model

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Every output, one array each.

        Raises:
            MismatchError: the runtime refused the model, or crashed; its words follow.
        """
        return self._execute(inputs, None)

    def trace(self, inputs: Sequence[Array], names: Sequence[str]) -> dict[str, Array]:
        """Every tensor of `names`, one array each.

        Raises:
            MismatchError: the runtime refused the model, or crashed; its words follow.
        """
        return dict(zip(names, self._execute(inputs, names), strict=True))

    def _execute(self, inputs: Sequence[Array], names: Sequence[str] | None) -> list[Array]:
        with tempfile.TemporaryDirectory(prefix="edgeq-tflite-") as name:
            folder = Path(name)
            (folder / worker.MODEL).write_bytes(self._model)
            np.savez(folder / worker.INPUTS, *inputs)
            if names is not None:
                (folder / worker.NAMES).write_text(json.dumps(list(names)), "utf-8")
            done = subprocess.run(
                [sys.executable, "-m", WORKER, self.name],
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
            if done.returncode:
                raise MismatchError(
                    "EQ0508",
                    f"{self.name} ({self.version}) {_end(done.returncode)} on the model: "
                    f"{done.stderr.strip()[-2000:]}",
                )
            with np.load(folder / worker.OUTPUTS) as archive:
                return [archive[name] for name in archive.files]


def _end(code: int) -> str:
    """How a process ended."""
    return f"failed with status {code}" if code > 0 else f"crashed ({signal.Signals(-code).name})"
