"""A build's network again, from its model and what the build says: to ask what if, without export.

A build holds ranges and bits, but not the float weights. So the model is given again, checked by
its hash; and nothing is answered unless the program made of them has the build's image, byte for
byte.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeq import calibrate, examples, footprint, pipeline, profiler
from edgeq import policy as policies
from edgeq.build import Build, read_manifest, sha256
from edgeq.calibrate import Ranges
from edgeq.errors import IntegrityError, MissingToolError, UsageError
from edgeq.exporters import c_arrays, image
from edgeq.exporters.c_arrays import Case
from edgeq.footprint import CodeBytes
from edgeq.kernels import Optimize
from edgeq.pipeline import Model
from edgeq.policy import Bits, Policy
from edgeq.profiler import Counted
from edgeq.program import Program
from edgeq.target import Target
from edgeq.targets import emulators, instructions, runners, toolchain
from edgeq.targets.toolchain import Compiler, CompilerError


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The program of a build, and what it was made of."""

    model: Model
    bits: Mapping[str, Bits]
    ranges: Ranges | None  # None of a model that kept its own
    policy: Policy  # its calibration settings and what samples mean; bits come from the build
    optimize: Optimize
    target: Target
    program: Program

    def with_weights(self, bits: Mapping[str, int]) -> Program:
        """The program with other weight bits for some layers."""
        chosen = dict(self.bits)
        for name, weights in bits.items():
            chosen[name] = replace(chosen[name], weights=weights)
        return _program(self.model, chosen, self.ranges, self.policy, self.target, self.optimize)


@dataclass(frozen=True, slots=True)
class Linked:
    """A program that was linked and counted, though nothing of it is kept."""

    code: CodeBytes
    counted: Counted


def run(
    build: Build,
    target: Target,
    model: Path | None = None,
    policy: Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Rebuilt:
    """The program of `build`, from `model` or from the bundled example that it was made of.

    Raises:
        UsageError: a file is missing.
        IntegrityError: the model is another, or the result has another image.
    """
    report = build.report
    path, policy = _sources(build, model, policy)
    read = pipeline.read(path, shapes, report.model)
    bits = {
        layer.name: Bits(
            8 if layer.bits.weights is None else layer.bits.weights.requested,
            layer.bits.activations.requested,
        )
        for layer in report.export.layers
    }
    chosen = policies.load(policy) if policy else Policy()
    optimize: Optimize = "time" if report.export.optimize == "time" else "flash"
    try:
        file = build.folder / "ranges.json"
        ranges = calibrate.from_json(json.loads(file.read_bytes())) if file.is_file() else None
        program = _program(read, bits, ranges, chosen, target, optimize)
    except (ValueError, KeyError) as error:
        raise IntegrityError(
            "EQ0731", f"{build.folder} and {path} do not fit together: {error}"
        ) from error
    if image.build(program).data != (build.folder / f"{report.model}.eqb").read_bytes():
        hint = "the policy that it was made with" if policy is None else "another policy"
        raise IntegrityError(
            "EQ0732",
            f"{path} with the build's bits and ranges gives another image than the build's: "
            f"it was made by another edgeq, or with other [calibration] settings; name {hint} "
            "with --policy",
        )
    return Rebuilt(read, bits, ranges, chosen, optimize, target, program)


def example_of(build: Build) -> Path | None:
    """The folder of the bundled example that `build` was made of."""
    wanted = read_manifest(build.folder).get("model")
    for name in examples.names():
        folder = examples.path(name)
        if sha256((folder / "model.onnx").read_bytes()) == wanted:
            return folder
    return None


def _sources(build: Build, model: Path | None, policy: Path | None) -> tuple[Path, Path | None]:
    """The model's file, which must be the build's, and the policy's."""
    folder = example_of(build)
    if model is None and folder is not None:
        return folder / "model.onnx", policy or folder / "policy.toml"
    if model is None:
        raise UsageError(
            "EQ0242", f"{build.folder} does not hold the float model; name it with --model"
        )
    try:
        found = sha256(model.read_bytes())
    except OSError as error:
        raise UsageError("EQ0242", f"{model} cannot be read: {error.strerror}") from error
    wanted = read_manifest(build.folder).get("model")
    if found != wanted:
        raise IntegrityError(
            "EQ0730",
            f"{model} is another model: its SHA-256 is {found}, the build was made of {wanted}",
        )
    return model, policy


def _program(
    model: Model,
    bits: Mapping[str, Bits],
    ranges: Ranges | None,
    policy: Policy,
    target: Target,
    optimize: Optimize,
) -> Program:
    integer = pipeline.to_integers(model, bits, ranges, policy.calibration)
    return pipeline.place(model, integer, {}, target, optimize, ())


def compiler_of(build: Build, target: Target) -> Compiler:
    """The compiler that `build` was linked with.

    Raises:
        MissingToolError: it, the emulator or the disassembler is not here.
    """
    wanted = build.report.export.compiler
    profiler.emulator(target)
    instructions.needs()
    found = toolchain.find(toolchain.COMPILERS, wanted.split()[0] if wanted else None)
    if wanted is not None and str(found) != wanted:
        raise MissingToolError(
            "EQ0607", f"the build was linked by {wanted}, here is {found}: export it again"
        )
    return found


def link(program: Program, compiler: Compiler) -> Linked | None:
    """`program` as firmware, counted on the emulated core; None if the device cannot hold it."""
    zeros = [np.zeros(port.tensor.shape[1:], np.int8) for port in program.inputs]
    outputs = [np.zeros(tensor.shape[1:], np.int8) for tensor in program.network.outputs]
    own = c_arrays.own_kernels(program)
    with tempfile.TemporaryDirectory(prefix="edgeq-link-") as name:
        folder = Path(name) / "build"
        folder.mkdir()
        c_arrays.export(program, folder, [Case(tuple(zeros), tuple(outputs))], own)
        try:
            elf = runners.link_firmware(folder, program.name, program.target, compiler)
        except CompilerError as error:
            if "overflowed" not in error.message:
                raise
            return None
        firmware = emulators.read_firmware(elf)
    code = footprint.measure(firmware, program.name, own)
    return Linked(code, profiler.count(firmware, program.target))
