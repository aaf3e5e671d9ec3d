"""Batches, and the account of every image."""

from __future__ import annotations

import hashlib
import io
import os
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convexport.calibration.images import ImageItem, ImageSet, folder
from convexport.calibration.reader import ImageReader
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.specs import Preprocess

SPEC = Preprocess(crop=(8, 8), resize=(8,))


def png(seed: int, **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 10, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def items(contents: list[bytes]) -> list[ImageItem]:
    return [
        ImageItem(f"{index}.png", partial(bytes, data), index)
        for index, data in enumerate(contents)
    ]


def mixed(good: int, bad: int) -> list[ImageItem]:
    """The bad ones spread evenly among the good ones."""
    total = good + bad
    spots = {index * total // bad for index in range(bad)}
    return items([b"" if index in spots else png(index) for index in range(total)])


@pytest.mark.parametrize(
    ("size", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7])], ids=str
)
def test_the_last_batch_is_as_small_as_it_comes(size: int, sizes: list[int]) -> None:
    source = items([png(seed) for seed in range(7)])
    reader = ImageReader(source, SPEC, size, on_bad="fail")
    batches = list(reader)
    assert [len(batch.array) for batch in batches] == sizes
    assert all(batch.array.dtype == np.float32 for batch in batches)
    assert [label for batch in batches for label in batch.labels] == list(range(7))
    assert [name for batch in batches for name in batch.names] == [f"{i}.png" for i in range(7)]
    whole = np.concatenate([batch.array for batch in batches])
    np.testing.assert_array_equal(whole, ImageSet("folder", "", tuple(source)).arrays(SPEC)[0])


def test_each_iteration_starts_anew() -> None:
    reader = ImageReader(items([png(seed) for seed in range(5)]), SPEC, 2, on_bad="fail")
    next(iter(reader))
    assert reader.report().read == 2
    first = [batch.array for batch in reader]
    second = [batch.array for batch in reader]
    assert reader.report().read == 5
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_report_counts_everything() -> None:
    contents = [png(seed) for seed in range(198)]
    contents[10] = contents[3]
    contents[11] = png(3, icc_profile=b"some")
    contents[50] = b"<html>"
    reader = ImageReader(items([*contents, png(4), png(5)]), SPEC, 64, on_bad="skip")
    names = [name for batch in reader for name in batch.names]
    report = reader.report()
    assert "50.png" not in names
    assert report.images == 200
    assert report.read == len(names) == 199
    assert report.skipped == (("50.png", "this is an HTML page, not an image"),)
    assert report.duplicates == (
        ("10.png", "3.png"),
        ("198.png", "4.png"),
        ("199.png", "5.png"),
    )
    assert report.distinct == 196
    assert report.notes == {"ICC profile ignored": 1}
    read = [data for index, data in enumerate([*contents, png(4), png(5)]) if index != 50]
    lines = "\n".join(hashlib.sha256(data).hexdigest() for data in read)
    assert report.fingerprint == hashlib.sha256(lines.encode()).hexdigest()
    assert report.doubts() == (
        "3 of 199 images repeat another one",
        "1 of 200 images were skipped",
    )


@pytest.mark.parametrize(
    ("good", "bad", "fraction", "passes"),
    [
        (98, 1, 0.01, False),
        (99, 1, 0.01, True),
        (199, 2, 0.01, True),
        (197, 3, 0.01, False),
        (71, 29, 0.29, True),
        (70, 30, 0.29, False),
        (1, 3, 1.0, True),
        (0, 3, 1.0, False),
    ],
)
def test_how_many_may_be_skipped(good: int, bad: int, fraction: float, passes: bool) -> None:
    source = mixed(good, bad)
    reader = ImageReader(source, SPEC, 16, on_bad="skip", max_bad_fraction=fraction)
    if passes:
        assert sum(len(batch.array) for batch in reader) == good
        assert len(reader.report().skipped) == bad
    else:
        with pytest.raises(InputError, match="E0342"):
            list(reader)
    with pytest.raises(InputError, match="E0342"):
        list(ImageReader(source, SPEC, 16, on_bad="fail"))


