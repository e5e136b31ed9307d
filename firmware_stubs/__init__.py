"""The C99 runtime, its kernels, boards and C tests, as files."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable


def root() -> Traversable:
    """The folder that holds `runtime/`, `kernels/`, `kernels.toml` and `boards/`."""
    return files("edgeq.firmware_stubs")
