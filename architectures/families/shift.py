"""Two nets that tell how global average pooling makes a classifier invariant to shifts.

From lecture slides (Boracchi 2023): MNIST's digits, zero-padded to 64x64. Trained in the centre
and tested elsewhere, the net that flattens its maps guesses; the net that averages them does not
notice. The slides print sizes and parameters but no activations and no rate of dropout: ReLU and
one half are taken. The net that averages has no third pooling, and takes images of any size.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from convexport.architectures.layers import init_relu_net, output_shape
from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess


@dataclass(frozen=True)
class ShiftConfig:
    """One net. ``average``: the maps are averaged; otherwise pooled once more and flattened."""

    average: bool

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net, initialised for ReLU without BN."""
        return ShiftNet(self, num_classes, shape)


class ShiftNet(nn.Module):
    """Three 3x3 convolutions without padding, then two dense layers with dropout before each."""

    def __init__(self, config: ShiftConfig, num_classes: int, shape: Shape) -> None:
        super().__init__()
        last = nn.AdaptiveAvgPool2d(1) if config.average else nn.MaxPool2d(2)
        layers = OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(shape[0], 32, 3),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 3),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(64, 128, 3),
            relu3=nn.ReLU(),
            **{"gap" if config.average else "pool3": last},
        )
        self.features = nn.Sequential(layers)
        flat = prod(output_shape(self.features, shape))
        self.classifier = nn.Sequential(
            OrderedDict[str, nn.Module](
                dropout1=nn.Dropout(0.5),
                dense1=nn.Linear(flat, 64),
                relu=nn.ReLU(),
                dropout2=nn.Dropout(0.5),
                dense2=nn.Linear(64, num_classes),
            )
        )
        init_relu_net(self, fan="in")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to logits (N, classes)."""
        logits: torch.Tensor = self.classifier(self.features(x).flatten(1))
        return logits


_MNIST = Preprocess(crop=(64, 64), resize=(64, 64), channels="L", mean=(0.5,), std=(0.5,))


def _row(name: str, average: bool, params: int, macs: int, reported: str) -> Variant:
    return Variant(
        name=name,
        family="shift_experiment",
        paper=Paper(
            2023,
            "GAP Increases Invariance to Shifts (64x64 zero-padded MNIST)",
            "https://boracchi.faculty.polimi.it/",
        ),
        net=ShiftConfig(average),
        counts=Counts(params, macs, 5),
        input=_MNIST.shape,
        num_classes=10,
        preprocess=_MNIST,
        notes="ReLU and dropout of one half, which the slides do not print; digits are to be "
        "padded with zeros to 64x64, not scaled",
        reported=reported + " (lecture slides, Boracchi)",
    )


VARIANTS = (
    _row(
        "cnn_flattening",
        False,
        388_298,
        27_520_768,
        "99.36 % of MNIST's test images right, 11.03 % when they are shifted",
    ),
    _row(
        "cnn_gap",
        True,
        101_578,
        27_234_048,
        "99.34 % of MNIST's test images right, 99.06 % when they are shifted",
    ),
)
