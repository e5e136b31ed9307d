"""Where the time of an export goes; and its quantiser against onnxruntime's, in the same run.

Run from the root: `python -m bench.export`. Wall-clock seconds of this machine, other work
included: compare within a run only.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from onnxruntime import quantization

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import bundled

import edgeq
from edgeq import calibrate, examples, pipeline, policy, quantize
from edgeq.ir import Array

REPEATS = 3


def stages(out: Path) -> dict[str, float]:
    """Seconds of every stage of the bundled example's export, each from its first sign of life."""
    begun = [("reading", time.perf_counter())]

    def progress(stage: str, done: int, total: int) -> None:
        if stage != begun[-1][0]:
            begun.append((stage, time.perf_counter()))

    edgeq.export(out=out, progress=progress)
    ends = [start for _, start in begun[1:]] + [time.perf_counter()]
    return {stage: end - start for (stage, start), end in zip(begun, ends, strict=True)}


class Reader(quantization.CalibrationDataReader):
    """The calibration samples one by one, as onnxruntime takes them."""

    def __init__(self, name: str, samples: Array) -> None:
        self.feeds: Iterator[dict[str, Array]] = ({name: x[None]} for x in samples)

    def get_next(self) -> dict[str, Array] | None:
        """The next sample, by input name."""
        return next(self.feeds, None)


def ours(example: bundled.Example) -> None:
    """From the file to the integer graph: read, calibrate, quantise."""
    model = pipeline.read(example.folder / "model.onnx")
    samples = pipeline.read_samples(example.folder / "calib.npz", model, example.specs)
    chosen = policy.load(example.policy)
    bits = policy.resolve(chosen, model.graph)
    ranges = calibrate.run(model.graph, bits, samples.real(), chosen.calibration)
    quantize.run(model.graph, bits, ranges, chosen.calibration)


def theirs(example: bundled.Example, out: Path) -> None:
    """From the file to a file: static, per channel, ranges by min and max."""
    (port,) = example.model.source.inputs
    with np.load(example.folder / "calib.npz") as archive:
        channels_last = np.moveaxis(archive["x"], 1, -1)
    samples = port.to_source(example.specs[port.name].real(channels_last))
    quantization.quantize_static(
        example.folder / "model.onnx",
        out,
        Reader(port.name, samples),
        per_channel=True,
    )


def best(run: Callable[[], None]) -> float:
    """The least seconds of a few runs."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    logging.disable(logging.WARNING)  # onnxruntime's advice, six times over
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("edgeq export")
        found = stages(folder / "build")
        for stage, seconds in found.items():
            print(f"  {stage:<30} {seconds:6.2f} s")
        print(f"  {'total':<30} {sum(found.values()):6.2f} s")
        for model in examples.names():
            example = bundled.load(model)
            a = best(partial(ours, example))
            b = best(partial(theirs, example, folder / "model.onnx"))
            print(f"{model}: calibrate and quantise {a:.2f} s; onnxruntime {b:.2f} s; {a / b:.2f}×")


if __name__ == "__main__":
    main()
