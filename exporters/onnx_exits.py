"""A network with exits as ONNX: a Scan over the samples, in it an If behind each gate.

At an exit the sample leaves, or the rest of the network, nested in the other branch, goes on. The
levels of a body are branches, too, which end in the same tensor: each stands in the file once,
whatever way leads there. Nobody computes a branch that is not taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeq import reference
from edgeq.errors import GraphError
from edgeq.exporters import gate_section, onnx_gate
from edgeq.exporters.onnx_gate import Nodes, Seen
from edgeq.exporters.onnx_layers import Writer, integers, stored_shape
from edgeq.gates import Gate, Path, Static
from edgeq.ir import Graph, Tensor, qparams_of, renamed
from edgeq.program import Program

TRADEOFF, EXIT, PATH = "tradeoff", "exit", "path"  # an input and two outputs, all int64
SAMPLES = "samples"  # the Scan
BRANCHES = {True: "then_branch", False: "else_branch"}


def write(writer: Writer, program: Program, gate: Gate) -> None:
    """All between the inputs and the outputs of `program`, and the default of the tradeoff.

    Raises:
        GraphError: an input or output of the model has a name that the file needs.
    """
    ports = [source.port.name for source in program.inputs]
    (port,) = program.outputs
    for name in (*ports, port.name):
        if name in (TRADEOFF, EXIT, PATH):
            raise GraphError(
                "EQ0348",
                f"an input or output of {program.name} is called {name}; an ONNX file with exits "
                f"has {TRADEOFF}, {EXIT} and {PATH} of its own",
            )
    nodes = Nodes(writer, onnx_gate.PREFIX)
    tradeoff, first = onnx_gate.start(
        nodes, gate, writer.constant(TRADEOFF, np.int64(gate.tradeoff))
    )
    body = _Routes(program, gate, tradeoff).sample(writer.inside(), first)
    taken = f"{nodes.prefix}/path"
    scan = helper.make_node(
        "Scan", ports, [port.name, taken], SAMPLES, body=body, num_scan_inputs=len(ports)
    )
    writer.nodes.append(scan)
    ends = [len(path) - 1 for path in gate.paths]
    codes = [gate_section.code(path) for path in gate.paths]
    for name, values in ((EXIT, ends), (PATH, codes)):
        writer.add("Gather", [nodes.table(values, f"{name}.all"), taken], name)


@dataclass(frozen=True, slots=True)
class _Routes:
    """Writes what a sample runs through. A path is the name of a tensor that holds its index."""

    program: Program
    gate: Gate
    tradeoff: str

    @property
    def output(self) -> Tensor:
        return self.program.network.outputs[0]

    def sample(self, writer: Writer, first: str) -> onnx.GraphProto:
        """From one sample of each input to the outputs where it leaves, and its path."""
        axis = writer.constant(f"{SAMPLES}/axis", np.zeros(1, np.int64))
        given = []
        for source in self.program.inputs:
            port = source.port
            one, batch = f"{port.name}/sample", f"{port.name}/batch"
            given.append(helper.make_tensor_value_info(one, TensorProto.FLOAT, port.shape[1:]))
            writer.input(writer.add("Unsqueeze", [one, axis], batch), port.layout, source.tensor)
        logits, path = self._stage(writer, 1, first, ())
        (port,) = self.program.outputs
        one, batch = f"{port.name}/sample", f"{port.name}/batch"
        writer.output(batch, port.layout, logits)
        writer.add("Squeeze", [batch, axis], one)
        real = helper.make_tensor_value_info(one, TensorProto.FLOAT, port.shape[1:])
        return writer.graph(SAMPLES, given, [real, _info(path)])

    def _stage(
        self, writer: Writer, length: int, path: str, seen: Sequence[Seen]
    ) -> tuple[Tensor, str]:
        """The last body of a path of that length, its exit and all behind it.

        Gives the outputs where the sample leaves, and its path; `seen` is what earlier exits saw.
        """
        nodes = Nodes(writer, f"{onnx_gate.PREFIX}{length}")
        logits = replace(self.output, name=_logits(self.output, length))
        self._body(nodes, length, path, logits.name)
        if length < self.gate.exits:
            (head,) = self.program.network.blocks[2 * length - 1].graphs
            writer.layers_of(renamed(head, {self.output.name: logits.name}))
        if length == max(map(len, self.gate.paths)):
            return logits, nodes.add("Identity", (path,), "path")
        if not isinstance(self.gate.form, Static):
            scale = qparams_of(logits).scale[0]
            seen = (*seen, onnx_gate.see(nodes, self.gate, integers(logits), scale))
        step, leaves = onnx_gate.onward(nodes, self.gate, path, length, self.tradeoff, seen)
        here, rest = writer.inside(), writer.inside()
        left = here.add("Identity", [integers(logits)], f"{logits.name}/left")
        stays = here.add("Identity", [path], f"{nodes.prefix}/left")
        later, end = self._stage(rest, length + 1, step, seen)
        found, taken = replace(logits, name=f"{logits.name}+"), f"{nodes.prefix}/path"
        branches = (
            here.graph("leave", (), [_info(left, logits), _info(stays)]),
            rest.graph("go on", (), [_info(integers(later), later), _info(end)]),
        )
        _choose(writer, _exit(self.program, length), leaves, (integers(found), taken), branches)
        return found, taken

    def _body(self, nodes: Nodes, length: int, path: str, logits: str) -> None:
        """The last body of a path of that length, at the path's level."""
        graphs = _graphs(self.program, self.gate, length)
        own = graphs[0].tensors[graphs[0].outputs[0]]
        made = replace(own, name=logits) if own.name == self.output.name else own
        places = [
            _place(graphs, _graph(self.program, path)) if len(path) == length else 0
            for path in self.gate.paths
        ]
        index = nodes.gathered(np.array(places, np.int64), path, "level") if graphs[1:] else ""
        self._levels(nodes, length, index, made, graphs, 0)

    def _levels(
        self,
        nodes: Nodes,
        length: int,
        index: str,
        made: Tensor,
        graphs: Sequence[Graph],
        place: int,
    ) -> None:
        """Of `graphs` from `place` on the one at `index`; its output becomes `made`."""
        graph, writer = graphs[place], nodes.writer
        if place == len(graphs) - 1:
            writer.layers_of(renamed(graph, {graph.outputs[0]: made.name}))
            return
        this = nodes.add("Equal", (index, place), f"level.{place}")
        branches = []
        for name, first, last in ((f"level {place}", place, place + 1), ("lower", place + 1, None)):
            inner = writer.inside()
            own = replace(made, name=f"{made.name}@{first}")
            self._levels(Nodes(inner, nodes.prefix), length, index, own, graphs[:last], first)
            branches.append(inner.graph(name, (), [_info(integers(own), own)]))
        _choose(writer, _level(self.program, length, place), this, (integers(made),), branches)


