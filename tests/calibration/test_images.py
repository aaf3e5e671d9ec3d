"""Folders of images and sets of them."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convexport.calibration.images import ImageItem, ImageSet, folder, overlap
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.specs import Preprocess

SPEC = Preprocess(crop=(8, 8), resize=(8,))


def put(path: Path, seed: int = 0) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 10, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def names(images: ImageSet) -> list[str]:
    return [item.name for item in images.items]


def labels(images: ImageSet) -> list[int | None]:
    return [item.label for item in images.items]


def test_classes_are_the_sub_directories(tmp_path: Path) -> None:
    for index, name in enumerate(["n02/b.png", "n02/a.png", "n01/deep/c.jpg", "n10/x.bmp"]):
        put(tmp_path / name, index)
    images = folder(tmp_path)
    assert names(images) == ["n01/deep/c.jpg", "n02/a.png", "n02/b.png", "n10/x.bmp"]
    assert labels(images) == [0, 1, 1, 2]
    assert images.class_names == ("n01", "n02", "n10")
    assert images.kind == "folder"
    assert not images.stand_in
    assert images.description == "4 images of the given folder in 3 classes"


def test_classes_are_numbered_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Of code points, which is that of UTF-8's bytes and of torchvision's ImageFolder."""
    classes = ["n01440764", "N9", "10", "9", "Ünal", "a b", "a-b", "漢字", "new\nline"]
    for index, name in enumerate(classes):
        put(tmp_path / name / "x.png", index)
    assert folder(tmp_path).class_names == tuple(sorted(classes))


@pytest.mark.parametrize(
    "files", [["a.png", "b.png"], ["c/a.png", "b.png"], ["only/a.png", "only/b.png"]]
)
def test_without_classes_there_are_no_labels(tmp_path: Path, files: list[str]) -> None:
    for index, name in enumerate(files):
        put(tmp_path / name, index)
    images = folder(tmp_path)
    assert labels(images) == [None, None]
    assert images.class_names == ()
    assert names(images) == sorted(files)


def test_names_are_sorted_by_their_bytes(tmp_path: Path) -> None:
    odd = ["é.png", "z.png", "Z.png", "a b.png", "a/x.png", "a-b.png", "-n.png", "q'\"\n.png"]
    odd += ["\U0001f600.png", "\uffee.png", "ü" * 120 + ".png"]
    for index, name in enumerate(odd):
        put(tmp_path / name, index)
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    Path(os.fsdecode(raw)).write_bytes(put(tmp_path / "z.png"))
    have = [os.fsencode(name) for name in names(folder(tmp_path))]
    assert have == sorted([name.encode() for name in odd] + [b"\xff\xfe.png"])


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    put(tmp_path / "cat.PNG")
    for name in ("labels.txt", "a.csv", "b.csv", "README", "x.0001", "odd.jpg\n"):
        (tmp_path / name).write_text("x")
    for name in (".hidden.png", "Thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / name).write_text("x")
    put(tmp_path / "__MACOSX/._cat.png")
    put(tmp_path / ".cache/cat.png")
    images = folder(tmp_path)
    assert names(images) == ["cat.PNG"]
    assert images.passed_over == {
        "hidden or clutter": 6,
        "not an image: .csv": 2,
        "not an image: .txt": 1,
        "not an image: other or no suffix": 3,
    }


def test_the_same_whatever_the_order_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(20):
        put(tmp_path / f"{index % 3}/{index}.png", index)
    once = folder(tmp_path)
    scan = os.scandir

    class Backwards:
        def __init__(self, path: Any) -> None:
            with scan(path) as entries:
                self._entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[Any]:
            return self._entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    again = folder(tmp_path)
    assert names(again) == names(once)
    assert again.fingerprint() == once.fingerprint()


def test_loops_of_links_end(tmp_path: Path) -> None:
    put(tmp_path / "a/x.png", 1)
    put(tmp_path / "b/y.png", 2)
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "b/self").symlink_to("self")
    (tmp_path / "b/self.png").symlink_to("self.png")
    (tmp_path / "0-first").symlink_to("b")
    images = folder(tmp_path)
    assert names(images) == ["a/x.png", "b/self.png", "b/y.png"]
    assert images.passed_over["directory reached again through a link"] == 2


