"""What one inference takes on the emulated core: by layer, between layers, and in all.

Instructions are counted: block by block on Unicorn, which tells their classes as well, or by QEMU's
timer. Cycles are modelled from the classes by the target's cost table; `cycles_measured` stands for
a board's own log. The three never mix, and what cannot be counted is None, with a note.
"""

from __future__ import annotations

import collections
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeq import footprint, gates, kernels
from edgeq.build import Build, read_manifest
from edgeq.errors import IntegrityError, UsageError
from edgeq.exporters.gate_section import code
from edgeq.policy import describe
from edgeq.report import (
    Export,
    LayerWork,
    Measured,
    PathWork,
    Profile,
    Routing,
    Totals,
    Work,
)
from edgeq.target import Cost, InstructionClass, Target
from edgeq.targets import counters, emulators, instructions, runners
from edgeq.targets.counters import Blocks, Counter
from edgeq.targets.emulators import Firmware, Symbol
from edgeq.targets.instructions import Code
from edgeq.targets.qemu import QemuBoard
from edgeq.targets.runners import FIRMWARE, EmulatorInfo, EmulatorRunner

# What runs between the kernels; all else that an inference executes belongs to a layer.
OVERHEAD = ("eq_run", "eq_step", "eq_kernel_find", "eq_kernel_of", "eq_value")
OVERHEAD_FILE = "eq_run.c"  # and its statics
GATE = "eq_gate"  # what decides behind a head: these files, and the division that they call
DIVISION = "__"
HARNESS = "harness_"  # calls that a user's firmware makes in its own way


@dataclass(frozen=True, slots=True)
class Counts:
    """What a stretch of code took, before it has a name."""

    instructions: int = 0
    cycles: int | None = None
    reads: int | None = None
    dual_macs: int | None = None

    def work(self) -> Work:
        """As the report has it."""
        return Work(self.instructions, self.cycles, self.reads)


@dataclass(frozen=True, slots=True)
class Counted:
    """A firmware, counted: each operator that runs, one inference whole, what is no operator's."""

    layers: tuple[Counts, ...]
    whole: Counts
    overhead: Counts
    start: Counts


@dataclass(frozen=True, slots=True)
class Walk:
    """A path that is forced: as runners are told it, and the operators of each body and head."""

    forced: tuple[int, int]
    operators: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Walked:
    """What a path takes.

    `parts` are its bodies and heads with all that runs from operator to operator, `operators` are
    those of each alone. `gates` follow the heads; where no gate could be counted apart, the rest of
    the inference is divided among them. `whole` is the inference, in a run of its own.
    """

    operators: tuple[tuple[Counts, ...], ...]
    parts: tuple[Counts, ...]
    gates: tuple[Counts, ...]
    whole: Counts


def walk(firmware: Firmware, target: Target, walks: Sequence[Walk]) -> tuple[Walked, ...]:
    """What each of `walks` takes on the emulated core of `target`, with a sample of zeros.

    Raises:
        MissingToolError: the emulator or the disassembler is missing.
    """
    by = emulator(target)
    if by.name != runners.UNICORN.name:
        return tuple(_timed_walks(firmware, target, by, walks))
    runner = EmulatorRunner(firmware, target, by)
    board = runner.board
    assert isinstance(board, emulators.Board)  # UNICORN's
    with counters.counting(board) as counter:
        stretches = _Stretches(firmware, runner, counter)
        return tuple(stretches.walk(one) for one in walks)


def routed(
    firmware: Firmware, target: Target, samples: Sequence[bytes], tradeoff: int
) -> tuple[Counts, ...]:
    """What one inference of each sample takes where the gates send it at `tradeoff` (Q16.16).

    Only Unicorn counts it; samples are the bytes of all inputs, back to back.
    """
    runner = EmulatorRunner(firmware, target, runners.UNICORN)
    board = runner.board
    assert isinstance(board, emulators.Board)  # UNICORN's
    runner.route(tradeoff)
    with counters.counting(board) as counter:
        stretches = _Stretches(firmware, runner, counter)
        return tuple(stretches.inference(sample)[0] for sample in samples)


