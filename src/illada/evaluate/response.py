"""How well a model answers held-out prompts, in nats per token: the bound on -log p(response | prompt).

-log p(r | p) <= E_{l ~ U{1..L}} [ L/l Σ_{i masked} -log p(r_i | p, r with l of its L tokens masked) ]  (LLaDA, arXiv
2502.09992, Eq. 14, with the prompt in sight). The end of text is part of the response. The noise is fixed. A causal
model has the value itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from illada.data.dialogues import Example
from illada.diffusion.corruption import mask_exactly, stratified
from illada.losses.cross_entropy import weighted_cross_entropy
from illada.losses.next_token import next_token_nats, predicting
from illada.model.transformer import Transformer
from illada.seeding import Stream

_PADDING = -1


@dataclass(frozen=True, kw_only=True)
class ResponseBound:
    """An upper bound on the negative log-likelihood of held-out responses; of a causal model the value itself."""

    nats_per_token: float
    """Over all response tokens, ends of text included."""
    tokens: int

    def metrics(self) -> dict[str, float]:
        """The number under the name it has in a metrics file."""
        return {"held_out/response_nats_per_token": self.nats_per_token}


@torch.no_grad()  # inference tensors could not be trained on afterwards, and sharded weights are gathered here
def response_bound(
    model: Transformer,
    examples: Sequence[Example],
    *,
    mask_id: int,
    samples: int = 4,
    seed: int = 0,
    batch_size: int = 16,
) -> ResponseBound:
    """Estimate the bound with `samples` masks per example, their sizes stratified over 1 .. L.

    Of a causal model it is the value, from one forward per example; `mask_id`, `samples` and `seed` are not read.

    Raises:
        ValueError: there is no example, or, for a causal model, one without a prompt.
    """
    if not examples:
        raise ValueError("there are 0 examples to measure on, but at least 1 is needed")
    total = sum(len(example.response) for example in examples)
    if model.config.attention == "causal":
        return ResponseBound(nats_per_token=_exact_nats(model, examples, batch_size) / total, tokens=total)
    numbers = torch.arange(len(examples))
    offsets = Stream(seed, "response/count").uniform(numbers, 1).flatten()
    nats = 0.0
    for start in range(0, len(examples), batch_size):
        part = slice(start, start + batch_size)
        tokens, segments, response = _padded(examples[part])
        lengths = response.sum(1)
        fractions = stratified(samples, uniform=offsets[part])
        for sample in range(samples):
            counts = 1 + (fractions[:, sample] * lengths).long().clamp(max=lengths - 1)
            uniform = Stream(seed, "response/mask").uniform(numbers[part], tokens.shape[1], epoch=sample)
            masked = mask_exactly(response, counts, uniform=uniform)
            nats += _nats(model, tokens, segments, masked, lengths / counts, mask_id)
    return ResponseBound(nats_per_token=nats / samples / total, tokens=total)


def _exact_nats(model: Transformer, examples: Sequence[Example], batch_size: int) -> float:
    """-log p(response | prompt), summed over the examples."""
    if any(not example.prompt for example in examples):
        raise ValueError("a causal model scores what follows a prompt, which has 0 tokens: begin it with BOS")
    device = model.embedding.weight.device
    nats = 0.0
    for start in range(0, len(examples), batch_size):
        tokens, segments, response = (part.to(device) for part in _padded(examples[start : start + batch_size]))
        where = predicting(segments, response)
        per_token = next_token_nats(model(tokens, segments), model.head_weight, tokens=tokens, where=where)
        nats += float(per_token.double().sum())
    return nats


def _padded(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, segments and where the response is, each [examples, longest]."""
    longest = max(len(example.prompt) + len(example.response) for example in examples)
    tokens = torch.zeros(len(examples), longest, dtype=torch.int64)
    segments = torch.full_like(tokens, _PADDING)
    response = torch.zeros_like(tokens, dtype=torch.bool)
    for row, example in enumerate(examples):
        text = [*example.prompt, *example.response]
        tokens[row, : len(text)] = torch.tensor(text)
        segments[row, : len(text)] = 0
        response[row, len(example.prompt) : len(text)] = True
    return tokens, segments, response


def _nats(model: Transformer, tokens: Tensor, segments: Tensor, masked: Tensor, weights: Tensor, mask_id: int) -> float:
    """Σ over the rows of L/l Σ cross-entropy at their l masked positions."""
    device = model.embedding.weight.device
    hidden = model(tokens.masked_fill(masked, mask_id).to(device), segments.to(device))
    where = masked.to(device)
    per_token = weights[:, None].expand_as(masked)[masked].to(device)
    _, nats = weighted_cross_entropy(hidden[where], model.head_weight, tokens.to(device)[where], per_token)
    return float((nats * per_token).double().sum())
