"""One thread for all, and torchvision and timm as oracles where they are installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

_KEPT: list[Any] = []


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine threads that wait for each other take three times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def seeded() -> Iterator[None]:
    """The same random numbers in each run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def torchvision() -> Any:
    """torchvision.models, also next to a torch that its compiled part was not built for."""
    if not _KEPT:
        # Without that part its operators are unknown, and the import would fail at their mention.
        library: Any = torch.library
        library = library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                library.define(f"{name}(Tensor dets, Tensor scores, float t) -> Tensor")
        _KEPT.append(library)  # The definitions go when it goes.
    return pytest.importorskip("torchvision.models", reason="torchvision is not installed")


@pytest.fixture(scope="session")
def timm(torchvision: Any) -> Any:
    """The timm package, which imports torchvision."""
    return pytest.importorskip("timm", reason="timm is not installed")
