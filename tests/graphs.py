"""Small float graphs for tests: built by hand, drawn from a seed, or ResNet-8.

Weights are random but alive: He-scaled, so that signals neither vanish nor explode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from edgeq.ir import (
    Array,
    Block,
    Bounds,
    Function,
    Graph,
    Network,
    Node,
    Op,
    Tensor,
    Unary,
    Variant,
    Window,
)
from edgeq.ops import verify

RELU: Bounds = (0.0, float("inf"))
RELU6: Bounds = (0.0, 6.0)
CLAMPS: tuple[Bounds | None, ...] = (None, RELU, RELU6)

FUNCTIONS = (
    Function(Unary.IDENTITY),
    Function(Unary.SIGMOID),
    Function(Unary.TANH),
    Function(Unary.HARD_SIGMOID, 0.2, 0.5),
    Function(Unary.SILU),
    Function(Unary.HARD_SWISH, 1 / 6, 0.5),
    Function(Unary.LEAKY_RELU, 0.1),
    Function(Unary.LINEAR, -0.7, 0.3),
)

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def with_constants(graph: Graph, constants: Mapping[str, Array]) -> Graph:
    """`graph` with other data in the constants of those names."""
    new = [replace(graph.tensors[name], data=data) for name, data in constants.items()]
    return graph.edit(graph.nodes, tuple(new))


class Builder:
    """A graph in the making: each method appends one node and returns its output tensor."""

    def __init__(self, name: str = "graph", seed: int = 0, names: str = "") -> None:
        self.name = name
        self.names = names  # what the names of its nodes start with
        self.rng = np.random.default_rng(seed)
        self.inputs: list[str] = []
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}

    def input(self, *shape: int, name: str = "input") -> str:
        self.inputs.append(name)
        return self._tensor(name, (1, *shape))

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.tensors[tensor].shape

    def conv(
        self, x: str, channels: int, window: Window | int = 3, clamp: Bounds | None = None
    ) -> str:
        window = self._same(x, window)
        weights = (channels, *window.kernel, self.shape(x)[3])
        return self._weighted(Op.CONV_2D, x, weights, window, clamp)

    def depthwise(
        self, x: str, multiplier: int = 1, window: Window | int = 3, clamp: Bounds | None = None
    ) -> str:
        window = self._same(x, window)
        weights = (self.shape(x)[3] * multiplier, *window.kernel)
        return self._weighted(Op.DEPTHWISE_CONV_2D, x, weights, window, clamp)

    def grouped(
        self,
        x: str,
        groups: int,
        channels: int,
        window: Window | int = 3,
        clamp: Bounds | None = None,
    ) -> str:
        window = self._same(x, window)
        weights = (channels, *window.kernel, self.shape(x)[3] // groups)
        return self._weighted(Op.GROUPED_CONV_2D, x, weights, window, clamp)

    def pad(self, x: str, *pads: int, value: float = 0.0) -> str:
        sizes = zip(self.shape(x)[1:], pads[:3], pads[3:], strict=True)
        shape = (1, *(size + before + after for size, before, after in sizes))
        constant = self._tensor(f"{self._name(Op.PAD)}.value", (1,), np.array([value]))
        return self._node(Op.PAD, (x, constant), shape, pads=pads)

    def concat(self, a: str, b: str, axis: int = 3, clamp: Bounds | None = None) -> str:
        shape = list(self.shape(a))
        shape[axis] += self.shape(b)[axis]
        return self._node(Op.CONCAT, (a, b), shape, clamp=clamp, axis=axis)

    def table(self, x: str, function: Function, clamp: Bounds | None = None) -> str:
        return self._node(Op.TABLE, (x,), self.shape(x), clamp=clamp, function=function)

    def fully_connected(self, x: str, features: int, clamp: Bounds | None = None) -> str:
        weights = (features, self.shape(x)[1])
        return self._weighted(Op.FULLY_CONNECTED, x, weights, None, clamp)

    def add(self, a: str, b: str, clamp: Bounds | None = None) -> str:
        return self._node(Op.ADD, (a, b), self.shape(a), clamp=clamp)

    def max_pool(self, x: str, window: Window) -> str:
        return self._pool(Op.MAX_POOL, x, window)

    def average_pool(self, x: str, window: Window) -> str:
        return self._pool(Op.AVERAGE_POOL, x, window)

    def global_average_pool(self, x: str) -> str:
        _, height, width, _ = self.shape(x)
        return self.average_pool(x, Window((height, width)))

    def reshape(self, x: str, *shape: int) -> str:
        return self._node(Op.RESHAPE, (x,), (1, *shape))

    def flatten(self, x: str) -> str:
        return self.reshape(x, self.tensors[x].elements)

    def softmax(self, x: str) -> str:
        return self._node(Op.SOFTMAX, (x,), self.shape(x))

    def build(self, *outputs: str) -> Graph:
        graph = Graph(self.name, tuple(self.inputs), outputs, tuple(self.nodes), self.tensors)
        verify(graph)
        return graph

    def _same(self, x: str, window: Window | int) -> Window:
        if isinstance(window, Window):
            return window
        return same_window(self.shape(x), (window, window))

    def _weighted(
        self,
        op: Op,
        x: str,
        weights: Sequence[int],
        window: Window | None,
        clamp: Bounds | None,
    ) -> str:
        name = self._name(op)
        _, *size, _ = self.shape(x)
        out = window.output_size(*size) if window else ()
        deviation = np.sqrt(2 / np.prod(weights[1:]))
        constants = (
            self._tensor(f"{name}.weights", weights, self.rng.normal(0, deviation, weights)),
            self._tensor(f"{name}.bias", weights[:1], self.rng.normal(0, 0.1, weights[:1])),
        )
        return self._node(op, (x, *constants), (1, *out, weights[0]), window, clamp)

    def _pool(self, op: Op, x: str, window: Window) -> str:
        _, height, width, channels = self.shape(x)
        return self._node(op, (x,), (1, *window.output_size(height, width), channels), window)

    def _node(
        self,
        op: Op,
        inputs: tuple[str, ...],
        shape: Sequence[int],
        window: Window | None = None,
        clamp: Bounds | None = None,
        pads: tuple[int, ...] = (),
        axis: int = 0,
        function: Function | None = None,
    ) -> str:
        name = self._name(op)
        output = self._tensor(f"{name}.output", shape)
        node = Node(name, op, inputs, output, window, clamp, 0.0, pads, axis, function)
        self.nodes.append(node)
        return output

    def _name(self, op: Op) -> str:
        short = {
            Op.CONV_2D: "conv",
            Op.DEPTHWISE_CONV_2D: "depthwise",
            Op.GROUPED_CONV_2D: "grouped",
            Op.FULLY_CONNECTED: "fc",
        }
        return (
            f"{self.names}{short.get(op, op.value)}_{sum(node.op is op for node in self.nodes) + 1}"
        )

    def _tensor(self, name: str, shape: Sequence[int], data: Array | None = None) -> str:
        data = None if data is None else data.astype(np.float32)
        self.tensors[name] = Tensor(name, tuple(shape), data=data)
        return name


def same_window(shape: Sequence[int], kernel: Pair, strides: Pair = (1, 1)) -> Window:
    """A window padded as TensorFlow's SAME: the output of an NHWC `shape` is size / stride."""
    pads = []
    for size, side, stride in zip(shape[1:3], kernel, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + side - size, 0)
        pads.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = pads
    return Window(kernel, strides, (top, left, bottom, right))


