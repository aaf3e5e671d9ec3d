"""Nets that no public implementation checks here, written a second time: residual and dense ones.

Those with many equal units have fewer of them here, and fewer maps.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.functional import relu

from convexport.architectures.registry import find

from .by_hand import Net, Weights
from .tools import check_close, random, with_values

# Units of each stage.
DEPTHS = (1, 2, 1)
SMALL = {"depths": DEPTHS, "widths": (8, 12, 16)}


def resnet_cifar(
    w: Weights, x: torch.Tensor, *, strides: tuple[int, ...], groups: int = 1
) -> torch.Tensor:
    """He et al. 2015, sec. 3.1, 3.3 and 4.2; Xie et al. 2016, Fig. 3c with groups in its 3x3."""
    x = relu(w.norm(w.conv(x, "conv1"), "bn1"))
    for stage, depth in enumerate(DEPTHS):
        for n in range(depth):
            unit, smaller = w.at(f"layer{stage + 1}.{n}."), stage > 0 and n == 0
            y = x
            for number, stride in enumerate(strides, 1):
                in_groups = groups if number == 2 else 1
                y = unit.conv(y, f"conv{number}", stride if smaller else 1, groups=in_groups)
                y = unit.norm(y, f"bn{number}")
                y = relu(y) if number < len(strides) else y
            if "downsample.0.weight" in unit:  # option B
                x = unit.conv(x, "downsample.0", 2 if smaller else 1)
                x = unit.norm(x, "downsample.1")
            elif smaller:  # option A
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            x = relu(y + x)
    return w.linear(x.mean((2, 3)), "fc")


def preactivated(
    w: Weights, x: torch.Tensor, *, strides: tuple[int, ...], imagenet: bool = False
) -> torch.Tensor:
    """He et al. 2016, Fig. 4e and appendix; what is activated goes into projections as well.

    For ImageNet fb.resnet.torch activates and pools behind the first convolution.
    """
    x = w.conv(x, "stem.conv", 2 if imagenet else 1)
    if imagenet:
        x = F.max_pool2d(relu(w.norm(x, "stem.norm")), 3, 2, padding=1)
    for stage, depth in enumerate(DEPTHS):
        for n in range(depth):
            unit, smaller = w.at(f"stages.{stage}.blocks.{n}."), stage > 0 and n == 0
            already = imagenet and stage == n == 0
            active = y = x if already else relu(unit.norm(x, "norm1"))
            for number, stride in enumerate(strides, 1):
                y = y if number == 1 else relu(unit.norm(y, f"norm{number}"))
                y = unit.conv(y, f"conv{number}", stride if smaller else 1)
            if "downsample.conv.weight" in unit:
                x = unit.conv(active, "downsample.conv", 2 if smaller else 1)
            x = y + x
    x = relu(w.norm(x, "norm")).mean((2, 3), keepdim=True)
    return w.conv(x, "head.fc").flatten(1)


def densenet_cifar(w: Weights, x: torch.Tensor, *, bc: bool) -> torch.Tensor:
    """Huang et al. 2016, eq. 2 and sec. 3: BN, ReLU, convolution; averaged between blocks."""
    x = w.conv(x, "features.conv0")
    for block, depth in enumerate(DEPTHS, 1):
        for n in range(1, depth + 1):
            layer = w.at(f"features.denseblock{block}.denselayer{n}.")
            y = layer.conv(relu(layer.norm(x, "norm1")), "conv1")
            y = layer.conv(relu(layer.norm(y, "norm2")), "conv2") if bc else y
            x = torch.cat([x, y], 1)
        if block < len(DEPTHS):
            transition = w.at(f"features.transition{block}.")
            x = F.avg_pool2d(transition.conv(relu(transition.norm(x, "norm")), "conv"), 2)
    x = relu(w.norm(x, f"features.norm{len(DEPTHS) + 1}"))
    return w.linear(x.mean((2, 3)), "classifier")


# The variant, what of it is smaller here, and the net.
NETS: dict[str, tuple[dict[str, Any], Net]] = {
    "resnet20_cifar": (SMALL, partial(resnet_cifar, strides=(2, 1))),
    "resnext29_8x64d_cifar": (SMALL, partial(resnet_cifar, strides=(1, 2, 1), groups=8)),
    "preact_resnet200": (
        SMALL | {"stem_width": 4},
        partial(preactivated, strides=(1, 2, 1), imagenet=True),
    ),
    "preact_resnet110_cifar": (SMALL, partial(preactivated, strides=(2, 1))),
    "preact_resnet164_cifar": (SMALL, partial(preactivated, strides=(2, 1, 1))),
    "wrn_28_10_cifar": (SMALL, partial(preactivated, strides=(2, 1))),
    "densenet_40_k12_cifar": ({"depths": DEPTHS}, partial(densenet_cifar, bc=False)),
    "densenet_bc_100_k12_cifar": ({"depths": DEPTHS}, partial(densenet_cifar, bc=True)),
}


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_equal_units_computes_what_its_source_says(name: str) -> None:
    smaller, by_hand = NETS[name]
    config: Any = find(name).net
    net = with_values(replace(config, **smaller).module(7, (3, 32, 32)))
    images = random(2, 3, 37, 31)
    with torch.no_grad():
        check_close(net(images), by_hand(Weights(net.state_dict()), images))
