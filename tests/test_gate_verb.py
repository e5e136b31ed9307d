"""`edgeq gate`, end to end: what it writes, what export makes of it, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from exitnets import SMALL_EXITS, small
from onnx import TensorProto, helper, numpy_helper

import edgeq
from edgeq import adaround, fit, gatefile, gating, pipeline, policy, report, targets
from edgeq.cli import main
from edgeq.errors import PolicyError, UsageError
from edgeq.gates import MOST_TRADEOFF, ONE
from edgeq.ir import Network, digest
from edgeq.program import Program

Array = np.ndarray[Any, Any]
SIDE, CLASSES, SAMPLES = 8, 4, 400
EXITS = 'exits = ["conv1"]\n'
LEVEL = "[[level]]\ndefault = {weights = 4, activations = 4}\n"
QUICK = ("--cost", "bitops_linear")
FITTED = "net.gate.json"

pytestmark = pytest.mark.usefixtures("few_steps")


def images(count: int, seed: int) -> tuple[Array, Array]:
    """Images of four classes, each with its own template, some of them noisy."""
    templates = np.random.default_rng(7).normal(size=(CLASSES, 1, SIDE, SIDE))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    noise = rng.choice([0.5, 3.0], count)[:, None, None, None]
    x = templates[labels] + noise * rng.normal(size=(count, 1, SIDE, SIDE))
    return x.astype(np.float32), labels


def network(seed: int = 1) -> onnx.ModelProto:
    """Two convolutions around a shortcut, pool, fully connected: `conv2` does not cut it."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Array] = {
        "k1": rng.normal(size=(8, 1, 3, 3)).astype(np.float32),
        "k2": rng.normal(size=(8, 8, 3, 3)).astype(np.float32),
        "m": rng.normal(size=(8 * SIDE * SIDE // 4, CLASSES)).astype(np.float32),
    }
    layers = [
        helper.make_node("Conv", ["x", "k1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c1", "k2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c1", "c2"], ["a"], name="add"),
        helper.make_node("MaxPool", ["a"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "m"], ["y"], name="fc"),
    ]
    graph = helper.make_graph(
        layers,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 1, SIDE, SIDE))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@dataclass
class Place:
    """A folder with a model, samples and a policy, in which `edgeq gate` runs."""

    folder: Path

    def gate(self, *arguments: str) -> Result:
        command = ["gate", "net.onnx", "--calib", "calib.npz", "--policy", "policy.toml"]
        return CliRunner().invoke(main, [*command, *QUICK, *arguments])

    def fits(self, *arguments: str) -> dict[str, Any]:
        """The section of a run that must succeed."""
        result = self.gate("--data", "val.npz", "--json", *arguments)
        assert result.exit_code == 0, (result.stderr, result.exception)
        return dict(json.loads(result.stdout))

    def policy(self, text: str) -> None:
        (self.folder / "policy.toml").write_text(text, encoding="utf-8")

    def samples(self, name: str, count: int, seed: int, **changed: Array) -> None:
        x, y = images(count, seed)
        arrays: Mapping[str, Array] = {"x": x, "y": y, **changed}
        np.savez(self.folder / name, **arrays)  # type: ignore[arg-type]

    def refuses(self, id: str, *arguments: str, says: str = "") -> None:
        """A run that must be refused with `id` and leave everything as it was."""
        before = {path: path.read_bytes() for path in self.folder.iterdir()}
        result = self.gate(*arguments)
        assert isinstance(result.exception, SystemExit), result.exc_info
        assert f"error {id}: " in result.stderr, result.stderr
        assert result.exit_code == int(id[3])
        assert says in result.stderr
        assert {path: path.read_bytes() for path in self.folder.iterdir()} == before


def furnished(folder: Path) -> Place:
    found = Place(folder)
    (folder / "net.onnx").write_bytes(network().SerializeToString())
    found.samples("calib.npz", 32, 0)
    found.samples("val.npz", SAMPLES, 1)
    found.samples("train.npz", SAMPLES, 2)
    found.policy(EXITS + LEVEL)
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return furnished(tmp_path)


@pytest.fixture(scope="module")
def fitted_once(tmp_path_factory: pytest.TempPathFactory, few_steps: None) -> tuple[bytes, str]:
    """`FITTED` with baselines, from the files of `place`, and what the terminal showed."""
    folder = tmp_path_factory.mktemp("fitted")
    with contextlib.chdir(folder):
        result = furnished(folder).gate("--data", "val.npz", "--baselines")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return (folder / FITTED).read_bytes(), result.stdout


