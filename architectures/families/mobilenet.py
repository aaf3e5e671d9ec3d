"""MobileNet v1 (Howard et al. 2017, "MobileNets", arXiv:1704.04861, Table 1 and sec. 3).

Parameters are named as in timm's mobilenetv1_100, whose checkpoints load unchanged. ReLU6 as
in the authors' TensorFlow code; the paper writes ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import conv, init_relu_net
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

# Table 1: maps and number of separable layers of each stage; the second on begin with stride 2.
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))


@dataclass(frozen=True)
class MobileNetConfig:
    """One net. ``width`` is the width multiplier alpha of sec. 3.3."""

    width: float

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers."""
        return MobileNet(self, num_classes, shape[0])


class Separable(nn.Module):
    """Depth-wise 3x3, then point-wise 1x1, each with BN and ReLU6 (Fig. 3 right)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = conv(in_channels, in_channels, 3, stride, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv_pw = conv(in_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW, the size divided by the stride."""
        x = F.relu6(self.bn1(self.conv_dw(x)))
        return F.relu6(self.bn2(self.conv_pw(x)))


class MobileNet(nn.Module):
    """Table 1: a full convolution, 13 separable ones, global average, linear."""

    def __init__(self, config: MobileNetConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels = int(32 * config.width)
        self.conv_stem = conv(in_channels, channels, 3, 2)
        self.bn1 = nn.BatchNorm2d(channels)
        stages = []
        for index, (maps, depth) in enumerate(_STAGES):
            blocks = []
            for n in range(depth):
                go = int(maps * config.width)
                blocks.append(Separable(channels, go, 2 if index and not n else 1))
                channels = go
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        init_relu_net(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        x = F.relu6(self.bn1(self.conv_stem(x)))
        x = self.global_pool(self.blocks(x)).flatten(1)
        logits: torch.Tensor = self.classifier(x)
        return logits


_PAPER = Paper(
    2017,
    "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
    "https://arxiv.org/abs/1704.04861",
)


def _row(name: str, width: float, params: int, macs: int, layout: str = "") -> Variant:
    return Variant(
        name=name,
        family="mobilenet",
        paper=_PAPER,
        net=MobileNetConfig(width),
        counts=Counts(params, macs, 28),
        # timm's evaluation of the nets with these parameter names.
        preprocess=Preprocess(interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
        layout=layout,
        notes="ReLU6 as in the authors' code; the paper writes ReLU",
        digits=width == 0.25,
    )


VARIANTS = (
    _row("mobilenet_v1", 1.0, 4_231_976, 568_740_352, "timm:mobilenetv1_100"),
    _row("mobilenet_v1_075", 0.75, 2_585_560, 325_400_448),
    _row("mobilenet_v1_050", 0.5, 1_331_592, 149_497_088),
    _row("mobilenet_v1_025", 0.25, 470_072, 41_030_272),
)
