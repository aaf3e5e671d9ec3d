"""The script behind the weights that ship."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from convexport.architectures.digits_weights import digits_facts
from convexport.architectures.registry import find
from convexport.architectures.weights import load_module, resolve
from convexport.benchmarks import train_digits
from convexport.calibration.digits import digits


@pytest.fixture(autouse=True)
def unchanged_torch() -> Iterator[None]:
    """The script sets what holds for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = train_digits.Recipe(epochs=2, rate=0.003)
    monkeypatch.setitem(train_digits._RECIPES, "lenet5", recipe)


@pytest.mark.usefixtures("short")
def test_the_same_bytes_come_out_each_time(tmp_path: Path) -> None:
    written = []
    for turn in ("first", "second"):
        train_digits.main(["--net", "lenet5", "--out", str(tmp_path / turn)])
        written.append((tmp_path / turn / "lenet5.safetensors").read_bytes())
    assert written[0] == written[1]


@pytest.mark.usefixtures("short")
def test_the_file_tells_how_it_came_about(tmp_path: Path) -> None:
    train_digits.main(["--net", "lenet5", "--out", str(tmp_path)])
    path = tmp_path / "lenet5.safetensors"
    facts = digits_facts(path)
    assert (facts.variant, facts.epochs, facts.seed) == ("lenet5", 2, 0)
    found = resolve(
        find("lenet5"), str(path), offline=True, cache_dir=tmp_path, report=lambda _: None
    )
    module, _ = load_module(find("lenet5"), found)
    images, labels = digits("test").arrays(facts.preprocess)
    with torch.no_grad():
        right = (module(torch.from_numpy(images)).argmax(1).numpy() == labels).sum()
    assert facts.images == len(labels)
    assert facts.top1 == right / len(labels)
    # Two epochs are enough to tell that it learns: chance is a tenth.
    assert facts.top1 > 0.5


def test_every_net_that_ships_has_a_recipe_and_was_trained_by_it() -> None:
    for name, recipe in train_digits._RECIPES.items():
        found = resolve(find(name), "digits", offline=True, cache_dir=Path(), report=lambda _: None)
        assert found.path is not None
        facts = digits_facts(found.path)
        assert (facts.variant, facts.epochs, facts.top1 >= 0.98) == (name, recipe.epochs, True)


def test_shifting_moves_pictures_by_two_pixels_at_most() -> None:
    images = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(50, 1, 1, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        moved = train_digits._shifted(images)
    assert moved.shape == images.shape
    # Away from the border, a picture of 8 y + x moved by (dy, dx) grew by 8 dy + dx everywhere.
    change = (moved - images)[:, 0, 2:-2, 2:-2]
    steps = {8.0 * dy + dx for dy in range(-2, 3) for dx in range(-2, 3)}
    assert set(change.flatten().tolist()) <= steps
    assert len({tuple(picture.flatten().tolist()) for picture in change}) > 10
    assert (change == change[:, :1, :1]).all()
