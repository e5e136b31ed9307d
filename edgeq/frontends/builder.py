"""The graph under construction, whatever the format: names, tensors and nodes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from edgeq.errors import ModelError
from edgeq.ir import Array, Graph, Node, Tensor
from edgeq.ops import OPS


def safe(name: str) -> str:
    """`name` with path separators as dots and nothing else that a file or terminal minds."""
    return re.sub(r"[^\w.\-]", "_", re.sub(r"[/:]+", ".", name), flags=re.ASCII).strip(".") or "_"


def unique(name: str, taken: set[str]) -> str:
    """`name`, or the first of name_2, name_3 … that is not taken; taken from now on."""
    chosen, count = name, 2
    while chosen in taken:
        chosen, count = f"{name}_{count}", count + 1
    taken.add(chosen)
    return chosen


def refusal_of(read: Callable[[], object]) -> str | None:
    """Why the operator that `read` reads is not supported; None where it is. Other errors pass."""
    try:
        read()
    except ModelError as error:
        if error.id != "EQ0315":
            raise
        return error.message
    return None


@dataclass(slots=True)
class Builder:
    """Grows a graph node by node; shapes come from the operator table."""

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    widened: dict[str, str] = field(default_factory=dict)  # initialiser to its stored type
    node_names: set[str] = field(default_factory=set)
    tensor_names: set[str] = field(default_factory=set)

    def constant(self, name: str, array: Array) -> str:
        """The name of a new constant, near `name`."""
        name = unique(safe(name), self.tensor_names)
        data = np.ascontiguousarray(array, dtype=np.float32)
        self.tensors[name] = Tensor(name, data.shape, data=data)
        return name

    def activation(self, name: str, shape: tuple[int, ...]) -> str:
        """The name of a new activation of the graph's shape `shape`, near `name`."""
        name = unique(safe(name), self.tensor_names)
        self.tensors[name] = Tensor(name, shape)
        return name

    def node_name(self, name: str) -> str:
        """`name`, or one near it that no node has yet."""
        return unique(name, self.node_names)

    def append(self, node: Node, shape: tuple[int, ...] | None = None) -> str:
        """The output's final name; `shape` only where the operator does not give it (reshape)."""
        inputs = [self.tensors[name] for name in node.inputs]
        asked = Tensor(node.output, shape or inputs[0].shape)
        output = self.activation(node.output, OPS[node.op].shape(node, inputs, asked))
        self.nodes.append(replace(node, output=output))
        return output

    def add_bias(self, output: str, bias: Array, renamed: str) -> str | None:
        """`bias` added to the layer that computes `output`, now called `renamed`; None if none."""
        for index, node in enumerate(self.nodes):
            if node.output == output and OPS[node.op].weighted:
                old = self.tensors[node.inputs[2]]
                total = np.broadcast_to(bias, old.shape) + old.data
                self.tensors[old.name] = replace(old, data=total.astype(np.float32))
                name = self.activation(renamed, self.tensors.pop(output).shape)
                self.nodes[index] = replace(node, output=name)
                return name
        return None

    def graph(self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Graph:
        """What was built, frozen."""
        return Graph(name, inputs, outputs, tuple(self.nodes), dict(self.tensors))
