"""Executes a TFLite model in a process of its own, which the runtime may take down with it.

`python -m edgeq.targets.interpreter_worker NAME` executes `model.tflite` of the current folder in
the runtime NAME of `RUNTIMES`, on the samples of `inputs.npz` (one array per input, by position).
`outputs.npz` gets the outputs, or, where there is a `names.json`, the tensors that it names.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# (model, names of tensors or None for the outputs) → what runs one sample
Loaded = Callable[[Sequence[Array]], list[Array]]

MODEL, INPUTS, NAMES, OUTPUTS = "model.tflite", "inputs.npz", "names.json", "outputs.npz"
SPARE_ARENA = 1 << 20  # bytes for what TFLite Micro keeps beside the tensors


def lite(resolver: str) -> Callable[[bytes, Sequence[str] | None], Loaded]:
    """LiteRT, or tflite_runtime where only that is installed, with one of its op resolvers."""

    def load(model: bytes, names: Sequence[str] | None) -> Loaded:
        try:
            from ai_edge_litert import interpreter as runtime
        except ImportError:
            from tflite_runtime import interpreter as runtime
        with warnings.catch_warnings(action="ignore"):  # of the memory that keeping tensors takes
            built = runtime.Interpreter(
                model_content=model,
                experimental_op_resolver_type=getattr(runtime.OpResolverType, resolver),
                experimental_preserve_all_tensors=names is not None,
            )
        built.allocate_tensors()
        inputs = [detail["index"] for detail in built.get_input_details()]
        if names is None:
            wanted = [detail["index"] for detail in built.get_output_details()]
        else:
            index = {detail["name"]: detail["index"] for detail in built.get_tensor_details()}
            wanted = [index[name] for name in names]

        def run(sample: Sequence[Array]) -> list[Array]:
            for position, array in zip(inputs, sample, strict=True):
                built.set_tensor(position, array)
            built.invoke()
            return [built.get_tensor(position).copy() for position in wanted]

        return run

    return load


def micro(model: bytes, names: Sequence[str] | None) -> Loaded:
    """TFLite Micro, with an arena that holds every tensor at once."""
    from tflite_micro import runtime

    parsed = runtime.convert_bytearray_to_object(model)
    graph = parsed.subgraphs[0]
    elements = sum(int(np.prod(tensor.shape)) for tensor in graph.tensors)
    kept = runtime.InterpreterConfig.kPreserveAllTensors
    plain = runtime.InterpreterConfig.kAllocationRecording
    built = runtime.Interpreter.from_bytes(
        model,
        arena_size=8 * elements + len(model) + SPARE_ARENA,
        intrepreter_config=plain if names is None else kept,
    )
    index = {tensor.name.decode(): i for i, tensor in enumerate(graph.tensors)}

    def run(sample: Sequence[Array]) -> list[Array]:
        for position, array in enumerate(sample):
            built.set_input(array, position)
        built.invoke()
        if names is None:
            arrays = [built.get_output(position) for position in range(len(graph.outputs))]
        else:
            arrays = [built.GetTensor(index[name], 0)["tensor_data"] for name in names]
        return [array.copy() for array in arrays]

    return run


RUNTIMES = {"tflm": micro, "xnnpack": lite("AUTO"), "litert-ref": lite("BUILTIN_REF")}


def main(name: str) -> None:
    """Runs the files of the current folder."""
    names = json.loads(Path(NAMES).read_text("utf-8")) if Path(NAMES).exists() else None
    run = RUNTIMES[name](Path(MODEL).read_bytes(), names)
    with np.load(INPUTS) as archive:
        inputs = [archive[name] for name in archive.files]
    samples = [run([array[i : i + 1] for array in inputs]) for i in range(len(inputs[0]))]
    np.savez(OUTPUTS, *(np.concatenate(column) for column in zip(*samples, strict=True)))


if __name__ == "__main__":
    main(sys.argv[1])
