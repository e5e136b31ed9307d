"""Writes vectors/: fixedpoint for test_fixed.c, overlap for test_kernels.c, gates for test_gates.c.

Run from the repository root: python firmware_stubs/tests/make_vectors.py
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from edgeq import fixedpoint, gates
from edgeq.exporters import gate_section
from edgeq.gates import Gate, Layer, Mlp, Static, Table
from edgeq.gates import Path as Levels
from edgeq.ir import Node, Op, QParams, Tensor, Window
from edgeq.overlap import BY_PIXELS, BY_ROWS, ORDERS, lag

SEED = 20261121
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
SOFTMAX_LONG = (list(range(-128, 128)), [0] * 300, [0] * 600)  # the result's shift: .., 31, 32
LAG_ROWS, LAG_MOST = 600, 1 << 30  # beyond LAG_MOST: nothing is read after the first row
GATE_EXITS, GATE_CLASSES, GATE_SIZE, GATE_SCALE = 4, 5, 8, 0.05
GATE_ROWS, GATE_TRADEOFFS = 60, (0, 300, 3000, 20_000, gates.MOST_TRADEOFF)
EDGES = (0, 1, -1, 2, -2, 3, -3, INT32_MAX, -INT32_MAX, 1 << 30, -(1 << 30), (1 << 30) - 1)


def high_multiply_rows(rng: np.random.Generator) -> Iterable[Sequence[int]]:
    """(a, b, result), both extremes squared first."""
    values = [INT32_MIN, *EDGES, *map(int, rng.integers(INT32_MIN, INT32_MAX, 8))]
    for a in values:
        for b in values:
            yield a, b, int(fixedpoint.high_multiply(np.int64(a), b))


def shift_rows(rng: np.random.Generator) -> Iterable[Sequence[int]]:
    """(x, exponent, result), around every tie."""
    for exponent in range(32):
        half = 1 << exponent >> 1
        near = [s * (k * 2 * half + half) + d for s in (1, -1) for k in (0, 3) for d in (-1, 0, 1)]
        for x in [INT32_MIN, INT32_MAX, 0, -1, *near, int(rng.integers(INT32_MIN, INT32_MAX))]:
            if INT32_MIN <= x <= INT32_MAX:
                yield x, exponent, int(fixedpoint.rounding_shift_right(np.int64(x), exponent))


def requantize_rows(rng: np.random.Generator) -> Iterable[Sequence[int]]:
    """(x, multiplier, shift, result) for every shift, x up to the last that is allowed."""
    multipliers = (0, 1 << 30, INT32_MAX, int(rng.integers(1 << 30, 1 << 31)))
    for shift in range(-31, 31):
        most = INT32_MAX >> max(shift, 0)
        near = [s * ((1 << 15) + d) for s in (1, -1) for d in (-1, 0, 1)]
        values = {most, -most, 0, *near, *map(int, rng.integers(-most, most + 1, 2))}
        for x in sorted(v for v in values if abs(v) <= most):
            for multiplier in multipliers:
                result = fixedpoint.requantize(np.int64(x), multiplier, shift)
                yield x, multiplier, shift, int(result)


def requantize_wide_rows(rng: np.random.Generator) -> Iterable[Sequence[int]]:
    """(x >> 24, x & 0xFFFFFF, multiplier, shift, result), x up to the last that is allowed."""
    multipliers = (
        0,
        1 << 30,
        0x7FFEFFFF,
        0x7FFF0000,
        INT32_MAX,
        int(rng.integers(1 << 30, 1 << 31)),
    )
    for shift in range(-31, 15):
        most = min((1 << 47) - 1, INT32_MAX << -shift if shift < 0 else INT32_MAX >> shift)
        near = [s * (d + (1 << max(-shift, 1) >> 1)) for s in (1, -1) for d in (-1, 0, 1)]
        values = {most, -most, 0, *near, *map(int, rng.integers(-most, most + 1, 2))}
        for x in sorted(v for v in values if abs(v) <= most):
            for multiplier in multipliers:
                result = fixedpoint.requantize_wide(np.int64(x), multiplier, shift)
                yield x >> 24, x & 0xFFFFFF, multiplier, shift, int(result)


def divide_rows(rng: np.random.Generator) -> Iterable[Sequence[int]]:
    """(total, count, result), around every tie."""
    for count in (1, 2, 3, 4, 7, 9, 48, 49, 64, 1 << 20):
        near = [
            s * (k * count + count // 2) + d for s in (1, -1) for k in (0, 5) for d in (-1, 0, 1)
        ]
        for total in [*near, *map(int, rng.integers(-128 * count, 127 * count + 1, 3))]:
            result = fixedpoint.round_away_divide(np.int64(total), np.int64(count))
            yield total, count, int(result)


def softmax_rows(rng: np.random.Generator) -> Iterable[Sequence[int]]:
    """(multiplier, shift, count, count inputs, count outputs)."""
    scales = (2.0**-26, 0.001, 0.0117, 0.05, 0.1, 0.25, 0.7, 1.0, 3.9, 15.9)
    for i, scale in enumerate(scales):
        multiplier, shift = fixedpoint.quantize_multiplier(scale * (1 << 26))
        for x in (*softmax_inputs(rng), *(SOFTMAX_LONG if i % 4 == 0 else ())):
            y = fixedpoint.softmax(np.asarray(x, np.int64), multiplier, shift)
            yield multiplier, shift, len(x), *x, *map(int, y)


def softmax_inputs(rng: np.random.Generator) -> Iterable[list[int]]:
    """Rows of one value, of equal values, of extremes, and random ones."""
    yield [5]
    yield [-128] * 10
    yield [127, -128]
    yield [127, 126, 127, -128, 0]
    for count in (2, 10, 40):
        yield list(map(int, rng.integers(-128, 128, count)))


def lag_rows(rng: np.random.Generator) -> Iterable[Sequence[int]]:
    """(order, input, output, kernel, strides, dilations, pads, bits of both, before, after)."""
    while True:
        kernel, strides, dilations, pads = ((int(a), int(b)) for a, b in rng.integers(1, 4, (4, 2)))
        window = Window(kernel, strides, (pads[0] - 1, pads[1] - 1) * 2, dilations)
        image = tuple(map(int, rng.integers(1, 9, 3)))
        bits = tuple(map(int, rng.choice((2, 4, 8), 2)))
        size = window.output_size(*image[:2])
        result = (*size, int(rng.integers(1, 9)))
        if min(result) < 1:
            continue
        order = int(rng.integers(1, len(ORDERS)))
        if ORDERS[order] in (*BY_ROWS, *BY_PIXELS):
            bits = (8, 8)  # the others alone meet packed activations
        x, y = (
            Tensor(name, (1, *shape), qparams=QParams((1.0,), bits=width))
            for name, shape, width in (("x", image, bits[0]), ("y", result, bits[1]))
        )
        found = lag(ORDERS[order], Node("n", Op.CONV_2D, ("x", "w"), "y", window=window), x, y)
        assert found is not None
        after = found.after if ORDERS[order] in BY_ROWS else 0
        yield (
            order, *image, *result, *kernel, *strides, *dilations, *window.pads[:2], *bits,
            max(found.before, -LAG_MOST), after,
        )  # fmt: skip


def gate(rng: np.random.Generator, form: str) -> Gate:
    """A gate with random costs and tables, of two levels."""
    levels = ((0, 1),) * GATE_EXITS
    paths = gates.all_paths(levels)
    cost: dict[Levels, int] = {}
    for path in paths:
        cost[path] = cost.get(path[:-1], 0) + int(rng.integers(1, 12_000))
    bare = Gate(
        GATE_CLASSES, levels, paths, tuple(cost[p] for p in paths), ((0, 0), (2000, 1)), 9, Static()
    )
    if form == "static":
        return bare
    if form == "table":
        centroids = rng.integers(0, 256, (GATE_EXITS - 1, GATE_SIZE, gates.TOP + 1))
        errors = {
            node: rng.integers(0, 256, (GATE_SIZE, len(bare.options(node)))).astype(np.uint8)
            for node in bare.nodes()
        }
        return replace(bare, form=Table(centroids.astype(np.uint8), errors))
    inputs = 2 * GATE_CLASSES + 4 + GATE_EXITS + 1
    layers = tuple(
        Layer(
            rng.integers(-128, 128, (GATE_SIZE, inputs)).astype(np.int8),
            rng.integers(-9000, 9000, GATE_SIZE).astype(np.int32),
            shift,
            rng.integers(-128, 128, GATE_SIZE).astype(np.int8),
            int(rng.integers(-9000, 9000)),
            fixedpoint.quantize_multiplier(real),
        )
        for shift, real in ((8, 0.01), (6, 0.05), (0, 0.9))
    )
    return replace(bare, form=Mlp(layers))


def section(made: Gate) -> Iterable[Sequence[int]]:
    """The words of its section in an image."""
    parts = gate_section.pieces(made, GATE_SCALE, None)
    data = b"".join(part + bytes(-len(part) % 8) for _, part in parts)
    return ((int(word),) for word in np.frombuffer(data, "<i4"))


def gate_rows(rng: np.random.Generator, made: Gate) -> Iterable[Sequence[int]]:
    """(tradeoff, logits of each exit, the path after each or −1, in the order of the image)."""
    order = gate_section.tree(made)
    for row in range(GATE_ROWS):
        tradeoff = GATE_TRADEOFFS[row % len(GATE_TRADEOFFS)]
        spread = int(rng.integers(1, 128))
        logits = rng.integers(-spread, spread + 1, (GATE_EXITS - 1, GATE_CLASSES)).astype(np.int8)
        path: Levels | None = (made.first_level(tradeoff),)
        seen: dict[Levels, gates.Seen] = {}
        taken = [order.index(made.paths.index((made.first_level(tradeoff),)))]
        for exit in range(GATE_EXITS - 1):
            if path is None:
                taken.append(-1)
                continue
            seen[path] = gates.see(logits[exit : exit + 1], GATE_SCALE)
            options = made.options(path)
            best = gates.decide(made, options, gates.predict(made, path, seen), tradeoff)
            onward = made.paths[options[int(best[0])]][: len(path) + 1]
            taken.append(order.index(made.paths.index(onward)))
            path = None if onward == path else onward
        yield tradeoff - (tradeoff >> 31 << 32), *map(int, logits.reshape(-1)), *taken


def table(name: str, rows: Iterable[Sequence[int]], columns: int) -> str:
    """A C array of rows of `columns` int32, or a flat one where columns is 0."""
    lines = []
    for row in rows:
        text = ", ".join("INT32_MIN" if v == INT32_MIN else str(v) for v in row)
        lines.append(f"    {{{text}}},\n" if columns else f"    {text},\n")
    suffix = f"[][{columns}]" if columns else "[]"
    return f"static const int32_t {name}{suffix} = {{\n{''.join(lines)}}};\n"


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(SEED)
    write(
        "fixed.h",
        (
            table("high_multiply_rows", high_multiply_rows(rng), 3),
            table("shift_rows", shift_rows(rng), 3),
            table("requantize_rows", requantize_rows(rng), 4),
            table("divide_rows", divide_rows(rng), 3),
            table("softmax_rows", softmax_rows(rng), 0),
            table("requantize_wide_rows", requantize_wide_rows(rng), 5),
        ),
    )
    write("lags.h", (table("lag_rows", islice(lag_rows(rng), LAG_ROWS), 19),))
    made = {form: gate(rng, form) for form in ("static", "table", "mlp")}
    columns = 2 + (GATE_EXITS - 1) * (GATE_CLASSES + 1)
    parts = (
        (
            table(f"gate_{form}", section(one), 0),
            table(f"{form}_rows", gate_rows(rng, one), columns),
        )
        for form, one in made.items()
    )
    write("gates.h", chain.from_iterable(parts))


def write(file: str, tables: Iterable[str]) -> None:
    """The tables as one header."""
    text = "/* Generated: python firmware_stubs/tests/make_vectors.py */\n\n" + "\n".join(tables)
    (Path(__file__).parent / "vectors" / file).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
