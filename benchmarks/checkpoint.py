"""What a pass over images leaves on disk: JSON that shows when it was cut or changed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from convexport.runtime.errors import InputError, StorageError
from convexport.runtime.files import json_bytes, read_json, storage_errors, write_atomically


def write_sealed(path: Path, data: Mapping[str, Any]) -> None:
    """Write data and its hash, whole or not at all.

    Raises:
        StorageError: E0801, the disk is full or does not let us.
    """
    write_atomically(path, json_bytes({"data": data, "sha256": _hash(data)}))


def read_sealed(path: Path) -> Any:
    """What ``write_sealed`` wrote.

    Raises:
        InputError: E0302, it is no JSON; E0374, it is nothing that was written so, or was changed.
    """
    found = read_json(path)
    if not isinstance(found, dict) or found.get("sha256") != _hash(found.get("data")):
        raise InputError(
            "E0374",
            f"{path.name} is no file that verify --save wrote, or it was changed",
            where=str(path),
            hint="count this part again",
        )
    return found["data"]


class Checkpoint:
    """What a pass has counted so far, in a file that is gone when the pass is done.

    Args:
        path: of the file, the same for the same pass only; None keeps nothing.
        seconds: between two times that it is written.
    """

    def __init__(self, path: Path | None, seconds: float = 30) -> None:
        self._path, self._seconds = path, seconds
        self._written = time.monotonic()

    def read(self) -> tuple[dict[str, Any], int]:
        """The counts, and how many blocks they are of; nothing and 0 at the start."""
        if self._path is None:
            return {}, 0
        try:
            found = read_sealed(self._path)
            return found["tally"], found["blocks"]
        except (InputError, KeyError, TypeError):
            return {}, 0  # nothing of ours: the images are there to start again

    def keep(self, tally: Callable[[], Mapping[str, Any]], blocks: int) -> None:
        """Write the counts of so many blocks, if it is time.

        Where there is no writing, the pass goes on all the same, and is not kept.
        """
        if self._path is None or time.monotonic() - self._written < self._seconds:
            return
        try:
            with storage_errors(self._path):
                self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_sealed(self._path, {"tally": tally(), "blocks": blocks})
        except StorageError:
            self._path = None
        self._written = time.monotonic()

    def done(self) -> None:
        """The result is elsewhere."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()


def _hash(data: Any) -> str:
    return hashlib.sha256(json_bytes(data)).hexdigest()
