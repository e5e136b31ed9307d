"""Accuracy by calibration setting and bits of weights: the table of docs/quantization.md.

    python bench/ptq.py [EXAMPLE]

Runs the integer reference, which computes what the device computes. Test images: the 10,000 of
`fashion_mnist.npz` in the folder that EDGEQ_DATA names, else the 1,000 that come with edgeq.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from edgeq import examples, parity, pipeline, policy, targets
from edgeq.ops import OPS
from edgeq.pipeline import Model
from edgeq.policy import Calibration, InputSpec, Policy, Precision, Rule
from edgeq.samples import Samples

BATCH = 500
POLICIES = (  # bits of weights, bits of the first and the last layer
    (8, 8),
    (5, 5),
    (4, 4),
    (3, 3),
    (5, 8),
    (4, 8),
    (3, 8),
)
SETTINGS = {
    "defaults": {},
    'activations = "minmax"': {"activations": "minmax"},
    'activations = "percentile"': {"activations": "percentile"},
    'weights = "minmax"': {"weights": "minmax"},
    "gain = false": {"gain": False},
    "bias_correction = false": {"bias_correction": False},
    "none of the four": {
        "activations": "minmax",
        "weights": "minmax",
        "gain": False,
        "bias_correction": False,
    },
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "fashion-resnet8"
    folder = examples.path(name)
    model = pipeline.read(folder / "model.onnx")
    specs = dict(policy.load(examples.policy(name)).input)
    calibration = pipeline.read_samples(folder / "calib.npz", model, specs)
    test = images(folder, model, specs)
    print(f"{name}, {len(test):,} test images, {len(calibration)} calibration images", flush=True)
    layers = [node.name for node in model.graph.nodes if OPS[node.op].weighted]
    titles = [f"w{bits}" + f", ends {ends}" * (bits != ends) for bits, ends in POLICIES]
    print(f"| | {' | '.join(titles)} |")
    print(f"| --- |{' ---: |' * len(titles)}")
    for label, settings in SETTINGS.items():
        calibrate = Calibration.model_validate(settings)
        chosen = [
            Policy(
                default=Precision(weights=bits),
                rule=(
                    Rule(match=layers[0], weights=ends),
                    Rule(match=layers[-1], weights=ends),
                ),
                calibration=calibrate,
            )
            for bits, ends in POLICIES
        ]
        found = [accuracy(model, one, specs, calibration, test) for one in chosen]
        print(f"| {label} | {' | '.join(f'{top1:.2%}' for top1 in found)} |", flush=True)


def images(folder: Path, model: Model, specs: dict[str, InputSpec]) -> Samples:
    """All test images, or the bundled ones."""
    bundled = pipeline.read_samples(folder / "test.npz", model, specs)
    file = Path(os.environ.get("EDGEQ_DATA", "")) / "fashion_mnist.npz"
    if not file.is_file():
        return bundled
    with np.load(file) as archive:
        raw, labels = archive["x_test"][..., None], archive["y_test"].astype(np.int64)
    return Samples(dict.fromkeys(bundled.inputs, raw), labels, bundled.specs)


def accuracy(
    model: Model,
    chosen: Policy,
    specs: dict[str, InputSpec],
    calibration: Samples,
    test: Samples,
) -> float:
    """The share of test images that the integer network gets right."""
    program = pipeline.compile(
        model, chosen, specs, calibration, targets.load("mcu"), "flash", (), lambda *_: None
    ).program
    right = 0.0
    for start in range(0, len(test), BATCH):
        part = test.take(start, start + BATCH)
        right += len(part) * (
            parity.top1(parity.predict(program, program.quantize(part)), part.labels) or 0
        )
    return right / len(test)


if __name__ == "__main__":
    main()
