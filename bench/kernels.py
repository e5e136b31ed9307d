"""What one layer costs on the emulated core: instructions and modelled cycles, everything counted.

Run from the root: `python -m bench.kernels [--compiler gcc|zig] [--bits N] [--activations N]
[--kernel SYMBOL] [NAME …]`; a name is the start of a row's. Columns: instructions, those for each
product (or value), products for each; the same of modelled cycles.
Shapes are those of MLPerf Tiny's networks; weights are random.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from graphs import Builder, same_window
from programs import compiled

from edgeq import rebuild, targets
from edgeq.ir import Function, Graph, Unary, Window
from edgeq.policy import Policy
from edgeq.targets import toolchain

Shape = tuple[int, ...]
Start = Callable[..., str]


def bytes_of(b: Builder, shape: Shape, name: str = "input") -> str:
    """Values of a layer as the network has them: in bytes."""
    return b.input(*shape, name=name)


def packed(b: Builder, shape: Shape, name: str = "input") -> str:
    """The same, by a first layer that gives as few bits as the policy says."""
    if len(shape) == 1:
        return b.fully_connected(b.input(8, name=name), shape[0])
    return b.conv(b.input(*shape[:2], 1, name=name), shape[2], 1)


def depthwise(
    start: Start, shape: Shape, strides: tuple[int, int] = (1, 1), kernel: int = 3
) -> Graph:
    b = Builder("depthwise")
    window = same_window((1, *shape), (kernel, kernel), strides)
    return b.build(b.depthwise(start(b, shape), 1, window))


def add(start: Start, shape: Shape) -> Graph:
    b = Builder("add")
    return b.build(b.add(start(b, shape, "a"), start(b, shape, "b")))


def average(start: Start, shape: Shape, side: int | None = None) -> Graph:
    b = Builder("average")
    sides = (side, side) if side else shape[:2]
    return b.build(b.average_pool(start(b, shape), Window(sides, sides)))


def maximum(start: Start, shape: Shape) -> Graph:
    b = Builder("maximum")
    return b.build(b.max_pool(start(b, shape), Window((2, 2), (2, 2))))


def conv(
    start: Start,
    shape: Shape,
    channels: int,
    kernel: tuple[int, int] = (1, 1),
    strides: tuple[int, int] = (1, 1),
) -> Graph:
    b = Builder("conv")
    return b.build(b.conv(start(b, shape), channels, same_window((1, *shape), kernel, strides)))


def table(shape: Shape) -> Graph:
    """The bytes of an input to as few bits as the policy says."""
    b = Builder("table")
    return b.build(b.table(b.input(*shape), Function(Unary.LINEAR, 1.0)))


def fully_connected(start: Start, values: int, features: int) -> Graph:
    b = Builder("fc")
    return b.build(b.fully_connected(start(b, (values,)), features))


# Each with what its instructions are divided by: products, or values.
LAYERS: dict[str, tuple[int, Callable[[Start], Graph]]] = {
    "conv 1x1 64-64 @12x12": (12 * 12 * 64 * 64, lambda start: conv(start, (12, 12, 64), 64)),
    "conv 1x1 16-32 @24x24": (24 * 24 * 16 * 32, lambda start: conv(start, (24, 24, 16), 32)),
    "conv 1x1 128-128 @6x6": (6 * 6 * 128 * 128, lambda start: conv(start, (6, 6, 128), 128)),
    "conv 1x1 256-256 @3x3": (3 * 3 * 256 * 256, lambda start: conv(start, (3, 3, 256), 256)),
    "conv 1x1 16-32 @32x32 /2": (
        16 * 16 * 16 * 32,
        lambda start: conv(start, (32, 32, 16), 32, (1, 1), (2, 2)),
    ),
    "conv 3x3 32-32 @16x16": (
        16 * 16 * 32 * 9 * 32,
        lambda start: conv(start, (16, 16, 32), 32, (3, 3)),
    ),
    "conv 3x3 16-16 @32x32": (
        32 * 32 * 16 * 9 * 16,
        lambda start: conv(start, (32, 32, 16), 16, (3, 3)),
    ),
    "conv 3x3 64-64 @8x8": (8 * 8 * 64 * 9 * 64, lambda start: conv(start, (8, 8, 64), 64, (3, 3))),
    "conv 3x3 16-32 @32x32 /2": (
        16 * 16 * 16 * 9 * 32,
        lambda start: conv(start, (32, 32, 16), 32, (3, 3), (2, 2)),
    ),
    "conv 3x3 3-16 @32x32": (
        32 * 32 * 3 * 9 * 16,
        lambda start: conv(start, (32, 32, 3), 16, (3, 3)),
    ),
    "conv 3x3 3-8 @96x96 /2": (
        48 * 48 * 27 * 8,
        lambda start: conv(start, (96, 96, 3), 8, (3, 3), (2, 2)),
    ),
    "conv 10x4 1-64 @49x10 /2": (
        25 * 5 * 40 * 64,
        lambda start: conv(start, (49, 10, 1), 64, (10, 4), (2, 2)),
    ),
    "fc 640-128": (640 * 128, lambda start: fully_connected(start, 640, 128)),
    "fc 128-128": (128 * 128, lambda start: fully_connected(start, 128, 128)),
    "fc 8-128": (8 * 128, lambda start: fully_connected(start, 8, 128)),
    "fc 64-10": (64 * 10, lambda start: fully_connected(start, 64, 10)),
    "depthwise 64 @12x12": (12 * 12 * 64 * 9, lambda start: depthwise(start, (12, 12, 64))),
    "depthwise 64 @25x5": (25 * 5 * 64 * 9, lambda start: depthwise(start, (25, 5, 64))),
    "depthwise 8 @48x48": (48 * 48 * 8 * 9, lambda start: depthwise(start, (48, 48, 8))),
    "depthwise 128 @6x6": (6 * 6 * 128 * 9, lambda start: depthwise(start, (6, 6, 128))),
    "depthwise 256 @3x3": (3 * 3 * 256 * 9, lambda start: depthwise(start, (3, 3, 256))),
    "depthwise 16 @48x48 /2": (
        24 * 24 * 16 * 9,
        lambda start: depthwise(start, (48, 48, 16), (2, 2)),
    ),
    "depthwise 5x5 32 @12x12": (
        12 * 12 * 32 * 25,
        lambda start: depthwise(start, (12, 12, 32), kernel=5),
    ),
    "add 16 @32x32": (32 * 32 * 16, lambda start: add(start, (32, 32, 16))),
    "average 64 @25x5": (25 * 5 * 64, lambda start: average(start, (25, 5, 64))),
    "average 64 @8x8": (8 * 8 * 64, lambda start: average(start, (8, 8, 64))),
    "average 7x7 16 @28x28": (28 * 28 * 16, lambda start: average(start, (28, 28, 16), 7)),
    "average 4x4 32 @16x16": (16 * 16 * 32, lambda start: average(start, (16, 16, 32), 4)),
    "average 2x2 8 @8x8": (8 * 8 * 8, lambda start: average(start, (8, 8, 8), 2)),
    "table 16 @32x32": (32 * 32 * 16, lambda start: table((32, 32, 16))),
    "max 2x2 16 @28x28": (28 * 28 * 16, lambda start: maximum(start, (28, 28, 16))),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--compiler", default="gcc")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--activations", type=int, default=8)
    parser.add_argument("--kernel", help="for the layer, instead of the best")
    arguments = parser.parse_args()
    target = targets.load("mcu")
    compiler = toolchain.find(toolchain.rows_for(target), arguments.compiler)
    print(f"{compiler}, W{arguments.bits}A{arguments.activations}")
    bits = {"weights": arguments.bits, "activations": arguments.activations}
    policy = Policy.model_validate({"default": bits, "calibration": {"activations": "minmax"}})
    start = bytes_of if arguments.activations == 8 else packed
    for name, (work, graph) in LAYERS.items():
        if arguments.names and not name.startswith(tuple(arguments.names)):
            continue
        net = graph(start)
        forced = {net.nodes[-1].name: arguments.kernel} if arguments.kernel else {}
        program = compiled(net, policy, target=target, forced=forced).program
        linked = rebuild.link(program, compiler)
        if linked is None:
            print(f"{name:<26} does not fit")
            continue
        counts = linked.counted.layers[-1]
        choice = list(program.choices.values())[-1]
        symbol = choice.kernel.symbol
        print(
            f"{name:<26} {symbol:<26} {counts.instructions:>9,} {counts.instructions / work:6.2f}"
            f" {work / counts.instructions:6.2f}"
            f" {counts.cycles or 0:>9,} {(counts.cycles or 0) / work:6.2f}"
            f" {work / (counts.cycles or 1):6.2f}"
            f"  scratch {choice.scratch_bytes}"
        )


if __name__ == "__main__":
    main()
