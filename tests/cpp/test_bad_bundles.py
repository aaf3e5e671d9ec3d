"""What is refused as a bundle in Python is refused in C++, with the same code and words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convexport.runtime.engine import load
from convexport.runtime.errors import ConvexportError
from tests.tiny import MANIFEST, MODEL, seal, write_bundle

from .conftest import Probe

pytestmark = pytest.mark.slow  # builds the library first

Damage = Callable[[Path], object]


def edited(*keys: str, value: Any) -> Damage:
    """A manifest with one field that is another."""

    def edit(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return lambda folder: seal(folder, edit)


def written(name: str, content: bytes, *, sealed: bool = True) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)
        if sealed:
            seal(folder)

    return damage


def linked(folder: Path) -> None:
    shutil.move(folder / "labels.txt", folder / "elsewhere")
    (folder / "labels.txt").symlink_to(folder / "elsewhere")


def without(key: str) -> Damage:
    return lambda folder: seal(folder, lambda data: data.pop(key))


def saved(name: str, array: np.ndarray) -> Damage:
    def damage(folder: Path) -> None:
        np.save(folder / name, array)
        seal(folder)

    return damage


KINDS = (
    None,
    7,
    -1.5,
    [],
    ["a", "it's", None, True, 2.0],
    {},
    True,
    1e308,
    "x" * 100,
    "ä\n",
    "\t\r\x85\u200b\U000e0001",
)
SAMPLE = "sample/input.npy"

# Refused in the same words, line by line.
SAME_WORDS: dict[str, Damage] = {
    "gone": shutil.rmtree,
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "file changed": written("labels.txt", b"ant\nbee\ndog\n", sealed=False),
    "file missing": lambda folder: (folder / "model.onnx").unlink(),
    "file linked": linked,
    "labels short": written("labels.txt", b"ant\nbee\n"),
    "labels long": written("labels.txt", "ant\x85bee\u2028cat\rdog".encode()),
    "sample shape": saved(SAMPLE, np.zeros((1, 1, 2, 3), np.float32)),
    "sample empty": saved(SAMPLE, np.zeros((0, 1, 2, 2), np.float32)),
    "golden": saved("sample/expected.npy", np.array([[1, 2, 3]], np.float32)),
    "golden zero": lambda folder: (
        saved(SAMPLE, np.zeros((1, 1, 2, 2), np.float32))(folder),
        saved("sample/expected.npy", np.zeros((1, 3), np.float32))(folder),
    ),
    "golden nan": saved("sample/expected.npy", np.array([[1, np.nan, 3]], np.float32)),
    "provider": edited("provider", value="NpuExecutionProvider"),
    "input name": edited("input", "name", value="other"),
    "input dim": edited("input", "shape", value=["n", 1, 3, 3]),
    "output dim": edited("output", "shape", value=["batch", 4]),
    "input unnamed": edited("input", value={"shape": [1, 1, 2, 2], "dtype": "float32"}),
    "input null": edited("input", "shape", value=[None, 1, 2, 2]),
    "input flat": edited("input", "shape", value=["batch", 2]),
    "output free": edited("output", "shape", value=["batch", "classes"]),
    "output vector": edited("output", "shape", value=[3]),
    "crop other": edited("preprocess", "crop", value=[1, 1]),
    "crop large": edited("preprocess", "crop", value=[3, 4]),
    "crop float": edited("preprocess", "crop", value=[2.0, 2.0]),
    "crop bool": edited("preprocess", "crop", value=[True, 2]),
    "crop zero": edited("preprocess", "crop", value=[0, 2]),
    "resize three": edited("preprocess", "resize", value=[2, 2, 2]),
    "std zero": edited("preprocess", "std", value=[0.0]),
    "mean null": edited("preprocess", "mean", value=[None]),
    "mean three": edited("preprocess", "mean", value=[0.1, 0.2, 0.3]),
    "channels": edited("preprocess", "channels", value="HSV"),
    "interpolation": edited("preprocess", "interpolation", value="lanczos"),
    "exif": edited("preprocess", "exif", value=None),
    "preprocess more": edited("preprocess", "gamma", value=2.2),
    "weights kind": edited("weights", "kind", value="bought"),
    "words for numbers": edited(
        "preprocess", value={**MANIFEST["preprocess"], "crop": ["a", 1], "resize": ["b", 1]}
    ),
    "no such model": edited("model", value="other.onnx"),
    "digest": edited("files", "model.onnx", value="0" * 63),
    **{
        f"file {name[:9]!a}": edited("files", name, value="0" * 64)
        for name in ("../x", "/etc/passwd", "sub/../../x", "..\\x", "", ".", "y" * 300)
    },
    **{f"no {key}": without(key) for key in MANIFEST},
    **{
        f"{key} {index}": edited(key, value=value)
        for key in ("schema_version", "precision", "golden_tolerance", "files", "layers", "model")
        for index, value in enumerate(KINDS)
        if (key, index) not in {("files", 5), ("layers", 5)}
    },
}

# Refused with the same code; the reason is in the words of a library.
SAME_CODE: dict[str, Damage] = {
    "not a model": written("model.onnx", b"not a model"),
    "sample dtype": saved(SAMPLE, np.zeros((1, 1, 2, 2))),
    "sample cut": written(SAMPLE, b"\x93NUMPY\x01\x00\x76\x00{'descr'"),
    "sample short": written(SAMPLE, b"no array"),
    "labels latin": written("labels.txt", b"\xe4nt\nbee\ncat\n"),
    "openvino": edited("runtime", value="tensorflow"),
    "surrogate": edited("files", "\ud800", value="0" * 64),
    "control": edited("files", "a\0b", value="0" * 64),
    "crop number": edited("preprocess", "crop", value=7),
    **{
        f"json {index}": written("manifest.json", text.encode(), sealed=False)
        for index, text in enumerate(
            (
                "",
                "{",
                "[]",
                "null",
                "[" * 100_000,
                '{"schema_version": NaN}',
                '{"schema_version": Infinity}',
                '{"schema_version": 1, "schema_version": 1}',
                '{"schema_version": 1, "a": {"b": 1, "c": 2, "b": 3}}',
                '{"schema_version": "1"}',
                '{"schema_version": 1.0}',
                '{"schema_version": ' + "9" * 5000 + "}",
                "\ufeff{}",
                '{"a": "\x01"}',
                '{"a": 1,}',
                '{"a": 01}',
            )
        )
    },
    "utf-16": written("manifest.json", json.dumps(MANIFEST).encode("utf-16"), sealed=False),
    "latin": written("manifest.json", b'{"schema_version": "\xe4"}', sealed=False),
}


def python_says(folder: Path) -> list[str]:
    try:
        load(folder)
    except ConvexportError as error:
        return error.lines()
    raise AssertionError(f"Python loads {folder}")


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_errors_have_the_codes_and_words_of_python(probe: Probe, tmp_path: Path) -> None:
    cases = {**SAME_WORDS, **SAME_CODE}
    assert len(cases) == len(SAME_WORDS) + len(SAME_CODE)
    folders = [tmp_path / str(index) / "tiny" for index in range(len(cases))]
    for folder, damage in zip(folders, cases.values(), strict=True):
        damage(write_bundle(folder))
    answers = probe("load", *folders)
    for name, folder, answer in zip(cases, folders, answers, strict=True):
        expected, actual = python_says(folder), answer.split("\x1f")
        if name in SAME_CODE:
            expected, actual = [expected[0].split()[0]], [actual[0].split()[0]]
        assert actual == expected, name


def test_what_python_loads_is_loaded(probe: Probe, tiny: Path, tmp_path: Path) -> None:
    later = write_bundle(tmp_path / "later")
    seal(later, lambda data: data.update(something_new={"of": ["a", "later", 1e308]}))
    names = write_bundle(tmp_path / "ä bundle")
    (names / "no labels \N{SNOWMAN}.txt").write_text("kept")
    (names / "labels.txt").unlink()
    seal(names, lambda data: data["weights"].update(source="not Unicode: \ud800 \udc00x \\ud800"))
    for folder in (tiny, later, names):
        load(folder)
    answers = probe("load", tiny, later, names)
    assert [answer.split()[0] for answer in answers] == ["ok", "ok", "ok"]


def test_another_runtime_is_refused(probe: Probe, tiny: Path) -> None:
    seal(tiny, lambda data: data.update(runtime="openvino", provider="CPU"))
    (answer,) = probe("load", tiny)
    assert answer.startswith("E0600 the bundle is for the runtime 'openvino'")


def test_another_dtype_than_float32_is_refused(probe: Probe, tmp_path: Path) -> None:
    model = MODEL.replace("(float[batch, 1", "(uint8[batch, 1").replace(
        "flat = Flatten<axis = 1> (input)",
        "floats = Cast<to = 1> (input)  flat = Flatten<axis = 1> (floats)",
    )
    folder = write_bundle(tmp_path / "bytes", model)
    seal(folder, lambda data: data["input"].update(dtype="uint8"))
    (answer,) = probe("load", folder)
    assert answer.startswith("E0607 ") and "input: uint8 batchx1x2x2" in answer
