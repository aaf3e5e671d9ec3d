"""VGG (Simonyan, Zisserman 2014, "Very Deep Convolutional Networks ...", arXiv:1409.1556).

Table 1, configurations A, B, D and E: nothing but 3x3 convolutions and 2x2 maxima. Parameters are
named as in torchvision, whose checkpoints load unchanged; from there comes BN as well, which is
younger than the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from convexport.architectures.families.alexnet import hidden_layers
from convexport.architectures.layers import init_relu_net, output_shape
from convexport.architectures.variant import Counts, Paper, Shape, Variant

_WIDTHS = (64, 128, 256, 512, 512)


@dataclass(frozen=True, kw_only=True)
class VGGConfig:
    """One net.

    Attributes:
        depths: convolutions of each block, a column of Table 1.
        batch_norm: behind each convolution, which keeps its bias.
        torchvision: maps of any size are averaged to 7x7. Otherwise the first hidden layer has
            the size of the maps.
    """

    depths: tuple[int, ...]
    batch_norm: bool = False
    torchvision: bool = True

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for ReLU (the paper began with parts of a trained net A)."""
        return VGG(self, num_classes, shape)


class VGG(nn.Module):
    """Blocks that each halve the size, two hidden layers of 4096 units, linear."""

    def __init__(self, config: VGGConfig, num_classes: int, shape: Shape) -> None:
        super().__init__()
        channels, features = shape[0], nn.Sequential()
        for width, depth in zip(_WIDTHS, config.depths, strict=True):
            for _ in range(depth):
                features.append(nn.Conv2d(channels, width, 3, padding=1))
                features.extend([nn.BatchNorm2d(width)] if config.batch_norm else [])
                features.append(nn.ReLU())
                channels = width
            features.append(nn.MaxPool2d(2))
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(7) if config.torchvision else nn.Identity()
        maps = output_shape(nn.Sequential(features, self.avgpool), shape)
        hidden = hidden_layers(prod(maps))
        self.classifier = nn.Sequential(*hidden, nn.Linear(4096, num_classes))
        init_relu_net(self, fan="out" if config.batch_norm else "in")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        logits: torch.Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


_PAPER = Paper(
    2014,
    "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    "https://arxiv.org/abs/1409.1556",
)
# Table 1; C, which differs from D by 1x1 convolutions, is left out.
_TABLE_1 = {
    11: ("A", (1, 1, 2, 2, 2)),
    13: ("B", (2, 2, 2, 2, 2)),
    16: ("D", (2, 2, 3, 3, 3)),
    19: ("E", (2, 2, 4, 4, 4)),
}


def _row(depth: int, params: int, macs: int, *, batch_norm: bool = False) -> Variant:
    column, depths = _TABLE_1[depth]
    name = f"vgg{depth}_bn" if batch_norm else f"vgg{depth}"
    return Variant(
        name=name,
        family="vgg",
        paper=_PAPER,
        net=VGGConfig(depths=depths, batch_norm=batch_norm),
        counts=Counts(params, macs, depth),
        layout=f"torchvision:{name}",
        notes=f"configuration {column}" + (" with BN, which the paper has not" * batch_norm),
    )


VARIANTS = (
    _row(11, 132_863_336, 7_609_090_048),
    _row(11, 132_868_840, 7_609_090_048, batch_norm=True),
    _row(13, 133_047_848, 11_308_466_176),
    _row(13, 133_053_736, 11_308_466_176, batch_norm=True),
    _row(16, 138_357_544, 15_470_264_320),
    _row(16, 138_365_992, 15_470_264_320, batch_norm=True),
    _row(19, 143_667_240, 19_632_062_464),
    _row(19, 143_678_248, 19_632_062_464, batch_norm=True),
    Variant(
        name="vgg16_keras",
        family="vgg",
        paper=_PAPER,
        net=VGGConfig(depths=(2, 2, 2, 3, 3), torchvision=False),
        counts=Counts(133_711_434, 13_616_521_216, 15),
        num_classes=10,
        notes="a Keras notebook's, no net of the paper: 15 layers, as its third block has two; "
        "Keras flattens H, W, C, so that its first dense layer must be permuted",
    ),
)
