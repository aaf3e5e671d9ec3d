"""Several nets as one: what each member sees, what comes out, whose weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from convexport.architectures.ensemble import Adapter, Ensemble, common_preprocess
from convexport.architectures.registry import create, find
from convexport.architectures.weights import load_module, resolve
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.preprocess import preprocess
from convexport.runtime.specs import Preprocess

PAIR = "resnet18+mobilenet_v1_025*3"


def loaded(name: str, request: str) -> tuple[nn.Module, tuple[str, ...]]:
    variant = find(name)
    found = resolve(
        variant, request, offline=True, cache_dir=Path("/nonexistent"), report=lambda _: None
    )
    return load_module(variant, found)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_probabilities_are_averaged_with_the_weights() -> None:
    module, _ = loaded(PAIR, "random:5")
    assert isinstance(module, Ensemble)
    images = noise(3, 3, 64, 64)
    first, second = (
        member(adapter(images)).softmax(1)
        for member, adapter in zip(module.members, module.adapters, strict=True)
    )
    torch.testing.assert_close(module(images).softmax(1), (first + 3 * second) / 4)
    torch.testing.assert_close(module(images).exp().sum(1), torch.ones(3))


def test_members_get_different_seeds() -> None:
    module, _ = loaded("resnet20_cifar+resnet20_cifar", "random:7")
    first, second = (dict(module.get_submodule(f"members.{n}").named_parameters()) for n in (0, 1))
    assert not torch.equal(first["conv1.weight"], second["conv1.weight"])
    alone, _ = loaded("resnet20_cifar", "random:8")
    assert torch.equal(second["conv1.weight"], alone.get_parameter("conv1.weight"))


@pytest.mark.parametrize(
    "wanted",
    [
        Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
        Preprocess(channels="BGR", mean=(0.4, 0.5, 0.6), std=(1 / 255,) * 3),
    ],
)
def test_a_member_sees_what_its_own_preprocess_would_give(wanted: Preprocess) -> None:
    given = common_preprocess([wanted, Preprocess()])
    assert (given.mean, given.std, given.channels) == ((0.0,) * 3, (1.0,) * 3, "RGB")
    pixels = np.random.default_rng(0).integers(0, 256, (300, 280, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    adapted = Adapter(given, wanted)(torch.from_numpy(preprocess(image, given))[None])
    want = torch.from_numpy(preprocess(image, wanted))[None]
    torch.testing.assert_close(adapted, want, rtol=1e-5, atol=1e-5)


def test_what_members_agree_on_is_done_once_outside() -> None:
    variant = find("resnet18+resnet34")
    assert variant.preprocess == find("resnet18").preprocess
    images = noise(1, 3, 8, 8)
    assert Adapter(variant.preprocess, variant.preprocess)(images) is images


def test_smaller_members_see_the_picture_at_their_size() -> None:
    large, small = Preprocess(crop=(299, 299), resize=(342,)), Preprocess()
    resized = Adapter(large, small)(noise(2, 3, 299, 299))
    want = nn.functional.interpolate(noise(2, 3, 299, 299), (224, 224), mode="bilinear")
    torch.testing.assert_close(resized, want)


def test_counts_are_sums_and_the_input_is_that_of_the_largest() -> None:
    variant = find(PAIR)
    parts = [find("resnet18").counts, find("mobilenet_v1_025").counts]
    assert variant.counts == tuple(sum(column) for column in zip(*parts, strict=True))
    assert (variant.input, variant.num_classes) == ((3, 224, 224), 1000)
    assert "resnet18 1, mobilenet_v1_025 3" in variant.notes


def test_one_file_holds_all_members(tmp_path: Path) -> None:
    module, _ = loaded(PAIR, "random:1")
    state, path = module.state_dict(), tmp_path / "pair.safetensors"
    assert {key.split(".")[1] for key in state} == {"0", "1"}
    save_file(state, path)
    again, notes = loaded(PAIR, str(path))
    assert notes == ()
    assert torch.equal(module(noise(1, 3, 64, 64)), again(noise(1, 3, 64, 64)))
    save_file({**state, "members.2.conv1.weight": noise(1)}, path)
    with pytest.raises(InputError) as caught:
        loaded(PAIR, str(path))
    assert caught.value.code == "E0328"
    assert "members.2.conv1.weight" in caught.value.where


def test_digits_weights_make_a_digits_ensemble() -> None:
    module, notes = loaded("resnet20_cifar+resnet20_cifar", "digits")
    alone, _ = loaded("resnet20_cifar", "digits")
    images = noise(2, 3, 32, 32)
    torch.testing.assert_close(module(images).exp(), alone(images).softmax(1))
    assert notes == ()


def test_weights_that_one_member_lacks_are_random_and_said_so() -> None:
    found = resolve(
        find("resnet18+mobilenet_v1_025"),
        None,
        offline=True,
        cache_dir=Path("/nonexistent"),
        report=lambda _: None,
    )
    assert found.kind == "random"
    assert [note.partition(":")[0] for note in found.notes] == ["resnet18", "mobilenet_v1_025"]
    assert all("RANDOM WEIGHTS" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("resnet18+mobilenet_v9", "E0220", "mobilenet_v1"),
        ("resnet18+", "E0220", "convexport list"),
        ("resnet18+lenet5", "E0226", "lenet5 has 10 classes and 1 channels"),
        ("resnet18*0+resnet34", "E0225", "NAME*WEIGHT"),
        ("resnet18*nan+resnet34", "E0225", "NAME*WEIGHT"),
        ("resnet18*two+resnet34", "E0225", "NAME*WEIGHT"),
        ("resnet18+ensemble_ilsvrc2016", "E0226", "cannot be a member"),
        ("resnet18+inception_block_naive", "E0226", "cannot be a member"),
    ],
)
def test_ensembles_that_make_no_sense_are_refused(name: str, code: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(name)
    assert caught.value.code == code
    assert told in str(caught.value)


def test_other_classes_go_to_all_members() -> None:
    module = create(PAIR, num_classes=7).eval()
    assert module(noise(2, 3, 64, 64)).shape == (2, 7)


def test_huge_weights_are_shares_all_the_same() -> None:
    module, _ = loaded("resnet20_cifar*1e300+resnet32_cifar*1e300", "random")
    assert module.get_buffer("weights").flatten().tolist() == [0.5, 0.5]
    assert module(noise(1, 3, 32, 32)).isfinite().all()


def test_seeds_wrap_around() -> None:
    loaded("resnet20_cifar+resnet20_cifar", "random:999999999999999999")


def test_members_get_new_classifiers_and_lose_their_heads(tmp_path: Path) -> None:
    name, path = "resnet20_cifar+resnet20_cifar", tmp_path / "two.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(create(name, num_classes=7).state_dict(), path)
    variant = find(name)
    for request in ("digits", str(path)):
        found = resolve(variant, request, offline=True, cache_dir=tmp_path, report=lambda _: None)
        with pytest.raises(InputError) as caught:
            load_module(variant, found, num_classes=5)
        assert caught.value.code == "E0329"
        module, notes = load_module(variant, found, num_classes=5, new_classifier=True)
        assert [note.split(":")[1].strip() for note in notes] == ["RANDOM CLASSIFIER"] * 2
        assert module(noise(1, 3, 32, 32)).shape == (1, 5)


def test_grey_pictures_need_members_for_grey_pictures() -> None:
    variant = find("resnet20_cifar+resnet20_cifar")
    found = resolve(
        variant, "random", offline=True, cache_dir=Path("/nonexistent"), report=lambda _: None
    )
    module, _ = load_module(variant, found, shape=(1, 32, 32))
    assert module(noise(2, 1, 32, 32)).shape == (2, 10)
    digits = resolve(
        variant, "digits", offline=True, cache_dir=Path("/nonexistent"), report=lambda _: None
    )
    with pytest.raises(InputError) as caught:
        load_module(variant, digits, shape=(1, 32, 32))
    assert caught.value.code == "E0330"
