"""MLPerf Tiny's own files: their int8 integers equal to TFLM's, their float models quantised here.

Measured on 1,000 keyword samples and 1,000 CIFAR images (JPEG pixels): no value differs, neither in
the reference nor in C. Keywords: 90.1 % for both, 90.2 % where a tie with the right class counts.
Flash on the STM32F405 with runtime and kernels: 39.9 KB, the .tflite alone has 52.7 KB; 90.8 KB of
96.2 KB for images. Float models by PTQ at W8A8: keywords 90.6, 90.5, 90.4 % (three calibration
seeds) against 90.1; images 76.1, 75.9, 76.0 % of 4,000 against 75.9.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundled import DATA
from tflites import tflm

import edgeq
from edgeq import parity, pipeline, policy, samples, targets
from edgeq.exporters import image
from edgeq.targets.runners import HostProgram, HostRunner

Array = np.ndarray[Any, Any]

MODELS = DATA / "models"
FILES = {"kws": "mlperf_kws_dscnn", "ic": "mlperf_ic_resnet8"}
SAMPLES, NIGHTLY_SAMPLES = 50, 1000
CALIBRATION, SEEDS = 128, 3
WITHIN = 0.003  # of the official accuracy
KEYWORD_ACCURACY = 0.902
KEYWORD_INPUT = (0.5847029089927673, 83)  # scale and zero point of the features


def model(name: str, kind: str) -> Path:
    path = MODELS / f"{FILES[name]}_{kind}.tflite"
    if not path.is_file():
        pytest.skip(f"{path.name} is missing: set EDGEQ_DATA")
    return path


@cache
def keywords() -> tuple[Array, Array]:
    """The model's own integers, and labels."""
    with np.load(DATA / "kws_mlperf_features.npz") as archive:
        return archive["mfcc_int8"].reshape(-1, 49, 10, 1), archive["y"].astype(np.int64)


@cache
def cifar() -> tuple[Array, Array, Array]:
    """Training images, test images and test labels; bytes."""
    pytest.importorskip("PIL")
    spec = importlib.util.spec_from_file_location("load_cifar10", DATA / "load_cifar10.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    train, _, test, labels = module.load()
    return train, test, labels.astype(np.int64)


def inputs(name: str, count: int) -> Array:
    """The first samples as int8; random ones for images in the normal suite."""
    if name == "kws":
        return keywords()[0][:count]
    if count <= SAMPLES:
        return np.random.default_rng(0).integers(-128, 128, (count, 32, 32, 3)).astype(np.int8)
    return (cifar()[1][:count].astype(np.int16) - 128).astype(np.int8)


def compiled(path: Path, calibration: samples.Samples | None) -> pipeline.Compiled:
    return pipeline.compile(
        pipeline.read(path), policy.load("w8a8"), {}, calibration, targets.load("stm32f405"),
        "flash", (), lambda stage, done, total: None,
    )  # fmt: skip


def assert_equal(name: str, count: int, host: HostProgram) -> Array:
    """TFLM, the reference and C on this machine give the same; what they give."""
    path = model(name, "int8")
    given = inputs(name, count)
    program = compiled(path, None).program
    feeds = {program.inputs[0].tensor.name: given}
    expected = parity.expect(program, feeds)
    predicted = expected.outputs
    (wanted,) = tflm([(path.read_bytes(), given)])
    assert np.array_equal(predicted[0], wanted.reshape(predicted[0].shape))
    row = parity.compare(program, HostRunner(host, image.build(program).data), expected)
    assert (row.samples, row.mismatches) == (count, 0)
    return predicted[0]


@pytest.mark.parametrize("name", FILES)
def test_every_output_is_tflms(name: str, host_program: HostProgram) -> None:
    assert_equal(name, SAMPLES, host_program)


@pytest.mark.nightly
@pytest.mark.parametrize("name", FILES)
def test_every_output_of_1000_samples_is_tflms(name: str, host_program: HostProgram) -> None:
    assert_equal(name, NIGHTLY_SAMPLES, host_program)


def test_keywords_are_recognised_as_by_the_official_model() -> None:
    """One of the thousand has two winners, softmax being of 8 bits: a tie counts here."""
    program = compiled(model("kws", "int8"), None).program
    features, labels = keywords()
    outputs = parity.predict(program, {program.inputs[0].tensor.name: features})[0]
    outputs = outputs.reshape(len(labels), -1)
    right = outputs[np.arange(len(labels)), labels] == outputs.max(axis=1)
    assert right.mean() == pytest.approx(KEYWORD_ACCURACY)


@pytest.mark.parametrize("name", FILES)
def test_it_runs_on_the_stm32f405_in_less_flash_than_its_file(
    name: str, tmp_path: Path, tool: Any
) -> None:
    tool("arm-none-eabi-gcc")
    path = model(name, "int8")
    size = path.stat().st_size
    build = edgeq.export(path, target="stm32f405", out=tmp_path / "build", flash=size)
    section = build.report.export
    assert section.flash.total <= section.budget.flash == size
    assert section.ram.total <= section.budget.ram
    assert [(row.runner, row.verdict.value) for row in build.report.validate.rows] == [
        ("c-host", "exact"),
        ("emulator", "exact"),
    ]
    assert "no samples given: checked on random inputs" in section.notes


def accuracy(compiled: pipeline.Compiled, given: Array, labels: Array) -> float:
    program = compiled.program
    outputs = parity.predict(program, {program.inputs[0].tensor.name: given})
    found = parity.top1(outputs, labels)
    assert found is not None
    return found


@pytest.mark.nightly
@pytest.mark.parametrize("name", FILES)
def test_the_float_model_quantised_here_is_as_accurate_as_the_official_one(name: str) -> None:
    """The mean of three calibration seeds; images are raw bytes, 0..255."""
    official = compiled(model(name, "int8"), None)
    if name == "kws":
        integers, labels = keywords()
        scale, zero = KEYWORD_INPUT
        reals = ((integers.astype(np.float64) - zero) * scale).astype(np.float32)
        pool = reals
    else:
        train, test, labels = cifar()
        test, labels = test[:4000], labels[:4000]
        reals, pool = test.astype(np.float32), train
        integers = (test.astype(np.int16) - 128).astype(np.int8)
    wanted = accuracy(official, integers, labels)
    found = []
    for seed in range(SEEDS):
        chosen = np.random.default_rng(seed).permutation(len(pool))[:CALIBRATION]
        path = model(name, "fp32")
        tensor = pipeline.read(path).source.inputs[0].tensor
        calibration = samples.Samples({tensor: pool[chosen].astype(np.float32)}, None, {})
        ours = compiled(path, calibration)
        found.append(accuracy(ours, ours.program.inputs[0].quantize(reals), labels))
    assert np.mean(found) >= wanted - WITHIN, (found, wanted)
