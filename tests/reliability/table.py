"""``python -m tests.reliability.table`` writes docs/reliability.md from the tests themselves."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import FunctionType

from tests.reliability.elsewhere import ELSEWHERE, NOT_YET
from tests.reliability.rows import Row

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs/reliability.md"
LAST = 54
HEAD = """# What bad input does

Each line is a test. Those without a folder run the command line in a process of its own
(`tests/reliability`) and also hold that there is no traceback, at most one screen, nothing left
behind, no file of the user's changed, and nothing half-written in the cache. A number is the exit
code; an ellipsis stands for what differs. `python -m tests.reliability.table` writes this file.

| # | Input | What follows | Test |
|---|---|---|---|
"""


def tied() -> list[tuple[Row, str]]:
    """Rows with the test that proves each, in the order of the files."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"tests.reliability.{path.stem}")
        for name, test in vars(module).items():
            if isinstance(test, FunctionType) and hasattr(test, "row"):
                found.append((test.row, f"{path.name}::{name}"))
    return found


def lines() -> list[tuple[int, str]]:
    """Row number and Markdown of every line, sorted by number."""
    made = []
    for row, test in tied():
        follows = f"{row.code}, `{row.says}`" if row.says else "0, it goes through"
        made.append(
            (row.number, f"| {row.number} | {cell(row.input)} | {cell(follows)} | `{test}` |")
        )
    for proof in ELSEWHERE:
        words = f"{cell(proof.input)} | {cell(proof.follows)}"
        made.append((proof.number, f"| {proof.number} | {words} | `{proof.test}` |"))
    for number, why in NOT_YET.items():
        made.append((number, f"| {number} | {cell(why)} | not tested | |"))
    return sorted(made, key=lambda each: each[0])


def cell(text: str) -> str:
    """Text that a table of Markdown leaves whole."""
    return text.replace("|", "\\|")


def document() -> str:
    """The whole file."""
    return HEAD + "\n".join(line for _, line in lines()) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
