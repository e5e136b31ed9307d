"""Values that follow from the file alone, as exporters write to compute shapes or cast weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from edgeq.errors import ModelError
from edgeq.ir import Array

# Moves or converts elements and makes no more of them: weights of any size.
_MOVES = frozenset({
    "Cast", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Transpose",
    "Unsqueeze",
})  # fmt: skip
# Arithmetic on shapes.
_SHAPES = frozenset({
    "Add", "Concat", "Div", "Equal", "Gather", "Mul", "Neg", "ReduceProd", "Slice", "Split", "Sub",
    "Where",
})  # fmt: skip
_LARGEST = 4096  # elements that arithmetic on shapes may read: shapes have a handful


def constant(node: ir.Node) -> Array | None:
    """What a Constant node holds; None if it is of a kind that edgeq does not read."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            return None
        if attribute.type == ir.AttributeType.TENSOR:
            return attribute.as_tensor().numpy()
        if attribute.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
            return np.array(attribute.value, np.float32)
        if attribute.type in (ir.AttributeType.INT, ir.AttributeType.INTS):
            return np.array(attribute.value, np.int64)
    return None


def shape_of(node: ir.Node, shape: tuple[int, ...]) -> Array:
    """What a Shape node says of a value of `shape`."""
    end = node.attributes.get_int("end", len(shape))
    return np.array(shape[node.attributes.get_int("start", 0) : end], np.int64)


def can_evaluate(node: ir.Node, inputs: Sequence[Array | None]) -> bool:
    """Whether `evaluate` takes the node: a known operator, and small where it could grow."""
    if node.domain not in ("", "ai.onnx"):
        return False
    size = sum(array.size for array in inputs if array is not None)
    return node.op_type in _MOVES or (node.op_type in _SHAPES and size <= _LARGEST)


def evaluate(node: ir.Node, inputs: Sequence[Array | None], opset: int) -> list[Array]:
    """The outputs of `node`, by ONNX's own reference implementation."""
    from onnx.reference import ReferenceEvaluator

    names = [f"i{n}" if array is not None else "" for n, array in enumerate(inputs)]
    proto = ir.serde.serialize_node(node)
    del proto.input[:]
    proto.input.extend(names)
    empty = onnx.TypeProto()
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [onnx.helper.make_value_info(name, empty) for name in names if name],
        [onnx.helper.make_value_info(name, empty) for name in proto.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    feeds = {name: array for name, array in zip(names, inputs, strict=True) if name}
    try:
        return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]
    except Exception as error:  # the reference raises whatever numpy does; all mean the same
        raise ModelError("EQ0310", f"{node.name} ({node.op_type}): {error}") from error
