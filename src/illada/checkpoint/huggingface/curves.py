"""Loss against the step, as a picture for a model card."""

from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 300, 52, 34, 30
_INKS = ("#8a8f98", "#2563eb", "#d97706", "#059669")


def draw_curves(metrics: Sequence[Mapping[str, int | float]], names: Sequence[str]) -> str:
    """An SVG with a curve for each of `names`; "" where none of them was measured at two steps."""
    lines = {name: [(line["step"], line[name]) for line in metrics if name in line] for name in names}
    drawn = {name: points for name, points in lines.items() if len({step for step, _ in points}) > 1}
    if not drawn:
        return ""
    every = [point for points in drawn.values() for point in points]
    steps, values = [step for step, _ in every], [value for _, value in every]
    right, (low, high) = max(steps), (min(values), max(values))
    span = (high - low) or 1.0

    def place(step: int | float, value: int | float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - 12) * step / right
        y = _TOP + (_HEIGHT - _BOTTOM - _TOP) * (high - value) / span
        return f"{x:.1f},{y:.1f}"

    parts = [_frame(right, low, high)]
    for number, (name, points) in enumerate(drawn.items()):
        ink = _INKS[number % len(_INKS)]
        path = " ".join(place(*point) for point in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="1.8"/>')
        parts.append(f'<text x="{_LEFT + 210 * number}" y="18" fill="{ink}">{escape(name)}</text>')
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {style}>{"".join(parts)}</svg>\n'


def _frame(right: int | float, low: int | float, high: int | float) -> str:
    floor, grey = _HEIGHT - _BOTTOM, 'fill="#6b7280"'
    return (
        f'<path d="M{_LEFT},{_TOP}V{floor}H{_WIDTH - 12}" fill="none" stroke="#9ca3af"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 5}" text-anchor="end" {grey}>{high:.3g}</text>'
        f'<text x="{_LEFT - 6}" y="{floor}" text-anchor="end" {grey}>{low:.3g}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 14}" {grey}>0</text>'
        f'<text x="{_WIDTH - 12}" y="{_HEIGHT - 14}" text-anchor="end" {grey}>step {right:,.0f}</text>'
    )
