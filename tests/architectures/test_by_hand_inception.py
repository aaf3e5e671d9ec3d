"""Nets that no public implementation checks here, written a second time: Inceptions.

A chain such as ``"max 1x1 3x3/V"`` is a pooling and two convolutions, each with what the net puts
behind it. Behind a slash stand a stride of 2 and V for valid, no padding, the letter of the
figures in arXiv:1602.07261. ``"1x3|3x1"`` are two convolutions on the same maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.nn.functional import relu

from convexport.architectures.registry import create

from .by_hand import Net, Operation, Weights, as_it_is, response_norm
from .tools import check_close, random, with_values

# Maps, name of a convolution, stride, padding (None: it keeps the size at stride 1).
Unit = Callable[[torch.Tensor, str, int, int | None], torch.Tensor]

POOLS: dict[str, Operation] = {
    "max": partial(F.max_pool2d, kernel_size=3, stride=1, padding=1),
    "max/2V": partial(F.max_pool2d, kernel_size=3, stride=2),
    "max/2ceil": partial(F.max_pool2d, kernel_size=3, stride=2, ceil_mode=True),
    # Keras' SAME on even sizes.
    "max/2same": lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2),
    "average": partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1),
}


def with_relu(w: Weights) -> Unit:
    """Szegedy et al. 2014, sec. 5: all convolutions are rectified."""
    return lambda x, name, *how: relu(w.conv(x, f"{name}.conv", *how))


def with_norm(w: Weights) -> Unit:
    """Ioffe, Szegedy 2015, sec. 3.2: normalised, then rectified; epsilon as in TensorFlow."""
    return lambda x, name, *how: relu(w.norm(w.conv(x, f"{name}.conv", *how), f"{name}.bn", 1e-3))


def with_flat_norm(w: Weights) -> Unit:
    """The same, with the names and the epsilon of the Caffe net."""
    return lambda x, name, *how: relu(w.norm(w.conv(x, name, *how), f"{name}_bn"))


def chain(unit: Unit, x: torch.Tensor, steps: str) -> torch.Tensor:
    for step in steps.split():
        if step in POOLS:
            x = POOLS[step](x)
        else:
            names, _, how = step.partition("/")
            stride, padding = (2 if "2" in how else 1), (0 if "V" in how else None)
            x = torch.cat([unit(x, name, stride, padding) for name in names.split("|")], 1)
    return x


def module(unit: Unit, x: torch.Tensor, chains: Sequence[str]) -> torch.Tensor:
    """Chains on the same maps; theirs one after the other."""
    return torch.cat([chain(unit, x, steps) for steps in chains], 1)


# Szegedy et al. 2014, Fig. 2.
NAIVE = ("branch1", "branch2", "branch3", "max")
REDUCED = ("branch1", "branch2.0 branch2.1", "branch3.0 branch3.1", "max branch4.1")


def block(w: Weights, x: torch.Tensor, chains: Sequence[str]) -> torch.Tensor:
    return module(with_relu(w), x, chains)


def inception_keras_small(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """The summary in the slides (Boracchi)."""
    x = F.max_pool2d(with_relu(w)(x, "conv", 1, None), 2)
    chains = ("conv_1_1", "conv_2_1 conv_2_2", "conv_3_1 conv_3_2", "max conv_4_1")
    x = module(with_relu(w.at("concat.")), x, chains)
    return w.linear(x.mean((2, 3)), "output")


def googlenet(w: Weights, x: torch.Tensor, *, keras: bool) -> torch.Tensor:
    """Szegedy et al. 2014, Table 1, with Caffe's LRN, or as in a Keras notebook."""
    unit, pool = with_relu(w), POOLS["max/2same" if keras else "max/2ceil"]
    norm = as_it_is if keras else partial(response_norm, k=1, alpha=1e-4 / 5)
    # SAME in Keras at stride 2: two pixels before, three behind.
    x = unit(F.pad(x, (2, 3, 2, 3)), "conv1", 2, 0) if keras else unit(x, "conv1", 2, None)
    x = pool(norm(chain(unit, norm(pool(x)), "conv2 conv3")))
    for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        x = module(with_relu(w.at(f"inception{name}.")), x, REDUCED)
        x = pool(x) if name in ("3b", "4e") else x
    return w.linear(x.mean((2, 3)), "fc")


