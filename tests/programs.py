"""Programs for tests: a float graph through every stage, on random samples. And a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeq import pipeline, targets
from edgeq.dispatch import UNLIMITED
from edgeq.frontends import Port, Source
from edgeq.ir import Array, Graph, single
from edgeq.kernels import Optimize
from edgeq.ops import OPS
from edgeq.pipeline import Compiled, Model
from edgeq.policy import InputSpec, Policy
from edgeq.program import Program
from edgeq.quantize import BYTE_READERS
from edgeq.report import (
    Accuracy,
    Baseline,
    BitCounts,
    Budget,
    ClassUse,
    Clustering,
    Comparison,
    CurvePoint,
    Dropped,
    Export,
    Flash,
    Fold,
    FormFit,
    Gate,
    Layer,
    LayerBits,
    NotCounted,
    OperatingPoint,
    Ram,
    Reliability,
    ReliabilityBin,
    Report,
    Row,
    Standing,
    Validate,
    Verdict,
)
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


def uniform(weights: int, activations: int = 8) -> Policy:
    """The policy that gives every layer as many bits, with the ranges found fastest."""
    bits = {"weights": weights, "activations": activations}
    quick = {"activations": "minmax"}
    return Policy.model_validate({"default": bits, "calibration": quick})


def layout(graph: Graph, name: str) -> str:
    """The layout that a file of the graph's own layout would have for a tensor."""
    return "NHWC" if len(graph.tensors[name].shape) == 4 else "NC"


def model(graph: Graph) -> Model:
    """`graph` as if read from a file in its own layout."""
    inputs, outputs = (
        tuple(Port(name, name, graph.tensors[name].shape, layout(graph, name)) for name in names)
        for names in (graph.inputs, graph.outputs)
    )
    source = Source(graph, inputs, outputs, ())
    return Model(pipeline.identifier(graph.name), source, graph, SHA256)


def compiled(
    graph: Graph,
    policy: Policy | int = 8,
    optimize: Optimize = "flash",
    specs: Mapping[str, InputSpec] | None = None,
    labels: tuple[str, ...] = (),
    target: Target | None = None,
    inputs: Mapping[str, Array] | None = None,
    budget: Budget = UNLIMITED,
    forced: Mapping[str, str] | None = None,
) -> Compiled:
    """`graph`, calibrated on `inputs` or `reals(graph)`; a policy that is a number is uniform."""
    return pipeline.compile(
        model(graph),
        uniform(policy) if isinstance(policy, int) else policy,
        specs or {},
        Samples(inputs or reals(graph), None, {}),
        target or targets.load("mcu"),
        optimize,
        labels,
        _quiet,
        budget,
        forced,
    )


def byte_layers(graph: Graph) -> set[str]:
    """Layers that must give bytes: tables, and what a table or softmax reads, through pools too."""
    names = set()
    for node in graph.nodes:
        if node.op in BYTE_READERS:
            names.add(node.name)
            source = graph.producer(node.inputs[0])
            while source is not None:
                names.add(source.name)
                keeps = OPS[source.op].keeps_qparams
                source = graph.producer(source.inputs[0]) if keeps else None
    return names


def _quiet(stage: str, done: int, total: int) -> None:
    pass


def few_samples(source: Path, path: Path, count: int) -> Path:
    """The first `count` samples of `source` as a file of their own, `path`."""
    with np.load(source) as archive:
        np.savez(path, **{name: archive[name][:count] for name in archive.files})
    return path


