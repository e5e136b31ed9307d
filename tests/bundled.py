"""The bundled examples for tests and benchmarks, and the test images that are not bundled."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from edgeq import examples, floatrun, pipeline, policy, targets
from edgeq.ir import Array
from edgeq.kernels import Optimize
from edgeq.program import Program
from edgeq.samples import Samples
from edgeq.target import Target

DATA = Path(os.environ.get("EDGEQ_DATA", Path(__file__).parents[2] / "shared" / "data"))
ALL_IMAGES = 10_000
UNGATED = Path(__file__).parent / "ungated_resnet8.toml"  # mixed bits, no exits
BATCH = 100  # samples of one float run


@dataclass(frozen=True, slots=True)
class Example:
    """A bundled example: its model, its files, and what the bytes of its images mean."""

    name: str
    model: pipeline.Model
    folder: Path
    specs: dict[str, policy.InputSpec]

    @property
    def policy(self) -> Path:
        """The policy that is shipped with it; of the example that has exits, one without them."""
        shipped = examples.policy(self.name)
        return UNGATED if policy.load(shipped).gated else shipped

    def compile(
        self, chosen: str | Path, target: Target | None = None, optimize: Optimize = "flash"
    ) -> pipeline.Compiled:
        """The example under a policy, for a target or the default one."""
        return pipeline.compile(
            self.model,
            policy.load(chosen),
            self.specs,
            pipeline.read_samples(self.folder / "calib.npz", self.model, self.specs),
            target or targets.load("mcu"),
            optimize,
            (),
            lambda stage, done, total: None,
        )

    def export(self, out: Path, **options: Any) -> edgeq.Build:
        """The example as a build in `out`, under `policy` if `options` name no other."""
        given = {
            "model": self.folder / "model.onnx",
            "policy": self.policy,
            "calib": self.folder / "calib.npz",
            "data": self.folder / "test.npz",
        }
        return edgeq.export(out=out, inputs=self.specs, **{**given, **options})


@cache
def load(name: str) -> Example:
    """The bundled example of that name."""
    folder = examples.path(name)
    specs = dict(policy.load(examples.policy(name)).input)
    return Example(name, pipeline.read(folder / "model.onnx"), folder, specs)


@dataclass(frozen=True, slots=True)
class Images:
    """Fashion-MNIST test images, raw and channels last, with their labels."""

    raw: Array
    labels: Array

    @property
    def complete(self) -> bool:
        """Whether these are all 10,000."""
        return len(self.labels) == ALL_IMAGES

    def inputs(self, program: Program, count: int | None = None) -> dict[str, Array]:
        """The first images as the integers that the device takes."""
        return {port.tensor.name: port.quantize(self.raw[:count]) for port in program.inputs}

    def top1(self, outputs: Array) -> float:
        """The share of images whose greatest output is at the label."""
        return float((outputs.argmax(axis=1) == self.labels).mean())

    def float_top1(self, example: Example) -> float:
        """The same of the float network."""
        graph = example.model.graph
        port = example.model.source.inputs[0]
        samples = Samples({port.tensor: self.raw}, None, {port.tensor: example.specs[port.name]})
        session = floatrun.FloatRun(graph)
        parts = [
            session(samples.take(start, start + BATCH).real())[graph.outputs[0]]
            for start in range(0, len(self.labels), BATCH)
        ]
        return self.top1(np.concatenate(parts))


@cache
def images() -> Images:
    """All 10,000, or the 1,000 that are bundled where `EDGEQ_DATA` has no fashion_mnist.npz."""
    file = DATA / "fashion_mnist.npz"
    if file.is_file():
        with np.load(file) as archive:
            return Images(archive["x_test"][..., None], archive["y_test"].astype(np.int64))
    return bundled_images()


@cache
def bundled_images() -> Images:
    """The 1,000 that come with edgeq."""
    with np.load(examples.path("fashion-resnet8") / "test.npz") as archive:
        return Images(np.moveaxis(archive["x"], 1, -1), archive["y"].astype(np.int64))
