"""Going through images in batches, with an account of every one of them.

An image is read when its turn comes and not before; the account says which were read, which were
skipped and why, which had been seen before, and what had to be done to decode them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from convexport.calibration.values import all_constant, is_constant
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.preprocess import decode, to_array
from convexport.runtime.specs import Preprocess

if TYPE_CHECKING:
    from PIL import Image

OnBad = Literal["fail", "skip"]

# When more images are bad than may be, so many more are looked at to name a few of them.
_LOOK_AHEAD = 200
_NAMED = 5
CONSTANT = "constant image"
_FEW = 100
# Hex digits by which a content hash is known again: 64 bits.
SHORT = 16


@dataclass(frozen=True)
class ImageItem:
    """One image of a set.

    Attributes:
        name: unique in its set; for a folder the path below it, with slashes.
        content: gives the file's bytes, or a Pillow image where there is no file.
        label: index into the set's ``class_names``; None where it is not known.
    """

    name: str
    content: Callable[[], bytes | Image.Image] = field(repr=False)
    label: int | None = None

    @cached_property
    def sha256(self) -> str:
        """The hash of the content, in hex: of a file's bytes, or of an image's pixels.

        Raises:
            InputError: E0311 or E0309, the file cannot be read.
        """
        return _hash(self.content())

    def readable(self) -> bool:
        """Whether it can be decoded."""
        try:
            decode(self.content(), Preprocess(), name=self.name)
        except InputError:
            return False
        return True


@dataclass(frozen=True)
class Batch:
    """Images as the net takes them: float32 NCHW in the set's order, labels and names beside."""

    array: np.ndarray
    labels: tuple[int | None, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class ReadReport:
    """What became of the images of a set; ``read + len(skipped) == images`` at the end.

    Attributes:
        images: how many the set has.
        read: how many were given in batches.
        skipped: name and reason of each that was not.
        duplicates: name of each read image whose content was read before, and the earlier name.
        notes: what had to be done to decode, as note -> number of images.
        fingerprint: SHA-256 over the content hashes of the images read, in order.
        contents: these hashes, cut to their first 16 hex digits.
    """

    images: int
    read: int
    skipped: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, str], ...]
    notes: Mapping[str, int]
    fingerprint: str
    contents: tuple[str, ...] = ()

    @property
    def distinct(self) -> int:
        """How many different images were read."""
        return self.read - len(self.duplicates)

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "images": self.read,
            "fingerprint": self.fingerprint,
            "contents": list(self.contents),
            "skipped": [list(each) for each in self.skipped],
            "duplicates": len(self.duplicates),
            "image_notes": dict(self.notes),
        }

    def doubts(self) -> tuple[str, ...]:
        """Why ranges from these images deserve less trust, one sentence each."""
        constant = self.notes.get(CONSTANT, 0)
        found = (
            (self.distinct < _FEW, _few(self.distinct)),
            (self.duplicates, f"{len(self.duplicates)} of {self.read} images repeat another one"),
            (self.skipped, f"{len(self.skipped)} of {self.images} images were skipped"),
            (constant, f"{constant} of {self.read} images are of one colour"),
        )
        return tuple(text for applies, text in found if applies)


