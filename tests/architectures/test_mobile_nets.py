"""MobileNet v2, v3 and EfficientNet against their papers."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from convexport.architectures.facts import count_macs, count_params, layer_table
from convexport.architectures.families.inverted_residual import (
    BlockConfig,
    InvertedResidual,
    StochasticDepth,
    make_divisible,
)
from convexport.architectures.families.mobilenet_v2 import MobileNetV2Config
from convexport.architectures.layers import SqueezeExcitation
from convexport.architectures.registry import find

from .tools import on_meta


def stages(name: str) -> list[tuple[int, ...]]:
    """Maps, height and width after every element of ``features``."""
    table = {row.path: row.output for row in layer_table(on_meta(name), find(name).input)}
    paths = [path for path in table if path.startswith("features.")]
    numbers = {path.split(".")[1]: table[path] for path in paths}
    return [numbers[str(number)] for number in range(len(numbers))]


def runs(values: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Without what repeats the value before it."""
    return [value for n, value in enumerate(values) if not n or value != values[n - 1]]


def test_shapes_of_mobilenet_v2_are_those_of_the_papers_table_2() -> None:
    assert runs(stages("mobilenet_v2")) == [
        (32, 112, 112),
        (16, 112, 112),
        (24, 56, 56),
        (32, 28, 28),
        (64, 14, 14),
        (96, 14, 14),
        (160, 7, 7),
        (320, 7, 7),
        (1280, 7, 7),
    ]


# Inputs of the rows of Tables 1 and 2: side and maps.
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        (
            "mobilenet_v3_large",
            "112x16 112x16 56x24 56x24 28x40 28x40 28x40 14x80 14x80 14x80 14x80 14x112 14x112 "
            "7x160 7x160 7x160 7x960",
        ),
        (
            "mobilenet_v3_small",
            "112x16 56x16 28x24 28x24 14x40 14x40 14x40 14x48 14x48 7x96 7x96 7x96 7x576",
        ),
    ],
)
def test_shapes_of_mobilenet_v3_are_those_of_the_papers_tables(name: str, rows: str) -> None:
    assert [f"{side}x{maps}" for maps, side, _ in stages(name)] == rows.split()


# Table 2: kernel, expanded maps, maps out, squeeze-and-excitation.
SMALL = """
3 16 16 1 | 3 72 24 0 | 3 88 24 0 | 5 96 40 1 | 5 240 40 1 | 5 240 40 1
5 120 48 1 | 5 144 48 1 | 5 288 96 1 | 5 576 96 1 | 5 576 96 1"""


@pytest.mark.parametrize(("name", "width"), [("_small", 1.0), ("_small_050", 0.5)])
def test_parameters_of_mobilenet_v3_by_hand(name: str, width: float) -> None:
    """Convolutions without a bias, two numbers of BN for each map, linear layers with a bias."""

    def maps(number: float) -> int:
        near = max(8, math.floor(number / 8 + 0.5) * 8)
        return near + 8 * (near < 0.9 * number)

    channels = maps(16 * width)
    total = 3 * 9 * channels + 2 * channels
    for row in SMALL.replace("\n", " | ").strip(" |").split(" | "):
        kernel, *both, excited = map(int, row.split())
        inner, outer = (maps(number * width) for number in both)
        if inner != channels:
            total += channels * inner + 2 * inner
        total += kernel**2 * inner + 2 * inner + inner * outer + 2 * outer
        squeezed = maps(inner / 4)
        total += excited * (2 * inner * squeezed + squeezed + inner)
        channels = outer
    last, hidden = 6 * channels, maps(1024 * width)
    total += channels * last + 2 * last + last * hidden + hidden + hidden * 1000 + 1000
    assert total == find(f"mobilenet_v3{name}").counts.params


def test_shapes_of_efficientnet_b0_are_those_of_the_papers_table_1() -> None:
    assert stages("efficientnet_b0") == [
        (32, 112, 112),
        (16, 112, 112),
        (24, 56, 56),
        (40, 28, 28),
        (80, 14, 14),
        (112, 14, 14),
        (192, 7, 7),
        (320, 7, 7),
        (1280, 7, 7),
    ]


# Table 2 of the paper: millions of parameters, thousands of millions of multiply-adds.
@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("efficientnet_b0", 5.3, 0.39),
        ("efficientnet_b1", 7.8, 0.70),
        ("efficientnet_b2", 9.2, 1.0),
        ("efficientnet_b3", 12, 1.8),
        ("efficientnet_b4", 19, 4.2),
        ("efficientnet_b5", 30, 9.9),
        ("efficientnet_b6", 43, 19),
        ("efficientnet_b7", 66, 37),
    ],
)
def test_efficientnets_are_of_the_papers_size(name: str, params: float, macs: float) -> None:
    module = on_meta(name)
    shape = (3, 260, 260) if name.endswith("b2") else find(name).input
    assert count_params(module) / 1e6 == pytest.approx(params, rel=0.02)
    assert count_macs(module, shape) / 1e9 == pytest.approx(macs, rel=0.05)


