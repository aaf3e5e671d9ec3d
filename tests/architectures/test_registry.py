"""Names, rows and the modules that they stand for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from convexport.architectures.imagenet import labels_of
from convexport.architectures.layers import output_shape
from convexport.architectures.registry import by_name, create, find, smallest_side, variants
from convexport.runtime.errors import ConvexportError, UsageError

from .literature import each


def test_every_row_tells_where_it_comes_from() -> None:
    for name, variant in variants().items():
        assert name == variant.name
        assert 1998 <= variant.paper.year <= 2023
        assert variant.paper.title
        assert variant.paper.url.startswith("https://")
        assert variant.preprocess.shape == variant.input or not variant.num_classes


def test_rows_are_immutable_and_so_is_the_registry() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        find("resnet50").digits = True  # type: ignore[misc]
    with pytest.raises(TypeError):
        variants()["mine"] = find("resnet50")  # type: ignore[index]


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ConvexportError, match="lenet5") as caught:
        by_name([find("lenet5"), find("resnet18"), find("lenet5")])
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("resnet5O", "resnet50"), ("ResNet18", "resnet18"), ("mobilenet", "mobilenet_v1")],
)
def test_a_misspelt_name_is_answered_with_close_ones(wrong: str, right: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(wrong)
    assert caught.value.code == "E0220"
    assert right in caught.value.hint
    assert "convexport list" in caught.value.hint


def test_a_name_like_no_other_is_answered_with_the_command_that_lists_them() -> None:
    with pytest.raises(UsageError) as caught:
        find("\x1b[31m" + "z" * 1000)
    assert caught.value.hint == "convexport list shows all names"
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["lenet5", "resnet20_cifar", "mobilenet_v1_025"])
def test_classes_and_channels_can_be_chosen(name: str) -> None:
    height, width = find(name).input[1:]
    module = create(name, num_classes=7, shape=(2, height, width)).eval()
    assert module(torch.zeros(1, 2, height, width)).shape == (1, 7)


@pytest.mark.parametrize("numbers", [{"num_classes": 0}, {"shape": (-1, 224, 224)}])
def test_impossible_classes_and_channels_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        create("resnet18", **numbers)
    assert caught.value.code == "E0221"


def test_class_names_are_those_of_imagenet_and_only_there() -> None:
    names = labels_of(find("resnet50"), 1000)
    assert len(names) == len(set(names)) == 1000
    # Well known places in the order of the sorted synset ids.
    assert (names[0], names[207], names[281], names[999]) == (
        "tench",
        "golden retriever",
        "tabby",
        "toilet tissue",
    )
    assert labels_of(find("resnet50"), 10) == ()
    assert labels_of(find("lenet5"), 1000) == ()


@pytest.mark.parametrize(("name", "least"), [("lenet5", 32), ("resnet50", 1), ("alexnet", 63)])
def test_images_that_are_too_small_are_refused_with_the_smallest_that_work(
    name: str, least: int
) -> None:
    channels = find(name).input[0]
    assert smallest_side(find(name)) == least
    assert create(name, shape=(channels, least, least)).eval()(
        torch.zeros(1, channels, least, least)
    ).shape == (1, find(name).num_classes)
    if least > 1:
        with pytest.raises(UsageError) as caught:
            create(name, shape=(channels, least - 1, least - 1))
        assert caught.value.code == "E0224"
        assert f"{least}x{least}" in caught.value.hint


@pytest.mark.parametrize("name", each([n for n in variants() if variants()[n].num_classes]))
def test_every_net_takes_other_classes_and_channels(name: str) -> None:
    channels, height, width = find(name).input
    with torch.device("meta"):
        module = create(name, num_classes=7, shape=(4 - channels, height, width)).eval()
    assert output_shape(module, (4 - channels, height, width)) == (7,)


def test_a_small_size_is_found_where_not_all_larger_ones_work() -> None:
    least = smallest_side(find("bn_inception"))
    assert least <= 32
    module = create("bn_inception", shape=(3, least, least)).eval()
    assert module(torch.zeros(1, 3, least, least)).shape == (1, 1000)
    with pytest.raises(UsageError) as caught:
        create("bn_inception", shape=(3, 72, 72))
    assert "at some sizes only" in caught.value.why
