"""Scores of evaluations, and comparisons of two, as tables in the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from illada.evaluate.comparison import TaskComparison
from illada.evaluate.summary import TaskSummary

_MOST_GROUPS = 3
"""So few groups have columns of their own: the levels of the skills."""


def show(console: Console, summaries: Sequence[TaskSummary], *, left_out: Mapping[str, str]) -> None:
    """A line for each task, one for the average, and what was left out."""
    console.print(table(summaries))
    console.print("intervals: bootstrap; where all answers are right or all wrong, Wilson's", style="dim")
    for name, reason in left_out.items():
        console.print(f"left out: {name} ({reason})", style="dim", markup=False, highlight=False, soft_wrap=True)


def table(summaries: Sequence[TaskSummary]) -> Table:
    """The scores in per cent."""
    groups = list(dict.fromkeys(name for summary in summaries for name in summary.groups))
    groups = sorted(groups) if len(groups) <= _MOST_GROUPS else []
    published = any(summary.published is not None for summary in summaries)
    shown = Table(title="right answers in %", title_justify="left", box=None, pad_edge=False)
    shown.add_column("task", no_wrap=True)
    for name in ("n", "exact", "95 % interval", *(["paper"] if published else []), *groups, "forwards"):
        shown.add_column(name, justify="right", no_wrap=True)
    for summary in summaries:
        interval = summary.interval
        cells = [
            summary.task,
            f"{summary.whole.count:,}",
            _percent(summary.whole.share),
            f"{_percent(interval.low)} to {_percent(interval.high)}",
        ]
        if published:
            cells.append("" if summary.published is None else f"{summary.published:.1f}")
        cells += [_percent(summary.groups[name].share) if name in summary.groups else "" for name in groups]
        shown.add_row(*cells, f"{summary.forwards:.1f}")
    if len(summaries) > 1:
        mean = sum(summary.whole.share for summary in summaries) / len(summaries)
        shown.add_row("average", "", _percent(mean))
    return shown


def show_comparison(console: Console, compared: Sequence[TaskComparison], *, names: Sequence[str]) -> None:
    """A line for each task: A, B, the difference and what it can be trusted for."""
    console.print(f"A: {names[0]}\nB: {names[1]}", markup=False, highlight=False, soft_wrap=True)
    shown = Table(title="right answers in %, paired", title_justify="left", box=None, pad_edge=False)
    shown.add_column("task", no_wrap=True)
    for name in ("n", "A", "B", "B - A", "95 % interval", "only A", "only B", "p", "corrected"):
        shown.add_column(name, justify="right", no_wrap=True)
    for one in compared:
        interval = one.difference.interval
        shown.add_row(
            one.task,
            f"{one.first.count:,}",
            _percent(one.first.share),
            _percent(one.second.share),
            f"{100 * one.difference.value:+.1f}",
            f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}",
            str(one.only_first),
            str(one.only_second),
            f"{one.p_value:.3g}",
            f"{one.corrected:.3g}",
        )
    console.print(shown)
    console.print("p: McNemar, exact, two-sided; corrected for the number of tasks by Holm", style="dim")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
