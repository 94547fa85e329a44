"""How probable is an answer, given its prompt? Four rules, of which each scores one candidate.

- confidence: the paper's rule (iLLaDA, arXiv 2606.25331, Eq. 2). From L masks, reveal again and again the answer's own
  token that is most probable where it stands: k = 1 .. L,  i_k = argmax_{i masked} p(y^i | prompt, y_{k-1}),
  score = Σ_k log p(y^{i_k} | prompt, y_{k-1}). L forwards; no likelihood, but one number that ranks well.
- likelihood: LLaDA's estimate (arXiv 2502.09992, Eq. 14) of a bound on log p(answer | prompt), from random masks.
- exact: that bound itself, from every mask; for answers of at most 16 tokens.
- chain: left to right, Σ_i log p(y^i | prompt, y^{<i}, the rest masked). For a causal model, where it is the
  log-likelihood itself, one forward.

All are in nats and sums over the answer's tokens. The softmax runs over the whole vocabulary, [MASK] included.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch

from illada.diffusion.likelihood import ENUMERATION_LIMIT, Estimate, all_masks, masks_by_count
from illada.evaluate.shared_forwards import Candidate, Forwards, Look, Rule, Seen
from illada.model.transformer import Transformer
from illada.seeding import Stream

Method = Literal["confidence", "likelihood", "exact", "chain"]
Normalisation = Literal["none", "tokens", "bytes"]


@dataclass(frozen=True, kw_only=True)
class ScoringParams:
    """How candidates are scored.

    Raises:
        ValueError: a value outside its range.
    """

    method: Method = "confidence"
    samples: int = 128
    """Of the likelihood. An answer of one token needs and takes a single one."""
    end: bool = True
    """Put one end of text behind the candidate, as the authors do: seen, never masked, never scored."""
    guidance: float = 0.0
    """w of classifier-free guidance; the unconditional forward sees the prompt masked."""
    greedy: bool = False
    """Also tell whether the model, revealing its own choices surest first, would have written the candidate: up to
    L - 1 forwards more, and none where the first choice is another."""
    seed: int = 0
    """Of the random masks. They depend on it and on the tokens of prompt and candidate alone."""
    positions_per_forward: int = 1024
    """Token positions that share a forward at most. More only helps where a model is small for its device; rows in a
    forward then differ more in length, and what is computed for one is out of the cache of a CPU before it is used."""

    def __post_init__(self) -> None:
        """Check every range."""
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}; got {self.method!r}")
        for name in ("samples", "positions_per_forward"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance must be 0 or more, got {self.guidance}")


@dataclass(frozen=True, kw_only=True)
class CandidateScore:
    """What one candidate got."""

    log_probability: float
    """The score of the method: nats, summed over the candidate's tokens."""
    standard_error: float
    """Of the method likelihood, in nats; infinite from a single sample. 0 where nothing is random."""
    tokens: int
    bytes: int
    """Of the candidate's text in UTF-8."""
    order: tuple[int, ...]
    """Positions of the candidate in the order of their reveal: confidence and chain; empty otherwise."""
    terms: tuple[float, ...]
    """The log-probability that each reveal added, in that order."""
    greedy: bool | None
    """The model would have written it by itself; None where that was not asked."""
    forwards: int
    """Rows of the model that it took; shared rows count for everyone who needed them."""
    positions: int
    """Token positions of these rows."""

    def normalised(self, by: Normalisation) -> float:
        """The score per token or byte of the candidate, or as it is."""
        return self.log_probability / {"none": 1, "tokens": self.tokens, "bytes": max(1, self.bytes)}[by]


def best(scores: Sequence[CandidateScore], *, normalise: Normalisation = "none") -> int:
    """The number of the candidate with the highest score; of equal ones, the first.

    Raises:
        ValueError: there is none.
    """
    if not scores:
        raise ValueError("there are 0 candidates to choose from")
    return max(range(len(scores)), key=lambda number: scores[number].normalised(normalise))


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """What a rule returns."""

    estimate: Estimate
    order: tuple[int, ...] = ()
    terms: tuple[float, ...] = ()
    greedy: bool | None = None


def score_candidates(
    model: Transformer,
    candidates: Sequence[Candidate],
    params: ScoringParams,
    *,
    mask_id: int,
    byte_counts: Sequence[int],
    on_progress: Callable[[int], None] | None = None,
) -> list[CandidateScore]:
    """Score each candidate; rows of all share forwards, and what one gets does not depend on the others.

    Raises:
        ValueError: a candidate that is empty or too long for the context or for the method, or a method that the
            model's attention does not allow.
    """
    causal = model.config.attention == "causal"
    if causal and (params.method != "chain" or params.guidance):
        raise ValueError("a causal model gives exact likelihoods: score with method chain and without guidance")
    if params.method == "exact" and (longest := max((len(one.target) for one in candidates), default=0)) > (
        ENUMERATION_LIMIT
    ):
        raise ValueError(
            f"the exact bound takes at most {ENUMERATION_LIMIT} tokens, but a candidate has {longest}: "
            "use the method likelihood"
        )
    forwards = Forwards(model=model, mask_id=mask_id, guidance=params.guidance, positions=params.positions_per_forward)
    outcomes = forwards.run(candidates, partial(_rule, params=params, causal=causal), on_progress=on_progress)
    return [
        CandidateScore(
            log_probability=outcome.value.estimate.value,
            standard_error=outcome.value.estimate.standard_error,
            tokens=len(candidate.target),
            bytes=count,
            order=outcome.value.order,
            terms=outcome.value.terms,
            greedy=outcome.value.greedy,
            forwards=outcome.forwards,
            positions=outcome.positions,
        )
        for candidate, outcome, count in zip(candidates, outcomes, byte_counts, strict=True)
    ]


