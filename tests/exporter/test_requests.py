"""Requests that make no sense, and outputs that may not be written: refused, nothing changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refused = Callable[..., Any]
Quick = tuple[str, ...]


NET = ("build", "lenet5", "--weights", "random")
SPEC = {
    "crop": [16, 16],
    "resize": [16],
    "interpolation": "bilinear",
    "channels": "L",
    "mean": [0.5],
    "std": [0.5],
    "exif": "apply",
}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("biuld",), "build"),
        (("build", "restnet50"), "resnet50"),
        (("build", "lenet-5"), "lenet5"),
        (("show", "mobilenet_v1_25"), "mobilenet_v1_025"),
        (("list", "--family", "resnett"), "resnet"),
        ((*NET, "--target", "cpuu"), "cpu"),
        ((*NET, "--int8", "--method", "percentil"), "percentile"),
        (("build", "lenet5", "--weights", "digit"), "digits"),
        (("build", "lenet5", "--weights", "randm"), "random"),
        ((*NET, "--in8"), "--int8"),
    ],
)
def test_a_typo_is_answered_with_the_closest_name(
    refused: Refused, arguments: tuple[str, ...], hint: str
) -> None:
    done = refused(2, hint, *arguments)
    assert "did you mean" in done.err.lower()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("build", "qqqqqq"), "convexport list"),
        ((*NET, "--target", "qqqqqq"), "cpu"),
        ((*NET, "--int8", "--method", "qqqqqq"), "percentile"),
        (("build", "lenet5", "--weights", "qqqqqq"), "pretrained"),
        (("build", "lenet5", "--weights", "random:x"), "random:SEED"),
        (("build", "lenet5", "--weights", "random:-1"), "random:SEED"),
        (("build", "mobilenet_v1_050", "--weights", "digits"), "lenet5"),
        ((*NET, "--calib", "."), "--int8"),
        ((*NET, "--bench-seconds", "nan"), "--bench-seconds"),
        ((*NET, "--bench-seconds", "-1"), "--bench-seconds"),
        ((*NET, "--bench-seconds", "inf"), "--bench-seconds"),
        ((*NET, "--int8", "--calib-images", "0"), "--calib-images"),
        ((*NET, "--classes", "0"), "--classes"),
        ((*NET, "--lock-timeout", "nan"), "--lock-timeout"),
        ((*NET, "--int8", "--percentile", "nan"), "percentile"),
        ((*NET, "--int8", "--percentile", "0"), "percentile"),
        ((*NET, "--int8", "--percentile", "101"), "percentile"),
        ((*NET, "--input-shape", "3x32x32"), "--input-shape"),
        (("build", "x:y", "--input-shape", "1x32"), "3x224x224"),
        (("build", "x:y", "--input-shape", "axbxc"), "3x224x224"),
        (("build", "x:y", "--input-shape", "1x0x32"), "--input-shape"),
        (("build", "x:y", "--input-shape", "1x-3x32"), "--input-shape"),
        (("build",), "MODEL"),
        (("run", "somewhere"), "IMAGES"),
        (("run", "somewhere", "a.png", "--top", "0"), "--top"),
        (("bench", "x", "--seconds", "nan"), "duration"),
        (("bench", "x", "--seconds", "0"), "duration"),
        (("bench", "x", "--processes", "0"), "processes"),
        (("bench", "x", "--batch", "0"), "batch"),
        (("bench", "x", "--threads", "-1"), "threads"),
    ],
)
def test_a_senseless_request_is_a_usage_error(
    refused: Refused, arguments: tuple[str, ...], named: str
) -> None:
    refused(2, named, *arguments)


def test_no_command_shows_the_help(invoke: Any) -> None:
    done = invoke()
    assert done.failed_with(2, "Commands:")


def test_fp16_is_not_for_the_cpu(refused: Refused) -> None:
    done = refused(6, "E0680", *NET, "--fp16")
    assert "--fp32 or --int8" in done.err


def test_cuda_is_not_here(refused: Refused) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    done = refused(4, "E0402", *NET, "--target", "cuda")
    assert "CUDAExecutionProvider" in done.err and "CPUExecutionProvider" in done.err


@pytest.mark.parametrize("flags", [("--weights", "random"), ("--classes", "7")])
def test_an_option_that_does_not_apply_is_refused(
    refused: Refused, quick: Quick, home: Path, small_onnx: Any, flags: tuple[str, ...]
) -> None:
    (home / "net.onnx").write_bytes(small_onnx().SerializeToString())
    refused(2, flags[0], "build", "net.onnx", *flags, *quick, "-o", "out")


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("kind", ["file", "full", "link", "dangling"])
def test_nothing_but_a_bundle_is_ever_replaced(
    refused: Refused, quick: Quick, home: Path, bundle: Path, kind: str, force: tuple[str, ...]
) -> None:
    output = home / "out"
    if kind == "file":
        output.write_text("precious")
    elif kind == "full":
        (output / "sub").mkdir(parents=True)
        (output / "sub/thesis.txt").write_text("precious")
    else:
        output.symlink_to(bundle if kind == "link" else home / "nowhere")
    refused(2, "E0283", *NET, *quick, "-o", "out", *force)
    assert output.is_symlink() == (kind in ("link", "dangling"))


def test_a_link_to_an_empty_directory_is_not_replaced(
    refused: Refused, quick: Quick, home: Path
) -> None:
    (home / "empty").mkdir()
    (home / "out").symlink_to(home / "empty")
    refused(2, "E0283", *NET, *quick, "-o", "out")


def test_an_empty_directory_may_be_written_into(invoke: Any, quick: Quick, home: Path) -> None:
    (home / "out").mkdir()
    assert invoke(*NET, *quick, "-o", "out").code == 0
    assert (home / "out/manifest.json").is_file()


def test_a_place_below_a_file_is_a_storage_error(
    refused: Refused, quick: Quick, home: Path
) -> None:
    (home / "file").write_text("precious")
    refused(8, "E0801", *NET, *quick, "-o", "file/net")


def test_a_cache_that_is_a_file_is_a_storage_error(refused: Refused, home: Path) -> None:
    (home / "file").write_text("precious")
    refused(8, "E0801", *NET, "--offline", "--bench-seconds", "0", "--cache-dir", "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_a_storage_error(refused: Refused, quick: Quick, home: Path) -> None:
    (home / "locked").mkdir(mode=0o555)
    refused(8, "E0801", *NET, *quick, "-o", "locked/net")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "E0302"),
        ("no JSON", "E0302"),
        (json.dumps({**SPEC, "std": [float("nan")]}), "E0302"),
        (json.dumps(SPEC).replace('"exif"', '"crop": [8, 8], "exif"'), "twice"),
        (json.dumps({**SPEC, "gamma": 2.2}), "gamma"),
        (json.dumps({key: SPEC[key] for key in SPEC if key != "std"}), "std"),
        (json.dumps([SPEC]), "an object"),
        (json.dumps({**SPEC, "std": [0.0]}), "std"),
        (json.dumps({**SPEC, "channels": "HSV"}), "channels"),
        (json.dumps({**SPEC, "resize": 16}), "E0301"),
        (json.dumps({**SPEC, "resize": [8]}), "crop"),
        (json.dumps({**SPEC, "crop": [8, 8]}), "E0389"),
        ("[" * 100_000, "E0302"),
        (json.dumps({**SPEC, "mean": [None]}), "E0301"),
        (json.dumps({**SPEC, "crop": [16.0, 16]}), "E0301"),
        (json.dumps({**SPEC, "mean": ["0.5"]}), "E0301"),
        (json.dumps(SPEC).replace("[0.5]", "[1e999]"), "E0301"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_bad_preprocess_is_refused(
    refused: Refused, quick: Quick, home: Path, small_onnx: Any, text: str, error: str
) -> None:
    (home / "net.onnx").write_bytes(small_onnx().SerializeToString())
    (home / "spec.json").write_text(text)
    done = refused(3, "", "build", "net.onnx", "--preprocess", "spec.json", *quick, "-o", "out")
    assert error in done.err


def test_a_missing_preprocess_is_refused(
    refused: Refused, quick: Quick, home: Path, small_onnx: Any
) -> None:
    (home / "net.onnx").write_bytes(small_onnx().SerializeToString())
    refused(3, "E0302", "build", "net.onnx", "--preprocess", "none.json", *quick, "-o", "out")
