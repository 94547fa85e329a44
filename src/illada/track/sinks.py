"""Where metrics go. A sink takes a step number and named numbers; names carry their units."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from illada.durable import write_text


@runtime_checkable
class Sink(Protocol):
    """Somewhere that metrics are written to."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step."""

    def close(self) -> None:
        """Write what is still held back."""


class JsonlFile:
    """One JSON object per line, appended as it comes, in `metrics.jsonl` of the run folder."""

    def __init__(self, path: Path, *, resume_at: int | None = None) -> None:
        """Open for appending; on resume, drop the lines after step `resume_at`: the run will write them again."""
        self._path = path
        if resume_at is not None and path.exists():
            self._keep_until(resume_at)
        self._file = path.open("a", encoding="utf-8")

    def rewind(self, step: int) -> None:
        """Drop the lines after `step`: the run has gone back to it, and will write them again."""
        self._file.close()
        self._keep_until(step)
        self._file = self._path.open("a", encoding="utf-8")

    def _keep_until(self, step: int) -> None:
        kept = [line for line in read_jsonl(self._path) if line["step"] <= step]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line and hand it to the operating system at once."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Make sure that the file is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class TensorBoard:
    """Event files for TensorBoard; needs the extra `track`."""

    def __init__(self, folder: Path) -> None:
        """Open a writer on `folder`.

        Raises:
            ImportError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard output needs an extra: pip install 'illada[track]'") from error
        self._writer = SummaryWriter(str(folder))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One scalar per metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class Broadcast:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass the metrics on to every sink."""
        for sink in self._sinks:
            sink.log(step, metrics)

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()


def read_jsonl(path: Path) -> list[dict[str, int | float]]:
    """The lines of a metrics file; a last line that a killed process left unfinished is passed over."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
