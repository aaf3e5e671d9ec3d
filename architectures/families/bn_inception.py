"""BN-Inception (Ioffe, Szegedy 2015, "Batch Normalization", arXiv:1502.03167, Fig. 5).

GoogLeNet with BN, two 3x3 in place of each 5x5, and average pools; TF-slim calls it
Inception-v2. Parameters are named as in Cadene's pretrained models, a port of a Caffe net whose
convolutions keep a bias in front of BN; the paper's net has none, and narrower 4c and 4d.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.families.inception_blocks import Branch, Conv, Pool, init_inception
from convexport.architectures.layers import half
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

_HALVE = Pool("max", 2, ceil=True)


class Row(NamedTuple):
    """A row of Fig. 5. A row without 1x1 halves the size and passes the pooled maps on.

    Attributes:
        plain: maps of the 1x1.
        single: maps of the 1x1 and of the 3x3 behind it.
        double: maps of the third branch's 1x1, and of each of the two 3x3 behind it.
        pool: its kind.
        projected: maps of the 1x1 behind the pool.
    """

    plain: int
    single: tuple[int, int]
    double: tuple[int, int]
    pool: Literal["max", "average"]
    projected: int


_ROWS = {
    "3a": Row(64, (64, 64), (64, 96), "average", 32),
    "3b": Row(64, (64, 96), (64, 96), "average", 64),
    "3c": Row(0, (128, 160), (64, 96), "max", 0),
    "4a": Row(224, (64, 96), (96, 128), "average", 128),
    "4b": Row(192, (96, 128), (96, 128), "average", 128),
    "4c": Row(160, (128, 160), (128, 160), "average", 96),
    "4d": Row(96, (128, 192), (160, 192), "average", 96),
    "4e": Row(0, (128, 192), (192, 256), "max", 0),
    "5a": Row(352, (192, 320), (160, 224), "average", 128),
    "5b": Row(352, (192, 320), (192, 224), "max", 128),
}
# The public net's 4c and 4d.
_PUBLIC = {name: _ROWS[name]._replace(projected=128) for name in ("4c", "4d")}


_STEM: Branch = {
    "conv1_7x7_s2": Conv(64, 7, 2),
    "pool1_3x3_s2": _HALVE,
    "conv2_3x3_reduce": Conv(64),
    "conv2_3x3": Conv(192, 3),
    "pool2_3x3_s2": _HALVE,
}


def module(name: str, row: Row) -> tuple[Branch, ...]:
    """The branches of a module. All layers of the net lie flat: their names say where they are."""
    at = f"inception_{name}"
    stride = 1 if row.plain else 2
    single: Branch = {
        f"{at}_3x3_reduce": Conv(row.single[0]),
        f"{at}_3x3": Conv(row.single[1], 3, stride),
    }
    double: Branch = {
        f"{at}_double_3x3_reduce": Conv(row.double[0]),
        f"{at}_double_3x3_1": Conv(row.double[1], 3),
        f"{at}_double_3x3_2": Conv(row.double[1], 3, stride),
    }
    if not row.plain:
        return single, double, {f"{at}_pool": _HALVE}
    pool: Branch = {f"{at}_pool": Pool(row.pool), f"{at}_pool_proj": Conv(row.projected)}
    return {f"{at}_1x1": Conv(row.plain)}, single, double, pool


@dataclass(frozen=True)
class BNInceptionConfig:
    """One net: the paper's, or the public one with biases and 128 projected maps in 4c and 4d."""

    public: bool

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for rectifiers."""
        rows = _ROWS | _PUBLIC if self.public else _ROWS
        modules = [(_STEM,), *(module(name, row) for name, row in rows.items())]
        return BNInception(modules, num_classes, shape[0], bias=self.public)


class BNInception(nn.Module):
    """Fig. 5: stem, ten modules, average, linear."""

    def __init__(
        self,
        modules: Iterable[tuple[Branch, ...]],
        num_classes: int,
        in_channels: int,
        *,
        bias: bool,
    ) -> None:
        super().__init__()
        self.paths: list[list[tuple[str, ...]]] = []
        channels = in_channels
        for branches in modules:
            self.paths.append([tuple(branch) for branch in branches])
            channels = sum(self._add(channels, branch, bias) for branch in branches)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.last_linear = nn.Linear(channels, num_classes)
        init_inception(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        for names in self.paths:
            ends = [self._run(branch, x) for branch in names]
            x = torch.cat(ends, 1) if len(ends) > 1 else ends[0]
        logits: torch.Tensor = self.last_linear(self.global_pool(x).flatten(1))
        return logits

    def _add(self, channels: int, branch: Branch, bias: bool) -> int:
        """Make the layers of a branch; the maps that it gives."""
        for name, layer in branch.items():
            if isinstance(layer, Pool):
                self.add_module(name, layer.module())
            elif isinstance(layer, Conv):
                pads = half(layer.kernel)
                conv = nn.Conv2d(channels, layer.maps, layer.kernel, layer.stride, pads, bias=bias)
                self.add_module(name, conv)
                self.add_module(f"{name}_bn", nn.BatchNorm2d(layer.maps))
                channels = layer.maps
        return channels

    def _run(self, names: tuple[str, ...], x: torch.Tensor) -> torch.Tensor:
        for name in names:
            x = getattr(self, name)(x)
            norm = getattr(self, f"{name}_bn", None)
            x = x if norm is None else F.relu(norm(x))
        return x


def _row(name: str, public: bool, counts: Counts, **more: Any) -> Variant:
    return Variant(
        name=name,
        family="inception_v2",
        paper=Paper(
            2015,
            "Batch Normalization: Accelerating Deep Network Training by Reducing Internal "
            "Covariate Shift",
            "https://arxiv.org/abs/1502.03167",
        ),
        net=BNInceptionConfig(public),
        counts=counts,
        **more,
    )


VARIANTS = (
    _row(
        "bn_inception",
        True,
        Counts(11_295_240, 2_032_600_064, 70),
        layout="pretrainedmodels:bninception",
        # The public weights take BGR in 0..255; here values are scaled to 0..1 first.
        preprocess=Preprocess(
            channels="BGR", mean=(104 / 255, 117 / 255, 128 / 255), std=(1 / 255,) * 3
        ),
        notes="as the public port of a Caffe net: biases in front of BN, 128 projected maps in 4c "
        "and 4d (the paper: 96), averages that count the padding; takes sizes whose grids stay "
        "even, such as multiples of 32",
        reported="73.522 / 91.560 % accuracy on ImageNet (README of Cadene's pretrained-models)",
    ),
    _row(
        "bn_inception_paper",
        False,
        Counts(11_194_984, 2_018_851_840, 70),
        notes="Fig. 5; TF-slim has the same widths but a separable first convolution; rounding "
        "and averages, which the paper leaves open, as in bn_inception",
        reported="25.2 / 7.8 % error on ImageNet, 1 crop (Table 3 of arXiv:1512.00567)",
    ),
)
