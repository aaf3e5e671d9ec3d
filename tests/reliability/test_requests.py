"""Rows 33 and 44 to 51: requests, providers, hostile texts, and bundles of strangers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.hostile import HOSTILE, quiet
from tests.reliability.conftest import Ends
from tests.reliability.rows import row
from tests.tiny import seal


@pytest.fixture
def image(home: Path) -> str:
    Image.effect_noise((30, 20), 80).save(home / "image.png")
    return "image.png"


@row(
    33,
    "classes of other names than the labels",
    3,
    "E0368 the data's 2 classes do not fit the net's 3",
)
def test_other_classes(ends: Ends, home: Path, bundle: Path) -> None:
    for name in ("ant", "dog"):
        (home / "data" / name).mkdir(parents=True)
        for index in range(3):
            Image.effect_noise((9, 9), 80 + index).save(home / f"data/{name}/{index}.png")
    assert "dog" in ends("verify", "tiny", "--data", "data").err


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
@row(45, "a GPU is asked for where there is none", 4, "E04…")
def test_a_provider_that_is_not_here(ends: Ends, net: Path, target: str) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has a GPU")
    ends("build", "net.onnx", "--target", target, env={"CUDA_VISIBLE_DEVICES": ""})


@row(
    45,
    "a bundle checked on CUDA, run where there is none",
    4,
    "E0402 ONNX Runtime has no CUDAExecutionProvider here …",
)
def test_a_bundle_of_a_gpu(ends: Ends, bundle: Path, image: str) -> None:
    seal(bundle, lambda data: data.update(provider="CUDAExecutionProvider"))
    ends("run", "tiny", image)


@row(46, "onnxruntime and onnxruntime-gpu side by side", 4, "overwrite each other's files")
def test_both_wheels(ends: Ends, home: Path) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = home / f"site/{name}-1.31.1.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.1\n")
    done = ends("doctor", env={"PYTHONPATH": str(home / "site")}, fresh=True)
    assert "pip uninstall" in done.out


SENSELESS = (
    ("bench", "x", "--seconds", "0"),
    ("bench", "x", "--seconds", "-1"),
    ("bench", "x", "--seconds", "nan"),
    ("bench", "x", "--batch", "0"),
    ("build", "net.onnx", "--int8", "--max-drop", "nan"),
    ("build", "net.onnx", "--int8", "--method", "percentile", "--percentile", "0"),
    ("build", "net.onnx", "--int8", "--method", "percentile", "--percentile", "nan"),
    ("build", "net.onnx", "--int8", "--calib-images", "0"),
    ("build", "net.onnx", "--parity-images", "-1"),
    ("build", "net.onnx", "--lock-timeout", "inf"),
    ("limits", "x", "--seconds", "inf"),
    ("limits", "x", "--seconds", "nan"),
    ("limits", "x", "--seconds", "-1"),
)


@pytest.mark.parametrize("arguments", SENSELESS, ids=" ".join)
@row(48, "durations, batches and thresholds of 0, below it, NaN or infinite", 2, "E02…")
def test_senseless_numbers(ends: Ends, net: Path, arguments: tuple[str, ...]) -> None:
    ends(*arguments)


@pytest.mark.parametrize("value", ["abc", "5%x", ""])
@row(
    48, "a share that is no number", 2, "Invalid value for '--max-drop': … is not of the form 0.5%"
)
def test_no_number(ends: Ends, net: Path, value: str) -> None:
    ends("build", "net.onnx", "--int8", "--max-drop", value)


@row(49, "control characters and markup in labels and in a bundle's name", 0, "{{7*7}}")
def test_hostile_labels(ends: Ends, bundle: Path, image: str) -> None:
    (bundle / "labels.txt").write_text("\n".join(f"{HOSTILE}{n}" for n in range(3)))
    seal(bundle, lambda data: data.update(name=HOSTILE, checked_on=HOSTILE))
    for command in (("run", "tiny", image), ("inspect", "tiny"), ("verify", "tiny")):
        done = ends(*command)
        assert quiet(done.out) and quiet(done.err)


@row(49, "control characters in a command", 2, "No such command …")
def test_a_hostile_command(ends: Ends) -> None:
    assert quiet(ends(HOSTILE).err)


@row(49, "control characters in an option", 2, "No such option …")
def test_a_hostile_option(ends: Ends) -> None:
    assert quiet(ends("list", f"--{HOSTILE}").err)


@row(49, "control characters in a value", 2, "Invalid value for '--top': …")
def test_a_hostile_value(ends: Ends) -> None:
    assert quiet(ends("run", "x", "y", "--top", HOSTILE).err)


@row(49, "control characters in an error given as JSON", 3, '{"error": …')
def test_hostile_errors_as_json(ends: Ends, home: Path) -> None:
    done = ends("inspect", HOSTILE.replace("/", ""), "--json")
    assert quiet(done.err) and json.loads(done.err)["error"]["code"] == "E0304"


MANIFESTS = {
    "deep": "[" * 100_000,
    "twice": '{"schema_version": 1, "schema_version": 1}',
    "NaN": '{"schema_version": NaN}',
    "huge integer": '{"schema_version": ' + "9" * 5000 + "}",
    "not UTF-8": "\udcff",
    "none": "",
}


@pytest.mark.parametrize("how", MANIFESTS)
@row(
    50, "a manifest with " + ", ".join(MANIFESTS), 3, "E0302 manifest.json is not readable JSON: …"
)
def test_a_manifest_that_is_no_json(ends: Ends, bundle: Path, how: str) -> None:
    (bundle / "manifest.json").write_text(MANIFESTS[how], errors="surrogateescape")
    ends("inspect", "tiny")


def escaping(data: dict[str, Any]) -> None:
    data["files"]["../x"] = "0" * 64


FIELDS = {
    "another schema": lambda data: data.update(schema_version=99),
    "1e308": lambda data: data.update(golden_tolerance=1e308),
    "a path outside": escaping,
    "a model outside": lambda data: data.update(model="/etc/passwd"),
    "a list as name": lambda data: data.update(name=[]),
}


@pytest.mark.parametrize("how", FIELDS)
@row(50, "a manifest with " + ", ".join(FIELDS), 3, "E0305 the manifest has a bad …")
def test_a_manifest_with_a_bad_field(ends: Ends, bundle: Path, how: str) -> None:
    seal(bundle, FIELDS[how])
    ends("inspect", "tiny")


@row(50, "a manifest with a field that is not known", 0, "hashes agree")
def test_a_manifest_with_more(ends: Ends, bundle: Path) -> None:
    seal(bundle, lambda data: data.update(later={"a": 1}))
    ends("inspect", "tiny")


@row(51, "an archive instead of a bundle; none is unpacked", 3, "E0304 tiny.zip is not a bundle: …")
def test_an_archive(ends: Ends, home: Path, image: str) -> None:
    (home / "tiny.zip").write_bytes(b"PK\x03\x04" + bytes(99))
    ends("run", "tiny.zip", image)
