"""What a row of the zoo says, and what a family must bring to be one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import nn

from convexport.architectures.published import PublishedWeights, published_weights
from convexport.runtime.specs import Preprocess

Shape = tuple[int, int, int]
"""Channels, height, width of one image."""


class Paper(NamedTuple):
    """Where an architecture was published."""

    year: int
    title: str
    url: str


class Counts(NamedTuple):
    """A net in numbers, for one image of its own size; what only training uses is not counted.

    Attributes:
        params: parameters; buffers are none.
        macs: multiply-adds of its convolutions and linear layers.
        weight_layers: how many of these it runs.
    """

    params: int
    macs: int
    weight_layers: int


class Net(Protocol):
    """A family's configuration: a frozen value that builds its module."""

    def module(self, num_classes: int, shape: Shape) -> nn.Module:
        """The net for images of that shape, initialised as its family says.

        The random numbers are those of torch's global generator. A net that can be trained with
        auxiliary heads has them, and names them in its attribute ``auxiliary``.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A named member of a family.

    Attributes:
        name: what the command line calls it.
        family: the architecture that it is a member of.
        paper: where it comes from.
        net: the configuration that builds it.
        counts: its parameters, multiply-adds and layers.
        input: channels, height, width that it was designed for.
        num_classes: outputs of the classifier; 0 for a block that is no classifier.
        preprocess: from an image to that input.
        layout: ``package:name`` of the public net whose state dicts load unchanged.
        notes: where public implementations and this one differ from the paper.
        reported: what the authors say that it reaches, with protocol and source.
        digits: whether small weights trained on handwritten digits ship with the project.
    """

    name: str
    family: str
    paper: Paper
    net: Net
    counts: Counts
    input: Shape = (3, 224, 224)
    num_classes: int = 1000
    preprocess: Preprocess = field(default_factory=Preprocess)
    layout: str = ""
    notes: str = ""
    reported: str = ""
    digits: bool = False

    @property
    def published(self) -> tuple[PublishedWeights, ...]:
        """Trained weights that others publish, best first."""
        return published_weights(self.name)
