"""A TFLite artefact in LiteRT, as Linux boxes run it, or in another runtime of such models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from edgeq.ir import Array
from edgeq.program import Program
from edgeq.targets.interpreters import INTERPRETERS, XNNPACK, Interpreter, RuntimeInfo


class Runner:
    """The artefact at `path`, which was made of `program`."""

    def __init__(self, program: Program, path: Path, row: RuntimeInfo = XNNPACK) -> None:
        self._interpreter = Interpreter(row, path.read_bytes())
        self._inputs = tuple(tensor.name for tensor in program.network.inputs)
        self._tensors = tuple(node.output for g in program.network.graphs for node in g.nodes)
        self.name = self._interpreter.name
        self.version = self._interpreter.version
        self.rounding = self._interpreter.rounding

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The integers of every output for a batch of integers."""
        return self._interpreter.run(self._ordered(inputs))

    def trace(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The integers of every tensor of the program, by its name."""
        return self._interpreter.trace(self._ordered(inputs), self._tensors)

    def _ordered(self, inputs: Mapping[str, Array]) -> list[Array]:
        return [inputs[name] for name in self._inputs]


RUNTIMES = {row.name: partial(Runner, row=row) for row in INTERPRETERS}
