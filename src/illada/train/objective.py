"""What a run descends: a batch of clean rows in, a loss out.

diffusion     the loss of the rows' corruption. Pre-training and every style of fine-tuning are this one computation;
              they differ in which positions can be masked, in the weight of a masked position, and in what the sum is
              divided by.
next_token    the loss of the autoregressive twin: the same rows in the same order, each token from those before it.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from illada.data.packing import PADDING, Batch, Part
from illada.diffusion.corruption import absorb, sample_times, spread_times
from illada.diffusion.schedule import LinearSchedule, loss_weight
from illada.losses.cross_entropy import CHUNK_LOGITS
from illada.losses.diffusion import diffusion_loss
from illada.losses.next_token import next_token_loss, predicting
from illada.model.config import Attention
from illada.model.transformer import Transformer
from illada.seeding import Stream

ObjectiveName = Literal["diffusion", "next_token"]
Maskable = Literal["everything", "response"]
Normaliser = Literal["tokens", "examples", "masked"]

_SCHEDULE = LinearSchedule()


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """How clean rows are corrupted, and how the loss weighs and counts what was masked."""

    low_discrepancy: bool = True
    """Spread t evenly over neighbouring examples instead of drawing each alone: same expectation, less variance."""
    floor: float = 1e-3
    """Smallest t, as in LLaDA's code. It bounds the weight 1/t."""
    ceiling: float = 1.0
    """Largest t."""
    maskable: Maskable = "everything"
    """response: the prompt stays visible. The next-token objective reads this field alone: only the response is
    learnt."""
    always_mask_end: bool = False
    """Mask the end of text whatever t is."""
    weighted: bool = True
    """Weigh a masked position by 1/t, as the bound does; else by 1."""
    normaliser: Normaliser = "tokens"
    """What the sum is divided by. tokens: all but the padding (Eq. 1 of iLLaDA per token). examples: each example's
    sum by the length of its answer, filler included, and these by the number of examples (LLaDA, algorithm 2).
    masked: the masked positions, a plain mean."""
    focus: float = 0.0
    """β of the token reweighting of "Beyond autoregression" (arXiv 2410.14157): a masked position's cross-entropy u
    counts (1 - e^-u)^β as much, so that easy ones count little. 0: all alike, as the bound has it."""

    def __post_init__(self) -> None:
        """Refuse times out of order and words that mean nothing here."""
        if not 0 < self.floor < self.ceiling <= 1:
            raise ValueError(f"t needs 0 < floor < ceiling <= 1, got a floor of {self.floor} and {self.ceiling}")
        if not (math.isfinite(self.focus) and self.focus >= 0):
            raise ValueError(f"focus must be 0 or more, got {self.focus}")
        for name, choices in (("maskable", Maskable), ("normaliser", Normaliser)):
            if (value := getattr(self, name)) not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}; got {value!r}")


@runtime_checkable
class Objective(Protocol):
    """The loss of a batch, and what a step of it is divided by."""

    head_fraction: float
    """Of the positions, how many meet the vocabulary: for the count of FLOPs."""

    def normaliser(self, batch: Batch) -> int:
        """What the loss of a step is divided by, for these rows of it: the sum over its parts is that of the step."""
        ...

    def __call__(self, model: Transformer, batch: Batch, *, normaliser: int) -> Tensor:
        """This batch's part of the loss of a step whose `normaliser` is given."""
        ...


def attention_for(objective: str) -> Attention:
    """What an objective needs the model to see: the next token is predicted from those before it alone.

    Raises:
        ValueError: there is no such objective.
    """
    if objective not in get_args(ObjectiveName):
        raise ValueError(f"objective must be one of {', '.join(get_args(ObjectiveName))}; got {objective!r}")
    return "causal" if objective == "next_token" else "bidirectional"


def check_objective(objective: str, attention: Attention) -> None:
    """Refuse an objective that the model's attention does not allow.

    Raises:
        ValueError: there is no such objective, or the two contradict each other.
    """
    if attention != (need := attention_for(objective)):
        other = "diffusion" if objective == "next_token" else "next_token"
        raise ValueError(
            f"the objective {objective} needs {need} attention, but the model's is {attention}: choose the objective "
            f"{other}, or a {need} model"
        )


