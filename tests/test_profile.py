"""The profile: what adds up, what repeats, what is refused, and the model of cycles."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundled
import pytest
from click.testing import CliRunner
from conftest import Builds, Tool
from rich.console import Console
from test_target import WHOLE

import edgeq
from edgeq import targets, views
from edgeq.cli import main
from edgeq.errors import EdgeqError, IntegrityError, ModelError, UsageError
from edgeq.ir import Graph, Node
from edgeq.report import Profile
from edgeq.target import parse
from edgeq.targets import counters
from edgeq.targets.instructions import decoder

pytestmark = pytest.mark.emulator
EXAMPLE = "fashion-tiny"
BLOCK = 4  # values of a window that two SMLAD multiply at once


@pytest.fixture
def build(built: Builds, compiler: str, tmp_path: Path) -> Path:
    """A build of our own to write to."""
    shutil.copytree(built(EXAMPLE, compiler).folder, tmp_path / "build")
    return tmp_path / "build"


@pytest.fixture
def one_build(built: Builds, tmp_path: Path) -> Path:
    """The same by one compiler, where the compiler does not matter."""
    shutil.copytree(built(EXAMPLE, "zig").folder, tmp_path / "build")
    return tmp_path / "build"


def profiled(build: Path) -> Profile:
    section = edgeq.profile(build).report.profile
    assert section is not None
    return section


def test_layers_and_overhead_add_up_to_an_inference_that_was_counted_whole(build: Path) -> None:
    profile = profiled(build)
    for field in ("instructions", "flash_read_bytes", "cycles_model"):
        parts = sum(getattr(layer, field) for layer in profile.layers)
        assert parts + getattr(profile.overhead, field) == getattr(profile.totals, field), field
    assert profile.totals.macs == sum(layer.macs for layer in profile.layers)


def test_a_profile_twice_gives_the_same_bytes(build: Path) -> None:
    edgeq.profile(build)
    first = (build / "report.json").read_bytes()
    edgeq.profile(build)
    assert (build / "report.json").read_bytes() == first


def expected_dual_macs(graph: Graph, node: Node) -> int:
    """The rule: K is rounded up to the block, outputs to pairs, and SMLAD takes two products."""
    weights = graph.tensors[node.inputs[1]]
    values = -(-weights.elements // weights.shape[0] // BLOCK) * BLOCK
    pixels = math.prod(graph.tensors[node.output].shape[1:-1])
    return -(-weights.shape[0] // 2) * pixels * values


@pytest.mark.parametrize("name", ["fashion-tiny", "fashion-resnet8"])
def test_two_products_for_every_smlad(built: Builds, tmp_path: Path, name: str) -> None:
    shutil.copytree(built(name, "zig").folder, tmp_path / "build")
    example = bundled.load(name)
    graph = example.compile(example.policy).program.network.graphs[0]
    nodes = {node.name: node for node in graph.nodes}
    layers = profiled(tmp_path / "build").layers
    counted = [layer for layer in layers if re.search("_(pairs|fields)_", layer.kernel)]
    assert len(counted) >= 5
    for layer in counted:
        assert layer.dual_macs == expected_dual_macs(graph, nodes[layer.name]), layer.name


def test_flash_is_read_at_least_once_for_every_weight(one_build: Path) -> None:
    report = edgeq.profile(one_build).report
    assert report.profile is not None
    stored = {layer.name: layer.weight_bytes for layer in report.export.layers}
    for layer in report.profile.layers:
        assert layer.flash_read_bytes >= stored[layer.name] - 8, layer.name  # 8: padding


def test_every_symbol_of_the_flash_is_listed_once(one_build: Path) -> None:
    profile = profiled(one_build)
    by_purpose: dict[str, int] = {}
    for row in profile.symbols:
        by_purpose[row.purpose] = by_purpose.get(row.purpose, 0) + row.bytes
    assert by_purpose["kernels"] == profile.flash.kernels
    assert by_purpose["model"] == profile.flash.weights + profile.flash.tables


def test_pictures_of_the_report_that_was_are_removed(one_build: Path) -> None:
    edgeq.profile(one_build, plots=True)
    assert list((one_build / "plots").glob("*.png"))
    (one_build / "plots" / "mine.txt").write_text("not edgeq's")
    edgeq.profile(one_build)
    assert [file.name for file in (one_build / "plots").iterdir()] == ["mine.txt"]
    manifest = json.loads((one_build / "manifest.json").read_text())
    assert not [name for name in manifest["files"] if name.startswith("plots/")]
    (one_build / "plots" / "mine.txt").unlink()
    edgeq.profile(one_build, plots=True)
    edgeq.profile(one_build)
    assert not (one_build / "plots").exists()


def test_what_kernels_share_counts_as_kernels(one_build: Path) -> None:
    """Functions of their further sources, assembly too, which has no symbol of its file."""
    profile = profiled(one_build)
    shared = [row for row in profile.symbols if row.name.startswith("eq_pairs_")]
    assert "eq_pairs_four" in {row.name for row in shared}
    assert {row.purpose for row in shared} == {"kernels"}


# Refusals #


def refused(build: Path, id: str, **options: Any) -> EdgeqError:
    before = (build / "report.json").read_bytes()
    with pytest.raises(EdgeqError) as caught:
        edgeq.profile(build, **options)
    assert caught.value.id == id, caught.value
    assert (build / "report.json").read_bytes() == before
    return caught.value


@pytest.mark.parametrize("name", ["firmware.elf", "report.json", "runtime/eq_run.c", "model.eqb"])
def test_a_build_edited_by_hand_is_refused(one_build: Path, name: str) -> None:
    file = one_build / name
    file.write_bytes(file.read_bytes() + b" ")
    error = refused(one_build, "EQ0711")
    assert isinstance(error, IntegrityError)
    assert name in error.message


def test_a_file_that_is_gone_is_refused(one_build: Path) -> None:
    (one_build / "selftest.c").unlink()
    assert "selftest.c is gone" in refused(one_build, "EQ0711").message


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2, "files": {}}', '{"files": 3}'])
def test_a_manifest_that_is_none_is_refused(one_build: Path, text: str) -> None:
    (one_build / "manifest.json").write_text(text)
    refused(one_build, "EQ0712")


def test_a_manifest_that_points_out_of_the_build_is_refused(one_build: Path) -> None:
    manifest = json.loads((one_build / "manifest.json").read_text())
    manifest["files"]["../secret"] = ""
    (one_build / "manifest.json").write_text(json.dumps(manifest))
    refused(one_build, "EQ0712")


def test_a_folder_that_is_no_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="EQ0233"):
        edgeq.profile(tmp_path)


def test_a_build_that_was_not_linked_is_refused(tmp_path: Path) -> None:
    build = bundled.load(EXAMPLE).export(tmp_path / "build", check="none")
    assert "--check emulator" in refused(build.folder, "EQ0240").message


def test_a_changed_build_exits_with_7(one_build: Path) -> None:
    (one_build / "README.txt").write_text("mine")
    result = CliRunner().invoke(main, ["profile", str(one_build)])
    assert result.exit_code == 7
    assert result.stdout == ""
    assert result.stderr.startswith("error EQ0711: ")


# A board's log #


def log(build: Path, **changes: Any) -> Path:
    """A log that fits the build, but for `changes`."""
    manifest = json.loads((build / "manifest.json").read_text())
    report = json.loads((build / "report.json").read_text())
    content = {
        "schema": 1,
        "image": manifest["files"][f"{report['model']}.eqb"],
        "board": "a board",
        "clock_hz": 168_000_000,
        "compiler": "gcc 12.2.1",
        "layers": [
            {"name": layer["name"], "cycles": 1000 + index}
            for index, layer in enumerate(report["export"]["layers"])
            if layer["kernel"]
        ],
        **changes,
    }
    path = build.parent / "measured.json"
    path.write_text(json.dumps(content))
    return path


def test_measured_cycles_stand_in_a_column_of_their_own(one_build: Path) -> None:
    alone = profiled(one_build)
    both = edgeq.profile(one_build, measured=log(one_build)).report.profile
    assert both is not None
    assert both.measured is not None
    assert both.measured.clock_hz == 168_000_000
    assert [layer.cycles_model for layer in both.layers] == [
        layer.cycles_model for layer in alone.layers
    ]
    measured = [layer.cycles_measured or 0 for layer in both.layers]
    assert measured[0] == 1000
    assert both.totals.cycles_measured == sum(measured)


def test_no_figure_is_cut_at_80_columns_whatever_layers_are_called(one_build: Path) -> None:
    for options in ({}, {"measured": log(one_build)}):
        report = edgeq.profile(one_build, **options).report
        assert report.profile is not None
        named = replace(report.profile.layers[0], name="/stage1/" + "block0/" * 6)
        profile = replace(report.profile, layers=(named, *report.profile.layers[1:]))
        console = Console(width=80, file=io.StringIO(), highlight=False)
        with console.capture() as shown:
            console.print(views.profile_view(report, profile))
        assert "…" not in shown.get()
        assert f"{report.profile.totals.instructions:,}" in shown.get()


def test_the_log_of_another_model_is_refused(one_build: Path) -> None:
    error = refused(one_build, "EQ0720", measured=log(one_build, image="0" * 64))
    assert error.exit_code == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": []},
        {"clock_hz": 0},
        {"layers": [{"name": "nobody", "cycles": 1}]},
        {"surplus": 1},
        {"schema": 2},
    ],
)
def test_a_log_with_a_fault_is_refused(one_build: Path, changes: dict[str, Any]) -> None:
    refused(one_build, "EQ0241", measured=log(one_build, **changes))


def test_a_log_that_is_not_there_is_refused(one_build: Path) -> None:
    refused(one_build, "EQ0241", measured=one_build / "nothing.json")


# The model of cycles #

ON_TOP = ("register", "refill")


def cycles_of(code: str, target: str) -> int:
    """What a basic block costs whose branch, if it ends in one, is taken."""
    cost = targets.load(target).cost
    assert cost is not None
    block = decoder("cortex_m")(bytes.fromhex(code), 0x0800_0000)
    base = sum(times for kind, times in block.classes.items() if kind not in ON_TOP)
    assert block.instructions == base
    total = sum(cost.cycles[kind].cycles * times for kind, times in block.classes.items())
    return total + block.refills * cost.cycles["refill"].cycles


@pytest.mark.parametrize(
    ("code", "cycles"),
    [
        ("0868", 2),  # ldr r0, [r1]
        ("0868 1a68", 3),  # ldr r0, [r1]; ldr r2, [r3]: the second is pipelined
        ("0868 1a60", 3),  # ldr; str
        ("0868 0130 1a68", 5),  # ldr; adds r0, #1; ldr
        ("d1e90023", 3),  # ldrd r2, r3, [r1]
        ("91e81c00", 4),  # ldm r1, {r2, r3, r4}
        ("30b5", 4),  # push {r4, r5, lr}
        ("30bd", 6),  # pop {r4, r5, pc}: a refill on top
        ("7047", 3),  # bx lr
        ("21fb0202", 1),  # smlad r2, r1, r2, r0
        ("91fbf2f0", 12),  # sdiv r0, r1, r2
        ("18bf 0120", 2),  # it ne; movne r0, #1
        ("00f000f8", 3),  # bl
        ("81fb0223", 1),  # smull r2, r3, r1, r2
        ("c1fb0223", 1),  # smlal
        ("01fb0232", 1),  # mla
    ],
)
def test_an_instruction_costs_what_the_manual_says(code: str, cycles: int) -> None:
    assert cycles_of(code, "stm32f405") == cycles


@pytest.mark.parametrize(
    ("target", "code", "cycles"),
    [
        ("stm32f100", "01fb02f2", 1),  # mul r2, r1, r2
        ("stm32f100", "01fb0232", 2),  # mla r2, r1, r2, r3
        ("stm32f100", "01fb1232", 2),  # mls
        ("stm32f100", "a1fb0223", 5),  # umull r2, r3, r1, r2
        ("stm32f100", "c1fb0223", 7),  # smlal r2, r3, r1, r2
        ("stm32f100", "00f000f8", 3),  # bl
        ("stm32f100", "30bd", 6),  # pop {r4, r5, pc}
        ("nrf51822", "4843", 1),  # muls r0, r1, r0
        ("nrf51822", "0868 1a68", 4),  # ldr r0, [r1]; ldr r2, [r3]
        ("nrf51822", "0860", 2),  # str r0, [r1]
        ("nrf51822", "30b5", 4),  # push {r4, r5, lr}
        ("nrf51822", "30bd", 7),  # pop {r4, r5, pc}
        ("nrf51822", "fee7", 3),  # b
        ("nrf51822", "7047", 3),  # bx lr
        ("nrf51822", "00f000f8", 4),  # bl
    ],
)
def test_other_cores_cost_what_their_manuals_say(target: str, code: str, cycles: int) -> None:
    assert cycles_of(code, target) == cycles


def test_a_core_has_one_cost_table() -> None:
    """And only code that is classed has one. A Cortex-M0 in general has no known multiplier."""
    tables: dict[str, set[str]] = {}
    for target in map(targets.load, targets.names()):
        if target.cost is not None:
            assert target.board == "cortex_m"
            tables.setdefault(target.core, set()).add(target.cost.model_dump_json())
    assert {core: len(found) for core, found in tables.items()} == {
        "cortex-m0": 1,
        "cortex-m3": 1,
        "cortex-m4f": 1,
    }


@pytest.mark.parametrize(
    ("name", "counted", "missing"),
    [
        ("mps3-an547", "qemu", ("cycles_model", "flash_read_bytes")),
        ("riscv-virt", "unicorn", ("cycles_model",)),
        ("mps2-an505", "unicorn", ("cycles_model",)),
        ("stm32f100", "unicorn", ()),
    ],
)
def test_what_cannot_be_known_of_a_core_is_left_out_and_said(
    tmp_path: Path, tool: Tool, name: str, counted: str, missing: tuple[str, ...]
) -> None:
    tool("zig")
    if counted == "qemu":
        tool("qemu-system-arm")
    build = bundled.load(EXAMPLE).export(tmp_path / "build", target=name, compiler="zig")
    profile = profiled(build.folder)
    assert profile.emulator.startswith(counted)
    for field in ("instructions", "cycles_model", "flash_read_bytes"):
        rows = (*profile.layers, profile.overhead, profile.totals)
        values = [getattr(row, field) for row in rows]
        if field in missing:
            assert set(values) == {None}, field
        else:
            assert sum(values[:-1]) == values[-1] > 0, field
    assert len(profile.notes) == len(missing)
    text = (build.folder / "report.txt").read_text()
    assert all(note in text for note in profile.notes)


def test_a_block_that_begins_where_the_last_one_ended_was_fallen_into() -> None:
    counter = counters.PythonCounter()
    for address in (0, 4, 4, 0, 4):  # a loop at 4: entered from 0, taken once, entered again
        counter.enter(None, address, 4, None)
    counts = counter.take()
    assert {block: (count.times, count.fallen) for block, count in counts.items()} == {
        (0, 4): (2, 2),
        (4, 4): (3, 0),
    }
    assert counter.take() == {}


def test_the_counter_in_c_and_the_one_in_python_agree(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if counters._native(Path(folder)) is None:
            pytest.skip("no compiler makes counter.c")
    native = profiled(build)
    monkeypatch.setattr(counters, "_native", lambda folder: None)
    assert profiled(build) == native


def test_modelled_cycles_lie_above_instructions(one_build: Path) -> None:
    for layer in profiled(one_build).layers:
        assert layer.cycles_model is not None
        assert layer.instructions < layer.cycles_model < 2 * layer.instructions


def test_a_cost_table_with_a_gap_is_refused() -> None:
    text = WHOLE + (
        '[cost]\nsource = "manual"\nmacs_per_instruction = 1\n'
        'cycles.other = { cycles = 1, source = "p. 1" }\n'
    )
    with pytest.raises(ModelError, match=r"lacks multiply, accumulate, long"):
        parse(text, "chip.toml")


def test_a_cost_without_a_source_is_refused() -> None:
    text = WHOLE + (
        '[cost]\nsource = "manual"\nmacs_per_instruction = 1\ncycles.other = { cycles = 1 }\n'
    )
    with pytest.raises(ModelError, match=r"source"):
        parse(text, "chip.toml")
