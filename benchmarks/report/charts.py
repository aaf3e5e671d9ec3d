"""Charts as SVG inside a page: axes with round ticks, lines, steps, bars, dots.

Colours are the page's own (classes ``s0``, ``s1``, … and CSS variables), so that a chart is right
on paper, in the light and in the dark. Every text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from convexport.benchmarks.report.blocks import visible
from convexport.runtime.optional import require

Points = Sequence[tuple[float, float]]

# Classes of series in the style sheet; further ones begin again.
SERIES = 6


@dataclass(frozen=True)
class Axis:
    """One side of a chart.

    Attributes:
        low: the smallest value shown, above 0 if ``log``.
        high: the largest.
        label: what it is, with its unit.
        log: powers of ten at even distances.
        ticks: where numbers stand; None chooses.
    """

    low: float
    high: float
    label: str
    log: bool = False
    ticks: tuple[float, ...] | None = None

    def share(self, value: float) -> float:
        """Where a value lies, 0 at ``low`` to 1 at ``high``."""
        low, high, value = (
            math.log10(max(each, 1e-300)) if self.log else each
            for each in (self.low, self.high, value)
        )
        return (value - low) / (high - low) if high > low else 0.5

    def marks(self) -> tuple[float, ...]:
        """The ticks."""
        if self.ticks is not None:
            return self.ticks
        return decades(self.low, self.high) if self.log else round_ticks(self.low, self.high)


@dataclass(frozen=True)
class Box:
    """The size of a chart and where its axes stand, in units of the picture."""

    width: float = 460
    height: float = 250
    left: float = 54
    right: float = 14
    top: float = 12
    bottom: float = 42


WIDE = Box(width=960, height=230)


def round_ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten from ``low`` to ``high``."""
    if not high > low:
        return (low,)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return tuple(index * step for index in range(first, math.floor(high / step + 1e-9) + 1))


def decades(low: float, high: float) -> tuple[float, ...]:
    """Round numbers at even distances of a logarithmic axis, at most about six of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [step * 10.0**power for power in powers for step in steps]
        inside = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if len(inside) >= 4:
            break
    return tuple(inside[:: max(1, math.ceil(len(inside) / 8))])


def number(value: float) -> str:
    """A tick's number: short, without a trailing zero."""
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.6g}"


class Chart:
    """A chart that things are drawn into, the first at the bottom."""

    def __init__(self, title: str, description: str, x: Axis, y: Axis, box: Box = Box()) -> None:
        self._x, self._y, self._box = x, y, box
        self._markup = require("markupsafe", purpose="a report").Markup
        self._parts: list[Any] = []
        self._add("<title>{}</title><desc>{}</desc>", title, description)
        self._axes()

    def svg(self) -> Any:
        """The picture, safe to stand in a page."""
        box = self._box
        return self._markup(
            '<svg viewBox="0 0 {} {}" role="img" xmlns="http://www.w3.org/2000/svg">{}</svg>'
        ).format(number(box.width), number(box.height), self._markup("").join(self._parts))

    def line(self, points: Points, series: int, *, kind: str = "line") -> None:
        """A line through points."""
        self._add('<path class="{} s{}" d="{}"/>', kind, series % SERIES, self._path(points))

    def area(self, points: Points, series: int) -> None:
        """What lies between a line and the bottom."""
        bottom = self._y.low
        closed = [(points[0][0], bottom), *points, (points[-1][0], bottom)]
        self._add('<path class="area s{}" d="{}Z"/>', series % SERIES, self._path(closed))

    def band(self, low: Points, high: Points, series: int) -> None:
        """What lies between two lines."""
        path = self._path([*low, *reversed(high)])
        self._add('<path class="area s{}" d="{}Z"/>', series % SERIES, path)

    def steps(self, edges: Sequence[float], values: Sequence[float], series: int) -> None:
        """A histogram: filled, with its outline."""
        pairs = zip(pairwise(edges), values, strict=True)
        points = [point for (left, right), y in pairs for point in ((left, y), (right, y))]
        bottom = self._y.low
        self.area(points, series)
        self.line([(edges[0], bottom), *points, (edges[-1], bottom)], series)

    def dot(self, x: float, y: float, series: int) -> None:
        """A point."""
        left, top = self._at(x, y)
        self._add('<circle class="dot s{}" cx="{}" cy="{}" r="5"/>', series % SERIES, left, top)

    def upright(
        self, x: float, low: float, high: float, series: int, kind: str = "whisker"
    ) -> None:
        """A line from ``low`` to ``high`` at ``x``: an interval, or a mark."""
        self._add('<path class="{} s{}" d="{}"/>', kind, series % SERIES,
                  self._path([(x, low), (x, high)]))  # fmt: skip

    def text(self, left: float, top: float, words: str, anchor: str, kind: str) -> None:
        """Words at a place of the picture."""
        self._add('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>',
                  kind, f"{left:.1f}", f"{top:.1f}", anchor, words)  # fmt: skip

    def _axes(self) -> None:
        box, x, y = self._box, self._x, self._y
        bottom = box.height - box.bottom
        for value in y.marks():
            _, top = self._at(x.low, value)
            self._add('<path class="grid" d="M{} {}H{}"/>', box.left, top, box.width - box.right)
            self.text(box.left - 8, float(top) + 4, number(value), "end", "tick")
        self._add('<path class="axis" d="M{} {}H{}"/>', box.left, bottom, box.width - box.right)
        for value in x.marks():
            left, _ = self._at(value, y.low)
            self._add('<path class="axis" d="M{} {}v4"/>', left, bottom)
            self.text(float(left), bottom + 17, number(value), "middle", "tick")
        middle = (box.left + box.width - box.right) / 2
        self.text(middle, box.height - 6, x.label, "middle", "label")
        centre = (box.top + bottom) / 2
        self._add('<text class="label" transform="translate(12 {}) rotate(-90)" '
                  'text-anchor="middle">{}</text>', f"{centre:.1f}", y.label)  # fmt: skip

    def _at(self, x: float, y: float) -> tuple[str, str]:
        box = self._box
        wide, high = box.width - box.left - box.right, box.height - box.top - box.bottom
        right = min(max(self._x.share(x), 0.0), 1.0)
        up = min(max(self._y.share(y), 0.0), 1.0)
        return f"{box.left + right * wide:.1f}", f"{box.top + (1 - up) * high:.1f}"

    def _path(self, points: Points) -> str:
        return "M" + "L".join(" ".join(self._at(x, y)) for x, y in points)

    def _add(self, template: str, *values: Any) -> None:
        shown = (visible(each) if isinstance(each, str) else each for each in values)
        self._parts.append(self._markup(template).format(*shown))
