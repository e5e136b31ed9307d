"""Levels: bits of each, and the chain of bodies and heads that they become."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import bundled
import numpy as np
import pytest
from exitnets import SMALL_EXITS, chain, gated_graphs, policy, small, wide
from graphs import RELU, Builder
from programs import reals

from edgeq import calibrate, exits, gates, kernels, levels, quantize, reference, targets
from edgeq import policy as policies
from edgeq.errors import PolicyError
from edgeq.ir import Graph, Network, Op, qparams_of, single
from edgeq.ops import OPS
from edgeq.policy import Bits, Policy

DSP = ("dsp",)


def refused(id: str, *words: str) -> pytest.RaisesExc[PolicyError]:
    return pytest.raises(
        PolicyError, check=lambda e: e.id == id and all(w in str(e) for w in words)
    )


def integers(network: Network, graph: Graph, count: int = 8) -> dict[str, Any]:
    samples = reals(graph, count, seed=1)
    return {t.name: qparams_of(t).quantize(samples[t.name]).astype("i1") for t in network.inputs}


def steps(network: Network, path: gates.Path) -> list[int]:
    """The variant of each block, heads too, on `path` to the last exit."""
    bodies = iter(path)
    found = []
    for block in network.blocks:
        at = [variant.level for variant in block.variants]
        found.append(0 if block.head else at.index(next(bodies)))
    return found


def test_the_default_level_is_w4a4_where_the_core_multiplies_pairs() -> None:
    chosen = Policy.model_validate({"exits": list(SMALL_EXITS)})
    top, low = levels.resolve(chosen, small(), DSP)
    assert set(top.values()) == {Bits(8, 8)}
    assert low["conv_1"] == Bits(8, 4)  # what an entry behind it brings its output to
    assert low["fc_1"] == Bits(8, 8)
    assert low["conv_3"] == low["conv_5"] == low["conv_6"] == Bits(4, 8)  # additions read them
    assert low["conv_7"] == Bits(4, 8)  # a pool averages it: means are small beside its range
    assert low["conv_2"] == low["conv_4"] == low["add_1"] == Bits(4, 4)


def test_the_default_level_keeps_activations_where_low_ones_gain_nothing() -> None:
    chosen = Policy.model_validate({"exits": list(SMALL_EXITS)})
    low = levels.resolve(chosen, small(), ())[1]
    assert low["conv_2"] == low["conv_3"] == Bits(4, 8)


def test_the_default_level_rises_nowhere_above_the_policy() -> None:
    chosen = Policy.model_validate(
        {
            "exits": list(SMALL_EXITS),
            "rule": [{"match": "conv_2", "weights": 2, "activations": 3}],
        }
    )
    assert levels.resolve(chosen, small(), DSP)[1]["conv_2"] == Bits(2, 3)


def test_no_levels_are_plain_early_exits() -> None:
    chosen = Policy.model_validate({"exits": ["conv_1"], "level": []})
    assert len(levels.resolve(chosen, small(), DSP)) == 1
    assert levels.levels_of(chain(small(), chosen).network) == ((0,), (0,))


def test_rules_of_a_level_are_resolved_and_the_first_layer_keeps_its_bits() -> None:
    data = {
        "exits": ["conv_1"],
        "level": [{"default": {"weights": 6}, "rule": [{"match": "conv_3", "weights": 5}]}],
    }
    low = levels.resolve(Policy.model_validate(data), small(), DSP)[1]
    assert (low["conv_1"], low["conv_2"], low["conv_3"]) == (Bits(8, 8), Bits(6, 8), Bits(5, 8))
    data["exits"] = ["add_1"]
    data["level"][0]["default"]["activations"] = 4  # type: ignore[index]
    assert levels.resolve(Policy.model_validate(data), small(), DSP)[1]["conv_1"] == Bits(8, 8)
    data["level"][0]["rule"][0]["match"] = "nothing"  # type: ignore[index]
    with pytest.raises(PolicyError, match=r"level 1: rule 1 \"nothing\" matches no layer"):
        levels.resolve(Policy.model_validate(data), small(), DSP)


@pytest.mark.parametrize("lower", [((4, 4), (5, 4)), ((4, 4), (4, 8))])
def test_levels_that_rise_are_refused(lower: tuple[tuple[int, int], ...]) -> None:
    with refused("EQ0374", "level 2 gives conv_", "bits"):
        levels.resolve(policy(SMALL_EXITS, *lower), small(), DSP)


def test_levels_that_repeat_are_refused() -> None:
    with refused("EQ0375", "level 1 has the bits of the level above it"):
        levels.resolve(policy(SMALL_EXITS, (8, 8)), small(), DSP)
    with refused("EQ0375", "level = []"):
        chosen = policy(SMALL_EXITS, top=(4, 4)).model_copy(update={"level": None})
        levels.resolve(chosen, small(), DSP)


def test_more_levels_than_a_path_can_hold_are_refused() -> None:
    lower = [(8, 8)] * 16
    with refused("EQ0374", "17 levels; at most 16"):
        levels.resolve(policy(SMALL_EXITS, *lower), small(), DSP)


def test_names_that_lower_levels_take_are_refused() -> None:
    graph = small()
    nodes = (replace(graph.nodes[0], name="conv@1"), *graph.nodes[1:])
    with refused("EQ0379", "layer conv@1"):
        levels.resolve(policy(("add_1",), (4, 4)), replace(graph, nodes=nodes), DSP)


def test_a_chain_has_a_head_behind_every_body_but_the_last() -> None:
    network = chain(small(), policy(SMALL_EXITS, (4, 4))).network
    assert [block.head for block in network.blocks] == [False, True] * 3 + [False]
    assert levels.levels_of(network) == ((0,), (0, 1), (0, 1), (0, 1))
    output = network.outputs[0]
    for block in network.blocks:
        if block.head or block is network.blocks[-1]:
            for variant in block.variants:
                assert variant.graph.tensors[variant.graph.outputs[0]] == output
    assert qparams_of(output).bits == 8


def test_without_heads_there_are_the_bodies_that_heads_are_trained_on() -> None:
    chosen = policy(SMALL_EXITS, (4, 4))
    whole = chain(small(), chosen).network
    bodies = chain(small(), chosen, with_heads=False).network
    assert not any(block.head for block in bodies.blocks)
    for mine, other in zip(
        bodies.blocks[:-1], [b for b in whole.blocks if not b.head], strict=False
    ):
        assert mine == other  # the last one's output has to hold no heads


@pytest.mark.parametrize("graph", gated_graphs(12, start=100), ids=lambda graph: graph.name)
@pytest.mark.parametrize("lower", [((4, 4),), ((6, 8), (3, 4), (2, 2))])
def test_what_crosses_has_one_format_and_names_are_unique(
    graph: Graph, lower: tuple[tuple[int, int], ...]
) -> None:
    found = chain(graph, policy(exits.proposed(graph), *lower))
    formats: dict[str, Any] = {}
    names: dict[str, Graph] = {}
    for block in found.network.blocks:
        for variant in block.variants:
            for name in (*variant.graph.inputs, *variant.graph.outputs):
                tensor = variant.graph.tensors[name]
                assert formats.setdefault(name, tensor) == tensor
            for node in variant.graph.nodes:
                assert names.setdefault(node.name, variant.graph) is variant.graph
    assert set(names) == set(found.bits) == set(found.origin)


@pytest.mark.parametrize("graph", gated_graphs(12, start=300), ids=lambda graph: graph.name)
def test_the_most_precise_path_is_the_ungated_network(graph: Graph) -> None:
    """Its output has another format: the heads' range is in it."""
    chosen = policy(exits.proposed(graph), (4, 4))
    network = chain(graph, chosen).network
    bits = policies.resolve(chosen, graph)
    ranges = calibrate.run(graph, bits, reals(graph), chosen.calibration)
    plain = quantize.run(graph, bits, ranges, chosen.calibration)
    inputs = integers(network, graph)
    expected = reference.run(single(plain), inputs)
    found = reference.run(network, inputs, levels=steps(network, (0,) * len(chosen.exits) + (0,)))
    last = network.blocks[-1].variants[0].graph
    same = plain.tensors[graph.outputs[0]].qparams == last.tensors[graph.outputs[0]].qparams
    writers = {graph.outputs[0], levels._origin(graph, graph.outputs[0])}
    for node in plain.nodes:
        if same or node.output not in writers | _after(graph, writers):
            np.testing.assert_array_equal(found[node.output], expected[node.output], node.name)


