"""``--target auto``: what it tries, how it chooses, and what it says of those that lost."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from convexport.benchmarks.host import Load
from convexport.benchmarks.latency_result import BenchResult, evaluate
from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.recording import Memory, ModelRun, Recording, Run, Subject
from convexport.benchmarks.samples import Samples, Warmup
from convexport.exporter import measure, target_stage
from convexport.exporter.auto import choose
from convexport.exporter.options import BuildOptions
from convexport.runtime import sessions
from convexport.runtime.errors import GateError, UsageError

Clock = Callable[..., list[list[str]]]
Refused = Callable[..., Any]

installed = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs openvino"
)
AUTO = ("build", "lenet5", "--weights", "digits", "--target", "auto", "--offline")
WITH_BF16 = frozenset({"avx512_vnni", "avx512_bf16"})


@pytest.fixture
def auto(cache: Path) -> tuple[str, ...]:
    """The command; latencies are never taken from the cache."""
    return (*AUTO, "--cache-dir", str(cache), "--force")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Instead of a benchmark: latencies in ms as given for each label, and who was measured."""

    def samples(rng: np.random.Generator, ms: float) -> Samples:
        ns = (ms * 1e6 * rng.normal(1, 0.001, 400)).astype(np.int64)
        return Samples(ns, np.array([400]), np.array([0]), 10**8, Warmup(2.0, 2, 1.0, True))

    def install(latencies: dict[str, float], spread: float = 0.001) -> list[list[str]]:
        asked: list[list[str]] = []

        def bench(
            subjects: Sequence[Subject], options: LatencyOptions, *, report: Any
        ) -> BenchResult:
            rng = np.random.default_rng(0)
            asked.append([subject.label for subject in subjects])
            runs = tuple(
                Run(
                    {
                        s.label: ModelRun(
                            1.0,
                            f"{s.runtime} 1",
                            s.provider,
                            samples(rng, latencies[s.label] * rng.lognormal(0, spread)),
                        )
                        for s in subjects
                    },
                    100.0,
                )
                for _ in range(5)
            )
            memory = {s.label: Memory(None, None) for s in subjects}
            load = Load(load_1m=0.1, own=0.5, others=0.0, steal=0.0, throttles=0)
            return evaluate(Recording(tuple(subjects), options, runs, memory, load, {"cpus": 2}))

        monkeypatch.setattr(measure, "bench", bench)
        return asked

    return install


LATENCIES = {"cpu fp32": 4.0, "openvino fp32": 3.0, "cpu int8": 2.0, "openvino int8": 1.0}


def outcomes(bundle: Path) -> dict[str, Any]:
    report = json.loads((bundle / "report.json").read_text())
    return {each["candidate"]: each for each in report["candidates"]}


def target_of(bundle: Path) -> tuple[str, str]:
    manifest = json.loads((bundle / "manifest.json").read_text())
    return manifest["target"], manifest["precision"]


@installed
def test_the_fastest_is_written_and_all_are_listed(
    invoke: Any, home: Path, auto: tuple[str, ...], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "cpu_flags", lambda: frozenset({"avx512_vnni"}))
    asked = clock(LATENCIES)
    done = invoke(*auto)
    assert done.code == 0, done.err
    assert asked == [list(LATENCIES)]  # one benchmark, side by side
    bundle = home / "lenet5-int8-openvino"
    assert target_of(bundle) == ("openvino", "int8")
    found = outcomes(bundle)
    assert {label: each["outcome"] for label, each in found.items()} == {
        "openvino int8": "chosen",
        **dict.fromkeys(("cpu fp32", "openvino fp32", "cpu int8"), "slower"),
        **dict.fromkeys(("cpu bf16", "openvino bf16"), "refused"),
    }
    assert found["cpu fp32"]["against_chosen"]["value"] == pytest.approx(4, rel=0.01)
    assert "BF16 units" in found["openvino bf16"]["why"]
    for label in found:
        assert label in done.out
    assert found["cpu int8"]["parity"]["sqnr_db"] > 20 and found["cpu int8"]["accuracy"]
    # Stages in common are made and told once.
    assert done.err.count("  export ") == done.err.count("  quantize ") == 1
    assert invoke("verify", "lenet5-int8-openvino").code == 0


@installed
def test_the_more_precise_is_taken_where_no_difference_is_shown(
    invoke: Any, home: Path, auto: tuple[str, ...], clock: Clock
) -> None:
    clock({**LATENCIES, "openvino fp32": 1.02}, spread=0.2)
    assert invoke(*auto, "--fp32", "-o", "one").code == 0
    clock({"cpu fp32": 1.0, "cpu int8": 0.98, "openvino int8": 0.97}, spread=0.2)
    assert invoke(*auto, "--int8", "-o", "two").code == 0
    assert target_of(home / "one") == ("openvino", "fp32")
    # Of two INT8 ones the first, though the other's median is lower. FP32 is only the baseline.
    assert target_of(home / "two") == ("cpu", "int8")
    found = outcomes(home / "two")
    assert set(found) == {"cpu int8", "openvino int8"}
    assert found["openvino int8"]["outcome"] == "not shown to be faster"


