"""A build is the same every time, compiles anywhere without warnings, and tests itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

import bundled
import pytest
from conftest import SANITIZERS, Builds, Tool

from edgeq import Build, parity, targets
from edgeq.ir import Array
from edgeq.targets import runners, toolchain
from edgeq.targets.emulators import Board, read_firmware

STUBS = Path(__file__).parents[1] / "firmware_stubs"
WARNINGS = (
    *("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow"),
    *("-Wmissing-prototypes", "-Wvla", "-Werror"),
)
CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-ffreestanding")
CLANG_M4 = ("--target=thumbv7em-none-eabi", *CORTEX_M4)
ZIG_M4 = ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4", "-ffreestanding")
ANYWHERE = "cc -Iruntime runtime/*.c NAME.c selftest.c && ./a.out"  # as README.txt has it


def run(command: str | Sequence[str], folder: Path, status: int = 0) -> str:
    """What a command prints, a shell's if it is one string; it must end with `status`."""
    done = subprocess.run(
        command, cwd=folder, shell=isinstance(command, str), capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by its path there."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}


@pytest.fixture(scope="module")
def build(built: Builds) -> Build:
    """The tiny example with every kernel: all the C there is."""
    return built("fashion-tiny", "gcc", "all")


@pytest.fixture
def copy(build: Build, tmp_path: Path) -> Path:
    """`build` in another folder, to be written to."""
    return shutil.copytree(build.folder, tmp_path / "elsewhere")


# The same every time


@pytest.mark.emulator
@pytest.mark.parametrize(
    ("name", "compiler"), [("fashion-tiny", "gcc"), ("fashion-resnet8", "zig")]
)
def test_an_export_gives_the_same_bytes_twice(
    built: Builds, name: str, compiler: str, tmp_path: Path
) -> None:
    first = files(built(name, compiler).folder)
    again = bundled.load(name).export(tmp_path / "another" / "folder", compiler=compiler)
    assert {"report.json", "manifest.json", runners.FIRMWARE} <= first.keys()
    assert files(again.folder) == first


PYTHON = """\
import edgeq
from edgeq.examples import path
tiny = path("fashion-tiny")
policy, calib = tiny / "policy.toml", tiny / "calib.npz"
edgeq.export(tiny / "model.onnx", policy=policy, calib=calib, out="python")
"""


@pytest.mark.emulator
def test_five_lines_of_python_give_what_the_command_gives(tmp_path: Path, tool: Tool) -> None:
    tool("arm-none-eabi-gcc")
    run([sys.executable, "-c", PYTHON], tmp_path)
    command = Path(sys.executable).parent / "edgeq"
    folder = bundled.load("fashion-tiny").folder
    flags = ["--policy", f"{folder}/policy.toml", "--calib", f"{folder}/calib.npz"]
    run([str(command), "export", f"{folder}/model.onnx", *flags, "-o", "command"], tmp_path)
    assert files(tmp_path / "python") == files(tmp_path / "command") != {}


# Compiles anywhere


GENERATES = ("-O2", "-c", "-o", "object.o")
READS = ("-fsyntax-only",)  # where all warnings come from, unlike gcc's


def compile_strictly(command: Sequence[str], folder: Path, *, does: Sequence[str]) -> None:
    """Compiles every C file of a build, warnings being errors."""
    sources = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.c"))
    assert "selftest.c" in sources
    for source in sources:
        run([*command, *WARNINGS, *does, "-Iruntime", source], folder)


# zig is clang, but for -fsyntax-only
@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("gcc", GENERATES),
        ("clang", READS),
        pytest.param("clang", GENERATES, marks=pytest.mark.nightly),
        pytest.param("zig", GENERATES, marks=pytest.mark.nightly),
    ],
)
def test_a_build_compiles_for_this_machine_without_warnings(
    copy: Path, tool: Tool, name: str, does: tuple[str, ...]
) -> None:
    compile_strictly(tool(name), copy, does=does)


