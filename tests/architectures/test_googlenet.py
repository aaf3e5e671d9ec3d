"""GoogLeNet and its module: arXiv:1409.4842, Caffe, Keras, torchvision."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.facts import count_params, layer_table
from convexport.architectures.layers import drop_auxiliary_heads
from convexport.architectures.registry import create, find

from .tools import longest_path, on_meta

MODULES = [f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
NETS = ["googlenet", "googlenet_original"]


def path_macs(name: str) -> dict[str, list[int]]:
    """Multiply-adds of the convolutions of each branch."""
    found: dict[str, list[int]] = {}
    for row in layer_table(on_meta(name), find(name).input):
        if row.macs:
            found.setdefault(row.path.split(".")[0], []).append(row.macs)
    return found


def output_of(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(module(torch.empty(1, *shape, device="meta")).shape[1:])


def test_the_naive_block_costs_854_million_on_the_slides() -> None:
    assert path_macs("inception_block_naive") == {
        "branch1": [25_690_112],
        "branch2": [346_816_512],
        "branch3": [481_689_600],
    }
    assert output_of(on_meta("inception_block_naive"), (256, 28, 28)) == (672, 28, 28)


def test_the_reduced_block_costs_271_million() -> None:
    # The slides' own lines, of which one is added twice in their sum of 358 million.
    costs = path_macs("inception_block_reduced")
    assert costs == {
        "branch1": [25_690_112],
        "branch2": [12_845_056, 86_704_128],
        "branch3": [12_845_056, 120_422_400],
        "branch4": [12_845_056],
    }
    assert sum(map(sum, costs.values())) == 271_351_808
    assert output_of(on_meta("inception_block_reduced"), (256, 28, 28)) == (480, 28, 28)


def test_a_block_ignores_the_number_of_classes() -> None:
    shape = find("inception_block_naive").input
    assert output_of(on_meta("inception_block_naive", num_classes=7), shape)[0] == 672


WITH_POOLS = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AdaptiveAvgPool2d)


@pytest.mark.parametrize("name", [*NETS, "googlenet_keras"])
def test_googlenet_has_22_layers_27_with_pools_and_9_modules(name: str) -> None:
    # Sec. 5 of the paper.
    net = on_meta(name)
    assert longest_path(net) == 22
    assert longest_path(net, WITH_POOLS) == 27
    assert sum(path.startswith("inception") for path, _ in net.named_children()) == 9


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("inception_block_naive", 1),
        ("inception_block_reduced", 2),
        ("inception_keras_small", 4),
        ("bn_inception", 34),
        ("bn_inception_paper", 34),
        ("inception_v2", 53),
        ("inception_v3", 48),
        ("inception_v4", 76),
        ("inception_resnet_v1", 93),
        ("inception_resnet_v2", 176),
        ("inception_resnet_v2_paper", 96),
    ],
)
def test_longest_paths_are_those_of_public_and_independent_implementations(
    name: str, layers: int
) -> None:
    assert longest_path(on_meta(name)) == layers


@pytest.mark.parametrize("name", NETS)
def test_module_channels_are_those_of_the_papers_table_1(name: str) -> None:
    net = on_meta(name)
    channels, found = 192, []
    for module in MODULES:
        channels = output_of(net.get_submodule(module), (channels, 14, 14))[0]
        found.append(channels)
    assert found == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


def test_a_module_has_six_widths_to_choose() -> None:
    # The Keras notebook of notable architectures counts them.
    module = on_meta("googlenet_original").get_submodule("inception3a")
    convs = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    # Table 1: 64 | 96, 128 | 16, 32 | 32.
    assert [conv.out_channels for conv in convs] == [64, 96, 128, 16, 32, 32]
    assert [conv.kernel_size[0] for conv in convs] == [1, 1, 3, 1, 5, 1]


def test_parameters_of_the_modules_follow_from_table_1() -> None:
    net = on_meta("googlenet_original")
    assert [count_params(net.get_submodule(module)) for module in MODULES] == [
        163_696,
        388_736,
        376_176,
        449_160,
        510_104,
        605_376,
        868_352,
        1_043_456,
        1_444_080,
    ]


def test_torchvision_has_3x3_where_the_paper_has_5x5() -> None:
    module = on_meta("googlenet").get_submodule("inception3a.branch3.1.conv")
    assert isinstance(module, nn.Conv2d)
    assert module.kernel_size == (3, 3)


@pytest.mark.parametrize("name", NETS)
def test_grid_is_112_56_28_14_7_as_in_table_1(name: str) -> None:
    table = {row.path: row.output for row in layer_table(on_meta(name), (3, 224, 224))}
    paths = ["conv1.conv", *(f"maxpool{n}" for n in range(1, 5))]
    assert [table[path][1:] for path in paths] == [(n, n) for n in (112, 56, 28, 14, 7)]


def test_parts_of_the_keras_notebook() -> None:
    rows = layer_table(on_meta("googlenet_keras"), (3, 96, 96))
    starts = ["conv1", "conv2", "inception3a", "inception4a", "inception5a", "fc"]
    names = [row.path.split(".")[0] for row in rows]
    bounds = [*(names.index(start) for start in starts), len(rows)]
    parts = [rows[a:b] for a, b in pairwise(bounds)]
    assert [sum(row.params for row in part) for part in parts] == [
        9_472,
        114_944,
        552_432,
        2_809_168,
        2_487_536,
        10_250,
    ]
    ends = ["maxpool1", "maxpool2", "maxpool3", "maxpool4", "avgpool", "fc"]
    table = {row.path: row.output for row in rows}
    assert [table[end] for end in ends] == [
        (64, 24, 24),
        (192, 12, 12),
        (480, 6, 6),
        (832, 3, 3),
        (1024, 1, 1),
        (10,),
    ]


def test_d2ls_gluon_net_for_grey_images_has_as_many_parameters() -> None:
    net = on_meta("googlenet_keras", shape=(1, 96, 96))
    assert count_params(net.get_submodule("conv1")) == 3_200
    assert count_params(net) == 5_977_530


def test_layers_of_the_slides_summary() -> None:
    rows = layer_table(on_meta("inception_keras_small"), (3, 32, 32))
    # Boracchi's lecture slides, model.summary(): name, shape, parameters.
    assert {row.path.removesuffix(".conv"): (row.output, row.params) for row in rows} == {
        "conv": ((32, 32, 32), 896),
        "mp": ((32, 16, 16), 0),
        "concat.conv_1_1": ((32, 16, 16), 1_056),
        "concat.conv_2_1": ((64, 16, 16), 2_112),
        "concat.conv_2_2": ((32, 16, 16), 18_464),
        "concat.conv_3_1": ((64, 16, 16), 2_112),
        "concat.conv_3_2": ((32, 16, 16), 51_232),
        "concat.mp_4_1": ((32, 16, 16), 0),
        "concat.conv_4_1": ((32, 16, 16), 1_056),
        "gap": ((128, 1, 1), 0),
        "dropout": ((128,), 0),
        "output": ((10,), 1_290),
    }


def same_padding(size: int, kernel: int) -> tuple[int, int]:
    """Before and after, at stride 2, as TensorFlow documents SAME."""
    total = max((-(-size // 2) - 1) * 2 + kernel - size, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize(("pool", "size"), [(1, 48), (2, 24), (3, 12), (4, 6)])
def test_pools_of_the_keras_net_pad_as_keras_does(pool: int, size: int) -> None:
    x = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(0))
    before, after = same_padding(size, 3)
    assert (before, after) == (0, 1)
    padded = F.pad(x, (before, after) * 2, value=-torch.inf)
    ours = create("googlenet_keras").get_submodule(f"maxpool{pool}")(x)
    assert torch.equal(ours, F.max_pool2d(padded, 3, 2))


def test_a_pool_of_the_keras_net_by_hand() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooled = create("googlenet_keras").get_submodule("maxpool1")(x)
    assert pooled[0, 0].tolist() == [[10.0, 11.0], [14.0, 15.0]]


def test_the_first_convolution_of_the_keras_net_pads_two_before_and_three_after() -> None:
    net = create("googlenet_keras").eval()
    conv = net.get_submodule("conv1.conv")
    assert isinstance(conv, nn.Conv2d)
    assert same_padding(96, 7) == (2, 3)
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    net.get_submodule("conv1").register_forward_hook(lambda *call: seen.append(call[2]))
    # Only the first tap, then only the last one: each output is one padded pixel.
    for tap, first in ((0, 0), (-1, 6)):
        nn.init.zeros_(conv.weight)
        conv.weight.data[0, 1, tap, tap] = 1
        net(x)
        pixels = torch.zeros(48, 48)
        for i in range(48):
            for j in range(48):
                row, column = 2 * i + first - 2, 2 * j + first - 2
                if 0 <= row < 96 and 0 <= column < 96:
                    pixels[i, j] = x[0, 1, row, column]
        torch.testing.assert_close(seen.pop()[0, 0], pixels, rtol=0, atol=0)


def test_lrn_of_the_original_is_caffes() -> None:
    net = create("googlenet_original")
    x = torch.rand(1, 7, 1, 1, generator=torch.Generator().manual_seed(0)) * 100
    values = x.flatten().tolist()
    want = [
        v / (1 + 1e-4 / 5 * sum(n * n for n in values[max(c - 2, 0) : c + 3])) ** 0.75
        for c, v in enumerate(values)
    ]
    for name in ("norm1", "norm2"):
        assert net.get_submodule(name)(x).flatten().tolist() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_auxiliary_heads_stand_behind_4a_and_4d(name: str) -> None:
    net, seen = on_meta(name).train(), []
    for path in ("inception4a", "inception4d"):
        net.get_submodule(path).register_forward_hook(lambda *call: seen.append(call[2]))
    for path in ("aux1", "aux2"):
        net.get_submodule(path).register_forward_pre_hook(lambda *call: seen.append(call[1][0]))
    net(torch.empty(2, 3, 224, 224, device="meta"))
    module_4a, given_1, module_4d, given_2 = seen
    assert given_1 is module_4a
    assert given_2 is module_4d


def test_auxiliary_heads_are_those_of_section_5() -> None:
    # Average to 4x4, 1x1 with 128 maps, 1024 units, dropout of 70 %.
    for name in NETS:
        net = on_meta(name)
        for head, maps in (("aux1", 512), ("aux2", 528)):
            rows = {row.path: row for row in layer_table(net.get_submodule(head), (maps, 14, 14))}
            assert rows["conv.conv"].output == (128, 4, 4)
            assert [rows[path].output for path in ("fc1", "fc2")] == [(1024,), (1000,)]
            dropout = net.get_submodule(f"{head}.dropout")
            assert isinstance(dropout, nn.Dropout)
            assert dropout.p == 0.7


@pytest.mark.parametrize("name", NETS)
def test_heads_answer_in_training_alone_the_second_before_the_first(name: str) -> None:
    net = create(name, num_classes=3)
    for value, head in enumerate(("fc", "aux1.fc2", "aux2.fc2")):
        classifier = net.get_submodule(head)
        nn.init.zeros_(classifier.get_parameter("weight"))
        nn.init.constant_(classifier.get_parameter("bias"), value)
    images = torch.randn(2, 3, 100, 120, generator=torch.Generator().manual_seed(0))
    outputs = net.train()(images)
    assert isinstance(outputs, tuple)
    assert [output.shape for output in outputs] == [(2, 3)] * 3
    assert [output.unique().tolist() for output in outputs] == [[0], [2], [1]]
    assert net.eval()(images).shape == (2, 3)
    drop_auxiliary_heads(net)
    assert net.train()(images).shape == (2, 3)
    assert not [key for key in net.state_dict() if key.startswith("aux")]


def test_the_keras_net_has_no_heads() -> None:
    images = torch.zeros(2, 3, 96, 96)
    assert create("googlenet_keras").train()(images).shape == (2, 10)
