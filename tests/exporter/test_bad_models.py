"""Model files and weights that nobody vouches for: refused, named for what they are, untouched."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file

from convexport.architectures.registry import create
from convexport.exporter.onnx_file import check
from convexport.runtime.errors import InputError, UnsupportedError

Refused = Callable[..., Any]
Quick = tuple[str, ...]
Make = Callable[..., onnx.ModelProto]


@pytest.fixture
def refused_onnx(refused: Refused, quick: Quick, home: Path) -> Refused:
    def check(code: int, error: str, content: bytes | onnx.ModelProto) -> Any:
        data = content if isinstance(content, bytes) else content.SerializeToString()
        (home / "net.onnx").write_bytes(data)
        return refused(code, error, "build", "net.onnx", *quick, "-o", "out")

    return check


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty file"),
        (b"\n\n<!DOCTYPE html><title>Log in</title>", "HTML page"),
        (b"<html>404</html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"Not Found", "net.onnx"),
        (b"\x00" * 4096, "net.onnx"),
        (random.Random(0).randbytes(65536), "cut or corrupt"),
    ],
    ids=["empty", "html", "html2", "lfs", "text", "zeros", "noise"],
)
def test_what_is_no_onnx_is_named(refused_onnx: Refused, content: bytes, what: str) -> None:
    done = refused_onnx(3, what, content)
    assert f"{len(content)} bytes, sha256" in done.err


def test_every_cut_is_refused(refused_onnx: Refused, small_onnx: Make) -> None:
    whole = small_onnx().SerializeToString()
    for length in range(1, len(whole), len(whole) // 8):
        refused_onnx(3, "E0384", whole[:length])


def test_mutations_raise_our_errors_alone(home: Path, small_onnx: Make) -> None:
    whole, noise = small_onnx().SerializeToString(), random.Random(1)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(noise.randint(1, 8)):
            data[noise.randrange(len(data))] = noise.randrange(256)
        (home / "net.onnx").write_bytes(data)
        with contextlib.suppress(InputError, UnsupportedError):
            check(home / "net.onnx")


@pytest.mark.parametrize("opset", [7, 12, 99])
def test_an_opset_out_of_range_is_unsupported(
    refused_onnx: Refused, small_onnx: Make, opset: int
) -> None:
    done = refused_onnx(6, "E0681", small_onnx(opset=opset))
    assert f"opset {opset}" in done.err and "13 to 23" in done.err


def test_an_ir_version_of_the_future_is_unsupported(
    refused_onnx: Refused, small_onnx: Make
) -> None:
    refused_onnx(6, "E0681", small_onnx(ir=99))


def test_a_custom_domain_is_unsupported(refused_onnx: Refused, small_onnx: Make) -> None:
    model = small_onnx()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Mish", "com.acme"
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    refused_onnx(6, "com.acme::Mish", model)


def test_an_unknown_operator_is_unsupported(refused_onnx: Refused, small_onnx: Make) -> None:
    model = small_onnx()
    model.graph.node[1].op_type = "Blorp"
    refused_onnx(6, "Blorp", model)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named_and_counted(
    refused_onnx: Refused, small_onnx: Make, value: float
) -> None:
    model = small_onnx()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0, 0, :2] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    refused_onnx(3, "w (2)", model)


def test_a_constant_that_is_not_finite_is_refused(refused_onnx: Refused, small_onnx: Make) -> None:
    model = small_onnx()
    bad = numpy_helper.from_array(np.full(5, np.nan, np.float32))
    model.graph.node[-1].output[0] = "z"
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=bad))
    model.graph.node.append(helper.make_node("Add", ["z", "k"], ["y"]))
    refused_onnx(5, "E0562", model)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "gone.bin", "link.bin"])
def test_external_data_stays_in_its_folder(
    refused: Refused, quick: Quick, home: Path, small_onnx: Make, location: str
) -> None:
    (home / "sub").mkdir()
    (home / "secret.bin").write_bytes(bytes(4096))
    (home / "sub/link.bin").symlink_to(home / "secret.bin")
    path = home / "sub/net.onnx"
    options = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save(small_onnx(), path, **options)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(e for e in tensor.external_data if e.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    refused(3, "E0384", "build", path, *quick, "-o", "out")


def test_external_data_that_is_too_short_is_refused(
    refused: Refused, quick: Quick, home: Path, small_onnx: Make
) -> None:
    path, data = home / "net.onnx", home / "w.bin"
    onnx.save(small_onnx(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    data.write_bytes(data.read_bytes()[:-8])
    refused(3, "E0384", "build", path, *quick, "-o", "out")


def test_external_data_is_part_of_what_was_built(
    invoke: Any, quick: Quick, home: Path, small_onnx: Make
) -> None:
    path, data = home / "net.onnx", home / "w.bin"
    onnx.save(small_onnx(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    request = ("build", path, *quick, "-o", "out")
    assert invoke(*request).code == 0
    data.write_bytes((np.frombuffer(data.read_bytes(), np.float32) * 2).tobytes())
    assert invoke(*request).failed_with(2, "built from other inputs")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("(float[N,1,16,16] x, float[N] z) => (float[N,1,16,16] y) { y = Relu(x) }", "2 inputs"),
        (
            "(float[N,1,16,16] x) => (float[N,1,16,16] y, float[N,1,16,16] z)"
            "{ y = Relu(x) z = Neg(x) }",
            "2 outputs",
        ),
        ("(float[N,16,16,1] x) => (float[N,16,16,1] y) { y = Relu(x) }", "N×C×H×W"),
        ("(float[N,1,H,W] x) => (float[N,1,H,W] y) { y = Relu(x) }", "fixed H, W"),
        ("(uint8[N,1,16,16] x) => (uint8[N,1,16,16] y) { y = Identity(x) }", "float32"),
        ("(float[N,16] x) => (float[N,16] y) { y = Relu(x) }", "N×C×H×W"),
    ],
    ids=["inputs", "outputs", "nhwc", "free", "uint8", "flat"],
)
def test_an_input_that_is_no_batch_of_images_is_refused(
    refused_onnx: Refused, text: str, what: str
) -> None:
    header = '<ir_version: 8, opset_import: ["": 17]> net '
    refused_onnx(3, what, onnx.parser.parse_model(header + text))


class Evil:
    """Unpickled, it would leave a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def lenet_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create("lenet5").state_dict()


