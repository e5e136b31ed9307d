"""Trains the ResNet-8 of MLPerf Tiny with three early exits, all together, on CIFAR-10.

    python bench/quee_nets.py FOLDER

Thirty epochs in floats; then sixteen at lower rates, in which every second batch has weights and
activations of 4 bits where level 1 has them, the last six with normalisation as it stays.

Needs the extra torch, Pillow, and in the folder that EDGEQ_DATA names `load_cifar10.py` and
`cifar10_jpegpack.npz`. The last 5,000 training images are left out (`quee.py` has them as its
validation fold); the test images serve for nothing but the accuracy printed at the end. FOLDER gets
`checkpoint.pt` after each epoch in floats, from which a run that was broken off goes on, and at the
end `model.onnx`, the backbone, whose heads `edgeq.fit` trains anew.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from edgeq.examples import train as recipe

DATA = Path(os.environ.get("EDGEQ_DATA", ""))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HELD_OUT = 5_000  # training images of no use here
BATCH, DECAY, SHIFT = 128, 2e-4, 4
EPOCHS, RATE = 30, 0.1
LOW = ((10, 0.03, 0.05), (6, 0.01, 0.0))  # epochs, rate, and how fast normalisation follows
MOST_WEIGHT, MOST_ACTIVATION = 7, 15  # of 4 bits, symmetric and after a ReLU
SHARES = torch.linspace(1, 0.2, 33)  # of the range of what a layer reads, of which one is kept
LASTS = 50  # rounded batches that a range serves
WEIGHTS = (0.4, 0.7, 1.0, 1.0)  # of the exits' losses; the last exit's is the network's own
SIDE = 4  # of what a head pools to


class Stack(nn.Module):
    """A residual block of two convolutions, with one of 1 x 1 on the shortcut where it strides."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        stride = 1 if inputs == channels else 2
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.append(nn.Conv2d(inputs, channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(y)) + self.shortcut(x))


