"""Sample files: what is read from them, and every way in which one is refused."""

from __future__ import annotations

import contextlib
import io
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq import samples
from edgeq.errors import UsageError
from edgeq.frontends import Port
from edgeq.policy import InputSpec
from edgeq.samples import Samples

IMAGE = Port("image", "image_tensor", (1, 2, 3, 4), "NCHW")
VECTOR = Port("vector", "vector_tensor", (1, 5), "NC")
SPEC = InputSpec(mean=(0.5,), std=(0.25,))
DAMAGED = 400  # files with random damage, each must load or be refused
Array = np.ndarray[Any, Any]


def reals(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def read(
    folder: Path,
    specs: Mapping[str, InputSpec] | None = None,
    ports: tuple[Port, ...] = (IMAGE,),
    **arrays: Any,
) -> Samples:
    path = folder / "samples.npz"
    np.savez(path, **arrays)
    return samples.load(path, ports, specs or {}, 10)


def load(path: Path, content: bytes | None = None) -> Samples:
    if content is not None:
        path.write_bytes(content)
    return samples.load(path, (IMAGE,), {}, 10)


def packed(**arrays: Array) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def member(name: str, data: bytes) -> bytes:
    """A zip file with one file in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
    return file.getvalue()


def refused(id: str, *words: str) -> pytest.RaisesExc[UsageError]:
    return pytest.raises(UsageError, check=lambda e: e.id == id and all(w in str(e) for w in words))


# What is read


def test_images_arrive_channels_last(tmp_path: Path) -> None:
    x = reals(7, 2, 3, 4)
    assert (read(tmp_path, image=x).inputs["image_tensor"] == np.moveaxis(x, 1, 3)).all()


def test_an_array_called_x_serves_for_the_only_input(tmp_path: Path) -> None:
    assert len(read(tmp_path, x=reals(7, 2, 3, 4))) == 7


def test_the_inputs_own_name_goes_before_x(tmp_path: Path) -> None:
    x = reals(7, 2, 3, 4)
    both = read(tmp_path, image=x, x=np.zeros_like(x))
    assert both.inputs["image_tensor"].any()


def test_every_input_is_read_by_its_name(tmp_path: Path) -> None:
    found = read(tmp_path, None, (IMAGE, VECTOR), image=reals(3, 2, 3, 4), vector=reals(3, 5))
    assert [a.shape for a in found.inputs.values()] == [(3, 3, 4, 2), (3, 5)]


@pytest.mark.parametrize("kind", ["float16", "float64", ">f4"])
def test_every_width_of_float_becomes_float32(tmp_path: Path, kind: str) -> None:
    found = read(tmp_path, x=reals(3, 2, 3, 4).astype(kind))
    assert found.inputs["image_tensor"].dtype == np.float32


def test_labels_are_optional(tmp_path: Path) -> None:
    assert read(tmp_path, x=reals(3, 2, 3, 4)).labels is None


def test_labels_are_read_whatever_their_width(tmp_path: Path) -> None:
    found = read(tmp_path, x=reals(3, 2, 3, 4), y=np.array([9, 0, 3], np.uint8))
    assert found.labels is not None
    assert found.labels.tolist() == [9, 0, 3]


def test_raw_bytes_stay_bytes_until_reals_are_asked_for(tmp_path: Path) -> None:
    raw = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    found = read(tmp_path, {"image": SPEC}, x=raw)
    assert found.inputs["image_tensor"].dtype == np.uint8
    assert (found.real()["image_tensor"] == SPEC.real(np.moveaxis(raw, 1, 3))).all()


def test_floats_are_reals_already_whatever_the_section_says(tmp_path: Path) -> None:
    x = reals(1, 2, 3, 4)
    found = read(tmp_path, {"image": SPEC}, x=x)
    assert (found.real()["image_tensor"] == np.moveaxis(x, 1, 3)).all()


def test_a_part_holds_its_own_samples_and_labels(tmp_path: Path) -> None:
    part = read(tmp_path, x=reals(5, 2, 3, 4), y=np.arange(5)).take(1, 3)
    assert len(part) == 2
    assert part.labels is not None
    assert part.labels.tolist() == [1, 2]


# Files


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with refused("EQ0220", "no such file"):
        load(tmp_path / "none.npz")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with refused("EQ0220", "no readable .npz"):
        load(tmp_path)


WHOLE = packed(x=reals(3, 2, 3, 4), y=np.arange(3))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"PK\x03\x04",
        WHOLE[:-10],
        WHOLE[: len(WHOLE) // 2],
        member("x.npy", b"hello"),
        member("x", b"hello"),
        member("x.npy", b"\x93NUMPY\x01\x00\x00\x00"),
    ],
    ids=["empty", "text", "zip magic", "short", "half", "no npy", "no npy suffix", "npy magic"],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    with refused("EQ0220"):
        load(tmp_path / "samples.npz", content)


def test_an_array_that_claims_more_than_memory_is_refused(tmp_path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000000,), }"
    text = header.encode().ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    with refused("EQ0220"):
        load(tmp_path / "samples.npz", member("x.npy", data))


def test_damage_anywhere_is_refused_or_does_no_harm(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(DAMAGED):
        content = bytearray(WHOLE)
        for _ in range(rng.choice((1, 1, 4))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        short = len(content) - rng.choice((0, 0, 1))
        with contextlib.suppress(UsageError):
            load(tmp_path / "samples.npz", bytes(content[:short]))


def test_a_single_array_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "samples.npy"
    np.save(path, reals(3, 2, 3, 4))
    with refused("EQ0220", "np.savez(x=…)"):
        load(path)


def test_pickled_objects_are_refused_unread(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    with refused("EQ0220", "Python objects"):
        read(tmp_path, x=np.array([Trap()], dtype=object))
    assert not (tmp_path / "sprung").exists()


# Arrays


def test_a_name_that_is_no_input_is_refused_with_what_is_there(tmp_path: Path) -> None:
    with refused("EQ0221", "no array image or x", "it holds picture"):
        read(tmp_path, picture=reals(3, 2, 3, 4))


def test_x_does_not_serve_where_there_are_several_inputs(tmp_path: Path) -> None:
    with refused("EQ0221", "no array image;"):
        read(tmp_path, None, (IMAGE, VECTOR), x=reals(3, 2, 3, 4), vector=reals(3, 5))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with refused("EQ0221", "it holds nothing"):
        read(tmp_path)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), ()])
def test_no_samples_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with refused("EQ0222", "holds no samples"):
        read(tmp_path, x=np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(3, 3, 4, 2), (3, 24), (2, 3, 4), (3,), (3, 2, 3, 4, 1)])
def test_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with refused("EQ0223", "the model takes (2, 3, 4)"):
        read(tmp_path, x=np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "kind", ["int8", "int32", "uint16", "complex64", "bool", "U3", "S3", "M8[s]"]
)
def test_another_type_is_refused(tmp_path: Path, kind: str) -> None:
    with refused("EQ0224", "float32 or raw uint8"):
        read(tmp_path, x=np.zeros((3, 2, 3, 4), kind))


def test_raw_bytes_without_a_meaning_are_refused(tmp_path: Path) -> None:
    with refused("EQ0224", "no [input.image]"):
        read(tmp_path, x=np.zeros((3, 2, 3, 4), np.uint8))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_no_float32_are_refused(tmp_path: Path, value: float) -> None:
    x = np.zeros((3, 2, 3, 4))
    x[1, 0, 2, 3] = value
    with refused("EQ0225", "x holds NaN or infinite"):
        read(tmp_path, x=x)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0.0, 1.0, 2.0]),
        np.array([[0], [1], [2]]),
        np.array([0, 1, -1]),
        np.array([0, 1, 10]),
        np.array([0, 1, 2**63], np.uint64),
        np.array(["0", "1", "2"]),
        np.array([True, False, True]),
        np.array(1),
    ],
    ids=["float", "2-D", "negative", "too great", "beyond int64", "text", "bool", "scalar"],
)
def test_labels_that_are_no_class_are_refused(tmp_path: Path, labels: Array) -> None:
    with refused("EQ0226", "label"):
        read(tmp_path, x=reals(3, 2, 3, 4), y=labels)


def test_a_label_too_few_is_refused(tmp_path: Path) -> None:
    with refused("EQ0223", "disagree on the number of samples"):
        read(tmp_path, x=reals(3, 2, 3, 4), y=np.arange(2))


def test_inputs_of_different_counts_are_refused(tmp_path: Path) -> None:
    with refused("EQ0223", "disagree"):
        read(tmp_path, None, (IMAGE, VECTOR), image=reals(3, 2, 3, 4), vector=reals(4, 5))
