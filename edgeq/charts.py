"""The report's charts: each a matplotlib figure of one report, as SVG for a page or as PNG.

Colours of an SVG are CSS variables, so that a page can be dark or light. The same report gives the
same bytes.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq.budget import excess, show_size
from edgeq.errors import MissingToolError
from edgeq.report import Flash, Layer, Ram, Report, Slot

WIDTH = 4.2  # inches: small, so that text stays readable on a page of 400 pixels
ROW = 0.21  # inches for a bar
MOST_ROWS = 60  # bars in a chart; of more, the largest are drawn
FONT = 9.0
DPI = 200
FEW_POINTS = 5  # a baseline of fewer is drawn as points
COLOURS = ("c1", "c2", "c3", "c4", "c5", "c6")

# For PNG. In an SVG each name becomes var(--name), which the page defines twice.
LIGHT = {
    "paper": "#ffffff", "ink": "#1c2430", "faint": "#67717e", "grid": "#dfe3e8", "over": "#c2321f",
    "c1": "#2f6fb2", "c2": "#4fa3a5", "c3": "#8a63ad", "c4": "#c98a1b", "c5": "#5d9b48",
    "c6": "#b5547e",
}  # fmt: skip
DARK = {
    "paper": "#14181e", "ink": "#e4e8ee", "faint": "#98a2af", "grid": "#2e3641", "over": "#f0705c",
    "c1": "#6ea8e0", "c2": "#6fc4c4", "c3": "#b698d8", "c4": "#e0ac4f", "c5": "#8cc474",
    "c6": "#dd86ab",
}  # fmt: skip
# Stand-ins that no chart mixes or blends: they are replaced in the SVG's text.
_MARKS = {name: f"#0000{index:02x}" for index, name in enumerate(LIGHT, start=0xA0)}

Palette = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Chart:
    """One row: a name (of the PNG), a heading, and what draws it; `there` tells if it can be."""

    name: str
    title: str
    draw: Callable[[Any, Report, Palette], None]
    height: Callable[[Report], float]
    there: Callable[[Report], bool]


def available() -> bool:
    """Whether charts can be drawn here."""
    return importlib.util.find_spec("matplotlib") is not None


def needs() -> None:
    """Nothing, if charts can be drawn.

    Raises:
        MissingToolError: matplotlib is not installed.
    """
    if not available():
        raise MissingToolError(
            "EQ0606", 'charts need matplotlib: python -m pip install "edgeq[report]"'
        )


def svgs(report: Report) -> dict[str, str]:
    """Every chart that `report` has data for, as inline SVG, by heading."""
    return {chart.title: _inline(chart, report) for chart in CHARTS if chart.there(report)}


def pngs(report: Report) -> dict[str, bytes]:
    """The same as PNG files, light, by file name."""
    return {
        f"{chart.name}.png": _render(chart, report, LIGHT, "png")
        for chart in CHARTS
        if chart.there(report)
    }


def _render(chart: Chart, report: Report, palette: Palette, form: str) -> bytes:
    matplotlib: Any = importlib.import_module("matplotlib")
    figures: Any = importlib.import_module("matplotlib.figure")
    settings = {
        "svg.hashsalt": chart.name,
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": FONT,
        "axes.linewidth": 0.6,
        "axes.edgecolor": palette["faint"],
        "axes.facecolor": "none",
        "text.color": palette["ink"],
        "xtick.color": palette["faint"],
        "ytick.color": palette["faint"],
        "xtick.labelcolor": palette["ink"],
        "ytick.labelcolor": palette["ink"],
        "axes.labelcolor": palette["faint"],
        "grid.color": palette["grid"],
        "grid.linewidth": 0.6,
    }
    with matplotlib.rc_context(settings):
        figure = figures.Figure(figsize=(WIDTH, chart.height(report)), layout="constrained")
        chart.draw(figure, report, palette)
        out = io.BytesIO()
        figure.savefig(
            out,
            format=form,
            dpi=DPI,
            facecolor=palette["paper"] if form == "png" else "none",
            metadata={"Date": None} if form == "svg" else {"Software": None},
        )
    return out.getvalue()


def _inline(chart: Chart, report: Report) -> str:
    """The chart's SVG for a page: no prologue, ids of its own, colours as variables."""
    text = _render(chart, report, _MARKS, "svg").decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{chart.name}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{chart.title}"',
                  text, count=1)  # fmt: skip
    text = re.sub(r"font: ([^;\"]*?)px '[^;\"]*", r"font: \1px sans-serif", text)
    for name, mark in _MARKS.items():
        text = text.replace(mark, f"var(--{name})")
    return text


