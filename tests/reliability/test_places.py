"""Rows 35 to 43: where things are written, the cache, the machine's surroundings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.nets import small_net
from tests.reliability.conftest import Ends
from tests.reliability.rows import row
from tests.tiny import seal

BUILD = ("build", "net.onnx", "-o", "out")


def full(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("precious")


STANDS: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("precious"),
    "folder": full,
    "link": lambda path: path.symlink_to(path.parent / "elsewhere"),
}


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("what", STANDS)
@row(
    35, "an output that is a file, a folder of others, a link", 2, "E0283 out exists and is not a …"
)
def test_an_output_that_is_no_bundle(
    ends: Ends, home: Path, net: Path, what: str, force: tuple[str, ...]
) -> None:
    full(home / "elsewhere")
    STANDS[what](home / "out")
    ends(*BUILD, *force)


@row(35, "the output is where the model is", 2, "E0283 … exists and is not a bundle")
def test_the_output_is_the_input(ends: Ends, net: Path) -> None:
    ends("build", "net.onnx", "-o", ".")
    ends("build", "net.onnx", "-o", "net.onnx", "--force")


@row(35, "an output below a file, a cache that is a file", 8, "E0801 cannot write: …")
def test_an_output_below_a_file(ends: Ends, home: Path, net: Path) -> None:
    ends("build", "net.onnx", "-o", "net.onnx/out")
    ends(*BUILD, "--cache-dir", "net.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@row(35, "an output that may not be written", 8, "E0801 cannot write: Permission denied")
def test_a_read_only_output(ends: Ends, home: Path, net: Path) -> None:
    (home / "locked").mkdir(mode=0o555)
    ends("build", "net.onnx", "-o", "locked/out")


@row(36, "no room for a file of the cache", 8, "E0801 cannot write: …")
def test_no_room_in_the_cache(ends: Ends, home: Path, net: Path) -> None:
    """A limit on the size of files, as a quota has: the images of the comparison are larger."""
    limits = {"RLIMIT_FSIZE": 20_000}
    ends(*BUILD, "--cache-dir", "fresh", makes=("fresh",), limits=limits)
    assert not [*(home / "fresh").rglob(".*")]


@row(36, "no room for a file of the bundle", 8, "E0801 cannot write: File too large")
def test_no_room_for_the_bundle(ends: Ends, home: Path, invoke: Any, cache: Path) -> None:
    """Everything is in the cache already; the bundle that stands there stays as it was."""
    long = onnx.StringStringEntryProto(key="long", value="x" * 30_000)
    small_net(home / "net.onnx", lambda made: made.metadata_props.append(long))
    quick = ("--offline", "--bench-seconds", "0", "--cache-dir", cache)
    assert invoke(*BUILD, *quick).code == 0
    ends(*BUILD, "--force", limits={"RLIMIT_FSIZE": 20_000})


@row(39, "another locale, time zone, umask and time stamps", 0)
def test_other_surroundings(ends: Ends, home: Path, net: Path) -> None:
    odd = {"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONUTF8": "0", "PYTHONHASHSEED": "7"}
    os.utime(net, (2**31, 2**31))
    ends(*BUILD, "--cache-dir", "a", makes=("a", "out"), env=odd, fresh=True)
    request = ("build", "net.onnx", "-o", "other", "--cache-dir", "b")
    ends(*request, makes=("b", "other"), limits={"umask": 0o077})
    for name in ("manifest.json", "model.onnx", "reference.onnx"):
        assert (home / "out" / name).read_bytes() == (home / "other" / name).read_bytes()
    assert (home / "out/manifest.json").stat().st_mode & 0o777 == 0o644
    assert (home / "other/manifest.json").stat().st_mode & 0o777 == 0o600


@row(40, "a bundle for TensorRT where there is none", 4, "E04…")
def test_another_runtime(ends: Ends, bundle: Path) -> None:
    def edit(data: dict[str, Any]) -> None:
        data.update(target="tensorrt", runtime="tensorrt", provider="cuda:0")

    seal(bundle, edit)
    ends("verify", "tiny")


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


SPOILED: dict[str, Callable[[Path], object]] = {
    "bytes": lambda entry: spoil(entry / "exported.onnx"),
    "hashes": lambda entry: (entry / "entry.json").write_text("{}"),
    "depth": lambda entry: (entry / "entry.json").write_text("[" * 100_000),
    "gone": lambda entry: (entry / "exported.onnx").unlink(),
}


@pytest.mark.parametrize("how", SPOILED)
@row(
    42, "an entry of the cache that was changed, cut or is of another version", 0, "convexport run"
)
def test_a_spoiled_cache(ends: Ends, home: Path, net: Path, how: str) -> None:
    request = (*BUILD, "--cache-dir", "cache")
    ends(*request, makes=("cache", "out"))
    (entry,) = (home / "cache/stages").glob("export-*/")
    before = (home / "out/manifest.json").read_bytes()
    SPOILED[how](entry)
    ends(*request, "--force", makes=("cache", "out"))
    assert (home / "out/manifest.json").read_bytes() == before
    json.loads((entry / "entry.json").read_text())["files"]["exported.onnx"]


@row(42, "a cache that anybody may write to", 4, "E0480 anybody on this machine may write to …")
def test_a_world_writable_cache(ends: Ends, home: Path, net: Path) -> None:
    (home / "cache").mkdir()
    (home / "cache").chmod(0o777)
    assert "chmod o-w" in ends(*BUILD, "--cache-dir", "cache").err


@row(43, "more images than there is memory for", 4, "E0481 the images need … GB, the machine has …")
def test_more_than_the_memory(ends: Ends, net: Path) -> None:
    ends(*BUILD, "--parity-images", str(10**10))
