"""What the families share: small layers, the initialisation of ReLU nets, CIFAR's preprocess."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.variant import Shape
from convexport.runtime.specs import Preprocess

CIFAR = Preprocess(
    crop=(32, 32), resize=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
)


def conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1
) -> nn.Conv2d:
    """A square convolution that keeps the size at stride 1, without bias: a BN follows it."""
    return nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )


def half(kernel: int | tuple[int, int]) -> tuple[int, int]:
    """The padding with which an odd kernel keeps the size at stride 1, in both directions."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return height // 2, width // 2


class ConvBNReLU(nn.Module):
    """A convolution ``conv`` without bias, its normalisation ``bn``, and ReLU.

    It keeps the size at stride 1, unless ``padding`` is given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        *,
        padding: int | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        pads = half(kernel) if padding is None else padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, pads, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW."""
        return F.relu(self.bn(self.conv(x)))


class LocalResponseNorm(nn.Module):
    """``x / (k + alpha / size * sum of x^2 over size neighbouring maps) ** beta``.

    Krizhevsky et al. 2012, sec. 3.3, but with alpha divided by the size, as in Caffe, PyTorch
    and ONNX. Exported as the one ONNX operator LRN, which PyTorch would write as nine.
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        # An int would be exported as one, and runtimes refuse it.
        self.size, self.alpha, self.beta, self.k = size, float(alpha), float(beta), float(k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW."""
        if torch.onnx.is_in_onnx_export():
            normalised: torch.Tensor = torch.onnx.ops.symbolic(
                "LRN",
                (x,),
                {"size": self.size, "alpha": self.alpha, "beta": self.beta, "bias": self.k},
                dtype=x.dtype,
                shape=x.shape,
                version=13,
            )
            return normalised
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """What distinguishes it, for ``print``."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class SqueezeExcitation(nn.Module):
    """Each map is scaled by a gate that sees the means of all (Hu et al. 2017, arXiv:1709.01507).

    Sec. 3: squeeze (global average), excitation (down to ``squeezed``, up again, gate), scale.
    The two fully connected layers are 1x1 convolutions ``fc1`` and ``fc2`` with bias, as in
    torchvision and timm.
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        activation: nn.Module | None = None,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation or nn.ReLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate or nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW."""
        scale: torch.Tensor = self.gate(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return x * scale


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


def damp(last: Sequence[nn.Conv2d | nn.BatchNorm2d]) -> None:
    """Scale what each of L residual branches ends with by 1 / sqrt(L), in place.

    Their sum has unit scale then; an untrained deep net would multiply each disturbance (Hayou et
    al. 2021, "Stable ResNet", arXiv:2010.12859).
    """
    for layer in last:
        with torch.no_grad():
            layer.weight.mul_(len(last) ** -0.5)


def classifier(module: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The path of the classifier and the classifier: in all families the last weight layer.

    A linear layer, or the 1x1 convolution that stands for it.
    """
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return layers[-1]


def auxiliary_heads(module: nn.Module) -> tuple[str, ...]:
    """The paths of what exists for training alone and is still there."""
    return tuple(
        f"{path}.{name}".removeprefix(".")
        for path, part in module.named_modules()
        for name in getattr(part, "auxiliary", ())
        if getattr(part, name) is not None
    )


def drop_auxiliary_heads(module: nn.Module) -> nn.Module:
    """Remove in place what exists for training alone; the same module."""
    for path in auxiliary_heads(module):
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent), name, None)
    return module


def output_shape(module: nn.Module, shape: Shape) -> tuple[int, ...]:
    """What a module makes of one image, without the batch; nothing is computed.

    Raises:
        RuntimeError: the image is too small for it.
    """
    shadows = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    with torch.no_grad():
        # Two images: in training mode BN refuses to normalise a single value per channel.
        batch = torch.empty((2, *shape), device="meta")
        output: torch.Tensor = torch.func.functional_call(module, shadows, (batch,))
    return tuple(output.shape[1:])
