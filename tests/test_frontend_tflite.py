"""TFLite files in: int8 models equal to TFLM bit for bit, float ones to LiteRT, or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tflites import Net, litert, tflm

from edgeq import floatrun, frontends, parity, passes, pipeline, policy, reference, targets
from edgeq.cli import main
from edgeq.errors import EdgeqError, UsageError
from edgeq.exporters import image
from edgeq.frontends import tflite_names
from edgeq.targets.runners import HostProgram, HostRunner

Array = np.ndarray[Any, Any]
Rng = np.random.Generator

SAMPLES = 40
CASES, NIGHTLY_CASES = 6, 100  # random models of each kind
ATOL = 2e-5  # both sides compute in float32: see test_frontend_onnx


def save(folder: Path, data: bytes) -> Path:
    path = folder / "net.tflite"
    path.write_bytes(data)
    return path


def compiled(path: Path, bits: str = "w8a8") -> pipeline.Compiled:
    """The program of a quantised model, without samples."""
    return pipeline.compile(
        pipeline.read(path), policy.load(bits), {}, None, targets.load("mcu"), "flash", (),
        lambda stage, done, total: None,
    )  # fmt: skip


# Quantised operators, one model each: (random generator) → the model #


def scale(rng: Rng, low: float = 0.005, high: float = 0.2) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def zero(rng: Rng) -> int:
    return int(rng.choice([-128, 127, 0, *rng.integers(-128, 128, 4)]))


def image_in(net: Net, rng: Rng, channels: int = 3) -> tuple[int, tuple[int, ...], float, int]:
    shape = (1, int(rng.integers(4, 9)), int(rng.integers(4, 9)), channels)
    s, z = scale(rng), zero(rng)
    return net.input(shape, "INT8", s, z), shape, s, z


def size(n: int, k: int, s: int, d: int, padding: int) -> int:
    return -(-n // s) if padding == 0 else (n - d * (k - 1) - 1) // s + 1


def layer(
    net: Net, rng: Rng, filters: tuple[int, ...], count: int, axis: int, sx: float
) -> list[int]:
    """Weights and bias: scales for each filter or one for all.

    A bias or none; but TFLM crashes on a depthwise convolution without.
    """
    per_channel = bool(rng.integers(2))
    sw = [scale(rng, 0.002, 0.05) for _ in range(count if per_channel else 1)]
    w = net.tensor(
        filters, "INT8", sw, 0, rng.integers(-127, 128, filters).astype(np.int8), axis=axis
    )
    if axis == 0 and rng.integers(4) == 0:
        return [w, -1]
    steps = np.float32(sx) * np.asarray(sw, np.float32)
    bias = rng.integers(-3000, 3000, count).astype(np.int32)
    return [w, net.tensor((count,), "INT32", steps, 0, bias)]


def conv(rng: Rng) -> bytes:
    net = Net()
    x, shape, sx, _ = image_in(net, rng, 4)
    padding, activation = int(rng.integers(2)), int(rng.choice([0, 1, 2, 3]))
    strides = [int(v) for v in rng.integers(1, 4, 2)]
    kernel = [int(v) for v in rng.integers(1, 4, 2)]
    dilations = [1, 1] if rng.integers(2) else [1 + (k < 3) for k in kernel]
    if max(dilations) > 1:
        strides = [1, 1]
    depth = int(rng.choice([4, 4, 2]))  # 2: two groups
    constants = layer(net, rng, (6, *kernel, depth), 6, 0, sx)
    sizes = [size(shape[1 + i], kernel[i], strides[i], dilations[i], padding) for i in range(2)]
    y = net.tensor((1, *sizes, 6), "INT8", scale(rng, 0.01, 0.5), zero(rng))
    net.op(
        "CONV_2D", [x, *constants], y, "Conv2DOptions", padding=padding, strideH=strides[0],
        strideW=strides[1], dilationHFactor=dilations[0], dilationWFactor=dilations[1],
        fusedActivationFunction=activation,
    )  # fmt: skip
    return net.bytes(y)


def depthwise(rng: Rng) -> bytes:
    net = Net()
    x, shape, sx, _ = image_in(net, rng, 3)
    padding, multiplier = int(rng.integers(2)), int(rng.integers(1, 4))
    stride, kernel = int(rng.integers(1, 3)), [int(v) for v in rng.integers(1, 4, 2)]
    count = 3 * multiplier
    constants = layer(net, rng, (1, *kernel, count), count, 3, sx)
    sizes = [size(shape[1 + i], kernel[i], stride, 1, padding) for i in range(2)]
    y = net.tensor((1, *sizes, count), "INT8", scale(rng, 0.01, 0.5), zero(rng))
    net.op(
        "DEPTHWISE_CONV_2D", [x, *constants], y, "DepthwiseConv2DOptions", padding=padding,
        strideH=stride, strideW=stride, depthMultiplier=multiplier, dilationHFactor=1,
        dilationWFactor=1, fusedActivationFunction=int(rng.choice([0, 1, 3])),
    )  # fmt: skip
    return net.bytes(y)


def fully_connected(rng: Rng) -> bytes:
    net = Net()
    sx = scale(rng)
    shape = [(1, 24), (1, 2, 3, 4)][int(rng.integers(2))]
    x = net.input(shape, "INT8", sx, zero(rng))
    constants = layer(net, rng, (5, 24), 5, 0, sx)
    y = net.tensor((1, 5), "INT8", scale(rng, 0.02, 0.5), zero(rng))
    net.op("FULLY_CONNECTED", [x, *constants], y, "FullyConnectedOptions",
           fusedActivationFunction=int(rng.choice([0, 1, 3])))  # fmt: skip
    return net.bytes(y)


def add(rng: Rng) -> bytes:
    net = Net()
    x, shape, _, _ = image_in(net, rng)
    part = net.tensor(shape, "INT8", 1 / 256, -128)
    net.op("LOGISTIC", [x], part)
    y = net.tensor(shape, "INT8", scale(rng), zero(rng))
    net.op("ADD", [x, part], y, "AddOptions", fusedActivationFunction=int(rng.choice([0, 1, 3])))
    return net.bytes(y)


def pool(kind: str) -> Callable[[Rng], bytes]:
    def build(rng: Rng) -> bytes:
        net = Net()
        x, shape, s, z = image_in(net, rng)
        padding, stride = int(rng.integers(2)), int(rng.integers(1, 4))
        kernel = [int(v) for v in rng.integers(1, 5, 2)]
        sizes = [size(shape[1 + i], kernel[i], stride, 1, padding) for i in range(2)]
        y = net.tensor((1, *sizes, 3), "INT8", s, z)
        net.op(kind, [x], y, "Pool2DOptions", padding=padding, strideH=stride, strideW=stride,
               filterHeight=kernel[0], filterWidth=kernel[1],
               fusedActivationFunction=int(rng.choice([0, 1, 3])))  # fmt: skip
        return net.bytes(y)

    return build


def mean(rng: Rng) -> bytes:
    net = Net()
    x, _, s, z = image_in(net, rng)
    keep, same = bool(rng.integers(2)), rng.integers(3) == 0
    q = (s, z) if same else (scale(rng, s / 8, s * 2), zero(rng))
    y = net.tensor((1, 1, 1, 3) if keep else (1, 3), "INT8", *q)
    axes = net.ints(*([1, 2], [2, 1], [-3, -2])[int(rng.integers(2 if keep else 3))])
    net.op("MEAN", [x, axes], y, "ReducerOptions", keepDims=keep)
    return net.bytes(y)


def softmax(rng: Rng) -> bytes:
    net = Net()
    x = net.input((1, int(rng.integers(2, 20))), "INT8", scale(rng, 0.01, 1.0), zero(rng))
    y = net.tensor(net.graph.tensors[x].shape, "INT8", 1 / 256, -128)
    net.op("SOFTMAX", [x], y, "SoftmaxOptions", beta=float(rng.choice([1.0, 0.5, 2.3])))
    return net.bytes(y)


def unary(
    kind: str, low: float, high: float, fixed: tuple[float, int] | None = None, *options: Any,
    same: bool = False, ratio: float = 1.0, **fields: Any,
) -> Callable[[Rng], bytes]:  # fmt: skip
    def build(rng: Rng) -> bytes:
        net = Net()
        s, z = scale(rng, low, high), zero(rng)
        x = net.input((1, 256), "INT8", s, z)
        q = fixed or ((s, z) if same else (scale(rng, s * ratio / 2, s * ratio * 2), zero(rng)))
        y = net.tensor((1, 256), "INT8", *q)
        net.op(kind, [x], y, *options, **fields)
        return net.bytes(y)

    return build


def with_number(kind: str, options: str, *, swapped: bool = False) -> Callable[[Rng], bytes]:
    def build(rng: Rng) -> bytes:
        net = Net()
        s = scale(rng)
        x = net.input((1, 256), "INT8", s, zero(rng))
        number = net.tensor(
            (1,), "INT8", scale(rng), zero(rng), rng.integers(-128, 128, 1).astype(np.int8)
        )
        y = net.tensor((1, 256), "INT8", scale(rng, s, s * 4), zero(rng))
        inputs = [number, x] if swapped else [x, number]
        net.op(kind, inputs, y, options, fusedActivationFunction=int(rng.choice([0, 1, 3])))
        return net.bytes(y)

    return build


def pad(kind: str) -> Callable[[Rng], bytes]:
    def build(rng: Rng) -> bytes:
        net = Net()
        x, shape, s, z = image_in(net, rng)
        around = [int(v) for v in rng.integers(0, 3, 6)]
        sizes = net.ints(0, 0, *around, shape=(4, 2))
        inputs = [x, sizes]
        if kind == "PADV2":
            inputs.append(
                net.tensor((1,), "INT8", s, z, rng.integers(-128, 128, 1).astype(np.int8))
            )
        grown = [n + sum(around[2 * i : 2 * i + 2]) for i, n in enumerate(shape[1:])]
        y = net.tensor((1, *grown), "INT8", s, z)
        net.op(kind, inputs, y)
        return net.bytes(y)

    return build


def padded_conv(rng: Rng) -> bytes:
    """A pad that becomes the padding of the convolution behind it."""
    net = Net()
    x, shape, s, z = image_in(net, rng)
    padded = net.tensor((1, shape[1] + 1, shape[2] + 1, 3), "INT8", s, z)
    net.op("PAD", [x, net.ints(0, 0, 0, 1, 0, 1, 0, 0, shape=(4, 2))], padded)
    sizes = [size(shape[1 + i] + 1, 3, 2, 1, 1) for i in range(2)]
    y = net.tensor((1, *sizes, 4), "INT8", scale(rng, 0.02, 0.4), zero(rng))
    net.op("CONV_2D", [padded, *layer(net, rng, (4, 3, 3, 3), 4, 0, s)], y, "Conv2DOptions",
           padding=1, strideH=2, strideW=2, dilationHFactor=1, dilationWFactor=1)  # fmt: skip
    return net.bytes(y)


def concat(rng: Rng) -> bytes:
    net = Net()
    x, shape, s, z = image_in(net, rng)
    parts = [x]
    for _ in range(int(rng.integers(1, 4))):
        part = net.tensor(shape, "INT8", s, z)
        net.op("RELU6", [parts[-1]], part)
        parts.append(part)
    axis = int(rng.choice([1, 2, 3, -1]))
    joined = list(shape)
    joined[axis] *= len(parts)
    y = net.tensor(joined, "INT8", s, z)
    net.op("CONCATENATION", parts, y, "ConcatenationOptions", axis=axis)
    return net.bytes(y)


def shapes(rng: Rng) -> bytes:
    """Reshapes through ranks that edgeq does not have, each way of saying it."""
    net = Net()
    s, z = scale(rng), zero(rng)
    x = net.input((1, 24), "INT8", s, z)
    cube = net.tensor((1, 4, 6), "INT8", s, z)
    net.op("RESHAPE", [x, net.ints(1, -1, 6)], cube)
    half = net.op("QUANTIZE", [cube], net.tensor((1, 4, 6), "INT8", s / 2, z))
    cube = net.op("ADD", [half, cube], net.tensor((1, 4, 6), "INT8", s, z), "AddOptions")
    square = net.tensor((1, 4, 6, 1), "INT8", s, z)
    net.op("EXPAND_DIMS", [cube, net.ints(-1, shape=())], square)
    y = net.tensor((1, 4, 6, 2), "INT8", scale(rng, 0.02, 0.4), zero(rng))
    net.op("CONV_2D", [square, *layer(net, rng, (2, 3, 3, 1), 2, 0, s)], y, "Conv2DOptions",
           padding=0, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)  # fmt: skip
    return net.bytes(y)


OPERATORS: dict[str, Callable[[Rng], bytes]] = {
    "CONV_2D": conv,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": fully_connected,
    "ADD": add,
    "ADD a number": with_number("ADD", "AddOptions"),
    "ADD to a number": with_number("ADD", "AddOptions", swapped=True),
    "SUB a number": with_number("SUB", "SubOptions"),
    "SUB from a number": with_number("SUB", "SubOptions", swapped=True),
    "MUL by a number": with_number("MUL", "MulOptions"),
    "AVERAGE_POOL_2D": pool("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": pool("MAX_POOL_2D"),
    "MEAN": mean,
    "SOFTMAX": softmax,
    "LOGISTIC": unary("LOGISTIC", 0.002, 0.5, (1 / 256, -128)),
    "TANH": unary("TANH", 0.002, 0.5, (1 / 128, 0)),
    "HARD_SWISH": unary("HARD_SWISH", 0.005, 0.3),
    "LEAKY_RELU": unary("LEAKY_RELU", 0.01, 0.3, None, "LeakyReluOptions", alpha=0.1),
    "RELU": unary("RELU", 0.01, 0.3),
    "RELU6": unary("RELU6", 0.01, 0.3, same=True),
    "QUANTIZE": unary("QUANTIZE", 0.01, 0.3),
    "PAD": pad("PAD"),
    "PADV2": pad("PADV2"),
    "PAD and CONV_2D": padded_conv,
    "CONCATENATION": concat,
    "RESHAPE": shapes,
}


def inputs_of(data: bytes, path: Path, rng: Rng) -> Array:
    shape = frontends.load(path).inputs[0].shape[1:]
    if shape == (256,):  # every integer
        return np.arange(-128, 128).astype(np.int8)[None]
    return rng.integers(-128, 128, (SAMPLES, *shape)).astype(np.int8)


def assert_tflms_integers(kind: str, cases: int, folder: Path, host: HostProgram) -> None:
    """Random models of `kind`: the reference and C on this machine give what TFLM gives."""
    jobs, programs = [], []
    for case in range(cases):
        rng = np.random.default_rng((case, *kind.encode()))
        data = OPERATORS[kind](rng)
        path = save(folder, data)
        jobs.append((data, inputs_of(data, path, rng)))
        programs.append(compiled(path).program)
    expected = tflm(jobs)
    for case, ((_, samples), program, wanted) in enumerate(
        zip(jobs, programs, expected, strict=True)
    ):
        given = {program.inputs[0].tensor.name: samples}
        predicted = parity.expect(program, given)
        wrong = predicted.outputs[0].reshape(-1) != wanted.reshape(-1)
        assert not wrong.any(), f"case {case}: {wrong.sum()} of {wrong.size} differ"
        runner = HostRunner(host, image.build(program).data)
        assert parity.compare(program, runner, predicted).mismatches == 0


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_quantised_operator_gives_tflms_integers(
    kind: str, tmp_path: Path, host_program: HostProgram
) -> None:
    assert_tflms_integers(kind, CASES, tmp_path, host_program)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", OPERATORS)
def test_quantised_operators_give_tflms_integers_on_many_models(
    kind: str, tmp_path: Path, host_program: HostProgram
) -> None:
    assert_tflms_integers(kind, NIGHTLY_CASES, tmp_path, host_program)


# Float models #


def real(rng: Rng, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def float_net(rng: Rng) -> bytes:
    """Every operator of a float model, once or twice."""
    net = Net()
    x = net.input((1, 9, 8, 4), signature=(-1, 9, 8, 4))

    def constant(*shape: int) -> int:
        return net.tensor(shape, data=real(rng, *shape))

    def then(kind: str, inputs: list[int], shape: tuple[int, ...], *options: Any, **f: Any) -> int:
        return net.op(kind, inputs, net.tensor(shape), *options, **f)

    walk = {"dilationHFactor": 1, "dilationWFactor": 1}
    a = then(
        "CONV_2D",
        [x, constant(6, 3, 2, 4), constant(6)],
        (1, 5, 4, 6),
        "Conv2DOptions",
        padding=0,
        strideH=2,
        strideW=2,
        fusedActivationFunction=3,
        **walk,
    )
    b = then(
        "DEPTHWISE_CONV_2D",
        [a, constant(1, 3, 3, 12), constant(12)],
        (1, 5, 4, 12),
        "DepthwiseConv2DOptions",
        padding=0,
        strideH=1,
        strideW=1,
        depthMultiplier=2,
        **walk,
    )
    c = then("MUL", [b, constant(12)], (1, 5, 4, 12), "MulOptions", fusedActivationFunction=1)
    c = then("ADD", [constant(1), c], (1, 5, 4, 12), "AddOptions")
    c = then(
        "SUB", [constant(1, 1, 1, 12), c], (1, 5, 4, 12), "SubOptions", fusedActivationFunction=2
    )
    c = then("HARD_SWISH", [c], (1, 5, 4, 12))
    gate = then("LOGISTIC", [c], (1, 5, 4, 12))
    c = then("MUL", [c, gate], (1, 5, 4, 12), "MulOptions")
    c = then("PAD", [c, net.ints(0, 0, 1, 0, 0, 1, 0, 0, shape=(4, 2))], (1, 6, 5, 12))
    d = then(
        "MAX_POOL_2D",
        [c],
        (1, 3, 3, 12),
        "Pool2DOptions",
        padding=0,
        strideH=2,
        strideW=2,
        filterHeight=2,
        filterWidth=2,
    )
    e = then(
        "AVERAGE_POOL_2D",
        [c],
        (1, 3, 3, 12),
        "Pool2DOptions",
        padding=0,
        strideH=2,
        strideW=2,
        filterHeight=3,
        filterWidth=3,
        fusedActivationFunction=1,
    )
    f = then("ADD", [d, e], (1, 3, 3, 12), "AddOptions", fusedActivationFunction=1)
    f = then("CONCATENATION", [f, d, e], (1, 3, 3, 36), "ConcatenationOptions", axis=3)
    f = then("LEAKY_RELU", [f], (1, 3, 3, 36), "LeakyReluOptions", alpha=0.25)
    kept = then("MEAN", [f, net.ints(1, 2)], (1, 1, 1, 36), "ReducerOptions", keepDims=True)
    flat = then("SQUEEZE", [kept], (1, 36), "SqueezeOptions", squeezeDims=[1, 2])
    mean = then("MEAN", [f, net.ints(2, 1)], (1, 36), "ReducerOptions", keepDims=False)
    g = then("ADD", [flat, mean], (1, 36), "AddOptions")
    g = then("TANH", [g], (1, 36))
    g = then("RELU_N1_TO_1", [g], (1, 36))
    g = then(
        "FULLY_CONNECTED",
        [g, constant(5, 36), -1],
        (1, 5),
        "FullyConnectedOptions",
        fusedActivationFunction=1,
    )
    y = then("SOFTMAX", [g], (1, 5), "SoftmaxOptions", beta=0.7)
    return net.bytes(y, kept)


def assert_agrees(path: Path, rng: Rng) -> frontends.Source:
    """The graph, as read and after the passes, computes what LiteRT computes of the file."""
    source = frontends.load(path)
    samples = real(rng, 5, *source.inputs[0].shape[1:])
    expected = litert(path.read_bytes(), samples)
    for graph in (source.graph, passes.run(source.graph)):
        results = floatrun.run(graph, {source.inputs[0].tensor: samples})
        for port, wanted in zip(source.outputs, expected, strict=True):
            np.testing.assert_allclose(results[port.tensor], wanted, rtol=0, atol=ATOL)
    return source


@pytest.mark.parametrize("seed", range(3))
def test_a_float_model_computes_what_litert_computes(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    source = assert_agrees(save(tmp_path, float_net(rng)), rng)
    assert source.quantized is None
    assert "input t0: the open batch axis is fixed to 1" in source.notes


def stored(kind: str, rng: Rng) -> bytes:
    """A float layer whose weights are stored as float16 or int8."""
    net = Net()
    x = net.input((1, 6, 6, 3))
    weights = real(rng, 4, 3, 3, 3)
    if kind == "FLOAT16":
        small = net.tensor(weights.shape, "FLOAT16", data=weights.astype(np.float16))
    else:
        integers = np.clip(np.rint(weights / 0.03), -127, 127).astype(np.int8)
        small = net.tensor(weights.shape, "INT8", [0.03, 0.02, 0.01, 0.04], 0, integers)
    wide = net.op("DEQUANTIZE", [small], net.tensor(weights.shape))
    bias = net.tensor((4,), data=real(rng, 4))
    y = net.op(
        "CONV_2D",
        [x, wide, bias],
        net.tensor((1, 4, 4, 4)),
        "Conv2DOptions",
        padding=1,
        strideH=1,
        strideW=1,
        dilationHFactor=1,
        dilationWFactor=1,
    )
    return net.bytes(y)


@pytest.mark.parametrize("kind", ["FLOAT16", "INT8"])
def test_weights_stored_in_fewer_bits_become_float32_with_a_note(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    source = assert_agrees(save(tmp_path, stored(kind, rng)), rng)
    assert source.notes == (f"1 constants of {kind} read as float32",)


def reshaped(size: int) -> bytes:
    """What Keras makes of Reshape where the batch is open: a shape computed from the input's."""
    net = Net()
    x = net.input((1, 24), signature=(-1, 24))
    whole = net.op("SHAPE", [x], net.tensor((2,), "INT32"), "ShapeOptions", outType=2)
    ends = [net.ints(value) for value in (0, 1, 1)]
    batch = net.op("STRIDED_SLICE", [whole, *ends], net.tensor((), "INT32"), "StridedSliceOptions",
                   shrinkAxisMask=1)  # fmt: skip
    sizes = [net.ints(value, shape=()) for value in (4, 3, size)]
    shape = net.op("PACK", [batch, *sizes], net.tensor((4,), "INT32"), "PackOptions", valuesCount=4)
    cube = net.op("RELU", [x], net.tensor((1, 24)))
    cube = net.op("RESHAPE", [cube, net.ints(1, 4, 6)], net.tensor((1, 4, 6)))
    steps = net.tensor((6,), data=np.arange(1, 7, dtype=np.float32))
    cube = net.op("MUL", [cube, steps], net.tensor((1, 4, 6)), "MulOptions")
    return net.bytes(net.op("RESHAPE", [cube, shape], net.tensor((1, 4, 3, size))))


