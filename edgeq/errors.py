"""Every error that edgeq raises on purpose.

```
EdgeqError
├── UsageError        2  flags, samples, output folder
├── ModelError        3  model file, operator, graph
│   ├── GraphError       a graph that breaks its own rules
│   └── PolicyError      a policy that does not fit its schema or its model
├── BudgetError       4  flash or RAM over budget
├── MismatchError     5  prediction and device disagree
├── MissingToolError  6  compiler, emulator or probe not found
└── IntegrityError    7  a file is not what its manifest says
```

The number is the exit code of the command line. An id is `EQ0` + exit code + two digits, and names
one kind of refusal for good: scripts may rely on it.
"""

from __future__ import annotations


class EdgeqError(Exception):
    """A refusal that names the thing, the value and what would have been right."""

    exit_code = 1

    def __init__(self, id: str, message: str) -> None:
        if not (len(id) == 6 and id.startswith(f"EQ0{self.exit_code}") and id[4:].isdigit()):
            raise AssertionError(f"{id} is no id of a {type(self).__name__}")
        super().__init__(message)
        self.id = id
        self.message = message

    def __str__(self) -> str:
        return f"{self.id}: {self.message}"


class UsageError(EdgeqError):
    """Flags, samples or the output folder are not usable as given."""

    exit_code = 2


class ModelError(EdgeqError):
    """The model cannot be read, or holds something that edgeq does not support."""

    exit_code = 3


class GraphError(ModelError):
    """A graph breaks its own rules; `passes.run` adds which pass left it so."""


class PolicyError(ModelError):
    """The policy breaks its schema, or names layers that the model lacks."""


class BudgetError(EdgeqError):
    """The build needs more flash or RAM than it may take."""

    exit_code = 4


class MismatchError(EdgeqError):
    """Two computations that must agree bit for bit do not."""

    exit_code = 5


class MissingToolError(EdgeqError):
    """A compiler, emulator or probe is needed and not there."""

    exit_code = 6


class IntegrityError(EdgeqError):
    """A file was changed since it was written, or was never whole."""

    exit_code = 7
