"""Nested weights: digits, scales, the store that levels share, and kernels that read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from graphs import RELU, Builder, random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import model, reals, uniform
from test_parity import Flashed, assert_board_exact, assert_host_exact, board, integers

from edgeq import calibrate, dispatch, kernels, nested, pipeline, policy, quantize, targets
from edgeq.exporters import image
from edgeq.exporters.image import Kind
from edgeq.ir import Block, Graph, Network, Variant, Window, qparams_of, single
from edgeq.kernels import Optimize
from edgeq.nested import digits, joined, levels_of, most, split, widths
from edgeq.ops import OPS
from edgeq.packing import (
    LAYOUTS,
    pack_dense,
    pack_planes,
    plane_ends,
    planes_bytes,
    unpack_dense,
)
from edgeq.program import Program
from edgeq.targets.runners import HostProgram

__all__ = ["board"]  # a fixture

MOST = {(8, 4): 119, (8, 6, 4): 117, (8, 4, 3): 103, (8, 4, 2): 87}
MOST |= {(8, 6, 4, 3): 101, (8, 2): 95, (8, 7, 6, 5): 120, (8,): 127, (4, 2): 5}
SETS = tuple(MOST)
LEVELS = (8, 6, 4, 3)
ROUNDING = 1e-9

sets = st.sets(st.integers(2, 8), min_size=1).map(lambda bits: tuple(sorted(bits, reverse=True)))
fixed = settings(derandomize=True, max_examples=100, deadline=None)


def span(levels: Sequence[int]) -> np.ndarray:
    """Every integer that a parent may have."""
    return np.arange(-(1 << (levels[0] - 1)) + (levels[0] == 8), most(levels) + 1)


# Digits


@pytest.mark.parametrize("levels", SETS)
def test_the_greatest_integer_leaves_room_for_the_top_digit(levels: tuple[int, ...]) -> None:
    assert most(levels) == MOST[levels]
    with pytest.raises(ValueError, match="do not fit"):
        digits(np.array([most(levels) + 1]), widths(levels))


@pytest.mark.parametrize("levels", [(), (4, 8), (8, 8), (9, 4), (4, 1)])
def test_levels_that_do_not_fall_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="fall within 8"):
        widths(levels)


@fixed
@given(sets)
def test_the_digits_of_a_parent_sum_up_to_it(levels: tuple[int, ...]) -> None:
    planes = digits(span(levels), widths(levels))
    assert levels_of(widths(levels)) == levels
    for plane, width in zip(planes, widths(levels), strict=True):
        assert -(1 << (width - 1)) <= plane.min() <= plane.max() < 1 << (width - 1)
    assert joined(planes, levels).tolist() == span(levels).tolist()


@pytest.mark.parametrize("levels", [(8, 4), (8, 2), (8, 7), (6, 3), (3, 2)])
def test_the_lower_of_two_levels_is_the_upper_rounded_half_up(levels: tuple[int, ...]) -> None:
    upper, lower = levels
    store = split(span(levels)[None].astype(np.float64), levels, np.ones(1))
    half = 1 << (upper - lower - 1)
    assert store.at(upper)[0][0].tolist() == span(levels).tolist()
    assert store.at(lower)[0][0].tolist() == ((span(levels) + half) >> (upper - lower)).tolist()
    assert store.at(lower)[1].tolist() == [2.0 ** (upper - lower)]


@fixed
@given(sets)
def test_nearest_digits_cost_the_first_level_little(levels: tuple[int, ...]) -> None:
    store = split(span(levels)[None].astype(np.float64), levels, np.ones(1))
    parent = store.at(levels[0])[0][0]
    assert np.abs(parent - span(levels)).max() <= nested.MOST_LOSS
    planes = digits(parent, widths(levels))
    assert [p.tolist() for p in planes] == [p[0].tolist() for p in store.planes]


def test_a_level_above_short_digits_has_no_bias() -> None:
    """Rounding from 8 to 6 and from 6 to 4 bits is an eighth of a step too high in the mean."""
    levels = (8, 6, 4)
    store = split(span(levels)[None].astype(np.float64), levels, np.ones(1))
    assert (store.at(4)[0][0] - span(levels) / 16).mean() == pytest.approx(1 / 32, abs=0.01)


@pytest.mark.parametrize("levels", SETS)
def test_the_first_level_clips_nothing(levels: tuple[int, ...]) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 300)) ** 3
    scale = nested.absmax_scale(rows, levels)
    found, _ = split(rows, levels, scale).at(levels[0])
    assert (np.abs(rows / scale[:, None] - found) <= nested.MOST_LOSS + 0.5 + ROUNDING).all()


def test_a_row_of_zeros_has_a_scale() -> None:
    assert nested.absmax_scale(np.zeros((1, 4)), (8, 4)).tolist() == [1.0]


# Storage


def unpack_planes(data: bytes, planes: Sequence[int], count: int) -> np.ndarray:
    """The first `count` weights that `pack_planes` stored in as many planes or more."""
    size, at = planes_bytes(1, count, 1), 0
    found = np.zeros(count, np.int64)
    for width in planes:
        found = (found << width) + unpack_dense(data[at : at + size * width], width, count)
        at += size * width
    return found


@fixed
@given(sets, st.integers(1, 90), st.integers(0, 99))
def test_every_level_is_the_beginning_of_one_store(
    levels: tuple[int, ...], count: int, seed: int
) -> None:
    values = np.random.default_rng(seed).choice(span(levels), (1, count))
    store = split(values.astype(np.float64), levels, np.ones(1))
    data = pack_planes(store.at(levels[0])[0], widths(levels))
    assert len(data) == planes_bytes(1, count, levels[0]) == levels[0] * 4 * -(-count // 32)
    for bits in levels:
        planes = widths(levels[levels.index(bits) :])
        own, _ = store.at(bits)
        assert data.startswith(pack_planes(own, planes))
        assert unpack_planes(data, planes, count).tolist() == own[0].tolist()
    lowest, _ = store.at(levels[-1])
    assert data.startswith(pack_dense(lowest, levels[-1]))


def test_an_operator_says_where_planes_end() -> None:
    assert [plane_ends(planes) for planes in ((4,), (4, 4), (3, 1, 2, 2))] == [8, 136, 172]


# Quantised networks


def layers(seed: int | None = None) -> Graph:
    """Weighted layers of each kind; or any."""
    if seed is not None:
        return random_graph(seed)
    b = Builder("nested")
    x = b.conv(b.input(9, 7, 3), 6, 3, clamp=RELU)
    x = b.depthwise(x, 1, Window((3, 3), (2, 2)), clamp=RELU)
    x = b.depthwise(b.conv(x, 5, 1), 2, 2)
    return b.build(b.fully_connected(b.flatten(x), 10))


def at(graph: Graph, bits: int, levels: tuple[int, ...] = LEVELS, activations: int = 8) -> Graph:
    """The integer graph of one level."""
    chosen = uniform(bits, activations)
    resolved = policy.resolve(chosen, graph)
    ranges = calibrate.run(graph, resolved, reals(graph), chosen.calibration, lambda *_: None)
    nests = {node.name: levels for node in graph.nodes}
    return quantize.run(graph, resolved, ranges, chosen.calibration, levels=nests)


def placed(graph: Graph, integer: Graph, isa: tuple[str, ...], aim: Optimize = "flash") -> Program:
    target = targets.load("mcu").model_copy(update={"isa": isa})
    return pipeline.place(model(graph), single(integer), {}, target, aim, ())


def weights_of(integer: Graph) -> dict[str, np.ndarray]:
    return {n.name: integer.constant(n.inputs[1]) for n in integer.nodes if OPS[n.op].weighted}


def test_levels_of_a_network_are_digits_of_one_store() -> None:
    graph = layers()
    first = at(graph, LEVELS[0])
    for bits in LEVELS:
        level = at(graph, bits)
        below = widths(LEVELS[LEVELS.index(bits) :])
        for name, found in weights_of(level).items():
            parent = weights_of(first)[name]
            planes = digits(parent, widths(LEVELS))[: len(below)]
            assert joined(planes, LEVELS).tolist() == found.tolist()
            tensor = level.tensors[f"{name}.weights"]
            assert tensor.planes == below
            more = qparams_of(first.tensors[f"{name}.weights"]).scale
            assert qparams_of(tensor).scale == tuple(s * 2.0 ** (LEVELS[0] - bits) for s in more)


def test_every_level_has_a_bias_of_its_own() -> None:
    graph = layers()
    steps = {
        bits: qparams_of(at(graph, bits).tensors["conv_1.weights"]).scale[0] for bits in (8, 3)
    }
    first, last = (at(graph, bits).constant("conv_1.bias")[0] * steps[bits] for bits in (8, 3))
    assert first != pytest.approx(last, rel=1e-3)


def test_a_layer_without_levels_has_weights_of_its_own() -> None:
    graph = layers()
    resolved = policy.resolve(uniform(4), graph)
    chosen = uniform(4).calibration
    ranges = calibrate.run(graph, resolved, reals(graph), chosen, lambda *_: None)
    plain = quantize.run(graph, resolved, ranges, chosen)
    some = quantize.run(graph, resolved, ranges, chosen, levels={"conv_1": (8, 4)})
    assert some.tensors["conv_1.weights"].planes == (4,)
    assert some.tensors["conv_2.weights"].planes == ()
    assert (weights_of(some)["conv_2"] == weights_of(plain)["conv_2"]).all()


# Kernels


for_levels = pytest.mark.parametrize("bits", LEVELS)
for_cores = pytest.mark.parametrize("isa", [(), ("dsp",)], ids=["portable", "dsp"])


@for_levels
@for_cores
@pytest.mark.parametrize("activations", [8, 4])
@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_kernels_read_a_level_from_the_store_on_the_host(
    host_program: HostProgram,
    bits: int,
    isa: tuple[str, ...],
    activations: int,
    seed: int | None,
) -> None:
    graph = layers(seed)
    program = placed(graph, at(graph, bits, activations=8 if seed else activations), isa)
    for choice in program.choices.values():
        nests = choice.weight_bits and choice.kernel.family != "grouped"
        assert (choice.store is not None) >= bool(nests)
    assert_host_exact(host_program, program)


@pytest.mark.emulator
@for_levels
@for_cores
def test_kernels_read_a_level_from_the_store_on_the_core(
    board: Flashed, bits: int, isa: tuple[str, ...]
) -> None:
    graph = layers()
    program = placed(graph, at(graph, bits), isa)
    assert_board_exact(board, program, integers(program))


# One store in the image


def named(graph: Graph, level: int) -> Graph:
    """The graph with the names of a level's nodes, weights and inner tensors."""
    if level == 0:
        return graph
    kept = {*graph.inputs, *graph.outputs}

    def name(of: str) -> str:
        return of if of in kept else f"{of}@{level}"

    nodes = tuple(
        replace(
            n, name=f"{n.name}@{level}", inputs=tuple(map(name, n.inputs)), output=name(n.output)
        )
        for n in graph.nodes
    )
    tensors = {name(key): replace(t, name=name(key)) for key, t in graph.tensors.items()}
    return replace(graph, nodes=nodes, tensors=tensors)


