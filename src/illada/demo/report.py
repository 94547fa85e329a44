"""What a run did, as one HTML page that needs nothing else: no network, no scripts, fonts or images from elsewhere.

    Report -> head (facts) + chart (loss) + canvases (text, tinted by the step that revealed it) + sudoku boards

Text of the model goes in as text: whatever it holds, the browser never reads it as HTML.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from illada.durable import write_text

CELLS = 16

_UNSHOWABLE = [*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)]
VISIBLE_CONTROLS = dict.fromkeys(_UNSHOWABLE, 0xFFFD) | {c: 0x2400 + c for c in range(32) if chr(c) not in "\n\t"}
"""For `str.translate`: control characters become their pictures; the C1 set, what turns the direction of writing and
halves of surrogate pairs become the replacement character."""

DENSE_POINTS = 40
"""A curve with more points than this is drawn smoothed with its raw values behind it, others point by point."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A loss in nats per token against the training step."""

    label: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse columns of different lengths."""
        if (steps := len(self.steps)) != (values := len(self.values)):
            raise ValueError(f"curve {self.label!r} has {steps} steps but {values} values: give one per step")


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """One generated text: a piece per token, and the forward that revealed it (from 1; 0 = given by the user)."""

    title: str
    pieces: tuple[str, ...]
    revealed_at: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse pieces without a step."""
        if len(self.pieces) != len(self.revealed_at) or min(self.revealed_at, default=0) < 0:
            raise ValueError(
                f"{self.title!r} has {len(self.pieces)} pieces and {len(self.revealed_at)} reveal steps, the lowest "
                f"{min(self.revealed_at, default=0)}: give one step per piece, 0 or more"
            )

    @property
    def steps(self) -> int:
        """The forward that revealed the last token."""
        return max(self.revealed_at, default=0)


@dataclass(frozen=True, kw_only=True)
class SolvedBoard:
    """A 4x4 sudoku: 16 digits as given (0 = blank), as filled, and the forward that filled each (0 = given)."""

    puzzle: tuple[int, ...]
    solution: tuple[int, ...]
    revealed_at: tuple[int, ...]
    correct: bool

    def __post_init__(self) -> None:
        """Refuse anything but 16 cells."""
        sizes = (len(self.puzzle), len(self.solution), len(self.revealed_at))
        if sizes != (CELLS, CELLS, CELLS):
            raise ValueError(f"a board has {CELLS} cells; puzzle, solution and revealed_at have {sizes}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the page shows; `facts` are (what, value) pairs for its head. What is empty is left out."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    curves: tuple[Curve, ...] = ()
    denoisings: tuple[Denoising, ...] = ()
    boards: tuple[SolvedBoard, ...] = ()


def write_report(report: Report, path: Path) -> None:
    """Write the page, all of it or nothing; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _page(report))


def _page(report: Report) -> str:
    parts = [_head(report), _chart(report.curves), _canvases(report.denoisings), _boards(report.boards)]
    body = "\n".join(filter(None, parts))
    return _PAGE.format(title=_text(report.title), style=_STYLE, body=body, script=_SCRIPT)


def _text(text: str) -> str:
    """Text for HTML: markup escaped, control characters made visible, tabs and newlines kept."""
    return html.escape(text.translate(VISIBLE_CONTROLS))


def _head(report: Report) -> str:
    facts = "".join(f"<div><dt>{_text(what)}</dt><dd>{_text(value)}</dd></div>" for what, value in report.facts)
    return f"<header><h1>{_text(report.title)}</h1>\n<p>{_INTRODUCTION}</p>\n<dl>{facts}</dl></header>"


_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 800, 410, 62, 786, 40, 348
_MAX_DRAWN, _INKS = 600, 4


@dataclass(frozen=True)
class _Scale:
    """Maps [low, high] of the data onto [start, end] of the drawing."""

    low: int | float
    high: int | float
    start: int | float
    end: int | float

    def __call__(self, value: int | float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _ticks(low: int | float, high: int | float, count: int) -> list[float]:
    """Round numbers inside [low, high], about `count` of them, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    gap = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / gap - 1e-9), math.floor(high / gap + 1e-9)
    return [round(gap * k, 10) for k in range(first, last + 1)]