def test_a_shape_that_is_computed_from_the_inputs_is_known(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = assert_agrees(save(tmp_path, reshaped(2)), rng)
    assert {node.op.value for node in source.graph.nodes} == {"clip", "batch_norm", "reshape"}
    assert "cannot make shape (1, 4, 3, 5)" in refused(save(tmp_path, reshaped(5)), "EQ0315")


def test_a_file_is_checked_without_any_library_of_formats(tmp_path: Path) -> None:
    code = """
import sys
class Blocked:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("onnx", "onnx_ir", "onnxruntime", "flatbuffers", "google"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import edgeq
assert edgeq.check(sys.argv[1]).refusals == ()
"""
    path = save(tmp_path, padded_conv(np.random.default_rng(0)))
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Edges, names, samples, policies #


def edged(kind: str) -> bytes:
    """A quantised layer between QUANTIZE and DEQUANTIZE, or between two of bytes."""
    rng = np.random.default_rng(3)
    net = Net()
    byte = kind == "UINT8"
    outer = {"kind": "UINT8", "scale": 0.05, "zero": 118} if byte else {"kind": "FLOAT32"}
    x = net.input((1, 6, 6, 2), name="pixels", **outer)
    inner = net.op("QUANTIZE", [x], net.tensor((1, 6, 6, 2), "INT8", 0.05, -10))
    walk = {"padding": 1, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    made = net.tensor((1, 4, 4, 3), "INT8", 0.1, 5)
    net.op(
        "CONV_2D",
        [inner, *layer(net, rng, (3, 3, 3, 2), 3, 0, 0.05)],
        made,
        "Conv2DOptions",
        **walk,
    )
    outer = {"kind": "UINT8", "scale": 0.1, "zero": 133} if byte else {"kind": "FLOAT32"}
    y = net.tensor((1, 4, 4, 3), name="scores", **outer)
    net.op("QUANTIZE" if byte else "DEQUANTIZE", [made], y)
    return net.bytes(y)


@pytest.mark.parametrize("kind", ["FLOAT32", "UINT8"])
def test_integers_begin_behind_quantize_and_end_before_dequantize(
    kind: str, tmp_path: Path
) -> None:
    data = edged(kind)
    path = save(tmp_path, data)
    model = pipeline.read(path)
    assert [(p.name, p.qparams and p.qparams.zero_point) for p in model.source.inputs] == [
        ("pixels", -10)
    ]
    assert [p.name for p in model.source.outputs] == ["scores"]
    assert [node.op.value for node in model.graph.nodes] == ["conv_2d"]
    rng = np.random.default_rng(0)
    byte = kind == "UINT8"
    samples = (
        rng.integers(0, 256, (9, 6, 6, 2)).astype(np.uint8)
        if byte
        else rng.normal(0, 3, (9, 6, 6, 2)).astype(np.float32)
    )
    np.savez(tmp_path / "calib.npz", x=samples)
    specs = pipeline.input_specs(model, policy.Policy(), {})
    read = pipeline.read_samples(tmp_path / "calib.npz", model, specs)
    program = pipeline.compile(
        model, policy.Policy(), specs, None, targets.load("mcu"), "flash", (), lambda *_: None
    ).program
    got = parity.predict(program, program.quantize(read))[0].astype(np.int64)
    (wanted,) = tflm([(data, samples)])
    integers = wanted.astype(np.int64) - 128 if byte else np.rint(wanted / 0.1).astype(int) + 5
    assert np.array_equal(got, integers.reshape(got.shape))


def test_samples_of_a_quantised_model_may_be_its_own_integers(tmp_path: Path) -> None:
    model = pipeline.read(save(tmp_path, conv(np.random.default_rng(0))))
    port = model.source.inputs[0]
    assert port.qparams is not None
    integers = np.random.default_rng(0).integers(-128, 128, (4, *port.shape[1:])).astype(np.int8)
    reals = port.qparams.dequantize(integers).astype(np.float32)
    np.savez(tmp_path / "int8.npz", x=integers)
    np.savez(tmp_path / "float.npz", x=reals)
    own, same = (
        pipeline.read_samples(tmp_path / name, model, {}) for name in ("int8.npz", "float.npz")
    )
    assert np.array_equal(own.inputs[port.tensor], integers)
    assert np.array_equal(own.real()[port.tensor], reals)
    program = compiled(tmp_path / "net.tflite").program
    assert np.array_equal(*(program.quantize(read)[port.tensor] for read in (own, same)))


def test_a_float_model_takes_no_int8_samples_and_needs_samples(tmp_path: Path) -> None:
    model = pipeline.read(save(tmp_path, float_net(np.random.default_rng(0))))
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 9, 8, 4), np.int8))
    with pytest.raises(UsageError, match="has type int8") as caught:
        pipeline.read_samples(tmp_path / "x.npz", model, {})
    assert caught.value.id == "EQ0224"
    with pytest.raises(UsageError, match="--calib") as caught:
        compiled(tmp_path / "net.tflite")
    assert caught.value.id == "EQ0202"


