"""Rows 21 to 28: weights, names and modules."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from convexport.architectures.registry import create
from tests.reliability.conftest import Ends
from tests.reliability.rows import row

Write = Callable[[Path], object]


class Evil:
    """Unpickled, it would leave a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create("lenet5").state_dict()


def build(path: str) -> tuple[str, ...]:
    return ("build", "lenet5", "--weights", path, "-o", "out")


PAGES = {"w.pth": b"<!doctype html>", "w.safetensors": b"<html>404</html>"}


@pytest.mark.parametrize("name", PAGES)
@row(3, "an HTML page as .pth or .safetensors", 3, "E0322 … is an HTML page, not a checkpoint")
def test_a_page_as_weights(ends: Ends, home: Path, name: str) -> None:
    (home / name).write_bytes(PAGES[name])
    ends(*build(name))


EVIL: dict[str, Write] = {
    "zip": lambda path: torch.save({"state_dict": Evil()}, path),
    "legacy": lambda path: torch.save(Evil(), path, _use_new_zipfile_serialization=False),
    "plain": lambda path: path.write_bytes(pickle.dumps(Evil())),
}


@pytest.mark.parametrize("how", EVIL)
@row(21, "a pickle that runs a program", 3, "E0324 w.pth contains code or objects, not only …")
def test_code_in_weights(ends: Ends, home: Path, how: str) -> None:
    EVIL[how](home / "w.pth")
    done = ends(*build("w.pth"))
    assert "system" in done.err and not (home / "executed").exists()


@pytest.mark.parametrize("value", [create("lenet5"), {"state_dict": state(), "args": Namespace()}])
@row(22, "a whole module, or a Namespace beside the weights", 3, "E0324 w.pth contains code …")
def test_objects_in_weights(ends: Ends, home: Path, value: Any) -> None:
    torch.save(value, home / "w.pth")
    assert "save_file" in ends(*build("w.pth")).err


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "ema"])
@row(23, "`module.` before names, weights in `state_dict`, `model`, `ema`", 0, "stripped 'module.'")
def test_wrapped_weights(ends: Ends, home: Path, wrapper: str) -> None:
    weights = {f"module.{name}": value for name, value in state().items()}
    torch.save({"epoch": 3, wrapper: weights}, home / "w.pth")
    done = ends(*build("w.pth"), makes=("out",))
    assert f"took the weights from '{wrapper}'" in " ".join(done.err.split())


@row(
    23,
    "a name missing and one too many",
    3,
    "E0328 w.safetensors is for another net: 1 tensors missing, 1 unknown",
)
def test_other_names(ends: Ends, home: Path) -> None:
    weights = state()
    weights["extra"] = weights.pop("f6.bias")
    save_file(weights, home / "w.safetensors")
    assert "f6.bias" in ends(*build("w.safetensors")).err


def zipped(path: Path, name: str, size: int, method: int) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, bytes(size))


BOMBS: dict[str, Write] = {
    "inflated": lambda path: zipped(path, "a/data.pkl", 1 << 25, zipfile.ZIP_DEFLATED),
    "escaping": lambda path: zipped(path, "a/../../data.pkl", 1, zipfile.ZIP_STORED),
    "absolute": lambda path: zipped(path, "/tmp/data.pkl", 1, zipfile.ZIP_STORED),
}


@pytest.mark.parametrize("how", BOMBS)
@row(24, "a zip bomb as .pth, entries that leave it", 3, "E0325 …")
def test_bombs(ends: Ends, home: Path, how: str) -> None:
    BOMBS[how](home / "w.pth")
    ends(*build("w.pth"))


@row(
    24,
    "a zip within a zip as .pth",
    3,
    "E0322 w.pth is a zip archive that torch.save did not write, …",
)
def test_a_zip_in_a_zip(ends: Ends, home: Path) -> None:
    zipped(home / "inner", "a/data.pkl", 9, zipfile.ZIP_STORED)
    with zipfile.ZipFile(home / "w.pth", "w") as archive:
        archive.write(home / "inner", "inner.zip")
    ends(*build("w.pth"))


def header(path: Path, value: Any, size: int) -> None:
    text = json.dumps(value).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))


LIE = {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}


def cut(path: Path) -> None:
    save_file(state(), path)
    path.write_bytes(path.read_bytes()[:-100])


CORRUPT: dict[str, Write] = {
    "cut": cut,
    "huge header": lambda path: path.write_bytes(b"\xff" * 6 + b"\0\0{" + bytes(99)),
    "shape": lambda path: header(path, LIE, 4),
    "empty header": lambda path: path.write_bytes(bytes(8) + b"{}"),
}


@pytest.mark.parametrize("how", CORRUPT)
@row(
    25,
    "a cut safetensors file, a header or shape that lies",
    3,
    "E0323 w.safetensors is cut or corrupt",
)
def test_broken_safetensors(ends: Ends, home: Path, how: str) -> None:
    CORRUPT[how](home / "w.safetensors")
    ends(*build("w.safetensors"))


@row(25, "weights in bfloat16", 0)
def test_bfloat16(ends: Ends, home: Path) -> None:
    save_file({name: value.bfloat16() for name, value in state().items()}, home / "w.safetensors")
    ends(*build("w.safetensors"), makes=("out",))


@row(25, "weights in FP8", 3, "E0331 w.safetensors holds … tensors whose dtype is not one …")
def test_fp8(ends: Ends, home: Path) -> None:
    weights = {name: value.to(torch.float8_e4m3fn) for name, value in state().items()}
    save_file(weights, home / "w.safetensors")
    ends(*build("w.safetensors"))


@row(25, "the index of a sharded checkpoint", 3, "E0322 … is a JSON file, not a checkpoint")
def test_an_index_of_shards(ends: Ends, home: Path) -> None:
    name = "model.safetensors.index.json"
    (home / name).write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    ends(*build(name))


@pytest.mark.parametrize(
    ("name", "meant"), [("resnet5O", "resnet50"), ("mobilnet_v1", "mobilenet")]
)
@row(26, "a misspelt net", 2, "E022…")
def test_a_misspelt_net(ends: Ends, name: str, meant: str) -> None:
    assert meant in ends("build", name).err


@row(
    27, "pretrained weights, offline and not in the cache", 4, "E0420 … is not in the cache, and …"
)
def test_offline(ends: Ends) -> None:
    ends("build", "resnet18", "--weights", "pretrained")


MODULE = """
import torch
from torch import nn
class Net(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Flatten(), nn.Linear(64, 5), Odd())
        self.train()
class Odd(nn.Module):
    def forward(self, x):
        return {answer}
"""


@row(
    28, "a forward pass with random numbers in it", 3, "E0392 the module gives different answers …"
)
def test_random_answers(ends: Ends, home: Path) -> None:
    (home / "my.py").write_text(MODULE.format(answer="x + torch.rand(5)"))
    ends("build", "my:Net", "--input-shape", "1x8x8", makes=("__pycache__",))


@row(28, "a module left in training mode", 0)
def test_training_mode(ends: Ends, home: Path) -> None:
    (home / "my.py").write_text(
        MODULE.format(answer="nn.functional.dropout(x, 0.5, self.training)")
    )
    request = ("build", "my:Net", "--input-shape", "1x8x8", "-o", "out")
    ends(*request, makes=("out", "__pycache__"))
