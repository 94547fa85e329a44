"""Encoded instruction examples on disk, and the continuous stream that can be made of them.

An example is a prompt, a response and one end of text. `InstructionSet` keeps the examples of one file in
memory-mapped arrays; `InstructionStream` lays them one behind the other, so that `PackedRows` can cut windows out of
them (iLLaDA, arXiv 2606.25331, section 2.2: no padding at all). `illada.data.example_rows` keeps them whole.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from illada.data.dialogues import Example
from illada.data.shards import token_dtype
from illada.durable import atomic_folder
from illada.seeding import Stream

_PLACES = np.dtype("<i8")
_WRITTEN_AT_ONCE = 4096  # dialogues


@dataclass(frozen=True, kw_only=True)
class InstructionSet:
    """The examples of one file. A dialogue of k answers is k examples: each answer behind all that came before it."""

    tokens: npt.NDArray[np.unsignedinteger]
    """Prompt, response and end of text of every example, one behind the other."""
    pair_starts: npt.NDArray[np.int64]
    """[examples + 1]: where each begins in `tokens`."""
    prompt_lengths: npt.NDArray[np.int64]
    """[examples]"""
    dialogue_starts: npt.NDArray[np.int64]
    """[dialogues + 1]: the first example of each dialogue; its last example holds the whole dialogue."""

    def __len__(self) -> int:
        """How many dialogues there are."""
        return len(self.dialogue_starts) - 1

    @classmethod
    def open(cls, folder: Path) -> "InstructionSet":
        """Map the arrays that `write_instructions` wrote.

        Raises:
            ValueError: one of them is missing or damaged.
        """
        try:
            described = json.loads((folder / "instructions.json").read_text(encoding="utf-8"))
            arrays = {
                name: _mapped(folder / f"{name}.array", np.dtype(kind), size)
                for name, (kind, size) in described.items()
            }
            return cls(**arrays)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{folder} is not a complete set of prepared instructions: delete it, and it is prepared again"
            ) from error

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """[examples]: tokens of each."""
        return np.diff(self.pair_starts)

    @cached_property
    def whole(self) -> npt.NDArray[np.int64]:
        """[dialogues]: the example that holds the whole dialogue."""
        return np.asarray(self.dialogue_starts[1:]) - 1

    def example(self, pair: int) -> tuple[npt.NDArray[np.int64], int]:
        """The tokens of one example and the length of its prompt."""
        start, stop = self.pair_starts[pair], self.pair_starts[pair + 1]
        return np.asarray(self.tokens[start:stop], dtype=np.int64), int(self.prompt_lengths[pair])


def write_instructions(dialogues: Iterable[Sequence[Example]], folder: Path, *, vocab_size: int) -> int:
    """Write the examples of each dialogue into the new folder `folder`; returns how many dialogues there were.

    Raises:
        OSError: the disk is full, for one; nothing is left behind.
    """
    pair_starts, prompt_lengths, dialogue_starts = [0], [], [0]
    chunks = [np.zeros(0, token_dtype(vocab_size))]
    rest = iter(dialogues)
    while group := list(islice(rest, _WRITTEN_AT_ONCE)):
        for pairs in group:
            for pair in pairs:
                prompt_lengths.append(len(pair.prompt))
                pair_starts.append(pair_starts[-1] + len(pair.prompt) + len(pair.response))
            dialogue_starts.append(dialogue_starts[-1] + len(pairs))
        flat = [token for pairs in group for pair in pairs for token in (*pair.prompt, *pair.response)]
        chunks.append(np.array(flat, chunks[0].dtype))
    arrays = {
        "tokens": np.concatenate(chunks),
        "pair_starts": np.array(pair_starts, _PLACES),
        "prompt_lengths": np.array(prompt_lengths, _PLACES),
        "dialogue_starts": np.array(dialogue_starts, _PLACES),
    }
    with atomic_folder(folder) as partial:
        for name, array in arrays.items():
            (partial / f"{name}.array").write_bytes(array.tobytes())
        described = {name: [array.dtype.str, len(array)] for name, array in arrays.items()}
        (partial / "instructions.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
    return len(dialogue_starts) - 1


def _mapped(file: Path, dtype: np.dtype[Any], size: int) -> npt.NDArray[Any]:
    if file.stat().st_size != size * dtype.itemsize:
        raise ValueError(f"{file} does not hold {size} numbers")
    return np.memmap(file, dtype, mode="r") if size else np.zeros(0, dtype)  # nothing cannot be mapped


class InstructionStream:
    """Whole dialogues one behind the other, in an order that `seed` shuffles: one continuous corpus."""

    def __init__(self, instructions: InstructionSet, *, seed: int) -> None:
        """Lay out the dialogues of `instructions`.

        Raises:
            ValueError: there are none.
        """
        count = len(instructions)
        if count == 0:
            raise ValueError("there are 0 dialogues, but a stream needs at least 1")
        order = Stream(seed, "instructions").permute(torch.arange(count), count).numpy()
        self._instructions = instructions
        self._pairs = instructions.whole[order]
        self._starts = np.concatenate(([0], np.cumsum(instructions.lengths[self._pairs])))

    def __len__(self) -> int:
        """How many tokens there are."""
        return int(self._starts[-1])

    def read(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """The tokens from `start` on."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, start + length, side="left"))
        texts = [self._instructions.example(int(pair))[0] for pair in self._pairs[first:last]]
        offset = start - int(self._starts[first])
        return np.concatenate(texts)[offset : offset + length]

    def document_starts(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """Where dialogues begin among them, counted from `start`."""
        inside = self._starts[np.searchsorted(self._starts, start) : np.searchsorted(self._starts, start + length)]
        return inside - start
