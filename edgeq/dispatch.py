"""Which kernel runs which layer, and where its tensors lie: the two depend on each other.

A kernel that is faster may need more scratch, and weights in another layout more flash. So the best
of each layer is taken first, and given up for the next best where the budgets do not allow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeq import gates
from edgeq.ir import Network
from edgeq.kernels import Choice, Kernel, Optimize, code_bytes, flash_bytes, options, shared
from edgeq.packing import ALIGN
from edgeq.plan import Plan, plan
from edgeq.report import Budget

DEARER = 1.1  # estimated cycles that `ram` gives for a smaller arena
UNLIMITED = Budget(None, None)


@dataclass(frozen=True, slots=True)
class Dispatched:
    """Every choice by layer, what was the best of the others, and the arena."""

    choices: Mapping[str, Choice]
    next_best: Mapping[str, Choice | None]
    plan: Plan


def run(
    network: Network,
    isa: Iterable[str],
    optimize: Optimize,
    budget: Budget = UNLIMITED,
    forced: Mapping[str, str] | None = None,
    retained: Iterable[str] = (),
    state: int = 0,
) -> Dispatched:
    """The kernels of `network` and its arena, as `optimize` wants them and `budget` allows.

    `flash` stores weights in the policy's bits, and where its budget demands it takes kernels with
    less code; `time` takes the fewest cycles within the RAM;
    `balanced` the fewest cycles within both budgets; `ram` has the smallest arena that a tenth
    more cycles buy, or that the budget demands. What cannot be met is left to the budgets' own
    check. Outputs lie over inputs, but for `time` only where the RAM demands it. `forced` names
    kernels by layer, `retained` inputs that stay whole, `state` the bytes that gates keep for a
    run. `budget.flash` is what code, weights and their tables may take.

    Raises:
        UsageError: `forced` names a layer or a kernel that there is not.
        ModelError: no kernel runs a layer on this core, or the forced one does not.
    """
    found: Mapping[str, tuple[Choice, ...]] = options(network, isa, optimize, forced=forced)
    if optimize == "flash":
        found = shared(found)
    room = None if budget.ram is None else budget.ram - code_bytes().context - code_bytes().stack
    search = _Search(network, found, frozenset(retained), state)
    picks = {name: choices[0] for name, choices in found.items()}
    left = None if budget.flash is None else budget.flash - code_bytes().runtime
    if left is not None and optimize == "balanced":
        picks = _lighter(picks, found, left)
    if left is not None and optimize in ("balanced", "flash"):
        picks = _less_code(picks, found, left)
    if optimize == "ram":
        picks, placed = search.smallest(picks)
        if room is not None and placed.arena_bytes > room:
            picks, placed = search.smaller(picks, room)
    elif optimize == "time":
        placed = search.place(picks, over=False)
        if room is not None and placed.arena_bytes > room:
            picks, placed = search.smaller(picks, room)
    else:
        picks, placed = search.smaller(picks, room)
    others = {
        name: next((c for c in choices if c is not picks[name]), None)
        for name, choices in found.items()
    }
    return Dispatched(picks, others, placed)


_Picks = dict[str, Choice]


@dataclass(frozen=True, slots=True)
class _Search:
    network: Network
    options: Mapping[str, tuple[Choice, ...]]
    retained: frozenset[str]
    state: int

    def place(self, picks: _Picks, *, over: bool = True) -> Plan:
        """The arena of those choices, with outputs over inputs or without."""
        scratch = {name: c.scratch_bytes for name, c in picks.items() if c.scratch_bytes}
        if self.state:
            scratch[gates.STATE] = self.state
        lags = {name: c.lag for name, c in picks.items() if c.lag is not None and over}
        return plan(self.network, scratch, lags, self.retained)

    def smaller(self, picks: _Picks, room: int | None) -> tuple[_Picks, Plan]:
        """Choices whose arena fits the room, if there are any, each with as much less scratch.

        Where scratch is at the top of the arena, its layer takes the next option that has less.
        """
        placed = self.place(picks)
        while room is not None and placed.arena_bytes > room:
            names = [
                name
                for name, place in placed.scratch.items()
                if name in picks
                and (place.offset + place.bytes > room or self._crowded(placed, place.first, room))
            ]
            changed = False
            for name in names:
                leaner = self._leaner(name, picks[name])
                if leaner is not None:
                    picks, changed = {**picks, name: leaner}, True
            if not changed:
                break
            placed = self.place(picks)
        return picks, placed

    def smallest(self, fastest: _Picks) -> tuple[_Picks, Plan]:
        """Choices with the smallest arena for at most `DEARER` times the cycles of the fastest."""
        most = DEARER * _cycles(fastest)
        picks, placed = fastest, self.place(fastest)
        while True:
            fewer, again = self.smaller(picks, placed.arena_bytes - ALIGN)
            if again.arena_bytes >= placed.arena_bytes or _cycles(fewer) > most:
                return picks, placed
            picks, placed = fewer, again

    def _leaner(self, name: str, choice: Choice) -> Choice | None:
        less = [c for c in self.options[name] if c.scratch_bytes < choice.scratch_bytes]
        return min(less, key=lambda c: c.cycles, default=None)

    def _crowded(self, placed: Plan, step: int, room: int) -> bool:
        """Whether something that is live in `step` lies beyond the room."""
        places = (*placed.tensors.values(), *placed.scratch.values())
        return any(p.first <= step <= p.last and p.offset + p.bytes > room for p in places)


def _cycles(picks: _Picks) -> int:
    return sum(choice.cycles for choice in picks.values())


def _lighter(picks: _Picks, options: Mapping[str, tuple[Choice, ...]], flash: int) -> _Picks:
    """Choices that fit the flash, if there are any, at the fewest cycles for each byte saved."""
    while flash_bytes(picks.values()) > flash:
        swaps = [
            (
                (choice.cycles - picks[name].cycles)
                / (picks[name].weight_bytes - choice.weight_bytes),
                name,
                choice,
            )
            for name, choices in options.items()
            for choice in choices
            if choice.weight_bytes < picks[name].weight_bytes
        ]
        if not swaps:
            break
        _, name, choice = min(swaps, key=lambda swap: swap[:2])
        picks = {**picks, name: choice}
    return picks


def _less_code(picks: _Picks, options: Mapping[str, tuple[Choice, ...]], flash: int) -> _Picks:
    """Choices that fit the flash, if there are any: kernels go whose code costs most.

    Those that share a file go together, too.
    """
    while (size := flash_bytes(picks.values())) > flash:
        used = {choice.kernel for choice in picks.values()}
        groups = [[kernel] for kernel in used]
        groups += [
            [k for k in used if file in k.sources] for kernel in used for file in kernel.sources
        ]
        without = [_without(picks, options, group) for group in groups]
        fewer = min(without, key=lambda p: (flash_bytes(p.values()), _cycles(p)))
        if flash_bytes(fewer.values()) >= size:
            break
        picks = fewer
    return picks


def _without(
    picks: _Picks, options: Mapping[str, tuple[Choice, ...]], group: Sequence[Kernel]
) -> _Picks:
    """The same with other kernels in the place of `group`, where there are some."""
    others = {
        name: next((c for c in options[name] if c.kernel not in group), choice)
        for name, choice in picks.items()
        if choice.kernel in group
    }
    return picks | others
