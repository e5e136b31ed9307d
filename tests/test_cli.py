"""Bad input, end to end: a message with its id, the exit code of its kind, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gated
import jsonschema
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from edgeq import assemble, report
from edgeq.cli import main
from edgeq.exporters import gate_section, image
from edgeq.targets import toolchain

Array = np.ndarray[Any, Any]
SIDE, CHANNELS, CLASSES = 8, 16, 10
SAMPLES = np.random.default_rng(0).normal(size=(12, 1, SIDE, SIDE)).astype(np.float32)
LABELS = np.arange(12) % CLASSES


def network(
    shape: tuple[int | str, ...] = ("batch", 1, SIDE, SIDE),
    constants: Mapping[str, Array] | None = None,
    *nodes: onnx.NodeProto,
) -> onnx.ModelProto:
    """Convolution, pool, fully connected; `constants` replaces weights, `nodes` follow."""
    rng = np.random.default_rng(1)
    tensors: dict[str, Array] = {
        "kernel": rng.normal(size=(CHANNELS, 1, 3, 3)).astype(np.float32),
        "matrix": rng.normal(size=(CHANNELS, CLASSES)).astype(np.float32),
        **(constants or {}),
    }
    layers = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "matrix"], ["y"], name="fc"),
        *nodes,
    ]
    graph = helper.make_graph(
        layers,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(layers[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@dataclass
class Workplace:
    """A folder with net.onnx and calib.npz, in which `edgeq export` runs without compilers."""

    folder: Path
    options: tuple[str, ...] = ("--check", "none")

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def model(self, proto: onnx.ModelProto) -> None:
        self.file("net.onnx", proto.SerializeToString())

    def samples(self, **arrays: Array) -> None:
        np.savez(self.folder / "calib.npz", **arrays)  # type: ignore[arg-type]

    def export(self, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        command = ["export", "net.onnx", "--calib", "calib.npz", *self.options, *arguments]
        return CliRunner().invoke(main, command, env=env)

    def exports(self, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The export section of a run that must succeed."""
        result = self.export("--json", *arguments, env=env)
        assert result.exit_code == 0, result.stderr
        return dict(json.loads(result.stdout))

    def tree(self) -> dict[str, bytes | None]:
        """Every file with its bytes, every folder."""
        found = sorted(self.folder.rglob("*"))
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in found
        }

    def refuses(
        self, id: str, *arguments: str, says: str = "", env: Mapping[str, str] | None = None
    ) -> str:
        """The message of a run that must be refused with `id` and leave everything as it was."""
        before = self.tree()
        result = self.export(*arguments, env=env)
        assert isinstance(result.exception, SystemExit), result.exc_info
        message = next(
            (part for part in result.stderr.split("error ") if part.startswith(f"{id}: ")), ""
        )
        assert message, result.stderr
        assert result.exit_code == int(id[3])
        assert result.stdout == ""
        for word in says.split("…"):
            assert word.strip() in message
        assert self.tree() == before
        return message


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    for name in [name for name in os.environ if name.startswith("EDGEQ_EXPORT_")]:
        monkeypatch.delenv(name)
    place = Workplace(tmp_path / "work")
    place.folder.mkdir()
    place.model(network())
    place.samples(x=SAMPLES, y=LABELS)
    monkeypatch.chdir(place.folder)
    return place


# Models #


def external(location: str) -> onnx.ModelProto:
    proto = network()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return proto


def edited(change: Callable[[onnx.NodeProto], object]) -> onnx.ModelProto:
    proto = network()
    change(proto.graph.node[0])
    return proto


