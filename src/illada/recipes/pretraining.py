"""Pre-training recipes, from a laptop's minutes to the papers' runs.

What the papers give is theirs and named so; batch sizes, warm-up and the optimizer's betas are not published and are
our choice.
"""

from collections.abc import Callable

from illada.data.corpus import CorpusConfig
from illada.data.packing import PackingConfig
from illada.model.config import named_size
from illada.train.faults import FaultConfig
from illada.train.learning_rate import Plateau, StepDowns, WarmupConstantCosine
from illada.train.loop import LoopConfig
from illada.train.optimizer import AdamWConfig
from illada.train.pretrain import HeldOutConfig, PretrainConfig


def tiny() -> PretrainConfig:
    """3M parameters on the standard library's source: minutes on two CPU cores."""
    return PretrainConfig(
        model=named_size("tiny"),
        corpus=CorpusConfig(vocab_size=named_size("tiny").vocab_size),
        packing=PackingConfig(length=128),
        learning_rate=WarmupConstantCosine(peak=1.5e-3, floor=3e-5, warmup_steps=20, decay_fraction=0.4),
        loop=LoopConfig(steps=600, batch_size=8, log_every=10, validate_every=100, checkpoint_every=100),
    )


def illada_tiny() -> PretrainConfig:
    """The base model that comes with the package: 3.8M parameters, 18M tokens of children's books, an hour of CPU."""
    return PretrainConfig(
        model=named_size("illada_tiny"),
        corpus=CorpusConfig(vocab_size=named_size("illada_tiny").vocab_size),
        packing=PackingConfig(length=512),
        learning_rate=WarmupConstantCosine(peak=1.5e-3, floor=3e-5, warmup_steps=100, decay_fraction=0.4),
        loop=LoopConfig(steps=4500, batch_size=8, log_every=10, validate_every=500, checkpoint_every=250),
        held_out=HeldOutConfig(rows=64, samples=4),
    )


def small() -> PretrainConfig:
    """30M parameters: hours on a CPU, minutes on a GPU."""
    return PretrainConfig(
        model=named_size("small"),
        corpus=CorpusConfig(vocab_size=named_size("small").vocab_size),
        packing=PackingConfig(length=512),
        learning_rate=WarmupConstantCosine(peak=1e-3, floor=2e-5, warmup_steps=200),
        loop=LoopConfig(steps=10_000, batch_size=64, validate_every=500, checkpoint_every=500),
    )


def base() -> PretrainConfig:
    """110M parameters: the size of BERT-base, for one GPU."""
    return PretrainConfig(
        model=named_size("base"),
        corpus=CorpusConfig(vocab_size=named_size("base").vocab_size),
        packing=PackingConfig(length=1024),
        learning_rate=WarmupConstantCosine(peak=6e-4, floor=1e-5, warmup_steps=1000),
        loop=LoopConfig(
            steps=50_000, batch_size=256, micro_batch_size=32, compile=True, validate_every=1000, checkpoint_every=1000
        ),
        average_decay=0.999,
    )


def one_billion() -> PretrainConfig:
    """1B parameters, for a node of GPUs."""
    return PretrainConfig(
        model=named_size("1b"),
        corpus=CorpusConfig(vocab_size=named_size("1b").vocab_size),
        packing=PackingConfig(length=4096),
        learning_rate=WarmupConstantCosine(peak=4e-4, floor=1e-5, warmup_steps=2000, plateau=Plateau()),
        loop=LoopConfig(
            steps=200_000,
            batch_size=256,
            micro_batch_size=8,
            compile=True,
            validate_every=2000,
            checkpoint_every=1000,
        ),
        faults=FaultConfig(spike=3.0),
    )


def illada_8b() -> PretrainConfig:
    """ILLaDA (arXiv 2606.25331, section 2.1): 8192 tokens, 30 % split, 2e-4, cosine to 5e-6 from the plateau on."""
    return PretrainConfig(
        model=named_size("illada_8b"),
        corpus=CorpusConfig(vocab_size=named_size("illada_8b").vocab_size),
        packing=PackingConfig(length=8192, split_probability=0.3),
        optimizer=AdamWConfig(weight_decay=0.1),
        learning_rate=WarmupConstantCosine(peak=2e-4, floor=5e-6, warmup_steps=2000, plateau=Plateau(patience=1000)),
        # 12T tokens = 1,430,512 steps of 1024 rows
        loop=LoopConfig(
            steps=1_430_512,
            batch_size=1024,
            micro_batch_size=1,
            compile=True,
            validate_every=5000,
            checkpoint_every=1000,
            keep_every=50_000,
        ),
        faults=FaultConfig(spike=3.0),
    )


def llada_8b() -> PretrainConfig:
    """LLaDA (arXiv 2502.09992, section 2.2): 4096 tokens, 1 % random lengths, step-downs, 1280 rows, 2.3T tokens."""
    return PretrainConfig(
        model=named_size("llada_8b"),
        corpus=CorpusConfig(vocab_size=named_size("llada_8b").vocab_size),
        packing=PackingConfig(length=4096, split_probability=0.0, random_length_probability=0.01),
        optimizer=AdamWConfig(weight_decay=0.1),
        learning_rate=StepDowns(),
        # 2.3T tokens = 438,690 steps of 1280 rows
        loop=LoopConfig(
            steps=438_690,
            batch_size=1280,
            micro_batch_size=4,
            compile=True,
            validate_every=5000,
            checkpoint_every=1000,
            keep_every=50_000,
        ),
        faults=FaultConfig(spike=3.0),
    )


PRETRAINING: dict[str, Callable[[], PretrainConfig]] = {
    "tiny": tiny,
    "illada_tiny": illada_tiny,
    "small": small,
    "base": base,
    "1b": one_billion,
    "illada_8b": illada_8b,
    "llada_8b": llada_8b,
}
"""The recipes that `illada pretrain NAME` knows."""
