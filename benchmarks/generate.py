"""Tokens per second of the engine with random weights of a named size, and how they hold up as a text grows.

python benchmarks/generate.py --preset small --out benchmarks/results/generate_cpu2_202611.json
python benchmarks/generate.py --preset illada_8b --contexts 512 4096 --batches 1 32      # on a GPU

Every forward reads all weights and the keys and values in sight at least once: the bytes of these over the measured
bandwidth of the device are the bound that the last column is a fraction of. `growth` writes one long text.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.table import Table

from card import describe_run, print_card, publish, seconds_of, spread
from illada.model.accounting import count_parameters
from illada.model.cache import bytes_per_position
from illada.model.config import ModelConfig, named_size
from illada.model.device import choose_device
from illada.model.transformer import Transformer
from illada.sample.canvas import Canvas
from illada.sample.engine import Engine
from illada.sample.job import Request
from illada.sample.request import SamplingParams

BLOCK = 32


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which size, and what is varied."""

    preset: str = "small"
    contexts: tuple[int, ...] = (512,)
    """Tokens of prompt and text together."""
    batches: tuple[int, ...] = (1, 8)
    reveals: tuple[int, ...] = (1, 4, 8)
    """Tokens per forward."""
    tokens: int = 64
    """That each row writes."""
    caching: str = "delayed,refresh=0"
    growth: tuple[int, int] = (256, 2048)
    """Lengths of the texts whose seconds per token are compared."""
    growth_reveals: int = 4
    repeats: int = 3
    device: str = "auto"
    out: Path | None = None


def main() -> None:
    settings = tyro.cli(Settings)
    device = choose_device(settings.device)
    config = named_size(settings.preset)
    config = replace(config, max_length=max(config.max_length, *settings.contexts, max(settings.growth) + BLOCK))
    model = random_model(config, device)
    bandwidth = measured_bandwidth(device)
    records = [
        measure(model, settings, context=context, batch=batch, reveals=reveals, bandwidth=bandwidth)
        for context in settings.contexts
        for batch in settings.batches
        for reveals in settings.reveals
    ]
    table = Table("context", "batch", "per forward", "tokens/s", "ms per forward", "of the bandwidth bound")
    for record in records:
        cells = (record["context"], record["batch"], record["reveals"])
        speed, forward = record["tokens_per_second"]["median"], record["seconds_per_forward"]["median"]
        table.add_row(*map(str, cells), f"{speed:.1f}", f"{1000 * forward:.2f}", f"{record['bound_fraction']:.2f}")
    print_card(f"{settings.preset}, random weights, {bandwidth / 1e9:.0f} GB/s measured", table)
    growth = grown(model, settings)
    lengths = Table("tokens written", "seconds per token")
    for length, taken in growth["seconds_per_token"].items():
        lengths.add_row(length, f"{taken['median']:.5f}")
    print_card(f"as a text grows: {growth['ratio']:.2f} times", lengths)
    head = describe_run("generate", device, vars(settings))
    publish(head | {"bandwidth": bandwidth, "records": records, "growth": growth}, settings.out)


def random_model(config: ModelConfig, device: torch.device) -> Transformer:
    """In bf16 on a GPU, in fp32 on a CPU."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device("meta"):
        model = Transformer(config)
    model = model.to_empty(device=device).to(dtype).eval()
    generator = torch.Generator(device=device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.02, generator=generator) if parameter.dim() > 1 else parameter.fill_(1.0)
    return model


def measured_bandwidth(device: torch.device) -> float:
    """Bytes per second of a large copy, read and write."""
    source = torch.zeros(1 << 28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return max(2 * source.numel() / seconds_of(lambda: target.copy_(source), device) for _ in range(5))


def measure(
    model: Transformer, settings: Settings, *, context: int, batch: int, reveals: int, bandwidth: float
) -> dict[str, object]:
    """Rows of one kind together; the first time does not count."""
    params = SamplingParams(
        length=settings.tokens,
        block_length=BLOCK,
        steps=-(-settings.tokens // reveals),
        caching=settings.caching,
    )
    canvases = [random_canvas(model.config, context - settings.tokens, settings.tokens, row) for row in range(batch)]
    requests = [Request(canvas=canvas, params=params, grows=True) for canvas in canvases]
    taken = [write(model, requests) for _ in range(settings.repeats + 1)][1:]
    weights = model.embedding.weight
    per_forward = count_parameters(model.config).total * weights.dtype.itemsize
    per_forward += batch * context * bytes_per_position(model.config, weights.dtype)
    forwards = params.steps or settings.tokens
    seconds = spread([each / forwards for each in taken])
    return {
        "context": context,
        "batch": batch,
        "reveals": reveals,
        "tokens_per_second": spread([batch * settings.tokens / each for each in taken]),
        "seconds_per_forward": seconds,
        "bound_fraction": per_forward / bandwidth / seconds["median"],
    }


def grown(model: Transformer, settings: Settings) -> dict[str, object]:
    """Seconds per token of a short and of a long text behind the same prompt, in turns."""
    taken: dict[int, list[float]] = {length: [] for length in settings.growth}
    for turn in range(settings.repeats + 1):
        for length in settings.growth:
            steps = -(-length // settings.growth_reveals)
            params = SamplingParams(length=length, block_length=BLOCK, steps=steps, caching=settings.caching)
            canvas = random_canvas(model.config, 16, length, 0)
            seconds = write(model, [Request(canvas=canvas, params=params, grows=True)]) / length
            taken[length] += [seconds] if turn else []
    short, long = (taken[length] for length in settings.growth)
    return {
        "seconds_per_token": {str(length): spread(values) for length, values in taken.items()},
        "ratio": spread([after / before for before, after in zip(short, long, strict=True)])["median"],
    }


def write(model: Transformer, requests: list[Request]) -> float:
    engine = Engine(model, mask_id=0)
    for request in requests:
        engine.submit(request)
    if model.embedding.weight.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    while engine.busy:
        engine.step()
    if model.embedding.weight.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def random_canvas(config: ModelConfig, prompt: int, holes: int, seed: int) -> Canvas:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, config.vocab_size, (prompt,), generator=generator).tolist()
    return Canvas(tokens=(*ids, *[None] * holes), seed=seed)


if __name__ == "__main__":
    main()
