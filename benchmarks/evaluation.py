"""One pass over images of any number: a block is read, run, counted and forgotten.

A block is as many neighbouring images as go through the nets at once. It is the same in every
pass over the set, whichever part of it that pass takes and wherever it was interrupted: the nets
see the same batches, and the counts of the parts add up to those of the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convexport.benchmarks.accuracy import AccuracyTally, counted_right
from convexport.benchmarks.checkpoint import Checkpoint
from convexport.benchmarks.parity_tally import ParityTally, tallied
from convexport.benchmarks.protocols import Progress, averaged
from convexport.benchmarks.tally import Tally, listed, summed
from convexport.calibration.images import ImageSet
from convexport.calibration.reader import (
    CONSTANT,
    SHORT,
    ImageItem,
    read_tensor,
    too_many_bad,
)
from convexport.runtime.batches import fixed_batch, run_in_batches
from convexport.runtime.crops import CENTRE, crops
from convexport.runtime.errors import InputError
from convexport.runtime.preprocess import decode
from convexport.runtime.specs import Preprocess, Runner

DEFAULT_BLOCK = 8
_LISTED = 100
_MODULUS = 1 << 256
_BY_POSITION = listed(_LISTED, lambda row: row[0])


@dataclass
class ImageTally(Tally):
    """What became of the images so far.

    Attributes:
        read: that went through the nets.
        constant: of these, those of one colour.
        skipped: that could not be used.
        skipped_images: position, name and reason of the first of them.
        calibrated: that the ranges were made with, too.
        calibrated_images: position and name of the first of them.
        content: the sum of hashes of position and content, modulo 2^256, of those that were read.
    """

    read: int = summed()
    constant: int = summed()
    skipped: int = summed()
    skipped_images: list[list[Any]] = field(default_factory=list, metadata=_BY_POSITION)
    calibrated: int = summed()
    calibrated_images: list[list[Any]] = field(default_factory=list, metadata=_BY_POSITION)
    content: int = field(default=0, metadata={"merge": lambda a, b: (a + b) % _MODULUS})


@dataclass
class PassTally:
    """All that is counted; the accuracies stay empty without labels."""

    images: ImageTally = field(default_factory=ImageTally)
    parity: ParityTally = field(default_factory=ParityTally)
    top1: AccuracyTally = field(default_factory=AccuracyTally)
    top5: AccuracyTally = field(default_factory=AccuracyTally)

    def parts(self) -> dict[str, Tally]:
        """By name."""
        return {name: getattr(self, name) for name in ("images", "parity", "top1", "top5")}

    def absorb(self, other: PassTally) -> None:
        """Count what the other has counted, too."""
        for mine, theirs in zip(self.parts().values(), other.parts().values(), strict=True):
            mine.absorb(theirs)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {name: part.to_dict() for name, part in self.parts().items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PassTally:
        """The inverse of ``to_dict``.

        Raises:
            KeyError, TypeError: it is not.
        """
        made = cls()
        for name, part in made.parts().items():
            setattr(made, name, part.from_dict(data[name]))
        return made


@dataclass(frozen=True)
class Evaluation:
    """A pass over a set: artefact and reference on the same images.

    Attributes:
        indices: the net's class for each class of the images; empty without labels.
        output_kind: ``logits`` or ``probabilities``.
        skip: leave bad images out and count them; otherwise the first of them ends the pass.
        calibrated: the first hex digits of the contents that the ranges were made with.
    """

    reference: Runner
    model: Runner
    spec: Preprocess
    images: ImageSet
    indices: Sequence[int] = ()
    protocol: str = CENTRE
    output_kind: str = "logits"
    skip: bool = False
    calibrated: frozenset[str] = frozenset()

    @property
    def block(self) -> int:
        """Images a block."""
        return fixed_batch(self.model) or DEFAULT_BLOCK

    def run(self, shard: tuple[int, int], checkpoint: Checkpoint, progress: Progress) -> PassTally:
        """Every n-th block, from the i-th on: together n passes see every image once.

        Args:
            shard: i from 1 to n, and n.
            checkpoint: where an earlier pass over the same stopped, and this one may be stopped.
            progress: told how many images are done, and of how many.

        Raises:
            InputError: E0342, an image is bad and may not be skipped.
        """
        starts = range((shard[0] - 1) * self.block, len(self.images), shard[1] * self.block)
        mine = sum(min(self.block, len(self.images) - start) for start in starts)
        found, done = checkpoint.read()
        tally = PassTally.from_dict(found) if found else PassTally()
        for number, start in enumerate(starts[done:], done + 1):
            tally.absorb(self._counted(start))
            progress(tally.images.read + tally.images.skipped, mine)
            checkpoint.keep(tally.to_dict, number)
        return tally

    def _counted(self, start: int) -> PassTally:
        images, items, arrays = ImageTally(), [], []
        stop = min(start + self.block, len(self.images))
        for position, item in enumerate(self.images.items[start:stop], start):
            try:
                digest, notes, array = self._read(item)
            except InputError as error:
                if not self.skip:
                    rest = (self.images.items[k] for k in range(position + 1, len(self.images)))
                    bad = [(item.name, error.what)]
                    raise too_many_bad(bad, rest, self.spec, len(self.images)) from error
                images.skipped += 1
                images.skipped_images.append([position, item.name, error.what])
                continue
            if digest[:SHORT] in self.calibrated:
                images.calibrated += 1
                images.calibrated_images.append([position, item.name])
            images.read += 1
            images.constant += CONSTANT in notes
            place = hashlib.sha256(f"{position} {digest}".encode()).digest()
            images.content = (images.content + int.from_bytes(place)) % _MODULUS
            items.append((position, item))
            arrays.append(array)
        return self._compared(PassTally(images=images), items, arrays)

    def _read(self, item: ImageItem) -> tuple[str, tuple[str, ...], np.ndarray]:
        """Content hash, notes and pixels; every crop can be cut, or the image is bad."""
        if self.protocol != CENTRE:
            crops(decode(item.content(), self.spec, name=item.name).image, self.spec,
                  self.protocol, name=item.name)  # fmt: skip
        return read_tensor(item, self.spec)

    def _compared(
        self, tally: PassTally, items: list[tuple[int, ImageItem]], arrays: list[np.ndarray]
    ) -> PassTally:
        if not items:
            return tally
        batch, runners = np.stack(arrays), (self.reference, self.model)
        expected, actual = (run_in_batches(runner, batch) for runner in runners)
        positions = [position for position, _ in items]
        tally.parity = tallied(expected, actual, positions, [item.name for _, item in items])
        if self.indices:
            if self.protocol != CENTRE:
                some = replace(self.images, items=tuple(item for _, item in items))
                expected, actual = (
                    averaged(runner, some, self.spec, self.protocol, output_kind=self.output_kind)
                    for runner in runners
                )
            labels = np.array([self.indices[item.label or 0] for _, item in items])
            tally.top1 = counted_right(expected, actual, labels)
            if expected.shape[1] > 5:
                tally.top5 = counted_right(expected, actual, labels, top=5)
        return tally