class Head(nn.Module):
    """Average pooling to 4 x 4, then one fully connected layer."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(side // SIDE)
        self.fc = nn.Linear(channels * SIDE * SIDE, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(x).flatten(1))


class ResNet8(nn.Module):
    """The backbone: logits, and of `boundaries` what the exits read besides."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.stack1, self.stack2, self.stack3 = Stack(16, 16), Stack(16, 32), Stack(32, 64)
        self.pool, self.flatten = nn.AvgPool2d(8), nn.Flatten()
        self.fc = nn.Linear(64, classes)

    def boundaries(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        first = self.relu(self.norm(self.conv(x)))
        second = self.stack1(first)
        third = self.stack2(second)
        return [first, second, third], self.fc(self.flatten(self.pool(self.stack3(third))))

    def forward(self, x: Tensor) -> Tensor:
        return self.boundaries(x)[1]


class WithExits(nn.Module):
    """The backbone and a head after its stem and its first two stacks: logits of every exit."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet8()
        self.heads = nn.ModuleList([Head(16, 32, 10), Head(16, 32, 10), Head(32, 16, 10)])

    def forward(self, x: Tensor) -> list[Tensor]:
        features, logits = self.backbone.boundaries(x)
        return [*(head(one) for head, one in zip(self.heads, features, strict=True)), logits]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    images, labels, test, answers = cifar()
    images, labels = images[:-HELD_OUT], labels[:-HELD_OUT]
    module = WithExits().to(memory_format=torch.channels_last)
    train(module, images, labels, EPOCHS, RATE, folder / "checkpoint.pt")
    for epochs, rate, momentum in LOW:
        rounding = Rounding(module, momentum)
        train(module, images, labels, epochs, rate, rounding=rounding)
        rounding.remove()
    found = accuracy(module, test, answers)
    print("test:", ", ".join(f"{one:.2%}" for one in found), flush=True)
    module.eval()
    onnx.save(recipe.export(module.backbone, (3, 32, 32)), folder / "model.onnx")


class Rounding:
    """While `on`, convolutions of the stacks have weights and inputs of 4 bits.

    Gradients pass as if nothing were rounded. Weights have the range of each filter, inputs the one
    of least squared error, as export finds them. Normalisation learns from other batches alone,
    by `momentum`; without one it goes by what it has learned.
    """

    def __init__(self, module: WithExits, momentum: float) -> None:
        backbone = module.backbone
        self.on, self.momentum = False, momentum
        self.norms = [one for one in module.modules() if isinstance(one, nn.BatchNorm2d)]
        stacks = (backbone.stack1, backbone.stack2, backbone.stack3)
        self.layers = [m for one in stacks for m in one.modules() if isinstance(m, nn.Conv2d)]
        self.hooks = [layer.register_forward_pre_hook(self._inputs) for layer in self.layers]
        self.ranges: dict[nn.Module, tuple[Tensor, int]] = {}  # and for how many batches yet
        for layer in self.layers:
            parametrize.register_parametrization(layer, "weight", _Weights(self))

    def turn(self, on: bool) -> None:
        self.on = on
        for norm in self.norms:
            norm.train(self.momentum > 0)
            norm.momentum = 0.0 if on else self.momentum

    def remove(self) -> None:
        """Layers as they were, with what they have learned."""
        self.turn(False)
        for hook in self.hooks:
            hook.remove()
        for layer in self.layers:
            parametrize.remove_parametrizations(layer, "weight")

    def _inputs(self, layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not self.on:
            return None
        x = args[0].float()
        most, left = self.ranges.get(layer, (torch.zeros(()), 0))
        if not left:
            most, left = _range(x.detach()), LASTS
        self.ranges[layer] = (most, left - 1)
        return (_rounded(x.clamp(torch.zeros(()), most), most / MOST_ACTIVATION),)


def _range(x: Tensor) -> Tensor:
    """Where values should end that are rounded to 4 bits, for the least squared error."""
    some, most = x.flatten()[:: max(1, x.numel() // 100_000)], x.max()
    ends = SHARES * most
    errors = [
        (_rounded(some.clamp(max=float(e)), e / MOST_ACTIVATION) - some).square().sum()
        for e in ends
    ]
    return ends[int(torch.stack(errors).argmin())]


def _rounded(x: Tensor, step: Tensor) -> Tensor:
    """Multiples of `step`; the gradient is that of `x`."""
    return x + ((x / step).round() * step - x).detach()


class _Weights(nn.Module):
    """Weights, of 4 bits for each filter while its `rounding` is on."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self.rounding = rounding

    def forward(self, weight: Tensor) -> Tensor:
        if not self.rounding.on:
            return weight
        return _rounded(weight, weight.detach().abs().amax((1, 2, 3), keepdim=True) / MOST_WEIGHT)


def train(
    module: WithExits,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    rate: float,
    file: Path | None = None,
    rounding: Rounding | None = None,
) -> None:
    """SGD with a cosine schedule and one epoch of warming up; images are raw, (N, 3, 32, 32)."""
    parts = [{"params": [p for p in module.parameters() if p.ndim > 1], "weight_decay": DECAY}]
    parts.append({"params": [p for p in module.parameters() if p.ndim == 1], "weight_decay": 0.0})
    optimiser = torch.optim.SGD(parts, rate, momentum=0.9, nesterov=True)
    steps = len(images) // BATCH
    first = 0
    if file is not None and file.exists():
        saved = torch.load(file, weights_only=True)
        module.load_state_dict(saved["state"])
        first = saved["epochs"]
    for epoch in range(first, epochs):
        start, total = time.perf_counter(), 0.0
        module.train()
        order = torch.randperm(len(images))
        for step in range(steps):
            done = epoch + step / steps
            for group in optimiser.param_groups:
                group["lr"] = rate * min(done + 0.01, (1 + math.cos(math.pi * done / epochs)) / 2)
            if rounding is not None:
                rounding.turn(step % 2 == 1)
            chosen = order[step * BATCH : (step + 1) * BATCH]
            with torch.autocast("cpu", torch.bfloat16):
                exits = module(real(augment(images[chosen])))
            losses = [functional.cross_entropy(one.float(), labels[chosen]) for one in exits]
            loss = torch.stack([w * one for w, one in zip(WEIGHTS, losses, strict=True)]).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach())
        if file is not None:
            torch.save({"epochs": epoch + 1, "state": module.state_dict()}, file)
        print(f"{epoch + 1}: {total / steps:.3f}, {time.perf_counter() - start:.0f} s", flush=True)


def augment(images: Tensor) -> Tensor:
    """Half of them mirrored, all shifted by up to four pixels, zeros around."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (SHIFT,) * 4)
    across = torch.arange(width).repeat(count, 1)
    mirrored = torch.rand(count) < 0.5
    across[mirrored] = across[mirrored].flip(1)
    across = across + torch.randint(0, 2 * SHIFT + 1, (count, 1))
    down = torch.arange(height) + torch.randint(0, 2 * SHIFT + 1, (count, 1))
    each = torch.arange(count)[:, None, None]
    # pixels come channels last: the fastest layout here
    return padded[each, :, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)


def real(images: Tensor) -> Tensor:
    """What the network reads: bytes over 255, less the mean, over the deviation."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


@torch.no_grad()
def accuracy(module: WithExits, images: Tensor, labels: Tensor) -> list[float]:
    """Of every exit, in float32."""
    module.eval()
    right = torch.zeros(len(WEIGHTS))
    for start in range(0, len(images), 500):
        part = slice(start, start + 500)
        for exit_, logits in enumerate(module(real(images[part]))):
            right[exit_] += (logits.argmax(1) == labels[part]).sum()
    return [float(one) / len(images) for one in right]


def cifar() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images, raw, channels first in shape and last in memory, and labels."""
    where = DATA / "load_cifar10.py"
    spec = importlib.util.spec_from_file_location("load_cifar10", where)
    if spec is None or spec.loader is None or not where.is_file():
        sys.exit(f"{where} is missing; EDGEQ_DATA names its folder")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    found = []
    for one in loader.load():
        array = torch.from_numpy(np.asarray(one))
        found.append(array.permute(0, 3, 1, 2) if array.ndim == 4 else array.long())
    return found[0], found[1], found[2], found[3]


if __name__ == "__main__":
    main()
