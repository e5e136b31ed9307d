"""What `check` says of a model: refusals by operator, names, bytes, and estimates that hold."""

from __future__ import annotations

import json
from pathlib import Path

import bundled
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper
from test_cli import CHANNELS, CLASSES, network

import edgeq
from edgeq import targets
from edgeq.cli import main
from edgeq.errors import ModelError, PolicyError
from edgeq.packing import pack_dense, pad, stored_bytes
from edgeq.report import Check

EXAMPLES = ("fashion-resnet8", "fashion-tiny")
SHIFTED = 8  # bytes by which padding may differ where a table's length does


def written(folder: Path, *nodes: onnx.NodeProto) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(network(("batch", 1, 8, 8), None, *nodes).SerializeToString())
    return path


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


def layers(found: Check) -> dict[str, tuple[int, int, int]]:
    return {layer.name: (layer.bytes_8, layer.bytes_4, layer.bytes_2) for layer in found.layers}


def test_every_layer_has_the_name_that_a_policy_matches(tmp_path: Path) -> None:
    found = edgeq.check(written(tmp_path))
    policy = tmp_path / "policy.toml"
    for layer in found.layers:
        policy.write_text(f'[[rule]]\nmatch = "{layer.name}"\nweights = 4\n', "utf-8")
        edgeq.check(tmp_path / "net.onnx", policy=policy)
    policy.write_text('[[rule]]\nmatch = "nobody"\nweights = 4\n', "utf-8")
    with pytest.raises(PolicyError):
        edgeq.check(tmp_path / "net.onnx", policy=policy)


def test_bytes_are_those_of_the_stored_weights(tmp_path: Path) -> None:
    found = layers(edgeq.check(written(tmp_path)))
    assert found["conv"] == tuple(stored_bytes(CHANNELS * 9, bits) for bits in (8, 4, 2))
    assert found["fc"] == (CHANNELS * CLASSES, CHANNELS * CLASSES // 2, CHANNELS * CLASSES // 4)
    assert found["pool"] == (0, 0, 0)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("count", [1, 8, 9, 63, 64, 65])
def test_the_bytes_that_are_told_are_the_bytes_that_are_packed(bits: int, count: int) -> None:
    import numpy as np

    assert stored_bytes(count, bits) == len(pad(pack_dense(np.zeros(count, np.int8), bits)))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_estimate_is_what_an_unlinked_export_says(tmp_path: Path, name: str) -> None:
    exported = bundled.load(name).export(tmp_path / "build", check="none").report.export
    fit = edgeq.check(name, policy=bundled.load(name).policy).fit
    assert fit is not None
    assert fit.ram == exported.ram
    assert fit.flash.weights == exported.flash.weights
    assert abs(fit.flash.total - exported.flash.total) <= SHIFTED
    assert fit.peak <= fit.ram.arena


def test_a_model_that_does_not_fit_is_told_and_not_refused() -> None:
    found = edgeq.check(ram=20 << 10)
    assert found.fit is not None
    assert not found.fit.fits
    assert found.refusals == ()
    assert edgeq.check().fit != found.fit
    result = command("--ram", "20KB")
    assert result.exit_code == 0
    assert "NOT fit" in result.stdout


def test_every_refusal_stands_at_its_operator(tmp_path: Path) -> None:
    unknown = helper.make_node("Einsum", ["y"], ["e"], name="first", equation="ij->ji")
    other = helper.make_node("LpPool", ["y"], ["z"], name="second", kernel_shape=[1])
    both = helper.make_node("Add", ["e", "z"], ["sum"], name="last")
    found = edgeq.check(written(tmp_path, unknown, other, both))
    refused = {o.name: o.refusal for o in found.operators if o.refusal is not None}
    assert list(refused) == ["first", "second"]
    assert "Einsum is not supported" in str(refused["first"])
    assert found.refusals == tuple(refused.values())
    assert found.fit is None
    assert {o.name for o in found.operators} >= {"conv", "relu", "fc", "last"}


def test_a_refusal_exits_with_3_and_still_tells_what_was_found(tmp_path: Path) -> None:
    model = written(tmp_path, helper.make_node("Einsum", ["y"], ["e"], equation="ij->ji"))
    result = command(model, "--json")
    assert result.exit_code == 3
    assert result.stderr.startswith("error EQ0345: 1 refused")
    assert len(json.loads(result.stdout)["refusals"]) == 1


def test_a_rule_of_the_whole_graph_is_a_refusal(tmp_path: Path) -> None:
    model = written(tmp_path, helper.make_node("Mul", ["x", "x"], ["e"], name="early"))
    found = edgeq.check(model)
    assert "early" in found.refusals[0]
    assert all(operator.refusal is None for operator in found.operators)


def test_more_refusals_than_an_export_shows(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Einsum", ["y"], [f"e{i}"], name=f"n{i}", equation="i->i")
        for i in range(20)
    ]
    nodes.append(helper.make_node("Sum", [f"e{i}" for i in range(20)], ["z"], name="all"))
    assert len(edgeq.check(written(tmp_path, *nodes)).refusals) == 21
    with pytest.raises(ModelError, match="and 11 more"):
        edgeq.export(tmp_path / "net.onnx", calib=tmp_path / "none.npz", check="none")


def test_check_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = written(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert command(model).exit_code == 0
    assert list(tmp_path.iterdir()) == [model]


def test_a_broken_file_is_refused_with_its_own_id(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    result = command(tmp_path / "net.onnx")
    assert result.exit_code == 3
    assert "EQ0345" not in result.stderr


def test_budgets_come_from_the_target() -> None:
    fit = edgeq.check(target="stm32f405").fit
    assert fit is not None
    assert fit.budget.flash == targets.load("stm32f405").first("flash").bytes
