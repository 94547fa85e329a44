"""HumanEval (arXiv 2107.03374) and MBPP (arXiv 2108.07732): the answer is a program that has to pass tests."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from illada.evaluate.task import CodeTask, HubData, Question, Row, Shot
from illada.evaluate.tasks.rows import FileTask, no_shots

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_FIRST_LINE = re.compile(r"^(?:def|class|import|from|@)\b|^@", re.MULTILINE)
_EVALUATED = range(11, 511)
_SHOT_IDS = (2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class HumanEval(FileTask):
    """A function's head, which the model goes on with, up to the next thing at the left margin."""

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            ValueError: examples are asked for.
        """
        no_shots(self.name, shots)
        for row in rows:
            yield Question(
                id=str(row["task_id"]),
                ask=row["prompt"],
                reference=_check(row),
                stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
            )

    def program(self, question: Question, answer: str) -> str:
        """The head, the answer, and the tests."""
        return f"{question.ask}{answer}\n\n{question.reference}"


@dataclass(frozen=True, kw_only=True)
class HumanEvalChat(FileTask):
    """Asked for as a whole function in a block of code."""

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            ValueError: examples are asked for.
        """
        no_shots(self.name, shots)
        for row in rows:
            ask = f"Complete this Python function, and answer with all of it in one block of code:\n\n{row['prompt']}"
            yield Question(id=str(row["task_id"]), ask=ask, reference=f"{_imports(row['prompt'])}\n{_check(row)}")

    def program(self, question: Question, answer: str) -> str:
        """The last block of code, and the tests; the imports that the question came with hold for both."""
        imports, _, check = question.reference.partition("\n\n")
        return f"{imports}\n\n{extract_code(answer)}\n\n{check}"


@dataclass(frozen=True, kw_only=True)
class MBPP(FileTask):
    """What a function should do and three tests, with 3 solved examples (tasks 2, 3 and 4) unless said otherwise."""

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each of the tasks 11 to 510.

        Raises:
            ValueError: more examples than three, or the data does not hold them.
        """
        count = len(_SHOT_IDS) if shots is None else shots
        if count > len(_SHOT_IDS):
            raise ValueError(f"there are {len(_SHOT_IDS)} examples for {self.name}, but {count} are asked for")
        known: dict[int, Row] = {}
        for row in rows:
            number = int(row["task_id"])
            known[number] = row
            if number not in _EVALUATED:
                continue
            if missing := [shot for shot in _SHOT_IDS[:count] if shot not in known]:
                raise ValueError(
                    f"the data of {self.name} lacks task {missing[0]}, which is an example: take 0 examples"
                )
            yield Question(
                id=str(number),
                ask=_described(row),
                shots=tuple(_solved(known[shot]) for shot in _SHOT_IDS[:count]),
                reference=_asserts(row),
                stop=("[DONE]",),
            )

    def program(self, question: Question, answer: str) -> str:
        """The answer and the tests."""
        return f"{answer}\n\n{question.reference}"


@dataclass(frozen=True, kw_only=True)
class MBPPChat(FileTask):
    """Asked for as a function in a block of code, without examples."""

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each of the tasks 11 to 510.

        Raises:
            ValueError: examples are asked for.
        """
        no_shots(self.name, shots)
        for row in rows:
            if int(row["task_id"]) in _EVALUATED:
                tests = "\n".join(row["test_list"])
                ask = f"{row['text']}\n\nAnswer with a Python function in one block of code. It has to pass:\n\n{tests}"
                yield Question(id=str(row["task_id"]), ask=ask, reference=_asserts(row))

    def program(self, question: Question, answer: str) -> str:
        """The last block of code, and the tests."""
        return f"{extract_code(answer)}\n\n{question.reference}"


def extract_code(answer: str) -> str:
    """The last block of code of an answer; without one, what begins with a definition or an import."""
    text = answer.rpartition("</think>")[2]
    if blocks := _BLOCK.findall(text):
        return str(blocks[-1])
    start = _FIRST_LINE.search(text)
    return text[start.start() :] if start else text


def _check(row: Row) -> str:
    return f"{row['test']}\n\ncheck({row['entry_point']})\n"


def _imports(prompt: str) -> str:
    lines = [line for line in prompt.splitlines() if line.startswith(("import ", "from "))]
    return "\n".join(["# given with the question", *lines]) + "\n"


def _asserts(row: Row) -> str:
    return "\n".join([row.get("test_setup_code") or "", *row["test_list"]]).strip() + "\n"


def _described(row: Row) -> str:
    tests = "\n".join(row["test_list"])
    return (
        f"You are an expert Python programmer, and here is your task: {row['text']} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def _solved(row: Row) -> Shot:
    return Shot(ask=_described(row), answer=f"{row['code']}\n[DONE]")


_HUMANEVAL = (HubData(path="openai/openai_humaneval"),)
_MBPP = tuple(HubData(path="google-research-datasets/mbpp", name="full", split=split) for split in ("prompt", "test"))
_FILES = "humaneval/HumanEval.jsonl.gz", "mbpp/mbpp.jsonl"

CODE_TASKS: dict[str, CodeTask] = {
    task.name: task
    for task in (
        HumanEval(name="humaneval", kind="code", hub=_HUMANEVAL, file=_FILES[0]),
        HumanEvalChat(name="humaneval_chat", kind="code", hub=_HUMANEVAL, file=_FILES[0]),
        MBPP(name="mbpp", kind="code", hub=_MBPP, file=_FILES[1]),
        MBPPChat(name="mbpp_chat", kind="code", hub=_MBPP, file=_FILES[1]),
    )
}
"""By name."""