def test_lowered_bits_change_only_the_layers_that_they_are_for(tmp_path: Path) -> None:
    path = save(tmp_path, padded_conv(np.random.default_rng(1)))
    kept, lowered = (compiled(path, bits).program.network.graphs[0] for bits in ("w8a8", "w4a8"))
    (node,) = kept.nodes
    names = dict(zip(("x", "weights", "bias", "multiplier", "shift"), node.inputs, strict=True))
    scale = [g.tensors[names["weights"]].qparams for g in (kept, lowered)]
    assert [q and q.bits for q in scale] == [8, 4]
    assert np.abs(lowered.constant(names["weights"])).max() <= 8
    for name in (*kept.inputs, *kept.outputs):
        assert kept.tensors[name].qparams == lowered.tensors[name].qparams
    inputs = {kept.inputs[0]: np.zeros((1, *kept.tensors[kept.inputs[0]].shape[1:]), np.int8)}
    rows = [g.constant(names["weights"]).reshape(4, -1) for g in (kept, lowered)]
    reals = [row * np.asarray(q.scale)[:, None] for row, q in zip(rows, scale, strict=True) if q]
    error = np.abs(reals[0] - reals[1]).max() / np.abs(reals[0]).max()
    assert 0 < error < 0.15  # half a step of 4 bits is a fifteenth of the range, clipped by MSE
    assert reference.compute(lowered, lowered.nodes[0], inputs).shape[-1] == 4


