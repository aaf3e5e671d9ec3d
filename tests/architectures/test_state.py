"""Good files in odd forms are taken and said so; those for another net are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from convexport.architectures.registry import create, find
from convexport.architectures.state import load_state
from convexport.architectures.weights import load_module, resolve
from convexport.runtime.errors import InputError

State = dict[str, torch.Tensor]
RESNET = find("resnet20_cifar")


def original(**options: Any) -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return create("resnet20_cifar", **options).state_dict()


def loaded(path: Path, **options: Any) -> tuple[nn.Module, tuple[str, ...]]:
    found = resolve(RESNET, str(path), offline=True, cache_dir=path, report=lambda _: None)
    return load_module(RESNET, found, **options)


def refusal(data: object, path: Path, **options: Any) -> InputError:
    torch.save(data, path)
    with pytest.raises(InputError) as caught:
        loaded(path, **options)
    return caught.value


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_the_same_weights_come_back_from_every_format(kind: str, tmp_path: Path) -> None:
    want, path = original(), tmp_path / "w.bin"
    if kind == "safetensors":
        save_file(want, path)
    else:
        torch.save(want, path, _use_new_zipfile_serialization=kind == "zip")
    module, notes = loaded(path)
    assert notes == ()
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    got = module.state_dict()
    assert list(got) == list(want)
    assert all(torch.equal(got[key], want[key]) for key in want)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


WRAPPED: dict[str, tuple[Callable[[State], object], tuple[str, ...]]] = {
    "state_dict": (lambda s: {"epoch": 3, "state_dict": s}, ("'state_dict'",)),
    "model": (lambda s: {"model": s, "optimizer": {"lr": 0.1}}, ("'model'",)),
    "ema": (lambda s: {"ema": s}, ("'ema'",)),
    "model_state_dict": (lambda s: {"model_state_dict": s}, ("'model_state_dict'",)),
    "twice": (lambda s: {"ema": {"state_dict": s}}, ("'ema'", "'state_dict'")),
    "two kinds": (
        lambda s: {"model": s, "ema": s},
        ("'model' of the checkpoint (and left its ema)",),
    ),
    "data parallel": (lambda s: prefixed(s, "module."), ("'module.'",)),
    "compiled": (lambda s: prefixed(s, "_orig_mod.module."), ("'_orig_mod.'", "'module.'")),
    "all": (lambda s: {"state_dict": prefixed(s, "module.")}, ("'state_dict'", "'module.'")),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrapped_weights_are_unwrapped_and_said_so(case: str, tmp_path: Path) -> None:
    wrap, says = WRAPPED[case]
    want = original()
    torch.save(wrap(want), tmp_path / "w.pth")
    module, notes = loaded(tmp_path / "w.pth")
    assert all(torch.equal(value, want[key]) for key, value in module.state_dict().items())
    for words in says:
        assert any(words in note for note in notes), notes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_dtypes_become_float32_and_said_so(dtype: torch.dtype, tmp_path: Path) -> None:
    want = {k: v.to(dtype) if v.is_floating_point() else v for k, v in original().items()}
    save_file(want, tmp_path / "w.safetensors")
    module, notes = loaded(tmp_path / "w.safetensors")
    assert notes == (f"converted {dtype} to torch.float32",)
    for key, value in module.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, want[key].to(value.dtype))


def test_missing_counters_do_not_matter(tmp_path: Path) -> None:
    torch.save({k: v for k, v in original().items() if "num_batches" not in k}, tmp_path / "w.pth")
    module, notes = loaded(tmp_path / "w.pth")
    assert len(notes) == 1
    assert "19 missing num_batches_tracked" in notes[0]
    assert int(module.get_buffer("bn1.num_batches_tracked")) == 0


def test_missing_and_unknown_keys_are_counted_and_the_first_five_named(tmp_path: Path) -> None:
    state = {k: v for k, v in original().items() if not k.startswith("layer3")}
    error = refusal({**state, "head.weight": torch.ones(1)}, tmp_path / "w.pth")
    assert error.code == "E0328"
    # Three blocks of two convolutions, each with four tensors of BN; counters are not missed.
    assert "30 tensors missing, 1 unknown" in error.what
    assert "head.weight" in error.where
    assert error.where.count("layer3.0") == 5


def test_another_number_of_classes_is_recognised(tmp_path: Path) -> None:
    error = refusal(original(num_classes=7), tmp_path / "w.pth")
    assert error.code == "E0329"
    assert "has 7 classes, the net was to have 10" in error.what
    assert error.hint.startswith("--classes 7, or --new-classifier")
    module, _ = loaded(tmp_path / "w.pth", num_classes=7)
    assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_a_new_classifier_is_made_only_on_request_and_said_to_be_random(tmp_path: Path) -> None:
    torch.save(original(num_classes=7), tmp_path / "w.pth")
    module, notes = loaded(tmp_path / "w.pth", new_classifier=True)
    assert len(notes) == 1
    assert notes[0].startswith("RANDOM CLASSIFIER: fc of the file has 7 classes")
    state, want = module.state_dict(), original(num_classes=7)
    assert all(torch.equal(state[key], want[key]) for key in want if not key.startswith("fc."))
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    # Of the scale that keeps the variance of the features: 1 / sqrt(64).
    assert 0.1 < state["fc.weight"].std() < 0.15
    # Where the classes agree there is nothing to replace.
    torch.save(original(), tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        loaded(tmp_path / "w.pth", new_classifier=True)
    assert caught.value.code == "E0333"


class WithHead(nn.Module):
    auxiliary = ("aux",)
    legacy_keys = ((r"^body\.0\.", "body."),)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 3)
        self.aux: nn.Module | None = nn.Linear(3, 4)
        self.fc = nn.Linear(3, 4)


def test_auxiliary_heads_are_left_out_whether_the_file_has_them_or_not() -> None:
    state = WithHead().state_dict()
    module = WithHead()
    assert load_state(module, state, name="w") == ("left out aux, which only training uses",)
    assert module.aux is None
    without = {key: value for key, value in state.items() if not key.startswith("aux")}
    assert load_state(WithHead(), without, name="w") == ()


def test_names_of_older_files_are_brought_up_to_date() -> None:
    state = {key.replace("body.", "body.0."): v for key, v in WithHead().state_dict().items()}
    module = WithHead()
    load_state(module, state, name="w")
    assert torch.equal(module.body.weight, state["body.0.weight"])


def test_another_number_of_channels_is_a_matter_of_shape(tmp_path: Path) -> None:
    error = refusal(original(shape=(1, 32, 32)), tmp_path / "w.pth")
    assert error.code == "E0330"
    assert "conv1.weight 16x1x3x3 for 16x3x3x3" in error.where


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_counted(value: float, tmp_path: Path) -> None:
    state = {key: tensor.clone() for key, tensor in original().items()}
    state["conv1.weight"][0, 0] = value
    state["fc.bias"][3] = value
    error = refusal(state, tmp_path / "w.pth")
    assert error.code == "E0332"
    assert "2 tensors, 10 values" in error.what
    assert error.where == "conv1.weight (9), fc.bias (1)"


def test_float64_beyond_float32_is_not_finite(tmp_path: Path) -> None:
    state = {**original(), "fc.bias": torch.full((10,), 1e300, dtype=torch.float64)}
    assert refusal(state, tmp_path / "w.pth").code == "E0332"


ODD: dict[str, Callable[[], torch.Tensor]] = {
    "float8": lambda: torch.zeros(10, 64).to(torch.float8_e4m3fn),
    "int8": lambda: torch.zeros(10, 64, dtype=torch.int8),
    "complex": lambda: torch.zeros(10, 64, dtype=torch.complex64),
    "sparse": lambda: torch.zeros(10, 64).to_sparse(),
}


@pytest.mark.parametrize("case", ODD)
def test_dtypes_that_trained_weights_do_not_have(case: str, tmp_path: Path) -> None:
    error = refusal({**original(), "fc.weight": ODD[case]()}, tmp_path / "w.pth")
    assert error.code == "E0331"
    assert "fc.weight" in error.where


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    quantized = torch.quantize_per_tensor(torch.zeros(10, 64), 0.1, 0, torch.qint8)
    assert refusal({**original(), "fc.weight": quantized}, tmp_path / "w.pth").code == "E0331"


def test_a_tensor_that_only_claims_to_be_huge_is_never_made(tmp_path: Path) -> None:
    huge = torch.zeros(1).expand(1 << 40)
    assert refusal({**original(), "fc.bias": huge}, tmp_path / "w.pth").code == "E0330"


def test_hostile_names_are_shown_harmless_and_short(tmp_path: Path) -> None:
    error = refusal({"\x1b[2J" + "x" * 10_000: torch.ones(1)}, tmp_path / "w.pth")
    assert "\x1b" not in str(error)
    assert len(str(error)) < 1500


@pytest.mark.parametrize("name", ["nin_small", "lenet5_original", "squeezenet1_1"])
def test_classes_are_recognised_wherever_they_stand(name: str, tmp_path: Path) -> None:
    variant, path = find(name), tmp_path / "w.pth"
    torch.save(create(name, num_classes=7).state_dict(), path)
    found = resolve(variant, str(path), offline=True, cache_dir=tmp_path, report=lambda _: None)
    with pytest.raises(InputError) as caught:
        load_module(variant, found)
    assert caught.value.code == "E0329"
    assert f"has 7 classes, the net was to have {variant.num_classes}" in caught.value.what
    # Where several layers depend on the classes, a new last one would not do.
    assert ("--new-classifier" in caught.value.hint) == (name == "squeezenet1_1")
    module, _ = load_module(variant, found, num_classes=7)
    height, width = variant.input[1:]
    assert module(torch.zeros(1, variant.input[0], height, width)).shape == (1, 7)
