"""A bundle's manifest: read, checked, and held against the files beside it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Tuple

import numpy as np

from convexport.runtime.errors import InputError
from convexport.runtime.files import read_json, sha256_of
from convexport.runtime.specs import Preprocess, TensorSpec

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
SAMPLE_INPUT = "sample/input.npy"
SAMPLE_EXPECTED = "sample/expected.npy"
LABELS = "labels.txt"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")

_LONGEST_NAME = 255  # bytes, of a file on Linux
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """What a loader needs to know; ``data`` holds everything that the manifest says.

    Attributes:
        name: of the net, for people.
        precision: one of PRECISIONS.
        target: the name of the target that it was built for.
        runtime: what loads it: ``onnxruntime``, ``openvino`` or ``tensorrt``.
        provider: the execution provider that it was checked on; OpenVINO's device.
        model: file name of what the runtime loads.
        reference: file name of the simplified FP32 ONNX.
        input: the one input.
        output: the one output.
        preprocess: from an image to the input.
        output_kind: ``logits``, or ``probabilities`` where the net ends in a softmax.
        golden_tolerance: how far, relative to the largest magnitude, the golden sample's output
            may be from what is stored.
        files: name -> SHA-256 of every file that belongs to the bundle.
    """

    name: str
    precision: str
    target: str
    runtime: str
    provider: str
    model: str
    reference: str
    input: TensorSpec
    output: TensorSpec
    preprocess: Preprocess
    output_kind: str
    golden_tolerance: float
    files: Mapping[str, str]
    data: Mapping[str, Any]

    @property
    def classes(self) -> int:
        """How many logits there are."""
        return int(self.output.shape[-1])

    @property
    def random_weights(self) -> bool:
        """Whether the net, or its last layer, was never trained."""
        return is_random(self.data["weights"])


def is_random(weights: Mapping[str, Any]) -> bool:
    """Whether of a manifest's ``weights`` some, or those of the last layer, were never trained."""
    return "random" in (weights["kind"], weights.get("classifier"))


