"""Runtimes of TFLite models: each in a process of its own, and a crash is only an error."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import requires
from graphs import Builder, random_graph
from programs import compiled
from test_parity import integers

from edgeq import parity, reference
from edgeq.errors import MismatchError, MissingToolError
from edgeq.exporters import tflite, tflite_runner
from edgeq.exporters.tflite_file import IDENTIFIER, aligning_builder
from edgeq.program import Program
from edgeq.report import Verdict
from edgeq.targets import interpreter_worker, interpreters
from edgeq.targets.interpreters import (
    INTERPRETERS,
    LITE,
    TFLM,
    XNNPACK,
    Interpreter,
    RuntimeInfo,
)

lite = requires("ai_edge_litert")
micro = requires("tflite_micro")
every = pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=micro if row is TFLM else lite) for row in INTERPRETERS],
    ids=lambda row: row.name,
)


@pytest.fixture(scope="module")
def program() -> Program:
    """Two inputs, two outputs, no fully connected layer."""
    b = Builder("two")
    x, y = b.input(4, 4, 2, name="x"), b.input(4, 4, 2, name="y")
    first = b.conv(x, 3)
    return compiled(b.build(b.add(first, b.conv(y, 3)), first)).program


def broken(program: Program) -> bytes:
    """A model whose addition gives steps so fine that TFLite Micro aborts."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(tflite.build(program))
    (output,) = [t for t in model.subgraphs[0].tensors if t.name == b"add_1.output"]
    output.quantization.scale = [1e-12]
    builder = aligning_builder()
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def test_every_row_has_a_runtime() -> None:
    assert [row.name for row in INTERPRETERS] == list(interpreter_worker.RUNTIMES)


@lite
@every
def test_outputs_and_tensors_come_in_the_order_of_the_program(
    row: RuntimeInfo, program: Program, tmp_path: Path
) -> None:
    tflite.export(program, tmp_path / "net.tflite")
    runner = tflite_runner.Runner(program, tmp_path / "net.tflite", row)
    inputs = integers(program)
    expected = reference.run(program.network, inputs, row.rounding)
    turned = dict(reversed(inputs.items()))
    names = program.network.graphs[0].outputs
    for name, values in zip(names, runner.run(turned), strict=True):
        np.testing.assert_array_equal(values, expected[name])
    traced = runner.trace(turned)
    assert list(traced) == [node.output for node in program.network.graphs[0].nodes]
    for name, values in traced.items():
        np.testing.assert_array_equal(values, expected[name])


@lite
def test_a_row_of_the_report_names_runtime_and_rule(program: Program, tmp_path: Path) -> None:
    tflite.export(program, tmp_path / "net.tflite")
    runner = tflite_runner.Runner(program, tmp_path / "net.tflite")
    row = parity.compare_executor(
        program, runner, parity.expect(program, integers(program), runner.rounding)
    )
    assert (row.runner, row.rule, row.verdict) == ("xnnpack", "xnnpack", Verdict.EXACT)
    assert row.version == f"ai-edge-litert {metadata.version('ai-edge-litert')}"


@lite
def test_the_first_layer_that_differs_is_named(tmp_path: Path) -> None:
    """Of a program and the file of one whose weights have fewer bits."""
    program, other = (compiled(random_graph(3), bits).program for bits in (8, 3))
    tflite.export(other, tmp_path / "net.tflite")
    runner = tflite_runner.Runner(program, tmp_path / "net.tflite")
    row = parity.compare_executor(
        program, runner, parity.expect(program, integers(program), runner.rounding)
    )
    weighted = [node.name for node in program.network.graphs[0].nodes if len(node.inputs) == 5]
    assert (row.verdict, row.first_diverging_layer) == (Verdict.DIFFERS, weighted[0])


@lite
@micro
def test_a_crash_of_tflite_micro_is_an_error(program: Program) -> None:
    with pytest.raises(MismatchError, match=r"tflm \(.*\) crashed \(SIG") as caught:
        Interpreter(TFLM, broken(program)).run(list(integers(program).values()))
    assert caught.value.id == "EQ0508"


@lite
@pytest.mark.parametrize("damage", [lambda model: model[:100], lambda model: b"no flatbuffer"])
@every
def test_a_damaged_model_is_an_error_with_the_words_of_the_runtime(
    row: RuntimeInfo, program: Program, damage: Any
) -> None:
    with pytest.raises(MismatchError, match=r"failed with status 1 on the model: .") as caught:
        Interpreter(row, damage(tflite.build(program))).run(list(integers(program).values()))
    assert caught.value.id == "EQ0508"


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        (TFLM, r'tflm needs tflite-micro, .* "edgeq\[tflm\]"'),
        (XNNPACK, r"xnnpack .* tflite-runtime"),
    ],
)
def test_a_missing_runtime_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, row: RuntimeInfo, hint: str
) -> None:
    monkeypatch.setattr(interpreters.metadata, "version", missing)
    with pytest.raises(MissingToolError, match=hint) as caught:
        Interpreter(row, b"")
    assert caught.value.id == "EQ0622"


def test_tflite_runtime_stands_in_for_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters.metadata, "version", only("tflite-runtime"))
    assert LITE[0] == "ai-edge-litert"
    assert XNNPACK.version() == "tflite-runtime 2.14"


def missing(package: str) -> str:
    raise metadata.PackageNotFoundError(package)


def only(known: str) -> Any:
    return lambda package: "2.14" if package == known else missing(package)
