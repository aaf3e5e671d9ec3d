"""DenseNet against its paper (Huang et al. 2016, arXiv:1608.06993) and its published files."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.facts import layer_table
from convexport.architectures.registry import create, find, smallest_side
from convexport.architectures.state import load_state
from convexport.runtime.errors import InputError

from .tools import on_meta

pytestmark = pytest.mark.usefixtures("seeded")


def read_by(net: nn.Module, path: str) -> int:
    """The feature maps that a convolution reads."""
    return net.get_parameter(f"{path}.weight").shape[1]


def test_shapes_of_densenet121_are_those_of_the_papers_table_1() -> None:
    table = {row.path: row.output for row in layer_table(on_meta("densenet121"), (3, 224, 224))}
    paths = ["conv0", "pool0", "transition1.pool", "transition2.pool", "transition3.pool", "norm5"]
    assert [table[f"features.{path}"] for path in paths] == [
        (64, 112, 112),
        (64, 56, 56),
        (128, 28, 28),
        (256, 14, 14),
        (512, 7, 7),
        (1024, 7, 7),
    ]


@pytest.mark.parametrize(
    ("name", "growth", "depths", "after"),
    [
        # Table 1; 161 (k = 48) in its README. After a block k_0 + l k, of which half are kept.
        ("densenet121", 32, (6, 12, 24, 16), (256, 512, 1024, 1024)),
        ("densenet169", 32, (6, 12, 32, 32), (256, 512, 1280, 1664)),
        ("densenet201", 32, (6, 12, 48, 32), (256, 512, 1792, 1920)),
        ("densenet264", 32, (6, 12, 64, 48), (256, 512, 2304, 2688)),
        ("densenet161", 48, (6, 12, 36, 24), (384, 768, 2112, 2208)),
        ("densenet_bc_100_k12_cifar", 12, (16,) * 3, (216, 300, 342)),
        ("densenet_bc_250_k24_cifar", 24, (41,) * 3, (1032, 1500, 1734)),
        ("densenet_bc_190_k40_cifar", 40, (31,) * 3, (1320, 1900, 2190)),
    ],
)
def test_growth_of_a_bc_net(
    name: str, growth: int, depths: tuple[int, ...], after: tuple[int, ...]
) -> None:
    net = on_meta(name)
    maps = net.get_parameter("features.conv0.weight").shape[0]
    assert maps == 2 * growth
    for block, (depth, end) in enumerate(zip(depths, after, strict=True), 1):
        for n in range(depth):
            layer = f"features.denseblock{block}.denselayer{n + 1}"
            assert read_by(net, f"{layer}.conv1") == maps + n * growth
            assert read_by(net, f"{layer}.conv2") == 4 * growth
            assert net.get_parameter(f"{layer}.conv2.weight").shape == (growth, 4 * growth, 3, 3)
        assert maps + depth * growth == end
        if block < len(depths):
            maps = end // 2
            transition = net.get_parameter(f"features.transition{block}.conv.weight")
            assert transition.shape == (maps, end, 1, 1)
    assert net.get_parameter("classifier.weight").shape[1] == after[-1]


@pytest.mark.parametrize(("depth", "growth"), [(40, 12), (100, 12), (100, 24)])
def test_growth_of_a_plain_net(depth: int, growth: int) -> None:
    # Sec. 3: 16 maps at first, L = 3 l + 4, no bottleneck; transitions keep all maps.
    net, layers = on_meta(f"densenet_{depth}_k{growth}_cifar"), (depth - 4) // 3
    maps = 16
    assert net.get_parameter("features.conv0.weight").shape[0] == maps
    for block in (1, 2, 3):
        for n in range(layers):
            layer = f"features.denseblock{block}.denselayer{n + 1}"
            shape = net.get_parameter(f"{layer}.conv1.weight").shape
            assert shape == (growth, maps + n * growth, 3, 3)
        maps += layers * growth
        if block < 3:
            kept = net.get_parameter(f"features.transition{block}.conv.weight").shape[0]
            assert kept == maps
    assert net.get_parameter("classifier.weight").shape[1] == maps == 16 + 3 * layers * growth


def test_sizes_of_cifar_nets_are_32_16_and_8() -> None:
    # Sec. 3, implementation details.
    table = layer_table(on_meta("densenet_40_k12_cifar"), (3, 32, 32))
    sizes = {row.path: row.output[1:] for row in table}
    paths = [f"features.denseblock{n}.denselayer12.conv1" for n in (1, 2, 3)]
    assert [sizes[path] for path in paths] == [(32, 32), (16, 16), (8, 8)]


def test_a_transition_averages_two_by_two_pixels() -> None:
    transition = create("densenet_bc_100_k12_cifar").get_submodule("features.transition1").eval()
    x = torch.rand(1, 216, 4, 6)
    kernel = transition.get_parameter("conv.weight")
    # A new BN only divides by sqrt(1 + eps), and positive values pass the ReLU.
    full = F.conv2d(x / (1 + 1e-5) ** 0.5, kernel)
    want = full.reshape(1, 108, 2, 2, 3, 2).mean((3, 5))
    torch.testing.assert_close(transition(x), want)


def with_dots(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As the files on download.pytorch.org name them, which are older than BN's counters."""
    return {
        re.sub(r"(denselayer\d+)\.(norm|conv)(\d)", r"\1.\2.\3", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("name", ["densenet121", "densenet_bc_100_k12_cifar"])
def test_files_with_the_old_names_load(name: str) -> None:
    trained = create(name).state_dict()
    old = with_dots(trained)
    assert "features.denseblock1.denselayer2.norm.1.running_var" in old
    assert "features.denseblock3.denselayer16.conv.2.weight" in old
    assert "features.transition1.norm.weight" in old
    net = create(name)
    notes = load_state(net, old, name="densenet121-a639ec97.pth")
    assert all(torch.equal(value, trained[key]) for key, value in net.state_dict().items())
    assert len(notes) == 1
    assert "num_batches_tracked" in notes[0]


def test_files_with_the_new_names_load_as_they_are() -> None:
    name = "densenet_40_k12_cifar"
    trained, net = create(name).state_dict(), create(name)
    assert load_state(net, trained, name="mine.pth") == ()
    assert all(torch.equal(value, trained[key]) for key, value in net.state_dict().items())


def test_old_names_do_not_make_one_depth_out_of_another() -> None:
    with pytest.raises(InputError) as caught:
        load_state(create("densenet121"), with_dots(create("densenet169").state_dict()), name="x")
    assert caught.value.code == "E0328"


@pytest.mark.oracle
def test_the_smallest_image_is_that_of_torchvision(torchvision: Any) -> None:
    size = torchvision.get_model_weights("densenet121").DEFAULT.meta["min_size"]
    assert smallest_side(find("densenet121")) == size[0] == size[1]
