"""What gates save on the emulated Cortex-M4F, and that every runner routes alike.

    python bench/quee_device.py FOLDER NETWORK [--parity]

FOLDER is that of `quee.py`, which has fitted the network's gates there. At the tradeoff that loses
0.5 points at most on validation images, those that the gates learned from and others, accuracy is
that of 10,000 test images, instructions are those of 200 of them on Unicorn. Of a frozen network,
whose gates are cross-fitted, the first half of them is reported, and the second one validates. With
--parity the C on this machine and ONNX route 1,000 images at five tradeoffs, Unicorn 50: none may
differ from the reference.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import quee
from quee_claims import Fits

from edgeq import costs as pricing
from edgeq import parity, profiler, rebuild, reference, targets
from edgeq.exporters import c_arrays, gate_section, image, onnx_qdq, onnx_runner
from edgeq.fit import baselines, curves
from edgeq.fit.choose import form_bytes
from edgeq.fit.outputs import Fold
from edgeq.gates import ONE, Costs, Gate
from edgeq.ir import Array
from edgeq.program import Program
from edgeq.reference import Rounding, Routed
from edgeq.targets import toolchain
from edgeq.targets.emulators import Firmware
from edgeq.targets.runners import EmulatorRunner, HostProgram, HostRunner, Result

COUNTED, DEAREST, WITHIN = 200, 20, 0.005
MANY, FEW = 1_000, 50
TRADEOFFS = (0.0, 0.03, 0.1, 0.3, 10.0)
MUST = {"fashion-resnet8": 0.35, "cifar-resnet8": 0.60}
GOAL = {"fashion-resnet8": 0.20, "cifar-resnet8": 0.45}
WORST, GATES, HEADS, GATE_BYTES = 1.015, 0.003, 0.015, 3 * 1024


def figures(name: str, run: quee.Bench, ran: quee.Ran, fits: Fits) -> Iterator[str]:
    """The table of what gates save."""
    gate, test, target = fits.gates[quee.MEASURED], ran.outputs.test, targets.load(quee.TARGET)
    assert test is not None
    program = run.program(ran, gate)
    compiler = toolchain.find(toolchain.rows_for(target))
    counted = pricing.measured(program, target, compiler, pricing.INSTRUCTIONS)
    linked = rebuild.firmware(program, compiler)
    assert linked is not None
    whole = baselines.uniform(gate.levels, gate.levels[0][0])
    ungated = sum(cost[level] for cost, level in zip(counted.blocks, whole, strict=True))
    at = gate.tradeoff / ONE
    taken = curves.sweep(gate, test, [at])
    top, own = 1 - test.wrong[whole].mean(), taken.correct[0].mean()
    table = np.array([counted.of(path) for path in gate.paths])[taken.taken[0]]
    samples = bytes_of(run, program, COUNTED)
    found = [one.instructions for one in profiler.routed(linked, target, samples, curves.fixed(at))]
    share = float(np.mean(found)) / ungated
    by_curve = share_at(counted, gate, test, top - WITHIN) / ungated
    by_path = {path: counted.of(path) for path in gate.paths}
    dearest = max(by_path, key=lambda path: by_path[path])
    worst = by_path[dearest] / ungated
    all_on = profiler.routed(linked, target, samples[:DEAREST], 0)
    most = max(one.instructions for one in all_on) / ungated
    cycles = fits.costs[quee.MEASURED]
    plain = sum(cost[level] for cost, level in zip(cycles.blocks, whole, strict=True))
    in_cycles = max(cycles.of(path) for path in gate.paths) / plain
    heads, inside = (sum(each) / ungated for each in (counted.heads, counted.gates))
    rows = [
        ("accuracy of the last exit, W8A8, ungated", f"{top:.2%}", ""),
        (f"accuracy with gates, λ = {at:.4g}", f"{own:.2%}", _held(own >= top - WITHIN)),
        ("instructions ungated, W8A8", f"{ungated:,.0f}", ""),
        (f"mean of {COUNTED} images on the core", f"{np.mean(found):,.0f}", ""),
        ("as a share of the ungated network", f"{share:.1%}",
         f"must {MUST[name]:.0%}: {_held(share <= MUST[name])}; "
         f"goal {GOAL[name]:.0%}: {_held(share <= GOAL[name])}" if name in MUST else ""),
        ("the same images by the table of costs", f"{table[:COUNTED].mean() / ungated:.1%}", ""),
        (f"{len(test):,} images by the table", f"{table.mean() / ungated:.1%}", ""),
        ("curve by the table, just 0.5 points below", f"{by_curve:.1%}", ""),
        (f"worst path, levels {' '.join(map(str, dearest))}", f"{worst:.2%}",
         f"must 101.5%: {_held(worst <= WORST)}"),
        ("level 0 to the end", f"{by_path[whole] / ungated:.2%}", ""),
        ("worst path in modelled cycles", f"{in_cycles:.2%}", ""),
        (f"dearest of {DEAREST} images, λ = 0", f"{most:.2%}", ""),
        ("heads on the worst path", f"{heads:.2%}", f"must 1.5%: {_held(heads <= HEADS)}"),
        ("gates on the worst path", f"{inside:.2%}", f"must 0.3%: {_held(inside <= GATES)}"),
        (f"bytes of the gates ({fits.form})", f"{form_bytes(gate.form)}",
         f"under 3 KB: {_held(form_bytes(gate.form) < GATE_BYTES)}"),
    ]  # fmt: skip
    yield f"### {name}: on the emulated {target.name}, {compiler}"
    yield ""
    yield "| | | |"
    yield "| --- | ---: | --- |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def share_at(counted: Costs, gate: Gate, test: Fold, accuracy: float) -> float:
    """The mean instructions at which the gate's curve has that accuracy, by the table."""
    whole = curves.sweep(gate, test)
    by_path = np.array([counted.of(path) for path in gate.paths])
    order = np.argsort(cost := by_path[whole.taken].mean(axis=1), kind="stable")
    return curves.Points(cost[order], whole.correct.mean(axis=1)[order]).cost_at(accuracy)


