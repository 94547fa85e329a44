"""The settings of the papers, as data: what each asks, how, and what it reports.

The sources are the iLLaDA paper (arXiv 2606.25331: Tables 2 to 4, appendix A) and its authors' evaluation script, and
the LLaDA paper (arXiv 2502.09992) and its authors' notes on evaluation. A `remark` says where paper and script disagree
or are silent. The generation settings are length / block / steps per block; one token is revealed per forward.
"""

from dataclasses import dataclass, field

from illada.evaluate.scoring import Normalisation, ScoringParams
from illada.sample.request import EndRule, SamplingParams


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One task and how it is asked."""

    task: str
    shots: int | None = None
    """Solved examples in front of each question; None: as many as is usual for the task."""
    chat: bool = False
    """As turns of the chat template, each example a question and its answer."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    """For tasks whose answer is written."""
    scoring: ScoringParams = field(default_factory=ScoringParams)
    """For choices."""
    normalise: Normalisation = "none"
    """For choices: what a candidate's score is divided by."""
    published: float | None = None
    """What the paper reports, in per cent."""
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The tasks of one table of a paper."""

    name: str
    model: str
    """Whose numbers the published ones are."""
    askings: tuple[Asking, ...]


def _variable(length: int, block: int, *, thinking: float | None = None) -> SamplingParams:
    """Block after block; `thinking`: the power of the end-of-thinking boost of strength 100."""
    if thinking is None:
        return SamplingParams(length=length, block_length=block)
    return SamplingParams(length=length, block_length=block, thinking_strength=100.0, thinking_power=thinking)


def _canvas(length: int, block: int | None = None, *, end: EndRule = "free") -> SamplingParams:
    """All masks from the beginning; a block as long as the canvas unless said otherwise."""
    return SamplingParams(canvas="fixed", length=length, block_length=block or length, end=end)


_ONE_SAMPLE = ScoringParams(method="likelihood", samples=1)
_MONTE_CARLO = ScoringParams(method="likelihood", samples=128, end=False)
_CONFIDENCE = ScoringParams(method="confidence")
_ACC = "whether the paper counts by the plain or by the length-normalised score is not said; plain here"
_SHOTS = "the paper's examples are those of lm-eval; without training data at hand, ours"
_SWAPPED = "paper: 4 tokens for MMLU and 3 for MMLU-Redux; script: the other way round, as here"

ILLADA_BASE = Suite(
    name="illada_base",
    model="iLLaDA 8B Base",
    askings=(
        Asking(task="mmlu", shots=5, scoring=_ONE_SAMPLE, published=74.8),
        Asking(task="bbh", sampling=_variable(1024, 32), published=71.3),
        Asking(task="arc_challenge", shots=0, scoring=_CONFIDENCE, published=60.8, remark=_ACC),
        Asking(task="hellaswag", shots=0, scoring=_CONFIDENCE, published=76.6, remark=_ACC),
        Asking(
            task="piqa",
            shots=0,
            scoring=_CONFIDENCE,
            published=78.5,
            remark="in the ablation of the paper only, without a command in the script",
        ),
        Asking(task="gsm8k", shots=8, sampling=_variable(1024, 32), published=81.9, remark=_SHOTS),
        Asking(task="math", shots=4, sampling=_variable(1024, 32), published=38.4, remark=_SHOTS),
        Asking(
            task="humaneval",
            shots=0,
            sampling=_canvas(512),
            published=50.0,
            remark="a fixed canvas: the authors find that blocks hurt here",
        ),
        Asking(task="mbpp", shots=3, sampling=_variable(1024, 32), published=57.8),
    ),
)

ILLADA_INSTRUCT = Suite(
    name="illada_instruct",
    model="iLLaDA 8B Instruct",
    askings=(
        Asking(task="mmlu_generative", shots=5, chat=True, sampling=_variable(3, 3), published=71.6, remark=_SWAPPED),
        Asking(task="mmlu_pro", shots=0, chat=True, sampling=_variable(4096, 32, thinking=3.0), published=52.3),
        Asking(
            task="mmlu_redux_generative", shots=5, chat=True, sampling=_variable(4, 4), published=76.4, remark=_SWAPPED
        ),
        Asking(task="gsm8k_chat", shots=0, chat=True, sampling=_variable(2048, 32, thinking=3.0), published=89.0),
        Asking(task="math_chat", shots=0, chat=True, sampling=_variable(4096, 32, thinking=3.0), published=56.7),
        Asking(task="humaneval_chat", shots=0, chat=True, sampling=_variable(2048, 32, thinking=1.0), published=65.9),
        Asking(task="mbpp_chat", shots=0, chat=True, sampling=_variable(2048, 16, thinking=3.0), published=58.0),
    ),
)

LLADA_BASE = Suite(
    name="llada_base",
    model="LLaDA 8B Base",
    askings=(
        Asking(task="mmlu", shots=5, scoring=ScoringParams(method="likelihood", samples=1, end=False), published=65.9),
        Asking(task="bbh", shots=3, sampling=_canvas(1024), published=49.7),
        Asking(task="arc_challenge", shots=0, scoring=_MONTE_CARLO, published=45.9, remark=_ACC),
        Asking(task="hellaswag", shots=0, scoring=_MONTE_CARLO, published=70.5, remark=_ACC),
        Asking(task="piqa", shots=0, scoring=_MONTE_CARLO, published=73.6, remark=_ACC),
        Asking(task="winogrande", shots=5, scoring=_MONTE_CARLO, published=74.8, remark=_ACC),
        Asking(task="gsm8k", shots=4, sampling=_canvas(1024), published=70.3, remark=_SHOTS),
        Asking(task="math", shots=4, sampling=_canvas(1024), published=31.4, remark=_SHOTS),
        Asking(task="humaneval", shots=0, sampling=_canvas(1024), published=35.4),
        Asking(task="mbpp", shots=3, sampling=_canvas(1024), published=40.0),
    ),
)

LLADA_INSTRUCT = Suite(
    name="llada_instruct",
    model="LLaDA 8B Instruct",
    askings=(
        Asking(task="mmlu_generative", shots=5, chat=True, sampling=_canvas(3), published=65.5),
        Asking(task="mmlu_pro", shots=0, chat=True, sampling=_canvas(256), published=37.0),
        Asking(
            task="gsm8k_chat",
            shots=0,
            chat=True,
            sampling=_canvas(256, 8),
            published=78.6,
            remark="blocks of 8; one canvas of 512 with the end revealed last gives 69.4",
        ),
        Asking(
            task="math_chat",
            shots=0,
            chat=True,
            sampling=_canvas(512, 64),
            published=42.2,
            remark="blocks of 64; one canvas of 512 with the end revealed last gives 31.9",
        ),
        Asking(task="humaneval_chat", shots=0, chat=True, sampling=_canvas(512, end="never"), published=49.4),
        Asking(task="mbpp_chat", shots=0, chat=True, sampling=_canvas(256, end="last"), published=41.0),
    ),
)

SUITES = {suite.name: suite for suite in (ILLADA_BASE, ILLADA_INSTRUCT, LLADA_BASE, LLADA_INSTRUCT)}
"""The suites by name."""
