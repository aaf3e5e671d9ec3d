"""What TensorRT's session refuses and how it fails, between doubles; in the words of Python."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convexport.runtime import cuda
from convexport.runtime.engine import load
from convexport.runtime.errors import ConvexportError
from convexport.runtime.trt_plan import facts_file
from tests.tiny import seal
from tests.trt.conftest import Says

from .conftest import lines_of
from .plans import IN, OPTIONS, OUT, PLAN, Make, as_tensorrt

pytestmark = [
    pytest.mark.slow,  # builds the library first
    pytest.mark.usefixtures("found"),
]

Damage = Callable[[Path], object]


def edited(**changes: Any) -> Damage:
    """Facts with other values; None leaves a field out."""

    def damage(folder: Path) -> None:
        path = facts_file(folder / "model.plan")
        data = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))

    return damage


def optioned(**changes: Any) -> Damage:
    return edited(options={**OPTIONS.to_dict(), **changes})


def written(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


PREFIXED = b'\x20\x00\x00\x00{"author": "Another", "task": 1} and then the plan'


def prefixed(metadata: bytes) -> bytes:
    return len(metadata).to_bytes(4, "little") + metadata + b" and then the plan"


# Refused before the plan is given to TensorRT, in the words of Python.
SAME_WORDS: dict[str, Damage] = {
    "platform": edited(platform="linux-aarch65"),
    "build": edited(tensorrt="10.3.0.27"),
    "later": edited(tensorrt="11.1.0.106"),
    "patch": edited(tensorrt="10.3.1"),
    "two parts": edited(tensorrt="10.3"),
    "capability": edited(compute_capability="9.0"),
    "gpu": edited(gpu="Xavier"),
    "everything": edited(gpu="Xavier", tensorrt="8.5.3.1", platform="linux-riscv"),
    "same capability": lambda folder: (
        optioned(hardware="same_compute_capability")(folder),
        edited(compute_capability="8.6")(folder),
    ),
    "no facts": lambda folder: facts_file(folder / "model.plan").unlink(),
    "cut": lambda folder: (folder / "model.plan").write_bytes(b"cut"),
    "empty": written("model.plan", b""),
    "prefixed": written("model.plan", PREFIXED),
    "author": written("model.plan", prefixed(b'{"author": ["Another"]}')),
    "long author": written("model.plan", prefixed(b'{"author": "' + "é".encode() * 50 + b'"}')),
    "deep": written("model.plan", prefixed(b'{"a":' + b"[" * 60_000)),
    "three bytes": written("model.plan", b"{}\n"),
    "no key": edited(gpu=None),
    "no options": edited(options=None),
    "number": edited(gpu=7),
    "batch": optioned(batch=[3, 2, 1]),
    "hardware": optioned(hardware="any"),
    "dla": optioned(dla=-1),
    "option long": edited(options={"batch": ["a" * 300]}),
}
# With the same code; the reason is in the words of a library.
SAME_CODE: dict[str, Damage] = {
    "json": written("model.plan.json", b"{"),
    "list": written("model.plan.json", b"[]"),
    "option less": edited(options={"batch": [1, 1, 1]}),
    "options text": edited(options="none"),
    "batch text": optioned(batch=["a", "b", "c"]),
    "batch number": optioned(batch=7),
}


def python_says(folder: Path) -> list[str]:
    try:
        load(folder)
    except ConvexportError as error:
        return error.lines()
    raise AssertionError(f"Python loads {folder}")


@pytest.mark.parametrize("name", [*SAME_WORDS, *SAME_CODE])
def test_plans_are_refused_as_in_python(
    asan: Path, planned: Make, tensorrt: Says, name: str
) -> None:
    tensorrt("10.3")
    folder = planned()
    {**SAME_WORDS, **SAME_CODE}[name](folder)
    seal(folder, as_tensorrt)
    (answer,) = lines_of(asan / "probe", "load", folder)
    expected, actual = python_says(folder), answer.split("\x1f")
    if name in SAME_CODE:
        expected, actual = [expected[0].split()[0]], [actual[0].split()[0]]
    assert actual == expected


def of_a_board(data: dict[str, Any]) -> None:
    """What was built before the board was reached; the engine is not in it."""
    as_tensorrt(data)
    data["model"] = "model.onnx"
    data["files"] = {name: told for name, told in data["files"].items() if "plan" not in name}


def test_a_board_loads_what_it_built_and_nothing_else(
    asan: Path, planned: Make, tensorrt: Says
) -> None:
    tensorrt("10.3")
    folder = planned()
    (folder / "engine").mkdir()
    for name in ("model.plan", "model.plan.json"):
        (folder / name).rename(folder / "engine" / name)
    seal(folder, of_a_board)
    assert lines_of(asan / "probe", "load", folder) == ["ok tensorrt 10.3.0.26"]
    (folder / "model.onnx").write_bytes(b"another net")
    seal(folder, of_a_board)
    (other,) = lines_of(asan / "probe", "load", folder)
    assert other.split("\x1f") == python_says(folder)
    (folder / "engine/model.plan").unlink()
    (none,) = lines_of(asan / "probe", "load", folder)
    assert none.startswith("E0409 ") and none.split("\x1f") == python_says(folder)


def test_a_batch_of_more_bytes_than_can_be_counted_does_not_fit(asan: Path, planned: Make) -> None:
    folder = planned()
    optioned(batch=[1, 4, 2**60])(folder)  # with 16 bytes for each that would be 0
    seal(folder, as_tensorrt)
    (answer,) = lines_of(asan / "probe", "load", folder)
    assert answer.startswith("E0406 the GPU has too little memory")


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("FAKE_CUDA_INIT", "100", "E0404"),
        ("FAKE_CUDA_NAME", "Xavier", "E0407"),
        ("FAKE_CUDA_FREE_MIB", "0", "E0406"),
    ],
)
def test_what_the_driver_says_is_told_as_in_python(
    asan: Path,
    planned: Make,
    tensorrt: Says,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    code: str,
) -> None:
    monkeypatch.setenv(variable, value)
    tensorrt("10.3")
    cuda.cuda.cache_clear()
    folder = planned()
    (answer,) = lines_of(asan / "probe", "load", folder)
    assert answer.startswith(code)
    if code != "E0406":  # Python's double takes another plan
        assert answer.split("\x1f") == python_says(folder)


def test_without_a_driver_or_tensorrt_both_are_told_apart(
    asan: Path,
    planned: Make,
    tensorrt: Says,
    doubles: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensorrt("10.3")
    folder = planned()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(doubles["10.3"]))
    monkeypatch.setattr(cuda, "_LIBRARY", "libcuda.so.1")
    cuda.cuda.cache_clear()
    (no_driver,) = lines_of(asan / "probe", "load", folder)
    assert no_driver.startswith("E0404") and no_driver.split("\x1f") == python_says(folder)
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    (no_tensorrt,) = lines_of(asan / "probe", "load", folder)
    assert no_tensorrt.startswith("E0401 ") and "libnvinfer.so.10" in no_tensorrt


@pytest.mark.parametrize("number", ["8503", "110100", "100200"])
def test_a_library_that_does_not_go_with_the_headers_is_not_called(
    asan: Path, planned: Make, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setenv("FAKE_TRT_VERSION", number)
    monkeypatch.setenv("FAKE_TRT_FAIL", "runtime")  # what a call would come to
    (answer,) = lines_of(asan / "probe", "load", planned())
    assert "built with the headers of 10.3.0" in answer and answer.startswith("E0408")


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("runtime", "E0408 TensorRT cannot start here|why: the double warns"),
        ("context", "E0406 the GPU has too little memory: the engine does not fit|where: at least"),
        ("shape", "E0405 TensorRT could not take input as 1x1x2x2|why: the double refuses a shape"),
        ("enqueue", "E0405 TensorRT could not run the engine|why: the double refuses to run"),
    ],
)
def test_failures_are_told_in_the_words_of_tensorrt(
    asan: Path, planned: Make, monkeypatch: pytest.MonkeyPatch, what: str, told: str
) -> None:
    monkeypatch.setenv("FAKE_TRT_FAIL", what)
    (answer,) = lines_of(asan / "probe", "load", planned())
    assert answer.replace("\x1f", "|").startswith(told)


def test_a_lost_gpu_is_told(asan: Path, planned: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_SYNC", "700")
    (answer,) = lines_of(asan / "probe", "load", planned())
    assert answer.startswith("E0405 CUDA's cuStreamSynchronize failed: CUDA_ERROR (700): made up")
    assert "the GPU's context is lost to this process" in answer


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (("no plan",), "E0316 TensorRT 10.3.0.26 does not load model.plan"),
        ((IN, OUT, "needs dla 1"), "E0316 TensorRT 10.3.0.26 does not load model.plan"),
        ((IN.replace("0 0", "7 0"), OUT), "E0605 the engine's tensor input is of a kind"),
        ((IN.replace("0 0", "0 1"), OUT), "E0605 the engine's tensor input is of a kind"),
        ((IN.replace("1 2 2", "1 -1 2"), OUT), "E0605 the engine's tensor input is of a kind"),
        ((IN, OUT, OUT.replace("logits", "more")), "E0315 the model does not take and give"),
        ((IN.replace("0 0", "1 0"), OUT), "E0315 the model does not take and give"),
        ((IN, OUT.replace("3", "4")), "E0315 the model does not take and give"),
        ((IN,), "E0315 the model does not take and give"),
        ((*PLAN[:3], "memory 99999999999"), "E0406 the GPU has too little memory"),
    ],
)
def test_plans_that_do_not_fit_are_refused(
    asan: Path, planned: Make, lines: tuple[str, ...], told: str
) -> None:
    (answer,) = lines_of(asan / "probe", "load", planned(*lines))
    assert answer.startswith(told)
    if told.startswith("E0316"):  # its last words, the latest last
        assert "no plan of the double | or not told what it needs" in answer


def test_another_dtype_than_float32_is_refused(asan: Path, planned: Make) -> None:
    folder = planned(IN.replace("0 0", "1 0"), OUT)
    seal(folder, lambda data: (as_tensorrt(data), data["input"].update(dtype="float16")))
    (answer,) = lines_of(asan / "probe", "load", folder)
    assert answer.startswith("E0607 ")


def test_another_provider_is_refused(asan: Path, planned: Make, tensorrt: Says) -> None:
    tensorrt("10.3")
    folder = planned()
    seal(folder, lambda data: (as_tensorrt(data), data.update(provider="NPU")))
    (answer,) = lines_of(asan / "probe", "load", folder)
    assert answer.startswith("E0402") and answer.split("\x1f") == python_says(folder)


def test_a_library_without_tensorrt_says_so(release: Path, planned: Make) -> None:
    done = subprocess.run(
        [release / "convexport-run", planned(), "image.jpg"], capture_output=True, text=True
    )
    assert done.returncode == 4
    assert done.stderr.startswith("E0401 this library was built without TensorRT")
