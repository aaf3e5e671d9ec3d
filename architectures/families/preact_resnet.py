"""Pre-activation ResNet, and the Wide ResNets for CIFAR, which are built of the same unit.

- He, Zhang, Ren, Sun 2016, "Identity Mappings in Deep Residual Networks", arXiv:1603.05027:
  sec. 4.1 and Fig. 4e (full pre-activation), appendix (the first and the last activation).
- Zagoruyko, Komodakis 2016, "Wide Residual Networks", arXiv:1605.07146: Table 1 and sec. 3.

Parameters are named as in timm's resnetv2, whose checkpoints load unchanged; its classifier is a
1x1 convolution. There max-pooling comes before the first BN and ReLU, in the authors' nets behind
them: same parameters, another function.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import CIFAR, conv, damp, init_relu_net
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess


@dataclass(frozen=True, kw_only=True)
class PreActResNetConfig:
    """One net.

    Attributes:
        block: ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1).
        depths: units of each stage.
        widths: feature maps of each stage, a bottleneck's output having four times as many.
        stem_width: feature maps of the first convolution.
        stem: ``imagenet`` (7x7/2, max-pooling), ``activated`` (7x7/2, BN, ReLU, max-pooling, then
            a first unit that begins with its convolution) or ``cifar`` (one 3x3).
        stride_first: a bottleneck's stride is on its first 1x1 instead of its 3x3.
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_width: int = 64
    stem: Literal["imagenet", "activated", "cifar"] = "imagenet"
    stride_first: bool = False

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised as the authors' Torch code does, its branches damped."""
        return PreActResNet(self, num_classes, shape[0])


