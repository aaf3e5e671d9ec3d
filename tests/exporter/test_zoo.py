"""Nets of the zoo through the whole build: one of each family, other sizes, ensembles, blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from convexport.architectures.random_weights import random_module
from convexport.architectures.registry import create, find
from convexport.calibration.thresholds import Method
from convexport.exporter.options import BuildOptions
from convexport.exporter.pipeline import build
from convexport.runtime.engine import load
from convexport.runtime.specs import Preprocess

Quick = tuple[str, ...]

# The smallest of each family, on images about as small as it takes.
FAMILIES = {
    "lenet5_original": (1, 32, 32),
    "alexnet_original": (3, 67, 67),
    "zfnet": (3, 64, 64),
    "vgg16_keras": (3, 32, 32),
    "nin_cifar10": (3, 32, 32),
    "googlenet_keras": (3, 32, 32),
    "googlenet_original": (3, 64, 64),
    "bn_inception": (3, 64, 64),
    "inception_v3": (3, 75, 75),
    "inception_resnet_v1": (3, 79, 79),
    "preact_resnet18": (3, 32, 32),
    "wrn_16_8_cifar": (3, 16, 16),
    "se_resnet18": (3, 32, 32),
    "densenet_40_k12_cifar": (3, 16, 16),
    "mobilenet_v2": (3, 32, 32),
    "mobilenet_v3_small": (3, 32, 32),
    "squeezenet1_1": (3, 64, 64),
    "efficientnet_b0": (3, 64, 64),
    "cnn_flattening": (1, 32, 32),
    "cnn_gap": (1, 40, 40),
    "resnet18+mobilenet_v1_025*2": (3, 48, 48),
}


# The default, which tries methods and repairs, on nets that differ in what can be repaired; for
# the others what is built matters, not how well.
TRIED = ("lenet5_original", "mobilenet_v2", "se_resnet18", "densenet_40_k12_cifar")
PLAIN: dict[str, Any] = {"method": Method(name="percentile"), "repair": ()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_goes_through_the_whole_build(name: str, tmp_path: Path, cache: Path) -> None:
    options = BuildOptions(
        precision="int8",
        weights="random",
        input_shape=FAMILIES[name],
        calib_images=16,
        bench_seconds=0,
        offline=True,
        cache_dir=cache,
        output=tmp_path / "bundle",
        **({} if name in TRIED else PLAIN),
    )
    built = build(name, options)
    parity = built.manifest.data["parity"]
    for stage in ("export", "simplify"):
        assert {"1", "3"} <= set(parity[stage]["max_rel"])
        assert max(parity[stage]["max_rel"].values()) <= 1e-4
    assert parity["quantize"]["sqnr_db"] >= 3
    assert "int8" in built.manifest.data["layers"].values()
    engine = load(built.bundle)
    (spec,) = engine.runner.inputs
    assert spec.shape[1:] == FAMILIES[name]


def test_an_ensemble_is_one_graph_that_answers_with_the_mean(
    invoke: Any, scratch: Quick, home: Path
) -> None:
    refused = invoke("build", "resnet20_cifar*3+mobilenet_v1_025", *scratch)
    assert refused.failed_with(2, "E0226")
    pair = "resnet20_cifar*3+resnet32_cifar"
    done = invoke("build", pair, *scratch, "--weights", "random:4", "-o", "pair", "--json")
    assert done.code == 0, done.err
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    answers = []
    for seed, name in ((4, "resnet20_cifar"), (5, "resnet32_cifar")):
        module = random_module(find(name), seed)
        with torch.no_grad():
            answers.append(module(torch.from_numpy(images)).softmax(1).numpy())
    mean = (3 * answers[0] + answers[1]) / 4
    np.testing.assert_allclose(np.exp(load(Path("pair"))(images)), mean, rtol=1e-3, atol=1e-6)
    manifest = done.json()["manifest"]
    assert manifest["graph"]["operators"]["Softmax"] == 2
    assert manifest["weights"]["kind"] == "random"


def test_a_block_is_shown_but_not_built(invoke: Any, refused: Any, quick: Quick) -> None:
    refused(6, "E0685", "build", "inception_block_naive", *quick)
    shown = invoke("show", "inception_block_naive", "--json").json()
    assert shown["macs"] == 854_196_224
    assert shown["layers"][-1]["output"][1:] == [28, 28]


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (("alexnet", "--input-shape", "3x32x32"), "63x63"),
        (("resnet18", "--input-shape", "4x64x64"), "1 channel or 3"),
        (("resnet18+mobilenet_v9",), "mobilenet_v1"),
    ],
)
def test_requests_that_a_net_cannot_meet(
    shape: tuple[str, ...], told: str, refused: Any, quick: Quick
) -> None:
    refused(2, told, "build", *shape, "--weights", "random", *quick)


def test_grey_images_for_a_net_of_colours(invoke: Any, quick: Quick, home: Path) -> None:
    small = ("--input-shape", "1x32x32", "--weights", "random", "-o", "grey", "--json")
    done = invoke("build", "resnet20_cifar", *quick, *small)
    assert done.code == 0, done.err
    assert done.json()["manifest"]["preprocess"]["channels"] == "L"


def test_a_checkpoint_with_other_classes_gets_a_new_classifier_only_on_request(
    invoke: Any, refused: Any, quick: Quick, home: Path
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = create("mobilenet_v1_025", num_classes=7).state_dict()
    save_file(state, home / "seven.safetensors")
    small = ("--weights", "seven.safetensors", "--input-shape", "3x32x32", *quick, "-o", "out")
    options = ("build", "mobilenet_v1_025", *small)
    refused(3, "E0329", *options)
    done = invoke(*options, "--new-classifier")
    assert done.code == 0, done.err
    assert "RANDOM CLASSIFIER" in done.err and "RANDOM WEIGHTS" in done.out
    # A thousand classes, but none of them has learnt what ImageNet calls it.
    assert not (home / "out/labels.txt").exists()
    assert "random" in (home / "out/README.md").read_text()
    refused(3, "E0333", *options, "--classes", "7", "--new-classifier", "--force")
    refused(2, "E0282", "build", "lenet5", "--weights", "random", "--new-classifier", *quick)


def test_a_new_classifier_on_digits_is_not_judged_by_digits(invoke: Any, quick: Quick) -> None:
    options = ("--weights", "digits", "--classes", "7", "--new-classifier", *quick, "-o", "out")
    done = invoke("build", "lenet5", *options, "--json")
    assert done.code == 0, done.err
    assert done.json()["report"]["bundles"][0]["accuracy"] == "not measured"
    assert not any("%" in note for note in done.json()["manifest"]["notes"])


def test_preprocess_may_be_given_with_weights_of_ones_own(
    invoke: Any, refused: Any, quick: Quick, home: Path
) -> None:
    save_file(create("resnet20_cifar").state_dict(), home / "w.safetensors")
    spec = Preprocess(crop=(48, 48), resize=(48,), mean=(0.5,) * 3, std=(0.5,) * 3)
    (home / "spec.json").write_text(json.dumps(spec.to_dict()))
    options = ("build", "resnet20_cifar", "--preprocess", "spec.json", *quick, "-o", "out")
    refused(2, "E0282", *options, "--weights", "random")
    done = invoke(*options, "--weights", "w.safetensors", "--json")
    assert done.code == 0, done.err
    assert done.json()["manifest"]["preprocess"] == json.loads(json.dumps(spec.to_dict()))


def test_few_parity_images_are_enough_for_every_batch(invoke: Any, quick: Quick) -> None:
    done = invoke(
        "build", "lenet5", "--weights", "digits", "--parity-images", "2", *quick, "--json"
    )
    assert done.code == 0, done.err
    parity = done.json()["manifest"]["parity"]["export"]
    assert parity["images"] == 2 and {"1", "3", "8"} <= set(parity["max_rel"])


@pytest.mark.parametrize(
    ("code", "error", "options"),
    [
        (2, "E0283", ("+".join(["lenet5"] * 41), "--weights", "random")),
        (2, "E0281", ("resnet18", "--input-shape", "3x9999999999x9999999999")),
        (4, "E0481", ("nin_small", "--weights", "random", "--parity-images", "99999999")),
        (2, "E0281", ("lenet5", "--weights", "digits", "--parity-images", "503")),
        (2, "E0225", ("lenet5*2\n+lenet5", "--weights", "random")),
        (2, "E0225", ("lenet5*1e-50+lenet5", "--weights", "random")),
    ],
)
def test_requests_out_of_all_proportion(
    code: int, error: str, options: tuple[str, ...], refused: Any, quick: Quick
) -> None:
    refused(code, error, "build", *options, *quick)


def test_show_draws_the_net(invoke: Any) -> None:
    lines = invoke("show", "resnet18").out.splitlines()
    assert any("2 × BasicBlock" in line and "64×56×56" in line for line in lines)
    assert any("└→ add" in line for line in lines)


def test_show_cuts_nothing_off(invoke: Any) -> None:
    out = invoke("show", "inception_v3").out
    assert "7×1 conv 128, BN, ReLU, 1×7 conv 192, BN, ReLU\n" in out


def test_list_has_all_facts(invoke: Any) -> None:
    rows = {row["name"]: row for row in invoke("list", "--json").json()}
    vgg = rows["vgg16"]
    assert (vgg["params"], vgg["macs"], vgg["weight_layers"]) == (138_357_544, 15_470_264_320, 16)
    assert vgg["layout"] == "torchvision:vgg16"
    assert vgg["year"] == 2014


def test_on_a_narrow_terminal_numbers_stay_whole_and_aligned(
    invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = invoke("show", "densenet_bc_190_k40_cifar").out.splitlines()
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("layer ")) :]
    assert not any("…" in line for line in table)
    whole = [line for line in table if line.rstrip()[-1:].isdigit()]
    assert len({len(line.rstrip()) for line in whole}) == 1