@pytest.fixture
def section(place: Place, fitted_once: tuple[bytes, str]) -> dict[str, Any]:
    """The section of `FITTED`, which lies in `place`."""
    (place.folder / FITTED).write_bytes(fitted_once[0])
    return dict(json.loads(fitted_once[0])["gate"]["report"])


# What it does #


def test_a_fitted_policy_has_gates_and_tells_what_they_are_worth(place: Place) -> None:
    found = place.fits("--train", "train.npz")
    written = policy.load(place.folder / FITTED)
    assert written.gate is not None
    assert json.loads(report.dumps(report.asdict(written.gate.report))) == found  # type: ignore[arg-type]
    assert written.exits == ("conv1",)
    assert found["exits"] == ["conv1", "fc"]
    assert found["levels"] == ["w8a8", "w4a4"]
    assert {fold["name"]: fold["samples"] for fold in found["folds"]} == {
        "train": 400,
        "val": 240,
        "test": 160,
        "calibration": 32,
    }


def test_the_section_follows_the_schema_of_the_report(section: dict[str, Any]) -> None:
    schema = report.schema()
    jsonschema.validate(section, {**schema["$defs"]["Gate"], "$defs": schema["$defs"]})
    assert set(section["baselines"]) == {
        "thresholds at w8a8",
        "thresholds, best path",
        "plain PTQ",
        "DQNet-gate",
        "JEI-DNN",
        "oracle",
    }
    for baseline in section["baselines"].values():
        assert all(0 < point["cost"] <= 1 for point in baseline["curve"])


def test_export_takes_the_policy_and_puts_the_section_into_its_report(
    place: Place, section: dict[str, Any]
) -> None:
    build = edgeq.export("net.onnx", policy=FITTED, calib="calib.npz", data="val.npz", check="none")
    assert build.report.gate is not None
    assert json.loads(report.dumps(build.report.to_json()))["gate"] == section
    assert build.report.export.routing is not None
    assert "Operating points" in (build.folder / "report.html").read_text("utf-8")
    assert not [note for note in build.report.export.notes if "other calibration" in note]


def test_weights_are_learned_once_for_each_level_and_export_learns_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, outputs = adaround.learn, gating._outputs
    calls: list[int] = []
    seen: list[str] = []

    def learning(*arguments: Any) -> Any:
        calls.append(arguments[3])
        return learn(*arguments)

    def fitting(request: Any, program: Program, *rest: Any) -> Any:
        seen.append(digest(program.network.graphs))
        return outputs(request, program, *rest)

    monkeypatch.setattr(adaround, "ITERATIONS", 30)
    monkeypatch.setattr(adaround, "learn", learning)
    monkeypatch.setattr(gating, "_outputs", fitting)
    lower = LEVEL + LEVEL.replace("4", "3")
    place.policy(EXITS + lower + '[calibration]\nrounding = "adaround"\n')
    place.fits()
    assert calls == [4, 4, 3, 3]  # conv2 and fc, though the network is made several times
    told: list[str] = []
    monkeypatch.setattr(pipeline, "place", spied(pipeline.place, told))
    for aim in ("flash", "time"):
        build = edgeq.export(
            "net.onnx", policy=FITTED, calib="calib.npz", out=aim, optimize=aim, check="none"
        )
        assert {row["name"] for row in rounding(build.folder)} == {
            "conv2@1", "conv2@2", "fc@1", "fc@2"
        }  # fmt: skip
        told_of_stores = any("no nested store" in note for note in build.report.export.notes)
        assert told_of_stores == (aim == "flash")
        assert not [note for note in build.report.export.notes if "fit them again" in note]
    assert set(told) == set(seen)


def spied(place: Callable[..., Program], told: list[str]) -> Callable[..., Program]:
    """`place`, which tells of what it is called with."""

    def placing(model: Any, network: Network, *rest: Any) -> Program:
        told.append(digest(network.graphs))
        return place(model, network, *rest)

    return placing


def rounding(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "rounding.json").read_text("utf-8"))["layers"])


