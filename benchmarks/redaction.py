"""Texts without the names of persons: paths below a home lose it."""

from __future__ import annotations

import re
from pathlib import Path

# Homes of others, and their disks.
_HOMES = re.compile(r"""(?:/(?:home|Users)|(?<![\w.-])(?:/run)?/media)/[^/\s'":,;]+""")


def without_homes(text: str) -> str:
    """The same with ``~`` in place of any home."""
    home = str(Path.home()).rstrip("/")
    if home:  # a container's may be / itself
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    return _HOMES.sub("~", text)
