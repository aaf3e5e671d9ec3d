"""Inception-ResNet v1 and v2 (Szegedy, Ioffe, Vanhoucke, Alemi 2016, arXiv:1602.07261, sec. 3.2
and Fig. 10-19): Inception modules as the branches of residual blocks.

Three nets: v1 as drawn; v2 as drawn (``_paper``), for which concatenation gives 1152 and 2144
maps where Fig. 17 and 19 print 1154 and 2048; and v2 as the authors released it, with another
stem and twice the blocks, under timm's parameter names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.families.inception_blocks import (
    HALVE,
    Branch,
    Branches,
    Conv,
    Row,
    build,
    halve,
    init_inception,
    numbered,
)
from convexport.architectures.families.inception_v4 import (
    AVERAGE,
    PAPER,
    STEM,
    centred,
    reduction_a,
)
from convexport.architectures.variant import Counts, Shape, Variant


@dataclass(frozen=True)
class Residual:
    """Equal residual blocks.

    Attributes:
        count: how many.
        scale: of what is added (sec. 3.3: 0.1 to 0.3; the numbers are from the authors' code).
        branches: of each.
        rectify: whether ReLU follows the sum.
    """

    count: int
    scale: float
    branches: tuple[Branch, ...]
    rectify: bool = True


def blocks_a(count: int, double: tuple[int, int]) -> Residual:
    """Fig. 10 and 16, 35x35; ``double`` are the two 3x3 of the third branch."""
    first, second = double
    chains = (
        (Conv(32),),
        (Conv(32), Conv(32, 3)),
        (Conv(32), Conv(first, 3), Conv(second, 3)),
    )
    return Residual(count, 0.17, numbered(*chains))


def blocks_b(count: int, plain: int, oblong: tuple[int, int]) -> Residual:
    """Fig. 11 and 17, 17x17; ``oblong`` are the 1x7 and the 7x1."""
    first, second = oblong
    chains = (Conv(plain),), (Conv(128), Conv(first, (1, 7)), Conv(second, (7, 1)))
    return Residual(count, 0.10, numbered(*chains))


def blocks_c(count: int, oblong: tuple[int, int]) -> Residual:
    """Fig. 13 and 19, 8x8; ``oblong`` are the 1x3 and the 3x1."""
    first, second = oblong
    chains = (Conv(192),), (Conv(192), Conv(first, (1, 3)), Conv(second, (3, 1)))
    return Residual(count, 0.20, numbered(*chains))


def reduction_b(second: int, double: tuple[int, int]) -> tuple[Branch, ...]:
    """Fig. 12 and 18, 17x17 to 8x8."""
    return numbered(
        (Conv(256), halve(384)),
        (Conv(256), halve(second)),
        (Conv(256), Conv(double[0], 3), halve(double[1])),
        (HALVE,),
    )


# Fig. 14 as far as 71x71, which the released v2 shares.
_STEM: dict[str, Row | Residual] = {
    "conv2d_1a": halve(32),
    "conv2d_2a": Conv(32, 3, valid=True),
    "conv2d_2b": Conv(64, 3),
    "maxpool_3a": HALVE,
    "conv2d_3b": Conv(80),
    "conv2d_4a": Conv(192, 3, valid=True),
}
_MIXED_5B = numbered(
    (Conv(96),),
    (Conv(48), Conv(64, 5)),
    (Conv(64), Conv(96, 3), Conv(96, 3)),
    (AVERAGE, Conv(64)),
)
_ROWS: dict[str, dict[str, Row | Residual]] = {
    "v1": {
        **_STEM,
        "conv2d_4b": halve(256),
        "repeat": blocks_a(5, (32, 32)),
        "mixed_6a": reduction_a((192, 192, 256), 384),
        "repeat_1": blocks_b(10, 128, (128, 128)),
        "mixed_7a": reduction_b(256, (256, 256)),
        "repeat_2": blocks_c(5, (192, 192)),
    },
    "v2": {
        **{f"stem_{number}": row for number, row in enumerate(STEM)},
        "repeat": blocks_a(5, (48, 64)),
        "mixed_6a": reduction_a((256, 256, 384), 384),
        "repeat_1": blocks_b(10, 192, (160, 192)),
        "mixed_7a": reduction_b(288, (288, 320)),
        "repeat_2": blocks_c(5, (224, 256)),
    },
    "v2 released": {
        **_STEM,
        "maxpool_5a": HALVE,
        "mixed_5b": _MIXED_5B,
        "repeat": blocks_a(10, (48, 64)),
        "mixed_6a": reduction_a((256, 256, 384), 384),
        "repeat_1": blocks_b(20, 192, (160, 192)),
        "mixed_7a": reduction_b(288, (288, 320)),
        "repeat_2": blocks_c(9, (224, 256)),
        "block8": replace(blocks_c(1, (224, 256)), scale=1.0, rectify=False),
        "conv2d_7b": Conv(1536),
    },
}


@dataclass(frozen=True)
class InceptionResNetConfig:
    """One net: which of the tables above it is."""

    table: Literal["v1", "v2", "v2 released"]

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers."""
        return InceptionResNet(self, num_classes, shape[0])


class ResidualBlock(Branches):
    """Branches, a 1x1 without activation back to the maps of the input, and the sum (Fig. 10)."""

    def __init__(self, channels: int, row: Residual) -> None:
        super().__init__(channels, row.branches)
        self.conv2d = nn.Conv2d(self.out_channels, channels, 1)
        self.out_channels = channels
        self.scale, self.rectify = row.scale, row.rectify

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW of the same shape."""
        x = x + self.scale * self.conv2d(super().forward(x))
        return F.relu(x) if self.rectify else x


class InceptionResNet(nn.Module):
    """Fig. 15: stem, 35x35 blocks, reduction, 17x17 blocks, reduction, 8x8 blocks, linear."""

    def __init__(self, config: InceptionResNetConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.rows = tuple(_ROWS[config.table])
        channels = in_channels
        for name, row in _ROWS[config.table].items():
            if isinstance(row, Residual):
                self.add_module(name, _residual(channels, row))
            else:
                module, channels = build(channels, row)
                self.add_module(name, module)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.head_drop = nn.Dropout(0.2)
        self.classif = nn.Linear(channels, num_classes)
        init_inception(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        for name in self.rows:
            x = getattr(self, name)(x)
        logits: torch.Tensor = self.classif(self.head_drop(self.global_pool(x).flatten(1)))
        return logits


def _residual(channels: int, row: Residual) -> nn.Module:
    blocks = [ResidualBlock(channels, row) for _ in range(row.count)]
    return nn.Sequential(*blocks) if len(blocks) > 1 else blocks[0]


def _row(name: str, net: InceptionResNetConfig, counts: Counts, **more: Any) -> Variant:
    return Variant(
        name=name,
        family="inception_v4",
        paper=PAPER,
        net=net,
        counts=counts,
        input=(3, 299, 299),
        preprocess=centred(333),
        **more,
    )


VARIANTS = (
    _row(
        "inception_resnet_v1",
        InceptionResNetConfig("v1"),
        Counts(22_756_328, 6_206_361_696, 128),
        notes="as drawn; public ports have a sixth block at 8x8, and those for faces another head",
    ),
    _row(
        "inception_resnet_v2",
        InceptionResNetConfig("v2 released"),
        Counts(55_843_464, 13_155_794_016, 245),
        layout="timm:inception_resnet_v2",
        notes="the net that the authors released: stem and first module of Inception-v3's kind, "
        "10/20/10 blocks; inception_resnet_v2_paper is the one that the paper draws",
    ),
    _row(
        "inception_resnet_v2_paper",
        InceptionResNetConfig("v2"),
        Counts(32_433_928, 9_257_953_632, 133),
        notes="as drawn, but 1152 and 2144 maps, which its concatenations give (printed: 1154, "
        "2048)",
    ),
)
