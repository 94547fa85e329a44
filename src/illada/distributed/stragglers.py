"""How long each process computes, apart from waiting for the others: where one is slow, the metrics say which.

All processes take the same time for a step, since each waits for the slowest. So what is measured is the forward pass
of the blocks, from when a block's weights are there until its output is: no communication is in it, but for that of
tensor and context parallelism, whose processes can only be slow together.
"""

import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn

from illada.model.transformer import Transformer


class ForwardClock:
    """The seconds that the blocks of a model spent in their forward pass while gradients were asked for."""

    def __init__(self, model: Transformer, *, device: torch.device) -> None:
        """Start measuring; call it before `distribute`, so that the clock stops before weights are let go of."""
        self._cuda = device.type == "cuda"
        self._began = 0.0
        self._seconds = 0.0
        self._events: list[torch.cuda.Event] = []
        for block in model.blocks:
            block.register_forward_pre_hook(self._begin)
            block.register_forward_hook(self._end)

    def read(self) -> float:
        """The seconds since the last reading; on a GPU it waits for what was started there."""
        if self._events:
            self._events[-1].synchronize()
            pairs = zip(self._events[0::2], self._events[1::2], strict=True)
            self._seconds += sum(begin.elapsed_time(end) for begin, end in pairs) / 1000
            self._events = []
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _begin(self, block: nn.Module, arguments: object) -> None:
        del block, arguments
        if torch.is_grad_enabled():
            self._began = time.perf_counter()
            self._mark()

    def _end(self, block: nn.Module, arguments: object, output: object) -> None:
        del block, arguments, output
        if torch.is_grad_enabled():
            if not self._cuda:
                self._seconds += time.perf_counter() - self._began
            self._mark()

    def _mark(self) -> None:
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            event.record()
            self._events.append(event)


def spread_of_processes(seconds: Sequence[float]) -> dict[str, float]:
    """Metrics of what each process took: the slowest against the median, and which one it is."""
    median = statistics.median(seconds)
    slowest = max(range(len(seconds)), key=seconds.__getitem__)
    return {
        "train/forward_seconds_median": median,
        "train/forward_slowest_over_median": seconds[slowest] / median if median > 0 else 1.0,
        "train/slowest_process": float(slowest),
    }
