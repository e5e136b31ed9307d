"""ONNX values as they are known so far, and one node about to become part of the graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir

from edgeq.errors import ModelError
from edgeq.frontends.builder import Builder
from edgeq.ir import Array, Function, Node, Op, Window
from edgeq.ops import OPS

Image = tuple[int, int]  # channels, pixels

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)  # permutations of the other
# Each element of the result follows from the same element of the input.
ELEMENTWISE = frozenset({
    "Add", "Cast", "Clip", "Div", "Dropout", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Mul", "Relu", "Sigmoid", "Sub", "Tanh",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Known:
    """A value that does not depend on the inputs, in the file's layout."""

    name: str
    array: Array


@dataclass(frozen=True, slots=True)
class Computed:
    """A value that a tensor of the graph stands for; `shape` is that of the file.

    Rank 4 stands in the graph as NHWC; the file has NCHW, or NHWC too (`channels_last`). A vector
    with `image` is an NCHW image flattened: the file has its elements in the order C, H, W and the
    graph in the order H, W, C.
    """

    tensor: str
    shape: tuple[int, ...]
    image: Image | None = None
    channels_last: bool = False

    @property
    def channel_axis(self) -> int:
        """The axis of the channels in the file."""
        return 3 if self.channels_last else 1

    def graph_axis(self, axis: int) -> int:
        """The graph's axis for the file's, both from 0."""
        return (0, 3, 1, 2)[axis] if len(self.shape) == 4 and not self.channels_last else axis


Value = Known | Computed


def graph_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The graph's shape for the file's: NCHW becomes NHWC."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def reads_channels_last(value: ir.Value) -> bool:
    """Whether the file holds `value` as NHWC: what computes with it transposes it to NCHW first."""
    found = False
    waiting, seen = [value], {value}
    while waiting:
        for node, _ in waiting.pop().uses():
            if node.op_type in ELEMENTWISE:
                new = [v for v in node.outputs if v not in seen]
                seen.update(new)
                waiting += new
            elif node.op_type == "Transpose" and permutation(node, 4) == TO_NCHW:
                found = True
            else:
                return False
    return found


def permutation(node: ir.Node, rank: int) -> tuple[int, ...]:
    """Which axis of its input each axis of a Transpose is."""
    given = node.attributes.get("perm")
    if given is None or given.is_ref() or given.type != ir.AttributeType.INTS:
        return tuple(reversed(range(rank)))
    return tuple(int(axis) for axis in given.value)


