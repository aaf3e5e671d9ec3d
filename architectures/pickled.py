"""What a checkpoint's pickle would import, read without importing or running anything."""

from __future__ import annotations

import contextlib
import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from convexport.runtime.errors import InputError

RESAVE = (
    "where you trust the file, re-save its tensors: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)
_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
# The old format is a row of pickles: magic number, version, system, object, storage keys.
_PICKLES = 5


def forbidden(path: Path, kind: str, reason: str) -> InputError | None:
    """The error for a checkpoint that holds more than tensors, or None where it does not.

    Args:
        path: of the checkpoint.
        kind: ``zip`` or ``pickle``.
        reason: what torch's safe unpickler said when it refused.
    """
    imports = globals_of(path, kind)
    named = [name for name in imports if f" {name} " in reason]
    names = list(dict.fromkeys(named + [name for name in imports if not _is_plain(name)]))
    if not names:
        return None
    return InputError(
        "E0324",
        f"{path.name} contains code or objects, not only tensors: {ascii(names[0])[1:-1][:100]}",
        where=f"it would import {ascii(', '.join(names))[1:-1][:300]}",
        why="loading such an object can run any program; nothing of it was run",
        hint=RESAVE,
    )


def globals_of(path: Path, kind: str) -> list[str]:
    """What a checkpoint's pickle would import, as ``module.name`` in the file's order."""
    found: list[str] = []
    # What was found before a pickle broke still tells what it is.
    with contextlib.suppress(Exception), _opened(path, kind) as stream:
        for _ in range(_PICKLES):
            found.extend(_imports(stream))
    return found


def _imports(stream: BinaryIO) -> Iterator[str]:
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif opcode.name in _STRINGS:
            strings.append(str(argument))


@contextlib.contextmanager
def _opened(path: Path, kind: str) -> Iterator[BinaryIO]:
    if kind == "pickle":
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        yield io.BytesIO(archive.read(names[0]))


def _is_plain(name: str) -> bool:
    """Whether a state dict saved by torch itself imports such a name."""
    return name.startswith(("torch._utils.", "collections.OrderedDict")) or (
        name.startswith("torch.") and name.count(".") == 1
    )
