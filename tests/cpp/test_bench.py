"""What convexport-bench records, Python evaluates to the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from convexport.benchmarks.host import cores, describe_host
from convexport.benchmarks.latency_result import evaluate
from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.recording import Recording
from convexport.benchmarks.regression import read_baseline
from convexport.benchmarks.report.document import NOT_MEASURED
from convexport.benchmarks.samples import Samples
from convexport.benchmarks.statistics import (
    block_bootstrap,
    coefficient_of_variation,
    percentile,
    ratio_of_medians,
)
from tests.conftest import Command
from tests.tiny import seal, write_bundle

from .bundles import fixed_batch_model
from .conftest import SANITIZERS, STILL
from .plans import Make
from .test_pixels import noise

pytestmark = pytest.mark.slow  # builds the library first


def run(program: Path, *words: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STILL, program, *map(str, words)],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, **SANITIZERS},
        timeout=120,
    )


def answer_of(program: Path, *words: str | Path, given: str = "") -> Any:
    done = run(program, *words, given=given)
    assert done.returncode == 0, done.stderr[:3000]
    return json.loads(done.stdout)


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """The same JSON, numbers to 12 digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert set(one) == set(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    elif isinstance(one, float) and isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-12, abs=0), where
    else:
        assert one == other, where


def measured(asan: Path, bundle: Path, **options: Any) -> Any:
    """What convexport-bench does, under the sanitizers."""
    asked = LatencyOptions(**{"duration_s": 0.02, "processes": 1, **options})
    return answer_of(asan / "metered", "bench", bundle, json.dumps(asked.to_dict()))


