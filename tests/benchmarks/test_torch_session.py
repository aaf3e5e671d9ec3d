"""PyTorch as a baseline computes what the net computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from convexport.architectures import registry, weights
from convexport.benchmarks.torch_session import TorchSession


@pytest.mark.parametrize("name", ["googlenet", "lenet5"])
def test_the_weights_are_those_without_heads_for_training(name: str, tmp_path: Path) -> None:
    variant = registry.find(name)
    resolved = weights.resolve(
        variant, "random:3", offline=True, cache_dir=tmp_path, report=lambda text: None
    )
    module, _ = weights.load_module(variant, resolved)
    torch.save(module.state_dict(), tmp_path / "net.pt")
    shape = variant.input
    net = {"name": name, "classes": variant.num_classes, "shape": list(shape)}
    session = TorchSession(tmp_path / "net.pt", net, runtime="torch", threads=1)
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(session.run({"input": images})["logits"], expected, rtol=1e-5)
