"""Parameters, multiply-adds, layers and shapes against the literature."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convexport.architectures.facts import count_params, layer_table
from convexport.architectures.layers import drop_auxiliary_heads
from convexport.architectures.registry import create, find, variants

from .literature import LITERATURE, each
from .tools import on_meta, outputs


def test_the_zoo_has_every_row() -> None:
    assert set(variants()) == set(LITERATURE)


@pytest.mark.parametrize("name", each())
def test_counts(name: str) -> None:
    facts, variant, module = LITERATURE[name], find(name), on_meta(name)
    assert (variant.family, variant.paper.year) == (facts.family, facts.year)
    assert (variant.input, variant.num_classes) == (facts.input, facts.num_classes)
    assert variant.layout == facts.layout
    assert variant.counts == (facts.params, facts.macs, facts.weight_layers)
    assert count_params(module) == facts.params_with_aux
    assert len(module.state_dict()) == facts.state_dict_entries
    rows = layer_table(module, variant.input)
    assert sum(row.macs for row in rows) == facts.macs
    assert sum(row.macs > 0 for row in rows) == facts.weight_layers
    assert count_params(drop_auxiliary_heads(module)) == facts.params


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
