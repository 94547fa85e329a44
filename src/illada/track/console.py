"""The progress of a run on a terminal: a bar with loss, speed and time left, or plain lines where there is none."""

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from illada.track.throughput import Throughput


class ProgressBar:
    """A sink that shows the newest metrics; use as a context manager around the run.

    On a terminal one line is redrawn; otherwise a line is printed whenever another tenth of the run is done, and at
    every validation.
    """

    def __init__(self, console: Console, *, title: str, total_steps: int) -> None:
        self._console = console
        self._title = title
        self._total = total_steps
        self._printed_tenths = -1
        self._latest: dict[str, float] = {}
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[summary]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
            transient=False,
        )
        self._task = self._bar.add_task(title, total=total_steps, summary="")

    def __enter__(self) -> "ProgressBar":
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()

    def advance(self, step: int) -> None:
        """Move the bar; cheap enough for every step."""
        self._bar.update(self._task, completed=step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the newest values."""
        self._latest |= metrics
        summary = summarize(self._latest)
        self._bar.update(self._task, completed=step, summary=summary)
        tenth = 10 * step // self._total
        if not self._console.is_terminal and (tenth > self._printed_tenths or "held_out/bits_per_byte" in metrics):
            self._printed_tenths = tenth
            self._console.print(
                f"{self._title} {step}/{self._total} {summary}", markup=False, highlight=False, soft_wrap=True
            )

    def close(self) -> None:
        """Nothing is held back."""


def summarize(metrics: Mapping[str, float]) -> str:
    """The numbers that a person wants beside the bar."""
    parts = []
    if (loss := metrics.get("train/loss_nats_per_token")) is not None:
        parts.append(f"loss {loss:.3f} nats/token")
    if (bits := metrics.get("held_out/bits_per_byte")) is not None:
        parts.append(f"held out {bits:.3f} bits/byte")
    if (speed := metrics.get(Throughput.SPEED)) is not None:
        parts.append(f"{speed:,.0f} tokens/s")
    if (mfu := metrics.get(Throughput.MFU)) is not None:
        parts.append(f"MFU {mfu:.0%}")
    return " · ".join(parts)
