"""What happens to a float graph before quantisation: passes, alone in their files, run in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeq.errors import GraphError
from edgeq.ir import Graph
from edgeq.ops import verify
from edgeq.passes.fold_batch_norm import fold_batch_norm
from edgeq.passes.fuse_clamps import fuse_clamps
from edgeq.passes.fuse_pads import fuse_pads
from edgeq.passes.fuse_products import fuse_products
from edgeq.passes.merge_strides import merge_strides
from edgeq.passes.remove_identities import remove_identities

__all__ = [
    "FLOAT_PASSES",
    "Pass",
    "fold_batch_norm",
    "fuse_clamps",
    "fuse_pads",
    "fuse_products",
    "merge_strides",
    "remove_identities",
    "run",
]

Pass = Callable[[Graph], Graph]

FLOAT_PASSES: tuple[Pass, ...] = (
    remove_identities,  # first: an identity would stand between a layer and what folds into it
    fuse_products,  # before clamps: one between a tensor and its gate would hide the pair
    merge_strides,
    fuse_pads,  # before batch norms: padding decides whether one folds into the layer behind it
    fold_batch_norm,  # before clamps: a layer that clamps its output cannot take a batch norm
    fuse_clamps,  # last: a batch norm that became a layer takes the clamp that follows it
)


def run(graph: Graph, passes: Sequence[Pass] = FLOAT_PASSES) -> Graph:
    """Apply each pass in turn and check the graph after every one.

    Raises:
        GraphError: a pass refuses the graph, or broke it, which the message then says.
    """
    for apply in passes:
        graph = apply(graph)
        try:
            verify(graph)
        except GraphError as error:
            name = getattr(apply, "__name__", repr(apply))
            raise GraphError(error.id, f"after {name}: {error.message}") from error
    return graph