def resnet8(height: int, width: int, channels: int, seed: int = 0) -> Graph:
    """MLPerf Tiny's ResNet-8, without its softmax."""
    b = Builder("resnet8", seed)
    x = b.conv(b.input(height, width, channels), 16, clamp=RELU)
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        strides = (stride, stride)
        y = b.conv(x, filters, same_window(b.shape(x), (3, 3), strides), RELU)
        y = b.conv(y, filters)
        if stride != 1:
            x = b.conv(x, filters, same_window(b.shape(x), (1, 1), strides))
        x = b.add(x, y, RELU)
    return b.build(b.fully_connected(b.flatten(b.global_average_pool(x)), 10))


def ds_cnn(seed: int = 0) -> Graph:
    """MLPerf Tiny's DS-CNN for keyword spotting."""
    b = Builder("ds_cnn", seed)
    x = b.input(49, 10, 1)
    x = b.conv(x, 64, same_window(b.shape(x), (10, 4), (2, 2)), RELU)
    for _ in range(4):
        x = b.conv(b.depthwise(x, clamp=RELU), 64, 1, RELU)
    return b.build(b.softmax(b.fully_connected(b.flatten(b.global_average_pool(x)), 12)))


def mobilenet(side: int = 96, seed: int = 0) -> Graph:
    """MLPerf Tiny's MobileNetV1 with a quarter of the channels, for visual wake words."""
    b = Builder("mobilenet", seed)
    x = b.input(side, side, 3)
    x = b.conv(x, 8, same_window(b.shape(x), (3, 3), (2, 2)), RELU)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    filters = (16, 32, 32, 64, 64, *(128,) * 6, 256, 256)
    for channels, stride in zip(filters, strides, strict=True):
        window = same_window(b.shape(x), (3, 3), (stride, stride))
        x = b.conv(b.depthwise(x, window=window, clamp=RELU), channels, 1, RELU)
    return b.build(b.softmax(b.fully_connected(b.flatten(b.global_average_pool(x)), 2)))


