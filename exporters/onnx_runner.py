"""An ONNX artefact in onnxruntime, fed with integers and read as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path as File

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from edgeq import reference
from edgeq.exporters import gate_section, onnx_exits, onnx_qdq
from edgeq.exporters.onnx_layers import OFFSET, integers
from edgeq.gates import Path
from edgeq.ir import Array, Graph, Op, Tensor, qparams_of
from edgeq.program import Program
from edgeq.reference import Rounding, Routed

_ERRORS_ONLY = 3


class Runner:
    """The artefact at `path`, which was made of `program`."""

    name = "onnxruntime"
    rounding = Rounding.FLOAT32

    def __init__(self, program: Program, path: File) -> None:
        self.version = f"{onnxruntime.__version__}, {path.suffix.removeprefix('.')}"
        self._program = program
        self._model = path.read_bytes()
        self._session = session(self._model)
        self._outputs = [port.name for port in program.outputs]

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The integers of every output for a batch of integers, both in the program's order."""
        values = self._session.run(self._outputs, self._feeds(inputs))
        outputs = zip(self._program.network.outputs, self._program.outputs, values, strict=True)
        return [
            qparams_of(tensor).quantize(port.to_graph(value)).astype(np.int8)
            for tensor, port, value in outputs
        ]

    def route(self, inputs: Mapping[str, Array], tradeoff: int | None = None) -> Routed:
        """Where the gates send each sample of integers, and what it gets there."""
        gate = self._program.gate
        assert gate is not None
        feeds = self._feeds(inputs)
        if tradeoff is not None:
            feeds[onnx_exits.TRADEOFF] = np.array(tradeoff, np.int64)
        names = [*self._outputs, onnx_exits.EXIT, onnx_exits.PATH]
        reals, ends, codes = self._session.run(names, feeds)
        known = {(len(p) - 1, gate_section.code(p)): i for i, p in enumerate(gate.paths)}
        taken = [known[end, code] for end, code in zip(ends.tolist(), codes.tolist(), strict=True)]
        output = qparams_of(self._program.network.outputs[0])
        return Routed(np.array(taken, np.int64), output.quantize(reals).astype(np.int8))

    def trace(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The integers of every layer by tensor, but of reshapes, which may lie otherwise."""
        return self._traced(
            onnx.load_from_string(self._model), self._program.network.graphs, {}, inputs
        )

    def trace_path(self, inputs: Mapping[str, Array], path: Path) -> dict[str, Array]:
        """The same of one sample and the layers on `path`, wherever the gates would send it."""
        program = self._program
        model = onnx_exits.unrolled(onnx.load_from_string(self._model), program, path)
        names = {program.network.outputs[0].name: onnx_exits.logits_name(program, path)}
        graphs = reference.graphs_on(program.network, path)
        return self._traced(model, graphs, names, inputs)

    def _traced(
        self,
        model: onnx.ModelProto,
        graphs: Sequence[Graph],
        names: Mapping[str, str],
        inputs: Mapping[str, Array],
    ) -> dict[str, Array]:
        """What the layers of `graphs` give in `model`, which calls some tensors otherwise."""
        wanted = {
            node.output: graph.tensors[node.output]
            for graph in graphs
            for node in graph.nodes
            if node.op is not Op.RESHAPE
        }
        del model.graph.output[:]
        for name, tensor in wanted.items():
            stored = integers(replace(tensor, name=names.get(name, name)))
            info = helper.make_tensor_value_info(stored, TensorProto.UINT8, None)
            model.graph.output.append(info)
        values = session(model.SerializeToString()).run(None, self._feeds(inputs))
        return {n: _values(t, v) for (n, t), v in zip(wanted.items(), values, strict=True)}

    def _feeds(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        feeds = {}
        for source in self._program.inputs:
            real = qparams_of(source.tensor).dequantize(inputs[source.tensor.name])
            feeds[source.port.name] = source.port.to_source(real.astype(np.float32))
        return feeds


def session(model: bytes, optimized: File | None = None) -> onnxruntime.InferenceSession:
    """`model` at default settings and exact; what was made of it is written to `optimized`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry(*onnx_qdq.EXACT_PRODUCTS)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _values(tensor: Tensor, stored: Array) -> Array:
    moved = np.moveaxis(stored, 1, -1) if len(tensor.shape) == 4 else stored
    return moved.astype(np.int16) - OFFSET


RUNTIMES = {Runner.name: Runner}
