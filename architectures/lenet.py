"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, Proc. IEEE 86(11), sec. II-B and Fig. 2).

This is the modern form. Against the paper: C3 sees all six maps of S2 instead of Table I's
subsets, the sub-sampling has no weights, ReLU stands for the scaled tanh, and the output is
linear instead of Euclidean RBF units.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import init_relu_net
from convexport.architectures.variant import Variant
from convexport.runtime.specs import Preprocess


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


class LeNetConfig:
    """LeNet-5 has nothing to configure."""

    def module(self, num_classes: int, in_channels: int) -> nn.Module:
        """The net, initialised for ReLU (the paper's +-2.4/fan-in is for its tanh)."""
        return LeNet(num_classes, in_channels)


VARIANTS = (
    Variant(
        name="lenet5",
        family="lenet",
        year=1998,
        title="Gradient-Based Learning Applied to Document Recognition",
        url="https://doi.org/10.1109/5.726791",
        net=LeNetConfig(),
        input=(1, 32, 32),
        num_classes=10,
        # Sec. II-B: white becomes -0.1 and black 1.175, here with ink as 1 and paper as 0.
        preprocess=Preprocess(
            crop=(32, 32), resize=(32, 32), channels="L", mean=(0.1 / 1.275,), std=(1 / 1.275,)
        ),
        params=61_706,
        macs=416_520,
        notes="modern form: full C3, ReLU, average pooling without weights, linear output",
        digits=True,
    ),
)
