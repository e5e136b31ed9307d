"""Top-1 of the bundled examples by policy, under the device's rounding and under onnxruntime's.

Run from the root: `python -m bench.accuracy`. Test images: the 10,000 of `fashion_mnist.npz` in the
folder that EDGEQ_DATA names, else the 1,000 that come with edgeq.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import bundled

from edgeq import examples, layers, reference
from edgeq.program import Program
from edgeq.reference import Rounding

UNIFORM = ("w8a8", "w4a8", "w3a8")
BATCH = 128


def top1(program: Program, rule: Rounding) -> float:
    """The share of test images that the integers get right under `rule`."""
    images = bundled.images()
    inputs = images.inputs(program)
    (output,) = program.network.outputs
    parts = []
    for start in range(0, len(images.labels), BATCH):
        batch = {name: array[start : start + BATCH] for name, array in inputs.items()}
        parts.append(reference.run(program.network, batch, rule)[output.name])
    return images.top1(np.concatenate(parts))


def main() -> None:
    images = bundled.images()
    print(f"{len(images.labels):,} test images")
    titles = ("policy", "bits a weight", *(rule.value for rule in Rounding))
    print(f"{'example':<16} {titles[0]:<8} " + " ".join(f"{title:>13}" for title in titles[1:]))
    for name in examples.names():
        example = bundled.load(name)
        print(f"{name:<16} {'float':<8} {32:>13} {images.float_top1(example):>13.2%}")
        for policy in (*UNIFORM, example.policy):
            program = example.compile(policy).program
            found = " ".join(f"{top1(program, rule):>13.2%}" for rule in Rounding)
            label = policy if isinstance(policy, str) else "shipped"
            bits = layers.bits_per_weight(program)
            print(f"{name:<16} {label:<8} {bits:>13.2f} {found}", flush=True)


if __name__ == "__main__":
    main()
