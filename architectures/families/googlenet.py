"""GoogLeNet (Szegedy et al. 2014, "Going Deeper with Convolutions", arXiv:1409.4842), Inception v1.

Three nets on one table: the paper's, as Caffe published it; torchvision's, with BN in place of
biases and LRN, whose checkpoints load unchanged; and that of a Keras notebook of notable
architectures, without normalisation. Beside them the two modules of Fig. 2, of the size on which
their cost is usually compared, and a small net around one module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.families.inception_blocks import (
    Branch,
    Branches,
    Conv,
    ConvReLU,
    Pool,
    Unit,
    conv_bn_relu,
    init_inception,
    numbered,
)
from convexport.architectures.layers import (
    CIFAR,
    LocalResponseNorm,
    init_relu_net,
)
from convexport.architectures.variant import Counts, Net, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

_MAX = Pool("max")


def module_b(
    plain: int, single: tuple[int, int], wide: tuple[int, int], projected: int, kernel: int = 5
) -> tuple[Branch, ...]:
    """Fig. 2b, with a row of Table 1: 1x1, 1x1 and 3x3, 1x1 and 5x5, max-pool and 1x1."""
    return numbered(
        (Conv(plain),),
        (Conv(single[0]), Conv(single[1], 3)),
        (Conv(wide[0]), Conv(wide[1], kernel)),
        (_MAX, Conv(projected)),
        first=1,
    )


# Table 1.
_WIDTHS = {
    "inception3a": (64, (96, 128), (16, 32), 32),
    "inception3b": (128, (128, 192), (32, 96), 64),
    "inception4a": (192, (96, 208), (16, 48), 64),
    "inception4b": (160, (112, 224), (24, 64), 64),
    "inception4c": (128, (128, 256), (24, 64), 64),
    "inception4d": (112, (144, 288), (32, 64), 64),
    "inception4e": (256, (160, 320), (32, 128), 128),
    "inception5a": (256, (160, 320), (32, 128), 128),
    "inception5b": (384, (192, 384), (48, 128), 128),
}
_POOL_AFTER = {"inception3b": "maxpool3", "inception4e": "maxpool4"}
# Sec. 5.
_HEAD_AFTER = {"inception4a": "aux1", "inception4d": "aux2"}


@dataclass(frozen=True, kw_only=True)
class GoogLeNetConfig:
    """One net.

    Attributes:
        norm: ``batch`` in each convolution, ``local`` (LRN) around the second stage, or ``none``.
        heads: the auxiliary classifiers average ``strided`` 5x5 windows or ``adaptive`` ones.
        wide_kernel: side of the wide branch's kernel.
        last_pool: side of the last max-pool's window.
        same: the first convolution is padded as Keras pads even sizes: by 2 at left and top, by 3
            at right and bottom; else by 3 everywhere.
        dropout: before the classifier.
    """

    norm: Literal["batch", "local", "none"]
    heads: Literal["strided", "adaptive", "none"] = "none"
    wide_kernel: int = 5
    last_pool: int = 3
    same: bool = False
    dropout: float = 0.0

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers."""
        return GoogLeNet(self, num_classes, shape[0])


class AuxiliaryHead(nn.Module):
    """Sec. 5: a side classifier for training, whose loss the paper weighs with 0.3."""

    def __init__(self, form: str, in_channels: int, num_classes: int, unit: Unit) -> None:
        super().__init__()
        strided = nn.AvgPool2d(5, 3, ceil_mode=True)
        self.pool = strided if form == "strided" else nn.Identity()
        # For images of 224x224 there are 4x4 windows already: then this one changes nothing.
        self.means = nn.AdaptiveAvgPool2d(4)
        self.conv = unit(in_channels, Conv(128))
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to logits (N, classes)."""
        x = self.conv(self.means(self.pool(x))).flatten(1)
        logits: torch.Tensor = self.fc2(self.dropout(F.relu(self.fc1(x))))
        return logits


class GoogLeNet(nn.Module):
    """Table 1. Max-pools round up: they pad even sizes by one at right and bottom."""

    auxiliary = ("aux1", "aux2")

    def __init__(self, config: GoogLeNetConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        unit = conv_bn_relu if config.norm == "batch" else ConvReLU
        self.padding = nn.ZeroPad2d((2, 3, 2, 3)) if config.same else nn.Identity()
        self.conv1 = unit(in_channels, Conv(64, 7, 2, valid=config.same))
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = _local_norm(config)
        self.conv2 = unit(64, Conv(64))
        self.conv3 = unit(64, Conv(192, 3))
        self.norm2 = _local_norm(config)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        channels = 192
        self.aux1: AuxiliaryHead | None = None
        self.aux2: AuxiliaryHead | None = None
        for name, widths in _WIDTHS.items():
            module = Branches(channels, module_b(*widths, config.wide_kernel), unit)
            channels = module.out_channels
            self.add_module(name, module)
            if name in _HEAD_AFTER and config.heads != "none":
                head = AuxiliaryHead(config.heads, channels, num_classes, unit)
                setattr(self, _HEAD_AFTER[name], head)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(config.last_pool, 2, ceil_mode=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(channels, num_classes)
        if config.norm == "batch":
            init_inception(self)
        else:
            init_relu_net(self, fan="in")

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Images NCHW to logits (N, classes); with heads in training also theirs, last first."""
        x = self.norm1(self.maxpool1(self.conv1(self.padding(x))))
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))
        sides: list[torch.Tensor] = []
        for name in _WIDTHS:
            x = getattr(self, name)(x)
            if self.training and name in _HEAD_AFTER:
                head = getattr(self, _HEAD_AFTER[name])
                sides = sides if head is None else [head(x), *sides]
            if name in _POOL_AFTER:
                x = getattr(self, _POOL_AFTER[name])(x)
        logits: torch.Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return (logits, *sides) if sides else logits


