"""Device descriptions, by name; the files beside this one."""

from __future__ import annotations

import difflib
from importlib import resources

from edgeq.errors import UsageError
from edgeq.target import Target, parse

ALIASES = {"mcu": "stm32f405"}  # each family's default


def names() -> tuple[str, ...]:
    """The targets that have a description."""
    files = resources.files("edgeq.targets").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load(name: str) -> Target:
    """The target called `name`, or the one that the alias stands for.

    Raises:
        UsageError: there is none; near misses are named.
    """
    known = names()
    chosen = ALIASES.get(name, name)
    if chosen not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise UsageError("EQ0212", f"no target {name!r}; {hint} (aliases: {', '.join(ALIASES)})")
    text = resources.files("edgeq.targets").joinpath(f"{chosen}.toml").read_text(encoding="utf-8")
    return parse(text, f"{chosen}.toml")
