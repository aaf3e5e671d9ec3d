"""Inception v2 and v3 (Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer
Vision", arXiv:1512.00567): large kernels factorised into small and oblong ones.

- v3: the net that the authors published afterwards; parameters are named as in torchvision, whose
  checkpoints load unchanged. Against Table 1: 5x5 kernels in the 35x35 modules, four modules at
  17x17 instead of five, a 1x1 in the stem, 1x7 and 7x1 in the second grid reduction.
- v2: Table 1 as printed. The filter banks within the modules were never published; here they
  are those of v3, and 128 maps in all factorised 7x7, which keeps to the paper's "less than 25
  million parameters" (the abstract).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

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
    conv_bn_relu,
    halve,
    init_inception,
)
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

# torchvision, unlike TensorFlow, counts the padding in its averages.
_AVERAGE = Pool("average")


def module_a(kernel: int, projected: int) -> tuple[Branch, ...]:
    """Fig. 5, for 35x35: a 3x3 (v3: 5x5), two 3x3 in place of one 5x5, the average."""
    return (
        {"branch1x1": Conv(64)},
        {f"branch{kernel}x{kernel}_1": Conv(48), f"branch{kernel}x{kernel}_2": Conv(64, kernel)},
        {"branch3x3dbl_1": Conv(64), "branch3x3dbl_2": Conv(96, 3), "branch3x3dbl_3": Conv(96, 3)},
        {"pool": _AVERAGE, "branch_pool": Conv(projected)},
    )


def module_b(maps: int) -> tuple[Branch, ...]:
    """Fig. 6 with n = 7, for 17x17: a 7x7 as 1x7 and 7x1, once and twice."""
    return (
        {"branch1x1": Conv(192)},
        {
            "branch7x7_1": Conv(maps),
            "branch7x7_2": Conv(maps, (1, 7)),
            "branch7x7_3": Conv(192, (7, 1)),
        },
        {
            "branch7x7dbl_1": Conv(maps),
            "branch7x7dbl_2": Conv(maps, (7, 1)),
            "branch7x7dbl_3": Conv(maps, (1, 7)),
            "branch7x7dbl_4": Conv(maps, (7, 1)),
            "branch7x7dbl_5": Conv(192, (1, 7)),
        },
        {"pool": _AVERAGE, "branch_pool": Conv(192)},
    )


# Fig. 7, for 8x8: 1x3 and 3x1 side by side.
_MODULE_C: tuple[Branch, ...] = (
    {"branch1x1": Conv(320)},
    {"branch3x3_1": Conv(384), "branch3x3_2": Fork(384)},
    {"branch3x3dbl_1": Conv(448), "branch3x3dbl_2": Conv(384, 3), "branch3x3dbl_3": Fork(384)},
    {"pool": _AVERAGE, "branch_pool": Conv(192)},
)

# Fig. 10: the grid shrinks in convolutions and a pool side by side.
_REDUCTION_A: tuple[Branch, ...] = (
    {"branch3x3": halve(384)},
    {"branch3x3dbl_1": Conv(64), "branch3x3dbl_2": Conv(96, 3), "branch3x3dbl_3": halve(96)},
    {"branch_pool": HALVE},
)
_REDUCTION_B: tuple[Branch, ...] = (
    {"branch3x3_1": Conv(192), "branch3x3_2": halve(320)},
    {"branch3x3dbl_1": Conv(192), "branch3x3dbl_2": Conv(192, 3), "branch3x3dbl_3": halve(192)},
    {"branch_pool": HALVE},
)
_REDUCTION_B_OF_V3: tuple[Branch, ...] = (
    {"branch3x3_1": Conv(192), "branch3x3_2": halve(320)},
    {
        "branch7x7x3_1": Conv(192),
        "branch7x7x3_2": Conv(192, (1, 7)),
        "branch7x7x3_3": Conv(192, (7, 1)),
        "branch7x7x3_4": halve(192),
    },
    {"branch_pool": HALVE},
)

_STEM: dict[str, Row] = {
    "Conv2d_1a_3x3": halve(32),
    "Conv2d_2a_3x3": Conv(32, 3, valid=True),
    "Conv2d_2b_3x3": Conv(64, 3),
    "maxpool1": HALVE,
}
_ROWS: dict[str, dict[str, Row]] = {
    "v2": {
        **_STEM,
        "Conv2d_3b_3x3": Conv(80, 3, valid=True),
        "Conv2d_4a_3x3": halve(192),
        "Conv2d_4b_3x3": Conv(288, 3),
        **{f"Mixed_5{letter}": module_a(3, 64) for letter in "bcd"},
        "Mixed_6a": _REDUCTION_A,
        **{f"Mixed_6{letter}": module_b(128) for letter in "bcdef"},
        "Mixed_7a": _REDUCTION_B,
        **{f"Mixed_7{letter}": _MODULE_C for letter in "bc"},
    },
    "v3": {
        **_STEM,
        "Conv2d_3b_1x1": Conv(80),
        "Conv2d_4a_3x3": Conv(192, 3, valid=True),
        "maxpool2": HALVE,
        "Mixed_5b": module_a(5, 32),
        "Mixed_5c": module_a(5, 64),
        "Mixed_5d": module_a(5, 64),
        "Mixed_6a": _REDUCTION_A,
        "Mixed_6b": module_b(128),
        "Mixed_6c": module_b(160),
        "Mixed_6d": module_b(160),
        "Mixed_6e": module_b(192),
        "Mixed_7a": _REDUCTION_B_OF_V3,
        **{f"Mixed_7{letter}": _MODULE_C for letter in "bc"},
    },
}


@dataclass(frozen=True, kw_only=True)
class InceptionConfig:
    """One net.

    Attributes:
        table: v2 is Table 1 of the paper, v3 the net published afterwards.
        auxiliary_after: the module behind which the auxiliary head stands; empty without one.
    """

    table: Literal["v2", "v3"]
    auxiliary_after: str = ""

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers."""
        return Inception(self, num_classes, shape[0])


