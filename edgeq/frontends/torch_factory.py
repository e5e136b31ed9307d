"""From `package.module:factory@checkpoint` to a PyTorch module in inference mode.

Importing a module and calling its factory runs the user's own code, as Python does. A checkpoint
never runs: what holds more than tensors in plain containers is refused.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import os
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from edgeq.errors import MissingToolError, ModelError, UsageError

INSTALL = 'python -m pip install "edgeq[torch]"'
NESTED = ("state_dict", "model")  # where training scripts keep the weights in a checkpoint
PARALLEL = "module."  # what DataParallel puts before every name
_SHOWN = 5  # names in one message
_FRAMES = 4  # frames of a shortened traceback
_REFERENCE = re.compile(r"(?P<module>[^\W\d][\w.]*):(?P<factory>[^\W\d]\w*)(@(?P<checkpoint>.+))?")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a MODEL of the form `package.module:factory`, with or without `@checkpoint`, names."""

    module: str
    factory: str
    checkpoint: Path | None = None

    def __str__(self) -> str:
        return f"{self.module}:{self.factory}"


def parse(text: str) -> Reference | None:
    """The reference that `text` is; None where it has another form."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        return None
    checkpoint = match["checkpoint"]
    return Reference(match["module"], match["factory"], Path(checkpoint) if checkpoint else None)


def import_torch() -> Any:
    """PyTorch, able to export.

    Raises:
        MissingToolError: it is not installed, or too old.
    """
    try:
        import onnxscript  # noqa: F401  # torch.onnx needs it, and would say so late
        import torch
    except ImportError as error:
        raise MissingToolError(
            "EQ0611", f"a PyTorch model needs {error.name or 'torch'} ({error}): {INSTALL}"
        ) from error
    if "dynamo" not in inspect.signature(torch.onnx.export).parameters:
        raise MissingToolError(
            "EQ0612",
            f"torch {torch.__version__} has no torch.onnx.export(dynamo=True), with which edgeq "
            f"reads PyTorch models: {INSTALL} -U",
        )
    return torch


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """The current folder is where Python looks for modules, too."""
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(os.getcwd())


def make(reference: Reference) -> Any:
    """The module that the factory makes, with the checkpoint's weights, in inference mode.

    Raises:
        UsageError: there is no such module, factory or checkpoint.
        ModelError: the user's code raises, makes no module, or the checkpoint does not fit it.
    """
    torch = import_torch()
    factory = _factory(reference)
    try:
        module = factory()
    except (Exception, SystemExit) as error:
        refuse(reference, f"{reference.factory}()", error)
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            "EQ0361",
            f"{reference}: {reference.factory}() gave {_kind(module)}; edgeq takes a "
            "torch.nn.Module",
        )
    if reference.checkpoint is not None:
        _load_weights(torch, reference, module, reference.checkpoint)
    return module.cpu().float().eval()


def refuse(reference: Reference, called: str, error: BaseException) -> NoReturn:
    """Raise EQ0360: what edgeq called, where in the user's code it went wrong, and how."""
    torch = sys.modules.get("torch")
    foreign = tuple(
        str(Path(str(module.__file__)).parent) + os.sep
        for module in (sys.modules["edgeq"], importlib, torch)
        if module is not None
    )
    frames = [
        f"  {frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*foreign, "<frozen"))
    ][-_FRAMES:]
    what = str(error).strip().splitlines()[:1]
    trace = "\n".join([*frames, ": ".join([type(error).__name__, *what])])
    raise ModelError(
        "EQ0360", f"{reference}: edgeq called {called}, which raised\n{trace}"
    ) from error


def _factory(reference: Reference) -> Callable[[], Any]:
    name = reference.module
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and _within(error.name, name):
            hint = f"; did you mean {name[:-3]}?" if name.endswith(".py") else ""
            raise UsageError(
                "EQ0217", f"no module {name} in the current folder or on Python's path{hint}"
            ) from error
        refuse(reference, f"import {name}", error)
    factory = getattr(module, reference.factory, None)
    if factory is None:
        near = difflib.get_close_matches(reference.factory, dir(module), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UsageError("EQ0217", f"{name} has no {reference.factory}{hint}")
    torch = import_torch()
    if not callable(factory) or isinstance(factory, torch.nn.Module):
        raise ModelError(
            "EQ0361",
            f"{reference} is {_kind(factory)}; edgeq calls a function or class without arguments",
        )
    made: Callable[[], Any] = factory
    return made


def _within(missing: str | None, name: str) -> bool:
    """Whether `missing` is the module `name` or a package that it should lie in."""
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


# Checkpoints #


def _load_weights(torch: Any, reference: Reference, module: Any, path: Path) -> None:
    given = _state(torch, path)
    own = module.state_dict()
    counters = {name for name in own if name.endswith(".num_batches_tracked")}
    missing = own.keys() - given.keys() - counters  # torch < 0.4.1 did not count batches
    surplus = given.keys() - own.keys()
    shapes = {
        f"{name} {tuple(given[name].shape)}, not {tuple(own[name].shape)}"
        for name in own.keys() & given.keys()
        if given[name].shape != own[name].shape
    }
    faults = (
        ("missing", missing),
        ("unknown to the module", surplus),
        ("of another shape", shapes),
    )
    if found := [f"{what}: {_some(names)}" for what, names in faults if names]:
        raise ModelError("EQ0363", f"{path} does not fit {reference}; " + "; ".join(found))
    module.load_state_dict(given, strict=False)


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more


def _state(torch: Any, path: Path) -> dict[str, Any]:
    """The tensors of a checkpoint, by name."""
    if not path.is_file():
        raise UsageError("EQ0218", f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            "EQ0362",
            f"{path} holds Python objects{_named(error)}, and loading it could run code; save the "
            "weights alone: torch.save(module.state_dict(), FILE)",
        ) from error
    except Exception as error:  # zip, pickle and torch each have their own for a broken file
        raise ModelError("EQ0362", f"{path} is no readable checkpoint: {error}") from error
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ModelError("EQ0362", f"{path} holds {_kind(content)}; edgeq takes a state_dict")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ModelError(
                "EQ0362", f"{path}: {name} is {_kind(value)}; a state_dict holds tensors"
            )
    if all(name.startswith(PARALLEL) for name in content):
        return {name.removeprefix(PARALLEL): value for name, value in content.items()}
    return dict(content)


def _named(error: BaseException) -> str:
    """The object that weights_only refused, where its message names it."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f" ({found[1]})" if found else ""
