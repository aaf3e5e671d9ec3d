"""Squeeze-and-excitation nets: residual blocks whose branch is gated before the sum.

Hu, Shen, Albanie, Sun, Wu 2017, "Squeeze-and-Excitation Networks", arXiv:1709.01507: sec. 3 (the
gate), Fig. 3 (SE-ResNet module), Table 1 (SE-ResNet-50, SE-ResNeXt-50), appendix (SENet-154).

Two public layouts of parameters load unchanged. ``caffe`` is that of the authors' released nets
as ported to PyTorch (pretrainedmodels, timm's legacy_*): max-pooling rounds its size up and a
plain bottleneck has its stride on the first 1x1. ``timm`` is torchvision's ResNet with a gate.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import SqueezeExcitation, conv, damp, init_relu_net
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

_REDUCTION = 16
_WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True, kw_only=True)
class SENetConfig:
    """One net.

    Attributes:
        block: ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1).
        depths: blocks of each stage.
        groups: cardinality of the 3x3 of a bottleneck.
        group_width: maps of one group in the first stage.
        stride_first: a bottleneck's stride is on its first 1x1 instead of its 3x3.
        modified: SENet-154's changes: the first 1x1 of a bottleneck has half the maps, three 3x3
            make the stem, projections with stride are 3x3, dropout precedes the classifier.
        layout: which public names the parameters have.
    """

    block: Literal["basic", "bottleneck"] = "bottleneck"
    depths: tuple[int, ...]
    groups: int = 1
    group_width: int = 64
    stride_first: bool = False
    modified: bool = False
    layout: Literal["caffe", "timm"] = "caffe"

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers, its branches damped."""
        return SENet(self, num_classes, shape[0])


