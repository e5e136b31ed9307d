"""The PyTorch front end: references, factories, checkpoints, names, shapes, cache, refusals.

What needs no PyTorch runs everywhere; the rest skips without it.
"""

from __future__ import annotations

import builtins
import importlib.util
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq import EdgeqError, floatrun, frontends, pipeline
from edgeq.errors import MissingToolError, ModelError, UsageError
from edgeq.frontends import torch_factory
from edgeq.frontends.source import Source

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnxscript") is None,
    reason="torch and onnxscript are missing: python -m pip install 'edgeq[torch]'",
)
# the exporters of torch 2.13 warn of their own future
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

NETS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(self.bn1(self.conv1(x)) + x)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, 5)

    def forward(self, image):
        x = self.pool(self.blocks(self.stem(image)))
        return self.head(self.drop(x.flatten(1)))

def net():
    print("made")
    return Net()

def helper():
    return {}["width"]

def broken():
    return helper()

def leaves():
    raise SystemExit("no GPU")

def number():
    return 7

class Branches(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x

class Greedy(nn.Module):
    def forward(self, x):
        raise ValueError("wrong width")

class Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x, scale=None):
        return self.fc(x)

ready = Net()
constant = 3
"""
SHAPE = {"image": (1, 3, 8, 8)}
Write = Callable[[str], str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def nets(folder: Path, request: pytest.FixtureRequest) -> str:
    """The name of a fresh module with the networks above."""
    return module(folder, request, NETS)


def module(folder: Path, request: pytest.FixtureRequest, text: str) -> str:
    name = f"nets_{abs(hash(request.node.nodeid)):x}"
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    request.addfinalizer(lambda: sys.modules.pop(name, None))
    return name


def refused(kind: type[EdgeqError], id: str, *words: str) -> pytest.RaisesExc[EdgeqError]:
    return pytest.raises(kind, check=lambda e: e.id == id and all(w in e.message for w in words))


def checkpoint(folder: Path, content: Any, name: str = "net.pt") -> Path:
    import torch

    torch.save(content, folder / name)
    return folder / name


def weights_of(nets: str) -> dict[str, Any]:
    with torch_factory.importable():
        state: dict[str, Any] = importlib.import_module(nets).Net().state_dict()
    return {name: value + 1 for name, value in state.items()}


# References


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nets:make", ("nets", "make", None)),
        ("my.nets.small:Net_2", ("my.nets.small", "Net_2", None)),
        ("nets:make@runs/best.pt", ("nets", "make", Path("runs/best.pt"))),
        ("nets:make@a@b.pt", ("nets", "make", Path("a@b.pt"))),
        ("net.onnx", None),
        (r"C:\net.onnx", None),
        ("C:/net.onnx", None),
        ("nets:", None),
        ("nets:make@", None),
        ("nets:make:more", None),
        ("1nets:make", None),
        ("nets:make.more", None),
    ],
)
def test_a_reference_is_a_module_and_a_name(text: str, expected: tuple[Any, ...] | None) -> None:
    found = torch_factory.parse(text)
    assert (found and (found.module, found.factory, found.checkpoint)) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="no such file names")
def test_a_file_of_that_name_is_a_file(folder: Path) -> None:
    (folder / "nets:make").write_text("")
    with refused(ModelError, "EQ0310", "unknown model format"):
        frontends.load("nets:make")


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name in ("torch", "onnxscript"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused(MissingToolError, "EQ0611", "edgeq[torch]", "pip install"):
        frontends.load("nets:make")


def test_torch_without_the_dynamo_exporter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(model: object, args: object, f: object) -> None:
        pass

    old = type(sys)("torch")
    old.onnx = type(sys)("torch.onnx")  # type: ignore[attr-defined]
    old.onnx.export = export  # type: ignore[attr-defined]
    old.__version__ = "1.13.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", old)
    monkeypatch.setitem(sys.modules, "onnxscript", type(sys)("onnxscript"))
    with refused(MissingToolError, "EQ0612", "1.13.1", "edgeq[torch]"):
        frontends.load("nets:make")


# Models


def read(nets: str, name: str = "net", **options: Any) -> Source:
    return frontends.load(f"{nets}:{name}", **{"shapes": SHAPE, **options})


@needs_torch
def test_it_computes_what_torch_computes(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    model = pipeline.read(Path(f"{nets}:net"), SHAPE)
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    ours = floatrun.run(model.graph, {model.graph.inputs[0]: np.moveaxis(x, 1, -1)})
    with torch_factory.importable(), torch.no_grad():
        theirs = importlib.import_module(nets).Net().eval()(torch.from_numpy(x)).numpy()
    assert ours[model.graph.outputs[0]] == pytest.approx(theirs, abs=1e-5)
    assert model.name == "net"
    assert capsys.readouterr().out == ""  # stdout is for results


@needs_torch
def test_layers_are_called_as_their_modules(nets: str) -> None:
    graph = pipeline.read(Path(f"{nets}:net"), SHAPE).graph
    assert [node.name for node in graph.nodes if node.op.value != "reshape"] == [
        "stem",
        "blocks.0.conv1",
        "blocks.0.add",
        "blocks.1.conv1",
        "blocks.1.add",
        "pool",
        "head",
    ]


@needs_torch
@pytest.mark.parametrize("nested", [(), ("state_dict",), ("model",), ("model", "state_dict")])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_come_from_the_checkpoint(
    nets: str, folder: Path, nested: tuple[str, ...], prefix: str
) -> None:
    content: Any = {prefix + name: value for name, value in weights_of(nets).items()}
    for key in nested:
        content = {key: content, "epoch": 3}
    file = checkpoint(folder, content)
    made = torch_factory.parse(f"{nets}:net@{file}")
    assert made is not None
    with torch_factory.importable():
        state = torch_factory.make(made).state_dict()
    for name, value in weights_of(nets).items():
        assert state[name].numpy() == pytest.approx(value.numpy())


@needs_torch
def test_shapes_come_from_the_samples_where_no_flag_gives_them(nets: str, folder: Path) -> None:
    np.savez(folder / "calib.npz", x=np.zeros((5, 3, 8, 8), np.uint8), y=np.zeros(5, np.int64))
    model = pipeline.read(Path(f"{nets}:net"), samples_file=folder / "calib.npz")
    assert model.source.inputs[0].shape == (1, 3, 8, 8)
    assert model.source.inputs[0].name == "image"


@needs_torch
def test_without_shape_the_flag_is_named(nets: str) -> None:
    with refused(UsageError, "EQ0219", "--shape image=1,C,H,W"):
        read(nets, shapes={})


@needs_torch
def test_arguments_with_a_default_are_no_inputs(nets: str) -> None:
    assert [port.name for port in read(nets, "Optional", shapes={"x": (1, 4)}).inputs] == ["x"]


@needs_torch
def test_a_shape_of_no_input_is_refused(nets: str) -> None:
    with refused(UsageError, "EQ0211", "picture", "image"):
        read(nets, shapes={"picture": (1, 3, 8, 8)})


# Refusals


@needs_torch
def test_a_module_that_is_not_there_is_refused() -> None:
    with refused(UsageError, "EQ0217", "no module nowhere.to_be"):
        frontends.load("nowhere.to_be:net")


@needs_torch
def test_a_path_instead_of_a_module_gets_a_hint(nets: str) -> None:
    with refused(UsageError, "EQ0217", f"did you mean {nets}?"):
        frontends.load(f"{nets}.py:net")


@needs_torch
def test_a_factory_that_is_not_there_gets_near_misses(nets: str) -> None:
    with refused(UsageError, "EQ0217", "has no nett", "did you mean net"):
        read(nets, "nett")


@needs_torch
def test_a_module_that_raises_shows_its_own_lines(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    name = module(folder, request, "import not_installed_here\n")
    with refused(ModelError, "EQ0360", f"import {name}", "line 1", "not_installed_here"):
        read(name)


@needs_torch
def test_a_factory_that_raises_shows_the_users_frames_and_what_was_called(nets: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(nets, "broken")
    first, *frames, last = caught.value.message.splitlines()
    assert first == f"{nets}:broken: edgeq called broken(), which raised"
    assert [line.rpartition(", in ")[2] for line in frames] == [
        "broken: return helper()",
        'helper: return {}["width"]',
    ]
    assert last == "KeyError: 'width'"


@needs_torch
def test_a_factory_that_exits_is_refused(nets: str) -> None:
    with refused(ModelError, "EQ0360", "SystemExit: no GPU"):
        read(nets, "leaves")


@needs_torch
@pytest.mark.parametrize(
    ("name", "words"),
    [("number", "gave a int"), ("constant", "is a int"), ("ready", "is a Net")],
)
def test_what_makes_no_module_is_refused(nets: str, name: str, words: str) -> None:
    with refused(ModelError, "EQ0361", words):
        read(nets, name)


@needs_torch
@pytest.mark.parametrize(
    ("name", "words"), [("Greedy", "ValueError: wrong width"), ("Branches", "x.sum() > 0")]
)
def test_a_forward_that_cannot_be_exported_is_refused(nets: str, name: str, words: str) -> None:
    with refused(ModelError, "EQ0360", "forward(x[1, 4]) to export it", words):
        read(nets, name, shapes={"x": (1, 4)})


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


@needs_torch
@pytest.mark.parametrize("legacy", [True, False])
def test_a_checkpoint_that_is_code_is_refused_and_never_runs(
    nets: str, folder: Path, legacy: bool
) -> None:
    if legacy:
        (folder / "net.pt").write_bytes(pickle.dumps({"state_dict": Payload()}))
    else:
        checkpoint(folder, {"state_dict": Payload()})
    with refused(ModelError, "EQ0362", "net.pt", "could run code", "state_dict"):
        read(nets, "net@net.pt")
    assert not (folder / "ran").exists()


@needs_torch
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04cut"])
def test_a_damaged_checkpoint_is_refused(nets: str, folder: Path, content: bytes) -> None:
    (folder / "net.pt").write_bytes(content)
    with refused(ModelError, "EQ0362", "net.pt"):
        read(nets, "net@net.pt")


@needs_torch
@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {1: 2}])
def test_a_checkpoint_without_weights_is_refused(nets: str, folder: Path, content: Any) -> None:
    checkpoint(folder, content)
    with refused(ModelError, "EQ0362", "net.pt"):
        read(nets, "net@net.pt")


@needs_torch
def test_a_missing_checkpoint_is_refused(nets: str) -> None:
    with refused(UsageError, "EQ0218", "gone.pt"):
        read(nets, "net@gone.pt")


@needs_torch
def test_keys_and_shapes_that_do_not_fit_are_named(nets: str, folder: Path) -> None:
    state = weights_of(nets)
    state["head.wait"] = state.pop("head.weight")
    state["stem.bias"] = state["stem.bias"][:3]
    checkpoint(folder, state)
    with refused(
        ModelError, "EQ0363", "missing: head.weight", "unknown to the module: head.wait",
        "stem.bias (3,), not (4,)",
    ):  # fmt: skip
        read(nets, "net@net.pt")


# The cache


@needs_torch
def test_the_cache_gives_what_an_export_gives(
    nets: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeq.frontends import torch_export

    first = read(nets)
    (file,) = (folder / "cache" / "edgeq" / "onnx").iterdir()
    stored = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(torch_export, "_to_onnx", None)  # nothing is exported
        assert read(nets).sha256 == first.sha256
    file.write_bytes(stored[:-1])
    assert read(nets).sha256 == first.sha256
    assert file.read_bytes() == stored
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / f"{nets}.py"))  # a file: nothing fits there
    monkeypatch.setenv("LOCALAPPDATA", str(folder / f"{nets}.py"))
    assert read(nets).sha256 == first.sha256


@needs_torch
def test_other_weights_are_another_model(nets: str, folder: Path) -> None:
    checkpoint(folder, weights_of(nets))
    assert read(nets).sha256 != read(nets, "net@net.pt").sha256
    assert len(list((folder / "cache" / "edgeq" / "onnx").iterdir())) == 2


@needs_torch
def test_no_path_of_this_machine_is_in_the_exported_file(nets: str, folder: Path) -> None:
    read(nets)
    (file,) = (folder / "cache" / "edgeq" / "onnx").iterdir()
    assert str(folder).encode() not in file.read_bytes()
