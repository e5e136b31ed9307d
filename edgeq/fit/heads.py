"""Heads of early exits, trained on a frozen network: on what its integers are at every level.

A head is one layer on the pooled tensor where the network is cut: a softmax regression, which
NumPy fits in seconds. (That one head serves all levels, and so learns from all, goes beyond the
paper.) The same seed gives the same head on the same machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq import fixedpoint, gates
from edgeq.exits import Head, head_window
from edgeq.fit import execute
from edgeq.fit.adam import Adam
from edgeq.fit.outputs import check_training
from edgeq.gates import Path
from edgeq.ir import Array, Network, Tensor, qparams_of
from edgeq.levels import levels_of

Reals = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

BATCH = 256
LOOKS = 40  # most looks at the validation samples
LEAST_STEPS = 100  # between two of them; else as many as see each training sample once
PATIENCE = 4  # looks without a better accuracy
RATE, DECAY = 1e-3, 1e-4
_IDLE = 1e-6  # a value that varies less is no information
# Of what values deviate in the mean square: those that deviate less count for no more than if they
# did, since weights that make up for it would take the range of 8 bits for themselves.
LEAST_DEVIATION = 0.1


@dataclass(frozen=True, slots=True)
class Trained:
    """A head and its accuracy on the validation samples, by path that ends at its exit."""

    head: Head
    accuracy: Mapping[Path, float]


def pooled(boundary: Tensor, integers: Array) -> Reals:
    """What the layer of a head reads of `integers` (samples first) of that tensor, as reals.

    Images are averaged as the device averages them, rounded to the tensor's own integers.
    """
    count = len(integers)
    if integers.ndim == 4:
        height, width = integers.shape[1:3]
        window = head_window(height, width)
        top, left, bottom, right = window.pads
        pads = ((0, 0), (top, bottom), (left, right), (0, 0))
        rows, columns = window.output_size(height, width)
        tiles = (rows, window.kernel[0], columns, window.kernel[1])
        # windows do not overlap
        total, taps = (
            np.pad(one, pads).reshape(-1, *tiles, one.shape[3]).sum((2, 4), np.int64)
            for one in (integers, np.ones((1, height, width, 1), np.int8))
        )
        integers = fixedpoint.round_away_divide(total, taps)
    return qparams_of(boundary).dequantize(integers).astype(np.float32).reshape(count, -1)


def features(
    network: Network,
    inputs: Mapping[str, Array],
    progress: execute.Progress = lambda done: None,
) -> tuple[dict[Path, Reals], ...]:
    """What the head of each exit but the last reads, (samples, values), by path that ends there.

    `inputs` are quantised; heads that `network` has already are not looked at.
    """
    chain = execute.bodies(network)
    paths = [path for path in gates.all_paths(levels_of(network)) if len(path) < len(chain)]
    bare = Network(network.name, tuple(block for block, _ in chain))
    graphs = [block.variants[0].graph for block in bare.blocks]
    boundaries = [graph.tensors[graph.outputs[0]] for graph in graphs]
    parts: dict[Path, list[Reals]] = {path: [] for path in paths}
    done = 0
    for end in execute.walk(bare, inputs, paths):
        parts[end.path].append(pooled(boundaries[len(end.path) - 1], end.boundary))
        if end.start + len(end.boundary) > done:
            done = end.start + len(end.boundary)
            progress(done)
    return tuple(
        {path: np.concatenate(found) for path, found in parts.items() if len(path) == exit_}
        for exit_ in range(1, len(chain))
    )


def train(
    data: Mapping[Path, Reals],
    labels: Int64,
    held_out: Mapping[Path, Reals],
    held_out_labels: Int64,
    classes: int,
    seed: int = 0,
) -> Trained:
    """The head of one exit from what it reads on training and validation samples, by path.

    Samples of a batch, and the path of each, are drawn anew every time. What is kept is what had
    the best validation accuracy, in which paths count alike.

    Raises:
        ModelError: labels do not fit the samples or the classes.
    """
    samples, held = list(data.values()), list(held_out.values())
    check_training(samples, labels, held, held_out_labels, classes)
    values = np.stack(samples)
    mean = values.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    deviation = values.std(axis=(0, 1), dtype=np.float64).astype(np.float32)
    least = max(LEAST_DEVIATION * float(np.sqrt(np.mean(deviation**2))), _IDLE)
    factor = np.where(deviation > _IDLE, 1 / np.maximum(deviation, least), 0).astype(np.float32)
    rng = np.random.default_rng(seed)
    weights = np.zeros((classes, values.shape[2]), np.float32)
    bias = np.zeros(classes, np.float32)
    steps = max(len(labels) // BATCH, LEAST_STEPS)
    adam = Adam((weights, bias), RATE, DECAY, LOOKS * steps)
    best, kept, waited = -1.0, _folded(weights, bias, mean, factor), 0
    for _ in range(LOOKS):
        for _ in range(steps):
            at = rng.integers(0, len(labels), BATCH)
            x = (values[rng.integers(0, len(values), BATCH), at] - mean) * factor
            error = _softmax(x @ weights.T + bias)
            error[np.arange(BATCH), labels[at]] -= 1
            error /= BATCH
            adam.step((error.T @ x, error.sum(axis=0)))
        head = _folded(weights, bias, mean, factor)
        now = float(np.mean(list(accuracy(head, held_out, held_out_labels).values())))
        waited = 0 if now > best else waited + 1
        if now > best:
            best, kept = now, head
        if waited >= PATIENCE:
            break
    return Trained(kept, accuracy(kept, held_out, held_out_labels))


def train_all(
    data: Sequence[Mapping[Path, Reals]],
    labels: Int64,
    held_out: Sequence[Mapping[Path, Reals]],
    held_out_labels: Int64,
    classes: int,
    seed: int = 0,
) -> tuple[Trained, ...]:
    """`train` for every exit but the last, from the `features` of both folds."""
    return tuple(
        train(one, labels, other, held_out_labels, classes, seed)
        for one, other in zip(data, held_out, strict=True)
    )


def accuracy(head: Head, data: Mapping[Path, Reals], labels: Int64) -> dict[Path, float]:
    """The share of samples whose greatest output is at the label, by path, in float32."""
    return {
        path: float(((x @ head.weights.T + head.bias).argmax(axis=1) == labels).mean())
        for path, x in data.items()
    }


def _softmax(logits: Reals) -> Reals:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float32)


def _folded(weights: Reals, bias: Reals, mean: Reals, factor: Reals) -> Head:
    """The head that takes values as they are, where `weights` take standardised ones."""
    plain = weights * factor
    return Head(np.asarray(plain, np.float32), np.asarray(bias - plain @ mean, np.float32))
