"""What changed between two builds, and limits on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bundled
import pytest
from click.testing import CliRunner, Result

import edgeq
from edgeq import comparison
from edgeq.cli import main
from edgeq.errors import BudgetError, UsageError
from edgeq.report import Change, Report

EXAMPLE = "fashion-tiny"


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> tuple[edgeq.Build, edgeq.Build]:
    """The example at 8 and at 4 bits, not executed."""
    folder = tmp_path_factory.mktemp("diff")
    example = bundled.load(EXAMPLE)
    old, new = (
        example.export(folder / bits, policy=bits, check="none") for bits in ("w8a8", "w4a8")
    )
    return old, new


def changes(old: Report, new: Report) -> dict[str, Change]:
    return {change.name: change for change in comparison.compare(old, new).figures}


def diff(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["diff", *map(str, arguments)])


def test_figures_are_those_of_the_two_reports(builds: tuple[edgeq.Build, edgeq.Build]) -> None:
    old, new = (build.report.export for build in builds)
    found = {c.name: c for c in edgeq.diff(*(build.folder for build in builds)).figures}
    assert (found["flash"].old, found["flash"].new) == (old.flash.total, new.flash.total)
    assert (found["arena"].old, found["arena"].new) == (old.ram.arena, new.ram.arena)
    assert old.accuracy and new.accuracy
    assert (found["accuracy"].old, found["accuracy"].new) == (old.accuracy.int, new.accuracy.int)
    assert found["instructions"].new is None  # nothing was profiled


def test_layers_say_what_is_not_the_same_and_only_that(
    builds: tuple[edgeq.Build, edgeq.Build],
) -> None:
    found = {layer.name: layer for layer in edgeq.diff(*(b.folder for b in builds)).layers}
    weighted = {
        layer.name for layer in builds[0].report.export.layers if layer.bits.weights is not None
    }
    assert set(found) == weighted
    for layer in found.values():
        assert (layer.old["weight_bits"], layer.new["weight_bits"]) == (8, 4)
        assert set(layer.old) <= {"weight_bits", "weight_bytes", "kernel", "layout"}


def test_a_layer_that_one_build_lacks_is_shown_whole(
    builds: tuple[edgeq.Build, edgeq.Build],
) -> None:
    report = builds[0].report
    shorter = replace(report, export=replace(report.export, layers=report.export.layers[1:]))
    gone = comparison.compare(report, shorter).layers
    assert [layer.name for layer in gone] == [report.export.layers[0].name]
    assert gone[0].new == {} != gone[0].old


def test_a_build_and_itself_differ_in_nothing(builds: tuple[edgeq.Build, edgeq.Build]) -> None:
    found = edgeq.diff(builds[0].folder, builds[0].folder)
    assert not found.layers and not found.notes
    assert all(change.old == change.new for change in found.figures)
    assert "every layer is the same" in diff(builds[0].folder, builds[0].folder).stdout


@pytest.mark.parametrize(
    ("limit", "old", "new", "broken"),
    [
        ("flash+1%", 1000, 1010, False),
        ("flash+1%", 1000, 1011, True),
        ("flash+1%", 1000, 500, False),
        ("flash-5%", 1000, 900, True),
        ("arena+0", 100, 101, True),
        ("arena+64", 100, 164, False),
        ("accuracy-0.2", 0.9000, 0.8980, False),
        ("accuracy-0.2", 0.9000, 0.8979, True),
        ("accuracy-0.2", 0.9000, 0.9900, False),
        ("accuracy-1%", 0.9000, 0.8909, True),
    ],
)
def test_limits(limit: str, old: float, new: float, broken: bool) -> None:
    parsed = comparison.limits(limit)[0]
    assert parsed.exceeded(Change(parsed.figure, old, new)) is broken


@pytest.mark.parametrize("text", ["", "flash", "flash+", "speed+1%", "flash*2", "flash+1%,", "a-b"])
def test_a_limit_that_is_none_names_the_figures(text: str) -> None:
    with pytest.raises(UsageError, match="flash, weights") as caught:
        comparison.limits(text)
    assert caught.value.id == "EQ0209"


def test_the_command_fails_beyond_a_limit_and_names_it(
    builds: tuple[edgeq.Build, edgeq.Build],
) -> None:
    old, new = (build.folder for build in builds)
    assert diff(old, new, "--fail-on", "flash+1%,accuracy-50").exit_code == 0
    result = diff(new, old, "--fail-on", "flash+1%,accuracy-50")
    assert result.exit_code == BudgetError.exit_code
    assert "EQ0409" in result.stderr and "flash+1%" in result.stderr
    assert "accuracy" not in result.stderr
    assert "flash" in result.stdout


def test_a_limit_on_what_a_build_does_not_say_is_refused(
    builds: tuple[edgeq.Build, edgeq.Build],
) -> None:
    result = diff(*(build.folder for build in builds), "--fail-on", "instructions+1%")
    assert result.exit_code == UsageError.exit_code
    assert "EQ0247" in result.stderr and "edgeq profile" in result.stderr


def test_json_is_what_the_function_gives(builds: tuple[edgeq.Build, edgeq.Build]) -> None:
    folders = [build.folder for build in builds]
    printed = json.loads(diff(*folders, "--json").stdout)
    found = edgeq.diff(*folders)
    assert printed["layers"][0]["name"] == found.layers[0].name
    assert [c["name"] for c in printed["figures"]] == [c.name for c in found.figures]


def test_what_is_no_build_or_was_changed_is_refused(
    builds: tuple[edgeq.Build, edgeq.Build], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(builds[0].folder, damaged)
    (damaged / "report.json").write_text("{}")
    refusals: list[tuple[Callable[[], Result], str]] = [
        (lambda: diff(builds[0].folder, tmp_path / "nothing"), "EQ0233"),
        (lambda: diff(builds[0].folder, damaged), "EQ0711"),
    ]
    for run, id in refusals:
        assert id in run().stderr
