"""Runs a model of this folder on samples: `python run.py NAME.onnx samples.npz`.

It needs NumPy and the runtime of the format (for .onnx onnxruntime, for .tflite ai-edge-litert or
tflite-runtime), and nothing of edgeq; Python 3.9 and NumPy 1.21 will do. The samples hold one array
per input, by its name (`x` serves for a single one), the first axis samples, in the layout of the
model that was exported: float32 as it takes them, or raw bytes where run.json says what these mean.
With labels (`y`) it counts hits. Of a model with exits it counts who leaves where, and takes
another tradeoff than the one that was exported.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]  # by input or output name; the first axis samples
Facts = Mapping[str, Any]  # what run.json says
Model = Callable[[Arrays], Arrays]


def load_onnx(path: Path, facts: Facts) -> Model:
    """The model at `path` in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # x86 cores without VNNI saturate products of 8 × 8 bits otherwise.
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3  # it warns of an input that need not be given
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs)))


def load_tflite(path: Path, facts: Facts) -> Model:
    """The model at `path` in LiteRT, or in tflite_runtime: integers, and channels last."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()
    inputs, outputs = run.get_input_details(), run.get_output_details()

    def quantized(name: str, reals: Any) -> Any:
        (scale, zero_point), kind = inputs[name]["quantization"], inputs[name]["dtype"]
        steps = np.rint(reals.astype(np.float64) / scale) + zero_point
        limits = np.iinfo(kind)
        integers = np.clip(steps, limits.min, limits.max).astype(kind)
        return np.moveaxis(integers, facts["inputs"][name]["axis"], -1)

    def real(name: str, integers: Any) -> Any:
        scale, zero_point = outputs[name]["quantization"]
        reals = ((integers.astype(np.float64) - zero_point) * scale).astype(np.float32)
        return np.moveaxis(reals, -1, facts["outputs"][name]["axis"])

    def model(samples: Arrays) -> Arrays:
        arrays = {name: quantized(name, samples[name]) for name in samples}
        count = len(next(iter(arrays.values())))
        rows = [run(**{n: a[i : i + 1] for n, a in arrays.items()}) for i in range(count)]
        return {n: real(n, np.concatenate([row[n] for row in rows])) for n in facts["outputs"]}

    return model


RUNTIMES = {".onnx": load_onnx, ".tflite": load_tflite}


def load(path: Path, facts: Facts) -> Model:
    """The model at `path`, in the runtime of its format: float32 arrays to float32 arrays."""
    if path.suffix not in RUNTIMES:
        sys.exit(f"{path}: this runs {', '.join(RUNTIMES)}")
    return RUNTIMES[path.suffix](path, facts)


def read(archive: Mapping[str, Any], facts: Facts) -> Arrays:
    """The samples of every input, as float32."""
    ports = facts["inputs"]
    found = {}
    for name, port in ports.items():
        key = "x" if name not in archive and len(ports) == 1 else name
        if key not in archive:
            sys.exit(f"no array {name}; there are {', '.join(archive)}")
        samples = archive[key]
        if samples.dtype != np.uint8:
            found[name] = samples.astype(np.float32)
        elif port["reals"] is None:
            sys.exit(f"{name}: raw bytes, but the export was not told what they mean")
        else:
            found[name] = from_bytes(samples, port["axis"], np.array(port["reals"], np.float32))
    return found


def from_bytes(samples: Any, axis: int, reals: Any) -> Any:
    """Raw bytes as float32 by `reals` (channels or 1, 256), the channels along `axis`."""
    sizes = [1] * samples.ndim
    sizes[axis] = -1
    channels = np.arange(samples.shape[axis]) % len(reals)
    return reals[channels.reshape(sizes), samples]


def with_tradeoff(inputs: Arrays, tradeoff: float, facts: Facts) -> Arrays:
    """The inputs, and the price of what a sample computes, in units of error."""
    if not facts.get("exits"):
        sys.exit("--tradeoff: the model has no exits")
    if not 0 <= tradeoff < 1 << 16:
        sys.exit(f"--tradeoff {tradeoff}: 0 and more, below {1 << 16}")
    return {**inputs, "tradeoff": np.array(min(round(tradeoff * (1 << 16)), (1 << 32) - 1))}


def main() -> None:
    """Runs the model that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("-o", "--outputs", type=Path, help="write the outputs here, as .npz")
    parser.add_argument("--tradeoff", type=float, help="of exits: the greater, the earlier")
    options = parser.parse_args()
    for path in (options.model, options.samples):
        if not path.is_file():
            sys.exit(f"{path}: no such file")
    facts = json.loads(Path(__file__).with_name("run.json").read_text("utf-8"))
    with np.load(options.samples) as archive:
        arrays = dict(archive)
    inputs = read(arrays, facts)
    if options.tradeoff is not None:
        inputs = with_tradeoff(inputs, options.tradeoff, facts)
    outputs = load(options.model, facts)(inputs)
    if options.outputs:
        np.savez(options.outputs, **outputs)
    first = next(iter(outputs.values()))
    winners = first.reshape(len(first), -1).argmax(axis=1)
    labels = arrays.get("y")
    if labels is not None:
        hits = int((winners == labels).sum())
        print(f"{hits} of {len(labels)} samples at their label, {hits / len(labels):.2%}")
    if "exit" in outputs:
        left = np.bincount(outputs["exit"], minlength=facts["exits"]) / len(winners)
        print(", ".join(f"exit {place}: {share:.1%}" for place, share in enumerate(left, 1)))
    names = facts["labels"] or range(first[0].size)
    for index, winner in enumerate(winners[:10].tolist()):
        print(f"sample {index}: {names[winner]}")


if __name__ == "__main__":
    main()
