from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from convexport.runtime import files
from convexport.runtime.errors import InputError, StorageError
from convexport.runtime.files import (
    json_bytes,
    new_directory,
    read_json,
    save_array,
    sha256_of,
    write_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    """FIPS 180-2, appendices B.1 and B.3."""
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    (tmp_path / "x").write_bytes(b"a" * 1_000_000)
    assert sha256_of(tmp_path / "x") == (
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    )


def test_a_file_is_replaced_whole_with_the_modes_of_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    mask = os.umask(0o027)
    try:
        write_atomically(path, b"new")
    finally:
        os.umask(mask)
    assert path.read_bytes() == b"new" and names(tmp_path) == ["x"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_reader_never_meets_half_a_file(tmp_path: Path) -> None:
    path, contents = tmp_path / "x", {b"a" * 100_000, b"b" * 70_000}
    path.write_bytes(min(contents))
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(100):
        for content in contents:
            write_atomically(path, content)
    stop.set()
    reader.join()
    assert seen <= contents


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    with pytest.raises(StorageError, match=os.strerror(number)) as error:
        write_atomically(path, b"new")
    assert error.value.exit_code == 8
    assert path.read_bytes() == b"old" and names(tmp_path) == ["x"]


FULL = """
import pathlib, sys
from convexport.runtime.errors import StorageError
import numpy
from convexport.runtime.files import new_directory, save_array, write_atomically
try:
    if sys.argv[1] == "file":
        write_atomically(pathlib.Path("x"), bytes(200_000))
    else:
        with new_directory(pathlib.Path("x")) as scratch:
            if sys.argv[1] == "array":
                save_array(scratch / "y", numpy.zeros(50_000, "f4"))
            (scratch / "y").write_bytes(bytes(200_000))
except StorageError as error:
    sys.exit(error.exit_code)
"""


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize("kind", ["file", "directory", "array"])
def test_a_limit_of_the_system_is_a_storage_error(tmp_path: Path, kind: str) -> None:
    """A real short write, in a process whose files may not grow."""
    program = [sys.executable, "-c", FULL, kind]
    done = subprocess.run(program, cwd=tmp_path, preexec_fn=limit_files)
    assert done.returncode == 8 and names(tmp_path) == []


def test_a_new_directory_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "a/b/final"
    with new_directory(final) as scratch:
        (scratch / "sub").mkdir()
        (scratch / "sub/x").write_text("x")
        assert not final.exists() and scratch.parent == final.parent
    assert (final / "sub/x").read_text() == "x"
    assert names(final.parent) == ["final"]


def test_a_new_directory_replaces_an_old_one(tmp_path: Path) -> None:
    final = tmp_path / "final"
    final.mkdir()
    (final / "old").touch()
    with new_directory(final) as scratch:
        (scratch / "new").touch()
    assert names(final) == ["new"] and names(tmp_path) == ["final"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_what_stood_there(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    final = tmp_path / "final"
    final.mkdir()
    (final / "old").touch()
    with pytest.raises(kind), new_directory(final) as scratch:
        (scratch / "new").touch()
        raise kind
    assert names(final) == ["old"] and names(tmp_path) == ["final"]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_swap_that_fails_puts_the_old_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    final, rename, calls = tmp_path / "final", Path.rename, []
    final.mkdir()
    (final / "old").touch()

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 3:  # onto what is there; that aside; and now into its place
            raise kind(errno.EIO, "interrupted")
        return rename(self, target)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", second_fails)
    expected = StorageError if kind is OSError else kind
    with pytest.raises(expected), new_directory(final) as scratch:
        (scratch / "new").touch()
    assert names(final) == ["old"] and names(tmp_path) == ["final"]


def test_a_place_that_cannot_be_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as error, new_directory(tmp_path / "file/final"):
        pass
    assert "file" in error.value.where


@pytest.mark.parametrize("name", ["x" * 250, "ü" * 100, "-rf", " ", "a\nb"])
def test_odd_names_are_written(tmp_path: Path, name: str) -> None:
    with new_directory(tmp_path / name) as scratch:
        (scratch / "x").touch()
    write_atomically(tmp_path / name / "y", b"y")
    assert names(tmp_path) == [name] and names(tmp_path / name) == ["x", "y"]


def test_json_is_sorted_and_ends_with_a_newline() -> None:
    assert json_bytes({"b": 1, "a": ["ä"]}) == '{\n  "a": [\n    "ä"\n  ],\n  "b": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        json_bytes(float("nan"))


def test_a_name_that_is_no_unicode_comes_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / "x").write_bytes(json_bytes({"name": name}))
    assert read_json(tmp_path / "x") == {"name": name}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b"[" * 100_000,
        b"9" * 5000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_json_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x").write_bytes(text)
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "x")
    assert error.value.code == "E0302"


def test_json_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1" * 100)
    with pytest.raises(InputError, match="larger than 99"):
        read_json(tmp_path / "x", limit=99)
    for missing in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError):
            read_json(missing)


def test_the_umask_is_only_looked_at() -> None:
    mask = os.umask(0o020)
    assert files._withheld() == 0o022
    assert os.umask(mask) == 0o020


def test_nobody_else_may_write_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with new_directory(tmp_path / "made") as scratch:
            (scratch / "x").touch()
        write_atomically(tmp_path / "y", b"y")
    finally:
        os.umask(mask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"made": 0o775, "x": 0o664, "y": 0o664}


@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (2, 1, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f4", "i8", "u1"])
def test_an_array_is_written_as_numpy_does(
    tmp_path: Path, shape: tuple[int, ...], order: Literal["C", "F"], dtype: str
) -> None:
    array = np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape), dtype, order=order)
    save_array(tmp_path / "x.npy", array)
    assert np.array_equal(np.load(tmp_path / "x.npy"), array)
    np.save(tmp_path / "y.npy", np.asarray(array, order="C"))
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()
