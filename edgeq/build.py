"""The build folder: written whole or not at all, and never over somebody else's files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import UsageError
from edgeq.report import Report, dumps

MANIFEST = "manifest.json"
REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class Build:
    """A finished build: where it is, and what its report says."""

    folder: Path
    report: Report


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends well, and vanishes if not.

    Raises:
        UsageError: `out` holds files that are no edgeq build, or cannot be written.
    """
    out = out.absolute()
    made: list[Path] = []
    try:
        _refuse_foreign(out)
        made = [folder for folder in out.parents if not folder.exists()]
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except (OSError, ValueError) as error:
        _remove_empty(made)
        reason = getattr(error, "strerror", None) or error
        raise UsageError("EQ0231", f"{out} cannot be written: {reason}") from error
    try:
        work = staging / "build"
        work.mkdir()
        yield work
        _replace(out, work, staging / "old")
    except OSError as error:
        raise UsageError(
            "EQ0232", f"{out} was not written: {error.strerror or error}; nothing was left behind"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()  # refuses where something was written


def _refuse_foreign(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError("EQ0230", f"{out} is a file; -o names a folder")
    if any(out.iterdir()) and not _is_build(out):
        raise UsageError(
            "EQ0230", f"{out} holds files that are no edgeq build; name another folder, or empty it"
        )


def _is_build(folder: Path) -> bool:
    """Whether our manifest stands in `folder`: other programs have files of that name, too."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and {"schema", "edgeq", "files"} <= manifest.keys()


def _replace(out: Path, work: Path, old: Path) -> None:
    if out.exists():
        out.rename(old)
    try:
        work.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise


def write_records(folder: Path, report: Report, facts: Mapping[str, object]) -> None:
    """Writes `report.json`, then `manifest.json` with `facts` and the hash of every other file."""
    (folder / REPORT).write_text(dumps(report.to_json()), encoding="utf-8", newline="\n")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    hashes = {file.relative_to(folder).as_posix(): sha256(file.read_bytes()) for file in files}
    content = dumps({"schema": 1, **facts, "files": hashes})
    (folder / MANIFEST).write_text(content, encoding="utf-8", newline="\n")


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
