"""What a front end hands over: the graph, and how the file's own layout maps to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeq.errors import ModelError
from edgeq.ir import Array, Graph, QParams, Tensor

SHOWN = 10  # refusals in one message


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output: its name, shape and layout in the file, its tensor in the graph.

    `qparams` are those of a model that was quantised before it came here; `raw` the reals of the
    bytes 0 and 255, if it takes bytes.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    layout: str  # "NCHW", "NHWC" or "NC"
    qparams: QParams | None = None
    raw: tuple[float, float] | None = None

    def to_graph(self, samples: Array) -> Array:
        """`samples` (first axis samples, in the file's layout) in the graph's layout."""
        return np.moveaxis(samples, 1, -1) if self.layout == "NCHW" else samples

    def to_source(self, samples: Array) -> Array:
        """`samples` (first axis samples, in the graph's layout) in the file's layout."""
        return np.moveaxis(samples, -1, 1) if self.layout == "NCHW" else samples


@dataclass(frozen=True, slots=True)
class Source:
    """A model as read: a float graph, ports in the file's order, what was decided on reading.

    Of a model that was quantised before it came here, `quantized` holds the integers that stand for
    tensors of the graph, by name: every activation, weights, biases, the values of pads;
    NODE.table for each table, and NODE.multiplier and NODE.shift where scales do not tell them.
    """

    graph: Graph
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    notes: tuple[str, ...]
    name: str = "model"
    sha256: str = ""  # of the file, or of what would be one
    quantized: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of the file, and the sentence why edgeq refuses it, if it does."""

    name: str
    kind: str
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """A model as far as it can be read: `source` is None where anything was refused."""

    operators: tuple[Operator, ...]
    refusals: tuple[str, ...]  # of operators and of the whole
    source: Source | None

    def whole(self, path: Path, supported: Iterable[str]) -> Source:
        """The model at `path`, of a format with those operators.

        Raises:
            ModelError: something was refused.
        """
        if self.source is not None:
            return self.source
        shown = list(self.refusals[:SHOWN])
        if (more := len(self.refusals) - len(shown)) > 0:
            shown.append(f"and {more} more")
        shown.append(f"supported operators: {', '.join(supported)}")
        raise ModelError("EQ0315", f"{path}: " + "\n  ".join(shown))
