"""Nets of the user's own: a factory of modules, an .onnx file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import convexport

Refused = Callable[..., Any]
Quick = tuple[str, ...]

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc, self.scale = nn.Conv2d(1, 4, 3), nn.Linear(4, 5), scale

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3))) * self.scale

class Dictionary(Net):
    def forward(self, x):
        return {"out": super().forward(x)}

class Maps(Net):
    def forward(self, x):
        return self.conv(x)

class Half(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("unused", torch.zeros(2, dtype=torch.bfloat16))

class Undefined(Net):
    def forward(self, x):
        return super().forward(x) * float("nan")

class Mood(Net):
    def forward(self, x):
        return super().forward(x) + torch.rand(())

class Dull(Net):
    def forward(self, x):
        return super().forward(x) * 0 + 1

class Training(Net):
    def forward(self, x):
        assert not self.training
        return super().forward(x)

def from_file():
    with open("scale.txt") as file:
        return Net(float(file.read()))

def raises():
    raise ValueError("out of cheese")

def leaves():
    raise SystemExit(3)

def text():
    return "no module"
"""
SHAPE = ("--input-shape", "1x16x16")


@pytest.fixture
def own(home: Path, request: pytest.FixtureRequest) -> str:
    """The name of a module in the current directory that no other test has imported."""
    name = "own_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    (home / f"{name}.py").write_text(MODULE)
    return name


def net(folder: Path, name: str) -> nn.Module:
    scope: dict[str, Any] = {}
    exec((folder / f"{name}.py").read_text(), scope)
    module = scope["Net"]()
    assert isinstance(module, nn.Module)
    return module.eval()


def outputs(bundle: Path, batch: np.ndarray) -> np.ndarray:
    return np.asarray(convexport.load(bundle)(batch))


def run_reference(bundle: Path, batch: np.ndarray) -> np.ndarray:
    """The FP32 graph in the bundle, on ONNX Runtime called by the test itself."""
    session = onnxruntime.InferenceSession(
        str(bundle / "reference.onnx"), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])


def test_a_factory_in_the_current_directory(
    invoke: Any, quick: Quick, home: Path, own: str
) -> None:
    done = invoke("build", f"{own}:Net", *SHAPE, *quick, "-o", "out", "--int8")
    assert done.code == 0, done.err
    assert "preprocess assumed" in done.err
    batch = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        want = net(home, own)(batch).numpy()
    np.testing.assert_allclose(
        run_reference(home / "out", batch.numpy()), want, rtol=1e-4, atol=1e-5
    )


def test_a_module_is_built_in_eval_mode(invoke: Any, quick: Quick, home: Path, own: str) -> None:
    assert invoke("build", f"{own}:Training", *SHAPE, *quick, "-o", "out").code == 0


def test_the_module_is_looked_up_by_the_real_command(command: Any, quick: Quick, own: str) -> None:
    done = command("build", f"{own}:raises", *SHAPE, *quick, "-o", "out")
    assert done.failed_with(3, "ValueError: out of cheese")


@pytest.mark.parametrize(
    ("factory", "code", "error"),
    [
        ("none_such", 3, "E0387"),
        ("raises", 3, "out of cheese"),
        ("text", 3, "gives a str"),
        ("Dictionary", 3, "E0393"),
        ("Maps", 3, "E0393"),
        ("Undefined", 5, "E0562"),
        ("Dull", 5, "E0563"),
        ("leaves", 3, "E0387"),
        ("Mood", 3, "E0392"),
    ],
)
def test_a_factory_that_gives_no_net_is_refused(
    refused: Refused, quick: Quick, own: str, factory: str, code: int, error: str
) -> None:
    refused(code, error, "build", f"{own}:{factory}", *SHAPE, *quick, "-o", "out")


def test_weights_of_any_dtype_have_an_identity(invoke: Any, quick: Quick, own: str) -> None:
    done = invoke("build", f"{own}:Half", *SHAPE, *quick, "-o", "out")
    assert done.code == 0, done.err


def test_a_module_that_is_not_there_is_refused(refused: Refused, quick: Quick) -> None:
    for name in ("none.such:Net", ":Net", "json:"):
        refused(3, "E0387", "build", name, *SHAPE, *quick, "-o", "out")