def in_blocks(graph: Graph, cuts: Sequence[int], levels: int) -> Network:
    """`graph` cut before the nodes `cuts`, each block at `levels` levels that compute the same.

    What crosses a cut keeps its name; all else is called `l<level>.<name>`.
    """
    ends = (0, *cuts, len(graph.nodes))
    blocks = []
    for index, (start, end) in enumerate(pairwise(ends)):
        part = _part(graph, start, end)
        variants = tuple(Variant(level, _renamed(part, f"l{level}.")) for level in range(levels))
        blocks.append(Block(f"block_{index + 1}", variants))
    return Network(graph.name, tuple(blocks))


def _part(graph: Graph, start: int, end: int) -> Graph:
    nodes = graph.nodes[start:end]
    before = {*graph.inputs, *(node.output for node in graph.nodes[:start])}
    after = {*graph.outputs, *(name for node in graph.nodes[end:] for name in node.inputs)}
    read = {name for node in nodes for name in node.inputs}
    made = [node.output for node in nodes]
    inputs = tuple(name for name in graph.tensors if name in before and name in read | after)
    outputs = tuple(name for name in (*inputs, *made) if name in after)
    used = {*inputs, *made, *read}
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in used}
    return Graph(graph.name, inputs, outputs, nodes, tensors)


def _renamed(graph: Graph, prefix: str) -> Graph:
    kept = {*graph.inputs, *graph.outputs}
    names = {name: name if name in kept else prefix + name for name in graph.tensors}
    nodes = tuple(
        replace(
            node,
            name=prefix + node.name,
            inputs=tuple(names[name] for name in node.inputs),
            output=names[node.output],
        )
        for node in graph.nodes
    )
    tensors = {names[n]: replace(t, name=names[n]) for n, t in graph.tensors.items()}
    return replace(graph, nodes=nodes, tensors=tensors)


def graphs(layers: int = 6) -> st.SearchStrategy[Graph]:
    """Random graphs; a failure prints the seed that `random_graph` takes."""
    return st.builds(random_graph, st.integers(0, 2**32 - 1), st.just(layers))


def random_graph(seed: int, layers: int = 6) -> Graph:
    """A network of up to `layers` stages on at most 12 × 12 × 16, the same for the same seed."""
    b = Builder(f"random_{seed}", seed)
    if _chance(b, 0.1):
        return b.build(_head(b, b.input(_draw(b, 4, 32))))
    x = b.input(_draw(b, 4, 12), 1 if _chance(b, 0.1) else _draw(b, 4, 12), _draw(b, 1, 4))
    for _ in range(_draw(b, 1, layers)):
        stages = (_conv, _depthwise, _residual, _pool, _grouped, _padded, _branches, _function)
        x = stages[b.rng.choice(8, p=(0.22, 0.14, 0.18, 0.1, 0.09, 0.09, 0.09, 0.09))](b, x)
    if _chance(b, 0.1):
        return b.build(x)
    pooled = _chance(b, 0.6) or b.tensors[x].elements > 256
    x = b.flatten(b.global_average_pool(x) if pooled else x)
    return b.build(_head(b, x))


def _conv(b: Builder, x: str) -> str:
    return b.conv(x, _draw(b, 2, 16), _window(b, x), _clamp(b))


def _depthwise(b: Builder, x: str) -> str:
    multiplier = 2 if b.shape(x)[3] <= 8 and _chance(b, 0.3) else 1
    return b.depthwise(x, multiplier, _window(b, x), _clamp(b))


