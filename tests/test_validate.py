"""The ladder: every row is what it says, a wrong one is found, what is missing is named."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundled
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Builds
from programs import with_flipped_weight

import edgeq
from edgeq import floatrun, ladder, parity, pipeline, targets
from edgeq.cli import main
from edgeq.errors import EdgeqError, MissingToolError
from edgeq.exporters import image
from edgeq.parity import Expectation
from edgeq.rebuild import Rebuilt
from edgeq.reference import Rounding
from edgeq.report import Row, Verdict
from edgeq.targets import interpreters, toolchain
from edgeq.targets.runners import HostProgram, HostRunner, Progress

EXAMPLE, COMPILER = "fashion-tiny", "zig"
SAMPLES = 40

pytestmark = pytest.mark.emulator


@pytest.fixture
def build(built: Builds, tmp_path: Path) -> Path:
    shutil.copytree(built(EXAMPLE, COMPILER).folder, tmp_path / "build")
    return tmp_path / "build"


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """A few of the example's labelled images."""
    with np.load(bundled.load(EXAMPLE).folder / "test.npz") as file:
        arrays: dict[str, Any] = {name: file[name][:SAMPLES] for name in file.files}
    np.savez(tmp_path / "some.npz", **arrays)
    return tmp_path / "some.npz"


def rows(build: edgeq.Build) -> dict[str, Row]:
    return {row.runner: row for row in build.report.validate.rows}


def refused(build: Path, id: str, **options: Any) -> EdgeqError:
    before = (build / "report.json").read_bytes()
    with pytest.raises(EdgeqError) as caught:
        edgeq.validate(build, **options)
    assert caught.value.id == id, caught.value
    assert (build / "report.json").read_bytes() == before
    return caught.value


def test_every_row_runs_and_the_integers_are_equal(build: Path, some: Path) -> None:
    found = rows(edgeq.validate(build, data=some))
    assert list(found)[:4] == ["float", "reference", "c-host", "emulator"]
    assert found["c-host"].verdict is found["emulator"].verdict is Verdict.EXACT
    assert found["c-host"].samples == SAMPLES
    assert found["emulator"].samples == ladder.EMULATED_SAMPLES
    assert found["float"].verdict is found["reference"].verdict is Verdict.BASE


def test_accuracy_and_likeness_are_those_of_the_samples(build: Path, some: Path) -> None:
    found = rows(edgeq.validate(build, data=some))
    example = bundled.load(EXAMPLE)
    graph = example.model.graph
    labelled = pipeline.read_samples(some, example.model, example.specs)
    real = floatrun.run(graph, labelled.real())[graph.outputs[0]]
    assert found["float"].top1 == (real.argmax(axis=1) == labelled.labels).mean()
    # The host computes the reference's integers, so that all that is said of them is the same.
    host, reference = found["c-host"], found["reference"]
    assert (host.top1, host.cosine, host.sqnr_db) == (
        reference.top1,
        reference.cosine,
        reference.sqnr_db,
    )
    assert reference.sqnr_db is not None and reference.sqnr_db > 15
    assert reference.cosine is not None and 0.98 < reference.cosine < 1


def test_the_section_is_replaced_and_the_build_stays_whole(build: Path, some: Path) -> None:
    before = json.loads((build / "report.json").read_text())
    edgeq.validate(build, data=some)
    after = json.loads((build / "report.json").read_text())
    assert before["validate"] != after["validate"]
    assert {**before, "validate": None} == {**after, "validate": None}
    edgeq.validate(build, data=some)  # every file is as the manifest says


