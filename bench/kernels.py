"""What one layer costs on the emulated core: instructions and modelled cycles, everything counted.

Run from the root: `python -m bench.kernels [--compiler gcc|zig] [--bits N] [NAME …]`; a name is the
start of a row's. Shapes are those of MLPerf Tiny's networks; weights are random.
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
from edgeq.ir import Graph, Window
from edgeq.targets import toolchain

Shape = tuple[int, int, int]


def depthwise(shape: Shape, strides: tuple[int, int] = (1, 1), kernel: int = 3) -> Graph:
    b = Builder("depthwise")
    window = same_window((1, *shape), (kernel, kernel), strides)
    return b.build(b.depthwise(b.input(*shape), 1, window))


def add(shape: Shape) -> Graph:
    b = Builder("add")
    return b.build(b.add(b.input(*shape, name="a"), b.input(*shape, name="b")))


def average(shape: Shape) -> Graph:
    b = Builder("average")
    return b.build(b.global_average_pool(b.input(*shape)))


def maximum(shape: Shape) -> Graph:
    b = Builder("maximum")
    return b.build(b.max_pool(b.input(*shape), Window((2, 2), (2, 2))))


def conv(
    shape: Shape, channels: int, kernel: tuple[int, int] = (1, 1), strides: tuple[int, int] = (1, 1)
) -> Graph:
    b = Builder("conv")
    return b.build(b.conv(b.input(*shape), channels, same_window((1, *shape), kernel, strides)))


def fully_connected(values: int, features: int) -> Graph:
    b = Builder("fc")
    return b.build(b.fully_connected(b.input(values), features))


# Each with what its instructions are divided by: products, or values.
LAYERS: dict[str, tuple[int, Callable[[], Graph]]] = {
    "conv 1x1 64-64 @12x12": (12 * 12 * 64 * 64, lambda: conv((12, 12, 64), 64)),
    "conv 1x1 16-32 @24x24": (24 * 24 * 16 * 32, lambda: conv((24, 24, 16), 32)),
    "conv 1x1 128-128 @6x6": (6 * 6 * 128 * 128, lambda: conv((6, 6, 128), 128)),
    "conv 1x1 256-256 @3x3": (3 * 3 * 256 * 256, lambda: conv((3, 3, 256), 256)),
    "conv 1x1 16-32 @32x32 /2": (
        16 * 16 * 16 * 32,
        lambda: conv((32, 32, 16), 32, (1, 1), (2, 2)),
    ),
    "conv 3x3 32-32 @16x16": (16 * 16 * 32 * 9 * 32, lambda: conv((16, 16, 32), 32, (3, 3))),
    "conv 3x3 16-16 @32x32": (32 * 32 * 16 * 9 * 16, lambda: conv((32, 32, 16), 16, (3, 3))),
    "conv 3x3 64-64 @8x8": (8 * 8 * 64 * 9 * 64, lambda: conv((8, 8, 64), 64, (3, 3))),
    "conv 3x3 16-32 @32x32 /2": (
        16 * 16 * 16 * 9 * 32,
        lambda: conv((32, 32, 16), 32, (3, 3), (2, 2)),
    ),
    "conv 3x3 3-16 @32x32": (32 * 32 * 3 * 9 * 16, lambda: conv((32, 32, 3), 16, (3, 3))),
    "conv 3x3 3-8 @96x96 /2": (48 * 48 * 27 * 8, lambda: conv((96, 96, 3), 8, (3, 3), (2, 2))),
    "conv 10x4 1-64 @49x10 /2": (
        25 * 5 * 40 * 64,
        lambda: conv((49, 10, 1), 64, (10, 4), (2, 2)),
    ),
    "fc 640-128": (640 * 128, lambda: fully_connected(640, 128)),
    "fc 128-128": (128 * 128, lambda: fully_connected(128, 128)),
    "fc 8-128": (8 * 128, lambda: fully_connected(8, 128)),
    "fc 64-10": (64 * 10, lambda: fully_connected(64, 10)),
    "depthwise 64 @12x12": (12 * 12 * 64 * 9, lambda: depthwise((12, 12, 64))),
    "depthwise 64 @25x5": (25 * 5 * 64 * 9, lambda: depthwise((25, 5, 64))),
    "depthwise 8 @48x48": (48 * 48 * 8 * 9, lambda: depthwise((48, 48, 8))),
    "depthwise 128 @6x6": (6 * 6 * 128 * 9, lambda: depthwise((6, 6, 128))),
    "depthwise 256 @3x3": (3 * 3 * 256 * 9, lambda: depthwise((3, 3, 256))),
    "depthwise 16 @48x48 /2": (24 * 24 * 16 * 9, lambda: depthwise((48, 48, 16), (2, 2))),
    "depthwise 5x5 32 @12x12": (12 * 12 * 32 * 25, lambda: depthwise((12, 12, 32), kernel=5)),
    "add 16 @32x32": (32 * 32 * 16, lambda: add((32, 32, 16))),
    "average 64 @25x5": (25 * 5 * 64, lambda: average((25, 5, 64))),
    "average 64 @8x8": (8 * 8 * 64, lambda: average((8, 8, 64))),
    "max 2x2 16 @28x28": (28 * 28 * 16, lambda: maximum((28, 28, 16))),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--compiler", default="gcc")
    parser.add_argument("--bits", type=int, default=8)
    arguments = parser.parse_args()
    target = targets.load("mcu")
    compiler = toolchain.find(toolchain.rows_for(target), arguments.compiler)
    print(f"{compiler}, weights of {arguments.bits} bits")
    for name, (work, graph) in LAYERS.items():
        if arguments.names and not name.startswith(tuple(arguments.names)):
            continue
        program = compiled(graph(), arguments.bits, target=target).program
        linked = rebuild.link(program, compiler)
        if linked is None:
            print(f"{name:<26} does not fit")
            continue
        counts = linked.counted.layers[0]
        symbol = next(iter(program.choices.values())).kernel.symbol
        print(
            f"{name:<26} {symbol:<26} {counts.instructions:>9,} {counts.instructions / work:6.2f}"
            f" {counts.cycles or 0:>9,} {(counts.cycles or 0) / work:6.2f}"
            f"  scratch {program.choices[program.network.graphs[0].nodes[0].name].scratch_bytes}"
        )


if __name__ == "__main__":
    main()
