"""Gates from an integer network's outputs on every path: targets, both forms, and what to choose.

`execute` gets these outputs, `heads` trains what stands at the exits. Nothing needs a framework but
the modules `torch_*`: the same integers faster, and `--joint`.
"""

from edgeq.fit.fitting import Fitted, Settings, digest, fit, kept, priced, recosted
from edgeq.fit.outputs import Fold, Outputs, fold, labelled, same_data, split

__all__ = [
    "Fitted",
    "Fold",
    "Outputs",
    "Settings",
    "digest",
    "fit",
    "fold",
    "kept",
    "labelled",
    "priced",
    "recosted",
    "same_data",
    "split",
]
