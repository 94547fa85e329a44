"""An evaluation as one HTML page that needs nothing else: table, plot, settings, and some of the answers.

Everything that a model or a data set wrote goes in as text: whatever it holds, the browser never reads it as HTML.
"""

import html
import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from illada.evaluate.summary import AnswerLine, TaskSummary

_SHOWN = 3
"""Right and wrong answers of each task."""
_LONGEST = 2000
_SHORT = 60
"""Characters of a right answer that is told in a line."""
_WIDTH, _ROW, _LEFT, _RIGHT, _TOP = 720, 30, 190, 60, 28

_STYLE = """
:root { --ink: #1c1e21; --soft: #6a7077; --line: #dcdfe3; --paper: #fff; --box: #f5f6f8; --mark: #2563b0;
  --paper-mark: #c2410c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --soft: #9aa1a9; --line: #383d43; --paper: #17191c; --box: #202327; --mark: #7fb2f0;
    --paper-mark: #f0a370 }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } th { color: var(--soft); font-weight: 500 }
pre { color: var(--ink); background: var(--box); padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .85rem; margin: .3rem 0 }
details { margin: .4rem 0 } summary { cursor: pointer }
.soft { color: var(--soft) } .right { color: #15803d } .wrong { color: #b91c1c }
.wide { overflow-x: auto } .wide td, .wide th { white-space: nowrap } .groups { width: auto; margin: .3rem 0 }
svg { width: 100%; height: auto; margin: 1.5rem 0 .5rem }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink) }
.axis { stroke: var(--line) } .whisker { stroke: var(--mark); stroke-width: 2 } .dot { fill: var(--mark) }
.paper { fill: var(--paper-mark) } svg .faint { fill: var(--soft) }
"""


def page(summaries: Sequence[TaskSummary], lines: Sequence[AnswerLine], settings: dict[str, Any]) -> str:
    """The whole page.

    Args:
        summaries: one for each task.
        lines: all answers; a few of each task are shown.
        settings: plain data, shown as it is; `model` and `run`'s `command` stand at the top.
    """
    model = str(settings.get("model", "a model"))
    command = str(settings.get("run", {}).get("command", ""))
    title = f"{settings.get('suite') or 'evaluation'}: {model}"
    return "".join(
        [
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{_text(title)}</h1>",
            f"<pre>{_text(command)}</pre>" if command else "",
            _table(summaries),
            _plot(summaries),
            "<p class='soft'>Intervals: 95 %, bootstrap; where all answers are right or all wrong, Wilson's. A ",
            "triangle is what the paper reports.</p>",
            _remarks(settings),
            *(_groups(summary) for summary in summaries if summary.groups),
            "<h2>Answers</h2>",
            *(_examples(summary.task, lines) for summary in summaries),
            "<h2>Settings</h2><details><summary>all that the answers depend on</summary>",
            f"<pre>{_text(json.dumps(settings, indent=2))}</pre></details></body></html>\n",
        ]
    )


def _table(summaries: Sequence[TaskSummary]) -> str:
    names = ("task", "n", "correct %", "95 %", "paper", "nothing found", "forwards", "tokens", "seconds")
    rows = []
    for summary in summaries:
        interval = summary.interval
        cells = (
            summary.task,
            f"{summary.whole.count:,}",
            f"{100 * summary.whole.share:.1f}",
            f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
            "" if summary.published is None else f"{summary.published:.1f}",
            f"{summary.nothing_found:,}",
            f"{summary.forwards:.1f}",
            f"{summary.tokens:.1f}",
            f"{summary.seconds:.2f}",
        )
        rows.append(list(cells))
    if len(summaries) > 1:
        average = fmean(summary.whole.share for summary in summaries)
        rows.append(["average", "", f"{100 * average:.1f}", *[""] * (len(names) - 3)])
    return f"<div class='wide'>{_rows(names, rows)}</div>"


