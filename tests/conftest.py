"""What is dear is made once a session: exports, compiled programs, images; and tools are found."""

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
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

import edgeq
from edgeq import examples, kernels, pipeline, policy, targets
from edgeq.build import Build
from edgeq.exporters import c_arrays
from edgeq.ir import Array
from edgeq.pipeline import Compiled, Model
from edgeq.policy import InputSpec
from edgeq.targets import toolchain
from edgeq.targets.runners import HostProgram

DATA = Path(os.environ.get("EDGEQ_DATA", Path(__file__).parents[2] / "shared" / "data"))
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def pytest_configure(config: pytest.Config) -> None:
    """Nightly tests run only where `-m` says what runs."""
    if not config.option.markexpr:
        config.option.markexpr = "not nightly"


@pytest.fixture(scope="session")
def tool() -> Callable[[str], tuple[str, ...]]:
    """The command of a program, or of `zig`; without it a test skips, and fails where CI=true."""

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
    """A bundled example: its files, and what raw bytes of its images mean."""

    name: str
    model: Model
    policy: Path
    calib: Path
    test: Path
    specs: dict[str, InputSpec]

    def compile(
        self, source: str | Path, optimize: Literal["flash", "time"] = "flash"
    ) -> Compiled:
        """The example under the policy `source`, for the default target."""
        samples = pipeline.read_samples(self.calib, self.model, self.specs)
        return pipeline.compile(
            self.model,
            policy.load(source),
            self.specs,
            samples,
            targets.load("mcu"),
            optimize,
            (),
            lambda stage, done, total: None,
        )


@pytest.fixture(scope="session")
def example() -> Callable[[str], Example]:
    """The bundled example of a name."""

    @cache
    def load(name: str) -> Example:
        folder = examples.path(name)
        shipped = folder / "policy.toml"
        return Example(
            name=name,
            model=pipeline.read(folder / "model.onnx", None, name),
            policy=shipped,
            calib=folder / "calib.npz",
            test=folder / "test.npz",
            specs=dict(policy.load(shipped).input),
        )

    return load
