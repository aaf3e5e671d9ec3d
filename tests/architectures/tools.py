"""What several test files of the nets need: nets without values, with values, their shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from convexport.architectures.layers import output_shape
from convexport.architectures.registry import create, find


def on_meta(name: str, **more: Any) -> nn.Module:
    """A net without values, in evaluation mode."""
    with torch.device("meta"):
        return create(name, **more).eval()


def outputs(name: str, paths: list[str]) -> list[tuple[int, ...]]:
    """The shape after each of these modules, single layers or not, for one image."""
    net, found = on_meta(name), {}

    def recorder(path: str) -> Callable[..., None]:
        def record(*call: Any) -> None:
            found[path] = tuple(call[2].shape[1:])

        return record

    for path in paths:
        net.get_submodule(path).register_forward_hook(recorder(path))
    output_shape(net, find(name).input)
    return [found[path] for path in paths]


def longest_path(
    module: nn.Module, kinds: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear)
) -> int:
    """The most layers of these kinds on one path from input to output, over the traced graph."""
    depth: dict[torch.fx.Node, int] = {}
    for node in torch.fx.symbolic_trace(module).graph.nodes:
        layer = module.get_submodule(node.target) if node.op == "call_module" else None
        before = max((depth[given] for given in node.all_input_nodes), default=0)
        depth[node] = before + isinstance(layer, kinds)
    return max(depth.values())


def random(*shape: int) -> torch.Tensor:
    """The same normal values in each run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def with_statistics(module: nn.Module) -> nn.Module:
    """BN statistics that matter: with those of a new net a wrong one would not be noticed."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.get_buffer("running_mean").normal_(0, 0.1, generator=generator)
            layer.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
    return module.eval()


def with_values(module: nn.Module) -> nn.Module:
    """Nothing is at an initial 0 or 1, and what an image does to a map lasts through many layers.

    Kernels are normal with variance 2 / fan-in, what belongs to a map has variance 1.
    """
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        variance = 1 if parameter.ndim == 1 else 2 / parameter[0].numel()
        nn.init.normal_(parameter, std=variance**0.5, generator=generator)
    return with_statistics(module)


def check_close(got: torch.Tensor, want: torch.Tensor) -> None:
    """Equal but for rounding, measured on the largest value."""
    assert want.std() > 0
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())