@pytest.mark.usefixtures("section")
def test_diff_tells_how_mean_and_worst_cost_moved(place: Place) -> None:
    place.fits("--policy", FITTED, "--recost", "--tradeoff", "10", "-o", "cheap.json")
    policy = json.loads((place.folder / "cheap.json").read_text(encoding="utf-8"))
    policy["gate"]["form"] = {"kind": "static"}  # every input goes to the end
    policy["gate"]["tradeoff"] = 0
    (place.folder / "exact.json").write_text(json.dumps(policy), encoding="utf-8")
    folders = []
    for name in ("exact", "cheap"):
        build = edgeq.export(
            "net.onnx", policy=f"{name}.json", calib="calib.npz", out=name, check="none"
        )
        folders.append(build.folder)
    found = edgeq.diff(*folders)
    moved = {change.name: change for change in found.figures}
    assert moved["cost"].new < moved["cost"].old  # type: ignore[operator]
    assert moved["worst"].new == moved["worst"].old
    exits = {change.name: change for change in found.exits}
    assert (exits["end"].old["share"], exits["end"].new["share"]) == (1, 0)
    (note,) = found.notes
    assert note.startswith("gates: ") and "→ tradeoff 10, costs in " in note
    printed, told = (
        CliRunner().invoke(main, ["diff", *map(str, folders), *more]).stdout
        for more in (["--json"], [])
    )
    assert json.loads(printed) == json.loads(report.dumps(asdict(found)))
    assert note in told
    assert re.search(r"end\n  share +100\.0% +0\.0%\n", re.sub(" +\n", "\n", told))


@pytest.mark.usefixtures("section")
def test_other_calibration_samples_than_those_of_the_gates_are_told(place: Place) -> None:
    build = edgeq.export("net.onnx", policy=FITTED, calib="val.npz", check="none")
    assert [note for note in build.report.export.notes if "other calibration samples" in note]


def test_the_same_arguments_give_the_same_file_from_the_command_and_the_library(
    place: Place,
) -> None:
    place.fits("-o", "one.json")
    place.fits("--seed", "4", "-o", "third.json")
    found = edgeq.fit_gate(
        "net.onnx", policy="policy.toml", calib="calib.npz", data="val.npz", cost="bitops_linear"
    )
    assert found.file == Path(FITTED)
    assert policy.load(found.file) == found.policy
    one, other, third = (
        (place.folder / name).read_bytes() for name in ("one.json", FITTED, "third.json")
    )
    assert one == other
    assert one != third


def test_joint_trains_the_network_and_export_takes_what_it_learned(place: Place) -> None:
    torch = pytest.importorskip("torch", reason="the extra torch is missing", exc_type=ImportError)
    torch.set_num_threads(1)
    place.samples("train.npz", 4 * SAMPLES, 2)
    place.fits("--train", "train.npz", "-o", "apart.json")
    place.fits("--train", "train.npz", "--joint", "-o", "joint.json")
    apart, joint = (policy.load(f"{name}.json").gate for name in ("apart", "joint"))
    assert apart is not None
    assert joint is not None
    assert not apart.weights
    assert {"k1", "k2", "m"} < set(joint.weights)
    right = {}
    for name in ("apart", "joint"):
        build = edgeq.export(
            "net.onnx", policy=f"{name}.json", calib="calib.npz", data="val.npz", out=name
        )
        assert build.report.validate is not None
        assert all(row.verdict == "exact" for row in build.report.validate.rows)
        assert build.report.export.accuracy is not None
        right[name] = build.report.export.accuracy.float
    assert right["joint"] > right["apart"] + 0.2, right  # its own weights were drawn at random


def test_a_level_is_called_by_what_it_multiplies() -> None:
    """By default additions and pools read 8 bits: most layers write as many, and multiply 4."""
    chosen = policy.Policy.model_validate({"exits": SMALL_EXITS})
    for target, lower in (("stm32f405", "w4a4"), ("nrf51822", "w4a8")):
        assert gating._level_names(chosen, small(), targets.load(target)) == ("w8a8", lower)


def test_without_train_the_folds_of_data_have_no_sample_in_common(section: dict[str, Any]) -> None:
    sizes = {fold["name"]: fold["samples"] for fold in section["folds"]}
    assert (sizes["train"], sizes["val"], sizes["test"]) == (200, 120, 80)
    assert any(note.startswith("no --train:") for note in section["notes"])


