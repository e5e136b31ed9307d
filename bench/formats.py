"""W8A8 by edgeq and by its peers: one float ONNX file, the same calibration images, one run.

    python bench/formats.py fashion-resnet8|resnet20 [IMAGES [SEEDS [PYTHON]]]

Every artefact runs on the first IMAGES of 10,000 test images, at the default settings of its
runtime: an ONNX file in onnxruntime, a TFLite file in LiteRT. Each of the SEEDS draws 128
unlabelled training images to calibrate on. PYTHON is an interpreter that has NNCF, onnx and
ai-edge-quantizer; where one fails, its words stand in place of figures. At 8 bits top-1 is within
its own noise; `as float`, the share of images with the float network's class, tells more. Seconds
are of the processor, without imports.
Needs the extra tflite and, in the folder that EDGEQ_DATA names, fashion_mnist.npz, or what
`bench/resnet20.py` needs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import float_tflite
import numpy as np
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
    shape_inference,
)

from edgeq import examples, pipeline, policy, targets
from edgeq.exporters import onnx_qdq, tflite
from edgeq.ir import Array
from edgeq.policy import InputSpec
from edgeq.program import Program
from edgeq.samples import Samples

DATA = Path(os.environ.get("EDGEQ_DATA", ""))
CALIBRATION = 128
BATCH = 100
FEW = 100
METHODS = ("MinMax", "Entropy", "Percentile")
ALGORITHMS = ("MIN_MAX_UNIFORM_QUANT", "MSE", "OCTAV")
NNCF = """
import logging, sys, time
import numpy as np, onnx, nncf
nncf.set_log_level(logging.ERROR)
source, samples, out, fast = sys.argv[1:]
images = np.moveaxis(np.load(samples)["x"], -1, 1)
start = time.process_time()
model = nncf.quantize(
    onnx.load(source),
    nncf.Dataset([image[None] for image in images], lambda image: {"x": image}),
    subset_size=len(images),
    fast_bias_correction=fast == "fast",
)
onnx.save(model, out)
print(time.process_time() - start)
"""

AI_EDGE_QUANTIZER = """
import sys, time
import numpy as np
from ai_edge_quantizer import algorithm_manager, quantizer, recipe
source, samples, out, algorithm = sys.argv[1:]
images = np.load(samples)["x"]
start = time.process_time()
algorithms = algorithm_manager.AlgorithmName
made = quantizer.Quantizer(source, recipe.static_wi8_ai8(algorithms[algorithm]))
ranges = made.calibrate({"serving_default": [{"x": image[None]} for image in images]})
made.quantize(ranges, enable_progress_report=False).export_model(out, overwrite=True)
print(time.process_time() - start)
"""

Quantize = Callable[[Array, Path], float]  # raw images, result: seconds


@dataclass(frozen=True)
class Task:
    """A float model as files, and its images: raw, channels last."""

    file: Path
    tflite: Path  # the same, channels last
    spec: InputSpec
    training: Array
    test: Array
    labels: Array

    def reals(self, raw: Array) -> Array:
        """As the float model takes them."""
        return np.ascontiguousarray(np.moveaxis(self.spec.real(raw), -1, 1), np.float32)


@dataclass(frozen=True)
class Tool:
    """A way to quantise, and the form of its artefact."""

    name: str
    suffix: str
    quantize: Quantize


class ToolError(Exception):
    """A tool failed; in its own words."""


class Reader(CalibrationDataReader):
    """Calibration images, one by one."""

    def __init__(self, images: Array) -> None:
        self.feeds: Iterator[dict[str, Array]] = iter([{"x": image[None]} for image in images])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


def main() -> None:
    given = dict(zip(("model", "images", "seeds", "python"), sys.argv[1:], strict=False))
    images, seeds = int(given.get("images", 10_000)), int(given.get("seeds", 3))
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = TASKS[given["model"]](folder)
        tools = rows(task, given.get("python", sys.executable))
        labels, real = task.labels[:images], classes(task.file, task, images)
        same = classes(task.tflite, task, FEW) == real[:FEW]
        assert same.all(), "the float TFLite model is not the ONNX model"
        print(f"{given['model']}: float {(real == labels).mean():.2%}, {images:,} images")
        print("| tool | seeds | mean | as float | bytes | CPU s |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        for tool in tools:
            out, seconds = folder / f"quantized{tool.suffix}", 0.0
            hits, agreed = [], []
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                chosen = rng.choice(len(task.training), CALIBRATION, replace=False)
                try:
                    seconds += tool.quantize(task.training[np.sort(chosen)], out)
                except ToolError as error:
                    print(f"| {tool.name} | {error} | | | | |", flush=True)
                    break
                found = classes(out, task, images)
                hits.append((found == labels).mean())
                agreed.append((found == real).mean())
            else:
                each = ", ".join(f"{one:.2%}" for one in hits)
                row = f"{each} | {np.mean(hits):.2%} | {np.mean(agreed):.2%}"
                size = out.stat().st_size
                print(f"| {tool.name} | {row} | {size:,} | {seconds / seeds:.1f} |", flush=True)


def classes(file: Path, task: Task, images: int) -> Array:
    """What a file says of each image, in its runtime."""
    return RUNTIMES[file.suffix](file, task, task.test[:images]).argmax(axis=1)


def by_onnxruntime(file: Path, task: Task, raw: Array) -> Array:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    parts = [
        session.run(None, {"x": task.reals(raw[start : start + BATCH])})[0]
        for start in range(0, len(raw), BATCH)
    ]
    return np.concatenate(parts)


def by_litert(file: Path, task: Task, raw: Array) -> Array:
    """Outputs as the file gives them: integers of one scale have the order of what they mean."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(file), num_threads=1)
    runner.allocate_tensors()
    (source,), (result,) = runner.get_input_details(), runner.get_output_details()
    inputs = task.spec.real(raw).astype(np.float32)
    if source["dtype"] is np.int8:
        scale, zero = source["quantization"]
        inputs = np.clip(np.rint(inputs / scale) + zero, -128, 127).astype(np.int8)
    rows = []
    for image in inputs:
        runner.set_tensor(source["index"], image[None])
        runner.invoke()
        rows.append(runner.get_tensor(result["index"]))
    return np.concatenate(rows)


