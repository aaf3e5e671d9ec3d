"""To write a net a second time: operations on tensors that read their weights in a state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

Net = Callable[["Weights", torch.Tensor], torch.Tensor]
Operation = Callable[[torch.Tensor], torch.Tensor]


class Weights:
    """A state dict, and the operations that take their parameters from it.

    Convolutions keep the size at stride 1 unless a padding is given.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], at: str = "") -> None:
        self.state, self.prefix = state, at

    def at(self, prefix: str) -> Weights:
        """Those whose names begin so, without this beginning."""
        return Weights(self.state, self.prefix + prefix)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.state[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.state

    def layers(self) -> list[str]:
        """The names of convolutions and linear layers, in their order."""
        names = [key.removesuffix(".weight") for key in self.state if key.endswith(".weight")]
        return [name for name in names if self.state[f"{name}.weight"].ndim > 1]

    def conv(
        self,
        x: torch.Tensor,
        name: str,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
    ) -> torch.Tensor:
        weight, bias = self[f"{name}.weight"], f"{name}.bias"
        sides = weight.shape[2:]
        pads = [side // 2 if padding is None else padding for side in sides]
        return F.conv2d(x, weight, self.state.get(self.prefix + bias), stride, pads, 1, groups)

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def norm(self, x: torch.Tensor, name: str, eps: float = 1e-5) -> torch.Tensor:
        """BN in inference: arXiv:1502.03167, algorithm 2, line 11."""
        scale = self[f"{name}.weight"] / (self[f"{name}.running_var"] + eps).sqrt()
        shift = self[f"{name}.bias"] - self[f"{name}.running_mean"] * scale
        return x * scale[:, None, None] + shift[:, None, None]


def response_norm(x: torch.Tensor, *, k: float, alpha: float) -> torch.Tensor:
    """Krizhevsky et al. 2012, sec. 3.3, over five maps; alpha is not divided by them."""
    squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    totals = sum(squares[:, n : n + x.shape[1]] for n in range(5))
    return x / (k + alpha * totals) ** 0.75


def as_it_is(x: torch.Tensor) -> torch.Tensor:
    """No operation."""
    return x
