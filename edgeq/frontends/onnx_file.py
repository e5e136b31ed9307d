"""From bytes to an onnx_ir model in which every tensor holds what it declares.

Sizes are checked before anything is allocated; nothing is executed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs

from edgeq.errors import ModelError

_RAW_BITS: Mapping[int, int] = {
    onnx.TensorProto.FLOAT: 32, onnx.TensorProto.FLOAT16: 16, onnx.TensorProto.BFLOAT16: 16,
    onnx.TensorProto.DOUBLE: 64, onnx.TensorProto.BOOL: 8,
    onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT8: 8, onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT16: 16, onnx.TensorProto.UINT16: 16,
    onnx.TensorProto.INT32: 32, onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.INT64: 64, onnx.TensorProto.UINT64: 64,
}  # fmt: skip
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
OLDEST_OPSET = 7  # before it Add broadcast by attribute and BatchNormalization had other inputs


def parse(data: bytes, path: Path) -> tuple[ir.Model, int]:
    """The model that `data`, read from `path`, holds, and the version of its standard operators.

    Raises:
        ModelError: EQ0310 broken file, EQ0311 data outside its folder, EQ0315 unsupported contents.
    """
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError("EQ0310", f"{path}: not an ONNX file, or cut short ({error})") from error
    if not proto.graph.node or not proto.graph.output:
        raise ModelError("EQ0310", f"{path}: not an ONNX file, or empty: it has no nodes")
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST_OPSET:
        raise ModelError(
            "EQ0315", f"{path}: opset {opset}; edgeq reads {OLDEST_OPSET} and later, re-export it"
        )
    if proto.graph.sparse_initializer:
        raise ModelError("EQ0315", f"{path}: sparse initialisers; store them dense")
    if bad := [name for name in _names(proto.graph) if isinstance(name, bytes)]:
        raise ModelError("EQ0310", f"{path}: malformed graph (the name {bad[0]!r} is not UTF-8)")
    for tensor in _tensors(proto.graph):
        _check_tensor(path, tensor)
    return _deserialize(path, proto), opset


def _deserialize(path: Path, proto: onnx.ModelProto) -> ir.Model:
    try:
        model = ir.serde.deserialize_model(proto)
        model.graph.sort()
    except Exception as error:  # onnx_ir raises many kinds on malformed graphs; all mean the same
        cause = error.__cause__ or error
        raise ModelError("EQ0310", f"{path}: malformed graph ({cause})") from error
    return model


def _names(graph: onnx.GraphProto) -> Iterator[str | bytes]:
    """Every name; protobuf gives bytes for those that are not UTF-8."""
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
    for named in (*graph.initializer, *graph.input, *graph.output):
        yield named.name


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t


def _check_tensor(path: Path, tensor: onnx.TensorProto) -> None:
    name = tensor.name or "a constant"
    if tensor.data_type not in _RAW_BITS:
        raise ModelError("EQ0315", f"{path}: {name} has unsupported data type {tensor.data_type}")
    if any(d < 0 for d in tensor.dims):
        raise ModelError("EQ0310", f"{path}: {name} has negative dimensions {list(tensor.dims)}")
    elements = math.prod(tensor.dims)
    size = (elements * _RAW_BITS[tensor.data_type] + 7) // 8
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _load_external(path, tensor, size)
    elif tensor.HasField("raw_data"):
        if len(tensor.raw_data) != size:
            raise ModelError(
                "EQ0310",
                f"{path}: {name} of shape {list(tensor.dims)} holds {len(tensor.raw_data)} bytes "
                f"where {size} are due",
            )
    elif (held := sum(len(getattr(tensor, f)) for f in _TYPED_FIELDS)) != elements and size > held:
        raise ModelError(
            "EQ0310",
            f"{path}: {name} of shape {list(tensor.dims)} holds {held} elements "
            f"where {elements} are due",
        )


def _load_external(path: Path, tensor: onnx.TensorProto, size: int) -> None:
    """The tensor's external bytes, moved into it."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    folder = path.parent.resolve()
    location = entries.get("location", "")
    file = (folder / location).resolve()
    if not location or not file.is_relative_to(folder):
        raise ModelError(
            "EQ0311",
            f"{path}: {tensor.name} keeps its data in {location!r}, outside the model's folder",
        )
    offset = int(entries["offset"]) if entries.get("offset", "").isdecimal() else 0
    length = int(entries["length"]) if entries.get("length", "").isdecimal() else size
    available = file.stat().st_size if file.is_file() else 0
    if length != size or offset + size > available:
        raise ModelError(
            "EQ0310",
            f"{path}: {tensor.name} needs {size} bytes at {offset} of {location}, declares "
            f"{length} and the file has {available}",
        )
    with file.open("rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(size)
    tensor.data_location = onnx.TensorProto.DEFAULT
    tensor.ClearField("external_data")
