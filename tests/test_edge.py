"""An export for an edge box, end to end: what is written, executed, reported and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundled
import jsonschema
import onnx
import pytest
from programs import few_samples

import edgeq
from edgeq import budget, formats, pages, report, targets
from edgeq.errors import BudgetError, MismatchError, MissingToolError, UsageError
from edgeq.exporters import onnx_qdq
from edgeq.formats import Format
from edgeq.program import Program
from edgeq.reference import Rounding
from edgeq.report import Budget, Verdict
from edgeq.targets.interpreters import RuntimeInfo

Export = Callable[..., edgeq.Build]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Exports the tiny example for an edge box, with few samples."""
    folder = tmp_path_factory.mktemp("edge")
    few = few_samples(bundled.load("fashion-tiny").folder / "test.npz", folder / "few.npz", 20)

    def run(name: str = "build", **options: Any) -> edgeq.Build:
        given = {"target": "edge", "calib": few, "data": few, "check": "none", **options}
        return bundled.load("fashion-tiny").export(folder / name, **given)

    return run


@pytest.fixture(scope="module")
def build(export: Export, tool: Any) -> edgeq.Build:
    """A build that was checked on this machine."""
    tool("cc")
    return export("checked", check="emulator")


def test_every_form_is_executed_and_exact(build: edgeq.Build) -> None:
    rows = [(row.runner, row.rule, row.verdict) for row in build.report.validate.rows]
    assert rows == [
        ("c-host", "double", Verdict.EXACT),
        ("onnxruntime", "float32", Verdict.EXACT),
        ("xnnpack", "xnnpack", Verdict.EXACT),
    ]
    assert [row.samples for row in build.report.validate.rows] == [20, 20, 20]
    assert all(row.top1 is not None and row.top1 > 0.5 for row in build.report.validate.rows)


def test_16_bits_go_to_tflite(export: Export, tool: Any) -> None:
    tool("cc")
    build = export("wide", target="edge-tflite", policy="w8a16", check="host")
    rows = [(row.runner, row.verdict) for row in build.report.validate.rows]
    assert rows == [("c-host", Verdict.EXACT), ("xnnpack", Verdict.EXACT)]


def test_every_artefact_is_reported_with_its_bytes(build: edgeq.Build) -> None:
    found = {a.format: a for a in build.report.export.artefacts}
    assert list(found) == list(targets.load("edge").formats)
    for artefact in found.values():
        assert (build.folder / artefact.file).stat().st_size == artefact.bytes
        assert artefact.file in (build.folder / "report.txt").read_text("ascii")
        assert artefact.file in (build.folder / "report.html").read_text("utf-8")
    assert found["c"].file == "model.eqb"


def test_a_microcontroller_has_one_artefact() -> None:
    found = {a for t in map(targets.load, targets.names()) if t.linked for a in t.formats}
    assert found == {"c"}


def test_no_firmware_is_linked_and_sizes_are_estimates(build: edgeq.Build) -> None:
    section = build.report.export
    assert not (build.folder / "firmware.elf").exists()
    assert section.compiler is None
    assert section.flash.estimated and section.ram.estimated
    assert section.budget == Budget(None, None)
    assert "no budget" in pages.page(build.report)
    (note,) = [note for note in section.notes if note.startswith("unchecked")]
    assert note.endswith("flash and RAM of the C are estimates")


def test_the_report_fits_its_schema(build: edgeq.Build) -> None:
    content = json.loads((build.folder / "report.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(report.schema()).validate(content)


def test_the_readme_of_the_build_names_what_is_there(build: edgeq.Build) -> None:
    text = (build.folder / "README.txt").read_text("utf-8")
    assert "onnx" in text and "run.py" in text
    assert {"run.py", "run.json"} <= {file.name for file in build.folder.iterdir()}


def test_the_same_export_gives_the_same_bytes(export: Export) -> None:
    first, second = (export(name).folder for name in ("first", "second"))
    for file in first.rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (second / file.relative_to(first)).read_bytes(), file


def test_limits_are_those_that_are_given() -> None:
    edge = targets.load("edge")
    assert budget.limits(edge, None, None) == Budget(None, None)
    assert budget.limits(edge, 10, None) == Budget(10, None)


def test_an_artefact_over_the_budget_is_refused(export: Export, build: edgeq.Build) -> None:
    largest = max(a.bytes for a in build.report.export.artefacts)
    assert largest > build.report.export.flash.total
    export("fits", flash=largest)
    with pytest.raises(
        BudgetError, match=rf"EQ0405: model\.onnx takes .* 1 more than .*{largest - 1:,}"
    ):
        export("over", flash=largest - 1)


def test_the_c_is_held_to_the_same_budget(export: Export) -> None:
    with pytest.raises(BudgetError, match="EQ0401"):
        export("over", flash=1000)


def test_a_missing_package_is_named_before_anything_is_computed(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = RuntimeInfo("onnxruntime", Rounding.FLOAT32, ("no_such_package",), "tflite")
    row = Format("onnx", ".onnx", "none", "none", (absent,))
    monkeypatch.setattr(formats, "FORMATS", (row,))
    with pytest.raises(MissingToolError, match=r"EQ0608: edge takes onnx.*edgeq\[tflite\]"):
        export("missing")


def test_an_artefact_that_computes_something_else_is_refused(
    export: Export, monkeypatch: pytest.MonkeyPatch, tool: Any
) -> None:
    tool("cc")

    def wrong(program: Program, path: Path) -> None:
        model = onnx_qdq.model(program)
        clip = next(node for node in model.graph.node if node.op_type == "MaxPool")
        clip.attribute[0].CopyFrom(onnx.helper.make_attribute("kernel_shape", [1, 1]))
        path.write_bytes(model.SerializeToString())

    monkeypatch.setattr(onnx_qdq, "export", wrong)
    with pytest.raises(MismatchError, match=r"EQ0506: onnxruntime .* first in layer pool1"):
        export("wrong", check="host")


def test_what_needs_a_core_is_refused(build: edgeq.Build) -> None:
    with pytest.raises(UsageError, match="EQ0249: no firmware is linked for edge"):
        edgeq.profile(build.folder)


def test_an_edge_box_can_be_checked_before_there_are_samples() -> None:
    found = edgeq.check("fashion-tiny", target="edge")
    assert found.fit is not None and found.fit.fits
    assert found.fit.budget == Budget(None, None)