def test_a_wrong_weight_is_found_in_its_layer(
    build: Path, some: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = "block3.pointwise"

    def wrong(again: Rebuilt, folder: Path, expected: Expectation, progress: Progress) -> Row:
        changed = image.build(with_flipped_weight(again.program, layer)).data
        compiler = toolchain.find(toolchain.HOST_COMPILERS)
        with contextlib.closing(HostProgram(folder / "runtime", compiler)) as program:
            return parity.compare(again.program, HostRunner(program, changed), expected)

    host = replace(ladder.RUNGS[0], compare=wrong)
    monkeypatch.setattr(ladder, "RUNGS", (host,))
    row = rows(edgeq.validate(build, data=some))["c-host"]
    assert row.verdict is Verdict.DIFFERS
    assert row.first_diverging_layer == layer
    assert row.mismatches > 0 < row.max_lsb
    result = CliRunner().invoke(main, ["validate", str(build), "--data", str(some)])
    assert result.exit_code == 5
    assert layer in result.stdout
    assert "EQ0506" in result.stderr


def test_every_runtime_is_held_to_its_own_rule(tmp_path: Path, some: Path) -> None:
    for runtime in (interpreters.XNNPACK, interpreters.TFLM):
        if runtime.version() is None:
            pytest.skip(f"{runtime.name} is missing: {runtime.install}")
    folder = bundled.load(EXAMPLE).export(tmp_path / "out", target="edge").folder
    found = rows(edgeq.validate(folder, data=some))
    ran = {name: row for name, row in found.items() if row.verdict is not Verdict.BASE}
    emulator = ran.pop("emulator")
    assert emulator.verdict is Verdict.SKIPPED
    assert {name: row.rule for name, row in ran.items()} == {
        "c-host": "double",
        "xnnpack": "xnnpack",
        "tflm": "double",
        "onnxruntime": "float32",
    }
    assert all(row.verdict is Verdict.EXACT for row in ran.values())
    example = bundled.load(EXAMPLE)
    program = example.compile(example.policy, targets.load("edge")).program
    inputs = program.quantize(pipeline.read_samples(some, example.model, example.specs))
    for row in ran.values():
        rule = Rounding(row.rule)
        both = [parity.predict(program, inputs, each)[0] for each in (rule, Rounding.DOUBLE)]
        apart = int((both[0] != both[1]).any(axis=1).sum())
        if rule is Rounding.DOUBLE:
            assert row.rule_distance is None
        else:
            assert row.rule_distance is not None
            assert row.rule_distance.mismatches == apart


def test_rules_that_no_row_needs_are_not_asked_for(tmp_path: Path, some: Path) -> None:
    """16-bit activations have no float32 rule, and the build no artefact of it."""
    if interpreters.XNNPACK.version() is None:
        pytest.skip(f"xnnpack is missing: {interpreters.XNNPACK.install}")
    wide = {"target": "edge-tflite", "policy": "w8a16", "check": "none"}
    folder = bundled.load(EXAMPLE).export(tmp_path / "out", **wide).folder
    found = rows(edgeq.validate(folder, data=some))
    assert found["onnxruntime"].verdict is Verdict.SKIPPED
    assert found["c-host"].verdict is found["xnnpack"].verdict is Verdict.EXACT


def test_a_missing_row_is_skipped_with_what_to_install_and_refused_where_required(
    build: Path, some: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*arguments: object) -> None:
        raise MissingToolError("EQ0601", "no compiler found. Install one of them: gcc")

    monkeypatch.setattr(toolchain, "find", nothing)
    assert "c-host: no compiler found" in refused(build, "EQ0619", data=some).message
    found = rows(edgeq.validate(build, data=some, require=["emulator"]))
    assert found["c-host"].verdict is Verdict.SKIPPED
    assert "gcc" in (found["c-host"].reason or "")


def test_a_build_without_firmware_says_which_export_has_one(tmp_path: Path, some: Path) -> None:
    folder = bundled.load(EXAMPLE).export(tmp_path / "out", check="host").folder
    assert "--check emulator" in refused(folder, "EQ0619", data=some).message
    found = rows(edgeq.validate(folder, data=some, require=["c-host"]))
    assert found["emulator"].verdict is Verdict.SKIPPED


def test_a_row_that_is_none_is_refused(build: Path) -> None:
    assert "c-host" in refused(build, "EQ0208", require=["c_host"]).message


def test_another_model_is_refused(build: Path) -> None:
    refused(build, "EQ0730", model=bundled.load("fashion-resnet8").folder / "model.onnx")


def test_a_build_of_an_unknown_model_needs_model_and_samples(
    build: Path, some: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = bundled.load(EXAMPLE)
    given = {"model": example.folder / "model.onnx", "policy": example.policy}
    monkeypatch.setattr("edgeq.examples.names", lambda: ())
    assert "--model" in refused(build, "EQ0242").message
    assert "--data" in refused(build, "EQ0246", **given).message
    assert rows(edgeq.validate(build, data=some, **given))["c-host"].verdict is Verdict.EXACT


def test_learned_weights_are_learned_again_from_the_same_samples(
    tmp_path: Path, some: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = bundled.load(EXAMPLE)
    policy = tmp_path / "ada.toml"
    policy.write_text(example.policy.read_text() + '\n[calibration]\nrounding = "adaround"\n')
    folder = example.export(tmp_path / "out", policy=policy, check="host").folder
    given = {"policy": policy, "require": ["c-host"], "data": some}
    assert rows(edgeq.validate(folder, **given))["c-host"].verdict is Verdict.EXACT
    monkeypatch.setattr("edgeq.examples.names", lambda: ())
    given["model"] = example.folder / "model.onnx"
    assert "--calib" in refused(folder, "EQ0248", **given).message


def test_the_table_is_printed_and_json_is_the_section(build: Path, some: Path) -> None:
    arguments = ["validate", str(build), "--data", str(some)]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.count("BIT-EXACT") == 2
    section = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert section == json.loads((build / "report.json").read_text())["validate"]
