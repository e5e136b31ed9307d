"""What gates compute (`edgeq.gates`), as ONNX nodes on int64: the same integers, for one input.

Paths are known by their index in `Gate.paths`. Those of one length stand side by side there, so
that a gate knows the path so far as a row of its tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from edgeq import gates
from edgeq.exporters.onnx_layers import Writer
from edgeq.gates import Gate, Layer, Mlp, Path, Table
from edgeq.ir import Array

PREFIX = "/gate@"  # of what all exits share; that of one has its number behind it
MOST_BYTE = 255


@dataclass(frozen=True, slots=True)
class Seen:
    """The names of what a gate saw: bytes as int64, (classes,) and twice (1,)."""

    probabilities: str
    entropy: str
    greatest: str


@dataclass(frozen=True, slots=True)
class Nodes:
    """Writes nodes whose tensors are called `prefix/…`, each by what it holds."""

    writer: Writer
    prefix: str

    def add(self, op: str, inputs: Sequence[str | int], holds: str, **attributes: Any) -> str:
        """Appends one node; its output. Numbers among the inputs are scalars."""
        name = f"{self.prefix}/{holds}"
        operands = [
            value if isinstance(value, str) else self.table(np.int64(value), f"{holds}.{place}")
            for place, value in enumerate(inputs)
        ]
        return self.writer.add(op, operands, name, **attributes)

    def table(self, values: Array | np.generic | Sequence[int], holds: str) -> str:
        """A constant, of int64 if it is no array."""
        array = np.asarray(values, None if hasattr(values, "dtype") else np.int64)
        return self.writer.constant(f"{self.prefix}/{holds}", array)

    def wide(self, value: str, holds: str) -> str:
        """`value` as int64."""
        return self.add("Cast", (value,), holds, to=TensorProto.INT64)

    def byte(self, q15: str, holds: str) -> str:
        """A share as Q15, as a byte."""
        part = self.add("Div", (q15, gates.PROBABILITY_ONE >> 8), f"{holds}.256ths")
        return self.add("Min", (part, MOST_BYTE), holds)

    def top(self, values: str, count: int, holds: str, *, largest: bool) -> tuple[str, str]:
        """The greatest or least of `values` in order, and their places; of equals the first."""
        names = (f"{self.prefix}/{holds}", f"{self.prefix}/{holds}.places")
        inputs = (values, self.table((count,), f"{holds}.count"))
        self.writer.nodes.append(helper.make_node("TopK", inputs, names, largest=int(largest)))
        return names

    def least(self, values: str, holds: str) -> str:
        """The place of the least of `values`; ArgMin of int64 not every onnxruntime has."""
        _, places = self.top(values, 1, f"{holds}.value", largest=False)
        return self.add("Squeeze", (places,), holds)

    def clipped(self, value: str, holds: str, most: int = MOST_BYTE) -> str:
        """`value` within 0 to `most`, a byte's."""
        return self.add("Clip", (value, 0, most), holds)

    def gathered(self, values: Array, index: str, holds: str) -> str:
        """The row of a constant that `index` names, or its rows."""
        return self.add("Gather", (self.table(values, f"{holds}.all"), index), holds)

    def requantized(self, values: str, scale: tuple[int, int], holds: str) -> str:
        """`values` times a multiplier, which is not negative, and shifted: `fixedpoint`."""
        multiplier, shift = scale
        left, right = max(shift, 0), max(-shift, 0)
        product = self.add("Mul", (values, multiplier << left), f"{holds}.product")
        nudged = self.add("Add", (product, 1 << 30), f"{holds}.nudged")
        # Div cuts towards zero, a shift goes down
        rest = self.add("Mod", (nudged, 1 << 31), f"{holds}.rest")
        whole = self.add("Sub", (nudged, rest), f"{holds}.whole")
        high = self.add("Div", (whole, 1 << 31), f"{holds}.high")
        if not right:
            return high
        sign = self.add("Sign", (high,), f"{holds}.sign")
        half = self.add("Mul", (sign, 1 << right >> 1), f"{holds}.half")
        away = self.add("Add", (high, half), f"{holds}.away")
        return self.add("Div", (away, 1 << right), f"{holds}.scaled")


