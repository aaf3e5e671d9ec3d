"""Rows 1 to 20: model files and nets of the user's own."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.nets import GRAPH, model, set_weight, small_net
from tests.reliability.conftest import Ends
from tests.reliability.rows import row

BUILD = ("build", "net.onnx", "-o", "out")


def write(home: Path, content: bytes | onnx.ModelProto, name: str = "net.onnx") -> None:
    data = content if isinstance(content, bytes) else content.SerializeToString()
    (home / name).write_bytes(data)


@row(1, ".onnx cut after any of its bytes", 3, "E0384 net.onnx is …")
def test_a_cut_model(ends: Ends, home: Path) -> None:
    whole = model().SerializeToString()
    for length in range(1, len(whole), len(whole) // 6):
        write(home, whole[:length])
        ends(*BUILD)


@row(2, "an empty .onnx", 3, "E0384 net.onnx is an empty file")
def test_an_empty_model(ends: Ends, home: Path) -> None:
    write(home, b"")
    ends(*BUILD)


@row(3, "an HTML page as .onnx", 3, "E0384 net.onnx is an HTML page, not ONNX")
def test_a_page_as_a_model(ends: Ends, home: Path) -> None:
    write(home, b"\n<!DOCTYPE html><title>404</title>")
    ends(*BUILD)


@row(4, "64 KiB of noise as .onnx", 3, "E0384 net.onnx is cut or corrupt")
def test_noise_as_a_model(ends: Ends, home: Path) -> None:
    for seed in range(3):
        write(home, random.Random(seed).randbytes(1 << 16))
        ends(*BUILD)


# Takes the place of onnx where the child reads a file: it does what hostile files do to real ones.
# The memory is never touched: where nothing limits it, there is enough, and another error.
FATAL = {"crashes": "os.abort()", "takes all memory": "bytes(6 << 30)\n    raise ValueError"}


@pytest.mark.parametrize("how", FATAL)
@row(4, "a file that crashes the library", 3, "E0394 the libraries that read ONNX do not survive …")
def test_a_native_crash(ends: Ends, home: Path, net: Path, how: str) -> None:
    (home / "site").mkdir()
    (home / "site/onnx.py").write_text(f"import os\ndef load(*_, **__):\n    {FATAL[how]}\n")
    ends("inspect", "net.onnx", env={"PYTHONPATH": str(home / "site")})


@row(4, "a file onnx.py where the command is run", 0)
def test_python_in_the_current_directory_is_not_run(ends: Ends, home: Path, net: Path) -> None:
    for name in ("onnx.py", "numpy.py", "json.py"):
        (home / name).write_text("open('executed', 'w')\nraise SystemExit('executed')\n")
    ends("inspect", "net.onnx")


@row(5, "an .onnx beyond protobuf's 2 GiB", 3, "E0384 net.onnx is larger than 2 GiB")
def test_a_model_larger_than_protobuf(ends: Ends, home: Path) -> None:
    with (home / "net.onnx").open("wb") as file:
        file.truncate(1 << 31)
    ends(*BUILD)


def external(home: Path, **changes: str) -> None:
    """A model in sub/ with its weights in w.bin, then other words about where they lie."""
    (home / "sub").mkdir()
    path = home / "sub/net.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    made = onnx.load(path, load_external_data=False)
    for entry in made.graph.initializer[0].external_data:
        entry.value = changes.get(entry.key, entry.value)
    if "twice" in changes:
        made.graph.initializer[0].external_data.add(key="location", value=changes["twice"])
    write(home, made, "sub/net.onnx")


OUTSIDE = {
    "above": {"location": "../w.bin"},
    "absolute": {"location": "/etc/passwd"},
    "symlink": {"location": "link.bin"},
    "symlinked folder": {"location": "up/w.bin"},
    "hard link": {"location": "hard.bin"},
    "missing": {"location": "gone.bin"},
    "folder": {"location": "."},
    "offset": {"offset": str(10**15)},
    "length": {"length": str(10**15)},
    "negative": {"offset": "-4"},
    "no number": {"offset": "4; rm"},
    "twice": {"twice": "w.bin"},
}


@pytest.mark.parametrize("how", OUTSIDE)
@row(6, "external data outside, linked, missing or too short", 3, "E0384 net.onnx has external…")
def test_external_data_elsewhere(ends: Ends, home: Path, how: str) -> None:
    external(home, **OUTSIDE[how])
    (home / "w.bin").write_bytes(bytes(4096))
    (home / "sub/link.bin").symlink_to(home / "w.bin")
    (home / "sub/up").symlink_to(home)
    os.link(home / "w.bin", home / "sub/hard.bin")
    done = ends("build", "sub/net.onnx", "-o", "out")
    assert "tensor w" in done.err


@row(7, "a file of the same name in the current directory", 0)
def test_external_data_is_read_beside_the_model(ends: Ends, home: Path) -> None:
    external(home)
    (home / "w.bin").write_bytes(np.full(1024, np.nan, np.float32).tobytes())
    ends("inspect", "sub/net.onnx")


@row(
    8, "external data edited after the build", 2, "E0283 out exists and was built from other inputs"
)
def test_edited_external_data(ends: Ends, home: Path, invoke: Any, cache: Path) -> None:
    external(home)
    quick = ("--offline", "--bench-seconds", "0", "--cache-dir", cache)
    assert invoke("build", "sub/net.onnx", "-o", "out", *quick).code == 0
    data = home / "sub/w.bin"
    data.write_bytes((np.frombuffer(data.read_bytes(), np.float32) * 2).tobytes())
    ends("build", "sub/net.onnx", "-o", "out")


@row(8, "a bundle's model edited after the build", 3, "E0306 model.onnx has sha256 …")
def test_an_edited_bundle(ends: Ends, bundle: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[-1] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    for command in ("inspect", "verify"):
        ends(command, "tiny")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@row(9, "NaN or infinity among the weights", 3, "E0385 1 weights hold NaN or infinity")
def test_weights_that_are_not_finite(ends: Ends, home: Path, value: float) -> None:
    small_net(home / "net.onnx", lambda made: set_weight(made, "w", lambda a: np.put(a, 0, value)))
    assert "w (1)" in ends(*BUILD).err


@row(10, "dead channels and denormal weights", 0, "1 of 9 output channels have no weight but 0")
def test_dead_channels(ends: Ends, home: Path) -> None:
    small_net(home / "net.onnx", lambda made: set_weight(made, "w", lambda a: a[1].fill(0)))
    ends(*BUILD, "--int8", makes=("out",))


@row(11, "weights beyond 65504 with --fp16", 0, "FP32 for … weight overflow of v, 1e+05")
def test_weights_beyond_fp16(ends: Ends, home: Path) -> None:
    small_net(home / "net.onnx", lambda made: set_weight(made, "v", lambda a: np.put(a, 0, -1e5)))
    ends(*BUILD, "--fp16", "--target", "jetson-jp6", makes=("out",))


@pytest.mark.parametrize("opset", [7, 12, 99])
@row(13, "an opset out of range", 6, "E0681 opset … in IR version 8 is not supported")
def test_an_opset_out_of_range(ends: Ends, home: Path, opset: int) -> None:
    write(home, model(opset=opset))
    assert "13 to 23" in ends(*BUILD).err


@row(13, "an IR version of the future", 6, "E0681 opset 17 in IR version 99 is not supported")
def test_an_ir_version_of_the_future(ends: Ends, home: Path) -> None:
    write(home, model(ir=99))
    ends(*BUILD)


@row(14, "an operator that ONNX does not have", 6, "E0681 operators outside the ONNX standard: …")
def test_an_unknown_operator(ends: Ends, home: Path) -> None:
    write(home, model(GRAPH.replace("Relu", "Blorp")))
    assert "Blorp" in ends(*BUILD).err


@row(
    14, "an operator of another domain in an If", 6, "E0681 operators outside the ONNX standard: …"
)
def test_a_custom_operator_in_a_body(ends: Ends, home: Path) -> None:
    write(home, nested(1, leaf="Mish"))
    assert "acme::Mish" in ends(*BUILD).err


# TensorRT 8.5 does not know it, 8.6 does.
NORMALIZED = """
    s = Constant<value_floats = [1.0, 1.0, 1.0, 1.0]> ()
    h = LayerNormalization (f, s)
    y ="""


@row(14, "an operator that TensorRT lacks", 6, "E0693 … is not for the target jetson-jp5: 1 errors")
def test_an_operator_that_tensorrt_lacks(ends: Ends, home: Path) -> None:
    body = GRAPH.replace("(f, v", "(h, v").replace("y =", NORMALIZED)
    write(home, model(body))
    ends(*BUILD, "--target", "jetson-jp5")


def nested(depth: int, leaf: str = "Relu") -> onnx.ModelProto:
    """An If in an If in an If."""
    made = model()
    domain = "acme" if leaf == "Mish" else ""
    value = helper.make_tensor_value_info("i", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [helper.make_node(leaf, ["p"], ["i"], domain=domain)], "b", [], [value]
    )
    for _ in range(depth):
        node = helper.make_node("If", ["yes"], ["i"], then_branch=body, else_branch=body)
        body = helper.make_graph([node], "b", [], [value])
    made.graph.node.insert(3, body.node[0])
    made.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    if domain:
        made.opset_import.append(helper.make_opsetid(domain, 1))
    return made


def renamed(made: onnx.ModelProto) -> None:
    made.graph.node[1].output[0] = "c"


def circular(made: onnx.ModelProto) -> None:
    made.graph.node[0].input[0] = "y"


def unsorted(made: onnx.ModelProto) -> None:
    first = made.graph.node.pop(0)
    made.graph.node.append(first)


@pytest.mark.parametrize("edit", [renamed, circular, unsorted])
@row(15, "names given twice, a circle, nodes out of order", 3, "E0384 net.onnx is not valid ONNX")
def test_a_graph_that_is_none(ends: Ends, home: Path, edit: Any) -> None:
    small_net(home / "net.onnx", edit)
    ends(*BUILD)


@row(15, "a weight that is an input too", 0)
def test_a_weight_that_is_an_input_too(ends: Ends, home: Path) -> None:
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, [5])
    small_net(home / "net.onnx", lambda made: made.graph.input.append(value))
    ends(*BUILD, makes=("out",))


@row(16, "Ifs in Ifs, the file twice as large with each", 3, "E0386 net.onnx has more than …")
def test_a_bomb_of_bodies(ends: Ends, home: Path) -> None:
    write(home, nested(16))
    ends(*BUILD)


@row(16, "Ifs in Ifs, deeper than protobuf reads", 3, "E0384 net.onnx is cut or corrupt")
def test_a_deep_file(ends: Ends, home: Path) -> None:
    data = b""
    for _ in range(5_000):
        for field in (6, 5, 1):  # graph of an attribute of a node of a graph
            data = message(field, data)
    write(home, model().SerializeToString() + message(7, data))
    ends(*BUILD)


def message(field: int, data: bytes) -> bytes:
    """A message within a message, as protobuf writes it. Of two graphs a reader makes one."""
    length, size = bytearray(), len(data)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes((field << 3 | 2, *length, size)) + data


@row(16, "more nodes than any net has", 3, "E0386 net.onnx has more than 100000 nodes")
def test_too_many_nodes(ends: Ends, home: Path) -> None:
    node = message(1, helper.make_node("Relu", ["r"], ["q"]).SerializeToString())
    write(home, model().SerializeToString() + message(7, node * 1_000_000))
    ends(*BUILD)


@row(16, "a name of 100,000 characters", 3, "E0386 net.onnx has a name of 100000 characters")
def test_a_long_name(ends: Ends, home: Path) -> None:
    small_net(home / "net.onnx", lambda made: setattr(made.graph.node[1], "name", "n" * 100_000))
    ends(*BUILD)


@row(16, "control characters in names", 0, "�[31m")
def test_names_that_steer_a_terminal(ends: Ends, home: Path) -> None:
    def edit(made: onnx.ModelProto) -> None:
        made.producer_name = "\x1b[31m\x9b2J\x07"

    small_net(home / "net.onnx", edit)
    done = ends("inspect", "net.onnx")
    assert all(char.isprintable() or char == "\n" for char in done.out)


@pytest.mark.parametrize("taken", ["N, 1, H, W", "-1, -1, -1, -1", "N, 1, S, S"])
@row(17, "free height and width", 3, "E0388 the input is not a float32 batch of images …")
def test_free_sizes(ends: Ends, home: Path, taken: str) -> None:
    write(home, model(taken=f"float[{taken}] x".replace("-1", "0")))
    ends(*BUILD)


@row(17, "a fixed batch", 0)
def test_a_fixed_batch(ends: Ends, home: Path) -> None:
    write(home, model(taken="float[2, 1, 16, 16] x", given="float[2, 5] y"))
    ends(*BUILD, makes=("out",))


@pytest.mark.parametrize(
    "taken",
    ["float[N, 4, 16, 16] x", "float[N, 16, 16, 1] x", "uint8[N, 1, 16, 16] x", "float[N, 256] x"],
    ids=["channels", "nhwc", "uint8", "flat"],
)
@row(18, "4 channels, NHWC, uint8 or no image", 3, "E0388 the input is not a float32 batch …")
def test_an_input_that_is_no_image(ends: Ends, home: Path, taken: str) -> None:
    shape = taken.replace(" x", "").partition("[")
    write(home, model("y = Identity (x)", taken=taken, given=f"{shape[0]}[{shape[2]} y"))
    ends(*BUILD)


@row(19, "two inputs", 3, "E0388 2 inputs and 1 outputs; one of each is supported")
def test_two_inputs(ends: Ends, home: Path) -> None:
    write(home, model(taken="float[N, 1, 16, 16] x, float[N] z"))
    ends(*BUILD)


@row(19, "two outputs", 3, "E0388 1 inputs and 2 outputs; one of each is supported")
def test_two_outputs(ends: Ends, home: Path) -> None:
    write(home, model(given="float[N, 5] y, float[N, 4, 14, 14] r"))
    ends(*BUILD)


FACTORY = """
from torch import nn
class Net(nn.Module):
    def forward(self, x):
        return {answer}
