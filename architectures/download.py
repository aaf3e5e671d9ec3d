"""Fetching published weights: whole and verified, or not at all.

A transfer grows in ``<name>.part``, is resumed from there, verified by its SHA-256 and only then
renamed. Its full hash is kept beside it, and every later use hashes the file again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from convexport.architectures.published import PublishedWeights
from convexport.architectures.transfer import CutError, Report, transfer
from convexport.runtime.errors import BusyError, MachineError
from convexport.runtime.files import sha256_of, storage_errors, write_atomically

_ATTEMPTS = 2
_LOCK_TIMEOUT_S = 1800


def obtain(
    weights: PublishedWeights, *, cache_dir: Path, offline: bool, report: Report
) -> tuple[Path, str]:
    """The file of published weights, from the cache or from its publisher.

    Args:
        weights: what to fetch.
        cache_dir: it is kept in the folder ``weights`` there.
        offline: never open a socket, and write nothing.
        report: told what is being fetched.

    Returns:
        Its path and its full SHA-256.

    Raises:
        MachineError: E0420, offline and not in the cache; E0421, the network or the server;
            E0422, a web page came instead; E0423, it is not the file that was published; E0425,
            nobody says which file was.
        BusyError: E0720, somebody else has been fetching it for half an hour.
        StorageError: E0801, the cache cannot be written.
    """
    if not weights.sha256:
        raise _unverifiable(weights)
    target = cache_dir / "weights" / weights.file_name
    if offline:
        digest = _cached(target, weights, report)
        if digest is None:
            raise _offline(weights, target)
        return target, digest
    with _locked(target):
        return target, _cached(target, weights, report) or _fetch(weights, target, report)


def _cached(target: Path, weights: PublishedWeights, report: Report) -> str | None:
    """The hash of what is in the cache, or None where it is missing or was changed."""
    if not target.is_file():
        return None
    digest, sidecar = sha256_of(target), _sidecar(target)
    recorded = sidecar.read_text().strip() if sidecar.is_file() else digest
    if digest == recorded and digest.startswith(weights.sha256):
        return digest
    report(f"{target.name} in the cache is not what was published; it is not used")
    return None


def _fetch(weights: PublishedWeights, target: Path, report: Report) -> str:
    part = target.with_name(f"{target.name}.part")
    failure: MachineError | None = None
    for _ in range(_ATTEMPTS):
        fresh = not part.is_file()
        try:
            transfer(weights.url, part, report)
        except CutError as error:
            failure = _network(weights, target, str(error))
            report(str(error))
            continue
        digest = sha256_of(part)
        if digest.startswith(weights.sha256):
            return _install(part, target, digest)
        part.unlink()
        failure = _mismatch(weights, digest)
        if fresh:
            break
        # Its beginning may have been another file's: once more, from nothing.
        report(f"the resumed {target.name} is not what was published")
    raise failure or _network(weights, target, "")


def _install(part: Path, target: Path, digest: str) -> str:
    write_atomically(_sidecar(target), f"{digest}\n".encode())
    with storage_errors(target):
        part.replace(target)
    return digest


def _sidecar(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout as error:
            raise BusyError(
                "E0720", f"another process is still fetching {target.name}", where=str(target)
            ) from error
    try:
        yield
    finally:
        lock.release()


def _offline(weights: PublishedWeights, target: Path) -> MachineError:
    return MachineError(
        "E0420",
        f"{weights.file_name} is not in the cache, and fetching is switched off",
        where=str(target),
        hint=f"put {weights.url} there, or leave --offline away",
    )


def _unverifiable(weights: PublishedWeights) -> MachineError:
    return MachineError(
        "E0425",
        f"{weights.file_name} is not fetched: its hash is not known here",
        where=weights.url,
        why="nothing would tell whether it is the file that was published",
        hint="fetch it by hand, if you trust that address, and give --weights FILE",
    )


def _network(weights: PublishedWeights, target: Path, reason: str) -> MachineError:
    return MachineError(
        "E0421",
        f"cannot fetch {weights.file_name}: {reason}",
        where=weights.url,
        hint=f"try again (it goes on where it stopped), or put the file at {target}",
    )


def _mismatch(weights: PublishedWeights, digest: str) -> MachineError:
    return MachineError(
        "E0423",
        f"{weights.file_name} is not the file that was published",
        where=weights.url,
        why=f"its SHA-256 is {digest}, published was {weights.sha256}",
        hint="somebody altered it on the way, or at its source; do not use it",
    )