# Drawing #


def _bare(axes: Any) -> None:
    """No frame, a light grid along the values."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _rows(axes: Any, names: Sequence[str]) -> None:
    """Names of bars along the left, the first on top."""
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:9]}…{name[-12:]}"


def _kilobytes(axes: Any) -> None:
    tickers: Any = importlib.import_module("matplotlib.ticker")
    axes.xaxis.set_major_locator(tickers.MaxNLocator(5, steps=[1, 2, 4, 5, 8, 10]))
    axes.set_xlabel("KB of 1024 bytes")


def _memory(figure: Any, report: Report, palette: Palette) -> None:
    """Two waterfalls: what each part adds, up to the total, and the budget where it is near."""
    export = report.export
    flash = ("weights", "tables", "gates", "kernels", "runtime")
    both: tuple[tuple[str, Flash | Ram, tuple[str, ...], int | None], ...] = (
        ("flash", export.flash, flash, export.budget.flash),
        ("RAM", export.ram, ("arena", "context", "io", "stack"), export.budget.ram),
    )
    for axes, (title, used, parts, limit) in zip(figure.subplots(2, 1), both, strict=True):
        start = 0
        names: list[str] = []
        end = max(used.total, 1)
        reach = limit if limit is not None and limit <= 2.5 * end else 1.45 * end
        reach = max(reach, 1.3 * end) / 1024
        for part, colour in zip(parts, COLOURS, strict=False):
            size = int(getattr(used, part))
            if size:
                axes.barh(len(names), size / 1024, left=start / 1024, color=palette[colour])
                at = (start + size) / 1024 + reach * 0.015
                axes.text(at, len(names), show_size(size), va="center")
                start += size
                names.append(part)
        over = excess(used.total, limit)
        axes.barh(len(names), end / 1024, color=palette["over" if over else "faint"])
        axes.text(
            end / 1024 + reach * 0.015,
            len(names),
            show_size(used.total) + (f", {used.total / limit:.1%}" if limit else ""),
            va="center",
            weight="bold",
        )
        if limit is not None and limit / 1024 <= reach:
            axes.axvline(limit / 1024, color=palette["over"], linewidth=1.2)
        axes.set_xlim(0, reach * 1.12)
        _rows(axes, [*names, "total"])
        budget = "no budget" if limit is None else f"budget {show_size(limit)}"
        axes.set_title(f"{title}: {budget}", loc="left", fontsize=FONT + 0.5)
        _bare(axes)
        _kilobytes(axes)


def _arena(figure: Any, report: Report, palette: Palette) -> None:
    """Each tensor as a box: as wide as it lives, as high as it is large, where it lies."""
    patches: Any = importlib.import_module("matplotlib.patches")
    export = report.export
    axes = figure.subplots()
    unique: dict[tuple[int, int, int, int, bool], list[str]] = {}
    for slot in export.arena:
        key = (slot.first, slot.last, slot.offset, slot.bytes, slot.scratch)
        unique.setdefault(key, []).append(slot.name)
    steps = max((slot.last for slot in export.arena), default=0) + 1
    top = max(export.ram.arena, 1) / 1024
    for index, ((first, last, offset, size, scratch), names) in enumerate(unique.items()):
        colour = palette["faint"] if scratch else palette[COLOURS[index % len(COLOURS)]]
        low, high, width = offset / 1024, size / 1024, last + 1 - first
        axes.add_patch(
            patches.Rectangle(
                (first, low), width, high, facecolor=colour, alpha=0.45, edgecolor=colour,
                linewidth=0.8,
            )
        )  # fmt: skip
        if high > 0.055 * top:
            label = _fitting(names[0], round(27 * width / steps * 1.6))
            axes.text(first + width / 2, low + high / 2, label, ha="center", va="center",
                      fontsize=FONT - 1.5, clip_on=True)  # fmt: skip
    axes.set_xlim(0, steps)
    axes.set_ylim(0, top * 1.02)
    every = -(-steps // 30)
    names = [layer.name for layer in export.layers][:steps]
    axes.set_xticks(
        [step + 0.5 for step in range(0, steps, every)],
        [_short(name) for name in names[::every]],
        rotation=90,
        fontsize=FONT - 1,
    )
    axes.set_ylabel("arena, KB of 1024 bytes")
    axes.tick_params(axis="x", length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _fitting(name: str, letters: int) -> str:
    if len(name) <= letters:
        return name
    return f"…{name[1 - letters :]}" if letters > 3 else ""


def _bits(figure: Any, report: Report, palette: Palette) -> None:
    """Stored bits of the weights beside the noise of each layer."""
    layers = _computing(report)[:MOST_ROWS]
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.3))
    for row, layer in enumerate(layers):
        if layer.bits.weights is not None:
            left.barh(row, layer.bits.weights.stored, color=palette["c1"])
            left.text(layer.bits.weights.stored + 0.2, row, str(layer.bits.weights.stored),
                      va="center", fontsize=FONT - 1)  # fmt: skip
        if layer.sqnr_db is None:
            right.text(0.5, row, "exact", va="center", color=palette["faint"], fontsize=FONT - 1)
        else:
            noise = max(layer.sqnr_db, 0.0)
            right.barh(row, noise, color=palette["c2"])
            right.text(noise + 0.6, row, f"{layer.sqnr_db:.1f}", va="center", fontsize=FONT - 1)
    _rows(left, [layer.name for layer in layers])
    left.set_xlim(0, 9.6)
    left.set_xticks((2, 4, 8))
    left.set_xlabel("bits a weight")
    right.set_xlim(0, max([layer.sqnr_db or 0 for layer in layers] + [10]) * 1.22)
    right.set_xlabel("SQNR, dB")
    _bare(left)
    _bare(right)


def _instructions(figure: Any, report: Report, palette: Palette) -> None:
    """Instructions of each layer, and how many to a multiplication."""
    axes = figure.subplots()
    profile = report.profile
    if profile is None:
        return
    layers = profile.layers[:MOST_ROWS]
    most = max(layer.instructions for layer in layers) or 1
    unit, word = (1e6, "million") if most >= 1e6 else (1e3, "thousand")
    for row, layer in enumerate(layers):
        axes.barh(row, layer.instructions / unit, color=palette["c1"])
        each = f", {layer.instructions / layer.macs:.2f} a MAC" if layer.macs else ""
        share = layer.instructions / profile.totals.instructions
        axes.text((layer.instructions + most * 0.02) / unit, row, f"{share:.1%}{each}",
                  va="center", fontsize=FONT - 1)  # fmt: skip
    _rows(axes, [layer.name for layer in layers])
    axes.set_xlim(0, most * 1.55 / unit)
    axes.set_xlabel(f"{word} instructions of one inference, emulated")
    _bare(axes)


def _accuracy_over_cost(figure: Any, report: Report, palette: Palette) -> None:
    """The gates' curve with its operating points, each baseline's, and the ungated network."""
    axes = figure.subplots()
    gate = report.gate
    if gate is None:
        return
    top = max(point.accuracy for point in gate.curve)
    bottom = min(point.accuracy for point in gate.points or gate.curve)
    for (name, baseline), colour in zip(gate.baselines.items(), _cycle(COLOURS[1:]), strict=False):
        line = [(point.cost, 100 * point.accuracy) for point in baseline.curve]
        marker = "s" if len(line) < FEW_POINTS else None
        axes.plot(*zip(*sorted(line), strict=True), color=palette[colour], linewidth=1,
                  marker=marker, markersize=3.5, linestyle="none" if marker else "--",
                  label=name)  # fmt: skip
        top = max(top, *(point.accuracy for point in baseline.curve))
    line = sorted((point.cost, 100 * point.accuracy) for point in gate.curve)
    axes.plot(*zip(*line, strict=True), color=palette["c1"], linewidth=1.6, label="gates")
    points = [(point.cost, 100 * point.accuracy) for point in gate.points]
    if points:
        axes.plot(*zip(*points, strict=True), "o", color=palette["c1"], markersize=5)
    for point in gate.points:
        axes.annotate(point.name, (point.cost, 100 * point.accuracy), xytext=(4, -9),
                      textcoords="offset points", fontsize=FONT - 1.5)  # fmt: skip
    axes.axvline(gate.ungated, color=palette["faint"], linewidth=0.8, linestyle=":")
    axes.annotate("ungated", (gate.ungated, 0.98), xycoords=("data", "axes fraction"),
                  xytext=(-3, 0), textcoords="offset points", rotation=90, ha="right", va="top",
                  fontsize=FONT - 1.5, color=palette["faint"])  # fmt: skip
    room = max(top - bottom, 0.01)
    axes.set_ylim(100 * (bottom - 0.25 * room), 100 * (top + 0.12 * room))
    axes.set_xlim(0, 1.12)
    axes.set_xlabel("mean cost, of the dearest path's")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=FONT - 1.5, loc="lower right")
    _open(axes)


def _cycle(colours: Sequence[str]) -> Iterator[str]:
    return itertools.cycle(colours)


def _open(axes: Any) -> None:
    """Two axes, a light grid along both."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid()
    axes.set_axisbelow(True)


