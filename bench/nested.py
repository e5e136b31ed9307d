"""What one nested store costs each level, paired over 10,000 test images.

    python bench/nested.py FOLDER [NETWORK ...] [--levels BITS,BITS,...]

Networks, images and FOLDER are those of `quee.py`, its first seed. Each level is compared with the
better of two quantisers of its own at the same bits: absmax scales, and the search corrected in
gain. Layers that keep 8 bits at a Cortex-M4's default level keep them here: the first and the last,
and activations that additions and average pools read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import quee

from edgeq import calibrate, quantize, targets
from edgeq.fit import execute
from edgeq.ir import Array, Graph, single
from edgeq.levels import resolve
from edgeq.pipeline import Model
from edgeq.policy import Calibration

NETWORKS = ("fashion-resnet8", "cifar-resnet8", "resnet20")
OWN: Mapping[str, Calibration] = {
    "absmax": Calibration(weights="minmax", gain=False),
    "gain": Calibration(),
}
BOTH_LOW = 4  # bits up to which activations have as many, too


def right(run: quee.Bench, model: Model, graph: Graph) -> Array:
    """Which test images the integers of `graph` get right."""
    network, test = single(graph), run.case.images().test
    (logits,) = execute.logits(network, run.integers(model, network, test.images)).values()
    return np.asarray(logits.argmax(axis=1) == test.labels, np.float64)


def rows(run: quee.Bench, levels: tuple[int, ...]) -> Iterator[str]:
    """A row for each level and bits of activations."""
    model = run.model()
    graph, samples = model.graph, run.calibration(model).real()
    top, low = resolve(run.case.policy, graph, targets.load(quee.TARGET).isa)
    nests = {name: levels for name, bits in low.items() if bits.weights < top[name].weights}
    pairs = [(bits, 8) for bits in levels] + [(bits, bits) for bits in levels if bits <= BOTH_LOW]
    for weights, activations in pairs:
        bits = quee.lowered(top, low, weights, activations)
        ranges = calibrate.run(graph, bits, samples, OWN["gain"], lambda *_: None)
        own = {
            name: right(run, model, quantize.run(graph, bits, ranges, settings))
            for name, settings in OWN.items()
        }
        best = max(own.values(), key=lambda found: found.mean())
        nested = quantize.run(graph, bits, ranges, OWN["gain"], levels=nests)
        found = right(run, model, nested)
        gained = 100 * (found - best)
        wide = 1.96 * gained.std() / len(gained) ** 0.5
        yield (
            f"| {run.name} | W{weights}A{activations} | {own['absmax'].mean():.2%} | "
            f"{own['gain'].mean():.2%} | {', '.join(map(str, levels))} | {found.mean():.2%} | "
            f"{gained.mean():+.2f} ± {wide:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--levels", default="8,4", help="bits, the parent's first")
    options = parser.parse_args()
    if wrong := [name for name in options.networks if name not in NETWORKS]:
        parser.error(f"no network {wrong[0]!r}; there are {', '.join(NETWORKS)}")
    levels = tuple(map(int, options.levels.split(",")))
    print("| network | bits | absmax | gain | levels | nested | against the better |")
    print("| --- | --- | ---: | ---: | --- | ---: | ---: |")
    for name in options.networks or NETWORKS:
        for row in rows(quee.Bench(name, 0, options.folder), levels):
            print(row, flush=True)


if __name__ == "__main__":
    main()
