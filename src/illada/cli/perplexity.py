"""`illada perplexity FILES`: nats per token and bits per byte of texts."""

import json
import math
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from illada.assets import BASE
from illada.cli.flags import parse
from illada.cli.loading import Loading
from illada.data.sources import parse_source
from illada.evaluate.perplexity import Perplexity, perplexity, windows
from illada.pipeline import LanguageModel
from illada.track.console import ProgressBar


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure how many nats and bits a model needs for texts: a bound for diffusion, exact for a causal model."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Texts, as `illada pretrain` takes them: .txt, .jsonl, .parquet, compressed or not, folders."""
    model: Path = Path(BASE)
    """A run, a checkpoint, tiny or tiny-instruct, a published folder, or an id on the hub."""
    samples: int = 16
    """Masks per window, for the bound."""
    stride: int | None = None
    """Tokens by which windows slide over a text that is longer than the context; by default as long as they are. A
    shorter stride shows more of the text in front, and costs more."""
    limit: int | None = None
    """Texts to measure; all by default."""
    seed: int = 0
    """Of the masks."""
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)
    json: bool = False
    """Print one JSON object."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, before a model is loaded."""
        if not self.files:
            raise ValueError("name at least 1 file to measure")
        for name in ("samples", "stride", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def command(arguments: list[str]) -> int:
    """Read, measure, print."""
    chosen = parse(Arguments, arguments, command="perplexity")
    sources = [parse_source(file) for file in chosen.files]
    model = chosen.loading.load(chosen.model)
    texts = list(islice((text for source in sources for text in source.documents()), chosen.limit))
    measured = measure(model, texts, chosen)
    if chosen.json:
        # JSON has no infinity, which is the error of a single sample
        values = {name: value if math.isfinite(value) else None for name, value in measured.summary().items()}
        print(json.dumps(values))  # noqa: T201  # for programs: no wrapping, no colours
    else:
        Console().print(table(measured))
    return 0


def measure(model: LanguageModel, texts: list[str], chosen: Arguments) -> Perplexity:
    """Measure the texts with a progress bar."""
    ids = model.tokenizer.encode_batch(texts)
    length = model.transformer.config.max_length - 1
    total = sum(len(list(windows(len(text), length=length, stride=chosen.stride or length))) for text in ids)
    specials = model.tokenizer.specials
    with ProgressBar(Console(stderr=True), title="windows", total_steps=max(1, total)) as bar:
        return perplexity(
            model.transformer,
            ids,
            bos_id=specials.bos,
            mask_id=specials.mask,
            byte_count=sum(len(text.encode()) for text in texts),
            samples=chosen.samples,
            stride=chosen.stride,
            seed=chosen.seed,
            on_progress=lambda done: bar.log(done, {}),
        )


def table(measured: Perplexity) -> Table:
    """The numbers, with their errors."""
    shown = Table(box=None, pad_edge=False, show_header=False)
    values = measured.summary()
    bound = "" if measured.exact else "at most "

    def with_error(name: str) -> str:
        error = values[f"standard_error_{name}"]
        return f"{bound}{values[name]:.4f}" + ("" if measured.exact else f" ± {error:.4f}")

    shown.add_row("nats per token", with_error("nats_per_token"))
    shown.add_row("bits per byte", with_error("bits_per_byte"))
    shown.add_row("perplexity per token", f"{bound}{values['perplexity_per_token']:.2f}")
    shown.add_row("texts", f"{measured.texts:,}")
    shown.add_row("tokens", f"{measured.tokens:,} in {measured.windows:,} windows")
    return shown
