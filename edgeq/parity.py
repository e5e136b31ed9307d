"""Prediction against execution: one row per runner, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgeq import reference
from edgeq.ir import Array
from edgeq.kernels import ALIASED
from edgeq.program import Program
from edgeq.report import Row, Verdict
from edgeq.targets.runners import Progress, Runner

RULE = reference.Rounding.DOUBLE.value
BATCH = 128  # samples of one reference run, which holds every activation of each


def predict(program: Program, inputs: Mapping[str, Array]) -> list[Array]:
    """The reference's outputs for quantised inputs, one array per output, batch first."""
    names = [tensor.name for tensor in program.network.outputs]
    parts: dict[str, list[Array]] = {name: [] for name in names}
    for start in range(0, len(next(iter(inputs.values()))), BATCH):
        batch = {name: array[start : start + BATCH] for name, array in inputs.items()}
        values = reference.run(program.network, batch)
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
    wanted = [sample_bytes(expected, i) for i in range(len(samples))]
    wrong = [i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b]
    flat = np.frombuffer(b"".join(got), np.int8).reshape(len(samples), -1)
    return Row(
        runner=runner.name,
        version=runner.version,
        rule=RULE,
        samples=len(samples),
        mismatches=len(wrong),
        max_lsb=_largest_difference(flat, b"".join(wanted)),
        first_diverging_layer=_diverging(program, runner, inputs, wrong[0]) if wrong else None,
        top1=top1([flat[:, : expected[0][0].size]], labels),
        verdict=Verdict.DIFFERS if wrong else Verdict.EXACT,
    )


def sample_bytes(arrays: Sequence[Array], index: int) -> bytes:
    """Sample `index` of every array, as the device has it."""
    return b"".join(np.ascontiguousarray(array[index]).tobytes() for array in arrays)


def _largest_difference(got: Array, wanted: bytes) -> int:
    other = np.frombuffer(wanted, np.int8).reshape(got.shape).astype(np.int64)
    return int(np.abs(got.astype(np.int64) - other).max(initial=0))


def _diverging(
    program: Program, runner: Runner, inputs: Mapping[str, Array], sample: int
) -> str | None:
    """The first layer whose output differs, found in the arena after each operator."""
    one = {name: array[sample : sample + 1] for name, array in inputs.items()}
    values = reference.run(program.network, one)
    arenas = runner.trace(sample_bytes(list(one.values()), 0))
    size = program.plan.arena_bytes
    nodes = [
        node
        for block in program.network.blocks
        for node in block.variants[0].graph.nodes
        if node.op not in ALIASED
    ]
    for step, node in enumerate(nodes):
        place = program.plan.tensors[node.output]
        start = step * size + place.offset
        if arenas[start : start + place.bytes] != values[node.output].tobytes():
            return node.name
    return None
