"""Prediction against execution: one row per runner, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgeq import floatrun, reference, sqnr
from edgeq.errors import MismatchError
from edgeq.exporters.gate_section import code
from edgeq.gates import Path
from edgeq.ir import Array, Graph, Tensor, qparams_of
from edgeq.kernels import ALIASED
from edgeq.packing import pack_activations, unpack_activations
from edgeq.plan import activation_bytes
from edgeq.program import Program
from edgeq.reference import Rounding, Routed
from edgeq.report import Distance, Row, Verdict
from edgeq.samples import Samples
from edgeq.targets.runners import Progress, Runner

BATCH = 128  # samples of one reference run, which holds every activation of each
FLOAT_BATCH = 100  # of one run of the float network


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a runner is held to: quantised inputs by tensor, and the outputs under `rounding`.

    `real` are the float network's outputs, for cosine and SQNR. `paths` are those taken, by index,
    where gates route. All have the batch first.
    """

    inputs: Mapping[str, Array]
    outputs: Sequence[Array]
    rounding: Rounding = Rounding.DOUBLE
    labels: npt.NDArray[np.int64] | None = None
    real: Sequence[Array] | None = None
    paths: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.outputs[0])

    def take(self, samples: int) -> Expectation:
        """The first `samples` of it."""
        return Expectation(
            {name: array[:samples] for name, array in self.inputs.items()},
            [array[:samples] for array in self.outputs],
            self.rounding,
            None if self.labels is None else self.labels[:samples],
            None if self.real is None else [array[:samples] for array in self.real],
            None if self.paths is None else self.paths[:samples],
        )


