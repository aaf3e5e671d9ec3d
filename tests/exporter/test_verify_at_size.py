"""``convexport verify`` over folders of any size and kind: odd images, names and labels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convexport.calibration.digits import digits
from tests.exporter.labelled import NAMES, answer, pixels, put, sealed

Refused = Callable[..., Any]


def test_the_margin_is_a_gate(invoke: Any, refused: Refused, tiny: Path, data: Path) -> None:
    facts = invoke("verify", tiny, "--data", data, "--json").json()["accuracy"]
    assert facts["high_pp"] > 1
    done = invoke("verify", tiny, "--data", data, "--margin", "1%")
    assert done.failed_with(5, "E0567") and "top-1" in done.out
    wide = f"{facts['high_pp'] + 0.01}%"
    assert invoke("verify", tiny, "--data", data, "--margin", wide).code == 0
    invoke("verify", tiny, "--data", data, "--save", "all")
    assert invoke("merge", "all", "--margin", "1%").failed_with(5, "E0567")
    assert invoke("merge", "all", "--margin", wide).code == 0
    refused(2, "E0266", "verify", tiny, "--data", data, "--margin", "0%")
    refused(2, "E0268", "verify", tiny, "--margin", "1%")


def test_bad_images_are_counted_and_named(
    invoke: Any, refused: Refused, tiny: Path, data: Path
) -> None:
    (data / "ant/broken.png").write_bytes(b"no image")
    (data / "bee/gone.png").symlink_to("nowhere")
    done = refused(3, "E0342", "verify", tiny, "--data", data)
    assert "ant/broken.png" in done.err and "at least 2 of 102" in done.err
    facts = invoke("verify", tiny, "--data", data, "--bad-images", "skip", "--json").json()
    assert (facts["skipped"]["count"], facts["skipped"]["of"]) == (2, 102)
    assert [row["image"] for row in facts["skipped"]["images"]] == [
        "ant/broken.png",
        "bee/gone.png",
    ]
    assert facts["parity"]["n"] == facts["accuracy"]["actual"]["n"] == 100
    assert "2 of 102 images were skipped" in facts["warnings"]
    text = invoke("verify", tiny, "--data", data, "--bad-images", "skip").out
    assert "skipped 2/102" in text and "gone.png" in text


def test_nothing_but_bad_images(refused: Refused, tiny: Path, home: Path) -> None:
    (home / "bad").mkdir()
    (home / "bad/a.png").write_bytes(b"")
    refused(3, "E0378", "verify", tiny, "--data", "bad", "--bad-images", "skip")


def test_one_colour_shows_nothing(refused: Refused, tiny: Path, home: Path) -> None:
    (home / "grey").mkdir()
    for level in (3, 90):
        Image.new("L", (2, 2), level).save(home / f"grey/{level}.png")
    refused(3, "E0344", "verify", tiny, "--data", "grey")


def test_labels_that_are_off_by_one_are_named(invoke: Any, int8_bundle: Path, home: Path) -> None:
    for item in digits("test").sample(60).items:
        image = item.content()
        assert isinstance(image, Image.Image) and item.label is not None
        path = home / f"off/{(item.label + 1) % 10}/{item.name.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    facts = invoke("verify", int8_bundle, "--data", "off", "--json").json()
    (warning,) = facts["warnings"]
    assert warning == facts["accuracy"]["hint"] and "off by one" in warning
    assert "permuted" not in warning


def test_folders_numbered_from_one_are_refused(refused: Refused, tiny: Path, home: Path) -> None:
    for index in range(3):
        put(home / f"one/{index + 1}/a.png", index)
    assert "start at 1" in refused(3, "E0368", "verify", tiny, "--data", "one").err
    (tiny / "labels.txt").unlink()
    sealed(tiny)  # without labels, too, where names in order would do
    assert "start at 1" in refused(3, "E0368", "verify", tiny, "--data", "one").err


def test_wordnet_ids_are_taken_in_their_order_and_that_is_said(
    invoke: Any, tiny: Path, home: Path
) -> None:
    ordered = dict(zip(NAMES, ("n02121808", "n02206856", "n02219486"), strict=True))
    for index in range(60):
        put(home / f"ids/{ordered[answer(index)]}/{index}.png", index)
    facts = invoke("verify", tiny, "--data", "ids", "--json").json()
    right = facts["accuracy"]["reference"]
    assert right["k"] == right["n"] == 60
    assert any("WordNet" in text for text in facts["warnings"])


def test_a_label_that_two_classes_have_is_ambiguous(
    refused: Refused, tiny: Path, data: Path
) -> None:
    (tiny / "labels.txt").write_text("ant\nbee\nbee\n")
    sealed(tiny)
    for path in (data / "cat").iterdir():
        path.unlink()
    (data / "cat").rmdir()
    assert "bee" in refused(3, "E0368", "verify", tiny, "--data", data).err


def test_missing_classes_are_said(invoke: Any, tiny: Path, home: Path) -> None:
    for index in range(12):
        put(home / f"two/{'ant' if index % 2 else 'cat'}/{index}.png", index)
    facts = invoke("verify", tiny, "--data", "two", "--json").json()
    assert any(text.startswith("the data has 2 of the net's 3") for text in facts["warnings"])


def test_images_that_set_the_ranges_are_noticed(invoke: Any, quick: Any, home: Path) -> None:
    for item in digits("calibration").sample(40).items:
        image = item.content()
        assert isinstance(image, Image.Image)
        path = home / f"all/{item.label}/{item.name.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    built = invoke("build", "lenet5", "--weights", "digits", "--int8", "--calib", "all",
                   "--calib-images", "8", "--method", "minmax", *quick, "-o", "b")  # fmt: skip
    assert built.code == 0, built.err
    facts = invoke("verify", "b", "--data", "all", "--json").json()
    (warning,) = (text for text in facts["warnings"] if "calibrated with" in text)
    # Those that calibrated: 8 of 40, less the fifth of them that may be held out to try on.
    count = len(json.loads((home / "b/calibration.json").read_text())["contents"])
    assert warning.startswith(f"{count} of 40 images") and count in range(4, 9)


def test_names_and_trees_of_strangers(invoke: Any, tiny: Path, home: Path) -> None:
    deep = "/".join(["d" * 20] * 60)
    odd = [
        "a\nb",
        "-rf",
        "tab\there",
        "ünï",
        "x" * 240,
        "\x1b[31mred",
        "'quote\"",
        os.fsdecode(b"\xff"),
    ]
    for index, name in enumerate(odd):
        put(home / "odd/ant" / f"{name}.png", index)
    put(home / "odd/bee" / deep / "deep.png", 20)
    put(home / "odd/cat/.hidden.png", 21)
    put(home / "odd/cat/ok.png", 22)
    for clutter in ("Thumbs.db", "desktop.ini"):
        (home / "odd/cat" / clutter).write_bytes(b"\0")
    (home / "odd/cat/again").symlink_to("..")
    facts = invoke("verify", tiny, "--data", "odd", "--json").json()
    assert facts["parity"]["n"] == len(odd) + 2
    assert facts["passed_over"]["hidden or clutter"] == 3
    text = invoke("verify", tiny, "--data", "odd").out
    assert "\x1b" not in text
    invoke("verify", tiny, "--data", "odd", "--save", "saved")
    assert invoke("merge", "saved", "--json").json() == facts


def test_a_class_with_a_newline_in_its_name(invoke: Any, tiny: Path, home: Path) -> None:
    for index in range(4):
        put(home / "nl" / ("ant" if index % 2 else "b\nee") / f"{index}.png", index)
    done = invoke("verify", tiny, "--data", "nl")
    assert done.failed_with(3, "E0368") and len(done.err.splitlines()) < 24


@pytest.mark.slow
def test_ten_thousand_files_take_no_more_memory_than_a_thousand(tiny: Path, home: Path) -> None:
    for index in range(10_000):
        label = ("ant", "bee", "cat")[index % 3]
        for size in (1000, 10_000):
            if index < size:
                folder = home / f"d{size}/{label}"
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels(index)).save(folder / f"{index:05}.png")
    program = """
import sys, resource
from pathlib import Path
from convexport.benchmarks.verify import verify
from convexport.calibration.images import folder
n = verify(Path(sys.argv[1]), folder(Path(sys.argv[2]))).parity.n
print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = {}
    for size in (1000, 10_000):
        out = subprocess.run([sys.executable, "-c", program, tiny, home / f"d{size}"],
                             capture_output=True, text=True, check=True).stdout  # fmt: skip
        n, peaks[size] = map(int, out.split())
        assert n == size
    # A name is a hundred bytes or so; the logits and hashes of all would be more than that.
    assert peaks[10_000] - peaks[1000] < 4 * 1024, peaks
