"""From a model to a float graph in NHWC; the only place that knows model formats."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError, UsageError
from edgeq.frontends import torch_factory
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


FORMATS: tuple[Format, ...] = (
    Format("ONNX", (".onnx",), "edgeq.frontends.onnx"),
    Format("TFLite", (".tflite",), "edgeq.frontends.tflite"),
)


def load(
    path: str | os.PathLike[str],
    shapes: Shapes | None = None,
    seen: Callable[[], Shapes] = dict,
) -> Source:
    """The model at `path`, a file or PyTorch's `package.module:factory@checkpoint`.

    `shapes` fixes input shapes that the model leaves open, by input name, in its own layout. What a
    PyTorch model needs beside them is taken from `seen`, the shapes of samples by array name.

    Raises:
        UsageError: no such file, module or factory, or `shapes` names no input.
        ModelError: the model is broken, or holds what edgeq does not support.
        MissingToolError: a PyTorch model without PyTorch.
    """
    file = Path(path)
    reference = None if file.is_file() else torch_factory.parse(os.fspath(path))
    if reference is not None:
        from edgeq.frontends import torch_export

        return torch_export.load(reference, shapes or {}, seen)
    read: Callable[[Path, Shapes], Source] = _module(file).load
    return read(file, shapes or {})


def survey(path: str | os.PathLike[str], shapes: Shapes | None = None) -> Survey:
    """The model file at `path`, operator by operator, those that are refused among them.

    Raises:
        UsageError: no such file, or `shapes` names no input.
        ModelError: the file is broken.
    """
    read: Callable[[Path, Shapes], Survey] = _module(Path(path)).survey
    return read(Path(path), shapes or {})


def _module(file: Path) -> Any:
    """The module that reads `file`."""
    if not file.is_file():
        raise UsageError(
            "EQ0210",
            f"{file}: no such file; expected a model, for example net.onnx or package.module:net",
        )
    for row in FORMATS:
        if file.suffix.lower() in row.suffixes:
            return importlib.import_module(row.module)
    known = ", ".join(f"{row.name} ({' '.join(row.suffixes)})" for row in FORMATS)
    raise ModelError("EQ0310", f"{file}: unknown model format {file.suffix!r}; edgeq reads {known}")
