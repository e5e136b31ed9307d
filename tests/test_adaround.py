"""AdaRound: what it learns, that it repeats, and how it goes through the quantiser."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import programs
import pytest
from exitnets import SMALL_EXITS, chain, learned, small, wide
from exitnets import policy as with_exits
from graphs import Builder

from edgeq import adaround, calibrate, exits, levels, pipeline, policy, quantize, reference, weights
from edgeq.adaround import AdaRound, Patches, Rounding
from edgeq.gates import Path
from edgeq.ir import Array, Graph, Network, Window, digest, qparams_of
from edgeq.levels import Chain
from edgeq.ops import OPS
from edgeq.policy import Calibration, Policy
from edgeq.samples import Samples

RELU = (0.0, np.inf)
STEPS = 300  # enough for layers this small


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaround, "ITERATIONS", STEPS)


def layer(groups: int = 1, seed: int = 0) -> tuple[Patches, Array]:
    """Random patches whose inputs are correlated, as images are, and a layer's float rows."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(groups, 300, 12)) @ rng.normal(size=(12, 12))
    rows = rng.normal(size=(4 * groups, 12))
    patches = Patches(mixed.astype(np.float32), np.zeros((300, 4 * groups), np.float32))
    target = patches.outputs(rows.astype(np.float32), np.zeros(4 * groups, np.float32))
    return Patches(patches.inputs, target), rows


def learn(
    patches: Patches, rows: Array, bits: int, seed: int = 0
) -> tuple[Array, tuple[float, float]]:
    scale = weights.search_scale(rows, bits)
    bias = np.zeros(len(rows), np.float32)
    return adaround.learn(patches, rows, scale, bits, bias, None, np.random.default_rng(seed))


def rounded(graph: Graph, chosen: Policy) -> tuple[Graph, AdaRound]:
    """The integer graph, and what rounded it."""
    inputs = programs.reals(graph, 16)
    bits = policy.resolve(chosen, graph)
    ranges = calibrate.run(graph, bits, inputs, chosen.calibration)
    rounder = AdaRound(graph, inputs, chosen.calibration.seed)
    return quantize.run(graph, bits, ranges, chosen.calibration, rounder.of(graph)), rounder


def net(layer: Callable[[Builder, str], str]) -> Graph:
    b = Builder()
    x = b.conv(b.input(6, 6, 3), 8, 3, RELU)
    return b.build(b.fully_connected(b.flatten(b.global_average_pool(layer(b, x))), 3))


CHOSEN = Policy.model_validate({"default": {"weights": 3}, "calibration": {"rounding": "adaround"}})


@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_each_weight_goes_up_or_down_by_less_than_a_step(bits: int) -> None:
    patches, rows = layer()
    scale = weights.search_scale(rows, bits)
    integers, _ = learn(patches, rows, bits)
    below = np.floor(rows / scale[:, None])
    low, high = weights.limits(bits)
    allowed = [np.clip(below, low, high), np.clip(below + 1, low, high)]
    assert np.all((integers == allowed[0]) | (integers == allowed[1]))


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("groups", [1, 3])
def test_the_output_is_nearer_than_with_rounding_to_nearest(bits: int, groups: int) -> None:
    patches, rows = layer(groups)
    integers, (nearest, learned) = learn(patches, rows, bits)
    step = weights.search_scale(rows, bits)[:, None]
    outputs = patches.outputs((integers * step).astype(np.float32), np.zeros(1, np.float32))
    assert np.square(outputs - patches.target).mean() == pytest.approx(learned, rel=1e-4)
    assert learned < nearest


def test_no_channel_gets_worse_even_where_nothing_was_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adaround, "RATE", 10.0)  # steps that overshoot
    patches, rows = layer()
    integers, _ = learn(patches, rows, 4)
    step = weights.search_scale(rows, 4)[:, None]
    errors = [
        np.square(patches.outputs((q * step).astype(np.float32), np.zeros(1)) - patches.target)
        for q in (integers, weights.round_to(rows, step[:, 0], 4))
    ]
    assert np.all(errors[0].mean(axis=0) <= errors[1].mean(axis=0) * (1 + 1e-6))


