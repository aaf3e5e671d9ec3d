"""What is in the repository is what is installed."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Run from a clone, with packages that are not ours to ask for.
SCRIPTS = "benchmarks/peers/"
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_folder_is_listed() -> None:
    folders = {}
    for package, folder in SETUP["package-dir"].items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder)
            if package == "convexport.exporter" and inner.parts[:1] == ("convexport",):
                continue
            folders[".".join([package, *inner.parts])] = init
    assert set(folders) == set(SETUP["packages"])


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_data_file(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path), "."]
    copy = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=copy, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    rooms = {folder: package.replace(".", "/") for package, folder in SETUP["package-dir"].items()}
    for path in tracked:
        folder = max((f for f in rooms if path.startswith(f"{f}/")), key=len, default=None)
        if path.startswith(SCRIPTS):
            assert not any(name.endswith(path) for name in names)
        elif folder and not path.endswith(".md"):
            assert rooms[folder] + path.removeprefix(folder) in names
    outside = {n for n in names if not n.startswith(("convexport/", "convexport-"))}
    assert not outside, "something of ours would land beside convexport in site-packages"
