"""Where the time of an illada training step goes: matrix products, attention, loss, optimizer, and the rest.

    python benchmarks/profile_step.py --vocab-size 4096
    python benchmarks/profile_step.py --vocab-size 155136 --top 20

A few steps run under torch.profiler, which gives the time that each operator spends in itself, called operators
apart. The operators are then sorted into groups. The profiler costs some time per operator, so that the groups with
many small ones look somewhat larger than they are: compare shares here, and take speed from train_step.py.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from card import describe_run, print_card, publish
from illada.losses.cross_entropy import CHUNK_LOGITS
from illada.model.device import choose_device
from train_step import QUICK, Settings, contenders_at, corrupted_batch

GROUPS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::", "aten::mkldnn"),
    "attention": ("aten::_scaled_dot_product", "aten::_flash_attention", "aten::_efficient_attention"),
    "optimizer and clipping": ("aten::_fused_adamw", "aten::_foreach", "Optimizer.", "aten::linalg_vector_norm"),
    "norms": ("aten::rms_norm", "aten::_fused_rms_norm", "aten::mean", "aten::rsqrt", "aten::pow"),
    "softmax over the vocabulary": ("aten::exp", "aten::amax", "aten::log", "aten::scatter_add", "aten::gather"),
    "silu": ("aten::silu",),
    "embedding": ("aten::embedding",),
    "copies, fills, concatenation": ("aten::copy_", "aten::cat", "aten::fill_", "aten::zero_", "aten::clone"),
    "additions and multiplications": ("aten::add", "aten::mul", "aten::sub", "aten::div", "aten::neg", "aten::sum"),
}
"""Beginnings of operator names; an operator belongs to the first group that has one of its own."""
REST = "everything else"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to profile; the rest as in train_step.py."""

    vocab_size: int = 4096
    steps: int = 5
    top: int = 15
    """Operators to list."""
    chunk_logits: int = CHUNK_LOGITS
    size: str = "tiny"
    rows: int = 8
    length: int = 256
    split: bool = False
    dtype: str = "fp32"
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    quick: bool = False
    out: Path | None = None

    def settings(self) -> Settings:
        """The same in the words of train_step.py."""
        shared = {field.name: getattr(self, field.name) for field in fields(Settings) if hasattr(self, field.name)}
        shared |= {"vocabularies": (self.vocab_size,), "chunk_logits": (self.chunk_logits,)}
        return Settings(**(shared | QUICK if self.quick else shared))


def profile_steps(settings: Settings, *, steps: int) -> list[dict[str, Any]]:
    """Every operator with its calls and milliseconds per step, the most expensive first."""
    device, vocab_size = choose_device(settings.device), settings.vocabularies[0]
    step = contenders_at(vocab_size, settings)[settings.chunk_logits[0]].step
    batches = [corrupted_batch(settings, vocab_size, number, device=device) for number in range(steps + 1)]
    step(batches[0])
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_cuda
    with profile(activities=activities, acc_events=True) as recorded:
        for batch in batches[1:]:
            step(batch)
    operators = [
        {
            "name": event.key,
            "group": group_of(event.key),
            "calls": event.count / steps,
            "milliseconds": (event.self_device_time_total if on_cuda else event.self_cpu_time_total) / 1000 / steps,
        }
        for event in recorded.key_averages()
    ]
    return sorted(operators, key=lambda operator: -operator["milliseconds"])


def group_of(name: str) -> str:
    """The group of an operator."""
    return next((group for group, starts in GROUPS.items() if name.startswith(starts)), REST)


def shares(operators: list[dict[str, Any]]) -> dict[str, float]:
    """The part of the time that each group takes, the largest first."""
    total = sum(operator["milliseconds"] for operator in operators)
    sums = dict.fromkeys([*GROUPS, REST], 0.0)
    for operator in operators:
        sums[operator["group"]] += operator["milliseconds"] / total
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def result_table(operators: list[dict[str, Any]], groups: dict[str, float]) -> Table:
    """The groups, then the operators."""
    table = Table("", "group", "calls / step", "ms / step", "share")
    total = sum(operator["milliseconds"] for operator in operators)
    for group, share in groups.items():
        table.add_row(group, "", "", f"{share * total:.1f}", f"{share:.1%}")
    table.add_section()
    for operator in operators:
        milliseconds = operator["milliseconds"]
        if milliseconds > 0:
            cells = f"{operator['calls']:,.0f}", f"{milliseconds:.1f}", f"{milliseconds / total:.1%}"
            table.add_row(f"  {operator['name']}", operator["group"], *cells)
    return table


def main(options: Options) -> None:
    """Measure, show, keep."""
    settings = options.settings()
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    result = describe_run("profile_step", choose_device(settings.device), asdict(settings))
    operators = profile_steps(settings, steps=options.steps)
    groups = shares(operators)
    result |= {
        "milliseconds_per_step": sum(operator["milliseconds"] for operator in operators),
        "shares": groups,
        "operators": operators[: options.top],
    }
    title = f"A training step at vocabulary {settings.vocabularies[0]:,}, {settings.dtype}, {result['device']}"
    print_card(title, result_table(operators[: options.top], groups))
    publish(result, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
