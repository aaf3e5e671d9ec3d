"""What a request for weights leads to, and the net that comes of it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from convexport.architectures.registry import create, find, variants
from convexport.architectures.weights import ResolvedWeights, load_module, resolve
from convexport.calibration.digits import digits
from convexport.runtime.errors import ConvexportError, InputError, MachineError, UsageError
from convexport.runtime.files import sha256_of

from .literature import each

DIGITS = ("lenet5", "resnet20_cifar", "mobilenet_v1_025", "mobilenet_v3_small_050")


def found(name: str, request: str | None, cache: Path = Path("/nonexistent")) -> ResolvedWeights:
    return resolve(find(name), request, offline=True, cache_dir=cache, report=lambda _: None)


def refused(name: str, request: str | None) -> ConvexportError:
    with pytest.raises(ConvexportError) as caught:
        found(name, request)
    return caught.value


def test_by_default_what_cannot_be_had_becomes_random_and_says_so_loudly() -> None:
    offline, unpublished = found("resnet50", None), found("lenet5", None)
    for weights in (offline, unpublished):
        assert (weights.kind, weights.seed, weights.path) == ("random", 0, None)
        assert len(weights.notes) == 1
        assert "RANDOM WEIGHTS" in weights.notes[0]
    assert "resnet50-0676ba61.pth" in offline.notes[0]
    assert "nobody publishes" in unpublished.notes[0]


@pytest.mark.parametrize(("name", "code"), [("resnet50", "E0420"), ("lenet5", "E0424")])
def test_pretrained_weights_that_were_asked_for_and_cannot_be_had(name: str, code: str) -> None:
    error = refused(name, "pretrained")
    assert isinstance(error, MachineError)
    assert error.code == code


def test_published_weights_are_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = find("resnet18")
    published = variant.published[0]
    path = tmp_path / "weights" / published.file_name
    path.parent.mkdir()
    torch.save(create("resnet18").state_dict(), path)
    # The real file is 45 MB away; this one stands for it under its own hash.
    published = dataclasses.replace(published, sha256=sha256_of(path))
    monkeypatch.setattr(
        "convexport.architectures.variant.published_weights", lambda name: (published,)
    )
    weights = found("resnet18", None, tmp_path)
    assert (weights.kind, weights.licence, weights.notes) == ("pretrained", "BSD-3-Clause", ())
    assert weights.sha256 == sha256_of(path)
    assert "IMAGENET1K_V1" in weights.source
    module, _ = load_module(variant, weights)
    assert module(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("request_", "hint"),
    [("pretraned", "pretrained"), ("digit", "digits"), ("rnadom", "random"), ("???", "a path")],
)
def test_a_request_that_is_nothing_known(request_: str, hint: str) -> None:
    error = refused("lenet5", request_)
    assert isinstance(error, UsageError)
    assert error.code == "E0222"
    assert hint in error.hint


@pytest.mark.parametrize("request_", ["random:", "random:-1", "random:x", "random:" + "9" * 5000])
def test_a_seed_that_is_none(request_: str) -> None:
    error = refused("lenet5", request_)
    assert isinstance(error, UsageError)
    assert len(str(error)) < 300


def test_a_file_is_known_by_its_name_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(create("lenet5").state_dict(), path)
    weights = found("lenet5", str(path))
    assert (weights.kind, weights.source, weights.path) == ("file", "mine.safetensors", path)
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(tmp_path) not in weights.source


def test_a_file_without_suffix_is_found_and_one_with_a_suffix_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(create("lenet5").state_dict(), "mine")
    assert found("lenet5", "mine").kind == "file"
    error = refused("lenet5", "mine.pth")
    assert isinstance(error, InputError)
    assert error.code == "E0320"


def test_digits_weights_ship_for_four_variants_and_only_those() -> None:
    assert [name for name, row in variants().items() if row.digits] == list(DIGITS)
    error = refused("resnet50", "digits")
    assert isinstance(error, UsageError)
    assert all(name in error.hint for name in DIGITS)
    paths = [found(name, "digits").path for name in DIGITS]
    assert sum(path.stat().st_size for path in paths if path) < 4e6


@pytest.mark.parametrize("name", DIGITS)
def test_digits_weights_read_digits_that_they_were_not_trained_on(name: str) -> None:
    variant, weights = find(name), found(name, "digits")
    assert weights.preprocess is not None
    assert weights.num_classes == 10
    assert weights.labels == tuple("0123456789")
    assert weights.input == weights.preprocess.shape == (variant.input[0], 32, 32)
    images, labels = digits("test").arrays(weights.preprocess)
    module, notes = load_module(variant, weights)
    with torch.no_grad():
        answers = module(torch.from_numpy(images)).argmax(1).numpy()
    top1 = float(np.mean(answers == labels))
    assert top1 >= 0.98
    assert notes == ()
    assert f"{top1:.2%} of {len(labels)}" in weights.notes[0]


def test_digits_weights_have_ten_classes_whatever_is_asked() -> None:
    with pytest.raises(InputError) as caught:
        load_module(find("mobilenet_v1_025"), found("mobilenet_v1_025", "digits"), num_classes=9)
    assert caught.value.code == "E0329"


def random(name: str, seed: int) -> torch.nn.Module:
    return load_module(find(name), found(name, f"random:{seed}"))[0]


@pytest.mark.parametrize("name", each([n for n in variants() if variants()[n].num_classes]))
def test_random_weights_are_sane(name: str) -> None:
    module, variant = random(name, 3), find(name)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert all(value.isfinite().all() for value in module.state_dict().values())
    # Large nets on smaller images, where their layers allow that: it takes long enough.
    channels, *sides = variant.input
    if variant.counts.macs > 4e9 and "zfnet" not in name and "keras" not in name:
        sides = [min(side, 128) for side in sides]
    # Coarse noise, as photographs are: blobs of a quarter of the picture.
    blobs = torch.randn(2, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = module(torch.nn.functional.interpolate(blobs, sides))
    assert logits.isfinite().all()
    assert 0.1 < logits.std() < 30
    # The net looks at its input: pictures differ about as much as classes do.
    assert logits.std(0).mean() > logits.std(1).mean() / 10


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "googlenet", "squeezenet1_0"])
def test_random_weights_are_the_same_for_a_seed(name: str) -> None:
    first, again = random(name, 3).state_dict(), random(name, 3).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items())


def test_seeds_differ_and_the_default_is_zero() -> None:
    assert found("lenet5", "random") == found("lenet5", "random:0")
    assert not torch.equal(*(random("lenet5", n).get_parameter("c1.weight") for n in range(2)))
    assert len({found("lenet5", f"random:{seed}").sha256 for seed in range(3)}) == 3


@pytest.mark.parametrize("request_", ["random:5", "digits"])
def test_the_global_generator_is_left_alone(request_: str) -> None:
    before = torch.get_rng_state()
    load_module(find("lenet5"), found("lenet5", request_))
    assert torch.equal(torch.get_rng_state(), before)


def test_random_weights_take_other_classes_and_channels() -> None:
    module, _ = load_module(
        find("resnet18"), found("resnet18", "random"), num_classes=5, shape=(1, 64, 64)
    )
    assert module(torch.zeros(2, 1, 64, 64)).shape == (2, 5)
