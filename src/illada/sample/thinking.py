"""The end-of-thinking boost: the longer a model thinks, the likelier it closes its thoughts."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EndOfThinking:
    """Raise the logit of the close marker with the length of the text (iLLaDA, arXiv 2606.25331, appendix A).

    While the generated text does not hold the marker, the first masked position of the block gets
    strength * progress^power on the logit of the marker's next token, progress = (place + 1) / budget in (0, 1] for the
    place in the generated text. The next token is the one behind as much of the marker as stands just before that
    position. The paper has a strength of 100 and a power of 3, and of 1 on HumanEval.
    """

    marker: tuple[int, ...]
    """Token ids of `</think>`, say."""
    strength: float
    power: float

    def of(self, written: Sequence[int], place: int, *, budget: int) -> tuple[int, float] | None:
        """(token, what its logit gets) at the first mask; None where the marker is written.

        Args:
            written: the generated tokens in sight, masks among them.
            place: of the first mask among them.
            budget: the tokens that may be generated in all.
        """
        if _holds(written, self.marker):
            return None
        token = self.marker[_begun(written[:place], self.marker)]
        return token, self.strength * ((place + 1) / budget) ** self.power


def _holds(tokens: Sequence[int], marker: tuple[int, ...]) -> bool:
    size = len(marker)
    return any(tuple(tokens[start : start + size]) == marker for start in range(len(tokens) - size + 1))


def _begun(tokens: Sequence[int], marker: tuple[int, ...]) -> int:
    """How many tokens of the marker, the most there can be short of all, the text ends with."""
    longest = min(len(marker) - 1, len(tokens))
    return next((size for size in range(longest, 0, -1) if tuple(tokens[-size:]) == marker[:size]), 0)
