"""The held-out bound of a base model in bits per byte, beside what simple compressors need for the same text.

python benchmarks/base_bound.py --text children_valid.jsonl.gz --out benchmarks/results/base_bound_cpu2_202611.json
"""

import bz2
import gzip
import math
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.table import Table

from card import describe_run, print_card, publish
from illada.data.shards import TokenShards, write_shards
from illada.data.sources import parse_source
from illada.evaluate.bound import HeldOut, held_out_bound
from illada.pipeline import load


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which model, and which text it has not seen."""

    text: str
    """A source, as `illada pretrain` takes it."""
    model: str = "tiny"
    rows: int = 256
    samples: int = 8
    """Masks per row."""
    out: Path | None = None


def main() -> None:
    settings = tyro.cli(Settings)
    model = load(settings.model)
    documents = list(parse_source(settings.text).documents())
    data = "\n".join(documents).encode()
    with tempfile.TemporaryDirectory() as scratch:
        write_shards(documents, model.tokenizer, Path(scratch) / "shards")
        shards = TokenShards.open(Path(scratch) / "shards")
        length = model.transformer.config.max_length
        held_out = HeldOut.from_shards(shards, rows=settings.rows, length=length)
        bound = held_out_bound(
            model.transformer, held_out, mask_id=model.tokenizer.specials.mask, samples=settings.samples
        )
        counts = Counter(shards.read(0, len(shards)).tolist())
    total = sum(counts.values())
    unigram = -sum(count * math.log2(count / total) for count in counts.values()) / len(data)
    error = bound.standard_error / bound.nats_per_token * bound.bits_per_byte
    measured = {
        "bound": bound.bits_per_byte,
        "bound_standard_error": error,
        "bound_nats_per_token": bound.nats_per_token,
        "unigram_of_tokens": unigram,
        "gzip": 8 * len(gzip.compress(data, 9)) / len(data),
        "bz2": 8 * len(bz2.compress(data, 9)) / len(data),
    }
    table = Table("what", "bits per byte")
    kind = "exact" if model.transformer.config.attention == "causal" else "upper bound"
    table.add_row(f"{settings.model}: {kind}, rows of {length}", f"{bound.bits_per_byte:.3f} ± {error:.3f}")
    table.add_row("unigram over the tokens of this very text", f"{unigram:.3f}")
    table.add_row("gzip -9, the text as one file", f"{measured['gzip']:.3f}")
    table.add_row("bz2 -9, the text as one file", f"{measured['bz2']:.3f}")
    print_card(f"{len(documents)} documents, {len(data):,} bytes", table)
    shown = {"text": Path(settings.text).name, "model": settings.model}
    head = describe_run("base_bound", torch.device("cpu"), shown | {"rows": settings.rows, "samples": settings.samples})
    publish(head | {"bits_per_byte": measured, "bytes": len(data)}, settings.out)


if __name__ == "__main__":
    main()
