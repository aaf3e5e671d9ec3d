"""What a page is made of, before it is HTML, Markdown or lines of a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What steers a terminal, or turns the direction of what follows it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True)
class Table:
    """Rows of texts under headings.

    Attributes:
        caption: what the rows are.
        columns: one heading a column.
        rows: one text a column; the first is the row's heading.
        texts: how many columns, from the left, are words; the others are figures.
        bars: of each row the share, 0..1, that is drawn as a bar behind its heading.
        shown: how many rows stand open; the others can be unfolded.
        pictures: of each row a ``data:`` URI that stands before its heading, or nothing.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1
    bars: tuple[float, ...] = ()
    shown: int = 24
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A chart, and the figures that it shows.

    Attributes:
        legend: names of the series.
        note: a line under the chart.
        wide: as wide as the page.
        first: the series that the legend begins with; 0 has the baseline's colour.
    """

    title: str
    svg: Any
    data: Table
    legend: tuple[str, ...] = ()
    note: str = ""
    wide: bool = False
    first: int = 0


@dataclass(frozen=True)
class Missing:
    """What was not measured, and the command that would."""

    what: str
    command: str = ""


@dataclass(frozen=True)
class Words:
    """Lines of text, as a list."""

    title: str
    lines: tuple[str, ...]
    preformatted: bool = False


Block = Table | Figure | Missing | Words


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    name: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Tile:
    """A headline figure: what, how much, and under which doubt."""

    name: str
    value: str
    detail: str
    unit: str = ""


@dataclass(frozen=True)
class Headline:
    """A bundle's verdict and its first figures."""

    label: str
    verdict: str
    reasons: tuple[str, ...]
    sentence: str
    tiles: tuple[Tile, ...]


def visible(text: str) -> str:
    """Text of strangers, without the characters that would steer what shows it."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def milliseconds(value: float | None) -> str:
    """With three digits, or the reason why there is none."""
    if value is None:
        return "n too small"
    return f"{value:,.0f} ms" if value >= 1000 else f"{value:.3g} ms"


def interval(low: float | None, high: float | None, style: str = ".3g") -> str:
    """Both ends of a 95 % interval, or nothing."""
    if low is None or high is None:
        return ""
    return f"{low:{style}} to {high:{style}}".replace("-", "\N{MINUS SIGN}")


def points(value: float) -> str:
    """Percentage points with their sign; zero has none."""
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") if round(value, 2) else "0.00"


def size(count: int | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return "not measured"
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e3:,.{1 if count < 1e4 else 0}f} kB"


def decibels(noise: float | None) -> str:
    """A signal-to-noise ratio; without noise there is none."""
    return "no difference" if noise is None else f"{noise:.1f} dB"


def agreed(parity: Mapping[str, Any]) -> str:
    """How near outputs are to the reference's: decisions, then signal to noise."""
    top1 = parity["top1"]
    return f"top-1 agreement {top1['k']}/{top1['n']}, {decibels(parity['sqnr_db'])}"


def percent(share: Mapping[str, Any]) -> str:
    """A counted share, with its interval."""
    return f"{share['share']:.2%} ({share['k']}/{share['n']})"