def _timed_walks(
    firmware: Firmware, target: Target, by: EmulatorInfo, walks: Sequence[Walk]
) -> Iterator[Walked]:
    linked = {symbol.name for symbol in firmware.symbols}
    names = [
        k.symbol
        for k in kernels.table()
        if k.symbol in linked and k.family not in kernels.GATE_FORMS.values()
    ]
    timed = replace(by, board=partial(QemuBoard, counting=True))
    with closing(EmulatorRunner(firmware, target, timed)) as runner:
        board = runner.board
        assert isinstance(board, QemuBoard)
        context, result = (
            board.symbol(f"harness_{name}").address for name in ("context", "result")
        )
        board.start_timer()
        sample = bytes(runner.input_bytes)
        for one in walks:
            runner.force(one.forced)
            runner.fill(sample)
            counts = [Counts(number) for number in board.operators(names)]
            runner.fill(sample)
            whole = board.instructions("eq_run", context, result)
            operators = tuple(_split(counts, one.operators))
            parts = tuple(_added(part) for part in operators)
            rest = whole - sum(part.instructions for part in parts)
            count = len(one.operators) // 2
            gates = tuple(Counts(rest // count) for _ in range(count))
            yield Walked(operators, parts, gates, Counts(whole))


def _split(counts: Sequence[Counts], sizes: Sequence[int]) -> Iterator[tuple[Counts, ...]]:
    if len(counts) != sum(sizes):
        raise AssertionError(f"{len(counts)} operators ran, {sum(sizes)} were expected")
    start = 0
    for size in sizes:
        yield tuple(counts[start : start + size])
        start += size


def _added(counts: Sequence[Counts]) -> Counts:
    """The sum; what one of them does not tell is not told."""

    def add(values: Sequence[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    return Counts(
        sum(one.instructions for one in counts),
        add([one.cycles for one in counts]),
        add([one.reads for one in counts]),
        add([one.dual_macs for one in counts]),
    )


def count(firmware: Firmware, target: Target, by: EmulatorInfo | None = None) -> Counted:
    """What `firmware` executes on the emulated core of `target`, with a sample of zeros.

    Raises:
        UsageError: it executes more than the emulator's timer can count.
        MissingToolError: the emulator or the disassembler is missing.
    """
    by = by or emulator(target)
    return _COUNTERS[by.name](firmware, target, by)


def emulator(target: Target) -> EmulatorInfo:
    """The emulator that counts what `target` executes: the preferred one.

    Raises:
        MissingToolError: it, or the disassembler for it, is not installed.
    """
    found = runners.find_emulator(
        target, next((e.name for e in runners.emulators_of(target)), None)
    )
    if found is runners.UNICORN:
        instructions.decoder(target.board)
    return found


def _by_blocks(firmware: Firmware, target: Target, by: EmulatorInfo) -> Counted:
    runner = EmulatorRunner(firmware, target, by)
    board = runner.board
    assert isinstance(board, emulators.Board)  # UNICORN's
    with counters.counting(board) as counter:
        stretches = _Stretches(firmware, runner, counter)
        layers = tuple(stretches.layers())
        whole, overhead = stretches.inference()
        return Counted(layers, whole, overhead, stretches.start())


def _by_timer(firmware: Firmware, target: Target, by: EmulatorInfo) -> Counted:
    """Instructions alone: the timer does not tell what they are or read."""
    linked = {symbol.name for symbol in firmware.symbols}
    names = [kernel.symbol for kernel in kernels.table() if kernel.symbol in linked]
    timed = replace(by, board=partial(QemuBoard, counting=True))
    with closing(EmulatorRunner(firmware, target, timed)) as runner:
        board = runner.board
        assert isinstance(board, QemuBoard)
        context, result, config = (
            board.symbol(f"harness_{name}").address for name in ("context", "result", "config")
        )
        board.start_timer()
        sample = bytes(runner.input_bytes)
        runner.fill(sample)
        layers = tuple(board.operators(names))
        runner.fill(sample)
        whole = board.instructions("eq_run", context, result)
        start = board.instructions("eq_init", context, config)
    if whole < sum(layers):  # the timer went round
        raise UsageError(
            "EQ0244",
            f"{target.name}: an inference takes more instructions than QEMU's timer can count; "
            f"its layers take {sum(layers):,}",
        )
    return Counted(
        tuple(map(Counts, layers)), Counts(whole), Counts(whole - sum(layers)), Counts(start)
    )


_COUNTERS: Mapping[str, Callable[[Firmware, Target, EmulatorInfo], Counted]] = {
    "unicorn": _by_blocks,
    "qemu": _by_timer,
}
UNCOUNTED = {"qemu": "no flash reads, no dual multiplications: QEMU's timer counts instructions"}


def run(build: Build, target: Target) -> Profile:
    """The profile of `build`, which was made for `target`.

    Raises:
        UsageError: the build was not linked, or runs longer than can be counted.
        MissingToolError: the emulator or the disassembler is missing.
    """
    if not target.linked:
        raise UsageError(
            "EQ0249",
            f"no firmware is linked for {target.name}: instructions are counted on an emulated "
            "core; export for one, as --target mcu",
        )
    counted_by = emulator(target)
    path = build.folder / FIRMWARE
    if not path.is_file():
        raise UsageError(
            "EQ0240",
            f"{build.folder} has no {FIRMWARE}: it was exported with --check none or host; "
            "export it with --check emulator to profile it",
        )
    firmware = emulators.read_firmware(path)
    report, export = build.report, build.report.export
    found = (
        _whole(firmware, target, export)
        if export.routing is None
        else _walked(firmware, target, export, export.routing)
    )
    executed = [layer for layer in export.layers if layer.kernel is not None]
    layers = tuple(
        LayerWork(
            name=layer.name,
            kernel=str(layer.kernel),
            macs=layer.macs,
            instructions=counts.instructions,
            cycles_model=counts.cycles,
            cycles_measured=None,
            flash_read_bytes=counts.reads,
            dual_macs=counts.dual_macs,
        )
        for layer in executed
        if (counts := found.layers.get(layer.name)) is not None
    )
    whole = found.whole
    return Profile(
        core=target.core,
        emulator=f"{counted_by.name} {counted_by.version()}",
        compiler=export.compiler,
        cost_source=None if target.cost is None else target.cost.source,
        macs_per_instruction=None if target.cost is None else target.cost.macs_per_instruction,
        layers=layers,
        overhead=found.overhead.work(),
        start=found.start.work(),
        totals=Totals(
            whole.instructions,
            whole.cycles,
            None,
            whole.reads,
            sum(layer.macs for layer in executed if layer.name in found.on),
        ),
        flash=export.flash,
        ram=export.ram,
        symbols=footprint.by_symbol(firmware, report.model, kernels.table()),
        notes=tuple(_notes(target, counted_by)),
        gates=tuple(one.work() for one in found.gates),
        paths=found.paths,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What was counted, layers by name; `on` names those of the inference that `whole` is of."""

    layers: Mapping[str, Counts]
    on: AbstractSet[str]
    whole: Counts
    overhead: Counts
    start: Counts
    gates: tuple[Counts, ...] = ()
    paths: tuple[PathWork, ...] = ()


def _whole(firmware: Firmware, target: Target, export: Export) -> _Found:
    counted = count(firmware, target)
    names = [layer.name for layer in export.layers if layer.kernel is not None]
    layers = dict(zip(names, counted.layers, strict=True))
    return _Found(layers, set(names), counted.whole, counted.overhead, counted.start)


def _walked(firmware: Firmware, target: Target, export: Export, routing: Routing) -> _Found:
    """The same of a network with exits: every path is forced; the whole one is that of level 0."""
    paths = [path.levels for path in routing.paths]
    names = [layers_on(export, path) for path in paths]
    walks = [
        Walk((code(path), len(path) - 1), tuple(map(len, parts)))
        for path, parts in zip(paths, names, strict=True)
    ]
    walked = walk(firmware, target, walks)
    layers = {
        name: counts
        for parts, one in zip(names, walked, strict=True)
        for part, counted in zip(parts, one.operators, strict=True)
        for name, counts in zip(part, counted, strict=True)
    }
    longest = max(map(len, paths))
    top = min((path, i) for i, path in enumerate(paths) if len(path) == longest)[1]
    on = [name for part in names[top] for name in part]
    inside = _added([layers[name] for name in on] + list(walked[top].gates))
    return _Found(
        layers,
        set(on),
        walked[top].whole,
        _less(walked[top].whole, inside),
        count(firmware, target).start,
        walked[top].gates,
        tuple(
            PathWork(path, one.whole.instructions, one.whole.cycles)
            for path, one in zip(paths, walked, strict=True)
        ),
    )


def layers_on(export: Export, path: gates.Path) -> tuple[tuple[str, ...], ...]:
    """The layers that run on `path`: those of each body and head on it, in their order.

    Levels that share what they compute have one row each, that of the most precise.
    """
    order = list(dict.fromkeys(layer.block for layer in export.layers))
    found = []
    for index, level in enumerate(path):
        for block in order[2 * index : 2 * index + 2]:
            rows = [layer for layer in export.layers if layer.block == block]
            own = [row.level for row in rows if row.level is not None and row.level <= level]
            chosen = max(own, default=None)
            found.append(
                tuple(row.name for row in rows if row.level == chosen and row.kernel is not None)
            )
    return tuple(found)


def _less(whole: Counts, part: Counts) -> Counts:
    def sub(a: int | None, b: int | None) -> int | None:
        return None if a is None or b is None else a - b

    return Counts(
        whole.instructions - part.instructions,
        sub(whole.cycles, part.cycles),
        sub(whole.reads, part.reads),
    )


def cover(paths: Iterable[gates.Path]) -> tuple[gates.Path, ...]:
    """A few of `paths`, long ones first, that go wherever all of them go."""
    left = sorted(paths, key=lambda path: (-len(path), path))
    wanted = {step for path in left for step in enumerate(path)}
    found = []
    while wanted:
        best = max(left, key=lambda path: len(wanted & set(enumerate(path))))
        found.append(best)
        wanted -= set(enumerate(best))
    return tuple(found)


def _notes(target: Target, by: EmulatorInfo) -> Iterator[str]:
    """Why figures are missing."""
    if by.name in UNCOUNTED:
        yield UNCOUNTED[by.name]
    if target.no_cost:
        yield f"no cycles: {target.no_cost}"


class _Stretches:
    """The firmware on its emulated core, counted in stretches."""

    def __init__(self, firmware: Firmware, runner: EmulatorRunner, counter: Counter) -> None:
        self._runner = runner
        self._counter = counter
        self._sample = bytes(runner.input_bytes)
        self._decode = instructions.decoder(runner.board.target.board)
        self._codes: dict[tuple[int, int], Code] = {}
        self._cost = runner.board.target.cost
        functions = sorted(
            (symbol.address, _attributed(symbol))
            for symbol in firmware.symbols
            if symbol.kind == "STT_FUNC"
        )
        self._starts = [address for address, _ in functions]
        self._names = [name for _, name in functions]

    def layers(self) -> list[Counts]:
        """Every operator that runs, in their order, without what runs between them."""
        self._fill()
        return [self._sum(self._counter.take(), self._is_layer) for _ in self._runner.steps()]

    def inference(self, sample: bytes | None = None) -> tuple[Counts, Counts]:
        """One inference as a user calls it, and its overhead; counted anew, in one piece."""
        self._fill(sample)
        self._runner.infer()
        blocks = self._counter.take()
        return self._sum(blocks, self._is_users), self._sum(blocks, lambda name: name in OVERHEAD)

    def walk(self, walk: Walk) -> Walked:
        """What a forced path takes, operator by operator and whole."""
        self._runner.force(walk.forced)
        self._fill()
        ends = set(accumulate(walk.operators))
        operators, steps, gates = [], [], []
        for index, _ in enumerate(self._runner.steps(), start=1):
            blocks = self._counter.take()
            decided, worked = self._apart(blocks) if index in ends else ({}, blocks)
            operators.append(self._sum(worked, self._is_layer))
            steps.append(self._sum(worked, self._is_users))
            if index in ends:
                gates.append(self._sum(decided, self._is_users))
        self._fill()
        self._runner.infer()
        whole = self._sum(self._counter.take(), self._is_users)
        parts = tuple(map(_added, _split(steps, walk.operators)))
        heads = range(1, len(walk.operators), 2)
        return Walked(
            tuple(_split(operators, walk.operators)), parts, tuple(gates[i] for i in heads), whole
        )

    def start(self) -> Counts:
        """`eq_init`, checksum and checks."""
        self._counter.take()
        self._runner.start()
        return self._sum(self._counter.take(), self._is_users)

    def _fill(self, sample: bytes | None = None) -> None:
        self._runner.fill(self._sample if sample is None else sample)
        self._counter.take()  # finding the inputs runs code, too

    def _is_users(self, name: str) -> bool:
        return not name.startswith(HARNESS)

    def _is_layer(self, name: str) -> bool:
        return name not in OVERHEAD and not name.startswith(HARNESS)

    def _apart(self, blocks: Blocks) -> tuple[Blocks, Blocks]:
        """The blocks of gates, and the others."""
        decides = {block: self._function(block[0]).startswith((GATE, DIVISION)) for block in blocks}
        return (
            {block: count for block, count in blocks.items() if decides[block]},
            {block: count for block, count in blocks.items() if not decides[block]},
        )

    def _function(self, address: int) -> str:
        return self._names[bisect_right(self._starts, address) - 1]

    def _code(self, block: tuple[int, int]) -> Code:
        if block not in self._codes:
            address, size = block
            self._codes[block] = self._decode(self._runner.board.read(address, size), address)
        return self._codes[block]

    def _sum(self, blocks: Blocks, wanted: Callable[[str], bool]) -> Counts:
        """The counts of the blocks whose function is wanted."""
        classes: collections.Counter[InstructionClass] = collections.Counter()
        counted = dual_macs = reads = 0
        for block, count in blocks.items():
            if not wanted(self._function(block[0])):
                continue
            code = self._code(block)
            counted += code.instructions * count.times
            dual_macs += code.dual_macs * count.times
            reads += count.reads
            for kind, number in code.classes.items():
                classes[kind] += number * count.times
            classes["refill"] += code.refills * (count.times - count.fallen)
        return Counts(counted, _cycles(self._cost, classes), reads, dual_macs)


def _attributed(symbol: Symbol) -> str:
    """Statics of the runtime and of the gates go by their file, the others by their name."""
    if symbol.file == OVERHEAD_FILE:
        return OVERHEAD[0]
    return GATE if symbol.file.startswith(GATE) else symbol.name


def _cycles(cost: Cost | None, classes: collections.Counter[InstructionClass]) -> int | None:
    if cost is None:
        return None
    return sum(cost.cycles[kind].cycles * count for kind, count in classes.items())


# A board's log #


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    cycles: Annotated[int, Field(gt=0)]


class _Log(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: Annotated[Literal[1], Field(alias="schema")]
    image: str
    board: str
    clock_hz: Annotated[int, Field(gt=0)]
    compiler: str
    layers: list[_Entry]


def with_measured(section: Profile, build: Build, log: Path) -> Profile:
    """`section` with the cycles of each layer that a board wrote to `log`.

    Raises:
        UsageError: the log cannot be read, or lacks a layer.
        IntegrityError: it is of another model image.
    """
    try:
        found = _Log.model_validate(json.loads(log.read_bytes()))
    except OSError as error:
        raise UsageError("EQ0241", f"{log} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise UsageError("EQ0241", describe(error, log.name)) from error
    except ValueError as error:
        raise UsageError("EQ0241", f"{log.name} is no JSON: {error}") from error
    name = f"{build.report.model}.eqb"
    image = read_manifest(build.folder)["files"].get(name)
    if found.image != image:
        raise IntegrityError(
            "EQ0720",
            f"{log.name} is of another model: its image is {found.image}, {name} is {image}",
        )
    if section.paths:
        raise UsageError(
            "EQ0255", f"{log.name}: a board's cycles by layer are of a network without exits"
        )
    cycles = {entry.name: entry.cycles for entry in found.layers}
    wanted = [layer.name for layer in section.layers]
    if sorted(cycles) != sorted(wanted) or len(cycles) != len(found.layers):
        raise UsageError(
            "EQ0241", f"{log.name} must have each layer once; layers are {', '.join(wanted)}"
        )
    return replace(
        section,
        layers=tuple(
            replace(layer, cycles_measured=cycles[layer.name]) for layer in section.layers
        ),
        totals=replace(section.totals, cycles_measured=sum(cycles.values())),
        measured=Measured(found.board, found.clock_hz, found.compiler),
    )
