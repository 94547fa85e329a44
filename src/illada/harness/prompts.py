"""lm-eval's texts -> token ids that fit the model: what does not fit is cut off on the left, behind BOS."""

from collections.abc import Sequence
from dataclasses import dataclass

from illada.data.chat import Rendered
from illada.evaluate.pairs import encode_pairs
from illada.pipeline import LanguageModel
from illada.sample.request import SamplingParams

_ENCODED_TOGETHER = 1024


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A prompt as the model is to see it."""

    ids: tuple[int, ...]
    cut: int
    """Tokens that were left out on the left."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Makes prompts for one model."""

    model: LanguageModel
    bos: bool
    """Put BOS in front of texts that no chat template has made; the template decides for the others."""

    @property
    def context(self) -> int:
        """Positions that the model holds."""
        return self.model.transformer.config.max_length

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt."""
        head, tail = self._split(text)
        return head + self.model.tokenizer.encode(tail)

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[tuple[int, ...], list[int]]]:
        """The ids of prompts and of what is to be scored behind them: see `illada.evaluate.pairs`.

        Raises:
            ValueError: nothing to score.
        """
        encoded = []
        for start in range(0, len(pairs), _ENCODED_TOGETHER):
            part = pairs[start : start + _ENCODED_TOGETHER]
            split = [self._split(context) for context, _ in part]
            tails = [(tail, continuation) for (_, tail), (_, continuation) in zip(split, part, strict=True)]
            ids = encode_pairs(self.model.tokenizer, tails)
            prompts = [(*head, *prefix) for (head, _), (prefix, _) in zip(split, ids, strict=True)]
            # the candidates of a question have one prompt between them: of 50,000 long ones that saves gigabytes
            shared = {prompt: prompt for prompt in prompts}
            encoded += [(shared[prompt], target) for prompt, (_, target) in zip(prompts, ids, strict=True)]
        return encoded

    def fit(self, ids: Sequence[int], *, room: int) -> Fitted:
        """The end of a prompt that has at most `room` tokens, behind the BOS that it began with."""
        cut = max(0, len(ids) - room)
        if not cut:
            return Fitted(ids=tuple(ids), cut=0)
        first = 1 if ids[0] == self.model.tokenizer.specials.bos else 0
        return Fitted(ids=(*ids[:first], *ids[first + cut :]), cut=cut)

    def fit_scored(self, ids: Sequence[int], target: Sequence[int], *, behind: int) -> Fitted:
        """The prompt in front of `target` and `behind` more tokens.

        Raises:
            ValueError: they alone, behind BOS, are more than the model holds.
        """
        room = self.context - len(target) - behind
        if room < 1:
            raise ValueError(
                f"{len(target)} tokens are to be scored, but the model's context holds {self.context}, with BOS and "
                "the end of text: score shorter texts"
            )
        return self.fit(ids, room=room)

    def fit_written(self, ids: Sequence[int], params: SamplingParams) -> Fitted:
        """The prompt in front of an answer.

        On a fixed canvas the whole answer has room. On the variable one the answer is cut first, as the authors do, as
        long as a quarter of the context is left for it.

        Raises:
            ValueError: a fixed canvas fills the context.
        """
        reserved = params.length if params.canvas == "fixed" else min(params.length, max(1, self.context // 4))
        if reserved >= self.context:
            raise ValueError(
                f"a fixed canvas of {params.length} tokens leaves no room for a prompt in the model's context of "
                f"{self.context}: ask for a smaller max_gen_toks"
            )
        return self.fit(ids, room=self.context - reserved)

    def _split(self, text: str) -> tuple[list[int], str]:
        """The ids of what is settled, and the text behind it."""
        if isinstance(text, Rendered):
            return self.model.chat_template.split(text)
        return [self.model.tokenizer.specials.bos] if self.bos else [], text
