"""The drawing of a net is that of its paper."""

from __future__ import annotations

import torch

from convexport.architectures.diagram import diagram
from convexport.architectures.registry import create, find


def drawn(name: str) -> list[str]:
    with torch.device("meta"):
        module = create(name)
    return diagram(module, find(name).input)


def stages(name: str) -> list[list[str]]:
    lines = drawn(name)
    head = lines[: lines.index("")] if "" in lines else lines
    return [line.rsplit(maxsplit=1) for line in head]


def test_resnet50_is_drawn_as_in_table_1_and_figure_5() -> None:
    assert stages("resnet50") == [
        ["7×7 conv 64/2, BN, ReLU", "64×112×112"],
        ["3×3 max-pool/2", "64×56×56"],
        ["3 × Bottleneck", "256×56×56"],
        ["4 × Bottleneck", "512×28×28"],
        ["6 × Bottleneck", "1024×14×14"],
        ["3 × Bottleneck", "2048×7×7"],
        ["global average", "2048×1×1"],
        ["linear 1000", "1000"],
    ]
    lines = drawn("resnet50")
    first = lines.index("Bottleneck, as layer1.1:")
    assert lines[first + 1 : first + 5] == [
        "  ├─ 1×1 conv 64, BN, ReLU, 3×3 conv 64, BN, ReLU, 1×1 conv 256, BN",
        "  ├─ (as it is)",
        "  └→ add",
        "  ReLU",
    ]
    # With a projection and without: each once.
    assert sum(line.startswith("Bottleneck") for line in lines) == 2


def test_mobilenet_is_drawn_as_in_table_1() -> None:
    counts = [row[0].partition(" × ")[0] for row in stages("mobilenet_v1") if "Separable" in row[0]]
    assert counts == ["Separable", "2", "2", "6", "2"]
    assert "  3×3 depth-wise 32, BN, ReLU6, 1×1 conv 64, BN, ReLU6" in drawn("mobilenet_v1")


def test_a_squeeze_excitation_is_a_branch_within_a_branch() -> None:
    assert "  │  ├─ global average, 1×1 conv 16, ReLU, 1×1 conv 256, Sigmoid" in drawn(
        "se_resnet50"
    )


def test_the_four_branches_of_inception_meet_in_one() -> None:
    lines = drawn("inception_block_reduced")
    assert sum("├─" in line for line in lines) == 4
    assert any("└→ concatenate" in line for line in lines)


def test_a_dense_block_is_drawn_by_its_layers() -> None:
    assert any("6 DenseLayer" in row[0] for row in stages("densenet121"))
    assert "  BN, ReLU, 1×1 conv 128, BN, ReLU, 3×3 conv 32" in drawn("densenet121")


def test_an_ensemble_is_its_members_side_by_side() -> None:
    lines = drawn("resnet18+mobilenet_v1")
    assert "└→ stack" in lines
    assert drawn("resnet18+resnet34")[0] == "├─ ResNet, softmax"
    assert [line for line in lines if "├─" in line] == [
        "├─ its own preprocess, ResNet, softmax",
        "├─ its own preprocess, MobileNet, softmax",
    ]


def test_modules_of_different_kernels_are_different_kinds() -> None:
    lines = drawn("inception_resnet_v2")
    assert any("1×7 conv 160, BN, ReLU, 7×1 conv 192" in line for line in lines)
    assert any("1×3 conv 224, BN, ReLU, 3×1 conv 256" in line for line in lines)


def test_what_only_training_does_is_not_drawn() -> None:
    assert not any("StochasticDepth" in line for line in drawn("mobilenet_v3_small"))


def test_forks_of_the_whole_net_are_drawn_with_their_shape() -> None:
    lines = drawn("bn_inception")
    assert lines[5] == "├─ 1×1 conv 64, BN, ReLU"
    assert lines[9].split() == ["└→", "concatenate", "256×28×28"]
