"""Writes the golden files beside it: what a small program becomes, byte for byte.

Run from the repository root: python tests/golden/make.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from graphs import RELU, RELU6, Builder, same_window  # noqa: E402 (tests are no package)
from programs import SHA256  # noqa: E402

from edgeq import kernels, plan, quantize, targets  # noqa: E402
from edgeq.calibrate import Ranges  # noqa: E402
from edgeq.exporters import image  # noqa: E402
from edgeq.frontends import Port  # noqa: E402
from edgeq.ir import Graph, Window, single  # noqa: E402
from edgeq.ops import OPS  # noqa: E402
from edgeq.policy import Bits, Calibration, InputSpec  # noqa: E402
from edgeq.program import Program, make_input  # noqa: E402

COMMAND = "python tests/golden/make.py"
BITS = {"conv_1": 8, "depthwise_1": 5, "conv_2": 3, "fc_1": 2}
BYTES_PER_LINE = 32


def graph() -> Graph:
    """Every operator once, with constants that need no random numbers."""
    b = Builder("golden")
    y = b.conv(b.input(6, 5, 2), 3, same_window((1, 6, 5, 2), (3, 3), (2, 1)), RELU6)
    y = b.depthwise(y, 1, Window((2, 3), (1, 1), (1, 1, 0, 1)), RELU)
    y = b.add(y, b.conv(y, 3, 1))
    y = b.average_pool(b.max_pool(y, Window((2, 2), (1, 2))), Window((2, 2), pads=(0, 0, 1, 0)))
    made = b.build(b.softmax(b.fully_connected(b.flatten(y), 4)))
    tensors = dict(made.tensors)
    for number, (name, tensor) in enumerate(tensors.items()):
        if tensor.data is not None:
            waves = np.sin(np.arange(tensor.elements) * (0.7 + 0.1 * number) + number)
            tensors[name] = replace(
                tensor, data=np.round(waves * 64).astype(np.float32).reshape(tensor.shape) / 64
            )
    return replace(made, tensors=tensors)


def program() -> Program:
    """The graph under a mixed policy, with ranges as if they had been measured."""
    float_graph = graph()
    nodes = float_graph.nodes
    bounds = dict.fromkeys(float_graph.inputs, (-4.0, 3.96875))
    bounds |= {node.output: (-3.0 - i / 4, 3.0 + i / 8) for i, node in enumerate(nodes)}
    means = {
        node.name: np.full(float_graph.tensors[node.inputs[1]].elements, 0.125)
        if node.name.startswith("depthwise")
        else np.full(float_graph.constant(node.inputs[1])[0].size, 0.125)
        for node in nodes
        if OPS[node.op].weighted
    }
    bits = {node.name: Bits(BITS.get(node.name, 8), 8) for node in nodes}
    integer = quantize.run(float_graph, bits, Ranges(bounds, means, "minmax", 1), Calibration())
    network = single(integer)
    choices = kernels.choose(network, (), "flash")  # portable kernels: the others are still tuned
    scratch = {name: choice.scratch_bytes for name, choice in choices.items()}
    tensor = integer.tensors["input"]
    port = Port("input", "input", tensor.shape, "NHWC")
    return Program(
        name="golden",
        network=network,
        choices=choices,
        plan=plan.plan(network, scratch),
        target=targets.load("mcu"),
        inputs=(make_input(port, tensor, InputSpec(mean=(0.25, 0.5), std=(0.125,))),),
        outputs=tuple(Port(t.name, t.name, t.shape, "NC") for t in network.outputs),
        labels=("shirt", "sock", "hat", "shoe"),
        model_sha256=SHA256,
    )


def lines(built: image.Image) -> Sequence[str]:
    """The image in hexadecimal, a block for each segment, under its label."""
    found = []
    for segment in built.segments:
        found.append(f"# {segment.label}")
        data = segment.data
        found += [data[i : i + BYTES_PER_LINE].hex() for i in range(0, len(data), BYTES_PER_LINE)]
    return found


def files() -> dict[str, str]:
    """Every golden file, by name."""
    rows = (f"{row.id} {row.symbol}" for row in kernels.table())
    return {
        "image.txt": "\n".join([f"# {COMMAND}", *lines(image.build(program())), ""]),
        "kernel_ids.txt": "\n".join([f"# {COMMAND}", *rows, ""]),
    }


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")
