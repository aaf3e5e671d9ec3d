"""ResNet, ResNeXt and Wide ResNet: one block in three shapes.

- He, Zhang, Ren, Sun 2015, "Deep Residual Learning", arXiv:1512.03385: Fig. 5 (the blocks),
  Table 1 (ImageNet), sec. 4.2 (CIFAR-10).
- Xie, Girshick, Dollar, Tu, He 2016, "Aggregated Residual Transformations", arXiv:1611.05431:
  Fig. 3c, the grouped form; Table 1 and sec. 5.3.
- Zagoruyko, Komodakis 2016, "Wide Residual Networks", arXiv:1605.07146: the inner 3x3 doubled.

Parameters are named as in torchvision, whose checkpoints load unchanged. As there, the stride
of a bottleneck is on its 3x3; He et al. have it on the first 1x1 (same parameters, fewer MACs).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import CIFAR, conv, damp, init_relu_net
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """One net.

    Attributes:
        block: ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1).
        depths: blocks of each stage.
        widths: feature maps of each stage, a bottleneck's output having four times as many.
        groups: cardinality C of ResNeXt.
        group_width: maps of one group where ``widths`` is 64; 128 makes the Wide ResNet.
        stem: ``imagenet`` (7x7/2 and max-pooling) or ``cifar`` (one 3x3).
        shortcut: where the shape changes, ``projection`` is the paper's option B, ``pad`` its A.
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    groups: int = 1
    group_width: int = 64
    stem: Literal["imagenet", "cifar"] = "imagenet"
    shortcut: Literal["projection", "pad"] = "projection"

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised as in He et al. sec. 3.4, its branches damped."""
        return ResNet(self, num_classes, shape[0])


class PaddedShortcut(nn.Module):
    """Option A of sec. 3.3: every second row and column, and zero maps for the new channels."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to N, C + new, H / stride, W / stride; the zeros come last."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.new_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut (Fig. 5 left)."""

    expansion = 1

    def __init__(self, config: ResNetConfig, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(config, in_channels, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``relu(F(x) + shortcut(x))``, eq. 1 and 2."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1 down, 3x3 (grouped in ResNeXt), 1x1 up, and the shortcut (Fig. 5 right)."""

    expansion = 4

    def __init__(self, config: ResNetConfig, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        inner = width * config.group_width // 64 * config.groups
        out_channels = width * self.expansion
        self.conv1 = conv(in_channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, groups=config.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = shortcut(config, in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``relu(F(x) + shortcut(x))``, eq. 1 and 2."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.downsample(x))


_BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
}


class ResNet(nn.Module):
    """Stem, stages that halve the size from the second on, global average, linear (Table 1)."""

    def __init__(self, config: ResNetConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        imagenet = config.stem == "imagenet"
        block = _BLOCKS[config.block]
        self.conv1 = conv(in_channels, config.widths[0], 7 if imagenet else 3, 2 if imagenet else 1)
        self.bn1 = nn.BatchNorm2d(config.widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if imagenet else nn.Identity()
        self.stages = tuple(f"layer{number}" for number, _ in enumerate(config.depths, 1))
        channels = [config.widths[0], *(width * block.expansion for width in config.widths)]
        for index, (come, go) in enumerate(pairwise(channels)):
            blocks = [
                block(config, go if n else come, config.widths[index], 2 if index and not n else 1)
                for n in range(config.depths[index])
            ]
            self.add_module(self.stages[index], nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[-1], num_classes)
        init_relu_net(self)
        damp([block.bn2 for block in self.modules() if isinstance(block, BasicBlock)])
        damp([block.bn3 for block in self.modules() if isinstance(block, Bottleneck)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        logits: torch.Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def shortcut(config: ResNetConfig, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity, or what makes the shapes agree where they differ (sec. 3.3)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if config.shortcut == "pad":
        return PaddedShortcut(out_channels - in_channels, stride)
    return nn.Sequential(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


_PAPERS = {
    "resnet": Paper(
        2015, "Deep Residual Learning for Image Recognition", "https://arxiv.org/abs/1512.03385"
    ),
    "resnext": Paper(
        2016,
        "Aggregated Residual Transformations for Deep Neural Networks",
        "https://arxiv.org/abs/1611.05431",
    ),
    "wide_resnet": Paper(2016, "Wide Residual Networks", "https://arxiv.org/abs/1605.07146"),
}
_OPTION_B = "projection shortcuts (option B)"
_V1_5 = "stride 2 on the 3x3 (the paper: on the first 1x1), as in torchvision"
_EXTRA = "a size that is not in the paper"
_ACTIVATED_LAST = f"{_OPTION_B}; the paper's results on CIFAR are of pre-activated blocks"
_REPORTED = "% error on ImageNet, 1 crop (the authors' README)"


def _imagenet(
    family: str,
    name: str,
    net: ResNetConfig,
    counts: tuple[int, int, int],
    notes: str = "",
    *,
    error: str = "",
    package: str = "torchvision",
    preprocess: Preprocess = Preprocess(),  # noqa: B008  # frozen
) -> Variant:
    return Variant(
        name=name,
        family=family,
        paper=_PAPERS[family],
        net=net,
        counts=Counts(*counts),
        notes=notes or (_V1_5 if family == "resnet" else ""),
        reported=f"{error} {_REPORTED}" if error else "",
        layout=f"{package}:{name}",
        preprocess=preprocess,
    )


def _cifar(family: str, name: str, net: ResNetConfig, counts: Counts, notes: str) -> Variant:
    return Variant(
        name=name,
        family=family,
        paper=_PAPERS[family],
        net=net,
        counts=counts,
        input=CIFAR.shape,
        num_classes=10,
        preprocess=CIFAR,
        notes=notes,
        digits=name == "resnet20_cifar",
    )


def _basic(*depths: int) -> ResNetConfig:
    return ResNetConfig(block="basic", depths=depths)


def _deep(depths: tuple[int, ...], *, c: int = 1, d: int = 64) -> ResNetConfig:
    """Bottlenecks; C groups of width d, in the letters of Xie et al. Table 1."""
    return ResNetConfig(block="bottleneck", depths=depths, groups=c, group_width=d)


def _option_a(depth: int, params: int, macs: int) -> Variant:
    """He et al. sec. 4.2: 6n + 2 layers in three stages of n basic blocks, option A."""
    n = (depth - 2) // 6
    net = ResNetConfig(
        block="basic", depths=(n,) * 3, widths=(16, 32, 64), stem="cifar", shortcut="pad"
    )
    notes = "zero-padded shortcuts (option A); channel means stand for the paper's per-pixel mean"
    return _cifar("resnet", f"resnet{depth}_cifar", net, Counts(params, macs, depth), notes)


def _resnext29(groups: int, params: int, macs: int) -> Variant:
    """Xie et al. sec. 5.3: three stages of three bottlenecks after a 3x3 with 64 maps."""
    net = ResNetConfig(
        block="bottleneck", depths=(3, 3, 3), widths=(64, 128, 256), groups=groups, stem="cifar"
    )
    # 29 and the three projections of the shortcuts.
    counts = Counts(params, macs, 32)
    return _cifar("resnext", f"resnext29_{groups}x64d_cifar", net, counts, _ACTIVATED_LAST)


_he, _xie, _wide = (partial(_imagenet, family) for family in _PAPERS)
# He et al. Table 1; 200 layers are fb.resnet.torch's.
_50, _101, _152, _200 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3)
_X50, _X101 = _deep(_50, c=32, d=4), _deep(_101, c=32, d=4)
# How the public weights of two of them were evaluated.
_232, _BICUBIC = Preprocess(resize=(232,)), Preprocess(interpolation="bicubic")

VARIANTS = (
    _he("resnet18", _basic(2, 2, 2, 2), (11_689_512, 1_814_073_344, 21), _OPTION_B),
    _he("resnet34", _basic(3, 4, 6, 3), (21_797_672, 3_663_761_408, 37), _OPTION_B),
    _he("resnet50", _deep(_50), (25_557_032, 4_089_184_256, 54), error="top-1 24.7, top-5 7.8"),
    _he("resnet101", _deep(_101), (44_549_160, 7_801_405_440, 105), error="top-1 23.6, top-5 7.1"),
    _he("resnet152", _deep(_152), (60_192_808, 11_513_626_624, 156), error="top-1 23.0, top-5 6.7"),
    _he("resnet200", _deep(_200), (64_673_832, 15_007_481_856, 204), _EXTRA, package="timm"),
    _xie("resnext50_32x4d", _X50, (25_028_904, 4_230_479_872, 54), error="top-1 22.2"),
    _xie(
        "resnext101_32x4d",
        _X101,
        (44_177_704, 7_969_996_800, 105),
        error="top-1 21.2",
        package="timm",
        preprocess=_BICUBIC,
    ),
    _xie("resnext101_32x8d", _deep(_101, c=32, d=8), (88_791_336, 16_414_015_488, 105), _EXTRA),
    _xie(
        "resnext101_64x4d",
        _deep(_101, c=64, d=4),
        (83_455_272, 15_460_270_080, 105),
        error="top-1 20.4",
        preprocess=_232,
    ),
    _wide(
        "wide_resnet50_2",
        _deep(_50, d=128),
        (68_883_240, 11_398_021_120, 54),
        error="top-1 21.9, top-5 5.79",
    ),
    _wide("wide_resnet101_2", _deep(_101, d=128), (126_886_696, 22_753_050_624, 105), _EXTRA),
    _option_a(20, 269_722, 40_551_040),
    _option_a(32, 464_154, 68_862_592),
    _option_a(44, 658_586, 97_174_144),
    _option_a(56, 853_018, 125_485_696),
    _option_a(110, 1_727_962, 252_887_680),
    _option_a(1202, 19_421_274, 2_829_238_912),
    _resnext29(8, 34_426_698, 5_387_266_048),
    _resnext29(16, 68_155_210, 10_688_866_304),
)