def _classes(figure: Any, report: Report, palette: Palette) -> None:
    """For each class, the shares that leave at each exit, and those of blocks at each level."""
    gate = report.gate
    if gate is None:
        return
    shown = gate.classes[:MOST_ROWS]
    panels = zip(
        figure.subplots(1, 2, sharey=True),
        (("exits", gate.exits), ("levels", gate.levels)),
        strict=True,
    )
    for axes, (kind, names) in panels:
        for index, (name, colour) in enumerate(zip(names, _cycle(COLOURS), strict=False)):
            widths = [100 * getattr(one, kind)[index] for one in shown]
            starts = [100 * sum(getattr(one, kind)[:index]) for one in shown]
            axes.barh(range(len(shown)), widths, left=starts, color=palette[colour],
                      label=_short(name))  # fmt: skip
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of inputs" if kind == "exits" else "% of blocks run")
        _rows(axes, [one.name for one in shown])
        _bare(axes)
        axes.legend(frameon=False, fontsize=FONT - 2, ncols=2, loc="lower center",
                    bbox_to_anchor=(0.5, 1.0), title=kind, title_fontsize=FONT - 1,
                    handlelength=1, columnspacing=1)  # fmt: skip


def _reliability(figure: Any, report: Report, palette: Palette) -> None:
    """How often inputs were right, over how often they were predicted to be."""
    axes = figure.subplots()
    if report.gate is None or report.gate.reliability is None:
        return
    found = report.gate.reliability
    most = max((one.samples for one in found.bins), default=1)
    axes.plot((0, 100), (0, 100), color=palette["faint"], linewidth=0.8, linestyle=":")
    line = [(100 * one.confidence, 100 * one.accuracy) for one in found.bins]
    if line:
        axes.plot(*zip(*line, strict=True), color=palette["c1"], linewidth=0.8)
    for one, (x, y) in zip(found.bins, line, strict=True):
        axes.plot(x, y, "o", color=palette["c1"], markersize=2 + 6 * (one.samples / most) ** 0.5)
    low = min([min(point) for point in line] + [90])
    axes.set_xlim(low - 3, 101.5)
    axes.set_ylim(low - 3, 101.5)
    axes.set_xlabel("predicted to be right, %")
    axes.set_ylabel("right, %")
    axes.set_title(
        f"Brier {found.brier:.4f}; ECE {found.ece_mass:.4f} (equal mass),\n"
        f"{found.ece_width:.4f} (equal width)", loc="left", fontsize=FONT - 0.5
    )  # fmt: skip
    _open(axes)


