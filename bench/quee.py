"""Gates against their baselines: accuracy over cost on three networks, three seeds each.

    python bench/quee.py FOLDER [NETWORK ...] [--seeds N] [--write FILE]

Networks, all at w8a8, w4a4 and w3a3, rounded by AdaRound (what keeps 8 bits at the level that a
Cortex-M4 has by default keeps them at both):

- `fashion-resnet8`: the bundled example, frozen; it learned from all 60,000 training images.
- `cifar-resnet8`: FOLDER/cifar/model.onnx, trained with its exits by `quee_nets.py FOLDER/cifar`.
- `resnet20`: the frozen checkpoint of `resnet20.py`, which learned from all 50,000.
- `weak-exits`, `weak-levels`: `cifar-resnet8` with heads that see means over the whole image alone,
  and with w4a4 alone, rounded to nearest, whose additions and average pools read 4 bits (iii).

On a Cortex-M4 w3a3 saves nothing over w4a4: where costs are measured it is dropped.

EDGEQ_DATA names the folder of `fashion_mnist.npz` and CIFAR-10. Each seed draws 20,000 training
images for heads and gates and 128 of them to calibrate on; the last 5,000 training images validate;
10,000 test images are only reported. A frozen network has learned its validation images, and errs
on them far less than it will. Its gates and baselines are cross-fitted instead: what is reported of
one half of the test images was fitted to and chosen on the other half. FOLDER keeps heads and the
integers of every path, so that a second run only fits gates, and curves, so that a third one only
prints. `quee_claims.py` says what is claimed; baselines that train for each point, and findings,
are of the first seed alone.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import quee_claims

from edgeq import costs as pricing
from edgeq import examples, exits, floatrun, gatefile, gates, levels, pipeline, targets
from edgeq.adaround import Known
from edgeq.exits import Head
from edgeq.fit import baselines, execute, heads
from edgeq.fit.outputs import Fold, Outputs
from edgeq.gates import Costs
from edgeq.ir import Array, Network, digest, qparams_of
from edgeq.pipeline import Model
from edgeq.policy import Bits, InputSpec, Level, Policy, Rule
from edgeq.program import Program, make_input
from edgeq.samples import Samples
from edgeq.targets import toolchain

Int64 = npt.NDArray[np.int64]

DATA = Path(os.environ.get("EDGEQ_DATA", ""))
TARGET = "stm32f405"
VALIDATION, DRAWN, CALIBRATION = 5_000, 20_000, 128
BATCH = 250  # images of one float run
MEASURED: Final = "measured"
LOWER = (4, 3)  # bits of the levels below w8a8
COSTS: tuple[Literal["bitops_linear", "measured"], ...] = ("bitops_linear", MEASURED)


@dataclass(frozen=True, slots=True)
class Split:
    """Raw images, channels last, and their classes."""

    images: Array
    labels: Int64

    def take(self, at: Array | slice) -> Split:
        """Those images alone."""
        return Split(self.images[at], self.labels[at])


@dataclass(frozen=True, slots=True)
class Images:
    """What trains, validates and tests."""

    train: Split
    val: Split
    test: Split


@dataclass(frozen=True, slots=True)
class Case:
    """A network, its exits, what its images mean, and where they are.

    Without `level` there are those of `LOWER`; `tied` heads weigh all places of an image alike, as
    if they pooled it to one. `weights` is how their ranges are found, as the network was trained.
    `frozen`: it has learned from its validation images.
    """

    read: Callable[[Path], Model]
    exits: tuple[str, ...]
    spec: InputSpec
    images: Callable[[], Images]
    weights: Literal["mse", "minmax"] = "mse"
    level: Mapping[str, object] | None = None
    tied: bool = False
    frozen: bool = False
    rounding: Literal["nearest", "adaround"] = "adaround"

    @property
    def policy(self) -> Policy:
        """W8a8, exits, and the level, or the one that there is by default."""
        lower = {} if self.level is None else {"level": [self.level]}
        calibration = {"weights": self.weights, "rounding": self.rounding}
        return Policy.model_validate({"exits": self.exits, "calibration": calibration, **lower})


@cache
def fashion() -> Images:
    """Fashion-MNIST."""
    with np.load(DATA / "fashion_mnist.npz") as archive:
        return _images(*(archive[n] for n in ("x_train", "y_train", "x_test", "y_test")))


@cache
def cifar() -> Images:
    """CIFAR-10."""
    import quee_nets

    return _images(*(array.numpy() for array in quee_nets.cifar()))


def _images(x: Array, y: Array, x_test: Array, y_test: Array) -> Images:
    splits = []
    for images, labels in ((x, y), (x_test, y_test)):
        last = images[..., None] if images.ndim == 3 else np.moveaxis(images, 1, -1)
        splits.append(Split(np.ascontiguousarray(last), labels.astype(np.int64)))
    whole, test = splits
    return Images(whole.take(slice(-VALIDATION)), whole.take(slice(-VALIDATION, None)), test)


def _resnet20(folder: Path) -> Model:
    checkpoint = DATA / "models" / "resnet20_cifar10_jpegfinetuned.pt"
    return pipeline.read(Path(f"resnet20:ResNet20@{checkpoint}"), {"x": (1, 3, 32, 32)})


def _cifar_resnet8(folder: Path) -> Model:
    return pipeline.read(folder / "cifar" / "model.onnx")


BUNDLED = examples.path("fashion-resnet8")
CIFAR = InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
STACKS = ("conv", "stack1.add", "stack2.add")
W4A4 = {
    "default": {"weights": 4, "activations": 4},
    "rule": [{"match": "fc", "weights": 8, "activations": 8}],
}
CASES: Mapping[str, Case] = {
    "fashion-resnet8": Case(
        lambda folder: pipeline.read(BUNDLED / "model.onnx"),
        STACKS,
        InputSpec(mean=(0.2860,), std=(0.3530,)),
        fashion,
        frozen=True,
    ),
    "cifar-resnet8": Case(_cifar_resnet8, STACKS, CIFAR, cifar, "minmax"),
    "resnet20": Case(
        _resnet20, ("conv1", "layer1.0.add", "layer1.2.add"), CIFAR, cifar, frozen=True
    ),
    "weak-exits": Case(_cifar_resnet8, STACKS, CIFAR, cifar, "minmax", tied=True),
    "weak-levels": Case(_cifar_resnet8, STACKS, CIFAR, cifar, "minmax", W4A4, rounding="nearest"),
}


@dataclass(frozen=True, slots=True)
class Ran:
    """One network and seed: what it gave on every path, its heads, and how good they are."""

    outputs: Outputs
    heads: tuple[Head, ...]


@dataclass(frozen=True, slots=True)
class Bench:
    """One network and seed, on its way.

    As `edgeq gate` has it, levels that save nothing in a body have the graph of the level above
    where costs are measured, and their own where a formula counts them.
    """

    name: str
    seed: int
    folder: Path
    kind: Literal["bitops_linear", "measured"] = "bitops_linear"
    known: Known = field(default_factory=dict, compare=False)  # what AdaRound learned

    @property
    def case(self) -> Case:
        return CASES[self.name]

    def model(self) -> Model:
        """The model, prepared for exits."""
        return pipeline.prepared(self.case.read(self.folder), self.case.policy)

    def policy(self, model: Model) -> Policy:
        """The case's, with its levels: layers that the default one lowers have fewer bits."""
        plain = self.case.policy
        if plain.level is not None:
            return plain
        top, low = levels.resolve(plain, model.graph, targets.load(TARGET).isa)
        found = []
        for number in LOWER:
            bits = lowered(top, low, number, number)
            rules = (Rule(match=name, **asdict(one)) for name, one in bits.items())
            found.append(Level(rule=tuple(rules)))
        return plain.model_copy(update={"level": tuple(found)})

    def drawn(self) -> Split:
        """The training images of this seed."""
        train = self.case.images().train
        at = np.random.default_rng(self.seed).choice(len(train.labels), DRAWN, replace=False)
        return train.take(at)

    def calibration(self, model: Model) -> Samples:
        """The images that ranges are found on."""
        name = model.graph.inputs[0]
        raw = self.drawn().images[:CALIBRATION]
        return Samples({name: raw}, None, {name: self.case.spec})

    def network(self, model: Model, found: Sequence[Head] | None) -> Network:
        """The integer network, or its bodies where there are no heads."""
        isa = targets.load(TARGET).isa
        chosen, samples = self.policy(model), self.calibration(model)
        drop = self.kind == MEASURED
        made, _ = pipeline.with_exits(
            model, chosen, found, samples, isa, drop=drop, known=self.known
        )
        return made.network

    def integers(self, model: Model, network: Network, images: Array) -> dict[str, Array]:
        """What the device takes."""
        port, tensor = model.source.inputs[0], network.inputs[0]
        made = make_input(port, tensor, self.case.spec)
        return {tensor.name: made.quantize(images)}

    def run(self) -> Ran:
        """Everything that needs the network, from the folder if it is there."""
        model = self.model()
        bodies = self.network(model, None)
        file = self.file(bodies)
        if file.exists():
            return _load(file)
        start = time.perf_counter()
        found = self._heads(model, bodies)
        network = self.network(model, found)
        scale = qparams_of(network.outputs[0]).scale[0]
        paths, folds = levels.paths_of(network), {}
        for name, split in self._splits().items():
            logits = execute.logits(network, self.integers(model, network, split.images), paths)
            folds[name] = Fold(logits, split.labels, scale)
            _say(f"{self.name}, seed {self.seed}: {name}, {time.perf_counter() - start:.0f} s")
        ran = Ran(Outputs(levels.levels_of(network), **folds), found)
        _say(f"{self.name}, seed {self.seed}: validation images: {self._precision(model, ran)}")
        _save(file, ran)
        return ran

    def file(self, bodies: Network) -> Path:
        """What keeps its outputs."""
        return self.folder / f"{self.name}-{self.seed}-{digest(bodies.graphs)[:12]}.npz"

    def folds(self, ran: Ran) -> tuple[Outputs, ...]:
        """What gates are fitted to and reported on: for a frozen network both ways of its halves.

        The first ones report on the first images.
        """
        whole = ran.outputs.test
        if not self.case.frozen or whole is None:
            return (ran.outputs,)
        first, second = (whole.take(at) for at in np.array_split(np.arange(len(whole)), 2))
        return tuple(
            replace(ran.outputs, val=val, test=test)
            for val, test in ((second, first), (first, second))
        )

    def _precision(self, model: Model, ran: Ran) -> str:
        """What each level loses: the top may lose 0.5 points, lower ones 5 (the paper's rule)."""
        val, session = self.case.images().val, floatrun.FloatRun(model.graph)
        real = np.concatenate(
            [
                session({model.graph.inputs[0]: self.case.spec.real(part)})[model.graph.outputs[0]]
                for part in np.array_split(val.images, len(val.images) // BATCH)
            ]
        )
        found = [f"float {(real.argmax(axis=1) == val.labels).mean():.2%}"]
        has = ran.outputs.levels
        for level in sorted({level for block in has for level in block}):
            wrong = ran.outputs.val.wrong.get(baselines.uniform(has, level))
            if wrong is not None:  # else it has the graphs of the level above
                found.append(f"level {level} {1 - wrong.mean():.2%}")
        return ", ".join(found)

    def _splits(self) -> dict[str, Split]:
        images = self.case.images()
        return {"train": self.drawn(), "val": images.val, "test": images.test}

    def _heads(self, model: Model, bodies: Network) -> tuple[Head, ...]:
        train, val = self.drawn(), self.case.images().val
        read = [
            heads.features(bodies, self.integers(model, bodies, split.images))
            for split in (train, val)
        ]
        classes = bodies.outputs[0].elements
        if self.case.tied:
            read = [tuple({p: _mean(x) for p, x in one.items()} for one in fold) for fold in read]
        found = heads.train_all(read[0], train.labels, read[1], val.labels, classes, self.seed)
        for number, one in enumerate(found, start=1):
            each = ", ".join(f"{path} {accuracy:.2%}" for path, accuracy in one.accuracy.items())
            _say(f"{self.name}, seed {self.seed}: head {number} on validation images: {each}")
        return tuple(_spread(one.head) if self.case.tied else one.head for one in found)

    def program(self, ran: Ran, gate: gates.Gate | None = None) -> Program:
        """The program with that gate, or with one that predicts nothing: its costs are counted."""
        model = self.model()
        levels_of = ran.outputs.levels
        known = gates.static(ran.outputs.val.classes, levels_of) if gate is None else gate
        unpriced = Costs(
            self.kind,
            "none",
            tuple(dict.fromkeys(block, 1.0) for block in levels_of),
            *(((0.0,) * (len(levels_of) - 1),) * 2),
        )
        fitted = gatefile.of_gate(
            known,
            tuple((head.weights, head.bias) for head in ran.heads),
            unpriced,
            model.sha256,
        )
        chosen = self.policy(model).model_copy(update={"gate": fitted})
        specs = {model.source.inputs[0].name: self.case.spec}
        return pipeline.compile(
            model,
            chosen,
            specs,
            self.calibration(model),
            targets.load(TARGET),
            "time",
            (),
            pipeline.quiet,
            known=self.known,
        ).program

    def costs(self, ran: Ran) -> Costs:
        """What each block, head and gate takes."""
        program, target = self.program(ran), targets.load(TARGET)
        if self.kind != MEASURED:
            return pricing.bitops(program.network, self.kind)
        return pricing.measured(program, target, toolchain.find(toolchain.rows_for(target)))


def lowered(
    top: Mapping[str, Bits], low: Mapping[str, Bits], weights: int, activations: int
) -> dict[str, Bits]:
    """`top` with those bits where `low` has fewer."""
    return {
        name: Bits(
            weights if low[name].weights < one.weights else one.weights,
            activations if low[name].activations < one.activations else one.activations,
        )
        for name, one in top.items()
    }


PLACES = exits.HEAD_SIDE**2  # that a head pools an image of at least as many rows and columns to


def _mean(values: Array) -> Array:
    """Pooled values (samples, places and channels) → their means over places."""
    return np.asarray(values.reshape(len(values), PLACES, -1).mean(axis=1), np.float32)


def _spread(head: Head) -> Head:
    """A head of such means as one of all places."""
    return Head(np.tile(head.weights / np.float32(PLACES), PLACES), head.bias)


def _save(file: Path, ran: Ran) -> None:
    arrays: dict[str, Array] = {"levels": np.array(json.dumps(ran.outputs.levels))}
    for name in ("train", "val", "test"):
        fold: Fold = getattr(ran.outputs, name)
        arrays[f"{name}/labels"], arrays["scale"] = fold.labels, np.array(fold.scale)
        for path, logits in fold.logits.items():
            arrays[f"{name}/{'.'.join(map(str, path))}"] = logits
    for number, head in enumerate(ran.heads):
        arrays[f"head{number}/weights"], arrays[f"head{number}/bias"] = head.weights, head.bias
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)


