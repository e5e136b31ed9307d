"""The C tests of the kernels on edgeq's own emulator: host and QEMU run them by make (`nightly`).

The same programs, seeds and rounds: random shapes of every kernel against the portable one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Tool, requires

from edgeq import targets
from edgeq.targets import emulators
from edgeq.targets.emulators import Board, read_firmware

STUBS = Path(__file__).parents[1] / "firmware_stubs"
MAKEFILE = (STUBS / "Makefile").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"\w+", re.findall(r"^NIGHTLY = (.*)$", MAKEFILE, re.M)[0])
(NIGHTLY_ROUNDS,) = re.findall(r"^NIGHTLY_ROUNDS = (\d+)$", MAKEFILE, re.M)
ROUNDS = "60"
TEXT_BYTES = 8192  # MOST_TEXT

pytestmark = requires("unicorn")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    """The folder of the programs, linked as functions."""
    tool("arm-none-eabi-gcc")
    folder = tmp_path_factory.mktemp("device") / "stubs"
    shutil.copytree(STUBS, folder, ignore=shutil.ignore_patterns("build"))
    files = [f"build/callable_{name}.elf" for name in PROGRAMS]
    command = [*tool("make"), "-s", f"-j{os.cpu_count()}", f"PYTHON={sys.executable}", *files]
    subprocess.run(command, cwd=folder, check=True, timeout=600)
    return folder / "build"


def output_of(firmware: Path, rounds: str) -> tuple[int, str]:
    """What the program at `firmware` returns and prints."""
    board = Board(read_firmware(firmware), targets.load("cortex-m4"))
    board.write(board.symbol("device_argument").address, rounds.encode() + b"\0")
    status = board.call("device_test")
    text = board.read(board.symbol("device_text").address, TEXT_BYTES)
    return status, text.rstrip(b"\0").decode()


@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels_equal_the_portable_ones_on_the_emulated_core(name: str, programs: Path) -> None:
    status, text = output_of(programs / f"callable_{name}.elf", ROUNDS)
    assert status == 0, text
    assert re.fullmatch(rf"{name}: [1-9]\d+ checks, 0 failed\n", text)


@pytest.mark.nightly
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hundred_thousand_cases_equal_the_portable_kernels(
    name: str, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulators, "TIMEOUT_MICROSECONDS", 0)  # none
    status, text = output_of(programs / f"callable_{name}.elf", NIGHTLY_ROUNDS)
    assert status == 0, text
