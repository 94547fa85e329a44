"""A training step of illada against a plain reference: tokens per second and peak memory.

    python benchmarks/train_step.py                      the whole comparison, about six minutes on two cores
    python benchmarks/train_step.py --split              packed rows: 30 % of them are two segments
    python benchmarks/train_step.py --compile --split    the same with the library's blocks compiled
    python benchmarks/train_step.py --out benchmarks/results/train_step_cpu2_202611.json

A step is: a corrupted batch (given), forward, loss, backward, clipping, fused AdamW. The two contenders have the same
architecture, weights, batches, clipping and optimizer. The reference is what one writes first: RMSNorm, rotary
positions and SwiGLU spelled out, key and value heads repeated, a dense additive mask [batch, 1, length, length] in
every attention, the LM head at every position, cross-entropy over all of them with weight 1/t where masked and 0
elsewhere. illada is the library: `Transformer` and `diffusion_loss`. Before anything is timed, their losses must
agree to 1e-4 and their gradients to 1e-3.

Speed. All contenders take one step per round, on the same batch, and the order turns round every time, so that a
machine that slows down slows all of them. A round gives one ratio of times; median and quartiles are over rounds.

Memory. Every contender runs alone in a process of its own. "process" is the peak of its resident memory during a
step: interpreter, libraries, weights, gradients, moments, and what the step needs besides. "step" is the latter
alone: the peak, less the resident memory before the step (which holds all but the gradients), less the gradients.
Weights, gradients and moments are the same for any way to compute the step, so "step" is what compares the two ways,
and "process" what a user must have. On CUDA both are counted by the allocator of torch.

The library's chunk size bounds the logits that exist at a time; a smaller one is measured beside it.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
import tyro
from rich.table import Table
from torch import Tensor, nn

from card import describe_run, in_fresh_process, peak_bytes, print_card, publish, seconds_of, spread
from illada.diffusion.corruption import absorb, sample_times, spread_times
from illada.distributed.sharding import compile_blocks
from illada.losses.cross_entropy import CHUNK_LOGITS
from illada.losses.diffusion import diffusion_loss
from illada.model.accounting import count_parameters
from illada.model.config import ModelConfig, named_size
from illada.model.device import choose_device
from illada.model.transformer import Transformer, initialize
from illada.seeding import Stream
from illada.train.optimizer import AdamWConfig, build_optimizer
from illada.train.step import autocast

MASK_ID = 0
SPLIT_PROBABILITY = 0.3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    vocabularies: tuple[int, ...] = (4096, 32_768, 155_136)
    chunk_logits: tuple[int, ...] = (CHUNK_LOGITS, 1 << 21)
    """Logits that exist at a time: the library's default for speed, a smaller number for memory."""
    size: str = "tiny"
    """Named size whose vocabulary is replaced."""
    rows: int = 8
    length: int = 256
    split: bool = False
    """Split rows into two segments."""
    compile: bool = False
    """Compile the library's blocks, as `illada pretrain --compile` does; the reference stays as it is."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast."""
    device: str = "auto"
    threads: int | None = None
    """By default all cores."""
    rounds: int = 7
    """At least so many rounds of timing per vocabulary."""
    min_seconds: float = 25.0
    """At least so long per vocabulary: cheap steps get more rounds."""
    seed: int = 0
    quick: bool = False
    """See that it works, at a size that takes seconds."""
    out: Path | None = None
    """Write the result to this file, too."""

    def model(self, vocab_size: int) -> ModelConfig:
        """The architecture at one vocabulary."""
        if self.quick:
            shape = ModelConfig(hidden_size=32, layers=2, heads=4, kv_heads=2, ffn_size=64, max_length=self.length)
        else:
            shape = named_size(self.size)
        return replace(shape, vocab_size=vocab_size, max_length=max(self.length, shape.max_length))


class CorruptedBatch(NamedTuple):
    """Clean rows, their corruption, and the time of each position; all [batch, length]."""

    clean: Tensor
    noisy: Tensor
    masked: Tensor
    t: Tensor
    segments: Tensor


