"""A child reads a stranger's model within limits, and its end is an error about the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper

from convexport.exporter import onnx_child
from convexport.exporter.onnx_limits import require_confined
from convexport.exporter.stages import save
from convexport.runtime.errors import InputError, UnsupportedError

# Stands in for onnx in the child, which finds it first.
DOUBLES = {
    "import os, signal\nload = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV)": "SIGSEGV",
    "import time\nload = lambda *_, **__: time.sleep(600)": "longer than 3 s",
    "load = lambda *_, **__: bytes(6 << 30)": "MemoryError",
    "load = lambda *_, **__: print('noise') or exit(3)": "exit code 3",
    "import os\nload = lambda *_, **__: os._exit(0)": "without an answer",
}


@pytest.mark.parametrize(("double", "why"), DOUBLES.items(), ids=DOUBLES.values())
def test_how_a_child_ends_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, double: str, why: str
) -> None:
    (tmp_path / "onnx.py").write_text(double)
    (tmp_path / "net.onnx").write_bytes(b"x")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if "sleep" in double:  # the others may be slow to start, and must end by themselves
        monkeypatch.setattr(onnx_child, "TIMEOUT_S", 3)
    with pytest.raises(InputError) as error:
        onnx_child.read_in_a_child(tmp_path / "net.onnx", run=False)
    assert error.value.code == "E0394" and why in error.value.why


def test_a_sound_model_passes_also_below_a_limit_of_the_systems_own(
    tmp_path: Path, small_onnx: Callable[..., Any]
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(small_onnx().SerializeToString())
    onnx_child.read_in_a_child(path, run=True)
    code = (
        "import pathlib, resource, sys\n"
        "from convexport.exporter.onnx_child import read_in_a_child\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({3 << 30},) * 2)\n"
        "read_in_a_child(pathlib.Path(sys.argv[1]), run=True)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_the_memory_grows_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x")
    (tmp_path / "net.data").write_bytes(bytes(999))
    monkeypatch.setattr("os.sysconf", lambda name: 1 << 20)  # as many pages of as many bytes
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)  # of which nothing is on a disk
    (tmp_path / "link").symlink_to("net.data")
    assert onnx_child._memory_for(path) == (4 << 30) + 8 * 1000
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    assert onnx_child._memory_for(path) == 4 << 30


@pytest.mark.parametrize("where", ["a constant", "a body", "a function", "sparse"])
def test_external_data_is_found_wherever_it_hides(tmp_path: Path, where: str) -> None:
    outside = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../secret")
    constant = helper.make_node("Constant", [], ["c"], value=outside)
    body = helper.make_graph([constant], "b", [], [])
    model = helper.make_model(helper.make_graph([], "g", [], []))
    if where == "a constant":
        model.graph.node.append(constant)
    elif where == "a body":
        branch = helper.make_node("If", ["x"], ["c"], then_branch=body, else_branch=body)
        model.graph.node.append(branch)
    elif where == "a function":
        opsets = [helper.make_opsetid("", 17)]
        model.functions.append(helper.make_function("d", "f", [], ["c"], [constant], opsets))
    else:
        model.graph.sparse_initializer.add(values=outside)
    with pytest.raises(InputError, match=r"\.\./secret"):
        require_confined(tmp_path / "net.onnx", model)


def test_a_net_beyond_protobuf_is_refused(tmp_path: Path) -> None:
    """The error is what protobuf 7.36 raised for three tensors of 1 GiB, which cost 4 GB here."""

    class Huge:
        def SerializeToString(self, **_: Any) -> bytes:  # noqa: N802
            raise EncodeError("Failed to serialize proto")

    with pytest.raises(UnsupportedError, match="E0692"):
        save(Huge(), tmp_path / "net.onnx")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
