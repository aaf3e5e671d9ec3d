"""What a block computes, against the definition in its paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from convexport.architectures.families.resnet import PaddedShortcut
from convexport.architectures.registry import create


def test_option_a_takes_every_second_pixel_and_appends_zero_maps() -> None:
    x = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    y = PaddedShortcut(2, stride=2)(x)
    assert y.shape == (2, 5, 2, 2)
    for n in range(2):
        for c in range(3):
            for i in range(2):
                for j in range(2):
                    assert y[n, c, i, j] == x[n, c, 2 * i, 2 * j]
    assert not y[:, 3:].any()


@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet110_cifar"])
def test_cifar_nets_have_parameter_free_shortcuts(name: str) -> None:
    assert not [key for key in create(name).state_dict() if "downsample" in key]


def test_the_stride_of_a_bottleneck_is_on_its_3x3() -> None:
    block = create("resnet50").get_submodule("layer2.0")
    assert [block.get_submodule(f"conv{n}").stride for n in (1, 2, 3)] == [(1, 1), (2, 2), (1, 1)]


def test_a_residual_block_without_its_branch_is_the_rectified_identity() -> None:
    block = create("resnet20_cifar").get_submodule("layer1.0").eval()
    nn.init.zeros_(block.get_submodule("bn2").get_parameter("weight"))
    x = torch.randn(1, 16, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x.clamp_min(0))


def test_mobilenet_clips_at_six() -> None:
    net = create("mobilenet_v1_025").eval()
    blocks = net.get_submodule("blocks")
    assert blocks(torch.full((1, 8, 8, 8), 1e6)).max() <= 6


@pytest.mark.parametrize(
    ("name", "path", "variance"),
    [
        ("resnet18", "layer4.0.conv2", 2 / (512 * 9)),
        ("resnext50_32x4d", "layer4.2.conv2", 2 / (1024 / 32 * 9)),
        ("mobilenet_v1", "blocks.4.1.conv_dw", 2 / 9),
        ("lenet5", "c5", 2 / (16 * 25)),
    ],
)
def test_initial_variance_is_that_of_he(name: str, path: str, variance: float) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weight = create(name).get_submodule(path).get_parameter("weight")
    # Five standard errors of a variance of n normal values.
    assert weight.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / weight.numel()))
