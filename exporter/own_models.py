"""Nets of the user's own: a factory of modules, or an .onnx file."""

from __future__ import annotations

import hashlib
import importlib
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from convexport.exporter.onnx_file import content_digest, read_onnx
from convexport.exporter.options import BuildOptions
from convexport.exporter.source import (
    Batch,
    Source,
    labels_for,
    require_labels,
    source_from_torch,
)
from convexport.runtime.batches import run_in_batches
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.files import read_json
from convexport.runtime.optional import require
from convexport.runtime.ort_session import OrtSession
from convexport.runtime.specs import Preprocess

if TYPE_CHECKING:
    import onnx
    import torch


def source_from_factory(model: str, options: BuildOptions) -> Source:
    """A module that ``package.module:factory`` gives.

    Raises:
        InputError: E0387, it gives none; E0389 or E0390, the preprocess or labels do not fit.
        UsageError: E0282, an option is missing or is for nets of the zoo.
    """
    module = _call_factory(model)
    name = model.partition(":")[2].replace(".", "_")
    return _own(name, module, options, model.partition(":")[0])


def source_from_onnx(path: Path, options: BuildOptions) -> Source:
    """An ``.onnx`` file; its reference is ONNX Runtime on the file as it is.

    Raises:
        InputError: E0383 to E0385, the file cannot be used; E0388, it is no image classifier.
        UnsupportedError: E0681, an opset or operator that is not supported.
        UsageError: E0282, ``--input-shape`` says something else than the file.
    """
    model = read_onnx(path, run=True)
    shape = _image_shape(path, model)
    if options.input_shape and options.input_shape != shape:
        raise UsageError(
            "E0282", f"--input-shape {options.input_shape}, but {path.name} takes {shape}"
        )
    _refuse_zoo_options(options, path.name)
    digest = content_digest(path)
    session = cache(lambda: OrtSession(path, optimize=False))

    def reference(batch: Batch) -> Batch:
        return run_in_batches(session(), batch)

    def export(opset: int, metadata: dict[str, str]) -> onnx.ModelProto:
        kept = {p.key: p.value for p in model.metadata_props if not p.key.startswith("convexport.")}
        del model.metadata_props[:]
        for key, value in {**kept, **{f"convexport.{k}": v for k, v in metadata.items()}}.items():
            model.metadata_props.add(key=key, value=value)
        return model

    return Source(
        name=path.stem,
        kind="onnx",
        shape=shape,
        preprocess=_preprocess(options, shape),
        labels=_counted(labels_for(options, ()), _classes(model)),
        weights={"kind": "file", "source": path.name, "sha256": digest, "licence": None},
        identity={"onnx": digest},
        notes=_assumed(options, shape),
        export=export,
        reference=reference,
        reference_name="ONNX Runtime on the given file, without optimizations",
    )


def _own(name: str, module: torch.nn.Module, options: BuildOptions, origin: str) -> Source:
    _refuse_zoo_options(options, name)
    shape = options.input_shape
    if shape is None:
        raise UsageError(
            "E0282",
            f"the input shape of {name} is not known",
            hint="give --input-shape 3x224x224",
        )
    answer = _answer(module, shape)
    digest = _state_digest(module, origin, answer)
    return source_from_torch(
        name=name,
        kind="module",
        shape=shape,
        preprocess=_preprocess(options, shape),
        labels=require_labels(labels_for(options, ()), answer.shape[-1]),
        weights={"kind": "file", "source": f"{name}()", "sha256": digest, "licence": None},
        identity={"module": digest, "shape": list(shape)},
        notes=_assumed(options, shape),
        load=lambda: module,
    )


def _call_factory(model: str) -> torch.nn.Module:
    """Import ``package.module:factory`` from the current directory or the environment."""
    nn = require("torch.nn", extra="export", purpose="building a module")
    path, _, attribute = model.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = getattr(importlib.import_module(path), attribute)()
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise InputError(
            "E0387",
            f"{model} does not give a module",
            where=f"{path}.py, {attribute}()",
            why=f"{type(error).__name__}: {error}"[:300],
            hint="name it package.module:factory; the factory takes no argument",
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(module, nn.Module):
        raise InputError("E0387", f"{model} gives a {type(module).__name__}, not an nn.Module")
    ready: torch.nn.Module = module.eval().requires_grad_(False)
    return ready


def _state_digest(module: torch.nn.Module, origin: str, answer: torch.Tensor) -> str:
    """What a module of the user's own is known by: its code, its weights, and what it answers.

    The answer to seeded noise catches what neither shows: plain attributes and other state.
    """
    digest = hashlib.sha256(repr(module).encode())
    modules = {type(part).__module__ for part in module.modules()} | {origin}
    for name in sorted(modules):
        source = getattr(sys.modules.get(name), "__file__", None)
        if source and not name.startswith("torch."):
            digest.update(Path(source).read_bytes())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + _bytes_of(tensor))
    digest.update(answer.numpy().tobytes())
    return digest.hexdigest()


