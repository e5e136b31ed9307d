"""All paths of a network with exits: against the reference, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from graphs import Builder, in_blocks, random_graph, resnet8
from programs import compiled, reals, uniform

from edgeq import gates, reference
from edgeq.fit import execute
from edgeq.gates import Path
from edgeq.ir import Array, Block, DType, Graph, Network, Node, Op, QParams, Tensor, Variant, Window
from edgeq.levels import levels_of
from edgeq.program import Program

GRAPHS = range(40)
SAMPLES = 11
CUTS = (1, 4)  # of resnet8: behind the stem, and behind the first addition


def quantised(program: Program, count: int, seed: int = 0) -> dict[str, Array]:
    real = reals(program.network.graphs[0], count, seed)
    return {port.tensor.name: port.quantize(real[port.tensor.name]) for port in program.inputs}


def torch_compute() -> execute.Compute:
    pytest.importorskip("torch", reason="the extra torch is missing", exc_type=ImportError)
    from edgeq.fit.torch_compute import Compute

    return Compute()


@pytest.mark.parametrize("seed", GRAPHS)
def test_torch_computes_the_integers_of_the_reference(seed: int) -> None:
    compute = torch_compute()
    policy = uniform((8, 4, 2)[seed % 3], (8, 8, 6, 4, 3, 2, 16)[seed % 7])
    wide = policy.default.activations == 16
    graph = resnet8(8, 6, 2, seed) if wide else random_graph(seed, 8)
    program = compiled(graph, policy).program
    values, graph = quantised(program, 9, seed), program.network.graphs[0]
    for node in graph.nodes:
        expected = reference.compute(graph, node, values)
        found = compute(graph, node, values)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, node.name)
        values[node.output] = expected


@pytest.mark.parametrize("taps", [2, 40_000])
def test_torch_rounds_and_clamps_sums_as_the_reference_does(taps: int) -> None:
    """Random multipliers and shifts either way, ties, sums beyond what float32 holds."""
    compute, channels, rng = torch_compute(), 64, np.random.default_rng(taps)
    shift = rng.integers(-31, 4 if taps == 2 else 1, channels)
    multiplier = rng.integers(1 << 30, 1 << 31, channels)
    multiplier[::2] = 1 << 30  # half a power of two: products are ties
    data = {
        "w": rng.integers(-127, 128, (channels, taps)).astype(np.int8),
        "b": rng.integers(-1000, 1000, channels).astype(np.int32),
        "m": multiplier.astype(np.int32),
        "s": shift.astype(np.int8),
    }
    constants = {name: Tensor(name, d.shape, DType.S8, data=d) for name, d in data.items()}
    x, y = QParams((0.1,), -128), QParams((0.1,), 5)
    tensors = {
        "x": Tensor("x", (1, taps), DType.S8, x),
        "y": Tensor("y", (1, channels), DType.S8, y),
        **constants,
    }
    node = Node("fc", Op.FULLY_CONNECTED, ("x", *data), "y", clamp=(-120, 127))
    graph = Graph("net", ("x",), ("y",), (node,), tensors)
    values = {"x": rng.integers(-128, 128, (50, taps)).astype(np.int8)}
    expected = reference.compute(graph, node, values)
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(compute(graph, node, values), expected)


def with_heads(program: Program, cuts: tuple[int, ...], seed: int) -> Network:
    """`program` cut behind some nodes; the second level of each block has other weights."""
    chain = in_blocks(program.network.graphs[0], cuts, 2)
    blocks: list[Block] = []
    for index, block in enumerate(chain.blocks):
        first, second = block.variants
        second = replace(second, graph=_shuffled(second.graph, seed))
        blocks.append(replace(block, variants=(first, second)[: 1 if index == 0 else 2]))
        if index < len(cuts):
            blocks.append(_head(first.graph, program, seed + index))
    return Network(chain.name, tuple(blocks))


def _shuffled(graph: Graph, seed: int) -> Graph:
    rng, tensors = np.random.default_rng(seed), dict(graph.tensors)
    for name, tensor in tensors.items():
        if tensor.data is not None and tensor.data.ndim > 1:
            tensors[name] = replace(tensor, data=rng.permuted(tensor.data, axis=0))
    return replace(graph, tensors=tensors)


def _head(body: Graph, program: Program, seed: int) -> Block:
    """A head that reads what `body` leaves and writes the program's output."""
    boundary = body.tensors[body.outputs[0]]
    b = Builder("head", seed, f"head{seed}.")
    x = b.input(*boundary.shape[1:], name=boundary.name)
    pooled = b.flatten(b.average_pool(x, Window((3, 3), (3, 3))))
    graph = compiled(b.build(b.fully_connected(pooled, 10))).program.network.graphs[0]
    output = program.outputs[0].tensor
    nodes = (*graph.nodes[:-1], replace(graph.nodes[-1], output=output))
    written = replace(graph.tensors[graph.outputs[0]], name=output)
    graph = graph.edit(nodes, (written,), (output,))
    return Block("head", (Variant(0, graph),), head=True)