def test_exits_are_proposed_where_the_policy_names_none(place: Place) -> None:
    place.policy(LEVEL)
    found = place.fits()
    assert len(found["exits"]) >= 2
    assert policy.load(FITTED).exits == tuple(found["exits"][:-1])


def test_operating_points_go_from_accurate_to_cheap(section: dict[str, Any]) -> None:
    points = section["points"]
    assert points[0]["name"] == "top"
    assert [p["tradeoff"] for p in points] == sorted(p["tradeoff"] for p in points)
    for point in points:
        assert sum(point["exits"]) == pytest.approx(1, abs=1e-4)
        assert sum(point["levels"]) == pytest.approx(1, abs=1e-4)
        assert point["mean"] <= point["worst"]


@pytest.mark.usefixtures("section")
def test_new_costs_leave_what_was_learned_as_it_is(place: Place) -> None:
    place.fits("--policy", FITTED, "--recost", "--cost", "bops", "-o", "new.json")
    before, after = (policy.load(name).gate for name in (FITTED, "new.json"))
    assert before is not None
    assert after is not None
    old, new = gatefile.to_gate(before), gatefile.to_gate(after)
    assert fit.digest(old.form) == fit.digest(new.form)
    assert before.heads == after.heads
    assert old.costs != new.costs
    assert after.priced.unit == "bops"


def test_a_tradeoff_that_is_named_is_the_one_at_start(place: Place) -> None:
    assert place.fits("--tradeoff", "0.25")["tradeoff"] == 0.25
    gate = policy.load(FITTED).gate
    assert gate is not None
    assert gate.tradeoff == ONE // 4


@pytest.mark.emulator
def test_costs_of_a_table_are_taken_and_those_of_another_thing_refused(
    place: Place, tool: Callable[[str], tuple[str, ...]]
) -> None:
    tool("arm-none-eabi-gcc")
    keep = ("--data", "val.npz", "--policy", "gate.json", "--recost", "--compiler", "gcc")
    place.fits("--cost", "measured", "--compiler", "gcc", "-o", "gate.json")
    build = edgeq.export("net.onnx", policy="gate.json", calib="calib.npz", compiler="gcc")
    edgeq.profile(build.folder, cost_table="costs.json", model="net.onnx", policy="gate.json")
    table = json.loads((place.folder / "costs.json").read_text("utf-8"))
    shutil.rmtree(place.folder / "build")

    def write(**changed: object) -> None:
        (place.folder / "costs.json").write_text(json.dumps({**table, **changed}), "utf-8")

    write(unit="microjoules", source="a meter", heads=[2 * cost for cost in table["heads"]])
    assert place.gate(*keep, "--cost", "costs.json", "-o", "new.json").exit_code == 0
    held = policy.load("new.json").gate
    assert held is not None
    assert (held.priced.unit, held.priced.source) == ("microjoules", "a meter")
    assert held.priced.heads == tuple(2 * cost for cost in table["heads"])
    for changed in (
        {"model_sha256": "0" * 64},
        {"core": "cortex-m0"},
        {"compiler": "zig 0.0.0"},
        {"blocks": [*table["blocks"], {"0": 1.0}]},
    ):
        write(**changed)
        place.refuses("EQ0743", *keep, "--cost", "costs.json", says="is for another")
    write(heads="free")
    place.refuses("EQ0742", *keep, "--cost", "costs.json", says="heads")
    place.refuses("EQ0258", *keep, "--cost", "nothing.json", says="nothing.json")


def test_one_level_alone_is_plain_early_exit(place: Place) -> None:
    place.policy(EXITS + "level = []\n")
    found = place.fits()
    assert found["levels"] == ["w8a8"]
    assert found["paths"] == 2


def test_the_terminal_shows_points_forms_and_ties(fitted_once: tuple[bytes, str]) -> None:
    for word in ("top", "table", "mlp", "JEI-DNN", "tie", FITTED):
        assert word in fitted_once[1]


# What it refuses, or warns of #


def test_gates_need_labelled_samples(place: Place) -> None:
    place.refuses("EQ0270", says="--data")
    np.savez(place.folder / "bare.npz", x=images(40, 3)[0])
    place.refuses("EQ0260", "--data", "bare.npz", says="bare.npz")
    place.refuses("EQ0260", "--data", "val.npz", "--train", "bare.npz", says="bare.npz")


