"""One operator of a TFLite file about to become nodes: its values, options and refusals.

The graph has the file's layout (NHWC) and float32 reals. In a quantised model every tensor has an
integer twin beside it, so that nothing of the file is lost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np

from edgeq.errors import GraphError, ModelError
from edgeq.frontends import tflite_schema as schema
from edgeq.frontends.builder import Builder
from edgeq.frontends.tflite_file import Info, Operation
from edgeq.ir import Array, Bounds, DType, Function, Node, Op, QParams, Tensor, Unary, Window
from edgeq.ops import OPS

FLOATS = ("FLOAT32", "FLOAT16")
WEIGHTS = ("INT8", "INT4", "INT2")
ACTIVATIONS = ("FLOAT32", "INT8")
_LATER = {
    "UINT8": "uint8 quantisation is that of TensorFlow 1; convert the model again, to int8",
    "INT16": "16-bit activations are not executed yet; convert the model to int8",
}


@dataclass(frozen=True, slots=True)
class Known:
    """A constant; `array` where it was computed, as reals by DEQUANTIZE or integers by SHAPE."""

    info: Info
    array: Array | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """What a tensor of the graph stands for; `shape` is that of the file, of any rank.

    The order of elements is the graph's own; only how they are grouped may differ.
    """

    tensor: str
    shape: tuple[int, ...]
    qparams: QParams | None


Value = Known | Computed


@dataclass(slots=True)
class State:
    """What grows while a file is read."""

    builder: Builder = field(default_factory=Builder)
    twins: dict[str, Tensor] = field(default_factory=dict)
    widened: Counter[str] = field(default_factory=Counter)  # constants read as reals, by type

    def activation(self, name: str, shape: tuple[int, ...], qparams: QParams | None) -> str:
        """The name of a new activation, its twin added."""
        tensor = self.builder.activation(name, shape)
        if qparams is not None:
            self.twins[tensor] = Tensor(tensor, shape, DType.S8, qparams)
        return tensor


def activation_qparams(info: Info) -> QParams | None:
    """The parameters of a computed tensor; None of a float one.

    Raises:
        ModelError: it is neither float32 nor int8 with one scale.
    """
    if info.fault is not None:
        raise ModelError("EQ0315", f"{info.name} {info.fault}")
    if info.kind not in ACTIVATIONS:
        reason = _LATER.get(info.kind, f"edgeq computes in {' and '.join(ACTIVATIONS)}")
        raise ModelError("EQ0315", f"{info.name} is {info.kind}: {reason}")
    if info.kind == "FLOAT32":
        return None
    scales = info.scales
    if scales is None or len(scales.scale) != 1:
        count = 0 if scales is None else len(scales.scale)
        raise ModelError("EQ0315", f"{info.name} is INT8 with {count} scales; it needs one")
    return _qparams(info, (float(scales.scale[0]),), int(scales.zero_point[0]), 8, None)


def _qparams(
    info: Info, scale: tuple[float, ...], zero_point: int, bits: int, axis: int | None
) -> QParams:
    try:
        return QParams(scale, zero_point, bits, axis)
    except GraphError as error:
        raise ModelError("EQ0318", f"{info.name}: {error.message}") from error


@dataclass(frozen=True, slots=True)
class Call:
    """One operator with its values, about to become graph nodes."""

    state: State
    operation: Operation
    name: str  # of the layer
    inputs: tuple[Value | None, ...]  # None: an optional input left out
    output: Info
    output_name: str  # of the tensor that it computes

    def refuse(self, why: str) -> NoReturn:
        """Raise EQ0315 for this operator."""
        raise ModelError("EQ0315", f"{self.name} ({self.operation.kind}): {why}")

    def limits(self, op: Op, what: str) -> NoReturn:
        """Raise EQ0315 with what edgeq takes instead."""
        self.refuse(f"{what}; supported: {OPS[op].limits}")

    # Options #

    def option(self, name: str, options: str, default: int = 0, form: str = "i") -> int:
        """The option `name`, an integer."""
        return int(self.real_option(name, options, default, form))

    def real_option(self, name: str, options: str, default: float, form: str = "f") -> float:
        """The option `name`, a number, of the table `options`."""
        row, table = schema.OPTIONS[options], self.operation.options
        if self.operation.number not in (0, row.number):
            self.refuse(f"has options of kind {self.operation.number}, not {row.number}")
        if table is None or self.operation.number == 0:
            return default
        value = table.scalar(row.fields[name], form, default)
        if not math.isfinite(value):
            self.refuse(f"{name} is {value}")
        return value

    def integers_option(self, name: str, options: str) -> tuple[int, ...]:
        """The option `name`, a list of integers."""
        row, table = schema.OPTIONS[options], self.operation.options
        if table is None or self.operation.number != row.number:
            return ()
        numbers = table.numbers(row.fields[name], "<i4")
        if len(numbers) > 8:
            self.refuse(f"{name} has {len(numbers)} items")
        return tuple(int(number) for number in numbers)

    def activation_function(self, options: str) -> str:
        """The fused activation, NONE or one that clamps."""
        number = self.option("fused_activation_function", options, form="b")
        known = 0 <= number < len(schema.ACTIVATIONS)
        name = schema.ACTIVATIONS[number] if known else f"number {number}"
        if name not in _CLAMPS:
            self.refuse(f"fused activation {name}; edgeq fuses {', '.join(_CLAMPS)}")
        return name

    def clamp(self, name: str) -> Bounds | None:
        """The bounds of an activation, as reals; in a quantised model those of exact integers."""
        low, high = _CLAMPS[name]
        y = self.qparams
        if name == "NONE" or y is None:
            return None if name == "NONE" else (low, high)
        first, last = (float(y.dequantize(np.array(q))) for q in self.integer_bounds(name))
        return first, last if math.isfinite(high) else high

    def integer_bounds(self, name: str) -> tuple[int, int]:
        """The same as integers of the output, rounded as TFLite does: in float32, ties away."""
        y = self.quantized()
        bounds = []
        for real in _CLAMPS[name]:
            with np.errstate(over="ignore"):
                steps = float(np.float32(real) / np.float32(y.scale[0]))
            near = min(math.floor(min(abs(steps), _FAR) + 0.5), _FAR)
            integer = y.zero_point + (near if steps > 0 else -near)
            bounds.append(min(max(integer, y.qmin), y.qmax))
        return bounds[0], bounds[1]

    # Values #

    @property
    def qparams(self) -> QParams | None:
        """The output's parameters; None in a float model."""
        return activation_qparams(self.output)

    def quantized(self) -> QParams:
        """The output's parameters, which must be there."""
        found = self.qparams
        if found is None:
            self.refuse("computes a float from integers; edgeq takes float or int8 models")
        return found

    def given(self, index: int) -> Value | None:
        """Input `index`, None if it was left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def known(self, index: int) -> Known | None:
        """Input `index`, which must be constant where it is given."""
        value = self.given(index)
        if isinstance(value, Computed):
            self.refuse(f"input {index} must be a constant")
        return value

    def computed(self, index: int = 0) -> Computed:
        """Input `index`, which must be computed, and be float or int8 as the output is."""
        value = self.given(index)
        if not isinstance(value, Computed):
            self.refuse(f"input {index} must be computed from the model's inputs")
        if (value.qparams is None) != (self.qparams is None):
            self.refuse("mixes floats and integers; edgeq takes float or int8 models")
        return value

    def of_rank(self, *ranks: int) -> Computed:
        """The first input, which must be of one of these ranks, in the graph's own shape."""
        value = self.computed()
        if len(value.shape) not in ranks:
            wanted = " or ".join(map(str, ranks))
            self.refuse(f"takes rank {wanted}, got shape {value.shape}")
        return self.regrouped(value, value.shape)

    def plain(self, value: Computed) -> Computed:
        """`value` in a tensor of rank 2 or 4 whose last axis is the file's."""
        shape = value.shape
        if len(shape) not in (2, 4):
            last = shape[-1] if shape else 1
            shape = (1, 1, math.prod(shape) // last, last)
        return replace(self.regrouped(value, shape), shape=value.shape)

    def regrouped(self, value: Computed, shape: tuple[int, ...]) -> Computed:
        """`value` as a tensor of the graph of exactly `shape`, reshaped where it has another."""
        if self.state.builder.tensors[value.tensor].shape == shape:
            return replace(value, shape=shape)
        name = self.name_of("reshape")
        tensor = self.state.activation(name, shape, value.qparams)
        self.state.builder.nodes.append(Node(name, Op.RESHAPE, (value.tensor,), tensor))
        return Computed(tensor, shape, value.qparams)

    def name_of(self, what: str) -> str:
        """A name for a node beside the layer's own."""
        return self.state.builder.node_name(f"{self.name}_{what}")

    def integers(self, index: int) -> tuple[int, ...] | None:
        """Input `index` as constant integers; None if it was left out."""
        value = self.known(index)
        if value is None:
            return None
        info, array = value.info, value.array
        if info.kind not in ("INT32", "INT64") or (info.stored is None and array is None):
            self.refuse(f"input {index} must hold constant integers")
        if info.elements > _MOST_INTEGERS:
            self.refuse(f"input {index} holds {info.elements} values")
        found = info.values() if array is None else array
        return tuple(int(number) for number in found.reshape(-1))

    def reals(self, index: int) -> Array | None:
        """Input `index` as finite float32 in the file's shape; None if it was left out."""
        value = self.known(index)
        if value is None:
            return None
        array = value.array if value.array is not None else dequantized(self.state, value.info)
        if not array.size:
            raise ModelError("EQ0313", f"{value.info.name} is empty: shape {value.info.shape}")
        return array

    def weights(self, index: int, axis: int, filters: int) -> QParams:
        """The parameters of integer weights with one scale, or `filters` along the file's `axis`.

        Those with one scale for all have no axis, others axis 0, as the graph's rows.
        """
        value = self.known(index)
        if value is None or value.info.kind not in WEIGHTS or value.array is not None:
            kind = "missing" if value is None else value.info.kind
            self.refuse(f"weights are {kind}; beside int8 activations they are int8 or int4")
        info, scales = value.info, value.info.scales
        if scales is None:
            self.refuse(f"{info.name} is {info.kind} without a scale")
        if scales.zero_point.any():
            raise ModelError(
                "EQ0318",
                f"{info.name}: weights have zero point {int(scales.zero_point.max())}; it must "
                "be 0",
            )
        count = len(scales.scale)
        if count > 1 and (scales.axis != axis or count != filters):
            raise ModelError(
                "EQ0318",
                f"{info.name}: {count} scales along dimension {scales.axis} of shape "
                f"{info.shape}; {filters} along dimension {axis} would do",
            )
        if info.bits == 8 and info.stored is not None and (info.values() == -128).any():
            raise ModelError(
                "EQ0318",
                f"{info.name}: weights hold −128; TFLite's int8 weights are −127 to 127, and "
                "fast kernels rely on it",
            )
        scale = tuple(float(s) for s in scales.scale)
        return _qparams(info, scale, 0, info.bits, 0 if count > 1 else None)

    # Nodes #

    def constant(
        self, name: str, real: Array, twin: tuple[Array, DType, QParams | None] | None
    ) -> str:
        """The name of a new constant, with the integers that stand for it."""
        added = self.state.builder.constant(f"{self.name}.{name}", real)
        if twin is not None:
            data = np.ascontiguousarray(twin[0]).astype(twin[1].value)
            self.state.twins[added] = Tensor(added, data.shape, twin[1], twin[2], data)
        return added

    def keep(self, name: str, values: Array, dtype: DType) -> None:
        """Adds integers that stand for no constant of the float graph."""
        data = values.astype(dtype.value)
        self.state.twins[f"{self.name}.{name}"] = Tensor(name, data.shape, dtype, None, data)

    def emit(
        self,
        op: Op,
        x: Computed,
        *others: str,
        window: Window | None = None,
        clamp: Bounds | None = None,
        pads: tuple[int, ...] = (),
        axis: int = 0,
        function: Function | None = None,
        beta: float = 1.0,
    ) -> Computed:
        """The value of a new node on `x` and `others`."""
        node = Node(
            self.name, op, (x.tensor, *others), self.output_name, window, clamp,
            pads=pads, axis=axis, function=function, beta=beta,
        )  # fmt: skip
        tensor = self.state.builder.append(node)
        tensors = self.state.builder.tensors
        shape = tensors[tensor].shape
        if self.qparams is not None:
            self.state.twins[tensor] = Tensor(tensor, shape, DType.S8, self.qparams)
        grouped = x.shape if shape == tensors[x.tensor].shape else shape
        return Computed(tensor, grouped, self.qparams)

    def table(
        self,
        x: Computed,
        function: Function,
        values: Callable[[], Array],
        clamp: Bounds | None = None,
    ) -> Computed:
        """The value of `function`; in a quantised model that of the integers `values`."""
        if self.qparams is not None:
            try:
                self.keep("table", values(), DType.S8)
            except ValueError as error:  # a ratio of scales beyond every multiplier
                self.refuse(str(error))
        return self.emit(Op.TABLE, x, function=function, clamp=clamp)

    def same_scale(self, x: Computed) -> None:
        """Refuses an output whose integers do not mean what the input's do."""
        if x.qparams != self.qparams:
            a, b = x.qparams, self.qparams
            raise ModelError(
                "EQ0318",
                f"{self.name} ({self.operation.kind}): scale and zero point of its input "
                f"({_shown(a)}) and output ({_shown(b)}) must be the same",
            )

    def fixed_scale(self, scale: float, zero_point: int) -> None:
        """Refuses an output of another scale and zero point than the operator has."""
        y = self.qparams
        if y is not None and (y.scale[0], y.zero_point) != (scale, zero_point):
            raise ModelError(
                "EQ0318",
                f"{self.name} ({self.operation.kind}): its output has {_shown(y)}; "
                f"{scale:g} and {zero_point} are the operator's",
            )


def _shown(q: QParams | None) -> str:
    return "none" if q is None else f"{q.scale[0]:g} and {q.zero_point}"


def dequantized(state: State, info: Info) -> Array:
    """A constant as float32.

    Raises:
        ModelError: of another type, without scales, or not finite.
    """
    if info.fault is not None:
        raise ModelError("EQ0315", f"{info.name} {info.fault}")
    if info.stored is None or info.kind not in (*FLOATS, *WEIGHTS, "UINT8"):
        raise ModelError(
            "EQ0315", f"{info.name} is {info.kind}; constants are float, or int8 with scales"
        )
    values = info.values()
    with np.errstate(over="ignore", invalid="ignore"):
        if info.kind not in FLOATS:
            values = (values.astype(np.float64) - _along(info, "zero_point")) * _along(
                info, "scale"
            )
        array: Array = values.astype(np.float32)
    if not np.isfinite(array).all():
        bad = array.size - int(np.isfinite(array).sum())
        raise ModelError("EQ0314", f"{info.name}: {bad} of {array.size} values are NaN or infinite")
    if info.kind != "FLOAT32":
        state.widened[info.kind] += 1
    return array


def _along(info: Info, what: str) -> Array:
    """Scales or zero points as they broadcast onto the tensor."""
    scales = info.scales
    if scales is None:
        raise ModelError("EQ0318", f"{info.name} is {info.kind} without a scale")
    array: Array = getattr(scales, what).astype(np.float64)
    if len(array) == 1:
        return array
    if not 0 <= scales.axis < len(info.shape) or info.shape[scales.axis] != len(array):
        raise ModelError(
            "EQ0318",
            f"{info.name}: {len(array)} scales along dimension {scales.axis} of shape {info.shape}",
        )
    return array.reshape([-1 if axis == scales.axis else 1 for axis in range(len(info.shape))])


_MOST_INTEGERS = 16  # of a shape, axes or paddings
_FAR = 1 << 20  # steps: beyond every integer of an activation
IDENTITY = Function(Unary.IDENTITY)
_CLAMPS: dict[str, Bounds] = {
    "NONE": (-math.inf, math.inf),
    "RELU": (0.0, math.inf),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
}
