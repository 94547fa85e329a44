"""The GPUs a run can be planned on, in the makers' figures."""

from dataclasses import dataclass

from illada.track.throughput import PEAK_BF16_FLOPS

USABLE = 0.94
"""Part of the memory that a plan fills: the CUDA context, NCCL and what the allocator cannot use take the rest. Our
choice."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU."""

    name: str
    memory: int
    """Bytes. Makers' gigabytes, counted as 10^9: the driver shows somewhat more."""
    peak_flops: float
    """FLOP/s of dense matrix products in bf16."""
    memory_bandwidth: float
    """Bytes per second."""
    link_bandwidth: float
    """Bytes per second between two GPUs of a machine, both directions together."""
    per_machine: int = 8
    source: str

    @property
    def usable(self) -> int:
        """Bytes that a plan may fill."""
        return int(USABLE * self.memory)


GPUS: dict[str, Gpu] = {
    "a100": Gpu(
        name="A100 80GB SXM",
        memory=80 * 10**9,
        peak_flops=PEAK_BF16_FLOPS["A100"],
        memory_bandwidth=2.039e12,
        link_bandwidth=600e9,
        source="NVIDIA A100 Tensor Core GPU, data sheet",
    ),
    "h100": Gpu(
        name="H100 80GB SXM",
        memory=80 * 10**9,
        peak_flops=PEAK_BF16_FLOPS["H100"],
        memory_bandwidth=3.35e12,
        link_bandwidth=900e9,
        source="NVIDIA H100 Tensor Core GPU, data sheet (half of the figure with sparsity)",
    ),
    "h200": Gpu(
        name="H200 141GB SXM",
        memory=141 * 10**9,
        peak_flops=PEAK_BF16_FLOPS["H200"],
        memory_bandwidth=4.8e12,
        link_bandwidth=900e9,
        source="NVIDIA H200 Tensor Core GPU, data sheet (half of the figure with sparsity)",
    ),
    "b200": Gpu(
        name="B200 180GB",
        memory=180 * 10**9,
        peak_flops=PEAK_BF16_FLOPS["B200"],
        memory_bandwidth=8.0e12,
        link_bandwidth=1800e9,
        source="NVIDIA DGX B200, data sheet (an eighth of the machine; half of the figure with sparsity)",
    ),
}
"""By the name that `illada plan --gpu` takes."""


def named_gpu(name: str) -> Gpu:
    """The GPU called `name`.

    Raises:
        ValueError: no such name; the message lists those there are.
    """
    if name not in GPUS:
        raise ValueError(f"no GPU is called {name!r}; there are: {', '.join(GPUS)}")
    return GPUS[name]
