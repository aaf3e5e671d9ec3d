"""The same nets in torchvision and timm: names, outputs, published weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from convexport.architectures.imagenet import labels_of
from convexport.architectures.registry import create, find, variants
from convexport.runtime.specs import IMAGENET_MEAN, IMAGENET_STD

from .literature import LITERATURE, each
from .tools import check_close, with_statistics

pytestmark = pytest.mark.oracle

LAYOUTS = {name: row.layout for name, row in variants().items() if ":" in row.layout}
# Their nets turn ImageNet's normalisation into this one themselves: see the test below.
NORMALISED_INSIDE = ("googlenet", "inception_v3")
# Odd and not square: here ceil_mode and asymmetric padding show. The Inceptions need 75.
SIZE = (113, 97)


def published_by(source: str) -> list[str]:
    """The variants whose best weights they publish."""
    rows = ((name, row.published) for name, row in variants().items())
    return [name for name, published in rows if published and published[0].source == source]


def theirs(name: str, torchvision: Any, timm: Any) -> nn.Module:
    """The public net that has the layout of ours, with random weights."""
    package, _, model = LAYOUTS[name].partition(":")
    if package == "timm":
        module: nn.Module = timm.create_model(model, pretrained=False)
    elif package == "torchvision":
        extra = {"aux_logits": True, "init_weights": False} if "ception" in model else {}
        extra = {"aux_logits": True, "init_weights": False} if model == "googlenet" else extra
        module = torchvision.get_model(model, weights=None, **extra)
    else:
        package_ = pytest.importorskip(package, reason=f"{package} is not installed")
        module = package_.__dict__[model](pretrained=None)
    return with_statistics(module)


@pytest.mark.parametrize("name", each(list(LAYOUTS)))
def test_public_nets_load_strictly_and_compute_the_same(
    name: str, torchvision: Any, timm: Any
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = theirs(name, torchvision, timm)
        # Cadene's net pools a fixed grid of 7x7.
        images = torch.randn(2, 3, *((224, 224) if "bninception" in LAYOUTS[name] else SIZE))
    with torch.device("meta"):
        ours = create(name)
    ours.load_state_dict(reference.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        check_close(ours.eval()(images), reference(images))


def test_the_narrow_mobilenet_v3_is_torchvisions_of_that_width(torchvision: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = with_statistics(torchvision.mobilenet_v3_small(width_mult=0.5))
        images = torch.randn(2, 3, *SIZE)
    with torch.device("meta"):
        ours = create("mobilenet_v3_small_050")
    ours.load_state_dict(reference.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        check_close(ours.eval()(images), reference(images))


@pytest.mark.parametrize("name", published_by("torchvision"))
def test_published_weights_are_those_of_torchvision(name: str, torchvision: Any) -> None:
    variant, ours = find(name), find(name).published[0]
    theirs = torchvision.get_model_weights(LAYOUTS[name].partition(":")[2])[ours.name]
    assert (ours.url, ours.licence) == (theirs.url, "BSD-3-Clause")
    assert ours.sha256.startswith(theirs.url.rsplit("-", 1)[1].removesuffix(".pth"))
    accuracy = theirs.meta["_metrics"]["ImageNet-1K"]
    assert (ours.top1, ours.top5) == (accuracy["acc@1"], accuracy["acc@5"])
    preprocess, transforms = variant.preprocess, theirs.transforms()
    assert (list(preprocess.crop), list(preprocess.resize)) == (
        transforms.crop_size * 2,
        transforms.resize_size,
    )
    assert preprocess.interpolation == transforms.interpolation.value
    if name in NORMALISED_INSIDE:
        assert (preprocess.mean, preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    else:
        assert [list(preprocess.mean), list(preprocess.std)] == [transforms.mean, transforms.std]
    # They count the auxiliary heads of Inception v3, and not those of GoogLeNet.
    facts = LITERATURE[name]
    assert theirs.meta["num_params"] in (facts.params, facts.params_with_aux)
    assert list(labels_of(variant, 1000)) == theirs.meta["categories"]


@pytest.mark.parametrize("name", NORMALISED_INSIDE)
def test_the_net_in_torchvision_undoes_the_normalisation_of_its_images(
    name: str, torchvision: Any
) -> None:
    net = torchvision.get_model(name, init_weights=False, transform_input=True)
    pixels = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    inside = net._transform_input((pixels - mean) / std)
    torch.testing.assert_close(inside, (pixels - 0.5) / 0.5)


@pytest.mark.parametrize("name", published_by("timm"))
def test_published_weights_are_those_of_timm(name: str, timm: Any) -> None:
    ours, preprocess = find(name).published[0], find(name).preprocess
    theirs = timm.models.get_pretrained_cfg(f"{LAYOUTS[name].partition(':')[2]}.{ours.name}")
    hub = f"https://huggingface.co/{theirs.hf_hub_id}/resolve/main/model.safetensors"
    assert ours.url == (theirs.url or hub)
    assert ours.licence.lower() == theirs.license
    # A hash without a source would be made up.
    assert ours.sha256 in ours.url
    assert bool(ours.sha256) == bool(theirs.url)
    assert (preprocess.mean, preprocess.std) == (theirs.mean, theirs.std)
    assert preprocess.interpolation == theirs.interpolation
    assert find(name).input == theirs.input_size
    assert preprocess.resize == (math.floor(preprocess.crop[0] / theirs.crop_pct),)


def test_whatever_is_published_for_a_layout_is_listed(timm: Any) -> None:
    names = [name for name, layout in LAYOUTS.items() if layout.startswith(("torchvision", "timm"))]
    without = {"resnet200", "preact_resnet152"}
    assert {name for name in names if not find(name).published} == without
    assert not [tag for tag in ("resnet200", "resnetv2_152") if timm.list_pretrained(f"{tag}.*")]