def test_learning_starts_from_the_float_weights() -> None:
    fraction = np.linspace(0, 1, 11)[:-1]
    up, _ = adaround._up(adaround._start(fraction))
    assert up == pytest.approx(fraction, abs=1e-6)


def test_the_penalty_pushes_to_the_nearer_end_and_only_after_the_warm_up() -> None:
    up = np.array([0.1, 0.5, 0.9], np.float32)
    assert adaround._pull(up, 0.0) == 0.0
    down, middle, upwards = np.asarray(adaround._pull(up, 0.99))
    assert down > 0 == middle
    assert upwards < 0


def test_the_gradient_is_that_of_the_squared_error() -> None:
    patches, rows = layer(groups=2)
    rows, at, bias = (rows * 0.9).astype(np.float32), np.arange(50), np.zeros(1, np.float32)

    def loss(rows: Array) -> float:
        error = patches.outputs(rows, bias, at) - patches.target[at]
        return float(np.square(error.astype(np.float64)).sum(axis=1).mean())

    error = patches.outputs(rows, bias, at) - patches.target[at]
    found = adaround._weight_gradient(patches, at, error)
    for index in ((0, 0), (5, 7)):
        moved = rows.copy()
        moved[index] += 0.01
        back = rows.copy()
        back[index] -= 0.01
        assert (loss(moved) - loss(back)) / 0.02 == pytest.approx(found[index], rel=0.02)


