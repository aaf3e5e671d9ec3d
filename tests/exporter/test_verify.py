"""``convexport verify`` with several crops an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convexport.calibration.digits import digits
from convexport.runtime.crops import crops
from convexport.runtime.engine import load

Refused = Callable[..., Any]


@pytest.fixture
def data(home: Path) -> Path:
    """Digits in noise, so that some are misread, in a folder a class."""
    rng = np.random.default_rng(0)
    for item in digits("test").sample(60).items:
        image = item.content()
        assert isinstance(image, Image.Image)
        pixels = np.asarray(image).astype(int) + rng.integers(-140, 140, (8, 8))
        path = home / f"data/{item.label}/{item.name.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((40, 36)).save(path)
    return home / "data"


def wrong(bundle: Path, data: Path, protocol: str) -> dict[int, int]:
    """How many images of a folder a class are not among the first, and the first five."""
    engine, count = load(bundle), {1: 0, 5: 0}
    spec = engine.manifest.preprocess
    for path in sorted(data.rglob("*.png")):
        with Image.open(path) as image:
            rows = engine(crops(image, spec, protocol))
        shares = [np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in rows]
        best = np.argsort(-np.mean(shares, axis=0), kind="stable")
        for top in count:
            count[top] += path.parent.name not in [engine.labels[index] for index in best[:top]]
    return count


@pytest.mark.parametrize("protocol", ["1", "10", "144"])
def test_errors_are_those_of_the_averages(
    invoke: Any, int8_bundle: Path, data: Path, protocol: str
) -> None:
    facts = invoke("verify", int8_bundle, "--data", data, "--protocol", protocol, "--json").json()
    assert facts["protocol"] == protocol
    for top, count in wrong(int8_bundle, data, protocol).items():
        error = facts[f"top{top}_error"]
        assert error["actual"]["n"] == error["reference"]["n"] == 60
        assert error["actual"]["k"] == count
        assert error["actual"]["low"] <= error["actual"]["share"] <= error["actual"]["high"]
    for side in ("actual", "reference"):
        assert facts["accuracy"][side]["k"] == 60 - facts["top1_error"][side]["k"]
    assert 0 < facts["top1_error"]["actual"]["k"] < 60


def test_parity_is_that_of_the_centre(invoke: Any, int8_bundle: Path, data: Path) -> None:
    plain = invoke("verify", int8_bundle, "--data", data, "--json").json()
    many = invoke("verify", int8_bundle, "--data", data, "--protocol", "10", "--json").json()
    assert plain["protocol"] == "1"
    assert plain["parity"] == many["parity"]
    assert plain["top5_error"] != many["top5_error"] or plain["top1_error"] != many["top1_error"]


def test_a_person_reads_how_many_crops(invoke: Any, int8_bundle: Path, data: Path) -> None:
    done = invoke("verify", int8_bundle, "--data", data, "--protocol", "10")
    text = " ".join(done.out.split())
    assert "10 crops an image (Krizhevsky" in text
    assert "top-5 error: reference" in text and "95 % interval" in text
    assert "one crop an image" in invoke("verify", int8_bundle, "--data", data).out


def test_without_labels_nothing_is_averaged(
    invoke: Any, refused: Refused, int8_bundle: Path, data: Path, home: Path
) -> None:
    facts = invoke("verify", int8_bundle, "--json").json()
    assert facts["top1_error"] == facts["top5_error"] == "not measured"
    refused(2, "E0268", "verify", int8_bundle, "--protocol", "10")
    (home / "flat").mkdir()
    next(data.rglob("*.png")).rename(home / "flat/a.png")
    refused(2, "E0268", "verify", int8_bundle, "--data", home / "flat", "--protocol", "144")


def test_another_protocol_is_refused(refused: Refused, int8_bundle: Path, data: Path) -> None:
    done = refused(2, "E0202", "verify", int8_bundle, "--data", data, "--protocol", "12")
    assert "1, 10, 144" in done.err
