"""Which output of a net each class of a data set stands for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from convexport.runtime.errors import InputError

_WORDNET = re.compile(r"n\d{8}")


def class_indices(names: Sequence[str], labels: Sequence[str], *, named: bool) -> list[int]:
    """Which output each class name of the data stands for.

    By the net's labels where all are among them; as numbers where all are numbers of classes; by
    their order only where there is one WordNet ID a class, as ImageNet is numbered everywhere, or
    where the net has no labels and there is one name a class.

    Args:
        names: of the data's classes, sorted.
        labels: one a class of the net.
        named: whether these are names of its own.

    Raises:
        InputError: E0368, there is no telling which class is which.
    """
    known = {label: index for index, label in enumerate(labels)}
    numbers = {str(index): index for index in range(len(labels))}
    for table in (known, numbers):
        if all(name in table for name in names):
            _refuse_ambiguous(names, labels if table is known else ())
            return [table[name] for name in names]
    one_each = len(names) == len(labels)
    # Numbers that were not the classes' would be taken in the order of their digits.
    if one_each and (wordnet(names) or (not named and not any(map(str.isdecimal, names)))):
        return list(range(len(names)))
    strangers = [name for name in names if name not in (known if named else numbers)]
    raise InputError(
        "E0368",
        f"the data's {len(names)} classes do not fit the net's {len(labels)}",
        where=f"not among the net's labels: {', '.join(strangers[:5])}",
        why="there is no telling which class is which",
        hint=_hint(names, len(labels)),
    )


def wordnet(names: Sequence[str]) -> bool:
    """Whether all names are WordNet IDs, as those of ImageNet's folders."""
    return all(map(_WORDNET.fullmatch, names))


def class_warnings(names: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    """What to know of a mapping that was made."""
    if names and len(names) < len(labels):
        yield f"the data has {len(names)} of the net's {len(labels)} classes: accuracy is of these"
    if wordnet(names) and not set(names) <= set(labels):
        yield "folders are named by WordNet IDs: class k was taken to be the k-th in their order"


def _refuse_ambiguous(names: Sequence[str], labels: Sequence[str]) -> None:
    times = Counter(labels)
    twice = [name for name in names if times[name] > 1]
    if twice:
        raise InputError(
            "E0368",
            "labels of several classes are the same",
            where=", ".join(twice[:5]),
            why="there is no telling which class is which",
            hint="name the folders after the classes' numbers",
        )


def _hint(names: Sequence[str], classes: int) -> str:
    if all(name.isdecimal() for name in names) and {int(name) for name in names} >= {1, classes}:
        return f"classes are numbered 0 to {classes - 1}: do yours start at 1, or is one too many?"
    return "name the folders after the net's labels, or after the classes' numbers"
