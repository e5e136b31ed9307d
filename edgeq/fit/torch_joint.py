"""Fine-tuning of a network and its heads together (`--joint`): the loss of every exit counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from edgeq.fit.outputs import check_training
from edgeq.fit.torch_net import Net
from edgeq.ir import Array, Graph

Int64 = npt.NDArray[np.int64]

BATCH = 128
EPOCHS = 10
RATE, MOMENTUM, DECAY = 5e-3, 0.9, 1e-4
MOST_GRADIENT = 1.0  # batch norms are folded: nothing else bounds the steps

Progress = Callable[[int, int], None]  # steps done, of how many


def exit_weights(exits: int) -> tuple[float, ...]:
    """How much each exit's loss counts: the network's own most, then the later ones (eq. of §2.4).

    The paper's code weighs early exits more, for a frozen network, where they cannot harm each
    other. Here they share it, and what serves the first exit costs the last one accuracy.
    """
    return tuple((index + 1) / exits for index in range(exits))


def fine_tune(
    graph: Graph,
    data: Mapping[str, Array],
    labels: Int64,
    held_out: Mapping[str, Array],
    held_out_labels: Int64,
    weights: Sequence[float] | None = None,
    epochs: int = EPOCHS,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> dict[str, Array]:
    """The constants, by tensor name, of `graph`, trained; its outputs are those of all exits.

    `data` and `held_out` are reals, by input. What is kept is the epoch of least validation loss,
    the beginning included.

    Raises:
        ModelError: labels do not fit the samples or the classes.
    """
    samples, held = list(data.values()), list(held_out.values())
    check_training(samples, labels, held, held_out_labels, graph.tensors[graph.outputs[0]].elements)
    shares = tuple(weights or exit_weights(len(graph.outputs)))
    net, random = Net(graph), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(
        list(net.weights.values()), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True
    )
    answers = torch.from_numpy(labels)
    best, kept = _loss_on(net, held_out, held_out_labels, shares), net.constants()
    steps = -(-len(labels) // BATCH)
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=random)
        for step in range(steps):
            done = epoch * steps + step
            optimiser.param_groups[0]["lr"] = (
                RATE * (1 + math.cos(math.pi * done / (epochs * steps))) / 2
            )
            at = order[step * BATCH : (step + 1) * BATCH]
            loss = _loss(net, _part(data, at.numpy()), answers[at], shares)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(list(net.weights.values()), MOST_GRADIENT)
            optimiser.step()
            progress(done + 1, epochs * steps)
        now = _loss_on(net, held_out, held_out_labels, shares)
        if now < best:
            best, kept = now, net.constants()
    return kept


def _part(data: Mapping[str, Array], at: Array | slice) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(np.ascontiguousarray(x[at], np.float32)) for name, x in data.items()
    }


def _loss(
    net: Net, inputs: Mapping[str, torch.Tensor], labels: torch.Tensor, shares: Sequence[float]
) -> torch.Tensor:
    found = net(inputs)
    losses = [
        share * functional.cross_entropy(found[name], labels)
        for share, name in zip(shares, net.graph.outputs, strict=True)
    ]
    return torch.stack(losses).sum()


def _loss_on(net: Net, data: Mapping[str, Array], labels: Int64, shares: Sequence[float]) -> float:
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(labels), BATCH):
            part = slice(start, start + BATCH)
            answers = torch.from_numpy(labels[part])
            total += float(_loss(net, _part(data, part), answers, shares)) * len(answers)
    return total / len(labels)
