"""How reports look on a terminal. Everything shown was computed elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import (
    Console,
    ConsoleOptions,
    Group,
    JustifyMethod,
    RenderableType,
    RenderResult,
)
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from edgeq import comparison, pages
from edgeq.budget import show_size, show_use
from edgeq.build import Build
from edgeq.gating import Gated
from edgeq.inventory import Device, Part
from edgeq.pipeline import Progress as Callback
from edgeq.reference import Rounding
from edgeq.report import (
    Budget,
    Change,
    Check,
    Difference,
    Explain,
    Export,
    Fit,
    Flash,
    Gate,
    Layer,
    PartChange,
    Profile,
    Ram,
    Report,
    Row,
    Verdict,
    dumps,
)

BAR_WIDTH = 32
NOISY_DB = 15.0  # layers below it are marked
WORST_LAYERS = 3
EXACT = 1000  # from here on figures are whole numbers
# What tables can do without, the first the most.
SPARE_WORK = (">share", ">flash read", ">MACs")
SPARE_LAYERS = (">MACs", ">output", "kernel")
SPARE_CHECK = (">output", "operator")
UNBOUNDED = 10_000  # columns: wider than any table
FLASH_PARTS = ("weights", "tables", "gates", "kernels", "runtime")
RAM_PARTS = ("arena", "context", "io", "stack")
SHADES = ("blue", "cyan", "magenta", "yellow", "green")


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), header_style="dim")


@dataclass(frozen=True, slots=True)
class Columns:
    """A table that leaves out columns of `spare`, the first ones first, until it fits the terminal.

    A title that begins with > is of numbers, set right. What still does not fit folds.
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[str | Text]]
    spare: Sequence[str] = ()
    styles: Mapping[str, str] = field(default_factory=dict)  # of rows, by what they begin with

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(max_width=UNBOUNDED)
        for count in range(len(self.spare) + 1):
            table = self._without(self.spare[:count])
            if console.measure(table, options=wide).maximum <= options.max_width:
                break
        yield table

    def _without(self, left_out: Sequence[str]) -> Table:
        shown = [i for i, title in enumerate(self.titles) if title not in left_out]
        table = _table()
        for title in (self.titles[i] for i in shown):
            number = title.startswith(">")
            justify: JustifyMethod = "right" if number else "left"
            heading = title.removeprefix(">")
            table.add_column(heading, justify=justify, no_wrap=number, overflow="fold")
        for row in self.rows:
            table.add_row(*(row[i] for i in shown), style=self.styles.get(str(row[0])))
        return table


@contextlib.contextmanager
def progress() -> Iterator[Callback]:
    """A callback that draws bars on stderr, or a line per stage where that is no terminal."""
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<28}"), BarColumn(BAR_WIDTH), TaskProgressColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield update


def _plain_lines() -> Callback:
    seen: set[str] = set()

    def update(stage: str, done: int, total: int) -> None:
        if stage not in seen:
            seen.add(stage)
            print(f"edgeq: {stage}", file=sys.stderr, flush=True)

    return update


