"""``report verify``: no number that follows from others can be changed unseen."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convexport.benchmarks.report.check import check
from convexport.benchmarks.report.document import REPORT
from convexport.benchmarks.report.render import files
from convexport.benchmarks.samples import pack, unpack
from convexport.runtime.errors import InputError

Path_ = tuple[Any, ...]


@pytest.fixture
def report(make_report: Any) -> Any:
    return json.loads(json.dumps(make_report()))


def checked(report: Any, folder: Path) -> Any:
    (folder / REPORT).write_text(json.dumps(report))
    return check(folder / REPORT)


def leaves(part: Any, where: Path_ = ()) -> Iterator[Path_]:
    """Where single values stand."""
    if isinstance(part, dict | list):
        pairs = part.items() if isinstance(part, dict) else enumerate(part)
        for key, each in pairs:
            yield from leaves(each, (*where, key))
    else:
        yield where


def changed(report: Any, where: Path_) -> Any:
    found = part = copy.deepcopy(report)
    for key in where[:-1]:
        part = part[key]
    old = part[where[-1]]
    if isinstance(old, bool):
        part[where[-1]] = not old
    elif isinstance(old, int):
        part[where[-1]] = old + 1
    elif isinstance(old, float):
        part[where[-1]] = old * 1.01 + 1e-3
    else:
        part[where[-1]] = f"{old}x"
    return found


def test_a_report_as_it_was_written(report: Any, tmp_path: Path) -> None:
    found = checked(report, tmp_path)
    assert found.differences == []
    assert found.samples == 2 * 5 * 400
    assert found.files == 2 * len(report["bundles"][0]["files"])


def test_every_number_of_a_latency_is_computed_again(report: Any, tmp_path: Path) -> None:
    latency = report["latency"]
    places = [
        ("latency", *where)
        for where in leaves({k: v for k, v in latency.items() if k != "recording"})
        if where[0] != "conditions" or where[1] in ("batch", "threads", "floor_ns", "load")
    ]
    assert len(places) > 60
    for where in places[:: max(1, len(places) // 12)]:
        if where[-1] == "speedup":  # the baseline's: another kind of value is refused at once
            continue
        found = checked(changed(report, where), tmp_path)
        assert any(str(where[-1]) in each for each in found.differences), where


def test_one_changed_sample_is_found(report: Any, tmp_path: Path) -> None:
    samples = report["latency"]["recording"]["runs"][3]["models"]["two"]["samples"]
    ns = unpack(samples["ns"]).copy()
    ns[17] *= 2
    samples["ns"] = pack(ns)
    found = checked(report, tmp_path).differences
    assert any("subjects[1].mean_ms" in each for each in found)
    assert not any("subjects[0]" in each for each in found)


def test_a_sample_more_or_a_torn_one_is_found(report: Any, tmp_path: Path) -> None:
    samples = report["latency"]["recording"]["runs"][0]["models"]["one"]["samples"]
    more = np.append(unpack(samples["ns"]), 5)
    for text in (pack(more), samples["ns"][:-8], "", "no base64"):
        samples["ns"] = text
        assert any("recording" in each for each in checked(report, tmp_path).differences)


@pytest.mark.parametrize(
    "where",
    [
        ("bundles", 1, "accuracy", "drop_pp"),
        ("bundles", 1, "accuracy", "p_value"),
        ("bundles", 1, "accuracy", "non_inferior"),
        ("bundles", 1, "accuracy", "only_reference"),
        ("bundles", 1, "layers", "roof_ms"),
        ("bundles", 1, "layers", "fraction"),
        ("bundles", 1, "layers", "layers", 3, "share"),
        ("bundles", 1, "layers", "layers", 3, "fraction"),
        ("bundles", 0, "accuracy", "reference", "share"),
        ("bundles", 0, "verification", "parity", "top1", "low"),
        ("verdict", "verdict"),
        ("verdict", "bundles", "two", "verdict"),
        ("bundles", 0, "model_sha256"),
    ],
)
def test_counted_shares_and_verdicts_are_computed_again(
    report: Any, tmp_path: Path, where: Path_
) -> None:
    assert checked(changed(report, where), tmp_path).differences, where


def test_a_file_beside_it_that_was_changed_is_found(report: Any, tmp_path: Path) -> None:
    with (tmp_path / "two/model.onnx").open("ab") as file:
        file.write(b"x")
    (difference,) = checked(report, tmp_path).differences
    assert difference.startswith("model.onnx: sha256")


def test_a_name_that_leads_out_is_not_followed(report: Any, tmp_path: Path) -> None:
    for name in ("../x", "/etc/passwd"):
        report["bundles"][0]["files"] = {name: {"bytes": 1, "sha256": "0" * 64}}
        assert any("no name inside" in each for each in checked(report, tmp_path).differences)


def test_a_page_of_another_report_is_found(make_report: Any, tmp_path: Path) -> None:
    for name, content in files(make_report()).items():
        (tmp_path / name).write_bytes(content)
    assert check(tmp_path / REPORT).differences == []
    (tmp_path / REPORT).write_bytes((tmp_path / REPORT).read_bytes() + b"\n")
    (difference,) = check(tmp_path / REPORT).differences
    assert difference == "report.html was written from another report.json"


def test_a_report_without_its_parts_is_refused(report: Any, tmp_path: Path) -> None:
    for key in ("verdict", "latency"):
        broken = {name: value for name, value in report.items() if name != key}
        with pytest.raises(InputError, match="E0379"):
            checked(broken, tmp_path)


@pytest.mark.parametrize(
    "where",
    [
        ("latency", "recording"),
        ("scenarios", 0, "samples"),
        ("scenarios", 0, "valid"),
        ("soak", "one", "samples"),
        ("parts", "one", "samples_ns"),
        ("batches", "one", "rows", 0, "samples"),
    ],
)
def test_figures_without_their_samples_are_refused(
    report: Any, tmp_path: Path, where: Path_
) -> None:
    assert checked(report, tmp_path).differences == []
    part = report
    for key in where[:-1]:
        part = part[key]
    del part[where[-1]]
    with pytest.raises(InputError, match="E0379"):
        checked(report, tmp_path)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("bundles", 0, "verification", "parity", "top1"),
         {"k": 0, "n": 0, "low": 0, "high": 0, "share": 0}),
        (("batches", "one", "rows", 0, "samples", "seconds"), 0),
        (("bundles", 0, "accuracy", "reference", "n"), 0),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_ends_without_a_traceback(
    report: Any, tmp_path: Path, where: Path_, value: Any
) -> None:
    part = report
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    try:
        assert checked(report, tmp_path).differences
    except InputError as error:
        assert error.code == "E0379"