@dataclass(frozen=True, slots=True)
class Call:
    """One ONNX node with its values, about to become graph nodes."""

    builder: Builder
    node: ir.Node
    name: str  # of the layer
    inputs: tuple[Value | None, ...]  # None: an optional input left out
    opset: int
    suffix: str = ""  # tells the tensor of a first half from the node's own output

    def refuse(self, why: str) -> NoReturn:
        """Raise EQ0315 for this node."""
        raise ModelError("EQ0315", f"{self.name} ({self.node.op_type}): {why}")

    # Attributes #

    def integer(self, name: str, default: int) -> int:
        """The attribute `name`, an integer."""
        value = self._attribute(name, ir.AttributeType.INT, default)
        return int(value)

    def real(self, name: str, default: float) -> float:
        """The attribute `name`, a real."""
        value = self._attribute(name, ir.AttributeType.FLOAT, default)
        return float(value)

    def text(self, name: str, default: str) -> str:
        """The attribute `name`, a string."""
        return str(self._attribute(name, ir.AttributeType.STRING, default))

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """The attribute `name`, a list of integers."""
        values = self._attribute(name, ir.AttributeType.INTS, default)
        return tuple(int(v) for v in values)

    def _attribute(self, name: str, kind: ir.AttributeType, default: Any) -> Any:
        attribute = self.node.attributes.get(name)
        if attribute is None:
            return default
        if attribute.is_ref() or attribute.type != kind:
            self.refuse(f"attribute {name} must be of type {kind.name}")
        return attribute.value

    # Inputs #

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
        """Input `index`, which must be computed from the inputs."""
        value = self.given(index)
        if not isinstance(value, Computed):
            self.refuse(f"input {index} must be computed from the model's inputs")
        return value

    def image(self) -> Computed:
        """The first input, which must be of rank 4."""
        return self._of_rank(4, "an image, NCHW")

    def vector(self) -> Computed:
        """The first input, which must be of rank 2."""
        return self._of_rank(2, "rank 2")

    def rank_4(self) -> Computed:
        """The first input, which must be of rank 4, in either layout."""
        return self._of_rank(4, "rank 4")

    def _of_rank(self, rank: int, what: str) -> Computed:
        value = self.computed()
        if len(value.shape) != rank:
            self.refuse(f"takes {what}, got shape {value.shape}")
        return value

    def floats(self, index: int) -> Array | None:
        """Input `index` as finite float32; None if it was left out."""
        value = self.known(index)
        if value is None:
            return None
        if value.array.dtype.kind != "f" and value.array.dtype.name != "bfloat16":
            self.refuse(f"{value.name} holds {value.array.dtype}; weights must be floating point")
        if 0 in value.array.shape:
            raise ModelError("EQ0313", f"{value.name} is empty: shape {value.array.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            array = value.array.astype(np.float32)
        if not np.isfinite(array).all():
            bad = array.size - int(np.isfinite(array).sum())
            raise ModelError(
                "EQ0314", f"{value.name}: {bad} of {array.size} values are NaN or infinite"
            )
        if value.array.dtype != np.float32:
            self.builder.widened[value.name] = value.array.dtype.name
        return array

    # Outputs #

    @property
    def output(self) -> str:
        """The file's name of the first output."""
        return f"{self.node.outputs[0].name or self.name}{self.suffix}"

    def emit(
        self,
        op: Op,
        x: Computed,
        *others: str,
        window: Window | None = None,
        clamp: tuple[float, float] | None = None,
        epsilon: float = 0.0,
        pads: tuple[int, ...] = (),
        axis: int = 0,
        function: Function | None = None,
    ) -> Computed:
        """The value of a new node on `x` and `others`, which keeps rank and element order."""
        node = Node(
            self.name,
            op,
            (x.tensor, *others),
            self.output,
            window,
            clamp,
            epsilon=epsilon,
            pads=pads,
            axis=axis,
            function=function,
        )
        tensor = self.builder.append(node)
        shape = self.builder.tensors[tensor].shape
        if len(shape) == 4 and not x.channels_last:
            shape = (shape[0], shape[3], *shape[1:3])
        return Computed(tensor, shape, x.image, x.channels_last)

    def reshape(self, x: Computed, shape: tuple[int, ...]) -> Computed:
        """The value of a new reshape of `x` to the file's `shape`, element order accounted for."""
        last = len(shape) == 4 and (
            x.channels_last if len(x.shape) == 4 else reads_channels_last(self.node.outputs[0])
        )
        image = self._order_after(x, shape, channels_last=last)
        node = Node(self.name, Op.RESHAPE, (x.tensor,), self.output)
        tensor = self.builder.append(node, shape if last else graph_shape(shape))
        return Computed(tensor, shape, image, last)

    def _order_after(
        self, x: Computed, shape: tuple[int, ...], *, channels_last: bool
    ) -> Image | None:
        if len(shape) not in (2, 4) or shape[0] != 1:
            self.refuse(f"makes shape {shape}; edgeq has rank 2 (1, N) and rank 4 (1, C, H, W)")
        if math.prod(shape) != math.prod(x.shape):
            self.refuse(f"cannot make shape {shape} of {x.shape}")
        image = x.image if len(x.shape) == 2 or x.channels_last else _entangled(x.shape)
        if len(shape) == 2:
            return image
        if image != (None if channels_last else _entangled(shape)):
            self.refuse(f"would reorder elements: {x.shape} to {shape} mixes channels and pixels")
        return None


def in_graph_order(array: Array, x: Computed, *, axis: int) -> Array:
    """`array`, indexed along `axis` as the file has the elements of `x`, as the graph has them."""
    if x.image is None:
        return array
    order = np.arange(math.prod(x.image)).reshape(x.image).T.ravel()
    return np.take(array, order, axis=axis)


def limits(call: Call, op: Op, what: str) -> ModelError:
    """The refusal of a call that `op` could have been, with what edgeq takes instead."""
    return ModelError(
        "EQ0315", f"{call.name} ({call.node.op_type}): {what}; supported: {OPS[op].limits}"
    )


def _entangled(shape: tuple[int, ...]) -> Image | None:
    """Channels and pixels where the orders C, H, W and H, W, C differ."""
    _, channels, height, width = shape
    return (channels, height * width) if channels > 1 and height * width > 1 else None
