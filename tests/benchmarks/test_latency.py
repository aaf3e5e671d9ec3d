from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from convexport.benchmarks import workers
from convexport.benchmarks.latency import LatencyOptions, bench, evaluate
from convexport.benchmarks.recording import Recording, Subject
from convexport.runtime.errors import InputError, MachineError, UsageError
from convexport.runtime.files import sha256_of

MakeSubject = Callable[..., Subject]
SHORT = LatencyOptions(duration_s=0.1, processes=2, warmup_s=0.01, threads=1)


def _silent(line: str) -> None:
    pass


def _pretend(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(workers, "_WORKER", (sys.executable, "-c", code))


def test_a_heavier_model_is_slower(
    make_subject: MakeSubject, capfd: pytest.CaptureFixture[str]
) -> None:
    light, heavy = make_subject("light"), make_subject("heavy", layers=20, size=64)
    lines: list[str] = []
    options = replace(SHORT, processes=5, duration_s=0.5, batch=2)
    result = bench([light, heavy], options, report=lines.append)
    first, second = result.subjects
    assert first.speedup is None
    assert second.speedup is not None and second.speedup.claim == "slower"
    assert second.speedup.value < 0.5
    assert (first.label, first.sha256) == ("light", light.sha256)
    p50 = first.percentiles_ms[0].value
    assert p50 is not None and first.throughput == pytest.approx(2e3 / p50)
    assert len(first.process_medians_ms) == 5
    assert result.verdict == "UNSTABLE"
    assert "measured for 0.5 s, less than 10 s" in result.reasons
    assert len(lines) == 6
    assert capfd.readouterr().out == ""


def test_the_numbers_follow_from_the_stored_recording(make_subject: MakeSubject) -> None:
    result = bench([make_subject("a"), make_subject("b")], SHORT, report=_silent)
    stored = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    again = evaluate(Recording.from_dict(stored["recording"]))
    assert json.loads(json.dumps(again.to_dict())) == stored
    seeds = {run.models["a"].samples.to_dict()["ns"] for run in result.recording.runs}
    assert len(seeds) == 2
    assert stored["recording"]["subjects"][0]["model"] == "a.onnx"


@pytest.mark.parametrize("labels", [[], ["a", "a"]])
def test_labels_must_differ(make_subject: MakeSubject, labels: list[str]) -> None:
    with pytest.raises(UsageError, match="E0264"):
        bench([make_subject(label) for label in labels], SHORT, report=_silent)


def test_an_error_of_the_worker_is_ours(make_subject: MakeSubject) -> None:
    with pytest.raises(InputError, match="E0363") as caught:
        bench([replace(make_subject("a"), sha256="0" * 64)], SHORT, report=_silent)
    assert "asked for 0000" in caught.value.where


def test_a_model_that_is_none(make_subject: MakeSubject) -> None:
    subject = make_subject("a")
    subject.model.write_bytes(b"not a model")
    digest = sha256_of(subject.model)
    with pytest.raises(InputError, match="E0303"):
        bench([replace(subject, sha256=digest)], SHORT, report=_silent)


def test_a_crashed_worker(make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, "import os, sys; print('ouch', file=sys.stderr, flush=True); os.abort()")
    with pytest.raises(MachineError, match="SIGABRT") as caught:
        bench([make_subject("a")], SHORT, report=_silent)
    assert caught.value.code == "E0410" and "ouch" in caught.value.why


def test_a_hung_worker(make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, "import time; time.sleep(600)")
    with pytest.raises(MachineError, match="E0411"):
        bench([make_subject("a")], replace(SHORT, timeout_s=0.2), report=_silent)


def test_a_mute_worker(make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, "print('hello')")
    with pytest.raises(MachineError, match="E0462"):
        bench([make_subject("a")], SHORT, report=_silent)


def test_children_inherit_nothing_odd(
    make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    result = bench([make_subject("a")], replace(SHORT, processes=1), report=_silent)
    assert {"OMP_NUM_THREADS", "PYTHONWARNINGS"} <= set(result.recording.dropped_variables)
    assert any("OMP_NUM_THREADS" in note for note in result.notes)
    seen = "import os, sys; sys.exit(sorted(n for n in os.environ if n.startswith('OMP_')) != [])"
    _pretend(monkeypatch, seen)
    with pytest.raises(MachineError, match="E0462"):  # it ended well, and so saw none
        bench([make_subject("a")], SHORT, report=_silent)
