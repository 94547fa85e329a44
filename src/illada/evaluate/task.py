"""What a benchmark is made of: questions as they are asked, and the verdict on an answer.

    rows of a file or of the hub  ->  Question  ->  prompt text or chat turns  ->  answer  ->  Verdict

Three kinds of task. A choice has candidates, of which the model's scores pick one. A text is written by the model, and
something is extracted from it and compared. Code is written by the model, and a program made of it is run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from illada.data.chat import Message

Kind = Literal["choice", "text", "code"]

Row = Mapping[str, Any]
"""One row of a data set, in the fields of its local file."""

BETWEEN = "\n\n"
"""What parts the examples from one another and from the question, in a prompt without chat turns."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A solved example: what is asked, and the answer, with the blank that leads it."""

    ask: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """One item of a benchmark, ready to be asked.

    Raises:
        ValueError: there are candidates, and none of them is right.
    """

    id: str
    """Unique within its task, and the same whenever it is loaded."""
    ask: str
    """The item itself, up to where the answer begins."""
    preface: str = ""
    """What stands before everything: a description of the task, say."""
    shots: tuple[Shot, ...] = ()
    """Solved examples, asked before it."""
    candidates: tuple[str, ...] = ()
    """A choice's answers as they would stand behind the prompt, leading blank included."""
    gold: int | None = None
    """Which candidate is right."""
    reference: str = ""
    """What a right answer is, or the program that checks it."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    group: str = ""
    """A subject or a level that is counted apart, too."""

    def __post_init__(self) -> None:
        """Refuse a right answer that is none of the candidates, as in test sets whose answers are kept secret."""
        if self.candidates and not (self.gold is not None and 0 <= self.gold < len(self.candidates)):
            raise ValueError(f"the right answer is number {self.gold}, counted from 0, of {len(self.candidates)}")

    @property
    def text(self) -> str:
        """The whole prompt as one text."""
        shots = [f"{shot.ask}{shot.answer}" for shot in self.shots]
        return BETWEEN.join(part for part in (self.preface, *shots, self.ask) if part)

    @property
    def messages(self) -> list[Message]:
        """The whole prompt as the turns of a chat: each example is a question and its answer."""
        turns: list[Message] = []
        for shot in self.shots:
            turns += [Message(role="user", content=shot.ask), Message(role="assistant", content=shot.answer.strip())]
        turns.append(Message(role="user", content=self.ask))
        if self.preface:
            turns[0] = Message(role="user", content=f"{self.preface}{BETWEEN}{turns[0].content}")
        return turns


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of one answer."""

    correct: bool
    extracted: str | None
    """What was compared; None where nothing like an answer was found."""
    note: str = ""
    """Why it is wrong, where that is more than another answer: a program's error, say."""


@dataclass(frozen=True, kw_only=True)
class HubData:
    """Where a task's rows are on the hub of data sets, for the library `datasets`."""

    path: str
    name: str | None = None
    split: str = "test"


@runtime_checkable
class Task(Protocol):
    """A benchmark. Implementations are frozen dataclasses."""

    @property
    def name(self) -> str:
        """Lower case, `gsm8k`."""
        ...

    @property
    def kind(self) -> Kind:
        """How it is asked."""
        ...

    @property
    def hub(self) -> tuple[HubData, ...]:
        """Where its rows are when no folder is given; several parts follow one another."""
        ...

    def local_rows(self, folder: Path) -> Iterator[Row]:
        """The rows in a folder of benchmarks.

        Raises:
            FileNotFoundError: they are not there; the message names the file.
            ValueError: a row that is not what it should be, by file and line.
        """
        ...

    def hub_row(self, row: Row) -> Row:
        """A row of the hub in the fields of the local file."""
        ...

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """The questions of the rows. `shots`: how many examples come before each, None: as is usual for the task.

        Raises:
            ValueError: more examples than there are, or a row that cannot be asked.
        """
        ...


@runtime_checkable
class WrittenTask(Task, Protocol):
    """A task whose answer is a text."""

    def judge(self, question: Question, answer: str) -> Verdict:
        """Extract and compare."""
        ...


@runtime_checkable
class CodeTask(Task, Protocol):
    """A task whose answer is a program."""

    def program(self, question: Question, answer: str) -> str:
        """Python source that ends without an error if and only if the answer is right."""
        ...
