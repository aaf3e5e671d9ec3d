"""Traps of exporting: tiny nets through export and simplification, against PyTorch itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from torch import nn

from convexport.exporter.simplify import simplify
from convexport.exporter.to_onnx import onnx_from_module
from convexport.runtime.errors import InputError

SHAPE = (3, 9, 7)  # odd, not square


class Net(nn.Module):
    """A convolution, a way to pool it, and a classifier of three classes."""

    def __init__(self, pool: Callable[[torch.Tensor], torch.Tensor], features: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.classifier = nn.Conv2d(3, 4, 3), nn.Linear(features, 3)
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.pool(F.relu(self.conv(x))))
        return logits


def exported(module: nn.Module, shape: tuple[int, ...] = SHAPE, opset: int = 18) -> onnx.ModelProto:
    model = onnx_from_module(module.eval(), shape, opset=opset, metadata={"name": "tiny"})
    proto: onnx.ModelProto = onnx_ir.to_proto(model)
    return proto


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def assert_parity(
    module: nn.Module, model: onnx.ModelProto, shape: tuple[int, ...] = SHAPE
) -> None:
    """ONNX Runtime and onnx.reference give what PyTorch gives, at several batch sizes."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for batch in (1, 2, 8):
        x = np.random.default_rng(batch).standard_normal((batch, *shape), dtype=np.float32)
        with torch.no_grad():
            want = module.eval()(torch.from_numpy(x)).numpy()
        for actual in (
            session.run(["logits"], {"input": x})[0],
            ReferenceEvaluator(model).run(["logits"], {"input": x})[0],
        ):
            np.testing.assert_allclose(actual, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: x.mean((2, 3)),
        lambda x: x.mean([-1, -2], keepdim=True).flatten(1),
        lambda x: x.mean((3, 2), keepdim=True)[:, :, 0, 0],
        lambda x: F.avg_pool2d(x, x.shape[-2:]).flatten(1),
        lambda x: x.flatten(2).mean(2),
    ],
    ids=["adaptive", "mean", "keepdim", "index", "avg_pool", "flat"],
)
def test_global_average_pooling_is_one_operator(pool: Any, request: Any) -> None:
    module = Net(pool)
    model = simplify(exported(module)).model
    assert_parity(module, model)
    if request.node.callspec.id in ("adaptive", "mean", "keepdim", "index"):
        assert "GlobalAveragePool" in operators(model)
        assert "ReduceMean" not in operators(model)


@pytest.mark.parametrize(
    ("pool", "features"),
    [
        (lambda x: x.mean(1).flatten(1), 7 * 5),
        (lambda x: x.mean(3).flatten(1), 4 * 7),
        (lambda x: x.mean((1, 2)), 5),
    ],
)
def test_a_mean_over_other_axes_is_left_alone(pool: Any, features: int) -> None:
    module = Net(pool, features)
    model = simplify(exported(module)).model
    assert "ReduceMean" in operators(model) and "GlobalAveragePool" not in operators(model)
    assert_parity(module, model)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize("kind", ["max", "average"])
def test_pools_at_odd_sizes(kind: str, count: bool, ceil_mode: bool) -> None:
    """PyTorch drops windows that would begin in the padding; runtimes disagreed on that."""

    def pool(x: torch.Tensor) -> torch.Tensor:
        if kind == "max":
            return F.max_pool2d(x, 3, 2, padding=int(count), ceil_mode=ceil_mode).flatten(1)
        options = {"padding": 1, "ceil_mode": ceil_mode, "count_include_pad": count}
        return F.avg_pool2d(x, 3, 2, **options).flatten(1)

    features = pool(torch.zeros(1, 4, 7, 5)).shape[1]
    module = Net(pool, features)
    model = simplify(exported(module)).model
    assert_parity(module, model)


def test_a_view_by_the_batchs_own_size_runs_at_any_batch() -> None:
    module = Net(lambda x: x.view(x.shape[0], -1), 4 * 7 * 5)
    model = exported(module)
    assert_parity(module, model)
    assert_parity(module, simplify(model).model)


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.view(x.shape[0], -1),
        lambda x: x.reshape(x.size(0), 4 * 7 * 5),
        lambda x: x.flatten(1),
        lambda x: torch.flatten(x, 1),
        lambda x: x.view(-1, 4 * 7 * 5),
    ],
)
def test_every_way_to_flatten_keeps_the_batch_free(flatten: Any) -> None:
    module = Net(flatten, 4 * 7 * 5)
    model = simplify(exported(module)).model
    assert_parity(module, model)
    assert operators(model) == ["Conv", "Relu", "Flatten", "Gemm"]


