"""Values of the graph refuse to exist in a bad state; graphs and networks answer questions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import RELU, Builder, in_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import GraphError
from edgeq.ir import DType, Graph, Op, QParams, Tensor, Window, qparams_of, single

fixed = settings(derandomize=True, max_examples=200, deadline=None)


def refused(id: str) -> pytest.RaisesExc[GraphError]:
    return pytest.raises(GraphError, match=id)


@pytest.mark.parametrize(
    "scale", [(), (0.0,), (-1.0,), (float("nan"),), (float("inf"),), (1.0, 0.0)]
)
def test_scales_are_positive_and_finite(scale: tuple[float, ...]) -> None:
    with refused("EQ0301"):
        QParams(scale, axis=0)


@pytest.mark.parametrize("bits", [0, 1, 9, 15, 17, -8])
def test_bits_are_2_to_8_or_16(bits: int) -> None:
    with refused("EQ0301"):
        QParams((1.0,), 0, bits)


@pytest.mark.parametrize(("bits", "zero_point"), [(8, 128), (8, -129), (2, 2), (16, 1 << 15)])
def test_a_zero_point_is_a_value_of_its_bits(bits: int, zero_point: int) -> None:
    with refused("EQ0301"):
        QParams((1.0,), zero_point, bits)


def test_several_scales_need_an_axis() -> None:
    with refused("EQ0301"):
        QParams((1.0, 2.0))


def test_scales_per_channel_have_no_zero_point() -> None:
    with refused("EQ0301"):
        QParams((1.0, 2.0), 1, axis=0)


@pytest.mark.parametrize(("bits", "low", "high"), [(2, -2, 1), (8, -128, 127), (16, -32768, 32767)])
def test_bits_count_the_sign(bits: int, low: int, high: int) -> None:
    q = QParams((1.0,), 0, bits)
    assert (q.qmin, q.qmax) == (low, high)


@fixed
@given(st.integers(2, 8), st.floats(1e-6, 1e6), st.data())
def test_integers_survive_dequantising_and_quantising(
    bits: int, scale: float, data: st.DataObject
) -> None:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    q = QParams((scale,), data.draw(st.integers(low, high)), bits)
    every = np.arange(low, high + 1)
    assert (q.quantize(q.dequantize(every)) == every).all()


def test_quantising_rounds_ties_to_even_and_clips() -> None:
    q = QParams((2.0,), 10)
    assert q.quantize(np.array([1.0, 3.0, -1.0, 1e9, -1e9])).tolist() == [10, 12, 10, 127, -128]


@pytest.mark.parametrize("shape", [(0,), (1, 0, 3), (2, -1)])
def test_no_dimension_is_empty(shape: tuple[int, ...]) -> None:
    with refused("EQ0302"):
        Tensor("t", shape)


def test_data_has_the_tensors_shape() -> None:
    with refused("EQ0302"):
        Tensor("t", (2, 3), data=np.zeros((3, 2)))


def test_elements_are_the_product_of_the_shape() -> None:
    assert Tensor("t", (2, 3, 4)).elements == 24


def test_elements_do_not_overflow() -> None:
    assert Tensor("t", (1 << 20, 1 << 20)).elements == 1 << 40


def test_a_tensor_without_parameters_says_that_it_is_not_quantised() -> None:
    with pytest.raises(GraphError, match="conv_1 is not quantised"):
        qparams_of(Tensor("conv_1", (1,)))


@pytest.mark.parametrize(
    "fields",
    [
        {"kernel": (0, 3)},
        {"kernel": (3, 3), "strides": (1, 0)},
        {"kernel": (3, 3), "dilations": (0, 1)},
        {"kernel": (3, 3), "pads": (0, -1, 0, 0)},
    ],
)
def test_a_window_has_positive_sides_and_no_negative_pads(
    fields: dict[str, tuple[int, ...]],
) -> None:
    with refused("EQ0302"):
        Window(**fields)  # type: ignore[arg-type]


small = st.integers(1, 4)


@fixed
@given(st.integers(1, 9), small, small, small, st.integers(0, 3), st.integers(0, 3))
def test_the_output_size_counts_the_places_where_a_window_fits(
    size: int, side: int, stride: int, dilation: int, before: int, after: int
) -> None:
    window = Window((side, 1), (stride, 1), (before, 0, after, 0), (dilation, 1))
    reach = dilation * (side - 1)
    places = [p for p in range(-before, size + after, stride) if p + reach < size + after]
    height, width = window.output_size(size, 5)
    assert (max(height, 0), width) == (len(places), 5)


def residual() -> Graph:
    b = Builder("residual")
    x = b.input(4, 4, 2)
    y = b.conv(x, 2, clamp=RELU)
    return b.build(b.add(x, y))


def test_a_tensors_producer_computes_it() -> None:
    graph = residual()
    producer = graph.producer("conv_1.output")
    assert producer is not None
    assert producer.name == "conv_1"


@pytest.mark.parametrize("name", ["input", "conv_1.weights"])
def test_inputs_and_constants_have_no_producer(name: str) -> None:
    assert residual().producer(name) is None


def test_the_consumers_of_a_tensor_are_all_that_read_it() -> None:
    assert [node.name for node in residual().consumers("input")] == ["conv_1", "add_1"]


def test_a_node_that_reads_a_tensor_twice_is_one_consumer() -> None:
    b = Builder()
    x = b.input(4, 4, 2)
    graph = b.build(b.add(x, x))
    assert len(graph.consumers("input")) == 1


def test_activations_are_the_inputs_that_are_computed() -> None:
    graph = residual()
    assert [t.name for t in graph.activations(graph.nodes[0])] == ["input"]


def test_an_activation_is_no_constant() -> None:
    with refused("EQ0303"):
        residual().constant("input")


def test_an_edit_drops_tensors_that_nothing_uses() -> None:
    graph = residual()
    left = graph.edit(graph.nodes[:1], outputs=("conv_1.output",))
    assert set(left.tensors) == {"input", "conv_1.weights", "conv_1.bias", "conv_1.output"}


def test_an_edit_adds_new_tensors() -> None:
    graph = residual()
    conv, add = graph.nodes
    other = replace(graph.tensors["conv_1.bias"], name="new")
    nodes = (replace(conv, inputs=("input", "conv_1.weights", "new")), add)
    assert "new" in graph.edit(nodes, (other,)).tensors


def test_an_ungated_network_is_one_block_with_one_variant() -> None:
    network = single(residual())
    assert [[v.level for v in block.variants] for block in network.blocks] == [[0]]


def test_a_network_reads_its_first_block_and_writes_its_last() -> None:
    network = in_blocks(residual(), cuts=(1,), levels=2)
    assert [t.name for t in (*network.inputs, *network.outputs)] == ["input", "add_1.output"]


def test_a_networks_graphs_are_all_variants_in_order() -> None:
    network = in_blocks(residual(), cuts=(1,), levels=2)
    names = [graph.nodes[0].name for graph in network.graphs]
    assert names == ["l0.conv_1", "l1.conv_1", "l0.add_1", "l1.add_1"]


@pytest.mark.parametrize("kind", DType)
def test_a_dtype_is_the_name_of_numpys(kind: DType) -> None:
    assert np.dtype(kind.value).name == kind.value


def test_operators_have_names_of_their_own() -> None:
    assert len({op.value for op in Op}) == len(Op)