class Executor(Protocol):
    """Executes an artefact in the runtime of its format, under the rounding rule of that."""

    name: str
    version: str
    rounding: Rounding

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The integers of every output for a batch of integers, both in the program's order."""

    def trace(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The integers of every tensor that the artefact has, by its name in the program."""


@runtime_checkable
class Router(Executor, Protocol):
    """Executes an artefact that holds gates."""

    def route(self, inputs: Mapping[str, Array], tradeoff: int | None = None) -> Routed:
        """Where a batch of integers goes, and what it gets there."""

    def trace_path(self, inputs: Mapping[str, Array], path: Path) -> dict[str, Array]:
        """What one sample gives on `path`, as `trace`."""


def expect(
    program: Program,
    inputs: Mapping[str, Array],
    rounding: Rounding = Rounding.DOUBLE,
    labels: npt.NDArray[np.int64] | None = None,
) -> Expectation:
    """What runners of quantised `inputs` are held to, by the reference."""
    if program.gate is None:
        return Expectation(inputs, predict(program, inputs, rounding), rounding, labels)
    parts = [
        reference.route(program.network, program.gate, batch, None, rounding)
        for batch in _batches(inputs)
    ]
    shape = program.network.outputs[0].shape[1:]
    outputs = np.concatenate([part.outputs for part in parts]).reshape(-1, *shape)
    paths = np.concatenate([part.paths for part in parts])
    return Expectation(inputs, [outputs], rounding, labels, paths=paths)


def predict(
    program: Program, inputs: Mapping[str, Array], rounding: Rounding = Rounding.DOUBLE
) -> list[Array]:
    """The reference's outputs for quantised inputs, one array per output, batch first.

    Of a network without exits: gates route (`expect`).
    """
    names = [tensor.name for tensor in program.network.outputs]
    parts: dict[str, list[Array]] = {name: [] for name in names}
    for batch in _batches(inputs):
        values = reference.run(program.network, batch, rounding)
        for name, kept in parts.items():
            kept.append(values[name])
    return [np.concatenate(parts[name]) for name in names]


def _batches(inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    for start in range(0, len(next(iter(inputs.values()))), BATCH):
        yield {name: array[start : start + BATCH] for name, array in inputs.items()}


def real_outputs(graph: Graph, samples: Samples) -> list[Array]:
    """The float network's outputs, one array each, batch first."""
    session = floatrun.FloatRun(graph)
    parts = [
        session(samples.take(start, start + FLOAT_BATCH).real())
        for start in range(0, len(samples), FLOAT_BATCH)
    ]
    return [np.concatenate([part[name] for part in parts]) for name in graph.outputs]


def top1(outputs: Sequence[Array], labels: npt.NDArray[np.int64] | None) -> float | None:
    """The share of samples whose greatest value of output 0 is at the label."""
    if labels is None:
        return None
    flat = outputs[0].reshape(len(outputs[0]), -1)
    return float((flat.argmax(axis=1) == labels).mean())


def compare(
    program: Program,
    runner: Runner,
    expected: Expectation,
    progress: Progress | None = None,
) -> Row:
    """The row of `runner`, which runs the model's C."""
    inputs = list(expected.inputs.values())
    samples = [sample_bytes(inputs, i) for i in range(len(expected))]
    if expected.paths is None:
        got = runner.run(samples, progress)
        astray: set[int] = set()
    else:
        got, astray = _routed(program, runner, expected, samples)
    wanted = [output_bytes(program, expected.outputs, i) for i in range(len(samples))]
    wrong = [i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b or i in astray]
    return replace(
        describe(program, runner.name, runner.version, expected, _outputs(program, got)),
        mismatches=len(wrong),
        first_diverging_layer=_diverging(program, runner, expected, wrong[0]) if wrong else None,
        verdict=Verdict.DIFFERS if wrong else Verdict.EXACT,
    )


def _routed(
    program: Program, runner: Runner, expected: Expectation, samples: Sequence[bytes]
) -> tuple[list[bytes], set[int]]:
    """The outputs that `runner` gives, and which samples went another way than predicted."""
    gate = program.gate
    assert gate is not None and expected.paths is not None  # gates route
    results = runner.results(samples, gate.tradeoff)
    astray = {
        i
        for i, (result, path) in enumerate(zip(results, expected.paths, strict=True))
        if (result.path, result.exit, result.cost)
        != (code(gate.paths[path]), len(gate.paths[path]) - 1, gate.costs[path])
    }
    return [result.outputs for result in results], astray


def compare_paths(program: Program, runner: Runner, expected: Expectation) -> Row:
    """The row of `runner` where every path of the gates is forced on the samples in turn."""
    gate = program.gate
    assert gate is not None
    inputs = list(expected.inputs.values())
    samples = [sample_bytes(inputs, i) for i in range(len(expected))]
    name = program.network.outputs[0].name
    got: list[bytes] = []
    wanted: list[Array] = []
    for path in gate.paths:
        values = reference.run_path(program.network, expected.inputs, path, expected.rounding)
        wanted.append(values[name])
        forced = runner.results(samples, 0, (code(path), len(path) - 1))
        got += [result.outputs for result in forced]
    outputs = [np.concatenate(wanted)]
    whole = Expectation(expected.inputs, outputs, expected.rounding)
    return describe(program, f"{runner.name}-paths", runner.version, whole, _outputs(program, got))


def compare_executor(program: Program, executor: Executor, expected: Expectation) -> Row:
    """The row of `executor`, held to `expected`, which is of its own rule."""
    astray = np.zeros(len(expected), bool)
    if expected.paths is None:
        got = executor.run(expected.inputs)
    else:
        assert isinstance(executor, Router)
        routed = executor.route(expected.inputs)
        got, astray = [routed.outputs], routed.paths != expected.paths
    row = describe(program, executor.name, executor.version, expected, got)
    apart = _steps_apart(got, expected.outputs)
    wrong = (apart > 0) | astray
    if not wrong.any():
        return row
    sample = int(np.where(wrong, apart, -1).argmax())
    return replace(
        row,
        mismatches=int(wrong.sum()),
        first_diverging_layer=_first_difference(program, executor, expected, sample),
        verdict=Verdict.DIFFERS,
    )


def _first_difference(
    program: Program, executor: Executor, expected: Expectation, sample: int
) -> str | None:
    """The first node whose output differs on `sample`, of those that the artefact has.

    None where all are equal: then a gate decided otherwise.
    """
    one = {name: array[sample : sample + 1] for name, array in expected.inputs.items()}
    values: dict[str, Array] = dict(one)
    for graphs, got in _traces(program, executor, expected, sample, one):
        for graph in graphs:
            for node in graph.nodes:
                values[node.output] = reference.compute(graph, node, values, expected.rounding)
                name = node.output
                if name in got and not np.array_equal(got[name], values[name]):
                    return node.name
    return None


def _traces(
    program: Program,
    executor: Executor,
    expected: Expectation,
    sample: int,
    one: Mapping[str, Array],
) -> Iterator[tuple[Sequence[Graph], Mapping[str, Array]]]:
    """What the sample should run through, in turn, and what `executor` gives of it.

    With exits it is a body and its head at a time, since all heads write the same tensor.
    """
    if program.gate is None or expected.paths is None:
        yield _graphs_on(program, expected, sample), executor.trace(one)
        return
    assert isinstance(executor, Router)
    path = program.gate.paths[expected.paths[sample]]
    for length in range(1, len(path) + 1):
        graphs = reference.graphs_on(program.network, path[:length])
        yield graphs[2 * length - 2 :], executor.trace_path(one, path[:length])


def require_equal(row: Row) -> None:
    """Ends with an error where `row` differs.

    Raises:
        MismatchError: it does.
    """
    if row.verdict is Verdict.DIFFERS:
        raise MismatchError(
            "EQ0506",
            f"{row.runner} ({row.version}) differs from the prediction on {row.mismatches} of "
            f"{row.samples} samples, first in {_where(row)}",
        )


def _where(row: Row) -> str:
    layer = row.first_diverging_layer
    return "the decision of a gate" if layer is None else f"layer {layer}"


def describe(
    program: Program, runner: str, version: str, expected: Expectation, got: Sequence[Array]
) -> Row:
    """The row of what `runner` gave, integers by output: all but the diverging layer."""
    apart = distance(got, expected.outputs)
    cosine, noise = (None, None) if expected.real is None else _likeness(program, got, expected)
    return Row(
        runner=runner,
        version=version,
        rule=expected.rounding.value,
        samples=len(expected),
        mismatches=apart.mismatches,
        max_lsb=apart.max_lsb,
        first_diverging_layer=None,
        top1=top1(got, expected.labels),
        verdict=Verdict.DIFFERS if apart.mismatches else Verdict.EXACT,
        cosine=cosine,
        sqnr_db=noise,
    )


def distance(got: Sequence[Array], expected: Sequence[Array]) -> Distance:
    """On how many samples integers by output differ, and by how many steps at most."""
    worst = _steps_apart(got, expected)
    return Distance(int((worst > 0).sum()), int(worst.max()))


def rule_distance(one: Expectation, other: Expectation) -> Distance:
    """How far two rules are apart on the same samples: in outputs, and in the ways they take."""
    found = distance(one.outputs, other.outputs)
    if one.paths is None or other.paths is None:
        return found
    return replace(found, routes=int((one.paths != other.paths).sum()))


def _steps_apart(got: Sequence[Array], expected: Sequence[Array]) -> npt.NDArray[np.int64]:
    """The largest difference on each sample."""
    differences = [
        np.abs(a.astype(np.int64) - b.reshape(a.shape)).reshape(len(a), -1).max(axis=1)
        for a, b in zip(got, expected, strict=True)
    ]
    return np.asarray(np.max(differences, axis=0))


def _likeness(
    program: Program, got: Sequence[Array], expected: Expectation
) -> tuple[float | None, float | None]:
    """Cosine and SQNR (dB) of all output values against the float network's."""
    pairs = zip(program.network.outputs, got, strict=True)
    ours = np.concatenate([qparams_of(t).dequantize(q).reshape(-1) for t, q in pairs])
    real = np.concatenate([array.reshape(-1) for array in expected.real or ()]).astype(np.float64)
    norms = np.linalg.norm(ours) * np.linalg.norm(real)
    cosine = round(float(ours @ real / norms), 6) if norms else None
    return cosine, sqnr.decibels(real, ours)


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


def _diverging(program: Program, runner: Runner, expected: Expectation, sample: int) -> str | None:
    """The first layer whose output differs, found in the arena after each operator.

    None where all are equal: then a gate decided otherwise.
    """
    values: dict[str, Array] = {
        name: array[sample : sample + 1] for name, array in expected.inputs.items()
    }
    arenas = runner.trace(sample_bytes(list(values.values()), 0))
    size = program.plan.arena_bytes
    step = 0
    for graph in _graphs_on(program, expected, sample):
        for node in graph.nodes:
            values[node.output] = reference.compute(graph, node, values, expected.rounding)
            if node.op in ALIASED:
                continue
            start = step * size + program.plan.tensors[node.output].offset
            wanted = _stored(graph.tensors[node.output], values[node.output])
            if arenas[start : start + len(wanted)] != wanted:
                return node.name
            step += 1
    return None


def _graphs_on(program: Program, expected: Expectation, sample: int) -> list[Graph]:
    """What the sample should run through."""
    network, gate = program.network, program.gate
    if gate is None or expected.paths is None:
        return [block.variants[0].graph for block in network.blocks]
    return reference.graphs_on(network, gate.paths[expected.paths[sample]])
