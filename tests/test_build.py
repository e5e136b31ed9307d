"""The build folder: whole or not at all, and never over what is not ours."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import few_samples, sample_report

from edgeq import examples
from edgeq.build import MANIFEST, REPORT, sha256, staged, write_records
from edgeq.errors import UsageError

FACTS = {"edgeq": "0.1.0", "target": "stm32f405"}


def make(out: Path, content: str = "one") -> None:
    """A build with one file."""
    with staged(out) as folder:
        (folder / "net.c").write_text(content, encoding="utf-8")
        write_records(folder, sample_report(), FACTS)


def files(folder: Path) -> dict[str, bytes]:
    """Everything below `folder`, by name; empty folders as names with a slash."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name + "/" * path.is_dir()] = b"" if path.is_dir() else path.read_bytes()
    return found


def refused(id: str, *words: str) -> pytest.RaisesExc[UsageError]:
    return pytest.raises(UsageError, check=lambda e: e.id == id and all(w in str(e) for w in words))


# Written whole


def test_a_build_appears_at_its_end(tmp_path: Path) -> None:
    out = tmp_path / "build"
    with staged(out) as folder:
        (folder / "net.c").touch()
        assert not out.exists()
    assert list(files(tmp_path)) == ["build/", "build/net.c"]


def test_folders_above_it_are_made(tmp_path: Path) -> None:
    make(tmp_path / "a" / "b" / "build")
    assert (tmp_path / "a" / "b" / "build" / "net.c").is_file()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    make(tmp_path / "build")
    assert (tmp_path / "build" / "net.c").is_file()


def test_a_build_replaces_the_build_before(tmp_path: Path) -> None:
    make(tmp_path / "build")
    (tmp_path / "build" / "left.txt").touch()
    make(tmp_path / "build", "two")
    assert files(tmp_path / "build")["net.c"] == b"two"
    assert "left.txt" not in files(tmp_path / "build")
    assert os.listdir(tmp_path) == ["build"]


def test_a_folder_may_be_named_relative_to_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("build"))
    assert (tmp_path / "build" / "net.c").is_file()


# Or not at all


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, UsageError])
def test_a_failure_leaves_nothing(tmp_path: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind), staged(tmp_path / "a" / "build") as folder:
        (folder / "net.c").touch()
        raise kind("EQ0200", "stop") if kind is UsageError else kind
    assert files(tmp_path) == {}


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_build_before(tmp_path: Path, kind: type[BaseException]) -> None:
    make(tmp_path / "build")
    before = files(tmp_path)
    with pytest.raises(kind), staged(tmp_path / "build") as folder:
        (folder / "net.c").write_text("half", encoding="utf-8")
        raise kind
    assert files(tmp_path) == before


def test_a_write_that_fails_leaves_the_build_before(tmp_path: Path) -> None:
    make(tmp_path / "build")
    before = files(tmp_path)
    with (
        refused("EQ0232", "build was not written", "nothing was left"),
        staged(tmp_path / "build") as folder,
    ):
        (folder / "net.c" / "no folder").touch()
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_renamed_leaves_the_build_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "build")
    before = files(tmp_path)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "build" and self.parent.name.startswith(".build."):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with refused("EQ0232", "No space left on device"):
        make(tmp_path / "build", "two")
    assert files(tmp_path) == before


FULL_DISK = """
import resource, sys
from edgeq.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv[0] = "edgeq"
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_in_the_middle_of_an_export_leaves_the_build_before(tmp_path: Path) -> None:
    """The image as C is the first file of more than 20 KB."""
    make(tmp_path / "build")
    before = files(tmp_path / "build")
    model = examples.path("fashion-tiny")
    few = few_samples(model / "calib.npz", tmp_path / "few.npz", 2)
    policy = f"--policy={model / 'policy.toml'}"
    options = [f"--calib={few}", policy, "--check=none", f"--out={tmp_path / 'build'}"]
    command = ["export", str(model / "model.onnx"), *options]
    script = FULL_DISK.format(limit=20_000)
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "error EQ0232" in done.stderr
    assert files(tmp_path / "build") == before
    assert sorted(os.listdir(tmp_path)) == ["build", "few.npz"]


# Not over others


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years", encoding="utf-8")
    with refused("EQ0230", "no edgeq build"):
        make(tmp_path)
    assert files(tmp_path) == {"thesis.tex": b"years"}


@pytest.mark.parametrize(
    "manifest",
    ['{"name": "an extension", "manifest_version": 3}', "[]", "{", "", "\0", "[" * 100_000],
    ids=["of another program", "list", "broken", "empty", "binary", "deep"],
)
def test_a_manifest_of_another_program_makes_no_build(tmp_path: Path, manifest: str) -> None:
    (tmp_path / MANIFEST).write_text(manifest, encoding="utf-8")
    with refused("EQ0230", "no edgeq build"):
        make(tmp_path)
    assert (tmp_path / MANIFEST).read_text(encoding="utf-8") == manifest


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("mine", encoding="utf-8")
    with refused("EQ0230", "is a file; -o names a folder"):
        make(tmp_path / "build")


def test_a_folder_inside_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with refused("EQ0231", "cannot be written"):
        make(tmp_path / "file" / "build")
    assert files(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    with refused("EQ0231"):
        make(tmp_path / name)
    assert files(tmp_path) == {}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with refused("EQ0231", "Permission denied"):
        make(tmp_path / "build")


# Records


def test_the_manifest_has_the_hash_of_every_other_file(tmp_path: Path) -> None:
    make(tmp_path / "build")
    found = files(tmp_path / "build")
    manifest = json.loads(found.pop(MANIFEST))
    assert manifest["files"] == {n: hashlib.sha256(d).hexdigest() for n, d in found.items()}


def test_the_manifest_carries_the_facts(tmp_path: Path) -> None:
    make(tmp_path / "build")
    manifest = json.loads((tmp_path / "build" / MANIFEST).read_text(encoding="utf-8"))
    assert {**FACTS, "schema": 1}.items() <= manifest.items()


def test_the_report_is_written_as_it_is(tmp_path: Path) -> None:
    make(tmp_path / "build")
    content = json.loads((tmp_path / "build" / REPORT).read_text(encoding="utf-8"))
    assert content == json.loads(json.dumps(sample_report().to_json()))


def test_a_hash_is_hexadecimal() -> None:
    assert sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