LAYERS: dict[str, Callable[[Builder, str], str]] = {
    "convolution": lambda b, x: b.conv(x, 6, Window((3, 3), (2, 2), (1, 1, 0, 1))),
    "depthwise": lambda b, x: b.depthwise(x, 2, clamp=(0.0, 6.0)),
    "residual": lambda b, x: b.add(b.conv(x, 8), x, RELU),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_every_layer_is_rounded_and_none_gets_worse(kind: str) -> None:
    graph = net(LAYERS[kind])
    _, rounder = rounded(graph, CHOSEN)
    weighted = [node.name for node in graph.nodes if OPS[node.op].weighted]
    assert [row.layer for row in rounder.log] == weighted
    assert all(row.learned <= row.nearest for row in rounder.log)
    assert rounder.log[0].learned < rounder.log[0].nearest


def test_patches_are_what_the_layer_sees() -> None:
    graph = net(LAYERS["depthwise"])
    inputs = programs.reals(graph, 4)
    bits = policy.resolve(CHOSEN, graph)
    ranges = calibrate.run(graph, bits, inputs, CHOSEN.calibration)
    seen: list[float] = []

    class Spy(Rounding):
        def __call__(
            self, prefix: Graph, node: quantize.Node, rows: Array, scale: Array, bits: int
        ) -> None:
            rng = np.random.default_rng(0)
            patches = self._patches(prefix, node, rows.shape[1], rng)
            outputs = patches.outputs(
                rows.astype(np.float32), graph.constant(node.inputs[2]).astype(np.float32)
            )
            error = np.clip(outputs, *(node.clamp or (-np.inf, np.inf))) - patches.target
            seen.append(float(np.abs(error).max() / np.abs(patches.target).max()))

    fine = policy.resolve(Policy(), graph)
    spy = Spy(AdaRound(graph, inputs, 0), graph, (), "")
    quantize.run(graph, fine, ranges, Calibration(), spy)
    assert len(seen) == 3
    assert max(seen) < 0.06  # float weights on 8-bit inputs: what is left is the inputs' rounding


def test_seeds_give_the_same_integers_and_other_seeds_others() -> None:
    graph = net(LAYERS["residual"])

    def integers(seed: int) -> list[bytes]:
        calibration = CHOSEN.calibration.model_copy(update={"seed": seed})
        integer, _ = rounded(graph, CHOSEN.model_copy(update={"calibration": calibration}))
        return [integer.constant(node.inputs[1]).tobytes() for node in integer.nodes[:2]]

    assert integers(0) == integers(0)
    assert integers(0) != integers(1)


def test_layers_of_8_bits_are_rounded_to_nearest() -> None:
    graph = net(LAYERS["residual"])
    rules = {
        "rule": [{"match": graph.nodes[0].name, "weights": 4}],
        "calibration": {"rounding": "adaround"},
    }
    chosen = Policy.model_validate(rules)
    integer, rounder = rounded(graph, chosen)
    assert [row.layer for row in rounder.log] == [graph.nodes[0].name]
    bits = policy.resolve(chosen, graph)
    ranges = calibrate.run(graph, bits, programs.reals(graph, 16), chosen.calibration)
    plain = quantize.run(graph, bits, ranges, chosen.calibration)
    last = [one.constant(one.nodes[-1].inputs[1]) for one in (integer, plain)]
    assert np.array_equal(*last)


def test_a_channel_without_weights_stays_at_zero() -> None:
    patches, rows = layer()
    rows[1] = 0
    integers, _ = learn(patches, rows, 3)
    assert not integers[1].any()


def test_the_policy_asks_for_it_and_the_program_says_what_it_did() -> None:
    graph = net(LAYERS["convolution"])
    built = programs.compiled(graph, CHOSEN)
    assert len(built.learned) == 3
    assert programs.compiled(graph, 3).learned == ()
    rows = adaround.to_json(built.learned)["layers"]
    assert isinstance(rows, list)
    assert set(rows[0]) == {"name", "mse_nearest", "mse"}


def test_progress_counts_the_layers_that_are_rounded() -> None:
    graph = net(LAYERS["convolution"])
    bits = {node.name: 3 for node in graph.nodes} | {graph.nodes[0].name: 8}
    assert adaround.learned_layers(graph, bits) == 2


def test_the_unit_of_the_activations_does_not_matter() -> None:
    patches, rows = layer()
    unit = np.float32(1024)
    scaled = Patches(patches.inputs * unit, patches.target * unit)
    assert np.array_equal(learn(patches, rows, 3)[0], learn(scaled, rows, 3)[0])


# Levels of a network with exits #

LEVELS = learned(with_exits(SMALL_EXITS, (4, 4), (3, 3)))


def leveled(rounder: AdaRound | None, *, with_heads: bool = True) -> Chain:
    return chain(small(), LEVELS, with_heads=with_heads, rounder=rounder)


def learns(seed: int = 0, known: adaround.Known | None = None) -> AdaRound:
    inputs = programs.reals(small())
    return AdaRound(small(), inputs, seed, known={} if known is None else known)


def rows_of(network: Network) -> dict[str, Array]:
    """The weights of layers of fewer than 8 bits."""
    return {
        node.name: graph.constant(node.inputs[1])
        for graph in network.graphs
        for node in graph.nodes
        if OPS[node.op].weighted and qparams_of(graph.tensors[node.inputs[1]]).bits < 8
    }


def test_the_layers_of_every_level_are_learned_and_none_gets_worse() -> None:
    rounder = learns()
    nearest, found = (leveled(one).network for one in (None, rounder))
    rows = rows_of(found)
    assert {row.layer for row in rounder.log} == set(rows)
    assert {name.rpartition("@")[2] for name in rows} == {"1", "2"}
    assert all(row.learned <= row.nearest for row in rounder.log)
    assert sum(row.learned for row in rounder.log) < 0.9 * sum(row.nearest for row in rounder.log)
    plain = rows_of(nearest)
    assert sum((plain[name] != array).any() for name, array in rows.items()) > len(rows) / 2
    assert levels.levels_of(found) == levels.levels_of(nearest)
    for block in found.blocks:
        for variant in block.variants:
            for name in (*variant.graph.inputs, *variant.graph.outputs):
                assert variant.graph.tensors[name] == block.variants[0].graph.tensors[name]


def test_a_body_sees_what_the_path_at_its_level_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a level was dropped, what stands for it counts."""
    rounder, own, seen = learns(), AdaRound.integers, set()

    def integers(self: AdaRound, graph: Graph, before: tuple[Graph, ...]) -> dict[str, Array]:
        found = own(self, graph, before)
        seen.update((name, array.tobytes()) for name, array in found.items() if before)
        return found

    monkeypatch.setattr(AdaRound, "integers", integers)
    network = leveled(rounder).network
    crosses = [cut.tensor for cut in exits.named(small(), SMALL_EXITS)]
    given = {
        t.name: qparams_of(t).quantize(rounder.inputs[t.name]).astype("i1") for t in network.inputs
    }
    paths: list[Path] = [(0, 1, 1, 1), (0, 2, 2, 2)]
    wanted = {
        (name, values[name].tobytes())
        for path in paths
        for values in [reference.run_path(network, given, path)]
        for name in crosses
    }
    assert seen == wanted
    assert len(wanted) == 5  # behind the first body both levels see the same


def test_layers_behind_an_entry_are_learned_on_what_it_gives() -> None:
    graph, chosen = wide(), learned(with_exits(("conv_2",), (4, 4)))
    rounder = AdaRound(graph, programs.reals(graph), 0)
    found = chain(graph, chosen, rounder=rounder)
    assert found.entries == {"conv_2.entry@1"}
    assert [row.layer for row in rounder.log] == ["conv_2@1", "conv_3@1", "fc_1@1"]
    assert all(row.learned <= row.nearest for row in rounder.log)
    assert rounder.log[1].learned < 0.95 * rounder.log[1].nearest


def test_heads_change_nothing_that_was_learned() -> None:
    """Heads are trained on bodies alone; those of the network with heads are the same."""
    bodies = leveled(learns(), with_heads=False).network
    whole = [block for block in leveled(learns()).network.blocks if not block.head]
    for mine, other in zip(bodies.blocks[:-1], whole, strict=False):
        assert digest(mine.graphs) == digest(other.graphs)
    last, other = (rows_of(Network("last", (one[-1],))) for one in (bodies.blocks, whole))
    assert set(last) == set(other)
    assert all(np.array_equal(last[name], other[name]) for name in last)


def test_what_is_known_is_not_learned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known: adaround.Known = {}
    first = learns(known=known)
    before = leveled(first, with_heads=False).network
    count = len(known)
    assert count == len(first.log)
    learns_more: list[str] = []
    monkeypatch.setattr(adaround, "learn", lambda *_: learns_more.append("once more"))
    again = learns(known=known)
    after = leveled(again, with_heads=False).network
    assert digest(after.graphs) == digest(before.graphs)
    assert again.log == first.log
    assert not learns_more


def test_another_problem_is_learned_anew() -> None:
    known: adaround.Known = {}
    leveled(learns(known=known))
    count = len(known)
    leveled(learns(seed=1, known=known))
    assert len(known) == 2 * count
    inputs = {name: array[::-1] for name, array in programs.reals(small()).items()}
    leveled(AdaRound(small(), inputs, 0, known=known))
    assert len(known) == 3 * count


def test_two_builds_of_all_levels_are_equal() -> None:
    first, second = (leveled(learns()).network for _ in range(2))
    assert digest(first.graphs) == digest(second.graphs)
    assert digest(first.graphs) != digest(leveled(learns(seed=1)).network.graphs)


def test_progress_counts_the_layers_of_all_levels() -> None:
    told: list[tuple[str, int, int]] = []
    samples = Samples(programs.reals(small()), None, {})
    rounder = pipeline.level_learner(
        programs.model(small()), LEVELS, samples, (), lambda *each: told.append(each)
    )
    leveled(rounder)
    assert rounder is not None
    assert max(done for _, done, _ in told) == len(rounder.log)
    assert {(stage, total) for stage, _, total in told} == {("rounding weights", len(rounder.log))}
