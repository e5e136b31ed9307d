"""The house: who may import whom, what stays light, who prints, what an error id means, the wheel.

LAYERS is the drawing of docs/design.md §2 with the modules that exist: a module imports only from
rows above its own. A new module needs a place in it.
"""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from edgeq import errors

REPO = Path(__file__).parents[1]
FOLDERS = ("edgeq", "targets", "exporters")
LAYERS = (
    ("errors", "examples", "firmware_stubs"),
    ("fixedpoint", "weights", "ir", "lanes", "taps"),
    ("gates", "nested", "report"),
    ("gatefile",),
    ("ops", "overlap", "packing", "policy", "affine"),
    ("target", "frontends", "passes", "floatrun", "kernels", "plan", "reference", "exits"),
    ("build", "comparison", "dispatch"),
    ("samples", "calibrate", "sqnr", "targets"),
    ("quantize", "adaround", "program"),
    ("levels",),
    ("exporters",),
    ("pipeline", "budget", "layers", "footprint", "parity"),
    ("formats",),
    ("charts",),
    ("pages",),
    ("assemble", "feasibility", "inventory", "profiler"),
    ("rebuild",),
    ("whatif", "ladder", "costs"),
    ("fit",),
    ("gating",),
    ("api", "docs", "views"),
    ("cli",),
)
FORMAT_LIBRARIES = {"onnx", "onnx_ir", "onnxruntime", "google", "flatbuffers", "tflite"}
FORMAT_ROOMS = {"frontends", "floatrun", "exporters"}
PRINTERS = {"cli", "views"}
PROGRAMS = {"exporters/run.py"}  # is copied into builds, and no part of edgeq there
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "pydantic", "rich")
# Rules of the graph itself: every stage that reads a graph may be the one to find them broken.
SHARED_IDS = {"EQ0303", "EQ0304", "EQ0306", "EQ0307"}
NOT_SHIPPED = {"build", "__pycache__"}

Ids = dict[str, set[tuple[str, str]]]


def room(file: Path, root: Path) -> str:
    """The module or package that `file` belongs to, as LAYERS names it."""
    folder, *rest = file.relative_to(root).with_suffix("").parts
    return rest[0] if folder == "edgeq" else folder


def sources(root: Path = REPO) -> list[Path]:
    return [file for folder in FOLDERS for file in sorted((root / folder).rglob("*.py"))]


def named(file: Path) -> str:
    return file.relative_to(REPO).as_posix()


