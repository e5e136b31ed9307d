"""Newton's method for convex losses of few parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeq.fit.outputs import Reals

STEPS = 50
HALVINGS = 30  # of one step, which may otherwise go past where the curve bends
STILL = 1e-6

Loss = Callable[[Reals], float]
Bend = Callable[[Reals], tuple[Reals, Reals]]  # gradient (n,) and Hessian (n, n)


def minimise(start: Reals, loss: Loss, bend: Bend) -> Reals:
    """The parameters (n,) of least loss, from `start` on."""
    found, least = start, loss(start)
    for _ in range(STEPS):
        slope, hessian = bend(found)
        step = np.linalg.solve(hessian, slope)
        if np.abs(step).max() < STILL:
            break
        tried = ((at, loss(at)) for at in (found - step / 2**n for n in range(HALVINGS)))
        better = next(((at, now) for at, now in tried if now < least), None)
        if better is None:
            break
        found, least = better
    return found
