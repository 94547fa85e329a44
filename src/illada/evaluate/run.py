"""Ask a model the questions of some tasks, judge the answers, and keep every line.

    askings -> questions -> batches -> answers -> verdicts -> lines -> a folder that can be gone on with

A batch has the same questions whenever it is asked, and is kept or asked again as a whole: so an evaluation that was
killed and continued ends in the very same lines.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from illada.data.chat import Message
from illada.evaluate.fitting import Room, fit, tokens_of
from illada.evaluate.sandbox import Limits, Outcome, check_sandbox, run_programs
from illada.evaluate.scoring import CandidateScore, ScoringParams, best
from illada.evaluate.suites import Asking
from illada.evaluate.summary import AnswerLine
from illada.evaluate.task import CodeTask, Question, Task, Verdict, WrittenTask
from illada.sample.request import Completion, SamplingParams

BATCH_SIZE = 64
"""Questions that are asked together."""

ReadHub = Callable[[Task], Iterator[Mapping[str, object]]]


@runtime_checkable
class Model(Protocol):
    """What can be evaluated; `illada.pipeline.LanguageModel` is one."""

    def generate(self, prompt: list[str], params: SamplingParams) -> list[Completion]:
        """Continue each."""
        ...

    def chat(self, conversations: Sequence[Sequence[Message]], params: SamplingParams) -> list[Completion]:
        """Answer each."""
        ...

    def score(
        self, prompt: list[str], candidates: Sequence[Sequence[str]], params: ScoringParams
    ) -> list[list[CandidateScore]]:
        """Score the candidates of each."""
        ...

    def score_chat(
        self, conversations: Sequence[Sequence[Message]], candidates: Sequence[Sequence[str]], params: ScoringParams
    ) -> list[list[CandidateScore]]:
        """Score the answers to each."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A task, how it is asked, and its questions."""

    task: Task
    asking: Asking
    questions: tuple[Question, ...]

    @property
    def batches(self) -> list[tuple[Question, ...]]:
        """The questions in the parts in which they are asked."""
        return [self.questions[start : start + BATCH_SIZE] for start in range(0, len(self.questions), BATCH_SIZE)]


def prepare(
    task: Task, asking: Asking, *, data: Path | None, limit: int | None, read_hub: ReadHub | None = None
) -> Prepared:
    """Load the questions of a task from a folder of benchmarks, or from the hub where none is given.

    Raises:
        FileNotFoundError: the folder has no such task.
        ValueError: a row that is not what it should be, or no question at all.
    """
    if data is not None or not task.hub:
        rows: Iterator[Mapping[str, object]] = task.local_rows(data or Path())
    elif read_hub is None:
        raise ValueError(f"the task {task.name} has no folder of data to read")
    else:
        rows = (task.hub_row(row) for row in read_hub(task))
    counted = _Counted(rows)
    try:
        questions = tuple(islice(task.questions(counted, data, asking.shots), limit))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ValueError) and not counted.handed_out:
            raise
        what = f"it has no field {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"row {counted.number} of {task.name} is not what it should be: {what}") from error
    if not questions:
        raise ValueError(f"the task {task.name} has no question in its data")
    return Prepared(task=task, asking=asking, questions=questions)


class _Counted(Iterator[Mapping[str, object]]):
    """Rows that know how many have been read, so that an error can name the one it is about."""

    def __init__(self, rows: Iterator[Mapping[str, object]]) -> None:
        self._rows = rows
        self.number = 0
        self.handed_out = False
        """A row is being made a question of; False while the next is read, whose errors name their own place."""

    def __next__(self) -> Mapping[str, object]:
        self.handed_out = False
        self.number += 1
        row = next(self._rows)
        self.handed_out = True
        return row


def answer(
    model: Model, prepared: Prepared, questions: Sequence[Question], *, room: Room, limits: Limits | None = None
) -> list[AnswerLine]:
    """Ask some questions together, and judge the answers.

    `limits` are those of programs; None: none is run, and a task of code is refused.

    Raises:
        ValueError: the task's answers are programs, and `limits` is None.
    """
    began = time.perf_counter()
    if prepared.task.kind == "choice":
        lines = _choose(model, prepared, questions, room)
    else:
        lines = _write(model, prepared, questions, room, limits)
    seconds = (time.perf_counter() - began) / len(questions)
    return [replace(line, seconds=seconds) for line in lines]


def check_code(prepared: Sequence[Prepared], *, allowed: bool) -> None:
    """Programs written by a model run only when that was asked for, and where they can be confined.

    Raises:
        ValueError: a task runs programs, and that is not allowed.
        RuntimeError: this machine cannot confine them.
    """
    names = [one.task.name for one in prepared if one.task.kind == "code"]
    if not names:
        return
    if not allowed:
        raise ValueError(
            f"{', '.join(names)}: the answers are programs that the model writes, to be run on this machine; "
            "add --allow-code to run them, each in a sandbox, or leave the task out"
        )
    check_sandbox()


