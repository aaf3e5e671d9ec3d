"""Engines that are built at the same time share one GPU and one timing cache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from convexport.runtime.trt_config import TrtOptions

from .conftest import Says
from .test_stage import build


def test_each_takes_what_the_others_measured(
    tensorrt: Says, onnx_file: Path, tmp_path: Path
) -> None:
    tensorrt("8.5")
    several = [TrtOptions(typed=False, batch=(1, 1, most)) for most in (1, 2, 3, 4)]
    root = tmp_path / "cache"
    with ThreadPoolExecutor(len(several)) as pool:
        made = list(pool.map(lambda options: build(root, onnx_file, options), several))
    assert len({result.key for result in made}) == len(several)
    assert sorted(result.facts["timing_cache_taken"] for result in made) == [0, 1, 1, 1]
    (cache,) = (root / "timing").glob("*.cache")
    assert cache.read_bytes().count(b"measured") >= 3
    assert not list(root.rglob("*.partial"))