def _show(facts: object, view: RenderableType, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(dumps(facts))
    else:
        Console(highlight=False).print(view)


def show_export(build: Build, *, as_json: bool) -> None:
    """Prints what `export` did to stdout."""
    if as_json:
        sys.stdout.write(dumps(build.report.to_json()["export"]))
        return
    console = Console(highlight=False)
    console.print(export_view(build.report))
    console.print(f"[bold]written to[/] {build.folder}", soft_wrap=True)
    console.print("[dim]next: open README.txt there; try another policy with --policy w4a8[/]")


def export_view(report: Report) -> RenderableType:
    """Layers, memory against budget, accuracy, checks and notes."""
    export = report.export
    title = Text.assemble((report.model, "bold"), " for ", (report.target, "bold"))
    title.append(f"  {export.compiler or 'not compiled'}, optimized for {export.optimize}", "dim")
    return Group(
        title,
        "",
        _layers(export),
        "",
        _noisiest(export),
        "",
        _memory(export.flash, export.ram, export.budget),
        _artefacts(export),
        "",
        *_accuracy(export),
        *_routing(export),
        *(_check(row) for row in report.validate.rows),
        "",
        *(Text(f"note: {note}", "dim") for note in export.notes),
    )


def show_check(found: Check, *, as_json: bool) -> None:
    """Prints what `check` found to stdout."""
    _show(asdict(found), check_view(found), as_json=as_json)


def check_view(found: Check) -> RenderableType:
    """What is refused and why; else the layers, their bytes and the estimate."""
    title = Text.assemble((found.model, "bold"), " for ", (found.target, "bold"))
    title.append(f"  under {found.policy}", "dim")
    parts: list[RenderableType] = [title, ""]
    if found.refusals:
        good = sum(operator.refusal is None for operator in found.operators)
        parts.append(f"{good} of {len(found.operators)} operators are supported")
        parts += [Text(f"✗ {refusal}", "red") for refusal in found.refusals]
    if found.fit is not None:
        parts += [_checked(found), "", _fit_view(found.fit)]
    return Group(*parts, *(Text(f"note: {note}", "dim") for note in found.notes))


def _checked(found: Check) -> Columns:
    rows: list[tuple[str | Text, ...]] = [
        (
            layer.name,
            Text(layer.op, "dim"),
            "×".join(map(str, layer.shape[1:])),
            *_sizes(layer.macs, layer.bytes_8, layer.bytes_4, layer.bytes_2),
        )
        for layer in found.layers
    ]
    sums = (
        sum(int(getattr(layer, name)) for layer in found.layers)
        for name in ("macs", "bytes_8", "bytes_4", "bytes_2")
    )
    titles = ("layer", "operator", ">output", ">MACs", ">8 bits", ">4 bits", ">2 bits")
    return Columns(titles, [*rows, ("all", "", "", *_sizes(*sums))], SPARE_CHECK, {"all": "bold"})


def _sizes(*sizes: int) -> tuple[str, ...]:
    return tuple(f"{size:,}" if size else "" for size in sizes)


def _fit_view(fit: Fit) -> RenderableType:
    verdict = "it would fit" if fit.fits else "it would NOT fit"
    return Group(
        _memory(fit.flash, fit.ram, fit.budget),
        "",
        Text(
            f"{verdict}, by estimate; activations take {show_size(fit.peak)} at most",
            "" if fit.fits else "red",
        ),
    )


def show_explain(found: Explain, *, as_json: bool) -> None:
    """Prints what `explain` found to stdout."""
    _show(asdict(found), explain_view(found), as_json=as_json)


def explain_view(found: Explain) -> RenderableType:
    """Before, after and the difference, a line for each figure."""
    before, after = found.before, found.after
    title = Text.assemble(
        (found.layer, "bold"), f": weights {before.weights} → {after.weights} bit"
    )
    title.append(f"  {found.model} for {found.target}, {found.compiler or 'not linked'}", "dim")
    table = _table()
    table.add_column("")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, old, new in (
        ("weights, bytes", before.weight_bytes, after.weight_bytes),
        ("flash, bytes", before.flash, after.flash),
        ("arena, bytes", before.arena, after.arena),
        ("instructions of the layer", before.instructions, after.instructions),
        ("cycles* of the layer", before.cycles_model, after.cycles_model),
        ("instructions of all", before.total_instructions, after.total_instructions),
        ("cycles* of all", before.total_cycles_model, after.total_cycles_model),
    ):
        if old is not None and new is not None:
            table.add_row(name, f"{old:,}", f"{new:,}", f"{new - old:+,} ({new / old - 1:+.1%})")
    if before.sqnr_db is not None and after.sqnr_db is not None:
        gained = after.sqnr_db - before.sqnr_db
        table.add_row(
            "SQNR of the layer, dB",
            f"{before.sqnr_db:.1f}",
            f"{after.sqnr_db:.1f}",
            f"{gained:+.1f}",
        )
    if before.kernel != after.kernel:
        table.add_row("kernel", before.kernel, after.kernel, "")
    notes = [*found.notes, *(["* modelled, not measured"] if before.cycles_model else [])]
    return Group(title, "", table, "", *(Text(f"note: {note}", "dim") for note in notes))


def show_profile(build: Build, *, as_json: bool) -> None:
    """Prints what `profile` found to stdout."""
    if as_json:
        sys.stdout.write(dumps(build.report.to_json()["profile"]))
        return
    if build.report.profile is not None:
        Console(highlight=False).print(profile_view(build.report, build.report.profile))


def profile_view(report: Report, profile: Profile) -> RenderableType:
    """Instructions, cycles and flash reads by layer, between them and in all."""
    title = Text.assemble((report.model, "bold"), " on ", (profile.core, "bold"))
    title.append("  one inference", "dim")
    lines = (Text(line, "dim") for line in pages.how(profile))
    return Group(title, "", _work(profile), "", *lines)


def _work(profile: Profile) -> Columns:
    work = pages.work(profile)
    return Columns(work.titles, work.rows, SPARE_WORK, {"total": "bold", "overhead": "dim"})


def _layers(export: Export) -> Columns:
    titles = ("layer", "kernel", ">MACs", ">bits", ">bytes", ">output", ">SQNR")
    rows = [_layer_cells(layer) for layer in export.layers if layer.kernel is not None]
    return Columns(titles, rows, SPARE_LAYERS)


def _layer_cells(layer: Layer) -> tuple[str | Text, ...]:
    weights = layer.bits.weights
    noise = "exact" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB"
    loud = layer.sqnr_db is not None and layer.sqnr_db < NOISY_DB
    stored = "" if weights is None else str(weights.stored)
    if weights is not None and weights.stored != weights.requested:
        stored += f" (asked {weights.requested})"
    return (
        layer.name,
        Text((layer.kernel or "").removeprefix("eq_"), "dim"),
        f"{layer.macs:,}" if layer.macs else "",
        stored,
        f"{layer.weight_bytes:,}" if layer.weight_bytes else "",
        f"{layer.bits.activations.stored} bit",
        Text(noise, "yellow" if loud else ""),
    )


def _memory(flash: Flash, ram: Ram, budget: Budget) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    named = [(part, int(getattr(flash, part))) for part in FLASH_PARTS]
    _add_usage(table, "flash", named, flash.total, budget.flash, flash.estimated)
    named = [(part, int(getattr(ram, part))) for part in RAM_PARTS]
    _add_usage(table, "RAM", named, ram.total, budget.ram, ram.estimated)
    return table


def _add_usage(
    table: Table,
    name: str,
    parts: list[tuple[str, int]],
    total: int,
    limit: int | None,
    estimated: bool,
) -> None:
    """A bar of the budget, or of all, with the sum; below it the parts in the bar's colours."""
    bar, legend = Text(), Text()
    filled = 0.0
    for (part, size), shade in zip(parts, SHADES, strict=False):
        if size:
            before, filled = filled, filled + size * BAR_WIDTH / (limit or total)
            bar.append("█" * (round(filled) - round(before)), shade)
            legend.append(f"{part} ", shade)
            legend.append(f"{show_size(size)}  ")
    bar.append("░" * max(0, BAR_WIDTH - len(bar)), "dim")
    about = "about " if estimated else ""
    table.add_row(name, Text.assemble(bar, "  ", about, show_use(total, limit)))
    table.add_row("", legend)


def _artefacts(export: Export) -> Text:
    shown = (f"{a.file} {show_size(a.bytes)} ({a.format})" for a in export.artefacts)
    return Text("artefacts: " + ", ".join(shown), "dim")


def _accuracy(export: Export) -> list[RenderableType]:
    accuracy = export.accuracy
    if accuracy is None:
        return []
    change = 100 * (accuracy.int - accuracy.float)
    return [
        f"accuracy {accuracy.int:.2%}, float {accuracy.float:.2%} ({change:+.2f} points) "
        f"on {accuracy.samples:,} labelled samples"
    ]


def _routing(export: Export) -> list[RenderableType]:
    """Where the gates send the samples, and what that costs."""
    routing = export.routing
    if routing is None:
        return []
    table = _table()
    table.add_column("exit", no_wrap=True)
    for heading in ("inputs", "right", "on levels"):
        table.add_column(heading, justify="left" if heading == "on levels" else "right")
    for number, use in enumerate(routing.exits, start=1):
        ways = [p for p in routing.paths if len(p.levels) == number and p.share]
        ways.sort(key=lambda way: -way.share)
        shown = ", ".join(f"{''.join(map(str, w.levels))} {w.share:.1%}" for w in ways)
        right = "" if use.top1 is None else f"{use.top1:.1%}"
        table.add_row(use.name, f"{use.share:.1%}", right, shown)
    return [table, *(Text(line, "dim") for line in pages.routed(routing)), ""]


def _noisiest(export: Export) -> str:
    """The layers that lose most of the signal: where more bits would help first."""
    known = [(layer.sqnr_db, layer.name) for layer in export.layers if layer.sqnr_db is not None]
    worst = ", ".join(f"{name} {noise:.1f} dB" for noise, name in sorted(known)[:WORST_LAYERS])
    return f"{export.bits_per_weight:.2f} bits a weight; noisiest layers: {worst}"


def _check(row: Row) -> Text:
    exact = row.verdict is Verdict.EXACT
    verdict = "equal, bit for bit" if exact else f"{row.mismatches} differ"
    text = Text("✓ " if exact else "✗ ", "green" if exact else "red")
    text.append(f"{row.runner:<14} {verdict} on {row.samples} samples", "")
    text.append(f"  {row.version}", "dim")
    return text


def show_validate(build: Build, *, as_json: bool) -> None:
    """Prints the ladder that `validate` climbed."""
    _show(build.report.to_json()["validate"], validate_view(build.report), as_json=as_json)


def _rule_line(row: Row) -> str:
    found = row.rule_distance
    assert found is not None
    line = (
        f"{row.runner} rounds by its own rule: {found.mismatches:,} samples move, by "
        f"{found.max_lsb} steps at most"
    )
    if found.routes is None:
        return line
    return f"{line}; {found.routes:,} ({found.routes / row.samples:.2%}) take another path"


def validate_view(report: Report) -> RenderableType:
    """A line for each row: whether it is equal, how good it is, and what it is."""
    rows = report.validate.rows
    title = Text.assemble((report.model, "bold"), " for ", (report.target, "bold"))
    table = _table()
    table.add_column("", no_wrap=True)
    table.add_column("against the reference")
    for heading in ("samples", "top-1", "cosine", "SQNR"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_rung_cells(row))
    apart = [Text(_rule_line(row), "dim") for row in rows if row.rule_distance is not None]
    about = [Text(f"{r.runner}: {r.reason or r.version}", "dim") for r in rows]
    return Group(title, "", table, "", *apart, *about)


STANDINGS = {"ahead": "green", "behind": "red"}
MARKS = {
    Verdict.BASE: ("·", "dim"),
    Verdict.EXACT: ("✓", "green"),
    Verdict.DIFFERS: ("✗", "red"),
    Verdict.SKIPPED: ("-", "yellow"),
}


def _rung_cells(row: Row) -> tuple[str | Text, ...]:
    mark, style = MARKS[row.verdict]
    found = {
        Verdict.BASE: "",
        Verdict.EXACT: "BIT-EXACT",
        Verdict.DIFFERS: f"{row.mismatches} differ, by {row.max_lsb} at most, first in "
        f"{row.first_diverging_layer}",
        Verdict.SKIPPED: "skipped",
    }[row.verdict]
    if row.verdict is Verdict.EXACT and row.rule != Rounding.DOUBLE.value:
        found += f" ({row.rule} rule)"
    return (
        Text.assemble((mark, style), f" {row.runner}"),
        Text(found, style),
        f"{row.samples:,}" if row.samples else "",
        "" if row.top1 is None else f"{row.top1:.2%}",
        "" if row.cosine is None else f"{row.cosine:.5f}",
        "" if row.sqnr_db is None else f"{row.sqnr_db:.1f} dB",
    )


def show_diff(found: Difference, *, as_json: bool) -> None:
    """Prints what changed from one build to another."""
    _show(asdict(found), diff_view(found), as_json=as_json)


def diff_view(found: Difference) -> RenderableType:
    """The figures of both builds, then the layers that are not the same."""
    figures = _table()
    figures.add_column("")
    for heading in ("old", "new", "change"):
        figures.add_column(heading, justify="right", no_wrap=True)
    for change in found.figures:
        if change.old is not None or change.new is not None:
            figures.add_row(*_change_cells(change))
    same = Text("every layer is the same", "dim")
    notes = (Text(note, "yellow") for note in found.notes)
    parts: list[RenderableType] = [_parts("layer", found.layers) if found.layers else same]
    if found.exits:
        parts += ["", _parts("exit", found.exits)]
    return Group(*notes, figures, "", *parts)


def _parts(kind: str, changes: Sequence[PartChange]) -> Table:
    """What differs in layers or exits, a line for each figure."""
    table = _table()
    for heading in (kind, "old", "new"):
        table.add_column(heading, overflow="fold")
    for part in changes:
        table.add_row(part.name)
        for key in part.old | part.new:
            cells = (_fact(side.get(key)) for side in (part.old, part.new))
            table.add_row(Text(f"  {key.replace('_', ' ')}", "dim"), *cells)
    return table


def _fact(value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value.removeprefix("eq_")
    return f"{value:,}" if isinstance(value, int) else f"{value:.1%}"


def _change_cells(change: Change) -> tuple[str, ...]:
    name, old, new = change.name, change.old, change.new
    if name in comparison.POINTS:
        sides = ["-" if side is None else f"{side:.2%}" for side in (old, new)]
        moved = "" if old is None or new is None else f"{100 * (new - old):+.2f} points"
        return (name, *sides, moved)
    sides = ["-" if side is None else _number(side) for side in (old, new)]
    if old is None or new is None:
        return (name, *sides, "")
    share = f" ({new / old - 1:+.1%})" if old else ""
    sign = "+" if new > old else ""
    return (name, *sides, f"{sign}{_number(new - old)}{share}" if new != old else "same")


def _number(value: float) -> str:
    """Costs are floats, of which fractions say nothing; bits a weight have some."""
    return f"{value:,.0f}" if abs(value) >= EXACT else f"{round(value, 4):,}"


def show_gate(found: Gated, *, as_json: bool) -> None:
    """Prints what the gates of a policy are worth, and where it was written."""
    if as_json:
        sys.stdout.write(dumps(asdict(found.section)))
        return
    console = Console(highlight=False)
    console.print(gate_view(found.model, found.section))
    console.print(f"[bold]written to[/] {escape(str(found.file))}", soft_wrap=True)
    console.print(
        f"[dim]next: edgeq export MODEL --policy {escape(str(found.file))} --calib …[/]",
        soft_wrap=True,
    )


def gate_view(model: str, gate: Gate) -> RenderableType:
    """Operating points, both forms, baselines with their intervals, and where figures come from."""
    title = Text.assemble((model, "bold"), " for ", (gate.target, "bold"))
    title.append(f"  gates: {gate.form}, {gate.bytes:,} bytes", "dim")
    parts: list[RenderableType] = [title, "", _plain(pages.operating(gate)), ""]
    parts += [_plain(pages.forms(gate)), ""]
    if gate.baselines:
        parts += [_plain(pages.baselines(gate)), ""]
    return Group(*parts, *(Text(line, "dim") for line in pages.how_gates(gate)))


def _plain(shown: pages.Table) -> Columns:
    """A table of a page as one of a terminal."""
    rows = [[Text(cell, STANDINGS.get(cell, "")) for cell in row] for row in shown.rows]
    return Columns(shown.titles, rows)


def show_targets(devices: Sequence[Device], *, as_json: bool) -> None:
    """Prints the devices and cores that there are."""
    if as_json:
        sys.stdout.write(dumps([asdict(device) for device in devices]))
        return
    table = _table()
    for title in ("target", "core", "flash", "RAM", "isa", "compilers", "emulators"):
        right = title in ("flash", "RAM")
        table.add_column(title, justify="right" if right else "left", no_wrap=title == "target")
    for device in devices:
        table.add_row(*_device_cells(device))
    console = Console(highlight=False)
    console.print(table)
    console.print("")
    for device in devices:
        alias = "".join(f" (also {alias})" for alias in device.aliases)
        console.print(f"[bold]{device.name}[/]{alias}: {device.description}", soft_wrap=True)
    console.print("")
    console.print("[dim]1 KB = 1024 B; cores without memory need --flash and --ram[/]")


def _device_cells(device: Device) -> tuple[str, ...]:
    return (
        device.name,
        device.core or "-",
        *("-" if size is None else show_size(size) for size in (device.flash, device.ram)),
        *(", ".join(names) or "none" for names in (device.isa, device.compilers, device.emulators)),
    )


def show_doctor(parts: Sequence[Part], *, as_json: bool) -> None:
    """Prints what was found, what it unlocks and what installs the rest."""
    if as_json:
        sys.stdout.write(dumps([asdict(part) for part in parts]))
        return
    table = Table.grid(padding=(0, 1, 0, 0))
    for _ in range(4):
        table.add_column(no_wrap=True)
    table.add_column()  # wraps
    for part in parts:
        mark = Text("✗", "red") if part.version is None else Text("✓", "green")
        table.add_row(mark, part.kind, part.name, part.version or "missing", part.unlocks)
    console = Console(highlight=False)
    console.print(table)
    for part in parts:
        if part.version is None:
            line = f"{part.name}: [bold]{escape(part.install)}[/]"
            console.print(line, soft_wrap=True)  # a command to copy
