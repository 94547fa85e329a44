"""Styles and recipes of supervised fine-tuning.

What the papers give is theirs and named so; batch sizes and warm-up are not published and are our choice.
"""

from collections.abc import Callable
from dataclasses import replace

from illada.data.example_rows import ExamplePacking
from illada.data.packing import PackingConfig
from illada.train.learning_rate import StepDowns
from illada.train.loop import LoopConfig
from illada.train.objective import NoiseConfig
from illada.train.sft import SftConfig


def illada_style(config: SftConfig) -> SftConfig:
    """ILLaDA (arXiv 2606.25331, section 2.2): windows of the stream, masks over everything, Eq. 1, 30 % split."""
    return replace(
        config,
        rows="stream",
        stream=PackingConfig(length=config.length, split_probability=0.3),
        noise=NoiseConfig(maskable="everything", normaliser="tokens"),
    )


def llada_style(config: SftConfig) -> SftConfig:
    """LLaDA (arXiv 2502.09992, section 2.3): one example to a row, the prompt in sight.

    Ends of text fill it up to the longest of the batch and are learnt; each example is divided by its answer's length.
    """
    return replace(
        config,
        rows="examples",
        examples=ExamplePacking(length=config.length, one_per_row=True, filler="batch"),
        noise=NoiseConfig(maskable="response", normaliser="examples"),
    )


def dllm_var_style(config: SftConfig) -> SftConfig:
    """DLLM-Var (arXiv 2510.24605): several examples to a row, which see one another, the prompts in sight.

    t lies in [0.1, 0.9], the end of text is always masked, and the loss is a plain mean.
    """
    return replace(
        config,
        rows="examples",
        examples=ExamplePacking(length=config.length, isolate=False),
        noise=NoiseConfig(
            floor=0.1, ceiling=0.9, maskable="response", always_mask_end=True, weighted=False, normaliser="masked"
        ),
    )


def canvas_style(config: SftConfig) -> SftConfig:
    """Ours: LLaDA's loss on the canvas that generation works on.

    That is whole blocks behind the prompt, filled up with ends of text, and of a long answer only the first ones.
    Several isolated examples share a row, so that little is padding.
    """
    return replace(
        config,
        rows="examples",
        examples=ExamplePacking(length=config.length, filler="canvas"),
        noise=NoiseConfig(maskable="response", normaliser="examples"),
    )


STYLES: dict[str, Callable[[SftConfig], SftConfig]] = {
    "illada": illada_style,
    "llada": llada_style,
    "dllm_var": dllm_var_style,
    "canvas": canvas_style,
}
"""The styles by name: each sets how rows are made and masked, and leaves everything else."""


def illada_tiny() -> SftConfig:
    """The instruct model that comes with the package: an hour of CPU after the base model's."""
    return canvas_style(
        SftConfig(
            stream=PackingConfig(length=512),
            learning_rate=StepDowns(warmup_steps=100, levels=((0.0, 1e-3),), final_fraction=0.3, floor=2e-5),
            loop=LoopConfig(steps=4500, batch_size=8, validate_every=500, checkpoint_every=250),
        )
    )


def tiny() -> SftConfig:
    """For a small model and minutes: iLLaDA's style."""
    return illada_style(
        SftConfig(
            stream=PackingConfig(length=256),
            learning_rate=StepDowns(warmup_steps=20, levels=((0.0, 5e-4),), final_fraction=0.1, floor=5e-5),
            loop=LoopConfig(steps=500, batch_size=16, validate_every=100, checkpoint_every=100),
        )
    )


def illada_8b() -> SftConfig:
    """ILLaDA (arXiv 2606.25331, section 2.2): rows of 8192, 12 epochs, 5e-6, the last 10 % linear to 5e-7."""
    return illada_style(
        SftConfig(
            stream=PackingConfig(length=8192),
            learning_rate=StepDowns(warmup_steps=200, levels=((0.0, 5e-6),), final_fraction=0.1, floor=5e-7),
            epochs=12.0,
            loop=LoopConfig(batch_size=256, micro_batch_size=1, compile=True, validate_every=500, checkpoint_every=500),
        )
    )


FINETUNING: dict[str, Callable[[], SftConfig]] = {
    "tiny": tiny,
    "illada_tiny": illada_tiny,
    "illada_8b": illada_8b,
}
"""The recipes that `illada sft NAME` knows."""
