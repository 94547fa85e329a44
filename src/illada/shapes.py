"""The shape vocabulary: every tensor that crosses a function boundary has one of these names.

Legend
    batch     rows that share a forward; a row is one packed sequence
    length    positions of a row
    hidden    width of the residual stream
    vocab     entries of the vocabulary, [MASK] included
    masked    positions of a batch that hold [MASK], flattened row by row
    segment   parts of a row that do not see one another

The names are jaxtyping annotations: plain `Tensor` to a type checker, checked at run time in the tests only.
"""

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Bool, Float, Int
from torch import Tensor

Tokens: TypeAlias = Int[Tensor, "batch length"]
"""Token ids, int64."""

Mask: TypeAlias = Bool[Tensor, "batch length"]
"""True at the positions that are meant: masked, revealed, counted."""

Segments: TypeAlias = Int[Tensor, "batch length"]
"""Which part of its row a position belongs to: 0, 1, 2 ... from left to right, and -1 for padding."""

Probabilities: TypeAlias = Float[Tensor, "batch length"]
"""One number in [0, 1] per position, such as the probability to be masked."""

Hidden: TypeAlias = Float[Tensor, "batch length hidden"]
"""The residual stream after the final norm."""

Logits: TypeAlias = Float[Tensor, "batch length vocab"]
"""Unnormalised log-probabilities about the token AT each position (no shift by one)."""

Denoise: TypeAlias = Callable[[Tensor], Tensor]
"""Tokens -> Logits: all that the mathematics of `illada.diffusion` knows of a model."""
