"""Random weights that behave like trained ones: finite, of unit scale, different for each image.

A net of random weights whose BN statistics are still 0 and 1 lets activations grow with depth,
up to infinity in the deepest. So after the initialisation of the paper the statistics are set
from one forward pass in training mode over a seeded batch, and the classifier is shifted and
scaled so that its outputs for the batch have mean 0 in each class and the logits variance 1 over
all (they are the same but where a ReLU or distances to codes follow): otherwise most nets would
answer every image with the same class. The batch holds sums of noise of every
coarseness, as white noise has too little in common with photographs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.layers import classifier, drop_auxiliary_heads, output_shape
from convexport.architectures.registry import create
from convexport.architectures.variant import Shape, Variant

_BATCH = 4
# Noise looks the same at every size: larger pictures would only take longer.
_MAX_SIDE = 224


def random_module(
    variant: Variant, seed: int, *, num_classes: int | None = None, shape: Shape | None = None
) -> nn.Module:
    """The variant with random weights, in evaluation mode, without auxiliary heads.

    The same seed gives the same bytes on one machine. Torch's global generator is left alone.
    """
    # Only the CPU's generator: torch.manual_seed would disturb those of the GPUs as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = create(variant.name, num_classes=num_classes, shape=shape)
        drop_auxiliary_heads(module)
        if not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
            centre_filters(module)
        standardise(module, noise_images(*_small(module, shape or variant.input)))
    return module.eval()


def centre_filters(module: nn.Module) -> None:
    """Let the weights of each filter sum to zero, in place, but for those of the first layer.

    For nets without BN: behind ReLU all maps are positive, and what they have in common grows
    from layer to layer until every image looks the same; such filters do not see it.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers[1:]:
        weight = layer.weight.detach()
        weight -= weight.mean(tuple(range(1, weight.ndim)), keepdim=True)


def _small(module: nn.Module, shape: Shape) -> Shape:
    """The shape with sides of at most 224, where the net can take that."""
    small = shape[0], min(shape[1], _MAX_SIDE), min(shape[2], _MAX_SIDE)
    try:
        if small != shape:
            output_shape(module, small)
    except RuntimeError:  # too small, or a flattened map has another size then
        return shape
    return small


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

    While it gathers statistics each BN normalises by the batch itself, so one pass is exact for
    all. Everything else, such as dropout, is as in evaluation.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.momentum = None
        norm.train()
    last = classifier(module)[1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda layer, given, output: seen.append(output))
    with torch.no_grad():
        logits = module(images)
        # A convolution's outputs are averaged over the picture, perhaps behind a ReLU.
        mean = seen[0].transpose(0, 1).flatten(1).mean(1)
        # A single class has one logit a picture and may be constant: then only the shift is left.
        scale = (logits - logits.mean(0)).std().clamp_min(1e-3)
        last.weight.div_(scale)
        if last.bias is not None:
            last.bias.sub_(mean).div_(scale)
    hook.remove()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
