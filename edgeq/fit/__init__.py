"""Gates from an integer network's outputs on every path: targets, both forms, and what to choose.

Nothing here runs a network, and nothing needs a framework.
"""

from edgeq.fit.fitting import Fitted, Settings, digest, fit, kept, priced, recosted
from edgeq.fit.outputs import Fold, Outputs, fold, split

__all__ = [
    "Fitted",
    "Fold",
    "Outputs",
    "Settings",
    "digest",
    "fit",
    "fold",
    "kept",
    "priced",
    "recosted",
    "split",
]
