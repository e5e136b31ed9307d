"""The C build: sources that a compiler takes, holding the same bytes as the image."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from graphs import Builder, random_graph
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs import SHA256, compiled

from edgeq import kernels, parity, pipeline
from edgeq.errors import IntegrityError
from edgeq.exporters import c_arrays, image
from edgeq.exporters.c_arrays import Case
from edgeq.policy import InputSpec
from edgeq.program import Program

STUBS = Path(__file__).parents[1] / "firmware_stubs"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
LABELS = ('6" pipe', "back\\slash", "größe", "what??!", "%d\n1", "*/ int x; /*", "日本")
SPECS = {"picture": InputSpec(mean=(0.1, 0.5), std=(0.5,))}
Tool = Callable[[str], tuple[str, ...]]


@cache
def program() -> Program:
    """Two inputs, one of them raw bytes, and labels that are hard to write in C."""
    b = Builder("pair")
    x = b.conv(b.input(6, 6, 2, name="picture"), 3)
    y = b.conv(b.input(6, 6, 1, name="depth"), 3, 1)
    graph = b.build(b.fully_connected(b.flatten(b.global_average_pool(b.add(x, y))), len(LABELS)))
    return compiled(graph, 5, specs=SPECS, labels=LABELS).program


def cases(p: Program, count: int = 2) -> list[Case]:
    """Golden vectors: raw bytes where the input has a table."""
    rng = np.random.default_rng(0)
    given_, inputs = {}, []
    for port in p.inputs:
        shape = (count, *port.tensor.shape[1:])
        raw = rng.integers(0, 256, shape).astype(np.uint8)
        x = raw if port.lut is not None else rng.normal(size=shape).astype(np.float32)
        given_[port.tensor.name] = port.quantize(x)
        inputs.append(x if port.lut is not None else port.quantize(x))
    outputs = parity.predict(p, given_)
    return [
        Case(tuple(x[i : i + 1] for x in inputs), tuple(y[i] for y in outputs))
        for i in range(count)
    ]


@dataclass(frozen=True)
class Written:
    """An exported folder and the image that it holds."""

    folder: Path
    image: image.Image

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def files(self) -> dict[str, bytes]:
        found = sorted(f for f in self.folder.rglob("*") if f.is_file())
        return {f.relative_to(self.folder).as_posix(): f.read_bytes() for f in found}


def export(folder: Path, p: Program) -> Written:
    folder.mkdir()
    return Written(folder, c_arrays.export(p, folder, cases(p), p.kernels))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return export(tmp_path_factory.mktemp("c") / "build", program())


def run(cc: tuple[str, ...], folder: Path, program: Path, *sources: str | Path) -> str:
    """What the program of these sources prints: README.txt's command, but stricter."""
    runtime = sorted((folder / "runtime").glob("*.c"))
    command = [*cc, *WARNINGS, "-Iruntime", "-I.", *runtime, *sources, "-o", program]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, encoding="utf-8")
    assert done.returncode == 0, done.stdout
    return done.stdout


def numbers(text: str, array: str) -> list[int]:
    """The values of a C array."""
    plain = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    body = re.search(rf"\b{array}(?:\[\w*\])+(?: EQ_ALIGNED)? = \{{(.*?)\}};", plain, re.S)
    assert body is not None
    return [int(n) for n in re.findall(r"-?\d+", body[1])]


def macros(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"#define (\w+) (\d+)u", text)}


# A build


def test_a_build_holds_its_files(written: Written) -> None:
    names = {name for name in written.files() if "/" not in name}
    assert names == {
        "pair.h", "pair.c", "pair.eqb", "selftest.c", "CMakeLists.txt", "edgeq.mk", "README.txt",
    }  # fmt: skip


def test_the_selftest_passes_on_this_machine(written: Written, tool: Tool, tmp_path: Path) -> None:
    said = run(tool("cc"), written.folder, tmp_path / "a.out", "pair.c", "selftest.c")
    assert said == "pair: 2 passed, 0 failed\n"