def _after(graph: Graph, names: set[str]) -> set[str]:
    reached = set(names)
    for node in graph.nodes:
        if any(name in reached for name in node.inputs):
            reached.add(node.output)
    return reached


@pytest.mark.parametrize("graph", gated_graphs(8, start=500), ids=lambda graph: graph.name)
def test_every_path_computes(graph: Graph) -> None:
    network = chain(graph, policy(exits.proposed(graph), (4, 4), (3, 2))).network
    inputs = integers(network, graph, 2)
    ends = [
        p for p in gates.all_paths(levels.levels_of(network)) if len(p) * 2 > len(network.blocks)
    ]
    for path in ends:
        values = reference.run(network, inputs, levels=steps(network, path))
        assert values[network.outputs[0].name].shape == (2, *network.outputs[0].shape[1:])


def test_equal_bodies_are_one_variant_at_first_and_one_graph_later() -> None:
    graph = small()
    data: dict[str, Any] = {
        "exits": ["add_1", "add_2"],
        "calibration": {"activations": "minmax"},
        "rule": [{"match": "conv_1", "activations": 8}],
        "level": [
            {"rule": [{"match": "conv_4", "weights": 4}]},
            {"rule": [{"match": "conv_4", "weights": 2}]},
        ],
    }
    network = chain(graph, Policy.model_validate(data)).network
    assert levels.levels_of(network) == ((0,), (0, 1, 2), (0, 1, 2))
    last = network.blocks[-1].variants
    assert last[0].graph is last[1].graph is last[2].graph
    middle = network.blocks[2].variants
    assert middle[0].graph is not middle[1].graph


