"""A whole evaluation: every batch that is not answered yet, then the scores.

prepared tasks -> (folder: what is there already) -> batches -> lines -> results.json, report.html
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from illada.diffusion.likelihood import ENUMERATION_LIMIT
from illada.evaluate.fitting import Room
from illada.evaluate.folder import Key, ResultFolder
from illada.evaluate.page import page
from illada.evaluate.run import Model, Prepared, answer
from illada.evaluate.sandbox import Limits
from illada.evaluate.summary import AnswerLine, TaskSummary, summarize


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What came of an evaluation."""

    lines: tuple[AnswerLine, ...]
    """In the order of asking."""
    summaries: tuple[TaskSummary, ...]

    def results(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Plain data: what results.json holds."""
        return {
            "settings": settings,
            "average": fmean(summary.whole.share for summary in self.summaries),
            "tasks": {summary.task: summary.data() for summary in self.summaries},
        }


def evaluate(
    model: Model,
    tasks: Sequence[Prepared],
    *,
    settings: dict[str, Any],
    room: Room,
    out: Path | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluated:
    """Ask what is not answered yet, and add up.

    Args:
        model: what is evaluated.
        tasks: their names are different.
        settings: plain data that decides the answers, for the folder.
        room: how much text fits the model.
        out: the folder, where an evaluation that was stopped goes on; None: nothing is written.
        limits: of programs that the model writes; None: none is run.
        on_progress: called with the number of questions that are answered.

    Raises:
        FileExistsError: the folder holds another evaluation.
        ValueError: a task is named twice, a candidate that is too long for the exact bound, or a prompt that leaves no
            room.
    """
    _check_enumerable(tasks, room)
    batches = [(one, batch) for one in tasks for batch in one.batches]
    keys = [_keys(one, batch) for one, batch in batches]
    if len(set(chain.from_iterable(keys))) < sum(map(len, keys)):
        raise ValueError("two questions have one id: a task is named twice, or its rows are")
    folder = None if out is None else ResultFolder.open(out, settings, keys)
    lines: dict[Key, AnswerLine] = {} if folder is None else dict(folder.lines)
    if on_progress is not None and lines:
        on_progress(len(lines))
    for (one, batch), batch_keys in zip(batches, keys, strict=True):
        if all(key in lines for key in batch_keys):
            continue
        answered = answer(model, one, batch, room=room, limits=limits)
        if folder is not None:
            folder.append(answered)
        lines |= dict(zip(batch_keys, answered, strict=True))
        if on_progress is not None:
            on_progress(len(lines))
    ordered = tuple(lines[key] for batch_keys in keys for key in batch_keys)
    published = {one.task.name: one.asking.published for one in tasks}
    evaluated = Evaluated(lines=ordered, summaries=tuple(summarize(ordered, published)))
    if folder is not None:
        folder.finish(evaluated.results(settings), page(evaluated.summaries, ordered, settings))
    return evaluated


def questions_digest(tasks: Sequence[Prepared]) -> str:
    """The SHA-256 of everything that is asked, so that a folder is not gone on with when the data has changed."""
    digest = hashlib.sha256()
    for one in tasks:
        for question in one.questions:
            asked = (one.task.name, question.id, question.text, question.candidates, question.gold, question.reference)
            digest.update(json.dumps(asked).encode())
    return digest.hexdigest()


def _check_enumerable(tasks: Sequence[Prepared], room: Room) -> None:
    """Before the first question, not at the first long candidate."""
    for one in tasks:
        if one.task.kind != "choice" or one.asking.scoring.method != "exact":
            continue
        for question in one.questions:
            longest = max(len(room.encode(candidate)) for candidate in question.candidates)
            if longest > ENUMERATION_LIMIT:
                raise ValueError(
                    f"question {question.id} of {one.task.name} has a candidate of {longest} tokens, but the exact "
                    f"bound takes at most {ENUMERATION_LIMIT}: use the method likelihood, or leave the task out"
                )


def _keys(one: Prepared, batch: Sequence[Any]) -> list[Key]:
    return [(one.task.name, question.id) for question in batch]
