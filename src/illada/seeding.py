"""Random numbers that are looked up, not drawn.

A generator with a state gives noise that depends on what was drawn before: on the batch size, the number of
processes, the device. Here every number has an address instead, (seed, purpose, index, epoch, draw), and its value
is a pure function of that address: the Philox4x32-10 block cipher of Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3" (SC 2011), computed in exact integer arithmetic. Example 7 of epoch 2 is masked alike wherever and
whenever it is computed, and a run that resumes needs no generator state.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_FEISTEL_ROUNDS = 4


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Philox4x32-10: four words of counter (int64 tensors that broadcast) -> four random 32-bit words as int64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # a 32 x 32 bit product fills all 64 bits; the sign that int64 reads into it goes with the & below
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = ((product1 >> 32) & _WORD) ^ c1 ^ k0
        c2 = ((product0 >> 32) & _WORD) ^ c3 ^ k1
        c1, c3 = product1 & _WORD, product0 & _WORD
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return [c0, c1, c2, c3]


@dataclass(frozen=True)
class Stream:
    """The random numbers of one `seed` for one `purpose` ("mask", "time", "split" ...), addressed by example.

    Streams of different purposes or seeds are independent. `index` is an int64 tensor of any shape (example numbers,
    say), `epoch` an integer or a tensor that broadcasts with it (below 2³²); results have shape [*index.shape, count]
    and live on the device of `index`.
    """

    seed: int
    purpose: str

    @cached_property
    def key(self) -> tuple[int, int]:
        """The 64-bit cipher key, as two words."""
        digest = hashlib.blake2b(f"{self.purpose}\0{self.seed}".encode(), digest_size=8).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")

    def words(self, index: Tensor, count: int, *, epoch: Tensor | int = 0) -> Tensor:
        """`count` uniform 32-bit words (as int64) for every index."""
        index = index.to(torch.int64).unsqueeze(-1)
        epochs = torch.as_tensor(epoch, dtype=torch.int64, device=index.device).unsqueeze(-1)
        draw = torch.arange(math.ceil(count / 4), dtype=torch.int64, device=index.device)
        block = philox((draw, epochs & _WORD, index & _WORD, (index >> 32) & _WORD), self.key)
        return torch.stack(block, dim=-1).flatten(-2)[..., :count]

    def uniform(self, index: Tensor, count: int, *, epoch: Tensor | int = 0) -> Tensor:
        """`count` float32 numbers in [0, 1), multiples of 2⁻²⁴, for every index."""
        return (self.words(index, count, epoch=epoch) >> 8).to(torch.float32) * 2.0**-24

    def uniform64(self, index: Tensor, count: int, *, epoch: Tensor | int = 0) -> Tensor:
        """`count` float64 numbers strictly between 0 and 1 (52 bits and a half step), for every index."""
        words = self.words(index, 2 * count, epoch=epoch) >> 6
        # with a bit more the half step would not fit a float64, and the largest number would round to 1
        return ((words[..., 0::2] << 26) | words[..., 1::2]).to(torch.float64).add_(0.5).mul_(2.0**-52)

    def permute(self, index: Tensor, size: int, *, epoch: int = 0) -> Tensor:
        """A random permutation of 0 .. size-1, computed element by element: no table, whatever the size.

        A balanced Feistel network on the next even number of bits, walked until it lands below `size`
        (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
        """
        half = max(1, math.ceil((size - 1).bit_length() / 2))
        result = self._feistel(index.to(torch.int64), half, epoch)
        while bool((outside := result >= size).any()):
            result = torch.where(outside, self._feistel(result, half, epoch), result)
        return result

    def _feistel(self, value: Tensor, half: int, epoch: int) -> Tensor:
        low_bits = (1 << half) - 1
        left, right = value >> half, value & low_bits
        for round_number in range(_FEISTEL_ROUNDS):
            # one block of the cipher holds four words: each round takes its own
            word = self.words(right, _FEISTEL_ROUNDS, epoch=epoch)[..., round_number]
            left, right = right, left ^ (word & low_bits)
        return (left << half) | right
