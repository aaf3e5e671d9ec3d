"""What a file really is, by its first bytes; names lie."""

from __future__ import annotations

import codecs
from pathlib import Path

from convexport.runtime.errors import InputError
from convexport.runtime.sniff import HEAD, foreign_kind

_KINDS = (
    (b"PK\x03\x04", "zip"),
    (b"\x80\x02", "pickle"),
    (b"\x80\x03", "pickle"),
    (b"\x80\x04", "pickle"),
    (b"\x80\x05", "pickle"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)


def kind_of(head: bytes) -> str:
    """``zip``, ``pickle``, ``safetensors``, or in words what else these first bytes belong to."""
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    # Eight bytes of header length, then the header, which is JSON.
    if head[8:9] == b"{" and head[7:8] == b"\0":
        return "safetensors"
    if foreign := foreign_kind(head):
        return foreign
    if head.lstrip()[:1] in (b"{", b"["):
        return "a JSON file"
    if _is_text(head):
        return "a text file"
    return "in no format of checkpoints that is known here"


def _is_text(head: bytes) -> bool:
    try:
        # Incremental: the last character may be cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text) and all(sign.isprintable() or sign.isspace() for sign in text)


def read_head(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)


def not_a_checkpoint(path: Path, what: str) -> InputError:
    """The error for a file that holds no weights at all."""
    return InputError(
        "E0322",
        f"{path.name} is {what}, not a checkpoint",
        where=f"{path}, {path.stat().st_size:,} bytes",
        hint="give a state dict saved as .safetensors, or by torch.save as .pth",
    )


def broken(path: Path, reason: str) -> InputError:
    """The error for a checkpoint that is cut or corrupt."""
    return InputError(
        "E0323",
        f"{path.name} is cut or corrupt",
        where=f"{path}, {path.stat().st_size:,} bytes",
        why=ascii(reason.strip())[1:-1][:300] or "it ends too early",
        hint="fetch or save it again",
    )