SOFTMAX = helper.make_node("Softmax", ["y"], ["s"], name="soft")
WEIGHTS = (CHANNELS, 1, 3, 3)
MODELS: dict[str, tuple[onnx.ModelProto | bytes, str, str]] = {
    "empty": (b"", "EQ0310", "net.onnx: not an ONNX file"),
    "text": (b"a model, honestly", "EQ0310", "net.onnx: not an ONNX file, or cut short"),
    "truncated": (network().SerializeToString()[:-40], "EQ0310", "cut short"),
    "external-data-elsewhere": (external("../w.bin"), "EQ0311", "kernel … '../w.bin', outside"),
    "external-data-missing": (external("w.bin"), "EQ0310", "kernel … w.bin … the file has 0"),
    "dynamic-height": (
        network(("batch", 1, "h", 8)),
        "EQ0312",
        "x: axis 2 (h) is dynamic … --shape x=1,1,h,8",
    ),
    "empty-input": (network(("batch", 1, 0, 8)), "EQ0313", "x has an empty axis"),
    "empty-weights": (
        network(constants={"kernel": np.zeros((0, 1, 3, 3), np.float32)}),
        "EQ0313",
        "kernel is empty: shape (0, 1, 3, 3)",
    ),
    "NaN-weights": (
        network(constants={"kernel": np.full(WEIGHTS, np.nan, np.float32)}),
        "EQ0314",
        "kernel: 144 of 144 values are NaN or infinite",
    ),
    "infinite-weights": (
        network(constants={"kernel": np.full(WEIGHTS, np.inf, np.float32)}),
        "EQ0314",
        "kernel: 144 of 144 values are NaN or infinite",
    ),
    "overflow": (
        network(constants={"kernel": np.full(WEIGHTS, 3e38, np.float32)}),
        "EQ0332",
        "overflows on the samples",
    ),
    "operator": (
        edited(lambda node: setattr(node, "op_type", "ConvTranspose")),
        "EQ0315",
        "conv (ConvTranspose): operator ConvTranspose is not supported … supported operators: Add",
    ),
    "attribute": (
        edited(lambda node: node.attribute.append(helper.make_attribute("frob", 3))),
        "EQ0315",
        "conv (Conv): attribute frob is not supported; 2-D, constant weights",
    ),
    "unknown-tensor": (
        edited(lambda node: node.input.__setitem__(0, "z")),
        "EQ0310",
        "conv: reads z, which nothing computes",
    ),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_bad_model_is_refused_by_name(workplace: Workplace, what: str) -> None:
    model, id, says = MODELS[what]
    workplace.file("net.onnx", model if isinstance(model, bytes) else model.SerializeToString())
    workplace.refuses(id, says=says)


def test_a_missing_model_is_a_usage_error(workplace: Workplace) -> None:
    (workplace.folder / "net.onnx").unlink()
    workplace.refuses("EQ0210", says="net.onnx: no such file")


def test_a_dynamic_axis_is_fixed_by_the_flag(workplace: Workplace) -> None:
    workplace.model(network(("batch", 1, "h", 8)))
    workplace.exports("--shape", "x=1,1,8,8")


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("edgeq", "net_edgeq"),  # runtime/edgeq.h
        ("main", "net_main"),
        ("mainline", "mainline"),
        ("selftest", "net_selftest"),
        ("harness-2", "net_harness_2"),
        ("eq_run", "net_eq_run"),
        ("3 Café", "net_3_caf"),
    ],
)
def test_a_model_is_never_called_as_a_file_of_the_build(
    workplace: Workplace, name: str, called: str
) -> None:
    shutil.copy("net.onnx", f"{name}.onnx")
    command = ["export", f"{name}.onnx", "--calib", "calib.npz", *workplace.options]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert (workplace.folder / "build" / called / f"{called}.h").is_file()


# Policies #

POLICIES: dict[str, tuple[str, str, str]] = {
    "missing": ("", "EQ0320", "policy.json: no such policy file"),
    "syntax": ("{", "EQ0320", "policy.json is no valid JSON"),
    "nested": ("[" * 100_000, "EQ0320", "policy.json is no valid JSON"),
    "long-number": ('{"schema": 1' + "0" * 5000 + "}", "EQ0320", "policy.json is no valid JSON"),
    "duplicate-key": ('{"rule": [], "rule": []}', "EQ0321", "the key 'rule' stands twice"),
    "list": ("[]", "EQ0322", "policy.json: the file"),
    "schema": ('{"schema": 2}', "EQ0322", "schema = 2"),
    "unknown-key": ('{"defaults": {}}', "EQ0322", "defaults"),
    "no-bits": ('{"default": {"weights": 0}}', "EQ0322", "default.weights = 0 … equal to 2"),
    "one-bit": ('{"default": {"weights": 1}}', "EQ0322", "default.weights = 1 … equal to 2"),
    "nine-bits": ('{"default": {"weights": 9}}', "EQ0322", "default.weights = 9 … equal to 8"),
    "bits-in-words": ('{"default": {"weights": "four"}}', "EQ0322", "'four' … integer"),
    "bits-as-real": ('{"default": {"weights": 4.0}}', "EQ0322", "4.0 … integer"),
    "bits-as-truth": ('{"default": {"weights": true}}', "EQ0322", "True … integer"),
    "idle-rule": ('{"rule": [{"match": "conv"}]}', "EQ0322", "rule.0 … sets weights, activations"),
    "infinite-range": ('{"input": {"x": {"range": [0, 1e999]}}}', "EQ0322", "inf … finite"),
    "unknown-layer": (
        '{"rule": [{"match": "cnov", "weights": 4}]}',
        "EQ0323",
        'rule 1 "cnov" matches no layer; did you mean conv?',
    ),
    "channels": ('{"input": {"x": {"mean": [0, 0]}}}', "EQ0325", "2 channels; the input has 1"),
    "unknown-input": ('{"input": {"q": {}}}', "EQ0326", "[input.q] names no input … are x"),
}


