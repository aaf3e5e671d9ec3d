"""What an earlier or a later version stored, read by this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a stored dataclass that this version knows: a newer one may add others."""
    if not isinstance(data, Mapping):
        raise TypeError(f"{kind.__name__} is no object")
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}
