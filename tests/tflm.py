"""TensorFlow Lite Micro as the oracle of 16-bit activations: a network as a TFLite file, run there.

`python tests/tflm.py` records what it computes in `golden/tflm_16x8.json`; it needs the packages
`tflite-micro` and `ai-edge-litert`, which the test of the recorded values does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeq import fixedpoint
from edgeq.ir import Array, DType, Graph, Node, Op, QParams, Tensor, Window, qparams_of

GOLDEN = Path(__file__).parent / "golden" / "tflm_16x8.json"
COMMAND = "python tests/tflm.py"
SEED = 20261121
# In a process of its own: a broken file takes it down. The package imports yaml for compression.
RUN = """
import sys, types
import numpy as np
sys.modules.setdefault("yaml", types.ModuleType("yaml"))
from tflite_micro import runtime
model, values, outputs, count = sys.argv[1:]
interpreter = runtime.Interpreter.from_file(model)
interpreter.set_input(np.load(values), 0)
interpreter.invoke()
np.savez(outputs, *[interpreter.get_output(i) for i in range(int(count))])
"""


class _Network:
    """An integer graph in the making: constants at random, scales that float32 holds."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(SEED)
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}

    def activation(self, name: str, shape: tuple[int, ...], scale: float) -> str:
        exact = float(np.float32(scale))
        self.tensors[name] = Tensor(name, shape, DType.S16, QParams((exact,), 0, 16))
        return name

    def scale(self, name: str) -> float:
        return qparams_of(self.tensors[name]).scale[0]

    def constant(self, name: str, data: Array, dtype: DType, q: QParams | None = None) -> str:
        self.tensors[name] = Tensor(name, data.shape, dtype, q, data.astype(dtype.value))
        return name

    def scales(self, name: str, reals: list[float]) -> tuple[str, str]:
        pairs = [fixedpoint.quantize_multiplier(real) for real in reals]
        return (
            self.constant(f"{name}.multiplier", np.array([m for m, _ in pairs]), DType.S32),
            self.constant(f"{name}.shift", np.array([s for _, s in pairs]), DType.S8),
        )

    def weighted(
        self,
        op: Op,
        x: str,
        weights: tuple[int, ...],
        shape: tuple[int, ...],
        scale: float,
        window: Window | None = None,
        low: int = -32768,
    ) -> str:
        name = f"{op.value}_{len(self.nodes)}"
        y = self.activation(f"{name}.output", shape, scale)
        steps = tuple(float(np.float32(s)) for s in self.rng.uniform(0.002, 0.02, weights[0]))
        ratios = [self.scale(x) * s / self.scale(y) for s in steps]
        constants = (
            self.constant(
                f"{name}.weights",
                self.rng.integers(-127, 128, weights),
                DType.S8,
                QParams(steps, 0, 8, axis=0),
            ),
            self.constant(
                f"{name}.bias", self.rng.integers(-(1 << 20), 1 << 20, weights[0]), DType.S32
            ),
            *self.scales(name, ratios),
        )
        return self.node(name, op, (x, *constants), y, window, low)

    def add(self, a: str, b: str, scale: float) -> str:
        name = f"add_{len(self.nodes)}"
        y = self.activation(f"{name}.output", self.tensors[a].shape, scale)
        common = 2 * max(self.scale(a), self.scale(b))
        unit = 1 << fixedpoint.ADD_LEFT_SHIFT_WIDE
        reals = [
            self.scale(a) / common,
            self.scale(b) / common,
            common / (unit * self.scale(y)),
        ]
        return self.node(name, Op.ADD, (a, b, *self.scales(name, reals)), y)

    def pool(self, op: Op, x: str, window: Window, shape: tuple[int, ...]) -> str:
        name = f"{op.value}_{len(self.nodes)}"
        y = self.activation(f"{name}.output", shape, self.scale(x))
        return self.node(name, op, (x,), y, window)

    def node(
        self,
        name: str,
        op: Op,
        inputs: tuple[str, ...],
        output: str,
        window: Window | None = None,
        low: int = -32768,
    ) -> str:
        self.nodes.append(Node(name, op, inputs, output, window, (low, 32767)))
        return output