@pytest.mark.parametrize("what", POLICIES)
def test_a_bad_policy_is_refused_by_name(workplace: Workplace, what: str) -> None:
    text, id, says = POLICIES[what]
    if text:
        workplace.file("policy.json", text)
    workplace.refuses(id, "--policy", "policy.json", says=says)


def test_activations_that_a_softmax_cannot_read_are_refused(workplace: Workplace) -> None:
    workplace.model(network(("batch", 1, SIDE, SIDE), None, SOFTMAX))
    workplace.refuses(
        "EQ0324",
        "--policy",
        "w8a16",
        says="soft: softmax reads activations of at most 8 bits, and fc gives 16; give fc …",
    )


def test_a_toml_policy_with_a_key_twice_is_refused(workplace: Workplace) -> None:
    workplace.file("policy.toml", "schema = 1\nschema = 1\n")
    workplace.refuses("EQ0320", "--policy", "policy.toml", says="policy.toml is no valid TOML")


@pytest.mark.parametrize("name", ["w1a8", "w9a8", "w4", "W8A8"])
def test_a_uniform_policy_out_of_range_is_refused(workplace: Workplace, name: str) -> None:
    workplace.refuses("EQ0320", "--policy", name, says=f"{name}: no such policy file")


# Samples #

SAMPLE_FILES: dict[str, tuple[dict[str, Array], str, str]] = {
    "no-arrays": ({}, "EQ0221", "no array x; it holds nothing"),
    "other-name": ({"images": SAMPLES}, "EQ0221", "no array x; it holds images"),
    "no-samples": ({"x": SAMPLES[:0]}, "EQ0222", "x holds no samples"),
    "no-axis": ({"x": np.float32(1)}, "EQ0222", "x holds no samples"),  # type: ignore[dict-item]
    "other-shape": ({"x": SAMPLES[:, :, 1:]}, "EQ0223", "(1, 7, 8); the model takes (1, 8, 8)"),
    "integers": ({"x": SAMPLES.astype(np.int32)}, "EQ0224", "int32; samples are float32 or raw"),
    "bytes-without-meaning": ({"x": SAMPLES.astype(np.uint8)}, "EQ0224", "no [input.x]"),
    "NaN": ({"x": SAMPLES * np.nan}, "EQ0225", "x holds NaN or infinite"),
    "beyond-float32": ({"x": SAMPLES * np.float64(1e300)}, "EQ0225", "x holds NaN or infinite"),
    "pickled": ({"x": np.array([{}], object)}, "EQ0220", "Python objects"),
    "labels-too-large": ({"x": SAMPLES, "y": LABELS + 1}, "EQ0226", "1 to 10; … 0 to 9"),
    "labels-negative": ({"x": SAMPLES, "y": LABELS - 1}, "EQ0226", "-1 to 8; … 0 to 9"),
    "labels-real": ({"x": SAMPLES, "y": LABELS * 1.0}, "EQ0226", "one integer a sample"),
    "labels-one-hot": ({"x": SAMPLES, "y": np.eye(12, dtype=int)}, "EQ0226", "one integer a"),
    "labels-too-few": ({"x": SAMPLES, "y": LABELS[1:]}, "EQ0223", "disagree on the number"),
}


@pytest.mark.parametrize("flag", ["--calib", "--data"])
@pytest.mark.parametrize("what", SAMPLE_FILES)
def test_bad_samples_are_refused_by_name(workplace: Workplace, what: str, flag: str) -> None:
    arrays, id, says = SAMPLE_FILES[what]
    np.savez(workplace.folder / "bad.npz", **arrays)  # type: ignore[arg-type]
    workplace.refuses(id, flag, "bad.npz", says=f"bad.npz … {says}")


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 and no more", b"plain text"])
def test_a_file_that_is_no_archive_is_refused(workplace: Workplace, content: bytes | None) -> None:
    if content is not None:
        workplace.file("bad.npz", content)
    workplace.refuses("EQ0220", "--calib", "bad.npz", says="bad.npz")


def test_a_single_array_is_refused(workplace: Workplace) -> None:
    np.save(workplace.folder / "x.npy", SAMPLES)
    workplace.refuses("EQ0220", "--calib", "x.npy", says="single array; save it with np.savez")


