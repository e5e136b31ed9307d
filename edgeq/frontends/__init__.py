"""From a model file to a float graph in NHWC; the only place that knows model formats."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError, UsageError
from edgeq.frontends.source import Operator, Port, Source, Survey

__all__ = ["FORMATS", "Format", "Operator", "Port", "Source", "Survey", "load", "survey"]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Format:
    """One row: `module` is imported when it is needed.

    It has `load(path, shapes) -> Source` and `survey(path, shapes) -> Survey`.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str


FORMATS: tuple[Format, ...] = (Format("ONNX", (".onnx",), "edgeq.frontends.onnx"),)


def load(path: str | os.PathLike[str], shapes: Shapes | None = None) -> Source:
    """The model at `path`; `shapes` fixes dynamic input shapes, by input name, in its own layout.

    Raises:
        UsageError: no such file, or `shapes` names no input.
        ModelError: the file is broken, or holds what edgeq does not support.
    """
    module, file = _module(path)
    read: Callable[[Path, Shapes], Source] = module.load
    return read(file, shapes or {})


def survey(path: str | os.PathLike[str], shapes: Shapes | None = None) -> Survey:
    """The model at `path`, operator by operator, those that are refused among them.

    Raises:
        UsageError: no such file, or `shapes` names no input.
        ModelError: the file is broken.
    """
    module, file = _module(path)
    read: Callable[[Path, Shapes], Survey] = module.survey
    return read(file, shapes or {})


def _module(path: str | os.PathLike[str]) -> tuple[Any, Path]:
    """The module that reads the file at `path`."""
    file = Path(path)
    if not file.is_file():
        raise UsageError("EQ0210", f"{file}: no such file; expected a model, for example net.onnx")
    for row in FORMATS:
        if file.suffix.lower() in row.suffixes:
            return importlib.import_module(row.module), file
    known = ", ".join(f"{row.name} ({' '.join(row.suffixes)})" for row in FORMATS)
    raise ModelError("EQ0310", f"{file}: unknown model format {file.suffix!r}; edgeq reads {known}")
