"""What this machine has: compilers, emulators and optional packages, and what they serve."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

from edgeq import targets
from edgeq.targets import runners, toolchain


@dataclass(frozen=True, slots=True)
class Part:
    """Something that edgeq can use; `version` is None where it is missing."""

    kind: str
    name: str
    version: str | None
    unlocks: str
    install: str


@dataclass(frozen=True, slots=True)
class Device:
    """A target, and what was found here that builds and runs firmware for it.

    `flash` and `ram` are the first regions in bytes, None where it has no memory of its own.
    `core` is empty where no firmware is linked.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    core: str
    isa: tuple[str, ...]
    flash: int | None
    ram: int | None
    compilers: tuple[str, ...]
    emulators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExtraInfo:
    """One row: an optional package, what it unlocks, the extra that installs it."""

    package: str
    unlocks: str
    extra: str


EXTRAS = (
    ExtraInfo("pyelftools", "sizes and symbols of firmware, with any emulator", "mcu"),
    ExtraInfo("capstone", "profiles of Cortex-M0 to M33", "mcu"),
    ExtraInfo("matplotlib", "charts in reports", "report"),
    ExtraInfo("torch", "PyTorch models, edgeq gate --joint", "torch"),
    ExtraInfo("onnxscript", "PyTorch models", "torch"),
    ExtraInfo("ai-edge-litert", "TFLite models, and running them with XNNPACK", "tflite"),
    ExtraInfo("tflite-micro", "running TFLite models as TFLite Micro does", "tflm"),
)


def parts() -> tuple[Part, ...]:
    """Every row of every table, found or not."""
    compilers = [_compiler(row, "compiler") for row in toolchain.COMPILERS]
    hosts = [_compiler(row, "host compiler") for row in toolchain.HOST_COMPILERS]
    emulators = [
        Part("emulator", row.program, row.version(), row.unlocks, row.install)
        for row in runners.EMULATORS
    ]
    packages = [
        Part(
            "package",
            row.package,
            _package(row.package),
            row.unlocks,
            f'python -m pip install "edgeq[{row.extra}]"',
        )
        for row in EXTRAS
    ]
    return (*compilers, *hosts, *emulators, *packages)


def _compiler(row: toolchain.CompilerInfo, kind: str) -> Part:
    command = row.command()
    version = None if command is None else toolchain.version_of(command)
    return Part(kind, row.program, version, row.unlocks, row.install)


def _package(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> tuple[Device, ...]:
    """Every target: chips first, then what has no memory of its own."""
    rows = sorted(map(targets.load, targets.names()), key=lambda t: (not t.sized, t.name))
    return tuple(
        Device(
            name=target.name,
            aliases=tuple(a for a, name in targets.ALIASES.items() if name == target.name),
            description=target.description,
            core=target.core,
            isa=target.isa,
            flash=target.first("flash").bytes if target.sized else None,
            ram=target.first("ram").bytes if target.sized else None,
            compilers=tuple(row.name for row in toolchain.rows_for(target) if row.command()),
            emulators=tuple(row.name for row in runners.emulators_of(target) if row.version()),
        )
        for target in rows
    )
