"""The report as a page, as text and as pictures: self-contained, repeatable, and true."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import bundled
import pytest
from conftest import Builds
from programs import sample_gate

import edgeq
from edgeq import build as builds
from edgeq import charts, pages
from edgeq.errors import MissingToolError
from edgeq.report import Report

pytestmark = pytest.mark.emulator
MOST_BYTES = 1_000_000
COLUMNS = 120
VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(scope="module")
def profiled(built: Builds, tmp_path_factory: pytest.TempPathFactory) -> edgeq.Build:
    """A build of our own, with a profile and with gates."""
    folder = tmp_path_factory.mktemp("page") / "build"
    shutil.copytree(built("fashion-resnet8", "zig").folder, folder)
    found = builds.load(folder)
    found = edgeq.Build(folder, found.report.with_gate(sample_gate()))
    builds.rewrite(found, pages.files(found.report), pages.PLOTS)
    return edgeq.profile(folder, plots=True)


@pytest.fixture
def report(profiled: edgeq.Build) -> Report:
    return profiled.report


class Balance(HTMLParser):
    """Fails where tags do not close; collects what could load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "iframe", "object", "embed", "link", "img", "image"):
            self.active.append(tag)
        for name, value in attrs:
            inside = (value or "").startswith("#")
            if name.startswith("on") or (name in ("src", "href", "xlink:href") and not inside):
                self.active.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Balance:
    page = Balance()
    page.feed(text)
    assert page.open == []
    return page


def test_a_page_loads_and_runs_nothing(report: Report) -> None:
    text = pages.page(report)
    assert parsed(text).active == []
    assert "url(" not in re.sub(r"url\(#", "", text)
    assert "@import" not in text


def test_a_page_is_small(profiled: edgeq.Build) -> None:
    assert len((profiled.folder / "report.html").read_bytes()) < MOST_BYTES


def test_the_same_report_gives_the_same_bytes(report: Report) -> None:
    assert pages.files(report, plots=True) == pages.files(report, plots=True)


def test_every_layer_and_every_chart_is_on_the_page(report: Report) -> None:
    text = pages.page(report)
    for layer in report.export.layers:
        assert f"<td>{layer.name}</td>" in text
    for chart in charts.CHARTS:
        assert f"<h2>{chart.title}</h2><svg" in text


def test_gates_are_on_the_page_with_their_ties(report: Report) -> None:
    for text in (pages.page(report), pages.text(report)):
        for found in ("top - 0.5", "thresholds at w8a8", "tie", "ahead", "out of reach"):
            assert found in text
        assert "QuEE comes down to early exit" in text


def test_a_report_without_gates_says_nothing_of_them(report: Report) -> None:
    for text in (pages.page(report.with_gate(None)), pages.text(report.with_gate(None))):
        assert "Operating points" not in text
        assert "Accuracy over cost" not in text


def test_every_colour_is_defined_for_light_and_for_dark(report: Report) -> None:
    text = pages.page(report)
    used = set(re.findall(r"var\(--(\w+)\)", text))
    assert used >= {"ink", "paper", "grid", "c1"}
    assert used <= charts.LIGHT.keys()
    assert charts.LIGHT.keys() == charts.DARK.keys()
    assert text.count("--ink:") == 2
    svgs = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert re.findall(r"#[0-9a-f]{6}", svgs) == []


def test_ids_on_the_page_are_unique(report: Report) -> None:
    ids = re.findall(r'\bid="([^"]*)"', pages.page(report))
    assert len(ids) == len(set(ids))


def test_a_hostile_name_is_text(report: Report) -> None:
    bad = '<script>alert("1")</script>'
    layers = (replace(report.export.layers[0], name=bad), *report.export.layers[1:])
    slots = tuple(replace(slot, name=bad) for slot in report.export.arena)
    export = replace(report.export, layers=layers, arena=slots, notes=(bad,))
    text = pages.page(replace(report, model=bad, export=export))
    assert parsed(text).active == []
    assert "&lt;script&gt;" in text


