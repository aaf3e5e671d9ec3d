"""Network In Network (Lin, Chen, Yan 2013, arXiv:1312.4400).

An mlpconv layer (sec. 3.1) is a convolution and two 1x1 convolutions, each with ReLU. The last
one has a map for each class, whose average is the logit (sec. 3.2, Fig. 2). ReLU is also behind
that one, in the authors' Caffe files as in all nets here: no logit is below 0.

The paper describes the net for CIFAR-10 only by its figure; its widths, and the net for ImageNet,
are those of the authors' Caffe files, which round pooled sizes up. The others are d2l's Gluon
NiN, which has AlexNet's first convolutions, and small ones after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from convexport.architectures.layers import CIFAR, init_relu_net
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

# In a row of maps: as many as there are classes.
_CLASSES = 0


class MlpConv(NamedTuple):
    """The maps of its three convolutions; kernel, stride and padding of the first."""

    maps: tuple[int, int, int]
    kernel: int
    stride: int = 1
    padding: int = 0

    def layers(self, channels: int, num_classes: int) -> list[nn.Module]:
        """Its convolutions, with ReLU behind each."""
        layers: list[nn.Module] = []
        for index, width in enumerate(self.maps):
            kernel, stride, padding = (1, 1, 0) if index else self[1:]
            maps = num_classes if width == _CLASSES else width
            layers += [nn.Conv2d(channels, maps, kernel, stride, padding), nn.ReLU()]
            channels = maps
        return layers


class Pool(NamedTuple):
    """Maxima or averages; ``ceil``: what is left at the border is pooled too."""

    kernel: int = 3
    stride: int = 2
    average: bool = False
    ceil: bool = False
    dropout: bool = False

    def layers(self) -> list[nn.Module]:
        """The pooling, perhaps with dropout behind it."""
        kind = nn.AvgPool2d if self.average else nn.MaxPool2d
        pool = kind(self.kernel, self.stride, ceil_mode=self.ceil)
        return [pool, nn.Dropout(0.5)] if self.dropout else [pool]


@dataclass(frozen=True)
class NiNConfig:
    """One net, from its first layer to the last before the global average."""

    layers: tuple[MlpConv | Pool, ...]

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for ReLU without BN."""
        return NiN(self, num_classes, shape[0])


class NiN(nn.Module):
    """Mlpconv layers and poolings, then the average of each class's map."""

    def __init__(self, config: NiNConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels, features = in_channels, nn.Sequential()
        for layer in config.layers:
            if isinstance(layer, Pool):
                features.extend(layer.layers())
            else:
                features.append(nn.Sequential(*layer.layers(channels, num_classes)))
                channels = layer.maps[-1]
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        init_relu_net(self, fan="in")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        means: torch.Tensor = self.avgpool(self.features(x))
        return means.flatten(1)


_D2L = (
    MlpConv((96, 96, 96), 11, stride=4),
    Pool(),
    MlpConv((256, 256, 256), 5, padding=2),
    Pool(),
    MlpConv((384, 384, 384), 3, padding=1),
    Pool(dropout=True),
    MlpConv((_CLASSES, _CLASSES, _CLASSES), 3, padding=1),
)
_SMALL = (
    MlpConv((24, 24, 24), 3),
    Pool(2, 1),
    MlpConv((64, 64, 64), 3, stride=2, padding=2),
    Pool(2, 1),
    MlpConv((96, 96, 96), 4, stride=2, padding=1),
    Pool(dropout=True),
    MlpConv((_CLASSES, _CLASSES, _CLASSES), 3, padding=1),
)
_CIFAR10 = (
    MlpConv((192, 160, 96), 5, padding=2),
    Pool(ceil=True, dropout=True),
    MlpConv((192, 192, 192), 5, padding=2),
    Pool(average=True, ceil=True, dropout=True),
    MlpConv((192, 192, _CLASSES), 3, padding=1),
)
_CAFFE = (
    MlpConv((96, 96, 96), 11, stride=4),
    Pool(ceil=True),
    MlpConv((256, 256, 256), 5, padding=2),
    Pool(ceil=True),
    MlpConv((384, 384, 384), 3, padding=1),
    Pool(ceil=True, dropout=True),
    MlpConv((1024, 1024, _CLASSES), 3, padding=1),
)


def _row(
    name: str, layers: tuple[MlpConv | Pool, ...], counts: Counts, notes: str, **more: Any
) -> Variant:
    paper = Paper(2013, "Network In Network", "https://arxiv.org/abs/1312.4400")
    return Variant(
        name=name,
        family="nin",
        paper=paper,
        net=NiNConfig(layers),
        counts=counts,
        notes=notes,
        **more,
    )


_GREY = Preprocess(crop=(28, 28), resize=(28, 28), channels="L", mean=(0.5,), std=(0.5,))

VARIANTS = (
    _row(
        "nin",
        _D2L,
        Counts(7_439_608, 965_572_864, 12),
        "d2l's Gluon NiN; all three convolutions of the last block have a map for each class",
    ),
    _row(
        "nin_keras",
        _D2L,
        Counts(2_015_398, 830_041_864, 12),
        "the same in a Keras notebook, which adds the dropout to another net by mistake",
        num_classes=10,
    ),
    _row(
        "nin_small",
        _SMALL,
        Counts(149_542, 9_477_760, 12),
        "a Gluon net for Fashion-MNIST, after d2l's",
        input=_GREY.shape,
        num_classes=10,
        preprocess=_GREY,
    ),
    _row(
        "nin_cifar10",
        _CIFAR10,
        Counts(966_986, 222_486_528, 9),
        "widths of the authors' Caffe file; CIFAR's means stand for the paper's whitening",
        input=CIFAR.shape,
        num_classes=10,
        preprocess=CIFAR,
    ),
    _row(
        "nin_imagenet_caffe",
        _CAFFE,
        Counts(7_595_176, 1_100_188_800, 12),
        "the authors' net in Caffe's model zoo, which the paper does not describe",
    ),
)
