"""BIG-Bench Hard (arXiv 2210.09261): 27 tasks, each with three worked examples that come with the data."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from illada.evaluate.task import HubData, Kind, Question, Row, Shot, Verdict, WrittenTask

_THOUGHTS = "Let's think step by step."
_ANSWER = re.compile(r".*the answer is ([^\n]*)", re.IGNORECASE | re.DOTALL)
_OPTION = re.compile(r"\(([A-Z])\)")
_SHOTS = 3

SUBTASKS = [
    "boolean_expressions",
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "dyck_languages",
    "formal_fallacies",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "movie_recommendation",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
    "word_sorting",
]


@dataclass(frozen=True, kw_only=True)
class BBH:
    """All 27 together, their names as groups; a chain of thought, then "So the answer is ...".

    The examples lie in `bbh/cot-prompts` of the folder of benchmarks.
    """

    name: str = "bbh"

    @property
    def kind(self) -> Kind:
        """Written."""
        return "text"

    @property
    def hub(self) -> tuple[HubData, ...]:
        """Each sub-task is a configuration."""
        return tuple(HubData(path="lukaemon/bbh", name=name) for name in SUBTASKS)

    def local_rows(self, folder: Path) -> Iterator[Row]:
        """One question of each task, then the second of each, and so on: any number of them is a fair choice.

        Raises:
            FileNotFoundError: a file is not there.
            ValueError: a file is no JSON.
        """
        rows = {name: _read(folder / "bbh" / "bbh" / f"{name}.json") for name in SUBTASKS}
        for number in range(max(map(len, rows.values()))):
            for name, some in rows.items():
                if number < len(some):
                    yield {"task": name, "number": number, **some[number]}

    def hub_row(self, row: Row) -> Row:
        """As it is."""
        return row

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            FileNotFoundError: the examples are not in the folder.
            ValueError: more examples than the three there are, or some without a folder to read them from.
        """
        count = _SHOTS if shots is None else shots
        if count > _SHOTS:
            raise ValueError(f"there are {_SHOTS} examples for each task of BBH, but {count} are asked for")
        if folder is None:
            raise ValueError("the examples and task names of BBH are read from its files: give the folder with --data")
        for row in rows:
            preface, examples = _prompt(folder / "bbh" / "cot-prompts" / f"{row['task']}.txt")
            yield Question(
                id=f"{row['task']}/{row['number']}",
                ask=f"Q: {row['input']}\nA: {_THOUGHTS}",
                preface=preface,
                shots=examples[:count],
                reference=row["target"],
                stop=("</s>", "Q:", "\n\n"),
                group=row["task"],
            )

    def judge(self, question: Question, answer: str) -> Verdict:
        """What is said to be the answer last, but for case, blanks and a closing dot; of options, the letter."""
        found = _ANSWER.match(answer)
        if found is None:
            return Verdict(correct=False, extracted=None)
        said = found[1].strip().removesuffix(".")
        return Verdict(correct=_same(said, question.reference), extracted=said)


def _same(said: str, reference: str) -> bool:
    if _OPTION.fullmatch(reference):
        options = _OPTION.findall(said) or ([said.strip(" .").upper()] if len(said.strip(" .")) == 1 else [])
        return [f"({letter})" for letter in options[:1]] == [reference]
    return _plain(said) == _plain(reference)


def _plain(text: str) -> str:
    """Words in lower case; between brackets blanks do not matter."""
    words = text.lower().strip().strip(".").strip().replace(",", " ").split()
    joined = " ".join(words)
    return joined.replace(" ", "") if joined and all(mark in "()[]{}<> " for mark in joined) else joined


@cache
def _prompt(file: Path) -> tuple[str, tuple[Shot, ...]]:
    """(description, examples) of a file of worked examples: a warning, a rule, the description, then "Q:", "A:"."""
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    text = file.read_text(encoding="utf-8").partition("-----\n")[2]
    preface, *examples = re.split(r"\n+Q: ", text.strip())
    shots = []
    for example in examples:
        question, _, thoughts = example.partition(f"\nA: {_THOUGHTS}")
        shots.append(Shot(ask=f"Q: {question}\nA: {_THOUGHTS}", answer=thoughts.rstrip()))
    return preface.strip(), tuple(shots)


def _read(file: Path) -> list[Row]:
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    try:
        rows: list[Row] = json.loads(file.read_text(encoding="utf-8"))["examples"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} does not hold a list of examples: {error}") from None
    return rows


BBH_TASKS: dict[str, WrittenTask] = {"bbh": BBH()}
"""By name."""