def _held(true: bool) -> str:
    return "held" if true else "NOT held"


# Parity.


def integers(run: quee.Bench, program: Program, count: int) -> dict[str, Array]:
    """The first test images as the device takes them."""
    images = run.case.images().test.images[:count]
    return run.integers(run.model(), program.network, images)


def bytes_of(run: quee.Bench, program: Program, count: int) -> list[bytes]:
    """The same, sample by sample."""
    made = list(integers(run, program, count).values())
    return [parity.sample_bytes(made, index) for index in range(count)]


def differences(program: Program, got: list[Result], wanted: Routed) -> int:
    """How many samples have another path, cost, class or output."""
    gate = program.gate
    assert gate is not None
    wrong = 0
    for result, at, outputs in zip(got, wanted.paths.tolist(), wanted.outputs, strict=True):
        path = gate.paths[at]
        there = (len(path) - 1, gate_section.code(path), gate.costs[at], int(outputs.argmax()))
        here = (result.exit, result.path, result.cost, result.label)
        wrong += here != there or result.outputs != outputs.tobytes()
    return wrong


def compared(name: str, run: quee.Bench, ran: quee.Ran, fits: Fits) -> Iterator[str]:
    """The table of what differs."""
    program = run.program(ran, fits.gates[quee.MEASURED])
    gate, target = program.gate, targets.load(quee.TARGET)
    assert gate is not None
    made = integers(run, program, MANY)
    samples = bytes_of(run, program, MANY)
    compiler = toolchain.find(toolchain.rows_for(target))
    linked: Firmware | None = rebuild.firmware(program, compiler)
    assert linked is not None
    with tempfile.TemporaryDirectory() as folder:
        runtime = Path(folder) / "runtime"
        c_arrays.write_runtime(runtime, program.kernels)
        onnx_qdq.export(program, Path(folder) / "net.onnx")
        runner = onnx_runner.Runner(program, Path(folder) / "net.onnx")
        host = HostProgram(runtime, toolchain.find(toolchain.HOST_COMPILERS))
    yield f"### {name}: samples that differ from the reference"
    yield ""
    yield f"| λ | paths taken | C here, {MANY} | Unicorn, {FEW} | ONNX, {MANY} | rules part |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    with closing(host), closing(EmulatorRunner(linked, target)) as core:
        c = HostRunner(host, image.build(program).data)
        for tradeoff in map(curves.fixed, TRADEOFFS):
            wanted = reference.route(program.network, gate, made, tradeoff)
            few = Routed(wanted.paths[:FEW], wanted.outputs[:FEW])
            floats = reference.route(program.network, gate, made, tradeoff, Rounding.FLOAT32)
            got = runner.route(made, tradeoff)
            onnx = (got.paths != floats.paths) | (got.outputs != floats.outputs).any(axis=1)
            cells = (
                f"{tradeoff / ONE:.3g}",
                str(len(np.unique(wanted.paths))),
                str(differences(program, c.results(samples, tradeoff), wanted)),
                str(differences(program, core.results(samples[:FEW], tradeoff), few)),
                str(int(onnx.sum())),
                f"{(wanted.paths != floats.paths).mean():.1%}",
            )
            yield f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("network", choices=list(quee.CASES))
    parser.add_argument("--parity", action="store_true")
    options = parser.parse_args()
    run = quee.Bench(options.network, 0, options.folder, quee.MEASURED)
    ran = run.run()
    fits = quee.fitted_seed(options.network, 0, options.folder)
    ran = replace(ran, outputs=run.folds(ran)[0])
    tables = compared if options.parity else figures
    for line in tables(options.network, run, ran, fits):
        print(line, flush=True)


if __name__ == "__main__":
    main()