def _grouped(b: Builder, x: str) -> str:
    """Two or more groups of two or more channels; a depthwise layer where there are too few."""
    channels = b.shape(x)[3]
    groups = [g for g in range(2, channels) if channels % g == 0]
    if not groups:
        return _depthwise(b, x)
    count = groups[_draw(b, 0, len(groups) - 1)]
    return b.grouped(x, count, count * _draw(b, 1, max(1, 12 // count)), _window(b, x), _clamp(b))


def _padded(b: Builder, x: str) -> str:
    """Zeros on some sides, channels included, as a shortcut of a ResNet adds them."""
    pads = [_draw(b, 0, 1) for _ in range(6)]
    if b.shape(x)[3] > 12:
        pads[2] = pads[5] = 0
    return b.pad(x, *pads)


def _branches(b: Builder, x: str) -> str:
    """The input and one or two layers on it, joined along some axis."""
    axis = 3 if _chance(b, 0.6) else _draw(b, 1, 2)
    if b.shape(x)[axis] > 12:
        return _conv(b, x)
    channels = _draw(b, 1, 4) if axis == 3 else b.shape(x)[3]
    joined = b.concat(x, b.conv(x, channels, 1, _clamp(b)), axis, _clamp(b))
    if b.shape(joined)[axis] <= 16 and _chance(b, 0.4):
        pooled = b.max_pool(b.conv(x, channels), Window((1, 1)))
        joined = b.concat(pooled, joined, axis)
    return joined


def _function(b: Builder, x: str) -> str:
    return b.table(x, FUNCTIONS[_draw(b, 0, len(FUNCTIONS) - 1)], _clamp(b))


def _residual(b: Builder, x: str) -> str:
    """One or two layers around which the input, or its 1×1 projection, is added."""
    channels, stride = b.shape(x)[3], 1
    if _chance(b, 0.4):
        channels, stride = _draw(b, 2, 16), _draw(b, 1, 2)
    strides = (stride, stride)
    y = b.conv(x, channels, same_window(b.shape(x), (3, 3), strides), _clamp(b))
    if _chance(b, 0.5):
        y = b.conv(y, channels) if _chance(b, 0.6) else b.depthwise(y)
    if b.shape(y) != b.shape(x):
        x = b.conv(x, channels, same_window(b.shape(x), (1, 1), strides))
    return b.add(x, y, _clamp(b))


def _pool(b: Builder, x: str) -> str:
    window = _fitting(b, x, (2, 2) if _chance(b, 0.6) else (3, 2))
    return b.max_pool(x, window) if _chance(b, 0.5) else b.average_pool(x, window)


def _head(b: Builder, x: str) -> str:
    if _chance(b, 0.4):
        x = b.fully_connected(x, _draw(b, 4, 24), _clamp(b))
    x = b.fully_connected(x, _draw(b, 2, 10))
    return b.softmax(x) if _chance(b, 0.4) else x


def _window(b: Builder, x: str) -> Window:
    """A convolution's window that fits `x`: mostly padded to the same size."""
    kernel = ((1, 1), (3, 3), (5, 3))[b.rng.choice(3, p=(0.3, 0.5, 0.2))]
    if _chance(b, 0.6):
        stride = 2 if _chance(b, 0.3) else 1
        return same_window(b.shape(x), kernel, (stride, stride))
    return _fitting(b, x, kernel, dilation=2 if _chance(b, 0.3) else 1)


def _fitting(b: Builder, x: str, kernel: Pair, dilation: int = 1) -> Window:
    """Random strides and asymmetric pads below the kernel; sides that do not fit shrink to 1."""
    sides = [
        side if dilation * (side - 1) < size else 1
        for side, size in zip(kernel, b.shape(x)[1:3], strict=True)
    ]
    pads = [_draw(b, 0, min(side - 1, 2)) for side in (*sides, *sides)]
    return Window(
        (sides[0], sides[1]),
        (_draw(b, 1, 2), _draw(b, 1, 2)),
        (pads[0], pads[1], pads[2], pads[3]),
        (dilation, dilation),
    )


def _clamp(b: Builder) -> Bounds | None:
    return CLAMPS[_draw(b, 0, 2)]


def _draw(b: Builder, low: int, high: int) -> int:
    return int(b.rng.integers(low, high, endpoint=True))


def _chance(b: Builder, probability: float) -> bool:
    return bool(b.rng.random() < probability)
