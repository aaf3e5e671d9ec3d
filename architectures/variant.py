"""What a row of the zoo says, and what a family must bring to be one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from convexport.runtime.specs import Preprocess

Paper = tuple[int, str, str]
"""Year, title, address."""


class Net(Protocol):
    """A family's configuration: a frozen value that builds its module."""

    def module(self, num_classes: int, in_channels: int) -> nn.Module:
        """The net, initialised as in its paper from torch's global generator."""
        ...


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """Trained weights that somebody publishes.

    Attributes:
        name: the publisher's name of them.
        url: where the file lies; its last part is the file's name.
        sha256: as published, in hex: all 64 digits, or the first 8 that the file name carries.
        licence: SPDX identifier.
        top1: ImageNet top-1 accuracy that the publisher states, percent, single crop.
        top5: the same for the five best classes.
        source: who publishes them.
    """

    name: str
    url: str
    sha256: str
    licence: str
    top1: float
    top5: float
    source: str

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A named member of a family.

    Attributes:
        name: what the command line calls it.
        family: the architecture that it is a member of.
        year: of the paper.
        title: of the paper.
        url: of the paper.
        net: the configuration that builds it.
        input: channels, height, width that it was designed for.
        num_classes: outputs of the classifier.
        preprocess: from an image to that input.
        params: parameters; buffers are not counted.
        macs: multiply-adds of its convolutions and linear layers for one image.
        notes: where public implementations and this one differ from the paper.
        published: trained weights, best first.
        digits: whether small weights trained on handwritten digits ship with the project.
    """

    name: str
    family: str
    year: int
    title: str
    url: str
    net: Net
    input: tuple[int, int, int]
    num_classes: int
    preprocess: Preprocess
    params: int
    macs: int
    notes: str = ""
    published: tuple[PublishedWeights, ...] = ()
    digits: bool = False
