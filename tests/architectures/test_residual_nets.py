"""Pre-activation, wide and gated residual nets against the definitions in their papers.

- He et al. 2016: arXiv:1603.05027. Torch code: KaimingHe/resnet-1k-layers, fb.resnet.torch.
- Zagoruyko, Komodakis 2016: arXiv:1605.07146.
- Hu et al. 2017: arXiv:1709.01507.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.facts import count_params
from convexport.architectures.families.preact_resnet import PreActResNetConfig
from convexport.architectures.layers import SqueezeExcitation
from convexport.architectures.random_weights import noise_images, random_module
from convexport.architectures.registry import create, find

from .tools import check_close, on_meta, outputs, with_values

pytestmark = pytest.mark.usefixtures("seeded")


def test_an_identity_carries_the_raw_tensor_and_a_projection_the_activated_one() -> None:
    # Without branches, what is left are the shortcuts: He et al. sec. 3, resnet-pre-act.lua.
    net = with_values(create("preact_resnet164_cifar"))
    first, second = (net.get_submodule(f"stages.0.blocks.{n}") for n in range(2))
    for unit in (first, second):
        nn.init.zeros_(unit.get_parameter("conv3.weight"))
    narrow, wide = torch.randn(1, 16, 5, 5), torch.randn(1, 64, 5, 5)
    with torch.no_grad():
        assert torch.equal(second(wide), wide)
        active = F.relu(first.get_submodule("norm1")(narrow))
        assert torch.equal(first(narrow), first.get_submodule("downsample")(active))


def test_the_last_unit_is_followed_by_an_activation() -> None:
    # He et al., appendix.
    net = with_values(create("preact_resnet110_cifar"))
    seen: list[torch.Tensor] = []
    net.get_submodule("head").register_forward_pre_hook(lambda layer, given: seen.extend(given))
    net(torch.randn(1, 3, 32, 32))
    assert seen[0].min() == 0
    assert seen[0].max() > 0


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("preact_resnet110_cifar", (110 - 2) // 6),
        ("preact_resnet164_cifar", (164 - 2) // 9),
        ("preact_resnet1001_cifar", (1001 - 2) // 9),
    ],
)
def test_depth_is_6n_or_9n_plus_2(name: str, units: int) -> None:
    # resnet-pre-act.lua: "depth should be 9n+2 (e.g., 164 or 1001 in the paper)".
    net = on_meta(name)
    assert [len(net.get_submodule(f"stages.{n}.blocks")) for n in range(3)] == [units] * 3


@pytest.mark.parametrize(
    ("name", "path", "strides"),
    [
        ("preact_resnet164_cifar", "stages.1.blocks.0", [2, 1, 1]),  # resnet-pre-act.lua
        ("preact_resnet200", "stages.1.blocks.0", [1, 2, 1]),  # fb.resnet.torch, preresnet.lua
        ("se_resnet50", "layer2.0", [2, 1, 1]),  # the authors' Caffe nets
        ("se_resnext50_32x4d", "layer2.0", [1, 2, 1]),
        ("senet154", "layer2.0", [1, 2, 1]),
        ("seresnet50", "layer2.0", [1, 2, 1]),  # timm
    ],
)
def test_the_stride_of_a_bottleneck(name: str, path: str, strides: list[int]) -> None:
    block = on_meta(name).get_submodule(path)
    convs = [block.get_submodule(f"conv{n}") for n in (1, 2, 3)]
    assert [conv.stride for conv in convs] == [(stride, stride) for stride in strides]


def test_pooling_before_and_behind_the_first_bn_agree_where_bn_grows_and_only_there() -> None:
    # timm pools first, fb.resnet.torch last: as many parameters, another function.
    pools_first, pools_last = (
        PreActResNetConfig(block="bottleneck", depths=(1, 1, 1, 1), stem=stem).module(5, (3, 1, 1))
        for stem in ("imagenet", "activated")
    )
    assert count_params(pools_first) == count_params(pools_last)
    state = with_values(pools_first).state_dict()
    weight = "stages.0.blocks.0.norm1.weight"
    images = torch.randn(2, 3, 41, 38)
    for sign, same in ((1, True), (-1, False)):
        state[weight] = sign * state[weight].abs()
        pools_first.load_state_dict(state)
        moved = {k.replace("stages.0.blocks.0.norm1", "stem.norm"): v for k, v in state.items()}
        pools_last.load_state_dict(moved)
        with torch.no_grad():
            one, other = pools_first.eval()(images), pools_last.eval()(images)
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * one.abs().max().item()) == same


def test_preact_resnet200_is_the_net_that_pools_behind_the_first_bn() -> None:
    net = on_meta("preact_resnet200")
    assert " ".join(dict(net.get_submodule("stem").named_children())) == "conv norm act pool"
    assert "stages.0.blocks.0.norm1.weight" not in net.state_dict()
    assert [len(net.get_submodule(f"stages.{n}.blocks")) for n in range(4)] == [3, 24, 36, 3]


@pytest.mark.parametrize(("depth", "k"), [(16, 8), (28, 10), (40, 4)])
def test_wide_resnets_are_those_of_the_papers_table_1(depth: int, k: int) -> None:
    # F x k filters; 6n+4 convolutions, those of the projections included.
    name = f"wrn_{depth}_{k}_cifar"
    net, n = on_meta(name), (depth - 4) // 6
    assert [len(net.get_submodule(f"stages.{stage}.blocks")) for stage in range(3)] == [n] * 3
    convs = [path for path, layer in net.named_modules() if isinstance(layer, nn.Conv2d)]
    assert len([path for path in convs if not path.startswith("head")]) == depth
    paths = ["stem.conv", *(f"stages.{stage}.blocks.{n - 1}.conv2" for stage in range(3))]
    assert outputs(name, paths) == [
        (16, 32, 32),
        (16 * k, 32, 32),
        (32 * k, 16, 16),
        (64 * k, 8, 8),
    ]


def test_stages_of_preact_resnet200_are_those_of_a_resnet() -> None:
    # He et al. 2015, Table 1; 1603.05027 changes the units alone.
    shapes = outputs("preact_resnet200", [f"stages.{s}.blocks.2.conv3" for s in range(4)])
    assert shapes == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]


@pytest.mark.parametrize(
    ("gated", "plain", "blocks", "expansion"),
    [
        ("se_resnet18", "resnet18", (2, 2, 2, 2), 1),
        ("se_resnet34", "resnet34", (3, 4, 6, 3), 1),
        ("se_resnet50", "resnet50", (3, 4, 6, 3), 4),
        ("seresnet50", "resnet50", (3, 4, 6, 3), 4),
        ("se_resnet101", "resnet101", (3, 4, 23, 3), 4),
        ("se_resnet152", "resnet152", (3, 8, 36, 3), 4),
        ("se_resnext50_32x4d", "resnext50_32x4d", (3, 4, 6, 3), 4),
        ("se_resnext101_32x4d", "resnext101_32x4d", (3, 4, 23, 3), 4),
    ],
)
def test_gates_cost_the_parameters_of_section_4(
    gated: str, plain: str, blocks: tuple[int, ...], expansion: int
) -> None:
    # 2 / r * sum of N_s C_s^2, eq. 5 of Hu et al., which leaves out biases: C_s / r + C_s a block.
    stages = list(zip(blocks, [width * expansion for width in (64, 128, 256, 512)], strict=True))
    weights = sum(2 * n * c**2 // 16 for n, c in stages)
    biases = sum(n * (c // 16 + c) for n, c in stages)
    assert count_params(on_meta(gated)) - count_params(on_meta(plain)) == weights + biases
    if gated == "se_resnet50":
        assert round(weights / 1e6, 1) == 2.5  # "roughly 2.5 million", the same section


@pytest.mark.parametrize("name", ["se_resnet50", "se_resnext50_32x4d", "seresnet50"])
def test_gates_have_the_sizes_of_the_papers_table_1(name: str) -> None:
    sizes = [
        (layer.fc1.out_channels, layer.fc2.out_channels)
        for layer in on_meta(name).modules()
        if isinstance(layer, SqueezeExcitation)
    ]
    assert sizes == [(16, 256)] * 3 + [(32, 512)] * 4 + [(64, 1024)] * 6 + [(128, 2048)] * 3


def test_the_gate_is_that_of_equations_2_to_4() -> None:
    gate = create("se_resnet50").get_submodule("layer1.0.se_module")
    w1, w2 = (gate.get_parameter(f"fc{n}.weight")[:, :, 0, 0].detach() for n in (1, 2))
    b1, b2 = (nn.init.normal_(gate.get_parameter(f"fc{n}.bias")).detach() for n in (1, 2))
    u = torch.randn(2, 256, 5, 4) + 0.3
    with torch.no_grad():
        got = gate(u)
    for image in range(2):
        z = u[image].sum((1, 2)) / (5 * 4)
        s = 1 / (1 + torch.exp(-(w2 @ (w1 @ z + b1).clamp_min(0) + b2)))
        for c in range(256):
            torch.testing.assert_close(got[image, c], s[c] * u[image, c], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["seresnet50", "seresnext50_32x4d"])
def test_with_open_gates_what_is_left_is_the_plain_net(name: str) -> None:
    gated, plain = with_values(create(name)), create(name.replace("se", "", 1)).eval()
    for layer in gated.modules():
        if isinstance(layer, SqueezeExcitation):
            nn.init.zeros_(layer.fc2.weight)
            nn.init.constant_(layer.fc2.bias, 100)  # its sigmoid is 1
    state = {key: value for key, value in gated.state_dict().items() if ".se." not in key}
    plain.load_state_dict(state)
    images = torch.randn(2, 3, 64, 49)
    with torch.no_grad():
        check_close(gated(images), plain(images))


def test_closed_gates_leave_the_shortcuts() -> None:
    block = with_values(create("se_resnet18")).get_submodule("layer1.0")
    nn.init.zeros_(block.get_parameter("se_module.fc2.weight"))
    nn.init.constant_(block.get_parameter("se_module.fc2.bias"), -200)
    x = torch.randn(1, 64, 5, 5)
    assert torch.equal(block(x), x.clamp_min(0))


def test_senet154_has_the_changes_of_the_appendix() -> None:
    net = on_meta("senet154")
    convs = {path: layer for path, layer in net.named_modules() if isinstance(layer, nn.Conv2d)}
    stem = [convs[f"layer0.conv{n}"] for n in (1, 2, 3)]
    assert [(conv.out_channels, *conv.kernel_size, *conv.stride) for conv in stem] == [
        (64, 3, 3, 2, 2),
        (64, 3, 3, 1, 1),
        (128, 3, 3, 1, 1),
    ]
    projections = [convs[f"layer{n}.0.downsample.0"].kernel_size for n in (1, 2, 3, 4)]
    assert projections == [(1, 1), (3, 3), (3, 3), (3, 3)]
    for stage, depth in enumerate((3, 8, 36, 3), 1):
        assert len(net.get_submodule(f"layer{stage}")) == depth
        for n in range(depth):
            first, second = (convs[f"layer{stage}.{n}.conv{i}"] for i in (1, 2))
            assert 2 * first.out_channels == second.out_channels == 128 * 2**stage
            assert (first.groups, second.groups) == (1, 64)
    dropouts = [layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)]
    assert dropouts == [0.2]


@pytest.mark.parametrize("name", ["se_resnet50", "senet154", "seresnet50"])
def test_sizes_of_the_stages_are_those_of_the_papers_table_1(name: str) -> None:
    shapes = outputs(name, ["pool0", *(f"layer{n}.0.bn3" for n in (1, 2, 3, 4))])
    assert [shape[1:] for shape in shapes] == [(size, size) for size in (56, 56, 28, 14, 7)]
    assert [shape[0] for shape in shapes[1:]] == [256, 512, 1024, 2048]


@pytest.mark.parametrize(
    "name",
    [
        "preact_resnet164_cifar",
        "wrn_16_8_cifar",
        pytest.param("preact_resnet1001_cifar", marks=pytest.mark.slow),
        pytest.param("se_resnet152", marks=pytest.mark.slow),
    ],
)
def test_an_untrained_deep_net_does_not_multiply_disturbances(name: str) -> None:
    # Without damped branches the output would change 60 and more times as much as the input.
    module, (channels, height, width) = random_module(find(name), 0), find(name).input
    images = noise_images(channels, min(height, 128), min(width, 128))
    disturbance = torch.randn_like(images) * 1e-3
    with torch.no_grad():
        want, got = module(images), module(images + disturbance)
    assert want.isfinite().all()
    assert (got - want).norm() / want.norm() < 8 * disturbance.norm() / images.norm()
