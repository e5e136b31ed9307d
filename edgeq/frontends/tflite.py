"""From a TFLite file to a float graph, and, where the file is quantised, the integers beside it.

A quantised model keeps its scales, zero points and weights exactly. In a float model, constants
that are stored as float16 or int8 become float32. No library is needed to read a file.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeq.errors import ModelError, UsageError
from edgeq.frontends import tflite_file
from edgeq.frontends.builder import refusal_of, safe
from edgeq.frontends.source import Operator, Port, Source, Survey
from edgeq.frontends.tflite_build import (
    Call,
    Computed,
    Known,
    State,
    Value,
    activation_qparams,
)
from edgeq.frontends.tflite_file import Content, Info, Operation
from edgeq.frontends.tflite_names import layer_name
from edgeq.frontends.tflite_ops import CONVERTERS, check
from edgeq.ir import Node, Op, QParams
from edgeq.ops import verify

Shapes = Mapping[str, tuple[int, ...]]

BYTES = "UINT8"
_LAYOUTS = {2: "NC", 4: "NHWC"}


def load(path: Path, shapes: Shapes) -> Source:
    """The model at `path`; see `edgeq.frontends.load`."""
    return survey(path, shapes).whole(path, CONVERTERS)


def survey(path: Path, shapes: Shapes) -> Survey:
    """Every operator of the model at `path`; see `edgeq.frontends.survey`."""
    data = path.read_bytes()
    reader = _Reader(path, tflite_file.parse(data, path), shapes)
    reader.read_operations()
    outputs = reader.read_outputs()
    operators, refusals = tuple(reader.operators), tuple(reader.refusals)
    if refusals:
        return Survey(operators, refusals, None)
    state = reader.state
    graph = state.builder.graph(
        safe(path.stem), tuple(p.tensor for p in reader.inputs), tuple(p.tensor for p in outputs)
    )
    verify(graph)
    source = Source(
        graph,
        reader.inputs,
        outputs,
        reader.all_notes(),
        path.stem,
        hashlib.sha256(data).hexdigest(),
        state.twins or None,
    )
    return Survey(operators, (), source)


class _Reader:
    """Walks the operators that the outputs need; a refused one leaves its output without value."""

    def __init__(self, path: Path, content: Content, shapes: Shapes) -> None:
        self.path = path
        self.content = content
        self.shapes = shapes
        self.state = State()
        self.values: dict[int, Value] = {}
        self.notes: list[str] = []
        self.refusals: list[str] = []
        self.operators: list[Operator] = []
        self._read: set[int] = set()  # what operators computed, or were refused to
        self._producers = self._find_producers()
        self._readers: dict[int, list[Operation]] = defaultdict(list)
        for operation in content.operations:
            for index in set(operation.inputs):
                self._readers[index].append(operation)
        names = [content.tensors[index].name for index in content.inputs]
        if unknown := sorted(set(shapes) - set(names)):
            raise UsageError(
                "EQ0211", f"no input is called {unknown[0]}; inputs are {', '.join(names)}"
            )
        self.inputs = self._read_inputs()

    def _find_producers(self) -> dict[int, Operation]:
        """Which operator computes each tensor: one at most, and neither inputs nor constants."""
        producers: dict[int, Operation] = {}
        given = set(self.content.inputs)
        for operation in self.content.operations:
            for index in operation.outputs:
                info = self.content.tensors[index]
                if index in producers or index in given or info.stored is not None:
                    raise self._broken(f"{operation.kind} computes {info.name}, which has a value")
                producers[index] = operation
        return producers

    def _broken(self, what: str) -> ModelError:
        return ModelError("EQ0310", f"{self.path}: malformed graph: {what}")

    # Inputs #

    def _read_inputs(self) -> tuple[Port, ...]:
        """The ports of the inputs, their tensors added."""
        ports = [self._read_input(index) for index in self.content.inputs]
        if len({port.name for port in ports}) < len(ports):
            raise self._broken("two inputs have one name")
        return tuple(ports)

    def _read_input(self, index: int) -> Port:
        info = self.content.tensors[index]
        if info.stored is not None or index in self.values:
            raise self._broken(f"input {info.name} is a constant, or stands twice")
        shape = self._input_shape(info)
        if len(shape) not in _LAYOUTS:
            raise ModelError(
                "EQ0315",
                f"input {info.name} has shape {shape}; edgeq takes rank 4 (N, H, W, C) and 2 "
                "(N, C)",
            )
        qparams = self._quantized_at_once(index) or activation_qparams(info)
        tensor = self.state.activation(info.name, shape, qparams)
        self.values[index] = Computed(tensor, shape, qparams)
        raw = None if qparams is None or info.kind != BYTES else _reals_of_bytes(qparams)
        return Port(info.name, tensor, shape, _LAYOUTS[len(shape)], qparams, raw)

    def _quantized_at_once(self, index: int) -> QParams | None:
        """The parameters of a float or uint8 input that QUANTIZE alone reads.

        It becomes the int8 tensor behind QUANTIZE; bytes must only be shifted there, by 128.
        """
        info, readers = self.content.tensors[index], self._readers[index]
        found = {
            activation_qparams(self.content.tensors[reader.outputs[0]])
            for reader in readers
            if reader.kind == "QUANTIZE" and reader.outputs
        }
        if len(found) != 1 or any(reader.kind != "QUANTIZE" for reader in readers):
            return None
        q = found.pop()
        return q if info.kind == "FLOAT32" or _is_shifted(info, q) else None

    def _input_shape(self, info: Info) -> tuple[int, ...]:
        signature, wanted = info.signature, self.shapes.get(info.name)
        if 0 in signature or 0 in (wanted or ()):
            raise ModelError(
                "EQ0313", f"input {info.name} has an empty axis: {wanted or info.shape}"
            )
        if wanted is not None:
            pairs = zip(signature[1:], wanted[1:], strict=False)
            fits = len(wanted) == len(signature) and wanted[:1] == (1,)
            if not fits or any(fixed not in (-1, size) for fixed, size in pairs):
                raise ModelError(
                    "EQ0312",
                    f"input {info.name}: --shape {info.name}={_flag(wanted)} does not fit the "
                    f"model's {_flag(signature)}; the batch axis must be 1",
                )
            return wanted
        for axis, size in enumerate(signature[1:], start=1):
            if size == -1:
                raise ModelError(
                    "EQ0312",
                    f"input {info.name}: axis {axis} is dynamic; "
                    f"fix it with --shape {info.name}={_flag((1, *signature[1:]))}",
                )
        if signature[:1] == (-1,):
            self.notes.append(f"input {info.name}: the open batch axis is fixed to 1")
        elif signature[:1] != (1,):
            raise ModelError(
                "EQ0312",
                f"input {info.name}: axis 0 is {signature[0] if signature else 'missing'}; edgeq "
                "runs a batch of 1",
            )
        return (1, *signature[1:])

    # Operators #

    def read_operations(self) -> None:
        """Every needed operator, in order; refusals are collected."""
        needed = self._needed()
        for operation in self.content.operations:
            if not needed.isdisjoint(operation.outputs):
                self._read_operation(operation)

    def _needed(self) -> set[int]:
        """The tensors that the outputs depend on."""
        needed: set[int] = set()
        waiting = list(self.content.outputs)
        while waiting:
            index = waiting.pop()
            if index not in needed and index >= 0:
                needed.add(index)
                if index in self._producers:
                    waiting.extend(self._producers[index].inputs)
        return needed

    def _read_operation(self, operation: Operation) -> None:
        name = self.state.builder.node_name(self._layer_name(operation))
        refusal = refusal_of(lambda: self._convert(operation, name))
        if refusal is not None:
            self.refusals.append(refusal)
        self.operators.append(Operator(name, operation.kind, refusal))

    def _layer_name(self, operation: Operation) -> str:
        row = CONVERTERS.get(operation.kind)
        indices = (*operation.inputs[1:2], *operation.outputs[:1])
        names = [self.content.tensors[index].name for index in indices if index >= 0]
        return layer_name(operation.kind, row.words if row else (), names)

    def _convert(self, operation: Operation, name: str) -> None:
        inputs = tuple(self._value(operation, index) for index in operation.inputs)
        if not operation.outputs:
            raise self._broken(f"{operation.kind} computes nothing")
        self._read.update(operation.outputs)
        target = operation.outputs[0]
        info = self.content.tensors[target]
        port = target in self.content.outputs
        call = Call(self.state, operation, name, inputs, info, info.name if port else name)
        row = check(call)
        if len(operation.outputs) != 1:
            call.refuse(f"{len(operation.outputs)} outputs; edgeq computes one")
        given = [index for index in operation.inputs if index >= 0]
        if len(given) == sum(value is not None for value in inputs):
            found = self._at_output(call, target) or row.convert(call)
            self._expect_shape(call, found)
            self.values[target] = found

    def _value(self, operation: Operation, index: int) -> Value | None:
        """The value of a tensor; None where it is left out or was refused."""
        if index < 0:
            return None
        info = self.content.tensors[index]
        if info.stored is not None:
            return Known(info)
        if index not in self.values and index not in self._read:
            raise self._broken(f"{operation.kind} reads {info.name} before it is computed")
        return self.values.get(index)

    def _at_output(self, call: Call, target: int) -> Computed | None:
        """The integers that DEQUANTIZE makes the reals of an output, or QUANTIZE its bytes."""
        x = call.given(0)
        edge = target in self.content.outputs and target not in self._readers
        if not edge or not isinstance(x, Computed) or x.qparams is None:
            return None
        kind = call.operation.kind
        if kind == "QUANTIZE" and _is_shifted(call.output, x.qparams):
            self.notes.append(f"output {call.output.name}: int8, 128 below the file's uint8")
            return x
        return x if (kind, call.output.kind) == ("DEQUANTIZE", "FLOAT32") else None

    def _expect_shape(self, call: Call, found: Value) -> None:
        if isinstance(found, Known) or self.shapes or -1 in call.output.signature[1:]:
            return
        if found.shape != call.output.shape:
            raise self._broken(
                f"{call.name} ({call.operation.kind}) gives shape {found.shape} and declares "
                f"{call.output.shape}"
            )

    # Outputs #

    def read_outputs(self) -> tuple[Port, ...]:
        """The ports of the outputs; fewer where what they need was refused."""
        ports = []
        for index in self.content.outputs:
            info = self.content.tensors[index]
            if index not in self._producers:
                raise ModelError("EQ0317", f"output {info.name} is an input or a constant")
            value = self.values.get(index)
            if isinstance(value, Known):
                raise ModelError("EQ0317", f"output {info.name} does not depend on any input")
            if value is not None:
                ports.append(self._read_output(info, value))
        return tuple(ports)

    def _read_output(self, info: Info, value: Computed) -> Port:
        shape, tensors = value.shape, self.state.builder.tensors
        if len(shape) not in _LAYOUTS or shape[0] != 1:
            raise ModelError(
                "EQ0315",
                f"output {info.name} has shape {shape}; edgeq gives rank 4 (N, H, W, C) and 2 "
                "(N, C)",
            )
        tensor = value.tensor
        if tensor in {port.tensor for port in self.inputs}:
            raise ModelError("EQ0317", f"output {info.name} is a copy of an input")
        if tensors[tensor].shape != shape:
            name = self.state.builder.node_name(f"{safe(info.name)}_reshape")
            tensor = self.state.activation(info.name, shape, value.qparams)
            self.state.builder.nodes.append(Node(name, Op.RESHAPE, (value.tensor,), tensor))
        return Port(info.name, tensor, shape, _LAYOUTS[len(shape)], value.qparams)

    def all_notes(self) -> tuple[str, ...]:
        """What was decided on reading."""
        notes = list(self.notes)
        if self.state.twins:
            notes.append("quantised already: what the policy does not lower is kept, bit for bit")
        else:
            widened = self.state.widened.items()
            notes += [f"{count} constants of {kind} read as float32" for kind, count in widened]
        return tuple(notes)


def _is_shifted(info: Info, q: QParams | None) -> bool:
    """Whether a uint8 tensor's bytes are the integers of `q` and 128."""
    scales = info.scales
    if info.kind != BYTES or scales is None or q is None or len(scales.scale) != 1:
        return False
    return (float(scales.scale[0]), int(scales.zero_point[0]) - 128) == (q.scale[0], q.zero_point)


def _reals_of_bytes(q: QParams) -> tuple[float, float]:
    """The reals of the bytes 0 and 255, which are −128 and 127 of `q`."""
    low, high = (float(real) for real in q.dequantize(np.array([q.qmin, q.qmax])))
    return low, high


def _flag(shape: tuple[int, ...]) -> str:
    return ",".join(str(size) for size in shape)
