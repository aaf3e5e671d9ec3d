"""The original LeNet-5 against its paper, and the two nets of the shift experiment."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convexport.architectures.facts import layer_table
from convexport.architectures.families.lenet import ScaledTanh, class_codes
from convexport.architectures.registry import create, find
from convexport.runtime.errors import UsageError

from .tools import random


@pytest.fixture
def original() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create("lenet5_original").eval()


def test_lenet5_is_convolutions_with_average_pooling_and_then_dense_layers() -> None:
    """So say the lecture slides (Boracchi)."""
    rows = layer_table(create("lenet5"), (1, 32, 32))
    pairs = ["Conv2d", "AvgPool2d", "Conv2d", "AvgPool2d"]
    assert [row.kind for row in rows] == [*pairs, "Conv2d", "Linear", "Linear"]


def test_shapes_and_parameters_of_the_original_are_those_of_section_2_b(
    original: nn.Module,
) -> None:
    rows = {row.path: row for row in layer_table(original, (1, 32, 32))}
    third = [row for path, row in rows.items() if path.startswith("c3.")]
    assert [row.output for row in third] == [(1, 10, 10)] * 16
    assert sum(row.params for row in third) == 1_516
    names = ["c1", "s2", "s4", "c5", "f6", "output"]
    assert [(rows[name].output, rows[name].params) for name in names] == [
        ((6, 28, 28), 156),
        ((6, 14, 14), 12),
        ((16, 5, 5), 32),
        ((120, 1, 1), 48_120),
        ((84,), 10_164),
        ((10,), 0),
    ]


def test_the_original_has_the_papers_340908_connections(original: nn.Module) -> None:
    connections = dict.fromkeys(("c1", "s2", "c3", "s4", "c5", "f6", "output"), 0)
    rows = layer_table(original, (1, 32, 32))
    for row in (row for row in rows if row.kind != "ScaledTanh"):
        maps, *size = row.output
        positions = torch.Size(size).numel()
        each = row.params * positions
        if row.kind == "SubSampling":
            each = maps * positions * (4 + 1)  # four inputs and a bias
        elif row.kind == "EuclideanRBF":
            each = maps * 84
        connections[row.path.partition(".")[0]] += each
    assert connections == {
        "c1": 122_304,
        "s2": 5_880,
        "c3": 151_600,
        "s4": 2_000,
        "c5": 48_120,
        "f6": 10_164,
        "output": 840,
    }
    assert sum(connections.values()) == 340_908


# Table I as it is printed: a row for each map of S2, a column for each of C3.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def test_maps_of_c3_see_those_of_table_1(original: nn.Module) -> None:
    layer = original.get_submodule("c3")
    x = random(1, 6, 14, 14).requires_grad_()
    columns = []
    for n in range(16):
        (gradient,) = torch.autograd.grad(layer(x)[0, n].sum(), x)
        columns.append("".join(".X"[bool(each.any())] for each in gradient[0]))
    rows = ["".join(row) for row in zip(*columns, strict=True)]
    assert rows == TABLE_I.split()


def test_sub_sampling_adds_four_neighbours_times_a_coefficient_plus_a_bias(
    original: nn.Module,
) -> None:
    layer = original.get_submodule("s2")
    nn.init.normal_(layer.get_parameter("bias"))
    weight = layer.get_parameter("weight").flatten()
    bias = layer.get_parameter("bias").flatten()
    x = random(2, 6, 4, 6)
    y = layer(x)
    assert y.shape == (2, 6, 2, 3)
    for c in range(6):
        for i in range(2):
            for j in range(3):
                total = x[:, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].sum((1, 2))
                torch.testing.assert_close(y[:, c, i, j], weight[c] * total + bias[c])


def test_the_squashing_function_maps_one_to_one_and_saturates_as_in_appendix_a() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, 1e3])
    torch.testing.assert_close(ScaledTanh()(x), torch.tensor([-1, 0, 1, 1.7159]), atol=1e-4, rtol=0)


def test_logits_of_the_original_are_minus_the_distances_of_equation_7(original: nn.Module) -> None:
    output = original.get_submodule("output")
    codes = output.get_buffer("codes")
    x = random(3, 84)
    for n in range(3):
        for label in range(10):
            distance = sum((x[n, j] - codes[label, j]) ** 2 for j in range(84))
            torch.testing.assert_close(output(x)[n, label], -distance)
    assert output(codes).argmax(1).tolist() == list(range(10))
    assert output(codes).amax(1).tolist() == [0] * 10


def test_codes_are_signs_and_differ_for_any_number_of_classes() -> None:
    codes = class_codes(1000)
    assert codes.shape == (1000, 7 * 12)
    assert set(codes.unique().tolist()) == {-1, 1}
    assert len(codes.unique(dim=0)) == 1000
    assert torch.equal(class_codes(1000), codes)
    for count in (1, 7, 10, 11):
        assert torch.equal(class_codes(count), codes[:count])


def test_codes_of_digits_are_far_apart() -> None:
    codes = class_codes(10)
    different = (84 - codes @ codes.T) / 2
    assert (different + 84 * torch.eye(10)).min() > 10


def test_codes_are_fixed(original: nn.Module) -> None:
    assert "output.codes" in original.state_dict()
    assert "output.codes" not in dict(original.named_parameters())


SHIFT = {
    "cnn_flattening": [(128, 6, 6), 294_976],
    "cnn_gap": [(128, 1, 1), 8_256],
}


@pytest.mark.parametrize("name", list(SHIFT))
def test_layers_of_the_shift_experiment_are_those_of_the_slides(name: str) -> None:
    rows = layer_table(create(name), (1, 64, 64))
    kinds = ("Conv2d", "MaxPool2d", "AdaptiveAvgPool2d", "Linear")
    pooled, dense = SHIFT[name]
    assert [(row.output, row.params) for row in rows if row.kind in kinds] == [
        ((32, 62, 62), 320),
        ((32, 31, 31), 0),
        ((64, 29, 29), 18_496),
        ((64, 14, 14), 0),
        ((128, 12, 12), 73_856),
        (pooled, 0),
        ((64,), dense),
        ((10,), 650),
    ]
    assert [row.kind for row in rows].count("Dropout") == 2


def test_flattening_takes_3_82_times_the_parameters() -> None:
    ratio = find("cnn_flattening").counts.params / find("cnn_gap").counts.params
    assert ratio == pytest.approx(3.82, abs=0.005)


@pytest.mark.parametrize("size", [(22, 22), (48, 80), (97, 64)])
def test_only_the_averaging_net_takes_any_size(size: tuple[int, int]) -> None:
    images = random(1, 1, *size)
    assert create("cnn_gap").eval()(images).shape == (1, 10)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        create("cnn_flattening").eval()(images)


def test_the_flattening_net_is_built_for_a_size() -> None:
    net = create("cnn_flattening", shape=(1, 48, 80)).eval()
    # 48 - 46 - 23 - 21 - 10 - 8 - 4, 80 - 78 - 39 - 37 - 18 - 16 - 8.
    assert net.get_parameter("classifier.dense1.weight").shape == (64, 128 * 4 * 8)
    assert net(random(1, 1, 48, 80)).shape == (1, 10)
    with pytest.raises(UsageError) as caught:
        create("cnn_flattening", shape=(1, 21, 64))
    assert caught.value.code == "E0224"


def test_averaging_does_not_notice_a_shift_and_flattening_does() -> None:
    """The claim of the slides: exact for multiples of the poolings' 4, away from the border."""
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:36, 20:36] = random(16, 16)
    moved = image.roll((8, 4), (2, 3))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        gap, flattening = create("cnn_gap").eval(), create("cnn_flattening").eval()
        torch.testing.assert_close(gap(moved), gap(image))
        difference = (flattening(moved) - flattening(image)).abs().max()
        assert difference > 0.1 * flattening(image).abs().max()
