"""How files of each format are really read: what a user's command would do with one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import click

from convexport import cli
from convexport.architectures.registry import find
from convexport.architectures.weights import load_module, resolve
from convexport.calibration.checkpoint import Checkpoint
from convexport.exporter.cache import StageCache
from convexport.runtime.errors import ConvexportError
from convexport.runtime.preprocess import preprocess
from convexport.runtime.specs import Preprocess


def command(*arguments: object) -> None:
    """The command line, but that what it raises is seen here."""
    cli.cli.main([str(each) for each in arguments], standalone_mode=False)


def read_onnx(path: Path, folder: Path) -> None:
    """A whole build in FP32."""
    output = folder / "built"
    shutil.rmtree(output, ignore_errors=True)
    request = ("--offline", "--bench-seconds", 0, "--parity-images", 2, "-o", output)
    command("build", path, *request, "--cache-dir", folder / "fuzz-cache")


def read_weights(path: Path, folder: Path) -> None:
    """Into LeNet-5."""
    variant = find("lenet5")
    found = resolve(variant, str(path), offline=True, cache_dir=folder, report=lambda text: None)
    load_module(variant, found)


def read_image(path: Path, folder: Path) -> None:
    """As one that is classified."""
    assert preprocess(path, Preprocess(crop=(8, 8), resize=(8,))).shape == (3, 8, 8)


def read_manifest(path: Path, folder: Path) -> None:
    """Of a bundle that is looked at, then run."""
    bundle = folder / "hostile"
    if not bundle.exists():
        shutil.copytree(folder / "bundle", bundle)
    shutil.copyfile(path, bundle / "manifest.json")
    refused = None
    for name, *more in (("inspect",), ("run", folder / "images/0.png"), ("diagnose",), ("verify",)):
        try:
            command(name, bundle, *more)
        except (ConvexportError, click.ClickException) as error:
            refused = error
    if refused:
        raise refused


def read_ranges(path: Path, folder: Path) -> None:
    """Whatever is wrong with it, the pass begins anew."""
    Checkpoint(path).read()


def read_entry(path: Path, folder: Path) -> None:
    """Whatever is wrong with it, the stage is run anew."""
    cache = StageCache(folder / "entries")
    made = cache.stage("stage", {}, _made)
    shutil.copyfile(path, made.directory / "entry.json")
    cache.stage("stage", {}, _made)


def _made(out: Path) -> dict[str, object]:
    (out / "file").write_bytes(b"bytes")
    return {}


LOADERS: dict[str, Callable[[Path, Path], None]] = {
    "onnx": read_onnx,
    "pth": read_weights,
    "safetensors": read_weights,
    "image": read_image,
    "manifest": read_manifest,
    "ranges": read_ranges,
    "entry": read_entry,
}