@installed
def test_what_fails_its_gate_does_not_win(
    invoke: Any, home: Path, auto: tuple[str, ...], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = target_stage.compare_with_reference

    def noisy(model: Path, reference: Path, target: Any, precision: str = "fp32") -> Any:
        if precision == "int8":
            raise GateError("E0564", "int8 on openvino: 1.0 dB of signal to noise")
        return real(model, reference, target, precision)

    monkeypatch.setattr(target_stage, "compare_with_reference", noisy)
    clock(LATENCIES)
    # With images of its own, so that the stage is not found in the cache.
    done = invoke(*auto, "--int8", "--parity-images", "63")
    assert done.code == 0, done.err
    assert target_of(home / "lenet5-int8-cpu") == ("cpu", "int8")
    lost = outcomes(home / "lenet5-int8-cpu")["openvino int8"]
    assert lost["outcome"] == "failed" and "1.0 dB" in lost["why"]
    assert lost["error"]["code"] == "E0564"


@pytest.mark.parametrize(
    ("weights", "percentile", "said"),
    [("digits", "80", "1 is the margin"), ("random", "99", "dB of signal to noise are kept, 20 ")],
)
def test_int8_does_not_win_by_speed_alone(
    invoke: Any, home: Path, cache: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch,
    weights: str, percentile: str, said: str,
) -> None:  # fmt: skip
    """Of a net that clips too much, with labels that show it and without."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(sessions, "cpu_flags", lambda: frozenset({"avx512_vnni"}))
    clock(LATENCIES)
    clipped = ("--method", "percentile", "--percentile", percentile, "--repair", "none")
    command = ("build", "lenet5", "--weights", weights, "--target", "auto", "--offline", *clipped)
    done = invoke(*command, "--cache-dir", str(cache), "-o", "out")
    assert done.code == 0, done.err
    assert target_of(home / "out") == ("cpu", "fp32")
    lost = outcomes(home / "out")["cpu int8"]
    assert lost["outcome"] == "failed" and said in lost["why"] and "--max-drop" in done.err
    # Asked for, it is built.
    assert invoke(*command, "--int8", "--cache-dir", str(cache), "-o", "asked").code == 0
    assert target_of(home / "asked") == ("cpu", "int8")


def test_what_runs_on_a_gpu_is_named_where_it_is_installed(
    invoke: Any, auto: tuple[str, ...], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    clock(LATENCIES)
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    done = invoke(*auto, "--fp32", "-o", "out")
    said = " ".join(done.err.split())
    assert done.code == 0 and "build it with --target cuda" in said
    assert "tensorrt" not in said


def test_without_openvino_the_cpu_is_left(
    invoke: Any, home: Path, auto: tuple[str, ...], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(sessions, "cpu_flags", lambda: WITH_BF16)
    clock(LATENCIES)
    done = invoke(*auto)
    assert done.code == 0, done.err
    assert target_of(home / "lenet5-int8-cpu") == ("cpu", "int8")
    found = outcomes(home / "lenet5-int8-cpu")
    for label in ("openvino fp32", "openvino bf16", "openvino int8"):
        assert found[label]["outcome"] == "missing"
        assert "pip install 'convexport[openvino]'" in found[label]["why"]


def test_where_none_is_left_the_fix_is_said(
    refused: Refused, auto: tuple[str, ...], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(sessions, "cpu_flags", lambda: WITH_BF16)
    clock(LATENCIES)
    done = refused(4, "E0401", *auto, "--bf16", "-o", "out")
    assert "pip install 'convexport[openvino]'" in done.err


def test_the_same_request_is_answered_with_unchanged(
    invoke: Any, cache: Path, clock: Clock
) -> None:
    clock(LATENCIES)
    command = (*AUTO, "--fp32", "--cache-dir", cache, "--bench-seconds", "7")
    assert invoke(*command).code == 0
    asked = clock(dict.fromkeys(LATENCIES, -1.0))  # another benchmark would fail
    for where in ((), ("-o", "elsewhere"), ("-o", "elsewhere")):
        done = invoke(*command, *where)
        assert done.code == 0 and asked == []
    assert "unchanged" in done.out
    other = invoke(*AUTO, "--int8", "--cache-dir", cache, "-o", "elsewhere")
    assert other.failed_with(2, "E0283") and asked == []


def test_it_has_to_measure(refused: Refused) -> None:
    done = refused(2, "E0286", *AUTO, "--bench-seconds", "0")
    assert "--bench-seconds" in done.err
    with pytest.raises(UsageError):
        BuildOptions(target="auto", bench_seconds=0)


def test_calibration_options_are_for_requests_that_may_calibrate(refused: Refused) -> None:
    refused(2, "E0284", *AUTO, "--fp32", "--calib", ".")
    refused(3, "E0", *AUTO, "--calib", "nowhere")


@given(st.lists(st.lists(st.floats(0.5, 2.0), min_size=5, max_size=5), min_size=1, max_size=4))
def test_the_choice_is_that_of_paired_t_tests(rows: list[list[float]]) -> None:
    medians = {str(index): row for index, row in enumerate(rows)}

    def beaten(mine: list[float], other: list[float]) -> bool:
        logs = np.log(mine) - np.log(other)
        if np.ptp(logs) == 0:
            return bool(logs[0] > 0)
        return bool(logs.mean() > 0 and stats.ttest_1samp(logs, 0).pvalue < 0.05)

    chosen = choose(medians)
    unbeaten = [k for k, mine in medians.items() if not any(beaten(mine, o) for o in rows)]
    assert chosen == unbeaten[0]


@pytest.mark.slow
@installed
def test_it_measures_for_real(command: Any, cache: Path, home: Path) -> None:
    done = command(
        *AUTO, "--int8", "--bench-seconds", "0.5", "--cache-dir", cache, "-o", "out", "--json"
    )
    assert done.code == 0, done.err
    report = done.json()["report"]
    labels = [each["label"] for each in report["latency"]["subjects"]]
    assert labels == ["cpu fp32", "cpu int8", "openvino int8"]
    runtimes = [each["runtime"].split()[0] for each in report["latency"]["subjects"]]
    assert runtimes == ["onnxruntime", "onnxruntime", "openvino"]
    assert [each["outcome"] for each in report["candidates"]].count("chosen") == 1
