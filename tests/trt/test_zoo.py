"""The measurement of the zoo on a GPU, wired up to the doubles; and what of it needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from convexport.architectures.registry import variants
from convexport.runtime import cuda
from tests.gpu import zoo

from .conftest import Says
from .test_delivery import saved


def test_a_row_has_parity_layers_and_latency(
    tensorrt: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = {"Name": "c/Conv", "Inputs": [{"Format/Datatype": "Row major linear FP32"}]}
    tensorrt("8.5", layers=[layer])
    monkeypatch.setattr(zoo, "RUNS", 5)
    net = saved(tmp_path / "tiny.onnx", "batch")
    found = zoo.row(str(net), "fp32", tmp_path / "out", offline=True, cache_dir=tmp_path / "cache")
    assert found["parity"]["fp32"]["max_rel"]["all"] < 1e-5
    assert found["layers"]["convolutions"] == {"fp32": 1}
    assert found["engine"]["gpu_ms"] == {"median": 1.0, "p95": 1.0}  # the double's clock
    assert 0 < found["engine"]["host_ms"]["median"] <= found["engine"]["host_ms"]["p95"]
    for other in ("onnxruntime", "torch.compile"):  # here there is no CUDA for them
        assert found[other]["not measured"]


def test_a_net_that_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_LIBRARY", "no such driver")
    found = list(zoo.rows(["lenet5"], tmp_path))
    assert [each["net"] for each in found] == ["lenet5"] * 3
    assert all("E04" in each["not measured"] for each in found)


def test_no_family_is_left_out() -> None:
    assert {*zoo.nets()} == {each.family for each in variants().values()}
