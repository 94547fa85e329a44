"""What it takes to load a published model of 8B parameters: memory and time, on a folder of random weights.

python benchmarks/load_8b.py --out benchmarks/results/load_8b_cpu2_202611.json

The folder (15.2 GB of shards in bf16, in the layout of iLLaDA) is made in a temporary place and removed afterwards;
processes that have done nothing else load it and run one forward: as it is, and with its matrices in 8 and 4 bits.
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
import tyro
from rich.table import Table
from torch import Tensor

from card import describe_run, in_fresh_process, peak_bytes, print_card, publish, seconds_of
from illada.checkpoint.huggingface.layouts import LAYOUTS
from illada.checkpoint.huggingface.reader import open_published
from illada.checkpoint.huggingface.writer import save_published
from illada.checkpoint.saved import SavedModel, build, parameter_shapes
from illada.checkpoint.stored import StoredTensor
from illada.data.tokenizer import Tokenizer
from illada.model.config import named_size
from illada.model.quantized import Bits

CPU = torch.device("cpu")
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which size, and how it is cut."""

    size: str = "illada_8b"
    """A named size; its number of layers can be changed."""
    layers: int | None = None
    length: int = 64
    """Tokens of the forward."""
    quantize: tuple[Bits, ...] = get_args(Bits)
    """In how few bits it is loaded too."""
    shard_bytes: int = 2_000_000_000
    scratch: Path | None = None
    """Where the folder is made; by default where temporary files are."""
    threads: int = 2
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RandomTensor(StoredTensor):
    """Weights that are nowhere yet: normal numbers, a block of them over and over."""

    def read(self) -> Tensor:
        """In bf16, of the standard deviation that keeps a deep model's numbers small."""
        count = torch.Size(self.shape).numel()
        block = torch.randn(min(count, 1 << 22), generator=torch.Generator().manual_seed(len(self.name)))
        mean = 1.0 if len(self.shape) == 1 else 0.0
        return (block * 0.02 + mean).bfloat16().repeat(-(-count // len(block)))[:count].reshape(self.shape)


def main() -> None:
    settings = tyro.cli(Settings)
    torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
        folder = Path(scratch) / "model"
        weights = make(settings, folder)
        measured, *few = (
            in_fresh_process(partial(measure, folder, settings.length, settings.threads, bits))
            for bits in (None, *settings.quantize)
        )
    measured |= {"weights_bytes": weights, "over_weights_bytes": measured["peak_bytes"] - weights}
    quantised = dict(zip(settings.quantize, few, strict=True))
    show(measured, quantised)
    shown = {"size": settings.size, "length": settings.length, "shard_bytes": settings.shard_bytes, "dtype": "bf16"}
    if settings.layers is not None:
        shown["layers"] = settings.layers
    publish(describe_run("load_8b", CPU, shown) | {"measured": measured, "quantised": quantised}, settings.out)


def make(settings: Settings, folder: Path) -> int:
    """Write the folder; returns the bytes of its weights."""
    config = named_size(settings.size)
    config = config if settings.layers is None else replace(config, layers=settings.layers)
    tensors = {
        name: RandomTensor(file=folder, name=name, shape=shape, dtype="BF16")
        for name, shape in parameter_shapes(config).items()
    }
    weights = sum(tensor.bytes for tensor in tensors.values())
    place = folder.parent
    if (free := shutil.disk_usage(place).free) < weights + GIB:
        raise SystemExit(
            f"{place} has {free / 1e9:.1f} GB free, and the folder needs {weights / 1e9:.1f}: --scratch DIR"
        )
    saved = SavedModel(folder=folder, model_config=config, tensors=tensors, tokenizer=Tokenizer.train(["a text"], 300))
    save_published(
        folder, saved, layout=LAYOUTS["illada"], dtype=torch.bfloat16, shard_bytes=settings.shard_bytes, files={}
    )
    return weights


def measure(folder: Path, length: int, threads: int, bits: Bits | None) -> dict[str, Any]:
    """Load and run one forward in this process; the peak is that of the whole process, torch itself included."""
    torch.set_num_threads(threads)
    model = None

    def load() -> None:
        nonlocal model
        model = build(open_published(folder), device=CPU, dtype=torch.bfloat16, quantize=bits)

    def forward() -> None:
        assert model is not None
        with torch.inference_mode():
            logits = model.logits(model(torch.arange(length)[None] % 300))
        assert bool(logits.isfinite().all())

    times: dict[str, float] = {}
    peaks = {}
    for name, work in (("load", load), ("forward", forward)):
        measured = peak_bytes(lambda name=name, work=work: times.update({name: seconds_of(work, CPU)}), CPU)
        peaks[name] = measured[1] if measured is not None else 0
    return {
        "load_seconds": times["load"],
        "forward_seconds": times["forward"],
        "load_peak_bytes": peaks["load"],
        "forward_peak_bytes": peaks["forward"],
        "peak_bytes": max(peaks.values()),
    }


def show(measured: dict[str, Any], quantised: dict[str, dict[str, Any]]) -> None:
    table = Table("what", "GiB", "seconds")
    table.add_row("weights in bf16", f"{measured['weights_bytes'] / GIB:.2f}", "")
    for held, one in {"bf16": measured, **quantised}.items():
        for name in ("load", "forward"):
            peak, seconds = one[f"{name}_peak_bytes"] / GIB, one[f"{name}_seconds"]
            table.add_row(f"{held}, {name}: peak of the process", f"{peak:.2f}", f"{seconds:.1f}")
    table.add_row("bf16, peak over the weights", f"{measured['over_weights_bytes'] / GIB:.2f}", "")
    print_card("loading a published folder", table, "the peak holds torch and the interpreter as well")


if __name__ == "__main__":
    main()
