"""Fits the `cycles` of kernels.toml: what each kernel takes on the emulated Cortex-M4.

Layers of many shapes with random weights, in 8 and in 4 bits, run on Unicorn's STM32F405, as far
as the kernel serves them; their modelled cycles are fitted by the terms of `edgeq.kernels.Cycles`,
none negative, with the least relative error; the unpacking is the median of what the 4 bits add to
a kernel that reads both. Printed are the lines for kernels.toml and the worst error.

Run from the root, with a compiler for the target: `python -m bench.costs [SYMBOL ...]`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from graphs import FUNCTIONS, Builder, same_window
from programs import model, reals, uniform

from edgeq import calibrate, pipeline, quantize, rebuild, targets
from edgeq.ir import Graph, Op, Window, single
from edgeq.kernels import ALIASED, FIELD_PLANES, Cycles, Kernel, Optimize, options, table
from edgeq.packing import LAYOUTS
from edgeq.plan import plan
from edgeq.policy import Policy, resolve
from edgeq.targets import toolchain

TARGET = "stm32f405"
Row = tuple[float, ...]
REQUIRED = [field.name for field in fields(Cycles) if field.default is MISSING]
UNPACKED = [field.name for field in fields(Cycles)].index("unpacked")


def convolutions(b: Builder, conv: Callable[..., str]) -> str:
    x = b.input(32, 32, 3)
    for channels, side, stride in (
        (16, 3, 1), (32, 3, 2), (16, 3, 1), (16, 3, 1), (32, 1, 1), (32, 3, 1), (8, 3, 1),
        (32, 3, 2), (64, 1, 1), (64, 1, 1), (48, 3, 1), (32, 3, 1), (32, 3, 2), (20, 5, 1),
        (16, 3, 1), (24, 3, 2), (32, 1, 1), (8, 3, 1), (8, 3, 2), (24, 3, 1), (10, 1, 1),
    ):  # fmt: skip
        x = conv(x, channels, same_window(b.shape(x), (side, side), (stride, stride)))
    return x


def grouped(b: Builder) -> str:
    x = b.input(12, 12, 4)
    for groups, channels, side in ((2, 8, 3), (2, 8, 1), (4, 16, 3), (2, 16, 3), (2, 12, 5)):
        x = b.grouped(x, groups, channels, same_window(b.shape(x), (side, side)))
    return x


def depthwise(b: Builder) -> str:
    x = b.input(20, 20, 8)
    for side, stride, multiplier in (
        (3, 1, 1),
        (3, 2, 1),
        (5, 1, 1),
        (3, 1, 2),
        (3, 2, 1),
        (3, 1, 4),
        (3, 2, 1),
        (3, 1, 1),
        (3, 2, 1),
        (3, 1, 1),
    ):
        window = same_window(b.shape(x), (side, side), (stride, stride))
        x = b.depthwise(x, multiplier, window)
    return x


def pools(b: Builder, pool: Callable[[str, Window], str]) -> str:
    x = b.input(24, 24, 16)
    for side, stride in ((2, 1), (3, 1), (2, 2), (3, 2), (3, 1)):
        x = pool(x, Window((side, side), (stride, stride)))
    return x


def vectors(b: Builder) -> str:
    x = b.input(64)
    for features in (128, 32, 10, 256, 256, 8):
        x = b.fully_connected(x, features)
    return x


def sums(b: Builder) -> str:
    x = b.input(8, 8, 8)
    for channels in (4, 16, 32):
        x = b.add(x, b.conv(x, b.shape(x)[-1], 1))
        x = b.conv(x, channels, 1)
    return b.add(x, b.conv(x, 32, 1))


def softmaxes(b: Builder) -> str:
    x = b.input(64)
    for features in (10, 100, 1000, 2):
        x = b.softmax(b.fully_connected(x, features))
    return x


def pads(b: Builder) -> str:
    x = b.input(6, 6, 4)
    for pad in ((1, 1, 0, 1, 1, 0), (0, 2, 1, 0, 2, 1), (3, 3, 0, 3, 3, 0)):
        x = b.pad(x, *pad)
    return x


def concats(b: Builder) -> str:
    x = b.input(6, 6, 4)
    for axis in (3, 1, 3, 2):
        x = b.concat(x, x, axis)
    return x


def tables(b: Builder) -> tuple[str, ...]:
    """Of many bytes and of few, to as few bits as the policy says."""
    found, x = [], b.input(24, 24, 4)
    for side in (1, 2, 2, 3):
        x = b.max_pool(x, Window((side, side), (side, side)))
        found.append(b.table(x, FUNCTIONS[7]))
    return tuple(found)


LAYERS: dict[Op, Callable[[Builder], str | tuple[str, ...]]] = {
    Op.CONV_2D: lambda b: convolutions(b, b.conv),
    Op.GROUPED_CONV_2D: grouped,
    Op.DEPTHWISE_CONV_2D: depthwise,
    Op.FULLY_CONNECTED: vectors,
    Op.ADD: sums,
    Op.MAX_POOL: lambda b: pools(b, b.max_pool),
    Op.AVERAGE_POOL: lambda b: pools(b, b.average_pool),
    Op.SOFTMAX: softmaxes,
    Op.PAD: pads,
    Op.CONCAT: concats,
    Op.TABLE: tables,
}


def graph_of(kernel: Kernel) -> Graph:
    assert kernel.op is not None
    b = Builder(kernel.op.value)
    built = LAYERS[kernel.op](b)
    return b.build(*((built,) if isinstance(built, str) else built))


def integers(graph: Graph, chosen: Policy, levels: tuple[int, ...]) -> Graph:
    """The integer graph, of weights with nested levels if there are any."""
    bits = resolve(chosen, graph)
    ranges = calibrate.run(graph, bits, reals(graph), chosen.calibration, lambda *_: None)
    nests = {node.name: levels for node in graph.nodes if levels}
    return quantize.run(graph, bits, ranges, chosen.calibration, levels=nests)


def measured(kernel: Kernel, bits: int, optimize: Optimize = "flash") -> Iterator[tuple[Row, int]]:
    """The terms of each layer that `kernel` runs, and the modelled cycles that were counted."""
    graph = graph_of(kernel)
    target = targets.load(TARGET)
    packed = kernel.layouts and LAYOUTS[kernel.layouts[0]].packed
    policy = uniform(bits, activations=bits if packed else kernel.activations)
    integer = integers(graph, policy, (8, 4) if FIELD_PLANES in kernel.layouts else ())
    network = single(integer)
    served = options(network, target.isa, "flash")
    forced = {
        name: kernel.symbol
        for name, choices in served.items()
        if any(choice.kernel is kernel for choice in choices)
    }
    program = pipeline.place(model(graph), single(integer), {}, target, optimize, (), forced=forced)
    scratch = {name: choice.scratch_bytes for name, choice in program.choices.items()}
    program = replace(program, plan=plan(program.network, scratch))  # no output over its input
    linked = rebuild.link(program, toolchain.find(toolchain.rows_for(target)))
    assert linked is not None
    nodes = [node for node in integer.nodes if node.op not in ALIASED]
    for node, counts in zip(nodes, linked.counted.layers, strict=True):
        choice = program.choices[node.name]
        if choice.kernel is kernel:
            assert counts.cycles is not None
            yield choice.terms, counts.cycles


def fit(rows: list[Row], cycles: list[int]) -> tuple[Row, float]:
    """Coefficients of the least squares of relative errors, none negative; the worst error."""
    a = np.array(rows) / np.array(cycles)[:, None]
    best, least = np.zeros(a.shape[1]), np.inf
    for count in range(1, a.shape[1] + 1):
        for used in combinations(range(a.shape[1]), count):
            part = a[:, used]
            if np.linalg.matrix_rank(part) < count:
                continue
            found = np.linalg.lstsq(part, np.ones(len(rows)), rcond=None)[0]
            error = float(((part @ found - 1) ** 2).sum())
            if found.min() >= 0 and error < least - 1e-9:
                best, least = np.zeros(a.shape[1]), error
                best[list(used)] = found
    return tuple(map(float, best)), float(np.abs(a @ best - 1).max())


def coefficients(kernel: Kernel) -> tuple[Cycles, float]:
    """Those of `kernel`, and the worst error: first on weights of 8 bits, then what 4 bits add."""
    if FIELD_PLANES in kernel.layouts or (kernel.weights and 8 not in kernel.weights):
        most = 8 if FIELD_PLANES in kernel.layouts else min(4, *kernel.weights[-1:])
        whole = [*measured(kernel, most), *measured(kernel, most, "ram")]  # with little scratch
    else:
        whole = list(measured(kernel, 8))
    found, worst = fit([row for row, _ in whole], [count for _, count in whole])
    cycles = Cycles(*found)
    if FIELD_PLANES in kernel.layouts or not {4, 8} <= set(kernel.weights):
        return cycles, worst
    added = [
        (count - before) / row[UNPACKED]
        for (row, count), (_, before) in zip(measured(kernel, 4), whole, strict=True)
    ]
    return replace(cycles, unpacked=max(float(np.median(added)), 0.0)), worst


def main() -> None:
    for kernel in table():
        if kernel.op is None or (sys.argv[1:] and kernel.symbol not in sys.argv[1:]):
            continue
        found, worst = coefficients(kernel)
        line = ", ".join(
            f"{name} = {float(f'{value:.3g}')}"
            for name, value in asdict(found).items()
            if value or name in REQUIRED
        )
        print(f"{kernel.symbol}: cycles = {{ {line} }}  # worst {worst:.0%}", flush=True)


if __name__ == "__main__":
    main()
