"""Which row of the table of bad inputs a test proves, and what a user must get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One way in which things go wrong.

    Attributes:
        number: of the row.
        input: what a user gives, in a few words.
        code: the exit code that follows.
        says: the first line of the message; where it succeeds, words among what is written, if
            there is something to say. An ellipsis stands for what differs from run to run.
    """

    number: int
    input: str
    code: int
    says: str = ""


def row(number: int, input: str, code: int, says: str = "") -> Callable[[Any], Any]:
    """Tie a test to its row. The test calls the fixture ``ends``, which checks code and words."""

    def tie(test: Any) -> Any:
        test.row = Row(number, input, code, says)
        return test

    return tie
