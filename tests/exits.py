"""Outputs of a network with exits that never was: samples of unlike difficulty, levels and depths.

Deeper exits and precise levels are surer; their errors go together, as those of one network do.
"""

from __future__ import annotations

import numpy as np

from edgeq import gates
from edgeq.fit.outputs import Fold, Outputs
from edgeq.gates import Costs, Levels

SCALE = 0.06
LEVELS: Levels = ((0, 1), (0, 1), (0, 1))


def fold(levels: Levels, samples: int, seed: int, classes: int = 4) -> Fold:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    hard = rng.gamma(1.2, 1.0, samples)
    shared = rng.normal(size=(samples, classes))
    logits = {}
    for path in gates.all_paths(levels):
        strength = 1.2 + 1.5 * len(path) - 0.35 * sum(path)
        own = np.random.default_rng([seed, *path]).normal(size=(samples, classes))
        values = (1.3 * shared + 0.7 * own) * (0.4 + hard[:, None])
        values[np.arange(samples), labels] += strength
        logits[path] = np.clip(np.rint(values / SCALE), -128, 127).astype(np.int8)
    return Fold(logits, labels, SCALE)


def outputs(levels: Levels = LEVELS, samples: int = 1500, seed: int = 0) -> Outputs:
    train, val, test = (fold(levels, samples, 3 * seed + n) for n in range(3))
    return Outputs(levels, train, val, test)


def costs(levels: Levels = LEVELS, factor: float = 1.0) -> Costs:
    most = max(level for block in levels for level in block) + 1
    blocks = tuple(
        {level: factor * 100 * (most + 1 - level) / (most + 1) for level in block}
        for block in levels
    )
    ends = (factor,) * (len(levels) - 1)
    return Costs("cycles_model", "invented", blocks, ends, tuple(0.3 * end for end in ends))
