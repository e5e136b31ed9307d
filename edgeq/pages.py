"""The report as one page (`report.html`) and as plain text (`report.txt`). Nothing is computed.

The page has no script and loads nothing; colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import edgeq
from edgeq import charts
from edgeq.budget import show_size, show_use
from edgeq.report import (
    ClassUse,
    Comparison,
    Export,
    Gate,
    Layer,
    LayerWork,
    Profile,
    Report,
    Routing,
    Row,
    Standing,
    Store,
    Totals,
    Verdict,
    Work,
)

PAGE = "report.html"
TEXT = "report.txt"
PLOTS = "plots"
TEXT_WIDTH = 118


@dataclass(frozen=True, slots=True)
class Table:
    """Columns with their titles; a title that begins with > is of numbers, set right."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def files(report: Report, *, plots: bool = False) -> dict[str, bytes]:
    """What shows `report`, by file name inside a build; `plots` adds every chart as PNG.

    Raises:
        MissingToolError: plots were asked for, and matplotlib is not installed.
    """
    found = {PAGE: page(report).encode(), TEXT: text(report).encode()}
    if plots:
        charts.needs()
        found |= {f"{PLOTS}/{name}": data for name, data in charts.pngs(report).items()}
    return found


# The tables that both show #


def _count(value: int | None) -> str:
    return "" if not value else f"{value:,}"


def _noise(layer: Layer) -> str:
    return "exact" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}"


def _layers(export: Export) -> Table:
    titles = ("layer", "operator", ">MACs", ">bits", ">bytes", ">output bits", ">SQNR dB", "kernel")
    return Table(titles, tuple(_layer(layer) for layer in export.layers))


def _layer(layer: Layer) -> tuple[str, ...]:
    weights = layer.bits.weights
    stored = "" if weights is None else str(weights.stored)
    if weights is not None and weights.stored != weights.requested:
        stored += f" (asked {weights.requested})"
    return (
        layer.name,
        layer.op,
        _count(layer.macs),
        stored,
        _count(layer.weight_bytes),
        str(layer.bits.activations.stored),
        _noise(layer),
        (layer.kernel or "none").removeprefix("eq_"),
    )


def _choices(export: Export) -> Table:
    titles = ("layer", "kernel", "layout", ">cycles, estimated", "next best", ">its cycles")
    return Table(titles, tuple(_choice(layer) for layer in export.layers if layer.kernel))


def _choice(layer: Layer) -> tuple[str, ...]:
    """What runs the layer, and what else would."""
    other = layer.next_best
    bits = "" if other is None or other.bits is None else f", {other.bits} bits"
    return (
        layer.name,
        (layer.kernel or "").removeprefix("eq_"),
        layer.layout or "",
        _count(layer.cycles_estimate),
        "" if other is None else other.kernel.removeprefix("eq_") + bits,
        "" if other is None else _count(other.cycles_estimate),
    )


def _memory(export: Export) -> Table:
    flash, ram = export.flash, export.ram
    rows = [
        ("weights (ro)", _count(flash.weights), ""),
        ("tables (ro)", _count(flash.tables), ""),
        ("gates (ro)", _count(flash.gates), ""),
        ("kernels (code)", _count(flash.kernels), ""),
        ("runtime (code)", _count(flash.runtime), ""),
        ("activations (rw)", "", _count(ram.arena)),
        ("context (rw)", "", _count(ram.context)),
        ("buffers (rw)", "", _count(ram.io)),
        ("stack (rw)", "", _count(ram.stack)),
    ]
    shown = [row for row in rows if any(row[1:])]
    about = "total, estimated" if flash.estimated else "total"
    shown.append((about, _count(flash.total), _count(ram.total)))
    shown.append(("budget", _limit(export.budget.flash), _limit(export.budget.ram)))
    return Table(("section", ">flash bytes", ">RAM bytes"), tuple(shown))


def _limit(limit: int | None) -> str:
    return "none" if limit is None else _count(limit)


def _artefacts(export: Export) -> Table:
    rows = tuple((a.format, a.file, _count(a.bytes)) for a in export.artefacts)
    return Table(("format", "file", ">bytes"), rows)


def work(profile: Profile) -> Table:
    """What each layer takes, what runs between them, and all; of what is known."""
    titles = ("layer", ">MACs", ">instructions", ">share", ">/MAC", ">cycles*", ">flash read")
    totals = profile.totals
    rows: list[tuple[str, LayerWork | Work | Totals]] = [(row.name, row) for row in profile.layers]
    rows += [(f"gate{number}", row) for number, row in enumerate(profile.gates, start=1)]
    rows += [("overhead", profile.overhead), ("total", totals)]
    cells = tuple(_worked(name, row, totals) for name, row in rows)
    return _without_empty_columns(Table((*titles, ">measured"), cells))


