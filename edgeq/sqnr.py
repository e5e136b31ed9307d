"""Which layers lose the signal: quantisation noise of each operator alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from edgeq import floatrun, reference
from edgeq.ir import Array, Graph, qparams_of
from edgeq.ops import OPS

SAMPLES = 16  # enough: the figure is a mean over all values of a tensor


def by_layer(graph: Graph, integer: Graph, inputs: Mapping[str, Array]) -> dict[str, float | None]:
    """Signal to quantisation noise of every operator in dB, by node name.

    Each operator gets the float network's values, quantised, so that noise from the layers before
    it does not count; its integers are compared with what the float operator gives. None where
    there is no noise at all. `inputs` are reals; the first 16 samples are used.
    """
    return by_node(graph, (integer,), {node.name: node.name for node in integer.nodes}, inputs)


def by_node(
    graph: Graph,
    parts: Sequence[Graph],
    origin: Mapping[str, str],
    inputs: Mapping[str, Array],
    entries: AbstractSet[str] = frozenset(),
) -> dict[str, float | None]:
    """The same for integer graphs whose nodes stand for those of `graph` that `origin` names.

    Nodes among `entries` compute nothing: they bring the output of their origin to another format.
    """
    names = [*graph.inputs, *(node.output for node in graph.nodes)]
    batch = {name: array[:SAMPLES] for name, array in inputs.items()}
    real = floatrun.FloatRun(graph, names)(batch)
    nodes = {node.name: node for node in graph.nodes}
    found: dict[str, float | None] = {}
    for integer, node in ((part, node) for part in parts for node in part.nodes):
        source = nodes[origin[node.name]]
        read = (source.output,) if node.name in entries else source.inputs
        quantized = {
            name: qparams_of(integer.tensors[name]).quantize(real[given])
            for name, given in zip(node.inputs[: OPS[node.op].activations], read, strict=False)
        }
        output = reference.compute(integer, node, quantized)
        given = qparams_of(integer.tensors[node.output]).dequantize(output)
        found[node.name] = decibels(real[source.output], given)
    return found


def decibels(expected: Array, given: Array) -> float | None:
    """The signal `expected` to the noise that `given` adds, in dB; None without either."""
    signal = np.asarray(expected, np.float64)
    power = float(((np.asarray(given, np.float64) - signal) ** 2).sum())
    total = float((signal**2).sum())
    return 10 * math.log10(total / power) if power and total else None
