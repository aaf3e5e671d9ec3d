"""SqueezeNet (Iandola et al. 2016, arXiv:1602.07360): Fig. 1 (Fire), Table 1 (the net).

Parameters are named as in torchvision, whose checkpoints load unchanged. Version 1.1 is the
authors' later release: a smaller first convolution and earlier poolings. Pooled sizes are rounded
up, as Caffe does. ReLU is also behind the classifier: no logit is below 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import init_relu_net
from convexport.architectures.variant import Counts, Paper, Shape, Variant

# Table 1: maps that Fire modules 2 to 9 squeeze to, and of each of their two expansions.
_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class Stem(NamedTuple):
    """The first convolution, of stride 2 without padding."""

    maps: int
    kernel: int


@dataclass(frozen=True)
class SqueezeNetConfig:
    """One net. ``pools``: the numbers of the modules, from the stem's 1 on, that are pooled."""

    stem: Stem
    pools: tuple[int, ...]

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for ReLU without BN."""
        return SqueezeNet(self, num_classes, shape[0])


class Fire(nn.Module):
    """A 1x1 convolution down, then 1x1 and 3x3 next to each other (Fig. 1)."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to N, 2 * expanded, H, W."""
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """Stem, eight Fire modules with poolings between, a 1x1 convolution, global average."""

    def __init__(self, config: SqueezeNetConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels, kernel = config.stem
        features = nn.Sequential(nn.Conv2d(in_channels, channels, kernel, 2), nn.ReLU())
        for number, (squeezed, expanded) in enumerate(_FIRES, 2):
            if number - 1 in config.pools:
                features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            features.append(Fire(channels, squeezed, expanded))
            channels = 2 * expanded
        self.features = features
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(channels, num_classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        init_relu_net(self, fan="in")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        logits: torch.Tensor = self.classifier(self.features(x))
        return logits.flatten(1)


def _row(version: str, net: SqueezeNetConfig, params: int, macs: int, notes: str) -> Variant:
    return Variant(
        name=f"squeezenet{version}",
        family="squeezenet",
        paper=Paper(
            2016,
            "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
            "https://arxiv.org/abs/1602.07360",
        ),
        net=net,
        counts=Counts(params, macs, 26),
        layout=f"torchvision:squeezenet{version}",
        notes=notes,
    )


VARIANTS = (
    _row(
        "1_0",
        SqueezeNetConfig(Stem(96, 7), pools=(1, 4, 8)),
        1_248_424,
        818_924_576,
        "input 224 as in torchvision, in the authors' Caffe file 227",
    ),
    _row(
        "1_1",
        SqueezeNetConfig(Stem(64, 3), pools=(1, 3, 5)),
        1_235_496,
        349_151_936,
        "the authors' later release, not in the paper; input 224 as in torchvision",
    ),
)
