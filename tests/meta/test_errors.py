"""Every error has a code of its own, in the range of its room."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = {
    "runtime": range(0, 20),
    "architectures": range(20, 40),
    "calibration": range(40, 60),
    "benchmarks": range(60, 80),
    "exporter": range(80, 100),
}


def raised() -> dict[str, set[tuple[str, str]]]:
    """Code -> the rooms and classes that it is raised with."""
    found = defaultdict(set)
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and node.args):
                    continue
                first = node.args[0]
                if isinstance(first, ast.Constant) and re.fullmatch(r"E\d{4}", str(first.value)):
                    found[first.value].add((room, ast.unparse(node.func)))
    return found


def test_a_code_belongs_to_one_room() -> None:
    for code, places in raised().items():
        assert len({room for room, _ in places}) == 1, code


def test_a_code_lies_in_its_rooms_range() -> None:
    for code, places in raised().items():
        for room, _ in places:
            assert int(code[3:]) in ROOMS[room], f"{code} in {room}"


def test_a_code_begins_with_its_exit_code() -> None:
    from convexport.runtime import errors

    for code, places in raised().items():
        for _, kind in places:
            if hasattr(errors, kind):
                assert int(code[1:3]) == getattr(errors, kind).exit_code, code


def test_codes_are_found_at_all() -> None:
    assert len(raised()) > 50
