"""The document: its schema, its version, and whom it does not name."""

from __future__ import annotations

import copy
import json
import platform
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from convexport.benchmarks.bundle_subjects import batch_for, read_bundles
from convexport.benchmarks.report.document import (
    MEASURED_WITH_IT,
    NOT_MEASURED,
    REPORT,
    SCHEMA,
    document,
    entries_of,
    of_bundles,
    read_report,
)
from convexport.benchmarks.report.measured import of_benchmark
from convexport.benchmarks.report.render import files
from convexport.runtime.errors import InputError, UsageError
from tests.tiny import seal, write_bundle

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def write(report: dict[str, Any], folder: Path) -> Path:
    for name, content in files(report).items():
        (folder / name).write_bytes(content)
    return folder / REPORT


def test_the_schema_describes_a_report_with_everything(make_report: Any, tmp_path: Path) -> None:
    VALIDATOR.check_schema(VALIDATOR.schema)
    VALIDATOR.validate(json.loads(write(make_report(), tmp_path).read_text()))


def test_the_schema_describes_a_report_with_nothing_measured(tmp_path: Path) -> None:
    report = document(entries_of([write_bundle(tmp_path / "one")]))
    VALIDATOR.validate(json.loads(write(report, tmp_path).read_text()))
    assert report["latency"] == report["bundles"][0]["accuracy"] == NOT_MEASURED
    assert report["verdict"]["verdict"] == "NOT MEASURED"


def test_the_schema_misses_what_is_taken_away(make_report: Any) -> None:
    whole = json.loads(json.dumps(make_report()))

    def refused(part: Any) -> None:
        for key in list(part):
            kept = part.pop(key)
            assert not VALIDATOR.is_valid(whole) or key in ("stages", *MEASURED_WITH_IT), key
            part[key] = kept

    for part in (whole, whole["latency"], whole["latency"]["subjects"][0], whole["bundles"][0]):
        refused(part)
    VALIDATOR.validate(whole)


def test_members_of_a_later_version_are_kept(make_report: Any, tmp_path: Path) -> None:
    report = {**make_report(), "schema_version": "1.7", "humidity": {"percent": 40}}
    found = read_report(write(report, tmp_path))
    assert found["humidity"] == {"percent": 40} and found["schema_version"] == "1.7"
    VALIDATOR.validate(found)
    again = read_report(write(found, tmp_path))
    assert again == found


@pytest.mark.parametrize("version", ["2.0", "10.1", "", 1, None, True, ["1.0"]])
def test_another_major_version_is_refused(make_report: Any, tmp_path: Path, version: Any) -> None:
    path = write(make_report(), tmp_path)
    path.write_text(json.dumps({**read_report(path), "schema_version": version}))
    with pytest.raises(InputError, match="E0376") as error:
        read_report(path)
    assert "convexport 0.1.0" in error.value.hint


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema_version": "1.0"}', "x", '{"a": NaN}',
                                  '{"schema_version": "1.0", "bundles": [3]}'])  # fmt: skip
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / REPORT).write_text(text)
    with pytest.raises(InputError, match=r"E0302|E0376"):
        read_report(tmp_path / REPORT)


def test_nobody_is_named(make_report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home/jane.doe"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(platform, "node", lambda: "workhorse-7")
    words = [f"{home}/net.onnx", "/home/john/images", "workhorse-7:/data", "/Users/jim"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/convexport", "report", *words])
    entries = make_report()["bundles"]
    entries[0]["notes"] = [f"calibrated with {home}/images"]
    text = json.dumps(document(entries))
    for name in ("jane.doe", "john", "workhorse", "Users", str(tmp_path)):
        assert name not in text
    assert "convexport" in text and "~/net.onnx" in text and "calibrated with ~/images" in text


def test_samples_are_not_taken_for_paths(make_report: Any) -> None:
    report = make_report()
    run = report["latency"]["recording"]["runs"][0]["models"]["one"]["samples"]
    run["ns"] = "eJxA/home/abcd/A"
    more = {key: report[key] for key in ("bundles", "latency")}
    found = document(more["bundles"], more["latency"])
    assert found["latency"]["recording"]["runs"][0]["models"]["one"]["samples"]["ns"] == run["ns"]


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda data: data.update(name="other"), "different nets"),
        (lambda data: data["input"].update(name="image"), "different inputs"),
    ],
)
def test_other_nets_and_inputs_do_not_compare(tmp_path: Path, edit: Any, what: str) -> None:
    one, two = (write_bundle(tmp_path / name) for name in ("one", "two"))
    seal(two, edit)
    with pytest.raises(InputError, match=f"E0377 one and two are of {what}"):
        entries_of([one, two])


