"""The inverted residual that the mobile nets from 2018 on share, and the net around it.

Narrow maps pass between blocks, wide ones exist only inside: 1x1 expansion, depth-wise
convolution, perhaps squeeze-and-excitation, 1x1 projection without activation ("linear
bottleneck"), and the shortcut joins the narrow ends (Sandler et al. 2018, arXiv:1801.04381, Fig. 3b
and sec. 3.3; with squeeze-and-excitation Howard et al. 2019, arXiv:1905.02244, Fig. 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from convexport.architectures.layers import SqueezeExcitation, conv, damp, init_relu_net

Norm = Callable[[int], nn.Module]
Activation = Callable[[], nn.Module]

SLOW_NORM: Norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
"""BN as the TensorFlow code of MobileNet v3 and EfficientNet sets it."""


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """One block; a letter or symbol is that of Sandler et al. Table 1.

    Attributes:
        in_channels: maps that come in, k.
        expanded: maps inside, t k; without expansion as many as come in.
        out_channels: maps that go out, k'.
        kernel: side of the depth-wise convolution.
        stride: of the depth-wise convolution, s.
        activation: behind the expansion and the depth-wise convolution.
        norm: behind each convolution.
        excitation: what scales the inner maps, if anything does.
        drop: probability that training skips the block.
    """

    in_channels: int
    expanded: int
    out_channels: int
    kernel: int = 3
    stride: int = 1
    activation: Activation
    norm: Norm = nn.BatchNorm2d
    excitation: Callable[[], SqueezeExcitation] | None = None
    drop: float = 0.0

    @property
    def has_shortcut(self) -> bool:
        """Whether what goes out can be added to what comes in."""
        return self.stride == 1 and self.in_channels == self.out_channels

    def layers(self) -> list[nn.Module]:
        """The branch beside the shortcut, the projection last."""
        inner = partial(conv_norm, norm=self.norm, activation=self.activation)
        layers: list[nn.Module] = []
        if self.expanded != self.in_channels:
            layers.append(inner(self.in_channels, self.expanded, 1))
        layers.append(
            inner(self.expanded, self.expanded, self.kernel, self.stride, groups=self.expanded)
        )
        if self.excitation:
            layers.append(self.excitation())
        layers.append(conv_norm(self.expanded, self.out_channels, 1, norm=self.norm))
        return layers


class InvertedResidual(nn.Module):
    """``x + branch(x)``, or the branch alone where the shape changes."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.block = nn.Sequential(*config.layers())
        self.stochastic_depth = StochasticDepth(config.drop)
        self.has_shortcut = config.has_shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW, the size divided by the stride."""
        out: torch.Tensor = self.block(x)
        return x + self.stochastic_depth(out) if self.has_shortcut else out


class StochasticDepth(nn.Module):
    """In training each image's maps are set to 0 with probability ``drop``, the others scaled up.

    Huang et al. 2016, arXiv:1603.09382, sec. 3, scaled in training instead of in evaluation,
    where this is the identity.
    """

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW."""
        if not (self.training and self.drop):
            return x
        keep = 1 - self.drop
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(keep) / keep

    def extra_repr(self) -> str:
        """What distinguishes it, for ``print``."""
        return f"{self.drop:g}"


class InvertedResidualNet(nn.Module):
    """Features, global average, classifier: what the mobile nets have in common."""

    def __init__(self, features: Iterable[nn.Module], classifier: Iterable[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(*classifier)
        init_relu_net(self)
        self._calm()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        logits: torch.Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits

    def _calm(self) -> None:
        """Damped branches, and gates near one half.

        Behind a gate's layers there is no BN to undo what they begin with.
        """
        joined = [block for block in self.modules() if getattr(block, "has_shortcut", False)]
        norms = ([m for m in block.modules() if isinstance(m, nn.BatchNorm2d)] for block in joined)
        damp([each[-1] for each in norms])
        for layer in self.modules():
            if isinstance(layer, SqueezeExcitation):
                for linear in (layer.fc1, layer.fc2):
                    nn.init.normal_(linear.weight, std=0.5 / math.sqrt(linear.in_channels))


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    norm: Norm = nn.BatchNorm2d,
    activation: Activation | None = None,
) -> nn.Sequential:
    """Convolution, BN and perhaps an activation, under the names 0, 1, 2."""
    layers = [conv(in_channels, out_channels, kernel, stride, groups=groups), norm(out_channels)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


def make_divisible(channels: float) -> int:
    """The multiple of 8 next to a scaled number of maps, never under 90 % of it.

    All mobile nets round so, after the authors' TensorFlow code; no paper says it.
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
