"""What often lies under another file's name, told by its first bytes; names lie."""

from __future__ import annotations

from typing import Optional

HEAD = 512

_HTML = (b"<!doctype html", b"<html", b"<head", b"<!--")
_KINDS = (
    (_HTML, "an HTML page"),
    ((b"<svg", b"<?xml"), "an XML or SVG document"),
    ((b"version https://git-lfs",), "a Git LFS pointer (git lfs pull fetches the file itself)"),
    ((b"%pdf",), "a PDF document"),
    ((b"\x1f\x8b",), "a gzip archive (unpack it first)"),
    ((b"pk\x03\x04",), "a zip archive"),
    ((b"\x7felf",), "an executable or library"),
)


def foreign_kind(head: bytes) -> Optional[str]:
    """What a file that begins like this is, in words, if it is neither a model nor an image."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for magics, kind in _KINDS if start.startswith(magics)), None)


def is_html(head: bytes) -> bool:
    """Whether a server's page stands where a file was expected."""
    return foreign_kind(head) in ("an HTML page", "an XML or SVG document")