class DiffusionObjective:
    """The loss of a batch, its noise a function of (seed, example, epoch) alone."""

    head_fraction = 0.5

    def __init__(self, config: NoiseConfig, *, mask_id: int, seed: int, chunk_logits: int = CHUNK_LOGITS) -> None:
        self._config = config
        self._mask_id = mask_id
        self._times = Stream(seed, "time")
        self._masks = Stream(seed, "mask")
        self._chunk_logits = chunk_logits

    def normaliser(self, batch: Batch) -> int:
        """What the loss of a step is divided by, for these rows of it: the sum over its parts is that of the step."""
        if self._config.normaliser == "tokens":
            return batch.token_count
        if self._config.normaliser == "examples":
            return sum(len(row[row != PADDING].unique()) for row in batch.segments)
        return int(self.corrupt(batch)[1].sum())

    def corrupt(self, batch: Batch, *, segments: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(x_t, where it is masked, t of every position), each [batch, length], on the device of the batch.

        `segments` is at least the number of segments of any row; None: it is counted, which waits for the device.
        """
        # the example's number alone addresses its times: it never comes twice in a run, and an epoch that ends in the
        # middle of a batch would cut the even spread in two
        times = sample_times(
            batch.example,
            stream=self._times,
            segments=_segments(batch) if segments is None else segments,
            low_discrepancy=self._config.low_discrepancy,
            floor=self._config.floor,
            ceiling=self._config.ceiling,
        )
        t = spread_times(times, batch.segments)
        masking = 1 - _SCHEDULE.alpha(t)
        if batch.parts is not None:
            if self._config.maskable == "response":
                masking = masking.masked_fill(batch.parts == Part.PROMPT, 0.0)
            if self._config.always_mask_end:
                masking = masking.masked_fill((batch.parts == Part.END) & (batch.segments != PADDING), 1.0)
        uniform = self._masks.uniform(batch.example, batch.tokens.shape[1], epoch=batch.epoch)
        noisy, masked = absorb(batch.tokens, masking, uniform=uniform, mask_id=self._mask_id)
        return noisy, masked, t

    def __call__(self, model: Transformer, batch: Batch, *, normaliser: int) -> Tensor:
        """This batch's part of the loss of a step whose `normaliser` is given.

        The batch is moved to the model's device here, after what must be known on the CPU was read from it.
        """
        segments, packed = _segments(batch), _packed(batch)
        batch = batch.to(model.head_weight.device)
        noisy, masked, t = self.corrupt(batch, segments=segments)
        hidden = model(noisy, batch.segments if packed else None)
        own = model.positions_here(noisy.shape[1])
        return diffusion_loss(
            hidden,
            model.head_weight,
            clean=batch.tokens[:, own],
            masked=masked[:, own],
            weight=self._weight(batch, t)[:, own],
            normaliser=normaliser,
            chunk_logits=self._chunk_logits,
            focus=self._config.focus,
        )

    def _weight(self, batch: Batch, t: Tensor) -> Tensor:
        # padding has t = 0 and is never masked; its weight is never read, but must not be infinite
        weight = loss_weight(_SCHEDULE, torch.where(t > 0, t, 1.0)) if self._config.weighted else torch.ones_like(t)
        if self._config.normaliser == "examples":
            weight = weight / answer_lengths(batch)
        return weight


class NextTokenObjective:
    """The mean cross-entropy of the next token.

    Where `maskable` is "response", prompts are read and not learnt, and neither are the ends of text that fill up a
    canvas: what is learnt is the answer and the one end behind it. A stream has no prompts, and all of it is learnt.

    The sum is divided by the predicted tokens of the step, whatever the style divides by: every one of them is a term
    of an exact likelihood, so the mean is the negative log-likelihood per token, what the held-out measure counts too.
    The means per example of algorithm 2 tame weights of 1/t, which there are none of here.
    """

    head_fraction = 1.0

    def __init__(self, config: NoiseConfig, *, chunk_logits: int = CHUNK_LOGITS) -> None:
        self._response_only = config.maskable == "response"
        self._chunk_logits = chunk_logits

    def normaliser(self, batch: Batch) -> int:
        """How many tokens are predicted in these rows of the step."""
        return int(self.where(batch).sum())

    def where(self, batch: Batch) -> Tensor:
        """True at the positions [batch, length] that predict the token behind them."""
        if batch.parts is None:
            return predicting(batch.segments)
        learnt = (batch.parts != Part.FILLER) & (batch.parts != Part.STRETCH)
        if self._response_only:
            learnt &= batch.parts != Part.PROMPT
        return predicting(batch.segments, learnt)

    def __call__(self, model: Transformer, batch: Batch, *, normaliser: int) -> Tensor:
        """This batch's part of the loss of a step whose `normaliser` is given."""
        packed = _packed(batch)
        batch = batch.to(model.head_weight.device)
        return next_token_loss(
            model(batch.tokens, batch.segments if packed else None),
            model.head_weight,
            tokens=batch.tokens,
            where=self.where(batch),
            normaliser=normaliser,
            chunk_logits=self._chunk_logits,
        )


def build_objective(name: ObjectiveName, config: NoiseConfig, *, mask_id: int, seed: int) -> Objective:
    """The objective called `name`."""
    if name == "next_token":
        return NextTokenObjective(config)
    return DiffusionObjective(config, mask_id=mask_id, seed=seed)


def _packed(batch: Batch) -> bool:
    return bool((batch.segments != 0).any())


def _segments(batch: Batch) -> int:
    return int(batch.segments.max()) + 1


def answer_lengths(batch: Batch) -> Tensor:
    """For every position the length of its example's answer, end of text and filler included; 1 where there is none.

    Raises:
        ValueError: the batch is plain text.
    """
    if batch.parts is None:
        raise ValueError("plain text has no answers to divide by: choose the normaliser tokens")
    answer = (batch.parts != Part.PROMPT) & (batch.segments != PADDING)
    segment = batch.segments.clamp(min=0)
    lengths = torch.zeros_like(batch.segments, dtype=torch.float32).scatter_add_(1, segment, answer.float())
    return lengths.gather(1, segment).clamp(min=1)
