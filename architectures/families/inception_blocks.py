"""What the Inception nets share: branches described as data, run side by side and concatenated.

A net's file says which layers its branches have; here they become modules. A branch maps the
public names of its layers, in the order in which they run, to what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import ConvBNReLU, half, init_relu_net


@dataclass(frozen=True)
class Conv:
    """A convolution with what follows it.

    Attributes:
        maps: its filters.
        kernel: side, or height and width.
        stride: in both directions.
        valid: no padding (the letter V in the figures of arXiv:1602.07261).
    """

    maps: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    valid: bool = False


@dataclass(frozen=True)
class Fork:
    """The end of a branch: a 1x3 and a 3x1 on the same input, named with ``a`` and ``b`` added."""

    maps: int


@dataclass(frozen=True)
class Pool:
    """A 3x3 pool that keeps the size at stride 1 and does not pad at stride 2.

    Attributes:
        kind: ``exclusive`` is an average that divides by the pixels that are there, not by nine.
        stride: in both directions.
        ceil: a window at the border may be cut off.
    """

    kind: Literal["max", "average", "exclusive"]
    stride: int = 1
    ceil: bool = False

    def module(self) -> nn.Module:
        """The layer."""
        padding = 1 if self.stride == 1 else 0
        if self.kind == "max":
            return nn.MaxPool2d(3, self.stride, padding, ceil_mode=self.ceil)
        counted = self.kind == "average"
        return nn.AvgPool2d(3, self.stride, padding, self.ceil, count_include_pad=counted)


Branch = Mapping[str, Conv | Pool | Fork]
Row = Conv | Pool | tuple[Branch, ...]
"""One layer of a net, or branches side by side."""
Unit = Callable[[int, Conv], nn.Module]
"""Builds a convolution for that many input maps."""

HALVE = Pool("max", 2)


def halve(maps: int) -> Conv:
    """The convolution that stands beside ``HALVE`` where the grid shrinks."""
    return Conv(maps, 3, 2, valid=True)


def conv_bn_relu(in_channels: int, conv: Conv) -> nn.Module:
    """With BN and ReLU; epsilon is 0.001 as in TensorFlow, where these nets come from."""
    padding = 0 if conv.valid else None
    return ConvBNReLU(in_channels, conv.maps, conv.kernel, conv.stride, padding=padding, eps=1e-3)


class ConvReLU(nn.Module):
    """A convolution ``conv`` with bias, and ReLU."""

    def __init__(self, in_channels: int, conv: Conv) -> None:
        super().__init__()
        padding = 0 if conv.valid else half(conv.kernel)
        self.conv = nn.Conv2d(in_channels, conv.maps, conv.kernel, conv.stride, padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW."""
        return F.relu(self.conv(x))


def numbered(*chains: tuple[Conv | Pool, ...], first: int = 0) -> tuple[Branch, ...]:
    """Branches named ``branch0``, or ``branch0.0`` and ``branch0.1`` where there are two layers."""
    return tuple(
        {f"branch{n}" if len(chain) == 1 else f"branch{n}.{i}": c for i, c in enumerate(chain)}
        for n, chain in enumerate(chains, first)
    )


class Branches(nn.Module):
    """Branches on one input; the maps of all, one branch after the other."""

    def __init__(
        self, in_channels: int, branches: Iterable[Branch], unit: Unit = conv_bn_relu
    ) -> None:
        super().__init__()
        self.out_channels = 0
        self.paths: list[list[tuple[str, ...]]] = []
        for branch in branches:
            channels, path = in_channels, []
            for name, layer in branch.items():
                parts = _parts(name, layer)
                for part, step in parts.items():
                    made = step.module() if isinstance(step, Pool) else unit(channels, step)
                    _register(self, part, made)
                path.append(tuple(parts))
                channels = sum(s.maps for s in parts.values() if isinstance(s, Conv)) or channels
            self.paths.append(path)
            self.out_channels += channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW."""
        outputs = []
        for path in self.paths:
            ends = [x]
            for names in path:
                ends = [self.get_submodule(name)(ends[0]) for name in names]
            outputs += ends
        return torch.cat(outputs, 1)


def build(in_channels: int, row: Row) -> tuple[nn.Module, int]:
    """The module of a row, and the maps that it gives."""
    if isinstance(row, Pool):
        return row.module(), in_channels
    if isinstance(row, Conv):
        return conv_bn_relu(in_channels, row), row.maps
    branches = Branches(in_channels, row)
    return branches, branches.out_channels


def init_inception(module: nn.Module) -> None:
    """Initialise in place a deep net with BN.

    BN's shift begins at 1. With 0, ReLU cuts the variance more than it cuts a disturbance, and
    the next BN restores the variance: in each layer the disturbance grows by sqrt(pi / (pi - 1)),
    or 1.21 (Yang et al. 2019, arXiv:1902.08129), through 76 layers by two million. With 1 it
    grows by 1.06 a layer.
    """
    init_relu_net(module)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.bias)


def _parts(name: str, layer: Conv | Pool | Fork) -> dict[str, Conv | Pool]:
    if isinstance(layer, Fork):
        return {f"{name}a": Conv(layer.maps, (1, 3)), f"{name}b": Conv(layer.maps, (3, 1))}
    return {name: layer}


def _register(module: nn.Module, path: str, layer: nn.Module) -> None:
    """Add the layer under a dotted path, whose containers are made where they are missing."""
    *containers, name = path.split(".")
    for container in containers:
        if not hasattr(module, container):
            module.add_module(container, nn.Sequential())
        module = module.get_submodule(container)
    module.add_module(name, layer)
