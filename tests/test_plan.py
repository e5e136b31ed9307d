from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product

import pytest
from graphs import Builder, graphs, in_blocks, random_graph, resnet8
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.ir import Block, Graph, Network, Op, QParams, Tensor, Variant, single
from edgeq.ops import OPS
from edgeq.overlap import Lag
from edgeq.plan import ALIGN, Placement, Plan, activation_bytes, plan

GRAPHS = 200
CLOSE = 1.05  # times the lower bound
fixed = settings(derandomize=True, max_examples=GRAPHS, deadline=None)


def with_scratch(network: Network) -> dict[str, int]:
    """Random scratch for every second node or so."""
    rng = random.Random(0)
    names = [node.name for graph in network.graphs for node in graph.nodes]
    return {name: rng.choice((0, rng.randint(1, 400))) for name in names}


def with_lags(network: Network) -> dict[str, Lag]:
    """Random lags for operators of one input that does not share its memory with the output."""
    rng = random.Random(1)
    return {
        node.name: Lag(rng.randint(-90, 300), rng.randint(1, 300))
        for graph in network.graphs
        for node in graph.nodes
        if len(graph.activations(node)) == 1
        and not OPS[node.op].in_place
        and node.op is not Op.RESHAPE
    }


def follows(x: Placement, y: Placement, lag: Lag | None) -> bool:
    """Whether an output at `y` may lie as it does over its input at `x`."""
    return lag is not None and (
        y.offset + lag.before <= x.offset or y.offset >= x.offset + lag.after
    )


def slots(plan: Plan) -> list[Placement]:
    """Each range of the arena once, however many tensors share it."""
    return sorted(
        {*plan.tensors.values(), *plan.scratch.values()},
        key=lambda p: (-aligned(p.bytes), p.first, p.last),
    )


def aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def overlap(a: Placement, b: Placement) -> bool:
    return a.offset < b.offset + aligned(b.bytes) and b.offset < a.offset + aligned(a.bytes)


def live_together(a: Placement, b: Placement) -> bool:
    return a.first <= b.last and b.first <= a.last


def greedy_by_size(plan: Plan) -> int:
    """The arena that the slots of `plan` need, largest first, each at the lowest free offset."""
    placed: list[Placement] = []
    for slot in slots(plan):
        near = sorted((p for p in placed if live_together(p, slot)), key=lambda p: p.offset)
        offset = 0
        for other in near:
            if other.offset - offset >= aligned(slot.bytes):
                break
            offset = max(offset, other.offset + aligned(other.bytes))
        placed.append(replace(slot, offset=offset))
    return max(p.offset + p.bytes for p in placed)


class Arena:
    """Bytes that remember whose they are."""

    def __init__(self, size: int) -> None:
        self.owners = [""] * size

    def write(self, place: Placement, owner: str) -> None:
        self.owners[place.offset : place.offset + place.bytes] = [owner] * place.bytes

    def holds(self, place: Placement, owner: str) -> bool:
        owners = self.owners[place.offset : place.offset + place.bytes]
        return owners == [owner] * place.bytes


def run(
    network: Network, path: Sequence[Graph], plan: Plan, lags: Mapping[str, Lag] | None = None
) -> None:
    """Run one variant of each block; every value must be whole whenever it is read."""
    arena = Arena(plan.arena_bytes)
    values = {tensor.name: tensor.name for tensor in network.inputs}
    for name in values:
        arena.write(plan.tensors[name], name)
    for graph in path:
        for node in graph.nodes:
            run_node(graph, node.name, arena, values, plan, lags or {})
        for name in graph.outputs:
            assert arena.holds(plan.tensors[name], values[name]), f"{name} is lost at the end"


def run_node(
    graph: Graph,
    name: str,
    arena: Arena,
    values: dict[str, str],
    plan: Plan,
    lags: Mapping[str, Lag],
) -> None:
    node = next(node for node in graph.nodes if node.name == name)
    output = plan.tensors[node.output]
    inputs = [(plan.tensors[t.name], values[t.name]) for t in graph.activations(node)]
    assert all(arena.holds(*held) for held in inputs), f"an input of {name} is lost"
    if node.op is Op.RESHAPE:
        assert output.offset == inputs[0][0].offset
        values[node.output] = values[node.inputs[0]]
        return
    if name in plan.scratch:
        inputs.append((plan.scratch[name], f"scratch of {name}"))
        arena.write(*inputs[-1])
    values[node.output] = node.output
    assert all(arena.holds(*held) for held in inputs), f"the scratch of {name} hits an input"
    arena.write(output, node.output)
    for place, value in inputs:
        in_place = OPS[node.op].in_place and place == output
        follows_it = value == values[node.inputs[0]] and follows(place, output, lags.get(name))
        assert in_place or follows_it or arena.holds(place, value), (
            f"{name} overwrites its input {value}"
        )


