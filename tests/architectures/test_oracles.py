"""The same nets in torchvision and timm: names, outputs, published weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from convexport.architectures.imagenet import labels_of
from convexport.architectures.registry import create, find, variants

pytestmark = pytest.mark.oracle

TORCHVISION = [name for name, variant in variants().items() if variant.published]
TIMM = {
    "mobilenet_v1": "mobilenetv1_100",
    "resnext101_32x4d": "resnext101_32x4d",
    "resnet200": "resnet200",
}


def with_statistics(module: nn.Module) -> nn.Module:
    """BN statistics that matter: with those of a new net a wrong one would not be noticed."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.get_buffer("running_mean").normal_(0, 0.1, generator=generator)
            layer.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
    return module.eval()


def assert_equal(theirs: nn.Module, name: str) -> None:
    with torch.device("meta"):
        ours = create(name)
    with_statistics(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want, got = theirs(images), ours.eval()(images)
    assert want.std() > 0
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_computes_the_same(name: str, torchvision: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert_equal(torchvision.get_model(name, weights=None), name)


@pytest.mark.parametrize("name", TIMM)
def test_timm_computes_the_same(name: str, timm: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert_equal(timm.create_model(TIMM[name], pretrained=False), name)


@pytest.mark.parametrize("name", TORCHVISION)
def test_published_weights_are_those_of_torchvision(name: str, torchvision: Any) -> None:
    ours, preprocess = find(name).published[0], find(name).preprocess
    theirs = torchvision.get_model_weights(name)[ours.name]
    assert ours.url == theirs.url
    assert ours.sha256.startswith(theirs.url.rsplit("-", 1)[1].removesuffix(".pth"))
    accuracy = theirs.meta["_metrics"]["ImageNet-1K"]
    assert (ours.top1, ours.top5) == (accuracy["acc@1"], accuracy["acc@5"])
    transforms = theirs.transforms()
    assert (list(preprocess.crop), list(preprocess.resize)) == (
        transforms.crop_size * 2,
        transforms.resize_size,
    )
    assert preprocess.interpolation == transforms.interpolation.value
    assert list(preprocess.mean) == transforms.mean
    assert list(preprocess.std) == transforms.std
    assert theirs.meta["num_params"] == find(name).params
    assert list(labels_of(find(name), 1000)) == theirs.meta["categories"]


def test_preprocess_of_mobilenet_is_that_of_timm(timm: Any) -> None:
    theirs = timm.create_model("mobilenetv1_100", pretrained=False).default_cfg
    ours = find("mobilenet_v1").preprocess
    assert (ours.mean, ours.std, ours.interpolation) == (
        theirs["mean"],
        theirs["std"],
        theirs["interpolation"],
    )
    assert ours.crop[0] / ours.resize[0] == theirs["crop_pct"]
