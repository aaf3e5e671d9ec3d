"""A room imports what stands below it, never beside or above."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the ground up; rooms on one line do not know each other.
STOREYS = (
    ("convexport.runtime",),
    ("convexport.architectures", "convexport.calibration"),
    ("convexport.benchmarks",),
    ("convexport.exporter",),
)
# A script that trains nets for the zoo is no part of the layers that it joins.
ROOT_MODULES = ("convexport", "convexport.cli", "convexport.__main__")


def room_of(module: str) -> int | None:
    for storey, rooms in enumerate(STOREYS):
        if any(module == room or module.startswith(f"{room}.") for room in rooms):
            return storey
    return None


def files() -> list[tuple[str, Path]]:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = []
    for package, folder in setup["package-dir"].items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT / folder)
            if package == "convexport.exporter" and inner.parts[0] == "convexport":
                continue
            parts = [part for part in inner.with_suffix("").parts if part != "__init__"]
            found.append((".".join([package, *parts]), path))
    return found


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("convexport")}


@pytest.mark.parametrize(("module", "path"), files(), ids=[name for name, _ in files()])
def test_imports_point_down(module: str, path: Path) -> None:
    storey = room_of(module)
    if storey is None:  # the import root and the command line know everything
        return
    room = ".".join(module.split(".")[:2])
    for name in imports(path):
        other = room_of(name)
        if other is None:
            # The root is above all rooms but gives its version and the terminal's guard away.
            assert storey == len(STOREYS) - 1, f"{module} reaches up to {name}"
        elif other == storey:
            assert name.startswith(room), f"{module} reaches beside itself to {name}"
        else:
            assert other < storey, f"{module} reaches up to {name}"


def test_a_breach_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("from convexport.exporter import pipeline\n")
    assert imports(file) == {"convexport.exporter.pipeline"}
    assert room_of("convexport.exporter.pipeline") > room_of("convexport.runtime.engine")


DEVICE_FILES = sorted((ROOT / "runtime").rglob("*.py"))


@pytest.mark.parametrize("path", DEVICE_FILES, ids=lambda path: path.name)
def test_the_device_side_is_python_3_8_without_torch_or_onnx(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        assert not {name.split(".")[0] for name in names} & {"torch", "onnx", "onnx_ir"}, path
