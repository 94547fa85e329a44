"""What lm-eval's users write (`--model_args`, `--gen_kwargs`, a task's `generation_kwargs`) as settings of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from illada.assets import BASE
from illada.config import from_dict, to_dict
from illada.evaluate.scoring import ScoringParams
from illada.sample.request import SamplingParams

AUTO_BATCH = 256
"""The batch size `auto`."""

_LENGTH_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens", "length")
"""What the longest answer is called: of several, the first counts, as in lm-eval."""
_END = "end_of_text"
"""`SamplingParams.end` has this name here: `end` is that of scoring."""
_SCORING = tuple(part.name for part in fields(ScoringParams))
_SAMPLING = tuple(part.name for part in fields(SamplingParams) if part.name not in ("length", "stop", "end"))
_DEVICE_OF_LM_EVAL = "cuda:0"
"""What its command line says when its user names no device, whether there is a GPU or not."""


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """How a model is loaded and asked.

    Raises:
        ValueError: a value outside its range.
    """

    pretrained: str = BASE
    """A run folder, a checkpoint folder, or the name of a model that comes with the package."""
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the weights; auto: float32."""
    batch_size: int = AUTO_BATCH
    """Prompts whose answers are written together; of more than 64, one begins where another ends. No answer depends
    on it."""
    add_bos_token: bool = True
    """Put BOS in front of every prompt that no chat template has made, as the authors do."""
    rolling_samples: int = 16
    """Masks per window for texts that are measured as a whole."""
    stride: int | None = None
    """Tokens by which windows slide over a text longer than the context; None: as long as they are."""
    think_end_token: str | None = None
    """What closes a model's thoughts; only what it writes behind them counts as the answer."""
    scoring: ScoringParams = field(default_factory=lambda: ScoringParams(greedy=True))
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(length=256))

    def __post_init__(self) -> None:
        """Check every range."""
        for name in ("batch_size", "rolling_samples", "stride"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


_OWN = tuple(part.name for part in fields(ModelArguments) if part.name not in ("scoring", "sampling"))
MODEL_ARGUMENTS = tuple(dict.fromkeys((*_OWN, *_SCORING, *_SAMPLING, *_LENGTH_NAMES, _END)))
"""All names that `--model_args` may hold."""


def read_model_arguments(values: Mapping[str, Any], *, cuda: bool) -> ModelArguments:
    """The settings from lm-eval's model arguments and its batch size and device; unnamed ones have our defaults.

    Args:
        values: `--model_args`, joined with `batch_size`, `max_batch_size` and `device`.
        cuda: a GPU is here.

    Raises:
        ValueError: an unknown name, or a value that is none.
    """
    given = {name: value for name, value in values.items() if value is not None}
    rows = _rows(given.pop("batch_size", None), given.pop("max_batch_size", None))
    if given.get("device") == _DEVICE_OF_LM_EVAL and not cuda:
        del given["device"]
    given.pop("trust_remote_code", None)  # nothing remote is ever run
    if unknown := sorted(given.keys() - set(MODEL_ARGUMENTS)):
        raise ValueError(
            f"there is no model argument {', '.join(unknown)}; there are: {', '.join(sorted(MODEL_ARGUMENTS))}"
        )
    defaults = ModelArguments()
    scoring = {name: value for name, value in given.items() if name in _SCORING}
    own = {name: value for name, value in given.items() if name in _OWN}
    sampling, _ = read_sampling(defaults.sampling, {name: given[name] for name in given if name not in own})
    # a name is made of digits alone sometimes
    texts = {name: str(own[name]) for name in ("pretrained", "think_end_token") if name in own}
    return from_dict(
        ModelArguments,
        {
            **to_dict(defaults),
            **own,
            **texts,
            "batch_size": rows,
            "scoring": to_dict(defaults.scoring) | scoring,
            "sampling": to_dict(sampling),
        },
    )


def read_sampling(defaults: SamplingParams, values: Mapping[str, Any]) -> tuple[SamplingParams, tuple[str, ...]]:
    """How one request is answered, and the names among `values` that mean nothing here.

    `do_sample: false` means the likeliest token whatever the temperature, as in lm-eval; true without a temperature
    means 1. Fields of `SamplingParams` may be named as they are, its `end` as `end_of_text`.

    Raises:
        ValueError: a value that is none.
    """
    given = {name: value for name, value in values.items() if value is not None}
    until = given.pop("until", ())
    lengths = [given.pop(name) for name in _LENGTH_NAMES if name in given]
    do_sample = given.pop("do_sample", None)
    chosen = {name: given.pop(name) for name in _SAMPLING if name in given}
    if do_sample is False:
        chosen["temperature"] = 0.0
    elif do_sample and "temperature" not in chosen and not defaults.temperature:
        chosen["temperature"] = 1.0
    if _END in given:
        chosen["end"] = given.pop(_END)
    for name in ("suppress", "reveal_last"):
        if isinstance(chosen.get(name), int):
            chosen[name] = [chosen[name]]
    stop = [str(text) for text in ([until] if isinstance(until, str) else until) if text]
    settled = to_dict(defaults) | chosen | {"stop": list(dict.fromkeys([*defaults.stop, *stop]))}
    if lengths:
        settled["length"] = lengths[0]
    if settled["steps"] is not None:
        settled["steps"] = min(settled["steps"], settled["length"])
    return from_dict(SamplingParams, settled), tuple(sorted(given))


def _rows(batch_size: Any, most: Any) -> int:
    """A batch size as lm-eval's users write it: a number, `auto` or `auto:N`, and the most that `auto` may be."""
    if batch_size is None or str(batch_size).startswith("auto"):
        return AUTO_BATCH if most is None else int(most)
    try:
        return int(batch_size)
    except ValueError:
        raise ValueError(f"the batch size must be a number or auto, got {batch_size!r}") from None
