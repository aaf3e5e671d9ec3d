"""Parity stops what is wrong by a little; and builds of the same thing wait for each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import numpy_helper

from convexport.exporter import int8, int8_trials, stages
from convexport.exporter.cache import StageCache
from convexport.runtime.errors import BusyError, InputError

Refused = Callable[..., Any]
Quick = tuple[str, ...]


def net(seed: int) -> tuple[str, ...]:
    """Each test builds another net: what one left in the cache would hide the other's fault."""
    return ("build", "lenet5", "--weights", f"random:{seed}", "-o", "out")


def scaled(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The same net with the weights of its last layer a little larger."""
    changed = 0
    for tensor in model.graph.initializer:
        if tensor.name in ("output.weight", "output.bias"):
            with np.errstate(over="ignore"):
                array = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
            changed += 1
    assert changed == 2
    return model


@pytest.mark.parametrize("stage", ["export", "simplify"])
def test_outputs_that_are_off_by_a_thousandth_fail(
    refused: Refused, quick: Quick, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    save = stages.save
    file = stages.EXPORTED if stage == "export" else stages.SIMPLIFIED

    def save_scaled(model: onnx.ModelProto, path: Path) -> None:
        save(scaled(model, 1.001) if path.name == file else model, path)

    monkeypatch.setattr(stages, "save", save_scaled)
    done = refused(5, "E0561", *net(101 if stage == "export" else 102), *quick)
    assert f"{stage}: the outputs moved" in done.err and "0.001" in done.err


def test_outputs_that_are_off_by_a_millionth_pass(
    invoke: Any, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = stages.save
    monkeypatch.setattr(stages, "save", lambda model, path: save(scaled(model, 1 + 1e-6), path))
    assert invoke(*net(103), *quick).code == 0


def test_a_quantized_net_that_computes_noise_fails(
    refused: Refused, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = stages.save

    def save_zeroed(model: onnx.ModelProto, path: Path) -> None:
        for tensor in model.graph.initializer if path.name == int8.QUANTIZED else ():
            if tensor.name.endswith(".scale") and "output" in tensor.name:
                array = numpy_helper.to_array(tensor) * np.float32(100)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        save(model, path)

    monkeypatch.setattr(int8_trials, "save", save_zeroed)
    refused(5, "E0564", *net(104), "--int8", *quick)


def test_weights_that_overflow_in_the_export_fail(
    refused: Refused, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = stages.save

    def save_huge(model: onnx.ModelProto, path: Path) -> None:
        save(scaled(model, 3e38), path)

    monkeypatch.setattr(stages, "save", save_huge)
    refused(5, "E0562", *net(105), *quick)


def test_builds_of_the_same_wait_for_each_other(tmp_path: Path) -> None:
    made, said = [], []

    def slow(directory: Path) -> dict[str, int]:
        made.append(directory)
        time.sleep(0.3)
        return {"n": len(made)}

    results = []

    def work() -> None:
        cache = StageCache(tmp_path, waiting=said.append)
        results.append(cache.stage("stage", {"x": 1}, slow))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and sorted(result.cached for result in results) == [False, True, True]
    assert {result.facts["n"] for result in results} == {1}
    assert any("waiting" in text for text in said)


def test_waiting_ends(tmp_path: Path) -> None:
    cache = StageCache(tmp_path, lock_timeout=0.2)
    directory = cache.stage("stage", {"x": 1}, lambda directory: {}).directory
    with FileLock(directory.with_name(f"{directory.name}.lock")):
        with pytest.raises(BusyError) as error:
            cache.stage("stage", {"x": 1}, lambda directory: {})
        assert error.value.exit_code == 7 and "--lock-timeout" in error.value.hint
        # Another entry is nobody's business.
        cache.stage("stage", {"x": 2}, lambda directory: {})


def test_a_stage_that_fails_leaves_no_entry(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)

    def fail(directory: Path) -> dict[str, Any]:
        (directory / "half").write_text("half")
        raise InputError("E0999", "no")

    with pytest.raises(InputError):
        cache.stage("stage", {"x": 1}, fail)
    assert not [path for path in tmp_path.rglob("*") if path.suffix != ".lock" and path.is_file()]
    assert not cache.stage("stage", {"x": 1}, lambda directory: {}).cached


@pytest.mark.parametrize("damage", ["changed", "missing", "link"])
def test_an_entry_is_hashed_on_every_hit(tmp_path: Path, damage: str) -> None:
    cache = StageCache(tmp_path / "cache")

    def produce(directory: Path) -> dict[str, Any]:
        (directory / "sub").mkdir()
        (directory / "sub/file").write_bytes(b"right")
        return {}

    file = cache.stage("stage", {"x": 1}, produce).directory / "sub/file"
    assert cache.stage("stage", {"x": 1}, produce).cached
    if damage == "changed":
        file.write_bytes(b"wrong")
    else:
        file.unlink()
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(b"wrong")
        file.symlink_to(tmp_path / "elsewhere")
    assert not cache.stage("stage", {"x": 1}, produce).cached
    assert file.read_bytes() == b"right" and not file.is_symlink()
    if damage == "link":
        assert (tmp_path / "elsewhere").read_bytes() == b"wrong"


def test_what_went_in_is_the_key(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    results = [
        cache.stage(name, inputs, lambda directory: {})
        for name, inputs in (("a", {"x": 1}), ("b", {"x": 1}), ("a", {"x": 2}), ("a", {"x": "1"}))
    ]
    assert len({result.key for result in results}) == 4
    assert cache.stage("a", {"x": 1}, lambda directory: {}).cached
