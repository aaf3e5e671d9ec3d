"""Outputs, labels and single images on the page, and small pictures in a report."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convexport.benchmarks.report.document import document
from convexport.benchmarks.report.measured import of_benchmark, with_verifications
from convexport.benchmarks.report.thumbnails import MOST_BYTES, SIDE, with_thumbnails
from convexport.calibration.images import folder
from convexport.runtime.errors import InputError
from tests.benchmarks.report.test_page import HOSTILE, Elements, page_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images whose files say where they were taken, and one that is none."""
    place = tmp_path / "photos"
    place.mkdir()
    exif = Image.Exif()
    exif[0x013B] = "Jane Doe"
    image = Image.effect_mandelbrot((400, 200), (-2, -1, 1, 1), 40).convert("RGB")
    image.save(place / "a.jpg", exif=exif, comment=b"at home with Jane Doe")
    Image.effect_noise((96, 96), 200).save(place / "noise.png")
    (place / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return place


def test_a_picture_is_small_and_says_nothing_but_pixels(photos: Path) -> None:
    names = ("a.jpg", "noise.png", "torn.png", "gone.png")
    found = with_thumbnails({"worst": [{"image": name} for name in names]}, folder(photos))
    first, *others = found["worst"]
    data = base64.b64decode(first["thumbnail"].partition(",")[2])
    assert len(data) <= MOST_BYTES and b"Jane" not in data
    picture = Image.open(io.BytesIO(data))
    assert picture.size == (SIDE, SIDE // 2) and not picture.getexif()
    assert others[1:] == [{"image": "torn.png"}, {"image": "gone.png"}]


def test_pictures_are_on_the_page_and_strangers_are_not(make_report: Any, photos: Path) -> None:
    report = make_report()
    worst = [{"image": "a.jpg", "expected": 1, "actual": 2, "error": 0.1}]
    for name in HOSTILE:
        for link in (f"data:text/html,{name}", "http://example.org/x.png", 3, "x" * 10**6):
            worst.append({**worst[0], "image": name, "thumbnail": link})
    checked = {**report["bundles"][0]["verification"], "worst": worst}
    report["bundles"][0]["verification"] = with_thumbnails(checked, folder(photos))
    found = Elements(page_of(document(report["bundles"], report["latency"])))
    images = [attributes for tag, attributes in found.found if tag == "img"]
    assert len(images) == 1 and images[0]["alt"] == "a.jpg"
    assert str(images[0]["src"]).startswith("data:image/jpeg;base64,")


def test_on_which_images_and_what_was_skipped(make_report: Any) -> None:
    report = make_report()
    bundle = report["bundles"][0]
    bundle["verification"] |= {
        "accuracy_set": "200 images of a folder",
        "protocol": "10",
        "accuracy": bundle["accuracy"],
        "top5": bundle["accuracy"],
        "skipped": {"count": 130, "of": 330, "images": [{"image": "b.png", "reason": "is torn"}]},
    }
    text = Elements(page_of(document(report["bundles"]))).text
    for said in ("64 images made up", "200 images of a folder", "10 crops", "130/330", "Top-5",
                 "130 of 330; the first 1", "b.png", "is torn"):  # fmt: skip
        assert said in text, said


def test_pytorch_and_the_gate_are_on_the_page(make_report: Any, tmp_path: Path) -> None:
    report = make_report()
    compared = {
        "parity": {each["label"]: each["verification"] for each in report["bundles"]},
        "latency": report["latency"],
        "torch_parity": {**report["bundles"][0]["verification"]["parity"], "sqnr_db": 77.7},
        "regression": [
            {"label": "two", "ratio": 1.25, "low": 1.2, "high": 1.3, "limit": 1.05,
             "verdict": "slower", "same_model": False}
        ],
    }  # fmt: skip
    found = of_benchmark([tmp_path / "one", tmp_path / "two"], compared)
    text = Elements(page_of(found)).text
    assert "77.7 dB" in text and "1.200 to 1.300" in text and "another" in text
    assert found["verdict"]["bundles"]["two"]["verdict"] == "FAIL"
    assert found["verdict"]["bundles"]["one"]["verdict"] == "PASS"


def test_what_verify_found_apart_enters_by_its_model(make_report: Any, tmp_path: Path) -> None:
    report = make_report()
    checked = dict(report["bundles"][1]["verification"], parity_set="50,000 images", warnings=["w"])
    for bundle in report["bundles"]:
        bundle["model_sha256"] = bundle["label"].ljust(64, "0")
        bundle["verification"] = "not measured"
    checked["model_sha256"] = report["bundles"][1]["model_sha256"]
    path = tmp_path / "verify.json"
    path.write_text(json.dumps(checked))
    one, two = with_verifications(report, [path])["bundles"]
    assert one["verification"] == "not measured"
    assert two["verification"]["parity_set"] == "50,000 images" and "w" in report["warnings"]
    for data in ({**checked, "model_sha256": "0" * 64}, {}, [], {**checked, "parity": 3}):
        path.write_text(json.dumps(data))
        with pytest.raises(InputError, match="E0375"):
            with_verifications(report, [path])
