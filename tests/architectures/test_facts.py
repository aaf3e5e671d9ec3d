"""Parameters, multiply-adds and shapes against the literature.

The ImageNet rows are torchvision's and timm's own counts, those of CIFAR and of the narrower
MobileNets agree with pytorchcv's; the papers print them rounded.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convexport.architectures.facts import count_macs, count_params, layer_table
from convexport.architectures.registry import create, find, variants

# Parameters, multiply-adds at the row's input, entries of the state dict.
COUNTS = {
    "lenet5": (61_706, 416_520, 10),
    "resnet18": (11_689_512, 1_814_073_344, 122),
    "resnet34": (21_797_672, 3_663_761_408, 218),
    "resnet50": (25_557_032, 4_089_184_256, 320),
    "resnet101": (44_549_160, 7_801_405_440, 626),
    "resnet152": (60_192_808, 11_513_626_624, 932),
    "resnet200": (64_673_832, 15_007_481_856, 1220),
    "resnext50_32x4d": (25_028_904, 4_230_479_872, 320),
    "resnext101_32x4d": (44_177_704, 7_969_996_800, 626),
    "resnext101_32x8d": (88_791_336, 16_414_015_488, 626),
    "resnext101_64x4d": (83_455_272, 15_460_270_080, 626),
    "wide_resnet50_2": (68_883_240, 11_398_021_120, 320),
    "wide_resnet101_2": (126_886_696, 22_753_050_624, 626),
    "resnet20_cifar": (269_722, 40_551_040, 116),
    "resnet32_cifar": (464_154, 68_862_592, 188),
    "resnet44_cifar": (658_586, 97_174_144, 260),
    "resnet56_cifar": (853_018, 125_485_696, 332),
    "resnet110_cifar": (1_727_962, 252_887_680, 656),
    "resnet1202_cifar": (19_421_274, 2_829_238_912, 7208),
    "resnext29_8x64d_cifar": (34_426_698, 5_387_266_048, 188),
    "resnext29_16x64d_cifar": (68_155_210, 10_688_866_304, 188),
    "mobilenet_v1": (4_231_976, 568_740_352, 164),
    "mobilenet_v1_075": (2_585_560, 325_400_448, 164),
    "mobilenet_v1_050": (1_331_592, 149_497_088, 164),
    "mobilenet_v1_025": (470_072, 41_030_272, 164),
}


def on_meta(name: str) -> nn.Module:
    # Small nets are quicker to make for real.
    with torch.device("cpu" if "cifar" in name else "meta"):
        return create(name)


def test_every_variant_is_counted_here() -> None:
    assert list(COUNTS) == list(variants())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if "1202" in n else []) for n in COUNTS]
)
def test_counts(name: str) -> None:
    params, macs, entries = COUNTS[name]
    variant, module = find(name), on_meta(name)
    assert (variant.params, variant.macs) == (params, macs)
    assert count_params(module) == params
    assert count_macs(module, variant.input) == macs
    assert len(module.state_dict()) == entries


def outputs(name: str, paths: list[str]) -> list[tuple[int, ...]]:
    """The shape after each of these layers, in the net's order."""
    table = {row.path: row.output for row in layer_table(on_meta(name), find(name).input)}
    return [table[path] for path in paths]


def test_shapes_of_lenet5_are_those_of_the_papers_figure_2() -> None:
    assert outputs("lenet5", ["c1", "s2", "c3", "s4", "c5", "f6", "output"]) == [
        (6, 28, 28),
        (6, 14, 14),
        (16, 10, 10),
        (16, 5, 5),
        (120, 1, 1),
        (84,),
        (10,),
    ]


def test_shapes_of_resnet50_are_those_of_the_papers_table_1() -> None:
    paths = ["conv1", "maxpool", *(f"layer{n}.{last}.bn3" for n, last in enumerate("2352", 1))]
    assert outputs("resnet50", [*paths, "avgpool", "fc"]) == [
        (64, 112, 112),
        (64, 56, 56),
        (256, 56, 56),
        (512, 28, 28),
        (1024, 14, 14),
        (2048, 7, 7),
        (2048, 1, 1),
        (1000,),
    ]


def test_shapes_of_resnet20_are_those_of_section_4_2() -> None:
    assert outputs("resnet20_cifar", ["conv1", "layer1.2.bn2", "layer2.2.bn2", "layer3.2.bn2"]) == [
        (16, 32, 32),
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
    ]


def test_shapes_of_mobilenet_are_those_of_the_papers_table_1() -> None:
    paths = ["conv_stem", *(f"blocks.{s}.{b}.bn2" for s, b in enumerate((0, 1, 1, 5, 1)))]
    assert outputs("mobilenet_v1", paths) == [
        (32, 112, 112),
        (64, 112, 112),
        (128, 56, 56),
        (256, 28, 28),
        (512, 14, 14),
        (1024, 7, 7),
    ]


def test_the_table_counts_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(6, 5, 2, stride=2),
        nn.Flatten(),
        nn.Linear(5 * 8 * 8, 3),
    )
    rows = layer_table(net, (4, 8, 8))
    assert [row.kind for row in rows] == ["Conv2d", "ConvTranspose2d", "Flatten", "Linear"]
    assert [row.output for row in rows] == [(6, 4, 4), (5, 8, 8), (320,), (3,)]
    assert [row.params for row in rows] == [6 * 2 * 9 + 6, 6 * 5 * 4 + 5, 0, 320 * 3 + 3]
    assert [row.macs for row in rows] == [16 * 6 * 2 * 9, 16 * 6 * 5 * 4, 0, 320 * 3]


def test_counting_leaves_the_module_as_it_was() -> None:
    module = create("resnet20_cifar")
    before = {key: value.clone() for key, value in module.state_dict().items()}
    layer_table(module, (3, 32, 32))
    assert module.training
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())
