"""DenseNet: each layer reads the feature maps of all layers before it.

Huang, Liu, van der Maaten, Weinberger 2016, "Densely Connected Convolutional Networks",
arXiv:1608.06993: eq. 2, sec. 3, Table 1 (ImageNet), Table 2 (CIFAR-10).

Parameters are named as in torchvision, whose checkpoints load: those on its server still have the
dots (``norm.1``) that module names had before 2018.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import CIFAR, conv, init_relu_net
from convexport.architectures.variant import Counts, Paper, Shape, Variant


@dataclass(frozen=True, kw_only=True)
class DenseNetConfig:
    """One net, in the words of sec. 3.

    Attributes:
        growth: feature maps k that each layer adds.
        depths: layers of each dense block.
        bc: DenseNet-BC: a bottleneck of 4 k maps in each layer, transitions that keep half of
            the maps, 2 k maps after the first convolution. Without: 16 maps there, no reduction.
        stem: ``imagenet`` (7x7/2, BN, ReLU, max-pooling) or ``cifar`` (one 3x3).
    """

    growth: int
    depths: tuple[int, ...]
    bc: bool = True
    stem: Literal["imagenet", "cifar"] = "imagenet"

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised as the authors' Torch code does."""
        return DenseNet(self, num_classes, shape[0])


class DenseLayer(nn.Sequential):
    """BN, ReLU, 3x3 (H of eq. 2), of a BC net behind BN, ReLU, 1x1. Maps NCHW to N, k, H, W."""

    def __init__(self, config: DenseNetConfig, in_channels: int) -> None:
        kernels = (
            ((4 * config.growth, 1), (config.growth, 3)) if config.bc else ((config.growth, 3),)
        )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (maps, kernel) in enumerate(kernels, 1):
            layers[f"norm{number}"] = nn.BatchNorm2d(in_channels)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"conv{number}"] = conv(in_channels, maps, kernel)
            in_channels = maps
        super().__init__(layers)


class DenseBlock(nn.Module):
    """Layers that each read everything before them (Fig. 1)."""

    def __init__(self, config: DenseNetConfig, in_channels: int, depth: int) -> None:
        super().__init__()
        for n in range(depth):
            self.add_module(
                f"denselayer{n + 1}", DenseLayer(config, in_channels + n * config.growth)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to N, C + depth k, H, W: what came in, then what each layer made of it."""
        features = [x]
        for layer in self.children():
            features.append(layer(x))
            x = torch.cat(features, 1)
        return x


class DenseNet(nn.Module):
    """Stem, dense blocks with transitions between them, BN, global average, linear (Table 1)."""

    legacy_keys = ((r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),)

    def __init__(self, config: DenseNetConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels = 2 * config.growth if config.bc else 16
        layers = _stem(config, in_channels, channels)
        for number, depth in enumerate(config.depths, 1):
            layers[f"denseblock{number}"] = DenseBlock(config, channels, depth)
            channels += depth * config.growth
            if number < len(config.depths):
                kept = channels // 2 if config.bc else channels
                layers[f"transition{number}"] = _transition(channels, kept)
                channels = kept
        layers[f"norm{len(config.depths) + 1}"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        init_relu_net(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        x = self.avgpool(F.relu(self.features(x))).flatten(1)
        logits: torch.Tensor = self.classifier(x)
        return logits


def _stem(config: DenseNetConfig, in_channels: int, maps: int) -> OrderedDict[str, nn.Module]:
    if config.stem == "cifar":
        return OrderedDict(conv0=conv(in_channels, maps, 3))
    return OrderedDict(
        conv0=conv(in_channels, maps, 7, 2),
        norm0=nn.BatchNorm2d(maps),
        relu0=nn.ReLU(),
        pool0=nn.MaxPool2d(3, 2, padding=1),
    )


def _transition(come: int, go: int) -> nn.Sequential:
    """BN, ReLU, 1x1 and average pooling of 2x2 (sec. 3, "Pooling layers")."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(come), relu=nn.ReLU(), conv=conv(come, go, 1), pool=nn.AvgPool2d(2)
        )
    )


_PAPER = Paper(2016, "Densely Connected Convolutional Networks", "https://arxiv.org/abs/1608.06993")
_README = "README of liuzhuang13/DenseNet"
_264 = "Table 1's depths, which are 265 weight layers; parameters named as torchvision would"
_PLAIN = "16 maps after the first convolution as in the paper; the authors' code has 2 k"


def _imagenet(
    depth: int, net: DenseNetConfig, counts: tuple[int, int, int], error: float | None = None
) -> Variant:
    return Variant(
        name=f"densenet{depth}",
        family="densenet",
        paper=_PAPER,
        net=net,
        counts=Counts(*counts),
        layout=f"torchvision:densenet{depth}" if depth != 264 else "",
        notes=_264 if depth == 264 else "",
        reported=f"{error} % top-1 error on ImageNet, 1 crop ({_README})" if error else "",
    )


def _cifar(
    growth: int, depth: int, params: int, macs: int, error: float, *, bc: bool = False
) -> Variant:
    # The first convolution, two transitions and the classifier; a bottleneck layer is two.
    layers = (depth - 4) // (6 if bc else 3)
    return Variant(
        name=f"densenet_{'bc_' if bc else ''}{depth}_k{growth}_cifar",
        family="densenet",
        paper=_PAPER,
        net=DenseNetConfig(growth=growth, depths=(layers,) * 3, bc=bc, stem="cifar"),
        counts=Counts(params, macs, depth),
        input=CIFAR.shape,
        num_classes=10,
        preprocess=CIFAR,
        notes="" if bc else _PLAIN,
        reported=f"{error:.2f} % error on CIFAR-10, flips and shifts ({_README})",
    )


_121 = DenseNetConfig(growth=32, depths=(6, 12, 24, 16))
_169 = DenseNetConfig(growth=32, depths=(6, 12, 32, 32))
_201 = DenseNetConfig(growth=32, depths=(6, 12, 48, 32))
_161 = DenseNetConfig(growth=48, depths=(6, 12, 36, 24))

VARIANTS = (
    _imagenet(121, _121, (7_978_856, 2_834_161_664, 121), 25.0),
    _imagenet(169, _169, (14_149_480, 3_359_843_328, 169), 23.6),
    _imagenet(201, _201, (20_013_928, 4_291_365_888, 201), 22.5),
    _imagenet(161, _161, (28_681_000, 7_727_907_072, 161), 22.2),
    _imagenet(
        264,
        DenseNetConfig(growth=32, depths=(6, 12, 64, 48)),
        (33_337_704, 5_751_653_376, 265),
    ),
    _cifar(12, 40, 1_019_722, 264_812_928, 5.24),
    _cifar(12, 100, 6_979_642, 1_769_516_448, 4.10),
    _cifar(24, 100, 27_249_082, 6_889_347_744, 3.74),
    _cifar(12, 100, 769_162, 287_929_692, 4.51, bc=True),
    _cifar(24, 250, 15_324_406, 5_418_785_724, 3.62, bc=True),
    _cifar(40, 190, 25_624_430, 9_301_945_740, 3.46, bc=True),
)
