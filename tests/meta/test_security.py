"""SECURITY.md names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_defence_names_a_test_that_exists() -> None:
    named = re.findall(r"`(\w+/test_\w+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 10
    for file, name in named:
        body = ast.parse((ROOT / "tests" / file).read_text()).body
        assert name in {node.name for node in body if isinstance(node, ast.FunctionDef)}, name