def start(nodes: Nodes, gate: Gate, tradeoff: str) -> tuple[str, str]:
    """The tradeoff, held to its range, and the path of the first block that it chooses."""
    held = nodes.add("Clip", (tradeoff, 0, gates.MOST_TRADEOFF), "tradeoff")
    ats = nodes.table([at for at, _ in gate.first], "first.at")
    reached = nodes.add("GreaterOrEqual", (held, ats), "first.reached")
    count = nodes.add("ReduceSum", (nodes.wide(reached, "first.ones"),), "first.count", keepdims=0)
    paths = np.array([gate.paths.index((level,)) for _, level in gate.first], np.int64)
    return held, nodes.gathered(paths, nodes.add("Sub", (count, 1), "first.row"), "first")


def see(nodes: Nodes, gate: Gate, logits: str, scale: float) -> Seen:
    """What a gate sees of a head's outputs, the integers (1, classes) of that scale."""
    root = nodes.writer.root
    exponentials = root.constant(f"{PREFIX}/exponentials", gates.exponentials(scale))
    entropies = gates.entropies(gate.classes).astype(np.int64)
    starts = root.constant(f"{PREFIX}/entropies", entropies[:-1] * gates.ENTROPY_LINE)
    rises = root.constant(f"{PREFIX}/entropies.rises", np.diff(entropies))
    flat = nodes.add("Reshape", (logits, nodes.table((-1,), "flat.shape")), "flat")
    values = nodes.wide(flat, "values")
    below = nodes.add("Sub", (nodes.add("ReduceMax", (values,), "winner"), values), "below")
    weights = nodes.wide(nodes.add("Gather", (exponentials, below), "exponentials"), "weights")
    total = nodes.add("ReduceSum", (weights,), "total")
    half = nodes.add("Div", (total, 2), "total.half")
    scaled = nodes.add("Mul", (weights, gates.PROBABILITY_ONE), "weights.scaled")
    nudged = nodes.add("Add", (scaled, half), "weights.nudged")
    q15 = nodes.add("Div", (nudged, total), "q15")
    probabilities = nodes.byte(q15, "probabilities")
    place = nodes.add("Div", (q15, gates.ENTROPY_LINE), "entropies.place")
    past = nodes.add("Mod", (q15, gates.ENTROPY_LINE), "entropies.past")
    begun = nodes.add("Gather", (starts, place), "entropies.begun")
    slope = nodes.add("Gather", (rises, place), "entropies.slope")
    risen = nodes.add("Mul", (slope, past), "entropies.risen")
    terms = nodes.add("Add", (begun, risen), "entropy.terms")
    total = nodes.add("ReduceSum", (terms,), "entropy.sum")
    entropy = nodes.byte(nodes.add("Div", (total, gates.ENTROPY_LINE), "entropy.q15"), "entropy")
    return Seen(probabilities, entropy, nodes.add("ReduceMax", (probabilities,), "greatest"))


def onward(
    nodes: Nodes, gate: Gate, path: str, length: int, tradeoff: str, seen: Sequence[Seen]
) -> tuple[str, str]:
    """The path after this one, of `length` blocks, and whether that is the same: it leaves.

    `seen` is what the exits on the way saw, the last one here; nothing for a gate that does not
    predict.
    """
    starts = tuple(p for p in gate.paths if len(p) == length)
    orders = _orders(gate, starts)
    after = [[gate.paths.index(gate.paths[o][: length + 1]) for o in row] for row in orders]
    row = nodes.add("Sub", (path, gate.paths.index(starts[0])), "row")
    costs = nodes.gathered(np.array(gate.costs, np.int64)[orders], row, "costs")
    weighted = nodes.add("Mul", (tradeoff, costs), "costs.weighted")
    prices = nodes.add("Div", (weighted, gates.ONE), "prices")
    errors = _errors(nodes, gate, starts, orders, row, seen)
    scores = nodes.add("Add", (errors, prices), "scores")
    best = nodes.least(scores, "best")
    steps = nodes.gathered(np.array(after, np.int64), row, "steps")
    step = nodes.add("Gather", (steps, best), "step")
    return step, nodes.add("Equal", (step, path), "leaves")


def _orders(gate: Gate, starts: Sequence[Path]) -> Array:
    """The options of each path, of equal scores the one to take first: (paths, options).

    Where there are fewer the last one stands again, which never comes before itself.
    """
    rows = []
    for path in starts:
        options = np.array(gate.options(path))
        rows.append(options[np.argsort(np.array(gate.costs)[options], kind="stable")])
    most = max(map(len, rows))
    return np.stack([np.pad(row, (0, most - len(row)), "edge") for row in rows])


