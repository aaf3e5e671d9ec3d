"""Manifests and files from strangers: what does not fit is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convexport.runtime.bundle import read_manifest
from convexport.runtime.engine import load
from convexport.runtime.errors import InputError

Seal = Callable[..., Path]


@pytest.mark.parametrize("name", ["model.onnx", "labels.txt", "sample/expected.npy"])
@pytest.mark.parametrize("what", ["changed", "cut", "missing", "link", "directory"])
def test_a_file_that_is_not_what_was_built_is_refused(
    bundle: Path, tmp_path: Path, name: str, what: str
) -> None:
    path, content = bundle / name, (bundle / name).read_bytes()
    if what == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif what == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    if what == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "directory":
        path.mkdir()
    with pytest.raises(InputError, match=path.name) as error:
        load(bundle)
    assert error.value.code == "E0306"


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "sub/../../x", "..\\x", "", ".", "a\0b", "x" * 300, "\ud800"]
)
def test_a_name_that_leads_elsewhere_is_refused(bundle: Path, name: str, seal: Seal) -> None:
    seal(bundle, lambda data: data["files"].update({name: "0" * 64}))
    with pytest.raises(InputError) as error:
        load(bundle)
    assert error.value.code == "E0305"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"schema_version": NaN}',
        '{"schema_version": Infinity}',
        '{"schema_version": 1, "schema_version": 1}',
        '{"schema_version": 2}',
        '{"schema_version": "1"}',
        '{"schema_version": ' + "9" * 5000 + "}",
        '{"schema_version": 1}',
        "\ufeff{}",
    ],
    ids=lambda text: text[:30],
)
def test_a_manifest_that_is_none_is_refused(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(InputError):
        read_manifest(bundle)


def test_a_manifest_in_another_encoding_is_refused(bundle: Path) -> None:
    content = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(content, encoding="utf-16")
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_manifest(bundle)


KEYS = (
    "schema_version", "name", "precision", "target", "runtime", "provider", "model", "reference",
    "input", "output", "preprocess", "weights", "output_kind", "golden_tolerance", "files",
)  # fmt: skip
ANY_TEXT = ("name", "target", "runtime", "provider")


@pytest.mark.parametrize("key", KEYS)
def test_a_field_of_the_wrong_kind_is_refused(bundle: Path, key: str, seal: Seal) -> None:
    for value in (None, 7, [], {}, True, 1e308, "x" * 10_000):
        if key in ANY_TEXT and isinstance(value, str):
            continue
        seal(bundle, lambda data, value=value: data.update({key: value}))
        with pytest.raises(InputError):
            read_manifest(bundle)
    seal(bundle, lambda data: data.pop(key))
    with pytest.raises(InputError):
        read_manifest(bundle)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("precision", "int4"),
        ("output_kind", "loggits"),
        ("layers", []),
        ("graph", "x"),
        ("golden_tolerance", 0.0),
        ("golden_tolerance", 1.5),
        ("weights", {"kind": "bought"}),
        ("input", {"name": "input", "shape": ["batch", 1, 2, 2]}),
        ("input", {"name": "input", "shape": [None, 1, 2, 2], "dtype": "float32"}),
        ("output", {"name": "logits", "shape": ["batch", "classes"], "dtype": "float32"}),
        ("output", {"name": "logits", "shape": [3], "dtype": "float32"}),
        ("preprocess", {"std": [0.0]}),
        ("preprocess", {"mean": [None]}),
        ("preprocess", {"mean": [10**400]}),
        ("preprocess", {"crop": [2.0, 2.0]}),
        ("preprocess", {"crop": [True, 2]}),
        ("preprocess", {"crop": [1, 1]}),
        ("files", {"model.onnx": "0" * 64}),
        ("model", "other.onnx"),
    ],
    ids=str,
)
def test_a_field_that_makes_no_sense_is_refused(
    bundle: Path, key: str, value: Any, seal: Seal
) -> None:
    def edit(data: dict[str, Any]) -> None:
        data[key] = {**data[key], **value} if key == "preprocess" else value

    seal(bundle, edit)
    with pytest.raises(InputError):
        read_manifest(bundle)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), Path.touch])
def test_what_is_no_bundle_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "thing")
    with pytest.raises(InputError, match="thing") as error:
        load(tmp_path / "thing")
    assert error.value.code == "E0304"
