"""What `edgeq gate` adds to a policy: gates and heads as JSON, arrays as base64 in little endian.

It is of one model, by its SHA-256, and of the exits and levels of the policy that it stands in.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edgeq import gates
from edgeq.errors import PolicyError
from edgeq.gates import Gate, Layer, Mlp, Static, Table
from edgeq.report import Gate as Section

VERSION = 1
FORMULAS = ("bitops_linear", "bops")  # costs that are no target's
DTYPES = Literal["float32", "int32", "int8", "uint8"]

Path = tuple[Annotated[int, Field(strict=True, ge=0, lt=16)], ...]
Word = Annotated[int, Field(strict=True, ge=0, le=gates.MOST_TRADEOFF)]
Scale = tuple[Annotated[int, Field(strict=True)], Annotated[int, Field(strict=True)]]
Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Array(_Section):
    """An array: its shape, its type and its bytes."""

    shape: tuple[Annotated[int, Field(strict=True, ge=0)], ...]
    dtype: DTYPES
    data: str

    @staticmethod
    def of(values: npt.NDArray[Any]) -> Array:
        """`values` as JSON holds them."""
        plain = np.dtype(values.dtype)
        data = np.ascontiguousarray(values, plain.newbyteorder("<")).tobytes()
        text = base64.b64encode(data).decode()
        return Array.model_validate({"shape": values.shape, "dtype": plain.name, "data": text})

    def values(
        self, what: str, dtype: DTYPES, shape: tuple[int, ...] | None = None
    ) -> npt.NDArray[Any]:
        """The array, called `what`, which must have that type, and that shape if one is given.

        Raises:
            PolicyError: it has not, or its bytes are others.
        """
        if self.dtype != dtype or (shape is not None and self.shape != shape):
            wanted = "" if shape is None else f" {shape}"
            raise PolicyError(
                "EQ0394", f"gate: {what} is {self.dtype} {self.shape}, expected {dtype}{wanted}"
            )
        plain = np.dtype(dtype).newbyteorder("<")
        try:
            data = base64.b64decode(self.data, validate=True)
        except binascii.Error as error:
            raise PolicyError("EQ0394", f"gate: {what} is no base64: {error}") from error
        if len(data) != math.prod(self.shape) * plain.itemsize:
            raise PolicyError(
                "EQ0394",
                f"gate: {what} has {len(data)} bytes; {self.shape} of {dtype} take "
                f"{math.prod(self.shape) * plain.itemsize}",
            )
        return np.frombuffer(data, plain).reshape(self.shape).astype(np.dtype(dtype))


class HeadSection(_Section):
    """A head: weights (classes, values of the pooled tensor) and bias (classes,), float32."""

    weights: Array
    bias: Array


class Errors(_Section):
    """The errors behind one path: (clusters, options), in 1/256."""

    path: Path
    values: Array


class StaticForm(_Section):
    """`gates.Static`."""

    kind: Literal["static"] = "static"


class TableForm(_Section):
    """`gates.Table`."""

    kind: Literal["table"] = "table"
    centroids: Array
    errors: tuple[Errors, ...]


class LayerSection(_Section):
    """`gates.Layer`."""

    hidden: Array
    hidden_bias: Array
    hidden_shift: Annotated[int, Field(strict=True, ge=0, le=30)]
    output: Array
    output_bias: Annotated[int, Field(strict=True)]
    output_scale: Scale


class MlpForm(_Section):
    """`gates.Mlp`."""

    kind: Literal["mlp"] = "mlp"
    layers: tuple[LayerSection, ...]


class CostsSection(_Section):
    """`gates.Costs`: what the paths' costs were made of. `blocks` are by level."""

    unit: str
    source: str
    blocks: tuple[Mapping[int, Cost], ...]
    heads: tuple[Cost, ...]
    gates: tuple[Cost, ...]


class Fitted(_Section):
    """The gates of a model, its heads, and the weights that were trained with them, by tensor."""

    version: Literal[1] = 1
    model_sha256: str
    classes: Annotated[int, Field(strict=True, ge=2)]
    levels: tuple[Path, ...]
    paths: tuple[Path, ...]
    costs: tuple[Word, ...]
    first: tuple[tuple[Word, Word], ...]
    tradeoff: Word
    form: Annotated[StaticForm | TableForm | MlpForm, Field(discriminator="kind")]
    heads: tuple[HeadSection, ...]
    weights: Mapping[str, Array] = {}
    priced: CostsSection
    # Whether levels that save nothing on the target share the graph of the level above: a property
    # of the integers that the gates were fitted to, which other costs do not change.
    drop: Annotated[bool, Field(strict=True)]
    # Whether costs, and the integers that chose the tradeoff, are those of a nested store.
    nested: Annotated[bool, Field(strict=True)] = False
    report: Section | None = None  # what they are worth, for the report of every build


