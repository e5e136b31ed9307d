"""What the four networks of MLPerf Tiny cost on the emulated STM32F405, by their shapes.

Run from the root: `python bench/mlperf_tiny.py [--policy w8a8] [--optimize flash] [--compiler gcc]
[--layers] [NAME ...]`. Weights and samples are random, so that accuracy means nothing; instructions
depend on shapes alone, but for kernels that look at weights. Each build is checked as any other:
the emulated core's outputs are the reference's. `--policy bench/resnet8_w4a4.toml` is ResNet-8 of
4 bits, of which at most 9.5 million instructions are wanted.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

import edgeq

SAMPLES = 8
OPSET = 17
MUST = {  # instructions and bytes of arena and scratch (`--optimize ram`) that issue 5 asks for
    "resnet8": (14_500_000, 36),
    "ds_cnn": (4_200_000, 9.5),
    "mobilenet": (12_000_000, 39),
    "autoencoder": (320_000, None),
}


class Network:
    """A float ONNX network in the making; every method appends one layer and moves `last` on."""

    def __init__(self, name: str, *shape: int) -> None:
        self.name = name
        self.rng = np.random.default_rng(0)
        self.input = helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, *shape))
        self.samples = self.rng.normal(size=(SAMPLES, *shape)).astype(np.float32)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last, self.shape = "input", shape  # channels, height, width; or features

    def conv(
        self,
        channels: int,
        kernel: tuple[int, int] = (3, 3),
        stride: int = 1,
        relu: bool = True,
        depthwise: bool = False,
    ) -> None:
        """A convolution with TensorFlow's SAME pads."""
        inputs, *size = self.shape
        outputs = [-(-side // stride) for side in size]
        pads = [
            max((o - 1) * stride + k - s, 0) for o, k, s in zip(outputs, kernel, size, strict=True)
        ]
        before = [pad // 2 for pad in pads]
        after = [pad - first for pad, first in zip(pads, before, strict=True)]
        weights = (channels, 1 if depthwise else inputs, *kernel)
        self._weighted(
            "Conv",
            weights,
            channels,
            relu,
            kernel_shape=kernel,
            strides=(stride, stride),
            pads=(*before, *after),
            group=inputs if depthwise else 1,
        )
        self.shape = (channels, *outputs)

    def dense(self, features: int, relu: bool = True) -> None:
        """A fully connected layer."""
        self._weighted("Gemm", (features, self.shape[0]), features, relu, transB=1)
        self.shape = (features,)

    def add(self, other: str) -> None:
        """The sum with an earlier tensor, through Relu."""
        self._node("Add", (self.last, other))
        self._node("Relu", (self.last,))

    def pool(self) -> None:
        """The mean of each channel."""
        self._node("GlobalAveragePool", (self.last,))
        self._node("Flatten", (self.last,))
        self.shape = self.shape[:1]

    def softmax(self) -> None:
        """The shares of the classes."""
        self._node("Softmax", (self.last,), axis=1)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The network and its samples as files."""
        output = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, self.name, [self.input], [output], self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        path = folder / f"{self.name}.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        np.savez(folder / "samples.npz", input=self.samples)
        return path, folder / "samples.npz"

    def _weighted(
        self, op: str, shape: tuple[int, ...], channels: int, relu: bool, **attributes: object
    ) -> None:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights = self._constant(self.rng.normal(size=shape) * scale)
        bias = self._constant(self.rng.normal(size=channels) * 0.1)
        self._node(op, (self.last, weights, bias), **attributes)
        if relu:
            self._node("Relu", (self.last,))

    def _constant(self, values: npt.NDArray[np.float64]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _node(self, op: str, inputs: tuple[str, ...], **attributes: object) -> None:
        self.last = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [self.last], self.last, **attributes))


def resnet8() -> Network:
    """Image classification, 32×32×3, 12.50 M products."""
    net = Network("resnet8", 3, 32, 32)
    net.conv(16)
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        start, shape = net.last, net.shape
        net.conv(channels, stride=stride)
        net.conv(channels, relu=False)
        body, net.last = net.last, start
        if stride != 1:
            done, net.shape = net.shape, shape
            net.conv(channels, (1, 1), stride, relu=False)
            assert net.shape == done
        shortcut, net.last = net.last, body
        net.add(shortcut)
    net.pool()
    net.dense(10, relu=False)
    net.softmax()
    return net


def ds_cnn() -> Network:
    """Keyword spotting, 49×10×1, 2.66 M products."""
    net = Network("ds_cnn", 1, 49, 10)
    net.conv(64, (10, 4), 2)
    for _ in range(4):
        net.conv(64, depthwise=True)
        net.conv(64, (1, 1))
    net.pool()
    net.dense(12, relu=False)
    net.softmax()
    return net


def mobilenet() -> Network:
    """MobileNetV1 0.25, 96×96×3, 7.49 M products."""
    net = Network("mobilenet", 3, 96, 96)
    net.conv(8, stride=2)
    blocks = ((1, 16), (2, 32), (1, 32), (2, 64), (1, 64), (2, 128), *[(1, 128)] * 5, (2, 256))
    for stride, channels in (*blocks, (1, 256)):
        net.conv(net.shape[0], stride=stride, depthwise=True)
        net.conv(channels, (1, 1))
    net.pool()
    net.dense(2, relu=False)
    net.softmax()
    return net


def autoencoder() -> Network:
    """Anomaly detection, 640 values, 0.264 M products."""
    net = Network("autoencoder", 640)
    for features in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        net.dense(features)
    net.dense(640, relu=False)
    return net


NETWORKS = {make.__name__: make for make in (resnet8, ds_cnn, mobilenet, autoencoder)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    parser.add_argument("--policy", default="w8a8")
    parser.add_argument("--optimize", default="flash")
    parser.add_argument("--compiler", default="gcc")
    parser.add_argument("--layers", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            model, samples = NETWORKS[name]().write(Path(folder))
            build = edgeq.export(
                model,
                policy=arguments.policy,
                calib=samples,
                target="stm32f405",
                out=Path(folder) / "build",
                optimize=arguments.optimize,
                compiler=arguments.compiler,
            )
            report = edgeq.profile(build.folder).report
        profile, export = report.profile, report.export
        assert profile is not None and export is not None
        totals, most = profile.totals, MUST[name][0]
        print(
            f"{name:<12} {totals.macs:>11,} products {totals.instructions:>11,} instructions "
            f"(must {most:,}) {totals.cycles_model or 0:>11,} cycles, arena {export.ram.arena:,}, "
            f"code {export.flash.runtime + export.flash.kernels:,}, "
            f"model {export.flash.weights + export.flash.tables:,}"
        )
        for layer in profile.layers if arguments.layers else ():
            each = layer.instructions / layer.macs if layer.macs else 0
            print(f"  {layer.name:<22} {layer.kernel:<24} {layer.instructions:>10,} {each:6.2f}")


if __name__ == "__main__":
    main()
