"""The folder of an evaluation: what was asked and how, one line per answer, and what came of it.

    settings.json    the command, the settings, the versions, the checkpoint's fingerprint; written first
    answers.jsonl    a line per example, appended batch by batch
    results.json     the scores; written last: where it is, all is there
    report.html      the same for people

An evaluation that was stopped anywhere goes on in its folder. Only whole batches count: lines of a batch that was cut
off are dropped and asked again, so that no example is lost or counted twice.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from illada.durable import write_text
from illada.evaluate.summary import AnswerLine

SETTINGS, ANSWERS, RESULTS, REPORT = "settings.json", "answers.jsonl", "results.json", "report.html"

Key = tuple[str, str]
"""(task, id) of a question."""


@dataclass(kw_only=True)
class ResultFolder:
    """An evaluation's folder, open to go on; `ResultFolder.open` makes one."""

    path: Path
    lines: dict[Key, AnswerLine] = field(default_factory=dict)
    """What has been answered, in the order of asking."""

    @classmethod
    def open(cls, path: Path, settings: dict[str, Any], batches: Sequence[Sequence[Key]]) -> "ResultFolder":
        """Begin, or go on where an evaluation with the same settings stopped.

        Args:
            path: the folder; it need not be there.
            settings: plain data. What is under "run" (the command, the time) may differ from that of the folder.
            batches: the questions in the parts in which they are asked.

        Raises:
            FileExistsError: the folder holds an evaluation with other settings (the message names the first), or is a
                file.
            ValueError: the folder's settings or lines cannot be read.
        """
        if path.exists() and not path.is_dir():
            raise FileExistsError(f"{path} is a file, but the answers need a folder: choose another name")
        path.mkdir(parents=True, exist_ok=True)
        if (path / SETTINGS).exists():
            _refuse_other_settings(path, settings)
        elif (path / ANSWERS).exists():
            raise FileExistsError(f"{path} has answers without settings: choose another folder")
        else:
            write_text(path / SETTINGS, json.dumps(settings, indent=2) + "\n")
        folder = cls(path=path)
        folder._keep_whole(batches)
        return folder

    def has(self, batch: Iterable[Key]) -> bool:
        """Whether these questions have been answered."""
        return all(key in self.lines for key in batch)

    def append(self, lines: Sequence[AnswerLine]) -> None:
        """Put the answers of a batch on the disk."""
        with (self.path / ANSWERS).open("a", encoding="utf-8") as file:
            file.write("".join(_json(line) for line in lines))
            file.flush()
            os.fsync(file.fileno())
        self.lines |= {(line.task, line.id): line for line in lines}

    def finish(self, results: dict[str, Any], page: str) -> None:
        """Write the page, and then the scores."""
        write_text(self.path / REPORT, page)
        write_text(self.path / RESULTS, json.dumps(results, indent=2) + "\n")

    def _keep_whole(self, batches: Sequence[Sequence[Key]]) -> None:
        """Read what is there, and leave in the file what belongs to whole batches, in the order of asking."""
        file = self.path / ANSWERS
        if not file.exists():
            return
        found = {(line.task, line.id): line for line in read_answers(file, unfinished=True)}
        for batch in batches:
            if all(key in found for key in batch):
                self.lines |= {key: found[key] for key in batch}
        text = "".join(map(_json, self.lines.values()))
        if text.encode() != file.read_bytes():
            write_text(file, text)


def read_answers(file: Path, *, unfinished: bool = False) -> list[AnswerLine]:
    """The lines of a file of answers. `unfinished`: the last may have been cut off, and is left out then.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line that is none, by its number.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there: name the folder of an evaluation (illada eval --out FOLDER)")
    texts = file.read_bytes().split(b"\n")
    # what stands behind the last line break was cut off while it was written
    last = texts.pop()
    if last and not unfinished:
        raise ValueError(f"{file}: the last line is cut off; run the evaluation again to finish it")
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(AnswerLine.from_row(json.loads(text)))
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from None
    return lines


def _json(line: AnswerLine) -> str:
    return json.dumps(line.row(), ensure_ascii=False) + "\n"


def _refuse_other_settings(path: Path, settings: dict[str, Any]) -> None:
    try:
        there = dict(json.loads((path / SETTINGS).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path / SETTINGS} cannot be read ({error}): choose another folder, or remove it") from None
    wanted = json.loads(json.dumps(settings))
    for name in sorted((there.keys() | wanted.keys()) - {"run"}):
        if there.get(name) != wanted.get(name):
            raise FileExistsError(
                f"{path} holds an evaluation with another {name}: choose another folder, or remove that one "
                f"(there: {_short(there.get(name))}; now: {_short(wanted.get(name))})"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
