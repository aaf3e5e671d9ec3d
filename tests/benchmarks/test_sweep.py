"""The sweep builds, keeps what it found, and says of each failure why."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from convexport.benchmarks import sweep


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> sweep.Row:
    return sweep.measure("lenet5", tmp_path_factory.mktemp("sweep") / "build")


def test_a_variant_is_built_in_both_precisions(row: sweep.Row) -> None:
    assert row["fp32"]["bytes"] > row["int8"]["bytes"] > 0
    assert max(row["fp32"]["parity"]["export"]["max_rel"].values()) <= 1e-4
    assert row["int8"]["parity"]["quantize"]["top1"]["n"] == 16
    (line,) = (line for line in sweep.table([row]) if line.startswith("| lenet5"))
    assert f"| {row['fp32']['graph']['nodes']} |" in line
    assert "All of these were built" in "\n".join(sweep.table([row]))


def test_a_failure_is_told_with_its_reason(row: sweep.Row, tmp_path: Path) -> None:
    failed = sweep.measure("inception_block_naive", tmp_path / "build")
    assert failed["fp32"]["error"] == "E0685 inception_block_naive is a block, not a net"
    lines = list(sweep.table([row, failed]))
    assert (
        "- inception_block_naive in FP32: E0685 inception_block_naive is a block, not a net"
        in lines
    )
    assert not any("All of these were built" in line for line in lines)


def test_what_was_measured_is_not_measured_again(
    row: sweep.Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, table = tmp_path / "results.jsonl", tmp_path / "zoo.md"
    results.write_text(json.dumps({**row, "date": "2000-01-01"}) + "\n" + json.dumps(row) + "\n")
    monkeypatch.setattr(sweep, "measure", lambda *_: pytest.fail("measured again"))
    arguments = ["sweep", "--results", str(results), "--net", "lenet5", "--table", str(table)]
    monkeypatch.setattr(sys, "argv", arguments)
    sweep.main()
    assert sum(line.startswith("| lenet5") for line in table.read_text().splitlines()) == 1
    assert row["date"] in table.read_text() and "2000-01-01" not in table.read_text()