def _smooth(values: Sequence[float]) -> list[float]:
    """A centred running mean over a twentieth of the curve, narrower at both ends, where it would lag."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    reach = len(values) // 40
    halves = [min(reach, i, len(values) - 1 - i) for i in range(len(values))]
    return [(sums[i + half + 1] - sums[i - half]) / (2 * half + 1) for i, half in enumerate(halves)]


def _path(points: Sequence[tuple[int, float]], x: _Scale, y: _Scale, kind: str) -> str:
    stride = math.ceil(len(points) / _MAX_DRAWN)
    drawn = [*points[:-1:stride], points[-1]]
    return f'<path class="{kind}" d="M{"L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in drawn)}"/>'


def _curve(points: Sequence[tuple[int, float]], x: _Scale, y: _Scale, ink: int) -> str:
    if len(points) > DENSE_POINTS:
        smooth = _smooth([value for _, value in points])
        smoothed = [(step, value) for (step, _), value in zip(points, smooth, strict=True)]
        drawing = _path(points, x, y, "raw") + _path(smoothed, x, y, "line")
    else:
        dots = (
            f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="4"><title>step {step:,}: {value:.3f}</title></circle>'
            for step, value in points
        )
        drawing = _path(points, x, y, "link") + "".join(dots)
    return f'<g class="ink{ink % _INKS}">{drawing}</g>'


def _axes(x: _Scale, y: _Scale) -> str:
    ticks = _ticks(y.low, y.high, 5)
    digits = max(0, math.ceil(-math.log10(ticks[1] - ticks[0]) - 1e-9))
    rows = [
        f'<path class="grid" d="M{_LEFT} {y(v):.1f}H{_RIGHT}"/>'
        f'<text x="{_LEFT - 10}" y="{y(v) + 5:.1f}" text-anchor="end">{v:.{digits}f}</text>'
        for v in ticks
    ]
    columns = [
        f'<text x="{x(v):.1f}" y="{_BOTTOM + 30}" text-anchor="middle">{v:,.0f}</text>'
        for v in _ticks(x.low, x.high, 6)
        if v == int(v)
    ]
    names = f'<text y="18">nats per token</text><text x="{_RIGHT}" y="{_HEIGHT - 8}" text-anchor="end">step</text>'
    return "".join(rows + columns) + names


def _key(label: str, last: float, ink: int) -> str:
    return f'<li class="ink{ink % _INKS}"><b></b>{_text(label)} <span>{last:.2f} at the end</span></li>'


def _chart(curves: Sequence[Curve]) -> str:
    finite = [[(s, v) for s, v in zip(c.steps, c.values, strict=True) if math.isfinite(v)] for c in curves]
    drawn = [(curve, points) for curve, points in zip(curves, finite, strict=True) if points]
    if not drawn:
        return ""
    everything = [point for _, points in drawn for point in points]
    steps, values = [step for step, _ in everything], [value for _, value in everything]
    margin = max(0.06 * (max(values) - min(values)), 0.01)
    x = _Scale(min(steps), max(max(steps), min(steps) + 1), _LEFT + 8, _RIGHT - 16)
    y = _Scale(min(values) - margin, max(values) + margin, _BOTTOM, _TOP)
    lines = "".join(_curve(points, x, y, ink) for ink, (_, points) in enumerate(drawn))
    keys = "".join(_key(curve.label, points[-1][1], ink) for ink, (curve, points) in enumerate(drawn))
    return (
        f'<section><h2>Loss</h2><ul class="keys">{keys}</ul><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Loss in nats per token against the training step">{_axes(x, y)}{lines}</svg></section>'
    )


def _order(step: int, steps: int) -> float:
    """Where a step lies between the first (0) and the last (1)."""
    return (step - 1) / (steps - 1) if steps > 1 else 0.0


def _token(piece: str, step: int, steps: int) -> str:
    # the marks for newline and tab are drawn by the style sheet: copied text stays the model's text
    shown = _text(piece).replace("\n", "<i></i>\n").replace("\t", "<u></u>\t")
    if step == 0:
        return f"<span>{shown}</span>"
    return f'<span class="t" data-s="{step}" style="--k:{_order(step, steps):.3f}" title="step {step}">{shown}</span>'


def _legend(last: str) -> str:
    bands = 24
    swatches = "".join(f'<b class="t" style="--k:{band / (bands - 1):.3f}"></b>' for band in range(bands))
    return f'<p class="legend">first<span aria-hidden="true">{swatches}</span>{last}</p>'


def _canvas(denoising: Denoising) -> str:
    steps = denoising.steps
    tokens = "".join(_token(*token, steps) for token in zip(denoising.pieces, denoising.revealed_at, strict=True))
    given = denoising.revealed_at.count(0)
    counts = f"{len(denoising.pieces) - given} tokens revealed in {steps} steps"
    counts += f", {given} given (uncoloured)" if given else ""
    controls = (
        f'<div class="controls" hidden><button type="button">Play</button><input type="range" min="0" max="{steps}" '
        f'value="{steps}" aria-label="step"><output></output></div>'
    )
    return (
        f'<article data-steps="{steps}"><h3>{_text(denoising.title)}</h3><p class="note">{counts}</p>'
        f"<pre>{tokens}</pre>{controls}{_legend(f'last of {steps} steps')}</article>"
    )


def _canvases(denoisings: Sequence[Denoising]) -> str:
    if not denoisings:
        return ""
    return f"<section><h2>Masks into text</h2><p>{_CANVAS_NOTE}</p>{''.join(map(_canvas, denoisings))}</section>"


def _cell(given: int, filled: int, step: int, steps: int) -> str:
    if given:
        return f"<b>{given}</b>"
    return f'<i class="t" style="--k:{_order(max(step, 1), steps):.3f}" title="step {step}">{filled or ""}</i>'


def _board(board: SolvedBoard) -> str:
    steps = max(board.revealed_at)
    cells = (_cell(*cell, steps) for cell in zip(board.puzzle, board.solution, board.revealed_at, strict=True))
    verdict, mark = ("correct", "M3 8.5 6.5 12 13 4.5") if board.correct else ("wrong", "M4 4 12 12M12 4 4 12")
    return (
        f'<figure class="{verdict}"><div>{"".join(cells)}</div><figcaption>'
        f'<svg viewBox="0 0 16 16" aria-hidden="true"><path d="{mark}"/></svg>{verdict}</figcaption></figure>'
    )


def _boards(boards: Sequence[SolvedBoard]) -> str:
    if not boards:
        return ""
    solved = sum(board.correct for board in boards)
    note = f"{solved} of {len(boards)} boards solved. {_BOARD_NOTE}"
    figures = f'<div class="boards">{"".join(map(_board, boards))}</div>{_legend("last")}'
    return f"<section><h2>Sudoku, in any order</h2><p>{note}</p>{figures}</section>"


_INTRODUCTION = (
    "A masked diffusion language model starts from a canvas of masks and fills it in any order, "
    "a few tokens per forward. This page shows one run of it."
)
_CANVAS_NOTE = "The colour of a token is the step that revealed it. Move the slider to see the canvas as it was."
_BOARD_NOTE = "Bold digits were given; the others were filled one per step, the surest first."

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main><script>{script}</script></body>
</html>
"""

