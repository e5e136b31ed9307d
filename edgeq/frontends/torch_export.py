"""The PyTorch front end: a module becomes an ONNX file in memory, which the ONNX front end reads.

What was exported once lies in the user's cache folder under the hash of the program that
torch.export captured, its weights and the exporters' versions: the same in, the same out. Without
a cache, or with a damaged one, everything is as it would be, only later.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.frontends import onnx, torch_factory
from edgeq.frontends.source import Source
from edgeq.frontends.torch_factory import Reference

Shapes = Mapping[str, tuple[int, ...]]

SINGLE = "x"  # the array of samples that serves for the only input
FORMAT = 1  # of what is cached; new whenever `_to_onnx` changes
# what the exporter notes and the ONNX front end reads; the rest holds paths of this machine
KEPT = ("pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy")
_DIGEST_BYTES = 32


def load(reference: Reference, shapes: Shapes, seen: Callable[[], Shapes]) -> Source:
    """The model that `reference` makes; see `edgeq.frontends.load`."""
    with torch_factory.importable(), _quiet():
        module = torch_factory.make(reference)
        sizes = _input_shapes(reference, module, shapes, seen)
        data = _exported(reference, module, sizes)
    return onnx.read(data, Path(str(reference)), {}, reference.factory)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporter and user code neither print nor warn: stdout is for results."""
    known = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(known)


def _input_shapes(
    reference: Reference, module: Any, shapes: Shapes, seen: Callable[[], Shapes]
) -> dict[str, tuple[int, ...]]:
    """The shape of every input, from the flags or else the samples.

    Inputs are what `forward` cannot do without, and what `shapes` names beside it.
    """
    known = inspect.signature(module.forward).parameters
    names = [name for name, p in known.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    needed = [n for n in names if known[n].default is inspect.Parameter.empty or n in shapes]
    if unknown := sorted(set(shapes) - set(names)):
        raise UsageError(
            "EQ0211", f"no input is called {unknown[0]}; inputs are {', '.join(names)}"
        )
    sampled = {} if all(name in shapes for name in needed) else seen()
    if len(needed) == 1 and needed[0] not in sampled and SINGLE in sampled:
        sampled = {needed[0]: sampled[SINGLE]}
    found = {**sampled, **shapes}
    for name in needed:
        if name not in found:
            raise UsageError(
                "EQ0219",
                f"{reference}: the shape of input {name} is unknown; give --shape {name}=1,C,H,W "
                "or samples",
            )
    return {name: found[name] for name in needed}


def _exported(reference: Reference, module: Any, sizes: Shapes) -> bytes:
    """The module as an ONNX file, from the cache where it is there."""
    torch = torch_factory.import_torch()
    inputs = {name: torch.zeros(size) for name, size in sizes.items()}
    called = ", ".join(f"{name}{list(size)}" for name, size in sizes.items())
    try:
        program = torch.export.export(module, (), kwargs=inputs)
        file = _cache_folder() / f"{_key(torch, program)}.onnx"
        data = _cached(file)
        if data is None:
            data = _to_onnx(torch, program)
            _keep(file, data)
    except Exception as error:
        torch_factory.refuse(reference, f"forward({called}) to export it", error)
    return data


def _to_onnx(torch: Any, program: Any) -> bytes:
    import onnx_ir as ir

    model = torch.onnx.export(program, dynamo=True, verbose=False).model
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph:
        kept = {key: node.metadata_props[key] for key in KEPT if key in node.metadata_props}
        node.metadata_props.clear()
        node.metadata_props.update(kept)
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data


# The cache #


def _cache_folder() -> Path:
    home = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "edgeq" / "onnx"


def _key(torch: Any, program: Any) -> str:
    """A hash of all that the export depends on."""
    versions = (torch.__version__, *(version(name) for name in ("onnxscript", "onnx-ir")))
    content = hashlib.sha256(repr((FORMAT, versions, str(program))).encode())
    tensors = {**program.state_dict, **program.constants}
    for name in sorted(tensors):
        value = tensors[name]
        content.update(name.encode())
        if isinstance(value, torch.Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            content.update(raw.numpy().tobytes())
    return content.hexdigest()


def _cached(file: Path) -> bytes | None:
    """The file's content after its own hash; None if there is none or the two disagree."""
    try:
        stored = file.read_bytes()
    except OSError:
        return None
    digest, data = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    return data if hashlib.sha256(data).digest() == digest else None


def _keep(file: Path, data: bytes) -> None:
    """Writes the file whole, or not at all where that cannot be done."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(hashlib.sha256(data).digest() + data)
        Path(name).replace(file)
