from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import write_bundle

# The fake CUDA driver, and Python's double of TensorRT, to compare with.
from tests.trt.conftest import driver as driver
from tests.trt.conftest import library as library
from tests.trt.conftest import tensorrt as tensorrt

from .plans import Make, compile_doubles, plan_bundle
from .toolchain import ASAN, RELEASE, TESTS, TSAN, Kind, MissingToolError, built

Probe = Callable[..., list[str]]

# ONNX Runtime keeps some memory until the process ends, but loses none of it.
SANITIZERS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": f"suppressions={TESTS / 'suppressions.txt'}",
}


# Thread- and AddressSanitizer expect memory where it lies without much randomness.
_WORDS = ["setarch", platform.machine(), "-R"]
STILL = (
    _WORDS
    if shutil.which("setarch")
    and subprocess.run([*_WORDS, "true"], capture_output=True).returncode == 0
    else []
)
_RANDOM_BITS = Path("/proc/sys/vm/mmap_rnd_bits")


def built_or_skipped(kind: Kind) -> Path:
    try:
        return built(kind)
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def release() -> Path:
    return built_or_skipped(RELEASE)


@pytest.fixture(scope="session")
def asan() -> Path:
    """Built with AddressSanitizer and UndefinedBehaviorSanitizer: a finding ends the program."""
    return built_or_skipped(ASAN)


@pytest.fixture(scope="session")
def tsan() -> Path:
    try:
        little = int(_RANDOM_BITS.read_text()) <= 28
    except (OSError, ValueError):
        little = False
    if not STILL and not little:
        pytest.skip("ThreadSanitizer needs an address space that is less random than here")
    return built_or_skipped(TSAN)


def lines_of(program: Path, *arguments: str | Path, folder: Path | None = None) -> list[str]:
    """What a program of the tests says in a folder; that it ends well is asserted."""
    done = subprocess.run(
        [*STILL, program, *arguments],
        cwd=folder,
        capture_output=True,
        env={**os.environ, **SANITIZERS},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[:6000]
    return done.stdout.decode(errors="surrogateescape").splitlines()


@pytest.fixture
def probe(asan: Path) -> Probe:
    """A door of the library, in a program under the sanitizers."""
    return lambda *arguments: lines_of(asan / "probe", *map(str, arguments))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny")


@pytest.fixture(scope="session")
def digits(int8_bundle: Path) -> Path:
    """A net that knows something, in INT8, as a user builds it."""
    return int8_bundle


@pytest.fixture(scope="session")
def doubles(tmp_path_factory: pytest.TempPathFactory, asan: Path) -> dict[str, Path]:
    """For each version of TensorRT the folder with a double of its library."""
    return compile_doubles(tmp_path_factory.mktemp("tensorrt"))


@pytest.fixture
def found(doubles: dict[str, Path], driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs find the double of TensorRT 10.3 and the fake driver."""
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{doubles['10.3']}:{driver.parent}")


@pytest.fixture
def planned(tmp_path: Path) -> Make:
    """Makes a bundle for the double, of a plan's lines."""
    return lambda *lines, **more: plan_bundle(tmp_path / "planned", *lines, **more)
