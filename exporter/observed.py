"""A model that gives tensors from its inside."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir

from convexport.runtime.ort_session import OrtSession


def observed_session(model: Path, tensors: Iterable[str], scratch: Path) -> OrtSession:
    """A session that gives the named tensors too.

    One thread: several batches go through at once, which keeps cores busier than several threads
    at one batch do, and the numbers do not depend on how many cores there are.

    Args:
        model: ONNX in one file.
        tensors: names of values; inputs and outputs among them are passed over.
        scratch: a file that is written, loaded and removed.
    """
    graph = ir.load(model).graph
    known = {value.name for value in (*graph.inputs, *graph.outputs)}
    wanted = set(tensors) - known
    more = onnx.ModelProto()
    more.graph.output.extend(
        ir.to_proto(value) for node in graph for value in node.outputs if value.name in wanted
    )
    del graph
    try:
        shutil.copyfile(model, scratch)
        with scratch.open("ab") as file:
            # Messages of protobuf that follow one another are merged, lists by appending: no
            # second copy of the weights is made in memory.
            file.write(more.SerializeToString())
        return OrtSession(scratch, threads=1)
    finally:
        scratch.unlink(missing_ok=True)
