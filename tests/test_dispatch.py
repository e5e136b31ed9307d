"""Which kernel runs which layer, under each aim and budget."""

from __future__ import annotations

from typing import get_args

import pytest
from graphs import RELU, Builder, ds_cnn, mobilenet, random_graph, resnet8
from programs import compiled

from edgeq import dispatch, kernels
from edgeq.dispatch import UNLIMITED, Dispatched
from edgeq.errors import ModelError, UsageError
from edgeq.ir import Graph, Network, Op, Window, single
from edgeq.kernels import Optimize
from edgeq.report import Budget

AIMS: tuple[Optimize, ...] = get_args(Optimize)
CODE = kernels.code_bytes()
KB = 1024


def network(graph: Graph, weights: int = 8) -> Network:
    return single(compiled(graph, weights).program.network.graphs[0])


def small(weights: int = 4) -> Network:
    b = Builder("small")
    x = b.conv(b.input(12, 12, 4), 8, clamp=RELU)
    x = b.conv(b.depthwise(x, clamp=RELU), 16, 1, RELU)
    x = b.fully_connected(b.flatten(b.global_average_pool(x)), 5)
    return network(b.build(x), weights)


def run(of: Network, aim: Optimize, budget: Budget = UNLIMITED, **forced: str) -> Dispatched:
    return dispatch.run(of, ("dsp",), aim, budget, forced)


def cycles(found: Dispatched) -> int:
    return sum(choice.cycles for choice in found.choices.values())


def weight_bytes(found: Dispatched) -> int:
    return sum(choice.weight_bytes for choice in found.choices.values())


def flash_bytes(found: Dispatched) -> int:
    choices = found.choices.values()
    linked = {kernel for choice in choices for kernel in choice.kernels}
    stored = sum(choice.weight_bytes + choice.table_bytes for choice in choices)
    return CODE.runtime + kernels.linked_bytes(linked) + stored


@pytest.fixture(scope="module")
def found() -> dict[str, Dispatched]:
    return {aim: run(small(), aim) for aim in AIMS}


def test_time_takes_the_fewest_cycles(found: dict[str, Dispatched]) -> None:
    assert cycles(found["time"]) == min(map(cycles, found.values()))
    assert cycles(found["time"]) < cycles(found["flash"])


def test_flash_takes_the_fewest_bytes_of_weights(found: dict[str, Dispatched]) -> None:
    assert weight_bytes(found["flash"]) < weight_bytes(found["time"])
    assert all(c.weight_bits in (0, 4) for c in found["flash"].choices.values())


def test_ram_takes_the_smallest_arena(found: dict[str, Dispatched]) -> None:
    assert found["ram"].plan.arena_bytes == min(f.plan.arena_bytes for f in found.values())
    assert found["ram"].plan.arena_bytes < found["time"].plan.arena_bytes


def test_ram_takes_scratch_where_it_costs_nothing() -> None:
    """The depthwise kernel with scratch is the faster one; its step is not the arena's peak."""
    b = Builder("late")
    x = b.conv(b.input(24, 24, 2), 8)
    x = b.conv(x, 8, clamp=RELU)
    x = b.depthwise(b.average_pool(x, Window((2, 2), (2, 2))), clamp=RELU)
    choices = run(network(b.build(x)), "ram").choices.values()
    chosen = next(c for c in choices if c.kernel.op is Op.DEPTHWISE_CONV_2D)
    assert chosen.kernel.symbol == "eq_depthwise_3x3_s8_dsp"


def test_balanced_without_a_budget_is_as_fast_as_time(found: dict[str, Dispatched]) -> None:
    assert cycles(found["balanced"]) == cycles(found["time"])


def test_balanced_stores_fewer_bits_where_the_flash_demands_it(
    found: dict[str, Dispatched],
) -> None:
    some = run(small(), "balanced", Budget(flash_bytes(found["time"]) - 100, None))
    assert flash_bytes(some) <= flash_bytes(found["time"]) - 100
    assert weight_bytes(some) < weight_bytes(found["time"])
    assert cycles(found["time"]) < cycles(some)


