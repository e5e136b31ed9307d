"""The graph between the stages: no file format, NHWC, one output per node.

A float graph holds float32 tensors; an integer graph holds n-bit tensors with their quantisation
parameters and everything that the device computes with, as constants. Tensors join nodes by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import GraphError

Array = npt.NDArray[Any]
Bounds = tuple[float, float]


class DType(Enum):
    """What a tensor's elements are stored in; `QParams.bits` says how much of it is used."""

    F32 = "float32"
    S8 = "int8"
    S16 = "int16"
    S32 = "int32"


class Op(Enum):
    """The operators of the graph; `ops.py` says what each takes and means."""

    CONV_2D = "conv_2d"
    DEPTHWISE_CONV_2D = "depthwise_conv_2d"
    FULLY_CONNECTED = "fully_connected"
    ADD = "add"
    MAX_POOL = "max_pool"
    AVERAGE_POOL = "average_pool"
    RESHAPE = "reshape"
    SOFTMAX = "softmax"
    BATCH_NORM = "batch_norm"
    CLIP = "clip"
    IDENTITY = "identity"
    GROUPED_CONV_2D = "grouped_conv_2d"
    PAD = "pad"
    CONCAT = "concat"
    TABLE = "table"
    MULTIPLY = "multiply"


@dataclass(frozen=True, slots=True)
class QParams:
    """Affine quantisation: real = scale · (q − zero_point), q of `bits` bits, sign included.

    One scale for the whole tensor (axis None, the zero point in [qmin, qmax], 0 at 16 bits), or one
    per index of `axis` with zero point 0.
    """

    scale: tuple[float, ...]
    zero_point: int = 0
    bits: int = 8
    axis: int | None = None

    def __post_init__(self) -> None:
        if not self.scale or not all(np.isfinite(s) and s > 0 for s in self.scale):
            raise GraphError("EQ0301", f"scales must be positive and finite, got {self.scale}")
        if not (2 <= self.bits <= 8 or self.bits == 16):
            raise GraphError("EQ0301", f"bits must be 2..8 or 16, got {self.bits}")
        if self.axis is None and len(self.scale) != 1:
            raise GraphError("EQ0301", f"{len(self.scale)} scales need an axis")
        if self.axis is not None and self.zero_point != 0:
            raise GraphError("EQ0301", "scales per channel need zero point 0")
        if self.bits == 16 and self.zero_point != 0:
            raise GraphError("EQ0301", "16 bits are symmetric: they need zero point 0")
        if not self.qmin <= self.zero_point <= self.qmax:
            raise GraphError("EQ0301", f"zero point {self.zero_point} is no {self.bits}-bit value")

    @property
    def qmin(self) -> int:
        """The least value of `bits` bits, −2^(bits−1)."""
        return -(1 << (self.bits - 1))

    @property
    def qmax(self) -> int:
        """The greatest value of `bits` bits, 2^(bits−1) − 1."""
        return (1 << (self.bits - 1)) - 1

    @property
    def width(self) -> int:
        """Bits that an activation takes in memory: 16, 8 (of 8..5 bits), 4 (of 4 and 3) or 2."""
        return next(width for width in (2, 4, 8, 16) if self.bits <= width)

    @property
    def wide(self) -> bool:
        """Whether a value takes two bytes; sums of such inputs take 64 bits."""
        return self.bits == 16

    def quantize(self, real: Array) -> npt.NDArray[np.int64]:
        """`real` (per-tensor only) as integers, ties to even, clipped to [qmin, qmax]."""
        scaled = np.rint(np.asarray(real, np.float64) / self.scale[0]) + self.zero_point
        return np.asarray(np.clip(scaled, self.qmin, self.qmax), np.int64)

    def dequantize(self, q: Array) -> npt.NDArray[np.float64]:
        """The reals (per-tensor only) that the integers `q` stand for."""
        return np.asarray((np.asarray(q, np.float64) - self.zero_point) * self.scale[0])


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named value: an activation (data None; leading axis is the batch, 1) or a constant.

    `planes` are the bits of the digits, from the top, of weights that share a store with those of
    other levels (`nested`).
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType = DType.F32
    qparams: QParams | None = None
    data: Array | None = field(default=None, compare=False, repr=False)
    planes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if any(d < 1 for d in self.shape):
            raise GraphError("EQ0302", f"{self.name}: shape {self.shape} has an empty dimension")
        if self.data is not None and tuple(self.data.shape) != self.shape:
            raise GraphError("EQ0302", f"{self.name}: shape {self.shape}, data {self.data.shape}")

    @property
    def elements(self) -> int:
        """How many values the tensor holds."""
        return int(np.prod(self.shape, dtype=np.int64))


def qparams_of(tensor: Tensor) -> QParams:
    """The quantisation parameters of `tensor`.

    Raises:
        GraphError: it has none.
    """
    if tensor.qparams is None:
        raise GraphError("EQ0303", f"{tensor.name} is not quantised")
    return tensor.qparams


