"""The command line: parse, make one call, show the result. No logic lives here."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from edgeq import __version__
from edgeq.errors import EdgeqError, ModelError, UsageError

if TYPE_CHECKING:
    from edgeq.policy import InputSpec

SETTINGS = "edgeq.toml"
INPUTS = "input"  # the table of edgeq.toml that belongs to no command


class _Commands(click.Group):
    """Turns refusals into one message on stderr and the exit code of their kind."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _refuse(UsageError("EQ0200", error.format_message()))
        except EdgeqError as error:
            _refuse(error)


def _refuse(error: EdgeqError) -> NoReturn:
    click.echo(f"error {error}", err=True)
    sys.exit(error.exit_code)


@click.group(
    cls=_Commands,
    context_settings={"auto_envvar_prefix": "EDGEQ", "help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="edgeq")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Run trained networks in kilobytes, bit for bit as predicted.

    Settings: a flag beats EDGEQ_<COMMAND>_<FLAG> beats ./edgeq.toml beats the default. Exit codes:
    0 done and checked, 1 bug, 2 usage, 3 model or policy, 4 over budget, 5 mismatch, 6 tool
    missing, 7 integrity.
    """
    settings = _settings(Path(SETTINGS))
    ctx.obj = settings.pop(INPUTS, {})
    ctx.default_map = settings


def _settings(path: Path) -> dict[str, Any]:
    """What `edgeq.toml` says: a table per command, and `[input.NAME]`."""
    if not path.is_file():
        return {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError("EQ0204", f"{path}: {error}") from error
    return {name: _table(path, name, table) for name, table in settings.items()}


def _table(path: Path, name: str, table: object) -> dict[str, Any]:
    """A table of `edgeq.toml` with its keys as click knows them."""
    command = main.commands.get(name)
    if not isinstance(table, dict) or (command is None and name != INPUTS):
        tables = ", ".join([*(f"[{known}]" for known in main.commands), f"[{INPUTS}.NAME]"])
        raise UsageError("EQ0204", f"{path}: {name} is no table of settings; there are {tables}")
    if command is None:
        return table
    flags = {max(p.opts, key=len).lstrip("-"): p for p in command.params}
    for key, value in table.items():
        if key not in flags:
            raise UsageError(
                "EQ0204", f"{path}: {name}.{key} is no flag; flags are {', '.join(flags)}"
            )
        if isinstance(value, list) is not flags[key].multiple or isinstance(value, dict):
            wanted = "a list" if flags[key].multiple else "one value"
            raise UsageError("EQ0204", f"{path}: {name}.{key} = {value!r}; it takes {wanted}")
    return {str(flags[key].name): value for key, value in table.items()}


def _input_specs(tables: Mapping[str, Any]) -> dict[str, InputSpec]:
    from pydantic import ValidationError

    from edgeq.policy import InputSpec, describe

    try:
        return {name: InputSpec.model_validate(table) for name, table in tables.items()}
    except ValidationError as error:
        raise UsageError("EQ0204", describe(error, f"{SETTINGS}: {INPUTS}")) from error


def _shapes(entries: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for entry in entries:
        name, _, sizes = entry.rpartition("=")
        try:
            shapes[name] = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shapes[name] = ()
        if not name or not shapes[name] or min(shapes[name]) < 1:
            raise UsageError("EQ0205", f"--shape {entry}: expected NAME=1,3,32,32")
    return shapes


def _kernels(entries: tuple[str, ...]) -> dict[str, str]:
    chosen = {}
    for entry in entries:
        layer, _, symbol = entry.rpartition("=")
        if not layer or not symbol:
            raise UsageError("EQ0250", f"--kernel {entry}: expected LAYER=KERNEL")
        chosen[layer] = symbol
    return chosen


def _labels(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("EQ0206", f"--labels {path}: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise UsageError("EQ0206", f"--labels {path}: holds no names; expected one a line")
    return names


PATH = click.Path(path_type=Path)


@main.command()
@click.argument("model", required=False, type=PATH)
@click.option("--target", default="mcu", show_default=True, help="Device, core or alias.")
@click.option("--policy", help="Policy file (JSON, TOML), or w8a8, w4a8, …  [default: w8a8]")
@click.option("--calib", type=PATH, help="Samples (.npz) that activation ranges come from.")
@click.option("--data", type=PATH, help="Labelled samples (.npz) that accuracy is measured on.")
@click.option("--flash", help="Flash budget, as 256KB (1 KB = 1024 B).  [default: the target's]")
@click.option("--ram", help="RAM budget, as 64KB.  [default: the target's]")
@click.option("-o", "--out", type=PATH, help="Build folder.  [default: build/NAME]")
@click.option(
    "--optimize",
    type=click.Choice(["flash", "time", "ram", "balanced"]),
    default="flash",
    show_default=True,
    help="Fewest bytes of weights, fewest cycles, least RAM, or fewest cycles within budgets.",
)
@click.option(
    "--check",
    type=click.Choice(["none", "host", "emulator"]),
    default="emulator",
    show_default=True,
    help="What executes the result before it is kept.",
)
@click.option(
    "--compiler", type=click.Choice(["gcc", "zig"]), help="[default: first that is there]"
)
@click.option("--shape", multiple=True, metavar="NAME=1,3,32,32", help="Input shape.")
@click.option("--labels", type=PATH, help="Class names, one a line.")
@click.option(
    "--kernel",
    multiple=True,
    metavar="LAYER=KERNEL",
    help="The kernel of a layer, as conv3=eq_conv_s8_ref.",
)
@click.option(
    "--kernels",
    type=click.Choice(["own", "all"]),
    default="own",
    show_default=True,
    help="Kernels that the firmware is linked with.",
)
@click.option(
    "--firmware-for",
    multiple=True,
    type=PATH,
    metavar="IMAGE",
    help="Another model's .eqb that the firmware must run as well.",
)
@click.option("--plots", is_flag=True, help="Write every chart of the report as PNG, too.")
@click.option("--json", is_flag=True, help="Print the report's export section.")
@click.pass_obj
def export(
    inputs: Mapping[str, Any],
    /,
    model: Path | None,
    flash: str | None,
    ram: str | None,
    shape: tuple[str, ...],
    kernel: tuple[str, ...],
    labels: Path | None,
    json: bool,
    **options: Any,
) -> None:
    """Export MODEL as C that was compiled, run and found equal to its prediction.

    MODEL is an ONNX or TFLite file, or package.module:factory, a function that makes a PyTorch
    module; @FILE after it names a checkpoint, as in nets.resnet:resnet20@resnet20.pt.

    MODEL may also name a bundled example, fashion-resnet8 (the default) or fashion-tiny, which
    bring their own policy and samples.
    """
    from edgeq import api, budget, views

    with views.progress() as progress:
        build = api.export(
            model,
            flash=budget.parse_size(flash, "--flash") if flash is not None else None,
            ram=budget.parse_size(ram, "--ram") if ram is not None else None,
            shapes=_shapes(shape),
            kernel=_kernels(kernel),
            labels=_labels(labels),
            inputs=_input_specs(inputs),
            progress=progress,
            **options,
        )
    views.show_export(build, as_json=json)


@main.command()
@click.option("--json", is_flag=True, help="Print the same as JSON.")
def targets(json: bool) -> None:
    """List the devices and cores to export to, and what was found here to build and run them."""
    from edgeq import api, views

    views.show_targets(api.list_targets(), as_json=json)


@main.command()
@click.option("--json", is_flag=True, help="Print the same as JSON.")
def doctor(json: bool) -> None:
    """Say what this machine has, what each part unlocks, and the command that installs it."""
    from edgeq import api, views

    views.show_doctor(api.doctor(), as_json=json)


@main.command()
@click.argument("build", type=PATH)
@click.option("--measured", type=PATH, help="Log of a board: cycles by layer (JSON).")
@click.option("--cost-table", type=PATH, help="Write what layers, or blocks, would cost (JSON).")
@click.option("--model", type=PATH, help="What BUILD was made of, for --cost-table.")
@click.option("--policy", type=PATH, help="Likewise, where its [calibration] is not the default.")
@click.option("--calib", type=PATH, help="Likewise, where AdaRound learned from them.")
@click.option("--shape", multiple=True, metavar="NAME=1,3,32,32", help="Likewise: input shape.")
@click.option("--plots", is_flag=True, help="Write every chart of the report as PNG, too.")
@click.option("--json", is_flag=True, help="Print the report's profile section.")
def profile(build: Path, shape: tuple[str, ...], json: bool, **options: Any) -> None:
    """Count what one inference of BUILD takes, by layer: instructions, cycles, flash reads.

    The firmware runs on the emulated core. Cycles are a model: instruction classes times the
    target's cost table, without wait states.
    """
    from edgeq import api, views

    views.show_profile(api.profile(build, shapes=_shapes(shape), **options), as_json=json)


@main.command()
@click.argument("model", required=False, type=PATH)
@click.option("--target", default="mcu", show_default=True, help="Device, core or alias.")
@click.option("--policy", help="Policy file (JSON, TOML), or w8a8, w4a8, …  [default: w8a8]")
@click.option("--flash", help="Flash budget, as 256KB (1 KB = 1024 B).  [default: the target's]")
@click.option("--ram", help="RAM budget, as 64KB.  [default: the target's]")
@click.option("--shape", multiple=True, metavar="NAME=1,3,32,32", help="Input shape.")
@click.option("--json", is_flag=True, help="Print what was found as JSON.")
@click.pass_obj
def check(
    inputs: Mapping[str, Any],
    /,
    model: Path | None,
    flash: str | None,
    ram: str | None,
    shape: tuple[str, ...],
    json: bool,
    **options: Any,
) -> None:
    """Say what of MODEL is supported, how its layers are called, and about what it would take.

    Needs no samples and no compiler, and writes nothing. Exits with 3 where anything is refused.
    """
    from edgeq import api, budget, views

    found = api.check(
        model,
        flash=budget.parse_size(flash, "--flash") if flash is not None else None,
        ram=budget.parse_size(ram, "--ram") if ram is not None else None,
        shapes=_shapes(shape),
        inputs=_input_specs(inputs),
        **options,
    )
    views.show_check(found, as_json=json)
    if found.refusals:
        count = len(found.refusals)
        _refuse(ModelError("EQ0345", f"{count} refused: {found.model} cannot be exported"))


@main.command()
@click.argument("model", required=False, type=PATH)
@click.option("--policy", help="Policy with exits and levels (JSON, TOML).  [default: proposed]")
@click.option("--data", type=PATH, help="Labelled samples (.npz) to fit, choose and report on.")
@click.option("--train", type=PATH, help="Labelled samples to fit to.  [default: half of --data]")
@click.option("--calib", type=PATH, help="Samples (.npz) that activation ranges come from.")
@click.option("--target", default="mcu", show_default=True, help="Device, core or alias.")
@click.option("-o", "--out", type=PATH, help="The policy to write.  [default: NAME.gate.json]")
@click.option(
    "--cost",
    default="measured",
    show_default=True,
    metavar="COST",
    help="What paths take: measured, on the emulated core; bitops_linear, bops; or a table's file.",
)
@click.option(
    "--optimize",
    type=click.Choice(["flash", "time", "ram", "balanced"]),
    default="flash",
    show_default=True,
    help="As edgeq export will be told: what is stored, and so what is counted.",
)
@click.option(
    "--compiler", type=click.Choice(["gcc", "zig"]), help="[default: first that is there]"
)
@click.option(
    "--tradeoff",
    type=float,
    help="Cost against error that the gates start with.  [default: loses half a point at most]",
)
@click.option("--baselines", is_flag=True, help="Fit what gates are compared with, too (minutes).")
@click.option("--joint", is_flag=True, help="Train the network with its heads (needs PyTorch).")
@click.option("--recost", is_flag=True, help="Keep the gates of --policy; only costs are new.")
@click.option("--seed", default=0, show_default=True, help="Of all that is drawn.")
@click.option("--shape", multiple=True, metavar="NAME=1,3,32,32", help="Input shape.")
@click.option("--json", is_flag=True, help="Print the report's gate section.")
@click.pass_obj
def gate(
    inputs: Mapping[str, Any],
    /,
    model: Path | None,
    shape: tuple[str, ...],
    json: bool,
    **options: Any,
) -> None:
    """Fit gates to MODEL: which inputs leave at an early exit, and which go on in fewer bits.

    Writes a policy that edgeq export takes. MODEL and its samples are as for export; --data are
    labelled samples that the network was not trained on.
    """
    from edgeq import api, views

    with views.progress() as progress:
        found = api.fit_gate(
            model,
            shapes=_shapes(shape),
            inputs=_input_specs(inputs),
            progress=progress,
            **options,
        )
    views.show_gate(found, as_json=json)


@main.command()
@click.argument("build", type=PATH)
@click.option("--layer", required=True, help="The layer, by its name in the report.")
@click.option(
    "--set", "change", required=True, metavar="weights=4", help="What to change; weights, 2 to 8."
)
@click.option("--model", type=PATH, help="What BUILD was made of.  [default: a bundled example]")
@click.option("--calib", type=PATH, help="Samples (.npz) for the SQNR.")
@click.option("--policy", type=PATH, help="BUILD's, where its [calibration] is not the default.")
@click.option("--shape", multiple=True, metavar="NAME=1,3,32,32", help="Input shape.")
@click.option("--json", is_flag=True, help="Print what was found as JSON.")
@click.pass_obj
def explain(
    inputs: Mapping[str, Any],
    /,
    build: Path,
    change: str,
    shape: tuple[str, ...],
    json: bool,
    **options: Any,
) -> None:
    """Say what other bits for one layer of BUILD would change, without an export.

    A build does not hold the float network: name the model that it was made of.
    """
    from edgeq import api, views

    found = api.explain(
        build,
        weights=_weights(change),
        shapes=_shapes(shape),
        inputs=_input_specs(inputs),
        **options,
    )
    views.show_explain(found, as_json=json)


def _weights(change: str) -> int:
    """The bits that `weights=4` names."""
    key, _, bits = change.partition("=")
    if key == "activations":
        raise UsageError(
            "EQ0207", "--set activations: other ranges are needed; export with another policy"
        )
    if key != "weights" or not bits.isdecimal():
        raise UsageError("EQ0207", f"--set {change}: expected weights=2 to weights=8")
    return int(bits)


@main.command()
@click.argument("build", type=PATH)
@click.option("--model", type=PATH, help="What BUILD was made of.  [default: a bundled example]")
@click.option("--data", type=PATH, help="Samples (.npz) to run.  [default: the example's]")
@click.option("--policy", type=PATH, help="BUILD's, where its [calibration] is not the default.")
@click.option("--calib", type=PATH, help="Samples (.npz) that AdaRound learned from, if it did.")
@click.option("--shape", multiple=True, metavar="NAME=1,3,32,32", help="Input shape.")
@click.option("--require", help="Rows that must run.  [default: c-host,emulator]")
@click.option("--json", is_flag=True, help="Print the report's validate section.")
@click.pass_obj
def validate(
    inputs: Mapping[str, Any],
    /,
    build: Path,
    shape: tuple[str, ...],
    require: str | None,
    json: bool,
    **options: Any,
) -> None:
    """Run BUILD on everything that can execute it, and hold each to the integer reference.

    From the float network to the C on this machine and on the emulated core: equal, bit for bit,
    or the first layer that differs. Exits with 5 where one differs.
    """
    from edgeq import api, parity, views

    with views.progress() as progress:
        found = api.validate(
            build,
            require=None if require is None else [name.strip() for name in require.split(",")],
            shapes=_shapes(shape),
            inputs=_input_specs(inputs),
            progress=progress,
            **options,
        )
    views.show_validate(found, as_json=json)
    for row in found.report.validate.rows:
        parity.require_equal(row)


@main.command()
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@click.option(
    "--fail-on", metavar="LIMITS", help="Exit with 4 beyond them, as flash+1%,accuracy-0.2."
)
@click.option("--json", is_flag=True, help="Print the same as JSON.")
def diff(old: Path, new: Path, fail_on: str | None, json: bool) -> None:
    """Say what changed from build OLD to build NEW: bytes, accuracy, instructions, kernels, exits.

    Accuracy moves in points, all else in its own unit or in percent of OLD's.
    """
    from edgeq import api, comparison, views

    allowed = () if fail_on is None else comparison.limits(fail_on)
    found = api.diff(old, new)
    views.show_diff(found, as_json=json)
    comparison.require(found, allowed)
