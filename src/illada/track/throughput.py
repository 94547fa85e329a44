"""How fast a run is: tokens per second, and the fraction of the device's peak that its matrix products use."""

import time
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


class Throughput:
    """Tokens per second between two readings of the clock."""

    SPEED: ClassVar[str] = "train/tokens_per_second"
    MFU: ClassVar[str] = "train/mfu"

    def __init__(self, *, flops_per_token: float, device: torch.device) -> None:
        self._flops_per_token = flops_per_token
        self._peak = peak_flops(device)
        self.restart(0)

    def restart(self, tokens: int) -> None:
        """Measure from now on, with `tokens` done: after a pause that was not training."""
        self._tokens = tokens
        self._since = time.perf_counter()

    def read(self, tokens: int) -> dict[str, float]:
        """Metrics since the last reading, with `tokens` done by now."""
        speed = (tokens - self._tokens) / max(time.perf_counter() - self._since, 1e-9)
        self.restart(tokens)
        metrics = {self.SPEED: speed}
        if self._peak is not None:
            metrics[self.MFU] = speed * self._flops_per_token / self._peak
        return metrics
