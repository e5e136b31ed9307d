"""Budgets: sizes as people write them, what is over, and rules that would really fit."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from graphs import Builder, random_graph, resnet8
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import compiled, few_samples, uniform

import edgeq
from edgeq import budget, examples, policy
from edgeq.budget import parse_size, show_size
from edgeq.errors import BudgetError, UsageError
from edgeq.exporters import image
from edgeq.exporters.image import Kind
from edgeq.ir import Graph
from edgeq.kernels import Optimize, code_bytes, linked_bytes
from edgeq.ops import OPS
from edgeq.policy import Policy
from edgeq.program import Program
from edgeq.report import Budget, Flash, Ram

SEEDS = (0, 1, 2, 3, 5, 6, 7, 8)  # 4 has 12 weights: padding hides what fewer bits save
RUNTIME = code_bytes().runtime
SMALL_RAM = Ram(arena=1000, context=300, io=0, stack=400, total=1700)
PLENTY = 1 << 30

fixed = settings(derandomize=True, max_examples=100, deadline=None)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("512B", 512),
        ("64KB", 65_536),
        ("64 kb", 65_536),
        (" 64Kb ", 65_536),
        ("1.5MB", 1_572_864),
        ("0.5KB", 512),
        ("1MB", 1_048_576),
    ],
)
def test_sizes_are_in_units_of_1024(text: str, size: int) -> None:
    assert parse_size(text, "--flash") == size


@pytest.mark.parametrize(
    "text",
    ["", "64", "KB", "64K", "64KiB", "64GB", "-1KB", "0KB", "0.0001KB", "1e3KB", "1,5MB", ".5KB",
     "64KB 1B", "0x10KB", "9" * 400 + "MB", "nanKB", "infKB"],
)  # fmt: skip
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"EQ0201: --ram {text}: a size is")):
        parse_size(text, "--ram")


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KB"), (131_072, "128.0 KB")]
)
def test_sizes_are_shown_in_units_of_1024(size: int, shown: str) -> None:
    assert show_size(size) == shown


@fixed
@given(st.integers(1, 1 << 30))
def test_a_size_that_is_shown_can_be_given(size: int) -> None:
    assert abs(parse_size(show_size(size), "--flash") - size) <= 0.05 * 1024


# Flash


def measured(program: Program) -> Flash:
    built = image.build(program)
    weights = built.bytes_of(Kind.WEIGHTS)
    tables = len(built.data) - weights
    code = linked_bytes({k for choice in program.choices.values() for k in choice.kernels})
    total = RUNTIME + code + weights + tables
    return Flash(RUNTIME, code, weights, tables, 0, total, estimated=True)


def lean(graph: Graph, policy: Policy | int = 8) -> Program:
    """`graph` with kernels of the least code, as a budget that is too small makes it."""
    return compiled(graph, policy, budget=Budget(1, None)).program


def refusal(program: Program, limit: int, optimize: Optimize = "flash") -> str:
    with pytest.raises(BudgetError) as caught:
        budget.check(program, measured(program), SMALL_RAM, Budget(limit, PLENTY), optimize)
    assert caught.value.id == "EQ0401"
    return caught.value.message


def rules(message: str) -> list[dict[str, Any]]:
    """The rules that a refusal suggests, as TOML reads them."""
    text = message.partition("--policy:\n\n")[2]
    return list(tomllib.loads(text)["rule"])


def smaller(program: Program, share: float) -> int:
    """A flash budget that takes this share off the weights."""
    flash = measured(program)
    return flash.total - max(1, int(flash.weights * share))


def test_what_fits_exactly_is_accepted() -> None:
    program = compiled(random_graph(0)).program
    flash = measured(program)
    budget.check(program, flash, SMALL_RAM, Budget(flash.total, SMALL_RAM.total), "flash")


def test_a_byte_too_many_is_refused_with_what_takes_how_much() -> None:
    program = compiled(resnet8(8, 8, 1)).program
    flash = measured(program)
    message = refusal(program, flash.total - 1)
    first, *rows = message.splitlines()[:5]
    assert first == f"flash is over budget: {flash.total} bytes, 1 more than {flash.total - 1}"
    parts = [(row.split()[0], int(row.split()[1].replace(",", ""))) for row in rows]
    assert parts == sorted(parts, key=lambda part: -part[1])
    assert dict(parts) == {
        "runtime": RUNTIME,
        "kernels": flash.kernels,
        "weights": flash.weights,
        "tables": flash.tables,
    }


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6])
@pytest.mark.parametrize("start", [8, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_suggested_rules_fit(seed: int, start: int, share: float) -> None:
    graph = resnet8(8, 8, 1, seed) if seed == 0 else random_graph(seed)
    program = lean(graph, start)
    limit = smaller(program, share * (start - 2) / 8)
    before = uniform(start).model_dump(by_alias=True)
    suggested = rules(refusal(program, limit))
    edited = Policy.model_validate({**before, "rule": suggested})
    assert measured(lean(graph, edited)).total <= limit


def test_the_rules_alone_are_a_policy_that_fits() -> None:
    graph = resnet8(8, 8, 1)
    program = lean(graph, 5)
    limit = smaller(program, 0.2)
    alone = Policy.model_validate({"rule": rules(refusal(program, limit))})
    assert measured(lean(graph, alone)).total <= limit


def test_no_layer_goes_below_3_bits_while_another_has_more() -> None:
    program = lean(resnet8(8, 8, 1))
    bits = {rule["weights"] for rule in rules(refusal(program, smaller(program, 0.55)))}
    assert min(bits) >= 3


def test_the_largest_layers_give_first() -> None:
    program = lean(resnet8(8, 8, 1))
    suggested = {rule["match"] for rule in rules(refusal(program, smaller(program, 0.01)))}
    graph = program.network.graphs[0]
    sizes = {n.name: graph.constant(n.inputs[1]).size for n in graph.nodes if OPS[n.op].weighted}
    assert max(sizes.values()) in {sizes[name] for name in suggested}


def test_rules_match_names_with_pattern_characters() -> None:
    b = Builder("odd", names="a[0]*?.")
    graph = b.build(b.fully_connected(b.input(64), 32))
    program = lean(graph)
    (rule,) = rules(refusal(program, smaller(program, 0.2)))
    bits = policy.resolve(Policy.model_validate({"rule": [rule]}), graph)
    assert bits["a[0]*?.fc_1"].weights == rule["weights"] < 8


def test_what_no_policy_makes_fit_is_said() -> None:
    program = lean(resnet8(8, 8, 1))
    least = measured(lean(resnet8(8, 8, 1), 2))
    message = refusal(program, least.total - 100)
    assert (
        f"with 2 bits everywhere the weights take {least.weights:,} bytes, 100 too many" in message
    )


def test_where_time_unpacks_the_weights_the_way_out_is_the_flag() -> None:
    program = compiled(resnet8(8, 8, 1), 4, "time").program
    assert "take --optimize balanced, or flash, instead" in refusal(
        program, smaller(program, 0.1), "time"
    )


def test_kernels_of_less_code_are_taken_where_the_flash_demands_it() -> None:
    graph = resnet8(8, 8, 1)
    fast = compiled(graph).program
    some = compiled(graph, budget=Budget(measured(fast).total - 100, None)).program
    assert measured(some).total <= measured(fast).total - 100
    assert sum(c.cycles for c in some.choices.values()) > sum(
        c.cycles for c in fast.choices.values()
    )


# RAM


def test_ram_over_budget_names_the_largest_tensors() -> None:
    program = compiled(resnet8(8, 8, 1)).program
    ram = Ram(
        arena=program.plan.arena_bytes,
        context=300,
        io=0,
        stack=400,
        total=program.plan.arena_bytes + 700,
    )
    with pytest.raises(BudgetError) as caught:
        budget.check(program, measured(program), ram, Budget(PLENTY, ram.total - 1), "flash")
    assert caught.value.id == "EQ0402"
    assert f"RAM is over budget: {ram.total} bytes, 1 more" in caught.value.message
    assert f"conv_1.output ({8 * 8 * 16:,} bytes)" in caught.value.message


def test_flash_is_told_before_ram() -> None:
    program = compiled(random_graph(0)).program
    with pytest.raises(BudgetError, match="EQ0401"):
        budget.check(program, measured(program), SMALL_RAM, Budget(1, 1), "flash")


# The whole way


def test_an_export_that_follows_the_advice_fits(tmp_path: Path) -> None:
    folder = examples.path("fashion-tiny")
    few = few_samples(folder / "calib.npz", tmp_path / "few.npz", 4)

    def export(chosen: str | Path) -> edgeq.Build:
        return edgeq.export(
            folder / "model.onnx",
            policy=chosen,
            calib=few,
            inputs=dict(policy.load(folder / "policy.toml").input),
            out=tmp_path / "build",
            flash=limit,
            check="none",
        )

    limit = 1
    with pytest.raises(BudgetError) as caught:
        export("w8a8")
    least = re.search(r"over budget: (\d+) bytes", caught.value.message)
    assert least is not None
    limit = int(least[1]) - 1500
    with pytest.raises(BudgetError) as caught:
        export("w8a8")
    advice = tmp_path / "policy.toml"
    advice.write_text(caught.value.message.partition("--policy:\n\n")[2], encoding="utf-8")
    assert export(advice).report.export.flash.total <= limit
