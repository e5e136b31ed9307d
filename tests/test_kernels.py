"""The kernel table: what it says, that the C agrees, and which row runs which operator."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import Builder, random_graph
from programs import compiled

from edgeq import affine, kernels
from edgeq.errors import ModelError
from edgeq.exporters import c_arrays
from edgeq.ir import Function, Graph, Op, Unary, Window, single
from edgeq.kernels import ALIASED, PLANES, Kernel, Optimize, choose, scratch_bytes, table
from edgeq.ops import OPS
from edgeq.packing import LAYOUTS
from edgeq.policy import Policy
from edgeq.quantize import BYTE_READERS

STUBS = Path(__file__).parents[1] / "firmware_stubs"
GOLDEN = Path(__file__).parent / "golden" / "kernel_ids.txt"
ROWS = table()
BY_SYMBOL = {row.symbol: row for row in ROWS}


def named(row: Kernel) -> str:
    return row.symbol


def runtime(file: str) -> str:
    return (STUBS / "runtime" / file).read_text(encoding="utf-8")


# The table


def test_ids_are_bits_of_the_header() -> None:
    ids = [row.id for row in ROWS]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0
    assert max(ids) < 128


def test_ids_are_never_reused() -> None:
    """A new kernel is a new line in the golden file; a line never changes or goes."""
    _, *lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    assert [f"{row.id} {row.symbol}" for row in ROWS] == lines


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_a_kernel_is_alone_in_its_file(row: Kernel) -> None:
    text = (STUBS / "kernels" / row.file).read_text(encoding="utf-8")
    assert re.findall(r"^void (eq_\w+)\(const eq_call_t \*call\)", text, re.M) == [row.symbol]


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_a_kernel_has_a_prototype(row: Kernel) -> None:
    assert f"void {row.symbol}(const eq_call_t *call);" in runtime("eq_kernel.h")


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_a_kernel_is_named_by_operator_types_and_instruction_set(row: Kernel) -> None:
    isa = "_".join(row.isa) or "ref"
    assert re.fullmatch(rf"eq_[a-z0-9_]+_s(2|4|8|16)_{isa}", row.symbol)


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_families_and_scratch_rules_are_those_of_c(row: Kernel) -> None:
    header = runtime("eq_kernel.h")
    assert f"EQ_FAMILY_{row.family.upper()}" in header
    assert f"EQ_SCRATCH_{row.scratch.upper()}" in header
    assert row.rules == "NULL" or f"{row.rules.removeprefix('&')};" in header
    checked = f"eq_status_t eq_check_{row.family}(" in runtime("eq_check.h")
    assert checked == (row.family not in kernels.UNCHECKED)


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_weighted_kernels_read_widths_in_a_known_layout(row: Kernel) -> None:
    weighted = row.op is not None and OPS[row.op].weighted
    assert bool(row.weights) == weighted
    assert bool(row.layouts) == (weighted or row.family == PLANES)
    assert set(row.weights) <= set(range(2, 9))
    assert set(row.layouts) <= set(LAYOUTS)
    assert row.layouts in ((), ("dense",)) or len(row.layouts) == 1


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_portable_kernels_read_every_width(row: Kernel) -> None:
    assert row.isa or row.weights in ((), tuple(range(2, 9)))


def test_every_file_of_a_kernel_is_a_row() -> None:
    files = {file.name for file in (STUBS / "kernels").glob("eq_*.c")} - {"eq_kernels.c"}
    files |= {file.name for file in (STUBS / "kernels").glob("eq_*.[hS]")}
    assert files == {file for row in ROWS for file in (row.file, *row.sources)}


def test_the_list_that_firmware_is_linked_with_is_generated_from_the_table() -> None:
    text = (STUBS / "kernels" / "eq_kernels.c").read_text(encoding="utf-8")
    assert text == c_arrays.kernel_list(ROWS)


def test_firmware_has_the_checks_of_its_families_alone() -> None:
    rows = [BY_SYMBOL[name] for name in ("eq_conv_s8_ref", "eq_conv_s8_dsp", "eq_rows_s8_ref")]
    checks = re.findall(r"\[EQ_FAMILY_(\w+)\] = eq_check_(\w+),", c_arrays.kernel_list(rows))
    assert checks == [("CONV", "conv"), ("ROWS", "rows")]


@pytest.mark.parametrize(
    "op", [op for op, info in OPS.items() if info.device and op not in ALIASED]
)
def test_every_operator_of_a_device_has_a_portable_kernel(op: Op) -> None:
    widths = {row.activations for row in ROWS if row.op is op and not row.isa}
    assert widths == ({8} if op in BYTE_READERS else {8, 16})


def test_estimates_count_something() -> None:
    code = kernels.code_bytes()
    assert min(code.runtime, code.context, code.stack, *(row.code_bytes for row in ROWS)) > 0


# Scratch


@pytest.mark.parametrize(
    ("rule", "values", "bits", "expected"),
    [
        ("none", 9, 4, 0),
        ("row", 9, 4, 9),
        ("row", 9, 8, 0),
        ("pairs", 9, 4, 80),
        ("pairs", 9, 8, 80),
        ("pairs", 8, 8, 64),
        ("strip", 9, 4, 9 + 48),
        ("strip", 9, 8, 48),
        ("tables", 0, 0, 2048),
    ],
)
def test_scratch_is_what_eq_check_demands(rule: str, values: int, bits: int, expected: int) -> None:
    assert scratch_bytes(rule, values, bits, rows=48) == expected


# Choosing


def convolution() -> Graph:
    b = Builder("one")
    return compiled(b.build(b.conv(b.input(6, 6, 2), 4)), 4).program.network.graphs[0]


def chosen(isa: tuple[str, ...], optimize: Optimize = "flash") -> kernels.Choice:
    return choose(single(convolution()), isa, optimize)["conv_1"]


def test_a_core_without_extensions_gets_the_reference() -> None:
    assert chosen(()).kernel is BY_SYMBOL["eq_conv_s8_ref"]


def test_a_core_with_dsp_gets_the_faster_row() -> None:
    assert chosen(("dsp",)).kernel is BY_SYMBOL["eq_conv_fields_s8_dsp"]


def test_weights_of_8_bits_are_pairs() -> None:
    b = Builder("one")
    network = compiled(b.build(b.conv(b.input(6, 6, 8), 8))).program.network
    choice = choose(network, ("dsp",), "time")["conv_1"]
    assert (choice.kernel.symbol, choice.layout) == ("eq_conv_pairs_s8_dsp", "pairs")


@pytest.mark.parametrize("optimize", ["flash", "time"])
def test_what_a_layout_is_not_exact_for_falls_to_the_next_kernel(optimize: Optimize) -> None:
    graph = convolution()
    node = next(node for node in graph.nodes if node.name == "conv_1")
    shift = graph.tensors[node.inputs[-1]]
    assert shift.data is not None
    changed = replace(shift, data=np.full_like(shift.data, -23))
    graph = graph.edit(graph.nodes, (changed,))
    choice = choose(single(graph), ("dsp",), optimize)["conv_1"]
    assert (choice.kernel.symbol, choice.layout) == ("eq_conv_s8_dsp", "dense")


def test_shared_files_and_checks_are_counted_once() -> None:
    conv, fields = BY_SYMBOL["eq_conv_pairs_s8_dsp"], BY_SYMBOL["eq_conv_fields_s8_dsp"]
    fc, other = BY_SYMBOL["eq_fc_pairs_s8_dsp"], BY_SYMBOL["eq_fc_s8_dsp"]
    size = kernels.linked_bytes
    check = size([other]) - other.code_bytes
    assert size([conv, fc]) == size([conv]) + fc.code_bytes + check
    assert size([other, fc]) == size([fc]) + other.code_bytes
    assert size([fields, conv]) == size([fields]) + conv.code_bytes


def test_an_extension_that_no_row_asks_for_does_no_harm() -> None:
    assert chosen(("helium",)).kernel is BY_SYMBOL["eq_conv_s8_ref"]


def test_the_last_row_that_fits_is_taken() -> None:
    newer = replace(BY_SYMBOL["eq_conv_s8_ref"], id=99, symbol="eq_conv_s8_new")
    choice = choose(single(convolution()), (), "flash", (*ROWS, newer))["conv_1"]
    assert choice.kernel is newer


def test_a_row_that_cannot_read_the_bits_is_passed_over() -> None:
    newer = replace(BY_SYMBOL["eq_conv_s8_ref"], id=99, weights=(8,))
    choice = choose(single(convolution()), (), "flash", (*ROWS, newer))["conv_1"]
    assert choice.kernel is BY_SYMBOL["eq_conv_s8_ref"]


@pytest.mark.parametrize(("optimize", "bits"), [("flash", 4), ("time", 8)])
def test_flash_keeps_the_policys_bits_and_time_unpacks_them(optimize: Optimize, bits: int) -> None:
    assert chosen((), optimize).weight_bits == bits


def test_rows_too_long_for_sums_of_8_bit_weights_stay_packed() -> None:
    b = Builder("long")
    size = kernels.UNPACKED_MOST + 1
    graph = compiled(b.build(b.fully_connected(b.input(size), 1)), 4).program.network.graphs[0]
    assert choose(single(graph), (), "time")["fc_1"].weight_bits == 4


def test_an_operator_without_a_kernel_is_refused() -> None:
    rows = [row for row in ROWS if row.op is not Op.CONV_2D]
    with pytest.raises(ModelError, match="EQ0341: conv_1: no kernel for conv_2d"):
        choose(single(convolution()), (), "flash", rows)


@pytest.mark.parametrize("count", [4, 5])
def test_more_inputs_than_the_runtime_has_room_for_are_refused(count: int) -> None:
    b = Builder("many")
    total = b.input(4, name="input_0")
    for i in range(1, count):
        total = b.add(total, b.input(4, name=f"input_{i}"))
    graph = b.build(total)
    if count > kernels.MAX_PORTS:
        with pytest.raises(ModelError, match="EQ0342: 5 inputs"):
            compiled(graph)
    else:
        assert len(compiled(graph).program.inputs) == count


@pytest.mark.parametrize("seed", range(10))
def test_every_operator_but_reshapes_gets_a_kernel(seed: int) -> None:
    program = compiled(random_graph(seed)).program
    nodes = program.network.graphs[0].nodes
    assert list(program.choices) == [node.name for node in nodes if node.op not in ALIASED]


# Limits


def kernel_of(graph: Graph) -> str:
    """What runs the last node on a core with the DSP extension."""
    network = compiled(graph).program.network
    choices = choose(network, ("dsp",), "flash")
    return choices[network.graphs[0].nodes[-1].name].kernel.symbol


@pytest.mark.parametrize(
    ("window", "served"),
    [
        (Window((3, 3), pads=(1, 1, 1, 1)), True),
        (Window((3, 3)), True),
        (Window((3, 3), (2, 2), pads=(0, 0, 1, 1)), True),
        (Window((3, 3), (3, 3)), False),
        (Window((3, 3), (1, 2)), False),
        (Window((3, 3), dilations=(2, 1)), False),
        (Window((3, 2)), False),
        (Window((3, 3), pads=(2, 0, 0, 0)), False),
        (Window((3, 3), pads=(0, 2, 0, 0)), False),
        (Window((3, 3), pads=(0, 0, 2, 0)), False),
        (Window((3, 3), pads=(0, 0, 0, 2)), False),
    ],
)
def test_windows_beyond_three_by_three_go_to_the_row_before(window: Window, served: bool) -> None:
    b = Builder("depthwise")
    symbol = kernel_of(b.build(b.depthwise(b.input(29, 28, 3), 1, window)))
    assert symbol == ("eq_depthwise_3x3_s8_dsp" if served else "eq_depthwise_s8_dsp")


def test_channels_with_several_outputs_go_to_the_row_before() -> None:
    b = Builder("depthwise")
    assert kernel_of(b.build(b.depthwise(b.input(9, 8, 3), 2))) == "eq_depthwise_s8_dsp"


@pytest.mark.parametrize(("values", "symbol"), [(512, "table_s8_dsp"), (511, "s8_ref")])
def test_additions_without_a_form_use_tables_where_they_pay(
    values: int, symbol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affine, "find", lambda graph, node: None)
    b = Builder("add")
    graph = b.build(b.add(*(b.input(values, name=name) for name in "ab")))
    assert kernel_of(graph) == f"eq_add_{symbol}"


def test_additions_with_a_form_use_it() -> None:
    b = Builder("add")
    graph = b.build(b.add(*(b.input(16, name=name) for name in "ab")))
    assert kernel_of(graph) == "eq_add_affine_s8_dsp"


def table_of(activations: int, isa: tuple[str, ...]) -> kernels.Choice:
    b = Builder("narrow")
    graph = b.build(b.table(b.input(6, 6, 2), Function(Unary.LINEAR, 1.0)))
    policy = Policy.model_validate({"default": {"activations": activations}})
    return choose(single(compiled(graph, policy).program.network.graphs[0]), isa, "time")["table_1"]


@pytest.mark.parametrize(
    ("activations", "isa", "kernels_taken"),
    [
        (4, ("dsp",), ["eq_table_s4_dsp"]),
        (2, ("dsp",), ["eq_table_s4_dsp"]),
        (8, ("dsp",), ["eq_table_s8_ref"]),
        (4, (), ["eq_table_s8_ref", "eq_rows_s8_ref"]),
    ],
)
def test_tables_from_bytes_to_packed_activations_have_a_kernel(
    activations: int, isa: tuple[str, ...], kernels_taken: list[str]
) -> None:
    assert [row.symbol for row in table_of(activations, isa).kernels] == kernels_taken