class AuxiliaryHead(nn.Module):
    """Sec. 4 and Fig. 8: a batch-normalised side classifier on the last 17x17 grid."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, 3)
        self.conv0 = conv_bn_relu(in_channels, Conv(128))
        self.conv1 = conv_bn_relu(128, Conv(768, 5, valid=True))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to logits (N, classes)."""
        x = self.conv1(self.conv0(self.pool(x)))
        logits: torch.Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class Inception(nn.Module):
    """Table 1: stem, modules of three kinds with grid reductions between them, linear."""

    auxiliary = ("AuxLogits",)

    def __init__(self, config: InceptionConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.auxiliary_after = config.auxiliary_after
        self.AuxLogits: AuxiliaryHead | None = None
        self.rows = tuple(_ROWS[config.table])
        channels = in_channels
        for name, row in _ROWS[config.table].items():
            module, channels = build(channels, row)
            self.add_module(name, module)
            if name == config.auxiliary_after:
                self.AuxLogits = AuxiliaryHead(channels, num_classes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(channels, num_classes)
        init_inception(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Images NCHW to logits (N, classes); with a head in training, to its logits as well."""
        side = None
        for name in self.rows:
            x = getattr(self, name)(x)
            if self.training and self.AuxLogits is not None and name == self.auxiliary_after:
                side = self.AuxLogits(x)
        logits: torch.Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return logits if side is None else (logits, side)


_CENTRED = Preprocess(crop=(299, 299), resize=(342,), mean=(0.5,) * 3, std=(0.5,) * 3)


def _row(name: str, net: InceptionConfig, counts: Counts, **more: Any) -> Variant:
    return Variant(
        name=name,
        family=name,
        paper=Paper(
            2015,
            "Rethinking the Inception Architecture for Computer Vision",
            "https://arxiv.org/abs/1512.00567",
        ),
        net=net,
        counts=counts,
        input=(3, 299, 299),
        preprocess=_CENTRED,
        **more,
    )


_TABLE_3 = "% error on ImageNet, 1 crop (the paper's Table 3)"

VARIANTS = (
    _row(
        "inception_v2",
        InceptionConfig(table="v2"),
        Counts(23_744_200, 5_714_524_768, 105),
        notes="Table 1 of the paper; widths inside the modules are unpublished, here those of v3 "
        "with 128 maps in all 7x7; TF-slim calls BN-Inception by this name",
        reported=f"23.4 top-1 {_TABLE_3}, with the authors' widths",
    ),
    _row(
        "inception_v3",
        InceptionConfig(table="v3", auxiliary_after="Mixed_6e"),
        Counts(23_834_568, 5_713_216_096, 95),
        layout="torchvision:inception_v3",
        notes="four 17x17 modules (the paper's Table 1: five); averages count the padding, as in "
        "torchvision (TensorFlow's do not); torchvision's pretrained net renormalises its input "
        "to mean and std 0.5 (transform_input), which here is the preprocess",
        reported=f"21.2 / 5.6 {_TABLE_3}, of the paper's net",
    ),
)
