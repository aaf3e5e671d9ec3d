"""The engine's stage: found where nothing changed, built anew where anything did."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from convexport.exporter.cache import StageCache, StageResult
from convexport.exporter.trt_build import PLAN, engine_inputs, engine_stage
from convexport.runtime import cuda
from convexport.runtime.errors import BusyError, MachineError
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_plan import read_facts

from .conftest import Says

WEAK = TrtOptions(typed=False)


def build(root: Path, onnx: Path, options: TrtOptions = WEAK) -> StageResult:
    cache = StageCache(root)
    inputs = engine_inputs(onnx, options)
    return cache.stage("engine", inputs, lambda out: engine_stage(onnx, options, root, out))


def test_the_same_again_is_found(tensorrt: Says, onnx_file: Path, tmp_path: Path) -> None:
    tensorrt("8.5", layers=["a"])
    first = build(tmp_path / "cache", onnx_file)
    tensorrt("8.5", fail="say nothing is built twice")
    second = build(tmp_path / "cache", onnx_file)
    assert not first.cached and second.cached
    assert second.facts["engine"]["counts"] == {"not told": 1}
    assert read_facts(second.directory / PLAN).tensorrt == "8.5.3.1"


def test_anything_else_is_built_anew(
    tensorrt: Says, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt("8.5")
    root, keys = tmp_path / "cache", []

    def again(options: TrtOptions = WEAK) -> None:
        cuda.cuda.cache_clear()
        keys.append(build(root, onnx_file, options).key)

    again()
    again(TrtOptions(typed=False, batch=(1, 1, 2)))
    monkeypatch.setenv("FAKE_CUDA_NAME", "Xavier")
    again()
    monkeypatch.setenv("FAKE_CUDA_DRIVER", "12080")
    again()
    onnx_file.write_bytes(b"another ONNX file")
    again()
    tensorrt("8.6")
    again()
    assert len(set(keys)) == 6


def test_an_engine_that_was_changed_in_the_cache_is_built_anew(
    tensorrt: Says, onnx_file: Path, tmp_path: Path
) -> None:
    tensorrt("8.5")
    first = build(tmp_path / "cache", onnx_file)
    (first.directory / PLAN).write_bytes(b"a poisoned plan")
    second = build(tmp_path / "cache", onnx_file)
    assert not second.cached and read_facts(second.directory / PLAN)
    assert second.facts["timing_cache_taken"]  # what was measured is kept across builds


def test_one_engine_at_a_time(tensorrt: Says, onnx_file: Path, tmp_path: Path) -> None:
    tensorrt("8.5")
    build(tmp_path, onnx_file)
    (lock,) = (tmp_path / "timing").glob("*.lock")
    (tmp_path / "out").mkdir()
    with FileLock(lock), pytest.raises(BusyError, match="E0780"):
        engine_stage(onnx_file, WEAK, tmp_path, tmp_path / "out", lock_timeout=0.1)


def test_a_failed_build_leaves_nothing_in_the_cache(
    tensorrt: Says, onnx_file: Path, tmp_path: Path
) -> None:
    tensorrt("8.5", fail="signal 9")
    with pytest.raises(MachineError, match="E0412"):
        build(tmp_path / "cache", onnx_file)
    assert not list((tmp_path / "cache/stages").glob("engine-*/"))


@pytest.mark.parametrize(
    ("precision", "typed", "expected"),
    [
        ("fp32", False, (False, False)),
        ("fp16", False, (True, False)),
        ("int8", False, (True, True)),
        ("int8", True, (False, False)),
    ],
)
def test_a_graphs_precision_says_what_the_builder_may_do(
    precision: str, typed: bool, expected: tuple[bool, bool]
) -> None:
    options = TrtOptions.of_graph(precision, typed, batch=(1, 2, 3))
    assert (options.fp16, options.int8) == expected
    assert (options.typed, options.batch) == (typed, (1, 2, 3))
