"""Good files of each format, made by code; what is mutated."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from onnx import numpy_helper, parser
from PIL import Image
from safetensors.torch import save

from convexport.architectures.registry import create
from convexport.calibration.histograms import Channels, TensorRange
from convexport.calibration.ranges_file import save_ranges
from convexport.exporter.cache import StageCache
from convexport.exporter.options import BuildOptions
from convexport.exporter.pipeline import build
from tests.reliability.faults.lab import write_images, write_net

# Some fields are only read of a net that takes three channels, adds, and ends in a softmax.
_RESIDUAL = """
    <ir_version: 8, opset_import: ["": 17]>
    net (float[N, 3, 16, 16] x) => (float[N, 5] y) {
        c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [1, 1]> (x, w)
        n = BatchNormalization (c, s, s, s, s)
        m = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (n)
        a = Add (n, m)
        r = Relu (a)
        p = AveragePool<kernel_shape = [16, 16]> (r)
        f = Flatten<axis = 1> (p)
        g = Gemm<transB = 1> (f, v, b)
        y = Softmax<axis = 1> (g)
    }"""
IMAGES = ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000", "AVIF")


def onnx_files(folder: Path) -> list[bytes]:
    """Two nets, and the first one in INT8."""
    model = parser.parse_model(_RESIDUAL)
    random = np.random.default_rng(2)
    for name, shape in (("w", (4, 3, 3, 3)), ("s", (4,)), ("v", (5, 4)), ("b", (5,))):
        array = np.abs(random.standard_normal(shape, dtype=np.float32))
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    plain, bundle = folder / "net.onnx", bundle_of(folder)
    return [plain.read_bytes(), model.SerializeToString(), (bundle / "model.onnx").read_bytes()]


def bundle_of(folder: Path) -> Path:
    """An INT8 bundle of the tiny net, built once in that folder."""
    bundle = folder / "bundle"
    if not bundle.exists():
        write_net(folder / "net.onnx")
        write_images(folder / "images")
        options = BuildOptions(
            precision="int8",
            calib=folder / "images",
            calib_images=8,
            parity_images=2,
            bench_seconds=0,
            offline=True,
            cache_dir=folder / "cache",
            output=bundle,
        )
        build(str(folder / "net.onnx"), options)
    return bundle


def checkpoints(folder: Path) -> list[bytes]:
    """A state dict as torch saves it: plainly, wrapped, and in the old format."""
    state, files = _state(), []
    for value, options in (
        (state, {}),
        ({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, {}),
        (state, {"_use_new_zipfile_serialization": False}),
    ):
        file = io.BytesIO()
        torch.save(value, file, **options)
        files.append(file.getvalue())
    return files


def safetensors(folder: Path) -> list[bytes]:
    """The same as safetensors, and with half as many bits."""
    state = _state()
    return [save(state), save({name: value.half() for name, value in state.items()})]


def images(folder: Path) -> list[bytes]:
    """One of each format that is written here, and some with what is rarely in them."""
    pixels = np.random.default_rng(5).integers(0, 256, (16, 20, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.init()
    here = [kind for kind in IMAGES if kind in Image.SAVE]
    files = [_encoded(Image.fromarray(pixels[..., :3]), kind) for kind in here]
    files.append(_encoded(Image.fromarray(pixels[..., :3]), "JPEG", exif=exif, progressive=True))
    files.append(_encoded(Image.fromarray(pixels), "PNG"))
    files.append(_encoded(Image.fromarray(pixels[..., :3]).convert("P"), "PNG", transparency=3))
    files.append(_encoded(Image.fromarray(pixels[..., :3]).convert("CMYK"), "JPEG"))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        files.append(_encoded(Image.fromarray(pixels[..., :3]), "TIFF", compression=compression))
    return files


def manifests(folder: Path) -> list[bytes]:
    """Of a bundle in INT8."""
    return [(bundle_of(folder) / "manifest.json").read_bytes()]


def ranges(folder: Path) -> list[bytes]:
    """What an interrupted calibration goes on from."""
    channels = Channels(np.zeros(3, "f4"), np.ones(3, "f4"), np.ones(3), 7)
    one = TensorRange(0.0, 1.0, np.arange(20, dtype=np.int64), channels)
    file = io.BytesIO()
    save_ranges(file, {"a": one, "b": TensorRange(-1.0, 2.0, np.ones(5, np.int64))}, 4)
    return [file.getvalue()]


def entries(folder: Path) -> list[bytes]:
    """What a cache says of a stage's result."""
    root = folder / "entries"
    shutil.rmtree(root, ignore_errors=True)
    made = StageCache(root).stage("stage", {}, lambda out: _made(out))
    return [(made.directory / "entry.json").read_bytes()]


def _made(out: Path) -> dict[str, object]:
    (out / "file").write_bytes(b"bytes")
    return {"parity": 1e-6, "notes": ["one"], "images": {"n": 3}}


def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: value.contiguous() for name, value in create("lenet5").state_dict().items()}


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


Corpus = Callable[[Path], list[bytes]]
FORMATS: dict[str, Corpus] = {
    "onnx": onnx_files,
    "pth": checkpoints,
    "safetensors": safetensors,
    "image": images,
    "manifest": manifests,
    "ranges": ranges,
    "entry": entries,
}
