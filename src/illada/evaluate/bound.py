"""The held-out bound: how many nats per token, and bits per byte, a model needs for text it has not seen.

For a masked diffusion model  -log p(x) <= E_{l ~ U{1..L}} [ L/l Σ_{i masked} -log p(x_i | x with l masked) ], the
estimator of LLaDA (arXiv 2502.09992, Eq. 14). The noise is fixed: two models, or one model at two times, are
measured on the same masks. A causal model has the value itself, -log p(x_2 .. x_L | x_1): nothing stands before the
first token of a row to predict it from, so it is not counted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from illada.data.token_files import TokenFiles
from illada.diffusion.corruption import mask_exactly, stratified_counts
from illada.distributed.mesh import Mesh
from illada.losses.cross_entropy import weighted_cross_entropy
from illada.losses.next_token import next_token_nats, predicting
from illada.model.transformer import Transformer
from illada.seeding import Stream
from illada.shapes import Tokens


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Rows to measure on, and what a token of them weighs in bytes of text."""

    tokens: Tokens
    bytes_per_token: float

    @classmethod
    def from_shards(cls, shards: TokenFiles, *, rows: int, length: int) -> "HeldOut":
        """At most `rows` windows of `length` tokens, spread evenly over the text; one shorter row if it is short.

        Raises:
            ValueError: `rows` or `length` is not positive.
        """
        if rows < 1 or length < 1:
            raise ValueError(f"the held-out rows need a positive count and length, got {rows} of {length} tokens")
        length = min(length, len(shards))
        windows = len(shards) // length
        count = min(rows, windows)
        starts = [(number * windows // count) * length for number in range(count)]
        tokens = torch.stack([torch.from_numpy(shards.read(start, length)) for start in starts])
        return cls(tokens=tokens, bytes_per_token=shards.bytes_per_token)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """An upper bound on the negative log-likelihood of held-out text; of a causal model the value itself."""

    nats_per_token: float
    standard_error: float
    """Of `nats_per_token`, from the spread over rows: it holds the choice of rows as well as that of masks. With one
    row it is that of its masks; with one row and one mask, or none, there is nothing to tell it from, and it is 0."""
    bits_per_byte: float
    """nats_per_token / ln 2 / bytes per token; the end-of-text tokens count, their bytes do not."""

    def metrics(self) -> dict[str, float]:
        """The numbers under the names they have in a metrics file."""
        return {
            "held_out/nats_per_token": self.nats_per_token,
            "held_out/standard_error_nats_per_token": self.standard_error,
            "held_out/bits_per_byte": self.bits_per_byte,
        }


@torch.no_grad()  # inference tensors could not be trained on afterwards, and sharded weights are gathered here
def held_out_bound(
    model: Transformer,
    held_out: HeldOut,
    *,
    mask_id: int,
    samples: int = 4,
    seed: int = 0,
    batch_size: int = 16,
    mesh: Mesh | None = None,
) -> Bound:
    """Estimate the bound with `samples` masks per row, their numbers of masked tokens stratified over 1 .. L.

    Of a causal model it is the value, from one forward per row; `mask_id`, `samples` and `seed` are not read. The
    processes of a `mesh` share the forwards; the result is that of one.
    """
    device = model.embedding.weight.device
    if model.config.attention == "causal":

        def exact(part: slice) -> Tensor:
            return _exact_nats(model, held_out.tokens[part].to(device))

        nats = _in_batches(exact, len(held_out.tokens), batch_size, mesh)
        return _bound_of(nats / max(1, held_out.tokens.shape[1] - 1), held_out.bytes_per_token)
    rows, length = held_out.tokens.shape
    order = torch.arange(rows * samples)
    counts = stratified_counts(length, rows * samples, uniform=Stream(seed, "held-out/count").uniform(order[:1], 1)[0])
    # consecutive counts go to different rows: each row meets its samples spread over 1 .. L
    clean = held_out.tokens.repeat(samples, 1)
    uniform = Stream(seed, "held-out/mask").uniform(order, length)
    masked = mask_exactly(torch.ones_like(clean, dtype=torch.bool), counts.flatten(), uniform=uniform)

    def bound(part: slice) -> Tensor:
        return _row_nats(model, clean[part].to(device), masked[part].to(device), mask_id)

    nats_by_sample = _in_batches(bound, len(order), batch_size, mesh).view(samples, rows) / length
    # the masks of one row share its difficulty: the rows are the independent draws, if there are several
    return _bound_of(nats_by_sample.mean(0) if rows > 1 else nats_by_sample.flatten(), held_out.bytes_per_token)


def _bound_of(independent: Tensor, bytes_per_token: float) -> Bound:
    """The mean of independent draws of nats per token."""
    nats = float(independent.mean())
    return Bound(
        nats_per_token=nats,
        standard_error=float(independent.std() / math.sqrt(len(independent))) if len(independent) > 1 else 0.0,
        bits_per_byte=nats / math.log(2) / bytes_per_token,
    )


def _in_batches(nats: Callable[[slice], Tensor], count: int, batch_size: int, mesh: Mesh | None) -> Tensor:
    """`nats` of rows 0 .. count-1, batch by batch; each batch is computed by one process, and known to all."""
    rank, size = (0, 1) if mesh is None else (mesh.data_rank, mesh.data_size)
    batches = [slice(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    result = torch.zeros(count, dtype=torch.float64)
    # all take part in every forward, for each has a part of the weights: who has no batch left repeats the last
    for number in range(rank, -(-len(batches) // size) * size, size):
        values = nats(batches[min(number, len(batches) - 1)])
        if number < len(batches):
            result[batches[number]] = values
    return result if mesh is None else torch.tensor(mesh.total_of_rows(*result.tolist()), dtype=torch.float64)


def _exact_nats(model: Transformer, rows: Tensor) -> Tensor:
    """Σ of the cross-entropies of all tokens but the first of each row, in float64 on the CPU."""
    nats = next_token_nats(model(rows), model.head_weight, tokens=rows, where=predicting(torch.zeros_like(rows)))
    return nats.view(len(rows), -1).double().sum(1).cpu()


def _row_nats(model: Transformer, clean: Tensor, masked: Tensor, mask_id: int) -> Tensor:
    """(L/l) Σ cross-entropy at the l masked positions of each row, in float64 on the CPU."""
    length = clean.shape[1]
    hidden = model(clean.masked_fill(masked, mask_id))
    weights = (length / masked.sum(1, keepdim=True)).expand_as(clean)[masked]
    _, nats = weighted_cross_entropy(hidden[masked], model.head_weight, clean[masked], weights)
    row = torch.arange(len(clean), device=clean.device)[:, None].expand_as(clean)[masked]
    return torch.zeros(len(clean), dtype=torch.float64).index_add_(0, row.cpu(), (nats * weights).double().cpu())
