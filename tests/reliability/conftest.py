"""A command that must end as its row says, and that leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ended
from tests.nets import small_net
from tests.reliability.forks import Forks, forks
from tests.reliability.rows import Row
from tests.tiny import write_bundle

Ends = Callable[..., Ended]


@pytest.fixture(scope="session")
def forked() -> Iterator[Forks]:
    with forks() as process:
        yield process


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def net(home: Path) -> Path:
    """A sound net of 5 classes for grey images of 16x16."""
    return small_net(home / "net.onnx")


@pytest.fixture
def bundle(home: Path) -> Path:
    """A sound bundle that no code of the exporter's has written."""
    return write_bundle(home / "tiny")


@pytest.fixture
def ends(
    request: pytest.FixtureRequest, forked: Forks, command: Ends, home: Path, cache: Path
) -> Iterator[Ends]:
    """Run a command and hold it against the test's row.

    A build gets options that make it quick, and the shared cache. Whatever happens: no traceback,
    at most one screen on failure, nothing half-written in the cache, no file of the user's
    changed. No new file either but those that ``makes`` names.
    """
    row: Row = request.function.row
    calls = []

    def check(
        *arguments: str | Path,
        makes: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        limits: dict[str, int] | None = None,
        fresh: bool = False,
    ) -> Ended:
        words = [str(each) for each in arguments]
        if words[0] == "build":
            words += ["--offline", "--bench-seconds", "0"]
            words += [] if "--cache-dir" in words else ["--cache-dir", str(cache)]
        before = contents(home)
        if fresh:  # what only a new interpreter reads: its locale, its path
            ended = command(*words, env=env)
            code, out, err = ended.code, ended.out, ended.err
        else:
            code, out, err = forked.run(words, {**os.environ, **(env or {})}, limits or {})
        after = contents(home)
        calls.append(words)
        assert "Traceback" not in err, err
        assert code == row.code, f"exit code {code}\n{out}{err}"
        if code and words[0] != "doctor":
            assert len(err.splitlines()) <= 24 and not out, "more than one screen"
        assert says(row, out, err), f"expected {row.says!r}\n{out}{err}"
        made = {path for path in before.keys() | after if path.split("/")[0] in makes}
        changed = {path for path in before.keys() - made if after.get(path) != before[path]}
        assert not after.keys() - before.keys() - made, "something was left behind"
        assert not changed, "a file of the user's was changed or removed"
        assert not [*cache.rglob("*.partial")]
        return Ended(code, out, err)

    yield check
    assert calls, "the test runs no command"


def says(row: Row, out: str, err: str) -> bool:
    """Whether the row's words are the first line of the error, or stand among what was said."""
    pattern = ".*".join(re.escape(part) for part in row.says.split("…"))
    errors = [line for line in err.splitlines() if line.lower().startswith("error: ")]
    if errors:
        return re.fullmatch(pattern, errors[0][len("error: ") :]) is not None
    return re.search(pattern, " ".join((out + err).split())) is not None


def contents(root: Path) -> dict[str, Any]:
    """Every name below, with the hash of files and the goal of links."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file() and path.stat().st_size < 1 << 28:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = path.lstat().st_mode
    return found
