"""The example networks that come with edgeq: where each one's folder is."""

from importlib.resources import files
from pathlib import Path

_FOLDERS = {"fashion-resnet8": "fashion_resnet8", "fashion-tiny": "fashion_tiny"}


def names() -> tuple[str, ...]:
    """Every bundled example, in the order in which to read them."""
    return tuple(_FOLDERS)


def path(name: str) -> Path:
    """The folder with the example's model, policy, calibration and test images."""
    if name not in _FOLDERS:
        raise ValueError(f"no example {name!r}; examples are {', '.join(_FOLDERS)}")
    return Path(str(files("edgeq.examples") / _FOLDERS[name]))


def policy(name: str) -> Path:
    """The example's policy, which holds gates where the example has exits."""
    return next(f for n in ("policy.json", "policy.toml") if (f := path(name) / n).is_file())