def _clusterings(figure: Any, report: Report, palette: Palette) -> None:
    """Accuracy, Brier score and ECE over the number of clusters; the chosen one is ringed."""
    if report.gate is None:
        return
    rows = report.gate.clusterings
    above, below = figure.subplots(2, 1, sharex=True)
    counts = [row.clusters for row in rows]
    lines = (
        (above, "accuracy, %", [100 * row.accuracy for row in rows], "c1"),
        (below, "Brier", [row.brier for row in rows], "c2"),
        (below, "ECE", [row.ece for row in rows], "c4"),
    )
    for axes, name, values, colour in lines:
        axes.plot(counts, values, "o-", color=palette[colour], linewidth=1.2, markersize=4,
                  label=name)  # fmt: skip
        for row, value in zip(rows, values, strict=True):
            if row.chosen:
                axes.plot(row.clusters, value, "o", markersize=9, markerfacecolor="none",
                          markeredgecolor=palette["ink"])  # fmt: skip
    above.set_ylabel("accuracy, %")
    below.set_ylim(0, None)
    below.legend(frameon=False, fontsize=FONT - 1.5)
    below.set_xlabel("clusters")
    below.set_xticks(counts)
    for axes in (above, below):
        _open(axes)


def _computing(report: Report) -> list[Layer]:
    return [layer for layer in report.export.layers if layer.kernel is not None]