def test_a_name_that_looks_like_mathematics_is_text(report: Report) -> None:
    layers = (replace(report.export.layers[0], name="$a_$b^"), *report.export.layers[1:])
    text = pages.page(replace(report, export=replace(report.export, layers=layers)))
    assert "$a_$b^" in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)[1]


def test_text_is_ascii_in_few_columns(report: Report) -> None:
    text = pages.text(report)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= COLUMNS
    for block in ("weights (ro)", "activations (rw)", "macc", "Layers", "Memory by section"):
        assert block in text


def test_plots_are_png(profiled: edgeq.Build) -> None:
    names = {file.name for file in (profiled.folder / "plots").iterdir()}
    assert names == {f"{chart.name}.png" for chart in charts.CHARTS}
    for name in names:
        assert (profiled.folder / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_what_profile_writes_is_in_the_manifest(profiled: edgeq.Build) -> None:
    files = json.loads((profiled.folder / "manifest.json").read_text())["files"]
    assert {"report.html", "report.txt", "plots/memory.png"} <= files.keys()
    assert builds.load(profiled.folder).report == profiled.report


def test_an_export_alone_has_a_page_without_instructions(built: Builds) -> None:
    text = (built("fashion-resnet8", "zig").folder / "report.html").read_text("utf-8")
    assert "Bits and noise by layer" in text
    assert "Instructions by layer" not in text


def test_without_matplotlib_an_export_has_a_page_without_charts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "available", lambda: False)
    build = bundled.load("fashion-tiny").export(tmp_path / "build", check="none")
    text = (build.folder / "report.html").read_text("utf-8")
    assert "<svg" not in text
    assert "edgeq[report]" in text
    with pytest.raises(MissingToolError, match="EQ0606"):
        bundled.load("fashion-tiny").export(tmp_path / "other", check="none", plots=True)
    assert not (tmp_path / "other").exists()


def over_budget(report: Report) -> Report:
    budget = replace(report.export.budget, flash=report.export.flash.total // 2)
    return replace(report, export=replace(report.export, budget=budget))


def without_weights(report: Report) -> Report:
    flash = replace(report.export.flash, weights=0, tables=0, kernels=0, total=0, runtime=0)
    return replace(report, export=replace(report.export, flash=flash, arena=()))


def many_layers(report: Report) -> Report:
    layers = tuple(
        replace(layer, name=f"{layer.name}_{index}")
        for index in range(20)
        for layer in report.export.layers
    )
    return replace(report, export=replace(report.export, layers=layers))


@pytest.mark.parametrize("changed", [over_budget, without_weights, many_layers])
def test_unusual_reports_have_pages(report: Report, changed: Callable[[Report], Report]) -> None:
    text = pages.page(changed(report))
    assert parsed(text).active == []
    assert len(text) < MOST_BYTES


# The timeline #


def test_live_tensors_in_the_report_overlap_at_most_in_the_step_between_them(
    report: Report,
) -> None:
    slots = {
        (slot.offset, slot.bytes, slot.first, slot.last, slot.scratch)
        for slot in report.export.arena
    }
    for one, other in combinations(slots, 2):
        shared = min(one[3], other[3]) - max(one[2], other[2]) + 1  # steps
        handed_over = not (one[4] or other[4]) and one[2] != other[2]  # input and output of a layer
        together = shared > (1 if handed_over else 0)
        apart = one[0] + one[1] <= other[0] or other[0] + other[1] <= one[0]
        assert apart or not together, (one, other)
    assert max(slot[0] + slot[1] for slot in slots) == report.export.ram.arena


def test_steps_of_the_timeline_are_layers(report: Report) -> None:
    layers = {layer.name: index for index, layer in enumerate(report.export.layers)}
    for slot in report.export.arena:
        assert 0 <= slot.first <= slot.last < len(layers)
        if slot.scratch:
            assert slot.first == slot.last == layers[slot.name]