@pytest.mark.parametrize(
    "baked",
    [
        lambda x: x.view(2, -1),
        lambda x: x.reshape(2, 140),
        lambda x: x.flatten(1) if x.shape[0] == 2 else x.flatten(1) * 2,
    ],
    ids=["view", "reshape", "branch"],
)
def test_a_batch_that_is_baked_in_is_refused(baked: Any) -> None:
    with pytest.raises(InputError) as error:
        exported(Net(baked, 140))
    assert (error.value.code, error.value.exit_code) == ("E0380", 3)


class Trained(nn.Module):
    """BatchNorm, dropout, and an auxiliary head that only training has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.wide = nn.Conv2d(4, 4, 3, groups=4)
        self.bn = nn.BatchNorm2d(4)
        self.drop, self.fc, self.aux = nn.Dropout(0.5), nn.Linear(4, 3), nn.Linear(4, 3)
        for norm in (self.stem[1], self.bn):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def forward(self, x: torch.Tensor) -> Any:
        pooled = F.relu6(self.bn(self.wide(self.stem(x)))).mean((2, 3))
        logits = self.fc(self.drop(pooled))
        return (logits, self.aux(pooled)) if self.training else logits


def test_batchnorm_dropout_and_the_auxiliary_head_vanish() -> None:
    module = Trained()
    model = exported(module)
    assert not {"BatchNormalization", "Dropout"} & set(operators(model))
    assert not [t.name for t in model.graph.initializer if "aux" in t.name]
    assert_parity(module, model)
    assert_parity(module, simplify(model).model)
    assert operators(simplify(model).model)[:2] == ["Conv", "Relu"]


class Outputs(nn.Module):
    def __init__(self, wrap: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.wrap = nn.Conv2d(3, 4, 3), wrap

    def forward(self, x: torch.Tensor) -> Any:
        return self.wrap(self.conv(x))


@pytest.mark.parametrize(
    ("wrap", "found"),
    [
        (lambda x: (x.mean((2, 3)),), "a tuple"),
        (lambda x: [x.mean((2, 3)), x], "a list"),
        (lambda x: {"out": x.mean((2, 3))}, "a dict"),
        (lambda x: x, "4 dimensions"),
        (lambda x: x.mean((1, 2, 3)), "1 dimensions"),
        (lambda x: None, "a NoneType"),
    ],
)
def test_what_is_not_one_tensor_of_logits_is_refused(wrap: Any, found: str) -> None:
    with pytest.raises(InputError, match=found) as error:
        exported(Outputs(wrap))
    assert error.value.code == "E0381"


def test_nodes_are_named_after_their_modules() -> None:
    module = Trained()
    modules = {name or "model" for name, _ in module.named_modules()}
    model = exported(module)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {name.rpartition("/")[0] for name in names} <= modules
    assert {"stem.0/Conv", "wide/Conv", "fc/Gemm"} <= set(names)
    assert {t.name for t in model.graph.initializer} >= {"stem.0.weight", "fc.weight", "fc.bias"}


def test_the_file_tells_nothing_of_the_machine() -> None:
    model = exported(Trained())
    content = model.SerializeToString()
    for trace in (b".py", b"site-packages", b"File ", str(Path.home()).encode(), b"pkg.torch"):
        assert trace not in content
    assert {p.key: p.value for p in model.metadata_props} == {"convexport.name": "tiny"}
    assert (model.graph.doc_string, model.producer_version) == ("", "")
    assert [(i.version, i.domain) for i in model.opset_import] == [(18, "")]


SAME = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from test_to_onnx import Trained, exported, simplify
model = exported(Trained())
for each in (model, simplify(model).model):
    print(hashlib.sha256(each.SerializeToString(deterministic=True)).hexdigest())
"""


@pytest.mark.slow
def test_other_processes_give_the_same_bytes() -> None:
    """Whatever order their sets and dictionaries have."""
    program = [sys.executable, "-W", "ignore", "-c", SAME, str(Path(__file__).parent)]
    outputs = {
        subprocess.run(
            program, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1 and len(outputs.pop().split()) == 2
