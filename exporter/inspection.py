"""``inspect``: what is inside a bundle or an ONNX file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from convexport.exporter.console import line, table
from convexport.exporter.onnx_file import read_onnx
from convexport.exporter.targets import find_target
from convexport.runtime.bundle import MANIFEST, as_written, read_manifest, verify_files
from convexport.runtime.files import sha256_of

_DIRECTORY_HINT = ("precision", "target", "runtime", "provider", "source")


@as_written()
def inspect(path: Path, target: str | None = None) -> dict[str, Any]:
    """The facts of a bundle (a directory) or of an ONNX file.

    Args:
        target: one with TensorRT. What that would say to the model is added, under ``lint``.

    Raises:
        InputError: it is neither, or it is damaged.
        UsageError: E0280 or E0290, the target is unknown, or has no such rules.
    """
    row = find_target(target) if target else None
    facts = _onnx(path) if path.suffix == ".onnx" else _bundle(path)
    if row is not None:
        from convexport.exporter.trt_lint import lint_file

        model = path if path.suffix == ".onnx" else path / str(read_manifest(path).data["model"])
        facts["lint"] = lint_file(model, row)
    return facts


@as_written()
def as_text(facts: dict[str, Any]) -> Any:
    """The facts for a terminal."""
    rows = ((k, _short(value)) for k, value in facts.items() if k not in ("operators", "lint"))
    parts: list[Any] = [table(("", ""), rows, texts=2)]
    if facts["operators"]:
        parts += [Text(""), table(("operator", "nodes"), facts["operators"].items())]
    if "lint" in facts:
        from convexport.exporter.trt_lint import as_lines

        parts += [Text(""), *(line(each) for each in as_lines(facts["lint"]))]
    return Group(*parts)


def _bundle(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    verify_files(path, manifest)
    data = manifest.data
    size = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return {
        "bundle": manifest.name,
        **{key: data.get(key) for key in _DIRECTORY_HINT},
        "input": str(manifest.input),
        "output": str(manifest.output),
        "weights": f"{data['weights']['kind']} ({data['weights'].get('source')})",
        "files": f"{len(manifest.files)} files and {MANIFEST}, hashes agree",
        "size": f"{size / 1e6:.1f} MB",
        "precisions": dict(Counter(data.get("layers", {}).values())) or {"fp32": "all"},
        "calibration": _calibration(data.get("calibration")),
        "preprocess": manifest.preprocess.to_dict(),
        "notes": data.get("notes", []),
        "operators": data.get("graph", {}).get("operators", {}),
    }


def _onnx(path: Path) -> dict[str, Any]:
    model = read_onnx(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "size": f"{path.stat().st_size / 1e6:.1f} MB",
        "opset": next(entry.version for entry in model.opset_import if not entry.domain),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "inputs": [_tensor(value) for value in model.graph.input if value.name not in weights],
        "outputs": [_tensor(value) for value in model.graph.output],
        "nodes": len(model.graph.node),
        "metadata": {prop.key: prop.value for prop in model.metadata_props},
        "operators": dict(Counter(node.op_type for node in model.graph.node).most_common()),
    }


def _tensor(value: Any) -> str:
    tensor = value.type.tensor_type
    dims = (str(dim.dim_param or dim.dim_value) for dim in tensor.shape.dim)
    return f"{value.name}: {'x'.join(dims)}"


def _calibration(data: Any) -> str:
    if not data:
        return "none"
    stand_in = ", a stand-in" if data.get("stand_in") else ""
    return f"{data.get('images')} images{stand_in}: {data.get('set')}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(_short(each) for each in value)
    return str(value)
