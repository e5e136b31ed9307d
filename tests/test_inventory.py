"""What `edgeq targets` and `edgeq doctor` say, found or not."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

import edgeq
from edgeq import targets
from edgeq.cli import main
from edgeq.targets import emulators, qemu, runners, toolchain


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no compiler and no emulator."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    assert emulators.version() is None


def run(*command: str) -> str:
    done = CliRunner().invoke(main, list(command))
    assert done.exit_code == 0, done.output
    return done.output


def test_every_target_is_listed_chips_before_cores() -> None:
    devices = edgeq.list_targets()
    assert sorted(device.name for device in devices) == list(targets.names())
    sized = [device.flash is not None for device in devices]
    assert sized == sorted(sized, reverse=True)


def test_a_generic_core_has_no_memory_of_its_own() -> None:
    cores = {device.name: device for device in edgeq.list_targets()}
    assert (cores["cortex-m4"].flash, cores["cortex-m4"].ram) == (None, None)
    assert cores["nrf51822"].ram == 16 * 1024


def test_the_alias_of_a_target_is_listed() -> None:
    assert {d.name: d.aliases for d in edgeq.list_targets()}["stm32f405"] == ("mcu",)


def test_targets_as_json_say_the_same() -> None:
    listed = json.loads(run("targets", "--json"))
    assert [device["name"] for device in listed] == [d.name for d in edgeq.list_targets()]
    assert set(listed[0]) == {
        *("name", "aliases", "description", "core", "isa", "flash", "ram"),
        *("compilers", "emulators"),
    }


def test_targets_are_shown_by_name() -> None:
    shown = run("targets")
    assert all(name in shown for name in targets.names())


def test_the_doctor_reads_the_tables_that_exports_use() -> None:
    names = [part.name for part in edgeq.doctor()]
    rows = (*toolchain.COMPILERS, *toolchain.HOST_COMPILERS, *runners.EMULATORS)
    assert names[: len(rows)] == [row.program for row in rows]
    assert all(part.unlocks and part.install for part in edgeq.doctor())


@pytest.mark.usefixtures("bare")
def test_what_is_missing_is_said_with_the_command_that_installs_it() -> None:
    shown = run("doctor")
    for row in (*toolchain.COMPILERS, *runners.EMULATORS):
        assert row.install in shown
    parts = json.loads(run("doctor", "--json"))
    assert not any(p["version"] for p in parts if p["kind"] in ("compiler", "emulator"))


@pytest.mark.usefixtures("bare")
def test_a_bare_machine_builds_and_runs_no_target() -> None:
    assert not any(device.compilers or device.emulators for device in edgeq.list_targets())


def test_an_emulator_installed_after_a_look_for_it_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as without:
        without.setattr(shutil, "which", lambda name: None)
        assert qemu.version("python3") is None
    assert qemu.version("python3") is not None