def sample_report() -> Report:
    """A report made by hand."""
    layer = Layer(
        name="conv_1",
        op="conv_2d",
        macs=100,
        bits=LayerBits(BitCounts(4, 4, 3), BitCounts(8, 8, 8)),
        layout="dense",
        kernel="eq_conv_s8_ref",
        weight_bytes=50,
        sqnr_db=31.5,
    )
    row = Row("c-host", "cc 12", "double", 4, 1, 2, "conv_1", 0.75, Verdict.DIFFERS)
    return Report(
        model="net",
        target="stm32f405",
        export=Export(
            layers=(layer, replace(layer, name="größe", sqnr_db=None)),
            bits_per_weight=4.0,
            flash=Flash(1, 2, 3, 4, 0, 10),
            ram=Ram(1, 2, 0, 4, 7),
            not_counted=NotCounted(5, 6),
            budget=Budget(100, 100),
            accuracy=Accuracy(4, 0.75, 0.5),
            compiler=None,
            optimize="flash",
            notes=("a note",),
        ),
        validate=Validate((row,)),
        gate=sample_gate(),
    )


def sample_gate() -> Gate:
    """A section `gate` made by hand: two exits, two levels, one baseline ahead and one a tie."""
    curve = tuple(
        CurvePoint(tradeoff, cost, accuracy, (early, 1 - early))
        for tradeoff, cost, accuracy, early in (
            (0.0, 1.0, 0.92, 0.0), (0.05, 0.4, 0.918, 0.6), (0.5, 0.2, 0.9, 0.9)
        )
    )  # fmt: skip
    points = tuple(
        OperatingPoint(name, p.tradeoff or 0.0, p.cost, p.accuracy, p.exits, (0.8, 0.2),
                       p.cost * 1e6, 1e6)
        for name, p in zip(("top", "top - 0.5", "top - 2"), curve, strict=True)
    )  # fmt: skip
    threshold = Baseline(
        tuple(CurvePoint(None, p.cost + 0.1 * (p.cost < 1), p.accuracy, p.exits) for p in curve),
        0.9,
        (
            Comparison("area", False, 0.011, 0.004, 0.018, Standing.AHEAD),
            Comparison("cost at top - 0.5", True, 0.99, 0.91, 1.08, Standing.TIE),
            Comparison("at cost 0.1", False, None, None, None, None),
        ),
    )
    return Gate(
        target="stm32f405",
        exits=("conv_1", "größe"),
        levels=("w8a8", "w4a4"),
        form="table",
        bytes=1234,
        clusters=40,
        paths=5,
        unit="cycles_model",
        cost_source="unicorn 2.0, cortex-m4",
        dearest=1e6,
        ungated=0.98,
        accuracy=Accuracy(100, 0.93, 0.92),
        tradeoff=0.05,
        curve=curve,
        area=0.911,
        points=points,
        baselines={
            "thresholds at w8a8": threshold,
            "plain PTQ": Baseline((curve[0], replace(curve[1], accuracy=0.88)), 0.88, ()),
        },
        forms=(FormFit("table", 1234, 0.911, True), FormFit("mlp", 900, 0.909, False)),
        classes=tuple(
            ClassUse(f"class {n}", 10, (n / 10, 1 - n / 10), (0.5, 0.5)) for n in range(10)
        ),
        reliability=Reliability(
            0.05, 0.01, 0.02, (ReliabilityBin(0.7, 0.66, 30), ReliabilityBin(0.98, 0.99, 70))
        ),
        clusterings=(
            Clustering(20, 0.06, 0.02, 0.9, False),
            Clustering(40, 0.05, 0.03, 0.911, True),
        ),
        dropped=(Dropped(1, "w4a4", "not cheaper than w8a8"),),
        folds=(Fold("train", 800, "0" * 64), Fold("test", 100, "1" * 64)),
        seed=0,
        notes=("QuEE comes down to early exit on this target",),
    )


def with_flipped_weight(program: Program, layer: str) -> Program:
    """`program` with every bit of the greatest weight of `layer` inverted."""
    graph = program.network.graphs[0]
    node = next(node for node in graph.nodes if node.name == layer)
    weights = graph.tensors[node.inputs[1]]
    data = graph.constant(weights.name).copy()
    largest = np.unravel_index(np.abs(data.astype(np.int64)).argmax(), data.shape)
    data[largest] = ~data[largest]
    tensors = {**graph.tensors, weights.name: replace(weights, data=data)}
    return replace(program, network=single(replace(graph, tensors=tensors)))
