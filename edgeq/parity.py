"""Prediction against execution: one row per runner, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeq import reference
from edgeq.ir import Array, Tensor, qparams_of
from edgeq.kernels import ALIASED
from edgeq.packing import pack_activations, unpack_activations
from edgeq.plan import activation_bytes
from edgeq.program import Program
from edgeq.reference import Rounding
from edgeq.report import Row, Verdict
from edgeq.targets.runners import Progress, Runner

BATCH = 128  # samples of one reference run, which holds every activation of each


class Executor(Protocol):
    """Executes an artefact in the runtime of its format, under the rounding rule of that."""

    name: str
    version: str
    rounding: Rounding

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The integers of every output for a batch of integers, both in the program's order."""

    def trace(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The integers of every tensor that the artefact has, by its name in the program."""


def predict(
    program: Program, inputs: Mapping[str, Array], rounding: Rounding = Rounding.DOUBLE
) -> list[Array]:
    """The reference's outputs for quantised inputs, one array per output, batch first."""
    names = [tensor.name for tensor in program.network.outputs]
    parts: dict[str, list[Array]] = {name: [] for name in names}
    for start in range(0, len(next(iter(inputs.values()))), BATCH):
        batch = {name: array[start : start + BATCH] for name, array in inputs.items()}
        values = reference.run(program.network, batch, rounding)
        for name, kept in parts.items():
            kept.append(values[name])
    return [np.concatenate(parts[name]) for name in names]


def top1(outputs: Sequence[Array], labels: npt.NDArray[np.int64] | None) -> float | None:
    """The share of samples whose greatest value of output 0 is at the label."""
    if labels is None:
        return None
    flat = outputs[0].reshape(len(outputs[0]), -1)
    return float((flat.argmax(axis=1) == labels).mean())


def compare(
    program: Program,
    runner: Runner,
    inputs: Mapping[str, Array],
    expected: Sequence[Array],
    labels: npt.NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> Row:
    """The row of `runner` on the quantised `inputs`, whose predicted outputs are `expected`."""
    samples = [sample_bytes(list(inputs.values()), i) for i in range(len(expected[0]))]
    got = runner.run(samples, progress)
    wanted = [output_bytes(program, expected, i) for i in range(len(samples))]
    wrong = [i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b]
    computed = _outputs(program, got)
    return Row(
        runner=runner.name,
        version=runner.version,
        rule=Rounding.DOUBLE.value,
        samples=len(samples),
        mismatches=len(wrong),
        max_lsb=_largest_difference(computed, expected),
        first_diverging_layer=_diverging(program, runner, inputs, wrong[0]) if wrong else None,
        top1=top1(computed, labels),
        verdict=Verdict.DIFFERS if wrong else Verdict.EXACT,
    )


def compare_executor(
    program: Program,
    executor: Executor,
    inputs: Mapping[str, Array],
    labels: npt.NDArray[np.int64] | None = None,
) -> Row:
    """The row of `executor` on the quantised `inputs`, held to the reference in its own rule."""
    expected = predict(program, inputs, executor.rounding)
    got = executor.run(inputs)
    pairs = zip(got, expected, strict=True)
    wrong = np.any([(a != b).reshape(len(b), -1).any(axis=1) for a, b in pairs], axis=0)
    layer = None
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        one = {name: array[first : first + 1] for name, array in inputs.items()}
        values = reference.run(program.network, one, executor.rounding)
        layer = _first_difference(program, executor.trace(one), values)
    return Row(
        runner=executor.name,
        version=executor.version,
        rule=executor.rounding.value,
        samples=len(wrong),
        mismatches=int(wrong.sum()),
        max_lsb=_largest_difference(got, expected),
        first_diverging_layer=layer,
        top1=top1(got, labels),
        verdict=Verdict.DIFFERS if wrong.any() else Verdict.EXACT,
    )


def _first_difference(
    program: Program, got: Mapping[str, Array], expected: Mapping[str, Array]
) -> str | None:
    """The first node whose output differs, of those that `got` has."""
    for graph in program.network.graphs:
        for node in graph.nodes:
            name = node.output
            if name in got and not np.array_equal(got[name], expected[name]):
                return node.name
    return None


def sample_bytes(arrays: Sequence[Array], index: int) -> bytes:
    """Sample `index` of every input, as the device reads it: no input is packed."""
    return b"".join(np.ascontiguousarray(array[index]).tobytes() for array in arrays)


def output_bytes(program: Program, arrays: Sequence[Array], index: int) -> bytes:
    """Sample `index` of every output, as the device has it."""
    outputs = zip(program.network.outputs, arrays, strict=True)
    return b"".join(_stored(tensor, array[index]) for tensor, array in outputs)


def _stored(tensor: Tensor, values: Array) -> bytes:
    return pack_activations(values, qparams_of(tensor).width)


def _outputs(program: Program, samples: Sequence[bytes]) -> list[Array]:
    """What `output_bytes` packed, one array per output, batch first."""
    arrays = []
    start = 0
    for tensor in program.network.outputs:
        end = start + activation_bytes(tensor)
        width = qparams_of(tensor).width
        rows = [unpack_activations(s[start:end], width, tensor.elements) for s in samples]
        arrays.append(np.stack(rows))
        start = end
    return arrays


def _largest_difference(got: Sequence[Array], expected: Sequence[Array]) -> int:
    pairs = zip(got, expected, strict=True)
    return max(int(np.abs(a.reshape(-1).astype(np.int64) - b.reshape(-1)).max()) for a, b in pairs)


def _diverging(
    program: Program, runner: Runner, inputs: Mapping[str, Array], sample: int
) -> str | None:
    """The first layer whose output differs, found in the arena after each operator."""
    one = {name: array[sample : sample + 1] for name, array in inputs.items()}
    values = reference.run(program.network, one)
    arenas = runner.trace(sample_bytes(list(one.values()), 0))
    size = program.plan.arena_bytes
    tensors = {name: t for graph in program.network.graphs for name, t in graph.tensors.items()}
    nodes = [
        node
        for block in program.network.blocks
        for node in block.variants[0].graph.nodes
        if node.op not in ALIASED
    ]
    for step, node in enumerate(nodes):
        place = program.plan.tensors[node.output]
        start = step * size + place.offset
        wanted = _stored(tensors[node.output], values[node.output])
        if arenas[start : start + len(wanted)] != wanted:
            return node.name
    return None
