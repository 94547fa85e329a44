"""GSM8K (arXiv 2110.14168): word problems whose answer is a number."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from illada.evaluate.task import HubData, Question, Row, Shot, Verdict, WrittenTask
from illada.evaluate.tasks.rows import FileTask, no_shots, read_rows

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
_MARKED = (
    re.compile(r"####\s*\$?(-?[\d,]*\.?\d+)"),
    re.compile(r"\\boxed\{\s*\\?\$?\s*(-?[\d,]*\.?\d+)"),
    re.compile(r"answer is:?\s*\**\s*\\?\$?\s*(-?[\d,]*\.?\d+)", re.IGNORECASE),
)
_ANNOTATION = re.compile(r"<<.*?>>")

EXAMPLES = (
    (
        "A shelf holds 14 jars. Mara puts 9 more on it and then takes 5 away. How many jars are on the shelf?",
        "There are 14 jars at first. With 9 more there are 14 + 9 = 23. Without 5 of them there are 23 - 5 = 18.",
        "18",
    ),
    (
        "Four tents stand in a field, and each sleeps 3 people. How many people can sleep there?",
        "Each of the 4 tents sleeps 3 people. That is 4 * 3 = 12 people.",
        "12",
    ),
    (
        "Pens cost $2 each and a ruler costs $3. What do 6 pens and a ruler cost in dollars?",
        "The pens cost 6 * 2 = 12 dollars. With the ruler it is 12 + 3 = 15 dollars.",
        "15",
    ),
    (
        "Noor has 40 stickers and gives an equal number to each of 8 friends, keeping none. How many does each get?",
        "The 40 stickers go to 8 friends. Each gets 40 / 8 = 5 stickers.",
        "5",
    ),
    (
        "A bus starts with 25 riders. At the first stop 7 get off and 4 get on. How many riders are there then?",
        "After 7 got off there are 25 - 7 = 18 riders. After 4 got on there are 18 + 4 = 22.",
        "22",
    ),
    (
        "Ivo reads 12 pages a day. How many pages are left of a book of 100 pages after a week?",
        "A week has 7 days, so he reads 7 * 12 = 84 pages. There are 100 - 84 = 16 pages left.",
        "16",
    ),
    (
        "Lena is 3 years older than Tom, and Tom is twice as old as Ada, who is 6. How old is Lena?",
        "Tom is 2 * 6 = 12 years old. Lena is 12 + 3 = 15 years old.",
        "15",
    ),
    (
        "A farm sells eggs in boxes of 10. It has 73 eggs. How many eggs are left when all full boxes are sold?",
        "There are 73 / 10 = 7 full boxes with 7 * 10 = 70 eggs. That leaves 73 - 70 = 3 eggs.",
        "3",
    ),
)
"""(problem, steps, answer), written for this project in the manner of chain-of-thought prompts (arXiv 2201.11903)."""


@dataclass(frozen=True, kw_only=True)
class GSM8K(FileTask):
    """Solved examples in front, 8 unless said otherwise; the answer is written after its steps.

    The examples are the first of `gsm8k/train.jsonl` in the folder of benchmarks, if it is there, and `EXAMPLES` if
    not. Those that papers report with are the eight of arXiv 2201.11903, which are not ours to ship.
    """

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            ValueError: more examples than there are.
        """
        count = len(EXAMPLES) if shots is None else shots
        examples = _examples(folder)
        if count > len(examples):
            raise ValueError(f"there are {len(examples)} examples for {self.name}, but {count} are asked for")
        for number, row in enumerate(rows):
            yield Question(
                id=str(number),
                ask=f"Q: {row['question']}\nA:",
                shots=examples[:count],
                reference=reference_of(row["answer"]),
                stop=("Q:", "</s>", "<|im_end|>"),
            )

    def judge(self, question: Question, answer: str) -> Verdict:
        """The number that is marked as the answer; failing that, the last one."""
        return judge_number(question, answer)


@dataclass(frozen=True, kw_only=True)
class GSM8KChat(FileTask):
    """Asked as a person would, without examples; what stands before "</think>" does not count."""

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            ValueError: examples are asked for.
        """
        no_shots(self.name, shots)
        for number, row in enumerate(rows):
            yield Question(
                id=str(number),
                ask=f"{row['question']}\n\nReason step by step, and put your final answer within \\boxed{{}}.",
                reference=reference_of(row["answer"]),
            )

    def judge(self, question: Question, answer: str) -> Verdict:
        """The number that is marked as the answer; failing that, the last one."""
        return judge_number(question, answer.rpartition("</think>")[2])


def judge_number(question: Question, answer: str) -> Verdict:
    """Compare the number that an answer ends with."""
    found = final_number(answer)
    return Verdict(correct=found is not None and found == final_number(question.reference), extracted=found)


def final_number(answer: str) -> str | None:
    """The last number behind "####", in a box or behind "answer is"; failing all, the last number.

    Without commas, a plus or needless zeros: "1,200.50" is 1200.5, and "12.0" is 12.
    """
    for pattern in _MARKED:
        if found := pattern.findall(answer):
            return _plain(found[-1])
    numbers = _NUMBER.findall(answer)
    return _plain(numbers[-1]) if numbers else None


def reference_of(answer: str) -> str:
    """What stands behind "####" in a solution of the data set."""
    return answer.rpartition("####")[2].strip()


def _plain(number: str) -> str:
    whole, _, fraction = number.replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    digits = digits.lstrip("0") or "0"
    sign = "" if digits == "0" and not fraction else sign
    return f"{sign}{digits}.{fraction}" if fraction else f"{sign}{digits}"


def _examples(folder: Path | None) -> tuple[Shot, ...]:
    file = folder / "gsm8k" / "train.jsonl" if folder else None
    if file is None or not file.is_file():
        return tuple(
            Shot(ask=f"Q: {problem}\nA:", answer=f" {steps} The answer is {number}.")
            for problem, steps, number in EXAMPLES
        )
    rows = (row for row, _ in zip(read_rows(file), range(len(EXAMPLES)), strict=False))
    return tuple(Shot(ask=f"Q: {row['question']}\nA:", answer=f" {_worked(row['answer'])}") for row in rows)


def _worked(answer: str) -> str:
    """A solution of the data set in the manner of the examples."""
    steps = _ANNOTATION.sub("", answer).partition("####")[0].strip().replace("\n", " ")
    return f"{steps} The answer is {reference_of(answer)}."


_HUB = (HubData(path="openai/gsm8k", name="main"),)

GSM8K_TASKS: dict[str, WrittenTask] = {
    task.name: task
    for task in (
        GSM8K(name="gsm8k", kind="text", hub=_HUB, file="gsm8k/test.jsonl"),
        GSM8KChat(name="gsm8k_chat", kind="text", hub=_HUB, file="gsm8k/test.jsonl"),
    )
}
"""By name."""
