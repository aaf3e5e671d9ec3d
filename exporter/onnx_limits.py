"""What a stranger's ONNX graph may be: of a size that nets have, reading its own folder alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from convexport.runtime.errors import InputError

if TYPE_CHECKING:
    import onnx

# The largest nets of the zoo have 2,000 nodes and names of 100 characters.
MOST_NODES = 100_000
LONGEST_NAME = 1_000
# What protobuf can hold; a larger file could never have been written.
LARGEST_FILE = (1 << 31) - 1


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of functions and of the bodies of If, Loop and Scan too."""
    for graph in _graphs(model):
        yield from graph.node


def external_tensors(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, dict[str, str]]]:
    """Tensors whose values lie in another file, and what says where."""
    for tensor in _tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            yield tensor, {entry.key: entry.value for entry in tensor.external_data}


def require_bounds(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a graph that only costs time and memory.

    Raises:
        InputError: E0386, more than ``MOST_NODES`` nodes, or a name beyond ``LONGEST_NAME``.
    """
    for count, node in enumerate(nodes_of(model), start=1):
        if count > MOST_NODES:
            raise _excessive(path, f"has more than {MOST_NODES} nodes")
        for name in (node.name, node.op_type, *node.input, *node.output):
            if len(name) > LONGEST_NAME:
                raise _excessive(path, f"has a name of {len(name)} characters")


def require_confined(path: Path, model: onnx.ModelProto) -> None:
    """Refuse external data that lies anywhere but in plain files of the model's own folder.

    Raises:
        InputError: E0384, with the tensor and the place.
    """
    for tensor, entry in external_tensors(model):
        location = entry.get("location", "")
        why = _escapes(path.parent, location) or _beyond(path.parent / location, entry)
        if len(entry) != len(tensor.external_data):
            why = "one key is given twice, and libraries differ in which they take"
        if why:
            raise InputError(
                "E0384",
                f"{path.name} has external data that cannot be used",
                where=f"tensor {tensor.name[:100]}, {location[:200]!r}",
                why=why,
                hint="save the model anew, with its data in one plain file beside it",
            )


def _graphs(model: onnx.ModelProto) -> Iterator[Any]:
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())]


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())  # a function has none
        yield from _sparse(getattr(graph, "sparse_initializer", ()))
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                yield from _sparse((attribute.sparse_tensor, *attribute.sparse_tensors))


def _sparse(tensors: Any) -> Iterator[onnx.TensorProto]:
    for tensor in tensors:
        yield from (tensor.values, tensor.indices)


def _escapes(folder: Path, location: str) -> str | None:
    """Why a place is none inside the folder; every part is looked at, and no link followed."""
    parts = PurePosixPath(location).parts
    if not parts or ".." in parts or PurePosixPath(location).is_absolute() or "\0" in location:
        return "it does not lie in the model's own folder"
    place = folder
    for part in parts:
        place = place / part
        try:
            status = os.lstat(place)
        except OSError as error:
            return f"{error.strerror}"
        if stat.S_ISLNK(status.st_mode):
            return "it is a link, which may lead anywhere"
    if not stat.S_ISREG(status.st_mode):
        return "it is no plain file"
    if status.st_nlink > 1:
        return "it has a second name elsewhere (a hard link)"
    return None


def _beyond(place: Path, entry: Mapping[str, str]) -> str | None:
    """Why a stretch of a file is none."""
    try:
        begin, length = int(entry.get("offset") or 0), int(entry.get("length") or 0)
    except ValueError:
        return "its offset or length is no number"
    size = place.stat().st_size
    if begin < 0 or length < 0 or begin + length > size:
        return f"bytes {begin} to {begin + length} of a file with {size}"
    return None


def _excessive(path: Path, what: str) -> InputError:
    return InputError(
        "E0386",
        f"{path.name} {what}",
        where=str(path),
        why="no convnet has, and the libraries behind would take all time and memory",
        hint="export the net again",
    )