def test_links_to_elsewhere_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/x.png")
    put(tmp_path / "single.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "y.png").symlink_to(tmp_path / "single.png")
    assert names(folder(root)) == ["c/x.png", "y.png"]


def test_a_folder_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "images/x.png")
    monkeypatch.chdir(tmp_path)
    images = folder(Path("images"))
    monkeypatch.chdir("/")
    assert images.arrays(SPEC)[0].shape == (1, 3, 8, 8)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"E0340 .*No such file") as caught:
        folder(tmp_path / "nowhere")
    assert caught.value.where == str(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"E0340 .*Not a directory"):
        folder(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("files", "found"), [([], "nothing"), (["a.txt", "b.txt"], "2 x not an image: .txt")]
)
def test_a_folder_without_images(tmp_path: Path, files: list[str], found: str) -> None:
    for name in files:
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match="E0341 no image") as caught:
        folder(tmp_path)
    assert caught.value.where.endswith(f"found: {found}")
    assert ".jpg" in caught.value.hint


def test_a_sub_directory_that_may_not_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a/x.png")
    put(tmp_path / "b/y.png")
    scan = os.scandir

    def guarded(path: Path) -> Any:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(InputError, match=r"E0340 .*Permission denied") as caught:
        folder(tmp_path)
    assert caught.value.where == str(tmp_path / "b")


def pixel(value: int) -> Image.Image:
    return Image.new("L", (8, 8), value)


def numbered(count: int, start: int = 0) -> ImageSet:
    items = tuple(
        ImageItem(str(value), partial(pixel, value), value) for value in range(start, start + count)
    )
    return ImageSet("digits", "numbers", items)


@pytest.mark.parametrize(
    ("count", "want"), [(1, "0"), (3, "0 3 6"), (4, "0 2 5 7"), (10, "0 1 2 3 4 5 6 7 8 9")]
)
def test_a_sample_is_spread_evenly(count: int, want: str) -> None:
    assert names(numbered(10).sample(count)) == want.split()


def test_sampling_more_than_there_is_gives_all() -> None:
    images = numbered(4)
    assert len(images.sample(3)) == 3
    assert len(images.sample(9)) == len(images) == 4
    for bad in (0, -1):
        with pytest.raises(UsageError, match="E0240"):
            images.sample(bad)


def test_the_fingerprint_is_of_content_and_order(tmp_path: Path) -> None:
    data = [put(tmp_path / f"{name}/{name}.png", seed) for seed, name in enumerate("ab")]
    hashes = [hashlib.sha256(part).hexdigest() for part in data]
    images = folder(tmp_path)
    assert [item.sha256 for item in images.items] == hashes
    before = images.fingerprint()
    assert before == hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    (tmp_path / "b/b.png").rename(tmp_path / "b/renamed.png")
    assert folder(tmp_path).fingerprint() == before
    assert numbered(2).fingerprint() != numbered(2, start=1).fingerprint()


def test_a_hash_of_pixels_knows_their_shape() -> None:
    def one(image: Image.Image) -> str:
        return ImageItem("x", lambda: image).sha256

    assert one(Image.new("L", (4, 2))) != one(Image.new("L", (2, 4)))
    assert one(Image.new("L", (6, 1))) != one(Image.new("RGB", (2, 1)))


def test_overlap_is_by_content(tmp_path: Path) -> None:
    put(tmp_path / "calib/a.png", 1)
    put(tmp_path / "calib/b.png", 2)
    put(tmp_path / "test/deep/other-name.png", 2)
    put(tmp_path / "test/a.png", 3)
    os.mkfifo(tmp_path / "calib/pipe.png")
    assert overlap(folder(tmp_path / "calib"), folder(tmp_path / "test")) == ("b.png",)
    assert overlap(numbered(5), numbered(5, start=3)) == ("3", "4")


def test_arrays_are_in_order_with_labels() -> None:
    spec = Preprocess(crop=(8, 8), resize=(8, 8), channels="L", mean=(0.0,), std=(1.0,))
    x, y = ImageSet("digits", "", (*numbered(300).items[5:9], ImageItem("n", stripes))).arrays(spec)
    assert x.dtype == np.float32
    assert y.dtype == np.int64
    assert np.rint(x[:, 0, 0, 0] * 255).tolist() == [5, 6, 7, 8, 0]
    assert y.tolist() == [5, 6, 7, 8, -1]


def stripes() -> Image.Image:
    return Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))


def test_arrays_fail_on_a_bad_image(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(InputError, match="E0342") as caught:
        folder(tmp_path).arrays(SPEC)
    assert "b.png: the image file is empty" in caught.value.where
