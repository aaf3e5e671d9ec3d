"""Nets that no public implementation checks here, written a second time: those without branches.

Each function is the net as its paper, lecture slides or notebook has it, in operations on tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.nn.functional import relu

from convexport.architectures.registry import create

from .by_hand import Net, Operation, Weights, as_it_is, response_norm
from .tools import check_close, random, with_values

halved = partial(F.max_pool2d, kernel_size=2)
overlapping = partial(F.max_pool2d, kernel_size=3, stride=2)
padded = partial(F.max_pool2d, kernel_size=3, stride=2, padding=1)
rounded_up = partial(F.max_pool2d, kernel_size=3, stride=2, ceil_mode=True)


def dense(w: Weights, x: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """Linear layers on the flattened maps, with ReLU between them."""
    x = x.flatten(1)
    for name in names[:-1]:
        x = relu(w.linear(x, name))
    return w.linear(x, names[-1])


def lenet5(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """Convolutions with ReLU and average pooling, then dense layers: slides (Boracchi)."""
    x = F.avg_pool2d(relu(w.conv(x, "c1", padding=0)), 2)
    x = F.avg_pool2d(relu(w.conv(x, "c3", padding=0)), 2)
    x = relu(w.conv(x, "c5", padding=0))
    return dense(w, x, ("f6", "output"))


def subsets_of_s2() -> list[list[int]]:
    """LeCun et al. 1998, sec. II-B: three neighbours, four, two and two, all."""
    three, four = (
        [sorted((first + n) % 6 for n in range(size)) for first in range(6)] for size in (3, 4)
    )
    return [*three, *four, [0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5], [0, 1, 2, 3, 4, 5]]


def lenet5_original(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """LeCun et al. 1998, sec. II-B and appendix A: all units up to F6 are squashed."""

    def squashed(x: torch.Tensor) -> torch.Tensor:
        return 1.7159 * torch.tanh(2 * x / 3)

    def sub_sampled(x: torch.Tensor, name: str) -> torch.Tensor:
        sums = F.conv2d(x, torch.ones(x.shape[1], 1, 2, 2), stride=2, groups=x.shape[1])
        return w[f"{name}.weight"] * sums + w[f"{name}.bias"]

    x = squashed(sub_sampled(squashed(w.conv(x, "c1", padding=0)), "s2"))
    seen = enumerate(subsets_of_s2())
    maps = [w.conv(x[:, subset], f"c3.maps.{n}", padding=0) for n, subset in seen]
    x = squashed(sub_sampled(squashed(torch.cat(maps, 1)), "s4"))
    x = squashed(w.conv(x, "c5", padding=0)).flatten(1)
    x = squashed(w.linear(x, "f6"))
    return -torch.cdist(x, w["output.codes"]).square()


def shift(w: Weights, x: torch.Tensor, last: Operation) -> torch.Tensor:
    """The slides' (Boracchi) summaries; valid 3x3 convolutions."""
    x = halved(relu(w.conv(x, "features.conv1", padding=0)))
    x = halved(relu(w.conv(x, "features.conv2", padding=0)))
    x = last(relu(w.conv(x, "features.conv3", padding=0)))
    return dense(w, x, ("classifier.dense1", "classifier.dense2"))


# With the constants of Krizhevsky et al. 2012, sec. 3.3.
lrn = partial(response_norm, k=2, alpha=1e-4)


def alexnet(w: Weights, x: torch.Tensor, norm: Operation, groups: int) -> torch.Tensor:
    """Krizhevsky et al. 2012, sec. 3.5: ReLU, normalised, pooled. A Keras notebook: without."""
    one, two, three, four, five, *hidden = w.layers()
    x = overlapping(norm(relu(w.conv(x, one, stride=4, padding=0))))
    x = overlapping(norm(relu(w.conv(x, two, groups=groups))))
    x = relu(w.conv(x, three))
    x = relu(w.conv(x, four, groups=groups))
    x = overlapping(relu(w.conv(x, five, groups=groups)))
    return dense(w, x, hidden)


