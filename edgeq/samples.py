"""Samples: an `.npz` with one array per model input, checked before anything computes with it.

Arrays are in the source model's layout, first axis samples: float32 as the model takes them, raw
uint8 where an `[input]` section says how bytes become reals, or, for a model that was quantised
already, the int8 integers of its input. `y` holds integer labels.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.errors import UsageError
from edgeq.frontends import Port
from edgeq.ir import Array, QParams
from edgeq.policy import InputSpec

LABELS = "y"
SINGLE = "x"  # serves for the only input, whatever its name
DRAWN = 64  # samples, where none are given


@dataclass(frozen=True, slots=True)
class Samples:
    """Checked samples, channels last: `inputs` by graph tensor, and labels.

    They are float32, raw uint8, whose meaning `specs` says by graph tensor, or int8, the device's
    own integers, whose meaning `qparams` says.
    """

    inputs: Mapping[str, Array]
    labels: npt.NDArray[np.int64] | None
    specs: Mapping[str, InputSpec]
    qparams: Mapping[str, QParams] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, start: int, stop: int) -> Samples:
        """Samples start .. stop, without copying."""
        part = {name: array[start:stop] for name, array in self.inputs.items()}
        labels = None if self.labels is None else self.labels[start:stop]
        return replace(self, inputs=part, labels=labels)

    def real(self) -> dict[str, npt.NDArray[np.float32]]:
        """The reals that the float network takes, by graph tensor."""
        return {name: self._real(name, array) for name, array in self.inputs.items()}

    def _real(self, name: str, array: Array) -> npt.NDArray[np.float32]:
        if array.dtype == np.uint8:
            return self.specs[name].real(array)
        if array.dtype == np.int8:
            return self.qparams[name].dequantize(array).astype(np.float32)
        return array


def load(
    path: Path,
    ports: Sequence[Port],
    specs: Mapping[str, InputSpec],
    classes: int | None = None,
) -> Samples:
    """The samples of `path`, all checked against the model's inputs.

    `specs` is by port name; `classes` bounds the labels.

    Raises:
        UsageError: the file is missing, no `.npz`, pickled, empty, or holds arrays of the wrong
            name, shape or type, NaN or infinite values, or labels outside 0 .. classes − 1.
    """
    arrays = _read(path)
    labels = _labels(path, arrays.pop(LABELS, None), classes)
    inputs = {}
    for port in ports:
        name = port.name
        if name not in arrays and len(ports) == 1 and SINGLE in arrays:
            name = SINGLE
        if name not in arrays:
            wanted = (
                port.name if len(ports) > 1 or port.name == SINGLE else f"{port.name} or {SINGLE}"
            )
            raise UsageError(
                "EQ0221", f"{path}: no array {wanted}; it holds {', '.join(arrays) or 'nothing'}"
            )
        checked = _check(path, name, arrays[name], port, specs.get(port.name))
        inputs[port.tensor] = np.ascontiguousarray(port.to_graph(checked))
    counts = {name: len(array) for name, array in inputs.items()}
    if labels is not None:
        counts[LABELS] = len(labels)
    if len(set(counts.values())) > 1:
        raise UsageError("EQ0223", f"{path}: arrays disagree on the number of samples: {counts}")
    known = {port.tensor: specs[port.name] for port in ports if port.name in specs}
    return Samples(inputs, labels, known, _qparams(ports))


def drawn(ports: Sequence[Port]) -> Samples:
    """Random integers, the same every time, for a model that was quantised already."""
    rng = np.random.default_rng(0)
    found = _qparams(ports)
    inputs = {
        port.tensor: rng.integers(-128, 128, (DRAWN, *port.shape[1:]), np.int8) for port in ports
    }
    return Samples(inputs, None, {}, found)


def _qparams(ports: Sequence[Port]) -> dict[str, QParams]:
    return {port.tensor: port.qparams for port in ports if port.qparams is not None}


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of one sample, batch axis 1, of every input array of `path`."""
    arrays = _read(path)
    return {name: (1, *a.shape[1:]) for name, a in arrays.items() if name != LABELS}


def _read(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError("EQ0220", f"{path} is a single array; save it with np.savez(x=…)")
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise UsageError("EQ0220", f"{path}: no such file") from error
    except (OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # RuntimeError: an encrypted member, or a compression that this Python lacks
        raise UsageError("EQ0220", f"{path} is no readable .npz file: {error}") from error
    except ValueError as error:
        raise UsageError(
            "EQ0220",
            f"{path} holds Python objects or damaged arrays; edgeq reads plain arrays only",
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy gives the bytes of what is no array
            raise UsageError("EQ0220", f"{path}: {name} is no array; write the file with np.savez")
    return arrays


def _check(path: Path, name: str, array: Array, port: Port, spec: InputSpec | None) -> Array:
    if array.ndim < 1 or len(array) == 0:
        raise UsageError("EQ0222", f"{path}: {name} holds no samples")
    expected = tuple(port.shape[1:])
    if tuple(array.shape[1:]) != expected:
        raise UsageError(
            "EQ0223",
            f"{path}: {name} has samples of shape {tuple(array.shape[1:])}; "
            f"the model takes {expected}",
        )
    if array.dtype == np.uint8:
        if spec is None or not spec.raw:
            raise UsageError(
                "EQ0224",
                f"{path}: {name} is raw uint8, but no [input.{port.name}] (mean, std, range) says "
                "what its bytes mean; add that to the policy, or give float32",
            )
        return array
    if array.dtype == np.int8 and port.qparams is not None:
        return array
    if array.dtype.kind != "f":
        raise UsageError(
            "EQ0224",
            f"{path}: {name} has type {array.dtype}; samples are float32 or raw uint8, or int8 "
            "for a model that is quantised already",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        reals = array.astype(np.float32)
    if not np.isfinite(reals).all():
        raise UsageError("EQ0225", f"{path}: {name} holds NaN or infinite values as float32")
    return reals


def _labels(path: Path, array: Array | None, classes: int | None) -> npt.NDArray[np.int64] | None:
    if array is None:
        return None
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise UsageError(
            "EQ0226",
            f"{path}: {LABELS} has type {array.dtype} and shape {array.shape}; "
            "labels are one integer a sample",
        )
    labels = array.astype(np.int64)
    if classes is not None and len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise UsageError(
            "EQ0226",
            f"{path}: labels run from {labels.min()} to {labels.max()}; "
            f"the model's are 0 to {classes - 1}",
        )
    return labels