@pytest.mark.parametrize(
    "options",
    [
        {"duration_s": 0.4, "processes": 5},
        {"duration_s": 0.02, "batch": 3, "seed": 5_000_000_000},
        {"duration_s": 0.3, "processes": 3, "threads": 1, "seed": 7},
    ],
)
def test_python_evaluates_what_it_records_to_the_same_numbers(
    asan: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = measured(asan, tiny, warmup_s=0.1, **options)
    recording = Recording.from_dict(result.pop("recording"))
    expected = json.loads(json.dumps(evaluate(recording).to_dict()))
    del expected["recording"]
    assert "in C++" in result["conditions"]["parts"]
    assert_same(result, expected)
    assert [row["label"] for row in result["subjects"]] == ["fp32 reference", "tiny"]
    assert "OMP_NUM_THREADS" in recording.dropped_variables
    assert all(memory.peak > memory.baseline > 0 for memory in recording.memory.values())
    assert len(recording.runs) == recording.options.processes


def test_a_bundle_for_tensorrt_is_measured_alone(asan: Path, planned: Make, found: None) -> None:
    result = measured(asan, planned(), batch=8)
    (subject,) = result["subjects"]
    assert (subject["label"], subject["runtime"]) == ("planned", "tensorrt 10.3.0.26")
    gpu = {"name": "Orin", "compute_capability": "8.7"}
    assert result["conditions"]["host"]["gpu"] == result["recording"]["host"]["gpu"] == gpu
    assert "the GPU's clock was not watched" in result["reasons"]
    assert evaluate(Recording.from_dict(result["recording"])).verdict == result["verdict"]


def test_models_that_cannot_be_compared_are_refused(asan: Path, tmp_path: Path) -> None:
    twice = measured(asan, write_bundle(tmp_path / "fp32 reference"))
    assert twice.splitlines() == [
        "E0264 a benchmark needs models with different labels",
        "where: ['fp32 reference', 'fp32 reference']",
    ]
    folder = write_bundle(tmp_path / "whole")
    graph = onnx.load(folder / "model.onnx")
    graph.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT8
    graph.graph.node[-1].output[0] = "sums"
    cast = onnx.helper.make_node("Cast", ["sums"], ["logits"], to=onnx.TensorProto.INT8)
    graph.graph.node.append(cast)
    onnx.save(graph, folder / "reference.onnx")
    seal(folder, lambda data: data.update(reference="reference.onnx"))
    assert measured(asan, folder).startswith("E0607 this library runs models from float32")


def test_the_worker_that_fails_is_told_of(
    asan: Path, planned: Make, found: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured(asan, planned(), batch=9).startswith("E0203 the engine takes batches of 1 to 8")
    assert measured(asan, tmp_path / "none").startswith("E0304 none does not exist")


def test_the_machine_is_described_as_in_python(asan: Path, tiny: Path) -> None:
    host = measured(asan, tiny)["conditions"]["host"]
    expected = describe_host()
    for key in ("python", "packages"):
        expected[key] = host[key]
    assert host == expected


def test_a_person_is_shown_a_table(release: Path, tiny: Path) -> None:
    done = run(release / "convexport-bench", tiny, "--seconds", "0.05", "--processes", "1")
    first, reference, bundle, verdict, *_ = done.stdout.splitlines()
    columns = ["latency", "p50", "95", "%", "interval", "p90", "p99", "images/s", "speed-up"]
    assert first.split() == columns
    assert reference.startswith("fp32 reference ") and reference.endswith("baseline")
    assert bundle.startswith("tiny ") and "×" in bundle
    assert len(first) == len(reference) == len(bundle)
    assert (
        verdict.startswith(f"UNSTABLE: batch 1, {cores()} threads, 1 processes, ")
        and "onnxruntime" in verdict
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--batch", "0"), 2),
        (("--seconds", "0"), 2),
        (("--seconds", "-1"), 2),
        (("--seconds", "1e300"), 2),
        (("--seconds", "nan"), 2),
        (("--seed", str(2**62 + 1)), 2),
        (("--processes", "0"), 2),
        (("--threads", "x"), 2),
        (("--batch", "2"), 2),
        ((), 0),
    ],
)
def test_what_makes_no_sense_is_refused(
    release: Path, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    fixed = write_bundle(tmp_path / "fixed", fixed_batch_model(1))

    def one(data: dict[str, dict[str, list[int]]]) -> None:
        data["input"]["shape"][0] = data["output"]["shape"][0] = 1

    short = () if "--seconds" in words else ("--seconds", "0.01")
    once = () if "--processes" in words else ("--processes", "1")
    done = run(release / "convexport-bench", seal(fixed, one), *words, *short, *once)
    assert done.returncode == code
    if words == ("--batch", "2"):  # the worker's error is told by the one who asked
        assert "E0201 the input does not fit the model" in done.stderr


def test_no_bundle_is_no_latency(release: Path, tiny: Path, tmp_path: Path) -> None:
    program = release / "convexport-bench"
    assert run(program).returncode == 2
    assert run(program, tmp_path / "none").returncode == 3
    np.save(tiny / "sample/expected.npy", np.array([[1, 2, 3]], np.float32))
    done = run(program, seal(tiny))  # its golden sample fails
    assert done.returncode == 5 and done.stdout == ""


def test_what_cannot_be_written_is_an_error(release: Path, tiny: Path, tmp_path: Path) -> None:
    words = (release / "convexport-bench", tiny, "--json", "--seconds", "0.01", "--processes", "1")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 8 and "E0801 cannot write" in done.stderr
    odd = write_bundle(tmp_path / os.fsdecode(b"\xff"))
    done = run(release / "convexport-bench", odd)
    assert done.returncode == 2 and done.stderr.startswith("E0278 ")


def test_a_sleep_takes_as_long_as_it_sleeps(asan: Path) -> None:
    result = answer_of(asan / "metered", "sleep", "0.5", "5000")
    for label, least_ms in (("nap", 5), ("double", 10)):
        samples = Samples.from_dict(result[label]["samples"])
        ms = samples.ns / 1e6
        assert least_ms <= ms.min() <= 1.1 * least_ms
        assert samples.block_sizes.sum() == len(ms)
        assert (np.diff(samples.block_starts_ns) > 0).all()
        assert samples.ns.sum() >= 0.4e9  # longer where the machine is busy
    assert 0 < result["floor_ns"] < 100_000


@pytest.mark.parametrize("sizes", [[1], [5], [3, 3], [20, 15], [72], [400, 1, 30], [3000] * 3])
@pytest.mark.parametrize("seed", [0, 11])
def test_statistics_are_those_of_python(asan: Path, sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Some repeat, and some blocks are slower.
    blocks = [
        np.round(rng.lognormal(i / 9, 0.3, n), 1 + seed % 5) + 0.1 for i, n in enumerate(sizes)
    ]
    samples = np.concatenate(blocks)
    other = samples[: min(7, len(samples))] * rng.lognormal(0.2, 0.1, min(7, len(samples)))
    given = {"blocks": [block.tolist() for block in blocks], "other": other.tolist()}
    told = answer_of(asan / "metered", "numbers", str(seed), given=json.dumps(given))
    ratio = ratio_of_medians(samples[: len(other)], other)
    percentiles = [percentile(samples, percent) for percent in (50, 90, 95, 99)]
    bootstrap = block_bootstrap(blocks, 50, seed=seed)
    assert_same(
        told,
        {
            "mean": float(samples.mean()),
            "median": float(np.median(samples)),
            "cv": coefficient_of_variation(samples),
            "percentiles": [[each.floor, each.value, each.low, each.high] for each in percentiles],
            "bootstrap": bootstrap and list(bootstrap),
            "ratio": [ratio.value, ratio.low, ratio.high, ratio.claim],
        },
    )


def test_one_report_shows_what_cpp_measured(
    release: Path, tiny: Path, tmp_path: Path, invoke: Command
) -> None:
    words = (tiny, "--json", "--seconds", "0.05", "--processes", "2")
    saved, out = tmp_path / "bench.json", tmp_path / "report"
    saved.write_text(run(release / "convexport-bench", *words).stdout)
    assert invoke("report", tiny, "--bench", saved, "-o", out).code == 0
    report = json.loads((out / "report.json").read_text())
    assert "in C++" in report["latency"]["conditions"]["parts"]
    (entry,) = report["bundles"]
    assert entry["verification"] == NOT_MEASURED
    checked = invoke("report", "verify", out / "report.json", "--json")
    assert checked.code == 0, checked
    assert read_baseline(saved).recording.host["python"] is None


def test_what_measures_the_library_itself_runs(release: Path, tiny: Path, tmp_path: Path) -> None:
    done = run(release / "overhead", "call", tiny, "0.2")
    bare_us, engine_us, calls = map(float, done.stdout.split())
    assert bare_us > 0 and engine_us > 0 and calls > 100
    assert run(release / "overhead", "first", tiny).returncode == 0
    noise(40, 30).save(tmp_path / "image.jpg")
    done = run(release / "overhead", "preprocess", tiny, tmp_path / "image.jpg")
    assert float(done.stdout) > 0
