"""Networks with exits from policy to build: compiled, routed, forced, profiled, priced, refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import bundled
import numpy as np
import pytest
from exitnets import SMALL_EXITS, gated_graphs, heads, learned, policy, small, with_gate
from gated import FORMS, random_gate
from graphs import Builder
from programs import SHA256, compiled, few_samples, model, reals

import edgeq
from edgeq import (
    adaround,
    costs,
    examples,
    exits,
    gatefile,
    gates,
    levels,
    parity,
    pipeline,
    profiler,
    rebuild,
    targets,
    views,
)
from edgeq.errors import EdgeqError
from edgeq.exporters import c_arrays, gate_section, image, tflite
from edgeq.exporters.image import Kind
from edgeq.gates import Costs
from edgeq.ir import Function, Graph, Unary, digest, qparams_of
from edgeq.kernels import Optimize
from edgeq.ops import OPS, macs
from edgeq.pipeline import Compiled
from edgeq.policy import Calibration, Policy
from edgeq.profiler import Walk
from edgeq.program import Program
from edgeq.report import Verdict
from edgeq.targets import toolchain
from edgeq.targets.runners import EmulatorRunner, HostProgram, HostRunner

Tool = Callable[[str], tuple[str, ...]]
FIELD_PLANES = "eq_conv_field_planes_s8_dsp"


def refused(id: str, *words: str) -> pytest.RaisesExc[EdgeqError]:
    return pytest.raises(EdgeqError, check=lambda e: e.id == id and all(w in str(e) for w in words))


@cache
def made(form: str) -> Compiled:
    return compiled(small(), with_gate(small(), policy(SMALL_EXITS, (4, 4)), form))


def expected(program: Program, graph: Graph, count: int) -> parity.Expectation:
    inputs = {
        port.tensor.name: port.quantize(reals(graph, count, seed=5)[port.tensor.name])
        for port in program.inputs
    }
    return parity.expect(program, inputs)


def on(host: HostProgram, program: Program) -> HostRunner:
    return HostRunner(host, image.build(program).data)


# Parity #


@pytest.mark.parametrize("form", FORMS)
def test_the_host_routes_as_predicted_and_computes_every_path(
    host_program: HostProgram, form: str
) -> None:
    program = made(form).program
    wanted = expected(program, small(), 200)
    host = on(host_program, program)
    rows = (
        parity.compare(program, host, wanted),
        parity.compare_paths(program, host, wanted.take(4)),
    )
    assert [row.verdict for row in rows] == [Verdict.EXACT] * 2
    assert program.gate is not None
    assert (rows[0].samples, rows[1].samples) == (200, 4 * len(program.gate.paths))
    assert rows[1].runner == "c-host-paths"
    if form == "table":
        assert wanted.paths is not None
        assert len(np.unique(wanted.paths)) > 2


@pytest.mark.parametrize("aim", ["flash", "time"])
def test_learned_levels_are_equal_on_every_path_and_have_a_layout_each(
    host_program: HostProgram, aim: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaround, "ITERATIONS", 50)
    chosen = with_gate(small(), policy(SMALL_EXITS, (4, 4), (3, 3)))
    found, nearest = compiled(small(), learned(chosen), aim), compiled(small(), chosen, "time")
    program = found.program
    assert [way.nested for way in found.stores] == [False]
    assert digest(program.network.graphs) != digest(nearest.program.network.graphs)
    assert levels.levels_of(program.network) == levels.levels_of(nearest.program.network)
    assert {row.layer.rpartition("@")[2] for row in found.learned} == {"1", "2"}
    wanted = expected(program, small(), 50)
    host = on(host_program, program)
    assert parity.compare(program, host, wanted).verdict is Verdict.EXACT
    assert parity.compare_paths(program, host, wanted.take(4)).verdict is Verdict.EXACT


@pytest.mark.parametrize("graph", gated_graphs(4, start=900), ids=lambda graph: graph.name)
def test_random_networks_are_equal_on_every_path_on_host_and_emulated_core(
    host_program: HostProgram, graph: Graph, tool: Tool
) -> None:
    tool("arm-none-eabi-gcc")
    chosen = policy(exits.proposed(graph), (4, 4), (3, 2))
    program = compiled(graph, with_gate(graph, chosen)).program
    wanted = expected(program, graph, 20)
    row = parity.compare_paths(program, on(host_program, program), wanted)
    assert row.verdict is Verdict.EXACT
    linked = rebuild.firmware(program, toolchain.find(toolchain.COMPILERS, "gcc"))
    assert linked is not None
    with closing(EmulatorRunner(linked, program.target)) as emulated:
        assert parity.compare(program, emulated, wanted.take(8)).verdict is Verdict.EXACT
        assert parity.compare_paths(program, emulated, wanted.take(1)).verdict is Verdict.EXACT


@pytest.mark.parametrize("aim", ["flash", "time"])
@pytest.mark.parametrize("graph", gated_graphs(3, start=1200), ids=lambda graph: graph.name)
def test_both_ways_to_store_levels_are_equal_on_every_path(
    host_program: HostProgram, graph: Graph, aim: Optimize, tool: Tool
) -> None:
    tool("arm-none-eabi-gcc")
    chosen = with_gate(graph, policy(exits.proposed(graph), (6, 8), (4, 4), (2, 4)))
    found = compiled(graph, chosen, aim)
    assert found.program is found.stores[0].program
    assert {way.nested for way in found.stores} == {False, True}
    sizes = [len(image.build(way.program).data) for way in found.stores]
    assert sizes == sorted(sizes) if aim == "flash" else not found.stores[0].nested
    for way in found.stores if aim == "flash" else found.stores[:1]:
        program, host = way.program, on(host_program, way.program)
        wanted = expected(program, graph, 20)
        rows = [
            parity.compare(program, host, wanted),
            parity.compare_paths(program, host, wanted.take(4)),
        ]
        linked = rebuild.firmware(program, toolchain.find(toolchain.COMPILERS, "gcc"))
        assert linked is not None
        with closing(EmulatorRunner(linked, program.target)) as emulated:
            rows += [
                parity.compare(program, emulated, wanted.take(4)),
                parity.compare_paths(program, emulated, wanted.take(1)),
            ]
        assert {row.verdict for row in rows} == {Verdict.EXACT}


@pytest.mark.nightly
@pytest.mark.emulator
def test_the_example_routes_its_images_as_predicted_on_host_and_emulated_core(
    host_program: HostProgram, compiler: str
) -> None:
    """Class, path and output of the 1,000 bundled images, at five tradeoffs."""
    example = bundled.load("fashion-resnet8")
    program = example.compile(examples.policy(example.name)).program
    linked = rebuild.firmware(program, toolchain.find(toolchain.COMPILERS, compiler))
    assert linked is not None and program.gate is not None
    inputs = bundled.bundled_images().inputs(program)
    host = HostRunner(host_program, image.build(program).data)
    met = set()
    with closing(EmulatorRunner(linked, program.target)) as emulated:
        for tradeoff in (0, 1000, program.gate.tradeoff, 10_000, 20_000):
            at = replace(program, gate=replace(program.gate, tradeoff=tradeoff))
            wanted = parity.expect(at, inputs)
            assert wanted.paths is not None
            met |= set(wanted.paths.tolist())
            for runner in (host, emulated):
                row = parity.compare(at, runner, wanted)
                assert (row.samples, row.mismatches, row.max_lsb) == (1000, 0, 0), (tradeoff, row)
    assert {len(program.gate.paths[path]) for path in met} == {1, 2, 3, 4}  # every exit


def test_flash_takes_the_store_and_levels_are_its_beginning() -> None:
    found = compiled(small(), with_gate(small(), policy(SMALL_EXITS, (4, 8))))
    nested, apart = found.stores
    assert (nested.nested, apart.nested) == (True, False)
    bytes_of = [image.build(way.program).bytes_of(Kind.WEIGHTS) for way in found.stores]
    assert bytes_of[0] < bytes_of[1]
    for name, choice in nested.program.choices.items():
        if name.endswith("@1") and choice.weight_bits:
            above = nested.program.choices[name[:-2]]
            assert choice.store == above.store is not None
            assert (choice.weight_bits, above.weight_bits) == (4, 8)


def test_kernels_that_one_way_lacks_take_the_other() -> None:
    chosen = with_gate(small(), policy(SMALL_EXITS, (4, 8)))
    (way,) = compiled(small(), chosen, "time", forced={"conv_2": FIELD_PLANES}).stores
    assert way.nested
    assert way.program.choices["conv_2"].kernel.symbol == FIELD_PLANES
    with refused("EQ0350", "conv_2"):
        compiled(small(), chosen, forced={"conv_2": "eq_add_s8_ref"})


def test_without_other_bits_for_weights_there_is_no_store() -> None:
    found = compiled(small(), with_gate(small(), policy(SMALL_EXITS, (8, 4))))
    assert [way.nested for way in found.stores] == [False]


def test_a_sample_that_goes_another_way_is_a_mismatch(host_program: HostProgram) -> None:
    program = made("table").program
    gate = program.gate
    assert gate is not None
    wanted = expected(program, small(), 50)
    other = replace(program, gate=replace(gate, form=gates.Static()))
    row = parity.compare(program, on(host_program, other), wanted)
    assert row.verdict is Verdict.DIFFERS
    assert wanted.paths is not None
    astray = [
        gate.paths[path] != reference_path for path, reference_path in zip(
            wanted.paths, [gate.paths[p] for p in expected(other, small(), 50).paths], strict=True
        )
    ]  # fmt: skip
    assert row.mismatches >= sum(astray) > 0


def test_a_wrong_weight_of_a_lower_level_is_found_by_its_layer(host_program: HostProgram) -> None:
    program = made("static").program
    block = program.network.blocks[2]
    graph = block.variants[1].graph
    name = next(n.inputs[1] for n in graph.nodes if OPS[n.op].weighted)
    data = graph.constant(name).copy()
    data.flat[:] = -1 - data.flat[:]
    tensors = {**graph.tensors, name: replace(graph.tensors[name], data=data)}
    changed = replace(block.variants[1], graph=replace(graph, tensors=tensors))
    blocks = list(program.network.blocks)
    blocks[2] = replace(block, variants=(block.variants[0], changed))
    other = replace(program, network=replace(program.network, blocks=tuple(blocks)))
    wanted = expected(program, small(), 4)
    host = on(host_program, other)
    rows = (
        parity.compare(program, host, wanted),
        parity.compare_paths(program, host, wanted),
    )
    assert [row.verdict for row in rows] == [Verdict.EXACT, Verdict.DIFFERS]


def test_lanes_link_where_nothing_else_is_packed(tmp_path: Path) -> None:
    """What an entry packs, kernels of lanes read as it is: `eq_rows_s8_ref` is not needed."""
    b = Builder("lanes")
    x = b.table(b.input(6, 6, 8), Function(Unary.LINEAR, 1.0))
    graph = b.build(b.conv(x, 8, 1))
    chosen = Policy.model_validate(
        {
            "default": {"weights": 4},
            "rule": [{"match": "table_1", "activations": 4}],
            "calibration": {"activations": "minmax"},
        }
    )
    program = compiled(graph, chosen).program
    symbols = [kernel.symbol for kernel in program.kernels]
    assert symbols == ["eq_conv_lanes_s4_dsp", "eq_table_s4_dsp"]
    wanted = expected(program, graph, 8)
    built = c_arrays.export(program, tmp_path, [], program.kernels)
    compiler = toolchain.find(toolchain.HOST_COMPILERS)
    with closing(HostProgram(tmp_path / c_arrays.RUNTIME, compiler)) as host:
        row = parity.compare(program, HostRunner(host, built.data), wanted)
    assert row.verdict is Verdict.EXACT


# What compile refuses #


def compile_(chosen: Policy, graph: Graph | None = None) -> Compiled:
    graph = graph or small()
    read = pipeline.prepared(model(graph), chosen)
    return compiled(read.graph, chosen)


def test_exits_without_gates_cannot_be_exported() -> None:
    with refused("EQ0392", "no gates yet", "edgeq gate"):
        compile_(policy(SMALL_EXITS, (4, 4)))


def test_levels_or_gates_without_exits_are_a_single_exit() -> None:
    with refused("EQ0370", "a single exit"):
        compile_(Policy.model_validate({"level": [{"default": {"weights": 4}}]}))


def test_gates_of_another_model_are_refused() -> None:
    chosen = with_gate(small(), policy(SMALL_EXITS, (4, 4)), sha256="cd" * 32)
    with refused("EQ0391", "cdcdcdcd", SHA256[:16]):
        compile_(chosen)


def test_gates_of_other_exits_or_levels_are_refused() -> None:
    fits = with_gate(small(), policy(SMALL_EXITS, (4, 4)))
    with refused("EQ0393", "3 heads for 2 exits"):
        compile_(fits.model_copy(update={"exits": SMALL_EXITS[:2]}))
    three = policy(SMALL_EXITS, (4, 4), (2, 2))
    with refused("EQ0393", "((0,), (0, 1), (0, 1), (0, 1))", "fit the gates again"):
        compile_(three.model_copy(update={"gate": fits.gate}))
    with refused("EQ0378", "the head behind conv_7", "(5, 192)", "(5, 128)"):
        compile_(fits.model_copy(update={"exits": (*SMALL_EXITS[:2], "conv_7")}))


def test_tuned_weights_take_the_place_of_the_models() -> None:
    graph = small()
    chosen = with_gate(graph, policy(SMALL_EXITS, (4, 4)))
    assert chosen.gate is not None
    name = "conv_2.weights"
    tuned = graph.constant(name)[:, ::-1] * 2
    weights = {name: gatefile.Array.of(tuned.astype(np.float32))}
    with_them = chosen.model_copy(
        update={"gate": chosen.gate.model_copy(update={"weights": weights})}
    )
    read = pipeline.prepared(model(graph), with_them)
    np.testing.assert_array_equal(read.graph.constant(name), tuned)
    unknown = {"nothing": weights[name]}
    with refused("EQ0393", "nothing is no constant"):
        pipeline.prepared(
            model(graph),
            chosen.model_copy(update={"gate": chosen.gate.model_copy(update={"weights": unknown})}),
        )
    short = {name: gatefile.Array.of(tuned[1:].astype(np.float32))}
    with refused("EQ0394", name):
        pipeline.prepared(
            model(graph),
            chosen.model_copy(update={"gate": chosen.gate.model_copy(update={"weights": short})}),
        )


def test_exits_do_not_go_with_models_quantised_already() -> None:
    read = model(small())
    kept = replace(read, source=replace(read.source, quantized={}))
    with refused("EQ0388", f"{read.name} is quantised already", "a float model"):
        pipeline.prepared(kept, policy(SMALL_EXITS, (4, 4)))


def test_a_model_without_exits_is_prepared_as_it_is() -> None:
    read = model(small())
    assert pipeline.prepared(read, Policy()) is read


def test_a_softmax_at_the_end_is_left_out_with_a_note() -> None:
    b = Builder("soft")
    x = b.conv(b.input(6, 6, 2), 4)
    y = b.fully_connected(b.flatten(b.conv(x, 4)), 3)
    graph = b.build(b.softmax(y))
    read = pipeline.prepared(model(graph), policy(("conv_1",)))
    assert read.graph.outputs == (y,)
    assert read.source.outputs[0].tensor == y
    assert read.source.notes[-1] == pipeline.NO_SOFTMAX


def test_tflite_refuses_exits() -> None:
    with refused("EQ0381", "TFLite takes one block at one level", "--target edge"):
        tflite.build(made("static").program)


# Costs #


def test_bit_operations_follow_the_bits_of_each_level() -> None:
    network = made("static").program.network
    for kind, each in (
        ("bitops_linear", lambda w, a: (w + a) / 2),
        ("bops", lambda w, a: w * a),
    ):
        found = costs.bitops(network, kind)  # type: ignore[arg-type]
        assert found.unit == kind
        assert not any(found.heads) and not any(found.gates)
        bodies = [block for block in network.blocks if not block.head]
        for block, body in zip(found.blocks, bodies, strict=True):
            for variant in body.variants:
                graph = variant.graph
                wanted = 0.0
                for node in graph.nodes:
                    if OPS[node.op].weighted:
                        a, w = (qparams_of(graph.tensors[name]).bits for name in node.inputs[:2])
                        wanted += macs(graph, node) * each(w, a)
                assert block[variant.level] == wanted


def test_dominated_levels_are_named() -> None:
    def priced(*blocks: dict[int, float]) -> Costs:
        none = (0.0,) * (len(blocks) - 1)
        return Costs("instructions", "a test", blocks, none, none)

    assert priced({0: 5}, {0: 9, 1: 4, 2: 1}).notes == ()
    assert priced({0: 5}, {0: 9, 1: 4}, {0: 9, 1: 9}).notes == ()  # block 3 goes on at level 1
    (mixed,) = priced({0: 5}, {0: 9, 1: 9, 2: 10}, {0: 9, 1: 3}).notes
    assert "(instructions), left out: level 1 of block 2, level 2 of block 2" in mixed
    every, exits_alone = priced({0: 5}, {0: 9, 1: 9}).notes
    assert every.startswith("EQ0265") and exits_alone.startswith("EQ0266")


def test_a_few_paths_go_through_every_level() -> None:
    every = gates.all_paths(((0,), (0, 1, 2), (0, 1, 2), (0, 1, 2)))
    found = profiler.cover(every)
    assert {s for p in found for s in enumerate(p)} == {s for p in every for s in enumerate(p)}
    assert len(found) == 3


@pytest.mark.parametrize("name", ["mcu", "cortex-m55"])
def test_measured_costs_add_up_to_what_paths_take(name: str, tool: Tool) -> None:
    tool("arm-none-eabi-gcc")
    if name == "cortex-m55":
        tool("qemu-system-arm")
    target = targets.load(name)
    chosen = with_gate(small(), policy(SMALL_EXITS, (4, 4)), target=target)
    program = compiled(small(), chosen, target=target).program
    compiler = toolchain.find(toolchain.COMPILERS, "gcc")
    found = costs.measured(program, target, compiler)
    gate = program.gate
    assert gate is not None
    assert found.unit == (costs.CYCLES if name == "mcu" else costs.INSTRUCTIONS)
    assert [sorted(block) for block in found.blocks] == [list(block) for block in gate.levels]
    assert all(cost > 0 for part in (found.heads, found.gates) for cost in part)
    linked = rebuild.firmware(program, compiler)
    assert linked is not None
    some = [gate.paths[0], gate.paths[-1], gate.paths[len(gate.paths) // 2]]
    walks = [
        Walk((gate_section.code(path), len(path) - 1), costs.operators_on(program, path))
        for path in some
    ]
    for path, walked in zip(some, profiler.walk(linked, target, walks), strict=True):
        whole = walked.whole.cycles if name == "mcu" else walked.whole.instructions
        assert whole is not None
        apart = 0.01 if name == "mcu" else 0.1  # QEMU's timer sees no single gate
        assert abs(found.of(path) / whole - 1) < apart, path


# A build #


def exported(folder: Path, rounding: str, check: Literal["host", "emulator"]) -> edgeq.Build:
    """The smaller example with two exits, random heads and a random table; its files beside it."""
    example = bundled.load("fashion-tiny")
    plain = Policy.model_validate(
        {
            "exits": exits.proposed(exits.without_softmax(example.model.graph))[:2],
            "input": {name: spec.model_dump() for name, spec in example.specs.items()},
            "calibration": {"rounding": rounding},
        }
    )
    read = pipeline.prepared(example.model, plain)
    cuts = exits.named(read.graph, plain.exits)
    some = heads(read.graph, cuts)
    calib = pipeline.read_samples(example.folder / "calib.npz", read, dict(plain.input))
    few = calib.take(0, 16)
    target = targets.load("mcu")
    nearest = plain.model_copy(update={"calibration": Calibration()})
    chain, _ = pipeline.with_exits(read, nearest, some, few, target.isa, drop=False)
    found = costs.bitops(chain.network, "bitops_linear")
    gate = random_gate(levels.levels_of(chain.network), "table", 1)
    pairs = tuple((head.weights, head.bias) for head in some)
    held = gatefile.of_gate(gate, pairs, found, example.model.sha256)
    chosen = plain.model_copy(update={"gate": held})
    file = folder / "gate.json"
    file.write_text(chosen.model_dump_json(by_alias=True, exclude_none=True), encoding="utf-8")
    made = edgeq.export(
        example.folder / "model.onnx",
        policy=file,
        calib=few_samples(example.folder / "calib.npz", folder / "calib.npz", 16),
        data=few_samples(example.folder / "test.npz", folder / "test.npz", 64),
        out=folder / "build",
        check=check,
    )
    assert made.report.export.routing is not None
    return made


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Iterator[edgeq.Build]:
    """The smaller example with two exits, profiled."""
    tool("arm-none-eabi-gcc")
    made = exported(tmp_path_factory.mktemp("exits"), "nearest", "emulator")
    yield edgeq.profile(made.folder)


def test_learned_levels_are_learned_again_to_check_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaround, "ITERATIONS", 20)
    made = exported(tmp_path, "adaround", "host")
    (store,) = made.report.export.routing.stores  # type: ignore[union-attr]
    assert (store.name, store.chosen) == ("levels", True)
    given = {"policy": tmp_path / "gate.json", "calib": tmp_path / "calib.npz"}
    found = edgeq.validate(made.folder, data=tmp_path / "test.npz", require=["c-host"], **given)
    assert found.report.validate is not None
    assert {r.runner: r.verdict for r in found.report.validate.rows}["c-host"] is Verdict.EXACT
    with refused("EQ0732", "another image"):
        edgeq.validate(made.folder, data=tmp_path / "test.npz", policy=given["policy"])


def test_a_build_says_where_inputs_go_and_what_that_costs(build: edgeq.Build) -> None:
    routing = build.report.export.routing
    assert routing is not None
    assert [use.name for use in routing.exits] == ["exit1", "exit2", "end"]
    assert abs(sum(use.share for use in routing.exits) - 1) < 1e-9
    assert abs(sum(path.share for path in routing.paths) - 1) < 1e-9
    mean = sum(path.share * path.cost for path in routing.paths)
    assert abs(mean / routing.mean_cost - 1) < 1e-9
    assert routing.worst_cost == max(path.cost for path in routing.paths)
    accuracy = build.report.export.accuracy
    assert accuracy is not None
    right = sum(use.share * (use.top1 or 0) for use in routing.exits)
    assert abs(right - accuracy.int) < 1e-6
    assert build.report.export.flash.gates > 0
    taken, other = routing.stores
    assert (taken.chosen, other.chosen) == (True, False)
    assert taken.image == (build.folder / f"{build.report.model}.eqb").stat().st_size
    assert taken.image < other.image
    assert taken.weights == build.report.export.flash.weights < other.weights
    assert abs((taken.top1 or 0) - accuracy.int) < 1e-5
    for store in routing.stores:
        assert store.top1 is not None and store.mean is not None
        assert 0 < store.mean <= store.worst
    by_name = {store.name: store for store in routing.stores}
    assert 1 < by_name["levels"].worst < by_name["nested"].worst
    assert any("one nested store for levels here" in note for note in build.report.export.notes)
    names = [row.runner for row in build.report.validate.rows]
    assert names == ["c-host", "c-host-paths", "emulator", "emulator-paths"]
    assert {row.verdict for row in build.report.validate.rows} == {Verdict.EXACT}


def test_rows_tell_block_and_level(build: edgeq.Build) -> None:
    rows = build.report.export.layers
    assert {row.level for row in rows} == {None, 0, 1}
    assert {row.block for row in rows} == {"block1", "exit1", "block2", "exit2", "block3"}
    for row in rows:
        assert (row.level is None) == str(row.block).startswith("exit")
        assert row.name.endswith("@1") == (row.level == 1)
    assert "levels" in json.loads((build.folder / "ranges.json").read_text("utf-8"))


def test_a_profile_has_every_level_head_gate_and_path(build: edgeq.Build) -> None:
    profile, export = build.report.profile, build.report.export
    assert profile is not None
    assert [row.name for row in profile.layers] == [r.name for r in export.layers if r.kernel]
    assert len(profile.gates) == 2
    assert export.routing is not None
    assert [p.levels for p in profile.paths] == [p.levels for p in export.routing.paths]
    work = {row.name: row.instructions for row in profile.layers}
    top = (0, 0, 0)
    on = [name for part in profiler.layers_on(export, top) for name in part]
    inside = sum(work[name] for name in on) + sum(gate.instructions for gate in profile.gates)
    assert inside + profile.overhead.instructions == profile.totals.instructions
    assert 0 < profile.overhead.instructions < 0.05 * profile.totals.instructions
    by_path = {path.levels: path.instructions for path in profile.paths}
    assert by_path[top] == profile.totals.instructions
    assert by_path[(0,)] < by_path[(0, 0)] < by_path[top]


def test_pages_and_terminal_show_exits_and_paths(
    build: edgeq.Build, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (build.folder / "report.html").read_text("utf-8")
    text = (build.folder / "report.txt").read_text("utf-8")
    for shown in (page, text):
        assert "Exits" in shown and "Paths" in shown and "gate2" in shown
        assert "a layout for each level: image" in shown and "store for levels, taken" in shown
    views.show_export(build, as_json=False)
    out = capsys.readouterr().out
    assert "on levels" in out and "an input costs" in out


def test_validate_rebuilds_it_from_its_policy(build: edgeq.Build) -> None:
    file = build.folder.parent / "gate.json"
    data = build.folder.parent / "test.npz"
    found = edgeq.validate(build.folder, policy=file, data=data)
    rows = {row.runner: row for row in found.report.validate.rows}
    assert rows["c-host"].verdict is rows["emulator"].verdict is Verdict.EXACT
    assert rows["c-host"].samples == 64
    accuracy = found.report.export.accuracy
    assert accuracy is not None
    assert rows["reference"].top1 == pytest.approx(accuracy.int)


def test_a_build_with_exits_needs_its_policy(build: edgeq.Build) -> None:
    with refused("EQ0253", "the policy has no exits, the build some"):
        edgeq.validate(build.folder)


def test_explain_refuses_exits(build: edgeq.Build) -> None:
    file = build.folder.parent / "gate.json"
    layer = build.report.export.layers[0].name
    with refused("EQ0256", "edgeq diff"):
        edgeq.explain(build.folder, layer=layer, weights=4, policy=file)


def test_a_boards_log_is_of_a_network_without_exits(build: edgeq.Build, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    content = {
        "schema": 1, "image": "0", "board": "b", "clock_hz": 1, "compiler": "c", "layers": [],
    }  # fmt: skip
    manifest = json.loads((build.folder / "manifest.json").read_text("utf-8"))
    content["image"] = manifest["files"][f"{build.report.model}.eqb"]
    log.write_text(json.dumps(content), encoding="utf-8")
    with refused("EQ0255", "without exits"):
        edgeq.profile(build.folder, measured=log)


def test_diff_compares_builds_with_exits(build: edgeq.Build) -> None:
    found = edgeq.diff(build.folder, build.folder)
    assert found.layers == ()


def test_check_takes_the_one_store_that_learned_levels_have(tmp_path: Path) -> None:
    graph = bundled.load("fashion-resnet8").model.graph
    weights = []
    for rounding in ("nearest", "adaround"):
        file = tmp_path / f"{rounding}.json"
        chosen = {"exits": exits.proposed(graph), "calibration": {"rounding": rounding}}
        file.write_text(json.dumps(chosen), encoding="utf-8")
        found = edgeq.check("fashion-resnet8", policy=file)
        assert found.fit is not None
        weights.append(found.fit.flash.weights)
    assert weights[0] < weights[1]


def test_check_estimates_a_network_whose_gates_are_not_fitted_yet(tmp_path: Path) -> None:
    file = tmp_path / "exits.json"
    graph = bundled.load("fashion-resnet8").model.graph
    file.write_text(json.dumps({"exits": exits.proposed(graph)}), encoding="utf-8")
    found = edgeq.check("fashion-resnet8", policy=file)
    assert found.fit is not None and found.refusals == ()
    names = [layer.name for layer in found.layers]
    assert "exit1.fc" in names
    assert any(name.endswith("@1") for name in names)