def _worked(name: str, row: LayerWork | Work | Totals, totals: Totals) -> tuple[str, ...]:
    macs = 0 if isinstance(row, Work) else row.macs
    return (
        name,
        _count(macs),
        _count(row.instructions),
        "" if row is totals else f"{row.instructions / totals.instructions:.1%}",
        _ratio(row.instructions, macs),
        _count(row.cycles_model),
        _count(row.flash_read_bytes),
        _count(None if isinstance(row, Work) else row.cycles_measured),
    )


def _without_empty_columns(table: Table) -> Table:
    kept = [i for i in range(len(table.titles)) if any(row[i] for row in table.rows)]
    return Table(
        tuple(table.titles[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in table.rows),
    )


def _ratio(instructions: int, macs: int) -> str:
    return f"{instructions / macs:.2f}" if macs else ""


def _checks(rows: Iterable[Row]) -> Table:
    return Table(
        ("runner", "verdict", ">samples", ">mismatches", "version"),
        tuple(
            (row.runner, row.verdict.value, str(row.samples), str(row.mismatches), row.version)
            for row in rows
        ),
    )


def _symbols(profile: Profile, most: int) -> Table:
    own = [row for row in profile.symbols if row.purpose != "harness"]
    return Table(
        ("symbol", "purpose", ">flash bytes"),
        tuple((row.name, row.purpose, _count(row.bytes)) for row in own[:most]),
    )


def operating(gate: Gate) -> Table:
    """What the gates do at the tradeoffs that have names."""
    titles = ("at", ">tradeoff", ">top-1", ">mean", ">worst", ">cost", ">leave at", ">run at")
    rows = tuple(
        (
            point.name + " *" * (point.tradeoff == gate.tradeoff),
            f"{point.tradeoff:.4f}",
            f"{point.accuracy:.2%}",
            _millions(point.mean),
            _millions(point.worst),
            f"{point.cost:.1%}",
            _shares(point.exits),
            _shares(point.levels),
        )
        for point in gate.points
    )
    return Table(titles, rows)


def _millions(cost: float) -> str:
    return f"{cost / 1e6:.2f} M" if cost >= 1e6 else f"{cost:,.0f}"


def _shares(parts: Sequence[float]) -> str:
    """Shares of a whole, in percent, in their order."""
    return "/".join(f"{100 * part:.0f}" for part in parts) + "%"


def baselines(gate: Gate) -> Table:
    """The gates beside each baseline; a tie is called one."""
    rows = tuple(
        (name, one.figure, _difference(one), one.standing or "out of reach")
        for name, baseline in gate.baselines.items()
        for one in baseline.comparisons
    )
    return Table(("beside", "figure", ">gates: points, or ratio", "so they are"), rows)


def _difference(one: Comparison) -> str:
    if one.value is None or one.low is None or one.high is None:
        return ""
    if one.ratio:
        return f"x {one.value:.2f} ({one.low:.2f} .. {one.high:.2f})"
    value, low, high = (100 * part for part in (one.value, one.low, one.high))
    return f"{value:+.2f} ({low:+.2f} .. {high:+.2f})"


def by_class(gate: Gate) -> Table:
    """Where the inputs of each class leave, and at which levels their blocks ran."""
    titles = ("class", ">samples", *(f">{name}" for name in (*gate.exits, *gate.levels)))
    return Table(titles, tuple(_class_use(one) for one in gate.classes))


def _class_use(one: ClassUse) -> tuple[str, ...]:
    shares = (f"{100 * share:.0f} %" for share in (*one.exits, *one.levels))
    return (one.name, _count(one.samples), *shares)


def forms(gate: Gate) -> Table:
    """Both forms of the gates, and which was taken."""
    rows = tuple(
        (form.form, _count(form.bytes), f"{form.area:.2%}", "taken" if form.chosen else "")
        for form in gate.forms
    )
    return Table(("form", ">bytes", ">accuracy over all costs", ""), rows)


def how_gates(gate: Gate) -> tuple[str, ...]:
    """Where the figures of gates come from, and what a reader must know of them."""
    accuracy, whole = gate.accuracy, ""
    if accuracy is not None:
        whole = f"; the whole network at {gate.levels[0]}: {accuracy.int:.2%}, " + (
            f"float {accuracy.float:.2%}"
        )
    samples = ", ".join(f"{fold.samples:,} to {fold.name}" for fold in gate.folds)
    lines = [
        "* at start; points are below the best accuracy, on the samples that choose tradeoffs; "
        "figures are of others",
        f"inputs leave at {', '.join(gate.exits)}; blocks run at {', '.join(gate.levels)}",
        f"costs: {gate.unit}, {gate.cost_source}; the dearest of {gate.paths} paths takes "
        f"{gate.dearest:,.0f}, the ungated network {gate.ungated:.1%} of that",
        f"samples: {samples}; seed {gate.seed}{whole}",
    ]
    return (*lines, *(f"note: {note}" for note in gate.notes))


def routed(routing: Routing) -> tuple[str, ...]:
    """What an input costs, in words."""
    plain = routing.plain_cost
    return (
        f"an input costs {routing.mean_cost:,.0f} {routing.unit} on average, "
        f"{routing.mean_cost / plain:.1%} of {_ungated(routing)} ({plain:,.0f}); "
        f"{routing.worst_cost / plain:.1%} at worst",
        f"tradeoff {routing.tradeoff:g}; {routing.samples:,} samples; costs by {routing.source}",
        *(_stored(store) for store in routing.stores),
    )


def _ungated(routing: Routing) -> str:
    """What the costs of inputs are held against."""
    nested = any(store.chosen and store.name == "nested" for store in routing.stores)
    return f"the network without exits{' in the same store' if nested else ''}"


STORES = {"nested": "one nested store for levels", "levels": "a layout for each level"}


def _stored(store: Store) -> str:
    """What a way to store the weights of levels is worth, in words."""
    right = "" if store.top1 is None else f"{store.top1:.2%} right, "
    mean = "" if store.mean is None else f"{store.mean:.1%} of the cycles on average, "
    return (
        f"{STORES[store.name]}{', taken' if store.chosen else ''}: image {show_size(store.image)}, "
        f"{right}{mean}{store.worst:.1%} at worst (estimates, of the network with its own layouts)"
    )


def _exits(routing: Routing) -> Table:
    rows = tuple(
        (use.name, f"{use.share:.2%}", "" if use.top1 is None else f"{use.top1:.2%}")
        for use in routing.exits
    )
    return Table(("exit", ">inputs", ">of them right"), rows)


def _paths(routing: Routing, profile: Profile | None) -> Table:
    """Every path: its levels, its cost, how many inputs take it, and what was counted."""
    counted = {} if profile is None else {path.levels: path for path in profile.paths}
    rows = []
    for path in routing.paths:
        work = counted.get(path.levels)
        rows.append(
            (
                " ".join(map(str, path.levels)),
                f"{path.cost:,.0f}",
                f"{path.share:.2%}",
                _count(None if work is None else work.instructions),
                _count(None if work is None else work.cycles_model),
            )
        )
    titles = ("levels", f">{routing.unit}", ">inputs", ">instructions", ">cycles*")
    return _without_empty_columns(Table(titles, tuple(rows)))


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    export, profile = report.export, report.profile
    yield "target", report.target
    yield "compiler", export.compiler or "not compiled"
    yield "optimized for", export.optimize
    if export.accuracy is not None:
        accuracy = export.accuracy
        yield "accuracy", f"{accuracy.int:.2%} (float {accuracy.float:.2%})"
    about = "about " if export.flash.estimated else ""
    yield "flash", about + show_use(export.flash.total, export.budget.flash)
    yield "RAM", about + show_use(export.ram.total, export.budget.ram)
    if (routing := export.routing) is not None:
        share = routing.mean_cost / routing.plain_cost
        yield "mean cost", f"{share:.1%} of {_ungated(routing)}"
    yield "bits a weight", f"{export.bits_per_weight:.2f}"
    if profile is not None:
        yield "instructions", f"{profile.totals.instructions:,} an inference, emulated"
        if profile.totals.cycles_model is not None:
            yield "cycles", f"{profile.totals.cycles_model:,}, modelled"
    if report.gate is not None:
        yield "gates", f"{report.gate.form}, {report.gate.bytes:,} bytes"


# The page #

SYMBOLS = 12
CSS = """
:root { color-scheme: light dark; LIGHT }
@media (prefers-color-scheme: dark) { :root { DARK } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 20px 12px 48px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 8px; }
.sub, .note, footer { color: var(--faint); }
.sub { margin: 0 0 18px; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 10px;
  margin: 0 0 22px; }
dl div { border: 1px solid var(--grid); border-radius: 8px; padding: 8px 12px; }
dt { color: var(--faint); font-size: .82rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr));
  gap: 18px; align-items: start; margin-bottom: 22px; }
section, figure { border: 1px solid var(--grid); border-radius: 8px; padding: 12px; margin: 0; }
section { margin-bottom: 18px; }
svg { display: block; width: 100%; max-width: 600px; height: auto; margin: 0 auto; }
svg text { font-family: system-ui, sans-serif !important; }
/* A shadow at either end says that there is more to scroll to; the covers lie above it. */
.wide { overflow-x: auto; background: linear-gradient(to right, var(--paper) 30%, transparent)
  left / 40px 100%, linear-gradient(to left, var(--paper) 30%, transparent) right / 40px 100%,
  linear-gradient(to right, var(--grid), transparent) left / 14px 100%,
  linear-gradient(to left, var(--grid), transparent) right / 14px 100%;
  background-repeat: no-repeat; background-attachment: local, local, scroll, scroll; }
table { border-collapse: collapse; font-size: .88rem; white-space: nowrap; width: 100%; }
th { color: var(--faint); font-weight: 500; text-align: left; }
th, td { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--grid); }
td:first-child { font-weight: 500; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--c5); } .bad { color: var(--over); }
p { margin: 0 0 4px; }
.wide + p { margin-top: 10px; }
@media (max-width: 480px) { body { padding: 14px 8px 32px; font-size: 14px; }
  section, figure { padding: 10px 8px; } table { font-size: .8rem; }
  th, td { padding-right: 9px; } }
"""


def page(report: Report) -> str:
    """`report.html`."""
    return "\n".join(_page(report)) + "\n"


def _page(report: Report) -> Iterator[str]:
    export, profile = report.export, report.profile
    name = html.escape(report.model)
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # Nothing may run or be loaded, whatever a layer is called.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield f"<title>{name} for {html.escape(report.target)} – edgeq</title>"
    yield f"<style>{_css()}</style>\n</head>\n<body>"
    yield f'<h1>{name}</h1>\n<p class="sub">exported by edgeq {edgeq.__version__}</p>\n<dl>'
    for key, value in _facts(report):
        yield f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd></div>"
    yield "</dl>"
    if charts.available():
        yield '<div class="charts">'
        for title, svg in charts.svgs(report).items():
            yield f"<figure><h2>{html.escape(title)}</h2>{svg}</figure>"
        yield "</div>"
    else:
        yield '<p class="note">charts need matplotlib: python -m pip install "edgeq[report]"</p>'
    yield from _section("Layers", _layers(export))
    yield from _section("Kernels", _choices(export))
    if export.routing is not None:
        yield from _section("Exits", _exits(export.routing), routed(export.routing))
        yield from _section("Paths", _paths(export.routing, profile))
    yield from _section("Memory", _memory(export))
    yield from _section("Artefacts", _artefacts(export))
    if profile is not None:
        yield from _section("One inference", work(profile), how(profile))
        yield from _section("Largest names in flash", _symbols(profile, SYMBOLS))
    if report.gate is not None:
        for title, table in _gate_tables(report.gate):
            yield from _section(title, table)
        yield from _section("Gates", forms(report.gate), how_gates(report.gate))
    yield from _section("Prediction and execution", _checks(report.validate.rows))
    if export.notes:
        yield "<section><h2>Notes</h2>"
        yield from (f"<p>{html.escape(note)}</p>" for note in export.notes)
        yield "</section>"
    yield "</body>\n</html>"


def _gate_tables(gate: Gate) -> Iterator[tuple[str, Table]]:
    """What is known of gates, by heading; what is empty is left out."""
    for title, table in (
        ("Operating points", operating(gate)),
        ("Against baselines", baselines(gate)),
        ("Exits and levels by class, shares", by_class(gate)),
    ):
        if table.rows:
            yield title, table


def _css() -> str:
    both = {"LIGHT": charts.LIGHT, "DARK": charts.DARK}
    text = CSS
    for word, palette in both.items():
        text = text.replace(
            word, " ".join(f"--{name}: {value};" for name, value in palette.items())
        )
    return text


def _section(title: str, table: Table, notes: Sequence[str] = ()) -> Iterator[str]:
    yield f'<section><h2>{html.escape(title)}</h2><div class="wide"><table><tr>'
    numbers = [title.startswith(">") for title in table.titles]
    for heading, right in zip(table.titles, numbers, strict=True):
        yield f"<th{_class(right)}>{html.escape(heading.removeprefix('>'))}</th>"
    yield "</tr>"
    for row in table.rows:
        cells = (
            f"<td{_class(right)}{_verdict(cell)}>{html.escape(cell)}</td>"
            for cell, right in zip(row, numbers, strict=True)
        )
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</table></div>"
    yield from (f'<p class="note">{html.escape(note)}</p>' for note in notes)
    yield "</section>"


def _class(right: bool) -> str:
    return ' class="n"' if right else ""


def _verdict(cell: str) -> str:
    good = {
        Verdict.EXACT.value: "good",
        Verdict.DIFFERS.value: "bad",
        Standing.AHEAD.value: "good",
        Standing.BEHIND.value: "bad",
    }.get(cell)
    return f' class="{good}"' if good else ""


def how(profile: Profile) -> tuple[str, ...]:
    """Where the figures of a profile come from."""
    lines = [f"instructions: {profile.emulator}, {profile.core}, {profile.compiler}"]
    if profile.cost_source is not None:
        lines.append(f"* modelled by instruction classes, not measured: {profile.cost_source}")
    if profile.measured is not None:
        board = profile.measured
        lines.append(
            f"measured cycles: {board.board}, {board.clock_hz / 1e6:g} MHz, {board.compiler}"
        )
    if profile.macs_per_instruction is not None:
        most = profile.macs_per_instruction
        lines.append(
            f"an instruction of this core multiplies {most} {'pair' if most == 1 else 'pairs'} at "
            f"most: {1 / most:.2f} instructions a MAC would be its limit"
        )
    lines.append(f"eq_init, once: {profile.start.instructions:,} instructions")
    lines += profile.notes
    return tuple(lines)


# The text #


def text(report: Report) -> str:
    """`report.txt`: plain ASCII, in the blocks that users of ST's tools know."""
    lines = list(_lines(report))
    return "\n".join(line.encode("ascii", "replace").decode().rstrip() for line in lines) + "\n"


def _lines(report: Report) -> Iterator[str]:
    export, profile = report.export, report.profile
    weights = sum(layer.weight_bytes for layer in export.layers)
    yield f"edgeq {edgeq.__version__}"
    yield "=" * TEXT_WIDTH
    facts = (
        ("model", report.model),
        ("target", report.target),
        ("compiler", export.compiler or "not compiled"),
        ("optimize", export.optimize),
        ("macc", _count(sum(layer.macs for layer in export.layers)) or "0"),
        (
            "weights (ro)",
            f"{weights:,} B ({show_size(weights)}), {export.bits_per_weight:.2f} bits",
        ),
        ("activations (rw)", f"{export.ram.arena:,} B ({show_size(export.ram.arena)})"),
        ("flash total", f"{export.flash.total:,} B ({show_size(export.flash.total)})"),
        ("ram total", f"{export.ram.total:,} B ({show_size(export.ram.total)})"),
    )
    yield from (f"{key:<18}: {value}" for key, value in facts)
    if export.accuracy is not None:
        accuracy = export.accuracy
        yield f"{'accuracy':<18}: {accuracy.int:.2%}, float {accuracy.float:.2%}, " + (
            f"{accuracy.samples:,} samples"
        )
    yield from _block("Layers", _layers(export))
    yield from _block("Kernels", _choices(export))
    if export.routing is not None:
        yield from _block("Exits", _exits(export.routing))
        yield from routed(export.routing)
        yield from _block("Paths", _paths(export.routing, profile))
    yield from _block("Memory by section", _memory(export))
    yield f"not counted, tests only: {export.not_counted.flash:,} B of flash, " + (
        f"{export.not_counted.ram:,} B of RAM"
    )
    yield from _block("Artefacts", _artefacts(export))
    if profile is not None:
        yield from _block("One inference", work(profile))
        yield from how(profile)
        yield from _block("Flash by symbol", _symbols(profile, 4 * SYMBOLS))
    if report.gate is not None:
        for title, table in _gate_tables(report.gate):
            yield from _block(title, table)
        yield from _block("Gates", forms(report.gate))
        for line in how_gates(report.gate):
            yield from textwrap.wrap(line, TEXT_WIDTH)
    yield from _block("Prediction and execution", _checks(report.validate.rows))
    yield from ("", *(f"note: {note}" for note in export.notes))


def _block(title: str, table: Table) -> Iterator[str]:
    yield from ("", title, "-" * TEXT_WIDTH)
    titles = [heading.removeprefix(">") for heading in table.titles]
    rights = [heading.startswith(">") for heading in table.titles]
    widths = [
        max(map(len, (titles[column], *(row[column] for row in table.rows))))
        for column in range(len(titles))
    ]
    for row in (titles, *table.rows):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, rights, strict=True)
        )
        yield "  ".join(cells)
    yield "-" * TEXT_WIDTH
