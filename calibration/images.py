"""Sets of images: where they come from, in which order, and what is in them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from convexport.calibration.reader import ImageItem as ImageItem
from convexport.calibration.reader import ImageReader, OnBad, fingerprint_of, positive
from convexport.runtime.errors import InputError
from convexport.runtime.image_files import SUFFIXES, read_image_file
from convexport.runtime.preprocess import decode
from convexport.runtime.specs import Preprocess

Kind = Literal["folder", "photographs", "digits"]

# What file managers and archivers leave behind.
_CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")


@dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order.

    Attributes:
        kind: where they come from.
        description: one line for the user.
        items: the images.
        stand_in: True where they only stand in for the user's own images.
        class_names: the names of the labels; empty where there are no labels.
        passed_over: what lay beside the images and was not taken, as reason -> count.
    """

    kind: Kind
    description: str
    items: Sequence[ImageItem]
    stand_in: bool = False
    class_names: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    def names(self) -> Sequence[str]:
        """The images' names, in their order; of a folder without an item a file."""
        if isinstance(self.items, FolderItems):
            return self.items.names
        return [item.name for item in self.items]

    def sample(self, count: int) -> ImageSet:
        """``count`` images evenly spread over the set, or all; always the same ones.

        Raises:
            UsageError: E0240, the count is not positive.
        """
        count = min(positive(count, "the number of images"), len(self))
        picked = (index * len(self) // count for index in range(count))
        return replace(self, items=tuple(self.items[index] for index in picked))

    def doubts(self) -> tuple[str, ...]:
        """Why the set may not stand for all that the net will see."""
        seen = {item.label for item in self.items}
        if len(self.class_names) < 2 or len(seen) > 1:
            return ()
        name = self.class_names[self.items[0].label or 0]
        return (f"all {len(self)} images are of one of {len(self.class_names)} classes, {name!r}",)

    def fingerprint(self) -> str:
        """The SHA-256 over the images' content hashes in order, in hex.

        A file that cannot be read counts as that; reading the set tells what is wrong with it.
        """
        return fingerprint_of(_digest(item) or "unreadable" for item in self.items)

    def identity(self) -> list[Any]:
        """All that counts of right answers depend on, as JSON: contents, classes and labels."""
        labels = [item.label for item in self.items]
        return [self.fingerprint(), list(self.class_names), labels]

    def batches(
        self, spec: Preprocess, size: int, *, on_bad: OnBad, max_bad_fraction: float = 0.01
    ) -> ImageReader:
        """A reader over the set; see there."""
        return ImageReader(self.items, spec, size, on_bad=on_bad, max_bad_fraction=max_bad_fraction)

    def arrays(self, spec: Preprocess) -> tuple[np.ndarray, np.ndarray]:
        """Everything at once, for small sets: float32 NCHW, and int64 labels (-1: not known).

        Raises:
            InputError: as ``ImageReader`` does when it may not skip.
        """
        pixels = np.empty((len(self), *spec.shape), np.float32)
        done = 0
        for batch in self.batches(spec, 256, on_bad="fail"):
            pixels[done : done + len(batch.array)] = batch.array
            done += len(batch.array)
        labels = [-1 if item.label is None else item.label for item in self.items]
        return pixels, np.array(labels, np.int64)


class FolderItems(Sequence[ImageItem]):
    """Images below a directory, each made when it is asked for: a million are a million names.

    Attributes:
        root: the directory, absolute.
        names: of the images, below it.
    """

    def __init__(self, root: Path, names: list[str], classes: tuple[str, ...]) -> None:
        self.root, self.names = root, names
        self._labels = {name: label for label, name in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> ImageItem: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ImageItem, ...]: ...
    def __getitem__(self, index: int | slice) -> ImageItem | tuple[ImageItem, ...]:
        if isinstance(index, slice):
            return tuple(map(self._item, self.names[index]))
        return self._item(self.names[index])

    def _item(self, name: str) -> ImageItem:
        label = self._labels.get(name.partition("/")[0])
        return ImageItem(name, partial(_read, self.root, name), label)


def folder(path: Path) -> ImageSet:
    """All images below a directory, sorted by the bytes of their relative path.

    A file is an image by its suffix; hidden files and the clutter of file managers are passed
    over. Links to directories are followed, but no directory is entered twice. When every image
    lies in a sub-directory and these are two or more, they are the classes, sorted by the bytes
    of their names.

    Raises:
        InputError: E0340, the directory is missing, is none, or cannot be read; E0341, there is
            no image in it.
    """
    passed_over: Counter[str] = Counter()
    names = sorted(_image_names(path, passed_over), key=os.fsencode)
    if not names:
        raise _no_images(path, passed_over)
    roots = {name.partition("/")[0] if "/" in name else "" for name in names}
    classes = tuple(sorted(roots, key=os.fsencode)) if len(roots) > 1 and "" not in roots else ()
    items = FolderItems(path.absolute(), names, classes)
    labels = f" in {len(classes)} classes" if classes else ", without labels"
    return ImageSet(
        kind="folder",
        description=f"{len(items)} images of the given folder{labels}",
        items=items,
        class_names=classes,
        passed_over=dict(passed_over),
    )


def overlap(first: ImageSet, second: ImageSet) -> tuple[str, ...]:
    """Names of images of the first set whose content is also in the second, in order.

    Files are compared byte by byte; where one of the sets has no files, pixel by pixel. Files
    that cannot be read have no content and are left out.
    """
    digest = _digest if first.kind == second.kind else _pixels
    other = {digest(item) for item in second.items} - {None}
    return tuple(item.name for item in first.items if digest(item) in other)


def _digest(item: ImageItem) -> str | None:
    try:
        return item.sha256
    except InputError:
        return None


def _pixels(item: ImageItem) -> str | None:
    try:
        image = decode(item.content(), Preprocess(), name=item.name).image.convert("RGB")
    except InputError:
        return None
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def _image_names(root: Path, passed_over: Counter[str]) -> Iterator[str]:
    """Relative paths of the images below, with slashes, in no particular order."""
    waiting, entered = [""], set()
    while waiting:
        below = waiting.pop()
        identity, entries = _directory(root / below)
        if identity in entered:
            passed_over["directory reached again through a link"] += 1
            continue
        entered.add(identity)
        directories = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _CLUTTER:
                passed_over["hidden or clutter"] += 1
            elif _is_directory(entry):
                directories.append((entry.is_symlink(), f"{below}{entry.name}/"))
            elif (suffix := Path(entry.name).suffix.lower()) in SUFFIXES:
                yield below + entry.name
            else:
                passed_over[f"not an image: {_kind(suffix)}"] += 1
        # Taken from the end: the directories themselves before links to others.
        waiting.extend(name for _, name in sorted(directories, reverse=True))


def _directory(path: Path) -> tuple[tuple[int, int], list[os.DirEntry[str]]]:
    """What tells a directory from all others however it is reached, and what it holds."""
    try:
        status = path.stat()
        with os.scandir(path) as entries:
            return (status.st_dev, status.st_ino), list(entries)
    except (OSError, ValueError) as error:
        raise InputError(
            "E0340",
            f"cannot read the folder of images: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            hint="give a directory with image files in it",
        ) from error


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself is no directory
        return False


def _kind(suffix: str) -> str:
    # Numbered suffixes would make a reason of their own each.
    plain = suffix.isascii() and suffix[1:].isalnum() and not suffix[1:].isdigit()
    return suffix if plain and len(suffix) <= 8 else "other or no suffix"


def _read(root: Path, name: str) -> bytes:
    return read_image_file(root / name, name=name)


def _no_images(path: Path, passed_over: Mapping[str, int]) -> InputError:
    found = ", ".join(f"{count} x {reason}" for reason, count in sorted(passed_over.items()))
    return InputError(
        "E0341",
        "no image in this folder",
        where=f"{path}; found: {found or 'nothing'}",
        hint=f"images are files that end with {' '.join(sorted(SUFFIXES))}",
    )
