"""Connects the sampler's steps to the terminal view."""

from torch import Tensor

from illada.data.tokenizer import Tokenizer
from illada.demo.live import DenoisingView
from illada.sample.sampler import OnStep


def text_pieces(tokenizer: Tokenizer, tokens: list[int]) -> list[str | None]:
    """The text of every token by itself; None for [MASK], nothing for other specials."""
    mask = tokenizer.specials.mask
    return [None if token == mask else tokenizer.decode([token]) for token in tokens]


def watch(view: DenoisingView, tokenizer: Tokenizer) -> OnStep:
    """A callback for the sampler that draws the first row of the batch after every step."""

    def on_step(number: int, tokens: Tensor, revealed: Tensor) -> None:
        del number
        view.update(text_pieces(tokenizer, tokens[0].tolist()), set(revealed[0].nonzero().flatten().tolist()))

    return on_step
