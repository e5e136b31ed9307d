"""Networks with exits for tests: random heads on random or hand-built float graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gated import random_gate
from graphs import RELU, Builder, random_graph, same_window
from programs import SHA256, reals

from edgeq import calibrate, costs, exits, gatefile, levels, targets
from edgeq.adaround import AdaRound
from edgeq.errors import PolicyError
from edgeq.exits import Cut, Head
from edgeq.ir import Graph
from edgeq.levels import Chain
from edgeq.policy import Policy
from edgeq.target import Target


def small(seed: int = 0) -> Graph:
    """A residual network of three stages, 5 classes: cut behind conv_1, add_1 and add_2."""
    b = Builder("small", seed)
    x = b.conv(b.input(8, 8, 2), 8, clamp=RELU)
    for channels, stride in ((8, 1), (12, 2)):
        strides = (stride, stride)
        y = b.conv(x, channels, same_window(b.shape(x), (3, 3), strides), RELU)
        y = b.conv(y, channels)
        if stride != 1:
            x = b.conv(x, channels, same_window(b.shape(x), (1, 1), strides))
        x = b.add(x, y, RELU)
    x = b.conv(x, 8, clamp=RELU)
    return b.build(b.fully_connected(b.flatten(b.global_average_pool(x)), 5))


SMALL_EXITS = ("conv_1", "add_1", "add_2")


def wide() -> Graph:
    """Three convolutions: what reads conv_2 in four bits gains more than an entry costs."""
    b = Builder("wide")
    x = b.conv(b.input(8, 8, 2), 32, 1, RELU)
    x = b.conv(x, 64, clamp=RELU)
    x = b.conv(x, 64, clamp=RELU)
    return b.build(b.fully_connected(b.flatten(b.global_average_pool(x)), 5))


def gated_graph(seed: int) -> Graph | None:
    """A random network that can have exits, without its softmax; None where the seed gives none."""
    try:
        graph = exits.without_softmax(random_graph(seed, 5))
        exits.proposed(graph)
    except PolicyError:
        return None
    return graph


def gated_graphs(count: int, start: int = 0) -> list[Graph]:
    """The first `count` of them from seed `start` on."""
    found: list[Graph] = []
    for seed in range(start, start + 50 * count):
        graph = gated_graph(seed)
        if graph is not None:
            found.append(graph)
        if len(found) == count:
            return found
    raise AssertionError("random graphs have too few cuts")


def heads(graph: Graph, cuts: Sequence[Cut], seed: int = 0) -> tuple[Head, ...]:
    """A random head for each cut."""
    rng = np.random.default_rng(seed)
    classes = graph.tensors[graph.outputs[0]].elements
    found = []
    for cut in cuts:
        values = math.prod(exits.pooled_shape(graph.tensors[cut.tensor].shape)[1:])
        weights = rng.normal(0, values**-0.5, (classes, values))
        found.append(Head(weights.astype(np.float32), rng.normal(0, 0.1, classes).astype("f4")))
    return tuple(found)


def policy(names: Sequence[str], *lower: tuple[int, int], top: tuple[int, int] = (8, 8)) -> Policy:
    """Exits behind `names`; uniform levels of (weights, activations) below `top`."""
    keys = ("weights", "activations")
    data: dict[str, Any] = {
        "default": dict(zip(keys, top, strict=True)),
        "calibration": {"activations": "minmax"},
        "exits": list(names),
        "level": [{"default": dict(zip(keys, one, strict=True))} for one in lower],
    }
    return Policy.model_validate(data)


def learned(chosen: Policy) -> Policy:
    """`chosen` with weights that AdaRound learns."""
    found = chosen.calibration.model_copy(update={"rounding": "adaround"})
    return chosen.model_copy(update={"calibration": found})


def chain(
    graph: Graph,
    chosen: Policy,
    target: Target | None = None,
    *,
    with_heads: bool = True,
    drop: bool = False,
    nested: bool = False,
    first: Sequence[int] | None = None,
    rounder: AdaRound | None = None,
) -> Chain:
    """`graph` under `chosen`, on random samples, with random heads or none."""
    isa = (target or targets.load("mcu")).isa
    cuts = exits.named(graph, chosen.exits)
    bits = levels.resolve(chosen, graph, isa)
    some = heads(graph, cuts) if with_heads else None
    seen = graph if some is None else exits.attach(graph, cuts, some)
    ranges = calibrate.by_level(seen, bits, reals(graph), chosen.calibration)
    return levels.run(
        graph,
        cuts,
        bits,
        ranges,
        chosen.calibration,
        some,
        isa,
        drop=drop,
        nested=nested,
        first=first,
        rounder=rounder,
    )


def with_gate(
    graph: Graph,
    chosen: Policy,
    form: str = "table",
    seed: int = 1,
    *,
    sha256: str = SHA256,
    target: Target | None = None,
    unit: str = "bitops_linear",
) -> Policy:
    """`chosen` with random heads, random gates of that form, and costs of no target."""
    made = chain(graph, chosen, target, drop=unit not in gatefile.FORMULAS)
    cuts = exits.named(graph, chosen.exits)
    classes = graph.tensors[graph.outputs[0]].elements
    each = levels.levels_of(made.network)
    gate = random_gate(each, form, seed, size=8, classes=classes)
    found = costs.bitops(made.network, "bitops_linear")
    some = tuple((head.weights, head.bias) for head in heads(graph, cuts))
    held = gatefile.of_gate(gate, some, replace(found, unit=unit), sha256)
    return chosen.model_copy(update={"gate": held})