def test_the_first_five_bad_ones_are_named() -> None:
    source = mixed(93, 7)
    bad = [item.name for item in source if item.content() == b""]
    with pytest.raises(InputError, match="at least 5 of 100 images are bad, 0 may be") as caught:
        list(ImageReader(source, SPEC, 8, on_bad="fail"))
    want = "; ".join(f"{name}: the image file is empty" for name in bad[:5])
    assert caught.value.where == want


def test_not_all_the_rest_is_searched_for_more_bad_ones() -> None:
    asked: list[str] = []

    def watched(name: str) -> bytes:
        asked.append(name)
        return b"" if name == "0" else png(1)

    source = [ImageItem(str(index), partial(watched, str(index))) for index in range(5000)]
    with pytest.raises(InputError, match="at least 1 of 5000 images are bad"):
        list(ImageReader(source, SPEC, 8, on_bad="fail"))
    assert len(asked) < 500


def test_names_cannot_write_to_the_terminal() -> None:
    source = [ImageItem("\x1b[2J\n.png", lambda: b"")]
    with pytest.raises(InputError) as caught:
        list(ImageReader(source, SPEC, 1, on_bad="fail"))
    assert caught.value.where.isprintable()
    assert "x1b" in caught.value.where


def test_what_is_no_file_counts_as_bad(tmp_path: Path) -> None:
    for seed in range(300):
        (tmp_path / f"{seed:03}.png").write_bytes(png(seed))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    reader = folder(tmp_path).batches(SPEC, 100, on_bad="skip")
    assert [len(batch.array) for batch in reader] == [100, 100, 100]
    assert {name for name, _ in reader.report().skipped} == {"pipe.png", "loop.png", "zero.png"}


@pytest.mark.parametrize("on_bad", ["fail", "skip"])
def test_all_black_images_are_refused(on_bad: Any) -> None:
    def black() -> Image.Image:
        return Image.new("RGB", (9, 9))

    reader = ImageReader([ImageItem(str(i), black) for i in range(3)], SPEC, 2, on_bad=on_bad)
    with pytest.raises(InputError, match="E0344"):
        list(reader)


def test_some_black_images_are_noted() -> None:
    source = [ImageItem("black", lambda: Image.new("RGB", (9, 9), "navy")), *items([png(1)])]
    reader = ImageReader(source, SPEC, 2, on_bad="fail")
    assert len(list(reader)) == 1
    assert reader.report().notes == {"constant image": 1}
    assert "1 of 2 images are of one colour" in reader.report().doubts()


def test_the_same_image_many_times_is_one() -> None:
    reader = ImageReader(items([png(1)] * 500), SPEC, 50, on_bad="skip")
    list(reader)
    assert reader.report().distinct == 1
    assert reader.report().doubts() == (
        "only 1 different images, fewer than 100: large values are rare, and missed",
        "499 of 500 images repeat another one",
    )


def test_memory_is_that_of_one_batch() -> None:
    spec = Preprocess()
    source = [ImageItem(str(i), partial(png, i)) for i in range(96)]
    of_batch = 8 * 3 * 224 * 224 * 4
    tracemalloc.start()
    try:
        for batch in ImageReader(source, spec, 8, on_bad="fail"):
            assert batch.array.nbytes == of_batch
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * of_batch


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"max_bad_fraction": -0.1}, {"max_bad_fraction": 2}]
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"size": 1, "on_bad": "fail", **options}
    with pytest.raises(UsageError, match="E0240"):
        ImageReader([], SPEC, arguments.pop("size"), **arguments)


def test_a_fraction_that_is_no_number() -> None:
    with pytest.raises(UsageError, match="E0240"):
        ImageReader([], SPEC, 1, on_bad="skip", max_bad_fraction=float("nan"))
