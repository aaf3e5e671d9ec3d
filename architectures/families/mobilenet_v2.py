"""MobileNet v2 (Sandler, Howard, Zhu, Zhmoginov, Chen 2018, arXiv:1801.04381, sec. 4 and Table 2).

Parameters are named as in torchvision's mobilenet_v2, whose checkpoints load unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from convexport.architectures.families.inverted_residual import (
    BlockConfig,
    InvertedResidualNet,
    conv_norm,
    make_divisible,
)
from convexport.architectures.variant import Counts, Paper, Shape, Variant

# Table 2: expansion t, maps c, blocks n, stride s of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@dataclass(frozen=True)
class MobileNetV2Config:
    """One net. ``width`` is the width multiplier of sec. 6.1; the last 1x1 never shrinks."""

    width: float = 1.0

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers."""
        channels = make_divisible(32 * self.width)
        features: list[nn.Module] = [conv_norm(shape[0], channels, 3, 2, activation=nn.ReLU6)]
        for expansion, maps, depth, stride in _STAGES:
            for n in range(depth):
                block = BlockConfig(
                    in_channels=channels,
                    expanded=expansion * channels,
                    out_channels=make_divisible(maps * self.width),
                    stride=1 if n else stride,
                    activation=nn.ReLU6,
                )
                features.append(LinearBottleneck(block))
                channels = block.out_channels
        last = make_divisible(1280 * max(1.0, self.width))
        features.append(conv_norm(channels, last, 1, activation=nn.ReLU6))
        return InvertedResidualNet(features, [nn.Dropout(0.2), nn.Linear(last, num_classes)])


class LinearBottleneck(nn.Module):
    """An inverted residual (Fig. 4d) whose projection and BN have names beside the others'."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        *inner, projection = config.layers()
        self.conv = nn.Sequential(*inner, *projection.children())
        self.has_shortcut = config.has_shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW, the size divided by the stride."""
        out: torch.Tensor = self.conv(x)
        return x + out if self.has_shortcut else out


VARIANTS = (
    Variant(
        name="mobilenet_v2",
        family="mobilenet",
        paper=Paper(
            2018,
            "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
            "https://arxiv.org/abs/1801.04381",
        ),
        net=MobileNetV2Config(),
        counts=Counts(3_504_872, 300_774_272, 53),
        layout="torchvision:mobilenet_v2",
        notes="the paper's last 1x1 convolution behind the pooling is a linear layer",
    ),
)
