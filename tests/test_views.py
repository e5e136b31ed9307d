"""Tables on terminals of any width: names stay whole, and what matters least is left out."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from programs import sample_report
from rich.console import Console, RenderableType

from edgeq import views
from edgeq.report import Layer, Report
from edgeq.views import Columns

LONGEST = "eq_conv_field_planes_s8_dsp"
NAMES = ("stack2.conv1", "stack3.shortcut@1")


def shown(view: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(view)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


def report(*names: str) -> Report:
    """A report on layers of so many multiplications and bytes that columns are as wide as usual."""
    made = sample_report()
    plain = replace(made.export.layers[0], kernel=LONGEST, macs=11_806_336, weight_bytes=36_864)
    layers: tuple[Layer, ...] = tuple(replace(plain, name=name) for name in names)
    return replace(made, export=replace(made.export, layers=layers))


@pytest.mark.parametrize(("width", "macs"), [(80, False), (100, True), (120, True)])
def test_names_of_layers_and_kernels_stay_whole(width: int, *, macs: bool) -> None:
    lines = shown(views.export_view(report(*NAMES)), width)
    for name in NAMES:
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert f" {LONGEST.removeprefix('eq_')} " in line
        assert ("11,806,336" in line) is macs
    assert any("MACs" in line for line in lines) is macs


def test_columns_go_one_after_the_other_and_only_as_far_as_they_must() -> None:
    table = Columns(("name", ">a", "b", ">c"), [("x" * 9, "1" * 9, "y" * 9, "2" * 9)], (">a", "b"))
    heads = {width: shown(table, width)[0].split() for width in (44, 43, 33, 32, 22)}
    assert heads == {
        44: ["name", "a", "b", "c"],
        43: ["name", "b", "c"],
        33: ["name", "b", "c"],
        32: ["name", "c"],
        22: ["name", "c"],
    }


def test_what_does_not_fit_even_so_folds_and_no_figure_is_cut() -> None:
    name = "/stage1/" + "block0/" * 20
    lines = shown(views.export_view(report(name)), 80)
    text = "".join(line.split(" ")[0] for line in lines)
    assert name in text
    assert any("36,864" in line for line in lines)
