"""AlexNet (Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep ...", NIPS).

Fig. 2 and sec. 3.2 to 3.5. Three nets go by the name:

- the paper's, with two towers (here as groups of 2) and response normalisation;
- torchvision's single tower without it, which is Krizhevsky 2014, "One weird trick for
  parallelizing convolutional neural networks", arXiv:1404.5997; its checkpoints load unchanged;
- the one of a Keras notebook of notable architectures: neither towers nor normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from convexport.architectures.layers import LocalResponseNorm, init_relu_net, output_shape
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

_HIDDEN = 4096

# What may follow a convolution: overlapping 3x3 maxima (sec. 3.4), and the response normalisation
# of sec. 3.3 with k = 2, n = 5, alpha = 1e-4, beta = 0.75. There alpha is not divided by n.
_BEHIND: dict[str, Callable[[], nn.Module]] = {
    "pool": lambda: nn.MaxPool2d(3, 2),
    "padded pool": lambda: nn.MaxPool2d(3, 2, padding=1),
    "norm": lambda: LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0),
}


class Layer(NamedTuple):
    """A convolution, its ReLU, and what comes behind it."""

    maps: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    behind: tuple[Literal["pool", "padded pool", "norm"], ...] = ()


@dataclass(frozen=True)
class AlexNetConfig:
    """One net.

    Attributes:
        layers: its convolutions.
        torchvision: maps of any size are averaged to 6x6, and dropout comes before the hidden
            layers instead of behind them. Otherwise the first of these has the size of the maps.
    """

    layers: tuple[Layer, ...]
    torchvision: bool = False

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for ReLU (the paper's deviation of 0.01 vanishes with depth)."""
        return AlexNet(self, num_classes, shape)


class AlexNet(nn.Module):
    """Convolutions, two hidden layers with dropout, linear."""

    def __init__(self, config: AlexNetConfig, num_classes: int, shape: Shape) -> None:
        super().__init__()
        channels, features = shape[0], nn.Sequential()
        for layer in config.layers:
            features.append(
                nn.Conv2d(
                    channels,
                    layer.maps,
                    layer.kernel,
                    layer.stride,
                    layer.padding,
                    groups=layer.groups,
                )
            )
            features.extend([nn.ReLU(), *(_BEHIND[name]() for name in layer.behind)])
            channels = layer.maps
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(6) if config.torchvision else nn.Identity()
        maps = output_shape(nn.Sequential(features, self.avgpool), shape)
        hidden = hidden_layers(prod(maps))
        if config.torchvision:
            hidden = [*hidden[-1:], *hidden[:-1]]
        self.classifier = nn.Sequential(*hidden, nn.Linear(_HIDDEN, num_classes))
        init_relu_net(self, fan="in")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        logits: torch.Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def hidden_layers(in_features: int) -> list[nn.Module]:
    """Two layers of 4096 units; sec. 4.2 drops half of their outputs in training."""
    first, second = nn.Linear(in_features, _HIDDEN), nn.Linear(_HIDDEN, _HIDDEN)
    return [first, nn.ReLU(), nn.Dropout(0.5), second, nn.ReLU(), nn.Dropout(0.5)]


_PAPER = Paper(
    2012,
    "ImageNet Classification with Deep Convolutional Neural Networks",
    "https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks",
)

_ONE_TOWER = (
    Layer(64, 11, stride=4, padding=2, behind=("pool",)),
    Layer(192, 5, padding=2, behind=("pool",)),
    Layer(384, 3, padding=1),
    Layer(256, 3, padding=1),
    Layer(256, 3, padding=1, behind=("pool",)),
)
# Fig. 2: the second, fourth and fifth convolution see only the maps on their own GPU.
_TWO_TOWERS = (
    Layer(96, 11, stride=4, behind=("norm", "pool")),
    Layer(256, 5, padding=2, groups=2, behind=("norm", "pool")),
    Layer(384, 3, padding=1),
    Layer(384, 3, padding=1, groups=2),
    Layer(256, 3, padding=1, groups=2, behind=("pool",)),
)
_NOTEBOOK = (
    Layer(96, 11, stride=4, behind=("pool",)),
    Layer(256, 5, padding=2, behind=("pool",)),
    Layer(384, 3, padding=1),
    Layer(384, 3, padding=1),
    Layer(256, 3, padding=1, behind=("pool",)),
)


def _row(name: str, net: AlexNetConfig, counts: Counts, **more: Any) -> Variant:
    more = {"paper": _PAPER, **more}
    return Variant(name=name, family="alexnet", net=net, counts=counts, **more)


# The paper prints 224, from which its 55x55 maps do not come without padding.
_227 = {"input": (3, 227, 227), "preprocess": Preprocess(crop=(227, 227))}

VARIANTS = (
    _row(
        "alexnet",
        AlexNetConfig(_ONE_TOWER, torchvision=True),
        Counts(61_100_840, 714_188_480, 8),
        paper=Paper(
            2014,
            "One weird trick for parallelizing convolutional neural networks",
            "https://arxiv.org/abs/1404.5997",
        ),
        layout="torchvision:alexnet",
        notes="one tower, other widths than in 2012, no groups, no normalisation",
    ),
    _row(
        "alexnet_original",
        AlexNetConfig(_TWO_TOWERS),
        Counts(60_965_224, 724_406_816, 8),
        notes="input 227 (the paper prints 224); two GPUs as groups of 2; alpha is 5 times the "
        "paper's because ONNX and PyTorch divide it by n",
        reported="57.1 / 80.2 % right on ImageNet, centre crop, by Caffe's bvlc_alexnet, whose "
        "normalisation has alpha 1e-4 over n and k = 1 (its README)",
        **_227,
    ),
    _row(
        "alexnet_keras",
        AlexNetConfig(_NOTEBOOK),
        Counts(58_322_314, 1_131_201_056, 8),
        num_classes=10,
        notes="a Keras notebook's: no groups, no normalisation; Keras flattens H, W, C, so that "
        "its first dense layer must be permuted",
        **_227,
    ),
)
