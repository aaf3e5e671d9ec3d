"""Nets of the user's own: a factory of modules, a .pt2 program, an .onnx file."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from convexport.runtime.files import read_json, sha256_of
from convexport.runtime.optional import require
from convexport.runtime.ort_session import OrtSession
from convexport.runtime.specs import Preprocess

if TYPE_CHECKING:
    import onnx
    import torch

ASSUMED_PREPROCESS = (
    "preprocess assumed: ImageNet's mean and standard deviation; give --preprocess FILE"
)


def source_from_factory(model: str, options: BuildOptions) -> Source:
    """A module that ``package.module:factory`` gives.

    Raises:
        InputError: E0387, it gives none; E0389 or E0390, the preprocess or labels do not fit.
        UsageError: E0282, an option is missing or is for nets of the zoo.
    """
    module = _call_factory(model)
    name = model.partition(":")[2].replace(".", "_")
    return _own(name, "module", module, options, _state_identity(module))


def source_from_exported_program(path: Path, options: BuildOptions) -> Source:
    """A program that ``torch.export.save`` wrote.

    Raises:
        InputError: E0383 or E0386, there is no such file, or it cannot be loaded.
        UsageError: E0282, an option is missing or is for nets of the zoo.
    """
    torch = require("torch", extra="cpu", purpose="loading an exported program")
    if not path.is_file():
        raise InputError("E0383", "there is no such file", where=str(path))
    try:
        module = torch.export.load(path).module()
    except Exception as error:  # zip, json and torch errors of many classes
        raise InputError(
            "E0386",
            f"{path.name} is not a program that torch.export can load",
            where=f"{path} ({path.stat().st_size} bytes)",
            why=str(error)[:300],
            hint="write it with torch.export.save, in a version of torch not newer than this one",
        ) from error
    return _own(path.stem, "exported program", module, options, {"sha256": sha256_of(path)})


def source_from_onnx(path: Path, options: BuildOptions) -> Source:
    """An ``.onnx`` file; its reference is ONNX Runtime on the file as it is.

    Raises:
        InputError: E0383 to E0385, the file cannot be used; E0388, it is no image classifier.
        UnsupportedError: E0681, an opset or operator that is not supported.
        UsageError: E0282, ``--input-shape`` says something else than the file.
    """
    model = read_onnx(path)
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
        notes=() if options.preprocess else (ASSUMED_PREPROCESS,),
        export=export,
        reference=reference,
        reference_name="ONNX Runtime on the given file, without optimizations",
    )


def _own(
    name: str,
    kind: str,
    module: torch.nn.Module,
    options: BuildOptions,
    identity: Mapping[str, Any],
) -> Source:
    _refuse_zoo_options(options, name)
    if options.input_shape is None:
        raise UsageError(
            "E0282",
            f"the input shape of {name} is not known",
            hint="give --input-shape 3x224x224",
        )
    return source_from_torch(
        name=name,
        kind=kind,
        shape=options.input_shape,
        preprocess=_preprocess(options, options.input_shape),
        labels=_counted(labels_for(options, ()), _outputs(module, options.input_shape)),
        weights={"kind": "file", "source": name, "sha256": identity["sha256"], "licence": None},
        identity={**identity, "shape": list(options.input_shape)},
        notes=() if options.preprocess else (ASSUMED_PREPROCESS,),
        load=lambda: module,
    )


def _call_factory(model: str) -> torch.nn.Module:
    """Import ``package.module:factory`` from the current directory or the environment."""
    nn = require("torch.nn", extra="cpu", purpose="building a module")
    path, _, attribute = model.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = getattr(importlib.import_module(path), attribute)()
    except Exception as error:  # the user's own code may raise anything
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


def _state_identity(module: torch.nn.Module) -> dict[str, str]:
    """What a module of the user's own is known by: its printed structure, code and weights."""
    digest = hashlib.sha256(repr(module).encode())
    for kind in sorted({type(part) for part in module.modules()}, key=lambda k: k.__qualname__):
        source = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if source and not kind.__module__.startswith("torch."):
            digest.update(Path(source).read_bytes())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return {"sha256": digest.hexdigest()}


def _refuse_zoo_options(options: BuildOptions, name: str) -> None:
    for flag, value in (("--weights", options.weights), ("--classes", options.classes)):
        if value is not None:
            raise UsageError("E0282", f"{flag} is for nets of the zoo; {name} brings its own")


def _counted(labels: tuple[str, ...], classes: int | None) -> tuple[str, ...]:
    """The labels, held against the classes where these are known before anything is run."""
    return labels if classes is None else require_labels(labels, classes)


def _classes(model: onnx.ModelProto) -> int | None:
    dims = model.graph.output[0].type.tensor_type.shape.dim
    return dims[-1].dim_value or None if dims else None


def _outputs(module: torch.nn.Module, shape: tuple[int, int, int]) -> int | None:
    torch = require("torch", extra="cpu", purpose="building a module")
    try:
        with torch.no_grad():
            output = module(torch.zeros(2, *shape))
    except Exception as error:  # the user's own code may raise anything
        raise InputError(
            "E0392",
            f"the module does not run on images of {'x'.join(map(str, shape))}",
            why=f"{type(error).__name__}: {error}"[:300],
            hint="check --input-shape",
        ) from error
    return int(output.shape[-1]) if isinstance(output, torch.Tensor) else None


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
