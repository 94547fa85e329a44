"""Reading the local files of a benchmark, and what the tasks that do so have in common."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from illada.data.formats import json_records
from illada.evaluate.task import HubData, Kind, Row

LETTERS = "ABCDEFGHIJ"


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of a JSON file that holds a list, or of JSON lines, compressed or not.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or a row is no object; by file and line.
    """
    if file.suffix == ".json":
        if not file.is_file():
            raise FileNotFoundError(f"no such file: {file}")
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is not valid JSON: {error}") from None
        if not isinstance(values, list):
            raise ValueError(f"{file} should hold a list of rows, not a {type(values).__name__}")
        places: Iterator[tuple[str, Any]] = ((f"{file}, row {row}", value) for row, value in enumerate(values, 1))
    else:
        places = json_records(file)
    for place, value in places:
        if not isinstance(value, dict):
            raise ValueError(f"{place} is no object: {str(value)[:60]!r}")
        yield value


@dataclass(frozen=True, kw_only=True)
class FileTask:
    """What is the same for every task that reads one file; the rest is `questions`, and how answers are judged."""

    name: str
    kind: Kind
    hub: tuple[HubData, ...]
    file: str
    """Under the folder of benchmarks."""

    def local_rows(self, folder: Path) -> Iterator[Row]:
        """The rows of the file.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it cannot be read.
        """
        return read_rows(folder / self.file)

    def hub_row(self, row: Row) -> Row:
        """The hub has the fields of the local file."""
        return row


def no_shots(task: str, shots: int | None) -> None:
    """Refuse examples for a task that has none.

    Raises:
        ValueError: some are asked for.
    """
    if shots:
        raise ValueError(f"{task} has no examples to put in front of a question, but {shots} are asked for")
