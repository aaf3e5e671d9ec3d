"""Calibration images and labels: what is missing, empty, mixed or unreadable."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convexport.calibration.digits import digits
from convexport.exporter.data import choose_images
from convexport.exporter.options import BuildOptions
from convexport.exporter.sources import find_source
from tests.pictures import write_images

Refused = Callable[..., Any]
Quick = tuple[str, ...]

NET = ("build", "net.onnx", "--int8", "-o", "out")


@pytest.fixture(autouse=True)
def net(home: Path, small_onnx: Any) -> None:
    """A net of 5 classes, in the current directory."""
    (home / "net.onnx").write_bytes(small_onnx().SerializeToString())


def test_a_folder_that_is_missing_empty_or_none_is_refused(
    refused: Refused, quick: Quick, home: Path
) -> None:
    (home / "empty").mkdir()
    (home / "texts").mkdir()
    (home / "texts/a.txt").write_text("no image")
    (home / "file.png").write_bytes(b"x")
    for name, error in (
        ("missing", "E0340"),
        ("empty", "E0341"),
        ("texts", "E0341"),
        ("file.png", "E0340"),
    ):
        refused(3, error, *NET, "--calib", name, *quick)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>", "HTML page"),
        (b"P5 40 40 255\n" + bytes(99), "cut or corrupt"),
    ],
    ids=["empty", "html", "cut"],
)
def test_a_folder_of_bad_files_is_refused_by_name(
    refused: Refused, quick: Quick, home: Path, content: bytes, why: str
) -> None:
    (home / "images").mkdir()
    for name in ("a.png", "b.png"):
        (home / "images" / name).write_bytes(content)
    done = refused(3, "E0342", *NET, "--calib", "images", *quick)
    assert "a.png" in done.err and why in done.err.replace("\n", " ")


def test_one_bad_image_of_many_is_skipped_and_counted(
    invoke: Any, quick: Quick, home: Path
) -> None:
    write_images(home / "images", 100)
    (home / "images/0050.png").write_bytes(b"broken")
    done = invoke(*NET, "--calib", "images", *quick, "--json")
    assert done.code == 0, done.err
    calibration = done.json()["manifest"]["calibration"]
    assert calibration["images"] == 99
    assert [name for name, _ in calibration["skipped"]] == ["0050.png"]


def test_two_bad_images_of_a_hundred_are_too_many(
    refused: Refused, quick: Quick, home: Path
) -> None:
    write_images(home / "images", 100)
    for index in (3, 50):
        (home / f"images/{index:04d}.png").write_bytes(b"broken")
    done = refused(3, "E0342", *NET, "--calib", "images", *quick)
    assert "0003.png" in done.err and "0050.png" in done.err


def test_an_unreadable_file_counts_as_a_bad_image(invoke: Any, quick: Quick, home: Path) -> None:
    write_images(home / "images", 100)
    (home / "images/0050.png").unlink()
    os.mkfifo(home / "images/0050.png")
    done = invoke(*NET, "--calib", "images", *quick, "--json")
    assert done.code == 0, done.err
    assert [name for name, _ in done.json()["manifest"]["calibration"]["skipped"]] == ["0050.png"]


def test_what_is_no_image_is_passed_over_and_few_images_are_said(
    invoke: Any, quick: Quick, home: Path
) -> None:
    write_images(home / "images/cats", 7)
    write_images(home / "images/dogs", 6, seed=1)
    (home / "images/readme.txt").write_text("no image")
    done = invoke(*NET, "--calib", "images", *quick, "--json")
    assert done.code == 0, done.err
    assert "only 13 different images" in done.err
    calibration = done.json()["manifest"]["calibration"]
    assert (calibration["images"], calibration["stand_in"]) == (13, False)
    assert sum(calibration["passed_over"].values()) == 1


def test_repeated_images_are_counted(invoke: Any, quick: Quick, home: Path) -> None:
    write_images(home / "images", 30)
    content = (home / "images/0000.png").read_bytes()
    for index in range(1, 5):
        (home / f"images/{index:04d}.png").write_bytes(content)
    done = invoke(*NET, "--calib", "images", *quick, "--json")
    assert done.code == 0, done.err
    assert "4 of 30 images repeat another one" in done.err
    assert done.json()["manifest"]["calibration"]["duplicates"] == 4


def test_one_image_is_enough_to_calibrate_but_not_to_be_silent(
    invoke: Any, quick: Quick, home: Path
) -> None:
    write_images(home / "images", 1)
    done = invoke(*NET, "--calib", "images", *quick)
    assert done.code in (0, 5), "it may fail the gate of INT8, and nothing else"
    assert "only 1 different images" in done.err


@pytest.mark.parametrize("value", [0, 128, 255])
def test_images_of_one_colour_are_refused(
    refused: Refused, quick: Quick, home: Path, value: int
) -> None:
    (home / "images").mkdir()
    for index in range(3):
        Image.new("L", (40, 40), value).save(home / f"images/{index}.png")
    refused(3, "E0344", *NET, "--calib", "images", *quick)


def test_calibrating_on_the_test_set_is_said(home: Path) -> None:
    (home / "images").mkdir()
    for index, item in enumerate(digits("test").items[:20]):
        image = item.content()
        assert isinstance(image, Image.Image)
        image.save(home / f"images/{index:02d}.png")
    options = BuildOptions(precision="int8", weights="digits", offline=True, calib=home / "images")
    source = find_source("lenet5", options, lambda text: None)
    notes = choose_images(source, options).notes
    assert "20 calibration images are also evaluation images" in notes


def test_the_stand_in_is_said_to_be_one(invoke: Any, quick: Quick) -> None:
    done = invoke(*NET, *quick, "--json")
    assert "stand-in" in done.err
    assert done.json()["manifest"]["calibration"]["stand_in"] is True


def test_the_place_of_the_images_is_not_in_the_bundle(
    invoke: Any, quick: Quick, home: Path
) -> None:
    """The same images give the same bytes, wherever they lie."""
    for name in ("here", "there"):
        write_images(home / name, 10)
    for name in ("here", "there"):
        assert invoke(*NET[:-1], f"out-{name}", "--calib", name, *quick).code == 0
    assert (home / "out-here/manifest.json").read_bytes() == (
        home / "out-there/manifest.json"
    ).read_bytes()
    assert "here" not in (home / "out-there/calibration.json").read_text()


def test_odd_names_of_folders_and_files_do_no_harm(invoke: Any, quick: Quick, home: Path) -> None:
    folder = home / "-a 'b' \"c\"\nü %n {{7*7}}"
    write_images(folder, 5)
    (folder / "0001.png").rename(folder / "-rf \x1b[31m.png")
    done = invoke(*NET[:-1], "./-out", "--calib", folder, *quick)
    assert done.code == 0, done.err
    assert "\x1b" not in done.err + done.out


def test_names_that_are_no_unicode_do_no_harm(invoke: Any, quick: Quick, home: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(home) + b"/caf\xe9"))
    write_images(folder, 5)
    (folder / "0001.png").rename(folder / os.fsdecode(b"\xff.png"))
    done = invoke(*NET, "--calib", folder, *quick)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"a\nb\n", "2 labels for 5 classes"),
        (b"1\n2\n3\n4\n5\n6\n", "6 labels for 5 classes"),
        (b"a\n" * 5, "occurs twice"),
        (b"1\n2\n3\n4\n\n", "empty"),
        (b"\xff\xfe\n", "cannot be read"),
        (b"", "0 labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_any_work(
    refused: Refused, quick: Quick, home: Path, content: bytes, what: str
) -> None:
    (home / "labels.txt").write_bytes(content)
    done = refused(3, what, *NET, "--labels", "labels.txt", *quick)
    assert " reference " not in done.err


def test_a_missing_labels_file_is_refused(refused: Refused, quick: Quick, home: Path) -> None:
    refused(3, "E0390", *NET, "--labels", "none.txt", *quick)
    refused(3, "E0390", *NET, "--labels", home, *quick)


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_labels(
    invoke: Any, quick: Quick, home: Path
) -> None:
    labels = [f"klasse {n} ä" for n in range(5)]
    (home / "labels.txt").write_bytes("\r\n".join(labels).encode("utf-8-sig"))
    done = invoke(*NET, "--labels", "labels.txt", *quick)
    assert done.code == 0, done.err
    assert (home / "out/labels.txt").read_text(encoding="utf-8").splitlines() == labels
