"""Float network + samples → ranges: what the quantiser needs to know of the activations.

Everything found here is rounded to 12 significant bits and written to `ranges.json`, so that all
that follows is the same on every machine, whatever its float library rounds differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq import floatrun
from edgeq.errors import ModelError
from edgeq.ir import Array, Graph, Node, Op
from edgeq.ops import OPS, groups, windows
from edgeq.policy import Bits, Calibration

SIGNIFICANT_BITS = 12
BATCH = 32  # samples of one float run
KEPT_VALUES = 1 << 17  # most values of a tensor that range searches look at
HISTOGRAM_BINS = 2048
SEARCH_STEPS = 100
SEARCH_FROM = 0.15

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Ranges:
    """Bounds of every activation (zero included), and the mean input of every weighted layer.

    A mean has the shape of one row of the layer's weights, or, for a depthwise or grouped layer,
    that of all rows:
    what each weight is multiplied with on average, padding included.
    """

    bounds: Mapping[str, tuple[float, float]]
    means: Mapping[str, Array]
    method: str
    samples: int


def round_significant(
    values: Array | float, bits: int = SIGNIFICANT_BITS, *, up: bool = False
) -> npt.NDArray[np.float64]:
    """The values with `bits` bits of mantissa: the nearest, ties to even, or none that is less."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float64))
    whole = (np.ceil if up else np.rint)(np.ldexp(mantissa, bits))
    return np.asarray(np.ldexp(whole, exponent - bits))


class _Observer:
    """What one activation was seen to hold."""

    def __init__(self, step: int) -> None:
        self.low = self.high = 0.0
        self.step = step  # every how many-th value is kept
        self.values: list[Array] = []
        self.total: Array | None = None

    def see(self, batch: Array, *, mean: bool) -> None:
        self.low = min(self.low, float(batch.min()))
        self.high = max(self.high, float(batch.max()))
        self.values.append(batch.reshape(-1)[:: self.step])
        if mean:
            part = batch.sum(axis=0, dtype=np.float64)
            self.total = part if self.total is None else self.total + part


