"""Builds beside each other, and in odd surroundings: the same bytes every time."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.faults.lab import Lab, State, compiler, laboratory, leftovers, state_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="needs a C compiler and Linux for the lab"),
]
NOBODY = 65534
TEN_YEARS = 10 * 365 * 86400


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with laboratory() as ready:
        yield ready


def built(lab: Lab, tree: Path, *more: str, output: str = "out/net", **how: Any) -> Path:
    """A build that must succeed."""
    done = lab.together([lab.wanted(tree, *more, output=output, **how)])[0]
    assert done.code == 0, done.err
    return tree / output


def stages(bundle: Path) -> dict[str, bool]:
    """The stages of a build, and whether they were found in the cache."""
    report = json.loads((bundle / "report.json").read_text())
    return {stage["name"]: stage["cached"] for stage in report["stages"]}


def without_sums(state: State) -> dict[str, str]:
    """A board's bundle has sums of all its files, and the report tells how long things took."""
    return {name: digest for name, digest in state.items() if name != "SHA256SUMS"}


def test_eight_at_once_share_a_cache_and_do_nothing_twice(lab: Lab) -> None:
    tree, alone = lab.tree(old=False), lab.tree(old=False)
    openvino, board = ("--target", "openvino"), ("--target", "jetson-jp6")
    kinds = {"a": (), "b": (), "c": (), "d": openvino, "e": openvino, "f": board, "g": board}
    runs = {name: lab.wanted(tree, *more, output=name) for name, more in kinds.items()}
    ends = lab.together([*runs.values(), runs["a"]])
    assert [end.code for end in ends] == [0] * 8, [end.err for end in ends]
    for name, more in kinds.items():
        expected = lab.new if not more else state_of(built(lab, alone, *more, output=name))
        assert without_sums(state_of(tree / name)) == without_sums(expected), name
    produced = [
        (name, len(list((tree / "cache/stages").glob(f"{name}-*/"))))
        for name in ("reference", "export", "simplify", "calibrate")
    ]
    # A board has a graph of its own from the export on.
    assert dict(produced) == {"reference": 1, "export": 2, "simplify": 2, "calibrate": 2}
    fresh = [name for key in kinds for name, found in stages(tree / key).items() if not found]
    assert fresh.count("reference") <= 1 and fresh.count("export") <= 2
    assert leftovers(tree) == []


def test_eight_of_the_same_into_one_place(lab: Lab) -> None:
    tree = lab.tree()
    ends = lab.together([lab.wanted(tree) for _ in range(8)])
    assert [end.code for end in ends] == [0] * 8, [end.err for end in ends]
    assert state_of(tree / "out/net") == lab.new
    assert leftovers(tree) == []


