"""The report: its schema, and what never stands in it."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from programs import few_samples, sample_report

import edgeq
from edgeq import examples, policy, report
from edgeq.build import REPORT
from edgeq.report import Validate, Verdict


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and report.json of a real export."""
    folder = tmp_path_factory.mktemp("report")
    bundled = examples.path("fashion-tiny")
    few_samples(bundled / "test.npz", folder / "few.npz", 20)
    chosen = bundled / "policy.toml"
    edgeq.export(
        bundled / "model.onnx",
        policy=chosen,
        calib=folder / "few.npz",
        data=folder / "few.npz",
        inputs=dict(policy.load(chosen).input),
        out=folder / "build",
        check="none",
    )
    return folder, json.loads((folder / "build" / REPORT).read_text(encoding="utf-8"))


def strings(value: object) -> list[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_a_report_fits_its_schema() -> None:
    content = json.loads(report.dumps(sample_report().to_json()))
    jsonschema.Draft202012Validator(report.schema()).validate(content)


def test_a_real_report_fits_the_schema(real: tuple[Path, dict[str, Any]]) -> None:
    jsonschema.Draft202012Validator(report.schema()).validate(real[1])


@pytest.mark.parametrize("key", ["model", "target", "export", "validate"])
def test_a_report_without_a_section_does_not_fit(key: str) -> None:
    content = json.loads(report.dumps(sample_report().to_json()))
    del content[key]
    with pytest.raises(jsonschema.ValidationError, match=f"'{key}' is a required property"):
        jsonschema.Draft202012Validator(report.schema()).validate(content)


def test_bytes_that_are_no_integer_do_not_fit() -> None:
    content = json.loads(report.dumps(sample_report().to_json()))
    content["export"]["flash"]["weights"] = 3.5
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(report.schema()).validate(content)


def test_a_verdict_of_another_word_does_not_fit() -> None:
    content = json.loads(report.dumps(sample_report().to_json()))
    content["validate"]["rows"][0]["verdict"] = "fine"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(report.schema()).validate(content)


def test_a_real_report_names_no_path_and_no_date(real: tuple[Path, dict[str, Any]]) -> None:
    for text in strings(real[1]):
        assert str(real[0]) not in text
        assert not re.search(r"(^|\s)(/|~|[A-Z]:\\)\w", text)
        assert not re.search(r"\b20\d\d-\d\d|\d\d:\d\d\b", text)


def test_the_same_export_reports_the_same(real: tuple[Path, dict[str, Any]]) -> None:
    folder, content = real
    chosen = examples.path("fashion-tiny") / "policy.toml"
    again = edgeq.export(
        examples.path("fashion-tiny") / "model.onnx",
        policy=chosen,
        calib=folder / "few.npz",
        data=folder / "few.npz",
        inputs=dict(policy.load(chosen).input),
        out=folder / "other" / "place",
        check="none",
    )
    assert json.loads(report.dumps(again.report.to_json())) == content


def test_the_parts_of_a_real_report_add_up(real: tuple[Path, dict[str, Any]]) -> None:
    export = real[1]["export"]
    for memory in (export["flash"], export["ram"]):
        parts = [v for k, v in memory.items() if k not in ("total", "estimated")]
        assert sum(parts) == memory["total"]


def test_an_export_that_executed_nothing_says_so(real: tuple[Path, dict[str, Any]]) -> None:
    export = real[1]["export"]
    assert any(note.startswith("unchecked") for note in export["notes"])
    assert export["flash"]["estimated"]
    assert real[1]["validate"]["rows"] == []


def test_accuracy_is_told_as_fractions(real: tuple[Path, dict[str, Any]]) -> None:
    accuracy = real[1]["export"]["accuracy"]
    assert accuracy["samples"] == 20
    assert 0 < accuracy["int"] <= 1
    assert 0 < accuracy["float"] <= 1


def test_a_verdict_is_one_of_four_words() -> None:
    assert [verdict.value for verdict in Verdict] == ["base", "exact", "differs", "skipped"]


def test_a_verb_replaces_only_its_own_section() -> None:
    before = sample_report()
    after = before.with_validate(Validate(()))
    changed = [f.name for f in fields(before) if getattr(before, f.name) != getattr(after, f.name)]
    assert changed == ["validate"]


def test_json_of_a_build_is_readable_and_ends_its_line() -> None:
    text = report.dumps(sample_report().to_json())
    assert "größe" in text
    assert text.endswith("}\n")
    assert '\n  "schema": 1\n' in text or '\n  "schema": 1,\n' in text


def test_every_value_of_the_report_is_frozen() -> None:
    kinds = [
        kind for kind in vars(report).values() if isinstance(kind, type) and is_dataclass(kind)
    ]
    assert all(kind.__dataclass_params__.frozen for kind in kinds)
