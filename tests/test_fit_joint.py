"""A network and its heads fine-tuned together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from graphs import RELU, Builder, with_constants

from edgeq import exits, floatrun
from edgeq.errors import ModelError
from edgeq.exits import Head
from edgeq.ir import Array, Graph

torch = pytest.importorskip("torch", reason="the extra torch is missing", exc_type=ImportError)
from edgeq.fit import torch_joint  # noqa: E402

CLASSES = 10


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take longest where tests run side by side."""
    known = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(known)


def network() -> Graph:
    """Three convolutions with a head behind the first one, of zeros."""
    b = Builder("net", 0)
    x = b.conv(b.input(8, 8, 1), 8, clamp=RELU)
    x = b.conv(b.conv(x, 8, clamp=RELU), 8, clamp=RELU)
    graph = b.build(b.fully_connected(b.flatten(x), CLASSES))
    (cut,) = exits.named(graph, [graph.nodes[0].name])
    values = int(np.prod(exits.pooled_shape(graph.tensors[cut.tensor].shape)))
    head = Head(np.zeros((CLASSES, values), np.float32), np.zeros(CLASSES, np.float32))
    return exits.attach(graph, [cut], [head])


def drawn(samples: int, seed: int) -> tuple[Array, Array]:
    """Images of a bright spot, whose place is the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, samples)
    images = 0.5 * rng.normal(size=(samples, 8, 8, 1))
    images[np.arange(samples), 2 + labels // 5 * 3, 1 + labels % 5] += 3
    return images.astype(np.float32), labels


def accuracies(graph: Graph, images: Array, labels: Array) -> list[float]:
    found = floatrun.run(graph, {graph.inputs[0]: images})
    return [float((found[name].argmax(axis=1) == labels).mean()) for name in graph.outputs]


def tuned(graph: Graph, epochs: int = 6, seed: int = 0) -> dict[str, Array]:
    (images, labels), (held, truth) = drawn(1500, 0), drawn(300, 1)
    name = graph.inputs[0]
    return torch_joint.fine_tune(
        graph, {name: images}, labels, {name: held}, truth, epochs=epochs, seed=seed
    )


def test_every_exit_learns_and_the_graph_takes_the_result() -> None:
    graph, (images, labels) = network(), drawn(400, 2)
    constants = tuned(graph)
    assert all(graph.tensors[name].shape == data.shape for name, data in constants.items())
    before = accuracies(graph, images, labels)
    after = accuracies(with_constants(graph, constants), images, labels)
    assert max(before) < 0.3
    assert min(after) > 0.6


def test_the_seed_decides() -> None:
    graph = network()
    first, again, other = tuned(graph, 1), tuned(graph, 1), tuned(graph, 1, seed=1)
    name = next(iter(first))
    assert all((first[n] == again[n]).all() for n in first)
    assert (first[name] != other[name]).any()


def test_what_gets_worse_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_joint, "RATE", 1e3)
    graph = network()
    constants = tuned(graph, 1)
    assert all((graph.constant(name) == data).all() for name, data in constants.items())


def test_labels_that_fit_nothing_are_refused() -> None:
    graph, (images, labels) = network(), drawn(20, 0)
    data = {graph.inputs[0]: images}
    with pytest.raises(ModelError, match=r"EQ0396: .* \(19,\) for 20 validation samples"):
        torch_joint.fine_tune(graph, data, labels, data, labels[1:])
    with pytest.raises(ModelError, match=r"EQ0396: .* training samples must be 0 to 9"):
        torch_joint.fine_tune(graph, data, labels + CLASSES, data, labels)
