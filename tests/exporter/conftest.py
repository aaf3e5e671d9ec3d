from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from tests.exporter.labelled import data as data
from tests.exporter.labelled import tiny as tiny
from tests.nets import model


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """In this process too, as in its children: the same bits, and quick on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def bundle(int8_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the INT8 bundle, to do with as one likes."""
    return Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))


@pytest.fixture
def quick(home: Path, cache: Path) -> tuple[str, ...]:
    """Options of every build here: no connection, no latency, the shared cache."""
    return ("--offline", "--bench-seconds", "0", "--cache-dir", str(cache))


@pytest.fixture
def scratch(home: Path) -> tuple[str, ...]:
    """The same with a cache of the test's own."""
    return ("--offline", "--bench-seconds", "0", "--cache-dir", str(home / "cache"))


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Every file below a directory, with its hash."""

    def read(root: Path) -> dict[str, str]:
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    return read


@pytest.fixture
def refused(invoke: Any, home: Path) -> Callable[..., Any]:
    """A command that must end with that exit code and error, and change nothing."""

    def state() -> dict[Path, str]:
        return {
            path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in home.rglob("*")
        }

    def check(code: int, error: str, *arguments: str | Path) -> Any:
        before = state()
        done = invoke(*arguments)
        assert done.failed_with(code, error) and not done.out
        assert len(done.err.splitlines()) < 24, "more than one screen"
        assert state() == before, "the input was touched, or something was left"
        return done

    return check


@pytest.fixture
def small_onnx() -> Callable[..., onnx.ModelProto]:
    """Make a net of 5 nodes for images of 16x16, as ONNX text with seeded weights."""
    return model
