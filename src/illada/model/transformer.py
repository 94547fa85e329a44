"""The Transformer: token ids in, hidden states out; logits only where somebody asks for them."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from illada.model.attention import Share, attention_layout, segment_positions
from illada.model.cache import KeyValueCache, LayerWatch, Selection
from illada.model.config import ModelConfig
from illada.model.layers import Block, RMSNorm
from illada.model.rotary import rotary_angles
from illada.seeding import Stream
from illada.shapes import Hidden, Segments, Tokens


class Transformer(nn.Module):
    """Embedding, blocks, final norm, and an LM head that shares the embedding's matrix if `tied_head`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config)
        self.head = None if config.tied_head else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.share: Share | None = None
        """Where several processes divide every row, the part that is computed here."""

    @property
    def head_weight(self) -> Tensor:
        """The matrix [vocab, hidden] that turns a hidden state into logits."""
        return self.embedding.weight if self.head is None else self.head.weight

    def positions_here(self, length: int) -> slice:
        """The positions of rows of `length` whose hidden states `forward` gives: all, unless rows are divided."""
        return slice(0, length) if self.share is None else self.share.positions(length)

    def forward(self, tokens: Tokens, segments: Segments | None = None) -> Float[Tensor, "batch positions_here hidden"]:
        """The residual stream after the final norm, at the position that it tells of, of `positions_here`.

        A causal model's tells of the next token and stands where it was computed. Where `config.shifted`, it is moved
        to the token it tells of, within its segment; the first token's own state serves for itself.

        Args:
            tokens: ids, int64.
            segments: which part of its row each position belongs to; parts do not see one another and each counts
                its positions from 0. -1 marks padding, on either side: it changes nothing for the rest. None: every
                row is one part.

        Raises:
            ValueError: the rows are longer than `config.max_length`.
        """
        self._check_length(tokens)
        own = self.positions_here(tokens.shape[1])
        x = self.embedding(tokens[:, own])
        if torch.is_autocast_enabled(tokens.device.type):
            x = x.float()  # the residual stream stays in fp32, also where the weights come in less
        causal, dtype = self.config.attention == "causal", self._compute_dtype(tokens.device)
        layout = attention_layout(segments, causal=causal, dtype=dtype, share=self.share)
        if segments is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        else:
            positions = segment_positions(segments)
        angles = rotary_angles(positions[:, own], self.config.head_size, self.config.rope_theta)
        for block in self.blocks:
            x = block(x, angles, layout)
        hidden: Hidden = self.norm(x)
        if not self.config.shifted:
            return hidden
        if self.share is not None:  # the state before the first position here is another process's
            hidden = self.share.gather(hidden)
        return _shifted(hidden, positions)[:, own]

    def recompute(
        self,
        tokens: Int[Tensor, " selected"],
        cache: KeyValueCache,
        selection: Selection,
        watch: LayerWatch | None = None,
    ) -> Float[Tensor, "computed hidden"]:
        """The residual stream after the final norm, of the selected positions alone, each where it was computed.

        Where `config.shifted`, they tell of the token behind them: nothing is moved here.

        Their keys and values take their places in `cache`; what the others hold there is what they are seen with.

        Args:
            tokens: ids at the selected positions, int64.
            cache: what was computed before.
            selection: which positions these are.
            watch: may add positions from some layer on; the result is of its selection then.
        """
        angles = cache.angles_at(selection.position)
        x = self.embedding(tokens)[None]
        for number, block in enumerate(self.blocks):
            if watch is not None:
                x = watch.enter(number, x)
                if watch.selection is not selection:
                    selection = watch.selection
                    angles = cache.angles_at(selection.position)
            x = block(x, angles, cache.layer(number, selection, watch))
        hidden: Tensor = self.norm(x)
        return hidden[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] of hidden states [..., hidden].

        A diffusion model's are about the token at each position; a causal model's, trained on the next, about that.
        """
        return F.linear(hidden, self.head_weight)

    def _check_length(self, tokens: Tokens) -> None:
        if tokens.shape[1] > self.config.max_length:
            raise ValueError(
                f"rows of {tokens.shape[1]} tokens do not fit the model's context of {self.config.max_length}: "
                "shorten the prompt or the completion"
            )

    def _compute_dtype(self, device: torch.device) -> torch.dtype:
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return self.embedding.weight.dtype


def _shifted(hidden: Hidden, positions: Tensor) -> Hidden:
    """Every state one position to the right, except that the first of each segment stays."""
    moved = torch.cat((hidden[:, :1], hidden[:, :-1]), dim=1)
    return torch.where((positions == 0)[..., None], hidden, moved)


@torch.no_grad()
def initialize(model: Transformer, *, seed: int) -> None:
    """Fill the weights with their `initial_values`."""
    for name, parameter in model.named_parameters():
        parameter.copy_(initial_values(model.config, name, parameter.shape, seed=seed))


def initial_values(config: ModelConfig, name: str, shape: torch.Size, *, seed: int) -> Tensor:
    """What the parameter `name` starts with: normal, the same numbers on any device and in any order.

    Linear layers have standard deviation `init_std`; those that write to the residual stream (o_proj, down_proj)
    init_std / sqrt(2 layers); the embedding sqrt(1 / (2 hidden)); norms are 1: the rule of the published iLLaDA model
    file. Biases are 0. Every tensor has a stream of its own, named after it.
    """
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    if name.startswith("embedding"):
        std = (2 * config.hidden_size) ** -0.5
    elif name.endswith(("o_proj.weight", "down_proj.weight")):
        std = config.init_std * (2 * config.layers) ** -0.5
    else:
        std = config.init_std
    generator = torch.Generator().manual_seed(_tensor_seed(seed, name))
    return torch.randn(shape, generator=generator, dtype=torch.float32).mul_(std)


def _tensor_seed(seed: int, name: str) -> int:
    low, high = Stream(seed, f"initialize/{name}").key
    return (high << 31) | low
