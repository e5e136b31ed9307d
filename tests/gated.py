"""Networks with exits and levels, and random gates for them: made by hand, nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from graphs import RELU, Builder, same_window
from programs import compiled, reals

from edgeq import dispatch, fixedpoint, gates
from edgeq.frontends import Port
from edgeq.gates import Bytes, Form, Gate, Layer, Mlp, Path, Static, Table
from edgeq.ir import Array, Block, Graph, Network, Node, QParams, Tensor, Variant
from edgeq.kernels import Optimize
from edgeq.program import Program
from edgeq.target import Target

CLASSES = 10
OUTPUT = "logits"
WEIGHTS = (8, 4, 2)  # bits of the levels
LOGIT = QParams((0.03125,), -3, 8)
FORMS = ("static", "table", "mlp")


def backbone(exits: int, seed: int = 0, classes: int = CLASSES) -> Graph:
    """Convolutions with as many exits; nodes `bodyN.…` and `headN.…`, an output for each exit."""
    b = Builder("gated", seed)
    x = b.input(8, 7, 3)
    outputs = []
    for _ in range(exits):
        window = same_window(b.shape(x), (3, 3), (1, 1))
        y = b.conv(x, 6, window, RELU)
        x = b.add(y, b.conv(y, 6, 1), RELU)
        outputs.append(b.fully_connected(b.flatten(b.global_average_pool(x)), classes))
    return b.build(*outputs)


def network(graphs: Sequence[Graph]) -> Network:
    """The chain of the same integer backbone at several levels, whose formats agree.

    The heads are those of level 0. All write `OUTPUT`, in one format.
    """
    chains = [_chain(_renamed(graph, level), level) for level, graph in enumerate(graphs)]
    blocks = []
    for index in range(len(chains[0])):
        head = index % 2 == 1
        variants = [chain[index] for chain in (chains[:1] if head else chains)]
        name = f"{'head' if head else 'body'}_{index // 2 + 1}"
        blocks.append(
            Block(name, tuple(Variant(n, graph) for n, graph in enumerate(variants)), head)
        )
    return Network(graphs[0].name, tuple(blocks))


def _renamed(graph: Graph, level: int) -> Graph:
    """Nodes and what is inside blocks at a level are called NAME@n; what crosses keeps its name."""
    ends = _ends(graph)
    kept = {*graph.inputs, *(graph.nodes[end].output for end in ends)}
    logits = set(graph.outputs)

    def new(name: str) -> str:
        if name in logits:
            return OUTPUT
        return name if level == 0 or name in kept else f"{name}@{level}"

    nodes = tuple(
        replace(
            node,
            name=node.name if level == 0 else f"{node.name}@{level}",
            inputs=tuple(map(new, node.inputs)),
            output=new(node.output),
            clamp=(-128, 127) if node.output in logits else node.clamp,
        )
        for node in graph.nodes
    )
    tensors = {}
    for name, tensor in graph.tensors.items():
        format = LOGIT if name in logits else tensor.qparams
        tensors[new(name)] = replace(tensor, name=new(name), qparams=format)
    return replace(graph, nodes=nodes, tensors=tensors, outputs=(OUTPUT,))


def _ends(graph: Graph) -> list[int]:
    """The nodes after which heads begin: additions."""
    return [i for i, node in enumerate(graph.nodes) if node.op.value == "add"]


def _chain(graph: Graph, level: int) -> list[Graph]:
    """Body, head, body, …, and the last head at the end of the last body."""
    parts: list[Graph] = []
    start = 0
    ends = _ends(graph)
    heads = [i for i, node in enumerate(graph.nodes) if node.output == OUTPUT]
    for number, (end, head) in enumerate(zip(ends, heads, strict=True)):
        last = number == len(ends) - 1
        body = graph.nodes[start : head + 1 if last else end + 1]
        parts.append(_part(graph, body, OUTPUT if last else graph.nodes[end].output))
        if not last:
            parts.append(_part(graph, graph.nodes[end + 1 : head + 1], OUTPUT))
        start = head + 1
    return parts


def _part(graph: Graph, nodes: Sequence[Node], output: str) -> Graph:
    made = {node.output for node in nodes}
    used = {*made, *(name for node in nodes for name in node.inputs)}
    tensors: dict[str, Tensor] = {n: t for n, t in graph.tensors.items() if n in used}
    inputs = tuple(n for n, t in tensors.items() if t.data is None and n not in made)
    return Graph(graph.name, inputs, (output,), tuple(nodes), tensors)


def random_gate(
    levels: gates.Levels, form: str, seed: int, *, size: int = 20, classes: int = CLASSES
) -> Gate:
    """A gate with random costs, tables and first levels."""
    rng = np.random.default_rng(seed)
    paths = gates.sampled(gates.all_paths(levels), seed, gates.MOST_PATHS if seed % 2 else 30)
    plain: dict[Path, int] = {}
    for path in paths:
        plain[path] = plain.get(path[:-1], 0) + int(rng.integers(0, 4)) * 100 + 1
    most = max(plain.values())
    costs = tuple(max(gates.ONE * plain[path] // most, 1) for path in paths)
    starts = sorted(path[0] for path in paths if len(path) == 1)
    cuts = (0, *sorted(int(x) for x in rng.integers(1, 1 << 20, len(starts) - 1)))
    first = tuple(zip(dict.fromkeys(cuts), starts, strict=False))
    empty = Gate(classes, levels, paths, costs, first, int(rng.integers(0, 1 << 16)), Static())
    return replace(empty, form=_random_form(empty, form, size, rng))


def _random_form(gate: Gate, form: str, size: int, rng: np.random.Generator) -> Form:
    if form == "static":
        return Static()
    if form == "table":
        spread = np.exp(rng.uniform(1, 4.5, ((gate.exits - 1) * size, 1)))
        logits = np.clip(rng.normal(0, spread, (len(spread), gate.classes)), -128, 127)
        seen = gates.see(logits.astype(np.int8), LOGIT.scale[0])
        centroids = seen.top.reshape(gate.exits - 1, size, gates.TOP + 1)
        errors = {node: _bytes(rng, size, len(gate.options(node))) for node in gate.nodes()}
        return Table(centroids, errors)
    inputs = 2 * gate.classes + 4 + gate.exits + 1
    layers = []
    for _ in range(gate.exits - 1):
        hidden = rng.integers(-128, 128, (size, inputs)).astype(np.int8)
        hidden[:, -gate.exits - 1 :] //= 4  # else inputs would hardly differ
        layers.append(
            Layer(
                hidden,
                rng.integers(-9000, 9000, size).astype(np.int32),
                int(rng.integers(6, 10)),
                rng.integers(-128, 128, size).astype(np.int8),
                int(rng.integers(-5000, 5000)),
                fixedpoint.quantize_multiplier(float(rng.uniform(0.016, 0.08))),
            )
        )
    return Mlp(tuple(layers))


def _bytes(rng: np.random.Generator, *shape: int) -> Bytes:
    return rng.integers(0, 256, shape).astype(np.uint8)


def program(
    exits: int,
    form: str,
    seed: int = 0,
    *,
    levels: int = 3,
    size: int = 20,
    target: Target | None = None,
    optimize: Optimize = "flash",
) -> Program:
    """A gated network of random weights with a random gate, planned and dispatched."""
    graph = backbone(exits, seed)
    made = [compiled(graph, bits, optimize, target=target) for bits in WEIGHTS[:levels]]
    base = made[0].program
    chain = network([one.program.network.graphs[0] for one in made])
    each = tuple(tuple(range(levels)) for _ in range(exits))
    gate = random_gate(each, form, seed, size=size)
    chosen = dispatch.run(chain, base.target.isa, optimize, state=gate.state_bytes)
    return replace(
        base,
        network=chain,
        choices=chosen.choices,
        plan=chosen.plan,
        outputs=(Port(OUTPUT, OUTPUT, (1, CLASSES), "NC"),),
        gate=gate,
    )


def inputs(made: Program, count: int, seed: int = 1) -> dict[str, Array]:
    """Random samples of unlike contrast, as the device's integers."""
    graph = made.network.blocks[0].variants[0].graph
    real = reals(graph, count, seed)
    rng = np.random.default_rng(seed)
    found = {}
    for port in made.inputs:
        values = real[port.tensor.name]
        contrast = np.exp(rng.normal(0, 1, (count, *[1] * (values.ndim - 1))))
        found[port.tensor.name] = port.quantize((values * contrast).astype(np.float32))
    return found