def test_a_damaged_archive_is_refused_and_never_crashes(workplace: Workplace) -> None:
    np.savez_compressed(workplace.folder / "good.npz", x=SAMPLES)
    good = (workplace.folder / "good.npz").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(good)
        for place in rng.integers(len(good), size=3):
            damaged[place] = rng.integers(256)
        if zlib.crc32(damaged) != zlib.crc32(good):
            workplace.file("bad.npz", bytes(damaged))
            result = workplace.export("--calib", "bad.npz", "--flash", "1B")
            assert result.exit_code in (2, 4), result.exc_info  # 4: the damage mattered nowhere


def test_calibration_samples_are_needed(workplace: Workplace) -> None:
    result = CliRunner().invoke(main, ["export", "net.onnx", "--check", "none"])
    assert result.exit_code == 2
    assert "error EQ0202: export needs --calib" in result.stderr


@pytest.mark.parametrize("scale", [0.0, 1e-44])
def test_samples_without_signal_still_export(workplace: Workplace, scale: float) -> None:
    workplace.samples(x=SAMPLES * np.float32(scale))
    workplace.exports()


# Flags #

FLAGS: dict[str, tuple[list[str], str, str]] = {
    "unit": (["--flash", "12XB"], "EQ0201", "--flash 12XB: a size is a number with B, KB or MB"),
    "no-unit": (["--flash", "4096"], "EQ0201", "--flash 4096"),
    "nothing": (["--flash", "0KB"], "EQ0201", "--flash 0KB"),
    "negative": (["--ram", "-1KB"], "EQ0201", "--ram -1KB"),
    "endless": (["--ram", "9" * 400 + "KB"], "EQ0201", "--ram 9"),
    "size-empty": (["--flash", ""], "EQ0201", "--flash :"),
    "shape": (["--shape", "x=1,1,eight,8"], "EQ0205", "--shape x=1,1,eight,8: expected NAME="),
    "shape-empty": (["--shape", "x=1,1,0,8"], "EQ0205", "--shape x=1,1,0,8"),
    "kernel": (["--kernel", "conv"], "EQ0250", "--kernel conv: expected LAYER=KERNEL"),
    "kernel-of-nothing": (["--kernel", "q=eq_conv_s8_ref"], "EQ0251", "there are conv, "),
    "kernel-unknown": (["--kernel", "conv=conv"], "EQ0251", "there are eq_conv_s8_ref, "),
    "kernel-misfit": (["--kernel", "conv=eq_fc_s8_ref"], "EQ0350", "it computes fully_connected"),
    "shape-of-nothing": (["--shape", "q=1,1,8,8"], "EQ0211", "no input is called q; … x"),
    "shape-misfit": (["--shape", "x=1,1,9,8"], "EQ0312", "does not fit the model's batch,1,8,8"),
    "target": (["--target", "stm32f4"], "EQ0212", "'stm32f4'; did you mean stm32f405"),
    "target-odd": (["--target", "qqqq"], "EQ0212", "'qqqq'; there are … (aliases: mcu)"),
    "labels-missing": (["--labels", "names.txt"], "EQ0206", "--labels names.txt"),
    "image-missing": (["--firmware-for", "a.eqb"], "EQ0203", "a.eqb cannot be read"),
    "unknown-flag": (["--flsh", "1KB"], "EQ0200", "--flsh"),
    "unknown-choice": (["--check", "twice"], "EQ0200", "'twice' is not one of 'none', 'host'"),
    "no-value": (["--flash"], "EQ0200", "--flash"),
}


@pytest.mark.parametrize("what", FLAGS)
def test_a_bad_flag_is_refused_by_name(workplace: Workplace, what: str) -> None:
    arguments, id, says = FLAGS[what]
    workplace.refuses(id, *arguments, says=says)


def test_an_unknown_command_is_refused(workplace: Workplace) -> None:
    result = CliRunner().invoke(main, ["exprot"])
    assert result.exit_code == 2
    assert "error EQ0200: No such command 'exprot'" in result.stderr


@pytest.mark.parametrize(("names", "id"), [("a\nb\n", "EQ0227"), ("\n\n", "EQ0206")])
def test_labels_must_be_as_many_as_classes(workplace: Workplace, names: str, id: str) -> None:
    workplace.file("names.txt", names)
    workplace.refuses(id, "--labels", "names.txt")


def test_labels_are_written_whatever_they_hold(workplace: Workplace) -> None:
    names = ['a "quote"', "back\\slash", "Größe", "??/", "%s", "tab\there", *"ghij"]
    workplace.file("names.txt", "\n".join(names))
    workplace.exports("--labels", "names.txt")
    source = (workplace.folder / "build/net/net.c").read_text("utf-8")
    assert source.isascii()
    assert "#define NET_LABELS 10u" in (workplace.folder / "build/net/net.h").read_text("utf-8")