def as_zip(path: Path) -> None:
    torch.save({"state_dict": Evil()}, path)


def as_legacy(path: Path) -> None:
    torch.save({"state_dict": Evil()}, path, _use_new_zipfile_serialization=False)


def as_plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil()))


@pytest.mark.parametrize("write", [as_zip, as_legacy, as_plain_pickle])
def test_code_in_a_checkpoint_is_named_and_never_run(
    refused: Refused, quick: Quick, home: Path, write: Callable[[Path], None]
) -> None:
    write(home / "w.pth")
    done = refused(3, "contains code", "build", "lenet5", "--weights", "w.pth", *quick, "-o", "o")
    assert "system" in done.err and not (home / "executed").exists()


def whole_module(path: Path) -> None:
    torch.save(create("lenet5"), path)


def other_net(path: Path) -> None:
    save_file(create("resnet20_cifar").state_dict(), path)


def other_classes(path: Path) -> None:
    save_file(create("lenet5", num_classes=7).state_dict(), path)


def nan(path: Path) -> None:
    state = lenet_state()
    state["c1.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, path)


def missing_key(path: Path) -> None:
    state = lenet_state()
    del state["f6.bias"]
    save_file(state, path)


def cut(path: Path) -> None:
    save_file(lenet_state(), path)
    path.write_bytes(path.read_bytes()[:-100])


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 25))


def escaping(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/../../data.pkl", b"x")


@pytest.mark.parametrize(
    ("name", "write", "what"),
    [
        ("w.pth", lambda path: path.write_bytes(b""), "empty"),
        ("w.safetensors", lambda path: path.write_bytes(b""), "empty"),
        ("w.pth", lambda path: path.write_text("<!doctype html>"), "HTML page"),
        ("w.pth", lambda path: path.mkdir(), "not a file"),
        ("w.pth", lambda path: None, "no such file"),
        ("w.pth", whole_module, "contains code or objects"),
        ("w.safetensors", other_net, "for another net"),
        ("w.safetensors", other_classes, "--classes 7"),
        ("w.safetensors", nan, "c1.weight (1)"),
        ("w.safetensors", missing_key, "f6.bias"),
        ("w.safetensors", cut, "E0323"),
        ("w.pth", bomb, "E0325"),
        ("w.pth", escaping, "E0325"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_weights_that_cannot_be_used_are_refused(
    refused: Refused, quick: Quick, home: Path, name: str, write: Any, what: str
) -> None:
    write(home / name)
    refused(3, what, "build", "lenet5", "--weights", name, *quick, "-o", "out")


def test_wrapped_weights_are_unwrapped_and_it_is_said(
    invoke: Any, quick: Quick, home: Path
) -> None:
    state = {f"module.{name}": value for name, value in lenet_state().items()}
    torch.save({"epoch": 3, "state_dict": state}, home / "w.pth")
    done = invoke("build", "lenet5", "--weights", "w.pth", *quick, "-o", "out", "--json")
    assert done.code == 0 and "state_dict" in done.err and "module." in done.err
    assert done.json()["manifest"]["weights"]["source"] == "w.pth"


def test_asking_for_pretrained_weights_and_not_getting_them_is_an_error(
    refused: Refused, quick: Quick
) -> None:
    refused(4, "E0420", "build", "resnet18", "--weights", "pretrained", *quick, "-o", "out")
    refused(4, "E0424", "build", "lenet5", "--weights", "pretrained", *quick, "-o", "out")