def _bytes_of(tensor: torch.Tensor) -> bytes:
    torch = require("torch", extra="export", purpose="building a module")
    # numpy knows no bfloat16: the bytes as they lie in memory.
    raw: bytes = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return raw


def _answer(module: torch.nn.Module, shape: tuple[int, int, int]) -> torch.Tensor:
    """What the module gives for two images of seeded noise, held against what a build needs.

    Raises:
        InputError: E0392, it does not run on them, or not twice alike; E0393, it does not give
            logits (batch, classes) in float32.
    """
    library = require("torch", extra="export", purpose="building a module")
    noise = library.randn(2, *shape, generator=library.Generator().manual_seed(0))
    try:
        with library.no_grad():
            answers = [module(noise) for _ in range(2)]
    except Exception as error:  # the user's own code may raise anything
        raise InputError(
            "E0392",
            f"the module does not run on a batch of two images {'x'.join(map(str, shape))}",
            why=f"{type(error).__name__}: {error}"[:300],
            hint="check --input-shape; the batch must be free, the weights float32",
        ) from error
    answer: torch.Tensor = answers[0]
    if (
        not isinstance(answer, library.Tensor)
        or answer.ndim != 2
        or answer.dtype != library.float32
    ):
        kind = type(answer).__name__
        if isinstance(answer, library.Tensor):
            kind = f"{answer.dtype} tensor of shape {tuple(answer.shape)}"
        raise InputError(
            "E0393",
            f"the module gives a {kind}, not float32 logits of shape (batch, classes)",
            hint="wrap it in a module that returns the logits alone",
        )
    if not library.allclose(*answers, rtol=0, atol=0, equal_nan=True):
        raise InputError(
            "E0392",
            "the module gives different answers to the same images",
            why="there is no reference to compare with",
            hint="remove what is random in its forward pass",
        )
    checked: torch.Tensor = answer
    return checked


def _assumed(options: BuildOptions, shape: tuple[int, int, int]) -> tuple[str, ...]:
    if options.preprocess is not None:
        return ()
    values = "0.5" if shape[0] == 1 else "ImageNet's"
    return (f"preprocess assumed: mean and std {values}; give yours with --preprocess FILE",)


def _refuse_zoo_options(options: BuildOptions, name: str) -> None:
    for flag, value in (
        ("--weights", options.weights),
        ("--classes", options.classes),
        ("--new-classifier", options.new_classifier or None),
    ):
        if value is not None:
            raise UsageError("E0282", f"{flag} is for nets of the zoo; {name} brings its own")


def _counted(labels: tuple[str, ...], classes: int | None) -> tuple[str, ...]:
    """The labels, held against the classes where these are known before anything is run."""
    return labels if classes is None else require_labels(labels, classes)


def _classes(model: onnx.ModelProto) -> int | None:
    dims = model.graph.output[0].type.tensor_type.shape.dim
    return dims[-1].dim_value or None if dims else None


def _image_shape(path: Path, model: onnx.ModelProto) -> tuple[int, int, int]:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise InputError(
            "E0388",
            f"{len(inputs)} inputs and {len(model.graph.output)} outputs; one of each is supported",
            where=str(path),
            hint="cut the graph to one image input and the logits with onnx.utils.extract_model",
        )
    tensor = inputs[0].type.tensor_type
    dims = [dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim]
    sizes = tuple(dim for dim in dims[1:] if isinstance(dim, int))
    if tensor.elem_type != 1 or len(dims) != 4 or len(sizes) != 3 or sizes[0] not in (1, 3):
        raise InputError(
            "E0388",
            "the input is not a float32 batch of images N×C×H×W with C of 1 or 3 and fixed H, W",
            where=f"{path}: {inputs[0].name} {dims}",
            hint="fix the shape with onnxruntime.tools.make_dynamic_shape_fixed",
        )
    return sizes[0], sizes[1], sizes[2]


def _preprocess(options: BuildOptions, shape: tuple[int, int, int]) -> Preprocess:
    channels, height, width = shape
    if options.preprocess is None:
        shorter = round(min(height, width) * 256 / 224)
        resize = (shorter,) if height == width else (height, width)
        if channels == 1:
            return Preprocess((height, width), resize, channels="L", mean=(0.5,), std=(0.5,))
        return Preprocess((height, width), resize)
    spec = Preprocess.from_dict(read_json(options.preprocess))
    if spec.shape != shape:
        raise InputError(
            "E0389",
            f"the preprocess gives {spec.shape}, the net takes {shape}",
            where=str(options.preprocess),
        )
    return spec