class SEBlock(nn.Module):
    """Convolutions with BN and ReLU, the gate, and the shortcut (Fig. 3)."""

    def __init__(self, config: SENetConfig, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        convs = _convs(config, in_channels, width, stride)
        out_channels = convs[-1].out_channels
        self.steps = tuple((f"conv{n}", f"bn{n}") for n in range(1, len(convs) + 1))
        for (conv_name, norm_name), layer in zip(self.steps, convs, strict=True):
            self.add_module(conv_name, layer)
            self.add_module(norm_name, nn.BatchNorm2d(layer.out_channels))
        # Fig. 3 gates before any ReLU; published basic blocks rectify what they gate.
        self.rectified = len(convs) - (config.block == "bottleneck")
        self.gate = "se_module" if config.layout == "caffe" else "se"
        self.add_module(self.gate, SqueezeExcitation(out_channels, out_channels // _REDUCTION))
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            kernel = 3 if config.modified and stride != 1 else 1
            projection = conv(in_channels, out_channels, kernel, stride)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``relu(gated F(x) + shortcut(x))``."""
        out = x
        for number, (conv_name, norm_name) in enumerate(self.steps, 1):
            out = getattr(self, norm_name)(getattr(self, conv_name)(out))
            if number <= self.rectified:
                out = F.relu(out)
        return F.relu(getattr(self, self.gate)(out) + self.downsample(x))


class SENet(nn.Sequential):
    """Stem, stages that halve the size from the second on, global average, linear (Table 1).

    Maps images NCHW to logits (N, classes).
    """

    def __init__(self, config: SENetConfig, num_classes: int, in_channels: int) -> None:
        caffe = config.layout == "caffe"
        expansion = 4 if config.block == "bottleneck" else 1
        stem = _stem(in_channels, (64, 64, 128) if config.modified else (64,))
        channels = [128 if config.modified else 64, *(width * expansion for width in _WIDTHS)]
        layers: dict[str, nn.Module] = {"layer0": nn.Sequential(stem)} if caffe else dict(stem)
        layers["pool0"] = nn.MaxPool2d(3, 2, padding=0 if caffe else 1, ceil_mode=caffe)
        for index, (come, go) in enumerate(pairwise(channels)):
            blocks = [
                SEBlock(config, go if n else come, _WIDTHS[index], 2 if index and not n else 1)
                for n in range(config.depths[index])
            ]
            layers[f"layer{index + 1}"] = nn.Sequential(*blocks)
        layers |= {"avg_pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(1)}
        if config.modified:
            layers["dropout"] = nn.Dropout(0.2)
        layers["last_linear" if caffe else "fc"] = nn.Linear(channels[-1], num_classes)
        super().__init__(OrderedDict(layers))
        init_relu_net(self)
        damp([getattr(m, m.steps[-1][1]) for m in self.modules() if isinstance(m, SEBlock)])


def _stem(in_channels: int, widths: tuple[int, ...]) -> OrderedDict[str, nn.Module]:
    """One 7x7 or several 3x3, of which the first halves the size."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (come, go) in enumerate(pairwise((in_channels, *widths)), 1):
        kernel, stride = 7 if len(widths) == 1 else 3, 2 if number == 1 else 1
        layers[f"conv{number}"] = conv(come, go, kernel, stride)
        layers[f"bn{number}"] = nn.BatchNorm2d(go)
        layers[f"relu{number}"] = nn.ReLU()
    return layers


def _convs(config: SENetConfig, in_channels: int, width: int, stride: int) -> list[nn.Conv2d]:
    if config.block == "basic":
        return [conv(in_channels, width, 3, stride), conv(width, width, 3)]
    inner = width * config.group_width // 64 * config.groups
    reduced = inner // 2 if config.modified else inner
    first, second = (stride, 1) if config.stride_first else (1, stride)
    return [
        conv(in_channels, reduced, 1, first),
        conv(reduced, inner, 3, second, groups=config.groups),
        conv(inner, 4 * width, 1),
    ]


_PAPER = Paper(2017, "Squeeze-and-Excitation Networks", "https://arxiv.org/abs/1709.01507")
_CAFFE = "max-pooling rounded up and the stride of the authors' Caffe nets"
_BASIC = "as in timm: what a basic block gates is rectified first, against the paper's Fig. 3"
_MODERN = "torchvision's ResNet with gates: padded max-pooling, stride on the 3x3"


def _row(
    name: str,
    net: SENetConfig,
    counts: tuple[int, int, int],
    notes: str = _CAFFE,
    *,
    error: str = "",
    preprocess: Preprocess = Preprocess(),  # noqa: B008  # frozen
) -> Variant:
    # timm writes seresnet and seresnext in one word.
    public = f"legacy_{name.replace('se_', 'se')}" if net.layout == "caffe" else name
    readme = "% error on ImageNet, 1 crop (README of hujie-frank/SENet)"
    return Variant(
        name=name,
        family="senet",
        paper=_PAPER,
        net=net,
        counts=Counts(*counts),
        preprocess=preprocess,
        layout=f"timm:{public}",
        notes=notes,
        reported=f"{error} {readme}" if error else "",
    )


def _resnet(*depths: int) -> SENetConfig:
    return SENetConfig(depths=depths, stride_first=True)


def _resnext(*depths: int) -> SENetConfig:
    return SENetConfig(depths=depths, groups=32, group_width=4)


_18 = SENetConfig(block="basic", depths=(2, 2, 2, 2))
_34 = SENetConfig(block="basic", depths=(3, 4, 6, 3))
_154 = SENetConfig(depths=(3, 8, 36, 3), groups=64, group_width=4, modified=True)
_50_TIMM = SENetConfig(depths=(3, 4, 6, 3), layout="timm")
_X50_TIMM = SENetConfig(depths=(3, 4, 6, 3), groups=32, group_width=4, layout="timm")

VARIANTS = (
    _row(
        "se_resnet18",
        _18,
        (11_778_592, 1_814_160_384, 37),
        _BASIC,
        preprocess=Preprocess(interpolation="bicubic"),
    ),
    _row("se_resnet34", _34, (21_958_868, 3_663_918_592, 69), _BASIC),
    _row("se_resnet50", _resnet(3, 4, 6, 3), (28_088_024, 3_860_488_192, 86), error="22.37 / 6.36"),
    _row(
        "se_resnet101", _resnet(3, 4, 23, 3), (49_326_872, 7_574_937_600, 171), error="21.75 / 5.72"
    ),
    _row(
        "se_resnet152",
        _resnet(3, 8, 36, 3),
        (66_821_848, 11_288_993_792, 256),
        error="21.34 / 5.54",
    ),
    _row(
        "se_resnext50_32x4d",
        _resnext(3, 4, 6, 3),
        (27_559_896, 4_232_994_816, 86),
        error="20.97 / 5.54",
    ),
    _row(
        "se_resnext101_32x4d",
        _resnext(3, 4, 23, 3),
        (48_955_416, 7_974_739_968, 171),
        error="19.81 / 4.96",
    ),
    _row("senet154", _154, (115_088_984, 20_688_363_520, 258), error="18.68 / 4.47"),
    _row(
        "seresnet50",
        _50_TIMM,
        (28_088_024, 4_091_699_200, 86),
        _MODERN,
        preprocess=Preprocess(interpolation="bicubic"),
    ),
    _row(
        "seresnext50_32x4d",
        _X50_TIMM,
        (27_559_896, 4_232_994_816, 86),
        _MODERN,
        preprocess=Preprocess(interpolation="bicubic"),
    ),
)
