"""Looking into a zip checkpoint before it is loaded: only its listing is read."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from convexport.architectures.sniff import broken, not_a_checkpoint
from convexport.runtime.errors import InputError

# torch.save stores without compression, so an honest archive is as large as what it holds.
_MAX_RATIO = 10
# Room for an optimiser's state, averaged copies and double precision, then still some.
_MAX_TIMES_EXPECTED = 64
_SLACK = 1 << 30


def check_archive(path: Path, *, expected_bytes: int) -> bool:
    """Refuse a zip checkpoint by its listing; nothing is unpacked.

    Args:
        path: a file that begins like a zip archive.
        expected_bytes: size in float32 of the net that it is meant for.

    Returns:
        Whether all is stored uncompressed, so that it can be mapped into memory.

    Raises:
        InputError: E0323, the listing cannot be read; E0325, an entry leaves the archive or it
            unpacks to far more than it should; E0322, it is no checkpoint of a state dict.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise broken(path, str(error)) from error
    _check_entries(path, entries, expected_bytes)
    stems = {PurePosixPath(entry.filename).name for entry in entries}
    if "constants.pkl" in stems:
        raise not_a_checkpoint(path, "a TorchScript program")
    if "data.pkl" not in stems:
        raise not_a_checkpoint(path, "a zip archive that torch.save did not write")
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], expected_bytes: int) -> None:
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if ".." in name.parts or name.is_absolute():
            raise InputError(
                "E0325",
                f"the archive {path.name} has an entry that points out of it",
                where=ascii(entry.filename)[:200],
                why="no program that saves checkpoints writes such a name",
            )
    total = sum(entry.file_size for entry in entries)
    size = path.stat().st_size
    if (
        total > _MAX_RATIO * size + (1 << 20)
        or total > _MAX_TIMES_EXPECTED * expected_bytes + _SLACK
    ):
        raise InputError(
            "E0325",
            f"{path.name} would unpack to {total / 1e6:,.0f} MB",
            where=f"the file has {size / 1e6:,.1f} MB, the net {expected_bytes / 1e6:,.1f} MB",
            why="it looks made to exhaust this machine's memory",
            hint="re-save the weights alone, as safetensors",
        )
