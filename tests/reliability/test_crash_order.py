"""What a loss of power would leave: nothing gets its name before its bytes are on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from convexport.runtime import files
from convexport.runtime.files import new_directory, sweep
from tests.reliability.faults.lab import Lab, compiler, laboratory

needs_shim = pytest.mark.skipif(compiler() is None, reason="needs a C compiler and Linux")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with laboratory() as ready:
        yield ready


def unsafe(events: list[tuple[str, str]]) -> list[str]:
    """Names that were given to what was not synced, and directories that were not synced after."""
    found, dirty, source = [], dict[str, int](), ""
    for index, (kind, path) in enumerate(events):
        if kind in ("open", "write", "truncate"):
            dirty[path] = index
        elif kind in ("sync", "remove"):
            dirty.pop(path, None)
        elif kind == "from":
            source = path
        elif kind == "rename":
            below = [name for name in dirty if name == source or name.startswith(f"{source}/")]
            found += [f"{path}: {name} is not on the disk" for name in below]
            later = [each for what, each in events[index:] if what == "sync"]
            if str(Path(path).parent) not in later:
                found.append(f"{path}: its name is not on the disk")
    return found


@needs_shim
@pytest.mark.slow
@pytest.mark.parametrize("old", [True, False])
def test_bytes_are_on_the_disk_before_they_have_a_name(lab: Lab, old: bool) -> None:
    tree, trace = lab.tree(old=old), lab.folder / f"trace{old}"
    assert lab.run(tree, trace=str(trace)).code == 0
    lines = [line.split("\t") for line in trace.read_text().splitlines()]
    events = [(kind, path) for kind, path in lines]
    assert sum(kind == "rename" for kind, _ in events) >= 6
    assert unsafe(events) == []


def test_an_unsafe_order_is_seen() -> None:
    write, rename = ("write", "/a/.t/x"), [("from", "/a/.t"), ("rename", "/a/b")]
    sync, after = ("sync", "/a/.t/x"), ("sync", "/a")
    assert unsafe([write, sync, *rename, after]) == []
    assert unsafe([write, *rename, sync, after]) and unsafe([sync, write, *rename, after])
    assert unsafe([write, sync, after, *rename])


BETWEEN = """
import os, pathlib, signal, sys
from convexport.runtime import files

files._exchange = lambda one, other: False
rename = pathlib.Path.rename

def fatal(self, target):
    result = rename(self, target)
    if target.name == "net" and target.parent.suffix == ".aside":
        os.kill(os.getpid(), signal.SIGKILL)
    return result

pathlib.Path.rename = fatal
with files.new_directory(pathlib.Path("net")) as scratch:
    (scratch / "new").touch()
"""


@pytest.fixture
def between(tmp_path: Path) -> Path:
    """Killed between two renames, where a file system cannot exchange two names in one step."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net/old").touch()
    done = subprocess.run([sys.executable, "-c", BETWEEN], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "net").exists()
    return tmp_path


def test_what_was_put_aside_is_put_back(between: Path) -> None:
    sweep(between)
    assert [path.relative_to(between).as_posix() for path in between.rglob("*")] == [
        "net",
        "net/old",
    ]


def test_what_was_put_aside_gives_way_to_what_is_new(between: Path) -> None:
    (between / "net").mkdir()
    (between / "net/newer").touch()
    sweep(between)
    assert [path.name for path in (between / "net").iterdir()] == ["newer"]
    assert [path.name for path in between.iterdir()] == ["net"]


def test_what_was_put_aside_takes_no_files_place(between: Path) -> None:
    (aside,) = between.glob("*.aside")
    (aside / "file").write_text("old")
    (between / "file").write_text("new")
    sweep(between)
    assert (between / "file").read_text() == "new" and (between / "net/old").exists()


def test_what_others_left_stays(between: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another account's, a link, and numbers that are no process's."""
    (aside,) = between.glob("*.aside")
    head = aside.name.rpartition("-")[0].rpartition("-")[0]
    (between / f"{head}-1{'0' * 30}-x.partial").touch()
    (between / f"{head}-\N{SUPERSCRIPT TWO}-x.partial").touch()
    (between / "mine").mkdir()
    (between / "mine/old").touch()
    (between / f"{aside.stem}2.aside").symlink_to("mine")
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    before = sorted(between.rglob("*"))
    sweep(between)
    assert sorted(between.rglob("*")) == before
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    sweep(between)
    assert len(list(between.glob(".*~*"))) == 3 and (between / "mine/old").exists()
    assert (between / "net/old").exists()


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_name_is_never_without_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    """Where names can be exchanged; otherwise at least the new one comes."""
    final, seen, rename = tmp_path / "net", [], Path.rename
    final.mkdir()
    (final / "old").touch()

    def watched(self: Path, target: Path) -> Path:
        try:
            return rename(self, target)
        finally:
            seen.append(final.is_dir())

    monkeypatch.setattr(Path, "rename", watched)
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    with new_directory(final) as scratch:
        (scratch / "new").touch()
    assert all(seen) is exchanges
    assert [path.name for path in final.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
