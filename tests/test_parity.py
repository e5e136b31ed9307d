"""The C computes what the reference predicts, bit for bit: on this machine and on emulated cores.

Kernels for Armv7E-M run twice: as their C twins on this machine, as instructions on the core.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import bundled
import numpy as np
import pytest
from conftest import Builds
from graphs import RELU, Builder, ds_cnn, graphs, in_blocks, mobilenet, random_graph, resnet8
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from programs import byte_layers, compiled

from edgeq import kernels, parity, plan, targets
from edgeq.exporters import c_arrays, image
from edgeq.ir import Array, Function, Graph, Unary, Window, qparams_of
from edgeq.kernels import Optimize
from edgeq.ops import OPS
from edgeq.policy import Policy
from edgeq.program import Program
from edgeq.report import Verdict
from edgeq.targets import runners, toolchain
from edgeq.targets.emulators import read_firmware
from edgeq.targets.runners import EmulatorRunner, HostProgram, HostRunner, Runner

GRAPHS = 60  # for each of three aims on cores of two kinds
NIGHTLY_GRAPHS = 1_000
SANITIZED_GRAPHS = 50
CHAINS = 50
EMULATED_IMAGES = 25
NIGHTLY_IMAGES = 100
SAMPLES = 8  # of a random graph, three of them extreme
CONFIG = struct.Struct("<4I")  # eq_config_t

examples = pytest.mark.parametrize("name", ["fashion-tiny", "fashion-resnet8"])
bits = st.lists(st.integers(2, 8), min_size=1, max_size=6)
stored = st.lists(st.sampled_from([2, 3, 4, 5, 6, 7, 8, 16, 16]), min_size=1, max_size=6)
optimizing = pytest.mark.parametrize("optimize", ["flash", "time", "ram"])
for_cores = pytest.mark.parametrize("isa", [(), ("dsp",)], ids=["portable", "dsp"])


def drawn(examples: int) -> settings:
    return settings(derandomize=True, max_examples=examples, deadline=None)


def program_of(
    graph: Graph,
    widths: Sequence[int],
    optimize: Optimize,
    isa: tuple[str, ...],
    activations: Sequence[int] = (8,),
    forced: Mapping[str, str] | None = None,
) -> Program:
    """`graph` with weights and activations of so many bits, in turns, for a core with `isa`.

    What an operator for bytes reads has 8 bits at most.
    """
    narrow = byte_layers(graph)
    rules = [
        {
            "match": node.name,
            "weights": widths[i % len(widths)],
            "activations": min(activations[i % len(activations)], 8 if node.name in narrow else 16),
        }
        for i, node in enumerate(graph.nodes)
    ]
    target = targets.load("mcu").model_copy(update={"isa": isa})
    policy = Policy.model_validate({"rule": rules})
    return compiled(graph, policy, optimize, target=target, forced=forced).program


def integers(program: Program) -> dict[str, Array]:
    """Raw inputs: all least, all greatest, both in turns, then random ones over the full range."""
    rng = np.random.default_rng(0)
    samples = {}
    for tensor in program.network.inputs:
        q = qparams_of(tensor)
        values = rng.integers(q.qmin, q.qmax + 1, (SAMPLES, tensor.elements), tensor.dtype.value)
        values[0], values[1] = q.qmin, q.qmax
        values[2, ::2], values[2, 1::2] = q.qmin, q.qmax
        samples[tensor.name] = values.reshape(-1, *tensor.shape[1:])
    return samples


def compiled_example(name: str) -> Program:
    example = bundled.load(name)
    return example.compile(example.policy).program


def assert_exact(program: Program, runner: Runner, inputs: dict[str, Array]) -> None:
    row = parity.compare(program, runner, parity.expect(program, inputs))
    assert (row.verdict, row.mismatches, row.max_lsb) == (Verdict.EXACT, 0, 0), row
    assert row.samples == len(next(iter(inputs.values())))


def assert_host_exact(host: HostProgram, program: Program) -> None:
    assert_exact(program, HostRunner(host, image.build(program).data), integers(program))


class Flashed(EmulatorRunner):
    """An emulated board that holds every kernel, and runs whatever image is put into its flash."""

    def flash(self, data: bytes, arena_bytes: int) -> None:
        """Puts `data` far behind the firmware, and the arena behind the firmware's variables."""
        flash = self.board.target.first("flash")
        address = flash.base + flash.bytes // 2
        context, config = (self.board.symbol(n).address for n in ("harness_context", "__bss_end"))
        fields = (address, len(data), config + CONFIG.size, arena_bytes)
        self.board.write(address, data)
        self.board.write(config, CONFIG.pack(*fields))
        assert self.board.call("eq_init", context, config) == 0


