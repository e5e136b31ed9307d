"""Arena bytes by graph: lower bound, greedy by size, the planner, and its time.

Then those of MLPerf Tiny's networks with their kernels' scratch on a Cortex-M4: outputs apart from
their inputs, over them, and over them with the network's input retained.

Run from the root: `python -m bench.plan`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from graphs import ds_cnn, in_blocks, mobilenet, random_graph, resnet8
from programs import compiled
from test_plan import CLOSE, greedy_by_size, with_scratch

from edgeq import dispatch
from edgeq.ir import Graph, Network, single
from edgeq.plan import plan

RANDOM = 200
SHOWN = 5


def row(label: str, network: Network, *, scratch: bool = False) -> tuple[float, str]:
    """How many times the lower bound the arena is, and a line of the table."""
    needs = with_scratch(network) if scratch else {}
    start = time.perf_counter()
    planned = plan(network, needs)
    milliseconds = 1000 * (time.perf_counter() - start)
    ratio = planned.arena_bytes / planned.lower_bound
    sizes = (planned.lower_bound, greedy_by_size(planned), planned.arena_bytes)
    numbers = " ".join(f"{size:>9}" for size in sizes)
    return ratio, f"{label:<28} {numbers} {ratio:>7.3f} {milliseconds:>8.1f}"


def mlperf(graph: Graph) -> str:
    """A line of the second table."""
    network = single(compiled(graph).program.network.graphs[0])
    inputs = [tensor.name for tensor in network.inputs]
    apart = dispatch.run(network, ("dsp",), "time").plan.arena_bytes
    start = time.perf_counter()
    over = dispatch.run(network, ("dsp",), "ram")
    milliseconds = 1000 * (time.perf_counter() - start)
    retained = dispatch.run(network, ("dsp",), "ram", retained=inputs).plan.arena_bytes
    sizes = (apart, over.plan.arena_bytes, retained)
    numbers = " ".join(f"{size:>9}" for size in sizes)
    return f"{graph.name:<28} {numbers} {milliseconds:>8.1f}"


def main() -> None:
    print(f"{'graph':<28} {'bound':>9} {'greedy':>9} {'ours':>9} {'ratio':>7} {'ms':>8}")
    small = resnet8(28, 28, 1)
    print(row("resnet8 28x28x1", single(small))[1])
    print(row("resnet8 32x32x3", single(resnet8(32, 32, 3)))[1])
    print(row("resnet8 28x28x1, 3 levels", in_blocks(small, (4, 8), 3))[1])
    for seed in (1, 8, 9):
        graph = random_graph(seed, layers=120)
        print(row(f"{graph.name}, {len(graph.nodes)} nodes", single(graph), scratch=True)[1])
    rows = [
        row(f"random_{seed}", single(random_graph(seed)), scratch=True) for seed in range(RANDOM)
    ]
    for _, line in sorted(rows, reverse=True)[:SHOWN]:
        print(line)
    close = sum(ratio <= CLOSE for ratio, _ in rows)
    print(f"{close} of {RANDOM} random graphs within 5 % of the bound; the worst {SHOWN} above")
    print(f"{'MLPerf Tiny, int8':<28} {'apart':>9} {'over':>9} {'retained':>9} {'ms':>8}")
    for network in (resnet8(32, 32, 3), ds_cnn(), mobilenet()):
        print(mlperf(network))


if __name__ == "__main__":
    main()
