"""Module → ONNX: one input, one output, batch free, BatchNorm folded, the same bytes each time.

``torch.onnx.export`` (the ``torch.export``-based one) does the translation. What it leaves behind
is then made canonical: nodes and tensors are named after the PyTorch module they came from, and
everything that differs between two machines (stack traces, file paths, counters) is removed.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from convexport.runtime.errors import InputError
from convexport.runtime.optional import require

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

INPUT = "input"
OUTPUT = "logits"
BATCH = "batch"

# The example is traced at a batch of two: torch.export takes a one for a constant.
_EXAMPLE_BATCH = 2
_MAX_BATCH = 4096


def onnx_from_module(
    module: torch.nn.Module, shape: tuple[int, ...], *, opset: int, metadata: dict[str, str]
) -> ir.Model:
    """Export a module in eval mode whose batch is the first dimension of one float32 input.

    Args:
        module: gives one tensor of shape ``(batch, classes)`` for ``(batch, *shape)``.
        shape: of one image, C×H×W.
        opset: of the default ONNX domain, at least 18 (what the exporter itself speaks).
        metadata: written into the file under ``convexport.`` keys.

    Raises:
        InputError: E0380, the module cannot be exported with a free batch; E0381, it does not
            give one tensor.
    """
    model = _exported(module, shape, opset)
    _require_free_batch(model)
    fold(model)
    canonicalize(model)
    model.metadata_props.update({f"convexport.{key}": value for key, value in metadata.items()})
    return model


def _exported(module: torch.nn.Module, shape: tuple[int, ...], opset: int) -> ir.Model:
    torch = require("torch", extra="export", purpose="exporting a module")
    example = torch.zeros(_EXAMPLE_BATCH, *shape)
    _require_one_output(module, example)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim(BATCH, min=1, max=_MAX_BATCH)},),
                opset_version=opset,
                verbose=False,
                optimize=False,
            )
    except Exception as error:  # the exporter wraps whatever the module raised
        raise InputError(
            "E0380",
            "the module cannot be exported with a free batch",
            where=type(module).__name__,
            why=_innermost(error),
            hint="write x.flatten(1) instead of x.view(8, -1), and no Python branch on values",
        ) from error
    model: ir.Model = program.model
    return model


def fold(model: ir.Model) -> None:
    """Compute what is constant, fold every BatchNorm into its Conv or Gemm, drop what is unused.

    These few passes do what the exporter's own optimizer does to a convnet; that one tries all
    its patterns on every node, which takes minutes for a net of a thousand layers.
    """
    optimizer = require("onnxscript.optimizer", extra="export", purpose="exporting a module")
    rewriter = require("onnxscript.rewriter", extra="export", purpose="exporting a module")
    common = "onnxscript.rewriter.rules.common"
    rules = require(common, extra="export", purpose="exporting a module")
    passes = require("onnx_ir.passes.common", extra="export", purpose="exporting a module")
    batchnorm = (
        rules.fuse_batchnorm_into_conv_rule,
        rules.fuse_batchnorm_into_conv_transpose_rule,
        rules.fuse_batchnorm_into_gemm_rule,
    )
    passes.InlinePass()(model)
    optimizer.fold_constants(model)
    rewriter.rewrite(model, batchnorm)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    passes.RemoveUnusedNodesPass()(model)


def canonicalize(model: ir.Model) -> None:
    """Name nodes and tensors after their modules; remove what differs between machines.

    A node is called ``layer1.0.conv1/Conv``, and so is its output: the part before the slash is
    the module's path, ``model`` for the outermost.
    """
    graph = model.graph
    kept = {value.name for value in graph.outputs}
    seen: Counter[str] = Counter()
    for node in graph:
        name = f"{_module_path(node)}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        for index, value in enumerate(node.outputs):
            if value.name not in kept:
                value.name = node.name if index == 0 else f"{node.name}:{index}"
            value.metadata_props.clear()
        node.metadata_props.clear()
        node.doc_string = None
        _name_folded_bias(graph, node)
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    graph.name = "main"
    graph.doc_string = model.doc_string = None
    graph.metadata_props.clear()
    model.metadata_props.clear()
    model.producer_name, model.producer_version = "convexport", None


def _name_folded_bias(graph: ir.Graph, node: ir.Node) -> None:
    """A bias that folding made is called what the module would call its own."""
    if len(node.inputs) < 3 or node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
        return
    weight, bias = node.inputs[1:3]
    if weight is None or bias is None or not (weight.is_initializer() and bias.is_initializer()):
        return
    name = str(weight.name).removesuffix(".weight") + ".bias"
    if name not in graph.initializers:
        bias.name = name


def _module_path(node: ir.Node) -> str:
    """The module that a node came from. A folded BatchNorm's Conv is named by its weight."""
    for value in node.inputs[1:2]:
        if value is not None and value.is_initializer() and str(value.name).endswith(".weight"):
            return str(value.name).removesuffix(".weight")
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    named = (scope for scope in reversed(scopes[:-1]) if scope and not scope.startswith("_empty"))
    return next(named, "model")


def _require_one_output(module: torch.nn.Module, example: torch.Tensor) -> None:
    torch = require("torch", extra="export", purpose="exporting a module")
    with torch.no_grad():
        output = module(example)
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        found = (
            f"a tensor of {output.ndim} dimensions"
            if isinstance(output, torch.Tensor)
            else f"a {type(output).__name__}"
        )
        raise InputError(
            "E0381",
            f"the module gives {found}, not one tensor of shape (batch, classes)",
            where=type(module).__name__,
            hint="wrap it in a module that returns the logits alone",
        )


def _require_free_batch(model: ir.Model) -> None:
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is None or isinstance(value.shape[0], int):
            raise InputError(
                "E0380",
                "the batch came out as a constant",
                where=f"{value.name}: {value.shape}",
                hint="the module computes with the batch size; write it with -1 or flatten(1)",
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns about its own internals: nothing that a user could act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:300]
