"""Small rooms: a file has one subject, and a function fits a screen."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("architectures", "benchmarks", "calibration", "exporter", "runtime")
FILE, FUNCTION, ARGUMENTS = 300, 45, 7
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def functions() -> list[tuple[str, ast.FunctionDef]]:
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]


def test_files_are_short() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: size for name, size in sizes.items() if size > FILE} == {}


def test_functions_fit_a_screen() -> None:
    sizes = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}
    assert {name: size for name, size in sizes.items() if size > FUNCTION} == {}


def test_functions_take_few_arguments_by_position() -> None:
    counts = {name: len(node.args.args) for name, node in functions()}
    assert {name: count for name, count in counts.items() if count > ARGUMENTS} == {}
