"""The integer network as an ONNX model, which onnxruntime runs with integer kernels.

Inputs and outputs are float32, in the source model's layout and by its names, and the batch is
open. A network with exits has three ports more: the tradeoff, an input that need not be given, and
the exit and the path of each sample.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

import edgeq
from edgeq.errors import GraphError
from edgeq.exporters import onnx_exits
from edgeq.exporters.onnx_layers import Writer, describe
from edgeq.ir import qparams_of
from edgeq.program import Program

OPSET, IR_VERSION = 21, 10
BYTE_BITS = 8

# A session setting: x86 cores without VNNI add pairs of products of 8 × 8 bits in 16 bits, and
# saturate; with it they take other weights. Elsewhere, and with 7 bits, it changes nothing.
EXACT_PRODUCTS = ("session.x64quantprecision", "1")


def export(program: Program, path: Path) -> None:
    """Writes `program` as an ONNX model to `path`: the same bytes for the same program.

    Raises:
        GraphError: a block has several levels but no gate to choose one, an activation has more
            than 8 bits, or a network with exits has a port of a name that the file needs.
    """
    path.write_bytes(model(program).SerializeToString(deterministic=True))


def model(program: Program) -> onnx.ModelProto:
    """`program` as an ONNX model that the checker of onnx accepts."""
    _refuse_wide(program)
    writer = Writer(int4=program.target.int4_weights)
    inputs = [_reals(source.port.name, source.port.shape) for source in program.inputs]
    outputs = [_reals(port.name, port.shape) for port in program.outputs]
    if program.gate is None:
        _write(writer, program)
    else:
        onnx_exits.write(writer, program, program.gate)
        inputs.append(_index(onnx_exits.TRADEOFF))
        outputs += [_index(name, "batch") for name in (onnx_exits.EXIT, onnx_exits.PATH)]
    made = helper.make_model(
        writer.graph(program.name, inputs, outputs),
        producer_name="edgeq",
        producer_version=edgeq.__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    facts = {"target": program.target.name, "model_sha256": program.model_sha256}
    describe(made, {**facts, "layers": json.dumps(writer.layers, ensure_ascii=False)})
    onnx.checker.check_model(made)
    return made


def _refuse_wide(program: Program) -> None:
    for graph in program.network.graphs:
        for tensor in graph.tensors.values():
            if tensor.data is None and qparams_of(tensor).bits > BYTE_BITS:
                raise GraphError(
                    "EQ0347",
                    f"{tensor.name} has {qparams_of(tensor).bits} bits; an ONNX file is written "
                    f"with activations of 2 to {BYTE_BITS}",
                )


def _write(writer: Writer, program: Program) -> None:
    """All of a network without exits."""
    for source in program.inputs:
        writer.input(source.port.name, source.port.layout, source.tensor)
    for block in program.network.blocks:
        if len(block.variants) != 1:
            raise GraphError(
                "EQ0346", f"{block.name} has {len(block.variants)} levels, and no gate chooses one"
            )
        writer.layers_of(block.variants[0].graph)
    for port, tensor in zip(program.outputs, program.network.outputs, strict=True):
        writer.output(port.name, port.layout, tensor)


def _reals(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape[1:]])


def _index(name: str, *shape: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)
