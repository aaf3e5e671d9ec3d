"""Counts that add up: parts of a pass over images, taken together, are the whole pass, bit for bit.

Each field of a tally says how two of it become one. A sum of floating-point numbers depends on
their order, so sums are kept as whole numbers of the smallest double, 2^-1074, which do not.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, field, fields
from typing import Any, Self

_UNITS = 1 << 1074


class Tally:
    """A dataclass whose fields are made by the functions below; it holds nothing but JSON."""

    def absorb(self, other: Self) -> None:
        """Count what the other has counted, too."""
        for each in fields(self):  # type: ignore[arg-type]  # all that derive from it are ones
            merge = each.metadata["merge"]
            setattr(self, each.name, merge(getattr(self, each.name), getattr(other, each.name)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # as above

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``.

        Raises:
            TypeError: a field is missing, unknown, or of another kind.
        """
        made = cls(**data)
        for each in fields(made):  # type: ignore[arg-type]
            if type(getattr(made, each.name)) is not type(getattr(cls(), each.name)):
                raise TypeError(f"{each.name} is of another kind")
        return made


def exact(value: float) -> int:
    """A finite number, in units of the smallest double."""
    numerator, denominator = value.as_integer_ratio()
    return numerator * (_UNITS // denominator)


def nearest(total: int) -> float:
    """The double nearest to a sum of ``exact`` numbers."""
    return total / _UNITS


def kept(start: Any, merge: Callable[[Any, Any], Any]) -> Any:
    """A field that starts so, and of which ``merge`` makes one of two."""
    return field(default=start, metadata={"merge": merge})


def summed() -> Any:
    """A field of whole numbers that are added."""
    return kept(0, operator.add)


def listed(size: int, key: Callable[[Any], Any]) -> dict[str, Any]:
    """Of a field of rows: the first ``size`` stay, of which no two have the same key."""

    def first(mine: list[Any], theirs: list[Any]) -> list[Any]:
        return sorted([*mine, *theirs], key=key)[:size] if theirs else mine

    return {"merge": first}


def _add_counts(mine: dict[str, int], theirs: dict[str, int]) -> dict[str, int]:
    for key, count in theirs.items():
        mine[key] = mine.get(key, 0) + count
    return mine


# Of a field of keys with whole numbers, which are added.
COUNTED = {"merge": _add_counts}
