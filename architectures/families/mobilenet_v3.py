"""MobileNet v3 (Howard et al. 2019, "Searching for MobileNetV3", arXiv:1905.02244, Tables 1 and 2).

Parameters are named as in torchvision, whose checkpoints load unchanged. As there and in the
authors' code, a squeeze has a quarter of the expanded maps, rounded to a multiple of 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from convexport.architectures.families.inverted_residual import (
    SLOW_NORM,
    BlockConfig,
    InvertedResidual,
    InvertedResidualNet,
    conv_norm,
    make_divisible,
)
from convexport.architectures.layers import SqueezeExcitation
from convexport.architectures.variant import Counts, Paper, Shape, Variant

# Kernel, expanded maps, maps out, squeeze-and-excitation, non-linearity, stride.
Row = tuple[int, int, int, bool, str, int]

_ACTIVATIONS = {"RE": nn.ReLU, "HS": nn.Hardswish}

_LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "RE", 1),
    (3, 64, 24, False, "RE", 2),
    (3, 72, 24, False, "RE", 1),
    (5, 72, 40, True, "RE", 2),
    (5, 120, 40, True, "RE", 1),
    (5, 120, 40, True, "RE", 1),
    (3, 240, 80, False, "HS", 2),
    (3, 200, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 480, 112, True, "HS", 1),
    (3, 672, 112, True, "HS", 1),
    (5, 672, 160, True, "HS", 2),
    (5, 960, 160, True, "HS", 1),
    (5, 960, 160, True, "HS", 1),
)
_SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "RE", 2),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
    (5, 576, 96, True, "HS", 1),
)


@dataclass(frozen=True)
class MobileNetV3Config:
    """One net.

    Attributes:
        blocks: the rows ``bneck`` of Table 1 or 2.
        hidden: units of the layer before the classifier.
        width: the multiplier of sec. 6.1.1; every number of maps and units is scaled by it.
    """

    blocks: tuple[Row, ...]
    hidden: int
    width: float = 1.0

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers."""
        swish = partial(conv_norm, norm=SLOW_NORM, activation=nn.Hardswish)
        channels = make_divisible(16 * self.width)
        features: list[nn.Module] = [swish(shape[0], channels, 3, 2)]
        for row in self.blocks:
            block = _block(channels, row, self.width)
            features.append(InvertedResidual(block))
            channels = block.out_channels
        features.append(swish(channels, 6 * channels, 1))
        hidden = make_divisible(self.hidden * self.width)
        classifier = [
            nn.Linear(6 * channels, hidden),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(hidden, num_classes),
        ]
        return InvertedResidualNet(features, classifier)


def _block(in_channels: int, row: Row, width: float) -> BlockConfig:
    kernel, inner, outer, squeezes, activation, stride = row
    expanded, out_channels = (make_divisible(maps * width) for maps in (inner, outer))
    return BlockConfig(
        in_channels=in_channels,
        expanded=expanded,
        out_channels=out_channels,
        kernel=kernel,
        stride=stride,
        activation=_ACTIVATIONS[activation],
        norm=SLOW_NORM,
        excitation=partial(_excitation, expanded) if squeezes else None,
    )


def _excitation(channels: int) -> SqueezeExcitation:
    return SqueezeExcitation(channels, make_divisible(channels // 4), gate=nn.Hardsigmoid())


def _row(name: str, net: MobileNetV3Config, counts: Counts) -> Variant:
    return Variant(
        name=name,
        family="mobilenet",
        paper=Paper(2019, "Searching for MobileNetV3", "https://arxiv.org/abs/1905.02244"),
        net=net,
        counts=counts,
        layout=f"torchvision:{name}" if net.width == 1.0 else "",
        notes="BN eps 1e-3; the paper's 1x1 convolutions behind the pooling are linear layers",
        digits=net.width == 0.5,
    )


VARIANTS = (
    _row("mobilenet_v3_large", MobileNetV3Config(_LARGE, 1280), Counts(5_483_032, 216_589_760, 64)),
    _row("mobilenet_v3_small", MobileNetV3Config(_SMALL, 1024), Counts(2_542_856, 56_510_400, 54)),
    _row(
        "mobilenet_v3_small_050",
        MobileNetV3Config(_SMALL, 1024, 0.5),
        Counts(917_264, 18_970_736, 54),
    ),
)
