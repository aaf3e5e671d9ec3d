"""The Inception nets beside the public ones: input, training, preprocess, scale of the logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from convexport.architectures.random_weights import noise_images, random_module
from convexport.architectures.registry import create, find

from .tools import check_close, with_statistics


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "shape"), [("googlenet", (113, 97)), ("inception_v3", (299, 299))]
)
def test_outputs_in_training_are_torchvisions_in_its_order(
    name: str, shape: tuple[int, int], torchvision: Any
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = torchvision.get_model(name, weights=None, init_weights=False, aux_logits=True)
        images = torch.randn(2, 3, *shape)
    with torch.device("meta"):
        ours = create(name)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    # With statistics of the batch any two nets drift apart from layer to layer.
    with_statistics(theirs)
    for net in (theirs, ours):
        net.train()
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.Dropout):
                layer.eval()
    with torch.no_grad():
        want, got = theirs(images), ours(images)
    assert len(got) == len(want)
    for mine, other in zip(got, want, strict=True):
        check_close(mine, other)


def test_preprocess_of_bn_inception_leaves_0_to_255_less_the_mean_of_bgr() -> None:
    # Cadene's settings: BGR, 0..255, mean 104, 117, 128, deviation 1.
    preprocess = find("bn_inception").preprocess
    assert preprocess.channels == "BGR"
    white = [(1 - m) / s for m, s in zip(preprocess.mean, preprocess.std, strict=True)]
    assert white == pytest.approx([255 - 104, 255 - 117, 255 - 128])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v2", "inception_v3", "inception_v4"])
def test_random_weights_of_deep_nets_give_logits_of_a_trained_nets_scale(name: str) -> None:
    module = random_module(find(name), 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        images = noise_images(*find(name).input)[:2]
    with torch.no_grad():
        logits = module(images)
    # In a net whose BN begins without a shift disturbances grow by 1.21 a layer, to 20000 here.
    assert 0.1 < logits.std() < 30
    assert (logits[0] - logits[1]).std() > 0.1
