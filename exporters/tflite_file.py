"""A TFLite file in the making: tensors, constants and operators by name, then the flatbuffer.

Written with the object API of the schema that ai-edge-litert ships.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import edgeq
from edgeq.errors import MissingToolError
from edgeq.ir import Array, Graph, QParams, qparams_of

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
METADATA = "edgeq"  # the entry of the model's metadata that is ours
SIGNATURE = "serving_default"
ALIGNMENT = 16  # bytes: what the schema promises of buffers
OLD_CODES = 127  # of operators; the rest have the newer field alone
# Versions of operators from which the schema knows them with integer tensors.
VERSIONS = {
    "ADD": 2, "AVERAGE_POOL_2D": 2, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4, "GATHER": 2, "MAXIMUM": 2, "MAX_POOL_2D": 2, "MINIMUM": 2, "PAD": 2,
    "PADV2": 2, "QUANTIZE": 2, "SOFTMAX": 2,
}  # fmt: skip


def load_schema() -> Any:
    """The module of the schema.

    Raises:
        MissingToolError: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingToolError(
            "EQ0621", 'TFLite export needs ai-edge-litert: python -m pip install "edgeq[tflite]"'
        ) from error
    return schema_py_generated


def container(q: QParams) -> type[np.signedinteger[Any]]:
    """The type of activations: int8 for up to 8 bits."""
    return np.int16 if q.wide else np.int8


@dataclass(slots=True)
class Writer:
    """One subgraph, for the integer graph `graph`; names of tensors are unique."""

    schema: Any
    graph: Graph
    index: dict[str, int] = field(default_factory=dict)  # of tensors
    codes: dict[str, int] = field(default_factory=dict)
    tensors: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    buffers: list[Array | None] = field(default_factory=lambda: [None])  # 0 is that of activations

    def activation(self, name: str, suffix: str = "") -> int:
        """The tensor `name` of the graph; with a suffix, a stage on the way to it."""
        tensor = self.graph.tensors[name]
        q = qparams_of(tensor)
        return self.tensor(name + suffix, tensor.shape, container(q), q)

    def constant(
        self, name: str, data: Array, qparams: QParams | None = None, axis: int = 0
    ) -> int:
        """A tensor with `data`; `axis` is that of scales by channel."""
        index = self.tensor(name, data.shape, data.dtype.type, qparams, axis)
        self.tensors[index].buffer = len(self.buffers)
        self.buffers.append(data)
        return index

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: type[np.generic],
        qparams: QParams | None = None,
        axis: int = 0,
    ) -> int:
        """A tensor that an operator computes; its index."""
        schema = self.schema
        made = schema.TensorT(
            shape=list(shape),
            type=getattr(schema.TensorType, np.dtype(dtype).name.upper()),
            name=name,
        )
        if qparams is not None:
            zeros = [qparams.zero_point] * len(qparams.scale)
            made.quantization = schema.QuantizationParametersT(
                scale=list(qparams.scale), zeroPoint=zeros, quantizedDimension=axis
            )
        self.index[name] = len(self.tensors)
        self.tensors.append(made)
        return self.index[name]

    def operator(
        self,
        code: str,
        inputs: Sequence[int],
        output: int,
        options: str,
        fields: Mapping[str, object] | None = None,
    ) -> int:
        """Appends an operator whose options are the table of that name; the index of its output."""
        schema = self.schema
        self.operators.append(
            schema.OperatorT(
                opcodeIndex=self.codes.setdefault(code, len(self.codes)),
                inputs=list(inputs),
                outputs=[output],
                builtinOptionsType=getattr(schema.BuiltinOptions, options),
                builtinOptions=getattr(schema, f"{options}T")(**(fields or {})),
            )
        )
        return output

    def finish(
        self, name: str, inputs: Mapping[str, str], outputs: Mapping[str, str], metadata: bytes
    ) -> bytes:
        """The flatbuffer; `inputs` and `outputs` are tensors by the names that users know."""
        schema, graph = self.schema, self.graph
        self.buffers.append(np.frombuffer(metadata, np.uint8))
        subgraph = schema.SubGraphT(
            name=name,
            tensors=self.tensors,
            operators=self.operators,
            inputs=[self.index[tensor] for tensor in graph.inputs],
            outputs=[self.index[tensor] for tensor in graph.outputs],
        )
        signature = schema.SignatureDefT(
            signatureKey=SIGNATURE,
            inputs=self._mapped(inputs),
            outputs=self._mapped(outputs),
        )
        model = schema.ModelT(
            version=SCHEMA_VERSION,
            description=f"edgeq {edgeq.__version__}",
            operatorCodes=[self._code(code) for code in self.codes],
            subgraphs=[subgraph],
            buffers=[schema.BufferT(data=_bytes(data)) for data in self.buffers],
            metadata=[schema.MetadataT(name=METADATA, buffer=len(self.buffers) - 1)],
            signatureDefs=[signature],
        )
        builder = aligning_builder()
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _mapped(self, tensors: Mapping[str, str]) -> list[Any]:
        make = self.schema.TensorMapT
        return [make(name=name, tensorIndex=self.index[t]) for name, t in tensors.items()]

    def _code(self, name: str) -> Any:
        code = getattr(self.schema.BuiltinOperator, name)
        return self.schema.OperatorCodeT(
            builtinCode=code,
            deprecatedBuiltinCode=min(code, OLD_CODES),
            version=VERSIONS.get(name, 1),
        )


def _bytes(data: Array | None) -> Array | None:
    """The little-endian bytes of an array."""
    if data is None:
        return None
    little = data.astype(data.dtype.newbyteorder("<"), copy=False)
    return np.frombuffer(little.tobytes(), np.uint8)


def aligning_builder() -> Any:
    """A flatbuffer builder whose vectors of bytes lie at multiples of `ALIGNMENT`.

    The schema asks for that (force_align), and Python's packing forgets it.
    """
    import flatbuffers

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        def CreateNumpyVector(self, x: Array) -> int:  # noqa: N802
            if x.dtype != np.uint8:
                return int(super().CreateNumpyVector(x))
            self.StartVector(1, x.size, ALIGNMENT)
            self.head -= x.size
            self.Bytes[self.head : self.head + x.size] = x.tobytes()
            return int(self.EndVector())

    return Builder(1 << 16)
