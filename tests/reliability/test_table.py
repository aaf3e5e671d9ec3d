"""The document is what the tests say, no row is forgotten, and tests that are named exist."""

from __future__ import annotations

import ast
from pathlib import Path

from convexport.runtime import errors
from tests.reliability.elsewhere import ELSEWHERE
from tests.reliability.table import DOCUMENT, LAST, document, lines, tied

TESTS = Path(__file__).parents[1]


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_every_row_is_there() -> None:
    assert {number for number, _ in lines()} == set(range(1, LAST + 1))


def test_every_test_here_has_a_row() -> None:
    names = {test for _, test in tied()}
    for path in Path(__file__).parent.glob("test_*.py"):
        if any(name.startswith(f"{path.name}::") for name in names):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    assert f"{path.name}::{node.name}" in names, node.name


def test_named_tests_exist() -> None:
    for proof in ELSEWHERE:
        file, _, name = proof.test.partition("::")
        body = ast.parse((TESTS / file).read_text()).body
        assert name in {node.name for node in body if isinstance(node, ast.FunctionDef)}, proof.test


def test_a_rows_code_is_that_of_its_error() -> None:
    codes = {kind.exit_code for kind in errors.ConvexportError.__subclasses__()} | {0}
    for row, test in tied():
        assert row.code in codes, test
        if row.says.startswith("E0"):
            assert int(row.says[1:3]) == row.code, test
