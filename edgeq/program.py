"""What exporters receive, and nothing else: the integer network and every decision about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeq import kernels
from edgeq.errors import PolicyError
from edgeq.frontends import Port
from edgeq.gates import Gate
from edgeq.ir import Array, Network, Tensor, qparams_of
from edgeq.kernels import Choice, Kernel
from edgeq.plan import Plan
from edgeq.policy import InputSpec
from edgeq.samples import Samples
from edgeq.target import Target


@dataclass(frozen=True, slots=True)
class Input:
    """One input of the device: its tensor, and the table for raw bytes.

    `lut`, of the tensor's type, is (1 or channels, 256): the integer of each raw byte; None where
    samples are reals.
    """

    port: Port
    tensor: Tensor
    lut: Array | None

    def quantize(self, samples: Array) -> Array:
        """Samples, channels last, as the integers that the device takes; int8 ones are these."""
        if samples.dtype == np.int8:
            return samples
        if samples.dtype == np.uint8:
            if self.lut is None:
                raise AssertionError(f"{self.port.name} has no table for raw bytes")
            channels = np.arange(samples.shape[-1]) % len(self.lut)
            return np.asarray(self.lut[channels, samples])
        return stored(self.tensor, samples)


def stored(tensor: Tensor, real: Array) -> Array:
    """Reals as the integers of `tensor`, in its type."""
    return qparams_of(tensor).quantize(real).astype(tensor.dtype.value)


def make_input(port: Port, tensor: Tensor, spec: InputSpec | None) -> Input:
    """The input with its table, if `spec` says what raw bytes mean.

    Raises:
        PolicyError: mean and std have another number of channels than the input.
    """
    if spec is None or not spec.raw:
        return Input(port, tensor, None)
    stated = max(len(spec.mean), len(spec.std))
    channels = tensor.shape[-1]
    if stated not in (1, channels):
        raise PolicyError(
            "EQ0325",
            f"[input.{port.name}] has mean and std of {stated} channels; the input has {channels}",
        )
    raw = np.repeat(np.arange(256, dtype=np.uint8)[:, None], stated, axis=1)
    integers = stored(tensor, spec.real(raw))
    return Input(port, tensor, np.ascontiguousarray(integers.T))


@dataclass(frozen=True, slots=True)
class Program:
    """A network, planned and dispatched for one target."""

    name: str  # a C identifier
    network: Network
    choices: Mapping[str, Choice]
    plan: Plan
    target: Target
    inputs: tuple[Input, ...]
    outputs: tuple[Port, ...]  # of the network's outputs, in their order
    labels: tuple[str, ...]
    model_sha256: str
    next_best: Mapping[str, Choice | None] = field(default_factory=dict)  # of other choices
    gate: Gate | None = None  # where inputs go; None: through every block

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every kernel that the image needs, by id."""
        found = {kernel.id: kernel for choice in self.choices.values() for kernel in choice.kernels}
        if self.gate is not None:
            for row in map(kernels.of_family, {kernels.GATE, kernels.GATE_FORMS[self.gate.kind]}):
                found[row.id] = row
        return tuple(found[id] for id in sorted(found))

    def quantize(self, samples: Samples) -> dict[str, Array]:
        """The device's input integers for checked samples."""
        return {i.tensor.name: i.quantize(samples.inputs[i.tensor.name]) for i in self.inputs}
