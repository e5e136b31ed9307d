"""What if: one layer's bits, and every layer's at every width; against exports that did it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import bundled
import pytest
from click.testing import CliRunner
from conftest import Builds

import edgeq
from edgeq.cli import main
from edgeq.errors import EdgeqError, MissingToolError
from edgeq.targets import toolchain

pytestmark = pytest.mark.emulator
EXAMPLE, COMPILER = "fashion-tiny", "zig"
VALUES_DECIDE = 1e-2  # of the instructions: requantisation branches on what the values are


@pytest.fixture
def build(built: Builds, tmp_path: Path) -> Path:
    shutil.copytree(built(EXAMPLE, COMPILER).folder, tmp_path / "build")
    return tmp_path / "build"


def layer_of(build: Path) -> dict[str, Any]:
    """A layer whose weights have not 4 bits."""
    layers = json.loads((build / "report.json").read_text())["export"]["layers"]
    return dict(
        next(
            layer
            for layer in layers
            if layer["bits"]["weights"] and layer["bits"]["weights"]["stored"] != 4
        )
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_explain_says_what_an_export_with_that_bit_width_does(build: Path, tmp_path: Path) -> None:
    layer = layer_of(build)
    found = edgeq.explain(build, layer=layer["name"], weights=4)
    policy = tmp_path / "policy.toml"
    rule = f'\n[[rule]]\nmatch = "{layer["name"]}"\nweights = 4\n'
    policy.write_text(bundled.load(EXAMPLE).policy.read_text() + rule)
    other = bundled.load(EXAMPLE).export(tmp_path / "other", policy=policy, compiler=COMPILER)
    profiled = edgeq.profile(other.folder).report
    assert profiled.profile is not None
    row = next(row for row in profiled.export.layers if row.name == layer["name"])
    work = next(work for work in profiled.profile.layers if work.name == layer["name"])
    assert found.after.flash == profiled.export.flash.total
    assert found.after.arena == profiled.export.ram.arena
    assert found.after.sqnr_db == row.sqnr_db
    assert found.after.instructions == work.instructions
    assert found.after.cycles_model == work.cycles_model
    assert found.after.total_instructions == profiled.profile.totals.instructions


def test_what_stands_before_is_the_build_itself(build: Path) -> None:
    layer = layer_of(build)
    profiled = edgeq.profile(build).report
    assert profiled.profile is not None
    before = edgeq.explain(build, layer=layer["name"], weights=4).before
    assert before.weights == layer["bits"]["weights"]["stored"]
    assert before.flash == profiled.export.flash.total
    assert before.sqnr_db == layer["sqnr_db"]
    assert before.total_instructions == profiled.profile.totals.instructions


def test_explain_leaves_the_build_as_it_was(build: Path) -> None:
    before = tree(build)
    edgeq.explain(build, layer=layer_of(build)["name"], weights=2)
    assert tree(build) == before


def test_without_the_compiler_flash_is_an_estimate_and_nothing_is_counted(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*arguments: object) -> None:
        raise MissingToolError("EQ0601", "no compiler found")

    monkeypatch.setattr(toolchain, "find", nothing)
    found = edgeq.explain(build, layer=layer_of(build)["name"], weights=4)
    assert found.after.instructions is None
    assert found.after.flash < found.before.flash
    assert "estimate" in found.notes[0]


def refused(build: Path, id: str, **options: Any) -> EdgeqError:
    arguments = {"layer": layer_of(build)["name"], "weights": 4, **options}
    with pytest.raises(EdgeqError) as caught:
        edgeq.explain(build, **arguments)
    assert caught.value.id == id, caught.value
    return caught.value


def test_a_layer_that_is_not_there_is_refused(build: Path) -> None:
    assert layer_of(build)["name"] in refused(build, "EQ0243", layer="nobody").message


def test_a_width_that_is_none_is_refused(build: Path) -> None:
    refused(build, "EQ0216", weights=9)


def test_another_model_is_refused(build: Path) -> None:
    error = refused(build, "EQ0730", model=bundled.load("fashion-resnet8").folder / "model.onnx")
    assert error.exit_code == 7


def test_a_model_that_is_not_there_is_refused(build: Path) -> None:
    refused(build, "EQ0210", model=build / "nothing.onnx")


def test_a_build_of_an_unknown_model_needs_its_name(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.examples.names", lambda: ())
    assert "--model" in refused(build, "EQ0242").message


def test_other_calibration_settings_are_found_out_and_named(build: Path, tmp_path: Path) -> None:
    """The image that comes out is another one: better no answer than one about another network."""
    policy = tmp_path / "other.toml"
    policy.write_text('[calibration]\nweights = "minmax"\n')
    assert "--policy" in refused(build, "EQ0732", policy=policy).message


@pytest.mark.parametrize("change", ["weights", "weights=x", "activations=4", "weights=-1"])
def test_a_change_that_is_none_is_refused(build: Path, change: str) -> None:
    result = CliRunner().invoke(main, ["explain", str(build), "--layer", "x", "--set", change])
    assert result.exit_code == 2
    assert result.stderr.startswith("error EQ0207: ")


def test_a_cost_table_holds_what_the_build_itself_takes(build: Path, tmp_path: Path) -> None:
    report = edgeq.profile(build, cost_table=tmp_path / "costs.json").report
    assert report.profile is not None
    table = json.loads((tmp_path / "costs.json").read_text())
    manifest = json.loads((build / "manifest.json").read_text())
    assert table["image"] == manifest["files"]["model.eqb"]
    assert table["compiler"] == report.profile.compiler
    work = {layer.name: layer for layer in report.profile.layers}
    stored = {layer.name: layer for layer in report.export.layers}
    for layer in table["layers"]:
        assert [cost["weights"] for cost in layer["costs"]] == list(range(2, 9))
        bits = stored[layer["name"]].bits.weights
        assert bits is not None
        own = next(cost for cost in layer["costs"] if cost["weights"] == bits.stored)
        assert own["flash_bytes"] == stored[layer["name"]].weight_bytes
        expected = work[layer["name"]].instructions
        assert own["instructions"] == pytest.approx(expected, rel=VALUES_DECIDE)
    assert {layer["name"] for layer in table["layers"]} == {
        name for name, layer in work.items() if layer.macs
    }