# Settings #

SETTINGS: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("[export\n", "edgeq.toml: … (at line 1"),
    "not-text": (b"\xff\xfe", "edgeq.toml: 'utf-8' codec"),
    "long-number": ("[export]\nflash = 1" + "0" * 5000, "edgeq.toml"),
    "unknown-table": ("[exprot]\n", "exprot is no table of settings; there are [export]"),
    "no-table": ("export = 3\n", "export is no table"),
    "unknown-flag": ("[export]\nflsh = '1KB'\n", "export.flsh is no flag; … flash, ram"),
    "no-list": ("[export]\nshape = 'x=1,1,8,8'\n", "export.shape = … it takes a list"),
    "list": ("[export]\nflash = ['1KB']\n", "export.flash = ['1KB']; it takes one value"),
    "inputs": ("input = 3\n", "input is no table"),
    "input": ("[input]\nx = 3\n", "input"),
    "input-std": ("[input.x]\nstd = [0]\n", "std must be positive"),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_bad_settings_are_refused_by_name(workplace: Workplace, what: str) -> None:
    content, says = SETTINGS[what]
    workplace.file("edgeq.toml", content)
    workplace.refuses("EQ0204", says=says)


def test_settings_say_flags_as_the_command_line_does(workplace: Workplace) -> None:
    settings = "[export]\nshape = ['x=1,1,8,8']\njson = true\nfirmware-for = ['a.eqb']\n"
    workplace.file("edgeq.toml", settings)
    workplace.refuses("EQ0203", says="a.eqb")


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    workplace: Workplace,
) -> None:
    def flash_budget(*arguments: str, **env: str) -> int:
        return int(workplace.exports(*arguments, env=env)["budget"]["flash"])

    assert flash_budget() == 1 << 20
    workplace.file("edgeq.toml", "[export]\nflash = '300KB'\n")
    assert flash_budget() == 300 << 10
    assert flash_budget(EDGEQ_EXPORT_FLASH="200KB") == 200 << 10
    assert flash_budget("--flash", "100KB", EDGEQ_EXPORT_FLASH="200KB") == 100 << 10


def test_every_flag_has_an_environment_variable_of_its_name(workplace: Workplace) -> None:
    env = {"EDGEQ_EXPORT_SHAPE": "x=1,1,9,8"}
    workplace.refuses("EQ0312", env=env, says="--shape x=1,1,9,8")
    workplace.refuses("EQ0203", env={"EDGEQ_EXPORT_FIRMWARE_FOR": "a.eqb"}, says="a.eqb")
    result = workplace.export(env={"EDGEQ_EXPORT_JSON": "1"})
    assert json.loads(result.stdout)["budget"]


def test_settings_may_say_what_raw_bytes_mean(workplace: Workplace) -> None:
    workplace.samples(x=np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8))
    workplace.file("edgeq.toml", "[input.x]\nrange = [0.0, 1.0]\n")
    workplace.exports()
    assert "net_input_lut" in (workplace.folder / "build/net/net.h").read_text("utf-8")


# Output #


def test_json_is_all_that_stands_on_stdout(workplace: Workplace) -> None:
    section = workplace.exports()
    assert section == json.loads(Path("build/net/report.json").read_text("utf-8"))["export"]
    schema = report.schema()
    jsonschema.validate(section, {"$defs": schema["$defs"], "$ref": "#/$defs/Export"})


def test_a_person_reads_stdout_and_progress_stands_on_stderr(workplace: Workplace) -> None:
    result = workplace.export()
    assert "written to build/net" in result.stdout.replace(os.sep, "/")
    assert "edgeq: calibrating" in result.stderr
    assert "edgeq: calibrating" not in result.stdout


def test_an_unchecked_build_says_so_and_calls_its_memory_estimated(workplace: Workplace) -> None:
    section = workplace.exports()
    assert any(note.startswith("unchecked on stm32f405: nothing") for note in section["notes"])
    assert section["flash"]["estimated"]
    assert section["ram"]["estimated"]
    assert section["compiler"] is None
    assert "about" in workplace.export().stdout


@pytest.mark.parametrize("where", ["calib.npz", "calib.npz/deeper/build"])
def test_an_output_folder_under_a_file_is_refused(workplace: Workplace, where: str) -> None:
    workplace.refuses("EQ0230" if where == "calib.npz" else "EQ0231", "-o", where)


def test_a_folder_name_that_is_too_long_is_refused(workplace: Workplace) -> None:
    workplace.refuses("EQ0231", "-o", "n" * 300, says="cannot be written")


