"""The figures of a report as SVG: arms side by side, and curves with bands. No script, no font, nothing fetched."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

COLOURS = ("#2563b0", "#c2410c", "#15803d", "#7c3aed", "#0e7490", "#be185d", "#b45309", "#475569")

Place = Callable[[float], float]

_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 16, 34, 46
_ROW = 26


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A mean and its interval."""

    name: str
    value: float
    low: float
    high: float
    dots: tuple[float, ...] = ()
    """One for each seed."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place of a curve, and the band around it."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points from left to right."""

    name: str
    points: tuple[Point, ...]


def bars(some: Sequence[Bar], *, title: str, share: bool) -> str:
    """A dot with its interval for each arm, and a small one for each seed."""
    height = 50 + _ROW * len(some)
    left = 12 + 7 * max(len(bar.name) for bar in some)
    lowest, highest = (0.0, 1.0) if share else _padded([end for bar in some for end in (bar.low, bar.high)])

    def across(value: float) -> float:
        return left + (min(max(value, lowest), highest) - lowest) / (highest - lowest) * (_WIDTH - left - 90)

    parts = [_title(title)]
    for tick in _ticks(lowest, highest):
        x = across(tick)
        parts.append(f"<line class='axis' x1='{x:.1f}' x2='{x:.1f}' y1='34' y2='{height - 14}'/>")
        parts.append(f"<text class='faint' x='{x:.1f}' y='{height}' text-anchor='middle'>{_number(tick, share)}</text>")
    for number, bar in enumerate(some):
        y, colour = 46 + _ROW * number, COLOURS[number % len(COLOURS)]
        parts.append(f"<text x='{left - 10}' y='{y + 4}' text-anchor='end'>{html.escape(bar.name)}</text>")
        parts.append(
            f"<line x1='{across(bar.low):.1f}' x2='{across(bar.high):.1f}' y1='{y}' y2='{y}' "
            f"stroke='{colour}' stroke-width='2'/>"
        )
        parts += [
            f"<circle cx='{across(dot):.1f}' cy='{y}' r='2.5' fill='{colour}' opacity='.45'/>" for dot in bar.dots
        ]
        parts.append(f"<circle cx='{across(bar.value):.1f}' cy='{y}' r='5' fill='{colour}'/>")
        parts.append(f"<text x='{_WIDTH - 80}' y='{y + 4}'>{_number(bar.value, share, fine=True)}</text>")
    return _svg(parts, height=height + 8, label=title)


def forest(some: Sequence[Bar], *, title: str) -> str:
    """Differences of shares with their intervals, to the left or the right of nothing."""
    height = 50 + _ROW * len(some)
    left = 16 + round(6.6 * max(len(bar.name) for bar in some))

    def across(value: float) -> float:
        return left + (min(max(value, -1.0), 1.0) + 1) / 2 * (_WIDTH - left - 90)

    parts = [_title(title)]
    for tick in (-1.0, -0.5, 0.0, 0.5, 1.0):
        x, kind = across(tick), "zero" if tick == 0 else "axis"
        parts.append(f"<line class='{kind}' x1='{x:.1f}' x2='{x:.1f}' y1='34' y2='{height - 14}'/>")
        parts.append(f"<text class='faint' x='{x:.1f}' y='{height}' text-anchor='middle'>{100 * tick:+.0f}</text>")
    for number, bar in enumerate(some):
        y = 46 + _ROW * number
        colour = COLOURS[-1] if bar.low <= 0 <= bar.high else COLOURS[0] if bar.value > 0 else COLOURS[1]
        parts.append(f"<text x='{left - 10}' y='{y + 4}' text-anchor='end'>{html.escape(bar.name)}</text>")
        parts.append(
            f"<line x1='{across(bar.low):.1f}' x2='{across(bar.high):.1f}' y1='{y}' y2='{y}' "
            f"stroke='{colour}' stroke-width='2'/>"
        )
        parts.append(f"<circle cx='{across(bar.value):.1f}' cy='{y}' r='5' fill='{colour}'/>")
        parts.append(f"<text x='{_WIDTH - 80}' y='{y + 4}'>{100 * bar.value:+.1f}</text>")
    return _svg(parts, height=height + 8, label=title)