def zfnet(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """Zeiler, Fergus 2013, Fig. 3: ReLU, pooled, normalised; padded for its 110, 55, 26, 13."""
    one, two, three, four, five, *hidden = w.layers()
    x = lrn(padded(relu(w.conv(x, one, stride=2, padding=1))))
    x = lrn(padded(relu(w.conv(x, two, stride=2, padding=0))))
    x = overlapping(relu(w.conv(relu(w.conv(relu(w.conv(x, three)), four)), five)))
    return dense(w, x, hidden)


def vgg16_keras(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """The blocks of a Keras notebook."""
    *names, first, second, last = w.layers()
    for depth in (2, 2, 2, 3, 3):
        for name in names[:depth]:
            x = relu(w.conv(x, name))
        x, names = halved(x), names[depth:]
    return dense(w, x, (first, second, last))


def nin(w: Weights, x: torch.Tensor, blocks: Sequence[tuple[int, int, Operation]]) -> torch.Tensor:
    """Lin et al. 2013, sec. 3: stride and padding of a convolution, two 1x1, ReLU, a pooling."""
    names = iter(w.layers())
    for stride, padding, pooled in blocks:
        x = relu(w.conv(x, next(names), stride, padding))
        x = relu(w.conv(x, next(names)))
        x = pooled(relu(w.conv(x, next(names))))
    return x.mean((2, 3))


def of_alexnet(pooled: Operation) -> tuple[tuple[int, int, Operation], ...]:
    return (4, 0, pooled), (1, 2, pooled), (1, 1, pooled), (1, 1, as_it_is)


moved = partial(F.max_pool2d, kernel_size=2, stride=1)
average = partial(F.avg_pool2d, kernel_size=3, stride=2, ceil_mode=True)
small = (1, 0, moved), (2, 2, moved), (2, 1, overlapping), (1, 1, as_it_is)
cifar = (1, 2, rounded_up), (1, 2, average), (1, 1, as_it_is)

# Where the response is normalised images are as bright as a camera's: it would not be seen else.
NETS: dict[str, tuple[Net, tuple[int, int, int], float]] = {
    "lenet5": (lenet5, (1, 32, 32), 1),
    "lenet5_original": (lenet5_original, (1, 32, 32), 1),
    "cnn_gap": (partial(shift, last=lambda x: x.mean((2, 3))), (1, 32, 29), 1),
    "cnn_flattening": (partial(shift, last=halved), (1, 32, 29), 1),
    "alexnet_original": (partial(alexnet, norm=lrn, groups=2), (3, 67, 83), 100),
    "alexnet_keras": (partial(alexnet, norm=as_it_is, groups=1), (3, 67, 83), 1),
    "zfnet": (zfnet, (3, 63, 75), 100),
    "zfnet_512": (zfnet, (3, 63, 75), 100),
    "vgg16_keras": (vgg16_keras, (3, 64, 33), 1),
    "nin": (partial(nin, blocks=of_alexnet(overlapping)), (3, 79, 83), 1),
    "nin_keras": (partial(nin, blocks=of_alexnet(overlapping)), (3, 79, 83), 1),
    "nin_imagenet_caffe": (partial(nin, blocks=of_alexnet(rounded_up)), (3, 71, 83), 1),
    "nin_small": (partial(nin, blocks=small), (1, 28, 28), 1),
    "nin_cifar10": (partial(nin, blocks=cifar), (3, 32, 32), 1),
}


@pytest.mark.parametrize("name", NETS)
def test_a_plain_net_computes_what_its_source_says(name: str) -> None:
    by_hand, shape, brightness = NETS[name]
    net = with_values(create(name, shape=shape, num_classes=7))
    images = brightness * random(2, *shape)
    with torch.no_grad():
        check_close(net(images), by_hand(Weights(net.state_dict()), images))
