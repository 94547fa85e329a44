"""How fast a run is: tokens per second, the fraction of the devices' peak that its matrix products use, memory."""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch

PEAK_BF16_FLOPS: dict[str, float] = {
    # dense bf16, from the makers' data sheets
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}


def peak_flops(device: torch.device) -> float | None:
    """The device's dense bf16 peak in FLOP/s, or None where we do not know it (every CPU)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for key, flops in PEAK_BF16_FLOPS.items() if key in name), None)


_STATUS = Path("/proc/self/status")
"""On Linux: what getrusage says there is at least what the parent held when it started this process."""


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held on its device since it began: on a CPU, resident in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Throughput:
    """Tokens per second of all devices together, and what part of the time went by waiting for data."""

    SPEED: ClassVar[str] = "train/tokens_per_second"
    MFU: ClassVar[str] = "train/mfu"
    WAIT: ClassVar[str] = "train/data_wait_fraction"

    def __init__(self, *, flops_per_token: float, device: torch.device, devices: int = 1) -> None:
        self._flops_per_token = flops_per_token
        peak = peak_flops(device)
        self._peak = None if peak is None else peak * devices
        self.restart(0)

    def restart(self, tokens: int) -> None:
        """Measure from now on, with `tokens` done: after a pause that was not training."""
        self._tokens = tokens
        self._waited = 0.0
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While entered, time counts as waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def read(self, tokens: int) -> dict[str, float]:
        """Metrics since the last reading, with `tokens` done by now."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        speed = (tokens - self._tokens) / seconds
        metrics = {self.SPEED: speed, self.WAIT: self._waited / seconds}
        if self._peak is not None:
            metrics[self.MFU] = speed * self._flops_per_token / self._peak
        self.restart(tokens)
        return metrics
