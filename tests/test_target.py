"""Device descriptions: every bundled one holds, and a wrong one is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from edgeq import firmware_stubs, formats, targets
from edgeq.errors import ModelError, UsageError
from edgeq.target import parse

WHOLE = """
schema = 1
name = "chip"
description = "a chip"
family = "mcu"
core = "cortex-m4f"
board = "cortex_m"
formats = ["c"]
no_cost = "nobody knows"
[[memory]]
name = "flash"
kind = "flash"
base = 0x0800_0000
bytes = 1024
erase_bytes = [512, 512]
source = "data sheet"
[[memory]]
name = "sram"
kind = "ram"
base = 0x2000_0000
bytes = 512
source = "data sheet"
[[memory]]
name = "ccm"
kind = "ram"
base = 0x1000_0000
bytes = 256
source = "data sheet"
[compiler.gcc]
flags = ["-mcpu=cortex-m4"]
source = "manual"
[emulator]
"""

BARE = """
schema = 1
name = "box"
description = "a Linux box"
family = "edge"
formats = ["c"]
"""


def swapped(old: str, new: str) -> Callable[[], str]:
    assert old in WHOLE
    return lambda: WHOLE.replace(old, new, 1)


@pytest.mark.parametrize("name", targets.names())
def test_a_bundled_target_is_called_as_its_file(name: str) -> None:
    assert targets.load(name).name == name


@pytest.mark.parametrize("name", targets.names())
def test_every_region_of_a_bundled_target_has_a_source(name: str) -> None:
    assert all(memory.source for memory in targets.load(name).memory)


@pytest.mark.parametrize("name", targets.names())
def test_no_regions_of_a_bundled_target_overlap(name: str) -> None:
    regions = sorted((m.base, m.base + m.bytes) for m in targets.load(name).memory)
    assert all(end <= start for (_, end), (start, _) in pairwise(regions))


def test_sectors_of_one_size_are_spelled_out() -> None:
    assert parse(swapped("[512, 512]", "256")(), "chip.toml").first("flash").erase_bytes == (
        256,
        256,
        256,
        256,
    )


def test_regions_that_overlap_are_named() -> None:
    text = swapped("base = 0x2000_0000", "base = 0x1000_0080")()
    with pytest.raises(ModelError, match="ccm ends at 0x10000100, but sram begins at 0x10000080"):
        parse(text, "chip.toml")


def test_a_region_beyond_4_gb_is_named() -> None:
    text = swapped("base = 0x2000_0000", "base = 0xFFFF_FF00")()
    with pytest.raises(ModelError, match="sram ends at 0x100000100, beyond 4 GB"):
        parse(text, "chip.toml")


def test_a_target_without_costs_says_why() -> None:
    text = swapped('no_cost = "nobody knows"\n', "")()
    with pytest.raises(ModelError, match=r"has \[cost\], or says in no_cost why"):
        parse(text, "chip.toml")


@pytest.mark.parametrize("name", [n for n in targets.names() if targets.load(n).linked])
def test_every_linked_target_names_a_board_that_is_there(name: str) -> None:
    assert (Path(firmware_stubs.__file__).parent / "boards" / targets.load(name).board).is_dir()


def test_an_edge_box_needs_nothing_that_firmware_needs() -> None:
    target = parse(BARE, "box.toml")
    assert not target.linked and not target.sized and not target.unused()


def test_a_microcontroller_needs_all_that_firmware_needs() -> None:
    with pytest.raises(ModelError, match=r"needs core, board, .* to be linked for"):
        parse(BARE.replace('"edge"', '"mcu"'), "box.toml")


def test_a_box_that_is_half_a_microcontroller_is_refused() -> None:
    with pytest.raises(ModelError, match=r"needs board, a \[\[memory\]\] of kind flash"):
        parse(BARE + 'core = "cortex-m4"\n', "box.toml")


@pytest.mark.parametrize("name", targets.names())
def test_every_format_of_a_target_has_an_exporter(name: str) -> None:
    known = {formats.C, *(row.name for row in formats.FORMATS)}
    assert formats.C in targets.load(name).formats
    assert known.issuperset(targets.load(name).formats)


@pytest.mark.parametrize("alias", targets.ALIASES)
def test_an_alias_stands_for_a_bundled_target(alias: str) -> None:
    assert targets.load(alias) == targets.load(targets.ALIASES[alias])


def test_an_unknown_target_names_near_misses() -> None:
    with pytest.raises(UsageError, match=r"EQ0212.*did you mean stm32f4"):
        targets.load("stm32f407")


def test_a_target_like_nothing_lists_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"EQ0212.*there are .*stm32f405.*aliases: mcu"):
        targets.load("zzz")


@pytest.mark.parametrize("name", ["", "../targets/stm32f405", "stm32f405.toml", "STM32F405"])
def test_a_target_is_named_as_it_is_written(name: str) -> None:
    with pytest.raises(UsageError, match="EQ0212"):
        targets.load(name)


def test_the_planner_gets_the_first_region_of_a_kind() -> None:
    assert parse(WHOLE, "chip.toml").first("ram").name == "sram"


def test_the_other_regions_are_left_to_the_application() -> None:
    assert [memory.name for memory in parse(WHOLE, "chip.toml").unused()] == ["ccm"]


@pytest.mark.parametrize(
    "text",
    [
        swapped("schema = 1", "schema = 2"),
        swapped("schema = 1", ""),
        swapped('name = "chip"', 'name = "chip"\nclock = 1'),
        swapped('family = "mcu"', 'family = "gpu"'),
        swapped("bytes = 1024", "bytes = 0"),
        swapped("base = 0x2000_0000", "base = -1"),
        swapped("base = 0x2000_0000", "base = 0x1_0000_0000"),
        swapped("[512, 512]", "[512, 256]"),
        swapped('kind = "flash"', 'kind = "ram"'),
        swapped('source = "data sheet"', ""),
        swapped("[compiler.gcc]", "[compiler.gcc]\nopt = 2"),
        swapped("schema = 1", "schema ="),
        swapped('board = "cortex_m"', ""),
        swapped("[512, 512]", "0"),
        swapped("[512, 512]", "768"),
        swapped("[512, 512]", "2048"),
        swapped("[emulator]", '[emulator]\nqemu = "virt"'),
        swapped("base = 0x2000_0000", "base = 0xFFFF_FF00"),
        swapped("base = 0x2000_0000", "base = 0x1000_0080"),
        swapped("base = 0x2000_0000", "base = 0x0800_03FF"),
    ],
    ids=range(20),
)
def test_a_description_that_breaks_the_schema_is_refused(text: Callable[[], str]) -> None:
    with pytest.raises(ModelError, match=r"EQ0340: chip\.toml: "):
        parse(text(), "chip.toml")
