"""Short names for the layers of a TFLite file.

TensorFlow calls a tensor after all that was fused into it: `model/activation/Relu;model/
batch_normalization/FusedBatchNormV3;model/conv2d/Conv2D`. A layer is called as the part that names
its own operator, without the model's scope and the operator's word: `conv2d`. Where no part does,
it is called as its operator: `softmax`.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.frontends.builder import safe

_WRAPPERS = ("StatefulPartitionedCall", "PartitionedCall")


def layer_name(kind: str, words: Sequence[str], tensors: Sequence[str]) -> str:
    """The name of an operator of `kind`, which TensorFlow calls one of `words`.

    `tensors` are names that may tell: first the weights', then the output's.
    """
    for name in tensors:
        for part in name.split(";"):
            path = [step for step in part.split("/") if not step.startswith(_WRAPPERS)]
            ends = [index for index, step in enumerate(path) if step in words and index]
            if ends:
                scoped = path[: ends[-1]]
                return safe("/".join(scoped[1:] or scoped))
    return safe(kind.lower())
