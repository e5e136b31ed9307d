"""From an ONNX file to a float graph: NCHW becomes NHWC, and no transpose is left over.

Layers are called as their ONNX nodes are, or, where an exporter only numbered those, as their
weights are (`conv1.weight` makes `conv1`), or after the PyTorch module that they stand in.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx_ir as ir

from edgeq.errors import ModelError, UsageError
from edgeq.frontends import onnx_constants, onnx_file
from edgeq.frontends.builder import Builder, refusal_of, safe, unique
from edgeq.frontends.onnx_build import (
    Call,
    Computed,
    Known,
    Value,
    graph_shape,
    reads_channels_last,
)
from edgeq.frontends.onnx_ops import CONVERTERS, check, convert
from edgeq.frontends.source import Operator, Port, Source, Survey
from edgeq.ir import Array
from edgeq.ops import verify

_LAYOUTS = {2: "NC", 4: "NCHW"}
# torch.onnx.export(dynamo=True) calls nodes node_conv2d_3 or node_Conv_17: numbers, not names
_NUMBERED = re.compile(r"node_\w+")
# it notes, as Python lists, the modules around a node and their classes; the node itself is last
_SCOPES, _CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
_TORCH_LAYERS = "torch.nn.modules."


def load(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Source:
    """The model at `path`; see `edgeq.frontends.load`."""
    return read(path.read_bytes(), path, shapes, path.stem)


def read(data: bytes, path: Path, shapes: Mapping[str, tuple[int, ...]], name: str) -> Source:
    """The model called `name` that the ONNX file `data` holds; `path` is where that came from."""
    return _survey(data, path, shapes, name).whole(path, CONVERTERS)


def survey(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Survey:
    """Every operator of the model at `path`; see `edgeq.frontends.survey`."""
    return _survey(path.read_bytes(), path, shapes, path.stem)


def _survey(data: bytes, path: Path, shapes: Mapping[str, tuple[int, ...]], name: str) -> Survey:
    model, opset = onnx_file.parse(data, path)
    reader = _Reader(opset)
    constants = {v.name: v for v in model.graph.initializers.values()}
    inputs = [v for v in model.graph.inputs if v.name not in constants]
    for value in model.graph.outputs:
        if value.producer() is None:
            raise ModelError("EQ0317", f"output {value.name} is an input or a constant")
    names = [str(value.name) for value in inputs]
    if unknown := sorted(set(shapes) - set(names)):
        raise UsageError(
            "EQ0211", f"no input is called {unknown[0]}; inputs are {', '.join(names)}"
        )
    ports = [reader.read_input(value, shapes.get(str(value.name))) for value in inputs]
    for value in constants.values():
        if value.const_value is not None:
            reader.values[value] = Known(str(value.name), value.const_value.numpy())
    reader.read_nodes(model.graph)
    outputs = [reader.read_output(value) for value in model.graph.outputs]
    operators, refusals = tuple(reader.operators), tuple(reader.refusals)
    if refusals:
        return Survey(operators, refusals, None)
    graph = reader.builder.graph(
        safe(name), tuple(p.tensor for p in ports), tuple(p.tensor for p in outputs if p)
    )
    verify(graph)
    source = Source(
        graph,
        tuple(ports),
        tuple(p for p in outputs if p),
        reader.all_notes(),
        name,
        hashlib.sha256(data).hexdigest(),
    )
    return Survey(operators, (), source)


class _Reader:
    """Walks the nodes that the outputs need; a refused node leaves its outputs without a value."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.builder = Builder()
        self.values: dict[ir.Value, Value] = {}
        self.notes: list[str] = []
        self.refusals: list[str] = []
        self.operators: list[Operator] = []

    def read_input(self, value: ir.Value, wanted: tuple[int, ...] | None) -> Port:
        """The port of a graph input, its tensor added."""
        name = str(value.name)
        shape = self._input_shape(name, value, wanted)
        if len(shape) not in _LAYOUTS:
            raise ModelError(
                "EQ0315",
                f"input {name} has shape {shape}; edgeq takes rank 4 (N, C, H, W) and 2 (N, C)",
            )
        if value.dtype is not None and not value.dtype.is_floating_point():
            raise ModelError("EQ0315", f"input {name} is {value.dtype.name}; it must be FLOAT")
        if value.dtype not in (None, ir.DataType.FLOAT):
            self.notes.append(f"input {name}: float32 here, another float in the file")
        last = len(shape) == 4 and reads_channels_last(value)
        tensor = self.builder.activation(name, shape if last else graph_shape(shape))
        self.values[value] = Computed(tensor, shape, channels_last=last)
        return Port(name, tensor, shape, "NHWC" if last else _LAYOUTS[len(shape)])

    def _input_shape(
        self, name: str, value: ir.Value, wanted: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        if value.shape is None:
            declared: tuple[int | str, ...] = ("?",) * len(wanted or ())
        else:
            declared = tuple(
                d if isinstance(d, int) and d >= 0 else _symbol(d) for d in value.shape
            )
        if value.shape is None and wanted is None:
            raise ModelError(
                "EQ0312", f"input {name} has no shape; give it: --shape {name}=1,C,H,W"
            )
        if 0 in declared or 0 in (wanted or ()):
            raise ModelError("EQ0313", f"input {name} has an empty axis: {wanted or declared}")
        if wanted is not None:
            return _agreed(name, declared, wanted)
        batch, *rest = declared or (1,)
        if isinstance(batch, str):
            self.notes.append(f"input {name}: batch axis {batch} is fixed to 1")
        elif batch != 1:
            raise ModelError(
                "EQ0312",
                f"input {name}: axis 0 is {batch}; edgeq runs a batch of 1, "
                f"try --shape {name}={_flag((1, *rest))}",
            )
        for axis, size in enumerate(rest, start=1):
            if isinstance(size, str):
                raise ModelError(
                    "EQ0312",
                    f"input {name}: axis {axis} ({size}) is dynamic; "
                    f"fix it with --shape {name}={_flag((1, *rest))}",
                )
        return (1, *(int(size) for size in rest)) if declared else ()

    def read_nodes(self, graph: ir.Graph) -> None:
        """Every needed node, in order; refusals are collected."""
        needed = _needed(graph)
        for index, node in enumerate(graph):
            if node not in needed:
                continue
            name = unique(_layer_name(node, index), self.builder.node_names)
            refusal = refusal_of(partial(self._read_node, node, name))
            if refusal is not None:
                self.refusals.append(refusal)
            self.operators.append(Operator(name, str(node.op_type), refusal))

    def _read_node(self, node: ir.Node, name: str) -> None:
        if node.op_type == "Constant" and (array := onnx_constants.constant(node)) is not None:
            self._set(node, [array])
            return
        for value in node.inputs:
            if value is not None and value.producer() is None and value not in self.values:
                raise ModelError("EQ0310", f"{name}: reads {value.name}, which nothing computes")
        inputs = tuple(self.values.get(v) if v is not None else None for v in node.inputs)
        call = Call(self.builder, node, name, inputs, self.opset)
        if any(v is not None and v not in self.values for v in node.inputs):
            check(call)  # what it reads was refused: its shapes are unknown, its operator is not
        elif node.op_type == "Shape" and inputs and isinstance(inputs[0], Computed):
            self._set(node, [onnx_constants.shape_of(node, inputs[0].shape)])
        elif not any(isinstance(v, Computed) for v in inputs) and onnx_constants.can_evaluate(
            node, arrays := [v.array if isinstance(v, Known) else None for v in inputs]
        ):
            self._set(node, onnx_constants.evaluate(node, arrays, self.opset))
        else:
            self.values[node.outputs[0]] = convert(call)

    def _set(self, node: ir.Node, arrays: Sequence[Array]) -> None:
        for value, array in zip(node.outputs, arrays, strict=True):
            self.values[value] = Known(str(value.name), array)

    def read_output(self, value: ir.Value) -> Port | None:
        """The port of a graph output; None if what it needs was refused."""
        found = self.values.get(value)
        if isinstance(found, Known):
            raise ModelError("EQ0317", f"output {value.name} does not depend on any input")
        if found is None:
            return None
        if found.image is not None:
            self.refusals.append(
                f"output {value.name} is a flattened image, whose elements the device has in "
                "another order; make the image itself the output"
            )
        layout = "NHWC" if found.channels_last else _LAYOUTS[len(found.shape)]
        return Port(str(value.name), found.tensor, found.shape, layout)

    def all_notes(self) -> tuple[str, ...]:
        """What was decided on reading."""
        widened = Counter(self.builder.widened.values())
        return (
            *self.notes,
            *(f"{count} initialisers of {kind} read as float32" for kind, count in widened.items()),
        )


def _symbol(dimension: object) -> str:
    """How a dynamic axis is called."""
    name = getattr(dimension, "value", None)
    return name if isinstance(name, str) and name else "?"


def _flag(shape: Sequence[int | str]) -> str:
    return ",".join(str(size) for size in shape)


def _agreed(name: str, declared: Sequence[int | str], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """`wanted`, which must agree with what the file fixes and have a batch of 1."""
    fits = len(wanted) == len(declared) and wanted[:1] == (1,)
    rest = zip(declared[1:], wanted[1:], strict=True) if fits else ()
    if not fits or any(isinstance(fixed, int) and fixed != size for fixed, size in rest):
        raise ModelError(
            "EQ0312",
            f"input {name}: --shape {name}={_flag(wanted)} does not fit the model's "
            f"{_flag(declared)}; the batch axis must be 1",
        )
    return wanted


def _needed(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that the outputs depend on."""
    needed: set[ir.Node] = set()
    waiting = [producer for v in graph.outputs if (producer := v.producer())]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.predecessors())
    return needed


def _layer_name(node: ir.Node, index: int) -> str:
    if node.name and not _NUMBERED.fullmatch(node.name):
        return safe(node.name)
    for value in node.inputs[1:]:
        if value is not None and value.is_initializer() and "." in str(value.name):
            return safe(str(value.name).rpartition(".")[0])
    return _module_name(node) or f"{node.op_type.lower()}_{index}"


def _module_name(node: ir.Node) -> str:
    """The PyTorch layer that `node` is, or the module it stands in and its operator."""
    scopes, classes = (
        re.findall(r"'([^']*)'", node.metadata_props.get(key, "")) for key in (_SCOPES, _CLASSES)
    )
    if len(scopes) < 2 or len(scopes) != len(classes) or not scopes[-2]:
        return ""
    is_layer = classes[-2].startswith(_TORCH_LAYERS)
    return safe(scopes[-2] if is_layer else f"{scopes[-2]}.{node.op_type.lower()}")