def test_time_lays_outputs_over_inputs_only_where_the_ram_demands_it() -> None:
    of = network(resnet8(16, 16, 3))
    apart = run(of, "time").plan.arena_bytes
    least = run(of, "ram").plan.arena_bytes
    assert least < 0.75 * apart
    rest = CODE.context + CODE.stack
    assert run(of, "time", Budget(None, apart + rest)).plan.arena_bytes == apart
    assert run(of, "time", Budget(None, apart + rest - 1)).plan.arena_bytes < apart


@pytest.mark.parametrize("aim", ["flash", "time", "balanced"])
def test_scratch_is_given_up_where_the_ram_demands_it(aim: Optimize) -> None:
    of = small()
    least = run(of, "ram").plan.arena_bytes
    found = run(of, aim, Budget(None, least + CODE.context + CODE.stack))
    assert found.plan.arena_bytes <= least


@pytest.mark.parametrize(
    ("graph", "most"),
    [(resnet8(32, 32, 3), 36 * KB), (ds_cnn(), 9.5 * KB), (mobilenet(), 39 * KB)],
    ids=["resnet8", "ds_cnn", "mobilenet"],
)
def test_the_arenas_of_mlperf_tiny(graph: Graph, most: float) -> None:
    assert run(network(graph), "ram").plan.arena_bytes <= most


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("aim", AIMS)
def test_every_layer_has_a_choice_and_the_best_of_the_others(aim: Optimize, seed: int) -> None:
    found = run(network(random_graph(seed), 4), aim)
    assert set(found.choices) == set(found.next_best)
    for name, choice in found.choices.items():
        other = found.next_best[name]
        assert other is not choice
        assert other is None or other.kernel.op is choice.kernel.op
        if aim == "time" and other is not None:
            assert other.cycles >= choice.cycles


def test_the_same_network_twice_gives_the_same_choices() -> None:
    of = network(random_graph(3), 4)
    assert run(of, "ram") == run(of, "ram")


# Forced kernels


def test_a_forced_kernel_runs_its_layer() -> None:
    found = run(small(), "time", conv_1="eq_conv_s8_ref")
    assert found.choices["conv_1"].kernel.symbol == "eq_conv_s8_ref"
    assert found.choices["conv_2"].kernel.symbol == "eq_conv_pairs_s8_dsp"


@pytest.mark.parametrize(
    ("layer", "kernel", "isa", "says"),
    [
        ("conv_1", "eq_fc_s8_ref", ("dsp",), "it computes fully_connected, the layer is conv_2d"),
        ("conv_1", "eq_conv_s8_dsp", (), "it needs a core with dsp"),
    ],
)
def test_a_kernel_that_cannot_serve_is_refused_with_its_limit(
    layer: str, kernel: str, isa: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ModelError, match=f"EQ0350: {layer}: {kernel} cannot serve: {says}"):
        dispatch.run(small(), isa, "flash", forced={layer: kernel})


@pytest.mark.parametrize(
    ("layer", "kernel", "says"),
    [
        ("conv_9", "eq_conv_s8_ref", "no such layer; there are conv_1, "),
        ("conv_1", "eq_conv_s9", "no such kernel; there are eq_conv_s8_ref, "),
        ("conv_1", "eq_rows_s8_ref", "no such kernel"),
    ],
)
def test_names_that_there_are_not_are_refused(layer: str, kernel: str, says: str) -> None:
    with pytest.raises(UsageError, match=f"EQ0251: --kernel {layer}={kernel}: {says}"):
        run(small(), "flash", **{layer: kernel})


# Retained inputs


@pytest.mark.parametrize("aim", AIMS)
def test_a_retained_input_shares_its_memory_with_nothing(aim: Optimize) -> None:
    of = small()
    name = of.inputs[0].name
    placed = dispatch.run(of, ("dsp",), aim, retained=[name]).plan
    place = placed.tensors[name]
    others = [p for n, p in placed.tensors.items() if n != name]
    for other in (*others, *placed.scratch.values()):
        assert (
            other.offset >= place.offset + place.bytes or place.offset >= other.offset + other.bytes
        )
