"""What the pages say is so: generated ones are current, commands run, examples compile."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import doctest
import html
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import test_architecture
from click.testing import CliRunner
from conftest import requires

from edgeq import docs, examples, exits, levels, parity, pipeline, policy, report, targets
from edgeq.cli import main

Tool = Callable[[str], tuple[str, ...]]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
FENCE = re.compile(r"^( *)```(\S+)( [^\n]*)?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what the fence says beside it, its text."""

    language: str
    note: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, if it is one."""
        return self.note.removeprefix("file=") if self.note.startswith("file=") else None


def blocks(page: Path) -> list[Block]:
    found = []
    for indent, language, note, text in FENCE.findall(page.read_text("utf-8")):
        plain = "\n".join(line.removeprefix(indent) for line in text.split("\n"))
        found.append(Block(language, note.strip(), plain))
    return found


def run(command: str | Sequence[str], folder: Path) -> str:
    """The output of a command that must succeed, with this Python's programs first on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {name: text for name, text in os.environ.items() if not name.startswith("EDGEQ_")}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**env, "PATH": path, "COLUMNS": "120"},
        shell=isinstance(command, str),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def here(command: str, folder: Path) -> None:
    """Runs a command of edgeq in this process, where fixtures have their effect."""
    program, *arguments = command.split()
    assert program == "edgeq"
    with contextlib.chdir(folder):
        result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, (result.stderr, result.exception)


def follow(page: str, folder: Path, do: Callable[[str, Path], object] = run) -> Path:
    """Does what the page's marked blocks say, in their order; `do` takes a command."""
    for block in blocks(DOCS / page):
        if block.file is not None:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.note == "run" and block.language == "python":
            run([sys.executable, "-c", block.text], folder)
        elif block.note == "run":
            for command in block.text.splitlines():
                do(command, folder)
    return folder


# Generated pages #


def test_generated_pages_are_current() -> None:
    pages = docs.pages()
    assert pages
    stale = [name for name, made in pages.items() if (DOCS / name).read_text("utf-8") != made]
    assert not stale, "run `make docs`"


def test_every_refusal_of_the_sources_is_listed() -> None:
    page = (DOCS / "errors.md").read_text("utf-8")
    sources = [path for folder in ("edgeq", "targets", "exporters") for path in ROOT.glob(folder)]
    files = [file for folder in sources for file in folder.rglob("*.py")]
    ids = {id for file in files for id in re.findall(r'"(EQ0\d{3})"', file.read_text("utf-8"))}
    assert ids
    assert not [id for id in sorted(ids) if f"`{id}`" not in page]


def schema(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DOCS / name).read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(content)
    return content


@pytest.mark.parametrize("name", examples.names())
def test_bundled_policies_follow_the_schema(name: str) -> None:
    file = examples.policy(name)
    parse = tomllib.loads if file.suffix == ".toml" else json.loads
    jsonschema.validate(parse(file.read_text("utf-8")), schema("policy.schema.json"))


def test_policies_in_the_docs_follow_the_schema_and_fit_the_example(tmp_path: Path) -> None:
    found = [block for block in blocks(DOCS / "policy.md") if block.note == "policy"]
    chosen = []
    for block in found:
        parse = tomllib.loads if block.language == "toml" else json.loads
        jsonschema.validate(parse(block.text), schema("policy.schema.json"))
        file = tmp_path / f"policy.{block.language}"
        file.write_text(block.text, encoding="utf-8")
        chosen.append(policy.load(file))
    graph = pipeline.read(examples.path("fashion-resnet8") / "model.onnx").graph
    toml, json_ = (policy.resolve(one, graph) for one in chosen[:2])
    assert toml == json_
    assert toml["stack3.conv1"].weights == 3
    assert chosen[0].calibration == policy.Calibration()  # the page calls them the defaults
    assert len(exits.named(graph, chosen[2].exits)) == 3
    assert levels.resolve(chosen[2], graph, ("dsp",))[1]["fc"] == policy.Bits(8, 8)


# README #


