"""A stranger's .onnx file: looked at before any library is trusted with it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convexport.exporter.onnx_child import read_in_a_child
from convexport.exporter.onnx_limits import (
    LARGEST_FILE,
    external_tensors,
    nodes_of,
    require_bounds,
    require_confined,
)
from convexport.runtime.errors import InputError, UnsupportedError
from convexport.runtime.files import sha256_of
from convexport.runtime.optional import require
from convexport.runtime.sniff import HEAD, foreign_kind

if TYPE_CHECKING:
    import onnx

OPSETS = range(13, 24)


def read_onnx(path: Path, *, run: bool = False) -> onnx.ModelProto:
    """Read and check a model: whole, of known opset and domain, finite, confined to its folder.

    A child process reads it first (``onnx_child``): native code that it crashes is not ours.

    Args:
        run: whether ONNX Runtime will load it here, and so must have loaded it there.

    Raises:
        InputError: E0383, there is no such file; E0384, empty, cut, corrupt or no ONNX; E0385,
            the weights are not finite; E0386, beyond all size; E0394, a library crashed on it.
        UnsupportedError: E0681, an opset or an operator's domain that is not supported.
    """
    _sniff(path)
    read_in_a_child(path, run=run)
    model: onnx.ModelProto = require("onnx", extra="export", purpose="reading ONNX").load(path)
    return model


def check(path: Path) -> None:
    """Everything that is refused of a file, in the process that calls it.

    Raises:
        ConvexportError: as ``read_onnx``.
        MemoryError: the file takes more than there is.
    """
    library = require("onnx", extra="export", purpose="reading an ONNX file")
    try:
        model: onnx.ModelProto = library.load(path, load_external_data=False)
    except MemoryError:
        raise
    except Exception as error:  # protobuf and onnx raise several classes that share no base
        raise _unreadable(path, "is cut or corrupt", str(error)) from error
    if not model.graph.node:
        raise _unreadable(path, "holds no graph", "no operators")
    require_bounds(path, model)
    _require_known(path, model)
    require_confined(path, model)
    try:
        library.load_external_data_for_model(model, str(path.parent))
        library.checker.check_model(str(path))
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(path, "is not valid ONNX", str(error)) from error
    require_finite(model, str(path))


def content_digest(path: Path) -> str:
    """The hash of a model's file, and of the files that hold its external data."""
    onnx = require("onnx", extra="export", purpose="reading an ONNX file")
    model = onnx.load(path, load_external_data=False)
    places = {entry["location"] for _, entry in external_tensors(model)}
    if not places:
        return sha256_of(path)
    digests = [sha256_of(path), *(sha256_of(path.parent / place) for place in sorted(places))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def require_finite(model: onnx.ModelProto, where: str) -> None:
    """Refuse weights with NaN or infinity.

    Raises:
        InputError: E0385, with their names and counts; E0384, one is no array.
    """
    numpy_helper = require("onnx.numpy_helper", extra="export", purpose="reading weights")
    bad = {}
    for tensor in model.graph.initializer:
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            reason = f"{tensor.name!a}: {error}"
            raise InputError("E0384", "a weight is no array", where=where, why=reason) from error
        if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
            bad[tensor.name] = int(array.size - finite.sum())
    if bad:
        named = ", ".join(f"{name} ({count})" for name, count in list(bad.items())[:5])
        raise InputError(
            "E0385",
            f"{len(bad)} weights hold NaN or infinity",
            where=f"{where}: {named}",
            why="every output would be NaN, and runtimes say nothing",
            hint="export again from a checkpoint that is finite",
        )


def _sniff(path: Path) -> None:
    if not path.is_file():
        raise InputError("E0383", "there is no such file", where=str(path))
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise _unreadable(path, "is an empty file", "onnx would take it for an empty model")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(
            "E0384",
            f"{path.name} is larger than 2 GiB",
            where=f"{path} ({path.stat().st_size} bytes)",
            why="no ONNX file can be: protobuf does not write one",
            hint="save the weights as external data: onnx.save(..., save_as_external_data=True)",
        )
    if kind := foreign_kind(head):
        raise _unreadable(path, f"is {kind}, not ONNX", "it begins like one")


def _require_known(path: Path, model: onnx.ModelProto) -> None:
    onnx = require("onnx", extra="export", purpose="reading an ONNX file")
    opset = next((entry.version for entry in model.opset_import if not entry.domain), None)
    if opset is None:
        raise _unreadable(path, "is cut or corrupt", "it does not say which opset it needs")
    newest = onnx.IR_VERSION
    if opset not in OPSETS or model.ir_version > newest:
        raise UnsupportedError(
            "E0681",
            f"opset {opset} in IR version {model.ir_version} is not supported",
            where=str(path),
            why=f"supported are {OPSETS.start} to {OPSETS.stop - 1}, in IR versions to {newest}",
            hint="convert with onnx.version_converter, or export again",
        )
    foreign = sorted(
        {
            f"{node.domain or 'ai.onnx'}::{node.op_type}"
            for node in nodes_of(model)
            if node.domain or not onnx.defs.has(str(node.op_type), opset, "")
        }
    )
    if foreign:
        raise UnsupportedError(
            "E0681",
            f"operators outside the ONNX standard: {', '.join(foreign[:5])}",
            where=str(path),
            hint="export without custom operators",
        )


def _unreadable(path: Path, what: str, why: str) -> InputError:
    size = path.stat().st_size
    digest = sha256_of(path)[:16]
    return InputError(
        "E0384",
        f"{path.name} {what}",
        where=f"{path} ({size} bytes, sha256 {digest}…)",
        why=why.strip()[:300],
        hint="export or download it again",
    )