@dataclass(frozen=True, slots=True)
class Window:
    """How a window walks over height and width; pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if min(*self.kernel, *self.strides, *self.dilations) < 1 or min(self.pads) < 0:
            raise GraphError("EQ0302", f"a window has positive sides and no negative pad: {self}")

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result; below 1 where the window does not fit."""
        top, left, bottom, right = self.pads
        sizes = []
        for axis, (size, pad) in enumerate(((height, top + bottom), (width, left + right))):
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            sizes.append((size + pad - reach) // self.strides[axis] + 1)
        return sizes[0], sizes[1]


class Unary(Enum):
    """Functions of one real that a table stands for on the device."""

    IDENTITY = "identity"  # with a clamp: a Relu or Clip that no other operator could take
    SIGMOID = "sigmoid"
    TANH = "tanh"
    HARD_SIGMOID = "hard_sigmoid"  # min(max(alpha · x + beta, 0), 1)
    SILU = "silu"  # x · sigmoid(x)
    HARD_SWISH = "hard_swish"  # x · hard_sigmoid(x)
    LEAKY_RELU = "leaky_relu"  # alpha · x below 0
    LINEAR = "linear"  # alpha · x + beta


@dataclass(frozen=True, slots=True)
class Function:
    """A function of one real, with its parameters; those that `kind` does not have are 0."""

    kind: Unary
    alpha: float = 0.0
    beta: float = 0.0


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: inputs (activations first, then constants) to one output.

    `clamp` is the fused activation, bounds of the output: reals in a float graph, integers in an
    integer graph, where every operator that computes has one.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    output: str
    window: Window | None = None
    clamp: Bounds | None = None
    epsilon: float = 0.0  # batch norm only
    pads: tuple[int, ...] = ()  # pad only: before height, width and channels, then after them
    axis: int = 0  # concat only, counting the batch
    function: Function | None = None  # table only
    beta: float = 1.0  # softmax only: what its input is multiplied by


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in an order in which they can run; every tensor by name."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]

    def producer(self, tensor: str) -> Node | None:
        """The node that computes `tensor`; None for inputs and constants."""
        return next((n for n in self.nodes if n.output == tensor), None)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """The nodes that read `tensor`, each once."""
        return tuple(n for n in self.nodes if tensor in n.inputs)

    def activations(self, node: Node) -> tuple[Tensor, ...]:
        """The inputs of `node` that are no constants."""
        return tuple(t for t in map(self.tensors.__getitem__, node.inputs) if t.data is None)

    def constant(self, name: str) -> Array:
        """The data of the constant `name`."""
        data = self.tensors[name].data
        if data is None:
            raise GraphError("EQ0303", f"{name} is no constant")
        return data

    def edit(
        self, nodes: tuple[Node, ...], new: tuple[Tensor, ...] = (), outputs: tuple[str, ...] = ()
    ) -> Graph:
        """This graph with other nodes, `new` tensors added and unused tensors dropped."""
        tensors = {**self.tensors, **{t.name: t for t in new}}
        outputs = outputs or self.outputs
        used = {*self.inputs, *outputs}
        for node in nodes:
            used.update((*node.inputs, node.output))
        kept = {name: tensor for name, tensor in tensors.items() if name in used}
        return replace(self, nodes=nodes, outputs=outputs, tensors=kept)


def digest(graphs: Iterable[Graph]) -> str:
    """A hash of the nodes, tensors and values of `graphs`."""
    found = hashlib.sha256()
    for graph in graphs:
        found.update(repr((graph.nodes, graph.tensors)).encode())
        for tensor in graph.tensors.values():
            if tensor.data is not None:
                found.update(tensor.data.tobytes())
    return found.hexdigest()


def renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """`graph` with other names for some tensors."""

    def new(name: str) -> str:
        return names.get(name, name)

    nodes = tuple(
        replace(node, inputs=tuple(map(new, node.inputs)), output=new(node.output))
        for node in graph.nodes
    )
    tensors = {new(name): replace(t, name=new(name)) for name, t in graph.tensors.items()}
    return replace(
        graph,
        inputs=tuple(map(new, graph.inputs)),
        outputs=tuple(map(new, graph.outputs)),
        nodes=nodes,
        tensors=tensors,
    )


@dataclass(frozen=True, slots=True)
class Variant:
    """One precision of a block, as an integer graph; `level` 0 is the most precise."""

    level: int
    graph: Graph


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the network between exits, at one or more levels; or the head of an exit.

    A head has one variant, which reads what the block before it left and writes the network's
    output; the last block has none, since it ends in that output itself.
    """

    name: str
    variants: tuple[Variant, ...]
    head: bool = False

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """What its variants compute: several levels may share a graph."""
        return tuple({id(v.graph): v.graph for v in self.variants}.values())


@dataclass(frozen=True, slots=True)
class Network:
    """The integer network: a chain of blocks. A network without gates is one block, one variant."""

    name: str
    blocks: tuple[Block, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors that the caller fills."""
        graph = self.blocks[0].variants[0].graph
        return tuple(graph.tensors[name] for name in graph.inputs)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors that the caller reads after the last block."""
        graph = self.blocks[-1].variants[0].graph
        return tuple(graph.tensors[name] for name in graph.outputs)

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """What the variants of every block compute, each once, in the order of the image."""
        return tuple(graph for block in self.blocks for graph in block.graphs)


def single(graph: Graph) -> Network:
    """The network that is one block with one variant."""
    return Network(graph.name, (Block(graph.name, (Variant(0, graph),)),))
