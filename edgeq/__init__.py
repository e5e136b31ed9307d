"""edgeq: trained networks and searched mixed-precision policies, run bit for bit on small hardware.

The public names load on first use, so that `import edgeq` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.api import (
        Build,
        check,
        diff,
        doctor,
        explain,
        export,
        fit_gate,
        list_targets,
        profile,
        validate,
    )
    from edgeq.errors import EdgeqError

__version__ = "0.1.0"
__all__ = [
    "Build",
    "EdgeqError",
    "__version__",
    "check",
    "diff",
    "doctor",
    "explain",
    "export",
    "fit_gate",
    "list_targets",
    "profile",
    "validate",
]

_HOMES = {
    "Build": "edgeq.api",
    "EdgeqError": "edgeq.errors",
    "check": "edgeq.api",
    "diff": "edgeq.api",
    "doctor": "edgeq.api",
    "explain": "edgeq.api",
    "export": "edgeq.api",
    "fit_gate": "edgeq.api",
    "list_targets": "edgeq.api",
    "profile": "edgeq.api",
    "validate": "edgeq.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'edgeq' has no attribute {name!r}")