def test_a_level_that_saves_nothing_has_the_graph_of_the_level_above() -> None:
    """On a core without the DSP extension packed activations are unpacked, and cost cycles."""
    graph, chosen = small(), policy(SMALL_EXITS, (4, 4))
    for name in ("cortex-m0", "mcu"):
        target = targets.load(name)
        kept = chain(graph, chosen, target, drop=True).network
        bodies = [block for block in chain(graph, chosen, target).network.blocks if not block.head]
        for body, other in zip(bodies, [b for b in kept.blocks if not b.head], strict=True):
            if len(body.variants) == 2:
                above, below = (
                    sum(
                        c[0].cycles
                        for c in kernels.options(single(v.graph), target.isa, "time").values()
                    )
                    for v in body.variants
                )
                shared = other.variants[0].graph is other.variants[1].graph
                assert shared == (below > levels.WORTH * above), (name, body.name)
    assert all(
        len(block.graphs) == 1
        for block in chain(graph, chosen, targets.load("cortex-m0"), drop=True).network.blocks
    )


def test_paths_that_compute_the_same_are_one() -> None:
    data: dict[str, Any] = {
        "exits": ["conv_1", "add_1", "add_2"],
        "calibration": {"activations": "minmax"},
        "level": [{"rule": [{"match": "conv_[237]", "weights": 4}]}],
    }
    network = chain(small(), Policy.model_validate(data)).network
    assert levels.levels_of(network) == ((0,), (0, 1), (0, 1), (0, 1))
    assert network.blocks[4].variants[0].graph is network.blocks[4].variants[1].graph
    paths = levels.paths_of(network)
    assert paths == (
        (0,), (0, 0), (0, 1), (0, 0, 0), (0, 1, 1),
        (0, 0, 0, 0), (0, 0, 0, 1), (0, 1, 1, 1),
    )  # fmt: skip
    inputs = integers(network, small())
    found = {
        values[network.outputs[0].name].tobytes()
        for path in gates.all_paths(levels.levels_of(network))
        if len(path) == 4
        for values in [reference.run(network, inputs, levels=steps(network, path))]
    }
    assert len(found) == sum(len(path) == 4 for path in paths)