@pytest.mark.parametrize(
    ("name", "flags", "does"),
    [
        ("arm-none-eabi-gcc", CORTEX_M4, GENERATES),
        ("clang", CLANG_M4, READS),
        pytest.param("zig", ZIG_M4, GENERATES, marks=pytest.mark.nightly),
    ],
)
def test_a_build_compiles_for_the_core_without_warnings(
    copy: Path, tool: Tool, name: str, flags: tuple[str, ...], does: tuple[str, ...]
) -> None:
    compile_strictly([*tool(name), *flags], copy, does=does)


# Tests itself


def test_the_self_test_passes_where_edgeq_is_not(build: Build, copy: Path, tool: Tool) -> None:
    tool("cc")
    command = ANYWHERE.replace("NAME", build.report.model)
    assert command in (copy / "README.txt").read_text("utf-8")
    assert run(command, copy) == f"{build.report.model}: 2 passed, 0 failed\n"


def test_the_self_test_fails_on_a_changed_golden_byte(build: Build, copy: Path, tool: Tool) -> None:
    tool("cc")
    text = (copy / "selftest.c").read_text("utf-8")
    value = re.search(r"case0_output0\[\] = \{\s*(-?\d+)", text)
    assert value is not None
    changed = int(value[1]) + (1 if int(value[1]) < 127 else -1)
    text = f"{text[: value.start(1)]}{changed}{text[value.end(1) :]}"
    (copy / "selftest.c").write_text(text, "utf-8")
    name = build.report.model
    assert run(ANYWHERE.replace("NAME", name), copy, status=1) == (
        f"{name}: case 0: byte 0 of output 0 is {value[1]}, expected {changed}\n"
        f"{name}: 1 passed, 1 failed\n"
    )


def test_the_self_test_breaks_no_rule_that_a_sanitizer_knows(
    build: Build, copy: Path, tool: Tool
) -> None:
    tool("cc")
    command = ANYWHERE.replace("NAME", build.report.model)
    assert "0 failed" in run(command.replace("cc ", f"cc {' '.join(SANITIZERS)} ", 1), copy)


def test_cmake_builds_the_library_and_the_self_test(build: Build, copy: Path, tool: Tool) -> None:
    program = f"{build.report.model}_selftest"
    cmake = tool("cmake")[0]
    run([cmake, "-S", ".", "-B", "cmake"], copy)
    run([cmake, "--build", "cmake", "--target", program], copy)
    assert "0 failed" in run(f"cmake/{program}", copy)


def test_make_builds_from_another_folder(copy: Path, tool: Tool) -> None:
    tool("cc")
    rule = "test: $(EDGEQ_SOURCES) net/selftest.c\n\tcc $(EDGEQ_FLAGS) $^ -o $@\n"
    copy.rename(copy.parent / "net")
    (copy.parent / "Makefile").write_text(f"include net/edgeq.mk\n{rule}", "utf-8")
    run([*tool("make"), "test"], copy.parent)
    assert "0 failed" in run("./test", copy.parent)


@pytest.mark.nightly
def test_the_c_tests_break_no_rule_that_a_sanitizer_knows(tmp_path: Path, tool: Tool) -> None:
    """Nightly, since `make check` and CI run them by make; here from a copy."""
    tool("gcc")
    folder = shutil.copytree(STUBS, tmp_path / "stubs", ignore=shutil.ignore_patterns("build"))
    run([*tool("make"), "test-asan", "ASAN_ROUNDS=2000", f"PYTHON={sys.executable}"], folder)


# Two models in one firmware