def levelled(aim: Optimize, *bits: int) -> Program:
    """`layers` as one block of those levels."""
    graph = layers()
    variants = (Variant(i, named(at(graph, b, bits), i)) for i, b in enumerate(bits))
    network = Network("nested", (Block("nested", tuple(variants)),))
    found = dispatch.run(network, ("dsp",), aim)
    program = placed(graph, network.graphs[0], ("dsp",))
    return replace(program, network=network, choices=found.choices, plan=found.plan)


def stored(program: Program) -> int:
    return image.build(program).bytes_of(Kind.WEIGHTS)


def test_levels_share_the_bytes_of_their_planes() -> None:
    both = levelled("flash", 8, 4)
    assert {choice.layout for choice in both.choices.values() if choice.weight_bits} == {
        "planes",
        "dense",
        "field_planes",
        "fields",
    }
    assert stored(both) == sum(
        LAYOUTS[choice.layout].size(*weights.reshape(len(weights), -1).shape, 8)
        for name, weights in weights_of(both.network.graphs[0]).items()
        for choice in [both.choices[name]]
    )
    assert stored(both) == stored(levelled("flash", 8, 4, 3))
    choices = both.choices.values()
    code = kernels.linked_bytes({kernel for choice in choices for kernel in choice.kernels})
    beside = sum(choice.table_bytes for choice in choices)
    counted = kernels.flash_bytes(choices) - code - beside
    assert counted == stored(both)


def test_time_has_a_layout_for_each_level() -> None:
    both = levelled("time", 8, 4)
    assert stored(both) > 1.4 * stored(levelled("flash", 8, 4))


def test_the_image_of_levels_is_accepted(host_program: HostProgram) -> None:
    assert_host_exact(host_program, levelled("flash", 8, 4, 3))
