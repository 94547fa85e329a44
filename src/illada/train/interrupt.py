"""Ctrl-C, SIGTERM and SIGUSR1 (what schedulers send ahead of time) ask a run to save and leave.

A second Ctrl-C makes it leave at once.
"""

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


class GracefulStop:
    """While entered, the signals set `requested` instead of ending the process."""

    def __init__(self) -> None:
        self.requested: str | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "GracefulStop":
        """Take over the signals, where this is the main thread; others cannot."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.Signals[name] for name in SIGNALS if hasattr(signal, name)):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