@pytest.mark.parametrize("change", ["flip", "cut", "remove", "empty entry"])
def test_what_was_changed_in_the_cache_is_made_anew(lab: Lab, change: str) -> None:
    tree = lab.tree()
    built(lab, tree)
    for entry in (tree / "cache/stages").glob("*/"):
        path = next(path for path in sorted(entry.iterdir()) if path.name != "entry.json")
        data = path.read_bytes()
        if change == "flip":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif change == "cut":
            path.write_bytes(data[: len(data) // 2])
        elif change == "remove":
            path.unlink()
        else:
            (entry / "entry.json").write_bytes(b"")
    assert state_of(built(lab, tree)) == lab.new
    assert not any(stages(tree / "out/net").values())
    assert lab.wrong_after(tree) == []


@pytest.mark.parametrize("shift", [-TEN_YEARS, TEN_YEARS])
def test_a_clock_that_jumps(lab: Lab, shift: int) -> None:
    tree = lab.tree()
    built(lab, tree, clock=shift)
    for path in tree.rglob("*"):
        os.utime(path, (4e9, 4e9))
    assert state_of(built(lab, tree)) == lab.new
    assert all(stages(tree / "out/net").values())
    shutil.rmtree(tree / "cache")
    assert state_of(built(lab, tree)) == lab.new


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_umask(lab: Lab, mask: int) -> None:
    tree = lab.tree(old=False)
    assert state_of(built(lab, tree, umask=mask)) == lab.new
    made = [*(tree / "out/net").rglob("*"), *(tree / "cache/stages").rglob("*")]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in made if path.suffix != ".lock"}
    assert not any(mode & (mask | stat.S_IWOTH) for mode in modes), [oct(each) for each in modes]
    assert all(mode & stat.S_IRUSR for mode in modes)


@pytest.mark.parametrize("name", ["tr_TR", "de_DE", "C"])
def test_a_locale(lab: Lab, name: str) -> None:
    """Also for the C functions that heed it, as in a program that has a window."""
    env = {"LC_ALL": name, "TZ": "Asia/Kathmandu"}
    if name != "C":
        maker = shutil.which("localedef")
        folder = lab.folder / f"{name}.UTF-8"
        made = maker and subprocess.run(
            [maker, "-i", name, "-f", "UTF-8", folder], capture_output=True
        )
        if not folder.is_dir():
            pytest.skip(f"no locale {name} here: {made and made.stderr.decode()[:100]}")
        env = {**env, "LC_ALL": f"{name}.UTF-8", "LOCPATH": str(lab.folder)}
    tree = lab.tree()
    assert state_of(built(lab, tree, env=env)) == lab.new


@pytest.mark.parametrize(
    "name", ["two words", "ünïcödé 模型", "a\nb", "-rf", "x" * 255, "{{7*7}}%n$(id)", "~", ".hid"]
)
def test_a_strange_path(lab: Lab, name: str) -> None:
    tree = lab.tree(old=False)
    (tree / name).mkdir()
    shutil.copy(lab.folder / "net.onnx", tree / name)
    shutil.copytree(lab.folder / "im", tree / name / "im")
    argv = ["build", "./net.onnx", "--int8", "--calib=im", "--calib-images=8", "--offline"]
    argv += ["--parity-images=2", "--bench-seconds=0", "--method=minmax", "--repair=none"]
    run = lab.wanted(tree) | {"cwd": str(tree / name)}
    end = lab.together([run | {"argv": [*argv, f"--cache-dir={name}/c", f"--output={name}/out"]}])
    assert end[0].code == 0, end[0].err
    assert state_of(tree / name / name / "out") == lab.new
    output = f"{name}/again/{name}"
    assert state_of(built(lab, tree, output=output)) == lab.new


@pytest.fixture
def other_user(lab: Lab) -> dict[str, Any]:
    """Somebody who may not write where it is closed; if we are root, really another user."""
    lab.folder.chmod(0o755)
    return {"env": {"HOME": "/nonexistent"}} if os.getuid() else {"user": NOBODY, "env": {}}


def close(*folders: Path) -> None:
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)


def test_a_cache_of_another_user_is_refused_in_a_screen(
    lab: Lab, other_user: dict[str, Any]
) -> None:
    tree = lab.tree(old=False)
    built(lab, tree)
    close(tree / "cache")
    (tree / "out").chmod(0o777)
    before = state_of(tree / "out/net")
    (end,) = lab.together([lab.wanted(tree, output="out/mine", **other_user)])
    assert end.code == 8 and end.plain and "cache" in end.err, end.err
    assert not (tree / "out/mine").exists() and state_of(tree / "out/net") == before


def test_each_user_with_a_cache_of_their_own(lab: Lab, other_user: dict[str, Any]) -> None:
    tree = lab.tree(old=False)
    tree.chmod(0o777)
    built(lab, tree)
    (end,) = lab.together([lab.wanted(tree, "--cache-dir", f"{tree}/b", "-o", f"{tree}/mine")])
    assert end.code == 0, end.err
    other = [lab.wanted(tree, "--cache-dir", f"{tree}/c", "-o", f"{tree}/theirs", **other_user)]
    assert lab.together(other)[0].code == 0
    assert state_of(tree / "mine") == state_of(tree / "theirs") == lab.new


def test_a_bundle_of_another_user_is_not_replaced(lab: Lab, other_user: dict[str, Any]) -> None:
    tree = lab.tree()
    (tree / "cache").mkdir()
    (tree / "cache").chmod(0o755)
    if not os.getuid():
        shutil.chown(tree / "cache", NOBODY)
    close(tree / "out")
    (end,) = lab.together([lab.wanted(tree, **other_user)])
    assert end.code == 8 and end.plain, end.err
    assert state_of(tree / "out/net") == lab.old


def test_a_home_that_nobody_may_write_to(lab: Lab, other_user: dict[str, Any]) -> None:
    tree = lab.tree(old=False)
    tree.chmod(0o777)
    run = lab.wanted(tree, **other_user)
    where = run["argv"].index("--cache-dir")
    del run["argv"][where : where + 2]
    (tree / "home").mkdir()
    close(tree / "home")
    run["env"] = {"HOME": str(tree / "home"), "XDG_CACHE_HOME": str(tree / "home/.cache")}
    (end,) = lab.together([run])
    assert end.code == 8 and end.plain and "--cache-dir" in end.err, end.err
