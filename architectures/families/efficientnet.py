"""EfficientNet (Tan, Le 2019, arXiv:1905.11946): one net of Table 1, scaled in all dimensions.

Sec. 3.3 scales depth, width and resolution together; the coefficients of B1 to B7 are those of
the authors' code, rounded, as the paper gives none. Parameters are named as in torchvision, whose
checkpoints load unchanged. Padding is symmetric, as there; the authors' TensorFlow code pads
strided convolutions at the bottom and right alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import nn

from convexport.architectures.families.inverted_residual import (
    SLOW_NORM,
    BlockConfig,
    InvertedResidual,
    InvertedResidualNet,
    Norm,
    conv_norm,
    make_divisible,
)
from convexport.architectures.layers import SqueezeExcitation
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

# Table 1, stages 2 to 8: expansion, kernel, stride of the first block, maps, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig:
    """One net.

    Attributes:
        width: what the maps of Table 1 are multiplied by.
        depth: what its numbers of blocks are multiplied by.
        dropout: before the classifier.
        stochastic_depth: probability that training skips the last block; it grows from 0 at the
            first. Sec. 5.2 keeps 0.8.
        norm: behind each convolution.
    """

    width: float
    depth: float
    dropout: float
    stochastic_depth: float = 0.2
    norm: Norm = nn.BatchNorm2d

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers."""
        swish = partial(conv_norm, norm=self.norm, activation=nn.SiLU)
        blocks = self._blocks()
        features: list[nn.Module] = [swish(shape[0], blocks[0][0].in_channels, 3, 2)]
        features += [nn.Sequential(*map(InvertedResidual, stage)) for stage in blocks]
        last = make_divisible(1280 * self.width)
        features.append(swish(blocks[-1][-1].out_channels, last, 1))
        return InvertedResidualNet(
            features, [nn.Dropout(self.dropout), nn.Linear(last, num_classes)]
        )

    def _blocks(self) -> list[list[BlockConfig]]:
        """The blocks of each stage."""
        depths = [math.ceil(depth * self.depth) for *_, depth in _STAGES]
        channels, stages, done = make_divisible(32 * self.width), [], 0
        for (expansion, kernel, stride, maps, _), depth in zip(_STAGES, depths, strict=True):
            stage = []
            for n in range(depth):
                expanded = expansion * channels
                # A quarter of what the block is given, not of what it expands that to.
                excitation = partial(_excitation, expanded, channels // 4)
                block = BlockConfig(
                    in_channels=channels,
                    expanded=expanded,
                    out_channels=make_divisible(maps * self.width),
                    kernel=kernel,
                    stride=1 if n else stride,
                    activation=nn.SiLU,
                    norm=self.norm,
                    excitation=excitation,
                    drop=self.stochastic_depth * done / sum(depths),
                )
                stage.append(block)
                channels, done = block.out_channels, done + 1
            stages.append(stage)
        return stages


def _excitation(channels: int, squeezed: int) -> SqueezeExcitation:
    return SqueezeExcitation(channels, squeezed, activation=nn.SiLU())


_TITLE = "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
_PAPER = Paper(2019, _TITLE, "https://arxiv.org/abs/1905.11946")


def _row(
    number: int,
    scale: tuple[float, float, int, float],
    resize: int,
    counts: tuple[int, int, int],
    norm: Norm = nn.BatchNorm2d,
) -> Variant:
    width, depth, resolution, dropout = scale
    eps = "1e-5" if norm is nn.BatchNorm2d else "1e-3"
    notes = f"symmetric padding and BN eps {eps}, as in torchvision"
    return Variant(
        name=f"efficientnet_b{number}",
        family="efficientnet",
        paper=_PAPER,
        net=EfficientNetConfig(width=width, depth=depth, dropout=dropout, norm=norm),
        counts=Counts(*counts),
        input=(3, resolution, resolution),
        preprocess=Preprocess(
            crop=(resolution, resolution), resize=(resize,), interpolation="bicubic"
        ),
        layout=f"torchvision:efficientnet_b{number}",
        notes=f"{notes}; at 288 as its weights, the paper: 260" if number == 2 else notes,
    )


# Width, depth, resolution, dropout; the resize of torchvision's weights; the counts.
VARIANTS = (
    _row(0, (1.0, 1.0, 224, 0.2), 256, (5_288_548, 385_814_752, 82)),
    _row(1, (1.0, 1.1, 240, 0.2), 256, (7_794_184, 686_802_832, 116)),
    _row(2, (1.1, 1.2, 288, 0.3), 288, (9_109_994, 1_087_529_456, 116)),
    _row(3, (1.2, 1.4, 300, 0.3), 320, (12_233_232, 1_827_141_392, 131)),
    _row(4, (1.4, 1.8, 380, 0.4), 384, (19_341_616, 4_393_771_024, 161)),
    _row(5, (1.6, 2.2, 456, 0.4), 456, (30_389_784, 10_266_384_752, 195), SLOW_NORM),
    _row(6, (1.8, 2.6, 528, 0.5), 528, (43_040_704, 19_067_593_536, 225), SLOW_NORM),
    _row(7, (2.0, 3.1, 600, 0.5), 600, (66_347_960, 37_745_884_192, 274), SLOW_NORM),
)
