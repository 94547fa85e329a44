"""The end-of-thinking boost: the longer a model thinks, the likelier it closes its thoughts."""

from dataclasses import dataclass

from torch import Tensor

from illada.sample.canvas import BatchState


@dataclass(frozen=True, kw_only=True)
class EndOfThinking:
    """Raise the logit of the close marker with the length of the text (iLLaDA, arXiv 2606.25331, appendix A).

    While the generated text does not hold the marker, the first masked position of the block gets
    strength * progress^power on the logit of the marker's next token, progress = (position - prompt + 1) / budget in
    (0, 1]. The next token is the one behind as much of the marker as stands just before that position. The paper has a
    strength of 100 and a power of 3, and of 1 on HumanEval.
    """

    marker: tuple[int, ...]
    """Token ids of `</think>`, say."""
    strength: float
    power: float
    budgets: tuple[int, ...]
    """For every canvas of the call, the tokens that may be generated in all."""

    def __call__(self, logits: Tensor, state: BatchState, position: Tensor) -> Tensor:
        """Logits [rows, window, vocab] with the boost; `position` [rows, window] is -1 where nothing is masked."""
        logits = logits.clone()
        for row, canvas in enumerate(state.canvases):
            column = int((position[row] >= 0).int().argmax())
            at = int(position[row, column])
            start = canvas.prompt_length
            if at < 0 or start is None:
                continue
            written = state.tokens[row, start : len(canvas.tokens)].tolist()
            if _holds(written, self.marker):
                continue
            progress = (at - start + 1) / self.budgets[state.numbers[row]]
            token = self.marker[_begun(written[: at - start], self.marker)]
            logits[row, column, token] += self.strength * progress**self.power
        return logits


def _holds(tokens: list[int], marker: tuple[int, ...]) -> bool:
    size = len(marker)
    return any(tuple(tokens[start : start + size]) == marker for start in range(len(tokens) - size + 1))


def _begun(tokens: list[int], marker: tuple[int, ...]) -> int:
    """How many tokens of the marker, the most there can be short of all, the text ends with."""
    longest = min(len(marker) - 1, len(tokens))
    return next((size for size in range(longest, 0, -1) if tuple(tokens[-size:]) == marker[:size]), 0)


def boost(marker: list[int], *, strength: float, power: float, budgets: list[int]) -> EndOfThinking | None:
    """The policy, or None where it would change nothing."""
    if strength == 0 or not marker:
        return None
    return EndOfThinking(marker=tuple(marker), strength=strength, power=power, budgets=tuple(budgets))
