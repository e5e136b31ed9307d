"""What is dear is made once a session: exports, compiled programs, images. Tools are found here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq import examples, kernels, pipeline, policy, targets
from edgeq.exporters import c_arrays
from edgeq.ir import Array
from edgeq.program import Program
from edgeq.samples import Samples
from edgeq.targets import toolchain
from edgeq.targets.runners import HostProgram

DATA = Path(os.environ.get("EDGEQ_DATA", Path(__file__).parents[2] / "shared" / "data"))
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ALL_IMAGES = 10_000


def pytest_configure(config: pytest.Config) -> None:
    """Nightly tests run only where `-m` says what runs."""
    if not config.option.markexpr:
        config.option.markexpr = "not nightly"


Tool = Callable[[str], tuple[str, ...]]


@pytest.fixture(scope="session")
def tool() -> Tool:
    """The command of a program or of `zig`; without it a test skips, or fails where CI=true."""

    def find(name: str) -> tuple[str, ...]:
        if name == "zig" and importlib.util.find_spec("ziglang"):
            return (sys.executable, "-m", "ziglang", "cc")
        if path := shutil.which(name):
            return (path,)
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing")
        pytest.skip(f"{name} is missing")

    return find


@dataclass(frozen=True, slots=True)
class Example:
    """A bundled example: its model, its files, and what the bytes of its images mean."""

    name: str
    model: pipeline.Model
    folder: Path
    specs: dict[str, policy.InputSpec]

    @property
    def policy(self) -> str | Path:
        """The policy that is shipped with it."""
        shipped = self.folder / "policy.toml"
        return shipped if shipped.is_file() else policy.DEFAULT

    def samples(self, file: str) -> Samples:
        """`calib.npz` or `test.npz`."""
        return pipeline.read_samples(self.folder / file, self.model, self.specs)

    def compile(self, chosen: str | Path) -> pipeline.Compiled:
        """The example under a policy, for the default target."""
        return pipeline.compile(
            self.model,
            policy.load(chosen),
            self.specs,
            self.samples("calib.npz"),
            targets.load("mcu"),
            "flash",
            (),
            lambda stage, done, total: None,
        )

    def export(self, out: Path, **options: Any) -> edgeq.Build:
        """The example as a build in `out`, under its shipped policy if `options` name no other."""
        files = {"calib": self.folder / "calib.npz", "data": self.folder / "test.npz"}
        return edgeq.export(
            self.folder / "model.onnx",
            out=out,
            inputs=self.specs,
            **{"policy": self.policy, **files, **options},
        )


@pytest.fixture(scope="session")
def example() -> Callable[[str], Example]:
    """The bundled example of a name."""

    @cache
    def load(name: str) -> Example:
        folder = examples.path(name)
        specs = dict(policy.load(examples.path("fashion-resnet8") / "policy.toml").input)
        return Example(name, pipeline.read(folder / "model.onnx"), folder, specs)

    return load


@pytest.fixture(scope="session")
def built(
    example: Callable[[str], Example], tmp_path_factory: pytest.TempPathFactory, tool: Tool
) -> Callable[[str, str], edgeq.Build]:
    """The checked build of an example by a compiler, made once; not to be written to."""

    @cache
    def export(name: str, compiler: str = "gcc") -> edgeq.Build:
        tool("arm-none-eabi-gcc" if compiler == "gcc" else compiler)
        out = tmp_path_factory.mktemp("builds") / f"{name}-{compiler}"
        return example(name).export(out, compiler=compiler)

    return export


@dataclass(frozen=True, slots=True)
class Images:
    """Fashion-MNIST test images, raw and channels last, with their labels."""

    raw: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, program: Program, count: int | None = None) -> dict[str, Array]:
        """The first images as the integers that the device takes."""
        return {port.tensor.name: port.quantize(self.raw[:count]) for port in program.inputs}


@pytest.fixture(scope="session")
def images() -> Images:
    """All 10,000, or the 1,000 that are bundled where `EDGEQ_DATA` has no fashion_mnist.npz."""
    file = DATA / "fashion_mnist.npz"
    if file.is_file():
        with np.load(file) as archive:
            return Images(archive["x_test"][..., None], archive["y_test"].astype(np.int64))
    with np.load(examples.path("fashion-resnet8") / "test.npz") as archive:
        return Images(np.moveaxis(archive["x"], 1, -1), archive["y"].astype(np.int64))


@pytest.fixture(scope="session")
def host_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProgram]:
    """Every kernel, compiled for this machine."""
    with closing(_program(tmp_path_factory)) as program:
        yield program


@pytest.fixture(scope="session")
def sanitized_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProgram]:
    """The same under AddressSanitizer and UndefinedBehaviorSanitizer."""
    with closing(_program(tmp_path_factory, *SANITIZERS)) as program:
        yield program


def _program(folders: pytest.TempPathFactory, *flags: str) -> HostProgram:
    runtime = folders.mktemp("host") / "runtime"
    c_arrays.write_runtime(runtime, kernels.table())
    return HostProgram(runtime, toolchain.find(toolchain.HOST_COMPILERS), flags)
