"""Plots as SVG, legible on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 170, 36, 44
_COLOURS = ("#2f81f7", "#d29922", "#3fb950", "#db61a2")
_INK = "#7d8590"
_TICKS = 5


@dataclass(frozen=True)
class Plot:
    """Lines over one axis.

    Args:
        title: what it shows.
        axis: the figure along the horizontal axis.
        lines: figure → how it is called.
        logarithmic: whether both axes are logarithmic, for what grows by orders of magnitude.
    """

    title: str
    axis: str
    lines: Mapping[str, str]
    logarithmic: bool = False

    def svg(self, points: Sequence[Mapping[str, float]]) -> str:
        """Draw it."""
        across = [point[self.axis] for point in points]
        up = [point[name] for point in points for name in self.lines]
        x = self._scale(across, _LEFT, _WIDTH - _RIGHT)
        y = self._scale([*up, 0], _HEIGHT - _BOTTOM, _TOP)
        parts = [f'<text x="{_LEFT}" y="20" font-size="15" font-weight="600">{escape(self.title)}</text>']
        parts += [
            f'<text x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>'
            for tick in across
        ]
        for tick in self._ticks(up):
            parts.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{_INK}" '
                'stroke-opacity="0.3"/>'
            )
            parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(self.axis)}</text>')
        for number, (name, called) in enumerate(self.lines.items()):
            colour = _COLOURS[number]
            path = " ".join(f"{x(point[self.axis]):.1f},{y(point[name]):.1f}" for point in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [
                f'<circle cx="{x(point[self.axis]):.1f}" cy="{y(point[name]):.1f}" r="3" fill="{colour}"/>'
                for point in points
            ]
            beside, line = _WIDTH - _RIGHT + 12, _TOP + 16 + number * 20
            parts.append(f'<text x="{beside}" y="{line}" fill="{colour}">{escape(called)}</text>')
        body = "\n".join(parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
            f'font-size="12" fill="{_INK}" role="img" aria-label="{escape(self.title)}">\n{body}\n</svg>\n'
        )

    def _scale(self, values: Sequence[float], start: float, end: float) -> Scale:
        low = min((value for value in values if value > 0), default=1) if self.logarithmic else 0
        return Scale(low, max(values) or 1, start, end, logarithmic=self.logarithmic)

    def _ticks(self, values: Sequence[float]) -> list[float]:
        top = max(values) or 1
        if self.logarithmic:
            lowest = min((value for value in values if value > 0), default=1)
            return [10.0**power for power in range(ceil(log10(lowest)), floor(log10(top)) + 1)]
        step = 10.0 ** floor(log10(top))
        while top / step < _TICKS / 2:
            step /= 2
        return [step * number for number in range(int(top / step) + 1)]


@dataclass(frozen=True)
class Scale:
    """Places a value between two positions; what a logarithmic scale cannot show is at its start.

    Args:
        low: the value at the start.
        high: the value at the end.
        start: the first position.
        end: the last position.
        logarithmic: whether it is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def __call__(self, value: float) -> float:
        """Place a value."""
        if self.logarithmic:
            share = (log10(max(value, self.low)) - log10(self.low)) / ((log10(self.high) - log10(self.low)) or 1)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)
