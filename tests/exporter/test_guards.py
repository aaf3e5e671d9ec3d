"""What a user is told about images and nets that calibration cannot do much with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from convexport.calibration.digits import digits
from convexport.calibration.images import overlap
from convexport.exporter.data import choose_images
from convexport.exporter.options import BuildOptions
from convexport.exporter.sources import find_source

Refused = Callable[..., Any]
Quick = tuple[str, ...]

NET = ("build", "net.onnx", "--int8", "-o", "out")
DEAF = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        x = nn.functional.dropout(self.conv(x).relu(), training=True)
        return self.fc(x.mean((2, 3)))
"""


@pytest.fixture(autouse=True)
def net(home: Path, small_onnx: Any) -> onnx.ModelProto:
    """A net of 5 classes for grey images of 16x16, in the current directory."""
    model: onnx.ModelProto = small_onnx()
    onnx.save(model, home / "net.onnx")
    return model


def write_images(folder: Path, count: int, *, low: int = 0, high: int = 255, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for index in range(count):
        pixels = random.integers(low, high, (20, 20), endpoint=True, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:04d}.png")


def calibration(home: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((home / "out/calibration.json").read_bytes())
    return facts


def said(done: Any) -> str:
    """What was written to the terminal, on one line."""
    return " ".join(done.err.split())


# Rows 29, 30: too few, one class, and that all of it is kept beside the fingerprint.


def test_all_doubts_are_in_the_bundle_beside_the_fingerprint(
    invoke: Any, quick: Quick, home: Path
) -> None:
    write_images(home / "images/cats", 20)
    write_images(home / "images/dogs", 1, seed=1)
    (home / "images/cats/copy.png").write_bytes((home / "images/cats/0000.png").read_bytes())
    done = invoke(*NET, "--calib", "images", "--calib-images", "21", *quick)
    assert done.code == 0, done.err
    facts = calibration(home)
    one_class = "all 21 images are of one of 2 classes, 'cats'"
    assert one_class in facts["notes"]
    assert [doubt.partition(":")[0] for doubt in facts["doubts"]] == [
        "only 20 different images, fewer than 100",
        "1 of 21 images repeat another one",
    ]
    for text in (one_class, *facts["doubts"]):
        assert text in said(done)
    files = sorted((home / "images/cats").iterdir())
    lines = "\n".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    assert facts["fingerprint"] == hashlib.sha256(lines.encode()).hexdigest()
    manifest = json.loads((home / "out/manifest.json").read_bytes())
    assert manifest["calibration"]["doubts"] == facts["doubts"]
    assert one_class in manifest["notes"]


def test_two_classes_are_not_one(invoke: Any, quick: Quick, home: Path) -> None:
    for seed, name in enumerate(("cats", "dogs")):
        write_images(home / "images" / name, 3, seed=seed)
    assert invoke(*NET, "--calib", "images", *quick).code == 0
    assert not any("of one of" in note for note in calibration(home)["notes"])


def test_the_stand_in_is_in_the_bundle(invoke: Any, quick: Quick, home: Path) -> None:
    assert invoke(*NET, *quick).code == 0
    facts = calibration(home)
    assert facts["stand_in"] is True
    assert facts["notes"][0].startswith("calibration images are a stand-in")


def test_some_images_of_one_colour_are_said(invoke: Any, quick: Quick, home: Path) -> None:
    write_images(home / "images", 8)
    for index in range(3):
        Image.new("L", (20, 20), 0).save(home / f"images/black-{index}.png")
    assert "3 of 11 images are of one colour" in said(invoke(*NET, "--calib", "images", *quick))
    assert "3 of 11 images are of one colour" in calibration(home)["doubts"]


def test_images_of_the_test_set_are_in_the_bundle(invoke: Any, quick: Quick, home: Path) -> None:
    (home / "images").mkdir()
    for index, item in enumerate(digits("test").items[:5]):
        image = item.content()
        assert isinstance(image, Image.Image)
        image.save(home / f"images/{index}.png")
    arguments = ("build", "lenet5", "--weights", "digits", "--int8", "-o", "out")
    done = invoke(*arguments, "--calib", "images", *quick)
    assert done.code in (0, 5), "so few images may fail INT8's gate, and nothing else"
    assert "5 calibration images are also evaluation images" in said(done)
    if done.code == 0:
        assert "5 calibration images are also evaluation images" in calibration(home)["notes"]


def test_no_copy_of_a_calibration_image_is_compared_on(home: Path) -> None:
    write_images(home / "images", 60)
    for path in list((home / "images").iterdir()):
        (home / "images" / f"z-{path.name}").write_bytes(path.read_bytes())
    options = BuildOptions(
        precision="int8", calib=home / "images", calib_images=60, parity_images=20
    )
    images = choose_images(find_source("net.onnx", options, lambda text: None), options)
    assert images.calibration is not None and len(images.calibration) == 60
    assert (images.parity.kind, len(images.parity)) == ("folder", 20)
    assert overlap(images.parity, images.calibration) == ()


# Row 30: the normalization.


@pytest.mark.parametrize(
    ("low", "high", "mean", "std", "text"),
    [
        (0, 3, 0.5, 0.5, "brightest pixel is 3, expected 16 to 255"),
        (120, 126, 0.5, 0.5, "standard deviation of the pixels is 2.05, expected 5.7 or more"),
        (0, 255, 123.0, 58.0, "mean is 123, expected 0 to 1"),
        (0, 255, 0.5, 58.0, "std is 58, expected 0.00391 to 1"),
        (0, 255, 0.5, 0.5, ""),
    ],
)
def test_an_input_that_does_not_fit_its_normalization_is_said(
    invoke: Any, quick: Quick, home: Path, low: int, high: int, mean: float, std: float, text: str
) -> None:
    write_images(home / "images", 6, low=low, high=high)
    spec = {"crop": [16, 16], "resize": [20], "interpolation": "bilinear", "channels": "L"}
    spec = {**spec, "mean": [mean], "std": [std], "exif": "apply"}
    (home / "preprocess.json").write_text(json.dumps(spec))
    options = ("--calib", "images", "--preprocess", "preprocess.json")
    done = invoke(*NET, *options, *quick)
    assert done.code == 0, done.err
    facts = calibration(home)
    doubts = [doubt for doubt in facts["doubts"] if "expected" in doubt]
    assert len(doubts) == bool(text) and all(text in doubt for doubt in doubts)
    assert text in said(done)
    central = [np.asarray(Image.open(path))[2:18, 2:18] for path in (home / "images").iterdir()]
    want = (np.stack(central) / 255 - mean) / std
    seen = {name: facts["input"][name][0] for name in ("minimum", "maximum", "mean", "std")}
    assert seen == pytest.approx(
        {"minimum": want.min(), "maximum": want.max(), "mean": want.mean(), "std": want.std()},
        rel=1e-4,
    )


# Row 10: weights that carry nothing.


def test_zero_and_denormal_weights_are_said(
    invoke: Any, quick: Quick, home: Path, net: onnx.ModelProto
) -> None:
    kernel = net.graph.initializer[0]
    array = numpy_helper.to_array(kernel).copy()
    array[1], array[2, 0, 0, 0] = 0, 1e-40
    kernel.CopyFrom(numpy_helper.from_array(array, kernel.name))
    onnx.save(net, home / "net.onnx")
    write_images(home / "images", 6)
    done = invoke(*NET, "--calib", "images", *quick)
    assert done.code == 0, done.err
    assert "1 of 9 output channels have no weight but 0, most in" in said(done)
    assert "1 of 9 output channels have denormal weights" in said(done)
    weights = calibration(home)["weights"]
    assert weights["channels"] == 9
    assert list(weights["layers"].values()) == [{"channels": 4, "zero": 1, "denormal": 1}]


# Row 28: what answers differently each time is no reference.


def test_dropout_that_stays_on_is_refused(refused: Refused, quick: Quick, home: Path) -> None:
    (home / "deaf_net.py").write_text(DEAF)
    shape = ("--input-shape", "1x16x16")
    done = refused(3, "E0392", "build", "deaf_net:Net", "--int8", "-o", "out", *shape, *quick)
    assert "different answers" in said(done)


def test_a_file_with_dropout_that_stays_on_does_not_pass(
    refused: Refused, quick: Quick, home: Path, net: onnx.ModelProto
) -> None:
    pool = next(node for node in net.graph.node if node.op_type == "GlobalAveragePool")
    net.graph.initializer.append(helper.make_tensor("ratio", 1, [], [0.5]))
    net.graph.initializer.append(helper.make_tensor("training", 9, [], [True]))
    dropout = helper.make_node("Dropout", [pool.input[0], "ratio", "training"], ["dropped"])
    net.graph.node.insert(2, dropout)
    pool.input[0] = "dropped"
    onnx.save(net, home / "net.onnx")
    refused(5, "E0561", *NET, *quick)


# Row 31: every kind of image, through the command line.


def test_images_of_every_kind_calibrate_and_are_counted(
    invoke: Any, quick: Quick, home: Path
) -> None:
    folder, random = home / "images", np.random.default_rng(0)
    write_images(folder, 3)
    colours = Image.fromarray(random.integers(0, 255, (24, 30, 3), dtype=np.uint8))
    for mode in ("CMYK", "L", "LA", "RGBA", "P", "1"):
        colours.convert(mode).save(folder / f"{mode}.tiff")
    wide = random.integers(0, 65535, (20, 20), dtype=np.uint16)
    Image.fromarray(wide).save(folder / "wide.png")
    Image.new("L", (1, 1), 9).save(folder / "point.png")
    colours.save(folder / "cartoon.gif", save_all=True, append_images=[colours.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    colours.save(folder / "turned.jpg", exif=exif)
    colours.save(folder / "really-a-png.jpg", format="PNG")
    done = invoke(*NET, "--calib", folder, *quick)
    assert done.code == 0, done.err
    facts = calibration(home)
    assert (facts["images"], facts["skipped"]) == (14, [])
    notes = facts["image_notes"]
    assert notes["16-bit scaled to 8 bits"] == notes["first frame of 2"] == 1
    assert notes["turned as EXIF orientation 6 says"] == notes["constant image"] == 1
    assert notes["alpha channel dropped"] == 2


def test_pixels_without_an_agreed_range_are_bad_images(
    refused: Refused, quick: Quick, home: Path
) -> None:
    write_images(home / "images", 3)
    Image.fromarray(np.ones((8, 8), np.float32)).save(home / "images/float.tiff")
    done = refused(3, "E0342", *NET, "--calib", "images", *quick)
    assert "float.tiff" in done.err


# Row 32, 34: names.


def test_long_and_odd_names_are_images_like_others(invoke: Any, quick: Quick, home: Path) -> None:
    folder = home / "images" / ("d" * 200) / ("e" * 200)
    for seed, name in enumerate(("a b", "ü\n", "-n", "\x1b[31m{{7*7}}")):
        write_images(folder / name, 2, seed=seed)
        (folder / name / "0000.png").rename(folder / name / f"{'f' * 251}.png")
    done = invoke(*NET, "--calib", folder, "--calib-images", "2", *quick)
    assert done.code == 0, done.err
    assert "\x1b" not in done.err + done.out
    assert calibration(home)["images"] == 2


# Row 33: labels.


def labelled(home: Path, shift: int) -> Path:
    """Digits in folders that are named for the digit, or for another one."""
    for item in digits("test").sample(80).items:
        assert item.label is not None
        image = item.content()
        assert isinstance(image, Image.Image)
        path = home / f"data/{(item.label + shift) % 10}/{item.name.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return home / "data"


@pytest.mark.parametrize("shift", [0, 3])
def test_permuted_labels_are_said(invoke: Any, int8_bundle: Path, home: Path, shift: int) -> None:
    data = labelled(home, shift)
    text = " ".join(invoke("verify", int8_bundle, "--data", data).out.split())
    facts = invoke("verify", int8_bundle, "--data", data, "--json").json()
    for where in (text, facts["accuracy"]["hint"]):
        assert ("labels look permuted" in where) == bool(shift)
    right = facts["accuracy"]["reference"]
    assert (right["k"] > 0.95 * right["n"]) == (not shift)


def test_a_missing_class_is_mapped_by_name_and_a_foreign_one_refused(
    invoke: Any, refused: Refused, int8_bundle: Path, home: Path
) -> None:
    data = labelled(home, 0)
    for path in (data / "0").iterdir():
        path.unlink()
    (data / "0").rmdir()
    facts = invoke("verify", int8_bundle, "--data", data, "--json").json()["accuracy"]
    assert facts["reference"]["k"] > 0.95 * facts["reference"]["n"]
    (data / "1").rename(data / "one")
    done = refused(3, "E0368", "verify", int8_bundle, "--data", data)
    assert "one" in done.err
