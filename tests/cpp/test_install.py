"""What a user does: install it, find it from a project of their own, run the programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from convexport.runtime.engine import load
from tests.tiny import seal

from .test_pixels import noise
from .toolchain import ROOT, SOURCES, call, places

pytestmark = pytest.mark.slow  # builds the library first

EXAMPLES = ROOT / "examples"
FETCHING = f"""
cmake_minimum_required(VERSION 3.16)
project(fetching LANGUAGES CXX)
include(FetchContent)
FetchContent_Declare(convexport SOURCE_DIR "{ROOT}" SOURCE_SUBDIR runtime/cpp)
FetchContent_MakeAvailable(convexport)
add_executable(classify "{EXAMPLES}/cpp/classify.cpp")
target_link_libraries(classify PRIVATE convexport::convexport)
"""


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def prefix(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    call("cmake", "--install", release, "--prefix", folder)
    return folder


def test_the_examples_say_the_same_in_both_languages(
    prefix: Path, digits: Path, tmp_path: Path
) -> None:
    # CMake takes the first place of a list that has a package: the installed one stands before.
    options = [option.replace("PATH=", f"PATH={prefix};") for option in places()]
    call("cmake", "-S", EXAMPLES / "cpp", "-B", tmp_path / "build", *options)
    call("ninja", "-C", tmp_path / "build")
    noise(64, 64).save(tmp_path / "image.png")
    for image in (tmp_path / "image.png", tmp_path / "none.png"):
        cpp = run(tmp_path / "build/classify", digits, image)
        python = run(sys.executable, EXAMPLES / "python/classify.py", digits, image)
        assert (cpp.stdout, cpp.stderr) == (python.stdout, python.stderr)
        assert cpp.returncode == python.returncode
    assert run(tmp_path / "build/classify").returncode == 2


def test_a_project_may_include_the_sources(release: Path, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(FETCHING)
    quick = [option.replace("-O1 -g1", "-O0") for option in places()]
    call("cmake", "-S", tmp_path, "-B", tmp_path / "build", *quick)
    done = call("ninja", "-C", tmp_path / "build")
    assert "convexport-run" not in done
    noise(64, 64).save(tmp_path / "image.png")
    answer = run(tmp_path / "build/classify", digits, tmp_path / "image.png")
    python = run(sys.executable, EXAMPLES / "python/classify.py", digits, tmp_path / "image.png")
    assert (answer.returncode, answer.stdout) == (0, python.stdout)


def test_convexport_run_classifies_and_ends_with_the_codes_of_python(
    prefix: Path, digits: Path, tmp_path: Path
) -> None:
    program = prefix / "bin/convexport-run"
    noise(40, 40).save(tmp_path / "image.jpg")
    done = run(program, digits, tmp_path / "image.jpg", "--top", "2")
    ((first, second),) = load(digits).classify([tmp_path / "image.jpg"], 2)
    lines = [f"  {100 * p:5.1f}%  {label}" for label, p in (first, second)]
    assert done.stdout.splitlines() == [str(tmp_path / "image.jpg"), *lines]
    assert run(program, "--help").returncode == 0
    assert run(program).returncode == 2
    assert run(program, digits, tmp_path / "image.jpg", "--top", "0").returncode == 2
    assert run(program, digits, tmp_path / "none.jpg").returncode == 3
    assert run(program, tmp_path, tmp_path / "image.jpg").returncode == 3


def test_convexport_run_warns_and_tames_what_strangers_wrote(
    release: Path, tiny: Path, tmp_path: Path
) -> None:
    (tiny / "labels.txt").write_bytes(b"ant\x1b[31m\nbee\ncat\n")

    def edit(data: dict[str, object]) -> None:
        data.update(checked_on="abacus", weights={"kind": "random"})

    seal(tiny, edit)
    noise(9, 9).save(tmp_path / "image.png")
    done = run(release / "convexport-run", tiny, tmp_path / "image.png")
    assert done.returncode == 0
    assert "ant?[31m" in done.stdout
    assert "was checked on abacus" in done.stderr and "random" in done.stderr


def test_the_presets_are_read(release: Path, tmp_path: Path) -> None:
    for preset in ("linux-x86_64", "jetson-orin", "asan", "tsan"):
        words = ("--preset", preset, "-B", tmp_path / preset, *places()[1:5], "-N")
        call("cmake", "-S", SOURCES, *words)