def test_depth_is_scaled_up_to_whole_blocks() -> None:
    repeats, depth = (1, 2, 2, 3, 3, 4, 1), Fraction("3.1")
    features = on_meta("efficientnet_b7").get_submodule("features")
    assert isinstance(features, nn.Sequential)
    counted = [len(stage) for stage in list(features)[1:-1] if isinstance(stage, nn.Sequential)]
    assert counted == [math.ceil(depth * repeat) for repeat in repeats]


# MobileNet v3 (sec. 5.3) squeezes to a quarter of the expansion, rounded to eights in the authors'
# code; EfficientNet to a quarter of the block's input, as MnasNet (arXiv:1807.11626) does.
@pytest.mark.parametrize(
    ("name", "path", "inner", "squeezed"),
    [
        ("mobilenet_v3_large", "features.4.block.2", 72, 24),
        ("mobilenet_v3_large", "features.15.block.2", 960, 240),
        ("mobilenet_v3_small", "features.1.block.1", 16, 8),
        ("efficientnet_b0", "features.1.0.block.1", 32, 8),
        ("efficientnet_b0", "features.7.0.block.2", 1152, 48),
    ],
)
def test_widths_of_the_squeeze(name: str, path: str, inner: int, squeezed: int) -> None:
    squeeze = on_meta(name).get_submodule(path)
    assert isinstance(squeeze, SqueezeExcitation)
    assert (squeeze.fc1.in_channels, squeeze.fc1.out_channels) == (inner, squeezed)


@pytest.mark.parametrize(
    ("name", "activations", "eps"),
    [
        ("mobilenet_v2", {nn.ReLU6: 35}, 1e-5),
        # Table 1: nine of 15 blocks and three other layers have h-swish.
        ("mobilenet_v3_large", {nn.Hardswish: 21, nn.Hardsigmoid: 8, nn.ReLU: 19}, 1e-3),
        ("mobilenet_v3_small", {nn.Hardswish: 19, nn.Hardsigmoid: 9, nn.ReLU: 14}, 1e-3),
        ("efficientnet_b4", {nn.SiLU: 32 * 3 - 2 + 2, nn.Sigmoid: 32}, 1e-5),
        ("efficientnet_b5", {nn.SiLU: 39 * 3 - 3 + 2, nn.Sigmoid: 39}, 1e-3),
    ],
)
def test_activations_and_epsilons(
    name: str, activations: dict[type[nn.Module], int], eps: float
) -> None:
    modules = list(on_meta(name).modules())
    kinds = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid)
    found = {kind: sum(type(module) is kind for module in modules) for kind in kinds}
    assert {kind: count for kind, count in found.items() if count} == activations
    assert {module.eps for module in modules if isinstance(module, nn.BatchNorm2d)} == {eps}


def block(stride: int = 1, out_channels: int = 8) -> InvertedResidual:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BlockConfig(
            in_channels=8,
            expanded=48,
            out_channels=out_channels,
            stride=stride,
            activation=nn.ReLU6,
            drop=0.5,
        )
        return InvertedResidual(config).eval()


def test_an_inverted_residual_is_the_sum_of_its_input_and_a_linear_projection() -> None:
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    layer = block()
    assert torch.equal(layer(x), x + layer.block(x))
    assert layer.block(x).min() < 0
    assert 0 <= layer.block[:2](x).min() <= layer.block[:2](x).max() <= 6
    assert block(out_channels=9)(x).shape == (2, 9, 6, 6)
    odd = block(stride=2)
    assert torch.equal(odd(x), odd.block(x))
    assert odd(x).shape == (2, 8, 3, 3)


def test_stochastic_depth_is_nothing_in_evaluation() -> None:
    x = torch.randn(3, 2, 4, 4)
    layer = StochasticDepth(0.9)
    assert layer.eval()(x) is x
    assert StochasticDepth(0.0).train()(x) is x


def test_stochastic_depth_skips_images_whole_and_keeps_the_mean() -> None:
    layer, x = StochasticDepth(0.25).train(), torch.ones(4000, 2, 2, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        y = layer(x).flatten(1)
    assert torch.equal(y.amin(1), y.amax(1))
    assert sorted(set(y[:, 0].tolist())) == pytest.approx([0, 1 / 0.75])
    # Five standard errors: sqrt(p / (1 - p) / n).
    assert y[:, 0].mean().item() == pytest.approx(1, abs=5 * math.sqrt(0.25 / 0.75 / 4000))


def test_the_probability_to_skip_grows_along_the_net() -> None:
    drops = [m.drop for m in on_meta("efficientnet_b0").modules() if isinstance(m, StochasticDepth)]
    assert drops == pytest.approx([0.2 * n / 16 for n in range(16)])


def test_make_divisible_is_the_nearest_multiple_of_eight_that_keeps_nine_tenths() -> None:
    for channels in (*range(1, 400), 35.2, 123.9, 200.01):
        candidates = [n for n in range(8, 500, 8) if n >= 0.9 * channels]
        best = min(candidates, key=lambda n: (abs(n - channels), -n))
        assert make_divisible(channels) == best


# Table 4 of MobileNet v2's paper at width 1.4.
def test_a_wider_mobilenet_v2_needs_the_papers_585_million_multiply_adds() -> None:
    with torch.device("meta"):
        module = MobileNetV2Config(1.4).module(1000, (3, 224, 224)).eval()
    assert count_macs(module, (3, 224, 224)) / 1e6 == pytest.approx(585, rel=0.01)