def network() -> tuple[Graph, Array]:
    """An integer graph whose outputs are all its activations, and one sample for it."""
    n = _Network()
    x = n.activation("input", (1, 6, 5, 3), 3e-4)
    same = Window((3, 3), (1, 1), (1, 1, 1, 1))
    conv = n.weighted(Op.CONV_2D, x, (4, 3, 3, 3), (1, 6, 5, 4), 1.5e-3, same, low=0)
    depthwise = n.weighted(Op.DEPTHWISE_CONV_2D, conv, (4, 3, 3), (1, 6, 5, 4), 1e-3, same)
    added = n.add(conv, depthwise, 1.9e-3)
    half = Window((2, 2), (2, 2))
    largest = n.pool(Op.MAX_POOL, added, half, (1, 3, 2, 4))
    mean = n.pool(Op.AVERAGE_POOL, added, half, (1, 3, 2, 4))
    joined = n.add(largest, mean, 2.3e-3)
    name = "joined.flat"
    flat = n.activation(name, (1, 24), n.scale(joined))
    n.nodes.append(Node("reshape", Op.RESHAPE, (joined,), flat))
    scores = n.weighted(Op.FULLY_CONNECTED, flat, (5, 24), (1, 5), 6e-3)
    outputs = (conv, depthwise, added, largest, mean, joined, scores)
    graph = Graph("tflm", (x,), outputs, tuple(n.nodes), n.tensors)
    values = n.rng.integers(-32768, 32768, (1, 6, 5, 3)).astype(np.int16)
    return graph, values