def _choose(model: Model, prepared: Prepared, questions: Sequence[Question], room: Room) -> list[AnswerLine]:
    asking = prepared.asking
    # a candidate cannot be cut, as the answer that is written can
    fitted = [fit(question, room, kept=_longest(question, room), chat=asking.chat) for question in questions]
    scores = _scores(model, asking, [question for question, _ in fitted])
    lines = []
    for (question, note), found in zip(fitted, scores, strict=True):
        chosen = best(found, normalise=asking.normalise)
        gold = cast(int, question.gold)
        lines.append(
            AnswerLine(
                task=prepared.task.name,
                id=question.id,
                group=question.group,
                prompt=question.text,
                output=question.candidates[chosen],
                extracted=question.candidates[chosen].strip(),
                reference=question.candidates[gold].strip(),
                correct=chosen == gold,
                note=note,
                forwards=sum(score.forwards for score in found),
                positions=sum(score.positions for score in found),
                tokens=sum(score.tokens for score in found),
                scores=tuple(score.log_probability for score in found),
                seconds=0.0,
            )
        )
    return lines


def _scores(model: Model, asking: Asking, questions: Sequence[Question]) -> list[list[CandidateScore]]:
    """Of the candidates of each; in a chat an answer has no leading blank."""
    if not asking.chat:
        texts = [question.text for question in questions]
        return model.score(texts, [question.candidates for question in questions], asking.scoring)
    answers = [[candidate.strip() for candidate in question.candidates] for question in questions]
    return model.score_chat([question.messages for question in questions], answers, asking.scoring)


def _longest(question: Question, room: Room) -> int:
    return 2 + max(len(room.encode(candidate)) for candidate in question.candidates)


def _write(
    model: Model, prepared: Prepared, questions: Sequence[Question], room: Room, limits: Limits | None
) -> list[AnswerLine]:
    asking = prepared.asking
    kept = room.reserve(asking.sampling.length)
    fitted = [fit(question, room, kept=kept, chat=asking.chat) for question in questions]
    asking, cut = _within(asking, [question for question, _ in fitted], room)
    completions = _complete(model, asking, [question for question, _ in fitted])
    answers = [completion.text for completion in completions]
    verdicts = _judge(prepared.task, [question for question, _ in fitted], answers, limits)
    return [
        AnswerLine(
            task=prepared.task.name,
            id=question.id,
            group=question.group,
            prompt=question.text,
            output=completion.text,
            extracted=verdict.extracted,
            reference=question.reference,
            correct=verdict.correct,
            note="; ".join(part for part in (verdict.note, note, cut) if part),
            forwards=completion.forwards,
            positions=completion.positions,
            tokens=len(completion.tokens),
            scores=(),
            seconds=0.0,
        )
        for (question, note), completion, verdict in zip(fitted, completions, verdicts, strict=True)
    ]


def _within(asking: Asking, questions: Sequence[Question], room: Room) -> tuple[Asking, str]:
    """The asking with a fixed canvas that fits behind the longest prompt; and what was cut off.

    A canvas that grows needs nothing: it stops where the context ends.
    """
    params = asking.sampling
    left = room.context - max(tokens_of(question, room, chat=asking.chat) for question in questions)
    if params.canvas != "fixed" or params.length <= left:
        return asking, ""
    params = replace(params, length=left, block_length=min(params.block_length, left), steps=None)
    return replace(asking, sampling=params), f"a canvas of {left} tokens: more does not fit the context"


def _complete(model: Model, asking: Asking, questions: Sequence[Question]) -> list[Completion]:
    """One completion each; those with equal stop strings are asked together."""
    completions: dict[int, Completion] = {}
    for stop in dict.fromkeys(question.stop for question in questions):
        numbers = [number for number, question in enumerate(questions) if question.stop == stop]
        params = replace(asking.sampling, stop=(*asking.sampling.stop, *stop))
        if asking.chat:
            found = model.chat([questions[number].messages for number in numbers], params)
        else:
            found = model.generate([questions[number].text for number in numbers], params)
        completions |= dict(zip(numbers, found, strict=True))
    return [completions[number] for number in range(len(questions))]


def _judge(task: Task, questions: Sequence[Question], answers: Sequence[str], limits: Limits | None) -> list[Verdict]:
    if task.kind == "text":
        written = cast(WrittenTask, task)
        return [written.judge(question, text) for question, text in zip(questions, answers, strict=True)]
    if limits is None:
        raise ValueError(f"the answers to {task.name} are programs, and none may be run")
    code = cast(CodeTask, task)
    programs = [code.program(question, text) for question, text in zip(questions, answers, strict=True)]
    return [_verdict(outcome) for outcome in run_programs(programs, limits)]


def _verdict(outcome: Outcome) -> Verdict:
    note = "" if outcome.passed else f"{outcome.reason}: {outcome.detail}".rstrip(": ")
    return Verdict(correct=outcome.passed, extracted=outcome.reason, note=note)
