"""`run.py` for a build: a model of any format on samples, by Python, without edgeq."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from edgeq.frontends import Port
from edgeq.ir import qparams_of
from edgeq.program import Input, Program

PROGRAM, FACTS = "run.py", "run.json"


def export(program: Program, folder: Path) -> None:
    """Writes the program, which is the same for every model, and what it must know of this one."""
    source = resources.files("edgeq.exporters").joinpath(PROGRAM)
    (folder / PROGRAM).write_bytes(source.read_bytes())
    facts: dict[str, Any] = {
        "inputs": {source.port.name: _meaning(source) for source in program.inputs},
        "outputs": {port.name: {"axis": _channels(port)} for port in program.outputs},
        "labels": list(program.labels),
    }
    if program.gate is not None:
        facts["exits"] = program.gate.exits
    (folder / FACTS).write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")


def _channels(port: Port) -> int:
    return 1 if port.layout == "NCHW" else len(port.shape) - 1


def _meaning(source: Input) -> dict[str, Any]:
    """Where the channels are, and the real of each raw byte, as the device takes it."""
    reals = None
    if source.lut is not None:
        reals = qparams_of(source.tensor).dequantize(source.lut).astype("float32").tolist()
    return {"axis": _channels(source.port), "reals": reals}
