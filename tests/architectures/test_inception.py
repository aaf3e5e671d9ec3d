"""BN-Inception, Inception v2 to v4, Inception-ResNet: arXiv:1502.03167, 1512.00567, 1602.07261."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from convexport.architectures.facts import count_macs, count_params, layer_table
from convexport.architectures.families.inception_blocks import HALVE, Branches, halve
from convexport.architectures.layers import ConvBNReLU, drop_auxiliary_heads
from convexport.architectures.registry import create, find

from .tools import on_meta, outputs

PURE = ["inception_v3", "inception_v4"]
RESIDUAL = ["inception_resnet_v1", "inception_resnet_v2", "inception_resnet_v2_paper"]


def test_grids_of_bn_inception_are_those_of_the_papers_figure_5() -> None:
    net = on_meta("bn_inception_paper")
    names = ("3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    following = [f"inception_{name}_3x3_reduce" for name in names]
    layers = [*(net.get_submodule(path) for path in following), net.get_submodule("last_linear")]
    maps = [layer.get_parameter("weight").shape[1] for layer in layers]
    assert maps == [256, 320, *[576] * 5, *[1024] * 3]
    paths = ["pool1_3x3_s2", "pool2_3x3_s2", "inception_3c_pool", "inception_4e_pool"]
    sides = [shape[1:] for shape in outputs("bn_inception_paper", paths)]
    assert sides == [(56, 56), (28, 28), (14, 14), (7, 7)]


def test_the_public_bn_inception_has_608_maps_where_the_paper_has_576() -> None:
    net = on_meta("bn_inception")
    for name, maps in (("4c", 576), ("4d", 608), ("4e", 608)):
        reduce = net.get_submodule(f"inception_{name}_3x3_reduce")
        assert reduce.get_parameter("weight").shape[1] == maps


def test_grids_of_inception_v2_are_those_of_table_1_of_rethinking() -> None:
    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"]
    stem += ["Conv2d_3b_3x3", "Conv2d_4a_3x3", "Conv2d_4b_3x3"]
    modules = ["Mixed_5d", "Mixed_6a", "Mixed_6f", "Mixed_7a", "Mixed_7c", "avgpool"]
    assert outputs("inception_v2", stem + modules) == [
        (32, 149, 149),
        (32, 147, 147),
        (64, 147, 147),
        (64, 73, 73),
        (80, 71, 71),
        (192, 35, 35),
        (288, 35, 35),
        (288, 35, 35),
        (768, 17, 17),
        (768, 17, 17),
        (1280, 8, 8),
        (2048, 8, 8),
        (2048, 1, 1),
    ]


def test_inception_v2_has_3_5_and_2_modules_as_in_table_1() -> None:
    names = [name for name, _ in on_meta("inception_v2").named_children()]
    grids = [sum(name.startswith(f"Mixed_{grid}") for name in names) for grid in "567"]
    # Two of them are the grid reductions that stand between the three kinds.
    assert grids == [3, 5 + 1, 2 + 1]


def test_v3_reaches_the_same_grids_with_four_modules_at_17x17() -> None:
    paths = ["Mixed_5d", *(f"Mixed_6{letter}" for letter in "abcde"), "Mixed_7a", "Mixed_7c"]
    assert outputs("inception_v3", paths) == [
        (288, 35, 35),
        *[(768, 17, 17)] * 5,
        (1280, 8, 8),
        (2048, 8, 8),
    ]


@pytest.mark.parametrize(
    ("name", "paths", "maps"),
    [
        # Fig. 9.
        ("inception_v4", ["features.9", "features.17", "features.21"], [384, 1024, 1536]),
        # Fig. 10 to 13.
        ("inception_resnet_v1", ["repeat", "repeat_1", "repeat_2"], [256, 896, 1792]),
        # As released.
        ("inception_resnet_v2", ["repeat", "repeat_1", "block8"], [320, 1088, 2080]),
        # Fig. 16 to 19, where 1154 and 2048 are printed; these are what is concatenated.
        (
            "inception_resnet_v2_paper",
            ["repeat", "repeat_1", "repeat_2"],
            [384, 384 + 384 + 384, 1152 + 384 + 288 + 320],
        ),
    ],
)
def test_reductions_of_v4_lead_from_35x35_over_17x17_to_8x8(
    name: str, paths: list[str], maps: list[int]
) -> None:
    shapes = [(count, side, side) for count, side in zip(maps, (35, 17, 8), strict=True)]
    assert outputs(name, paths) == shapes


def test_convolution_and_pool_side_by_side_double_the_maps_of_a_smaller_grid() -> None:
    # Rethinking, Fig. 10: 320 of each give 640.
    block = Branches(320, ({"conv": halve(320)}, {"pool": HALVE}))
    assert block(torch.zeros(1, 320, 35, 35)).shape == (1, 640, 17, 17)


@pytest.mark.parametrize(
    ("whole", "parts", "saved"),
    [
        (5, [3, 3], 1 - 18 / 25),  # sec. 3.1: 28 %
        (3, [(1, 3), (3, 1)], 1 / 3),  # sec. 3.2: 33 %
        (3, [2, 2], 1 / 9),  # sec. 3.2: 11 %
    ],
)
def test_factorised_kernels_save_what_rethinking_says(
    whole: int, parts: list[Any], saved: float
) -> None:
    def cost(*kernels: Any) -> int:
        convs = (nn.Conv2d(4, 4, kernel, bias=False) for kernel in kernels)
        return count_params(nn.Sequential(*convs))

    assert 1 - cost(*parts) / cost(whole) == pytest.approx(saved)


def test_a_5x5_costs_2_78_times_a_3x3() -> None:
    five, three = (count_macs(ConvBNReLU(4, 4, kernel), (4, 12, 12)) for kernel in (5, 3))
    assert five / three == pytest.approx(2.78, abs=0.005)  # sec. 3.1


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, (1, 7), (7, 1), (1, 3)])
def test_padding_of_half_the_kernel_keeps_the_size(kernel: Any) -> None:
    assert ConvBNReLU(2, 3, kernel)(torch.zeros(2, 2, 9, 11)).shape == (2, 3, 9, 11)


def test_cost_of_the_residual_nets_is_that_of_their_pure_counterparts() -> None:
    # arXiv:1602.07261, sec. 3.2.
    giga = {name: find(name).counts.macs / 1e9 for name in [*RESIDUAL, *PURE]}
    assert {name: round(macs, 2) for name, macs in giga.items()} == {
        "inception_resnet_v1": 6.21,
        "inception_resnet_v2": 13.16,
        "inception_resnet_v2_paper": 9.26,
        "inception_v3": 5.71,
        "inception_v4": 12.25,
    }
    assert giga["inception_resnet_v1"] / giga["inception_v3"] == pytest.approx(1, abs=0.1)
    assert giga["inception_resnet_v2"] / giga["inception_v4"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", RESIDUAL)
def test_residuals_are_scaled_by_the_authors_constants(name: str) -> None:
    # Sec. 3.3 says 0.1 to 0.3; the constants are those of the authors' code.
    net = create(name).eval()
    blocks = [("repeat.0", 0.17), ("repeat_1.0", 0.10), ("repeat_2.0", 0.20)]
    for path, scale in blocks:
        block = net.get_submodule(path)
        expand = block.get_submodule("conv2d")
        assert isinstance(expand, nn.Conv2d)
        assert expand.bias is not None
        x = torch.randn(1, expand.out_channels, 3, 3, generator=torch.Generator().manual_seed(0))
        # The expansion gives minus one: neither BN nor ReLU stand between it and the sum.
        nn.init.zeros_(expand.weight)
        nn.init.constant_(expand.bias, -1)
        torch.testing.assert_close(block(x), (x - scale).clamp_min(0))


def test_the_last_block_of_the_released_net_is_neither_scaled_nor_rectified() -> None:
    block = create("inception_resnet_v2").eval().get_submodule("block8")
    nn.init.zeros_(block.get_parameter("conv2d.weight"))
    nn.init.constant_(block.get_parameter("conv2d.bias"), -1)
    x = torch.randn(1, 2080, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x - 1)


def averaged(image: torch.Tensor, row: int, column: int, *, counts_padding: bool) -> float:
    """The mean of the 3x3 around a pixel, with zeros beyond the border or without these."""
    height, width = image.shape
    inside = [
        image[i, j].item()
        for i in range(row - 1, row + 2)
        for j in range(column - 1, column + 2)
        if 0 <= i < height and 0 <= j < width
    ]
    return sum(inside) / (9 if counts_padding else len(inside))


@pytest.mark.parametrize(
    ("name", "counts_padding", "number"),
    [
        ("bn_inception", True, 7),
        ("bn_inception_paper", True, 7),
        ("inception_v2", True, 10),
        ("inception_v3", True, 9),
        ("inception_v4", False, 14),
        ("inception_resnet_v1", False, 0),
        ("inception_resnet_v2", False, 1),
    ],
)
def test_averages_at_the_border_count_the_padding_or_do_not(
    name: str, counts_padding: bool, number: int
) -> None:
    net = drop_auxiliary_heads(on_meta(name))
    image = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    want = [
        [averaged(image, i, j, counts_padding=counts_padding) for j in range(5)] for i in range(4)
    ]
    pools = [layer for layer in net.modules() if isinstance(layer, nn.AvgPool2d)]
    assert len(pools) == number
    for pool in pools:
        torch.testing.assert_close(pool(image[None, None])[0, 0], torch.tensor(want))


@pytest.mark.parametrize(
    ("names", "epsilon"),
    [
        (["googlenet", "inception_v2", "inception_v3", "inception_v4", *RESIDUAL], 1e-3),
        (["bn_inception", "bn_inception_paper"], 1e-5),
    ],
)
def test_epsilon_is_that_of_tensorflow_or_caffe(names: list[str], epsilon: float) -> None:
    for name in names:
        norms = [layer for layer in on_meta(name).modules() if isinstance(layer, nn.BatchNorm2d)]
        assert {norm.eps for norm in norms} == {epsilon}


def test_inception_v3_has_one_normalised_head_on_its_last_17x17_grid() -> None:
    # Rethinking, sec. 4 and Fig. 8.
    head = on_meta("inception_v3").get_submodule("AuxLogits")
    rows = {row.path: row.output for row in layer_table(head, (768, 17, 17))}
    paths = ["pool", "conv0.bn", "conv1.bn", "fc"]
    assert [rows[path] for path in paths] == [(768, 5, 5), (128, 5, 5), (768, 1, 1), (1000,)]


def test_the_head_of_inception_v3_answers_in_training_alone() -> None:
    net = create("inception_v3", num_classes=3)
    for value, path in enumerate(("fc", "AuxLogits.fc")):
        nn.init.zeros_(net.get_parameter(f"{path}.weight"))
        nn.init.constant_(net.get_parameter(f"{path}.bias"), value)
    images = torch.zeros(2, 3, 299, 299)
    with torch.no_grad():
        answers = net.train()(images)
        assert isinstance(answers, tuple)
        assert [answer.tolist() for answer in answers] == [[[0.0] * 3] * 2, [[1.0] * 3] * 2]
        small = images[..., :75, :75]
        assert net.eval()(small).shape == (2, 3)
        drop_auxiliary_heads(net)
        assert net.train()(images[..., :128, :128]).shape == (2, 3)
    assert not [key for key in net.state_dict() if "Aux" in key]