def _choose(
    writer: Writer,
    name: str,
    condition: str,
    outputs: Sequence[str],
    branches: Sequence[onnx.GraphProto],
) -> None:
    then, otherwise = branches
    writer.nodes.append(
        helper.make_node("If", [condition], outputs, name, then_branch=then, else_branch=otherwise)
    )


def _info(name: str, tensor: Tensor | None = None) -> onnx.ValueInfoProto:
    """The integers of a tensor, or a path."""
    if tensor is None:
        return helper.make_tensor_value_info(name, TensorProto.INT64, ())
    return helper.make_tensor_value_info(name, TensorProto.UINT8, stored_shape(tensor))


def _logits(output: Tensor, length: int) -> str:
    """The network's output at the exit of paths of that length."""
    return f"{output.name}@{length}"


def _exit(program: Program, length: int) -> str:
    return f"{program.network.blocks[2 * length - 2].name}.exit"


def _level(program: Program, length: int, place: int) -> str:
    return f"{program.network.blocks[2 * length - 2].name}.level{place}"


def _graphs(program: Program, gate: Gate, length: int) -> list[Graph]:
    """The graphs of the last body of paths of that length."""
    paths = (path for path in gate.paths if len(path) == length)
    return list({id(graph): graph for graph in (_graph(program, p) for p in paths)}.values())


def _graph(program: Program, path: Path) -> Graph:
    return reference.variant(program.network, 2 * len(path) - 2, path[-1])


def _place(graphs: Sequence[Graph], graph: Graph) -> int:
    return next(place for place, one in enumerate(graphs) if one is graph)


# One path of the file


def logits_name(program: Program, path: Path) -> str:
    """The tensor of the network's output at the end of `path`."""
    return _logits(program.network.outputs[0], len(path))


def unrolled(model: onnx.ModelProto, program: Program, path: Path) -> onnx.ModelProto:
    """The nodes of `model` that a sample on `path` runs through, without Scan and If."""
    assert program.gate is not None
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), _AXIS))
    taken = _branches(program, program.gate, path)
    made.graph.node.extend(_unrolled(model.graph, made.graph, taken))
    return made


_AXIS = f"{SAMPLES}/axis of all"


def _branches(program: Program, gate: Gate, path: Path) -> dict[str, bool]:
    """Whether each If on `path` takes its first branch, by its name."""
    found = {}
    for length in range(1, len(path) + 1):
        graphs = _graphs(program, gate, length)
        chosen = _place(graphs, _graph(program, path[:length]))
        for place in range(len(graphs) - 1):
            found[_level(program, length, place)] = place == chosen
        found[_exit(program, length)] = length == len(path)
    return found


def _unrolled(
    graph: onnx.GraphProto, whole: onnx.GraphProto, taken: Mapping[str, bool]
) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        inner = {a.name: a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH}
        if not inner:
            yield node
            continue
        one = node.op_type == "Scan"
        part = inner["body" if one else BRANCHES[taken[node.name]]]
        whole.initializer.extend(part.initializer)
        for outer, own in zip(node.input if one else (), part.input, strict=not one):
            yield helper.make_node("Squeeze", [outer, _AXIS], [own.name])
        yield from _unrolled(part, whole, taken)
        for own, outer in zip(part.output, node.output, strict=True):
            made = ("Unsqueeze", [own.name, _AXIS]) if one else ("Identity", [own.name])
            yield helper.make_node(*made, [outer])
