"""Programs for tests: a float graph through every stage, on random samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeq import pipeline, targets
from edgeq.frontends import Port, Source
from edgeq.ir import Array, Graph
from edgeq.kernels import Optimize
from edgeq.pipeline import Compiled, Model
from edgeq.policy import InputSpec, Policy
from edgeq.samples import Samples
from edgeq.target import Target

SAMPLES = 8
SHA256 = "0123456789abcdef" * 4


def reals(graph: Graph, count: int = SAMPLES, seed: int = 0) -> dict[str, Array]:
    """Standard normal samples for every input."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(count, *graph.tensors[name].shape[1:])).astype(np.float32)
        for name in graph.inputs
    }


def uniform(weights: int) -> Policy:
    """The policy that gives every layer's weights as many bits."""
    return Policy.model_validate({"default": {"weights": weights}})


def model(graph: Graph) -> Model:
    """`graph` as if read from a file in its own layout."""
    ports = tuple(Port(name, name, graph.tensors[name].shape, "NHWC") for name in graph.inputs)
    source = Source(graph, ports, (), ())
    return Model(pipeline.identifier(graph.name), source, graph, SHA256)


def compiled(
    graph: Graph,
    policy: Policy | int = 8,
    optimize: Optimize = "flash",
    specs: Mapping[str, InputSpec] | None = None,
    labels: tuple[str, ...] = (),
    target: Target | None = None,
) -> Compiled:
    """`graph`, calibrated on `reals(graph)`; a policy that is a number is uniform."""
    return pipeline.compile(
        model(graph),
        uniform(policy) if isinstance(policy, int) else policy,
        specs or {},
        Samples(reals(graph), None, {}),
        target or targets.load("mcu"),
        optimize,
        labels,
        _quiet,
    )


def _quiet(stage: str, done: int, total: int) -> None:
    pass
