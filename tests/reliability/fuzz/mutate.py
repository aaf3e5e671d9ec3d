"""From a good file to a bad one: bytes of any, and the insides of those that have a structure."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

import onnx

# Where counts, sizes and offsets break.
NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 65535, 2**31 - 1, -(2**31), 2**32, 2**53, 2**63 - 1)
VALUES: tuple[Any, ...] = (
    *NUMBERS, 10**400, 0.5, 1e308, -0.0, True, None, "", "x" * 5000, "../x", "/etc/passwd", "\x00",
    "\x1b[2J", "\ud800", "int8", "float32", [], {}, [[]], [0], [-1, 2**40], [1, "batch", None],
    {"": {}},
)  # fmt: skip
OPERATORS = (
    *("Add", "Relu", "Conv", "Reshape", "Transpose", "Loop", "If", "Softmax", "MaxPool", "Gemm"),
    *("Resize", "Gather", "Concat", "Split", "Slice", "QuantizeLinear", "LSTM", "Blorp", ""),
)


def mutated(kind: str, data: bytes, noise: random.Random) -> bytes:
    """A bad file of that format; in few cases it is a good one still."""
    inside = INSIDES.get(kind)
    if inside is not None and noise.random() < 0.7:
        try:
            return inside(data, noise)
        except (ValueError, zipfile.BadZipFile, OverflowError, TypeError):
            pass  # what cannot be taken apart, or not written with such a value
    return of_bytes(data, noise)


def of_bytes(data: bytes, noise: random.Random) -> bytes:
    """Some of eight kinds of damage."""
    out = bytearray(data)
    for _ in range(noise.choice((1, 1, 2, 4, 8))):
        # Headers are where readers believe what they read.
        reach = noise.choice((64, 600, len(out) or 1))
        at, size = noise.randrange(min(reach, len(out)) or 1), noise.choice((1, 2, 4, 8, 64))
        match noise.randrange(8):
            case 0 if out:
                out[min(at, len(out) - 1)] ^= 1 << noise.randrange(8)
            case 1 if out:
                out[min(at, len(out) - 1)] = noise.choice((0, 1, 127, 128, 254, 255))
            case 2:
                number = noise.choice(NUMBERS) & (2**64 - 1)
                order: Any = noise.choice(("little", "big"))
                out[at : at + size] = number.to_bytes(8, order)[:size]
            case 3:
                del out[at : at + size]
            case 4:
                out[at:at] = out[at : at + size] * noise.choice((1, 2, 100))
            case 5:
                out[at:at] = noise.randbytes(size)
            case 6:
                del out[at:]
            case _:
                out[at : at + size] = bytes(size)
    return bytes(out)


def of_json(data: bytes, noise: random.Random) -> bytes:
    """Values, keys and nesting."""
    tree = json.loads(data)
    for _ in range(noise.choice((1, 1, 2, 3))):
        _damage(tree, noise)
    text = json.dumps(tree, indent=noise.choice((None, 2)))
    if noise.random() < 0.05:
        text = text.replace("{", "{" * noise.choice((2, 3000)), 1)
    return text.encode(errors="surrogatepass")


def _damage(tree: Any, noise: random.Random) -> None:
    place = tree
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = noise.choice(keys)
        below = place[key]
        if not isinstance(below, (dict, list)) or noise.random() < 0.3:
            break
        place = below
    match noise.randrange(4):
        case 0:
            del place[key]
        case 1 if isinstance(place, dict):
            place[str(noise.choice(VALUES))] = place.pop(key)
        case 2 if isinstance(place, list):
            place.append(noise.choice(VALUES))
        case _:
            place[key] = noise.choice(VALUES)


def of_safetensors(data: bytes, noise: random.Random) -> bytes:
    """The header of shapes, types and offsets, with its length put right."""
    length = int.from_bytes(data[:8], "little")
    header = of_json(data[8 : 8 + length], noise)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def of_zip(data: bytes, noise: random.Random) -> bytes:
    """One member, with its checksum put right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    small = [index for index, (_, content) in enumerate(members) if len(content) < 20_000]
    chosen, out = noise.choice(small), io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for index, (name, content) in enumerate(members):
            archive.writestr(name, of_bytes(content, noise) if index == chosen else content)
    return out.getvalue()


def of_onnx(data: bytes, noise: random.Random) -> bytes:
    """Fields of the graph."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(noise.choice((1, 1, 2, 3))):
        noise.choice(_GRAPH)(model, noise)
    return model.SerializeToString()


def _attribute(model: onnx.ModelProto, noise: random.Random) -> None:
    attributes = [each for node in model.graph.node for each in node.attribute]
    attribute = noise.choice(attributes)
    if attribute.ints and noise.random() < 0.7:
        attribute.ints[noise.randrange(len(attribute.ints))] = noise.choice(NUMBERS)
    elif noise.random() < 0.5:
        attribute.i = noise.choice(NUMBERS)
    else:
        attribute.type = noise.randrange(15)


def _edge(model: onnx.ModelProto, noise: random.Random) -> None:
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    node = noise.choice(model.graph.node)
    side = noise.choice([side for side in (node.input, node.output) if side])
    side[noise.randrange(len(side))] = noise.choice([*names, "", "\x1b[2J", "n" * 100_000])


def _node(model: onnx.ModelProto, noise: random.Random) -> None:
    node = noise.choice(model.graph.node)
    match noise.randrange(4):
        case 0:
            model.graph.node.remove(node)
        case 1:
            model.graph.node.add().CopyFrom(node)
        case 2:
            node.op_type = noise.choice(OPERATORS)
        case _:
            del node.input[noise.randrange(len(node.input)) :]


def _weight(model: onnx.ModelProto, noise: random.Random) -> None:
    tensor = noise.choice(model.graph.initializer)
    match noise.randrange(5):
        case 0:
            tensor.data_type = noise.randrange(25)
        case 1 if tensor.dims:
            tensor.dims[noise.randrange(len(tensor.dims))] = noise.choice(NUMBERS)
        case 2:
            tensor.raw_data = of_bytes(tensor.raw_data, noise)
        case 3:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=str(noise.choice(VALUES)))
        case _:
            tensor.name = noise.choice([each.name for each in model.graph.initializer] + [""])


def _interface(model: onnx.ModelProto, noise: random.Random) -> None:
    value = noise.choice([*model.graph.input, *model.graph.output])
    tensor = value.type.tensor_type
    match noise.randrange(4):
        case 0 if tensor.shape.dim:
            noise.choice(tensor.shape.dim).dim_value = noise.choice(NUMBERS)
        case 1 if tensor.shape.dim:
            noise.choice(tensor.shape.dim).dim_param = noise.choice(("N", "", "\x00", "-1"))
        case 2:
            tensor.elem_type = noise.randrange(25)
        case _:
            model.graph.input.add().CopyFrom(value)


def _version(model: onnx.ModelProto, noise: random.Random) -> None:
    if noise.random() < 0.5:
        model.ir_version = noise.choice(NUMBERS)
    else:
        model.opset_import[0].version = noise.choice((*range(1, 30), *NUMBERS))


_GRAPH = (
    *(_attribute, _attribute, _edge, _edge, _node, _node, _weight, _weight),
    *(_interface, _version),
)
INSIDES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "onnx": of_onnx,
    "pth": of_zip,
    "ranges": of_zip,
    "safetensors": of_safetensors,
    "manifest": of_json,
    "entry": of_json,
}
