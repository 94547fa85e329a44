"""FairytaleQA (arXiv 2203.13947) in a comparison: questions on training stories to learn, others to be asked."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from illada.evaluate.run import prepare
from illada.evaluate.suites import Asking
from illada.evaluate.task import Question
from illada.evaluate.tasks.fairytaleqa import FAIRYTALEQA_TASKS

Part = Literal["train", "val"]

TALES = FAIRYTALEQA_TASKS["fairytaleqa"]
"""The benchmark, which judges the answers."""


@lru_cache(maxsize=4)
def tale_questions(folder: str, part: Part) -> tuple[Question, ...]:
    """The questions of a part, each behind its passage; `folder` is laid out as `illada eval --data` has it.

    Raises:
        FileNotFoundError: `folder` has no `fairytaleqa/` with this part.
    """
    task = replace(TALES, file=f"fairytaleqa/qa_{part}.jsonl")
    return prepare(task, Asking(task=task.name, chat=True), data=Path(folder), limit=None).questions


def told_answers(question: Question) -> list[tuple[str, str]]:
    """A question with each of the answers that were given to it."""
    return [(question.ask, answer) for answer in dict.fromkeys(question.reference.split("\n"))]
