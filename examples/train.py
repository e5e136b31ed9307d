"""Train one of the bundled example networks and write its folder.

    python examples/train.py fashion-resnet8 --data PATH/fashion_mnist.npz

The data file holds Fashion-MNIST as `x_train`, `y_train`, `x_test`, `y_test` (uint8, 28x28).
Needs torch, onnx, onnxscript and onnxruntime; only this script needs torch.
"""

import argparse
import ast
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

import edgeq

SEED = 2017
MEAN, STD = 0.2860, 0.3530  # of the training pixels divided by 255
EPOCHS = 30
BATCH = 128
IMAGE = (1, 28, 28)
CALIB_IMAGES = 128
TEST_IMAGES = 1000
GATE_IMAGES = 12_000  # that heads and gates are fitted to

# Of fashion-resnet8: inputs may leave behind the first layer and two of three stacks. What
# additions read keeps 8 bits, since they go by bytes.
EXITS = """\
exits = ["conv", "stack1.add", "stack2.add"]

[input.x]
mean = [{mean}]
std = [{std}]
"""

LICENCE = """\
The images in calib.npz and test.npz are part of Fashion-MNIST,
https://github.com/zalandoresearch/fashion-mnist, under this licence:

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

README = """\
# {name}

{about}

|  |  |
| --- | --- |
| input `x` | float32 [N, 1, 28, 28], `(pixel / 255 - {mean:.4f}) / {std:.4f}` |
| output `logits` | float32 [N, 10] |
| parameters, batch norm folded | {parameters:,} |
| multiply-accumulates per image | {macs:,} |
| accuracy on the 10,000 test images, float | {accuracy:.2%} |

Trained with torch {torch} by

    python examples/train.py {name} --data PATH/fashion_mnist.npz

`calib.npz` holds {calib} training images, `test.npz` the first {test:,} test images, as `x` (uint8,
before the normalisation above) and `y` (the class, 0 to 9).{gates}