def test_a_policy_cannot_change_activations_that_are_quantised_already(tmp_path: Path) -> None:
    path = save(tmp_path, padded_conv(np.random.default_rng(1)))
    with pytest.raises(EdgeqError, match="lower its weights alone") as caught:
        compiled(path, "w8a4")
    assert caught.value.id == "EQ0327"


def run(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_quantised_model_is_checked_exported_and_asked_about_without_samples(
    tmp_path: Path,
) -> None:
    path = save(tmp_path, padded_conv(np.random.default_rng(1)))
    found = run("check", path)
    assert [operator["op"] for operator in found["operators"]] == ["PAD", "CONV_2D"]
    assert [layer["name"] for layer in found["layers"]] == ["conv_2d"]
    build = tmp_path / "build"
    report = run("export", path, "--check", "none", "-o", build)
    assert "no samples given: checked on random inputs" in report["notes"]
    assert report["accuracy"] is None
    assert not (build / "ranges.json").exists()
    assert json.loads((build / "manifest.json").read_text("utf-8"))["calibration"] is None
    change = run("explain", build, "--layer", "conv_2d", "--set", "weights=3", "--model", path)
    assert (change["before"]["weights"], change["after"]["weights"]) == (8, 3)


def test_samples_serve_the_layers_whose_bits_a_policy_lowers(tmp_path: Path) -> None:
    path = save(tmp_path, padded_conv(np.random.default_rng(1)))
    shape = frontends.load(path).inputs[0].shape[1:]
    samples = np.random.default_rng(0).integers(-128, 128, (32, *shape)).astype(np.int8)
    np.savez(tmp_path / "calib.npz", x=samples)
    build = tmp_path / "build"
    calib = ("--calib", tmp_path / "calib.npz")
    run("export", path, "--check", "none", "-o", build, "--policy", "w3a8", *calib)
    assert (build / "ranges.json").is_file()
    change = run("explain", build, "--layer", "conv_2d", "--set", "weights=8", "--model", path)
    assert (change["before"]["weights"], change["after"]["weights"]) == (3, 8)
    run("export", path, "--check", "none", "-o", build, *calib)
    assert not (build / "ranges.json").exists()


def test_check_refuses_what_export_refuses(tmp_path: Path) -> None:
    path = save(tmp_path, padded_conv(np.random.default_rng(1)))
    result = CliRunner().invoke(main, ["check", str(path), "--policy", "w8a4"])
    assert result.exit_code == 3
    assert "EQ0327" in result.stderr


def test_weights_of_4_bits_are_stored_in_4_bits(tmp_path: Path) -> None:
    net = Net()
    rng = np.random.default_rng(0)
    x = net.input((1, 6, 6, 3), "INT8", 0.05, 3)
    values = rng.integers(-7, 8, (4, 3, 3, 3))
    packed = (values.reshape(-1, 2)[:, 0] & 15) | (values.reshape(-1, 2)[:, 1] & 15) << 4
    weights = net.tensor((4, 3, 3, 3), "INT4", [0.02] * 4, 0, packed.astype(np.uint8))
    bias = net.tensor((4,), "INT32", [0.001] * 4, 0, rng.integers(-99, 99, 4).astype(np.int32))
    y = net.tensor((1, 4, 4, 4), "INT8", 0.1, 0)
    net.op(
        "CONV_2D",
        [x, weights, bias],
        y,
        "Conv2DOptions",
        padding=1,
        strideH=1,
        strideW=1,
        dilationHFactor=1,
        dilationWFactor=1,
    )
    data = net.bytes(y)
    program = compiled(save(tmp_path, data)).program
    assert [choice.weight_bits for choice in program.choices.values()] == [4]
    samples = rng.integers(-128, 128, (SAMPLES, 6, 6, 3)).astype(np.int8)
    predicted = parity.predict(program, {program.inputs[0].tensor.name: samples})[0]
    (wanted,) = tflm([(data, samples)])
    assert np.array_equal(predicted, wanted.reshape(predicted.shape))


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        (["model/conv2d_1/Conv2D", "model/activation/Relu;model/x/BiasAdd"], "conv2d_1"),
        (["w", "model/relu/Relu;model/bn/FusedBatchNormV3;model/block/conv/Conv2D;"], "block.conv"),
        (["StatefulPartitionedCall/net/stem/Conv2D"], "stem"),
        (["Conv2D"], "conv_2d"),
        (["", "arith.constant3"], "conv_2d"),
    ],
)
def test_layers_have_short_names(tensors: list[str], name: str) -> None:
    assert tflite_names.layer_name("CONV_2D", ("Conv2D",), tensors) == name


