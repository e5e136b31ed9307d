"""Budgets: what takes how much, and the policy edit that would fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edgeq import kernels
from edgeq.errors import BudgetError, UsageError
from edgeq.kernels import Optimize
from edgeq.ops import OPS
from edgeq.program import Program
from edgeq.report import Artefact, Budget, Flash, Ram
from edgeq.target import Target

SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*(B|KB|MB)", re.IGNORECASE)
UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20}
LEAST_BITS = 2
DEFAULT_BITS = 8  # of a layer that no rule names
COSTLY_BITS = 3  # going below costs accuracy: done only when nothing else is left


def parse_size(text: str, flag: str) -> int:
    """The bytes that `text` means: `512B`, `64KB`, `1.5MB`, in units of 1024.

    Raises:
        UsageError: it is no size.
    """
    match = SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size <= 0:
        raise UsageError("EQ0201", f"{flag} {text}: a size is a number with B, KB or MB, as 256KB")
    return size


def show_size(size: int) -> str:
    """`size` as people read it, in KB of 1024 bytes."""
    return f"{size / 1024:.1f} KB" if size >= 1024 else f"{size} B"


def show_use(size: int, limit: int | None) -> str:
    """`size` beside its budget, if there is one."""
    if limit is None:
        return f"{show_size(size)}, no budget"
    return f"{show_size(size)} of {show_size(limit)} ({size / limit:.1%})"


def limits(target: Target, flash: int | None, ram: int | None) -> Budget:
    """The budgets that were given, or else what the target has; None is no limit.

    Raises:
        UsageError: a generic core needs both, since it has no memory of its own.
    """
    given = {"flash": flash, "ram": ram}
    missing = [f"--{kind}" for kind, size in given.items() if size is None]
    if target.generic and missing:
        raise UsageError(
            "EQ0213",
            f"{target.name} is a core without memory of its own: give {' and '.join(missing)}, "
            f"as {' '.join(f'{flag} 64KB' for flag in missing)}, or name a chip",
        )
    own = {memory.kind: memory.bytes for memory in reversed(target.memory)}
    return Budget(
        own.get("flash") if flash is None else flash, own.get("ram") if ram is None else ram
    )


def excess(size: int, limit: int | None) -> int:
    """The bytes that `size` is above `limit`; 0 where it fits, or where there is no limit."""
    return 0 if limit is None else max(0, size - limit)


def check(
    program: Program,
    flash: Flash,
    ram: Ram,
    budget: Budget,
    optimize: Optimize,
    artefacts: Sequence[Artefact] = (),
) -> None:
    """Nothing, if both budgets hold; every artefact, of which one is deployed, must fit the flash.

    Raises:
        BudgetError: with a table of what takes how much and what to do about it.
    """
    if budget.flash is not None and excess(flash.total, budget.flash):
        parts = {
            "runtime": flash.runtime,
            "kernels": flash.kernels,
            "weights": flash.weights,
            "tables": flash.tables,
            **({"gates": flash.gates} if flash.gates else {}),
        }
        advice = _lighter_policy(program, flash.total - budget.flash)
        if optimize in ("time", "ram"):
            advice = (
                f"--optimize {optimize} stores weights in 8 bits; take --optimize balanced, or "
                "flash, instead."
            )
        raise BudgetError("EQ0401", _table("flash", flash.total, budget.flash, parts) + advice)
    if budget.ram is not None and excess(ram.total, budget.ram):
        parts = {"arena": ram.arena, "context": ram.context, "stack": ram.stack}
        raise BudgetError(
            "EQ0402", _table("RAM", ram.total, budget.ram, parts) + _largest_tensors(program)
        )
    for artefact in artefacts:
        if beyond := excess(artefact.bytes, budget.flash):
            raise BudgetError(
                "EQ0405",
                f"{artefact.file} takes {artefact.bytes:,} bytes, {beyond:,} more than --flash "
                f"{budget.flash:,}: give it more, or take a smaller model",
            )


def _table(what: str, total: int, limit: int, parts: Mapping[str, int]) -> str:
    lines = [f"{what} is over budget: {total} bytes, {total - limit} more than {limit}"]
    for name, size in sorted(parts.items(), key=lambda item: -item[1]):
        lines.append(f"  {name:<8} {size:>9,}  {size / total:5.1%}")
    return "\n".join(lines) + "\n"


def _lighter_policy(program: Program, excess: int) -> str:
    """The rules that take `excess` bytes off the flash, lowering the largest layers first."""
    weighted = [
        (graph, node)
        for graph in program.network.graphs
        for node in graph.nodes
        if OPS[node.op].weighted
    ]
    bits = {node.name: program.choices[node.name].weight_bits for _, node in weighted}
    linked = {kernel for choice in program.choices.values() for kernel in choice.kernels}
    ways = {
        (node.name, n): min(
            kernels.with_bits(graph, node, program.target.isa, n),
            key=lambda c: kernels.flash_bytes([c], linked),
        )
        for graph, node in weighted
        for n in range(LEAST_BITS, bits[node.name] + 1)
    }
    before = kernels.flash_bytes(program.choices.values())

    def saved(wanted: Mapping[str, int]) -> int:
        chosen = {name: ways[name, n] for name, n in wanted.items()}
        return before - kernels.flash_bytes((dict(program.choices) | chosen).values())

    while excess > saved(bits):
        candidates = [name for name in bits if bits[name] > LEAST_BITS]
        if not candidates:
            least = sum(ways[name, LEAST_BITS].weight_bytes for name in bits)
            return (
                f"No policy fits: with 2 bits everywhere the weights take {least:,} bytes, "
                f"{excess - saved(bits):,} too many: give --flash more, or a smaller model."
            )
        bits[
            max(candidates, key=lambda n: (bits[n] > COSTLY_BITS, ways[n, bits[n]].weight_bytes))
        ] -= 1
    rules = "\n".join(
        f'[[rule]]\nmatch = "{_literal(name)}"\nweights = {bits[name]}'
        for name in bits
        if bits[name] < DEFAULT_BITS
    )
    return (
        "These rules would fit. Append them to a TOML policy, where later rules win, or let them "
        f"be one, and run the same command with --policy:\n\n{rules}"
    )


def _literal(name: str) -> str:
    """`name` as a pattern that matches only itself."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _largest_tensors(program: Program) -> str:
    places = program.plan.tensors
    peak = sorted(places.items(), key=lambda item: -item[1].bytes)[:3]
    shown = ", ".join(f"{name} ({place.bytes:,} bytes)" for name, place in peak)
    return (
        f"The arena's largest tensors are {shown}. Activations take 8 bits in this version, so no "
        "policy makes them smaller: give --ram more, or a smaller input or model."
    )
