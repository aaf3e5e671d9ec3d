"""What INT8, as it is by default, costs the nets that read digits, on the whole test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from convexport.architectures.registry import variants

NETS = [name for name, variant in variants().items() if variant.digits]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "lenet5" else [pytest.mark.slow]) for n in NETS]
)
def test_int8_loses_at_most_three_images_in_a_thousand(
    invoke: Any, quick: tuple[str, ...], home: Path, name: str
) -> None:
    done = invoke("build", name, "--weights", "digits", "--int8", "-o", "out", *quick, "--json")
    assert done.code == 0, done.err
    accuracy = done.json()["report"]["bundles"][0]["accuracy"]
    assert accuracy["actual"]["n"] == accuracy["reference"]["n"] == 502
    assert accuracy["reference"]["share"] >= 0.97
    assert accuracy["drop_pp"] <= 0.3
    # By the upper end of the paired 95 % interval.
    assert accuracy["high_pp"] < 1.0
    assert "int8" in done.json()["manifest"]["layers"].values()
