"""ZFNet (Zeiler, Fergus 2013, "Visualizing and Understanding ...", arXiv:1311.2901, Fig. 3).

AlexNet in one tower, with a 7x7 convolution of stride 2 at the beginning instead of 11x11 of
stride 4 (sec. 4.1), and normalised behind the pooling. The maps of Fig. 3 have sides of 110, 55,
26, 13 and 6, which the first convolution and the first two poolings only reach with padding.
"""

from __future__ import annotations

from convexport.architectures.families.alexnet import AlexNetConfig, Layer
from convexport.architectures.variant import Counts, Paper, Variant


def _net(third: int, fourth: int, fifth: int) -> AlexNetConfig:
    """The net with that many maps in its last three convolutions."""
    return AlexNetConfig(
        (
            Layer(96, 7, stride=2, padding=1, behind=("padded pool", "norm")),
            Layer(256, 5, stride=2, behind=("padded pool", "norm")),
            Layer(third, 3, padding=1),
            Layer(fourth, 3, padding=1),
            Layer(fifth, 3, padding=1, behind=("pool",)),
        )
    )


def _row(name: str, net: AlexNetConfig, counts: Counts, notes: str) -> Variant:
    paper = Paper(
        2013,
        "Visualizing and Understanding Convolutional Networks",
        "https://arxiv.org/abs/1311.2901",
    )
    notes += "; the paper gives no constants of its contrast normalisation: AlexNet's are taken"
    return Variant(name=name, family="zfnet", paper=paper, net=net, counts=counts, notes=notes)


VARIANTS = (
    _row("zfnet", _net(384, 384, 256), Counts(62_357_608, 1_168_032_896, 8), "the net of Fig. 3"),
    _row(
        "zfnet_512",
        _net(512, 1024, 512),
        Counts(107_627_624, 2_476_704_896, 8),
        "the wider net that the paper reports next to that of Fig. 3",
    ),
)
