"""The frontier as a picture: exact match over tokens per forward, in one SVG file."""

import html
import math
from collections.abc import Callable, Sequence

from illada.evaluate.frontier import Point, frontier

Place = Callable[[float], float]

_WIDTH, _HEIGHT = 860, 470
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 250, 44, 56
_COLOURS = ("#2563b0", "#c2410c", "#15803d", "#7c3aed", "#b45309", "#0e7490", "#be185d", "#4d7c0f", "#475569")


def frontier_svg(points: Sequence[Point], *, title: str) -> str:
    """A dot for each setting, coloured by its caching; filled where it loses nothing, and a line along the frontier."""
    fastest = max(point.tokens_per_forward for point in points)
    top = min(1.0, max(point.right.interval.high for point in points) * 1.05)

    def across(value: float) -> float:
        return _LEFT + value / (fastest * 1.05) * (_WIDTH - _LEFT - _RIGHT)

    def up(share: float) -> float:
        return _HEIGHT - _BOTTOM - share / top * (_HEIGHT - _TOP - _BOTTOM)

    cachings = list(dict.fromkeys(point.caching for point in points))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(cachings)}
    path = " ".join(f"{across(point.tokens_per_forward):.1f},{up(point.right.share):.1f}" for point in frontier(points))
    parts = [
        *_axes(across, up, fastest, top),
        f"<polyline points='{path}' fill='none' stroke='#94a3b8' stroke-width='1.5'/>",
        *(_dot(point, across(point.tokens_per_forward), up(point.right.share), colours) for point in points),
        *_legend(colours),
        f"<text x='{_LEFT}' y='24' font-weight='600' font-size='15'>{html.escape(title)}</text>",
    ]
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' font-family='system-ui, sans-serif' "
        f"font-size='12' fill='#1c1e21'><rect width='100%' height='100%' fill='#fff'/>{''.join(parts)}</svg>\n"
    )


def _dot(point: Point, x: float, y: float, colours: dict[str, str]) -> str:
    colour = colours[point.caching]
    fill = colour if point.loses_nothing else "#fff"
    words = f"{point.caching} + {point.unmasking}, blocks of {point.block_length}: {point.right.share:.1%}"
    return (
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='5' fill='{fill}' stroke='{colour}' stroke-width='1.8' "
        f"fill-opacity='0.85'><title>{html.escape(words)}</title></circle>"
    )


def _axes(across: Place, up: Place, fastest: float, top: float) -> list[str]:
    step = 10 ** math.floor(math.log10(fastest)) / 2
    parts = []
    for number in range(int(fastest / step) + 1):
        x = across(number * step)
        parts.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{_TOP}' y2='{_HEIGHT - _BOTTOM}' stroke='#eceef1'/>")
        parts.append(f"<text x='{x:.1f}' y='{_HEIGHT - _BOTTOM + 18}' text-anchor='middle'>{number * step:g}</text>")
    for tenth in range(int(top * 10) + 1):
        y = up(tenth / 10)
        parts.append(f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='#eceef1'/>")
        parts.append(f"<text x='{_LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{tenth * 10} %</text>")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f"<text x='{middle:.0f}' y='{_HEIGHT - 14}' text-anchor='middle'>tokens per forward</text>")
    parts.append(f"<text x='{_LEFT - 8}' y='{_TOP - 6}' text-anchor='end'>exact</text>")
    return parts


def _legend(colours: dict[str, str]) -> list[str]:
    parts, x = [], _WIDTH - _RIGHT + 24
    for number, (name, colour) in enumerate(colours.items()):
        y = _TOP + 14 + 22 * number
        parts.append(f"<circle cx='{x}' cy='{y - 4}' r='5' fill='{colour}'/>")
        parts.append(f"<text x='{x + 14}' y='{y}'>{html.escape(name)}</text>")
    y = _TOP + 14 + 22 * (len(colours) + 1)
    for words in (
        "filled: loses nothing against",
        "one token per forward, no cache",
        "line: no setting is better in both",
    ):
        parts.append(f"<text x='{x - 6}' y='{y}' fill='#6a7077'>{words}</text>")
        y += 18
    return parts
