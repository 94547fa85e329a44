"""Choices by common sense: ARC, OpenBookQA, WinoGrande, HellaSwag, PIQA, each asked as lm-evaluation-harness asks it.

A row is brought into one form, whether it comes from a local file or from the hub: question, options, gold.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from illada.evaluate.task import HubData, Question, Row, Task
from illada.evaluate.tasks.rows import FileTask, no_shots

_ASKED = re.compile(
    r"Please choose the correct answer to the question: (?P<question>.*?)\s*\n\s*\n(?P<options>Answer1:.*?)"
    r"\s*\n\s*\nAnswer format:",
    re.DOTALL,
)
_BLANK = re.compile(
    r"Please choose the correct answer to fill in the blank to complete the given sentence: (?P<sentence>.*?)\s*\n\s*\n"
    r"Option1: (?P<option1>.*?) Option2: (?P<option2>.*?) Answer format:",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class _ChoiceTask(FileTask):
    """Question: ... Answer: ..., and the options' texts as candidates. No examples."""

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            ValueError: examples are asked for.
        """
        no_shots(self.name, shots)
        return (self._question(number, row) for number, row in enumerate(rows))

    def _question(self, number: int, row: Row) -> Question:
        options = tuple(f" {option}" for option in row["options"])
        return Question(
            id=str(number),
            ask=f"Question: {row['question']}\nAnswer:",
            candidates=options,
            gold=row["gold"],
            reference=options[row["gold"]].strip(),
        )


@dataclass(frozen=True, kw_only=True)
class AnsweredQuestions(_ChoiceTask):
    """ARC and OpenBookQA; locally in the one-string form, "Answer1: ... Answer2: ...".

    `bare` leaves "Question:" and "Answer:" away, as lm-evaluation-harness does for OpenBookQA.
    """

    bare: bool = False

    def local_rows(self, folder: Path) -> Iterator[Row]:
        """The rows, split into question and options.

        Raises:
            FileNotFoundError: the file is not there.
            ValueError: a row that does not split, by its number.
        """
        for number, row in enumerate(super().local_rows(folder), start=1):
            match = _ASKED.search(str(row.get("instruction")))
            options = _split_options(match["options"]) if match else []
            gold = str(row.get("answer")).removeprefix("answer")
            if match is None or not gold.isdecimal() or not 0 < int(gold) <= len(options):
                raise ValueError(f"{folder / self.file}, row {number} is no question with numbered answers")
            yield {"question": match["question"], "options": options, "gold": int(gold) - 1}

    def hub_row(self, row: Row) -> Row:
        """`allenai/ai2_arc`: labels are letters or numbers; `allenai/openbookqa` calls its question a stem."""
        labels = list(row["choices"]["label"])
        question = row.get("question", row.get("question_stem"))
        return {"question": question, "options": row["choices"]["text"], "gold": labels.index(row["answerKey"])}

    def _question(self, number: int, row: Row) -> Question:
        asked = super()._question(number, row)
        return Question(**{**vars(asked), "ask": row["question"]}) if self.bare else asked


@dataclass(frozen=True, kw_only=True)
class WinoGrande(FileTask):
    """Which of two words fills a blank.

    The prompt ends at the blank, and the candidates are either word with the rest of the sentence. (The harness keeps
    the rest alone as what is scored, behind two different prompts.)
    """

    def local_rows(self, folder: Path) -> Iterator[Row]:
        """The rows, split into the sentence and its two options.

        Raises:
            FileNotFoundError: the file is not there.
            ValueError: a row that does not split, by its number.
        """
        for number, row in enumerate(super().local_rows(folder), start=1):
            match = _BLANK.search(str(row.get("instruction")))
            if match is None or "_" not in match["sentence"] or row.get("answer") not in ("option1", "option2"):
                raise ValueError(f"{folder / self.file}, row {number} is no sentence with a blank and two options")
            yield {**match.groupdict(), "answer": str(row["answer"])[-1]}

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row. Examples are not offered: they are left out where a suite asks for some."""
        for number, row in enumerate(rows):
            before, after = row["sentence"].split("_", 1)
            gold = int(row["answer"]) - 1
            candidates = tuple(f"{row[name]}{after}" for name in ("option1", "option2"))
            yield Question(
                id=str(number), ask=before, candidates=candidates, gold=gold, reference=candidates[gold].strip()
            )


@dataclass(frozen=True, kw_only=True)
class HellaSwag(_ChoiceTask):
    """How a description goes on; the marks that WikiHow's texts were cut with are taken out."""

    def _question(self, number: int, row: Row) -> Question:
        start = f"{row['ctx_a']} {str(row['ctx_b']).capitalize()}"
        candidates = tuple(f" {_without_marks(ending)}" for ending in row["endings"])
        gold = int(row["label"])
        return Question(
            id=str(number),
            ask=_without_marks(f"{row['activity_label']}: {start}"),
            candidates=candidates,
            gold=gold,
            reference=candidates[gold].strip(),
        )


@dataclass(frozen=True, kw_only=True)
class PIQA(_ChoiceTask):
    """Which of two ways reaches a goal."""

    def _question(self, number: int, row: Row) -> Question:
        options = [row["sol1"], row["sol2"]]
        return super()._question(number, {"question": row["goal"], "options": options, "gold": int(row["label"])})


def _split_options(text: str) -> list[str]:
    """`Answer1: a Answer2: b` -> a, b: numbered from 1 without a gap, so that an option may itself say "Answer1:"."""
    options: list[str] = []
    rest = text.removeprefix("Answer1:")
    while True:
        option, found, rest = rest.partition(f" Answer{len(options) + 2}:")
        options.append(option.strip())
        if not found:
            return options


def _without_marks(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ").strip()


def _arc(name: str, folder: str) -> AnsweredQuestions:
    hub = HubData(path="allenai/ai2_arc", name=folder)
    return AnsweredQuestions(name=name, kind="choice", hub=(hub,), file=f"commonsense/{folder}/test.json")


CHOICE_TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _arc("arc_challenge", "ARC-Challenge"),
        _arc("arc_easy", "ARC-Easy"),
        AnsweredQuestions(
            name="openbookqa",
            kind="choice",
            hub=(HubData(path="allenai/openbookqa", name="main"),),
            file="commonsense/openbookqa/test.json",
            bare=True,
        ),
        WinoGrande(
            name="winogrande",
            kind="choice",
            hub=(HubData(path="allenai/winogrande", name="winogrande_xl", split="validation"),),
            file="commonsense/winogrande/test.json",
        ),
        HellaSwag(
            name="hellaswag",
            kind="choice",
            hub=(HubData(path="Rowan/hellaswag", split="validation"),),
            file="hellaswag/validation.jsonl",
        ),
        PIQA(
            name="piqa",
            kind="choice",
            hub=(HubData(path="ybisk/piqa", split="validation"),),
            file="piqa/validation.jsonl",
        ),
    )
}
"""By name."""