def _errors(
    nodes: Nodes,
    gate: Gate,
    starts: Sequence[Path],
    orders: Array,
    row: str,
    seen: Sequence[Seen],
) -> str:
    """The predicted errors of the options in their order, Q16."""
    if isinstance(gate.form, Mlp):
        layer = gate.form.layers[len(starts[0]) - 1]
        return _of_network(nodes, gate, layer, nodes.gathered(orders, row, "options"), seen)
    places = [
        [gate.options(path).index(option) for option in order.tolist()]
        for path, order in zip(starts, orders, strict=True)
    ]
    if isinstance(gate.form, Table):
        errors = [gate.form.errors[p][:, at] for p, at in zip(starts, places, strict=True)]
        cluster = _cluster(nodes, gate, gate.form.centroids[len(starts[0]) - 1], seen[-1])
        mine = nodes.gathered(np.stack(errors), row, "errors.path")
        found = nodes.wide(nodes.add("Gather", (mine, cluster), "errors.bytes"), "errors.wide")
        return nodes.add("Mul", (found, 1 << 8), "errors")
    nothing = gates.Seen(np.zeros((1, gate.classes), np.uint8), np.zeros(1, np.uint8))
    same = [
        gates.predict(gate, p, {p: nothing})[0, at] for p, at in zip(starts, places, strict=True)
    ]
    return nodes.gathered(np.stack(same), row, "errors")


def _cluster(nodes: Nodes, gate: Gate, centroids: gates.Bytes, here: Seen) -> str:
    count = min(gates.TOP, gate.classes)
    top, _ = nodes.top(here.probabilities, count, "top", largest=True)
    none = [nodes.table((0,) * (gates.TOP - count), "top.none")] if count < gates.TOP else []
    features = nodes.add("Concat", (top, *none, here.entropy), "features", axis=0)
    middle = nodes.table(centroids.astype(np.int64), "centroids")
    apart = nodes.add("Sub", (features, middle), "apart")
    squares = nodes.add("Mul", (apart, apart), "squares")
    axis = nodes.table((1,), "distances.axis")
    distances = nodes.add("ReduceSum", (squares, axis), "distances", keepdims=0)
    return nodes.least(distances, "cluster")


def _of_network(nodes: Nodes, gate: Gate, layer: Layer, options: str, seen: Sequence[Seen]) -> str:
    """What the exits saw is multiplied once; what says which option it is stands in a table."""
    here, classes = seen[-1], gate.classes
    known = layer.hidden[:, : 2 * classes + 4].T.astype(np.int64)
    if len(seen) > 1:
        before = seen[-2]
        parts = [here.probabilities, before.probabilities, here.entropy, before.entropy]
        parts += [before.greatest, here.greatest]
    else:  # of nothing there are zeros
        parts = [here.probabilities, here.entropy, here.greatest]
        known = known[[*range(classes), 2 * classes, 2 * classes + 3]]
    inputs = nodes.add("Concat", parts, "inputs", axis=0)
    common = nodes.add("MatMul", (inputs, nodes.table(known, "hidden.weights")), "hidden.seen")
    which = np.stack([gates.path_inputs(gate, path) for path in gate.paths]).astype(np.int64)
    own = which @ layer.hidden[:, 2 * classes + 4 :].T.astype(np.int64) + layer.hidden_bias
    sums = nodes.add("Add", (nodes.gathered(own, options, "hidden.options"), common), "hidden.sums")
    # Div cuts towards zero, a shift goes down; below zero both end at zero
    units = nodes.add("Div", (sums, 1 << layer.hidden_shift), "hidden.scaled")
    hidden = nodes.clipped(units, "hidden")
    column = nodes.table(layer.output.astype(np.int64), "output.weights")
    products = nodes.add("MatMul", (hidden, column), "output.products")
    total = nodes.add("Add", (products, layer.output_bias), "output.sums")
    scaled = nodes.requantized(total, layer.output_scale, "output.scaled")
    shifted = nodes.add("Add", (scaled, gates.SIGMOID_ZERO), "output.shifted")
    index = nodes.clipped(shifted, "output", len(gates.sigmoids()) - 1)
    table = nodes.writer.root.constant(f"{PREFIX}/sigmoids", gates.sigmoids())
    return nodes.wide(nodes.add("Gather", (table, index), "errors.narrow"), "errors")