def assert_board_exact(board: Flashed, program: Program, inputs: dict[str, Array]) -> None:
    """The board gives on every sample what the reference predicts."""
    expected = parity.predict(program, inputs)
    board.flash(image.build(program).data, program.plan.arena_bytes)
    count = range(len(expected[0]))
    got = board.run([parity.sample_bytes(list(inputs.values()), i) for i in count])
    assert got == [parity.output_bytes(program, expected, i) for i in count]


@pytest.fixture(scope="session")
def board(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Flashed:
    folder = tmp_path_factory.mktemp("board")
    program = program_of(random_graph(0), [8], "flash", ("dsp",))
    c_arrays.export(program, folder, [], kernels.table())
    found = toolchain.find(toolchain.COMPILERS, compiler)
    elf = runners.link_firmware(folder, program.name, program.target, found)
    return Flashed(read_firmware(elf), program.target)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("fashion-tiny", bundled.ALL_IMAGES),
        ("fashion-resnet8", 1_000),
        pytest.param("fashion-resnet8", bundled.ALL_IMAGES, marks=pytest.mark.nightly),
    ],
)
def test_an_example_computes_on_the_host_what_the_reference_predicts(
    host_program: HostProgram, name: str, count: int
) -> None:
    program = compiled_example(name)
    runner = HostRunner(host_program, image.build(program).data)
    assert_exact(program, runner, bundled.images().inputs(program, count))


@pytest.mark.emulator
@pytest.mark.parametrize(
    "count", [EMULATED_IMAGES, pytest.param(NIGHTLY_IMAGES, marks=pytest.mark.nightly)]
)
@examples
def test_an_example_computes_on_the_core_what_the_reference_predicts(
    built: Builds, compiler: str, name: str, count: int
) -> None:
    program = compiled_example(name)
    firmware = read_firmware(built(name, compiler).folder / runners.FIRMWARE)
    runner = EmulatorRunner(firmware, program.target)
    assert_exact(program, runner, bundled.images().inputs(program, count))


def check_random_graphs(
    host: HostProgram, isa: tuple[str, ...], optimize: Optimize, count: int
) -> None:
    """`count` graphs, which no other instruction set and aim has."""

    @seed(zlib.crc32(f"{isa} {optimize}".encode()))
    @settings(max_examples=count, deadline=None, database=None)
    @given(graph=graphs(), widths=bits, activations=stored)
    def check(graph: Graph, widths: list[int], activations: list[int]) -> None:
        assert_host_exact(host, program_of(graph, widths, optimize, isa, activations))

    check()


@pytest.mark.nightly
@for_cores
@optimizing
def test_thousands_of_random_graphs_do(
    host_program: HostProgram, isa: tuple[str, ...], optimize: Optimize
) -> None:
    check_random_graphs(host_program, isa, optimize, NIGHTLY_GRAPHS)


@for_cores
@optimizing
def test_random_graphs_compute_on_the_host_what_the_reference_predicts(
    host_program: HostProgram, isa: tuple[str, ...], optimize: Optimize
) -> None:
    check_random_graphs(host_program, isa, optimize, GRAPHS)


@drawn(CHAINS)
@given(graph=graphs(), widths=bits, activations=stored, levels=st.integers(1, 3))
def test_a_chain_of_blocks_computes_what_the_reference_predicts(
    host_program: HostProgram,
    graph: Graph,
    widths: list[int],
    activations: list[int],
    levels: int,
) -> None:
    program = program_of(graph, widths, "flash", ("dsp",), activations)
    integer = program.network.graphs[0]
    cuts = [i for i, node in enumerate(integer.nodes) if i and OPS[node.op].weighted]
    network = in_blocks(integer, cuts, levels)
    choices = kernels.choose(network, program.target.isa, "flash")
    scratch = {name: c.scratch_bytes for name, c in choices.items() if c.scratch_bytes}
    lags = {name: c.lag for name, c in choices.items() if c.lag is not None}
    placed = plan.plan(network, scratch, lags)
    chain = replace(program, network=network, choices=choices, plan=placed)
    assert_host_exact(host_program, chain)


