"""Train the small nets whose weights ship with the project, on scikit-learn's digits.

    python -m convexport.benchmarks.train_digits [--out DIR] [--net NAME]

Fixed data, seed, order and one thread: on one machine it writes the same bytes each time. The
test split is looked at once, after training; nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.digits_weights import DIGITS, DigitsFacts, write_digits
from convexport.architectures.registry import create, variants
from convexport.calibration.digits import Split, digits
from convexport.runtime.specs import Preprocess

_SEED = 0
# Sums depend on how threads share them: with one, the number of cores does not matter.
_THREADS = 1
_BATCH = 64
_SHIFT = 2
_LABELS = tuple("0123456789")
_LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class Recipe:
    """How long a net is trained, and the peak of its learning rate."""

    epochs: int
    rate: float


_RECIPES = {
    "lenet5": Recipe(epochs=60, rate=0.003),
    "resnet20_cifar": Recipe(epochs=8, rate=0.01),
    "mobilenet_v1_025": Recipe(epochs=80, rate=0.02),
    "mobilenet_v3_small_050": Recipe(epochs=80, rate=0.01),
}


def train(name: str) -> tuple[nn.Module, DigitsFacts]:
    """Train one net and test it once.

    Args:
        name: of a variant for which digits weights ship.

    Returns:
        The net in evaluation mode, and what it reached.
    """
    recipe, spec = _RECIPES[name], _preprocess(variants()[name].input[0])
    images, labels = _split("train", spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        net = create(name, num_classes=len(_LABELS)).train()
        _fit(net, images, labels, recipe)
    net.eval()
    images, labels = _split("test", spec)
    with torch.no_grad():
        right = int((net(images).argmax(1) == labels).sum())
    facts = DigitsFacts(
        variant=name,
        top1=right / len(labels),
        images=len(labels),
        seed=_SEED,
        epochs=recipe.epochs,
        licence=_LICENCE,
        labels=_LABELS,
        preprocess=spec,
    )
    return net, facts


def _fit(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe) -> None:
    steps = recipe.epochs * (len(images) // _BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps)
    for _ in range(recipe.epochs):
        # The last, smaller batch of a shuffled epoch is left out.
        for batch in torch.split(torch.randperm(len(images)), _BATCH)[: len(images) // _BATCH]:
            loss = F.cross_entropy(net(_shifted(images[batch])), labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()


def _shifted(images: torch.Tensor) -> torch.Tensor:
    """Each image moved by up to two pixels; what comes in repeats the border."""
    padded = F.pad(images, (_SHIFT,) * 4, mode="replicate")
    size = images.shape[-1]
    offsets = torch.randint(2 * _SHIFT + 1, (len(images), 2)).tolist()
    moved = [padded[i, :, y : y + size, x : x + size] for i, (y, x) in enumerate(offsets)]
    return torch.stack(moved)


def _preprocess(channels: int) -> Preprocess:
    return Preprocess(
        crop=(32, 32),
        resize=(32, 32),
        channels="L" if channels == 1 else "RGB",
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
    )


def _split(split: Split, spec: Preprocess) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = digits(split).arrays(spec)
    return torch.from_numpy(images), torch.from_numpy(labels)


def main(arguments: list[str] | None = None) -> None:
    """Train, and write ``<out>/<net>.safetensors`` for each net."""
    parser = argparse.ArgumentParser(description="train the nets that ship with the project")
    parser.add_argument("--out", type=Path, default=DIGITS)
    parser.add_argument("--net", choices=sorted(_RECIPES), action="append")
    options = parser.parse_args(arguments)
    torch.set_num_threads(_THREADS)
    torch.use_deterministic_algorithms(True)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.net or _RECIPES:
        start = time.monotonic()
        net, facts = train(name)
        write_digits(options.out / f"{name}.safetensors", net.state_dict(), facts)
        seconds = time.monotonic() - start
        print(f"{name}: {facts.top1:.2%} of {facts.images} right, {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