PAIR = Template("""\
#include "$first.h"
#include "$second.h"

$tables
static uint8_t first_arena[${FIRST}_ARENA_BYTES] EQ_ALIGNED;
static uint8_t second_arena[${SECOND}_ARENA_BYTES] EQ_ALIGNED;
static eq_ctx_t first, second;
volatile int32_t failures = -1;

static void fill(const eq_ctx_t *ctx, const int8_t *values)
{
    const eq_tensor_t *input = eq_input(ctx, 0);
    for (uint32_t i = 0; i < input->bytes; i++) {
        ((int8_t *)input->data)[i] = values[i];
    }
}

static int32_t differs(const eq_ctx_t *ctx, const int8_t *values)
{
    const eq_tensor_t *output = eq_output(ctx, 0);
    int32_t count = 0;
    for (uint32_t i = 0; i < output->bytes; i++) {
        count += ((const int8_t *)output->data)[i] != values[i];
    }
    return count;
}

int main(void)
{
    const eq_config_t configs[] = {
        {${first}_image, ${FIRST}_IMAGE_BYTES, first_arena, sizeof first_arena},
        {${second}_image, ${SECOND}_IMAGE_BYTES, second_arena, sizeof second_arena},
    };
    int32_t count = eq_init(&first, &configs[0]) != EQ_OK || eq_init(&second, &configs[1]) != EQ_OK;
    for (uint32_t i = 0; count == 0 && i < $samples; i++) {
        eq_status_t a = EQ_MORE, b = EQ_MORE;
        fill(&first, first_inputs[i]);
        fill(&second, second_inputs[i]);
        while (a == EQ_MORE || b == EQ_MORE) { /* an operator of each in turns */
            a = a == EQ_MORE ? eq_step(&first) : a;
            b = b == EQ_MORE ? eq_step(&second) : b;
        }
        count += differs(&first, first_outputs[i]) + differs(&second, second_outputs[i]);
    }
    failures = count;
    return count != 0;
}
""")
PAIR_SAMPLES = 3


def rows(name: str, values: Array) -> str:
    """An array of samples in C."""
    flat = values.reshape(len(values), -1)
    body = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in flat)
    return f"static const int8_t {name}[][{flat.shape[1]}] = {{{body}}};\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with both examples, the kernels of both, a program of both; its sources."""
    folder = tmp_path_factory.mktemp("pair")
    names, tables, linked = [], "", []
    for role, example in zip(("first", "second"), ("fashion-resnet8", "fashion-tiny"), strict=True):
        model = tmp_path_factory.mktemp("model") / f"{example}.onnx"
        shutil.copy(bundled.load(example).folder / "model.onnx", model)
        out = folder / role
        made = bundled.load(example).export(out, model=model, check="none", firmware_for=linked)
        names.append(made.report.model)
        linked.append(out / f"{names[-1]}.eqb")
        program = bundled.load(example).compile(bundled.load(example).policy).program
        inputs = bundled.images().inputs(program, PAIR_SAMPLES)
        tables += rows(f"{role}_inputs", next(iter(inputs.values())))
        tables += rows(f"{role}_outputs", parity.predict(program, inputs)[0])
    words = {"first": names[0], "second": names[1], "tables": tables, "samples": PAIR_SAMPLES}
    upper = {"FIRST": names[0].upper(), "SECOND": names[1].upper()}
    (folder / "main.c").write_text(PAIR.substitute(words, **upper), "utf-8")
    shutil.copytree(folder / "second" / "runtime", folder / "runtime")
    runtime = sorted(f"runtime/{file.name}" for file in (folder / "runtime").glob("*.[cS]"))
    models = [f"first/{names[0]}.c", f"second/{names[1]}.c"]
    return folder, ["-Ifirst", "-Isecond", "main.c", *models, *runtime]


def test_two_models_run_in_turns_in_one_program(pair: tuple[Path, list[str]], tool: Tool) -> None:
    folder, sources = pair
    run([*tool("cc"), *SANITIZERS, "-O1", "-Iruntime", *sources, "-o", "both"], folder)
    run("./both", folder)


@pytest.mark.emulator
def test_two_models_run_in_turns_in_one_firmware(
    pair: tuple[Path, list[str]], compiler: str
) -> None:
    folder, sources = pair
    target = targets.load("mcu")
    found = toolchain.find(toolchain.COMPILERS, compiler)
    runners.copy_board(target, folder)
    runners.write_linker_script(folder, target)
    toolchain.build_firmware(
        found, target, [*sources, "startup.c", "harness_start.c"], folder, "both.elf"
    )
    board = Board(read_firmware(folder / "both.elf"), target)
    board.boot()
    assert board.read_word(board.symbol("failures").address) == 0