def test_a_wrong_golden_vector_fails_the_selftest(tmp_path: Path, tool: Tool) -> None:
    p = program()
    right, wrong = cases(p)
    off = replace(wrong, outputs=tuple(y ^ 1 for y in wrong.outputs))
    c_arrays.export(p, tmp_path, [right, off], p.kernels)
    with pytest.raises(AssertionError, match="1 passed, 1 failed"):
        run(tool("cc"), tmp_path, tmp_path / "a.out", "pair.c", "selftest.c")


def test_labels_arrive_as_they_were_given(written: Written, tmp_path: Path, tool: Tool) -> None:
    source = tmp_path / "labels.c"
    source.write_text(
        '#include <stdio.h>\n#include "pair.h"\n'
        "int main(void) { for (unsigned i = 0; i < PAIR_LABELS; i++) "
        "{ fputs(pair_labels[i], stdout); fputc(0, stdout); } return 0; }\n"
    )
    said = run(tool("cc"), written.folder, tmp_path / "a.out", "pair.c", source)
    assert said.split("\0")[:-1] == list(LABELS)


def test_two_models_link_into_one_firmware(tmp_path: Path, tool: Tool) -> None:
    b = Builder("other")
    other = compiled(b.build(b.fully_connected(b.input(5), 3))).program
    for p in (program(), other):
        made = export(tmp_path / p.name, p)
        for name in (f"{p.name}.c", f"{p.name}.h"):
            (tmp_path / name).write_text(made.text(name), encoding="utf-8")
    c_arrays.write_runtime(tmp_path / "runtime", kernels.table())
    (tmp_path / "main.c").write_text(
        '#include "pair.h"\n#include "other.h"\n'
        "int main(void) { return pair_image[0] == 'E' && other_image[0] == 'E' ? 0 : 1; }\n"
    )
    run(tool("cc"), tmp_path, tmp_path / "a.out", "pair.c", "other.c", "main.c")


# Its contents


@pytest.mark.parametrize("seed", range(6))
def test_the_array_in_c_is_the_file_byte_for_byte(tmp_path: Path, seed: int) -> None:
    p = compiled(random_graph(seed), 3).program
    made = export(tmp_path / "build", p)
    data = (made.folder / f"{p.name}.eqb").read_bytes()
    assert bytes(numbers(made.text(f"{p.name}.c"), f"{p.name}_image")) == data
    assert data == made.image.data


def test_the_header_states_sizes(written: Written) -> None:
    assert macros(written.text("pair.h")) == {
        "PAIR_IMAGE_BYTES": len(written.image.data),
        "PAIR_ARENA_BYTES": program().plan.arena_bytes,
        "PAIR_INPUT_LUT_CHANNELS": 2,
        "PAIR_LABELS": len(LABELS),
    }


def test_the_table_of_raw_bytes_is_the_programs(written: Written) -> None:
    (lut,) = (port.lut for port in program().inputs if port.lut is not None)
    assert numbers(written.text("pair.c"), "pair_input_lut") == lut.reshape(-1).tolist()


def test_golden_vectors_are_those_that_were_given(written: Written) -> None:
    text = written.text("selftest.c")
    for number, case in enumerate(cases(program())):
        for kind, arrays in (("input", case.inputs), ("output", case.outputs)):
            for port, values in enumerate(arrays):
                got = numbers(text, f"case{number}_{kind}{port}")
                assert got == values.reshape(-1).tolist()


@pytest.mark.parametrize("name", ["pair.h", "pair.c", "selftest.c"])
def test_a_source_says_what_it_was_generated_from(written: Written, name: str) -> None:
    head = written.text(name).split("*/")[0]
    assert head.startswith("/* Generated by edgeq ")
    assert f"model SHA-256 {SHA256}" in head
    assert "target stm32f405" in head


def test_no_date_and_no_path_enters_a_build(written: Written) -> None:
    for name, data in written.files().items():
        text = data.decode("latin-1")
        assert str(written.folder.parent) not in text, name
        assert "/tmp" not in text, name
        assert not re.search(r"20\d\d-\d\d-\d\d|__DATE__|__TIME__", text), name


def test_the_same_program_gives_the_same_files(written: Written, tmp_path: Path) -> None:
    again = export(tmp_path / "elsewhere", program()).files()
    assert again == written.files()