def test_an_entry_is_taken_where_its_readers_gain_more_than_it_costs() -> None:
    graph, chosen = wide(), policy(("conv_2",), (4, 4))
    found = chain(graph, chosen)
    body = found.network.blocks[2].variants[1].graph
    assert found.entries == {"conv_2.entry@1"}
    entry = body.nodes[0]
    assert (entry.name, entry.op, entry.inputs[0]) == ("conv_2.entry@1", Op.TABLE, "conv_2.output")
    assert qparams_of(body.tensors[entry.output]).bits == 4
    assert all("conv_2.output" not in node.inputs for node in body.nodes[1:])
    assert found.origin[entry.name] == "conv_2"
    plain = chain(graph, chosen, targets.load("cortex-m0"))
    assert plain.entries == frozenset()


def test_a_pool_on_the_boundary_hands_on_its_format() -> None:
    b = Builder("pools")
    x = b.conv(b.input(8, 8, 2), 8, clamp=RELU)
    x = b.conv(x, 8, clamp=RELU)
    pooled = b.global_average_pool(x)
    graph = b.build(b.fully_connected(b.flatten(pooled), 5))
    network = chain(graph, policy(("average_pool_1",), (4, 4))).network
    for variant in network.blocks[0].variants:
        assert qparams_of(variant.graph.tensors[pooled]).bits == 8


def test_resnet8_has_four_exits_at_two_levels() -> None:
    graph = bundled.load("fashion-resnet8").model.graph
    chosen = policy(exits.proposed(graph), (4, 4))
    found = chain(graph, chosen)
    assert len(gates.all_paths(levels.levels_of(found.network))) == 10
    weighted = {
        node.name: qparams_of(variant.graph.tensors[node.inputs[1]]).bits
        for block in found.network.blocks
        for variant in block.variants
        for node in variant.graph.nodes
        if OPS[node.op].weighted
    }
    assert {name for name, bits in weighted.items() if bits == 4} == {
        f"{name}@1"
        for name in (
            "stack1.conv1", "stack1.conv2", "stack2.conv1", "stack2.conv2", "stack2.shortcut",
            "stack3.conv1", "stack3.conv2", "stack3.shortcut", "fc",
        )
    }  # fmt: skip


def test_levels_share_digits_where_their_bits_differ() -> None:
    graph = small()
    chosen = policy(SMALL_EXITS, (6, 8), (6, 4), (2, 4))
    network = chain(graph, chosen, nested=True).network
    assert levels.shares(network)
    assert not levels.shares(chain(graph, chosen).network)
    planes = {
        node.name: variant.graph.tensors[node.inputs[1]].planes
        for block in network.blocks
        for variant in block.variants
        for node in variant.graph.nodes
        if OPS[node.op].weighted
    }
    assert planes["conv_1"] == ()  # the first layer keeps its bits
    assert [planes[f"conv_2{end}"] for end in ("", "@1", "@2", "@3")] == [
        (2, 4, 2), (2, 4), (2, 4), (2,)
    ]  # fmt: skip
    assert all(not found for name, found in planes.items() if name.startswith("exit"))


def test_a_level_that_the_store_makes_dear_is_dropped_and_leaves_no_digits() -> None:
    """Packed activations of nested weights go through rows: lanes and taps cannot read these."""
    graph = bundled.load("fashion-resnet8").model.graph
    chosen = policy(("conv", "stack1.add", "stack2.add"), (4, 4))
    apart, nested = (chain(graph, chosen, drop=True, nested=store) for store in (False, True))
    own = [
        [len(block.graphs) for block in found.network.blocks if not block.head]
        for found in (apart, nested)
    ]
    assert own == [[1, 2, 1, 1], [1, 1, 1, 1]]
    assert not levels.shares(nested.network)
    bytes_alone = chain(graph, policy(chosen.exits, (4, 8)), drop=True, nested=True)
    assert [len(b.graphs) for b in bytes_alone.network.blocks if not b.head] == [1, 2, 2, 2]


def test_the_first_body_has_the_levels_that_it_has_to() -> None:
    chosen = policy(("add_1",), (4, 4))
    for first in ((0,), (0, 1)):
        for nested in (False, True):
            network = chain(small(), chosen, drop=True, nested=nested, first=first).network
            assert levels.levels_of(network) == (first, (0, 1))