def _rule(candidate: Candidate, *, params: ScoringParams, causal: bool) -> Rule[_Scored]:
    length = len(candidate.target)
    if causal:
        return _causal(length)
    rule: Rule[_Scored]
    if params.method == "confidence":
        rule = _confidence(length)
    elif params.method == "chain":
        rule = _chain(length)
    elif params.method == "exact" or length == 1:
        rule = _enumeration(length)
    else:
        rule = _likelihood(candidate, params)
    return _and_greedy(rule, length) if params.greedy else rule


def _confidence(length: int) -> Rule[_Scored]:
    """Reveal the answer's own tokens, the most probable first."""
    hidden = np.ones((1, length), dtype=np.bool_)
    order, terms = [], []
    for _ in range(length):
        seen = yield Look(hidden=hidden, wanted=hidden)
        place = int(np.where(hidden[0], seen.log_probabilities[0], -np.inf).argmax())
        order.append(place)
        terms.append(float(seen.log_probabilities[0, place]))
        hidden = hidden.copy()
        hidden[0, place] = False
    return _Scored(estimate=_certain(sum(terms), length), order=tuple(order), terms=tuple(terms))


def _chain(length: int) -> Rule[_Scored]:
    """Token k with those before it in sight and the rest hidden; all rows at once."""
    hidden = np.triu(np.ones((length, length), dtype=np.bool_))
    wanted = np.eye(length, dtype=np.bool_)
    seen = yield Look(hidden=hidden, wanted=wanted)
    return _in_order(np.diagonal(seen.log_probabilities), None)


def _causal(length: int) -> Rule[_Scored]:
    """Every token from what stands before it: a single row, nothing hidden."""
    wanted = np.ones((1, length), dtype=np.bool_)
    seen = yield Look(hidden=~wanted, wanted=wanted)
    return _in_order(seen.log_probabilities[0], bool(seen.is_top.all()))


def _enumeration(length: int) -> Rule[_Scored]:
    """The mean of the likelihood over all masks."""
    masked, weight = all_masks(length)
    hidden = masked.numpy()
    seen = yield Look(hidden=hidden, wanted=hidden)
    value = float(weight.numpy() @ seen.log_probabilities.astype(np.float64).sum(axis=1))
    return _Scored(estimate=_certain(value, len(hidden)))


def _likelihood(candidate: Candidate, params: ScoringParams) -> Rule[_Scored]:
    """L/l Σ log p over the l hidden positions, averaged over samples with l stratified."""
    length = len(candidate.target)
    stream = Stream(params.seed, "scoring")
    masked, count = masks_by_count(length, samples=params.samples, stream=stream, index=_address(candidate))
    # of a short answer many samples are the same mask
    hidden, which = np.unique(masked.numpy(), axis=0, return_inverse=True)
    seen = yield Look(hidden=hidden, wanted=hidden)
    sums = seen.log_probabilities.astype(np.float64).sum(axis=1)[which.reshape(-1)]
    return _Scored(estimate=Estimate.of(length * torch.from_numpy(sums) / count, strata=count))


def _and_greedy(rule: Rule[_Scored], length: int) -> Rule[_Scored]:
    """A rule, and then whether revealing the model's own choices, the surest first, gives the same tokens.

    What the rule sees of that way is not asked for again: the first step always, and with confidence often all.
    """
    way = _GreedyWay(length)
    look = next(rule)
    while True:
        seen = yield look
        way.follow(look, seen)
        try:
            look = rule.send(seen)
        except StopIteration as end:
            scored: _Scored = end.value
            break
    while way.greedy is None:
        look = Look(hidden=way.hidden[None], wanted=way.hidden[None])
        way.follow(look, (yield look))
    return replace(scored, greedy=way.greedy)


class _GreedyWay:
    """How far the model's own choices have been the candidate's tokens."""

    def __init__(self, length: int) -> None:
        self.hidden = np.ones(length, dtype=np.bool_)
        """[target]: what is not revealed yet."""
        self.greedy: bool | None = None
        """None until it is known."""

    def follow(self, look: Look, seen: Seen) -> None:
        """Reveal as much as these rows tell."""
        while self.greedy is None:
            rows = (look.hidden == self.hidden).all(axis=1) & (look.wanted | ~self.hidden).all(axis=1)
            if not rows.any():
                return
            row = int(rows.argmax())
            place = int(np.where(self.hidden, seen.top_log_probabilities[row], -np.inf).argmax())
            self.hidden = self.hidden.copy()
            self.hidden[place] = False
            if not seen.is_top[row, place]:
                self.greedy = False
            elif not self.hidden.any():
                self.greedy = True


def _in_order(terms: np.ndarray[tuple[int], np.dtype[np.float32]], greedy: bool | None) -> _Scored:
    """The score of tokens taken from left to right."""
    values = tuple(float(term) for term in terms)
    return _Scored(
        estimate=_certain(sum(values), len(values)), order=tuple(range(len(values))), terms=values, greedy=greedy
    )


def _certain(value: float, samples: int) -> Estimate:
    return Estimate(value=value, standard_error=0.0, samples=samples)


def _address(candidate: Candidate) -> int:
    """The number of a candidate's noise: a function of its tokens, below 2⁶³."""
    words = (len(candidate.prompt), *candidate.prompt, *candidate.target, *candidate.behind)
    digest = hashlib.blake2b(np.array(words, dtype=np.int64).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
