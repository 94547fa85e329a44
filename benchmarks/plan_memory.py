"""The memory that `illada plan` predicts against the peak of real training steps, on small configurations.

    python benchmarks/plan_memory.py
    python benchmarks/plan_memory.py --out benchmarks/results/plan_memory_cpu2_202611.json

Every configuration runs alone in a process of its own, which has imported everything and taken a step of a model of
no size: what is resident then is not counted. Then it builds the model, and takes two steps as `illada.train` does:
the second is the first with moments. Measured is the peak of the resident memory above what was resident before, on a
CUDA device what torch allocated.

A C library holds memory back that was freed, and the peak counts it. So the processes tell it to return every block
above 64 KiB at once: what is measured is what is in use, as CUDA's allocator counts it. The peak without that is
measured beside it ("kept back").
"""

import ctypes
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.table import Table

from card import describe_run, in_fresh_process, peak_bytes, print_card, publish
from illada.data.packing import Batch
from illada.distributed.activation import ActivationCheckpointing, checkpoint_activations
from illada.model.config import ModelConfig, named_size
from illada.model.device import choose_device
from illada.model.transformer import Transformer, initialize
from illada.planning.memory import Work, moments
from illada.train.objective import DiffusionObjective, NoiseConfig
from illada.train.optimizer import AdamWConfig, build_optimizer
from illada.train.step import backward, descend

MASK_ID = 3
_MMAP_THRESHOLD = -3  # of mallopt


@dataclass(frozen=True, kw_only=True)
class Case:
    """One configuration."""

    name: str
    size: str = "tiny"
    vocab_size: int = 4096
    rows: int = 16
    micro_batch: int = 16
    length: int = 256
    checkpointing: ActivationCheckpointing = "none"
    precision: Literal["fp32", "bf16"] = "fp32"

    def model(self) -> ModelConfig:
        """Its shape."""
        return replace(named_size(self.size), vocab_size=self.vocab_size)

    def work(self) -> Work:
        """What `illada plan` is asked."""
        return Work(
            model=self.model(),
            length=self.length,
            micro_batch=self.micro_batch,
            micro_steps=self.rows // self.micro_batch,
            checkpointing=self.checkpointing,
            precision=self.precision,
        )


CASES = (
    Case(name="many activations", rows=32, micro_batch=32),
    Case(name="many parameters, two forwards a step", size="small", vocab_size=16_384, rows=4, micro_batch=2),
    Case(name="a large vocabulary", vocab_size=65_536, rows=8, micro_batch=8),
    Case(name="bf16", rows=32, micro_batch=32, precision="bf16"),
    Case(name="selective checkpointing", rows=32, micro_batch=32, checkpointing="selective"),
    Case(name="full checkpointing", size="illada_tiny", rows=32, micro_batch=32, checkpointing="full"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    device: str = "auto"
    threads: int = 1
    quick: bool = False
    """See that it works: one case that takes seconds."""
    out: Path | None = None
    """Write the result to this file, too."""


def train(case: Case, *, steps: int, device: torch.device) -> None:
    """Build the model and take some steps."""
    config = case.model()
    with torch.device("meta"):
        model = Transformer(config)
    initialize(model.to_empty(device=device), seed=0)
    checkpoint_activations(model, case.checkpointing)
    optimizer = build_optimizer(model, AdamWConfig())
    objective = DiffusionObjective(NoiseConfig(), mask_id=MASK_ID, seed=0)
    for step in range(steps):
        example = torch.arange(step * case.rows, (step + 1) * case.rows)
        batch = Batch(
            tokens=torch.randint(MASK_ID + 1, config.vocab_size, (case.rows, case.length)),
            segments=torch.zeros(case.rows, case.length, dtype=torch.int64),
            example=example,
            epoch=torch.zeros_like(example),
        )
        backward(
            model,
            batch,
            loss=objective,
            normaliser=batch.token_count,
            micro_batch_size=case.micro_batch,
            precision=case.precision,
        )
        descend(model, optimizer, None, rate=1e-3, clip_norm=1.0)


def measure(case: Case, settings: Settings, *, return_at_once: bool) -> int | None:
    """Bytes at the peak of two steps, above what was there before; call it in a fresh process."""
    torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    if return_at_once and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, 1 << 16)
    # what libraries keep once they were used
    train(replace(case, size="tiny", vocab_size=64, rows=1, micro_batch=1, length=8), steps=2, device=device)
    measured = peak_bytes(lambda: train(case, steps=2, device=device), device)
    return None if measured is None else measured[1] - measured[0]


def measure_case(case: Case, settings: Settings) -> dict[str, Any]:
    """Prediction and measurement of one configuration."""
    found = {name: memory.total for name, memory in moments(case.work()).items()}
    moment = max(found, key=found.__getitem__)
    peak = in_fresh_process(partial(measure, case, settings, return_at_once=True))
    if peak is None:
        raise SystemExit("the peak of a process's memory is measured on Linux, or on a CUDA device")
    return {
        **asdict(case),
        "predicted_bytes": found[moment],
        "moment": moment,
        "measured_bytes": peak,
        "difference": found[moment] / peak - 1,
        "measured_with_memory_kept_back_bytes": in_fresh_process(
            partial(measure, case, settings, return_at_once=False)
        ),
    }


def result_table(records: list[dict[str, Any]]) -> Table:
    """One line per configuration."""
    table = Table("configuration", "predicted MiB", "measured MiB", "difference", "kept back MiB", "at its most in the")
    for record in records:
        sizes = [record[f"{key}_bytes"] / 2**20 for key in ("predicted", "measured", "measured_with_memory_kept_back")]
        kept_back = sizes[2] - sizes[1]
        cells = [f"{sizes[0]:,.0f}", f"{sizes[1]:,.0f}", f"{record['difference']:+.1%}", f"{kept_back:,.0f}"]
        table.add_row(record["name"], *cells, record["moment"])
    return table


def main(settings: Settings) -> None:
    """Measure, show, keep."""
    cases = (replace(CASES[0], rows=4, micro_batch=4, length=64),) if settings.quick else CASES
    torch.set_num_threads(settings.threads)
    result = describe_run("plan_memory", choose_device(settings.device), asdict(settings))
    result["records"] = [measure_case(case, settings) for case in cases]
    result["largest_difference"] = max((record["difference"] for record in result["records"]), key=abs)
    print_card(f"Predicted and measured peak memory, {result['device']}", result_table(result["records"]), NOTE)
    publish(result, settings.out)


NOTE = "of two training steps; kept back: what the C library does not return, on top"

if __name__ == "__main__":
    main(tyro.cli(Settings))