def test_every_line_ends_as_on_unix(written: Written) -> None:
    texts = {n: data for n, data in written.files().items() if not n.endswith(".eqb")}
    assert [name for name, data in texts.items() if b"\r" in data] == []


def test_generated_c_is_constants_only(written: Written) -> None:
    plain = re.sub(
        r"/\*.*?\*/|\".*?\"", "", written.text("pair.c") + written.text("selftest.c"), flags=re.S
    )
    assert not re.search(r"\b(for|while|if|return|goto|switch)\b", plain)


NASTY = ("*/ int evil; /*", "line\nbreak", "/* nested", "??/\n#error", "\u202eright to left")


@pytest.mark.parametrize("name", NASTY)
def test_a_name_from_a_model_file_stays_inside_its_comment(
    tmp_path: Path, tool: Tool, name: str
) -> None:
    p = program()
    ports = tuple(replace(i, port=replace(i.port, name=name)) for i in p.inputs)
    made = export(tmp_path / "build", replace(p, inputs=ports))
    header = made.text("pair.h")
    assert "evil" not in re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    assert all(line.isprintable() for line in header.splitlines())
    (tmp_path / "build" / "one.c").write_text('#include "pair.h"\n')
    command = [*tool("cc"), *WARNINGS, "-Wcomment", "-Iruntime", "-fsyntax-only", "one.c"]
    subprocess.run(command, cwd=made.folder, check=True, timeout=60)


# Runtime


def test_the_runtime_has_exactly_the_kernels_that_are_linked(tmp_path: Path) -> None:
    chosen = kernels.table()[2:4]
    c_arrays.write_runtime(tmp_path / "runtime", reversed(chosen))
    names = {file.name for file in (tmp_path / "runtime").iterdir()}
    sources = {f.name for f in (STUBS / "runtime").iterdir() if f.suffix in (".c", ".h")}
    assert names == sources | {row.file for row in chosen} | {"eq_kernels.c"}


def test_the_kernel_list_is_sorted_by_id(tmp_path: Path) -> None:
    c_arrays.write_runtime(tmp_path / "runtime", reversed(kernels.table()))
    text = (tmp_path / "runtime" / "eq_kernels.c").read_text(encoding="utf-8")
    assert text == c_arrays.kernel_list(kernels.table())


@pytest.mark.parametrize("seed", range(6))
def test_an_images_kernels_are_those_of_its_program(seed: int) -> None:
    p = compiled(random_graph(seed)).program
    assert c_arrays.kernels_of(image.build(p).data) == p.kernels


def test_an_image_that_needs_an_unknown_kernel_is_refused() -> None:
    data = bytearray(image.build(program()).data)
    data[image.HEADER.size - 13] |= 0x80  # kernel 127
    with pytest.raises(IntegrityError, match="EQ0702"):
        c_arrays.kernels_of(bytes(data))


# Names


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(max_size=20))
@example("")
@example("123")
@example("_")
@example("ſ")
def test_any_text_becomes_a_c_identifier(text: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", pipeline.identifier(text))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(max_size=20))
def test_an_identifier_is_its_own_identifier(text: str) -> None:
    once = pipeline.identifier(text)
    assert pipeline.identifier(once) == once


def taken() -> set[str]:
    """Names of files that stand, or are included, beside a model's own."""
    folders = ("runtime/*.[ch]", "kernels/*.[ch]", "boards/*/*.[ch]")
    ours = [file for folder in folders for file in STUBS.glob(folder)]
    texts = [file.read_text(encoding="utf-8") for file in ours]
    included = {name for text in texts for name in re.findall(r'#include [<"](\w+)\.h', text)}
    return included | {file.stem for file in ours} | {"selftest", "eq"}


@pytest.mark.parametrize("name", sorted(taken()))
def test_a_model_does_not_take_a_name_of_the_runtime_or_of_c(name: str) -> None:
    assert pipeline.identifier(name) not in taken()


def test_ordinary_names_stay_as_they_are() -> None:
    names = ["net", "resnet8", "timer", "maintenance", "equalizer", "float16_net"]
    assert [pipeline.identifier(name) for name in names] == names
