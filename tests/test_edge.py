"""An export for an edge box, end to end: what is written, executed, reported and refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundled
import jsonschema
import onnx
import pytest
from exitnets import policy, with_gate
from programs import few_samples

import edgeq
from edgeq import budget, exits, formats, pages, report, targets
from edgeq.errors import BudgetError, GraphError, MismatchError, MissingToolError, UsageError
from edgeq.exporters import onnx_qdq, run, tflite
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


# Formats that cannot hold a network


def test_what_one_format_cannot_hold_the_others_are_written_of(export: Export) -> None:
    build = export("partly", policy="w8a16")
    assert [a.format for a in build.report.export.artefacts] == ["c", "tflite"]
    assert not (build.folder / "model.onnx").exists()
    (note,) = [note for note in build.report.export.notes if note.startswith("no model.onnx: ")]
    assert "16 bits" in note
    assert (build.folder / "run.py").is_file()


def test_where_the_only_format_cannot_hold_it_nothing_is_written(export: Export) -> None:
    with pytest.raises(GraphError, match=r"EQ0347: .* has 16 bits"):
        export("none", target="edge-int4", policy="w8a16")


def test_where_no_format_can_hold_it_every_reason_is_given(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(program: Program, path: Path) -> None:
        raise GraphError("EQ0381", "not in TFLite")

    monkeypatch.setattr(tflite, "export", refuse)
    with pytest.raises(GraphError, match=r"EQ0347: .* has 16 bits.*; not in TFLite"):
        export("none", policy="w8a16")


# Exits


@pytest.fixture(scope="module")
def gated(export: Export, tool: Any, tmp_path_factory: pytest.TempPathFactory) -> edgeq.Build:
    """The tiny example with exits, two levels and random gates, checked on this machine."""
    tool("cc")
    return export("gated", check="host", policy=gated_policy(tmp_path_factory.mktemp("policy")))


def gated_policy(folder: Path) -> Path:
    found = bundled.load("fashion-tiny")
    graph = found.model.graph
    chosen = policy(exits.proposed(graph), (4, 4))
    target = targets.load("edge")
    held = with_gate(graph, chosen, "table", 3, sha256=found.model.sha256, target=target)
    file = folder / "gate.json"
    file.write_text(held.model_dump_json(exclude_none=True), encoding="utf-8")
    return file


def test_exits_are_written_as_c_and_onnx_and_both_route_by_their_rules(
    gated: edgeq.Build,
) -> None:
    rows = {row.runner: row for row in gated.report.validate.rows}
    assert rows["c-host"].verdict is rows["onnxruntime"].verdict is Verdict.EXACT
    assert rows["onnxruntime"].rule == "float32"
    assert [a.format for a in gated.report.export.artefacts] == ["c", "onnx"]
    (note,) = [note for note in gated.report.export.notes if note.startswith("no model.tflite: ")]
    assert "TFLite takes one block at one level" in note


def test_exits_are_refused_where_tflite_alone_would_hold_them(
    export: Export, tmp_path: Path
) -> None:
    with pytest.raises(GraphError, match=r"EQ0381: .*--target edge"):
        export("none", target="edge-tflite", policy=gated_policy(tmp_path))


def test_the_ladder_says_who_goes_another_way_under_the_other_rule(
    gated: edgeq.Build, tmp_path: Path
) -> None:
    file = gated_policy(tmp_path)
    example = bundled.load("fashion-tiny")
    few = few_samples(example.folder / "test.npz", tmp_path / "few.npz", 30)
    given = {"model": example.folder / "model.onnx", "policy": file, "inputs": example.specs}
    build = edgeq.validate(gated.folder, data=few, **given)
    rows = {row.runner: row for row in build.report.validate.rows}
    found = rows["onnxruntime"]
    assert (found.verdict, found.samples) == (Verdict.EXACT, 30)
    assert found.rule_distance is not None and found.rule_distance.routes is not None
    assert found.rule_distance.routes <= found.samples
    assert rows["c-host"].rule_distance is None
    assert "its notes say why" in (rows["xnnpack"].reason or "")


def test_the_runner_counts_exits_and_takes_another_tradeoff(
    gated: edgeq.Build, tmp_path: Path
) -> None:
    samples = bundled.load("fashion-tiny").folder / "test.npz"
    few = few_samples(samples, tmp_path / "few.npz", 25)

    def ran(*options: str) -> str:
        command = [sys.executable, "run.py", "model.onnx", str(few), *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=gated.folder)
        return done.stdout + done.stderr

    shares = [float(x) for x in re.findall(r"exit \d: ([\d.]+)%", ran())]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert "exit 1: 100.0%, exit 2: 0.0%" in ran("--tradeoff", "60000")
    assert "--tradeoff -1.0: 0 and more, below 65536" in ran("--tradeoff", "-1")
    facts = json.loads((gated.folder / "run.json").read_text("utf-8"))
    assert facts["exits"] == 4


def test_a_tradeoff_needs_exits(build: edgeq.Build, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="the model has no exits"):
        run.with_tradeoff({}, 0.5, json.loads((build.folder / "run.json").read_text("utf-8")))


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