def test_the_input_shape_is_needed_and_must_fit(refused: Refused, quick: Quick, own: str) -> None:
    refused(2, "--input-shape 3x224x224", "build", f"{own}:Net", *quick, "-o", "out")
    wrong = ("--input-shape", "3x16x16")
    refused(3, "3x16x16", "build", f"{own}:Net", *wrong, *quick, "-o", "out")


@pytest.mark.parametrize("option", [("--weights", "random"), ("--classes", "7")])
def test_options_of_the_zoo_are_refused(
    refused: Refused, quick: Quick, own: str, option: tuple[str, str]
) -> None:
    refused(2, option[0], "build", f"{own}:Net", *SHAPE, *option, *quick, "-o", "out")


def test_what_does_not_show_in_a_module_is_part_of_it(
    invoke: Any, quick: Quick, home: Path, own: str
) -> None:
    """Its structure, code and weights are the same; only a number differs that it computes with."""
    batch = np.random.default_rng(0).standard_normal((2, 1, 16, 16), dtype=np.float32)
    for scale in ("1.0", "2.0"):
        (home / "scale.txt").write_text(scale)
        done = invoke("build", f"{own}:from_file", *SHAPE, *quick, "-o", f"out{scale}")
        assert done.code == 0, done.err
    np.testing.assert_allclose(
        outputs(home / "out2.0", batch), 2 * outputs(home / "out1.0", batch), rtol=1e-4
    )


@pytest.mark.parametrize("batch", ["N", "1", "3", "8"])
def test_an_onnx_file_keeps_its_batch(
    invoke: Any, quick: Quick, home: Path, small_onnx: Any, batch: str
) -> None:
    model = small_onnx(batch=batch)
    (home / "net.onnx").write_bytes(model.SerializeToString())
    done = invoke("build", "net.onnx", *quick, "-o", "out", "--int8", "--json")
    assert done.code == 0, done.err
    shape = done.json()["manifest"]["input"]["shape"]
    assert shape == [batch if batch == "N" else int(batch), 1, 16, 16]
    images = np.random.default_rng(0).standard_normal(
        (int(batch) if batch.isdigit() else 2, 1, 16, 16), dtype=np.float32
    )
    want = onnx.reference.ReferenceEvaluator(model).run(None, {"x": images})[0]
    np.testing.assert_allclose(run_reference(home / "out", images), want, rtol=1e-4, atol=1e-5)
    assert outputs(home / "out", images).shape == want.shape
    if batch == "1":
        from PIL import Image

        Image.effect_noise((20, 20), 50).save(home / "image.png")
        assert invoke("run", "out", "image.png").code == 0


def test_our_own_reference_can_be_built_again(
    invoke: Any, quick: Quick, home: Path, small_onnx: Any
) -> None:
    (home / "net.onnx").write_bytes(small_onnx().SerializeToString())
    assert invoke("build", "net.onnx", *quick, "-o", "out").code == 0
    done = invoke("build", "out/reference.onnx", *quick, "-o", "again")
    assert done.code == 0, done.err
    keys = [p.key for p in onnx.load(home / "again/model.onnx").metadata_props]
    assert len(set(keys)) == len(keys)


def test_an_input_shape_that_is_not_the_files_is_refused(
    refused: Refused, quick: Quick, home: Path, small_onnx: Any
) -> None:
    (home / "net.onnx").write_bytes(small_onnx().SerializeToString())
    refused(2, "E0282", "build", "net.onnx", "--input-shape", "1x8x8", *quick, "-o", "out")


@pytest.mark.parametrize("content", [b"PK\x03\x04", None])
def test_an_exported_program_is_not_even_opened(
    refused: Refused, quick: Quick, home: Path, content: bytes | None
) -> None:
    """torch.export.load falls back to unpickling, which runs what it finds."""
    if content is not None:
        (home / "net.pt2").write_bytes(content)
    done = refused(6, "E0683", "build", "net.pt2", *SHAPE, *quick, "-o", "out")
    assert "module:factory" in done.err