def test_somebody_elses_files_are_not_overwritten(workplace: Workplace) -> None:
    workplace.file("thesis/chapter.txt", "years of work")
    workplace.refuses("EQ0230", "-o", "thesis", says="thesis holds files that are no edgeq build")


def test_a_build_is_replaced_whole(workplace: Workplace) -> None:
    workplace.exports("-o", "out")
    stale = workplace.file("out/runtime/stale.c", "")
    workplace.exports("-o", "out")
    assert not stale.exists()
    assert sorted(os.listdir()) == ["calib.npz", "net.onnx", "out"]


def test_an_empty_folder_is_filled(workplace: Workplace) -> None:
    (workplace.folder / "out").mkdir()
    workplace.exports("-o", "out")


def test_a_refused_export_leaves_the_build_of_before(workplace: Workplace) -> None:
    workplace.exports()
    workplace.refuses("EQ0401", "--flash", "1KB")


FULL_DISK = """
import resource, sys
from edgeq.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize(
    ("before", "limit"), [("a build", 0), ("a build", 8000), ("nothing", 2000)]
)
def test_a_full_disk_leaves_everything_as_it_was(
    workplace: Workplace, before: str, limit: int
) -> None:
    if before == "a build":
        workplace.exports()
    tree = workplace.tree()
    command = ["export", "net.onnx", "--calib", "calib.npz", "--check", "none"]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(limit), *command], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "error EQ0232: " in done.stderr
    assert "Traceback" not in done.stderr
    assert workplace.tree() == tree


# Budgets #


def least(workplace: Workplace, *options: str) -> int:
    """Bytes of flash that no choice of kernels goes below."""
    message = workplace.refuses("EQ0401", "--flash", "1B", *options)
    return int(re.search(r"over budget: (\d+) bytes", message)[1])  # type: ignore[index]


def test_suggested_rules_fit_the_budget(workplace: Workplace) -> None:
    total = least(workplace)
    limit = f"{total - 80}B"
    message = workplace.refuses("EQ0401", "--flash", limit, says="80 more than … weights")
    rules = message[message.index("[[rule]]") :]
    workplace.file("lighter.toml", rules)
    section = workplace.exports("--flash", limit, "--policy", "lighter.toml")
    assert section["flash"]["total"] <= total - 80


def test_suggested_rules_may_follow_those_of_a_policy(workplace: Workplace) -> None:
    policy = '[default]\nweights = 5\n[[rule]]\nmatch = "conv"\nweights = 8\n'
    workplace.file("policy.toml", policy)
    total = least(workplace, "--policy", "policy.toml")
    limit = f"{total - 40}B"
    message = workplace.refuses("EQ0401", "--flash", limit, "--policy", "policy.toml")
    workplace.file("lighter.toml", policy + message[message.index("[[rule]]") :])
    workplace.exports("--flash", limit, "--policy", "lighter.toml")


def test_suggested_rules_stand_alone_beside_a_uniform_policy(workplace: Workplace) -> None:
    total = least(workplace, "--policy", "w4a8")
    limit = f"{total - 16}B"
    message = workplace.refuses("EQ0401", "--flash", limit, "--policy", "w4a8")
    workplace.file("lighter.toml", message[message.index("[[rule]]") :])
    workplace.exports("--flash", limit, "--policy", "lighter.toml")


def test_what_no_policy_saves_is_said(workplace: Workplace) -> None:
    workplace.refuses("EQ0401", "--flash", "2KB", says="No policy fits: … --flash more")


def test_unpacked_weights_are_no_matter_of_the_policy(workplace: Workplace) -> None:
    arguments = ("--flash", "6KB", "--optimize", "time", "--policy", "w2a8")
    workplace.refuses("EQ0401", *arguments, says="take --optimize balanced, or flash")


def test_an_arena_over_budget_names_its_largest_tensors(workplace: Workplace) -> None:
    workplace.refuses("EQ0402", "--ram", "1KB", says="RAM is over budget … arena … 1,024 bytes")


# Other models' images #


def eqb(workplace: Workplace) -> bytes:
    workplace.exports("-o", "other")
    return (workplace.folder / "other" / "net.eqb").read_bytes()


def test_another_models_kernels_are_linked_as_well(workplace: Workplace) -> None:
    eqb(workplace)
    shutil.move("other/net.eqb", "other.eqb")
    workplace.model(network((1, 1, 8, 8), None, helper.make_node("Softmax", ["y"], ["s"])))
    workplace.exports("-o", "alone")
    workplace.exports("-o", "both", "--firmware-for", "other.eqb")
    kernels = {path.name for path in Path("both/runtime").iterdir()}
    assert kernels == {path.name for path in Path("alone/runtime").iterdir()}
    workplace.model(network())
    shutil.copy("alone/net.eqb", "softmax.eqb")
    workplace.exports("-o", "both", "--firmware-for", "other.eqb", "--firmware-for", "softmax.eqb")
    assert (workplace.folder / "both/runtime/eq_softmax_s8_ref.c").is_file()


@pytest.mark.parametrize("damage", ["a bit", "cut", "longer", "empty", "another ABI"])
def test_a_damaged_image_is_refused(workplace: Workplace, damage: str) -> None:
    data = bytearray(eqb(workplace))
    data[len(data) // 2] ^= damage == "a bit"
    struct.pack_into("<H", data, 6, image.ABI + (damage == "another ABI"))
    changed = {"cut": data[:-8], "longer": data + bytes(8), "empty": b""}.get(damage, data)
    workplace.file("damaged.eqb", bytes(changed))
    workplace.refuses("EQ0701", "--firmware-for", "damaged.eqb", says="no whole edgeq model image")


def test_an_image_that_needs_unknown_kernels_is_refused(workplace: Workplace) -> None:
    data = bytearray(eqb(workplace))
    fields = list(image.HEADER.unpack_from(data))
    fields[10] |= 1 << 31  # kernel 127
    image.HEADER.pack_into(data, 0, *fields)
    fields[4] = zlib.crc32(data[image.CRC_FROM :])
    image.HEADER.pack_into(data, 0, *fields)
    workplace.file("newer.eqb", bytes(data))
    workplace.refuses("EQ0702", "--firmware-for", "newer.eqb", says="needs kernels that edgeq")


def test_another_models_gates_are_linked_and_those_of_another_layout_refused(
    workplace: Workplace,
) -> None:
    data = bytearray(image.build(gated.program(2, "table", levels=2)).data)
    (workplace.folder / "gated.eqb").write_bytes(data)
    workplace.exports("-o", "both", "--firmware-for", "gated.eqb")
    assert (workplace.folder / "both/runtime/eq_gate_table_s8_ref.c").is_file()
    assert image.gate_version(bytes(data)) == gate_section.VERSION
    (start,) = (
        offset
        for kind, offset, _ in image.SECTION.iter_unpack(
            data[image.HEADER.size :][: image.SECTION.size * image.HEADER.unpack_from(data)[-2]]
        )
        if kind == image.Kind.GATE
    )
    record = list(gate_section.GATE.unpack_from(data, start))
    record[7] = 0  # as it was before there was a version
    gate_section.GATE.pack_into(data, start, *record)
    struct.pack_into("<I", data, 12, zlib.crc32(data[image.CRC_FROM :]))
    workplace.file("earlier.eqb", bytes(data))
    workplace.refuses("EQ0703", "--firmware-for", "earlier.eqb", says="gates of layout 0 … again")


# Tools #


@dataclass
class Machine:
    """Which tools are there."""

    programs: set[str] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with no tools but those that a test adds."""
    machine = Machine()
    find_program, find_package = shutil.which, toolchain.importlib.util.find_spec

    def which(name: str, *rest: Any) -> str | None:
        return find_program(name, *rest) if name in machine.programs else None

    def find_spec(name: str, *rest: Any) -> Any:
        known = name not in {"ziglang", "unicorn", "elftools"} or name in machine.packages
        return find_package(name, *rest) if known else None

    monkeypatch.setattr(shutil, "which", which)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", find_spec)
    return machine