def test_fewer_samples_than_clusters_are_refused(place: Place) -> None:
    place.samples("few.npz", 50, 4)
    place.refuses("EQ0263", "--data", "few.npz", says="20 clusters")


def test_validation_data_that_are_the_training_data_are_a_warning(place: Place) -> None:
    found = place.fits("--train", "val.npz")
    assert any(note.startswith("EQ0261: ") for note in found["notes"])


def test_classes_that_validation_does_not_have_are_a_warning(place: Place) -> None:
    x, y = images(800, 5)
    np.savez(place.folder / "lack.npz", x=x[y > 0], y=y[y > 0])
    result = place.gate("--data", "lack.npz", "--train", "train.npz", "--json")
    assert result.exit_code == 0, result.stderr
    notes = json.loads(result.stdout)["notes"]
    assert any(note.startswith("EQ0262: ") and note.endswith("classes 0") for note in notes)


@pytest.mark.parametrize("tradeoff", ["-0.1", "nan", "65536", "inf"])
def test_a_tradeoff_that_is_no_q16_is_refused(place: Place, tradeoff: str) -> None:
    place.refuses("EQ0264", "--data", "val.npz", "--tradeoff", tradeoff)


def test_the_greatest_tradeoff_is_taken(place: Place) -> None:
    found = place.fits("--tradeoff", str(MOST_TRADEOFF / ONE))
    assert found["points"][-1]["exits"][0] == 1


@pytest.mark.parametrize(
    ("text", "id", "says"),
    [
        ('exits = ["conv2"]\n' + LEVEL, "EQ0372", "c1"),
        ('exits = ["fc"]\n' + LEVEL, "EQ0370", "fc"),
        ('exits = ["conv9"]\n' + LEVEL, "EQ0371", "conv"),
        ('exits = ["add", "conv1"]\n' + LEVEL, "EQ0373", "conv1"),
        (EXITS + "[[level]]\ndefault = {weights = 8, activations = 8}\n", "EQ0375", "level 1"),
        (EXITS + "[default]\nweights = 4\n[[level]]\ndefault = {weights = 8}\n", "EQ0374", "8"),
    ],
)
def test_exits_and_levels_that_are_none_are_refused(
    place: Place, text: str, id: str, says: str
) -> None:
    place.policy(text)
    place.refuses(id, "--data", "val.npz", says=says)


@pytest.mark.parametrize("torch", [True, False])
def test_recost_needs_gates_and_trains_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, torch: bool
) -> None:
    monkeypatch.setattr(gating.importlib.util, "find_spec", lambda name: torch or None)
    place.refuses("EQ0271", "--data", "val.npz", "--recost")
    place.refuses("EQ0272", "--data", "val.npz", "--recost", "--joint", says="--joint")


@pytest.mark.usefixtures("section")
def test_gates_of_another_model_or_version_are_refused(place: Place) -> None:
    held = json.loads((place.folder / FITTED).read_text("utf-8"))
    held["gate"]["version"] = 2
    (place.folder / "later.json").write_text(json.dumps(held), encoding="utf-8")
    place.refuses("EQ0390", "--data", "val.npz", "--policy", "later.json", "--recost")
    (place.folder / "net.onnx").write_bytes(network(seed=2).SerializeToString())
    place.refuses("EQ0391", "--data", "val.npz", "--policy", FITTED, "--recost")


def test_a_policy_with_exits_but_without_gates_is_refused_by_export(place: Place) -> None:
    with pytest.raises(PolicyError, match="EQ0392"):
        edgeq.export("net.onnx", policy="policy.toml", calib="calib.npz", check="none")


def test_joint_training_without_torch_says_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gating.importlib.util, "find_spec", lambda name: None)
    place.refuses("EQ0613", "--data", "val.npz", "--joint", says="edgeq[torch]")


def test_too_few_samples_for_three_folds_are_refused(place: Place) -> None:
    place.samples("one.npz", 1, 6)
    place.refuses("EQ0273", "--data", "one.npz", says="too few")


def test_what_cannot_be_written_is_refused(place: Place) -> None:
    place.refuses("EQ0232", "--data", "val.npz", "-o", "missing/folder/gate.json")


def test_a_library_call_needs_labelled_samples() -> None:
    with pytest.raises(UsageError, match="EQ0270"):
        edgeq.fit_gate("net.onnx", policy="policy.toml", calib="calib.npz")
