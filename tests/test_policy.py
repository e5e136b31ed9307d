"""Policies: what a file may say, and the bits that its rules give each layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import Builder, graphs
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq import policy
from edgeq.errors import PolicyError
from edgeq.ir import Graph
from edgeq.policy import Bits, InputSpec, Policy

fixed = settings(derandomize=True, max_examples=100, deadline=None)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes text, or a value as JSON, into a policy file."""

    def write(content: object, name: str = "policy.json") -> Path:
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def layers(*names: str) -> Graph:
    """A graph whose nodes have these names."""
    b = Builder()
    x = b.input(4, 4, 2)
    for _ in names:
        x = b.conv(x, 2, 1)
    graph = b.build(x)
    nodes = zip(graph.nodes, names, strict=True)
    return replace(graph, nodes=tuple(replace(node, name=name) for node, name in nodes))


def rules(*entries: dict[str, Any], **default: int) -> Policy:
    return Policy.model_validate({"default": default, "rule": entries})


def weights(chosen: Policy, *names: str) -> list[int]:
    return [bits.weights for bits in policy.resolve(chosen, layers(*names)).values()]


def refused(id: str, *words: str) -> pytest.RaisesExc[PolicyError]:
    return pytest.raises(
        PolicyError, check=lambda e: e.id == id and all(w in str(e) for w in words)
    )


# Files


def test_a_uniform_policy_is_named_not_written() -> None:
    assert policy.load("w4a8").default == policy.Precision(weights=4, activations=8)


@pytest.mark.parametrize("name", ["w1a8", "w9a8", "w4", "W4A8", "w4a8 ", "w4a12", "nothing.toml"])
def test_what_is_neither_uniform_nor_a_file_is_refused(name: str) -> None:
    with refused("EQ0320", name, "w8a8"):
        policy.load(name)


def test_json_and_toml_say_the_same(write: Write) -> None:
    one = write({"schema": 1, "default": {"weights": 4}, "rule": [{"match": "a*", "weights": 3}]})
    text = 'schema = 1\ndefault.weights = 4\n[[rule]]\nmatch = "a*"\nweights = 3\n'
    assert policy.load(one) == policy.load(write(text, "policy.toml"))


def test_the_default_is_8_bits(write: Write) -> None:
    assert policy.load(write({})) == policy.load(policy.DEFAULT)


def test_a_policy_survives_json(write: Write) -> None:
    chosen = rules({"match": "a", "weights": 3}, weights=4)
    assert policy.load(write(chosen.model_dump_json(by_alias=True))) == chosen


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policy.json", "{"),
        ("policy.json", '{"a": 1'),
        ("policy.json", "\ufeff{}"),
        ("policy.json", "[" * 100_000),
        ("policy.json", '{"default": {"weights": ' + "1" * 5000 + "}}"),
        ("policy.toml", "weights ="),
        ("policy.toml", "[default]\nweights = 4\nweights = 5"),
        ("policy.toml", "x = " + "[" * 10_000),
        ("policy.toml", "x = " + "1" * 5000),
    ],
    ids=range(9),
)
def test_a_file_that_cannot_be_parsed_is_refused(write: Write, name: str, text: str) -> None:
    with refused("EQ0320", f"{name} is no valid"):
        policy.load(write(text, name))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_bytes(b"\xff\xfe\x00")
    with refused("EQ0320", "cannot be read"):
        policy.load(tmp_path / "policy.json")


def test_a_folder_is_no_policy(tmp_path: Path) -> None:
    with refused("EQ0320", "cannot be read"):
        policy.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    ['{"default": {}, "default": {}}', '{"rule": [{"match": "a", "weights": 4, "weights": 8}]}'],
)
def test_a_key_that_stands_twice_in_json_is_refused(write: Write, text: str) -> None:
    with refused("EQ0321", "stands twice"):
        policy.load(write(text))


# Schema


@pytest.mark.parametrize("bits", [0, 1, 9, -4, "four", "4", True, 4.0, None, [4]])
@pytest.mark.parametrize("kind", ["weights", "activations"])
def test_bits_that_are_no_whole_number_in_range_are_refused(
    write: Write, kind: str, bits: object
) -> None:
    with refused("EQ0322", f"policy.json: default.{kind}"):
        policy.load(write({"default": {kind: bits}}))


@pytest.mark.parametrize(
    "content",
    [
        [],
        "policy",
        {"defaults": {}},
        {"default": {"weight": 4}},
        {"rule": [{"match": "a", "weights": 4, "bits": 4}]},
        {"rule": {"match": "a", "weights": 4}},
        {"rule": [{"weights": 4}]},
        {"rule": [{"match": "a"}]},
        {"rule": [{"match": 1, "weights": 4}]},
        {"schema": 2},
        {"schema": "1"},
        {"calibration": {"activations": "kl"}},
        {"calibration": {"percentile": 50}},
        {"calibration": {"percentile": 100.1}},
        {"calibration": {"percentile": "99"}},
        {"calibration": {"percentile": float("nan")}},
        {"calibration": {"gain": "no"}},
        {"calibration": {"bias_correction": 1}},
        {"input": {"x": {"mean": []}}},
        {"input": {"x": {"mean": [float("nan")]}}},
        {"input": {"x": {"std": [0.0]}}},
        {"input": {"x": {"std": [-1.0]}}},
        {"input": {"x": {"std": [1e-300]}}},
        {"input": {"x": {"range": [1, 1]}}},
        {"input": {"x": {"range": [0]}}},
        {"input": {"x": {"range": [0, float("inf")]}}},
        {"input": {"x": {"range": [-1e308, 1e308]}}},
        {"input": {"x": {"mean": [0, 0], "std": [1, 1, 1]}}},
        {"provenance": {}},
    ],
    ids=str,
)
def test_a_file_that_breaks_the_schema_is_refused(write: Write, content: object) -> None:
    with refused("EQ0322", "policy.json: "):
        policy.load(write(content if not isinstance(content, str) else json.dumps(content)))