def test_without_any_compiler_the_message_says_what_to_install(
    workplace: Workplace, bare: Machine
) -> None:
    workplace.options = ()
    says = "no compiler found … apt install gcc … python -m pip install"
    workplace.refuses("EQ0601", says=says)
    workplace.refuses("EQ0601", "--check", "host", says=says)


def test_without_an_emulator_the_message_says_what_to_install(
    workplace: Workplace, bare: Machine, tool: Callable[[str], object]
) -> None:
    workplace.options = ()
    bare.programs = {"cc"}
    tool("cc")
    workplace.refuses(
        "EQ0603", says='no emulator here … unicorn: python -m pip install "edgeq[mcu]"'
    )


def test_without_the_targets_compiler_the_message_says_what_to_install(
    workplace: Workplace, bare: Machine, tool: Callable[[str], object]
) -> None:
    workplace.options = ()
    bare.programs, bare.packages = {"cc"}, {"unicorn", "elftools"}
    tool("cc")
    workplace.refuses("EQ0601", says="apt install gcc-arm-none-eabi … python -m pip install")
    message = workplace.refuses("EQ0601", "--compiler", "gcc", says="gcc: apt install")
    assert "zig" not in message


def test_without_tools_everything_is_written_unchecked(workplace: Workplace, bare: Machine) -> None:
    section = workplace.exports("--check", "none")
    assert any("unchecked" in note for note in section["notes"])
    written = set(os.listdir("build/net"))
    assert written == {
        "CMakeLists.txt", "README.txt", "edgeq.mk", "manifest.json", "net.c", "net.eqb", "net.h",
        "ranges.json", "report.html", "report.json", "report.txt", "runtime", "selftest.c",
    }  # fmt: skip


