"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, Proc. IEEE 86(11), sec. II-B and Fig. 2).

Twice: as everybody builds it today, and as the paper has it. In the modern form C3 sees all six
maps of S2 instead of Table I's subsets, the sub-sampling has no weights, ReLU stands for the
scaled tanh, and the output is linear instead of Euclidean RBF units.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import init_relu_net
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

# Table I: the maps of S2 that each of the 16 maps of C3 is connected to.
_TABLE_I = (
    *("012", "123", "234", "345", "045", "015"),
    *("0123", "1234", "2345", "0345", "0145", "0125", "0134", "1245", "0235"),
    "012345",
)

# What the RBF units 0 to 9 are to look for, drawn here after the idea of Fig. 3: # is +1, . is -1.
_DIGITS = (
    "..###.. ...##.. .#####. ######. ....##. ####### ..####. ####### .#####. .#####.",
    ".#####. ..###.. ####### ####### ...###. ####### .###### ####### ##...## #######",
    "##...## .####.. #....## .....## ..####. ##..... ##..... .....## ##...## ##...##",
    "##...## ##.##.. .....## .....## .##.##. ##..... ##..... ....##. ##...## ##...##",
    "##...## ...##.. .....## ..####. ##..##. ######. ##.###. ....##. .#####. ##...##",
    "##...## ...##.. ....##. ..##### ##..##. .###### ####### ...##.. .#####. #######",
    "##...## ...##.. ...##.. .....## ####### .....## ##...## ...##.. ##...## .###.##",
    "##...## ...##.. ..##... .....## ####### .....## ##...## ..##... ##...## .....##",
    "##...## ...##.. .##.... #....## ....##. #....## ##...## ..##... ##...## .....##",
    ".#####. ...##.. ####### ####### ....##. ####### ####### ..##... ##...## ######.",
    "..###.. ####### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..",
    "....... ....... ....... ....... ....... ....... ....... ....... ....... .......",
)
_CODE = 7 * 12


@dataclass(frozen=True)
class LeNetConfig:
    """``original`` is the paper's net, otherwise its modern form."""

    original: bool = False

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for ReLU, or as the paper says for its tanh."""
        return (OriginalLeNet if self.original else LeNet)(num_classes, shape[0])


class LeNet(nn.Module):
    """The layers of Fig. 2 under their names there; input 32x32."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(in_channels, 6, 5)
        self.s2 = nn.AvgPool2d(2)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.s4 = nn.AvgPool2d(2)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, num_classes)
        init_relu_net(self, fan="in")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        x = self.s2(F.relu(self.c1(x)))
        x = self.s4(F.relu(self.c3(x)))
        x = F.relu(self.c5(x)).flatten(1)
        x = F.relu(self.f6(x))
        logits: torch.Tensor = self.output(x)
        return logits


class SubSampling(nn.Module):
    """S2 and S4: four neighbours are added, times a coefficient, plus a bias; both of the map."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(maps, 1, 1))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to half the height and width."""
        return F.avg_pool2d(x, 2) * (4 * self.weight) + self.bias


class PartialConvolution(nn.Module):
    """C3: a 5x5 convolution for each map, over the maps of S2 that Table I gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(sources), 1, 5) for sources in _TABLE_I)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW with 6 maps to 16 maps."""
        given = x.chunk(6, dim=1)
        inputs = (torch.cat([given[int(n)] for n in sources], 1) for sources in _TABLE_I)
        return torch.cat([conv(maps) for conv, maps in zip(self.maps, inputs, strict=True)], 1)


class EuclideanRBF(nn.Module):
    """Eq. 7, ``y_i = sum_j (x_j - w_ij)^2``, with fixed codes for w; the logits are -y.

    The unit whose code is nearest wins, so that minus makes it the greatest logit.
    """

    codes: torch.Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", class_codes(num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 84) to (N, classes)."""
        return -(x.unsqueeze(1) - self.codes).square().sum(2)


def class_codes(num_classes: int) -> torch.Tensor:
    """A code of 84 signs for each class, no two alike: ten digits, then bits of a hash."""
    bits = ["".join(row[8 * digit : 8 * digit + 7] for row in _DIGITS) for digit in range(10)]
    for number in range(10, num_classes):
        digest = hashlib.shake_128(str(number).encode()).digest(_CODE)
        bits.append("".join(".#"[byte & 1] for byte in digest))
    return torch.tensor([[1.0 if bit == "#" else -1.0 for bit in code] for code in bits])[
        :num_classes
    ]


class ScaledTanh(nn.Module):
    """The squashing of eq. 6 and Appendix A: f(1) = 1, f(-1) = -1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return 1.7159 * torch.tanh(x * (2 / 3))


class OriginalLeNet(nn.Module):
    """The same layers as the paper describes them, with its 60,000 trainable parameters."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(in_channels, 6, 5)
        self.s2 = SubSampling(6)
        self.c3 = PartialConvolution()
        self.s4 = SubSampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, _CODE)
        self.output = EuclideanRBF(num_classes)
        self.squash = ScaledTanh()
        self._initialise()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes), which are minus squared distances."""
        x = self.squash(self.s2(self.squash(self.c1(x))))
        x = self.squash(self.s4(self.squash(self.c3(x))))
        x = self.squash(self.f6(self.squash(self.c5(x)).flatten(1)))
        logits: torch.Tensor = self.output(x)
        return logits

    def _initialise(self) -> None:
        """Appendix A: weights uniform in +-2.4 / fan-in; biases begin at 0."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear | SubSampling):
                fan_in = 4 if isinstance(layer, SubSampling) else layer.weight[0].numel()
                nn.init.uniform_(layer.weight, -2.4 / fan_in, 2.4 / fan_in)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


# Sec. II-B: white becomes -0.1 and black 1.175, here with ink as 1 and paper as 0.
_INK = Preprocess(
    crop=(32, 32), resize=(32, 32), channels="L", mean=(0.1 / 1.275,), std=(1 / 1.275,)
)


def _row(name: str, net: LeNetConfig, counts: Counts, notes: str, **more: Any) -> Variant:
    return Variant(
        name=name,
        family="lenet",
        paper=Paper(
            1998,
            "Gradient-Based Learning Applied to Document Recognition",
            "https://doi.org/10.1109/5.726791",
        ),
        net=net,
        counts=counts,
        input=_INK.shape,
        num_classes=10,
        preprocess=_INK,
        notes=notes,
        **more,
    )


VARIANTS = (
    _row(
        "lenet5",
        LeNetConfig(),
        Counts(61_706, 416_520, 5),
        "modern form: full C3, ReLU, average pooling without weights, linear output",
        digits=True,
    ),
    _row(
        "lenet5_original",
        LeNetConfig(original=True),
        # C3 counts as its 16 convolutions; the RBF units are no weight layer.
        Counts(60_000, 325_680, 19),
        "logits are minus the squared distances to fixed codes, whose bitmaps are drawn here",
    ),
)
