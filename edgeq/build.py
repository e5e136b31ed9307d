"""The build folder: written whole or not at all, and never over somebody else's files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import edgeq
from edgeq.errors import IntegrityError, UsageError
from edgeq.report import Report, dumps, from_json

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


def load(folder: Path) -> Build:
    """The build in `folder`, every file as `export` wrote it.

    Raises:
        UsageError: there is no build.
        IntegrityError: a file was changed or is gone since.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        try:
            found = sha256((folder / name).read_bytes())
        except OSError as error:
            raise IntegrityError(
                "EQ0711", f"{folder / name} is gone; export the build again"
            ) from error
        if found != expected:
            raise IntegrityError(
                "EQ0711",
                f"{folder / name} is not what {MANIFEST} says: it was changed after the export; "
                "export the build again",
            )
    try:
        report = from_json(json.loads((folder / REPORT).read_bytes()))
    except ValueError as error:
        raise IntegrityError(
            "EQ0712", f"{folder / REPORT} is no report of edgeq {edgeq.__version__}: {error}"
        ) from error
    return Build(folder, report)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `manifest.json` of a build says.

    Raises:
        UsageError: there is no build.
        IntegrityError: it is no manifest of this version.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise UsageError(
            "EQ0233", f"{folder} is no edgeq build: it has no {MANIFEST}; name a build folder"
        ) from error
    except ValueError:
        manifest = None
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.get("schema") != 1 or not all(map(_inside, files)):
        raise IntegrityError(
            "EQ0712", f"{folder / MANIFEST} is no manifest of edgeq {edgeq.__version__}"
        )
    return dict(manifest)


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def rewrite(build: Build, shown: Mapping[str, bytes], outdated: str) -> None:
    """Replaces `report.json` and what shows it in a build, and what its manifest says of them.

    What else it has in the folder `outdated` showed the report that was, and goes.

    Raises:
        UsageError: the folder cannot be written.
    """
    manifest = read_manifest(build.folder)
    content = {REPORT: dumps(build.report.to_json()).encode(), **shown}
    files = {name: sha256(data) for name, data in content.items()}
    gone = [name for name in manifest["files"] if name.startswith(f"{outdated}/")]
    gone = [name for name in gone if name not in files]
    kept = {name: known for name, known in manifest["files"].items() if name not in gone}
    manifest["files"] = dict(sorted({**kept, **files}.items()))
    content[MANIFEST] = dumps(manifest).encode()
    for name, data in content.items():
        write(build.folder / name, data)
    for name in gone:
        (build.folder / name).unlink(missing_ok=True)
    if gone:
        _remove_empty([build.folder / outdated])


def write(path: Path, content: bytes | str) -> None:
    """The file `path` with that content, written whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        raise UsageError("EQ0232", f"{path} was not written: {error.strerror}") from error


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes `files`, by name, into a folder that is being made."""
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


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