"""


@pytest.mark.parametrize("answer", ["[x, x]", "{'logits': x}", "(x, x)"])
@row(
    19, "a module that gives a list or a dict", 3, "E0393 the module gives a …, not float32 logits…"
)
def test_a_module_with_other_outputs(ends: Ends, home: Path, answer: str) -> None:
    (home / "my.py").write_text(FACTORY.format(answer=answer))
    ends("build", "my:Net", "--input-shape", "1x16x16", "-o", "out", makes=("__pycache__",))


@row(19, "a net that ends in a softmax", 0)
def test_a_softmax_inside(ends: Ends, home: Path) -> None:
    write(home, model(GRAPH.replace("y = Gemm", "z = Gemm") + "y = Softmax (z)"))
    ends(*BUILD, makes=("out",))
    assert '"output_kind": "probabilities"' in (home / "out/manifest.json").read_text()


LABELS = {
    "too few": b"a\nb\n",
    "too many": b"1\n2\n3\n4\n5\n6\n",
    "twice": b"a\n" * 5,
    "another encoding": b"\xff\xfe\n",
    "empty": b"",
}


@pytest.mark.parametrize("how", LABELS)
@row(20, "labels too few, too many, twice, in another encoding", 3, "E039… label…")
def test_labels_that_do_not_fit(ends: Ends, home: Path, net: Path, how: str) -> None:
    (home / "labels.txt").write_bytes(LABELS[how])
    ends(*BUILD, "--labels", "labels.txt")


@row(20, "labels with a byte order mark and CRLF", 0)
def test_labels_of_windows(ends: Ends, home: Path, net: Path) -> None:
    (home / "labels.txt").write_bytes("\r\n".join("abcdé").encode("utf-8-sig"))
    ends(*BUILD, "--labels", "labels.txt", makes=("out",))
    assert (home / "out/labels.txt").read_text("utf-8").split() == [*"abcdé"]
