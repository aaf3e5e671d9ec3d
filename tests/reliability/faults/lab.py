"""A place where builds of a tiny net meet faults, and what must hold after each."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from convexport.runtime.bundle import read_manifest, verify_files
from convexport.runtime.errors import ConvexportError
from tests.nets import model

HERE = Path(__file__).parent
# At most, of what a user reads when something fails.
SCREEN = 24
State = Mapping[str, str]


def compiler() -> str | None:
    return shutil.which("cc") if sys.platform == "linux" else None


@contextlib.contextmanager
def laboratory() -> Iterator[Lab]:
    """A lab in memory where there is such a place: what is synced there costs no time."""
    shared = Path("/dev/shm")
    place = shared if os.access(shared, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder, opened(Path(folder)) as lab:
        yield lab


def write_net(path: Path) -> None:
    """A net of five nodes for grey images of 16x16."""
    onnx.save(model(), path)


def write_images(folder: Path, count: int = 12) -> None:
    folder.mkdir()
    random = np.random.default_rng(1)
    for index in range(count):
        pixels = random.integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


def request(folder: Path, tree: Path, output: str = "out/net", *, force: bool = True) -> list[str]:
    """A command line that builds the net in INT8; its inputs lie outside of any tree."""
    return [
        *("build", str(folder / "net.onnx"), "--int8", "--calib", str(folder / "im")),
        *("--calib-images", "8", "--parity-images", "2", "--bench-seconds", "0", "--offline"),
        *("--method", "minmax", "--repair", "none"),
        *(["--force"] if force else []),
        *("--cache-dir", str(tree / "cache"), "-o", str(tree / output)),
    ]


@dataclass
class Ended:
    """How a run ended, and what it did."""

    code: int
    err: str
    count: int

    @property
    def plain(self) -> bool:
        """No traceback, no more than a screen."""
        return "Traceback" not in self.err and len(self.err.splitlines()) < SCREEN


@dataclass
class Lab:
    """Starts runs in trees of their own below ``folder``; see ``opened``."""

    folder: Path
    driver: subprocess.Popen[str]
    old: State = field(default_factory=dict)
    new: State = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def tree(self, *, old: bool = True) -> Path:
        """An empty place, with an older bundle where the new one is to be."""
        tree = self.folder / f"tree{next(self.numbers)}"
        (tree / "out").mkdir(parents=True)
        if old:
            shutil.copytree(self.folder / "old/out/net", tree / "out/net")
        return tree

    def run(self, tree: Path, **fault: Any) -> Ended:
        """One build in a tree, with a fault."""
        return self.together([self.wanted(tree, **fault)])[0]

    def wanted(
        self, tree: Path, *more: str, output: str = "out/net", force: bool = True, **fault: Any
    ) -> Any:
        """The same as data, for ``together``."""
        argv = [*request(self.folder, tree, output, force=force), *more]
        return {"argv": argv, "below": str(tree), **fault}

    def together(self, runs: list[Any]) -> list[Ended]:
        """Runs at the same time."""
        assert self.driver.stdin is not None and self.driver.stdout is not None
        self.driver.stdin.write(json.dumps(runs) + "\n")
        self.driver.stdin.flush()
        return [Ended(**each) for each in json.loads(self.driver.stdout.readline())]

    def wrong_with(self, tree: Path, *, old: bool = True) -> list[str]:
        """What must not be after a fault: a bundle that is neither old nor new, a torn entry."""
        found = [f"torn: {entry}" for entry in torn_entries(tree / "cache")]
        bundle = state_of(tree / "out/net")
        if bundle not in ((self.old if old else {}), self.new):
            found.append(f"the bundle is neither the old nor the new one: {sorted(bundle)}")
        return found

    def wrong_after(self, tree: Path) -> list[str]:
        """What must not be after one more run without a fault: it finishes and tidies up."""
        done = state_of(tree / "out/net") == self.new
        again = self.run(tree, force=not done)
        found = [] if again.code == 0 else [f"the next run ended with {again.code}: {again.err}"]
        if state_of(tree / "out/net") != self.new:
            found.append("the next run gives other bytes than an undisturbed one")
        return found + [f"left behind: {path}" for path in leftovers(tree)]


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Lab]:
    """A lab in an empty folder; its driver ends with the block."""
    shim = folder / "shim.so"
    options = ("-shared", "-fPIC", "-O1", "-o", str(shim), str(HERE / "shim.c"), "-ldl")
    subprocess.run([str(compiler()), *options], check=True)
    write_net(folder / "net.onnx")
    write_images(folder / "im")
    env = {**os.environ, "HOME": str(folder), "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(shim)}
    with (
        (folder / "driver.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, str(HERE / "driver.py"), *request(folder, folder / "new")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=env,
        ) as driver,
    ):
        lab = Lab(folder, driver)
        older = lab.together([lab.wanted(folder / "old", "--parity-images", "3")])[0]
        assert older.code == 0, older.err
        lab.old, lab.new = state_of(folder / "old/out/net"), state_of(folder / "new/out/net")
        assert lab.old and lab.new and lab.old != lab.new
        assert driver.stdin is not None
        yield lab
        driver.stdin.close()


def state_of(bundle: Path) -> State:
    """The hash of every file of a whole bundle, but not of the report; nothing where none is."""
    if not bundle.exists():
        return {}
    try:
        verify_files(bundle, read_manifest(bundle))
    except ConvexportError as error:
        return {"torn": str(error)}
    return {
        path.relative_to(bundle).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in bundle.rglob("*")
        if path.is_file() and path.stem != "report"
    }


def torn_entries(cache: Path) -> list[str]:
    """Entries of a cache that are there under their name, and not whole."""
    entries = [path for path in cache.glob("stages/[!.]*") if path.is_dir()]
    return [entry.name for entry in entries if not whole(entry)]


def whole(entry: Path) -> bool:
    try:
        files: dict[str, str] = json.loads((entry / "entry.json").read_text())["files"]
        found = {
            path.relative_to(entry).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in entry.rglob("*")
            if path.is_file() and path != entry / "entry.json"
        }
    except (OSError, ValueError, KeyError):
        return False
    return files == found


def leftovers(tree: Path) -> list[str]:
    """Temporary files of any kind; what a pass goes on from is one when the build is done."""
    names = [path.relative_to(tree).as_posix() for path in tree.rglob("*")]
    hidden = [name for name in names if any(part.startswith(".") for part in name.split("/"))]
    return hidden + [name for name in names if name.endswith(".begun")]
