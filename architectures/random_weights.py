"""Random weights that behave like trained ones: finite, of unit scale, different for each image.

A net of random weights whose BN statistics are still 0 and 1 lets activations grow with depth,
up to infinity in the deepest. So after the initialisation of the paper the statistics are set
from one forward pass in training mode over a seeded batch, and the classifier is shifted and
scaled so that the batch's logits have mean 0 in each class and variance 1 over all: otherwise
most nets would answer every image with the same class. The batch holds sums of noise of every
coarseness, as white noise has too little in common with photographs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import last_linear
from convexport.architectures.registry import create
from convexport.architectures.variant import Variant

_BATCH = 4
# Noise looks the same at every size: larger pictures would only take longer.
_MAX_SIDE = 128


def random_module(
    variant: Variant, seed: int, *, num_classes: int | None = None, in_channels: int | None = None
) -> nn.Module:
    """The variant with random weights, in evaluation mode.

    The same seed gives the same bytes on one machine. Torch's global generator is left alone.
    """
    # Only the CPU's generator: torch.manual_seed would disturb those of the GPUs as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = create(variant.name, num_classes=num_classes, in_channels=in_channels)
        channels = in_channels or variant.input[0]
        height, width = (min(side, _MAX_SIDE) for side in variant.input[1:])
        standardise(module, noise_images(channels, height, width))
    return module.eval()


def noise_images(channels: int, height: int, width: int) -> torch.Tensor:
    """A batch NCHW of zero-mean, unit-variance noise with as much energy in each octave."""
    images = torch.zeros(_BATCH, channels, height, width)
    size = 1
    while size <= max(height, width):
        noise = torch.randn(_BATCH, channels, size, size)
        images += F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
        size *= 2
    return (images - images.mean()) / images.std()


def standardise(module: nn.Module, images: torch.Tensor) -> None:
    """Set BN's statistics and the classifier as the module's docstring says.

    In training mode each BN normalises by the batch itself, so one pass is exact for all.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        logits = module.train()(images)
        classifier = last_linear(module)[1]
        mean = logits.mean(0)
        # A single class has one logit a picture and may be constant: then only the shift is left.
        scale = (logits - mean).std().clamp_min(1e-3)
        classifier.weight.div_(scale)
        classifier.bias.sub_(mean).div_(scale)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
