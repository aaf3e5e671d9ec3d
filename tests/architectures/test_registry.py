"""Names, rows and the modules that they stand for."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from convexport.architectures.imagenet import labels_of
from convexport.architectures.registry import by_name, create, find, variants
from convexport.runtime.errors import ConvexportError, UsageError


def test_every_row_tells_where_it_comes_from() -> None:
    for name, variant in variants().items():
        assert name == variant.name
        assert 1998 <= variant.year <= 2017
        assert variant.title
        assert variant.url.startswith("https://")
        assert variant.preprocess.shape == variant.input


def test_rows_are_immutable_and_so_is_the_registry() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        find("resnet50").params = 0  # type: ignore[misc]
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
    module = create(name, num_classes=7, in_channels=2).eval()
    height, width = find(name).input[1:]
    assert module(torch.zeros(1, 2, height, width)).shape == (1, 7)


@pytest.mark.parametrize("numbers", [{"num_classes": 0}, {"in_channels": -1}])
def test_impossible_classes_and_channels_are_refused(numbers: dict[str, int]) -> None:
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