def test_with_a_host_compiler_alone_the_target_stays_unchecked(
    workplace: Workplace, bare: Machine, tool: Callable[[str], object]
) -> None:
    bare.programs = {"cc"}
    tool("cc")
    section = workplace.exports("--check", "host")
    assert any("unchecked on stm32f405: this machine alone" in note for note in section["notes"])
    assert section["flash"]["estimated"]
    rows = json.loads(Path("build/net/report.json").read_text("utf-8"))["validate"]["rows"]
    assert [(row["runner"], row["verdict"]) for row in rows] == [("c-host", "exact")]


NO_TOOLS = """
import sys
sys.modules.update(ziglang=None, unicorn=None)
from edgeq.cli import main
main()
"""


def test_with_an_empty_path_nothing_is_written(workplace: Workplace) -> None:
    tree = workplace.tree()
    done = subprocess.run(
        [sys.executable, "-c", NO_TOOLS, "export", "net.onnx", "--calib", "calib.npz"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": ""},
    )
    assert done.returncode == 6
    assert "error EQ0601: no compiler found. Install one of them" in done.stderr
    assert "Traceback" not in done.stderr
    assert workplace.tree() == tree


# With compiler and emulator #


@pytest.mark.emulator
def test_rules_fit_the_linked_firmware(workplace: Workplace) -> None:
    workplace.options = ()
    total = least(workplace)
    limit = f"{total - 80}B"
    message = workplace.refuses("EQ0401", "--flash", limit)
    workplace.file("lighter.toml", message[message.index("[[rule]]") :])
    section = workplace.exports("--flash", limit, "--policy", "lighter.toml")
    assert not section["flash"]["estimated"]
    assert section["notes"] == ["input x: batch axis batch is fixed to 1", section["notes"][-1]]


@pytest.mark.emulator
def test_the_parts_of_the_flash_are_its_total_whatever_the_model_is_called(
    workplace: Workplace,
) -> None:
    shutil.copy("net.onnx", "mainline.onnx")
    result = CliRunner().invoke(
        main, ["export", "mainline.onnx", "--calib", "calib.npz", "--check", "emulator", "--json"]
    )
    flash = json.loads(result.stdout)["flash"]
    parts = [flash[part] for part in ("runtime", "kernels", "weights", "tables", "gates")]
    assert min(parts) >= 0
    assert sum(parts) == flash["total"]


def dense(inputs: int, outputs: int) -> onnx.ModelProto:
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(inputs, outputs)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "matrix"], ["y"], name="fc")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, inputs))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.emulator
@pytest.mark.parametrize(("outputs", "id"), [(1100, "EQ0401"), (1016, "EQ0403")])
def test_what_the_device_cannot_hold_is_over_budget_whatever_the_flag_says(
    workplace: Workplace, outputs: int, id: str
) -> None:
    workplace.options = ("--policy", "plain.toml")
    workplace.file("plain.toml", '[calibration]\nweights = "minmax"\n')  # the search takes long
    workplace.model(dense(1000, outputs))
    workplace.samples(x=np.random.default_rng(3).normal(size=(2, 1000)).astype(np.float32))
    workplace.refuses(id, "--flash", "4MB", says="1048576")


@pytest.mark.emulator
def test_a_mismatch_is_refused_with_the_layer_that_diverges_first(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = assemble.parity.predict

    def wrong(*arguments: Any) -> list[Array]:
        return [array ^ 1 for array in predict(*arguments)]

    monkeypatch.setattr(assemble.parity, "predict", wrong)
    workplace.options = ("--check", "host")
    workplace.refuses("EQ0506", says="c-host … differs from the prediction on 12 of 12 samples")


def test_every_id_names_one_kind_of_refusal() -> None:
    root = Path(assemble.__file__).parent
    sources = [*root.rglob("*.py"), *(root.parent / "targets").glob("*.py")]
    sources += (root.parent / "exporters").glob("*.py")
    text = "\n".join(path.read_text("utf-8") for path in sources)
    raised = re.findall(r"(\w+Error)\(\s*\"(EQ0\d{3})\"", text)
    kinds: dict[str, set[str]] = {}
    for error, id in raised:
        kinds.setdefault(id, set()).add(error)
    assert all(len(errors) == 1 for errors in kinds.values()), kinds