def _step(samples: int, elements: int) -> int:
    """Every how many-th value to keep; coprime to a sample's size, so that no channel is missed."""
    step = max(1, samples * elements // KEPT_VALUES)
    while math.gcd(step, elements) > 1:
        step += 1
    return step


def run(
    graph: Graph,
    bits: Mapping[str, Bits],
    inputs: Mapping[str, Array],
    settings: Calibration,
    progress: Progress | None = None,
) -> Ranges:
    """What the activations of `graph` hold on the float samples `inputs`.

    Network inputs and outputs take their full range; between them `settings` chooses.

    Raises:
        ModelError: an activation is not finite.
    """
    return by_level(graph, (bits,), inputs, settings, progress)[0]


def by_level(
    graph: Graph,
    levels: Sequence[Mapping[str, Bits]],
    inputs: Mapping[str, Array],
    settings: Calibration,
    progress: Progress | None = None,
) -> tuple[Ranges, ...]:
    """The same for the bits of each of `levels`, seen once; nodes without bits give 8."""
    samples = len(next(iter(inputs.values())))
    names = [*graph.inputs, *(node.output for node in graph.nodes)]
    weighted = [node for node in graph.nodes if OPS[node.op].weighted]
    averaged = {node.inputs[0] for node in weighted}
    observers = {name: _Observer(_step(samples, graph.tensors[name].elements)) for name in names}
    session = floatrun.FloatRun(graph, names)
    for start in range(0, samples, BATCH):
        batch = {name: array[start : start + BATCH] for name, array in inputs.items()}
        for name, values in session(batch).items():
            if not np.isfinite(values).all():
                raise ModelError("EQ0332", f"{graph.name}: {name} overflows on the samples given")
            observers[name].see(values, mean=name in averaged)
        if progress is not None:
            progress(min(start + BATCH, samples), samples)
    ends = {*graph.inputs, *graph.outputs}
    means = {}
    for node in weighted:
        total = observers[node.inputs[0]].total
        if total is not None:
            means[node.name] = round_significant(_mean_input(graph, node, total / samples))

    @cache
    def bounds_of(name: str, width: int) -> tuple[float, float]:
        method = "minmax" if name in ends else settings.activations
        low, high = _BOUNDS[method](observers[name], width, settings)
        return float(round_significant(low)), float(round_significant(high))

    found = []
    for bits in levels:
        widths = {
            node.output: bits[node.name].activations for node in graph.nodes if node.name in bits
        }
        bounds = {name: bounds_of(name, widths.get(name, 8)) for name in observers}
        found.append(Ranges(bounds, means, settings.activations, samples))
    return tuple(found)


def _mean_input(graph: Graph, node: Node, mean: Array) -> Array:
    """What each weight of `node` meets on average, given its mean input."""
    weights = graph.tensors[node.inputs[1]]
    if node.op is Op.FULLY_CONNECTED or node.window is None:
        return mean.reshape(-1)
    _, height, width, _ = graph.tensors[node.output].shape
    seen: Array = windows(mean[None], node.window, 0, (height, width)).mean(axis=(0, 1, 2))
    if node.op is Op.CONV_2D:
        return seen
    if node.op is Op.GROUPED_CONV_2D:
        parts = np.stack(np.split(seen, groups(graph, node), axis=2))
        return parts.repeat(weights.shape[0] // len(parts), axis=0)
    channels_first = np.moveaxis(seen, 2, 0)
    return channels_first.repeat(weights.shape[0] // len(channels_first), axis=0)


def _minmax(seen: _Observer, bits: int, settings: Calibration) -> tuple[float, float]:
    return seen.low, seen.high


def _percentile(seen: _Observer, bits: int, settings: Calibration) -> tuple[float, float]:
    tail = 100 - settings.percentile
    low, high = np.percentile(np.concatenate(seen.values), [tail, 100 - tail])
    return min(float(low), 0.0), max(float(high), 0.0)


def _mse(seen: _Observer, bits: int, settings: Calibration) -> tuple[float, float]:
    """The share of the full range with the least squared error, on a histogram of the values."""
    if seen.high - seen.low < HISTOGRAM_BINS * np.finfo(np.float32).tiny:
        return seen.low, seen.high
    values = np.concatenate(seen.values, dtype=np.float64)  # sums of edges overflow float32
    counts, edges = np.histogram(values, HISTOGRAM_BINS, range=(seen.low, seen.high))
    centres = (edges[1:] + edges[:-1]) / 2
    levels = (1 << bits) - 1
    shares = np.linspace(1.0, SEARCH_FROM, SEARCH_STEPS)[:, None]
    low, high = shares * seen.low, shares * seen.high
    scale = (high - low) / levels
    kept = np.clip(centres, low, high)
    error = np.rint(kept / scale) * scale - centres
    best = int(np.argmin((error**2 * counts).sum(axis=1)))
    return float(low[best, 0]), float(high[best, 0])


_BOUNDS: Mapping[str, Callable[[_Observer, int, Calibration], tuple[float, float]]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _mse,
}


def to_json(ranges: Ranges, lower: Sequence[Ranges] = ()) -> dict[str, object]:
    """What `ranges.json` holds: of lower levels the bounds alone, means being of floats."""
    levels = [{name: list(pair) for name, pair in level.bounds.items()} for level in lower]
    return {
        "schema": 1,
        "method": ranges.method,
        "samples": ranges.samples,
        "bounds": {name: list(pair) for name, pair in ranges.bounds.items()},
        "means": {name: _flat(mean) for name, mean in ranges.means.items()},
        **({"levels": levels} if levels else {}),
    }


def from_json(data: Mapping[str, Any]) -> Ranges:
    """What `to_json` wrote; means are flat.

    Raises:
        ValueError: it is no such thing.
    """
    try:
        bounds = {
            str(name): (float(low), float(high)) for name, (low, high) in data["bounds"].items()
        }
        means = {name: np.array(mean, np.float64) for name, mean in data["means"].items()}
        return Ranges(bounds, means, str(data["method"]), int(data["samples"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no ranges: {error}") from error


def lower_from_json(data: Mapping[str, Any]) -> tuple[Ranges, ...]:
    """The ranges of the lower levels that `to_json` wrote.

    Raises:
        ValueError: it is no such thing.
    """
    try:
        return tuple(from_json({**data, "bounds": bounds}) for bounds in data.get("levels", []))
    except TypeError as error:
        raise ValueError(f"no ranges: {error}") from error


def _flat(mean: Array) -> Sequence[float]:
    return [float(v) for v in mean.reshape(-1)]
