"""What a causal model can be told: it writes one token after the other.

To the engine it is a model whose blocks are single holes, and to which a hole is shown only when it holds text. Keys
and values never change then, and every forward computes what is new.
"""

from dataclasses import replace

from illada.sample.request import SamplingParams

_OF_DIFFUSION = ("canvas", "block_length", "blocks", "steps", "guidance", "unmasking", "caching", "reveal_last")


def check_causal(params: SamplingParams) -> None:
    """Refuse what only a diffusion model can be told.

    Raises:
        ValueError: one of these parameters is not at its default.
    """
    defaults = SamplingParams()
    changed = [name for name in _OF_DIFFUSION if getattr(params, name) != getattr(defaults, name)]
    for name in ["end"] * (params.end == "last") + changed:
        raise ValueError(
            f"a causal model writes one token after the other: {name} says nothing to it; leave it at "
            f"{getattr(defaults, name)!r}, got {getattr(params, name)!r}"
        )


def one_by_one(params: SamplingParams) -> SamplingParams:
    """The same with blocks of a single token.

    Raises:
        ValueError: as `check_causal`.
    """
    check_causal(params)
    return replace(params, block_length=1)