def curves(some: Sequence[Curve], *, title: str, across_is: str, share: bool, logarithmic: bool = False) -> str:
    """Lines with bands over a common axis."""
    points = [point for curve in some for point in curve.points]
    left_end, right_end = min(point.x for point in points), max(point.x for point in points)
    low, high = (0.0, 1.0) if share else _padded([value for point in points for value in (point.low, point.high)])
    height = _HEIGHT + 18 * len(some)

    def across(value: float) -> float:
        if logarithmic:
            part = math.log(value / left_end) / max(1e-9, math.log(right_end / left_end))
        else:
            part = (value - left_end) / max(1e-9, right_end - left_end)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return _HEIGHT - _BOTTOM - (min(max(value, low), high) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_title(title), *_grid(across, up, (left_end, right_end), (low, high), share, logarithmic)]
    for number, curve in enumerate(some):
        parts += _curve(curve, across, up, COLOURS[number % len(COLOURS)])
        y = _HEIGHT + 12 + 18 * number
        parts.append(f"<circle cx='{_LEFT + 5}' cy='{y - 4}' r='5' fill='{COLOURS[number % len(COLOURS)]}'/>")
        parts.append(f"<text x='{_LEFT + 18}' y='{y}'>{html.escape(curve.name)}</text>")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f"<text class='faint' x='{middle}' y='{_HEIGHT - 8}' text-anchor='middle'>{html.escape(across_is)}</text>"
    )
    return _svg(parts, height=height, label=title)


def _curve(curve: Curve, across: Place, up: Place, colour: str) -> list[str]:
    above = [f"{across(point.x):.1f},{up(point.high):.1f}" for point in curve.points]
    below = [f"{across(point.x):.1f},{up(point.low):.1f}" for point in reversed(curve.points)]
    line = " ".join(f"{across(point.x):.1f},{up(point.y):.1f}" for point in curve.points)
    return [
        f"<polygon points='{' '.join(above + below)}' fill='{colour}' opacity='.15'/>",
        f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2'/>",
        *(
            f"<circle cx='{across(point.x):.1f}' cy='{up(point.y):.1f}' r='3' fill='{colour}'/>"
            for point in curve.points
        ),
    ]


def _grid(
    across: Place, up: Place, wide: tuple[float, float], tall: tuple[float, float], share: bool, logarithmic: bool
) -> list[str]:
    parts = []
    for tick in _ticks(*tall):
        y = up(tick)
        parts.append(f"<line class='axis' x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(
            f"<text class='faint' x='{_LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{_number(tick, share)}</text>"
        )
    for tick in _powers(*wide) if logarithmic else _ticks(*wide):
        x = across(tick)
        parts.append(
            f"<text class='faint' x='{x:.1f}' y='{_HEIGHT - _BOTTOM + 18}' text-anchor='middle'>{_short(tick)}</text>"
        )
    return parts


def _svg(parts: Sequence[str], *, height: int, label: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}' role='img' "
        f"aria-label='{html.escape(label, quote=True)}'>{''.join(parts)}</svg>"
    )


def _title(text: str) -> str:
    return f"<text x='12' y='20' font-weight='600'>{html.escape(text)}</text>"


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside, four to eight of them."""
    if high <= low:
        return [low]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    found = [
        factor * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factor in (1, 2, 5)
    ]
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


def _number(value: float, share: bool, *, fine: bool = False) -> str:
    if share:
        return f"{100 * value:.1f} %" if fine else f"{100 * value:.0f} %"
    return f"{value:.3g}" if abs(value) < 1000 else _short(value)


def _short(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"
