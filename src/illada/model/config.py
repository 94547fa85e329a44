"""The shape of a Transformer, and the shapes that have names."""

from dataclasses import dataclass
from typing import Literal, get_args

Attention = Literal["bidirectional", "causal"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Llama-shaped Transformer: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

    Raises:
        ValueError: sizes that do not fit one another.
    """

    vocab_size: int = 4096
    """Rows of the embedding, [MASK] and the other specials included."""
    hidden_size: int = 256
    layers: int = 4
    heads: int = 4
    """Query heads."""
    kv_heads: int = 2
    """Key and value heads, each shared by `heads // kv_heads` query heads."""
    ffn_size: int = 688
    max_length: int = 1024
    """Longest row the model is meant for, in tokens: prompt and completion together."""
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tied_head: bool = True
    """One matrix serves as embedding and LM head."""
    attention: Attention = "bidirectional"
    qkv_bias: bool = False
    """Queries, keys and values have a bias, as in Qwen2 (arXiv 2407.10671). No other layer has one."""
    shifted: bool = False
    """The state behind token i - 1 tells of token i, as in a causal model: how a bidirectional model keeps what causal
    pre-training has taught it (Dream, arXiv 2508.15487)."""
    init_std: float = 0.02
    """Standard deviation of the linear layers at the start. Narrow models need more than the usual 0.02, about
    0.8 / sqrt(hidden_size): with less, attention stays uniform and the loss rests long at that of single tokens."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for name in ("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "ffn_size", "max_length"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be an even multiple of heads {self.heads}: "
                "rotary positions turn pairs of coordinates of every head"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.attention not in get_args(Attention):
            raise ValueError(f"attention must be one of {get_args(Attention)}, got {self.attention!r}")
        if self.shifted and self.attention == "causal":
            raise ValueError("a causal model tells of the next token as it is: shifted is for attention bidirectional")

    @property
    def lag(self) -> int:
        """How many places before a token the layers compute the state that tells of it: 1 for the next token."""
        return 1 if self.shifted or self.attention == "causal" else 0

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.heads


NAMED_SIZES: dict[str, ModelConfig] = {
    "tiny": ModelConfig(heads=8, init_std=0.05),
    "illada_tiny": ModelConfig(
        vocab_size=3072, hidden_size=224, layers=6, heads=8, kv_heads=2, ffn_size=576, max_length=512, init_std=0.05
    ),
    "small": ModelConfig(
        vocab_size=16_384,
        hidden_size=512,
        layers=10,
        heads=8,
        kv_heads=2,
        ffn_size=1408,
        max_length=2048,
        init_std=0.035,
    ),
    "base": ModelConfig(
        vocab_size=32_768,
        hidden_size=768,
        layers=16,
        heads=12,
        kv_heads=4,
        ffn_size=2304,
        max_length=2048,
        init_std=0.03,
    ),
    "1b": ModelConfig(
        vocab_size=65_536, hidden_size=2048, layers=20, heads=16, kv_heads=4, ffn_size=6144, max_length=4096
    ),
    # iLLaDA, arXiv 2606.25331, Table 1. Its rope_theta and norm eps are not published: those two are our choice.
    "illada_8b": ModelConfig(
        vocab_size=155_136,
        hidden_size=4096,
        layers=32,
        heads=32,
        kv_heads=8,
        ffn_size=14_336,
        max_length=8192,
        rope_theta=500_000.0,
        norm_eps=1e-5,
    ),
    # LLaDA, arXiv 2502.09992, and its published config.json
    "llada_8b": ModelConfig(
        vocab_size=126_464,
        hidden_size=4096,
        layers=32,
        heads=32,
        kv_heads=32,
        ffn_size=12_288,
        max_length=4096,
        rope_theta=500_000.0,
        norm_eps=1e-5,
        tied_head=False,
    ),
}
"""Configurations by name. `tiny` to `1b` are ours; the two 8B shapes are published."""


def named_size(name: str) -> ModelConfig:
    """The configuration called `name`.

    Raises:
        ValueError: no such name; the message lists those there are.
    """
    if name not in NAMED_SIZES:
        raise ValueError(f"no model size is called {name!r}; there are: {', '.join(NAMED_SIZES)}")
    return NAMED_SIZES[name]