def _groups(summary: TaskSummary) -> str:
    """The subjects or levels of a task."""
    rows = [
        (
            name or "none",
            f"{part.count:,}",
            f"{100 * part.share:.1f}",
            f"{100 * part.interval.low:.1f} to {100 * part.interval.high:.1f}",
        )
        for name, part in summary.groups.items()
    ]
    table = _rows(("part", "n", "correct %", "95 %, Wilson"), rows, kind="groups")
    return f"<details><summary>{_text(summary.task)} in parts</summary><div class='wide'>{table}</div></details>"


def _rows(names: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """A table in HTML."""
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table class='{kind}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _remarks(settings: Mapping[str, Any]) -> str:
    """Where paper and script disagree or are silent, and what was left out."""
    said = [f"{one['task']}: {one['remark']}" for one in settings.get("tasks", ()) if one.get("remark")]
    if left_out := settings.get("left_out"):
        said.append(f"left out: {', '.join(left_out)}")
    items = "".join(f"<li>{_text(text)}</li>" for text in said)
    return f"<ul class='soft'>{items}</ul>" if said else ""


def _plot(summaries: Sequence[TaskSummary]) -> str:
    """A dot with its interval for each task, from 0 to 100 %."""
    height = _TOP + _ROW * len(summaries) + 8

    def across(share: float) -> float:
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = across(tick)
        parts.append(f"<line class='axis' x1='{x:.1f}' x2='{x:.1f}' y1='{_TOP - 6}' y2='{height - 6}'/>")
        parts.append(f"<text class='faint' x='{x:.1f}' y='14' text-anchor='middle'>{100 * tick:.0f} %</text>")
    for number, summary in enumerate(summaries):
        y = _TOP + _ROW * number + _ROW / 2
        low, high, share = (
            across(value) for value in (summary.interval.low, summary.interval.high, summary.whole.share)
        )
        parts.append(f"<text x='{_LEFT - 12}' y='{y + 4:.1f}' text-anchor='end'>{_text(summary.task)}</text>")
        parts.append(f"<line class='whisker' x1='{low:.1f}' x2='{high:.1f}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(f"<circle class='dot' cx='{share:.1f}' cy='{y:.1f}' r='5'/>")
        if summary.published is not None:
            x = across(summary.published / 100)
            parts.append(f"<path class='paper' d='M{x:.1f} {y - 5:.1f} l5 9 h-10 z'/>")
    return f"<svg viewBox='0 0 {_WIDTH} {height}' role='img' aria-label='scores'>{''.join(parts)}</svg>"


def _examples(task: str, lines: Sequence[AnswerLine]) -> str:
    some = [line for line in lines if line.task == task]
    shown = [line for line in some if not line.correct][:_SHOWN] + [line for line in some if line.correct][:_SHOWN]
    return "".join(
        [
            f"<details><summary>{_text(task)}: {len(shown)} of {len(some)} answers</summary>",
            *map(_example, shown),
            "</details>",
        ]
    )


def _example(line: AnswerLine) -> str:
    verdict = "<span class='right'>right</span>" if line.correct else "<span class='wrong'>wrong</span>"
    short = len(line.reference) <= _SHORT and "\n" not in line.reference
    facts = [f"expected {line.reference!r}"] if short else []
    facts.append("nothing found" if line.extracted is None else f"found {line.extracted!r}")
    if line.scores:
        facts.append("scores " + ", ".join(f"{score:.2f}" for score in line.scores))
    if line.note:
        facts.append(line.note)
    return (
        f"<details><summary>{_text(line.id)} {verdict} <span class='soft'>{_text(' · '.join(facts))}</span></summary>"
        f"{_block('asked', line.prompt)}{_block('answered', line.output)}"
        f"{'' if short else _block('expected', line.reference)}</details>"
    )


def _block(name: str, text: str) -> str:
    shown = f"<pre>{_text(_cut(text))}</pre>" if text else " nothing"
    return f"<div class='soft'>{name}{shown}</div>"


def _cut(text: str) -> str:
    """A long text by its end, which is where the question is."""
    return text if len(text) <= _LONGEST else f"... {text[-_LONGEST:]}"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
