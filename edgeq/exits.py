"""Early exits: where a float graph may be cut, and the heads that stand there.

A cut is a tensor that splits the graph: all that comes behind it computes from it alone. Its exit
is called after the layer that writes it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from edgeq.errors import PolicyError
from edgeq.gates import MOST_BLOCKS
from edgeq.ir import Graph, Node, Op, Tensor, Window
from edgeq.ops import OPS, macs, verify

HEAD_SIDE = 4  # heads pool to at most so many rows and columns
PROPOSED = (0.05, 0.15, 0.40)  # shares of the multiply-accumulates at which exits are proposed
SEARCHED = 60  # cuts of which the nearest to those shares are chosen, by trying all


@dataclass(frozen=True, slots=True)
class Cut:
    """A tensor that splits a graph, written by `layer`: what stands before it are `nodes` nodes."""

    layer: str
    tensor: str
    nodes: int
    share: float  # of the multiply-accumulates, before it


@dataclass(frozen=True, slots=True)
class Head:
    """What classifies at an exit: weights (classes, values) and bias (classes,), float32.

    Values are those of the pooled tensor, in the order height, width, channel.
    """

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def cuts(graph: Graph) -> tuple[Cut, ...]:
    """Every cut of `graph` before its last node, in order."""
    total = max(sum(macs(graph, node) for node in graph.nodes), 1)
    found = []
    done = 0
    for index, node in enumerate(graph.nodes[:-1], start=1):
        done += macs(graph, node)
        if crossing(graph, index) == {node.output}:
            found.append(Cut(node.name, node.output, index, done / total))
    return tuple(found)


def crossing(graph: Graph, nodes: int) -> set[str]:
    """What is computed or given before node `nodes`, and needed from there on."""
    before = {*graph.inputs, *(node.output for node in graph.nodes[:nodes])}
    needed = {name for node in graph.nodes[nodes:] for name in node.inputs} | set(graph.outputs)
    return before & needed


def named(graph: Graph, layers: Sequence[str]) -> tuple[Cut, ...]:
    """The cuts behind `layers`, as a policy names them.

    Raises:
        PolicyError: a layer is unknown, is the last one, or does not split the graph; they are too
            many, doubled or out of order.
    """
    if not layers:
        raise PolicyError(
            "EQ0370",
            "a single exit, the network's end: levels and gates need another one; name layers in "
            f"exits = [...], as {_some(cuts(graph))}",
        )
    if len(layers) >= MOST_BLOCKS:
        raise PolicyError(
            "EQ0370", f"{len(layers)} exits and the network's end; at most {MOST_BLOCKS} in all"
        )
    known = {cut.layer: cut for cut in cuts(graph)}
    found = [known[name] if name in known else _refuse(graph, name) for name in layers]
    for before, after in pairwise(found):
        if after.nodes <= before.nodes:
            raise PolicyError(
                "EQ0373",
                f"exits: {after.layer} stands behind {before.layer}, but does not run after it; "
                "exits go from the input to the output, each once",
            )
    return tuple(found)


def _refuse(graph: Graph, layer: str) -> Cut:
    names = [node.name for node in graph.nodes]
    if layer not in names:
        near = difflib.get_close_matches(layer, names, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"layers are {', '.join(names)}"
        raise PolicyError("EQ0371", f'exits: there is no layer "{layer}"; {hint}')
    index = names.index(layer)
    if index == len(names) - 1:
        raise PolicyError(
            "EQ0370",
            f"exits: {layer} is the network's end, which is an exit anyway; others would be "
            f"{_some(cuts(graph))}",
        )
    others = sorted(crossing(graph, index + 1) - {graph.nodes[index].output})
    raise PolicyError(
        "EQ0372",
        f"exits: {layer} does not cut the network: {', '.join(others) or 'nothing'} is needed "
        f"behind it, too; exits that cut it are {_some(cuts(graph))}",
    )


def _some(found: Sequence[Cut]) -> str:
    names = [cut.layer for cut in found]
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") if names else "none here"


def proposed(graph: Graph, shares: Sequence[float] = PROPOSED) -> tuple[str, ...]:
    """The layers whose cuts come nearest to `shares`; fewer where there are fewer cuts.

    Of cuts between which nothing is multiplied the one of the smallest tensor counts. What comes
    behind the last layer with weights is no place for an exit.

    Raises:
        PolicyError: there is no cut.
    """
    best: dict[float, Cut] = {}
    for cut in cuts(graph):
        other = best.get(cut.share)
        if 0 < cut.share < 1 and (other is None or _size(graph, cut) < _size(graph, other)):
            best[cut.share] = cut
    found = sorted(best.values(), key=lambda cut: min(abs(cut.share - s) for s in shares))
    found = sorted(found[:SEARCHED], key=lambda cut: cut.nodes)
    if not found:
        raise PolicyError(
            "EQ0377", f"no tensor splits {graph.name} between its layers: it can have no exits"
        )
    wanted = shares[: len(found)]
    chosen = min(
        combinations(found, len(wanted)),
        key=lambda some: sum(abs(c.share - s) for c, s in zip(some, wanted, strict=True)),
    )
    return tuple(cut.layer for cut in chosen)


def _size(graph: Graph, cut: Cut) -> int:
    return graph.tensors[cut.tensor].elements


def head_window(height: int, width: int) -> Window:
    """What a head pools an image with, to at most 4 × 4: the side over 4, rounded up.

    Pads make up the rest, as many before as after if they can.
    """
    kernel = -(-height // HEAD_SIDE), -(-width // HEAD_SIDE)
    lacks = [
        -(-side // step) * step - side for side, step in zip((height, width), kernel, strict=True)
    ]
    top, left = (lack // 2 for lack in lacks)
    return Window(kernel, kernel, (top, left, lacks[0] - top, lacks[1] - left))


def pooled_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """What a head's layer sees of a tensor of that shape (batch first): images are pooled."""
    if len(shape) != 4:
        return tuple(shape)
    return (shape[0], *head_window(*shape[1:3]).output_size(*shape[1:3]), shape[3])


