"""MMLU, MMLU-Redux and MMLU-Pro: questions by subject, with lettered options.

As choices the letters are the candidates; the generative forms let the model write, and read the letter from that.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import tee
from pathlib import Path

from illada.evaluate.task import HubData, Question, Row, Shot, Task, Verdict, WrittenTask
from illada.evaluate.tasks.rows import LETTERS, FileTask, no_shots

_USUAL_SHOTS = 5
_DEV = "mmlu-dev/flan_cot_dev_prompts.json"
_EXAMPLE = re.compile(
    r"(?P<question>.*?)\n(?P<options>\(A\) .*?)\nA: .*The answer is \((?P<letter>[A-D])\)",
    re.DOTALL,
)
_THE_ANSWER_IS = re.compile(r"answer is:?\s*\**\(?([A-J])\b", re.IGNORECASE)
_ANSWER_COLON = re.compile(r"answer:\s*\**\(?([A-J])\b", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z'])([A-J])(?![A-Za-z'])")


@dataclass(frozen=True, kw_only=True)
class MMLU(FileTask):
    """Four options, letters as candidates, examples of the same subject in front; 5 unless said otherwise.

    The examples are those of `mmlu-dev`, without their chains of thought; it has 5 for most subjects, but 4 for
    formal_logic and human_aging and 3 with four options for college_chemistry: there it is these. `only_ok` keeps the
    questions that MMLU-Redux's reviewers found without fault (5,330 of 5,700).
    """

    only_ok: bool = False

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row, numbered before any is left out.

        Raises:
            FileNotFoundError: the examples are not in the folder.
            ValueError: more than 5 examples, none about a subject, or no folder to read them from.
        """
        count = _USUAL_SHOTS if shots is None else shots
        if count > _USUAL_SHOTS:
            raise ValueError(f"there are at most {_USUAL_SHOTS} examples about a subject, but {count} are asked for")
        for number, row in enumerate(rows):
            if self.only_ok and row["error_type"] != "ok":
                continue
            subject = str(row["subject"])
            about = subject.replace("_", " ")
            gold = int(row["answer"])
            yield Question(
                id=str(number),
                ask=_lettered(row["question"], row["choices"]),
                preface=f"The following are multiple choice questions (with answers) about {about}.",
                shots=_examples(folder, subject, count) if count else (),
                candidates=tuple(f" {letter}" for letter in LETTERS[: len(row["choices"])]),
                gold=gold,
                reference=LETTERS[gold],
                group=subject,
            )


@dataclass(frozen=True, kw_only=True)
class WrittenMMLU(MMLU):
    """The same, with the letter written by the model."""

    def judge(self, question: Question, answer: str) -> Verdict:
        """The first letter that stands by itself."""
        return _verdict(first_letter(answer), question.reference)


@dataclass(frozen=True, kw_only=True)
class MMLUPro(FileTask):
    """Up to ten options; the model thinks, and says "The answer is (X)"."""

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            ValueError: examples are asked for.
        """
        no_shots(self.name, shots)
        for row in rows:
            options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, row["options"], strict=False))
            yield Question(
                id=str(row["question_id"]),
                ask=(
                    f"Question about {row['category']}:\n{row['question']}\n{options}\n"
                    'Think step by step, and finish with "The answer is (X)", X being the letter of the right option.'
                ),
                gold=int(row["answer_index"]),
                candidates=(),
                reference=LETTERS[int(row["answer_index"])],
                group=str(row["category"]),
            )

    def judge(self, question: Question, answer: str) -> Verdict:
        """What is said to be the answer last; failing that, the last letter that stands by itself."""
        return _verdict(last_letter(answer), question.reference)


@dataclass(frozen=True, kw_only=True)
class ChoiceMMLUPro(MMLUPro):
    """The same as a choice among the letters, without thinking."""

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            ValueError: examples are asked for.
        """
        kept, asked = tee(rows)
        for row, question in zip(kept, super().questions(asked, folder, shots), strict=True):
            ask = _lettered(row["question"], row["options"])
            candidates = tuple(f" {letter}" for letter in LETTERS[: len(row["options"])])
            yield replace(question, ask=ask, candidates=candidates)


def first_letter(answer: str) -> str | None:
    """The first capital A to J that is no part of a word."""
    match = _LETTER.search(answer)
    return match[1] if match else None


def last_letter(answer: str) -> str | None:
    """The letter that a worked answer ends with; what stands before "</think>" does not count."""
    text = answer.rpartition("</think>")[2]
    for pattern in (_THE_ANSWER_IS, _ANSWER_COLON, _LETTER):
        if found := pattern.findall(text):
            return str(found[-1]).upper()
    return None


def _verdict(letter: str | None, reference: str) -> Verdict:
    return Verdict(correct=letter == reference, extracted=letter)


def _lettered(question: str, options: list[str]) -> str:
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False)]
    return "\n".join([str(question).strip(), *lines, "Answer:"])


def _examples(folder: Path | None, subject: str, count: int) -> tuple[Shot, ...]:
    if folder is None:
        raise ValueError(f"the examples of MMLU are read from {_DEV}: give the folder with --data, or take 0 examples")
    shots = _read_examples(folder / _DEV).get(subject, ())
    if not shots:
        raise ValueError(f"{folder / _DEV} has no example about {subject}: take 0 examples")
    return shots[:count]


@cache
def _read_examples(file: Path) -> dict[str, tuple[Shot, ...]]:
    """By subject, from chain-of-thought prompts: question, options in one line, thoughts, letter."""
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    try:
        prompts = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from None
    return {
        subject: tuple(
            Shot(ask=_lettered(match["question"], _split(match["options"])), answer=f" {match['letter']}")
            for block in re.split(r"\n+Q: ", prompt)[1:]
            if (match := _EXAMPLE.match(block))
        )
        for subject, prompt in prompts.items()
    }


def _split(options: str) -> list[str]:
    """`(A) a (B) b` -> a, b."""
    return [part.strip() for part in re.split(r"\([A-D]\) ", options)[1:]]


_MMLU = (HubData(path="cais/mmlu", name="all"),)
_REDUX = (HubData(path="edinburgh-dawg/mmlu-redux-2.0", name="all"),)
_PRO = (HubData(path="TIGER-Lab/MMLU-Pro"),)
_REDUX_FILE, _PRO_FILE = "mmlu-redux/mmlu_redux.jsonl", "mmlu-pro/test.jsonl.gz"

MMLU_CHOICES: dict[str, Task] = {
    task.name: task
    for task in (
        MMLU(name="mmlu", kind="choice", hub=_MMLU, file="mmlu/test.jsonl"),
        MMLU(name="mmlu_redux", kind="choice", hub=_REDUX, file=_REDUX_FILE, only_ok=True),
        ChoiceMMLUPro(name="mmlu_pro_choice", kind="choice", hub=_PRO, file=_PRO_FILE),
    )
}
"""By name."""

MMLU_WRITTEN: dict[str, WrittenTask] = {
    task.name: task
    for task in (
        WrittenMMLU(name="mmlu_generative", kind="text", hub=_MMLU, file="mmlu/test.jsonl"),
        WrittenMMLU(name="mmlu_redux_generative", kind="text", hub=_REDUX, file=_REDUX_FILE, only_ok=True),
        MMLUPro(name="mmlu_pro", kind="text", hub=_PRO, file=_PRO_FILE),
    )
}
"""By name."""