class PreActUnit(nn.Module):
    """BN, ReLU and convolution in turn, and the shortcut (Fig. 4e).

    The identity carries what came in. A projection, where the shape changes, takes what the
    first BN and ReLU made of it.
    """

    def __init__(self, convs: list[nn.Conv2d], stride: int, *, activated: bool) -> None:
        super().__init__()
        come, go = convs[0].in_channels, convs[-1].out_channels
        same = stride == 1 and come == go
        self.downsample = None if same else _named(conv=conv(come, go, 1, stride))
        self.norm1 = None if activated else nn.BatchNorm2d(come)
        self.conv1 = convs[0]
        self.later = tuple((f"norm{n}", f"conv{n}") for n in range(2, len(convs) + 1))
        for (norm_name, conv_name), layer in zip(self.later, convs[1:], strict=True):
            self.add_module(norm_name, nn.BatchNorm2d(layer.in_channels))
            self.add_module(conv_name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``F(active) + x``, or ``F(active) + projection(active)``."""
        active = x if self.norm1 is None else F.relu(self.norm1(x))
        out = self.conv1(active)
        for norm, layer in self.later:
            out = getattr(self, layer)(F.relu(getattr(self, norm)(out)))
        shortcut = x if self.downsample is None else self.downsample(active)
        total: torch.Tensor = out + shortcut
        return total


class PreActResNet(nn.Sequential):
    """Stem, stages that halve the size from the second on, last BN and ReLU, average, classifier.

    Maps images NCHW to logits (N, classes).
    """

    def __init__(self, config: PreActResNetConfig, num_classes: int, in_channels: int) -> None:
        expansion = 4 if config.block == "bottleneck" else 1
        channels = [config.stem_width, *(width * expansion for width in config.widths)]
        stages = []
        for index, (come, go) in enumerate(pairwise(channels)):
            units = []
            for n in range(config.depths[index]):
                stride = 2 if index and not n else 1
                convs = _convs(config, go if n else come, config.widths[index], stride)
                activated = config.stem == "activated" and index == n == 0
                units.append(PreActUnit(convs, stride, activated=activated))
            stages.append(_named(blocks=nn.Sequential(*units)))
        classifier = nn.Conv2d(channels[-1], num_classes, 1)
        super().__init__(
            OrderedDict(
                stem=_stem(config, in_channels),
                stages=nn.Sequential(*stages),
                norm=nn.BatchNorm2d(channels[-1]),
                act=nn.ReLU(),
                head=_named(
                    global_pool=nn.AdaptiveAvgPool2d(1), fc=classifier, flatten=nn.Flatten(1)
                ),
            )
        )
        init_relu_net(self)
        # No ReLU follows: the variance of a linear layer.
        nn.init.normal_(classifier.weight, std=1 / math.sqrt(channels[-1]))
        damp([getattr(m, m.later[-1][1]) for m in self.modules() if isinstance(m, PreActUnit)])


def _named(**children: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(children))


def _stem(config: PreActResNetConfig, in_channels: int) -> nn.Sequential:
    width = config.stem_width
    if config.stem == "cifar":
        return _named(conv=conv(in_channels, width, 3))
    first, pool = conv(in_channels, width, 7, 2), nn.MaxPool2d(3, 2, padding=1)
    if config.stem == "imagenet":
        return _named(conv=first, pool=pool)
    return _named(conv=first, norm=nn.BatchNorm2d(width), act=nn.ReLU(), pool=pool)


def _convs(
    config: PreActResNetConfig, in_channels: int, width: int, stride: int
) -> list[nn.Conv2d]:
    if config.block == "basic":
        return [conv(in_channels, width, 3, stride), conv(width, width, 3)]
    first, second = (stride, 1) if config.stride_first else (1, stride)
    return [
        conv(in_channels, width, 1, first),
        conv(width, width, 3, second),
        conv(width, 4 * width, 1),
    ]


_PAPERS = {
    "preact_resnet": Paper(
        2016, "Identity Mappings in Deep Residual Networks", "https://arxiv.org/abs/1603.05027"
    ),
    "wide_resnet": Paper(2016, "Wide Residual Networks", "https://arxiv.org/abs/1605.07146"),
}
_TIMM = "as in timm max-pooling before the first BN and ReLU (the authors: behind), stride on 3x3"
_TORCH = "as in fb.resnet.torch: BN and ReLU behind the first convolution, stride on the 3x3"
_CIFAR_NOTES = (
    "{}as in the authors' resnet-pre-act.lua 1x1 projections, {}the first BN and ReLU before the "
    "shortcut only where the shape changes (the paper: in the very first unit too)"
)
_WIDE_NOTES = "the name counts the three projections too; without dropout"
_1K_README = "% error on CIFAR-10 (README of KaimingHe/resnet-1k-layers)"
_WIDE_README = "% error on CIFAR-10, flips and shifts (README of szagoruyko/wide-residual-networks)"


def _imagenet(
    depth: int, net: PreActResNetConfig, counts: tuple[int, int, int], preprocess: Preprocess
) -> Variant:
    public = net.stem == "imagenet"
    return Variant(
        name=f"preact_resnet{depth}",
        family="preact_resnet",
        paper=_PAPERS["preact_resnet"],
        net=net,
        counts=Counts(*counts),
        preprocess=preprocess,
        layout=f"timm:resnetv2_{depth}" if public else "",
        notes=_TIMM if public else _TORCH,
    )


def _cifar(
    name: str, net: PreActResNetConfig, counts: tuple[int, int, int], notes: str, reported: str = ""
) -> Variant:
    family = "wide_resnet" if name.startswith("wrn") else "preact_resnet"
    return Variant(
        name=f"{name}_cifar",
        family=family,
        paper=_PAPERS[family],
        net=net,
        counts=Counts(*counts),
        input=CIFAR.shape,
        num_classes=10,
        preprocess=CIFAR,
        notes=notes,
        reported=reported,
    )


def _deep(*depths: int) -> PreActResNetConfig:
    return PreActResNetConfig(block="bottleneck", depths=depths)


def _thin(block: Literal["basic", "bottleneck"], depth: int) -> PreActResNetConfig:
    """Depth 6 n + 2 of basic units, 9 n + 2 of bottlenecks."""
    units = (depth - 2) // (6 if block == "basic" else 9)
    return PreActResNetConfig(
        block=block,
        depths=(units,) * 3,
        widths=(16, 32, 64),
        stem_width=16,
        stem="cifar",
        stride_first=True,
    )


def _wide(depth: int, k: int) -> PreActResNetConfig:
    """WRN-depth-k of Table 1: depth 6 n + 4, k times the maps."""
    return PreActResNetConfig(
        block="basic",
        depths=((depth - 4) // 6,) * 3,
        widths=(16 * k, 32 * k, 64 * k),
        stem_width=16,
        stem="cifar",
    )


def _timm(resize: int) -> Preprocess:
    return Preprocess(
        resize=(resize,), interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )


_18 = PreActResNetConfig(block="basic", depths=(2, 2, 2, 2))
_34 = PreActResNetConfig(block="basic", depths=(3, 4, 6, 3))
_200 = PreActResNetConfig(block="bottleneck", depths=(3, 24, 36, 3), stem="activated")
_BASIC = _CIFAR_NOTES.format("basic units as in the paper; ", "")
_BOTTLENECK = _CIFAR_NOTES.format("", "stride on the first 1x1, ")

VARIANTS = (
    _imagenet(18, _18, (11_687_720, 1_814_073_344, 21), _timm(248)),
    _imagenet(34, _34, (21_795_880, 3_663_761_408, 37), _timm(248)),
    _imagenet(50, _deep(3, 4, 6, 3), (25_549_352, 4_089_184_256, 54), _timm(235)),
    _imagenet(101, _deep(3, 4, 23, 3), (44_541_480, 7_801_405_440, 105), _timm(235)),
    _imagenet(152, _deep(3, 8, 36, 3), (60_185_128, 11_513_626_624, 156), _timm(256)),
    _imagenet(200, _200, (64_666_152, 15_007_481_856, 204), Preprocess()),
    _cifar("preact_resnet110", _thin("basic", 110), (1_730_522, 253_149_824, 112), _BASIC),
    _cifar(
        "preact_resnet164",
        _thin("bottleneck", 164),
        (1_703_258, 244_500_992, 167),
        _BOTTLENECK,
        f"5.46 {_WIDE_README}",
    ),
    _cifar(
        "preact_resnet1001",
        _thin("bottleneck", 1001),
        (10_327_706, 1_487_849_984, 1004),
        _BOTTLENECK,
        f"4.92 (4.62 with batches of 64) {_1K_README}",
    ),
    _cifar("wrn_16_8", _wide(16, 8), (10_961_370, 1_548_145_664, 17), _WIDE_NOTES),
    _cifar(
        "wrn_28_10",
        _wide(28, 10),
        (36_479_194, 5_243_328_768, 29),
        _WIDE_NOTES,
        f"4.00 {_WIDE_README}, median of 5 runs",
    ),
    _cifar("wrn_40_4", _wide(40, 4), (8_949_210, 1_298_582_016, 41), _WIDE_NOTES),
)