def test_a_refusal_counts_the_faults_that_it_does_not_show(write: Write) -> None:
    with refused("EQ0322", "(and 1 more)"):
        policy.load(write({"default": {"weights": 1, "activations": 1}}))


# Rules


def test_a_rule_changes_the_layers_that_it_matches() -> None:
    assert weights(rules({"match": "conv_[12]", "weights": 4}), "conv_1", "fc", "conv_2") == [
        4,
        8,
        4,
    ]


def test_the_later_rule_wins() -> None:
    chosen = rules({"match": "conv*", "weights": 4}, {"match": "conv_2", "weights": 3})
    assert weights(chosen, "conv_1", "conv_2") == [4, 3]


def test_a_later_rule_leaves_what_it_does_not_name() -> None:
    chosen = rules({"match": "a", "weights": 4}, {"match": "a", "activations": 8}, activations=8)
    assert policy.resolve(chosen, layers("a")) == {"a": Bits(4, 8)}


def test_a_rule_that_matches_nothing_names_near_misses() -> None:
    with refused("EQ0323", 'policy.toml: rule 2 "conv_9*" matches no layer; did you mean conv_'):
        chosen = rules({"match": "*", "weights": 4}, {"match": "conv_9*", "weights": 4})
        policy.resolve(chosen, layers("conv_1", "conv_2", "fc"), "policy.toml")


def test_a_rule_that_is_near_nothing_lists_the_layers() -> None:
    with refused("EQ0323", "layers are conv_1, conv_2"):
        policy.resolve(rules({"match": "zzz", "weights": 4}), layers("conv_1", "conv_2"))


@pytest.mark.parametrize("match", ["", " conv_1", "CONV_1", "conv_"])
def test_a_pattern_matches_whole_names_as_they_are_written(match: str) -> None:
    with refused("EQ0323"):
        policy.resolve(rules({"match": match, "weights": 4}), layers("conv_1"))


@pytest.mark.parametrize(
    ("match", "name"),
    [
        ("a[[]0]", "a[0]"),
        ("a[[]*]", "a[12]"),
        ("b[*]", "b*"),
        ("b[?]", "b?"),
        ("/block.0/conv/Conv", "/block.0/conv/Conv"),
        ("[[]", "["),
        ("]", "]"),
        ("größe*", "größe_1"),
    ],
)
def test_names_with_pattern_characters_can_be_matched(match: str, name: str) -> None:
    assert weights(rules({"match": match, "weights": 4}), name, "other") == [4, 8]


def test_a_star_in_brackets_matches_only_itself() -> None:
    assert weights(rules({"match": "b[*]", "weights": 4}), "b*", "bb") == [4, 8]


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_activation_bits_are_what_the_rule_says(bits: int) -> None:
    chosen = rules({"match": "conv_1", "activations": bits})
    assert policy.resolve(chosen, layers("conv_1")) == {"conv_1": Bits(8, bits)}


def test_activation_bits_that_a_later_rule_takes_back_do_no_harm() -> None:
    chosen = rules({"match": "*", "activations": 8}, activations=16)
    assert policy.resolve(chosen, layers("a")) == {"a": Bits(8, 8)}


@fixed
@given(graphs(), st.lists(st.tuples(st.integers(2, 8), st.integers(0, 99)), max_size=4))
def test_resolving_twice_gives_the_same(graph: Graph, drawn: list[tuple[int, int]]) -> None:
    names = [node.name for node in graph.nodes]
    chosen = rules(*({"match": names[i % len(names)], "weights": w} for w, i in drawn))
    assert policy.resolve(chosen, graph) == policy.resolve(chosen, graph)


@fixed
@given(graphs())
def test_every_layer_gets_bits_in_the_order_of_the_graph(graph: Graph) -> None:
    resolved = policy.resolve(policy.load("w4a8"), graph)
    assert list(resolved) == [node.name for node in graph.nodes]


# Inputs


def test_raw_bytes_become_reals_by_range_then_mean_then_deviation() -> None:
    spec = InputSpec(mean=(1.0,), std=(2.0,), range=(-1.0, 3.0))
    assert spec.real(np.array([[0, 255]], np.uint8)).tolist() == [[-1.0, 1.0]]


def test_mean_and_deviation_may_differ_by_channel() -> None:
    spec = InputSpec(mean=(0.0, 1.0), std=(1.0, 0.5), range=(0.0, 255.0))
    assert spec.real(np.array([[10, 3]], np.uint8)).tolist() == [[10.0, 4.0]]


@pytest.mark.parametrize(
    ("section", "raw", "retain"),
    [
        ({}, True, False),
        ({"retain": True}, False, True),
        ({"retain": True, "std": [2]}, True, True),
    ],
)
def test_retaining_an_input_says_nothing_of_raw_samples(
    section: dict[str, object], raw: bool, retain: bool
) -> None:
    spec = InputSpec.model_validate(section)
    assert (spec.raw, spec.retain) == (raw, retain)


def test_one_deviation_serves_every_channel() -> None:
    spec = InputSpec(mean=(0.0, 1.0), std=(0.5,), range=(0.0, 255.0))
    assert spec.real(np.array([[10, 3]], np.uint8)).tolist() == [[20.0, 4.0]]
