"""What is dear is made once a worker: exports and compiled programs. Tools are found here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from typing import Any, Protocol

# Workers are what runs side by side: threads of a BLAS beside them wait for each other, spinning.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import bundled
import pytest

from edgeq import Build, kernels
from edgeq.exporters import c_arrays
from edgeq.fit import adam, baselines, best_step, networks
from edgeq.targets import toolchain
from edgeq.targets.runners import HostProgram

SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
STEPS = 250
DEAR = ("sanitized_program", "host_program", "built", "tool")  # fixtures, the dearest first
PROGRAMS = {"gcc": "arm-none-eabi-gcc", "zig": "zig"}  # of `--compiler`

Tool = Callable[[str], tuple[str, ...]]


class Builds(Protocol):
    """Makes a build, or finds the one that it made."""

    def __call__(self, name: str, compiler: str, kernels: str = "own") -> Build:
        """The build of a bundled example, with its own or all kernels."""


def requires(package: str) -> pytest.MarkDecorator:
    """Skips where an optional package is not installed; where CI=true it must be."""
    missing = importlib.util.find_spec(package) is None and os.environ.get("CI") != "true"
    return pytest.mark.skipif(missing, reason=f"{package} is missing")


def pytest_configure(config: pytest.Config) -> None:
    """Nightly tests run only where `-m` says what runs."""
    if not config.option.markexpr:
        config.option.markexpr = "not nightly"


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Who needs a tool is marked. Who needs the same dear things stands together, and first.

    With `--dist worksteal` one worker then makes them, while another does the rest.
    """

    def needs(item: pytest.Item) -> list[str]:
        return [name for name in DEAR if name in getattr(item, "fixturenames", ())]

    for item in items:
        if needs(item) or item.get_closest_marker("emulator"):
            item.add_marker("tools")
    yield  # `-m` chooses, and pytest orders by parameters
    items.sort(key=lambda item: [name not in needs(item) for name in DEAR])


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


@pytest.fixture(scope="session", params=PROGRAMS)
def compiler(request: pytest.FixtureRequest, tool: Tool) -> str:
    """Every compiler for the target."""
    name: str = request.param
    tool(PROGRAMS[name])
    return name


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Builds:
    """The checked build of an example by a compiler, made once; not to be written to."""

    @cache
    def export(name: str, compiler: str, kernels: str) -> Build:
        out = tmp_path_factory.mktemp("builds") / f"{name}-{compiler}-{kernels}"
        return bundled.load(name).export(out, compiler=compiler, kernels=kernels)

    def find(name: str, compiler: str, kernels: str = "own") -> Build:
        tool(PROGRAMS[compiler])
        return export(name, compiler, kernels)

    return find


@pytest.fixture(scope="module")
def few_steps() -> Iterator[None]:
    """Networks train for `STEPS` at most: how well they fit is for tests/test_fit_gates.py."""

    def descend(*arguments: Any, **options: Any) -> float:
        return adam.descend(*arguments, **{**options, "most": STEPS})

    with pytest.MonkeyPatch.context() as patch:
        for module in (networks, baselines, best_step):
            patch.setattr(module, "descend", descend)
        yield


@pytest.fixture(scope="session")
def host_program(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Iterator[HostProgram]:
    """Every kernel, compiled for this machine."""
    tool("cc")
    with closing(_program(tmp_path_factory)) as program:
        yield program


@pytest.fixture(scope="session")
def sanitized_program(
    tmp_path_factory: pytest.TempPathFactory, tool: Tool
) -> Iterator[HostProgram]:
    """The same under AddressSanitizer and UndefinedBehaviorSanitizer."""
    tool("cc")
    with closing(_program(tmp_path_factory, *SANITIZERS)) as program:
        yield program


def _program(folders: pytest.TempPathFactory, *flags: str) -> HostProgram:
    runtime = folders.mktemp("host") / "runtime"
    c_arrays.write_runtime(runtime, kernels.table())
    return HostProgram(runtime, toolchain.find(toolchain.HOST_COMPILERS), flags)
