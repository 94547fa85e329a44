"""Who sees whom, and the kernel that computes it: one interface over dense rows, packed rows and padding.

A row holds one or more segments that must not see one another; padding is a segment of its own (-1), so that it
reads nothing of the text and the text nothing of it. `AttentionLayout` is worked out once per forward and serves
every layer:

    one segment per row        scaled_dot_product_attention without a mask
    several, on a CPU          scaled_dot_product_attention with a boolean mask [batch, 1, length, length]
    several, on a CUDA device  varlen attention (FlashAttention) on the flattened rows, in fp16 or bf16; the mask
                               otherwise. It reads no pair of positions that do not belong together.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from illada.model.cache import CachedLayer
from illada.shapes import Segments

Heads = Float[Tensor, "batch heads length head"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """The run of positions of every row that is computed here, where several processes divide rows."""

    number: int
    count: int
    gather: Callable[[Tensor], Tensor]
    """States [..., positions here, head] -> those of all positions of the row [..., length, head]."""

    def positions(self, length: int) -> slice:
        """Which positions of a row of `length` they are.

        Raises:
            ValueError: the row does not divide.
        """
        if length % self.count:
            raise ValueError(f"rows of {length} tokens do not divide among {self.count} processes (mesh.context)")
        size = length // self.count
        return slice(self.number * size, (self.number + 1) * size)


@dataclass(frozen=True, kw_only=True)
class AttentionLayout:
    """Which positions of a batch see which; build it with `attention_layout`."""

    causal: bool
    mask: Bool[Tensor, "batch 1 queries length"] | None = None
    """True where query sees key; None where every position of a row sees every other (or every earlier) one."""
    offsets: Int[Tensor, " runs_and_one"] | None = None
    """Where each run of one segment starts in the flattened batch, and its end: the form varlen attention reads."""
    query_offsets: Int[Tensor, " runs_and_one"] | None = None
    """The same for the queries, where only those of a share are here; None: they are as the keys."""
    gather: Callable[[Tensor], Tensor] | None = None
    """Brings the keys and values of whole rows together; None: they are here."""


def segment_positions(segments: Segments) -> Int[Tensor, "batch length"]:
    """Positions that restart at 0 wherever the segment number changes."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts = torch.where(_run_starts(segments), index, 0)
    return index - starts.cummax(dim=1).values


def attention_layout(
    segments: Segments | None, *, causal: bool, dtype: torch.dtype = torch.float32, share: Share | None = None
) -> AttentionLayout:
    """The layout for rows with these segment numbers (None: every row is one segment), computed in `dtype`.

    Give None where all are 0: to find that out here would make every forward wait for the device. With a `share` the
    queries are its positions, and no attention is causal.
    """
    assert not (causal and share is not None), "the rows of a causal model are not divided"
    gather = None if share is None else share.gather
    if segments is None:
        return AttentionLayout(causal=causal, gather=gather)
    own = slice(0, segments.shape[1]) if share is None else share.positions(segments.shape[1])
    if segments.device.type == "cuda" and dtype in (torch.float16, torch.bfloat16):
        offsets = run_offsets(segments)
        queries = None if share is None else offsets_within(own, offsets, length=segments.shape[1])
        return AttentionLayout(causal=causal, offsets=offsets, query_offsets=queries, gather=gather)
    mask = (segments[:, own, None] == segments[:, None, :])[:, None]
    if causal:
        mask = mask & torch.ones(mask.shape[-2:], dtype=torch.bool, device=mask.device).tril()
    return AttentionLayout(causal=causal, mask=mask, gather=gather)


def run_offsets(segments: Segments) -> Int[Tensor, " runs_and_one"]:
    """Where each run of one segment starts in the flattened batch, and its end."""
    starts = _run_starts(segments).flatten().nonzero().flatten()
    end = torch.tensor([segments.numel()], device=segments.device)
    return torch.cat((starts, end)).to(torch.int32)


def offsets_within(own: slice, offsets: Int[Tensor, " runs_and_one"], *, length: int) -> Int[Tensor, " runs_and_one"]:
    """Offsets in the flattened batch as they are when of every row of `length` only the positions `own` stay."""
    size = own.stop - own.start
    row, position = offsets // length, offsets % length
    within: Tensor = row * size + (position - own.start).clamp(0, size)
    return within.to(torch.int32)


def attend(
    query: Heads,
    key: Float[Tensor, "batch kv_heads length head"],
    value: Float[Tensor, "batch kv_heads length head"],
    layout: AttentionLayout | CachedLayer,
) -> Heads:
    """softmax(q kᵀ / sqrt(head)) v over the positions that `layout` lets each query see."""
    if isinstance(layout, CachedLayer):
        return layout.attend(query, key, value)
    if layout.gather is not None:
        key, value = layout.gather(torch.stack((key, value))).unbind()
    if layout.offsets is not None:
        return _attend_packed(query, key, value, layout)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=layout.mask,
        is_causal=layout.causal and layout.mask is None,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _run_starts(segments: Segments) -> Bool[Tensor, "batch length"]:
    first = torch.ones_like(segments[:, :1], dtype=torch.bool)
    return torch.cat((first, segments[:, 1:] != segments[:, :-1]), dim=1)


def _attend_packed(query: Heads, key: Tensor, value: Tensor, layout: AttentionLayout) -> Heads:
    from torch.nn.attention.varlen import varlen_attn  # CUDA only, and new: imported where it is used

    batch, heads, length, _ = query.shape
    grouped = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
    if not grouped and (group := heads // key.shape[1]) > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    flat = [states.transpose(1, 2).flatten(0, 1) for states in (query, key, value)]
    queries = layout.offsets if layout.query_offsets is None else layout.query_offsets
    # the lengths bound every run, so the longest need not be fetched from the device
    window = (-1, 0) if layout.causal else (-1, -1)
    kernel = cast(Callable[..., Tensor], varlen_attn)  # it may also return the log-sum-exp: not asked for here
    mixed = kernel(*flat, queries, layout.offsets, length, key.shape[2], window_size=window, **grouped)
    return mixed.reshape(batch, length, heads, -1).transpose(1, 2)
