"""W8A8 by edgeq and by its peers: one float ONNX file, the same calibration images, one run.

    python bench/formats.py fashion-resnet8|resnet20 [IMAGES [SEEDS [PYTHON]]]

Every artefact is an ONNX file that onnxruntime runs at its default settings on the first IMAGES of
10,000 test images. Each of the SEEDS draws 128 unlabelled training images to calibrate on. PYTHON
is an interpreter that has NNCF. At 8 bits top-1 is within its own noise; `as float`, the share of
images with the float network's class, tells more. Seconds are of the processor, without imports.
Needs, in the folder that EDGEQ_DATA names, fashion_mnist.npz, or what `bench/resnet20.py` needs.
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
from edgeq.exporters import onnx_qdq
from edgeq.ir import Array
from edgeq.policy import InputSpec
from edgeq.samples import Samples

DATA = Path(os.environ.get("EDGEQ_DATA", ""))
CALIBRATION = 128
BATCH = 100
METHODS = ("MinMax", "Entropy", "Percentile")
NNCF = """
import logging, sys, time
import numpy as np, onnx, nncf
nncf.set_log_level(logging.ERROR)
source, samples, out, fast = sys.argv[1:]
images = np.load(samples)["x"]
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

Quantize = Callable[[Path, Array, Path], float]  # float file, raw images, result: seconds


@dataclass(frozen=True)
class Task:
    """A float model as a file, and its images: raw, channels last."""

    file: Path
    spec: InputSpec
    training: Array
    test: Array
    labels: Array

    def reals(self, raw: Array) -> Array:
        """As the float model takes them."""
        return np.ascontiguousarray(np.moveaxis(self.spec.real(raw), -1, 1), np.float32)


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
        tools = rows(task, given.get("python"))
        labels, real = task.labels[:images], classes(task.file, task, images)
        print(f"{given['model']}: float {(real == labels).mean():.2%}, {images:,} images")
        print("| tool | seeds | mean | as float | bytes | CPU s |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        for tool, quantize in tools.items():
            out, seconds = folder / "quantized.onnx", 0.0
            hits, agreed = [], []
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                chosen = rng.choice(len(task.training), CALIBRATION, replace=False)
                try:
                    seconds += quantize(task.file, task.training[np.sort(chosen)], out)
                except ToolError as error:
                    print(f"| {tool} | {error} | | | | |", flush=True)
                    break
                found = classes(out, task, images)
                hits.append((found == labels).mean())
                agreed.append((found == real).mean())
            else:
                each = ", ".join(f"{one:.2%}" for one in hits)
                row = f"{each} | {np.mean(hits):.2%} | {np.mean(agreed):.2%}"
                size = out.stat().st_size
                print(f"| {tool} | {row} | {size:,} | {seconds / seeds:.1f} |", flush=True)


def classes(file: Path, task: Task, images: int) -> Array:
    """What an ONNX file says of each image, in onnxruntime."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    parts = [
        session.run(None, {"x": task.reals(task.test[start : min(start + BATCH, images)])})[0]
        for start in range(0, images, BATCH)
    ]
    return np.asarray(np.concatenate(parts).argmax(axis=1))


def rows(task: Task, python: str | None) -> dict[str, Quantize]:
    """Every tool and setting, by what it is called."""

    def edgeq(file: Path, raw: Array, out: Path) -> float:
        start = time.process_time()
        model = pipeline.read(file)
        port = model.source.inputs[0]
        samples = Samples({port.tensor: raw}, None, {port.tensor: task.spec})
        compiled = pipeline.compile(
            model, policy.load("w8a8"), {port.name: task.spec}, samples, targets.load("edge"),
            "flash", (), lambda *_: None,
        )  # fmt: skip
        onnx_qdq.export(compiled.program, out)
        return time.process_time() - start

    def static(method: str) -> Quantize:
        def quantize(file: Path, raw: Array, out: Path) -> float:
            start = time.process_time()
            prepared = out.with_name("prepared.onnx")
            shape_inference.quant_pre_process(str(file), str(prepared))
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

    def nncf(speed: str) -> Quantize:
        def quantize(file: Path, raw: Array, out: Path) -> float:
            samples = out.with_name("samples.npz")
            np.savez(samples, x=task.reals(raw))
            command = [str(python), "-c", NNCF, str(file), str(samples), str(out), speed]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise ToolError(done.stderr.strip().splitlines()[-1])
            return float(done.stdout.split()[-1])

        return quantize

    tools: dict[str, Quantize] = {"edgeq": edgeq}
    tools |= {f"onnxruntime quantize_static, {method}": static(method) for method in METHODS}
    if python is not None:
        tools |= {f"NNCF, {speed} bias correction": nncf(speed) for speed in ("fast", "full")}
    return tools


def fashion(folder: Path) -> Task:
    """The bundled example."""
    bundled = examples.path("fashion-resnet8")
    spec = policy.load(bundled / "policy.toml").input["x"]
    with np.load(DATA / "fashion_mnist.npz") as archive:
        arrays = [archive[name] for name in ("x_train", "x_test", "y_test")]
    training, test, labels = arrays
    return Task(bundled / "model.onnx", spec, training[..., None], test[..., None], labels)


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
    return Task(file, resnet20.SPEC, *resnet20.cifar())


TASKS = {"fashion-resnet8": fashion, "resnet20": cifar}


if __name__ == "__main__":
    main()
