"""What one nested store costs each level: fashion-resnet8, paired over the test images.

Run from the root: `python -m bench.nested [LEVELS …]`, LEVELS being bits like 8,4 (the default).
Each level is compared with the better of two quantisers of its own at the same bits: absmax scales,
and the search corrected in gain. Test images are those of `bench.accuracy`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import bundled

from edgeq import calibrate, pipeline, quantize, reference, targets
from edgeq.ir import Array, Graph, single
from edgeq.policy import Calibration, Policy, resolve

BATCH = 200
OWN = {"absmax": Calibration(weights="minmax", gain=False), "gain": Calibration()}


def right(example: bundled.Example, graph: Graph) -> Array:
    """Which test images the integers of `graph` get right."""
    images = bundled.images()
    target = targets.load("mcu")
    program = pipeline.place(example.model, single(graph), example.specs, target, "flash", ())
    inputs = images.inputs(program)
    (output,) = program.network.outputs
    parts = []
    for start in range(0, len(images.labels), BATCH):
        batch = {name: array[start : start + BATCH] for name, array in inputs.items()}
        parts.append(reference.run(program.network, batch)[output.name])
    found = np.concatenate(parts).reshape(len(images.labels), -1).argmax(axis=1)
    return np.asarray(found == images.labels, np.float64)


def main() -> None:
    sets = [tuple(map(int, text.split(","))) for text in sys.argv[1:] or ["8,4"]]
    example = bundled.load("fashion-resnet8")
    graph = example.model.graph
    samples = pipeline.read_samples(example.folder / "calib.npz", example.model, example.specs)
    most = max(levels[0] for levels in sets)
    cases = {(bits, 8) for levels in sets for bits in levels}
    cases |= {(bits, bits) for levels in sets for bits in levels if bits <= 4}
    print("| bits | absmax | gain | levels | nested | against the better |")
    print("| --- | ---: | ---: | --- | ---: | ---: |")
    for weights, activations in sorted(cases, key=lambda case: (most - case[0], -case[1])):
        default = {"weights": weights, "activations": activations}
        bits = resolve(Policy.model_validate({"default": default}), graph)
        ranges = calibrate.run(graph, bits, samples.real(), OWN["gain"], lambda *_: None)
        own = {
            name: right(example, quantize.run(graph, bits, ranges, settings))
            for name, settings in OWN.items()
        }
        best = max(own.values(), key=lambda found: found.mean())
        for levels in (levels for levels in sets if weights in levels):
            nests = {node.name: levels for node in graph.nodes}
            found = right(example, quantize.run(graph, bits, ranges, OWN["gain"], levels=nests))
            gained = found - best
            wide = 1.96 * gained.std() / len(gained) ** 0.5
            print(
                f"| W{weights}A{activations} | {own['absmax'].mean():.2%} | "
                f"{own['gain'].mean():.2%} | {', '.join(map(str, levels))} | {found.mean():.2%} | "
                f"{100 * gained.mean():+.2f} ± {100 * wide:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
