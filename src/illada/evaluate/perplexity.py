"""How many nats a model needs for a text: per token, per word and per byte.

A masked diffusion model gives an upper bound, estimated as in `illada.diffusion.likelihood`; an autoregressive model
the value itself. A text longer than the context is read in windows that slide by `stride`: every token is counted
once, in the window where it has the most text in front of it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from illada.evaluate.scoring import CandidateScore, ScoringParams, score_candidates
from illada.evaluate.shared_forwards import Candidate
from illada.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """What some texts cost, all together."""

    nats: float
    """-log p, or the bound on it, summed over all tokens."""
    standard_error_nats: float
    """Of `nats`, from the random masks; 0 for an autoregressive model."""
    tokens: int
    bytes: int
    texts: int
    windows: int
    exact: bool
    """The value itself, and no bound."""

    @property
    def nats_per_token(self) -> float:
        """Its exponential is the perplexity per token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers."""
        return self.nats / math.log(2) / self.bytes

    def summary(self) -> dict[str, float | int | bool]:
        """Plain data, with what follows from it."""
        error = self.standard_error_nats
        return {
            "nats_per_token": self.nats_per_token,
            "standard_error_nats_per_token": error / self.tokens,
            "perplexity_per_token": math.exp(min(700.0, self.nats_per_token)),
            "bits_per_byte": self.bits_per_byte,
            "standard_error_bits_per_byte": error / math.log(2) / self.bytes,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "texts": self.texts,
            "windows": self.windows,
            "exact": self.exact,
        }


def windows(count: int, *, length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(start, first counted token, end) of the windows over a text of `count` tokens.

    Each holds at most `length` tokens, of which at most `stride` are counted; the counted parts follow one another.

    Raises:
        ValueError: a stride outside 1 .. length.
    """
    if not 1 <= stride <= length:
        raise ValueError(f"the stride must lie between 1 and the {length} tokens of a window, got {stride}")
    begin = 0
    while begin < count:
        # the first window has nothing in front of it and is counted as a whole
        end = min(count, length if begin == 0 else begin + stride)
        yield max(0, end - length), begin, end
        begin = end


def perplexity(
    model: Transformer,
    texts: Sequence[Sequence[int]],
    *,
    bos_id: int,
    mask_id: int,
    byte_count: int,
    samples: int = 16,
    stride: int | None = None,
    seed: int = 0,
    positions_per_forward: int = 8192,
    on_progress: Callable[[int], None] | None = None,
) -> Perplexity:
    """Measure texts of token ids, none of which are special. BOS stands in front of every window.

    Args:
        model: bidirectional, for a bound from `samples` masks per window, or causal, for the value.
        texts: token ids; empty texts cost nothing.
        bos_id: the id of BOS.
        mask_id: the id of [MASK].
        byte_count: UTF-8 bytes of all texts.
        samples: masks per window.
        stride: tokens by which windows slide; None: as long as they are, the fastest and least favourable.
        seed: of the masks.
        positions_per_forward: token positions that share a forward at most.
        on_progress: called with the number of finished windows.

    Raises:
        ValueError: there is no token to measure, or a stride that is none.
    """
    scores = score_windows(
        model,
        texts,
        bos_id=bos_id,
        mask_id=mask_id,
        samples=samples,
        stride=stride,
        seed=seed,
        positions_per_forward=positions_per_forward,
        on_progress=on_progress,
    )
    if not any(scores):
        raise ValueError("the texts hold 0 tokens: there is nothing to measure")
    return _total(scores, byte_count=byte_count, exact=model.config.attention == "causal")


def score_windows(
    model: Transformer,
    texts: Sequence[Sequence[int]],
    *,
    bos_id: int,
    mask_id: int,
    samples: int = 16,
    stride: int | None = None,
    seed: int = 0,
    positions_per_forward: int = 8192,
    on_progress: Callable[[int], None] | None = None,
) -> list[list[CandidateScore]]:
    """What each window of each text costs; those of all texts share forwards. The arguments are `perplexity`'s.

    Raises:
        ValueError: a stride that is none.
    """
    length = model.config.max_length - 1
    cut = [list(windows(len(text), length=length, stride=stride or length)) for text in texts]
    candidates = [
        Candidate(prompt=(bos_id, *text[start:begin]), target=tuple(text[begin:end]))
        for text, its_windows in zip(texts, cut, strict=True)
        for start, begin, end in its_windows
    ]
    params = ScoringParams(
        method="chain" if model.config.attention == "causal" else "likelihood",
        samples=samples,
        end=False,
        seed=seed,
        positions_per_forward=positions_per_forward,
    )
    scores = iter(
        score_candidates(
            model, candidates, params, mask_id=mask_id, byte_counts=[0] * len(candidates), on_progress=on_progress
        )
    )
    return [[next(scores) for _ in its_windows] for its_windows in cut]


def _total(scores: Sequence[Sequence[CandidateScore]], *, byte_count: int, exact: bool) -> Perplexity:
    flat = [score for its_windows in scores for score in its_windows]
    return Perplexity(
        nats=-math.fsum(score.log_probability for score in flat),
        standard_error_nats=math.sqrt(math.fsum(score.standard_error**2 for score in flat)),
        tokens=sum(score.tokens for score in flat),
        bytes=max(1, byte_count),
        texts=sum(bool(its_windows) for its_windows in scores),
        windows=len(flat),
        exact=exact,
    )
