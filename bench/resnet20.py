"""ResNet-20 on CIFAR-10 from its PyTorch checkpoint: accuracy by bits, with and without AdaRound.

    python bench/resnet20.py [IMAGES [SEEDS]]

Needs the extra torch, Pillow, and in the folder that EDGEQ_DATA names `load_cifar10.py`,
`cifar10_jpegpack.npz` and `models/resnet20_cifar10_jpegfinetuned.pt`. Test images are the first
IMAGES of 10,000; the integer reference runs them, which computes what the device computes. Each of
the SEEDS draws 128 unlabelled training images to calibrate on.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeq import floatrun, parity, pipeline, targets
from edgeq.ir import Array
from edgeq.pipeline import Compiled, Model
from edgeq.policy import Calibration, InputSpec, Policy, Precision, Rule
from edgeq.samples import Samples

DATA = Path(os.environ.get("EDGEQ_DATA", ""))
CHECKPOINT = DATA / "models" / "resnet20_cifar10_jpegfinetuned.pt"
SPEC = InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TRAINING, CALIBRATION = 50_000, 128
BATCH = 500

ENDS = (Rule(match="conv1", weights=8), Rule(match="linear", weights=8))
ADAROUND = Calibration(rounding="adaround")
# name, bits of the weights, rules, calibration, least accuracy
ROWS = (
    ("W8A8", 8, (), Calibration(), 0.8775),
    ("W4A8, first and last layer 8", 4, ENDS, Calibration(), 0.868),
    ("W3A8, first and last layer 8", 3, ENDS, Calibration(), 0.840),
    ("W4A8, AdaRound", 4, (), ADAROUND, 0.876),
    ("W3A8, AdaRound", 3, (), ADAROUND, 0.868),
)


class Shortcut(nn.Module):
    """Every other pixel, and channels of zeros on both sides (option A: no weights)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        pad = self.channels // 4
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))


class Block(nn.Module):
    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        stride = 1 if inputs == channels else 2
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if stride == 1 else Shortcut(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    """As in github.com/akamaster/pytorch_resnet_cifar10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.avg_pool2d(x, x.size(3)).flatten(1))


def main() -> None:
    images, seeds = (int(text) for text in (sys.argv[1:] + ["10000", "3"][len(sys.argv) - 1 :]))
    torch.set_num_threads(1)
    training, test, labels = cifar()
    test, labels = test[:images], labels[:images]
    model = pipeline.read(
        Path(f"{Path(__file__).stem}:ResNet20@{CHECKPOINT}"), {"x": (1, 3, 32, 32)}
    )
    ours, theirs = float_top1(model, test, labels), torch_top1(test, labels)
    print(f"{len(test):,} images; float {ours:.2%}, by torch {theirs:.2%}", flush=True)
    print("| bits | seeds | mean | at least | CPU s |\n| --- | --- | ---: | ---: | ---: |")
    for name, bits, rules, settings, least in ROWS:
        chosen = Policy(default=Precision(weights=bits), rule=rules, calibration=settings)
        start = time.process_time()
        programs = [compiled(model, chosen, draw(training, seed)) for seed in range(seeds)]
        seconds = (time.process_time() - start) / seeds
        found = [top1(program, test, labels) for program in programs]
        each = ", ".join(f"{one:.2%}" for one in found)
        print(
            f"| {name} | {each} | {np.mean(found):.2%} | {least:.2%} | {seconds:.0f} |", flush=True
        )


def cifar() -> tuple[Array, Array, Array]:
    """Training and test images, raw and channels last, and the labels of these."""
    where = DATA / "load_cifar10.py"
    spec = importlib.util.spec_from_file_location("load_cifar10", where)
    if spec is None or spec.loader is None or not where.is_file():
        sys.exit(f"{where} is missing; EDGEQ_DATA names its folder")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    training, _, test, labels = loader.load()
    return training, test, labels.astype(np.int64)


def draw(training: Array, seed: int) -> Array:
    """Calibration images."""
    chosen = np.random.default_rng(seed).choice(TRAINING, CALIBRATION, replace=False)
    return training[np.sort(chosen)]


def samples(model: Model, raw: Array) -> Samples:
    tensor = model.graph.inputs[0]
    return Samples({tensor: raw}, None, {tensor: SPEC})


def compiled(model: Model, chosen: Policy, raw: Array) -> Compiled:
    specs, target = {model.source.inputs[0].name: SPEC}, targets.load("mcu")
    return pipeline.compile(
        model, chosen, specs, samples(model, raw), target, "flash", (), lambda *_: None
    )


def top1(built: Compiled, test: Array, labels: Array) -> float:
    """Accuracy of the integers, images as raw bytes through the table that the device has."""
    port = built.program.inputs[0]
    right = 0.0
    for start in range(0, len(test), BATCH):
        inputs = {port.tensor.name: port.quantize(test[start : start + BATCH])}
        outputs = parity.predict(built.program, inputs)
        right += BATCH * (parity.top1(outputs, labels[start : start + BATCH]) or 0)
    return right / len(test)


def float_top1(model: Model, test: Array, labels: Array) -> float:
    session = floatrun.FloatRun(model.graph)
    name = model.graph.outputs[0]
    parts = [
        session(samples(model, test[start : start + BATCH]).real())[name]
        for start in range(0, len(test), BATCH)
    ]
    return float((np.concatenate(parts).argmax(axis=1) == labels).mean())


def torch_top1(test: Array, labels: Array) -> float:
    module = ResNet20().eval()
    module.load_state_dict(torch.load(CHECKPOINT, weights_only=True)["state_dict"])
    with torch.no_grad():
        parts = [
            module(torch.from_numpy(SPEC.real(test[start : start + BATCH])).permute(0, 3, 1, 2))
            for start in range(0, len(test), BATCH)
        ]
    return float((torch.cat(parts).argmax(dim=1).numpy() == labels).mean())


if __name__ == "__main__":
    main()
