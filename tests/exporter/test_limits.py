"""``convexport limits`` of a real bundle, its counts against the zoo's."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refused = Callable[..., Any]


def test_every_layer_has_its_time_and_its_roof(invoke: Any, int8_bundle: Path) -> None:
    found = invoke("limits", int8_bundle, "--threads", "1", "--seconds", "0.1", "--json").json()
    rows = {row["name"]: row for row in found["layers"]}
    weighted = {"c1/Conv", "c3/Conv", "c5/Conv", "f6/Gemm", "output/Gemm"}
    # Average pools are depthwise convolutions in INT8: each output adds 2x2 products.
    pools = {"s2/AveragePool": 2 * 6 * 14 * 14 * 4, "s4/AveragePool": 2 * 16 * 5 * 5 * 4}
    assert {name: rows[name]["ops"] for name in pools} == pools
    assert weighted | {*pools} == {name for name, row in rows.items() if row["ops"]}
    assert {rows[name]["precision"] for name in weighted} == {"int8"}
    # What the zoo counts of the module, layer by layer: an independent source.
    macs = invoke("show", "lenet5", "--json").json()["macs"]
    assert sum(rows[name]["ops"] for name in weighted) == 2 * macs
    # 6x28x28 outputs of 25 products; an 8-bit image, weights, maps, and 32-bit biases.
    assert rows["c1/Conv"]["ops"] == 2 * 6 * 28 * 28 * 25
    assert rows["c1/Conv"]["bytes"] == 32 * 32 + 6 * 25 + 4 * 6 + 6 * 28 * 28
    assert rows["c1/Conv"]["module"] == "c1"
    times = [row["ms"] for row in found["layers"]]
    assert times == sorted(times, reverse=True) and found["ms"] > 0
    for row in found["layers"]:
        compute = row["ops"] / found["peak_ops_per_s"]
        at_most = max(compute, row["bytes"] / min(b["bytes_per_s"] for b in found["bandwidth"]))
        at_least = max(compute, row["bytes"] / max(b["bytes_per_s"] for b in found["bandwidth"]))
        assert at_least * 1e3 <= row["fraction"] * row["ms"] * (1 + 1e-9)
        assert row["fraction"] * row["ms"] <= at_most * 1e3 * (1 + 1e-9)
        assert row["fraction"] <= 1 or found["notes"]
    assert found["fraction"] == pytest.approx(found["roof_ms"] / found["ms"])
    assert found["conditions"]["threads"] == 1 and found["conditions"]["runs"] == 30


def test_a_person_reads_where_the_time_goes(invoke: Any, int8_bundle: Path) -> None:
    done = invoke("limits", int8_bundle, "--seconds", "0.1", "--top", "3", "--threads", "1")
    assert "of the machine's limit" in done.out and "the 3 slowest of" in done.out
    assert "Gop/s in int8" in done.out and "GB/s" in done.out


def test_other_devices_are_not_measured(invoke: Any, refused: Refused, bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(
        json.dumps({**manifest, "provider": "CUDAExecutionProvider"})
    )
    refused(6, "E0661", "limits", bundle)
    refused(3, "E0304", "limits", bundle / "no")


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")
def test_openvino_tells_its_kernels_too(invoke: Any, quick: Any) -> None:
    built = invoke("build", "lenet5", "--weights", "digits", "--target", "openvino", *quick,
                   "-o", "b")  # fmt: skip
    assert built.code == 0, built.err
    found = invoke("limits", "b", "--threads", "1", "--seconds", "0.1", "--json").json()
    macs = invoke("show", "lenet5", "--json").json()["macs"]
    assert sum(row["ops"] for row in found["layers"]) == 2 * macs
    assert found["conditions"]["runtime"].startswith("openvino")
    assert {row["precision"] for row in found["layers"] if row["ops"]} == {"fp32"}
