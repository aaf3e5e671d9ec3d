"""Mutated files through the real loaders: an error of ours, or nothing wrong with it.

`python -m tests.reliability.fuzz --minutes 30` tries more of them.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from convexport.calibration.checkpoint import Checkpoint
from convexport.calibration.histograms import range_of
from convexport.calibration.ranges_file import load_ranges, save_ranges
from convexport.exporter.cache import StageCache
from convexport.runtime.errors import InputError
from convexport.runtime.ort_session import OrtSession
from tests.reliability.faults.lab import write_net
from tests.reliability.fuzz.campaign import campaign
from tests.reliability.fuzz.child import in_a_child
from tests.reliability.fuzz.corpus import bundle_of
from tests.reliability.fuzz.loaders import LOADERS

# How many of each: some are read in a millisecond, of some a net is built.
FILES = {
    "image": 400,
    "safetensors": 160,
    "pth": 120,
    "ranges": 200,
    "entry": 200,
    "manifest": 40,
    "onnx": 60,
}
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_a_mutated_file_is_refused_in_our_words(kind: str, tmp_path: Path) -> None:
    wanted = FILES[kind]
    tally = campaign(
        kind, tmp_path, seed=7, batch=20, goes_on=lambda so_far: so_far.counts.total() < wanted
    )
    assert tally.counts.total() >= wanted
    assert not tally.findings, f"{tally}: {tally.findings[:3]}"


def allocate(path: Path, folder: Path) -> None:
    np.ones(1 << 30, np.float64)


def crash(path: Path, folder: Path) -> None:
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


def bug(path: Path, folder: Path) -> None:
    raise KeyError("preprocess")


def refuse(path: Path, folder: Path) -> None:
    raise InputError("E0302", "no JSON")


@needs_linux
@pytest.mark.parametrize(
    ("loader", "what"),
    [(allocate, "finding"), (crash, "crashed"), (bug, "finding"), (refuse, "refused")],
)
def test_each_way_to_fail_is_told_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: Callable[..., None], what: str
) -> None:
    monkeypatch.setitem(LOADERS, "x", loader)
    outcomes = in_a_child("x", [str(tmp_path / "first"), str(tmp_path / "second")], tmp_path)
    assert [each["what"] for each in outcomes] == [what] * (1 if what == "crashed" else 2)


# What the fuzzer found, each as small as it can be.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """A copy, to do with as one likes."""
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


@pytest.mark.parametrize(
    "header", [b"{'descr'", b"{'descr': '\x00'}", b"{'descr': 7, 'shape': 3}", b"{'\xb2'"]
)
def test_a_checkpoint_with_a_damaged_header_begins_anew(tmp_path: Path, header: bytes) -> None:
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    path = tmp_path / "begun"
    path.write_bytes(npz(counts=array, bins=array, low=array))
    assert Checkpoint(path).read() == ({}, 0)


@pytest.mark.parametrize(
    "entry",
    [{"facts": {}, "files": {"\x00": "0"}}, {"facts": [], "files": {}}, {"facts": {}, "files": 1}],
)
def test_a_cache_entry_that_says_nonsense_is_made_anew(tmp_path: Path, entry: Any) -> None:
    cache = StageCache(tmp_path)
    made = cache.stage("stage", {}, lambda out: {"made": "once"})
    (made.directory / "entry.json").write_text(json.dumps(entry))
    again = cache.stage("stage", {}, lambda out: {"made": "anew"})
    assert (again.facts, again.cached) == ({"made": "anew"}, False)


@pytest.mark.parametrize("change", ["dims", "bytes"])
def test_a_weight_that_is_no_array_is_refused(invoke: Any, home: Path, change: str) -> None:
    write_net(home / "net.onnx")
    model = onnx.load(home / "net.onnx")
    if change == "dims":
        model.graph.initializer[0].dims[0] = 5
    else:
        model.graph.initializer[0].raw_data += b"x"
    (home / "net.onnx").write_bytes(model.SerializeToString())
    assert invoke("inspect", "net.onnx").failed_with(3, "E0384")


def test_what_a_stranger_chose_fills_no_more_than_a_screen() -> None:
    error = InputError("E0305", "x" * 100_000, where="y" * 100_000, hint="z\n" * 50_000)
    assert len(str(error)) < 4200 and str(error).startswith("E0305 xxx")
    assert len(str(error).splitlines()) <= 42


def test_a_name_that_ends_with_zeros_keeps_them(tmp_path: Path) -> None:
    seen = {"a\0": range_of(np.ones(3, np.float32)), "a": range_of(np.zeros(2, np.float32))}
    save_ranges(tmp_path / "x.npz", seen)
    assert list(load_ranges(tmp_path / "x.npz")[0]) == ["a\0", "a"]


@pytest.mark.parametrize("field", ["parity", "layers", "notes", "calibration"])
def test_a_bundle_that_tells_nonsense_is_refused(bundle: Path, invoke: Any, field: str) -> None:
    data = json.loads((bundle / "manifest.json").read_text())
    for nonsense in (7, {"target": 7}, []):
        (bundle / "manifest.json").write_text(json.dumps({**data, field: nonsense}))
        for command in ("inspect", "diagnose"):
            done = invoke(command, bundle)
            assert done.code in (0, 3) and "Traceback" not in done.err, (field, nonsense)


def test_a_model_that_loads_and_does_not_run_is_refused(invoke: Any, home: Path) -> None:
    write_net(home / "net.onnx")
    model = onnx.load(home / "net.onnx")
    model.graph.node[0].attribute[0].ints[0] = 128
    (home / "net.onnx").write_bytes(model.SerializeToString())
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    with pytest.raises(InputError, match="E0303"):
        session = OrtSession(home / "net.onnx", optimize=False)
        session.run({"x": np.zeros((1, 1, 16, 16), np.float32)})
    done = invoke("build", "net.onnx", "--offline", "--bench-seconds", "0", "-o", "out")
    assert done.code == 3 and "Traceback" not in done.err, done.err
