"""Inception-v4 (Szegedy, Ioffe, Vanhoucke, Alemi 2016, "Inception-v4, Inception-ResNet and the
Impact of Residual Connections on Learning", arXiv:1602.07261, sec. 3.1 and Fig. 3-9).

Parameters are named as in timm's inception_v4, whose checkpoints load unchanged. Averages leave
the padding out, as in the authors' TensorFlow code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from convexport.architectures.families.inception_blocks import (
    HALVE,
    Branch,
    Conv,
    Fork,
    Pool,
    Row,
    build,
    halve,
    init_inception,
    numbered,
)
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

AVERAGE = Pool("exclusive")

PAPER = Paper(
    2016,
    "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
    "https://arxiv.org/abs/1602.07261",
)

# Fig. 3: 299x299 to 384 maps of 35x35.
STEM: tuple[Row, ...] = (
    halve(32),
    Conv(32, 3, valid=True),
    Conv(64, 3),
    ({"maxpool": HALVE}, {"conv": halve(96)}),
    numbered(
        (Conv(64), Conv(96, 3, valid=True)),
        (Conv(64), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, 3, valid=True)),
    ),
    ({"conv": halve(192)}, {"maxpool": HALVE}),
)


def reduction_a(klm: tuple[int, int, int], n: int) -> tuple[Branch, ...]:
    """Fig. 7, 35x35 to 17x17; the letters are those of Table 1."""
    return numbered((halve(n),), (Conv(klm[0]), Conv(klm[1], 3), halve(klm[2])), (HALVE,))


# Fig. 4, 35x35.
_MODULE_A = numbered(
    (Conv(96),),
    (Conv(64), Conv(96, 3)),
    (Conv(64), Conv(96, 3), Conv(96, 3)),
    (AVERAGE, Conv(96)),
)
# Fig. 5, 17x17.
_MODULE_B = numbered(
    (Conv(384),),
    (Conv(192), Conv(224, (1, 7)), Conv(256, (7, 1))),
    (Conv(192), Conv(192, (7, 1)), Conv(224, (1, 7)), Conv(224, (7, 1)), Conv(256, (1, 7))),
    (AVERAGE, Conv(128)),
)
# Fig. 8, 17x17 to 8x8.
_REDUCTION_B = numbered(
    (Conv(192), halve(192)),
    (Conv(256), Conv(256, (1, 7)), Conv(320, (7, 1)), halve(320)),
    (HALVE,),
)
# Fig. 6, 8x8.
_MODULE_C: tuple[Branch, ...] = (
    {"branch0": Conv(256)},
    {"branch1_0": Conv(384), "branch1_1": Fork(256)},
    {
        "branch2_0": Conv(384),
        "branch2_1": Conv(448, (3, 1)),
        "branch2_2": Conv(512, (1, 3)),
        "branch2_3": Fork(256),
    },
    {"branch3.0": AVERAGE, "branch3.1": Conv(256)},
)

# Fig. 9.
_ROWS: tuple[Row, ...] = (
    *STEM,
    *(_MODULE_A,) * 4,
    reduction_a((192, 224, 256), 384),
    *(_MODULE_B,) * 7,
    _REDUCTION_B,
    *(_MODULE_C,) * 3,
)


@dataclass(frozen=True)
class InceptionV4Config:
    """Inception-v4 has nothing to configure."""

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers."""
        return InceptionV4(num_classes, shape[0])


class InceptionV4(nn.Module):
    """Fig. 9: stem, 4 A, reduction, 7 B, reduction, 3 C, average, linear."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels = in_channels
        self.features = nn.Sequential()
        for row in _ROWS:
            module, channels = build(channels, row)
            self.features.append(module)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.head_drop = nn.Dropout(0.2)
        self.last_linear = nn.Linear(channels, num_classes)
        init_inception(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        x = self.global_pool(self.features(x)).flatten(1)
        logits: torch.Tensor = self.last_linear(self.head_drop(x))
        return logits


def centred(resize: int) -> Preprocess:
    """The preprocess of these nets in timm."""
    return Preprocess(
        crop=(299, 299),
        resize=(resize,),
        interpolation="bicubic",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )


VARIANTS = (
    Variant(
        name="inception_v4",
        family="inception_v4",
        paper=PAPER,
        net=InceptionV4Config(),
        counts=Counts(42_679_816, 12_253_974_624, 150),
        input=(3, 299, 299),
        preprocess=centred(341),
        layout="timm:inception_v4",
        notes="averages leave the padding out, as in the authors' TensorFlow code",
    ),
)