def corrupted_batch(settings: Settings, vocab_size: int, number: int, *, device: torch.device) -> CorruptedBatch:
    """Batch `number`: random tokens, half of them masked on average."""
    rows, length = settings.rows, settings.length
    example = torch.arange(number * rows, (number + 1) * rows)
    clean = Stream(settings.seed, "tokens").words(example, length) % (vocab_size - 1) + MASK_ID + 1
    split, cut = Stream(settings.seed, "split").uniform(example, 2)[:, :, None].unbind(1)
    behind_the_cut = torch.arange(length) >= 1 + (cut * (length - 1)).long()
    segments = (settings.split & (split < SPLIT_PROBABILITY) & behind_the_cut).long()
    times = sample_times(example, stream=Stream(settings.seed, "time"), segments=2)
    t = spread_times(times, segments)
    uniform = Stream(settings.seed, "mask").uniform(example, length)
    noisy, masked = absorb(clean, t, uniform=uniform, mask_id=MASK_ID)
    tensors = [tensor.to(device) for tensor in (clean, noisy, masked, t, segments)]
    return CorruptedBatch(*tensors)


# The reference. It imports nothing from illada, and its parameters have the same names, so that weights can be copied.


class PlainRMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class PlainAttention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_size = config.heads, config.kv_heads, config.head_size
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_size, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query = self.q_proj(x).view(batch, length, self.heads, self.head_size).transpose(1, 2)
        key = self.k_proj(x).view(batch, length, self.kv_heads, self.head_size).transpose(1, 2)
        value = self.v_proj(x).view(batch, length, self.kv_heads, self.head_size).transpose(1, 2)
        query, key = plain_rotate(query, cos, sin), plain_rotate(key, cos, sin)
        key = key.repeat_interleave(self.heads // self.kv_heads, dim=1)
        value = value.repeat_interleave(self.heads // self.kv_heads, dim=1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class PlainMLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.ffn_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.ffn_size, bias=False)
        self.down_proj = nn.Linear(config.ffn_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        return self.down_proj(gate * torch.sigmoid(gate) * self.up_proj(x))


class PlainBlock(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = PlainRMSNorm(config.hidden_size, config.norm_eps)
        self.attention = PlainAttention(config)
        self.mlp_norm = PlainRMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = PlainMLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, mask)
        return x + self.mlp(self.mlp_norm(x))


class PlainTransformer(nn.Module):
    """The architecture of `Transformer` with a tied head, written naively; gives logits at every position."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size, self.theta = config.head_size, config.rope_theta
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.layers))
        self.norm = PlainRMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, tokens: Tensor, segments: Tensor) -> Tensor:
        x = self.embedding(tokens)
        together = segments[:, None, :, None] == segments[:, None, None, :]
        mask = torch.zeros(together.shape, device=x.device).masked_fill(~together, float("-inf"))
        cos, sin = self.rotations(segments)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return F.linear(self.norm(x), self.embedding.weight)

    def rotations(self, segments: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, [batch, 1, length, head]; positions count from the start of each of the two segments."""
        index = torch.arange(segments.shape[1], device=segments.device)
        cut = (segments == 0).sum(1, keepdim=True)
        positions = torch.where(segments > 0, index - cut, index)
        frequency = self.theta ** -(torch.arange(0, self.head_size, 2, device=segments.device) / self.head_size)
        angles = positions[:, None, :, None] * torch.cat((frequency, frequency))
        return angles.cos(), angles.sin()


def plain_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


def plain_loss(model: nn.Module, batch: CorruptedBatch) -> Tensor:
    logits = model(batch.noisy, batch.segments)
    terms = F.cross_entropy(logits.flatten(0, 1), batch.clean.flatten(), reduction="none")
    weight = torch.where(batch.masked, 1 / batch.t, 0.0)
    return (terms * weight.flatten()).sum() / batch.clean.numel()


# The comparison.


def library_loss(model: Transformer, batch: CorruptedBatch, *, chunk_logits: int) -> Tensor:
    """The loss as `illada.train` computes it."""
    return diffusion_loss(
        model(batch.noisy, batch.segments),
        model.head_weight,
        clean=batch.clean,
        masked=batch.masked,
        weight=1 / batch.t,
        normaliser=batch.clean.numel(),
        chunk_logits=chunk_logits,
    )


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model with its optimizer, and the way to its loss."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Any, CorruptedBatch], Tensor]
    dtype: Literal["fp32", "bf16"]

    def step(self, batch: CorruptedBatch) -> None:
        """One step of training."""
        with autocast(self.dtype, batch.clean.device):
            value = self.loss(self.model, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def contenders_at(vocab_size: int, settings: Settings) -> dict[int | None, Contender]:
    """The reference (None) and the library with each size of chunk, all from the same weights.

    Those of the library share one model, which they train in turns.
    """
    config, device = settings.model(vocab_size), choose_device(settings.device)
    with torch.device("meta"):
        library, plain = Transformer(config), PlainTransformer(config)
    initialize(library.to_empty(device=device), seed=settings.seed)
    plain.to_empty(device=device).load_state_dict(library.state_dict())
    if settings.compile:
        compile_blocks(library)
    ways: dict[int | None, tuple[nn.Module, Callable[..., Tensor]]] = {None: (plain, plain_loss)}
    ways |= {chunk: (library, partial(library_loss, chunk_logits=chunk)) for chunk in settings.chunk_logits}
    optimizers = {model: build_optimizer(model, AdamWConfig()) for model in (library, plain)}
    return {
        chunk: Contender(model=model, optimizer=optimizers[model], loss=loss, dtype=settings.dtype)
        for chunk, (model, loss) in ways.items()
    }


def check_agreement(plain: Contender, library: Contender, batch: CorruptedBatch) -> dict[str, float]:
    """The relative differences of the losses and, at worst, of a parameter's gradient, in fp32; leaves no gradients."""
    losses = []
    for contender in (plain, library):
        value = contender.loss(contender.model, batch)
        value.backward()
        losses.append(float(value.detach()))
    loss_gap = abs(losses[1] - losses[0]) / abs(losses[0])
    expected = dict(plain.model.named_parameters())
    gradient_gap = 0.0
    for name, parameter in library.model.named_parameters():
        reference = expected[name].grad
        gradient_gap = max(gradient_gap, float((parameter.grad - reference).norm() / reference.norm()))
        parameter.grad = expected[name].grad = None
    assert loss_gap < 1e-4, f"the losses differ: {losses[0]} and {losses[1]}"
    assert gradient_gap < 1e-3, f"the gradients differ by {gradient_gap} relative to their norm"
    return {"loss": loss_gap, "gradient": gradient_gap}


def time_rounds(
    contenders: dict[int | None, Contender], settings: Settings, vocab_size: int, *, device: torch.device
) -> dict[int | None, list[float]]:
    """Seconds per contender and round, after one round that is not counted."""
    seconds: dict[int | None, list[float]] = {chunk: [] for chunk in contenders}
    begin, number = time.perf_counter(), 0
    while number <= settings.rounds or time.perf_counter() - begin < settings.min_seconds:
        batch = corrupted_batch(settings, vocab_size, number, device=device)
        for chunk in list(contenders) if number % 2 else reversed(contenders):
            seconds[chunk].append(seconds_of(partial(contenders[chunk].step, batch), device))
        number += 1
    return {chunk: values[1:] for chunk, values in seconds.items()}


def step_memory(settings: Settings, vocab_size: int, chunk_logits: int | None) -> dict[str, int] | None:
    """Bytes at the peak of two steps of one contender; call it in a fresh process."""
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    device = choose_device(settings.device)
    contender = contenders_at(vocab_size, settings)[chunk_logits]  # the other ones' weights go with this line
    # one tiny step: the moments come into being, and the buffers that libraries keep; what is compiled is for a shape
    first = settings if settings.compile else replace(settings, rows=1, length=8)
    contender.step(corrupted_batch(first, vocab_size, 0, device=device))
    batches = [corrupted_batch(settings, vocab_size, number, device=device) for number in (1, 2)]
    measured = peak_bytes(lambda: [contender.step(batch) for batch in batches], device)
    if measured is None:
        return None
    before, peak = measured
    gradients = sum(parameter.numel() * parameter.element_size() for parameter in contender.model.parameters())
    return {"process_bytes": peak, "step_bytes": peak - before - gradients}


def measure_vocabulary(vocab_size: int, settings: Settings) -> dict[str, Any]:
    """Speed and memory of all contenders at one vocabulary."""
    memory = {
        chunk: in_fresh_process(partial(step_memory, settings, vocab_size, chunk))
        for chunk in (None, *settings.chunk_logits)
    }
    contenders, device = contenders_at(vocab_size, settings), choose_device(settings.device)
    two_rows = corrupted_batch(replace(settings, rows=2), vocab_size, 0, device=device)
    differences = check_agreement(contenders[None], contenders[settings.chunk_logits[0]], two_rows)
    seconds = time_rounds(contenders, settings, vocab_size, device=device)
    parameters = count_parameters(settings.model(vocab_size))
    return {
        "vocab_size": vocab_size,
        "parameters": {"total": parameters.total, "non_embedding": parameters.non_embedding},
        "relative_differences": differences,
        "rounds": len(seconds[None]),
        "contenders": [
            {
                "name": "plain" if chunk is None else "illada",
                "chunk_logits": chunk,
                "seconds": spread(values),
                "tokens_per_second": settings.rows * settings.length / spread(values)["median"],
                "times_as_fast": spread([plain / value for plain, value in zip(seconds[None], values, strict=True)]),
                "memory": memory[chunk],
                "memory_part": _parts(memory[chunk], memory[None]),
            }
            for chunk, values in seconds.items()
        ],
    }


def _parts(memory: dict[str, int] | None, plain: dict[str, int] | None) -> dict[str, float] | None:
    if memory is None or plain is None:
        return None
    return {key.removesuffix("_bytes"): memory[key] / max(1, plain[key]) for key in memory}


def result_table(records: list[dict[str, Any]]) -> Table:
    """One line per vocabulary and contender."""
    table = Table("vocabulary", "contender", "logits at a time", "tokens/s", "times as fast [quartiles]")
    for column in ("step MiB", "part", "process MiB", "part"):
        table.add_column(column, justify="right")
    for record in records:
        for line in record["contenders"]:
            ratio, chunk = line["times_as_fast"], line["chunk_logits"]
            cells = [
                f"{record['vocab_size']:,}" if chunk is None else "",
                line["name"],
                "all" if chunk is None else f"{chunk:,}",
                f"{line['tokens_per_second']:,.0f}",
                f"{ratio['median']:.2f} [{ratio['q1']:.2f}, {ratio['q3']:.2f}]",
            ]
            for key in ("step", "process") if line["memory"] else ():
                cells += [f"{line['memory'][key + '_bytes'] / 2**20:,.0f}", f"{line['memory_part'][key]:.3f}"]
            table.add_row(*cells)
        table.add_section()
    return table


def main(settings: Settings) -> None:
    """Measure, show, keep."""
    if settings.quick:
        settings = replace(settings, **QUICK)
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    result = describe_run("train_step", choose_device(settings.device), asdict(settings))
    flags = [f" --{name}" for name in ("compile", "split") if getattr(settings, name)]
    result["command"] = "".join(["python benchmarks/train_step.py", *flags])
    result["records"] = [measure_vocabulary(vocab_size, settings) for vocab_size in settings.vocabularies]
    kind = f"{settings.rows} x {settings.length} tokens{', split rows' if settings.split else ''}, {settings.dtype}"
    print_card(f"One training step, {kind}, {result['device']}", result_table(result["records"]), NOTE)
    publish(result, settings.out)


QUICK = {"vocabularies": (64,), "chunk_logits": (512,), "rows": 2, "length": 16, "rounds": 2, "min_seconds": 0.0}
NOTE = "step: memory beyond weights, gradients and moments; process: all of it; part: of the plain one's"

if __name__ == "__main__":
    main(tyro.cli(Settings))