# Refusals #


def refused(path: Path, id: str, **shapes: tuple[int, ...]) -> str:
    with pytest.raises(EdgeqError) as caught:
        frontends.load(path, shapes)
    assert caught.value.id == id
    return caught.value.message


def simple(**changes: Any) -> Net:
    """A quantised convolution, some of it changed: weights, bias, output, options, inputs."""
    rng = np.random.default_rng(0)
    net = Net()
    integers = rng.integers(-127, 128, (4, 3, 3, 2)).astype(np.int8)
    x = {"shape": (1, 6, 6, 2), "kind": "INT8", "scale": 0.05, "zero": 3, "name": "x"}
    w = {"shape": (4, 3, 3, 2), "kind": "INT8", "scale": [0.02] * 4, "data": integers, "name": "w"}
    b = {"shape": (4,), "kind": "INT32", "scale": [0.001] * 4, "data": np.zeros(4, np.int32)}
    y = {"shape": (1, 4, 4, 4), "kind": "INT8", "scale": 0.1, "zero": -4, "name": "y"}
    net.input(**{**x, **changes.pop("x", {})})
    net.tensor(**{**w, **changes.pop("w", {})})
    net.tensor(**{**b, **changes.pop("b", {})})
    net.tensor(**{**y, **changes.pop("y", {})})
    options = {"padding": 1, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    net.op(
        "CONV_2D", changes.pop("inputs", [0, 1, 2]), 3, "Conv2DOptions", **{**options, **changes}
    )
    net.graph.outputs = [3]
    return net


FLOAT = {"kind": "FLOAT32", "scale": None}


@pytest.mark.parametrize(
    ("changes", "id", "said"),
    [
        ({"w": {"zero": 1}}, "EQ0318", "w: weights have zero point 1; it must be 0"),
        ({"w": {"data": np.full(72, -128, np.int8)}}, "EQ0318", "w: weights hold −128"),
        ({"w": {"axis": 3}}, "EQ0318", "4 scales along dimension 3 of shape (4, 3, 3, 2)"),
        ({"w": {"axis": 9}}, "EQ0318", "4 scales along dimension 9"),
        ({"w": {"axis": -1}}, "EQ0318", "4 scales along dimension -1"),
        ({"w": {"scale": [0.02] * 3}}, "EQ0318", "3 scales along dimension 0"),
        ({"w": {"scale": [0.02, 0.0, 1, 1]}}, "EQ0318", "scales must be positive"),
        ({"w": {"scale": float("nan")}}, "EQ0314", "w: 72 of 72 values are NaN"),
        ({"w": {"scale": None}}, "EQ0318", "w is INT8 without a scale"),
        (
            {"w": {"kind": "FLOAT32", "data": np.zeros(72, np.float32)}},
            "EQ0315",
            "weights are FLOAT32",
        ),
        ({"w": {"data": None}}, "EQ0310", "CONV_2D reads w before it is computed"),
        ({"w": {"data": np.zeros(71, np.int8)}}, "EQ0310", "holds 71 bytes, 72 are due"),
        ({"w": {"shape": (4, 3, 3, 3), "data": np.zeros(108, np.int8)}}, "EQ0315", "2 channels"),
        ({"x": {"scale": float("inf")}}, "EQ0318", "x: scales must be positive and finite"),
        ({"x": {"zero": 300}}, "EQ0318", "zero point 300 is no 8-bit value"),
        ({"x": {"scale": [0.1, 0.1]}}, "EQ0315", "x is INT8 with 2 scales; it needs one"),
        ({"x": {"scale": None}}, "EQ0315", "x is INT8 with 0 scales"),
        ({"x": {"kind": "INT16"}}, "EQ0315", "16-bit activations are not executed yet"),
        ({"x": {"kind": "UINT8"}}, "EQ0315", "uint8 quantisation is that of TensorFlow 1"),
        ({"x": {"kind": "BOOL"}}, "EQ0315", "x is BOOL: edgeq computes in FLOAT32 and INT8"),
        ({"x": {"shape": (2, 6, 6, 2)}}, "EQ0312", "axis 0 is 2; edgeq runs a batch of 1"),
        ({"x": {"shape": (1, 0, 6, 2)}}, "EQ0313", "input x has an empty axis"),
        ({"x": {"shape": (1, 6, 12)}}, "EQ0315", "input x has shape (1, 6, 12)"),
        ({"x": {"shape": (1, 1 << 20, 1 << 20, 2)}}, "EQ0310", "x has shape (1, 1048576,"),
        ({"x": {"shape": (1, -6, 6, 2)}}, "EQ0310", "x has shape (1, -6, 6, 2)"),
        ({"x": {"signature": (-1, -1, 6, 2)}}, "EQ0312", "--shape x=1,-1,6,2"),
        ({"x": {"signature": (-1, 6, 2)}}, "EQ0310", "signature (-1, 6, 2)"),
        ({"x": {"data": np.zeros(72, np.int8)}}, "EQ0310", "input x is a constant"),
        ({"y": FLOAT}, "EQ0315", "mixes floats and integers"),
        ({"x": FLOAT}, "EQ0315", "mixes floats and integers"),
        ({"y": {"shape": (1, 4, 4, 5)}}, "EQ0310", "gives shape (1, 4, 4, 4) and declares"),
        ({"y": {"data": np.zeros(64, np.int8)}}, "EQ0310", "computes y, which has a value"),
        ({"b": {"kind": "FLOAT32", "data": np.zeros(4, np.float32)}}, "EQ0315", "bias of FLOAT32"),
        ({"b": {"shape": (3,), "data": np.zeros(3, np.int32)}}, "EQ0315", "for 4 filters"),
        ({"b": {"zero": 1}}, "EQ0315", "a bias has zero point 0"),
        ({"inputs": [0, 1, 9]}, "EQ0310", "tensor 9 of 4"),
        ({"inputs": [0, -2, 2]}, "EQ0310", "tensor -2 of 4"),
        ({"inputs": [0]}, "EQ0315", "weights are not of rank 4"),
        ({"inputs": [3, 1, 2]}, "EQ0310", "CONV_2D reads y before it is computed"),
        ({"padding": 2}, "EQ0315", "padding 2; known are SAME and VALID"),
        ({"strideH": 0}, "EQ0315", "strides (0, 1)"),
        ({"dilationWFactor": -1}, "EQ0315", "dilations (1, -1)"),
        ({"fusedActivationFunction": 4}, "EQ0315", "fused activation TANH"),
        ({"x": {"shape": (1, 2, 2, 2)}}, "EQ0305", "does not fit an input of 2×2"),
    ],
    ids=str,
)
def test_what_a_convolution_cannot_be_is_refused(
    changes: dict[str, Any], id: str, said: str, tmp_path: Path
) -> None:
    assert said in refused(save(tmp_path, simple(**changes).bytes()), id)


def test_a_simple_convolution_is_read(tmp_path: Path) -> None:
    assert frontends.load(save(tmp_path, simple().bytes())).quantized


def changed(change: Callable[[Net], None]) -> bytes:
    net = simple()
    change(net)
    return net.bytes()


def _several(net: Net) -> None:
    net.model.subgraphs.append(net.graph)


def _old(net: Net) -> None:
    net.model.version = 2


def _blocks(net: Net) -> None:
    quantization = net.graph.tensors[1].quantization
    quantization.detailsType = net.schema.QuantizationDetails.BlockwiseQuantization
    quantization.details = net.schema.BlockwiseQuantizationT()


def _sparse(net: Net) -> None:
    net.graph.tensors[1].sparsity = net.schema.SparsityParametersT()


def _variable(net: Net) -> None:
    net.graph.tensors[0].isVariable = True


def _no_outputs(net: Net) -> None:
    net.graph.outputs = []


def _output_is_input(net: Net) -> None:
    net.graph.outputs = [0]


def _buffer(net: Net) -> None:
    net.graph.tensors[1].buffer = 99


def _code(net: Net) -> None:
    net.graph.operators[0].opcodeIndex = 7


def _twice(net: Net) -> None:
    net.graph.operators.append(net.graph.operators[0])


def _inputs_twice(net: Net) -> None:
    net.graph.inputs = [0, 0]


def _unknown_type(net: Net) -> None:
    net.graph.tensors[0].type = 99


def _wrong_options(net: Net) -> None:
    net.graph.operators[0].builtinOptionsType = 5
    net.graph.operators[0].builtinOptions = net.schema.Pool2DOptionsT()


def _two_outputs(net: Net) -> None:
    net.graph.operators[0].outputs = [3, net.tensor((1,))]


@pytest.mark.parametrize(
    ("change", "id", "said"),
    [
        (_several, "EQ0315", "2 subgraphs; edgeq reads models of one"),
        (_old, "EQ0315", "schema version 2; edgeq reads version 3"),
        (_blocks, "EQ0315", "w is quantised in blocks"),
        (_sparse, "EQ0315", "w is sparse; store it dense"),
        (_variable, "EQ0315", "x is a variable"),
        (_no_outputs, "EQ0310", "empty: it has no inputs, outputs or operators"),
        (_output_is_input, "EQ0317", "output x is an input or a constant"),
        (_buffer, "EQ0310", "buffer 99 of"),
        (_code, "EQ0310", "operator code 7 of 1"),
        (_twice, "EQ0310", "computes y, which has a value"),
        (_inputs_twice, "EQ0310", "input x is a constant, or stands twice"),
        (_unknown_type, "EQ0315", "x is type 99"),
        (_wrong_options, "EQ0315", "has options of kind 5, not 1"),
        (_two_outputs, "EQ0315", "2 outputs; edgeq computes one"),
    ],
)
def test_what_a_file_cannot_be_is_refused(
    change: Callable[[Net], None], id: str, said: str, tmp_path: Path
) -> None:
    assert said in refused(save(tmp_path, changed(change)), id)


def test_another_file_and_other_shapes_are_refused(tmp_path: Path) -> None:
    assert "no TFL3 file" in refused(save(tmp_path, b"PK\x03\x04 something else"), "EQ0310")
    assert "no TFL3 file" in refused(save(tmp_path, b""), "EQ0310")
    path = save(tmp_path, simple(x={"signature": (-1, -1, 6, 2)}).bytes())
    assert "no input is called z; inputs are x" in refused(path, "EQ0211", z=(1, 6, 6, 2))
    assert "does not fit the model's -1,-1,6,2" in refused(path, "EQ0312", x=(1, 6, 7, 2))
    assert frontends.load(path, {"x": (1, 9, 6, 2)}).outputs[0].shape == (1, 7, 4, 4)


def test_unknown_operators_are_refused_by_name_and_the_others_surveyed(tmp_path: Path) -> None:
    net = simple()
    a = net.op("TRANSPOSE_CONV", [3], net.tensor((1, 4, 4, 4), "INT8", 0.1))
    b = net.op("MyDetector", [a], net.tensor((1, 4, 4, 4), "INT8", 0.1))
    c = net.op("RELU6", [b], net.tensor((1, 4, 4, 4), "INT8", 0.1))
    found = frontends.survey(save(tmp_path, net.bytes(c)))
    assert found.source is None
    assert [operator.kind for operator in found.operators] == [
        "CONV_2D", "TRANSPOSE_CONV", "MyDetector", "RELU6",
    ]  # fmt: skip
    assert [bool(operator.refusal) for operator in found.operators] == [False, True, True, False]
    said = refused(tmp_path / "net.tflite", "EQ0315")
    assert "operator TRANSPOSE_CONV is not supported" in said
    assert "custom operator MyDetector is not supported" in said
    assert "supported operators: ADD" in said


def one(
    kind: str, inputs: list[dict[str, Any]], output: dict[str, Any], *options: Any, **fields: Any
) -> bytes:
    """A model of one operator; inputs with data are constants."""
    net = Net()
    indices = [(net.tensor if "data" in i else net.input)(**i) for i in inputs]
    return net.bytes(net.op(kind, indices, net.tensor(**output), *options, **fields))


VECTOR = {"shape": (1, 8), "kind": "INT8", "scale": 0.1, "zero": 0}
IMAGE = {"shape": (1, 4, 4, 2), "kind": "INT8", "scale": 0.1, "zero": 0}
POOL = {"padding": 1, "strideH": 4, "strideW": 4, "filterHeight": 4, "filterWidth": 4}
POOLED = {**IMAGE, "shape": (1, 1, 1, 2)}


@pytest.mark.parametrize(
    ("data", "id", "said"),
    [
        (lambda: one("LOGISTIC", [VECTOR], VECTOR), "EQ0318", "0.00390625 and -128 are"),
        (lambda: one("TANH", [VECTOR], VECTOR), "EQ0318", "0.0078125 and 0 are"),
        (
            lambda: one("SOFTMAX", [VECTOR], VECTOR, "SoftmaxOptions", beta=1.0),
            "EQ0318",
            "its output",
        ),
        (
            lambda: one(
                "SOFTMAX",
                [VECTOR],
                {**VECTOR, "scale": 1 / 256, "zero": -128},
                "SoftmaxOptions",
                beta=-1.0,
            ),
            "EQ0315",
            "beta -1; it must be positive",
        ),
        (lambda: one("RELU6", [VECTOR], {**VECTOR, "scale": 0.2}), "EQ0318", "must be the same"),
        (
            lambda: one("AVERAGE_POOL_2D", [IMAGE], {**POOLED, "zero": 1}, "Pool2DOptions", **POOL),
            "EQ0318",
            "(0.1 and 0) and output (0.1 and 1) must be the same",
        ),
        (
            lambda: one("RESHAPE", [IMAGE], {**VECTOR, "shape": (1, 32), "scale": 1}),
            "EQ0318",
            "same",
        ),
        (
            lambda: one("RESHAPE", [IMAGE], {**VECTOR, "shape": (1, 31)}),
            "EQ0315",
            "cannot make shape",
        ),
        (
            lambda: one(
                "CONCATENATION",
                [IMAGE, {**IMAGE, "scale": 0.2}],
                {**IMAGE, "shape": (1, 8, 4, 2)},
                "ConcatenationOptions",
                axis=1,
            ),
            "EQ0318",
            "must be the same",
        ),
        (lambda: one("MUL", [VECTOR, VECTOR], VECTOR, "MulOptions"), "EQ0315", "two int8 tensors"),
        (lambda: one("SUB", [VECTOR, VECTOR], VECTOR, "SubOptions"), "EQ0315", "from another"),
        (
            lambda: one("ADD", [VECTOR, {**VECTOR, "shape": (1, 4)}], VECTOR, "AddOptions"),
            "EQ0315",
            "shapes (1, 8) and (1, 4) differ",
        ),
        (
            lambda: one(
                "ADD", [VECTOR, {**VECTOR, "data": np.ones(8, np.int8)}], VECTOR, "AddOptions"
            ),
            "EQ0315",
            "one int8 number",
        ),
        (
            lambda: one(
                "MEAN",
                [IMAGE, {"shape": (1,), "kind": "INT32", "data": np.array([3], np.int32)}],
                {**IMAGE, "shape": (1, 4, 4)},
                "ReducerOptions",
            ),
            "EQ0315",
            "axes (3,)",
        ),
        (
            lambda: one(
                "PAD",
                [IMAGE, {"shape": (4, 2), "kind": "INT32", "data": np.full(8, -1, np.int32)}],
                IMAGE,
            ),
            "EQ0315",
            "paddings (-1,",
        ),
        (
            lambda: one("LEAKY_RELU", [VECTOR], VECTOR, "LeakyReluOptions", alpha=-0.5),
            "EQ0315",
            "a multiplier must be",
        ),
        (
            lambda: one("HARD_SWISH", [VECTOR], {**VECTOR, "scale": 1e-5}),
            "EQ0315",
            "less than a 128th",
        ),
        (lambda: one("DEQUANTIZE", [VECTOR], {"shape": (1, 8)}), "EQ0317", "copy"),
        (lambda: one("QUANTIZE", [{"shape": (1, 8)}], VECTOR), "EQ0317", "copy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_an_operator_cannot_be_is_refused(
    data: Callable[[], bytes], id: str, said: str, tmp_path: Path
) -> None:
    assert said in refused(save(tmp_path, data()), id)


def test_a_sum_that_int32_cannot_hold_is_refused_with_the_scale_that_would_do(
    tmp_path: Path,
) -> None:
    path = save(tmp_path, simple(y={"scale": 1e-9}).bytes())
    with pytest.raises(EdgeqError, match=r"below .* its sums could exceed int32") as caught:
        compiled(path)
    assert caught.value.id == "EQ0339"
