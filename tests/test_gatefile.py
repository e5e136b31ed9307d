"""Gates as JSON in a policy: what was fitted comes back, and what does not fit is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq import gatefile, gates, policy
from edgeq.errors import PolicyError
from edgeq.gatefile import Fitted
from edgeq.gates import Costs, Form, Gate, Layer, Mlp, Static, Table

LEVELS = ((0,), (0, 1), (0, 1))
CLASSES = 5
COSTS = Costs(
    "cycles_model", "a test", ({0: 10.0}, {0: 30.0, 1: 12.5}, {0: 60.0, 1: 20.0}), (1, 1), (2, 2)
)


def table(gate: Gate, rng: np.random.Generator) -> Table:
    def draw(*shape: int) -> gates.Bytes:
        return rng.integers(0, 256, shape).astype(np.uint8)

    return Table(
        draw(gate.exits - 1, 7, gates.TOP + 1),
        {node: draw(7, len(gate.options(node))) for node in gate.nodes()},
    )


def mlp(gate: Gate, rng: np.random.Generator) -> Mlp:
    inputs = 2 * gate.classes + 4 + gate.exits + 1
    return Mlp(
        tuple(
            Layer(
                rng.integers(-128, 128, (4, inputs)).astype(np.int8),
                rng.integers(-999, 999, 4).astype(np.int32),
                10,
                rng.integers(-128, 128, 4).astype(np.int8),
                -17,
                (1 << 30, -8),
            )
            for _ in range(gate.exits - 1)
        )
    )


FORMS: dict[str, Callable[[Gate, np.random.Generator], Form]] = {
    "static": lambda gate, rng: Static(),
    "table": table,
    "mlp": mlp,
}


def gate_of(kind: str) -> Gate:
    plain = gates.static(CLASSES, LEVELS)
    form = FORMS[kind](plain, np.random.default_rng(0))
    return Gate(
        CLASSES,
        LEVELS,
        plain.paths,
        gates.normalised(COSTS, plain.paths),
        ((0, 0),),
        1234,
        form,
    )


def fitted(kind: str) -> Fitted:
    rng = np.random.default_rng(1)
    heads = tuple((rng.normal(size=(CLASSES, 8)), rng.normal(size=CLASSES)) for _ in range(2))
    return gatefile.of_gate(
        gate_of(kind), heads, COSTS, "ab" * 32, {"conv.weights": np.ones((2, 3))}
    )


def same(a: Any, b: Any) -> bool:
    """Equality of dataclasses with arrays in them."""
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and np.array_equal(a, b))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if hasattr(a, "__slots__"):
        return type(a) is type(b) and all(
            same(getattr(a, name), getattr(b, name)) for name in a.__slots__
        )
    return bool(a == b)


def write(folder: Path, data: object) -> Path:
    path = folder / "gate.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def as_policy(kind: str) -> dict[str, Any]:
    return {
        "exits": ["a", "b"],
        "level": [{"default": {"weights": 4, "activations": 4}}],
        "gate": json.loads(fitted(kind).model_dump_json()),
    }


@pytest.mark.parametrize("kind", FORMS)
def test_what_was_fitted_comes_back_from_a_policy_file(kind: str, tmp_path: Path) -> None:
    read = policy.load(write(tmp_path, as_policy(kind))).gate
    assert read is not None
    assert same(gatefile.to_gate(read), gate_of(kind))
    assert gatefile.costs_of(read) == COSTS
    assert read == fitted(kind)
    weights = read.heads[0].weights.values("weights", "float32", (CLASSES, 8))
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(weights, rng.normal(size=(CLASSES, 8)).astype(np.float32))
    ones = read.weights["conv.weights"].values("tuned", "float32")
    np.testing.assert_array_equal(ones, np.ones((2, 3), np.float32))


def refused(id: str, *words: str) -> pytest.RaisesExc[PolicyError]:
    return pytest.raises(
        PolicyError, check=lambda e: e.id == id and all(w in str(e) for w in words)
    )


def test_gates_of_another_version_are_refused(tmp_path: Path) -> None:
    data = as_policy("table")
    data["gate"] |= {"version": 2, "something": "new"}
    with refused("EQ0390", "version 2", "reads 1"):
        policy.load(write(tmp_path, data))


def test_gates_of_another_model_are_refused() -> None:
    gatefile.require_model(fitted("static"), "ab" * 32)
    with refused("EQ0391", "abab", "cdcd", "fit the gates again"):
        gatefile.require_model(fitted("static"), "cd" * 32)


def _array(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(gatefile.Array.of(values).model_dump_json())
    return loaded


MISFITS: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "centroids-of-another-exit": (
        "table",
        lambda form: form.update(centroids=_array(np.zeros((3, 7, 6), np.uint8))),
        "the table of centroids is uint8 (3, 7, 6), expected uint8 (2, 7, 6)",
    ),
    "signed-centroids": (
        "table",
        lambda form: form.update(centroids=_array(np.zeros((2, 7, 6), np.int8))),
        "is int8 (2, 7, 6), expected uint8",
    ),
    "no-clusters": (
        "table",
        lambda form: form.update(centroids=_array(np.zeros(3, np.uint8))),
        "expected uint8 (2, 0, 6)",
    ),
    "errors-of-few-options": (
        "table",
        lambda form: form["errors"][0].update(values=_array(np.zeros((7, 1), np.uint8))),
        "the errors behind (0,) is uint8 (7, 1), expected uint8 (7, 6)",
    ),
    "errors-of-few-paths": (
        "table",
        lambda form: form["errors"].pop(),
        "the table has errors behind [(0,), (0, 0)], expected ((0,), (0, 0), (0, 1))",
    ),
    "errors-twice": (
        "table",
        lambda form: form["errors"].append(form["errors"][0]),
        "the table has errors behind",
    ),
    "no-base64": (
        "table",
        lambda form: form["centroids"].update(data="###"),
        "the table of centroids is no base64",
    ),
    "few-bytes": (
        "table",
        lambda form: form["centroids"].update(data=base64.b64encode(b"abc").decode()),
        "has 3 bytes; (2, 7, 6) of uint8 take 84",
    ),
    "few-networks": ("mlp", lambda form: form["layers"].pop(), "1 networks for 2 gates"),
    "hidden-of-other-inputs": (
        "mlp",
        lambda form: form["layers"][1].update(hidden=_array(np.zeros((4, 17), np.int8))),
        "network 2's hidden layer is int8 (4, 17), expected int8 (4, 18)",
    ),
    "bias-of-another-type": (
        "mlp",
        lambda form: form["layers"][0].update(hidden_bias=_array(np.zeros(4, np.float32))),
        "network 1's hidden bias is float32 (4,), expected int32 (4,)",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_tables_that_do_not_fit_the_paths_are_refused(name: str, tmp_path: Path) -> None:
    kind, damage, says = MISFITS[name]
    data = as_policy(kind)
    damage(data["gate"]["form"])
    read = policy.load(write(tmp_path, data)).gate
    assert read is not None
    with refused("EQ0394", says):
        gatefile.to_gate(read)


@pytest.mark.parametrize(
    ("key", "value"),
    [("classes", 1), ("costs", [-1]), ("tradeoff", 1 << 32), ("paths", [[-1]]), ("paths", [[16]])],
)
def test_numbers_out_of_range_break_the_schema(key: str, value: object, tmp_path: Path) -> None:
    data = as_policy("table")
    data["gate"][key] = value
    with refused("EQ0322", f"gate.{key}"):
        policy.load(write(tmp_path, data))


def test_paths_that_are_no_paths_are_refused() -> None:
    data = json.loads(fitted("static").model_dump_json())
    data["paths"] = data["paths"][1:]
    data["costs"] = data["costs"][1:]
    with refused("EQ0395", "every beginning"):
        gatefile.to_gate(Fitted.model_validate(data))
