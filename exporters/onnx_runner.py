"""An ONNX artefact in onnxruntime, fed with integers and read as such."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from edgeq.exporters import onnx_qdq
from edgeq.ir import Array, Op, Tensor, qparams_of
from edgeq.program import Program
from edgeq.reference import Rounding

_ERRORS_ONLY = 3


class Runner:
    """The artefact at `path`, which was made of `program`."""

    name = "onnxruntime"
    rounding = Rounding.FLOAT32

    def __init__(self, program: Program, path: Path) -> None:
        self.version = f"{onnxruntime.__version__}, {path.suffix.removeprefix('.')}"
        self._program = program
        self._model = path.read_bytes()
        self._session = session(self._model)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The integers of every output for a batch of integers, both in the program's order."""
        values = self._session.run(None, self._feeds(inputs))
        outputs = zip(self._program.network.outputs, self._program.outputs, values, strict=True)
        return [
            qparams_of(tensor).quantize(port.to_graph(value)).astype(np.int8)
            for tensor, port, value in outputs
        ]

    def trace(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The integers of every layer by tensor, but of reshapes, which may lie otherwise."""
        model = onnx.load_from_string(self._model)
        wanted = [
            graph.tensors[node.output]
            for graph in self._program.network.graphs
            for node in graph.nodes
            if node.op is not Op.RESHAPE
        ]
        del model.graph.output[:]
        for tensor in wanted:
            name = onnx_qdq.integers(tensor)
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.UINT8, None))
        values = session(model.SerializeToString()).run(None, self._feeds(inputs))
        return {t.name: _values(t, value) for t, value in zip(wanted, values, strict=True)}

    def _feeds(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        feeds = {}
        for source in self._program.inputs:
            real = qparams_of(source.tensor).dequantize(inputs[source.tensor.name])
            feeds[source.port.name] = source.port.to_source(real.astype(np.float32))
        return feeds


def session(model: bytes, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    """`model` at default settings and exact; what was made of it is written to `optimized`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry(*onnx_qdq.EXACT_PRODUCTS)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _values(tensor: Tensor, stored: Array) -> Array:
    moved = np.moveaxis(stored, 1, -1) if len(tensor.shape) == 4 else stored
    return moved.astype(np.int16) - onnx_qdq.OFFSET


RUNTIMES = {Runner.name: Runner}
