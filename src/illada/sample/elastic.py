"""Elastic-Cache (arXiv 2510.14973): where attention drifts, all deeper layers are computed anew.

Keys and values change most where attention changes, and more in deep layers than in shallow ones. So every layer keeps
an eye on the piece of text that the queries attend to most. When that token's own attention is no longer what it was in
the forward before, the layers behind compute whole rows, from the hidden states that were kept of the others.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from illada.model.cache import Selection
from illada.model.config import ModelConfig
from illada.sample.caching import Places


class DriftMemory:
    """What is kept of every slot: the hidden states that enter each layer, which token is watched, and how it attended.

    `hidden` is [layers, slots, places, hidden], `watched` [layers, slots], -1 for none, and `attention`
    [layers, slots, places], of which a sum of 0 means that it is not known.
    """

    def __init__(self, config: ModelConfig, *, slots: int, places: int, like: Tensor) -> None:
        shape = (config.layers, slots, places)
        self._config = config
        self.hidden = like.new_zeros((*shape, config.hidden_size))
        self.attention = like.new_zeros(shape, dtype=torch.float32)
        self.watched = torch.full(shape[:2], -1, device=like.device)

    def forget(self, slot: int) -> None:
        """A new row has come."""
        self.attention[:, slot], self.watched[:, slot] = 0, -1

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""
        for tensor in (self.hidden, self.attention, self.watched):
            tensor[:, target] = tensor[:, source]

    def grown(self, *, slots: int, places: int) -> "DriftMemory":
        """A larger one with the same content."""
        larger = DriftMemory(self._config, slots=slots, places=places, like=self.hidden)
        _, had, long = self.attention.shape
        larger.hidden[:, :had, :long] = self.hidden
        larger.attention[:, :had, :long] = self.attention
        larger.watched[:, :had] = self.watched
        return larger


@dataclass(kw_only=True)
class DriftWatch:
    """Follows one forward through the layers."""

    memory: DriftMemory
    gamma: Float[Tensor, " rows"]
    """The least similarity of a watched token's attention to what it was; -inf for rows that do not watch."""
    text: Places
    """Positions that hold a prompt or text."""
    inside: Places
    wanted: Places
    """What is computed in this layer; grows from layer to layer."""
    selection: Selection
    drifted: Bool[Tensor, " rows"]
    """Rows whose attention drifted in a layer before."""
    taking_part: Bool[Tensor, " rows"]
    work: Int[Tensor, " rows"]
    """Positions computed so far, summed over the layers."""

    def enter(self, layer: int, x: Float[Tensor, "1 selected hidden"]) -> Float[Tensor, "1 computed hidden"]:
        """Keep what enters a layer, and take along whole rows where attention has drifted."""
        kept = self.memory.hidden[layer]
        kept[self.selection.slot, self.selection.position] = x[0]
        wider = self.wanted | (self.inside & (self.drifted & self.taking_part)[:, None])
        if bool((wider != self.wanted).any()):
            self.wanted = wider
            self.selection = self.selection.widened(wider)
            x = kept[self.selection.slot, self.selection.position][None]
        self.work += self.wanted.sum(1)
        return x

    def attended(
        self,
        layer: int,
        slots: Int[Tensor, " part"],
        query: Float[Tensor, "part heads queries head"],
        key: Float[Tensor, "part kv_heads keys head"],
        place: Int[Tensor, "part queries"],
        mask: Tensor | None,
    ) -> None:
        """Compare the attention of each row's watched token with what it was, and choose whom to watch next.

        `place` is the position of each query, -1 for padding.
        """
        weights = _weights(query, key, mask)
        memory, keys = self.memory, key.shape[2]
        watched, before = memory.watched[layer, slots], memory.attention[layer, slots, :keys]
        now, found = _row_of(weights, place, watched)
        similarity = F.cosine_similarity(now, before, dim=1)
        known = found & (before.sum(1) > 0)
        self.drifted[slots] |= known & (similarity < self.gamma[slots])
        received = (weights * (place >= 0)[..., None]).sum(1).masked_fill(~self.text[slots, :keys], -1)
        following = received.argmax(1)
        attention, _ = _row_of(weights, place, following)
        memory.watched[layer, slots] = following
        memory.attention[layer, slots] = 0
        memory.attention[layer, slots, :keys] = attention


def _weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Float[Tensor, "part queries keys"]:
    """softmax(q kᵀ / sqrt(head)), averaged over the heads."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = (query @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5
    seen = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    averaged: Tensor = seen.softmax(-1).mean(1)
    return averaged


def _row_of(weights: Tensor, place: Tensor, watched: Tensor) -> tuple[Tensor, Tensor]:
    """The attention of one token per row, 0 where it is not among the queries; and whether it is."""
    hit = place == watched[:, None]
    hit &= (watched >= 0)[:, None]
    return (weights * hit[..., None]).sum(1), hit.any(1)