_STYLE = """
:root { --paper: #fdfcfa; --card: #fff; --ink: #201e1c; --soft: #6d6862; --rule: #e7e2da; --mask: #dfd9d0;
  --ink0: #2f6fb2; --ink1: #c2571a; --ink2: #3a8a4d; --ink3: #8a4fa3; --good: #2d7d46; --bad: #b3362b }
@media (prefers-color-scheme: dark) { :root { --paper: #151517; --card: #1c1c1f; --ink: #ececea; --soft: #a09c96;
  --rule: #323236; --mask: #3a3a40; --ink0: #77aee8; --ink1: #f0945a; --ink2: #7cc48d; --ink3: #c597db;
  --good: #74c78c; --bad: #ef8379 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
main { max-width: 860px; margin: 0 auto; padding: 72px 28px 96px }
h1, h3, dd { overflow-wrap: anywhere } h1, h2 { letter-spacing: -.015em; margin: 0 0 .5em }
h1 { font-size: 2.1rem; line-height: 1.2 } h2 { font-size: 1.35rem } h3 { font-size: 1rem; margin: 0 }
p { margin: 0 0 1em; color: var(--soft); max-width: 62ch; text-wrap: pretty } section { margin-top: 72px }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 22px 28px; margin: 36px 0 0 }
dl div { border-top: 1px solid var(--rule); padding-top: 12px }
dt, .note, .legend, .keys, figcaption, output { font-size: .84rem; color: var(--soft) }
dd { margin: 2px 0 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums }
svg { display: block; width: 100%; height: auto; overflow: visible }
svg text { font-size: 14px; fill: var(--soft); font-variant-numeric: tabular-nums }
svg path { fill: none; stroke: currentColor; stroke-linejoin: round; vector-effect: non-scaling-stroke }
svg .grid { stroke: var(--rule); stroke-width: 1 } svg .raw { stroke-width: 1; opacity: .28 }
svg .line { stroke-width: 2.2 } svg .link { stroke-width: 1.2; opacity: .6 }
svg circle { fill: var(--paper); stroke: currentColor; stroke-width: 2.2 }
.ink0 { color: var(--ink0) } .ink1 { color: var(--ink1) } .ink2 { color: var(--ink2) } .ink3 { color: var(--ink3) }
.keys { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 28px; padding: 0; margin: 0 0 20px }
.keys li { font-weight: 600 } .keys span { color: var(--soft); font-weight: 400 }
.keys b { display: inline-block; width: 18px; height: 3px; background: currentColor; margin: 0 8px .25em 0 }
article { background: var(--card); border: 1px solid var(--rule); border-radius: 14px; padding: 24px 26px 20px }
article { margin-top: 26px }
.note { margin: 2px 0 16px }
pre { margin: 0; white-space: break-spaces; overflow-wrap: anywhere; tab-size: 4;
  font: 14px/1.85 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
.t { background: oklch(calc(.95 - .17 * var(--k)) calc(.07 + .04 * var(--k)) calc(98 + 195 * var(--k))) }
@media (prefers-color-scheme: dark) {
  .t { background: oklch(calc(.54 - .2 * var(--k)) calc(.08 + .05 * var(--k)) calc(98 + 195 * var(--k))) } }
pre .t { padding: 3px 0; border-radius: 4px; -webkit-box-decoration-break: clone; box-decoration-break: clone;
  box-shadow: inset 1px 0 var(--card) }
pre .t:empty::before { content: "\\2009" }
pre i, pre u { font-style: normal; text-decoration: none; opacity: .4 }
pre i::before { content: "\\21b5" } pre u::before { content: "\\21e5" }
pre .t.masked { background: var(--mask); color: transparent } pre .t.masked * { visibility: hidden }
pre .t.now { outline: 2px solid var(--ink1); outline-offset: -1px }
.controls { display: flex; align-items: center; gap: 14px; margin-top: 20px }
.controls[hidden] { display: none } .controls input { flex: 1; min-width: 0; accent-color: var(--ink0) }
button { font: inherit; font-size: .84rem; min-width: 68px; padding: 6px 14px; border-radius: 99px; cursor: pointer;
  color: var(--ink); background: none; border: 1px solid var(--rule) }
button:hover { border-color: var(--soft) }
output { min-width: 8.5em; text-align: right; font-variant-numeric: tabular-nums }
.legend { display: flex; align-items: center; gap: 10px; margin: 14px 0 0; white-space: nowrap }
.legend span { display: flex; flex: 0 1 220px; border-radius: 4px; overflow: hidden }
.legend b { flex: 1; height: 10px }
.boards { display: grid; grid-template-columns: repeat(auto-fill, minmax(148px, 1fr)); gap: 28px 24px; margin: 28px 0 }
figure { margin: 0 } figure div { display: grid; grid-template-columns: repeat(4, 1fr); border-radius: 8px;
  overflow: hidden; border: 1.5px solid var(--soft); background: var(--card); max-width: 190px }
figure div > * { aspect-ratio: 1; display: grid; place-items: center; font-style: normal; font-size: 1.1rem;
  border: 0 solid var(--rule); border-width: 0 1px 1px 0; font-variant-numeric: tabular-nums }
figure div > :nth-child(4n) { border-right: 0 } figure div > :nth-child(n + 13) { border-bottom: 0 }
figure div > :nth-child(4n + 2) { border-right: 1.5px solid var(--soft) }
figure div > :nth-child(n + 5):nth-child(-n + 8) { border-bottom: 1.5px solid var(--soft) }
figcaption { display: flex; align-items: center; gap: 6px; margin-top: 8px }
figcaption svg { width: 15px; flex: none } figcaption path { stroke-width: 2.2; stroke-linecap: round }
.correct svg { color: var(--good) } .wrong svg { color: var(--bad) }
@media (max-width: 600px) { main { padding: 40px 18px 64px } section { margin-top: 52px } h1 { font-size: 1.7rem }
  article { padding: 18px 16px; border-radius: 12px } svg text { font-size: 24px } pre { font-size: 13px }
  dl { grid-template-columns: repeat(auto-fill, minmax(135px, 1fr)) } output { min-width: 6.5em } }
"""

_SCRIPT = """
for (const canvas of document.querySelectorAll("[data-steps]")) {
  const steps = +canvas.dataset.steps, tokens = canvas.querySelectorAll("[data-s]");
  const [slider, label, button] = ["input", "output", "button"].map((name) => canvas.querySelector(name));
  let timer = 0;
  const show = (step) => {
    slider.value = step;
    label.textContent = `step ${step} of ${steps}`;
    for (const token of tokens) {
      token.classList.toggle("masked", +token.dataset.s > step);
      token.classList.toggle("now", +token.dataset.s === step && step < steps);
    }
  };
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; };
  const advance = () => +slider.value < steps ? show(+slider.value + 1) : stop();
  button.onclick = () => {
    if (timer) return stop();
    if (+slider.value >= steps) show(0);
    button.textContent = "Pause";
    timer = setInterval(advance, Math.max(40, Math.min(400, 7000 / steps)));
  };
  slider.oninput = () => { stop(); show(+slider.value); };
  if (steps) { canvas.querySelector(".controls").hidden = false; show(steps); }
}
"""
