"""The masked diffusion objective: a batch of clean rows in, the loss of their corruption out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from illada.data.packing import Batch
from illada.diffusion.corruption import absorb, sample_times, spread_times
from illada.diffusion.schedule import LinearSchedule, loss_weight
from illada.losses.diffusion import CHUNK_LOGITS, diffusion_loss
from illada.model.transformer import Transformer
from illada.seeding import Stream


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """How clean rows are corrupted."""

    low_discrepancy: bool = True
    """Spread t evenly over neighbouring examples instead of drawing each alone: same expectation, less variance."""
    floor: float = 1e-3
    """Smallest t: t = (1 - floor) u + floor, as in LLaDA's code. It bounds the weight 1/t."""

    def __post_init__(self) -> None:
        """Refuse a floor outside (0, 1)."""
        if not 0 < self.floor < 1:
            raise ValueError(f"floor must lie between 0 and 1, got {self.floor}")


class DiffusionObjective:
    """Eq. 1 of iLLaDA on a batch, its noise a function of (seed, example, epoch) alone."""

    def __init__(self, config: NoiseConfig, *, mask_id: int, seed: int, chunk_logits: int = CHUNK_LOGITS) -> None:
        self._config = config
        self._mask_id = mask_id
        self._times = Stream(seed, "time")
        self._masks = Stream(seed, "mask")
        self._schedule = LinearSchedule()
        self._chunk_logits = chunk_logits

    def __call__(self, model: Transformer, batch: Batch, *, token_count: int) -> Tensor:
        """This batch's part of the loss per token of a step that holds `token_count` tokens in all.

        The batch is moved to the model's device here, after what must be known on the CPU was read from it.
        """
        segment_count = int(batch.segments.max()) + 1
        packed = bool((batch.segments != 0).any())
        batch = batch.to(model.head_weight.device)
        # the example's number alone addresses its times: it never comes twice in a run, and an epoch that ends in the
        # middle of a batch would cut the even spread in two
        times = sample_times(
            batch.example,
            stream=self._times,
            segments=segment_count,
            low_discrepancy=self._config.low_discrepancy,
            floor=self._config.floor,
        )
        t = spread_times(times, batch.segments)
        masking = 1 - self._schedule.alpha(t)
        uniform = self._masks.uniform(batch.example, batch.tokens.shape[1], epoch=batch.epoch)
        noisy, masked = absorb(batch.tokens, masking, uniform=uniform, mask_id=self._mask_id)
        hidden = model(noisy, batch.segments if packed else None)
        return diffusion_loss(
            hidden,
            model.head_weight,
            clean=batch.tokens,
            masked=masked,
            # padding has t = 0 and is never masked; its weight is never read, but must not be infinite
            weight=loss_weight(self._schedule, torch.where(t > 0, t, 1.0)),
            token_count=token_count,
            chunk_logits=self._chunk_logits,
        )