class ImageReader:
    """Iterates over images in batches; each iteration starts anew, and so does its report.

    Only one batch is held at a time. The last one is as small as it comes, never padded.

    Args:
        items: the images.
        spec: how each image becomes a tensor.
        size: images per batch, at least 1.
        on_bad: ``fail`` tolerates no bad image; ``skip`` leaves bad ones out and counts them.
        max_bad_fraction: the most that may be skipped, in 0..1, rounded down to whole images:
            with 0.01, none of less than 100.

    Raises:
        UsageError: E0240, the size or the fraction makes no sense.
        InputError: while iterating: E0342, more images are bad than may be; E0344, every image
            of the set is constant.
    """

    def __init__(
        self,
        items: Sequence[ImageItem],
        spec: Preprocess,
        size: int,
        *,
        on_bad: OnBad,
        max_bad_fraction: float = 0.01,
    ) -> None:
        if not 0 <= max_bad_fraction <= 1:
            raise UsageError("E0240", f"{max_bad_fraction} is not a fraction from 0 to 1")
        self._items = items
        self._spec = spec
        self._size = positive(size, "the batch size")
        # The small addition keeps 0.29 x 100 from being 28.999...; one image must be left.
        share = min(int(max_bad_fraction * len(items) + 1e-9), len(items) - 1)
        self._allowed = share if on_bad == "skip" else 0
        self._tally = _Tally()

    def __iter__(self) -> Iterator[Batch]:
        self._tally = tally = _Tally()
        items = iter(self._items)
        arrays = (read for item in items if (read := self._read(item, tally, items)) is not None)
        while group := list(islice(arrays, self._size)):
            yield Batch(
                np.stack([array for _, array in group]),
                tuple(item.label for item, _ in group),
                tuple(item.name for item, _ in group),
            )
        if tally.hashes and tally.notes[CONSTANT] == len(tally.hashes):
            raise all_constant(f"{len(tally.hashes)} images read")

    def report(self) -> ReadReport:
        """What the latest iteration has done so far."""
        tally = self._tally
        return ReadReport(
            images=len(self._items),
            read=len(tally.hashes),
            skipped=tuple(tally.skipped),
            duplicates=tuple(tally.duplicates),
            notes=dict(tally.notes),
            fingerprint=fingerprint_of(digest.hex() for digest in tally.hashes),
            contents=tuple(digest.hex()[:SHORT] for digest in tally.hashes),
        )

    def _read(
        self, item: ImageItem, tally: _Tally, rest: Iterator[ImageItem]
    ) -> tuple[ImageItem, np.ndarray] | None:
        try:
            digest, notes, array = read_tensor(item, self._spec)
        except InputError as error:
            tally.skipped.append((item.name, error.what))
            if len(tally.skipped) > self._allowed:
                raise too_many_bad(
                    tally.skipped, rest, self._spec, len(self._items), self._allowed
                ) from error
            return None
        tally.add(item.name, digest, notes)
        return item, array


@dataclass
class _Tally:
    """What one iteration has seen."""

    hashes: list[bytes] = field(default_factory=list)
    first_names: dict[bytes, str] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, sha256: str, notes: tuple[str, ...]) -> None:
        digest = bytes.fromhex(sha256)
        if digest in self.first_names:
            self.duplicates.append((name, self.first_names[digest]))
        else:
            self.first_names[digest] = name
        self.hashes.append(digest)
        self.notes.update(notes)


def too_many_bad(
    skipped: list[tuple[str, str]],
    rest: Iterator[ImageItem],
    spec: Preprocess,
    images: int,
    allowed: int = 0,
) -> InputError:
    """E0342, with the names of those that are bad and of a few that follow.

    Args:
        skipped: name and reason of those that were met.
        rest: the images that come after them.
        images: how many there are in all.
        allowed: how many may be bad.
    """
    found = list(skipped)
    for item in islice(rest, _LOOK_AHEAD):
        if len(found) >= _NAMED:
            break
        try:
            read_tensor(item, spec)
        except InputError as error:
            found.append((item.name, error.what))
    named = "; ".join(f"{_shown(name)}: {why}" for name, why in found[:_NAMED])
    return InputError(
        "E0342",
        f"at least {len(found)} of {images} images are bad, {allowed} may be",
        where=named,
        why="numbers over fewer images than were asked for would pass as numbers over all",
        hint="repair or remove these files",
    )


def read_tensor(item: ImageItem, spec: Preprocess) -> tuple[str, tuple[str, ...], np.ndarray]:
    """Content hash, notes and pixels, from one reading of the content."""
    content = item.content()
    decoded = decode(content, spec, name=item.name)
    array = to_array(decoded.image, spec, name=item.name)
    constant = (CONSTANT,) if is_constant(array) else ()
    return _hash(content), decoded.notes + constant, array


def _hash(content: bytes | Image.Image) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    head = f"{content.mode} {content.width}x{content.height}\n".encode()
    return hashlib.sha256(head + content.tobytes()).hexdigest()


def fingerprint_of(hashes: Iterable[str]) -> str:
    """One hash of many, in their order: the SHA-256 of their hex digits, a line each."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def positive(count: int, what: str) -> int:
    """The count itself.

    Raises:
        UsageError: E0240, it is less than 1.
    """
    if count < 1:
        raise UsageError("E0240", f"{what} must be at least 1, not {count}")
    return count


def _few(count: int) -> str:
    return f"only {count} different images, fewer than {_FEW}: large values are rare, and missed"


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)