class SmallInception(nn.Module):
    """One convolution, one module, linear; the names are those of the slides' summary."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv = ConvReLU(in_channels, Conv(32, 3))
        self.mp = nn.MaxPool2d(2)
        branches: tuple[Branch, ...] = (
            {"conv_1_1": Conv(32)},
            {"conv_2_1": Conv(64), "conv_2_2": Conv(32, 3)},
            {"conv_3_1": Conv(64), "conv_3_2": Conv(32, 5)},
            {"mp_4_1": _MAX, "conv_4_1": Conv(32)},
        )
        self.concat = Branches(32, branches, ConvReLU)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(self.concat.out_channels, num_classes)
        init_relu_net(self, fan="in")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        x = self.gap(self.concat(self.mp(self.conv(x)))).flatten(1)
        logits: torch.Tensor = self.output(self.dropout(x))
        return logits


@dataclass(frozen=True)
class SmallInceptionConfig:
    """The small net has nothing to configure."""

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers."""
        return SmallInception(num_classes, shape[0])


@dataclass(frozen=True)
class BlockConfig:
    """One module alone: ``naive`` as in Fig. 2a, else as in Fig. 2b."""

    naive: bool

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The module, initialised for rectifiers; its maps are its output, there are no classes."""
        naive = numbered((Conv(128),), (Conv(192, 3),), (Conv(96, 5),), (_MAX,), first=1)
        reduced = module_b(128, (64, 192), (64, 96), 64)
        module = Branches(shape[0], naive if self.naive else reduced, ConvReLU)
        init_relu_net(module, fan="in")
        return module


def _local_norm(config: GoogLeNetConfig) -> nn.Module:
    """LRN as Caffe has it; the paper gives no constants."""
    norm = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
    return norm if config.norm == "local" else nn.Identity()


_PAPER = Paper(2014, "Going Deeper with Convolutions", "https://arxiv.org/abs/1409.4842")


def _row(name: str, net: Net, counts: Counts, **more: Any) -> Variant:
    more = {"paper": _PAPER, **more}
    return Variant(name=name, family="inception_v1", net=net, counts=counts, **more)


VARIANTS = (
    _row(
        "googlenet",
        GoogLeNetConfig(norm="batch", heads="adaptive", wide_kernel=3, last_pool=2, dropout=0.2),
        Counts(6_624_904, 1_498_376_192, 58),
        layout="torchvision:googlenet",
        preprocess=Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3),
        notes="as torchvision: BN in place of biases and LRN, 3x3 in place of 5x5 kernels, a 2x2 "
        "last pool; its pretrained net renormalises its input to mean and std 0.5 "
        "(transform_input), which here is the preprocess; it has no trained auxiliary heads",
    ),
    _row(
        "googlenet_original",
        GoogLeNetConfig(norm="local", heads="strided", dropout=0.4),
        Counts(6_998_552, 1_582_671_872, 58),
        notes="as Caffe's bvlc_googlenet, which fixes what the paper leaves open (LRN, rounding)",
        reported="68.7 / 88.9 % accuracy on ImageNet, 1 crop (readme of Caffe's bvlc_googlenet)",
    ),
    _row(
        "googlenet_keras",
        GoogLeNetConfig(norm="none", same=True),
        Counts(5_983_802, 290_516_992, 58),
        input=(3, 96, 96),
        num_classes=10,
        preprocess=Preprocess(crop=(96, 96), resize=(110,)),
        notes="no normalisation, heads or dropout, SAME padding of sizes that 32 divides; d2l's "
        "Gluon net has the same shapes, but pads evenly and has no ReLU in the second stage",
    ),
    _row(
        "inception_keras_small",
        SmallInceptionConfig(),
        Counts(78_218, 20_284_672, 8),
        paper=Paper(
            2023,
            "Inception Block in Keras (lecture slides, Boracchi)",
            "https://boracchi.faculty.polimi.it/",
        ),
        input=CIFAR.shape,
        num_classes=10,
        preprocess=CIFAR,
        notes="after the slides' summary; dropout rate not given there, here 0.5",
    ),
    _row(
        "inception_block_naive",
        BlockConfig(naive=True),
        Counts(1_089_952, 854_196_224, 3),
        input=(256, 28, 28),
        num_classes=0,
        notes="Fig. 2a; maps in and out",
    ),
    _row(
        "inception_block_reduced",
        BlockConfig(naive=False),
        Counts(346_720, 271_351_808, 6),
        input=(256, 28, 28),
        num_classes=0,
        notes="Fig. 2b; maps in and out; slides that say 358 million MACs count the 3x3 twice",
    ),
)
