"""The end-of-thinking boost: the longer a model thinks, the likelier it closes its thoughts."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PerRow = Int[Tensor, " rows"]
Written = Int[Tensor, "rows places"]


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

    def of(self, written: Written, place: PerRow, *, budget: PerRow) -> tuple[PerRow, Float[Tensor, " rows"]]:
        """(token, what its logit gets) at the first mask of each row: nothing where the marker is written.

        Args:
            written: the generated tokens in sight, masks among them; what is out of sight is negative.
            place: of the first mask among them.
            budget: the tokens that may be generated in all.
        """
        marker = torch.tensor(self.marker, device=written.device)
        progress = (place.double() + 1) / budget.double()
        # places of rows without a mask mean nothing, and may lie before the text
        bonus = self.strength * progress.clamp(min=0) ** self.power
        token = marker[_begun(written, place, marker)]
        return token, torch.where(_holds(written, marker), 0.0, bonus)


def _holds(written: Written, marker: Int[Tensor, " marker"]) -> Bool[Tensor, " rows"]:
    """Whether the text has all of the marker."""
    if written.shape[1] < len(marker):
        return torch.zeros(len(written), dtype=torch.bool, device=written.device)
    return (written.unfold(1, len(marker), 1) == marker).all(-1).any(-1)


def _begun(written: Written, place: PerRow, marker: Int[Tensor, " marker"]) -> PerRow:
    """How many tokens of the marker, the most there can be short of all, stand just before the place."""
    begun = torch.zeros_like(place)
    for size in range(1, len(marker)):
        at = place[:, None] - size + torch.arange(size, device=place.device)
        before = written.gather(1, at.clamp(min=0, max=written.shape[1] - 1))
        begun = torch.where(((at >= 0) & (before == marker[:size])).all(1), size, begun)
    return begun
