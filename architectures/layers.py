"""What the families share: the bias-free convolution and the initialisation of ReLU nets."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn


def conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1
) -> nn.Conv2d:
    """A square convolution that keeps the size at stride 1, without bias: a BN follows it."""
    return nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )


def init_relu_net(module: nn.Module, *, fan: Literal["in", "out"] = "out") -> None:
    """Initialise in place as "Delving Deep into Rectifiers" (arXiv:1502.01852) sec. 2.2 derives.

    Convolutions are normal with variance 2 / fan, where the fan of a grouped one is that of its
    group: ``out`` keeps the scale of gradients, ``in`` that of activations, which matters where
    no BN does. BN begins as the identity, linear layers with variance 1 / fan-in, biases at 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            maps = layer.in_channels if fan == "in" else layer.out_channels
            taps = maps // layer.groups * math.prod(layer.kernel_size)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / taps))
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def last_linear(module: nn.Module) -> tuple[str, nn.Linear]:
    """The path of the classifier and the classifier: in all families the last linear layer."""
    return [(n, layer) for n, layer in module.named_modules() if isinstance(layer, nn.Linear)][-1]