@pytest.mark.parametrize("activations", [[8], [4], [2], [3, 8, 2, 7]], ids=str)
def test_several_inputs_and_outputs_keep_their_order(
    host_program: HostProgram, activations: list[int]
) -> None:
    b = Builder("ports")
    left, right = b.input(6, 5, 3, name="left"), b.input(6, 5, 2, name="right")
    joined = b.add(b.conv(left, 4, clamp=RELU), b.conv(right, 4))
    pooled = b.max_pool(joined, Window((2, 2), (2, 2)))
    scores = b.softmax(b.fully_connected(b.flatten(pooled), 7))
    program = program_of(b.build(scores, joined, pooled), [3], "flash", ("dsp",), activations)
    assert [tensor.name for tensor in program.network.outputs] == [scores, joined, pooled]
    assert_host_exact(host_program, program)


SHAPES = {"resnet8": resnet8(24, 24, 3), "ds_cnn": ds_cnn(), "mobilenet": mobilenet(48)}


@pytest.mark.parametrize("activations", [[8], [4, 8]], ids=str)
@pytest.mark.parametrize("isa", [(), ("dsp",)], ids=["portable", "dsp"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_networks_of_mlperf_tiny_compute_on_their_least_arena(
    host_program: HostProgram, name: str, isa: tuple[str, ...], activations: list[int]
) -> None:
    program = program_of(SHAPES[name], [8, 4], "ram", isa, activations)
    apart = program_of(SHAPES[name], [8, 4], "time", isa, activations)
    share = 0.9 if activations == [8] else 1  # packed rows go one way only: chains wander
    assert program.plan.arena_bytes <= share * apart.plan.arena_bytes
    assert_host_exact(host_program, program)


@pytest.mark.emulator
@pytest.mark.parametrize("name", SHAPES)
def test_they_do_so_on_the_core(board: Flashed, name: str) -> None:
    program = program_of(SHAPES[name], [8, 4], "ram", ("dsp",), [8, 8, 4])
    inputs = {key: values[:2] for key, values in integers(program).items()}
    assert_board_exact(board, program, inputs)


@pytest.mark.emulator
@pytest.mark.parametrize("policy", ["w8a4", "w4a4", "w4a2", "w4a16"])
def test_the_example_computes_on_the_core_at_any_width(board: Flashed, policy: str) -> None:
    program = bundled.load("fashion-resnet8").compile(policy).program
    inputs = bundled.images().inputs(program, SAMPLES)
    assert_board_exact(board, program, inputs)


@for_cores
@drawn(SANITIZED_GRAPHS)
@given(graph=graphs(), widths=bits, activations=stored)
def test_random_graphs_break_no_rule_that_a_sanitizer_knows(
    sanitized_program: HostProgram,
    isa: tuple[str, ...],
    graph: Graph,
    widths: list[int],
    activations: list[int],
) -> None:
    program = program_of(graph, widths, "flash", isa, activations)
    assert_host_exact(sanitized_program, program)


@pytest.mark.emulator
@drawn(GRAPHS)
@given(graph=graphs(), widths=bits, activations=stored, optimize=st.sampled_from(("flash", "time")))
def test_random_graphs_compute_on_the_core_what_the_reference_predicts(
    board: Flashed,
    graph: Graph,
    widths: list[int],
    activations: list[int],
    optimize: Optimize,
) -> None:
    program = program_of(graph, widths, optimize, ("dsp",), activations)
    assert_board_exact(board, program, integers(program))


# Kernels of packed activations


def points(channels: int) -> Graph:
    """Layers of windows of one place around the blocks of lanes: 4, 6 and 1 pixels, 8 values."""
    b = Builder("points")
    x = b.conv(b.input(5, 4, 3), channels, 3, clamp=RELU)
    x = b.conv(x, channels + 1, 1, clamp=RELU)
    x = b.conv(x, channels + 8, Window((1, 1), (2, 1)))
    x = b.conv(x, 8, 1)
    return b.build(b.fully_connected(b.flatten(b.conv(x, 12, 1)), 7))


lanes = pytest.mark.parametrize("widths", [(4, 4), (3, 4), (2, 4), (4, 2), (2, 2), (3, 3)])
channels_of_lanes = pytest.mark.parametrize("channels", [7, 16, 31])


def lanes_program(widths: tuple[int, int], channels: int) -> Program:
    conv = "eq_conv_sixes_s2_dsp" if widths == (2, 2) else "eq_conv_lanes_s4_dsp"
    forced = {f"conv_{i}": conv for i in (2, 3, 4, 5)} | {"fc_1": "eq_fc_lanes_s4_dsp"}
    return program_of(points(channels), widths[:1], "flash", ("dsp",), widths[1:], forced)


@lanes
@channels_of_lanes
def test_lanes_compute_on_the_host_what_the_reference_predicts(
    host_program: HostProgram, widths: tuple[int, int], channels: int
) -> None:
    assert_host_exact(host_program, lanes_program(widths, channels))


@pytest.mark.emulator
@lanes
@channels_of_lanes
def test_lanes_compute_on_the_core_what_the_reference_predicts(
    board: Flashed, widths: tuple[int, int], channels: int
) -> None:
    program = lanes_program(widths, channels)
    assert_board_exact(board, program, integers(program))


def rows_of_taps(channels: int) -> Graph:
    """Windows of 3×3 at both strides, with pads and without, around the blocks of rows."""
    b = Builder("taps")
    x = b.conv(b.input(11, 13, 2), channels, 1, clamp=RELU)
    x = b.conv(x, 8, 3, clamp=RELU)
    x = b.conv(x, channels // 4 * 4 + 4, Window((3, 3), (2, 2), pads=(0, 1, 1, 1)))
    x = b.conv(x, 8, Window((3, 3), (1, 1)), clamp=RELU)
    return b.build(b.conv(x, 4, Window((3, 3), (2, 2), pads=(1, 1, 0, 0))))


channels_of_taps = pytest.mark.parametrize("channels", [3, 15, 16])


def taps_program(widths: tuple[int, int], channels: int) -> Program:
    straight = "eq_conv_taps12_s2_dsp" if widths == (2, 2) else "eq_conv_taps_s4_dsp"
    halves = "eq_conv_halves_s4_dsp"
    forced = {"conv_2": straight, "conv_3": halves, "conv_4": straight, "conv_5": halves}
    return program_of(rows_of_taps(channels), widths[:1], "flash", ("dsp",), widths[1:], forced)


@lanes
@channels_of_taps
def test_taps_compute_on_the_host_what_the_reference_predicts(
    host_program: HostProgram, widths: tuple[int, int], channels: int
) -> None:
    assert_host_exact(host_program, taps_program(widths, channels))


@pytest.mark.emulator
@lanes
@channels_of_taps
def test_taps_compute_on_the_core_what_the_reference_predicts(
    board: Flashed, widths: tuple[int, int], channels: int
) -> None:
    program = taps_program(widths, channels)
    assert_board_exact(board, program, integers(program))


shapes_of_tables = pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 1), (2, 2, 4), (5, 7, 3)])
narrow = pytest.mark.parametrize("activations", [2, 3, 4])


def narrowing_program(shape: tuple[int, int, int], activations: int) -> Program:
    """Bytes to fewer bits, as a block's level begins, and on from there."""
    b = Builder("narrowing")
    x = b.table(b.input(*shape), Function(Unary.LINEAR, 1.0))
    graph = b.build(b.conv(x, 3, 1), x)
    forced = {"table_1": "eq_table_s4_dsp"}
    return program_of(graph, (4,), "flash", ("dsp",), (activations,), forced)


@shapes_of_tables
@narrow
def test_bytes_become_packed_on_the_host_as_the_reference_predicts(
    host_program: HostProgram, shape: tuple[int, int, int], activations: int
) -> None:
    assert_host_exact(host_program, narrowing_program(shape, activations))


@pytest.mark.emulator
@shapes_of_tables
@narrow
def test_bytes_become_packed_on_the_core_as_the_reference_predicts(
    board: Flashed, shape: tuple[int, int, int], activations: int
) -> None:
    program = narrowing_program(shape, activations)
    assert_board_exact(board, program, integers(program))
