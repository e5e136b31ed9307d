"""A build's network again, from its model and what the build says: to ask what if, without export.

A build holds ranges and bits, but not the float weights. So the model is given again, checked by
its hash; and nothing is answered unless the program made of them has the build's image, byte for
byte. Where AdaRound learned the weights, the calibration samples are needed, too.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from edgeq import calibrate, examples, footprint, kernels, pipeline, profiler
from edgeq import policy as policies
from edgeq.build import Build, read_manifest, sha256
from edgeq.calibrate import Ranges
from edgeq.errors import IntegrityError, MissingToolError, UsageError
from edgeq.exporters import c_arrays, image
from edgeq.exporters.c_arrays import Case
from edgeq.footprint import CodeBytes
from edgeq.ir import Array, Tensor, single
from edgeq.kernels import Optimize
from edgeq.pipeline import Model
from edgeq.policy import Bits, InputSpec, Policy
from edgeq.profiler import Counted
from edgeq.program import Program
from edgeq.report import Budget
from edgeq.samples import Samples
from edgeq.target import Target
from edgeq.targets import emulators, runners, toolchain
from edgeq.targets.emulators import Firmware
from edgeq.targets.toolchain import Compiler, CompilerError

ROUNDING = "rounding.json"
CALIBRATION, DATA = "calib.npz", "test.npz"  # of a bundled example


@dataclass(frozen=True, slots=True)
class Given:
    """What the user names beside a build, where it is of no bundled example."""

    model: Path | None = None
    policy: Path | None = None
    calib: Path | None = None
    shapes: Mapping[str, tuple[int, ...]] | None = None
    inputs: Mapping[str, InputSpec] = field(default_factory=dict)


@dataclass(frozen=True)
class Rebuilt:
    """The program of a build, and what it was made of."""

    model: Model
    bits: Mapping[str, Bits]
    ranges: Ranges | None  # None of a model that kept its own
    policy: Policy  # its calibration settings and what samples mean; bits come from the build
    optimize: Optimize
    target: Target
    specs: Mapping[str, InputSpec]
    learned_on: Samples | None  # what AdaRound saw
    budget: Budget
    forced: Mapping[str, str]  # kernels, by layer
    lower: tuple[Ranges, ...] = ()  # of the levels of a network with exits

    @cached_property
    def program(self) -> Program:
        """The program, made anew."""
        settings = self.policy.calibration
        if self.policy.gated:
            return self._with_exits()
        rounder = None
        if self.learned_on is not None:
            rounder = pipeline.learner(
                self.model.graph, (self.bits,), self.learned_on, settings, pipeline.quiet
            )
        integer = pipeline.to_integers(self.model, self.bits, self.ranges, settings, rounder)
        return pipeline.place(
            self.model,
            single(integer),
            self.specs,
            self.target,
            self.optimize,
            (),
            self.budget,
            self.forced,
        )

    def _with_exits(self) -> Program:
        """The same of a network with exits: the policy says its bits, too."""
        held = pipeline.fitted(self.model, self.policy)
        ranges = (*(() if self.ranges is None else (self.ranges,)), *self.lower)
        means = pipeline.Means(self.specs, self.target, self.optimize, (), self.budget, self.forced)
        settings = self.policy.calibration
        rounder = pipeline.level_learner(
            self.model, self.policy, self.learned_on, self.target.isa, pipeline.quiet
        )
        ways = pipeline.stores(self.model, self.policy, held, ranges, settings, means, rounder)
        return ways[0].program

    def samples(self, path: Path) -> Samples:
        """The samples of `path`, checked against the model."""
        return pipeline.read_samples(path, self.model, self.specs)

    def with_weights(self, bits: Mapping[str, int]) -> Program:
        """The program with other weight bits for some layers."""
        chosen = dict(self.bits)
        for name, weights in bits.items():
            chosen[name] = replace(chosen[name], weights=weights)
        return replace(self, bits=chosen).program


@dataclass(frozen=True, slots=True)
class Linked:
    """A program that was linked and counted, though nothing of it is kept."""

    code: CodeBytes
    counted: Counted


def run(build: Build, target: Target, given: Given) -> Rebuilt:
    """The program of `build`, from what is `given` or the bundled example that it was made of.

    Raises:
        UsageError: a file is missing.
        IntegrityError: the model is another, or the result has another image.
    """
    report = build.report
    read, policy = _read(build, given)
    bits = {
        layer.name: Bits(
            8 if layer.bits.weights is None else layer.bits.weights.requested,
            layer.bits.activations.requested,
        )
        for layer in report.export.layers
    }
    chosen = policies.load(policy) if policy else Policy()
    if given.policy is None and report.export.routing is None:
        chosen = chosen.without_exits()  # of an example, under a policy that has none
    if chosen.gated != (report.export.routing is not None):
        has, lacks = ("exits", "none") if chosen.gated else ("no exits", "some")
        raise UsageError(
            "EQ0253",
            f"the policy has {has}, the build {lacks}; name the one that it was made with by "
            "--policy",
        )
    read = pipeline.prepared(read, chosen)
    specs = pipeline.input_specs(read, chosen, given.inputs)
    try:
        file = build.folder / "ranges.json"
        found = json.loads(file.read_bytes()) if file.is_file() else None
        ranges = None if found is None else calibrate.from_json(found)
        again = Rebuilt(
            model=read,
            bits=bits,
            ranges=ranges,
            policy=chosen,
            optimize=kernels.optimize_of(report.export.optimize),
            target=target,
            specs=specs,
            learned_on=_learned_on(build, read, specs, given),
            budget=report.export.budget,
            forced=dict(entry.rsplit("=", 1) for entry in report.export.forced),
            lower=() if found is None else calibrate.lower_from_json(found),
        )
        program = again.program
    except (ValueError, KeyError) as error:
        raise IntegrityError(
            "EQ0731", f"{build.folder} and {read.name} do not fit together: {error}"
        ) from error
    if image.build(program).data != (build.folder / f"{report.model}.eqb").read_bytes():
        hint = "the policy that it was made with" if policy is None else "another policy"
        learned = (
            "; AdaRound learns the same on the same machine alone, from the samples that --calib "
            "named then"
            if again.learned_on is not None
            else ""
        )
        raise IntegrityError(
            "EQ0732",
            f"{read.name} with the build's bits and ranges gives another image than the build's: "
            f"it was made by another edgeq, or with other [calibration] settings; name {hint} "
            f"with --policy{learned}",
        )
    return again


def samples_file(build: Build, name: str) -> Path | None:
    """A file of samples (`calib.npz`, `test.npz`) of the bundled example that `build` is of."""
    example = example_of(build)
    return None if example is None else examples.path(example) / name


def _learned_on(
    build: Build, model: Model, specs: Mapping[str, InputSpec], given: Given
) -> Samples | None:
    if not (build.folder / ROUNDING).is_file():
        return None
    calib = given.calib or samples_file(build, CALIBRATION)
    if calib is None:
        raise UsageError(
            "EQ0248",
            f"AdaRound learned the weights of {build.folder} from samples, which the build does "
            "not hold; name them with --calib",
        )
    return pipeline.read_samples(calib, model, specs)


def example_of(build: Build) -> str | None:
    """The bundled example that `build` was made of."""
    wanted = read_manifest(build.folder).get("model")
    for name in examples.names():
        if sha256((examples.path(name) / "model.onnx").read_bytes()) == wanted:
            return name
    return None


def _read(build: Build, given: Given) -> tuple[Model, Path | None]:
    """The model, which must be the build's, and the policy's file."""
    policy, path = given.policy, given.model
    if path is None and (name := example_of(build)) is not None:
        path, policy = examples.path(name) / "model.onnx", policy or examples.policy(name)
    if path is None:
        raise UsageError(
            "EQ0242", f"{build.folder} does not hold the float model; name it with --model"
        )
    read = pipeline.read(path, given.shapes, build.report.model, given.calib)
    wanted = read_manifest(build.folder).get("model")
    if read.sha256 != wanted:
        raise IntegrityError(
            "EQ0730",
            f"{path} is another model: its SHA-256 is {read.sha256}, the build was made of "
            f"{wanted}",
        )
    return read, policy


def compiler_of(build: Build, target: Target) -> Compiler:
    """The compiler that `build` was linked with.

    Raises:
        MissingToolError: it, the emulator or the disassembler is not here.
    """
    wanted = build.report.export.compiler
    profiler.emulator(target)
    found = toolchain.find(toolchain.COMPILERS, wanted.split()[0] if wanted else None)
    if wanted is not None and str(found) != wanted:
        raise MissingToolError(
            "EQ0607", f"the build was linked by {wanted}, here is {found}: export it again"
        )
    return found


def _zeros(tensor: Tensor) -> Array:
    return np.zeros(tensor.shape[1:], tensor.dtype.value)


def link(program: Program, compiler: Compiler) -> Linked | None:
    """`program` as firmware, counted on the emulated core; None if the device cannot hold it."""
    linked = firmware(program, compiler)
    if linked is None:
        return None
    code = footprint.measure(linked, program.name, program.kernels)
    return Linked(code, profiler.count(linked, program.target))


def firmware(program: Program, compiler: Compiler) -> Firmware | None:
    """`program` as firmware, of which no file is kept; None if the device cannot hold it."""
    zeros = [_zeros(port.tensor) for port in program.inputs]
    outputs = [_zeros(tensor) for tensor in program.network.outputs]
    with tempfile.TemporaryDirectory(prefix="edgeq-link-") as name:
        folder = Path(name) / "build"
        folder.mkdir()
        c_arrays.export(program, folder, [Case(tuple(zeros), tuple(outputs))], program.kernels)
        try:
            elf = runners.link_firmware(folder, program.name, program.target, compiler)
        except CompilerError as error:
            if "overflowed" not in error.message:
                raise
            return None
        return emulators.read_firmware(elf)
