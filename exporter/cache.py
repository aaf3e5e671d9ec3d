"""Results of stages, stored under the hash of everything that went into them.

An entry is a directory that appears whole or not at all, with ``entry.json`` holding the hash of
each of its files. A hit is hashed again: an entry that was changed is thrown away and made anew.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from convexport.runtime.errors import BusyError, ConvexportError, MachineError
from convexport.runtime.files import (
    json_bytes,
    new_directory,
    read_json,
    sha256_of,
    storage_errors,
    sweep,
)

ENTRY = "entry.json"


@dataclass(frozen=True)
class StageResult:
    """What a stage gave.

    Attributes:
        directory: holds its files; they belong to the cache and must not be changed.
        facts: what it has to say, as JSON.
        key: the hash of everything that went in.
        seconds: how long it took, now.
        cached: whether it was there already.
    """

    name: str
    directory: Path
    facts: Mapping[str, Any]
    key: str
    seconds: float
    cached: bool


@dataclass(frozen=True)
class StageCache:
    """Stage results below ``root``.

    Attributes:
        lock_timeout: seconds to wait for another build that makes the same entry.
        waiting: told when it has to wait.
    """

    root: Path
    lock_timeout: float = 600.0
    waiting: Callable[[str], None] = lambda text: None

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        produce: Callable[[Path], Mapping[str, Any]],
        *,
        fresh: bool = False,
    ) -> StageResult:
        """The entry for these inputs: found, unless it must be fresh, or produced anew.

        Raises:
            BusyError: E0780, another build holds the entry for too long.
            MachineError: E0480, anybody may write to the cache.
            StorageError: the disk is full or does not let us.
        """
        start = time.perf_counter()
        key = stage_key(name, inputs)
        directory = self._directory(name, key)
        with self._locked(directory):
            facts = None if fresh else _read_entry(directory)
            cached = facts is not None
            if facts is None:
                facts = _produce(directory, produce)
        return StageResult(name, directory, facts, key, time.perf_counter() - start, cached)

    def partial(self, name: str, inputs: Mapping[str, Any]) -> Path:
        """A file beside the entry, for what an interrupted stage may go on from."""
        directory = self._directory(name, stage_key(name, inputs))
        return directory.with_name(f"{directory.name}.begun")

    def trusted_partial(self, name: str, inputs: Mapping[str, Any]) -> Path:
        """``partial`` for who makes no entry: nothing is made, and no stranger's file is taken.

        Raises:
            MachineError: E0480, anybody may write to the cache.
        """
        path = self.partial(name, inputs)
        for place in (self.root, path.parent):
            with suppress(OSError):  # not there, or out of reach: then nothing is taken from it
                _refuse_world_writable(place)
        return path

    def _directory(self, name: str, key: str) -> Path:
        return self.root / "stages" / f"{name}-{key[:32]}"

    @contextmanager
    def _locked(self, directory: Path) -> Iterator[None]:
        with storage_errors(directory):
            for place in (self.root, directory.parent):
                # Not what the umask allows: nobody else is to write here.
                place.mkdir(mode=0o755, parents=True, exist_ok=True)
                _refuse_world_writable(place)
            sweep(directory.parent)
        lock = FileLock(directory.with_name(f"{directory.name}.lock"))
        try:
            with storage_errors(directory):
                lock.acquire(timeout=0)
        except Timeout:
            self.waiting(f"waiting for another build that makes {directory.name}")
            acquire(lock, self.lock_timeout, "the cache entry")
        try:
            yield
        finally:
            lock.release()


def stage_key(name: str, inputs: Mapping[str, Any]) -> str:
    """The hash of a stage's name, its inputs and our own code."""
    value = {"stage": name, "inputs": dict(inputs), "code": code_digest()}
    return hashlib.sha256(json_bytes(value)).hexdigest()


@cache
def code_digest() -> str:
    """The hash of our own source files: another version's results are not ours."""
    import convexport.architectures
    import convexport.benchmarks
    import convexport.calibration
    import convexport.exporter
    import convexport.runtime

    digest = hashlib.sha256()
    for room in (
        convexport.architectures,
        convexport.benchmarks,
        convexport.calibration,
        convexport.exporter,
        convexport.runtime,
    ):
        folder = Path(str(room.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()


def acquire(lock: FileLock, timeout: float, what: str) -> None:
    """Take what other builds use too.

    Raises:
        BusyError: E0780, one of them holds it for too long.
        StorageError: E0801, there can be no lock there.
    """
    try:
        with storage_errors(Path(lock.lock_file)):
            lock.acquire(timeout=timeout)
    except Timeout as error:
        raise BusyError(
            "E0780",
            f"another build has held {what} for {timeout:g} s",
            where=lock.lock_file,
            hint="wait for it, or give a longer --lock-timeout",
        ) from error


def _produce(directory: Path, produce: Callable[[Path], Mapping[str, Any]]) -> Mapping[str, Any]:
    with new_directory(directory) as scratch:
        facts = produce(scratch)
        files = {
            path.relative_to(scratch).as_posix(): sha256_of(path)
            for path in sorted(scratch.rglob("*"))
            if path.is_file()
        }
        (scratch / ENTRY).write_bytes(json_bytes({"facts": dict(facts), "files": files}))
    return facts


def _read_entry(directory: Path) -> Mapping[str, Any] | None:
    if not (directory / ENTRY).is_file():
        return None
    try:
        entry = read_json(directory / ENTRY)
        intact = all(sha256_of(directory / n) == digest for n, digest in entry["files"].items())
        facts: Mapping[str, Any] = entry["facts"]
        intact = intact and isinstance(facts, dict)
    except (ConvexportError, OSError, ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if intact:
        return facts
    shutil.rmtree(directory, ignore_errors=True)
    return None


def _refuse_world_writable(root: Path) -> None:
    if root.stat().st_mode & stat.S_IWOTH:
        raise MachineError(
            "E0480",
            "anybody on this machine may write to the cache",
            where=str(root),
            why="a stranger could put other weights under a name that builds trust",
            hint=f"chmod o-w {root}",
        )
