"""Lines of an evaluation, one per example, and the scores they add up to."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean
from typing import Any

from illada.evaluate.bootstrap import bootstrap_interval
from illada.evaluate.intervals import Interval, wilson_interval


@dataclass(frozen=True, kw_only=True)
class AnswerLine:
    """One example: what was asked, what came back, and the verdict."""

    task: str
    id: str
    """Unique within the task."""
    group: str
    """A subject or a level; may be empty."""
    prompt: str
    output: str
    extracted: str | None
    """What was compared; None where nothing like an answer was found."""
    reference: str
    correct: bool
    note: str
    forwards: int
    positions: int
    """Token positions that were computed."""
    tokens: int
    """Of the output; of a choice, of all candidates."""
    scores: tuple[float, ...]
    """Of a choice: one for each candidate, in nats."""
    seconds: float
    """Its share of the wall time of the batch it was asked in."""

    def row(self) -> dict[str, Any]:
        """The line as plain data."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: object) -> "AnswerLine":
        """The line from plain data.

        Raises:
            ValueError: it is not what `row` makes.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(row, dict) or row.keys() != names:
            raise ValueError(f"an answer has the fields {', '.join(sorted(names))}")
        if not isinstance(row["correct"], bool) or not isinstance(row["task"], str) or not isinstance(row["id"], str):
            raise ValueError("an answer has a task and an id, which are texts, and is correct or not")
        return cls(**{**row, "scores": tuple(row["scores"])})


@dataclass(frozen=True, kw_only=True)
class Part:
    """A share of right answers."""

    count: int
    correct: int
    interval: Interval
    """95 %, of Wilson: that of few or of equal answers has a width, too."""

    @property
    def share(self) -> float:
        """Correct / count."""
        return self.correct / self.count


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """What the lines of one task amount to."""

    task: str
    whole: Part
    bootstrap: Interval
    """95 %, from resampled answers."""
    groups: dict[str, Part]
    """By subject or level, where there is more than one."""
    published: float | None
    """What the paper reports, in per cent."""
    nothing_found: int
    """Answers in which there was nothing to compare."""
    forwards: float
    positions: float
    tokens: float
    seconds: float
    """The last four: means per answer."""

    @property
    def interval(self) -> Interval:
        """The bootstrap's; where all answers are right or all wrong, and it has no width, Wilson's."""
        return self.bootstrap if 0 < self.whole.correct < self.whole.count else self.whole.interval

    def data(self) -> dict[str, Any]:
        """The summary as plain data."""
        return {
            "count": self.whole.count,
            "correct": self.whole.correct,
            "share": self.whole.share,
            "bootstrap": asdict(self.bootstrap),
            "wilson": asdict(self.whole.interval),
            "published": self.published,
            "nothing_found": self.nothing_found,
            "forwards": self.forwards,
            "positions": self.positions,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "groups": {
                name: {
                    "count": part.count,
                    "correct": part.correct,
                    "share": part.share,
                    "wilson": asdict(part.interval),
                }
                for name, part in self.groups.items()
            },
        }


def summarize(lines: Sequence[AnswerLine], published: Mapping[str, float | None]) -> list[TaskSummary]:
    """A summary of each task, in the order in which they appear. `published` has a paper's numbers by task."""
    by_task: dict[str, list[AnswerLine]] = {}
    for line in lines:
        by_task.setdefault(line.task, []).append(line)
    return [_summary(task, some, published.get(task)) for task, some in by_task.items()]


def part_of(lines: Sequence[AnswerLine]) -> Part:
    """How many are right.

    Raises:
        ValueError: there are none.
    """
    correct = sum(line.correct for line in lines)
    return Part(count=len(lines), correct=correct, interval=wilson_interval(correct, len(lines)))


def _summary(task: str, lines: Sequence[AnswerLine], published: float | None) -> TaskSummary:
    groups: dict[str, list[AnswerLine]] = {}
    for line in lines:
        groups.setdefault(line.group, []).append(line)
    return TaskSummary(
        task=task,
        whole=part_of(lines),
        bootstrap=bootstrap_interval([[float(line.correct) for line in lines]]),
        groups={name: part_of(groups[name]) for name in sorted(groups)} if len(groups) > 1 else {},
        published=published,
        nothing_found=sum(line.extracted is None for line in lines),
        forwards=fmean(line.forwards for line in lines),
        positions=fmean(line.positions for line in lines),
        tokens=fmean(line.tokens for line in lines),
        seconds=fmean(line.seconds for line in lines),
    )
