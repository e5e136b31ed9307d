"""Networks with exits as ONNX: onnxruntime goes where the reference goes under its rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import gated
import numpy as np
import onnx
import pytest
from exitnets import chain, gated_graphs, policy
from onnx import TensorProto, numpy_helper
from programs import compiled
from test_reference import needs_fma

from edgeq import dispatch, exits, fixedpoint, gates, levels, parity, reference, targets
from edgeq.errors import GraphError
from edgeq.exporters import gate_section, onnx_qdq, onnx_runner
from edgeq.exporters.onnx_gate import Nodes, onward, see
from edgeq.exporters.onnx_layers import OFFSET, Writer
from edgeq.frontends import Port
from edgeq.gates import Gate
from edgeq.gates import Path as Way
from edgeq.ir import Array, Graph, qparams_of
from edgeq.program import Program
from edgeq.reference import Rounding, Routed
from edgeq.report import Verdict

TRADEOFFS = (0, 2000, 20_000, 1 << 16, 1 << 20)
MANY, FEW = 1_000, 50
GATES = 3  # random ones on each network
FLOAT = {"Conv", "Gemm", "FusedConv"}  # what would not be exact

networks = pytest.mark.parametrize(("exits", "seed"), [(2, 0), (3, 1), (4, 2)])
forms = pytest.mark.parametrize("form", gated.FORMS)


@cache
def program(exits: int, seed: int) -> Program:
    """Three levels, under a gate that does not predict."""
    return gated.program(exits, "static", seed)


def written(made: Program, folder: Path) -> onnx_runner.Runner:
    path = folder / "net.onnx"
    onnx_qdq.export(made, path)
    return onnx_runner.Runner(made, path)


def expected(made: Program, inputs: dict[str, Array], tradeoff: int | None) -> Routed:
    assert made.gate is not None
    return reference.route(made.network, made.gate, inputs, tradeoff, Rounding.FLOAT32)


def assert_same(made: Program, got: Routed, wanted: Routed) -> None:
    """No input has another path, output or class."""
    assert made.gate is not None
    assert np.array_equal(got.paths, wanted.paths)
    assert np.array_equal(got.outputs, wanted.outputs)
    assert np.array_equal(got.outputs.argmax(axis=1), wanted.outputs.argmax(axis=1))


def spread(made: Program, inputs: dict[str, Array], form: str, seed: int) -> Program:
    """The same network under a random gate of which inputs take several paths.

    Centroids are what inputs look like; sums of an MLP lie around 0.
    """
    classes = made.network.outputs[0].elements
    gate = gated.random_gate(levels.levels_of(made.network), form, seed, classes=classes)
    rng = np.random.default_rng(seed)
    if isinstance(gate.form, gates.Table):
        centroids = gate.form.centroids.copy()
        for exit in range(gate.exits - 1):
            seen = at_exit(made, inputs, (0,) * (exit + 1)).top
            centroids[exit] = seen[rng.integers(0, len(seen), gate.size)]
        gate = replace(gate, form=replace(gate.form, centroids=centroids))
    if isinstance(gate.form, gates.Mlp):
        layers = []
        for exit, layer in enumerate(gate.form.layers):
            path = (0,) * (exit + 1)
            before = at_exit(made, inputs, path[:-1]) if exit else None
            u = gates.inputs_of(gate, at_exit(made, inputs, path), before, path).astype(np.int64)
            bias = -np.median(u @ layer.hidden.T.astype(np.int64), axis=0).astype(np.int32)
            layers.append(replace(layer, hidden_bias=bias))
        gate = replace(gate, form=gates.Mlp(tuple(layers)))
    return replace(made, gate=gate)


def at_exit(made: Program, inputs: dict[str, Array], path: Way) -> gates.Seen:
    output = made.network.outputs[0]
    values = reference.run_path(made.network, inputs, path)[output.name]
    return gates.see(values.reshape(len(values), -1), qparams_of(output).scale[0])


def of_chain(graph: Graph, lower: tuple[tuple[int, int], ...], seed: int) -> Program:
    """A program of a float graph, cut where it is proposed, under a gate that does not predict."""
    base = compiled(graph).program
    network = chain(graph, policy(exits.proposed(graph), *lower)).network
    output = network.outputs[0]
    gate = gated.random_gate(levels.levels_of(network), "static", seed, classes=output.elements)
    chosen = dispatch.run(network, base.target.isa, "flash")
    return replace(
        base,
        network=network,
        choices=chosen.choices,
        plan=chosen.plan,
        inputs=tuple(
            replace(port, tensor=tensor)
            for port, tensor in zip(base.inputs, network.inputs, strict=True)
        ),
        outputs=(Port(output.name, output.name, output.shape, "NC"),),
        gate=gate,
    )


def subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and all within it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from subgraphs(attribute.g)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for graph in subgraphs(model.graph) for node in graph.node)


# Routing


@needs_fma
@forms
@networks
def test_onnxruntime_routes_as_the_float32_rule_says(
    tmp_path: Path, exits: int, form: str, seed: int
) -> None:
    base = program(exits, seed)
    inputs = gated.inputs(base, FEW, seed + 1)
    taken: set[Way] = set()
    for number in range(GATES if form != "static" else 1):
        made = spread(base, inputs, form, 10 * seed + number)
        assert made.gate is not None
        runner = written(made, tmp_path)
        for tradeoff in TRADEOFFS:
            wanted = expected(made, inputs, tradeoff)
            assert_same(made, runner.route(inputs, tradeoff), wanted)
            taken |= {made.gate.paths[i] for i in wanted.paths}
    assert len(taken) > (2 * exits if form != "static" else 1)


@needs_fma
def test_a_thousand_inputs_go_where_they_should(tmp_path: Path) -> None:
    base = program(4, 2)
    inputs = gated.inputs(base, MANY, 7)
    made = spread(base, inputs, "table", 23)
    runner = written(made, tmp_path)
    for tradeoff in TRADEOFFS:
        assert_same(made, runner.route(inputs, tradeoff), expected(made, inputs, tradeoff))


@needs_fma
@pytest.mark.parametrize("lower", [((4, 4),), ((6, 8), (3, 4), (2, 2))], ids=["one", "three"])
@pytest.mark.parametrize("graph", gated_graphs(5, start=700), ids=lambda graph: graph.name)
def test_networks_of_the_pipeline_route_alike(
    tmp_path: Path, graph: Graph, lower: tuple[tuple[int, int], ...]
) -> None:
    base = of_chain(graph, lower, 3)
    inputs = gated.inputs(base, FEW)
    for form in ("table", "mlp"):
        made = spread(base, inputs, form, 5)
        runner = written(made, tmp_path)
        for tradeoff in TRADEOFFS:
            assert_same(made, runner.route(inputs, tradeoff), expected(made, inputs, tradeoff))


@needs_fma
def test_without_a_tradeoff_it_is_the_gates_own(tmp_path: Path) -> None:
    base = program(3, 1)
    inputs = gated.inputs(base, FEW)
    made = spread(base, inputs, "table", 11)
    assert made.gate is not None
    for tradeoff in (500, 30_000):
        chosen = replace(made, gate=replace(made.gate, tradeoff=tradeoff))
        assert_same(
            chosen, written(chosen, tmp_path).route(inputs), expected(made, inputs, tradeoff)
        )


@needs_fma
def test_a_tradeoff_out_of_range_is_the_nearest_in_it(tmp_path: Path) -> None:
    base = program(3, 1)
    inputs = gated.inputs(base, FEW)
    made = spread(base, inputs, "mlp", 11)
    runner = written(made, tmp_path)
    for given, held in ((-5, 0), (1 << 40, gates.MOST_TRADEOFF)):
        assert_same(made, runner.route(inputs, given), expected(made, inputs, held))


@needs_fma
def test_any_number_of_samples_is_taken(tmp_path: Path) -> None:
    base = program(2, 0)
    inputs = gated.inputs(base, 5)
    made = spread(base, inputs, "table", 1)
    runner = written(made, tmp_path)
    whole = runner.route(inputs)
    for sample in range(5):
        one = runner.route({name: x[sample : sample + 1] for name, x in inputs.items()})
        assert (one.paths[0], *one.outputs[0]) == (whole.paths[sample], *whole.outputs[sample])


@needs_fma
def test_where_no_path_goes_on_everybody_leaves(tmp_path: Path) -> None:
    base = program(3, 1)
    inputs = gated.inputs(base, FEW)
    short = tuple(path for path in gates.all_paths(levels.levels_of(base.network)) if len(path) < 3)
    gate = Gate(10, ((0, 1, 2),) * 3, short, (1,) * len(short), ((0, 0),), 0, gates.Static())
    made = replace(base, gate=gate)
    runner = written(made, tmp_path)
    wanted = expected(made, inputs, 0)
    assert {short[i] for i in wanted.paths} == {(0,)}
    assert_same(made, runner.route(inputs, 0), wanted)


# Arithmetic


def ran(writer: Writer, given: dict[str, Array], wanted: dict[str, int]) -> list[Array]:
    """The values of `wanted` tensors, named with their types, for int64 or uint8 `given`."""
    kinds = {np.dtype(np.int64): TensorProto.INT64, np.dtype(np.uint8): TensorProto.UINT8}
    info = onnx.helper.make_tensor_value_info
    inputs = [info(name, kinds[value.dtype], value.shape) for name, value in given.items()]
    outputs = [info(name, kind, None) for name, kind in wanted.items()]
    made = onnx.helper.make_model(
        writer.graph("arithmetic", inputs, outputs),
        opset_imports=[onnx.helper.make_opsetid("", onnx_qdq.OPSET)],
        ir_version=onnx_qdq.IR_VERSION,
    )
    found: list[Array] = onnx_runner.session(made.SerializeToString()).run(None, given)
    return found


def random_logits(classes: int, count: int = 200) -> Array:
    """Flat and peaked ones, with ties and both ends."""
    rng = np.random.default_rng(classes)
    values = rng.normal(0, np.exp(rng.uniform(0, 5, (count, 1))), (count, classes))
    values[0], values[1], values[2, 0] = 3, 1000, 1000
    return np.clip(np.rint(values), -128, 127).astype(np.int8)


@pytest.mark.parametrize("scale", [0.001, 0.0625, 0.4])
@pytest.mark.parametrize("classes", [2, 3, 10, 300])
def test_a_gate_sees_what_the_reference_sees(classes: int, scale: float) -> None:
    gate = gates.static(classes, ((0,), (0,)))
    writer = Writer(int4=False)
    names = see(Nodes(writer, "gate"), gate, "x", scale)
    wanted = dict.fromkeys((names.probabilities, names.entropy, names.greatest), TensorProto.INT64)
    for logits in random_logits(classes):
        expected = gates.see(logits[None], scale)
        given = {"x": (logits.astype(np.int16) + OFFSET).astype(np.uint8)[None]}
        probabilities, entropy, greatest = ran(writer, given, wanted)
        assert np.array_equal(probabilities, expected.probabilities[0])
        assert (entropy[0], greatest[0]) == (expected.entropy[0], expected.probabilities.max())


@pytest.mark.parametrize("scale", [(1 << 30, -31), (1 << 30, 4), (1987654321, -7), (0, 0)])
def test_sums_are_scaled_as_everywhere(scale: tuple[int, int]) -> None:
    reach = 1 << 31 - max(scale[1], 0)
    values = np.random.default_rng(0).integers(-reach + 1, reach, 5000)
    values[:9] = [-reach + 1, reach - 1, 0, 1, -1, 64, -64, 192, -192]
    writer = Writer(int4=False)
    name = Nodes(writer, "sums").requantized("x", scale, "y")
    (got,) = ran(writer, {"x": values}, {name: TensorProto.INT64})
    assert np.array_equal(got, fixedpoint.requantize(values, *scale))


def test_of_equal_scores_the_cheapest_path_wins_then_the_first() -> None:
    paths = gates.all_paths(((0, 1), (0, 1), (0, 1)))
    for costs in ((9,) * len(paths), tuple(9 - (path[0] == 1) for path in paths)):
        order = sorted(zip(paths, costs, strict=True), key=lambda pair: len(pair[0]))
        assert [path for path, _ in order] == list(paths)
        errors = {
            p: np.full((1, 9), 7, np.uint8)[:, : sum(q[: len(p)] == p for q in paths)]
            for p in paths
            if len(p) < 3
        }
        table = gates.Table(np.zeros((2, 1, gates.TOP + 1), np.uint8), errors)
        gate = Gate(3, ((0, 1),) * 3, paths, costs, ((0, 0),), 0, table)
        seen = gates.see(np.zeros((1, 3), np.int8), 1.0)
        for index, path in enumerate(paths):
            if len(path) == 3:
                continue
            writer = Writer(int4=False)
            nodes = Nodes(writer, "gate")
            name, leaves = onward(
                nodes, gate, "at", len(path), "tradeoff", [see(nodes, gate, "x", 1.0)]
            )
            given = {
                "at": np.array(index),
                "tradeoff": np.array(0),
                "x": np.full((1, 3), OFFSET, np.uint8),
            }
            wanted = {name: TensorProto.INT64, leaves: TensorProto.BOOL}
            step, left = ran(writer, given, wanted)
            options = gate.options(path)
            best = gates.decide(gate, options, gates.predict(gate, path, {path: seen}), 0)[0]
            assert gate.paths[step] == gate.paths[options[best]][: len(path) + 1]
            assert left == (gate.paths[step] == path)


# What stands in the file


def test_every_layer_stands_once_whatever_leads_there(tmp_path: Path) -> None:
    made = program(4, 2)
    model = onnx_qdq.model(made)
    layers = [node.name for graph in made.network.graphs for node in graph.nodes]
    named = Counter(node.name for graph in subgraphs(model.graph) for node in graph.node)
    assert {name: named[name] for name in layers} == dict.fromkeys(layers, 1)
    stored = sum(
        t.data.nbytes
        for g in made.network.graphs
        for t in g.tensors.values()
        if t.data is not None and t.data.dtype == np.int8 and t.data.ndim > 1
    )
    arrays = [
        numpy_helper.to_array(tensor)
        for graph in subgraphs(model.graph)
        for tensor in graph.initializer
    ]
    assert (
        sum(array.nbytes for array in arrays if array.dtype == np.int8 and array.ndim > 1) == stored
    )


def test_no_tensor_has_the_name_of_another() -> None:
    made = of_chain(gated_graphs(1, start=700)[0], ((4, 4), (2, 2)), 3)
    model = onnx_qdq.model(spread(made, gated.inputs(made, FEW), "mlp", 5))
    names = [
        name
        for graph in subgraphs(model.graph)
        for name in (
            *(tensor.name for tensor in graph.initializer),
            *(name for node in graph.node for name in node.output),
        )
    ]
    assert len(names) == len(set(names))


@forms
def test_a_file_with_exits_is_valid_and_repeats_itself(form: str) -> None:
    made = program(3, 1)
    made = spread(made, gated.inputs(made, FEW), form, 4)
    model = onnx_qdq.model(made)
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString(deterministic=True) == onnx_qdq.model(made).SerializeToString(
        deterministic=True
    )


def test_every_branch_is_made_of_integer_kernels(tmp_path: Path) -> None:
    made = program(4, 2)
    made = spread(made, gated.inputs(made, FEW), "mlp", 4)
    plain = tmp_path / "net.onnx"
    onnx_qdq.export(made, plain)
    onnx_runner.session(plain.read_bytes(), tmp_path / "fused.onnx")
    found = operators(onnx.load(tmp_path / "fused.onnx"))
    assert not FLOAT & set(found)
    convolutions = [n for g in made.network.graphs for n in g.nodes if "conv" in n.op.value]
    assert found["QLinearConv"] == len(convolutions)


def test_ports_are_the_models_own_and_three_more(tmp_path: Path) -> None:
    made = program(3, 1)
    runner = written(made, tmp_path)
    session = onnx_runner.session((tmp_path / "net.onnx").read_bytes())
    assert [port.name for port in session.get_inputs()] == [s.port.name for s in made.inputs]
    (optional,) = session.get_overridable_initializers()
    assert (optional.name, optional.type, optional.shape) == ("tradeoff", "tensor(int64)", [])
    shapes = {port.name: (port.type, port.shape) for port in session.get_outputs()}
    assert shapes == {
        gated.OUTPUT: ("tensor(float)", ["batch", gated.CLASSES]),
        "exit": ("tensor(int64)", ["batch"]),
        "path": ("tensor(int64)", ["batch"]),
    }
    inputs = gated.inputs(made, FEW)
    reals, ends, codes = session.run(None, runner._feeds(inputs))
    assert made.gate is not None
    for end, code, at in zip(ends, codes, expected(made, inputs, None).paths, strict=True):
        assert (end, code) == (len(made.gate.paths[at]) - 1, gate_section.code(made.gate.paths[at]))
    assert reals.dtype == np.float32


@pytest.mark.parametrize("name", ["tradeoff", "exit", "path"])
def test_a_port_that_takes_one_of_these_names_is_refused(name: str) -> None:
    made = program(2, 0)
    moved = replace(made, outputs=(replace(made.outputs[0], name=name),))
    with pytest.raises(GraphError, match=f"EQ0348: .* is called {name}"):
        onnx_qdq.model(moved)


def test_four_bits_are_int4_where_the_target_says_so(tmp_path: Path) -> None:
    made = replace(program(3, 1), target=targets.load("edge-int4"))
    inputs = gated.inputs(made, FEW)
    runner = written(made, tmp_path)
    types = {t.data_type for g in subgraphs(onnx_qdq.model(made).graph) for t in g.initializer}
    assert TensorProto.INT4 in types
    assert_same(made, runner.route(inputs), expected(made, inputs, None))


# A difference is found


def row(made: Program, path: Path, inputs: dict[str, Array]) -> tuple[Verdict, int, str | None]:
    runner = onnx_runner.Runner(made, path)
    found = parity.compare_executor(made, runner, parity.expect(made, inputs, Rounding.FLOAT32))
    return found.verdict, found.mismatches, found.first_diverging_layer


def at_level_0(made: Program) -> Program:
    assert made.gate is not None
    return replace(made, gate=replace(made.gate, tradeoff=0))


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {t.name: t for graph in subgraphs(model.graph) for t in graph.initializer}


@needs_fma
def test_equal_files_are_exact(tmp_path: Path) -> None:
    made = program(3, 1)
    inputs = gated.inputs(made, FEW)
    onnx_qdq.export(made, tmp_path / "net.onnx")
    assert row(made, tmp_path / "net.onnx", inputs) == (Verdict.EXACT, 0, None)


@needs_fma
@pytest.mark.parametrize("block", [0, 1, 2])
def test_the_first_layer_that_differs_is_named(tmp_path: Path, block: int) -> None:
    """Of the first body, its head, and the second body."""
    made = at_level_0(program(3, 1))
    inputs = gated.inputs(made, FEW)
    node = next(n for n in made.network.blocks[block].variants[0].graph.nodes if len(n.inputs) > 2)
    model = onnx_qdq.model(made)
    bias = constants(model)[f"{node.inputs[2]}/q"]
    moved = numpy_helper.to_array(bias) + np.int32(4000)
    bias.CopyFrom(numpy_helper.from_array(moved, bias.name))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    verdict, mismatches, layer = row(made, path, inputs)
    if block == 1:  # every input passes the first exit, whatever its head says
        assert (verdict, layer) == (Verdict.EXACT, None)
    else:
        assert (verdict, layer) == (Verdict.DIFFERS, node.name)
        assert mismatches


@needs_fma
def test_a_gate_that_decides_otherwise_is_found_and_no_layer_blamed(tmp_path: Path) -> None:
    base = program(3, 1)
    inputs = gated.inputs(base, FEW)
    made = spread(base, inputs, "table", 11)
    model = onnx_qdq.model(made)
    table = constants(model)["/gate@1/errors.path.all"]
    changed = 255 - numpy_helper.to_array(table)
    table.CopyFrom(numpy_helper.from_array(changed, table.name))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    verdict, mismatches, layer = row(made, path, inputs)
    assert (verdict, layer) == (Verdict.DIFFERS, None)
    assert mismatches


@needs_fma
def test_every_layer_on_every_path_is_as_the_reference_has_it(tmp_path: Path) -> None:
    made = program(3, 1)
    assert made.gate is not None
    inputs = gated.inputs(made, 1)
    runner = written(made, tmp_path)
    for path in made.gate.paths:
        values = reference.run_path(made.network, inputs, path, Rounding.FLOAT32)
        traced = runner.trace_path(inputs, path)
        nodes = [n for g in reference.graphs_on(made.network, path) for n in g.nodes]
        assert set(traced) == {n.output for n in nodes if n.op.value != "reshape"}
        for name, array in traced.items():
            assert np.array_equal(array, values[name]), (path, name)


def test_rules_are_apart_in_outputs_and_in_ways() -> None:
    base = program(4, 2)
    inputs = gated.inputs(base, 400)
    made = spread(base, inputs, "table", 23)
    one, other = (parity.expect(made, inputs, rule) for rule in (Rounding.FLOAT32, Rounding.DOUBLE))
    assert one.paths is not None and other.paths is not None
    found = parity.rule_distance(one, other)
    assert found.routes == int((one.paths != other.paths).sum())
    assert found.mismatches == int((one.outputs[0] != other.outputs[0]).any(axis=1).sum())
    assert parity.rule_distance(one, one) == type(found)(0, 0, 0)