The images are from [Fashion-MNIST](https://github.com/zalandoresearch/fashion-mnist), MIT licence
(see `LICENSE`). Their pixels were rebuilt and lie within one level of the original.
"""


GATES = """

`policy.json` makes four exits of it, the first behind `conv`, at two levels: heads and gates were
fitted to {train:,} training images, and to {held_out:,} test images that are not in `test.npz`
where it takes some that the network has not learned from, by

    python examples/train.py {name} --data PATH/fashion_mnist.npz --gates"""


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Both paths added, then rectified."""
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


class ResNet8(nn.Module):
    """The image classification network of MLPerf Tiny, for one input channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.stack1 = Residual(16, 16, stride=1)
        self.stack2 = Residual(16, 32, stride=2)
        self.stack3 = Residual(32, 64, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """One logit per class."""
        x = self.relu(self.norm(self.conv(x)))
        x = self.stack3(self.stack2(self.stack1(x)))
        logits: Tensor = self.fc(self.flatten(self.pool(x)))
        return logits


class Separable(nn.Module):
    """A 3x3 convolution per channel, then a 1x1 convolution across channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU6()
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """As large as the input, with another number of channels."""
        y = self.relu1(self.norm1(self.depthwise(x)))
        out: Tensor = self.relu2(self.norm2(self.pointwise(y)))
        return out


class Tiny(nn.Module):
    """Three separable blocks; at 8 bits, no layer's input and output take more than 4,704 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU6()
        self.block1 = Separable(8, 16)
        self.pool1 = nn.MaxPool2d(2)
        self.block2 = Separable(16, 32)
        self.block3 = Separable(32, 48)
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(48 * 3 * 3, 10)

    def forward(self, x: Tensor) -> Tensor:
        """One logit per class."""
        x = self.relu(self.norm(self.conv(x)))
        x = self.pool1(self.block1(x))
        x = self.pool2(self.block3(self.block2(x)))
        logits: Tensor = self.fc(self.flatten(x))
        return logits


@dataclass(frozen=True, slots=True)
class Example:
    """What to train, how hard to hold its weights down, and what its README says about it."""

    network: Callable[[], nn.Module]
    weight_decay: float
    about: str
    gated: bool


EXAMPLES = {
    "fashion-resnet8": Example(
        network=ResNet8,
        weight_decay=5e-4,
        about="The ResNet-8 of MLPerf Tiny, for 28x28 grey images: a 3x3 convolution, three\n"
        "residual stacks of 16, 32 and 64 channels, global average pooling, one dense layer.",
        gated=True,
    ),
    "fashion-tiny": Example(
        network=Tiny,
        weight_decay=5e-5,  # with 5e-4, too tight for so few weights, accuracy was 89.3 %
        about="For small boards: a strided 3x3 convolution, three depthwise-separable blocks with\n"
        "ReLU6, two max pools, one dense layer. Its int8 activations fit in 4,704 bytes.",
        gated=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Images:
    """Pixels from 0 to 255 [N, 1, 28, 28] and the class of each image."""

    x: npt.NDArray[np.uint8]
    y: npt.NDArray[np.int64]

    def save(self, path: Path, chosen: npt.NDArray[np.int64]) -> None:
        """The chosen images are in the file, as `x` and `y`."""
        np.savez_compressed(path, x=self.x[chosen], y=self.y[chosen])


def load(path: Path, split: str) -> Images:
    """All images of one split, `train` or `test`."""
    with np.load(path) as data:
        return Images(data[f"x_{split}"][:, None], data[f"y_{split}"].astype(np.int64))


def normalise(pixels: Tensor) -> Tensor:
    """The network's input: over the training images, mean 0 and deviation 1."""
    return (pixels / 255 - MEAN) / STD


def augment(pixels: Tensor) -> Tensor:
    """Each image is shifted by up to two pixels and, by the toss of a coin, mirrored."""
    count, _, height, width = pixels.shape
    columns = torch.arange(width).expand(count, width)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns, columns.flip(1))
    columns = columns + torch.randint(0, 5, (count, 1))
    rows = torch.arange(height) + torch.randint(0, 5, (count, 1))
    image = torch.arange(count)[:, None, None]
    padded = functional.pad(pixels, (2, 2, 2, 2)).squeeze(1)
    return padded[image, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def train(model: nn.Module, images: Images, weight_decay: float) -> None:
    """The model has seen every image once per epoch and is in evaluation mode."""
    x, y = torch.from_numpy(images.x), torch.from_numpy(images.y)
    starts = range(0, len(x), BATCH)
    optimizer = torch.optim.SGD(
        model.parameters(), momentum=0.9, nesterov=True, weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, epochs=EPOCHS, steps_per_epoch=len(starts), pct_start=0.2
    )
    model.train()
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x))
        for start in starts:
            batch = order[start : start + BATCH]
            inputs = normalise(augment(x[batch]))
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(inputs)
            loss = functional.cross_entropy(logits.float(), y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", flush=True)
    model.eval()


def layer_name(node: onnx.NodeProto) -> str:
    """The module behind a node: by its weights, which survive batch norm folding, or its scope."""
    if node.op_type in ("Conv", "Gemm"):
        return str(node.input[1]).removesuffix(".weight")
    properties = {entry.key: entry.value for entry in node.metadata_props}
    module = str(ast.literal_eval(properties["pkg.torch.onnx.name_scopes"])[-2])
    return f"{module}.add" if node.op_type == "Add" else module


def rename_layers(graph: onnx.GraphProto) -> None:
    """Each node and its output, if not the graph's, are named after the node's module."""
    renamed = {}
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        node.name = layer_name(node)
        if node.op_type in ("Conv", "Gemm"):
            renamed[node.input[2]] = f"{node.name}.bias"
        if node.output[0] not in outputs:
            renamed[node.output[0]] = node.name
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in (*graph.initializer, *graph.value_info):
        value.name = renamed.get(value.name, value.name)


def strip_notes(graph: onnx.GraphProto) -> None:
    """The exporter's notes are gone; among them were stack traces with local paths."""
    graph.ClearField("metadata_props")
    values = (*graph.input, *graph.output, *graph.value_info)
    for part in (*graph.node, *graph.initializer, *values):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def export(model: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The model in ONNX with a free batch size, batch norm folded, layers named as in torch.

    `shape` is that of one image, channels first.
    """
    program = torch.onnx.export(
        model,
        (torch.zeros(2, *shape),),
        input_names=["x"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    rename_layers(proto.graph)
    strip_notes(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def accuracy(proto: onnx.ModelProto, images: Images) -> float:
    """The share of images that onnxruntime, running the exported file in float, puts right."""
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    inputs = normalise(torch.from_numpy(images.x)).numpy()
    (logits,) = session.run(["logits"], {"x": inputs})
    return float((np.asarray(logits).argmax(1) == images.y).mean())


def count_parameters(proto: onnx.ModelProto) -> int:
    """Weights and biases; not the shapes and bounds that ONNX also keeps as initialisers."""
    layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    names = {name for node in layers for name in node.input[1:]}
    return sum(int(np.prod(t.dims)) for t in proto.graph.initializer if t.name in names)


def count_macs(model: nn.Module) -> int:
    """Multiply-accumulates of the convolutions and dense layers for one image."""
    macs = 0

    def add(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        assert isinstance(module.weight, Tensor)
        macs += output.numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(add)
    model(torch.zeros(1, *IMAGE))
    return macs


def gate(name: str, data: Path) -> None:
    """The example's policy has heads and gates.

    What gates take for the network's errors has to be those on images that it has not seen: test
    images beyond the ones that the example comes with.
    """
    folder = Path(__file__).parent / name.replace("-", "_")
    known, unseen = load(data, "train"), load(data, "test")
    chosen = np.random.default_rng(SEED).permutation(len(known.x))[:GATE_IMAGES]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        known.save(work / "train.npz", chosen)
        unseen.save(work / "held_out.npz", np.arange(TEST_IMAGES, len(unseen.x)))
        (work / "policy.toml").write_text(EXITS.format(mean=MEAN, std=STD))
        edgeq.fit_gate(
            folder / "model.onnx",
            policy=work / "policy.toml",
            calib=folder / "calib.npz",
            train=work / "train.npz",
            data=work / "held_out.npz",
            target="stm32f405",
            compiler="gcc",
            out=folder / "policy.json",
            progress=lambda stage, done, total: print(f"{stage}: {done} of {total}", flush=True),
        )


def gates_of(name: str, held_out: int) -> str:
    """What the README says of the example's gates, which so many test images served."""
    if not EXAMPLES[name].gated:
        return ""
    return GATES.format(name=name, train=GATE_IMAGES, held_out=held_out)


def write(name: str, model: nn.Module, data: Path) -> None:
    """The example's folder holds the network, its images, the licence and what was measured."""
    folder = Path(__file__).parent / name.replace("-", "_")
    folder.mkdir(exist_ok=True)
    proto = export(model, IMAGE)
    onnx.save(proto, folder / "model.onnx")
    known, unseen = load(data, "train"), load(data, "test")
    chosen = np.random.default_rng(SEED).choice(len(known.x), CALIB_IMAGES, replace=False)
    known.save(folder / "calib.npz", np.sort(chosen))
    unseen.save(folder / "test.npz", np.arange(TEST_IMAGES))
    (folder / "LICENSE").write_text(LICENCE)
    readme = README.format(
        name=name,
        about=EXAMPLES[name].about,
        mean=MEAN,
        std=STD,
        parameters=count_parameters(proto),
        macs=count_macs(model),
        accuracy=accuracy(proto, unseen),
        torch=torch.__version__.partition("+")[0],
        calib=CALIB_IMAGES,
        test=TEST_IMAGES,
        gates=gates_of(name, len(unseen.x) - TEST_IMAGES),
    )
    (folder / "README.md").write_text(readme)


def main() -> None:
    """The folder of the example named on the command line is written anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=EXAMPLES)
    parser.add_argument("--data", type=Path, required=True, help="fashion_mnist.npz")
    parser.add_argument(
        "--gates", action="store_true", help="fit gates to the network that is there"
    )
    options = parser.parse_args()
    if options.gates:
        gate(options.name, options.data)
        return
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order, so that the seed settles the weights
    model = EXAMPLES[options.name].network()
    train(model, load(options.data, "train"), EXAMPLES[options.name].weight_decay)
    write(options.name, model, options.data)
    if EXAMPLES[options.name].gated:
        gate(options.name, options.data)


if __name__ == "__main__":
    main()