RUNTIMES = {".onnx": by_onnxruntime, ".tflite": by_litert}


def rows(task: Task, python: str) -> list[Tool]:
    """Every tool and setting."""

    def edgeq(export: Callable[[Program, Path], None]) -> Quantize:
        def quantize(raw: Array, out: Path) -> float:
            start = time.process_time()
            model = pipeline.read(task.file)
            port = model.source.inputs[0]
            samples = Samples({port.tensor: raw}, None, {port.tensor: task.spec})
            compiled = pipeline.compile(
                model, policy.load("w8a8"), {port.name: task.spec}, samples, targets.load("edge"),
                "flash", (), lambda *_: None,
            )  # fmt: skip
            export(compiled.program, out)
            return time.process_time() - start

        return quantize

    def static(method: str) -> Quantize:
        def quantize(raw: Array, out: Path) -> float:
            start = time.process_time()
            prepared = out.with_name("prepared.onnx")
            shape_inference.quant_pre_process(str(task.file), str(prepared))
            with contextlib.redirect_stdout(io.StringIO()):
                quantize_static(
                    str(prepared),
                    str(out),
                    Reader(task.reals(raw)),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod[method],
                )
            return time.process_time() - start

        return quantize

    def elsewhere(script: str, file: Path, setting: str) -> Quantize:
        def quantize(raw: Array, out: Path) -> float:
            samples = out.with_name("samples.npz")
            np.savez(samples, x=task.spec.real(raw).astype(np.float32))
            command = [python, "-c", script, str(file), str(samples), str(out), setting]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise ToolError(done.stderr.strip().splitlines()[-1])
            return float(done.stdout.split()[-1])

        return quantize

    def ai_edge(algorithm: str) -> Quantize:
        return elsewhere(AI_EDGE_QUANTIZER, task.tflite, algorithm)

    return [
        Tool("edgeq, ONNX", ".onnx", edgeq(onnx_qdq.export)),
        Tool("edgeq, TFLite", ".tflite", edgeq(tflite.export)),
        *(Tool(f"onnxruntime quantize_static, {m}", ".onnx", static(m)) for m in METHODS),
        *(Tool(f"ai-edge-quantizer, {a}", ".tflite", ai_edge(a)) for a in ALGORITHMS),
        *(
            Tool(f"NNCF, {speed} bias correction", ".onnx", elsewhere(NNCF, task.file, speed))
            for speed in ("fast", "full")
        ),
    ]


def fashion(folder: Path) -> Task:
    """The bundled example."""
    bundled = examples.path("fashion-resnet8")
    spec = policy.load(examples.policy("fashion-resnet8")).input["x"]
    with np.load(DATA / "fashion_mnist.npz") as archive:
        arrays = [archive[name] for name in ("x_train", "x_test", "y_test")]
    training, test, labels = arrays
    file = bundled / "model.onnx"
    return Task(file, as_tflite(file, folder), spec, training[..., None], test[..., None], labels)


def cifar(folder: Path) -> Task:
    """ResNet-20, as PyTorch exports it."""
    import resnet20
    import torch

    module = resnet20.ResNet20().eval()
    module.load_state_dict(torch.load(resnet20.CHECKPOINT, weights_only=True)["state_dict"])
    file = folder / "resnet20.onnx"
    exported = torch.onnx.export(
        module,
        (torch.zeros(2, 3, 32, 32),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert exported is not None
    exported.save(file)
    return Task(file, as_tflite(file, folder), resnet20.SPEC, *resnet20.cifar())


def as_tflite(model: Path, folder: Path) -> Path:
    file = folder / "float.tflite"
    file.write_bytes(float_tflite.build(pipeline.read(model).graph))
    return file


TASKS = {"fashion-resnet8": fashion, "resnet20": cifar}


if __name__ == "__main__":
    main()
