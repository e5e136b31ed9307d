"""Every path of a network with exits on many samples, in integers: what gates are fitted on.

Blocks run depth first, a batch of samples at a time, so that what paths share runs once. The
integers are those of `reference`; PyTorch, where it is installed, computes them faster.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq import gates, reference
from edgeq.gates import Path
from edgeq.ir import Array, Block, Graph, Network, Node, Variant
from edgeq.levels import levels_of

BATCH = 256

Compute = Callable[[Graph, Node, Mapping[str, Array]], Array]
Progress = Callable[[int], None]  # samples done


@dataclass(frozen=True, slots=True)
class Reached:
    """What samples `start` and on left at the end of `path`."""

    start: int
    path: Path
    boundary: Array  # integers of what the last body on the path wrote, batch first
    outputs: Array | None  # of the network's output, written by the head; None where it has none


def bodies(network: Network) -> tuple[tuple[Block, Block | None], ...]:
    """The blocks of a chain that are no heads, each with the head that follows it, if one does."""
    blocks = network.blocks
    after = (*blocks[1:], None)
    return tuple(
        (block, head if head is not None and head.head else None)
        for block, head in zip(blocks, after, strict=True)
        if not block.head
    )


def fastest() -> Compute:
    """What computes the reference's integers fastest here."""
    if importlib.util.find_spec("torch") is None:
        return reference.compute
    from edgeq.fit.torch_compute import Compute as TorchCompute

    return TorchCompute()


def walk(
    network: Network,
    inputs: Mapping[str, Array],
    paths: Sequence[Path] | None = None,
    compute: Compute | None = None,
    batch: int = BATCH,
) -> Iterator[Reached]:
    """The end of every path in `paths` (all, by default) for every batch of quantised inputs."""
    wanted = set(gates.all_paths(levels_of(network)) if paths is None else paths)
    run = _Run(bodies(network), wanted, compute or fastest())
    count = len(next(iter(inputs.values())))
    for start in range(0, count, batch):
        yield from run.below(
            (), start, {name: x[start : start + batch] for name, x in inputs.items()}
        )


@dataclass(frozen=True, slots=True)
class _Run:
    chain: Sequence[tuple[Block, Block | None]]
    wanted: set[Path]
    compute: Compute

    def below(self, path: Path, start: int, values: Mapping[str, Array]) -> Iterator[Reached]:
        """Every wanted path that goes on from `path`, which left `values`."""
        block, head = self.chain[len(path)]
        last = len(path) + 1 == len(self.chain)
        known: dict[int, dict[str, Array]] = {}  # levels may share a graph
        for variant in block.variants:
            longer = (*path, variant.level)
            if not any(one[: len(longer)] == longer for one in self.wanted):
                continue
            key = id(variant.graph)
            left = known[key] = known[key] if key in known else self.run(variant, values)
            if longer in self.wanted:
                boundary = left[variant.graph.outputs[0]]
                outputs = boundary if last else None
                if head is not None:
                    (found,) = self.run(head.variants[0], left).values()
                    outputs = found
                yield Reached(start, longer, boundary, outputs)
            if not last:
                yield from self.below(longer, start, left)

    def run(self, variant: Variant, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one variant."""
        graph, values = variant.graph, dict(inputs)
        for node in graph.nodes:
            values[node.output] = self.compute(graph, node, values)
        return {name: values[name] for name in graph.outputs}


def logits(
    network: Network,
    inputs: Mapping[str, Array],
    paths: Sequence[Path] | None = None,
    progress: Progress = lambda done: None,
) -> dict[Path, npt.NDArray[np.int8]]:
    """The network's output integers where each path ends, (samples, classes); heads are there."""
    parts: dict[Path, list[Array]] = {}
    done = 0
    for reached in walk(network, inputs, paths):
        assert reached.outputs is not None, reached.path
        parts.setdefault(reached.path, []).append(reached.outputs)
        if reached.start >= done:
            done = reached.start + len(reached.outputs)
            progress(done)
    return {
        path: np.concatenate(found).astype(np.int8, copy=False) for path, found in parts.items()
    }