@pytest.fixture(scope="module")
def first_build(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    """The folder in which the README's first command ran."""
    tool("arm-none-eabi-gcc")
    folder = tmp_path_factory.mktemp("readme")
    first = blocks(ROOT / "README.md")[0]
    install, export = first.text.strip().splitlines()
    assert install == 'python -m pip install -c constraints.txt -e ".[mcu]"'
    assert export == "edgeq export --target mcu"
    (folder / "stdout.txt").write_text(run(export, folder), encoding="utf-8")
    return folder


def facts(folder: Path) -> dict[str, Any]:
    file = folder / "build/fashion_resnet8/report.json"
    return dict(json.loads(file.read_text("utf-8")))


@pytest.mark.emulator
def test_the_first_command_of_the_readme_gives_a_checked_build(first_build: Path) -> None:
    found = facts(first_build)
    jsonschema.validate(found, schema("report.schema.json"))
    assert [row["verdict"] for row in found["validate"]["rows"]] == ["exact"] * 4
    assert found["export"]["routing"]["mean_cost"] < 0.4 * found["export"]["routing"]["plain_cost"]
    assert "equal, bit for bit" in (first_build / "stdout.txt").read_text("utf-8")


@pytest.mark.emulator
def test_a_build_holds_what_the_design_lists(first_build: Path) -> None:
    (listing,) = [b.text for b in blocks(DOCS / "design.md") if b.text.startswith("build/NAME/")]
    listed = set(re.findall(r"[\w.]+\.\w+|runtime(?=/)", listing.replace("eq_selftest.*", "")))
    expected = {name.replace("NAME", "fashion_resnet8") for name in listed}
    assert set(os.listdir(first_build / "build/fashion_resnet8")) == expected


@pytest.mark.emulator
def test_the_picture_shows_this_export(first_build: Path) -> None:
    """By what is the same on every machine: accuracy and bits."""
    svg = (DOCS / "export.svg").read_text("utf-8")
    shown = html.unescape(" ".join(re.findall(r">([^<>]+)</text>", svg))).replace("\xa0", " ")
    export = facts(first_build)["export"]
    accuracy = export["accuracy"]
    assert f"accuracy {accuracy['int']:.2%}, float {accuracy['float']:.2%}" in shown
    assert f"{export['bits_per_weight']:.2f} bits a weight" in shown
    assert not [layer["name"] for layer in export["layers"] if layer["kernel"]
                and layer["name"] not in shown], "run `make picture`"  # fmt: skip
    assert "url(http" not in svg


def test_commands_of_the_readme_are_valid_in_cmd_exe() -> None:
    commands = [b.text for b in blocks(ROOT / "README.md") if b.language == "sh"]
    assert commands
    for command in commands:
        assert not re.search(r"['$;`\\]|^\s*(?!python |edgeq )\S", command, re.MULTILINE)


def test_the_test_command_of_the_readme_is_what_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text("utf-8").splitlines()
    (command,) = [line for line in readme if line.startswith("python ") and "pytest" in line]
    assert command.endswith("&& python -m pytest -n auto")
    script = ROOT / ".ci/run"
    assert "grep" in script.read_text("utf-8")
    if os.name == "posix":
        assert os.access(script, os.X_OK)


@pytest.mark.emulator
def test_samples_and_the_next_steps_of_the_readme_run(tmp_path: Path, few_steps: None) -> None:
    folder = follow("samples.md", tmp_path)
    assert (folder / "build/net/report.json").is_file()
    steps = [b.text.strip() for b in blocks(ROOT / "README.md") if "net.onnx" in b.text]
    *exports, where_it_goes, gates = steps
    assert len(exports) == 2
    here(f"{exports[1]} --check none", folder)
    here(exports[0], folder)
    for command in where_it_goes.splitlines():
        here(command, folder)
    shutil.copy(folder / "test.npz", folder / "val.npz")
    for command in gates.splitlines():
        here(command, folder)
    python = re.search(r'`(edgeq\.export\("net.*?\))`', (ROOT / "README.md").read_text("utf-8"))
    assert python is not None
    call = ast.unparse(ast.parse(python[1])).removesuffix(")")
    inputs = "{'x': edgeq.policy.InputSpec(mean=(0.286,), std=(0.353,))}"
    program = f"import edgeq.policy; {call}, check='none', inputs={inputs})"
    run([sys.executable, "-c", program], folder)


def test_the_steps_of_the_edge_page_run(tmp_path: Path) -> None:
    folder = follow("edge.md", tmp_path)
    with np.load(folder / "outputs.npz") as archive:
        assert [array.shape for array in archive.values()] == [(1000, 10)]


@pytest.mark.emulator
def test_the_steps_of_the_page_on_gates_run(tmp_path: Path, few_steps: None) -> None:
    folder = follow("gates.md", tmp_path, here)
    found = json.loads((folder / "build/fashion_tiny/report.json").read_text("utf-8"))
    jsonschema.validate(found, schema("report.schema.json"))
    assert all(row["verdict"] == "exact" for row in found["validate"]["rows"])
    assert found["gate"]["unit"] == "cycles_model"
    other = policy.load(folder / "other.json").gate
    assert other is not None
    assert other.priced.unit == "bops"


# Firmware #


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which every block of firmware.md was followed."""
    return follow("firmware.md", tmp_path_factory.mktemp("firmware"))


TINY = "build/fashion_tiny"
BOTH = "build/fashion_resnet8"  # its runtime has the kernels of both
MAIN = """
#include <stdio.h>
#include "edgeq.h"
int classify_init(void);
int classify(const uint8_t *pixels);
int main(void)
{
    uint8_t pixels[28 * 28];
    if (classify_init() != 0) {
        return 1;
    }
    while (fread(pixels, sizeof pixels, 1, stdin) == 1) {
        printf("%d\\n", classify(pixels));
    }
    return 0;
}
"""


def classes(program: Path) -> list[int]:
    with np.load(examples.path("fashion-tiny") / "test.npz") as archive:
        pixels = archive["x"][:20].tobytes()
    done = subprocess.run([program], input=pixels, capture_output=True, check=True)
    return [int(line) for line in done.stdout.split()]


@pytest.fixture(scope="module")
def predicted() -> list[int]:
    """What the reference says of the first 20 test images."""
    folder = examples.path("fashion-tiny")
    model = pipeline.read(folder / "model.onnx")
    chosen = policy.load(folder / "policy.toml")
    program = pipeline.compile(
        model,
        chosen,
        chosen.input,
        pipeline.read_samples(folder / "calib.npz", model, chosen.input),
        targets.load("mcu"),
        "flash",
        (),
        lambda stage, done, total: None,
    ).program
    samples = pipeline.read_samples(folder / "test.npz", model, chosen.input).take(0, 20)
    (logits,) = parity.predict(program, program.quantize(samples))
    return [int(label) for label in logits.argmax(axis=1)]


def test_the_c_example_computes_what_was_predicted_built_by_make(
    firmware: Path, predicted: list[int], tool: Tool
) -> None:
    (firmware / "main.c").write_text(MAIN, encoding="utf-8")
    run([*tool("make"), "app"], firmware)
    assert classes(firmware / "app") == predicted


def test_the_c_example_computes_what_was_predicted_built_by_cmake(
    firmware: Path, predicted: list[int], tool: Tool
) -> None:
    (firmware / "main.c").write_text(MAIN, encoding="utf-8")
    cmake = tool("cmake")
    run([*cmake, "-S", ".", "-B", "cmake", "-DCMAKE_BUILD_TYPE=Release"], firmware)
    run([*cmake, "--build", "cmake", "--target", "app", "fashion_tiny_selftest"], firmware)
    assert classes(firmware / "cmake/app") == predicted
    assert "0 failed" in run("./cmake/build/fashion_tiny/fashion_tiny_selftest", firmware)


def test_the_self_test_runs_by_the_command_of_the_build(firmware: Path, tool: Tool) -> None:
    tool("cc")
    words = (firmware / TINY / "README.txt").read_text("utf-8")
    (command,) = [line.strip() for line in words.splitlines() if line.strip().startswith("cc ")]
    assert "0 failed" in run(command, firmware / TINY)


@pytest.mark.parametrize("compiler", ["gcc", "clang", "arm-none-eabi-gcc"])
def test_every_c_example_compiles_without_warnings(
    firmware: Path, tool: Tool, compiler: str
) -> None:
    includes = [f"-I{folder}" for folder in (TINY, BOTH, f"{BOTH}/runtime")]
    sources = sorted(b.file for b in blocks(DOCS / "firmware.md") if b.language == "c" and b.file)
    assert sources == ["board_test.c", "classify.c", "partition.c", "two.c"]
    generated = [f"{TINY}/fashion_tiny.c", f"{TINY}/selftest.c", f"{BOTH}/selftest.c"]
    for source in [*sources, *generated]:
        run([*tool(compiler), *STRICT, "-O2", *includes, "-c", source, "-o", "x.o"], firmware)


def test_selftest_c_brings_no_main_to_a_board(firmware: Path, tool: Tool) -> None:
    compiler = [*tool("arm-none-eabi-gcc"), "-mcpu=cortex-m4", "-mthumb", f"-I{TINY}/runtime"]
    run([*compiler, "-c", f"{TINY}/selftest.c", "-o", "selftest.o"], firmware)
    symbols = run([*tool("arm-none-eabi-nm"), "selftest.o"], firmware)
    assert "eq_selftest_tables" in symbols
    assert not re.search(r" T main$", symbols, re.MULTILINE)


def linked(firmware: Path, tool: Tool, main_c: str, *sources: str) -> str:
    """The output of a program of `main_c`, `sources` and the runtime of both models."""
    (firmware / "driver.c").write_text(main_c, encoding="utf-8")
    runtime = sorted(str(file) for file in (firmware / BOTH / "runtime").glob("*.c"))
    includes = [f"-I{folder}" for folder in (TINY, BOTH, f"{BOTH}/runtime")]
    command = [*tool("gcc"), *STRICT, *includes, "driver.c", *sources, *runtime, "-o", "driver"]
    run(command, firmware)
    return run(["./driver"], firmware)


def test_two_models_run_in_one_firmware(firmware: Path, tool: Tool) -> None:
    main_c = "int both_init(void);\nint main(void) { return both_init() ? 1 : 0; }\n"
    models = f"{TINY}/fashion_tiny.c", f"{BOTH}/fashion_resnet8.c"
    linked(firmware, tool, main_c, "two.c", *models)


def test_the_board_test_counts_no_failures(firmware: Path, tool: Tool) -> None:
    main_c = (
        '#include "edgeq.h"\nuint32_t board_test(void);\n'
        "int main(void) { return board_test() ? 1 : 0; }\n"
    )
    (firmware / "tables.c").write_text(
        # as a board compiles it: without the program that it is on a PC
        f'#define EQ_SELFTEST_MAIN_H\n#include "{TINY}/selftest.c"\n',
        encoding="utf-8",
    )
    linked(firmware, tool, main_c, "board_test.c", "tables.c", f"{TINY}/fashion_tiny.c")


PARTITION = """
#include <stdio.h>
#include <string.h>
#include "edgeq.h"
#include "fashion_tiny.h"
eq_status_t start(eq_ctx_t *, const uint8_t *, uint32_t, void *, uint32_t);
static uint8_t partition[65536] EQ_ALIGNED;
static uint8_t arena[FASHION_TINY_ARENA_BYTES] EQ_ALIGNED;
static eq_ctx_t ctx;
int main(void)
{
    memset(partition, 0xFF, sizeof partition);
    if (start(&ctx, partition, sizeof partition, arena, sizeof arena) != EQ_E_LENGTH) {
        return 1;
    }
    FILE *file = fopen("build/fashion_tiny/fashion_tiny.eqb", "rb");
    if (file == NULL || fread(partition, 1, sizeof partition, file) == 0) {
        return 2;
    }
    return start(&ctx, partition, sizeof partition, arena, sizeof arena) == EQ_OK ? 0 : 3;
}
"""


def test_a_model_runs_from_its_own_partition(firmware: Path, tool: Tool) -> None:
    linked(firmware, tool, PARTITION, "partition.c")


# Pages and code #


def text(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


@requires("ai_edge_litert")
def test_the_commands_of_the_tflite_page_run(tmp_path: Path) -> None:
    assert (follow("tflite.md", tmp_path) / "box" / "fashion_tiny.tflite").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_files_exist(page: Path) -> None:
    targets = [t for t in LINK.findall(page.read_text("utf-8")) if not t.startswith("http")]
    assert not [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_on_a_page_exist(page: Path) -> None:
    options = [
        name for command in main.commands.values() for p in command.params for name in p.opts
    ]
    runner = (ROOT / "exporters/run.py").read_text("utf-8")
    options += re.findall(r'"(--[a-z]+)"', runner)
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text("utf-8")))
    assert found <= {*options, "--help", "--upgrade"}  # the last is pip's


def test_the_design_draws_the_arrows_that_are_enforced() -> None:
    (drawing,) = [b.text for b in blocks(DOCS / "design.md") if b.language == "arrows"]
    rows = [row.lstrip(" →").split(", ") for row in drawing.splitlines()]
    assert tuple(tuple(row) for row in rows) == test_architecture.LAYERS


KEYS = {
    "export": report.Export,
    "export.layers[]": report.Layer,
    "export.flash": report.Flash,
    "export.ram": report.Ram,
    "export.not_counted": report.NotCounted,
    "export.budget": report.Budget,
    "export.accuracy": report.Accuracy,
    "validate.rows[]": report.Row,
}


@pytest.mark.parametrize("section", KEYS)
def test_the_design_lists_the_keys_of_the_report(section: str) -> None:
    row = next(r for r in text("design.md").splitlines() if r.startswith(f"| `{section}` |"))
    listed = {name.removesuffix("[]") for name in re.findall(r"`([^`]+)`", row)[1:]}
    fields = {field.name for field in dataclasses.fields(KEYS[section])}
    assert listed - {verdict.value for verdict in report.Verdict} == fields


def test_the_design_shows_the_prototypes_of_the_header() -> None:
    header = (ROOT / "firmware_stubs/runtime/edgeq.h").read_text("utf-8")
    plain = " ".join(re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL).split())
    (block,) = [b for b in blocks(DOCS / "design.md") if b.language == "c"]
    prototypes = re.findall(r"^[^;]*;", block.text, re.MULTILINE)
    assert len(prototypes) == 8
    for prototype in prototypes:
        assert " ".join(prototype.split()) in plain


def test_docstring_examples_run() -> None:
    for file in (ROOT / "edgeq").rglob("*.py"):
        if ">>>" in file.read_text("utf-8"):
            module = importlib.import_module(
                ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            )
            assert doctest.testmod(module).failed == 0
