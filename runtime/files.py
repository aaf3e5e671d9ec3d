"""Hashing and writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any, Container, Iterator

import numpy as np

from convexport.runtime.errors import InputError, StorageError

_PARTIAL, _ASIDE = ".partial", ".aside"
# What only a disk says, whatever else was going on.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` whole: synced beside it first, then renamed over it.

    Raises:
        StorageError: E0801, the disk is full or does not let us.
    """
    with storage_errors(path):
        sweep(path.parent)
        handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=_PARTIAL, dir=str(path.parent))
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_withheld())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def save_array(path: Path, array: np.ndarray) -> None:
    """The bytes of ``numpy.save``, which does not tell a full disk from other failures."""
    whole = np.asarray(array, order="C")
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(whole)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(whole.data)


@contextlib.contextmanager
def new_directory(final: Path) -> Iterator[Path]:
    """A temporary directory beside ``final`` that becomes ``final`` when the block succeeds.

    What stood at ``final`` is replaced. When the block fails, nothing of it stays.

    Raises:
        StorageError: E0801, the disk is full or does not let us.
    """
    with storage_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        sweep(final.parent)
        scratch = _temporary(final)
    try:
        with storage_errors(final, only=_DISK):
            yield scratch
        with storage_errors(final):
            for path in scratch.rglob("*"):
                _withhold(path)
                _sync(path)
            scratch.chmod(0o777 & ~_withheld())
            sync_directory(scratch)
            _swap(scratch, final)
            sync_directory(final.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sweep(directory: Path) -> None:
    """Remove what processes of ours left half-written in a directory when they were killed.

    What one of them had put aside, and not replaced yet, is put back. Where others may write, a
    name says nothing: what another account left stays.
    """
    for path in directory.glob(".*~*"):
        here, _, rest = path.name.rpartition("~")[2].partition("-")
        pid = rest.partition("-")[0]
        left = path.suffix in (_PARTIAL, _ASIDE) and here == _here() and _is_ours(path)
        if left and pid.isdecimal() and len(pid) < 10 and not _alive(int(pid)):
            for kept in path.glob("*") if path.suffix == _ASIDE else ():
                with contextlib.suppress(OSError):  # where there is a new one, the old one goes
                    if not os.path.lexists(str(directory / kept.name)):
                        kept.rename(directory / kept.name)
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def storage_errors(path: Path, *, only: Container[int] = range(1 << 16)) -> Iterator[None]:
    """Turn what the operating system says about writing ``path`` into a StorageError.

    Args:
        only: error numbers; an error of another number is not about writing, and passes.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in only:
            raise
        raise StorageError(
            "E0801",
            f"cannot write: {error.strerror}",
            where=str(error.filename or path),
            hint="free some space, or choose a place that you may write to with -o or --cache-dir",
        ) from error


def json_bytes(value: Any) -> bytes:
    """The one way in which we write JSON: sorted, indented, no NaN, ends with a newline."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # File names that are no Unicode hold lone surrogates: written as JSON's escapes for them.
    return (text + "\n").encode(errors="backslashreplace")


def read_json(path: Path, *, limit: int = 64 << 20) -> Any:
    """Read a JSON file of at most ``limit`` bytes, without NaN and without duplicate keys.

    Raises:
        InputError: E0302, it cannot be read or is not such JSON.
    """
    try:
        if path.stat().st_size > limit:
            raise ValueError(f"larger than {limit} bytes")
        return json.loads(
            path.read_bytes().decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_nan
        )
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            "E0302", f"{path.name} is not readable JSON: {reason}", where=str(path)
        ) from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(scratch: Path, final: Path) -> None:
    """Put one directory in the place of another, or where none is."""
    try:
        scratch.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    if _exchange(scratch, final):
        return
    # Not in one step: whoever is killed between the two leaves it to ``sweep``.
    aside = _temporary(final, _ASIDE)
    try:
        final.rename(aside / final.name)
        try:
            scratch.rename(final)
        except BaseException:
            (aside / final.name).rename(final)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step, where the system and its file system can."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if not renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange):
        return True
    if ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL, errno.EXDEV):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
    return False


def _temporary(final: Path, suffix: str = _PARTIAL) -> Path:
    return Path(tempfile.mkdtemp(prefix=_prefix(final), suffix=suffix, dir=str(final.parent)))


def _prefix(final: Path) -> str:
    """Says whose it is, so that another process can tell whether it was left behind."""
    return f".{final.name[:40]}~{_here()}-{os.getpid()}-"


def _here() -> str:
    """Where process ids mean what they mean here: this boot, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        # Not resolved: that would put this process's own id before it. (Python 3.8 has no other.)
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return "0"
    return hashlib.sha256((boot + namespace).encode()).hexdigest()[:8]


def _is_ours(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:  # another process was faster
        return False
    return status.st_uid == os.geteuid() and not stat.S_ISLNK(status.st_mode)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _withheld() -> int:
    """The rights that nobody gets: those that the umask takes, and everybody's to write."""
    mask = os.umask(0)
    os.umask(mask)
    return mask | stat.S_IWOTH


def _withhold(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH:
        path.chmod(stat.S_IMODE(mode) & ~stat.S_IWOTH)


def _no_duplicates(pairs: Any) -> Any:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"a key occurs twice: {next(k for k in keys if keys.count(k) > 1)!r}")
    return dict(pairs)


def _no_nan(token: str) -> Any:
    raise ValueError(f"{token} is not JSON")
