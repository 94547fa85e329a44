"""Bring FairytaleQA and GSM8K into the form that `illada pretrain` and `illada sft` read.

python examples/illada_tiny/prepare.py --fairytaleqa instruct/fairytaleqa --gsm8k instruct/gsm8k/train.jsonl --out data

Writes data/stories.jsonl (field text), data/fairytaleqa.jsonl (dialogues: several questions on one section of a story)
and data/gsm8k.jsonl (prompt, response; the answer without the calculator's annotations).
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

_ANNOTATION = re.compile(r"<<.*?>>")
_TURNS = 4


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where the two data sets lie, and where the result goes."""

    fairytaleqa: Path
    """A folder with stories_train.jsonl and qa_train.jsonl."""
    gsm8k: Path
    """train.jsonl: question and answer."""
    out: Path


def main() -> None:
    arguments = tyro.cli(Arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    stories = {row["story"]: row["sections"] for row in _read(arguments.fairytaleqa / "stories_train.jsonl")}
    questions = _read(arguments.fairytaleqa / "qa_train.jsonl")
    _write(arguments.out / "stories.jsonl", ({"text": "\n".join(sections)} for sections in stories.values()))
    _write(arguments.out / "fairytaleqa.jsonl", _dialogues(stories, questions))
    _write(arguments.out / "gsm8k.jsonl", map(_problem, _read(arguments.gsm8k)))


def _dialogues(stories: dict[str, list[str]], questions: Iterable[dict[str, str]]) -> Iterator[dict[str, object]]:
    """One dialogue for every few questions on the same section: the text comes with the first of them."""
    by_section: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in questions:
        by_section[row["story"], row["cor_section"]].append(row)
    for (story, places), rows in by_section.items():
        text = "\n".join(stories[story][int(place) - 1] for place in places.split(","))
        for few in _batched(rows, _TURNS):
            messages = []
            for number, row in enumerate(few):
                question = row["question"] if number else f"{text}\n\n{row['question']}"
                messages.append({"role": "user", "content": question})
                messages.append({"role": "assistant", "content": row["answer1"]})
            yield {"messages": messages}


def _problem(row: dict[str, str]) -> dict[str, str]:
    return {"prompt": row["question"], "response": _ANNOTATION.sub("", row["answer"])}


def _batched(rows: list[dict[str, str]], size: int) -> Iterator[list[dict[str, str]]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _read(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _write(file: Path, rows: Iterable[dict[str, object]]) -> None:
    with file.open("w", encoding="utf-8") as out:
        count = sum(bool(out.write(json.dumps(row, ensure_ascii=False) + "\n")) for row in rows)
    print(f"{file}: {count} rows")


if __name__ == "__main__":
    main()