def test_the_batch_that_a_bundle_insists_on(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "one")
    assert batch_for(read_bundles([bundle]), None) == 1
    seal(bundle, lambda data: data["input"].update(shape=[4, *data["input"]["shape"][1:]]))
    assert batch_for(read_bundles([bundle]), None) == 4


def test_bundles_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [write_bundle(tmp_path / name / "net") for name in ("one", "two")]
    with pytest.raises(UsageError, match="E0267"):
        entries_of(paths)


def test_bundles_that_were_measured_apart_keep_their_own_latency(
    make_report: Any, tmp_path: Path
) -> None:
    report = make_report()
    for name in ("one", "two"):
        own = copy.deepcopy(report)
        own["bundles"] = [each for each in own["bundles"] if each["label"] == name]
        write(document(own["bundles"], own["latency"]), tmp_path / name)
    found = of_bundles([tmp_path / "one", tmp_path / "two"])
    assert found["latency"] == NOT_MEASURED
    assert [each["latency"]["verdict"] for each in found["bundles"]] == ["VALID", "VALID"]
    page = files(found)["report.html"].decode()
    assert "each was measured for itself" in page


def test_what_cpp_measured_keeps_the_parity_of_the_bundles_report(
    make_report: Any, tmp_path: Path
) -> None:
    report = make_report(ms=(10.0,))
    (own,) = report["bundles"]
    alone = {"latency": report["latency"]}  # convexport-bench tells no parity
    assert of_benchmark([tmp_path / "one"], alone)["bundles"][0]["verification"] == NOT_MEASURED
    write(document([own], report["latency"]), tmp_path / "one")
    (found,) = of_benchmark([tmp_path / "one"], alone)["bundles"]
    assert found["verification"] == own["verification"]
    own["verification"]["model_sha256"] = "another"
    write(document([own], report["latency"]), tmp_path / "one")
    assert of_benchmark([tmp_path / "one"], alone)["bundles"][0]["verification"] == NOT_MEASURED
    alone["latency"]["subjects"][0]["sha256"] = "another"
    for given in (alone, {}):
        with pytest.raises(InputError, match="E0375 the benchmark did not measure one"):
            of_benchmark([tmp_path / "one"], given)


def test_a_broken_report_or_benchmark_is_refused(make_report: Any, tmp_path: Path) -> None:
    report = make_report()
    paths = [tmp_path / name for name in ("one", "two")]
    parity = {each["label"]: each["verification"] for each in report["bundles"]}
    written_elsewhere = of_benchmark(paths, {"parity": parity, "latency": report["latency"]})
    assert written_elsewhere["environment"] == report["latency"]["conditions"]["host"]
    with pytest.raises(InputError, match="E0375"):
        of_benchmark(paths, {"parity": parity, "latency": {}})
    for other in ({"schema_version": "2.0", "parity": parity, "latency": report["latency"]}, []):
        with pytest.raises(InputError, match="E0375 this is no benchmark that"):
            of_benchmark(paths, other)
    for path in paths:
        (path / REPORT).write_text(json.dumps({"schema_version": "1.0", "bundles": [{}]}))
    with pytest.raises(InputError, match="E0379"):
        of_bundles(paths)
