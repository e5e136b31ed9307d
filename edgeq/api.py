"""The SDK: one function per verb. The command line is these calls plus printing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from edgeq import (
    assemble,
    budget,
    charts,
    comparison,
    costs,
    examples,
    feasibility,
    gating,
    inventory,
    ladder,
    pages,
    pipeline,
    profiler,
    rebuild,
    targets,
    whatif,
)
from edgeq import build as builds
from edgeq import policy as policies
from edgeq.assemble import Check as CheckBy
from edgeq.assemble import Request
from edgeq.build import Build as Build
from edgeq.build import sha256
from edgeq.errors import UsageError
from edgeq.gating import Cost, Gated
from edgeq.inventory import Device, Part
from edgeq.kernels import Optimize
from edgeq.pipeline import Progress, quiet
from edgeq.policy import InputSpec
from edgeq.rebuild import Given
from edgeq.report import Check, Difference, Explain, dumps

PathLike = str | os.PathLike[str]

EXAMPLE = "fashion-resnet8"


def export(
    model: PathLike | None = None,
    *,
    policy: PathLike | None = None,
    calib: PathLike | None = None,
    data: PathLike | None = None,
    target: str = "mcu",
    out: PathLike | None = None,
    flash: int | None = None,
    ram: int | None = None,
    optimize: Optimize = "flash",
    check: CheckBy = "emulator",
    compiler: str | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    inputs: Mapping[str, InputSpec] | None = None,
    labels: Sequence[str] = (),
    kernel: Mapping[str, str] | None = None,
    kernels: Literal["own", "all"] = "own",
    firmware_for: Sequence[PathLike] = (),
    plots: bool = False,
    progress: Progress = quiet,
) -> Build:
    """A build in `out`: the model as C for `target`, compiled, executed and found equal.

    A bundled example brings its policy and samples, for those that are not given.

    Args:
        model: an ONNX or TFLite file, a PyTorch `package.module:factory` or
            `package.module:factory@checkpoint`, or the name of a bundled example; default
            `fashion-resnet8`.
        policy: a JSON or TOML file, or a uniform policy such as `w4a8`; default `w8a8`.
        calib: `.npz` of the samples that ranges come from; a model that is quantised already
            needs none.
        data: `.npz` of labelled samples; accuracy is reported for these only.
        target: a name or alias that `edgeq.targets.load` knows.
        out: the build folder, replaced whole; default `build/NAME`.
        flash: budget in bytes; default the target's first flash; a generic core has none.
        ram: budget in bytes; default the target's first RAM; a generic core has none.
        optimize: `flash` takes the fewest bytes of weights, `time` the fewest cycles, `ram` the
            smallest arena, `balanced` the fewest cycles within both budgets.
        check: what executes the result before it counts as done.
        compiler: `gcc` or `zig`; default the first that is there.
        shapes: input shapes, by name, where the model leaves them open.
        inputs: what raw uint8 samples mean, by input name, where the policy does not say it.
        labels: class names, one per output.
        kernel: kernels that layers must take, by layer, instead of the best.
        kernels: which kernels the firmware is linked with: its own, or all.
        firmware_for: other model images whose kernels the firmware gets as well.
        plots: whether every chart of the report is written as PNG, too.
        progress: called with (stage, done, total).

    Raises:
        EdgeqError: as `errors` draws them; nothing is left in `out` then.
    """
    device = targets.load(target)
    limits = budget.limits(device, flash, ram)
    tools = assemble.find_tools(device, check, compiler)
    if plots:
        charts.needs()
    name, model, inputs = None, model or EXAMPLE, dict(inputs or {})
    if os.fspath(model) in examples.names():
        name = os.fspath(model)
        folder = examples.path(name)
        inputs = {**policies.load(examples.policy(name)).input, **inputs}
        policy = policy or examples.policy(name)
        model = folder / "model.onnx"
        calib, data = calib or folder / "calib.npz", data or folder / "test.npz"
    read = pipeline.read(Path(model), shapes, name, None if calib is None else Path(calib))
    chosen = policies.load(policy or policies.DEFAULT)
    read = pipeline.prepared(read, chosen)
    specs = pipeline.input_specs(read, chosen, inputs)
    calibration = None if calib is None else pipeline.read_samples(Path(calib), read, specs)
    labelled = None if data is None else pipeline.read_samples(Path(data), read, specs)
    program = pipeline.compile(
        read,
        chosen,
        specs,
        calibration,
        device,
        optimize,
        tuple(labels),
        progress,
        limits,
        kernel,
    )
    request = Request(
        model=read,
        policy=chosen,
        compiled=program,
        calibration=calibration,
        labelled=labelled,
        budget=limits,
        optimize=optimize,
        forced=tuple(f"{layer}={symbol}" for layer, symbol in (kernel or {}).items()),
        linked=assemble.linked_kernels(program.program, kernels, firmware_for),
        notes=() if policy else ("no policy given: w8a8, 8 bits everywhere",),
        calibration_sha256=None if calib is None else sha256(Path(calib).read_bytes()),
        plots=plots,
    )
    folder = Path(out) if out is not None else Path("build") / read.name
    return assemble.run(request, tools, folder, progress)


def list_targets() -> tuple[Device, ...]:
    """Every device and core that edgeq exports to, with what was found here to build and run it."""
    return inventory.devices()


def doctor() -> tuple[Part, ...]:
    """What this machine has of all that edgeq can use, what it unlocks, what installs it."""
    return inventory.parts()


def check(
    model: PathLike | None = None,
    *,
    target: str = "mcu",
    policy: PathLike | None = None,
    flash: int | None = None,
    ram: int | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    inputs: Mapping[str, InputSpec] | None = None,
) -> Check:
    """What edgeq would make of a model: what it supports, layer names, sizes; nothing is written.

    A bundled example brings its policy.
    Needs no samples and no compiler. Sizes of code are estimates. A model that is refused gives a
    value with `refusals`; one that does not fit its budget is not refused.

    Args:
        model: an ONNX or TFLite file, or the name of a bundled example; default `fashion-resnet8`.
        target: a name or alias that `edgeq.targets.load` knows.
        policy: a JSON or TOML file, or a uniform policy such as `w4a8`; default `w8a8`.
        flash: budget in bytes; default the target's first flash.
        ram: budget in bytes; default the target's first RAM.
        shapes: input shapes, by name, where the model leaves them open.
        inputs: what raw uint8 samples mean, by input name; their tables take flash.

    Raises:
        EdgeqError: as `errors` draws them; a file that cannot be read, or a policy that fits none.
    """
    device = targets.load(target)
    name, model = None, model or EXAMPLE
    if os.fspath(model) in examples.names():
        name = os.fspath(model)
        folder = examples.path(name)
        policy, model = policy or examples.policy(name), folder / "model.onnx"
    chosen = policy or policies.DEFAULT
    return feasibility.run(
        Path(model),
        policies.load(chosen),
        Path(chosen).name,
        device,
        budget.limits(device, flash, ram),
        shapes,
        inputs,
        name,
    )


def profile(
    build: PathLike,
    *,
    measured: PathLike | None = None,
    cost_table: PathLike | None = None,
    model: PathLike | None = None,
    policy: PathLike | None = None,
    calib: PathLike | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    plots: bool = False,
) -> Build:
    """The build with a `profile` section: what one inference takes, counted on the emulated core.

    Args:
        build: a folder that `export` wrote.
        measured: a board's log of cycles by layer, for a column of its own.
        cost_table: a file to write: the costs of every layer at 2 to 8 bits a weight; of a build
            with exits those of every block and level, head and gate.
        model: what the build was made of, for `cost_table`; bundled examples are found.
        policy: likewise, where its `[calibration]` differs from the default.
        calib: likewise, where AdaRound learned from them.
        shapes: likewise, where the model leaves them open.
        plots: whether every chart of the report is written as PNG, too; those of the report that
            was are removed in any case.

    Raises:
        EdgeqError: as `errors` draws them; the build is as it was then.
    """
    if plots:
        charts.needs()
    found = builds.load(Path(build))
    device = targets.load(found.report.target)
    section = profiler.run(found, device)
    if measured is not None:
        section = profiler.with_measured(section, found, Path(measured))
    if cost_table is not None:
        given = Given(_path(model), _path(policy), _path(calib), shapes)
        again = rebuild.run(found, device, given)
        gated = again.program.gate is not None
        table = costs.table(found, again) if gated else whatif.cost_table(found, again)
        builds.write(Path(cost_table), dumps(asdict(table)))
    found = Build(found.folder, found.report.with_profile(section))
    builds.rewrite(found, pages.files(found.report, plots=plots), pages.PLOTS)
    return found


def explain(
    build: PathLike,
    *,
    layer: str,
    weights: int,
    model: PathLike | None = None,
    calib: PathLike | None = None,
    policy: PathLike | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    inputs: Mapping[str, InputSpec] | None = None,
) -> Explain:
    """What other weight bits for one layer would change; the build stays as it is.

    A build does not hold the float network: `model` must be what it was made of (its hash is
    checked), and is found where that was a bundled example.

    Args:
        build: a folder that `export` wrote.
        layer: the layer, by its name in the report.
        weights: its bits, 2 to 8.
        model: the file that the build was made of.
        calib: samples for the SQNR; without them there is none.
        policy: the policy of the build, where its `[calibration]` differs from the default.
        shapes: input shapes, by name, where the model leaves them open.
        inputs: what raw uint8 samples mean, by input name, where the policy does not say it.

    Raises:
        EdgeqError: as `errors` draws them.
    """
    if weights not in whatif.WIDTHS:
        raise UsageError("EQ0216", f"weights={weights}; weights have 2 to 8 bits")
    found = builds.load(Path(build))
    device = targets.load(found.report.target)
    given = Given(_path(model), _path(policy), _path(calib), shapes, inputs or {})
    again = rebuild.run(found, device, given)
    return whatif.explain(found, again, layer, weights, given.calib)


def validate(
    build: PathLike,
    *,
    model: PathLike | None = None,
    data: PathLike | None = None,
    policy: PathLike | None = None,
    calib: PathLike | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    inputs: Mapping[str, InputSpec] | None = None,
    require: Sequence[str] | None = None,
    progress: Progress = quiet,
) -> Build:
    """The build with a new `validate` section: a row for everything that can execute it.

    A row that differs is a row, no error: `build.report.validate.rows` say so.

    Args:
        build: a folder that `export` wrote.
        model: what it was made of; bundled examples are found.
        data: samples to run, labelled or not; default the bundled example's.
        policy: the policy of the build, where its `[calibration]` differs from the default.
        calib: the samples that AdaRound learned from, where it did.
        shapes: input shapes, by name, where the model leaves them open.
        inputs: what raw uint8 samples mean, by input name, where the policy does not say it.
        require: the rows that must run, by name; default those of the C.
        progress: called with (stage, done, total).

    Raises:
        EdgeqError: as `errors` draws them; the build is as it was then.
    """
    found = builds.load(Path(build))
    given = Given(_path(model), _path(policy), _path(calib), shapes, inputs or {})
    again = rebuild.run(found, targets.load(found.report.target), given)
    path = _path(data) or rebuild.samples_file(found, rebuild.DATA)
    if path is None:
        raise UsageError("EQ0246", "validate needs samples to run: name them with --data")
    section = ladder.run(found, again, again.samples(path), require, progress)
    found = Build(found.folder, found.report.with_validate(section))
    plots = charts.available() and (found.folder / pages.PLOTS).is_dir()
    builds.rewrite(found, pages.files(found.report, plots=plots), pages.PLOTS)
    return found


def diff(old: PathLike, new: PathLike) -> Difference:
    """What changed from one build to another: bytes, bits, accuracy, instructions, kernels, exits.

    Args:
        old: a folder that `export` wrote.
        new: another one.

    Raises:
        EdgeqError: as `errors` draws them.
    """
    return comparison.compare(*(builds.load(Path(build)).report for build in (old, new)))


def fit_gate(
    model: PathLike | None = None,
    *,
    policy: PathLike | None = None,
    data: PathLike | None = None,
    train: PathLike | None = None,
    calib: PathLike | None = None,
    target: str = "mcu",
    out: PathLike | None = None,
    cost: Cost | PathLike = "measured",
    optimize: Optimize = "flash",
    compiler: str | None = None,
    tradeoff: float | None = None,
    baselines: bool = False,
    joint: bool = False,
    recost: bool = False,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    inputs: Mapping[str, InputSpec] | None = None,
    progress: Progress = quiet,
) -> Gated:
    """A policy whose gates say which inputs leave early, and at which level the others go on.

    The file is written whole or not at all; `export` takes it as its policy. The same arguments
    give the same file.

    Args:
        model: as for `export`; a model that is quantised already cannot have exits.
        policy: a JSON or TOML file; its `exits`, or those that are proposed, and its levels.
        data: `.npz` of labelled samples that the network was not trained on; a part of them, drawn
            by `seed`, is kept for the figures.
        train: `.npz` of labelled samples that heads and gates are fitted to; default a half of
            `data`.
        calib: `.npz` of the samples that ranges come from; `export` must be given the same.
        target: a name or alias that `edgeq.targets.load` knows.
        out: the file; default `NAME.gate.json`.
        cost: `measured` counts every block, level, head and gate on the emulated core;
            `bitops_linear` and `bops` count bits; else a file that `profile` wrote as the cost
            table of a build with these exits.
        optimize: what `export` will be told: how weights of levels are stored, and so what their
            integers are and what they cost.
        compiler: `gcc` or `zig`, for `measured`; default the first that is there.
        tradeoff: of cost against predicted error, 0 to 65535, that the gates start with; default
            the greatest that loses half a point of accuracy at most.
        baselines: whether the curves of thresholds, plain quantisation, DQNet-gate and JEI-DNN are
            found as well; takes minutes.
        joint: whether the network's own weights are trained with the heads; needs PyTorch.
        recost: whether gates that `policy` has keep what they learned, and only costs are new.
        seed: of all that is drawn.
        shapes: input shapes, by name, where the model leaves them open.
        inputs: what raw uint8 samples mean, by input name, where the policy does not say it.
        progress: called with (stage, done, total).

    Raises:
        EdgeqError: as `errors` draws them; nothing is written then.
    """
    device = targets.load(target)
    if data is None:
        raise UsageError("EQ0270", "gate needs --data: labelled samples to fit and to choose by")
    gating.trainable(joint, recost)
    tools = None
    by = gating.cost_of(cost)
    if by not in gating.FORMULAS:
        tools = assemble.find_tools(device, "emulator", compiler).target
    name, model, inputs = None, model or EXAMPLE, dict(inputs or {})
    if os.fspath(model) in examples.names():
        name = os.fspath(model)
        folder = examples.path(name)
        policy, calib = policy or examples.policy(name), calib or folder / "calib.npz"
        inputs = {**policies.load(examples.policy(name)).input, **inputs}
        model = folder / "model.onnx"
    if calib is None:
        raise UsageError("EQ0270", "gate needs --calib: samples to find activation ranges on")
    read = pipeline.read(Path(model), shapes, name, Path(calib))
    chosen = policies.load(policy or policies.DEFAULT)
    specs = pipeline.input_specs(read, chosen, inputs)
    request = gating.Request(
        model=read,
        policy=chosen,
        specs=specs,
        calibration=gating.read(Path(calib), read, specs, labelled=False),
        data=gating.read(Path(data), read, specs),
        train=None if train is None else gating.read(Path(train), read, specs),
        target=device,
        compiler=tools,
        cost=by,
        tradeoff=tradeoff,
        baselines=baselines,
        joint=joint,
        recost=recost,
        seed=seed,
        optimize=optimize,
    )
    file = Path(out) if out is not None else Path(f"{read.name}.gate.json")
    return gating.write(file, request, progress)


def _path(name: PathLike | None) -> Path | None:
    return None if name is None else Path(name)
