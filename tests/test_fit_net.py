"""The float graph in PyTorch: against onnxruntime, and trained."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import FUNCTIONS, Builder, random_graph, resnet8, with_constants
from programs import reals

from edgeq import floatrun
from edgeq.ir import Graph, Node, Op, Tensor

torch = pytest.importorskip("torch", reason="the extra torch is missing", exc_type=ImportError)
from edgeq.fit.torch_net import Net  # noqa: E402

GRAPHS = range(60)
RTOL, ATOL = 1e-4, 2e-5  # float32 sums of up to some hundred products, in other orders


def close(graph: Graph, seed: int = 0) -> None:
    inputs = reals(graph, 3, seed)
    wanted = [node.output for node in graph.nodes]
    expected = floatrun.run(graph, inputs, wanted)
    found = Net(graph)({name: torch.from_numpy(x) for name, x in inputs.items()}, wanted)
    for name in wanted:
        scale = max(float(np.abs(expected[name]).max()), 1.0)
        np.testing.assert_allclose(
            found[name].detach().numpy(), expected[name], RTOL, ATOL * scale, err_msg=name
        )


@pytest.mark.parametrize("seed", GRAPHS)
def test_random_graphs_give_what_onnxruntime_gives(seed: int) -> None:
    close(random_graph(seed, 8), seed)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.kind.value)
def test_functions_are_those_of_onnx(function: object) -> None:
    b = Builder("f", 0)
    close(b.build(b.table(b.input(5, 4, 3), function)))  # type: ignore[arg-type]


def test_what_passes_remove_is_computed_too() -> None:
    rng = np.random.default_rng(0)
    constants = {
        name: Tensor(name, (3,), data=rng.uniform(0.5, 2, 3).astype(np.float32))
        for name in ("scale", "bias", "mean", "variance")
    }
    shape = (1, 4, 5, 3)
    nodes = (
        Node("norm", Op.BATCH_NORM, ("x", *constants), "a", epsilon=1e-3),
        Node("clip", Op.CLIP, ("a",), "b", clamp=(-0.5, 0.5)),
        Node("same", Op.IDENTITY, ("b",), "c"),
        Node("product", Op.MULTIPLY, ("c", "a"), "y"),
    )
    tensors = {name: Tensor(name, shape) for name in ("x", "a", "b", "c", "y")}
    close(Graph("net", ("x",), ("y",), nodes, {**tensors, **constants}))


def test_training_changes_constants_that_a_graph_takes() -> None:
    graph = resnet8(8, 8, 2)
    net, x = Net(graph), torch.from_numpy(reals(graph, 16)[graph.inputs[0]])
    labels = torch.arange(16) % 10
    optimiser = torch.optim.Adam(net.weights.values(), 1e-2)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(
            net({graph.inputs[0]: x})[graph.outputs[0]], labels
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    trained = with_constants(graph, net.constants())
    assert set(net.weights) == {
        name for name, tensor in graph.tensors.items() if tensor.data is not None
    }
    close(trained)
    assert all((trained.constant(n) != graph.constant(n)).any() for n in net.weights)