def _bars_height(count: int) -> float:
    return 0.6 + ROW * min(max(count, 1), MOST_ROWS)


def _parts(report: Report) -> int:
    flash, ram = report.export.flash, report.export.ram
    sizes = (flash.weights, flash.tables, flash.gates, flash.kernels, flash.runtime)
    return sum(size > 0 for size in (*sizes, ram.arena, ram.context, ram.io, ram.stack))


def _placed(slots: Sequence[Slot]) -> bool:
    return len(slots) > 0


CHARTS = (
    Chart("memory", "Flash and RAM against the budget", _memory,
          lambda report: 1.5 + ROW * (_parts(report) + 2), lambda report: True),
    Chart("arena", "The arena over time: live tensors", _arena,
          lambda report: 4.2, lambda report: _placed(report.export.arena)),
    Chart("bits", "Bits and noise by layer", _bits,
          lambda report: _bars_height(len(_computing(report))), lambda report: True),
    Chart("instructions", "Instructions by layer", _instructions,
          lambda report: _bars_height(len(report.profile.layers) if report.profile else 1),
          lambda report: report.profile is not None),
    Chart("gates", "Accuracy over cost", _accuracy_over_cost,
          lambda report: 3.4, lambda report: report.gate is not None),
    Chart("classes", "Exits and levels by class", _classes,
          lambda report: 0.8 + _bars_height(len(report.gate.classes) if report.gate else 1),
          lambda report: report.gate is not None and bool(report.gate.classes)),
    Chart("reliability", "Predicted errors against errors", _reliability,
          lambda report: 3.2,
          lambda report: report.gate is not None and report.gate.reliability is not None),
    Chart("clusters", "Accuracy over clusters", _clusterings,
          lambda report: 3.4,
          lambda report: report.gate is not None and len(report.gate.clusterings) > 1),
)  # fmt: skip
