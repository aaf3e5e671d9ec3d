from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.recording import Memory, Run, Subject

MakeSubject = Callable[..., Subject]
OPTIONS = LatencyOptions(duration_s=0.05, warmup_s=0.01, threads=1, batch=2)


def _ask(job: str, *subjects: Subject, options: LatencyOptions = OPTIONS) -> dict[str, Any]:
    request = {
        "job": job,
        "subjects": [subject.to_dict(paths=True) for subject in subjects],
        "options": options.to_dict(),
    }
    command = [sys.executable, "-P", "-m", "convexport.benchmarks.worker"]
    done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_two_models_are_measured(make_subject: MakeSubject) -> None:
    run = Run.from_dict(
        {**_ask("measure", make_subject("a"), make_subject("b", layers=3))["ok"], "warnings": []}
    )
    assert set(run.models) == {"a", "b"}
    assert run.floor_ns > 0
    for model in run.models.values():
        assert model.provider == "CPUExecutionProvider"
        assert model.runtime == f"onnxruntime {ort.__version__}"
        assert model.load_ms > 0
        assert len(model.samples.block_sizes) == 10
        assert model.samples.ns.min() > run.floor_ns / 10
        assert model.samples.first_ns > 0


def test_memory_is_that_of_one_model(make_subject: MakeSubject) -> None:
    small = Memory(**_ask("memory", make_subject("a"))["ok"])
    large = Memory(**_ask("memory", make_subject("b", layers=2, size=800))["ok"])
    if small.peak is None or small.baseline is None or large.peak is None:
        pytest.skip("no VmHWM here")
    image = 2 * 3 * 800 * 800 * 4  # bytes of a batch of two
    assert large.peak - small.peak > 2 * image  # at least what goes in and what comes out
    assert 10 << 20 < small.baseline <= small.peak


def test_whole_numbers_are_fed_to_models_that_take_them(make_subject: MakeSubject) -> None:
    assert "ok" in _ask("measure", make_subject("a", dtype="UINT8"))


def test_images_of_a_file_are_fed(make_subject: MakeSubject, tmp_path: Path) -> None:
    data = tmp_path / "images.npy"
    np.save(data, np.ones((1, 3, 8, 8), dtype=np.float32))
    assert "ok" in _ask("measure", replace(make_subject("a"), data=data))


@pytest.mark.parametrize("array", [np.ones((2, 3, 8, 9)), np.ones((0, 3, 8, 8)), np.float32(1)])
def test_images_that_do_not_fit(
    make_subject: MakeSubject, tmp_path: Path, array: np.ndarray
) -> None:
    data = tmp_path / "images.npy"
    np.save(data, array)
    error = _ask("measure", replace(make_subject("a"), data=data))["error"]
    assert (error["code"], error["kind"]) == ("E0364", "InputError")


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        ({"sha256": "0" * 64}, "E0363", "InputError"),
        ({"model": Path("/nowhere/model.onnx")}, "E0362", "InputError"),
        ({"data": Path("/nowhere/images.npy")}, "E0364", "InputError"),
        ({"input_name": "picture"}, "E0201", "UsageError"),
        ({"input_shape": (3, 4, 4)}, "E0201", "UsageError"),
        ({"provider": "NoSuchExecutionProvider"}, "E0402", "MachineError"),
    ],
)
def test_errors_travel(
    make_subject: MakeSubject, change: dict[str, Any], code: str, kind: str
) -> None:
    error = _ask("measure", replace(make_subject("a"), **change))["error"]
    assert (error["code"], error["kind"]) == (code, kind)