def run(graph: Graph, values: Array) -> dict[str, Array]:
    """What TensorFlow Lite Micro computes for the outputs of `graph`, by name."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("model.tflite", "in.npy", "out.npz")]
        paths[0].write_bytes(model(graph))
        np.save(paths[1], values)
        command = [sys.executable, "-c", RUN, *map(str, paths), str(len(graph.outputs))]
        subprocess.run(command, check=True, capture_output=True)
        with np.load(paths[2]) as archive:
            return dict(zip(graph.outputs, archive.values(), strict=True))


def model(graph: Graph) -> bytes:
    """`graph` as a TFLite file: weights as they are there, biases in 64 bits."""
    import flatbuffers  # noqa: TID251 (an oracle, not a format of ours)
    from ai_edge_litert import schema_py_generated as tfl

    buffers = [tfl.BufferT()]
    tensors: list[Any] = []
    index: dict[str, int] = {}
    codes: list[Any] = []
    types = {np.dtype(np.int8): tfl.TensorType.INT8, np.dtype(np.int16): tfl.TensorType.INT16}
    types |= {np.dtype(np.int64): tfl.TensorType.INT64, np.dtype(np.int32): tfl.TensorType.INT32}

    def tensor(
        name: str, shape: tuple[int, ...], dtype: Any, q: tuple[list[float], int] | None, data: Any
    ) -> int:
        made = tfl.TensorT()
        made.name, made.shape = name.encode(), list(shape)
        made.type = types[np.dtype(dtype)]
        made.buffer = 0
        if data is not None:
            made.buffer = len(buffers)
            buffers.append(tfl.BufferT())
            buffers[-1].data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        if q is not None:
            made.quantization = tfl.QuantizationParametersT()
            made.quantization.scale, made.quantization.quantizedDimension = q
            made.quantization.zeroPoint = [0] * len(q[0])
        tensors.append(made)
        index[name] = len(tensors) - 1
        return index[name]

    def code(kind: int, version: int) -> int:
        made = tfl.OperatorCodeT()
        made.builtinCode = made.deprecatedBuiltinCode = kind
        made.version = version
        codes.append(made)
        return len(codes) - 1

    for t in graph.tensors.values():
        if t.data is None:
            tensor(t.name, t.shape, np.int16, (list(qparams_of(t).scale), 0), None)
    operators = [_operator(tfl, graph, node, index, tensor, code) for node in graph.nodes]
    subgraph = tfl.SubGraphT()
    subgraph.tensors, subgraph.operators = tensors, operators
    subgraph.inputs = [index[name] for name in graph.inputs]
    subgraph.outputs = [index[name] for name in graph.outputs]
    whole = tfl.ModelT()
    whole.version, whole.subgraphs = 3, [subgraph]
    whole.operatorCodes, whole.buffers = codes, buffers
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(whole.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _operator(
    tfl: Any, graph: Graph, node: Node, index: Mapping[str, int], tensor: Any, code: Any
) -> Any:
    made = tfl.OperatorT()
    kind, options, version = {
        Op.CONV_2D: ("CONV_2D", "Conv2DOptions", 4),
        Op.DEPTHWISE_CONV_2D: ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", 5),
        Op.FULLY_CONNECTED: ("FULLY_CONNECTED", "FullyConnectedOptions", 7),
        Op.ADD: ("ADD", "AddOptions", 3),
        Op.MAX_POOL: ("MAX_POOL_2D", "Pool2DOptions", 3),
        Op.AVERAGE_POOL: ("AVERAGE_POOL_2D", "Pool2DOptions", 3),
        Op.RESHAPE: ("RESHAPE", "ReshapeOptions", 1),
    }[node.op]
    made.opcodeIndex = code(getattr(tfl.BuiltinOperator, kind), version)
    made.builtinOptionsType = getattr(tfl.BuiltinOptions, options)
    chosen = made.builtinOptions = getattr(tfl, f"{options}T")()
    if node.clamp is not None and node.clamp[0] == 0:
        chosen.fusedActivationFunction = tfl.ActivationFunctionType.RELU
    if node.window is not None:
        window = node.window
        chosen.padding = tfl.Padding.SAME if any(window.pads) else tfl.Padding.VALID
        chosen.strideH, chosen.strideW = window.strides
    if node.op in (Op.MAX_POOL, Op.AVERAGE_POOL) and node.window is not None:
        chosen.filterHeight, chosen.filterWidth = node.window.kernel
    if node.op is Op.DEPTHWISE_CONV_2D:
        chosen.depthMultiplier = 1
    if node.op is Op.ADD:
        chosen.potScaleInt16 = False
    computed = [index[t.name] for t in graph.activations(node)]
    constants: list[int] = []
    if node.op in (Op.CONV_2D, Op.DEPTHWISE_CONV_2D, Op.FULLY_CONNECTED):
        weights = graph.tensors[node.inputs[1]]
        data, axis = graph.constant(weights.name), 0
        if node.op is Op.DEPTHWISE_CONV_2D:
            data, axis = data.transpose(1, 2, 0)[None], 3
        steps = list(qparams_of(weights).scale)
        x = qparams_of(graph.tensors[node.inputs[0]]).scale[0]
        bias = graph.constant(node.inputs[2]).astype(np.int64)
        constants = [
            tensor(weights.name, data.shape, np.int8, (steps, axis), data),
            tensor(node.inputs[2], bias.shape, np.int64, ([x * s for s in steps], 0), bias),
        ]
    if node.op is Op.RESHAPE:
        shape = np.array(graph.tensors[node.output].shape, np.int32)
        constants = [tensor(f"{node.name}.shape", shape.shape, np.int32, None, shape)]
    made.inputs, made.outputs = [*computed, *constants], [index[node.output]]
    return made


if __name__ == "__main__":
    recorded = {name: array.reshape(-1).tolist() for name, array in run(*network()).items()}
    text = json.dumps({"command": COMMAND, **recorded}, separators=(",", ":"))
    GOLDEN.write_text(text.replace('],"', '],\n"') + "\n", encoding="utf-8", newline="\n")