def along(network: Network, path: Path, values: Mapping[str, Array]) -> tuple[Array, Array]:
    """What the last body on `path` leaves, and the output of the head behind it or its own."""
    chain = execute.bodies(network)
    for (block, _), level in zip(chain, path, strict=False):
        body = next(v.graph for v in block.variants if v.level == level)
        left = run(body, values)
        values = {body.outputs[0]: left}
    head = chain[len(path) - 1][1]
    return left, left if head is None else run(head.variants[0].graph, values)


def run(graph: Graph, inputs: Mapping[str, Array]) -> Array:
    values = dict(inputs)
    for node in graph.nodes:
        values[node.output] = reference.compute(graph, node, values)
    return values[graph.outputs[0]]


@pytest.fixture(scope="module")
def program() -> Program:
    return compiled(resnet8(12, 12, 2)).program


@pytest.fixture(scope="module")
def network(program: Program) -> Network:
    return with_heads(program, CUTS, 1)


def test_every_path_gives_the_integers_of_its_blocks(program: Program, network: Network) -> None:
    values = quantised(program, SAMPLES)
    levels = levels_of(network)
    assert levels == ((0,), (0, 1), (0, 1))
    expected = {path: along(network, path, values) for path in gates.all_paths(levels)}
    assert len({outputs.tobytes() for _, outputs in expected.values()}) == len(expected)
    for compute in (reference.compute, execute.fastest()):
        ends = list(execute.walk(network, values, None, compute, batch=4))
        assert {(end.path, end.start) for end in ends} == {
            (path, start) for path in expected for start in (0, 4, 8)
        }
        for end in ends:
            boundary, outputs = expected[end.path]
            part = slice(end.start, end.start + 4)
            np.testing.assert_array_equal(end.boundary, boundary[part])
            assert end.outputs is not None
            np.testing.assert_array_equal(end.outputs, outputs[part])


def test_logits_are_the_outputs_of_all_samples(program: Program, network: Network) -> None:
    values, seen = quantised(program, SAMPLES), list[int]()
    found = execute.logits(network, values, progress=seen.append)
    assert seen == [SAMPLES]
    for path, outputs in found.items():
        assert outputs.dtype == np.int8
        np.testing.assert_array_equal(outputs, along(network, path, values)[1])


def test_only_blocks_on_the_way_to_wanted_paths_run(program: Program, network: Network) -> None:
    ran: list[str] = []

    def compute(graph: Graph, node: Node, values: Mapping[str, Array]) -> Array:
        ran.append(node.name)
        return reference.compute(graph, node, values)

    values = quantised(program, 1)
    (end,) = execute.walk(network, values, [(0, 1)], compute)
    assert end.path == (0, 1)
    blocks = network.blocks
    graphs = (blocks[0].variants[0].graph, blocks[2].variants[1].graph, blocks[3].variants[0].graph)
    assert ran == [node.name for graph in graphs for node in graph.nodes]


def test_what_paths_share_runs_once(program: Program, network: Network) -> None:
    ran: list[str] = []

    def compute(graph: Graph, node: Node, values: Mapping[str, Array]) -> Array:
        ran.append(node.name)
        return reference.compute(graph, node, values)

    list(execute.walk(network, quantised(program, 1), None, compute))
    stem = network.blocks[0].variants[0].graph.nodes[0].name
    last = network.blocks[-1].variants[1].graph.nodes[-1].name
    assert ran.count(stem) == 1
    assert ran.count(last) == len(
        [p for p in gates.all_paths(levels_of(network)) if len(p) == 3 and p[2] == 1]
    )


def test_levels_that_share_a_graph_run_once(program: Program) -> None:
    chain = in_blocks(program.network.graphs[0], CUTS, 1)
    stem, middle, end = chain.blocks
    shared = replace(middle, variants=(*middle.variants, Variant(1, middle.variants[0].graph)))
    ran: list[str] = []

    def compute(graph: Graph, node: Node, values: Mapping[str, Array]) -> Array:
        ran.append(node.name)
        return reference.compute(graph, node, values)

    values = quantised(program, 2)
    network = Network(chain.name, (stem, shared, end))
    ends = {one.path: one for one in execute.walk(network, values, [(0, 0), (0, 1)], compute)}
    assert len(ran) == len(set(ran))
    np.testing.assert_array_equal(ends[(0, 0)].boundary, ends[(0, 1)].boundary)


def test_without_heads_the_boundaries_are_there(program: Program) -> None:
    chain = in_blocks(program.network.graphs[0], CUTS, 1)
    values = quantised(program, 3)
    ends = {end.path: end for end in execute.walk(chain, values)}
    assert [ends[path].outputs is None for path in ((0,), (0, 0), (0, 0, 0))] == [True, True, False]
    np.testing.assert_array_equal(ends[(0, 0)].boundary, along(chain, (0, 0), values)[0])