def read_manifest(bundle: Path) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        InputError: E0304, there is no bundle; E0302, E0301 or E0305, the manifest is not
            readable, has a bad field or is of another schema.
    """
    path = bundle / MANIFEST
    if not path.is_file():
        what = "is not a bundle: it has no manifest.json" if bundle.exists() else "does not exist"
        raise InputError(
            "E0304",
            f"{bundle.name or bundle} {what}",
            where=str(bundle),
            hint="convexport build MODEL -o DIR writes one",
        )
    data = read_json(path)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise _bad("schema_version", version, f"{SCHEMA_VERSION}, which this version reads")
    return _parse(data)


def verify_files(bundle: Path, manifest: Manifest) -> None:
    """Compare every file with the hash that the manifest has for it.

    Raises:
        InputError: E0306, a file is missing, is a link, or was changed after the build.
    """
    for name, expected in manifest.files.items():
        path = bundle / name
        if path.is_symlink() or not path.is_file():
            raise _changed(path, "is missing" if not path.exists() else "is not a plain file")
        actual = sha256_of(path)
        if actual != expected:
            raise _changed(path, f"has sha256 {actual[:12]}…, the manifest says {expected[:12]}…")


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Around what reads of a bundle more than a loader needs, which nothing has checked.

    Raises:
        InputError: E0305, it is not there, or not of the kind that a build writes.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise InputError(
            "E0305",
            "the bundle does not tell what a build writes into it",
            why=f"{type(error).__name__}: {error}"[:300],
            hint="build the bundle again",
        ) from error


def read_labels(bundle: Path, manifest: Manifest) -> Tuple[str, ...]:
    """One label a class; ``class 0``, ``class 1``, … where the bundle has none.

    Raises:
        InputError: E0307, they are no UTF-8, or their number is not that of the classes.
    """
    if LABELS not in manifest.files:
        return tuple(f"class {index}" for index in range(manifest.classes))
    try:
        labels = tuple((bundle / LABELS).read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        what = f"the labels are not UTF-8: {error.reason}"
        raise InputError("E0307", what, where=str(bundle / LABELS)) from error
    if len(labels) != manifest.classes:
        raise InputError(
            "E0307",
            f"{len(labels)} labels for {manifest.classes} classes",
            where=str(bundle / LABELS),
        )
    return labels


def read_golden(bundle: Path, manifest: Manifest) -> Tuple[np.ndarray, np.ndarray]:
    """The golden sample: input N×C×H×W and expected output N×classes, float32.

    Raises:
        InputError: E0308, the arrays cannot be read or do not fit the model.
    """
    arrays = []
    for name, spec in ((SAMPLE_INPUT, manifest.input), (SAMPLE_EXPECTED, manifest.output)):
        try:
            with (bundle / name).open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            if not spec.fits(array):
                raise ValueError(f"it should be {spec}")
        except (OSError, ValueError, MemoryError, OverflowError, RecursionError) as error:
            raise InputError(
                "E0308", f"{name} is not a usable array", where=str(bundle), why=str(error)
            ) from error
        arrays.append(array)
    return arrays[0], arrays[1]


def _parse(data: Dict[str, Any]) -> Manifest:
    texts = ("name", "precision", "target", "runtime", "provider", "model", "reference")
    for key in texts:
        if not isinstance(data.get(key), str):
            raise _bad(key, data.get(key), "a text")
    for key in ("files", "weights", "input", "output", "preprocess"):
        if not isinstance(data.get(key), dict):
            raise _bad(key, data.get(key), "an object")
    for key in ("graph", "layers"):
        if not isinstance(data.get(key, {}), dict):
            raise _bad(key, data[key], "an object")
    if data["precision"] not in PRECISIONS:
        raise _bad("precision", data["precision"], f"one of {', '.join(PRECISIONS)}")
    tolerance = data.get("golden_tolerance")
    if not isinstance(tolerance, float) or not 0 < tolerance < 1:
        raise _bad("golden_tolerance", tolerance, "a number between 0 and 1")
    if data["weights"].get("kind") not in ("pretrained", "file", "digits", "random"):
        raise _bad("weights.kind", data["weights"].get("kind"), "a kind of weights")
    taken, preprocess = _tensor(data["input"]), Preprocess.from_dict(data["preprocess"])
    if preprocess.shape != taken.shape[1:]:
        raise _bad("preprocess", preprocess.shape, f"images for {taken}")
    if data.get("output_kind") not in ("logits", "probabilities"):
        raise _bad("output_kind", data.get("output_kind"), "logits or probabilities")
    return Manifest(
        **{key: data[key] for key in texts},
        input=taken,
        output=_tensor(data["output"]),
        preprocess=preprocess,
        output_kind=data["output_kind"],
        golden_tolerance=tolerance,
        files=_files(data["files"], required=(data["model"], data["reference"])),
        data=data,
    )


def _tensor(data: Dict[str, Any]) -> TensorSpec:
    spec = TensorSpec.from_dict(data)
    if len(spec.shape) < 2 or not isinstance(spec.shape[-1], int):
        raise _bad("shape", spec.shape, "a batch and fixed dimensions")
    return spec


def _files(files: Dict[str, Any], *, required: Tuple[str, ...]) -> Dict[str, str]:
    for name, digest in files.items():
        parts = Path(name).parts
        odd = "\\" in name or not name.isprintable() or len(name.encode()) > _LONGEST_NAME
        if Path(name).is_absolute() or ".." in parts or not parts or odd:
            raise _bad("files", name, "names inside the bundle")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise _bad(f"files.{name}", digest, "a SHA-256 in hex")
    for name in (*required, SAMPLE_INPUT, SAMPLE_EXPECTED):
        if name not in files:
            raise _bad("files", f"no {name}", "every file that the bundle needs")
    return files


def _bad(field: str, value: Any, expected: str) -> InputError:
    return InputError(
        "E0305",
        f"the manifest has a bad {field}: {str(value)[:80]!r}",
        where=MANIFEST,
        hint=f"expected {expected}; build the bundle again",
    )


def _changed(path: Path, what: str) -> InputError:
    return InputError(
        "E0306",
        f"{path.name} {what}",
        where=str(path),
        why="what would run is not what was built and checked",
        hint="build the bundle again, or copy it again from where it was built",
    )
