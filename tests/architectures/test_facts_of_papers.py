"""What papers, lecture slides (Boracchi) and a Keras notebook of notable architectures say."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from convexport.architectures.facts import count_macs, layer_table
from convexport.architectures.families.mobilenet import Separable
from convexport.architectures.registry import create, find, variants

from .by_hand import Weights
from .tools import check_close, longest_path, on_meta, random, with_values


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        # LeCun et al. 1998; Krizhevsky et al. 2012, sec. 3.5.
        ("lenet5", 5),
        ("alexnet_original", 8),
        # Simonyan, Zisserman 2014, Table 1; the notebook's third block lacks a convolution.
        *[(f"vgg{depth}", depth) for depth in (11, 13, 16, 19)],
        ("vgg16_keras", 16 - 1),
        # He et al. 2015, Table 1 and sec. 4.2 ("1202" in the slides as well).
        *[(f"resnet{depth}", depth) for depth in (18, 34, 50, 101, 152)],
        *[(f"resnet{depth}_cifar", depth) for depth in (20, 110, 1202)],
        # He et al. 2016.
        ("preact_resnet164_cifar", 164),
        ("preact_resnet200", 200),
        # Xie et al. 2016, Table 1 and sec. 5.3.
        ("resnext50_32x4d", 50),
        ("resnext29_8x64d_cifar", 29),
        # Zagoruyko, Komodakis 2016: there 28 are all convolutions, three of them projections.
        ("wide_resnet50_2", 50),
        ("wrn_28_10_cifar", 28 - 3 + 1),
        # Huang et al. 2016, Table 1, whose depths for 264 make one layer more.
        ("densenet121", 121),
        ("densenet_bc_100_k12_cifar", 100),
        ("densenet264", 264 + 1),
        # Iandola et al. 2016, Table 1; Howard et al. 2017, sec. 3.2.
        ("squeezenet1_0", 18),
        ("mobilenet_v1", 28),
    ],
)
def test_the_longest_path_is_as_deep_as_the_name_says(name: str, depth: int) -> None:
    assert longest_path(on_meta(name)) == depth


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_bottlenecks_are_for_50_layers_and_more_as_in_the_slides(depth: int) -> None:
    """He et al. 2015, Table 1 and Fig. 5."""
    block = on_meta(f"resnet{depth}").get_submodule("layer3.1")
    kernels = [layer.kernel_size for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    assert kernels == ([(1, 1), (3, 3), (1, 1)] if depth >= 50 else [(3, 3), (3, 3)])


def test_a_grouped_block_is_the_sum_of_32_paths_of_one_topology_xie_2016_fig_3() -> None:
    block = with_values(create("resnext50_32x4d").get_submodule("layer1.1"))
    whole = {key: value for key, value in block.state_dict().items() if value.ndim}

    def path(n: int) -> Weights:
        """A 1x1 from 256 maps to four, a 3x3 on these, a 1x1 back (Fig. 3a)."""
        own = slice(4 * n, 4 * n + 4)
        return Weights({k: v[:, own] if "conv3" in k else v[own] for k, v in whole.items()})

    x, total = random(2, 256, 6, 5), torch.zeros(2, 256, 6, 5)
    for n in range(32):
        w = path(n)
        shapes = [tuple(w[f"conv{layer}.weight"].shape) for layer in (1, 2, 3)]
        assert shapes == [(4, 256, 1, 1), (4, 4, 3, 3), (256, 4, 1, 1)]
        y = relu(w.norm(w.conv(x, "conv1"), "bn1"))
        total += w.conv(relu(w.norm(w.conv(y, "conv2"), "bn2")), "conv3")
    with torch.no_grad():
        check_close(block(x), relu(x + Weights(whole).norm(total, "bn3")))


@pytest.mark.parametrize(("maps", "filters", "side"), [(32, 256, 14), (64, 64, 7), (3, 10, 32)])
def test_a_separable_convolution_costs_what_howard_2017_and_the_slides_say(
    maps: int, filters: int, side: int
) -> None:
    """D_K^2 M D_F^2 + M N D_F^2 (sec. 3.1), of the standard one 1 / N + 1 / D_K^2."""
    shape = (maps, side, side)
    costs = {row.path: row.macs for row in layer_table(Separable(maps, filters, 1), shape)}
    assert costs["conv_dw"] == 3**2 * maps * side**2
    assert costs["conv_pw"] == maps * filters * side**2
    ratio = Fraction(sum(costs.values()), count_macs(nn.Conv2d(maps, filters, 3, 1, 1), shape))
    assert ratio == Fraction(1, filters) + Fraction(1, 3**2)
    if filters == 256:
        assert round(float(ratio), 4) == 0.1150


@pytest.mark.parametrize(
    ("large", "small", "of", "ratio"),
    [
        # "7.6x" in Tan, Le 2019, Table 2, and in the slides.
        ("resnet152", "efficientnet_b1", "params", 7.72),
        # What the slides' sum of 358 million makes 2.4: a term is counted twice there.
        ("inception_block_naive", "inception_block_reduced", "macs", 3.15),
        # The sources say 12, 3 and "twice less computation".
        ("alexnet_original", "googlenet_original", "params", 8.71),
        ("vgg16", "alexnet_original", "params", 2.27),
        ("googlenet_original", "alexnet_original", "macs", 2.18),
    ],
)
def test_how_many_times_larger(large: str, small: str, of: str, ratio: float) -> None:
    one, other = (getattr(find(name).counts, of) for name in (large, small))
    assert one / other == pytest.approx(ratio, abs=0.005)


@pytest.mark.parametrize(
    ("names", "rate"),
    [
        (["googlenet_original"], 0.4),  # Szegedy et al. 2014, sec. 5
        # Szegedy et al. 2016, Fig. 9 and 15: "keep 0.8".
        (["inception_v4", "inception_resnet_v1", "inception_resnet_v2"], 0.2),
    ],
)
def test_dropout_before_the_classifier(names: list[str], rate: float) -> None:
    for name in names:
        *_, last = [layer for layer in on_meta(name).modules() if isinstance(layer, nn.Dropout)]
        assert last.p == rate


def figures(name: str) -> list[float]:
    """The numbers with a decimal point in what is reported of a net."""
    return [float(number) for number in re.findall(r"\d+\.\d+(?![\d.])", find(name).reported)]


def test_what_is_reported_of_the_shift_experiment_is_in_the_slides() -> None:
    # Accuracy on the original and on the shifted test set.
    assert figures("cnn_flattening") == [99.36, 11.03]
    assert figures("cnn_gap") == [99.34, 99.06]


def test_the_wide_resnet_of_50_layers_beats_the_thin_one_of_152_as_in_the_slides() -> None:
    assert figures("wide_resnet50_2")[0] < figures("resnet152")[0]


def test_no_net_is_said_to_reach_what_ensembles_reached_in_ilsvrc() -> None:
    """Top-5 errors from 2012 to 2017, also those that the notebook gives to one net."""
    won = {
        "alexnet": (18.2, 16.4, 15.4, 15.3),
        "zfnet": (11.7, 11.743, 14.8),
        "inception_v1": (6.7, 6.67),
        "resnet": (3.57, 3.6),
        "ensemble": (2.99, 2.991),
        "senet": (2.3, 2.25, 2.251),
    }
    assert won.keys() <= {variant.family for variant in variants().values()}
    for name, variant in variants().items():
        assert not set(won.get(variant.family, ())) & set(figures(name)), name


def test_the_zoo_has_every_net_that_the_notebook_lists() -> None:
    listed = "alexnet zfnet vgg inception_v1 resnet ensemble senet nin inception_v2 inception_v3"
    listed += " inception_v4 preact_resnet resnext wide_resnet densenet"
    assert set(listed.split()) <= {variant.family for variant in variants().values()}
