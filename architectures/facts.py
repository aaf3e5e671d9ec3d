"""Counting a net: parameters, multiply-adds and shapes, layer by layer.

The net runs on the meta device, where tensors have shapes and no values: nothing is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from convexport.architectures.layers import output_shape
from convexport.architectures.variant import Shape


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """One call of one layer.

    Attributes:
        path: the module's path in the net.
        kind: the name of its class.
        output: shape of its output for one image, without the batch.
        params: its parameters.
        macs: multiply-adds for one image; 0 unless it is a convolution or linear.
    """

    path: str
    kind: str
    output: tuple[int, ...]
    params: int
    macs: int


def count_params(module: nn.Module) -> int:
    """The number of parameters. Buffers, such as BN statistics, are none."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, input_shape: Shape) -> int:
    """Multiply-adds of all convolutions and linear layers for one image.

    Biases, BN, pooling, activations and sums are not counted, as is the custom of papers.
    """
    return sum(layer.macs for layer in layer_table(module, input_shape))


def layer_table(module: nn.Module, input_shape: Shape) -> list[LayerFacts]:
    """Every layer in the order in which inference runs it; the module is left as it was.

    Functions that are no modules (activations, sums) do not appear.

    Args:
        module: the net, on any device, in any mode: layers that only training runs are left out.
        input_shape: of one image, without the batch.
    """
    rows: list[LayerFacts] = []
    leaves = [(path, layer) for path, layer in module.named_modules() if not any(layer.children())]
    hooks = [layer.register_forward_hook(_recorder(path, rows)) for path, layer in leaves]
    training = [layer for layer in module.modules() if layer.training]
    try:
        output_shape(module.eval(), input_shape)
    finally:
        for hook in hooks:
            hook.remove()
        for layer in training:
            layer.training = True
    return rows


def _recorder(path: str, rows: list[LayerFacts]) -> Callable[..., None]:
    def record(layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        rows.append(
            LayerFacts(
                path=path,
                kind=type(layer).__name__,
                output=tuple(output.shape[1:]),
                params=count_params(layer),
                macs=_macs(layer, inputs[0], output),
            )
        )

    return record


def _macs(layer: nn.Module, given: torch.Tensor, output: torch.Tensor) -> int:
    """Every weight is used once at each position (of the input, where a layer is transposed)."""
    if isinstance(layer, _ConvNd):
        positions = given if isinstance(layer, _ConvTransposeNd) else output
        return layer.weight.numel() * math.prod(positions.shape[2:])
    if isinstance(layer, nn.Linear):
        return layer.weight.numel() * math.prod(output.shape[1:-1])
    return 0
