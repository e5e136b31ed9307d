"""What the exits of an integer network gave for some samples, on every path: all that a fit sees.

`gates.see` makes of it what the device sees, so that gates are fitted to the device's integers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgeq import gates
from edgeq.errors import ModelError, UsageError
from edgeq.gates import Levels, Path, Seen
from edgeq.ir import Array

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """The output integers (samples, classes) where each path ends, and the right classes.

    A path stands for the exit at its end. All exits share one scale, as they share one tensor.
    """

    logits: Mapping[Path, Int8]
    labels: Int64  # (samples,)
    scale: float
    expected: Mapping[Path, Reals] | None = None  # errors, where they are better known than counted

    def __post_init__(self) -> None:
        shapes = {logits.shape for logits in self.logits.values()}
        if len(shapes) != 1:
            raise ModelError("EQ0396", f"paths have outputs of shapes {sorted(shapes)}; one is due")
        ((count, classes),) = shapes
        check_labels(self.labels, count, classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """How many classes the outputs tell apart."""
        return int(next(iter(self.logits.values())).shape[1])

    @cached_property
    def seen(self) -> Mapping[Path, Seen]:
        """What a gate sees where each path ends."""
        return {path: gates.see(logits, self.scale) for path, logits in self.logits.items()}

    @cached_property
    def wrong(self) -> Mapping[Path, Bools]:
        """Which samples get a wrong class where each path ends: the first greatest output's."""
        return {path: o.argmax(axis=1) != self.labels for path, o in self.logits.items()}

    @cached_property
    def errors(self) -> Mapping[Path, Reals]:
        """The error of each sample where each path ends, 0..1: as expected, or 0 and 1."""
        if self.expected is not None:
            return self.expected
        return {path: wrong.astype(np.float64) for path, wrong in self.wrong.items()}

    def real(self, path: Path) -> Reals:
        """The outputs as real numbers; a constant less, which no softmax sees."""
        return self.scale * self.logits[path].astype(np.float64)

    def take(self, at: Int64) -> Fold:
        """Those samples alone."""
        expected = None if self.expected is None else {p: e[at] for p, e in self.expected.items()}
        logits = {path: o[at] for path, o in self.logits.items()}
        return Fold(logits, self.labels[at], self.scale, expected)

    def digest(self) -> str:
        """A hash of labels and outputs, whatever the order of the paths."""
        found = hashlib.sha256(self.labels.astype("<i8").tobytes())
        for path in sorted(self.logits):
            found.update(repr(path).encode() + self.logits[path].tobytes())
        return found.hexdigest()


def check_labels(labels: Int64, count: int, classes: int, name: str = "samples") -> None:
    """That there is a label, a class of that many, for each of `count` samples.

    Raises:
        ModelError: there is not.
    """
    if labels.shape != (count,):
        raise ModelError("EQ0396", f"labels of shape {labels.shape} for {count} {name}")
    if count and not 0 <= labels.min() <= labels.max() < classes:
        raise ModelError("EQ0396", f"labels of {name} must be 0 to {classes - 1}")


def check_training(
    data: Sequence[Array],
    labels: Int64,
    held_out: Sequence[Array],
    held_out_labels: Int64,
    classes: int,
) -> None:
    """That both folds of a training have samples (first axis of all arrays), and labels for them.

    Raises:
        ModelError: one has not.
    """
    folds = ("training", data, labels), ("validation", held_out, held_out_labels)
    for name, arrays, given in folds:
        if not len(given):
            raise ModelError("EQ0396", f"there are no {name} samples")
        for values in arrays:
            check_labels(given, len(values), classes, f"{name} samples")


def fold(name: str, logits: Mapping[Path, Int8], labels: Int64 | None, scale: float) -> Fold:
    """A fold of that name.

    Raises:
        UsageError: labels are missing.
        ModelError: outputs and labels do not fit each other.
    """
    return Fold(logits, labelled(name, labels), scale)


def labelled(name: str, labels: Int64 | None) -> Int64:
    """The labels of the samples called `name`.

    Raises:
        UsageError: there are none.
    """
    if labels is None or not len(labels):
        raise UsageError("EQ0260", f"{name}: gates are fitted to labels; the file needs an array y")
    return labels


def same_data() -> str:
    """What to tell where gates are fitted to the samples that they are chosen by."""
    return str(UsageError("EQ0261", "validation data equal training data: errors come out too low"))


@dataclass(frozen=True, slots=True)
class Outputs:
    """A network's outputs on three folds: `train` fits gates, `val` estimates errors and chooses.

    `test` is only reported. All have the same paths: every one, or a sample (`gates.sampled`).
    """

    levels: Levels
    train: Fold
    val: Fold
    test: Fold | None = None

    def __post_init__(self) -> None:
        top = tuple(min(block) for block in self.levels)
        every = {top} | {path for fold in self._folds().values() for path in fold.logits}
        needed = {path[:count] for path in every for count in range(1, len(path) + 1)}
        for name, here in self._folds().items():
            lacking = sorted(needed - set(here.logits))
            if lacking:
                raise ModelError("EQ0397", f"{name} lacks the outputs of path {lacking[0]}")

    def _folds(self) -> dict[str, Fold]:
        folds = {"train": self.train, "val": self.val, "test": self.test}
        return {name: fold for name, fold in folds.items() if fold is not None}

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths that have outputs, short ones first."""
        return tuple(path for path in gates.all_paths(self.levels) if path in self.val.logits)

    @property
    def whole_paths(self) -> tuple[Path, ...]:
        """Those that end at the last exit."""
        return tuple(path for path in self.paths if len(path) == len(self.levels))

    def notes(self) -> tuple[str, ...]:
        """What a user should know of these folds, each with its id."""
        found = []
        if self.train.digest() == self.val.digest():
            found.append(same_data())
        unseen = sorted(set(range(self.val.classes)) - set(self.val.labels.tolist()))
        if unseen:
            names = ", ".join(str(label) for label in unseen)
            text = f"the validation data have no samples of classes {names}"
            found.append(str(UsageError("EQ0262", text)))
        return tuple(found)


def split(whole: Fold, share: float, seed: int) -> tuple[Fold, Fold]:
    """The fold in two, the second one with that share of the samples."""
    order = np.random.default_rng(seed).permutation(len(whole))
    cut = len(whole) - round(share * len(whole))
    return whole.take(np.sort(order[:cut])), whole.take(np.sort(order[cut:]))