def no_head(graph: Graph, cut: Cut) -> Head:
    """A head at `cut` that has the right size, and knows nothing: zeros."""
    classes = graph.tensors[graph.outputs[0]].elements
    values = math.prod(pooled_shape(graph.tensors[cut.tensor].shape)[1:])
    return Head(np.zeros((classes, values), np.float32), np.zeros(classes, np.float32))


def head_names(index: int) -> tuple[str, str, str]:
    """The names of the nodes of head `index`, counted from 0: pool, flatten, layer."""
    return f"exit{index + 1}.pool", f"exit{index + 1}.flatten", f"exit{index + 1}.fc"


def attach(graph: Graph, exits: Sequence[Cut], heads: Sequence[Head]) -> Graph:
    """`graph` with a head at each of `exits`; its outputs are those of the heads, then its own.

    Raises:
        PolicyError: a head has other classes or values than the network and its exit.
    """
    nodes, new = list(graph.nodes), list(graph.tensors.values())
    outputs = []
    for index, (cut, head) in enumerate(zip(exits, heads, strict=True)):
        made, tensors = head_graph(graph, cut, index, head)
        nodes += made
        new += tensors
        outputs.append(made[-1].output)
    attached = graph.edit(tuple(nodes), tuple(new), (*outputs, *graph.outputs))
    verify(attached)
    return attached


def head_graph(graph: Graph, cut: Cut, index: int, head: Head) -> tuple[list[Node], list[Tensor]]:
    """The nodes of head `index` at `cut`, and their tensors."""
    pool, flatten, fc = head_names(index)
    shape = graph.tensors[cut.tensor].shape
    pooled = pooled_shape(shape)
    values, classes = math.prod(pooled[1:]), graph.tensors[graph.outputs[0]].elements
    if head.weights.shape != (classes, values) or head.bias.shape != (classes,):
        raise PolicyError(
            "EQ0378",
            f"the head behind {cut.layer} has weights {head.weights.shape} and bias "
            f"{head.bias.shape}; {(classes, values)} and {(classes,)} would fit",
        )
    nodes, tensors, name = [], [], cut.tensor
    if pooled != shape:
        tensors.append(Tensor(f"{pool}.output", pooled))
        nodes.append(
            Node(pool, Op.AVERAGE_POOL, (name,), tensors[-1].name, head_window(*shape[1:3]))
        )
        name = tensors[-1].name
    if len(pooled) != 2:
        tensors.append(Tensor(f"{flatten}.output", (1, values)))
        nodes.append(Node(flatten, Op.RESHAPE, (name,), tensors[-1].name))
        name = tensors[-1].name
    constants = {"weights": head.weights, "bias": head.bias}
    for what, data in constants.items():
        tensors.append(Tensor(f"{fc}.{what}", data.shape, data=data.astype(np.float32)))
    tensors.append(Tensor(f"{fc}.output", (1, classes)))
    inputs = (name, *(f"{fc}.{what}" for what in constants))
    nodes.append(Node(fc, Op.FULLY_CONNECTED, inputs, tensors[-1].name))
    return nodes, tensors


def without_softmax(graph: Graph) -> Graph:
    """`graph` up to its final softmax, if it has one: gates see what goes into it.

    Raises:
        PolicyError: the network has not one vector of classes as its only output.
    """
    if len(graph.outputs) != 1:
        raise PolicyError(
            "EQ0376", f"{graph.name} has {len(graph.outputs)} outputs; one with exits has one"
        )
    last = graph.producer(graph.outputs[0])
    if last is not None and last.op is Op.SOFTMAX:
        graph = graph.edit(
            tuple(node for node in graph.nodes if node is not last), outputs=(last.inputs[0],)
        )
    shape = graph.tensors[graph.outputs[0]].shape
    if len(shape) != 2 or shape[1] < 2:
        raise PolicyError(
            "EQ0376",
            f"{graph.outputs[0]} has shape {shape}; exits need a vector of two classes or more",
        )
    if graph.consumers(graph.outputs[0]):
        raise PolicyError(
            "EQ0376", f"{graph.outputs[0]} is read within the network; its output stands at its end"
        )
    return graph


def part(graph: Graph, start: int, end: int) -> Graph:
    """The nodes from `start` to `end` as a graph that reads and gives what crosses."""
    nodes = graph.nodes[start:end]
    read = {name for node in nodes for name in node.inputs}
    made = [node.output for node in nodes]
    given = crossing(graph, start) if start else set(graph.inputs)
    inputs = tuple(name for name in graph.tensors if name in given)
    left = crossing(graph, end) if end < len(graph.nodes) else set(graph.outputs)
    used = {*inputs, *made, *read}
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in used}
    outputs = tuple(name for name in (*inputs, *made) if name in left)
    return replace(graph, inputs=inputs, outputs=outputs, nodes=nodes, tensors=tensors)


def first_layers(graph: Graph) -> set[str]:
    """The nodes up to the first layers with weights: what reads the input itself, or moves it."""
    reached, found = set(graph.inputs), set()
    for node in graph.nodes:
        if any(name in reached for name in node.inputs):
            found.add(node.name)
            if OPS[node.op].keeps_qparams:
                reached.add(node.output)
    return found