def bn_inception(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """Ioffe, Szegedy 2015, Fig. 5; sizes are rounded up as in Caffe."""
    stem = "conv1_7x7_s2/2 max/2ceil conv2_3x3_reduce conv2_3x3 max/2ceil"
    x = chain(with_flat_norm(w), x, stem)
    for name in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        single, double = "3x3_reduce 3x3", "double_3x3_reduce double_3x3_1 double_3x3_2"
        if name in ("3c", "4e"):
            chains: Sequence[str] = (f"{single}/2", f"{double}/2", "max/2ceil")
        else:
            pool = "max" if name == "5b" else "average"
            chains = ("1x1", single, double, f"{pool} pool_proj")
        x = module(with_flat_norm(w.at(f"inception_{name}_")), x, chains)
    return w.linear(x.mean((2, 3)), "last_linear")


# Szegedy et al. 2015, Fig. 5, 6, 7 and 10, under torchvision's names.
MODULE_A = (
    "branch1x1",
    "branch3x3_1 branch3x3_2",
    "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3",
    "average branch_pool",
)
MODULE_B = (
    "branch1x1",
    "branch7x7_1 branch7x7_2 branch7x7_3",
    "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5",
    "average branch_pool",
)
MODULE_C = (
    "branch1x1",
    "branch3x3_1 branch3x3_2a|branch3x3_2b",
    "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a|branch3x3dbl_3b",
    "average branch_pool",
)
DOUBLE_HALVED = "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3/2V"
REDUCTION_A = ("branch3x3/2V", DOUBLE_HALVED, "max/2V")
REDUCTION_B = ("branch3x3_1 branch3x3_2/2V", DOUBLE_HALVED, "max/2V")


def inception_v2(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """Szegedy et al. 2015, Table 1, row by row."""
    x = chain(with_norm(w), x, "Conv2d_1a_3x3/2V Conv2d_2a_3x3/V Conv2d_2b_3x3 max/2V")
    x = chain(with_norm(w), x, "Conv2d_3b_3x3/V Conv2d_4a_3x3/2V Conv2d_4b_3x3")
    rows = [MODULE_A] * 3 + [REDUCTION_A] + [MODULE_B] * 5 + [REDUCTION_B] + [MODULE_C] * 2
    names = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "6f", "7a", "7b", "7c")
    for name, chains in zip(names, rows, strict=True):
        x = module(with_norm(w.at(f"Mixed_{name}.")), x, chains)
    return w.linear(x.mean((2, 3)), "fc")


# Szegedy et al. 2016: Fig. 14; Fig. 3.
STEM_V1 = (("conv2d_1a/2V conv2d_2a/V conv2d_2b max/2V conv2d_3b conv2d_4a/V conv2d_4b/2V",),)
STEM_V2 = (
    ("stem_0/2V stem_1/V stem_2",),
    ("max/2V", "stem_3.conv/2V"),
    (
        "stem_4.branch0.0 stem_4.branch0.1/V",
        "stem_4.branch1.0 stem_4.branch1.1 stem_4.branch1.2 stem_4.branch1.3/V",
    ),
    ("stem_5.conv/2V", "max/2V"),
)
# Fig. 10, 7, 11, 12, 13; Fig. 16, 7, 17, 18, 19: blocks, their scale and chains, the reduction.
OBLONG = ("branch0", "branch1.0 branch1.1 branch1.2")
GRIDS: dict[str, tuple[int, float, Sequence[str], str, Sequence[str]]] = {
    "repeat": (
        5,
        0.17,
        ("branch0", "branch1.0 branch1.1", "branch2.0 branch2.1 branch2.2"),
        "mixed_6a.",
        ("branch0/2V", "branch1.0 branch1.1 branch1.2/2V", "max/2V"),
    ),
    "repeat_1": (
        10,
        0.10,
        OBLONG,
        "mixed_7a.",
        (
            "branch0.0 branch0.1/2V",
            "branch1.0 branch1.1/2V",
            "branch2.0 branch2.1 branch2.2/2V",
            "max/2V",
        ),
    ),
    "repeat_2": (5, 0.20, OBLONG, "", ()),
}


def inception_resnet(w: Weights, x: torch.Tensor, stem: Sequence[Sequence[str]]) -> torch.Tensor:
    """Szegedy et al. 2016, Fig. 15 and sec. 3.3: scaled, added, then rectified."""
    for chains in stem:
        x = module(with_norm(w), x, chains)
    for name, (count, scale, chains, reduction, halved) in GRIDS.items():
        for n in range(count):
            at = w.at(f"{name}.{n}.")
            x = relu(x + scale * at.conv(module(with_norm(at), x, chains), "conv2d"))
        x = module(with_norm(w.at(reduction)), x, halved) if halved else x
    return w.linear(x.mean((2, 3)), "classif")


# Where the response is normalised images are as bright as a camera's: it would not be seen else.
NETS: dict[str, tuple[Net, tuple[int, int, int], float]] = {
    "inception_block_naive": (partial(block, chains=NAIVE), (256, 7, 6), 1),
    "inception_block_reduced": (partial(block, chains=REDUCED), (256, 7, 6), 1),
    "inception_keras_small": (inception_keras_small, (3, 14, 19), 1),
    "googlenet_original": (partial(googlenet, keras=False), (3, 71, 53), 100),
    "googlenet_keras": (partial(googlenet, keras=True), (3, 64, 32), 1),
    "bn_inception": (bn_inception, (3, 64, 96), 1),
    "bn_inception_paper": (bn_inception, (3, 64, 96), 1),
    "inception_v2": (inception_v2, (3, 107, 91), 1),
    "inception_resnet_v1": (partial(inception_resnet, stem=STEM_V1), (3, 107, 91), 1),
    "inception_resnet_v2_paper": (partial(inception_resnet, stem=STEM_V2), (3, 107, 91), 1),
}


@pytest.mark.parametrize("name", NETS)
def test_an_inception_computes_what_its_source_says(name: str) -> None:
    by_hand, shape, brightness = NETS[name]
    net = with_values(create(name, num_classes=7))
    images = brightness * random(2, *shape)
    with torch.no_grad():
        check_close(net(images), by_hand(Weights(net.state_dict()), images))
