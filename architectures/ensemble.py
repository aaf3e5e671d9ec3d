"""Ensembles: any nets of the zoo with weights, their probabilities averaged, as one net.

Each member sees the image in its own size, channel order, mean and std, all inside the one graph.
The largest member's preprocess decides what is cut out of the picture, and with what filter; from
that cut smaller members get theirs by bilinear interpolation. Probabilities are averaged, not
logits: members are calibrated differently.

The winner of ILSVRC 2016, 2.99 % top-5 error, was such a one (Trimps-Soushen, "Good Practices for
Deep Feature Fusion", slides at the ImageNet workshop of ECCV 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from convexport.architectures.variant import Counts, Paper, Shape, Variant
from convexport.runtime.specs import Preprocess

# Below the smallest probability that float32 tells from zero there is nothing to take the log of.
_TINY = 1e-37


class Adapter(nn.Module):
    """From images preprocessed in one way to what another preprocess would have given."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, given: Preprocess, wanted: Preprocess) -> None:
        super().__init__()
        self.size = None if given.crop == wanted.crop else wanted.crop
        self.flip = given.channels != wanted.channels
        mean, std = (_column(values) for values in (wanted.mean, wanted.std))
        given_mean, given_std = (_column(values) for values in (given.mean, given.std))
        if self.flip:
            mean, std = mean.flip(1), std.flip(1)
        # No part of the state dict: an ensemble's is that of its members.
        self.register_buffer("scale", given_std / std, persistent=False)
        self.register_buffer("shift", (given_mean - mean) / std, persistent=False)
        self.normalise = given.mean != wanted.mean or given.std != wanted.std

    @property
    def idle(self) -> bool:
        """Whether images are as wanted already."""
        return self.size is None and not (self.flip or self.normalise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW; pixel centres stay where they are."""
        if self.size is not None:
            x = F.interpolate(x, self.size, mode="bilinear", align_corners=False)
        if self.normalise:
            x = x * self.scale + self.shift
        return x.flip(1) if self.flip else x


class Ensemble(nn.Module):
    """The log of the weighted mean of the members' probabilities."""

    weights: torch.Tensor

    def __init__(
        self, members: Sequence[nn.Module], adapters: Sequence[Adapter], weights: Sequence[float]
    ) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(adapters)
        self.members = nn.ModuleList(members)
        # By the largest first: the sum of huge weights would be infinite.
        shares = torch.tensor([weight / max(weights) for weight in weights])
        shares = (shares / shares.sum()).reshape(-1, 1, 1)
        self.register_buffer("weights", shares, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images NCHW to log-probabilities (N, classes), whose softmax are the probabilities."""
        pairs = zip(self.members, self.adapters, strict=True)
        answers = [_logits(member(adapter(x))).softmax(1) for member, adapter in pairs]
        mean = (torch.stack(answers) * self.weights).sum(0)
        return mean.clamp_min(_TINY).log()


@dataclass(frozen=True)
class Member:
    """A net of the zoo and how much its probabilities count."""

    variant: Variant
    weight: float = 1.0


@dataclass(frozen=True)
class EnsembleConfig:
    """One ensemble."""

    members: tuple[Member, ...]

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The members, each initialised as its family says."""
        modules = [
            member.variant.net.module(num_classes, (shape[0], *member.variant.input[1:]))
            for member in self.members
        ]
        specs = [member.variant.preprocess for member in self.members]
        return self.assemble(modules, specs, shape)

    def assemble(
        self, modules: Sequence[nn.Module], specs: Sequence[Preprocess], shape: Shape
    ) -> Ensemble:
        """The ensemble of these modules for images of that shape, each adapted to its spec."""
        given = common_preprocess(specs).reshaped(shape)
        adapters = [Adapter(given, spec.reshaped((shape[0], *spec.crop))) for spec in specs]
        return Ensemble(modules, adapters, [member.weight for member in self.members])


def common_preprocess(specs: Sequence[Preprocess]) -> Preprocess:
    """What is done to an image before the ensemble: all of it where the members agree on it.

    Otherwise the image is brought to the size of the largest member, as values in 0..1.
    """
    first = max(specs, key=lambda spec: spec.crop)
    if all(spec == first for spec in specs):
        return first
    channels = "L" if first.channels == "L" else "RGB"
    count = len(first.mean)
    return replace(first, channels=channels, mean=(0.0,) * count, std=(1.0,) * count)


def ensemble(
    name: str, members: Sequence[Member], *, paper: Paper | None = None, notes: str = ""
) -> Variant:
    """A row of the zoo for these members, which must agree on classes and channels.

    Without a paper of its own it has that of the youngest member.
    """
    variants = [member.variant for member in members]
    given = common_preprocess([variant.preprocess for variant in variants])
    shares = ", ".join(f"{m.variant.name} {m.weight:g}" for m in members)
    return Variant(
        name=name,
        family="ensemble",
        paper=paper or max(variant.paper for variant in variants),
        net=EnsembleConfig(tuple(members)),
        counts=Counts(*(sum(column) for column in zip(*(v.counts for v in variants), strict=True))),
        input=given.shape,
        num_classes=variants[0].num_classes,
        preprocess=given,
        notes=f"{notes}mean of the members' probabilities, weighted {shares}",
    )


def _logits(answer: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Those of the main classifier: in training some nets give auxiliary ones besides."""
    return answer[0] if isinstance(answer, tuple) else answer


def _column(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values).reshape(1, -1, 1, 1)