def _load(file: Path) -> Ran:
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    has = tuple(tuple(block) for block in json.loads(str(arrays["levels"])))
    folds = {}
    for name in ("train", "val", "test"):
        keys = {path: f"{name}/{'.'.join(map(str, path))}" for path in gates.all_paths(has)}
        logits = {path: arrays[key] for path, key in keys.items() if key in arrays}
        folds[name] = Fold(logits, arrays[f"{name}/labels"], float(arrays["scale"]))
    found = tuple(
        Head(arrays[f"head{number}/weights"], arrays[f"head{number}/bias"])
        for number in range(len(has) - 1)
    )
    return Ran(Outputs(has, **folds), found)


def _say(text: str) -> None:
    print(text, flush=True)


def fitted_seed(name: str, seed: int, folder: Path) -> quee_claims.Fits:
    """What the gates of one network and seed do, from the folder if it is there.

    Where both kinds of costs are of one network, its gates are fitted once and priced twice.
    """
    file = folder / f"{name}-{seed}-fit.pickle"
    if file.exists():
        found = pickle.loads(file.read_bytes())
        assert isinstance(found, quee_claims.Fits)
        return found
    start = time.perf_counter()
    weak = name.startswith("weak")
    runs = [Bench(name, seed, folder, kind) for kind in (COSTS[:1] if weak else COSTS)]
    parts = []
    for same in _alike(runs):
        ran = same[0].run()
        prices = {run.kind: run.costs(ran) for run in same}
        _say(f"{name}, seed {seed}: costs, {time.perf_counter() - start:.0f} s")
        slow = seed == 0 and not weak and same[0] is runs[0]
        parts.append(quee_claims.fit_all(same[0].folds(ran), prices, seed, _say, slow=slow))
    found = quee_claims.merged(parts)
    file.write_bytes(pickle.dumps(found))
    _say(f"{name}, seed {seed}: fitted, {time.perf_counter() - start:.0f} s")
    return found


def _alike(runs: Sequence[Bench]) -> list[list[Bench]]:
    """Those of one network together."""
    found: dict[Path, list[Bench]] = {}
    for run in runs:
        model = run.model()
        found.setdefault(run.file(run.network(model, None)), []).append(run)
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only-run", action="store_true", help="fill FOLDER, and fit nothing")
    parser.add_argument("--only-fit", action="store_true", help="fill FOLDER, and print nothing")
    parser.add_argument("--write", type=Path, help="a file for the tables, else they are printed")
    options = parser.parse_args()
    if wrong := [name for name in options.networks if name not in CASES]:
        parser.error(f"no network {wrong[0]!r}; there are {', '.join(CASES)}")
    tables = []
    for name in options.networks or CASES:
        fits = []
        for seed in range(options.seeds):
            if options.only_run:
                for kind in COSTS:
                    Bench(name, seed, options.folder, kind).run()
            else:
                fits.append(fitted_seed(name, seed, options.folder))
        if fits and not options.only_fit:
            tables.append(quee_claims.show(name, fits))
    if options.write is not None:
        options.write.write_text("\n".join(tables), encoding="utf-8")
    else:
        _say("\n".join(tables))


if __name__ == "__main__":
    main()