def paths(network: Network) -> list[tuple[Graph, ...]]:
    return list(product(*([v.graph for v in block.variants] for block in network.blocks)))


def cut(graph: Graph, levels: int) -> Network:
    """`graph` as three blocks, or fewer where it has not enough nodes."""
    count = len(graph.nodes)
    return in_blocks(graph, sorted({count // 3, 2 * count // 3} - {0}), levels)


def narrowed(network: Network, bits: Mapping[str, int]) -> Network:
    """`network` with some tensors, by name, at other widths."""

    def narrow(tensor: Tensor) -> Tensor:
        if tensor.name not in bits:
            return tensor
        return replace(tensor, qparams=QParams((1.0,), bits=bits[tensor.name]))

    def edit(variant: Variant) -> Variant:
        tensors = {name: narrow(tensor) for name, tensor in variant.graph.tensors.items()}
        return replace(variant, graph=replace(variant.graph, tensors=tensors))

    blocks = tuple(Block(b.name, tuple(map(edit, b.variants))) for b in network.blocks)
    return Network(network.name, blocks)


@fixed
@given(graphs())
def test_no_two_live_tensors_overlap(graph: Graph) -> None:
    network = single(graph)
    for a, b in combinations(slots(plan(network, with_scratch(network))), 2):
        assert not (live_together(a, b) and overlap(a, b))


@fixed
@given(graphs(), st.integers(1, 3))
def test_every_value_is_whole_whenever_a_path_reads_it(graph: Graph, levels: int) -> None:
    network = cut(graph, levels)
    planned = plan(network, with_scratch(network))
    for path in paths(network):
        run(network, path, planned)


@fixed
@given(graphs(), st.integers(1, 3))
def test_outputs_lie_over_inputs_as_far_as_their_lag_and_only_there(
    graph: Graph, levels: int
) -> None:
    network = cut(graph, levels)
    lags = with_lags(network)
    planned = plan(network, with_scratch(network), lags)
    for path in paths(network):
        run(network, path, planned, lags)


@fixed
@given(graphs())
def test_lags_never_make_an_arena_larger(graph: Graph) -> None:
    network = single(graph)
    with_them = plan(network, with_scratch(network), with_lags(network))
    assert with_them.arena_bytes <= plan(network, with_scratch(network)).arena_bytes
    assert with_them.arena_bytes > with_them.lower_bound - ALIGN


@fixed
@given(graphs(), st.integers(1, 2))
def test_a_retained_input_is_whole_at_the_end(graph: Graph, levels: int) -> None:
    network = cut(graph, levels)
    kept = {tensor.name for tensor in network.inputs}
    lags = with_lags(network)
    planned = plan(network, with_scratch(network), lags, kept)
    for name in kept:
        place = planned.tensors[name]
        others = (planned.tensors[n] for n in planned.tensors if n not in kept)
        aliases = [other for other in others if other == place]  # of a reshape
        assert not any(
            overlap(place, other) for other in slots(planned) if other not in (place, *aliases)
        )


def test_a_chain_goes_to_and_fro_on_the_least_memory() -> None:
    b = Builder()
    x = b.input(8, 8, 8)
    for _ in range(6):
        x = b.conv(x, 8)
    network = single(b.build(x))
    lags = {node.name: Lag(100, 120) for node in network.graphs[0].nodes}
    assert plan(network, {}, lags).arena_bytes == 8 * 8 * 8 + 120
    assert plan(network, {}).arena_bytes == 2 * 8 * 8 * 8


def test_outputs_lie_over_inputs_only_where_the_arena_needs_it() -> None:
    b = Builder()
    x = b.conv(b.conv(b.input(8, 8, 2), 8), 8)
    x = b.conv(b.conv(x, 2), 2)
    network = single(b.build(x))
    lags = {node.name: Lag(64, 64) for node in network.graphs[0].nodes}
    planned = plan(network, {}, lags)
    assert planned.arena_bytes == 8 * 8 * 8 + 64
    one, other = planned.tensors["conv_3.output"], planned.tensors["conv_4.output"]
    assert not overlap(one, other)


@fixed
@given(graphs())
def test_the_arena_ends_with_its_highest_placement(graph: Graph) -> None:
    planned = plan(single(graph), with_scratch(single(graph)))
    assert planned.arena_bytes == max(p.offset + p.bytes for p in slots(planned))
    assert planned.arena_bytes > planned.lower_bound - ALIGN
    assert all(p.offset % ALIGN == 0 for p in slots(planned))


@fixed
@given(graphs(), st.integers(1, 2))
def test_the_arena_is_never_above_greedy_by_size(graph: Graph, levels: int) -> None:
    network = cut(graph, levels)
    planned = plan(network, with_scratch(network))
    assert planned.arena_bytes <= greedy_by_size(planned)


def test_the_arena_is_at_the_lower_bound_on_94_percent_of_graphs_or_close() -> None:
    networks = [single(random_graph(seed)) for seed in range(GRAPHS)]
    plans = [plan(network, with_scratch(network)) for network in networks]
    ratios = [p.arena_bytes / p.lower_bound for p in plans]
    assert sum(ratio <= 1 for ratio in ratios) >= 0.94 * GRAPHS  # 0.905 without the search
    assert sum(ratio <= CLOSE for ratio in ratios) >= 0.98 * GRAPHS


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_resnet8_takes_three_maps_of_its_first_stack(shape: tuple[int, int, int]) -> None:
    planned = plan(single(resnet8(*shape)), {})
    assert planned.arena_bytes == planned.lower_bound == 3 * shape[0] * shape[1] * 16


def test_the_same_network_twice_gives_the_same_plan() -> None:
    network = cut(random_graph(7, layers=12), 2)
    assert plan(network, with_scratch(network)) == plan(network, with_scratch(network))


@pytest.mark.parametrize(
    ("bits", "size"), [(16, 42), (8, 21), (5, 21), (4, 11), (3, 11), (2, 6), (None, 21)]
)
def test_an_activation_takes_the_bytes_of_its_width(bits: int | None, size: int) -> None:
    qparams = None if bits is None else QParams((1.0,), bits=bits)
    assert activation_bytes(Tensor("x", (1, 3, 7), qparams=qparams)) == size


@pytest.mark.parametrize(("bits", "in_place"), [(3, True), (4, True), (8, False), (2, False)])
def test_an_output_overwrites_an_input_of_its_own_width_only(bits: int, in_place: bool) -> None:
    b = Builder()
    x = b.input(1, 1, 1)
    left, right = b.conv(x, 1), b.conv(x, 1)
    total = b.add(left, right)
    network = single(b.build(b.conv(total, 1)))
    widths = {left: 4, right: 16, total: bits}  # all but one take a byte
    planned = plan(narrowed(network, widths), {})
    assert (planned.tensors[total] == planned.tensors[left]) is in_place


def test_a_reshape_shares_the_memory_of_its_input() -> None:
    b = Builder()
    x = b.conv(b.input(4, 4, 2), 4)
    planned = plan(single(b.build(b.fully_connected(b.flatten(x), 3))), {})
    assert planned.tensors["reshape_1.output"] == planned.tensors[x]


def test_a_reshaped_graph_output_keeps_its_input_whole() -> None:
    b = Builder()
    x = b.conv(b.input(4, 4, 2), 4)
    y = b.flatten(x)
    network = single(b.build(b.add(x, x), y))
    planned = plan(network, {})
    run(network, network.graphs, planned)
    assert planned.tensors[x].last == 2
    assert not overlap(planned.tensors["add_1.output"], planned.tensors[x])


def test_an_add_overwrites_the_input_that_dies() -> None:
    b = Builder()
    x = b.conv(b.input(4, 4, 2), 4)
    y = b.conv(x, 4)
    z = b.add(x, y)
    planned = plan(single(b.build(b.add(z, x))), {})
    assert planned.tensors[z] == planned.tensors[y]
    assert not overlap(planned.tensors[z], planned.tensors[x])


def test_a_softmax_overwrites_its_input() -> None:
    b = Builder()
    x = b.fully_connected(b.input(9), 5)
    y = b.softmax(x)
    planned = plan(single(b.build(y)), {})
    assert planned.tensors[y] == planned.tensors[x]


def test_a_graph_output_is_not_overwritten() -> None:
    b = Builder()
    x = b.fully_connected(b.input(9), 5)
    y = b.softmax(x)
    planned = plan(single(b.build(x, y)), {})
    assert not overlap(planned.tensors[x], planned.tensors[y])


def test_an_input_of_the_network_may_be_overwritten() -> None:
    b = Builder()
    x = b.input(16)
    y = b.softmax(x)
    assert plan(single(b.build(y)), {}).arena_bytes == 16


def test_every_input_is_live_from_the_first_step() -> None:
    b = Builder()
    early, late = b.input(16, name="early"), b.input(16, name="late")
    x = b.fully_connected(b.fully_connected(early, 64), 16)
    planned = plan(single(b.build(b.add(x, late))), {})
    assert (planned.tensors[late].first, planned.tensors[late].last) == (0, 2)


def test_an_input_of_another_width_is_not_overwritten() -> None:
    b = Builder()
    x = b.fully_connected(b.input(2), 16)
    y = b.softmax(x)
    planned = plan(narrowed(single(b.build(y)), {y: 4}), {})
    assert not overlap(planned.tensors[x], planned.tensors[y])


def test_a_value_that_nobody_reads_overwrites_nothing_that_is_read() -> None:
    b = Builder()
    x = b.fully_connected(b.input(2), 16)
    b.softmax(x)
    network = single(b.build(b.fully_connected(x, 2)))
    run(network, network.graphs, plan(network, {}))


def test_an_early_output_is_live_until_the_end() -> None:
    b = Builder()
    early = b.fully_connected(b.input(2), 16)
    late = b.fully_connected(b.fully_connected(early, 16), 16)
    network = single(b.build(late, early))
    planned = plan(network, {})
    run(network, network.graphs, planned)
    assert planned.tensors[early].last == 2


def chain(*graphs: Graph) -> Network:
    return Network("chain", tuple(Block(g.name, (Variant(0, g),)) for g in graphs))


def test_an_input_that_a_later_block_reads_is_whole_until_then() -> None:
    first, second, third = (Builder(name, names=f"{name}.") for name in ("one", "two", "three"))
    x = first.input(16)
    y = first.softmax(x)
    z = second.fully_connected(second.input(16, name=y), 16)
    end = third.add(third.input(16, name=x), third.input(16, name=z))
    network = chain(first.build(y), second.build(z), third.build(end))
    run(network, network.graphs, plan(network, {}))


def test_an_input_of_a_later_block_is_live_from_the_first_step() -> None:
    first, second = Builder("first"), Builder("second", names="second.")
    y = first.fully_connected(first.fully_connected(first.input(2), 64), 16)
    late = second.input(16, name="late")
    network = chain(first.build(y), second.build(second.add(second.input(16, name=y), late)))
    planned = plan(network, {})
    assert (planned.tensors[late].first, planned.tensors[late].last) == (0, 2)


def test_a_second_variant_costs_no_memory() -> None:
    graph = resnet8(16, 16, 3)
    planned = plan(in_blocks(graph, (4,), 2), {})
    assert planned.arena_bytes == plan(single(graph), {}).arena_bytes


def test_variants_of_other_widths_do_not_overwrite_each_other() -> None:
    b = Builder()
    x = b.conv(b.input(4, 4, 2), 4)
    y = b.add(x, b.conv(x, 4))
    network = in_blocks(b.build(b.conv(y, 2)), (1, 3), 2)
    network = narrowed(network, {"l1.conv_2.output": 4})
    planned = plan(network, {})
    for path in paths(network):
        run(network, path, planned)


def test_scratch_lies_beside_what_its_node_reads_and_writes() -> None:
    b = Builder()
    x = b.conv(b.input(4, 4, 2), 4)
    planned = plan(single(b.build(b.conv(x, 4))), {"conv_2": 100, "conv_1": 0})
    assert list(planned.scratch) == ["conv_2"]
    scratch = planned.scratch["conv_2"]
    assert (scratch.bytes, scratch.first, scratch.last) == (100, 1, 1)
    assert not overlap(scratch, planned.tensors[x])
    assert not overlap(scratch, planned.tensors["conv_2.output"])