def require_version(data: object) -> None:
    """Ends with an error where `data`, a policy's `gate` as read, is of another version.

    Raises:
        PolicyError: it is.
    """
    if isinstance(data, dict) and data.get("version", VERSION) != VERSION:
        raise PolicyError(
            "EQ0390",
            f"gate: version {data['version']!r}; this edgeq reads {VERSION}: fit the gates again",
        )


def require_model(fitted: Fitted, sha256: str) -> None:
    """Ends with an error where the gates are of another model.

    Raises:
        PolicyError: they are.
    """
    if fitted.model_sha256 != sha256:
        raise PolicyError(
            "EQ0391",
            f"gate: fitted for the model of SHA-256 {fitted.model_sha256[:16]}…, this one is "
            f"{sha256[:16]}…: fit the gates again",
        )


def to_gate(fitted: Fitted) -> Gate:
    """The gates, as the image holds them.

    Raises:
        PolicyError: paths, costs or tables do not fit together.
    """
    gate = Gate(
        fitted.classes,
        fitted.levels,
        fitted.paths,
        fitted.costs,
        fitted.first,
        fitted.tradeoff,
        Static(),
    )
    made = _FORMS[type(fitted.form)](gate, fitted.form)
    return Gate(gate.classes, gate.levels, gate.paths, gate.costs, gate.first, gate.tradeoff, made)


def _table(gate: Gate, form: TableForm) -> Table:
    clusters = form.centroids.shape[1] if len(form.centroids.shape) == 3 else 0
    shape = (gate.exits - 1, clusters, gates.TOP + 1)
    centroids = form.centroids.values("the table of centroids", "uint8", shape)
    errors = {
        row.path: row.values.values(
            f"the errors behind {row.path}", "uint8", (clusters, len(gate.options(row.path)))
        )
        for row in form.errors
    }
    if set(errors) != set(gate.nodes()) or len(form.errors) != len(errors) or not clusters:
        raise PolicyError(
            "EQ0394", f"gate: the table has errors behind {sorted(errors)}, expected {gate.nodes()}"
        )
    return Table(centroids, errors)


def _mlp(gate: Gate, form: MlpForm) -> Mlp:
    if len(form.layers) != gate.exits - 1:
        raise PolicyError("EQ0394", f"gate: {len(form.layers)} networks for {gate.exits - 1} gates")
    inputs = 2 * gate.classes + 4 + gate.exits + 1
    layers = []
    for number, layer in enumerate(form.layers, start=1):
        what, size = f"network {number}", math.prod(layer.output.shape)
        layers.append(
            Layer(
                layer.hidden.values(f"{what}'s hidden layer", "int8", (size, inputs)),
                layer.hidden_bias.values(f"{what}'s hidden bias", "int32", (size,)),
                layer.hidden_shift,
                layer.output.values(f"{what}'s output layer", "int8", (size,)),
                layer.output_bias,
                layer.output_scale,
            )
        )
    return Mlp(tuple(layers))


_FORMS: Mapping[type[Any], Any] = {
    StaticForm: lambda gate, form: Static(),
    TableForm: _table,
    MlpForm: _mlp,
}


def of_gate(
    gate: Gate,
    heads: tuple[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], ...],
    costs: gates.Costs,
    model_sha256: str,
    weights: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> Fitted:
    """What a policy holds of these gates; heads are weights and bias of each exit but the last."""
    return Fitted(
        model_sha256=model_sha256,
        classes=gate.classes,
        levels=gate.levels,
        paths=gate.paths,
        costs=gate.costs,
        first=gate.first,
        tradeoff=gate.tradeoff,
        form=_form(gate.form),
        heads=tuple(
            HeadSection(weights=Array.of(_float32(w)), bias=Array.of(_float32(b))) for w, b in heads
        ),
        weights={name: Array.of(_float32(data)) for name, data in (weights or {}).items()},
        drop=costs.unit not in FORMULAS,
        priced=CostsSection(
            unit=costs.unit,
            source=costs.source,
            blocks=costs.blocks,
            heads=costs.heads,
            gates=costs.gates,
        ),
    )


def _float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _form(form: gates.Form) -> StaticForm | TableForm | MlpForm:
    if isinstance(form, Table):
        rows = tuple(Errors(path=p, values=Array.of(e)) for p, e in form.errors.items())
        return TableForm(centroids=Array.of(form.centroids), errors=rows)
    if isinstance(form, Mlp):
        return MlpForm(
            layers=tuple(
                LayerSection(
                    hidden=Array.of(layer.hidden),
                    hidden_bias=Array.of(layer.hidden_bias),
                    hidden_shift=layer.hidden_shift,
                    output=Array.of(layer.output),
                    output_bias=layer.output_bias,
                    output_scale=layer.output_scale,
                )
                for layer in form.layers
            )
        )
    return StaticForm()


def costs_of(fitted: Fitted) -> gates.Costs:
    """What the paths' costs were made of."""
    p = fitted.priced
    return gates.Costs(p.unit, p.source, p.blocks, p.heads, p.gates)
