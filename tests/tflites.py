"""TFLite files for tests, built with the schema that ai-edge-litert ships, and TFLM to run them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]

# The interpreter can crash on a model: it runs in a process of its own. The package imports yaml,
# for its compression alone.
_TFLM = """
import sys, types, numpy as np
sys.modules.setdefault("yaml", types.ModuleType("yaml"))
from tflite_micro.python.tflite_micro import runtime
jobs = np.load(sys.argv[1])
results = {}
for job in range(len(jobs.files) // 2):
    model = runtime.Interpreter.from_bytes(jobs[f"model{job}"].tobytes(), arena_size=1 << 22)
    rows = []
    for sample in jobs[f"inputs{job}"]:
        model.set_input(sample[None], 0)
        model.invoke()
        rows.append(np.array(model.get_output(0)))
    results[str(job)] = np.stack(rows)
np.savez(sys.argv[2], **results)
"""


class Net:
    """A model of one subgraph in the making; tensors are named by their index."""

    def __init__(self) -> None:
        self.schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated")
        pytest.importorskip("flatbuffers")
        s = self.schema
        self.model = s.ModelT()
        self.model.version = 3
        self.model.description = b"test"
        self.model.operatorCodes = []
        self.model.buffers = [s.BufferT()]
        self.graph = s.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []
        self.graph.name = b"main"
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        shape: Sequence[int],
        kind: str = "FLOAT32",
        scale: float | Sequence[float] | None = None,
        zero: int | Sequence[int] = 0,
        data: Array | None = None,
        axis: int = 0,
        name: str | None = None,
        signature: Sequence[int] | None = None,
    ) -> int:
        """A tensor; its index."""
        s = self.schema
        tensor = s.TensorT()
        index = len(self.graph.tensors)
        tensor.name = (name or f"t{index}").encode()
        tensor.shape = list(shape)
        tensor.shapeSignature = None if signature is None else list(signature)
        tensor.type = getattr(s.TensorType, kind)
        tensor.buffer = 0
        if scale is not None:
            tensor.quantization = s.QuantizationParametersT()
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            tensor.quantization.scale = scales
            zeros = np.broadcast_to(np.atleast_1d(np.asarray(zero, np.int64)), scales.shape)
            tensor.quantization.zeroPoint = np.array(zeros)
            tensor.quantization.quantizedDimension = axis
        if data is not None:
            buffer = s.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return index

    def input(self, *args: Any, **options: Any) -> int:
        """A tensor that is an input."""
        index = self.tensor(*args, **options)
        self.graph.inputs.append(index)
        return index

    def ints(self, *values: int, shape: Sequence[int] | None = None) -> int:
        """A constant of INT32."""
        array = np.array(values, np.int32)
        return self.tensor(array.shape if shape is None else shape, "INT32", data=array)

    def op(
        self, kind: str, inputs: Sequence[int], output: int, options: str = "", **fields: Any
    ) -> int:
        """An operator; the tensor that it computes."""
        s = self.schema
        code = s.OperatorCodeT()
        code.version = 1
        if hasattr(s.BuiltinOperator, kind):
            code.builtinCode = getattr(s.BuiltinOperator, kind)
        else:
            code.builtinCode, code.customCode = s.BuiltinOperator.CUSTOM, kind.encode()
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        operator = s.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(code)
        operator.inputs, operator.outputs = list(inputs), [output]
        if options:
            operator.builtinOptionsType = getattr(s.BuiltinOptions, options)
            operator.builtinOptions = getattr(s, f"{options}T")()
            for name, value in fields.items():
                assert hasattr(operator.builtinOptions, name)
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)
        return output

    def bytes(self, *outputs: int) -> bytes:
        """The file."""
        import flatbuffers  # type: ignore[import-untyped]  # noqa: TID251  # tests write files

        self.graph.outputs = list(outputs or self.graph.outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def tflm(jobs: Sequence[tuple[bytes, Array]]) -> list[Array]:
    """What TensorFlow Lite Micro gives for each (model, samples), (samples, *output shape)."""
    if importlib.util.find_spec("tflite_micro") is None:
        pytest.skip("tflite_micro is missing")
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "jobs.npz"), Path(folder, "results.npz")
        arrays: dict[str, Array] = {}
        for index, (model, inputs) in enumerate(jobs):
            arrays[f"model{index}"] = np.frombuffer(model, np.uint8)
            arrays[f"inputs{index}"] = inputs
        np.savez(source, **arrays)  # type: ignore[arg-type]
        done = subprocess.run(
            [sys.executable, "-c", _TFLM, str(source), str(result)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        with np.load(result) as archive:
            return [archive[str(index)] for index in range(len(jobs))]


def litert(model: bytes, samples: Array) -> list[Array]:
    """What LiteRT's reference kernels give for each sample: one array an output."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    runner = interpreter.Interpreter(
        model_content=model,
        experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_REF,
    )
    runner.allocate_tensors()
    outputs = [detail["index"] for detail in runner.get_output_details()]
    rows = []
    for sample in samples:
        runner.set_tensor(runner.get_input_details()[0]["index"], sample[None])
        runner.invoke()
        rows.append([runner.get_tensor(index) for index in outputs])
    return [np.concatenate(column) for column in zip(*rows, strict=True)]
