"""A verification in parts, counted wherever there is time, and added up exactly."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convexport.benchmarks.checkpoint import read_sealed, write_sealed
from convexport.benchmarks.evaluation import PassTally
from convexport.calibration.images import FolderItems, ImageSet
from convexport.runtime.bundle import PRECISIONS
from convexport.runtime.errors import InputError, UsageError

_FORMAT = "convexport verify shard 1"
_MOST = 999_999
_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("name", "model_sha256", "precision", "runtime", "set"), str),
    **dict.fromkeys(("listing", "protocol"), str),
    **dict.fromkeys(("labels", "classes", "warnings"), list),
    "images": int,
}


@dataclass(frozen=True)
class Shard:
    """One of n parts of a verification; the whole is the first of one.

    Attributes:
        subject: what was compared with what, on which images and how: the same in all parts.
        part: i from 1 to n, and n.
        golden_error: of the golden sample, relative to its largest logit, where it was counted.
        passed_over: what lay beside the images, as reason -> count.
        tally: the counts.
    """

    subject: Mapping[str, Any]
    part: tuple[int, int]
    golden_error: float
    passed_over: Mapping[str, int]
    tally: PassTally

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for a person and for programs; ``save`` writes the counts."""
        return {
            "name": self.subject["name"],
            "model_sha256": self.subject["model_sha256"],
            "shard": "/".join(map(str, self.part)),
            "images": self.tally.images.read,
            "skipped": self.tally.images.skipped,
            "of": self.subject["images"],
        }

    def save(self, path: Path) -> None:
        """Write it.

        Raises:
            StorageError: E0801, the disk is full or does not let us.
        """
        data = {**vars(self), "part": list(self.part), "tally": self.tally.to_dict()}
        write_sealed(path, {"format": _FORMAT, **data})


def parse_part(text: str) -> tuple[int, int]:
    """``2/8`` -> (2, 8).

    Raises:
        UsageError: E0274, it is no part of a whole.
    """
    first, _, count = text.partition("/")
    if all(each.isdecimal() and len(each) < 7 for each in (first, count)):
        part = int(first), int(count)
        if 1 <= part[0] <= part[1]:
            return part
    raise UsageError("E0274", f"{text[:80]!r} is no shard", hint="the second of eight is 2/8")


def load_shard(path: Path) -> Shard:
    """Read what ``Shard.save`` wrote.

    Raises:
        InputError: E0302 or E0374, it is no such file, or it was changed.
    """
    data = read_sealed(path)
    try:
        if data.pop("format") != _FORMAT:
            raise TypeError
        tally = PassTally.from_dict(data.pop("tally"))
        first, count = data.pop("part")
        shard = Shard(part=(first, count), tally=tally, **data)
        _require_sound(shard)
        return shard
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "E0374",
            f"{path.name} is no shard that this version reads",
            where=str(path),
            hint="count this part again",
        ) from error


def merge(paths: Sequence[Path]) -> Shard:
    """The whole, of all its parts in any order: what one pass would have counted.

    Raises:
        InputError: E0302 or E0374, a file is no shard; E0372, they are not of the same
            verification; E0373, a part is missing or there twice.
    """
    shards = [load_shard(path) for path in paths]
    if not shards:
        raise UsageError("E0275", "there are no shards to merge", hint="name the files")
    first = shards[0]
    _require_parts(shards, paths)
    whole = PassTally()
    for shard, path in zip(shards, paths, strict=True):
        _require_same(first, shard, paths[0], path)
        whole.absorb(shard.tally)
    golden = max(shard.golden_error for shard in shards)
    return Shard(first.subject, (1, 1), golden, first.passed_over, whole)


def listing(images: ImageSet) -> tuple[str, str]:
    """What tells a set from others, and what tells whether it changed since, as two hashes.

    Of files these are names and sizes, and times besides: nothing is read. Of other sets both are
    of the contents.

    Raises:
        InputError: E0340, a file is gone.
    """
    items = images.items
    if not isinstance(items, FolderItems):
        return images.fingerprint(), ""
    names, times = hashlib.sha256(), hashlib.sha256()
    for name in items.names:
        try:
            status = (items.root / name).stat()
        except OSError:  # a link to nowhere: reading tells what is wrong
            size, changed = -1, 0
        else:
            size, changed = status.st_size, status.st_mtime_ns
        names.update(os.fsencode(name) + b"\0%d\0" % size)
        times.update(b"%d\n" % changed)
    return names.hexdigest(), times.hexdigest()


def _require_sound(shard: Shard) -> None:
    """Let nothing pass that sums, or words about them, would stumble over.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: there is such a thing.
    """
    subject, images, parity = shard.subject, shard.tally.images, shard.tally.parity
    classes = range(len(subject["labels"]))
    picks = [int(each) for key in parity.changed for each in key.split(">")]
    picks += [each for *_, before, after in parity.worst for each in (before, after)]
    rows: dict[tuple[type, ...], list[Any]] = {
        (int, str, str): images.skipped_images,
        (int, str): images.calibrated_images,
        (int, str, int, int): [row[1:] for row in parity.worst],
        (int,): [[n] for each in (parity.bins, parity.changed) for n in each.values()],
        (str,): [[text] for key in ("labels", "classes", "warnings") for text in subject[key]],
        (str, int): [[*each] for each in shard.passed_over.items()],
        (int, int, float): [[*shard.part, shard.golden_error]],
    }
    if not (
        all(type(subject[key]) is kind for key, kind in _KINDS.items())
        and all(tuple(map(type, row)) == kinds for kinds, found in rows.items() for row in found)
        and all(row[0] is None or type(row[0]) is float for row in parity.worst)
        and all(key.count(">") == 1 for key in parity.changed)
        and all(each in classes for each in picks)
        and subject["precision"] in PRECISIONS
        and 1 <= shard.part[0] <= shard.part[1] <= _MOST
        and parity.n == images.read
        and bool(images.calibrated) == bool(images.calibrated_images)
    ):
        raise ValueError


def _require_same(first: Shard, other: Shard, path: Path, other_path: Path) -> None:
    keys = {*first.subject, *other.subject}
    odd = [key for key in sorted(keys) if first.subject.get(key) != other.subject.get(key)]
    if first.part[1] != other.part[1]:
        odd.append("number of shards")
    if odd:
        shown = odd[0]
        both = (str(each.subject.get(shown, each.part[1]))[:60] for each in (first, other))
        raise InputError(
            "E0372",
            f"{path.name} and {other_path.name} are not of the same verification",
            where=f"{shown}: {' and '.join(both)}"
            + (f"; also {', '.join(odd[1:])}" if odd[1:] else ""),
            why="the sum of their counts would be of nothing in particular",
            hint="count all shards with the same bundle, images and options",
        )


def _require_parts(shards: Sequence[Shard], paths: Sequence[Path]) -> None:
    count = shards[0].part[1]
    found = [shard.part[0] for shard in shards]
    twice = sorted({each for each in found if found.count(each) > 1})
    missing = [each for each in range(1, count + 1) if each not in found]
    same = all(shard.part[1] == count for shard in shards)
    if same and (twice or missing):
        parts = {"twice": twice, "missing": missing}
        raise InputError(
            "E0373",
            f"{len(paths)} files are not the {count} shards of one verification",
            where="; ".join(
                f"{what}: {', '.join(f'{k}/{count}' for k in each[:10])}"
                for what, each in parts.items()
                if each
            ),
            why="images would be counted twice, or not at all",
            hint="give every shard once",
        )