def imports(file: Path) -> Iterator[str]:
    """Every module that `file` imports, also inside functions; `edgeq` itself left out."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name != "edgeq")
        elif isinstance(node, ast.ImportFrom) and node.module == "edgeq":
            yield from (f"edgeq.{a.name}" for a in node.names if not a.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def packages(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)}


def against_the_arrows(file: Path, root: Path) -> list[str]:
    """The imports of `file` that do not come from a row above its own."""
    row = {name: index for index, names in enumerate(LAYERS) for name in names}
    own = room(file, root)
    wrong = []
    for name in imports(file):
        parts = name.split(".")
        if parts[0] not in ("edgeq", ""):
            continue
        other = parts[1] if parts[0] else "a relative import"
        if other != own and row.get(other, len(LAYERS)) >= row[own]:
            wrong.append(f"{own} imports {other}")
    return wrong


@pytest.mark.parametrize(
    "file", [f for f in sources() if f.stem != "__init__" or f.parent.name != "edgeq"], ids=named
)
def test_a_module_imports_only_from_the_rows_above_it(file: Path) -> None:
    assert against_the_arrows(file, REPO) == []


@pytest.mark.parametrize(
    "line",
    [
        "from edgeq import cli",
        "from edgeq.cli import main",
        "import edgeq.cli",
        "from edgeq.ops import OPS",
        "def late():\n    from edgeq import cli",
        "if True:\n    from edgeq.new import unheard_of",
        "from . import cli",
    ],
)
def test_an_import_against_the_arrows_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "edgeq").mkdir()
    file = tmp_path / "edgeq" / "ir.py"
    file.write_text(f"from edgeq.errors import GraphError\n{line}\n", encoding="utf-8")
    assert len(against_the_arrows(file, tmp_path)) == 1


def test_the_drawing_names_no_module_that_is_gone() -> None:
    there = {room(file, REPO) for file in sources()}
    assert {name for row in LAYERS for name in row} - there <= {"examples", "firmware_stubs"}


@pytest.mark.parametrize("file", sources(), ids=named)
def test_only_the_pytorch_front_end_imports_torch(file: Path) -> None:
    found = packages(file) & {"torch", "onnxscript"}
    assert not found or file.stem.startswith("torch_")


@pytest.mark.parametrize("file", sources(), ids=named)
def test_format_libraries_stay_where_formats_are_read_and_written(file: Path) -> None:
    if room(file, REPO) not in FORMAT_ROOMS:
        assert not packages(file) & FORMAT_LIBRARIES


def prints(tree: ast.AST) -> bool:
    """Whether the code writes to the terminal."""
    for node in ast.walk(tree):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called in ("print", "click.echo", "click.secho", "logging.basicConfig"):
            return True
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
            return True
    return False


@pytest.mark.parametrize("file", sources(), ids=named)
def test_only_the_command_line_and_the_views_print(file: Path) -> None:
    if room(file, REPO) not in PRINTERS and named(file) not in PROGRAMS:
        assert not prints(ast.parse(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "code", ["print(1)", "import sys\nsys.stderr.write('x')", "click.echo('')"]
)
def test_printing_is_found(code: str) -> None:
    assert prints(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "import edgeq",
        "import edgeq; edgeq.EdgeqError",
        "from edgeq.cli import main; main(['--help'], standalone_mode=False)",
        "from edgeq.cli import main; main(['export', '--help'], standalone_mode=False)",
    ],
)
def test_what_answers_at_once_loads_nothing_heavy(code: str) -> None:
    script = f"import sys\n{code}\nprint('LOADED', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = done.stdout.rpartition("LOADED")[2].split()
    assert "edgeq" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@cache
def error_ids() -> Ids:
    """For every id in the sources the (room, exception class) pairs that raise it."""
    found: Ids = defaultdict(set)
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                first = node.args[0].value
                if isinstance(first, str) and first.startswith("EQ0"):
                    found[first].add((room(file, REPO), ast.unparse(node.func)))
    return found


def exit_codes() -> dict[str, int]:
    """The exit code of every exception class in the sources."""
    bases = {"EdgeqError": "Exception"}
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.bases:
                bases[node.name] = ast.unparse(node.bases[0])
    codes = {}
    for name in bases:
        known = name
        while not hasattr(errors, known) and known in bases:
            known = bases[known]
        if hasattr(errors, known):
            codes[name] = getattr(errors, known).exit_code
    return codes


def test_an_error_id_carries_the_exit_code_of_its_class() -> None:
    codes = exit_codes()
    found = {id: {codes[kind] for _, kind in raised} for id, raised in error_ids().items()}
    assert found == {id: {int(id[3])} for id in found} != {}


def test_an_error_id_belongs_to_one_room() -> None:
    found = {id: {room for room, _ in raised} for id, raised in error_ids().items()}
    assert {id: rooms for id, rooms in found.items() if len(rooms) > 1}.keys() <= SHARED_IDS


def test_an_error_id_is_one_kind_of_error() -> None:
    found = {id: {kind for _, kind in raised} for id, raised in error_ids().items()}
    assert {id: kinds for id, kinds in found.items() if len(kinds) > 1} == {}


def test_an_id_of_another_kind_cannot_be_raised() -> None:
    with pytest.raises(AssertionError, match="EQ0301 is no id of a UsageError"):
        errors.UsageError("EQ0301", "wrong")


def test_every_exit_code_has_one_class_of_errors() -> None:
    codes = [
        kind.exit_code
        for kind in errors.EdgeqError.__subclasses__()
        if kind.__module__ == errors.__name__
    ]
    assert sorted(codes) == [2, 3, 4, 5, 6, 7]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """The files of the wheel that this tree gives."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is missing")
    tree = tmp_path_factory.mktemp("wheel")
    for name in ("edgeq", "targets", "exporters", "firmware_stubs", "examples"):
        shutil.copytree(
            REPO / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.o")
        )
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(REPO / name, tree / name)
    (tree / "README.md").touch()
    command = [
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        "out",
        ".",
    ]
    done = subprocess.run(
        [sys.executable, *command], cwd=tree, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tree / "out").glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return frozenset(archive.namelist())


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("edgeq", "**/*.py"),
        ("edgeq", "py.typed"),
        ("targets", "*"),
        ("exporters", "*"),
        ("firmware_stubs", "*.toml"),
        ("firmware_stubs", "runtime/*"),
        ("firmware_stubs", "kernels/*"),
        ("firmware_stubs", "boards/*/*"),
        ("examples", "*/*"),
    ],
)
def test_the_wheel_holds_every_file_that_edgeq_needs(
    wheel: frozenset[str], folder: str, pattern: str
) -> None:
    files = [
        f for f in (REPO / folder).glob(pattern) if f.is_file() and f.suffix not in (".pyc", ".o")
    ]
    prefix = "" if folder == "edgeq" else "edgeq/"
    wanted = {prefix + f.relative_to(REPO).as_posix() for f in files}
    assert wanted
    assert wanted - wheel == set()


def test_the_wheel_installs_no_package_but_edgeq(wheel: frozenset[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"edgeq"}


def test_the_wheel_holds_nothing_that_a_build_left_behind(wheel: frozenset[str]) -> None:
    assert [n for n in wheel if NOT_SHIPPED & set(n.split("/")) or n.endswith((".o", ".elf"))] == []
