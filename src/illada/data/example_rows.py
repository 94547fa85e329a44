"""Rows of whole examples: prompt, response, end of text, and the filler that a style of fine-tuning puts behind."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from illada.data.instructions import InstructionSet
from illada.data.packing import PADDING, Part, Row
from illada.seeding import Stream

Filler = Literal["none", "batch", "canvas"]


@dataclass(frozen=True, kw_only=True)
class ExamplePacking:
    """How whole examples become rows."""

    length: int = 512
    """Positions of a row; dialogues that need more are left out."""
    one_per_row: bool = False
    """Else as many as fit, one behind the other."""
    isolate: bool = True
    """Examples of one row do not see one another."""
    filler: Filler = "none"
    """Ends of text behind the one that is the example's. batch: up to the longest example of the batch (LLaDA, arXiv
    2502.09992, section 2.3). canvas: up to the end of a canvas of blocks as generation would have it."""
    block_length: int = 32
    """Of the canvas. It has the blocks that the answer needs or, of an answer of several, a random number of its first
    ones: so far generation would have come."""
    long_canvas_probability: float = 0.15
    """Chance of a canvas of 1 .. `longest_canvas` blocks whatever the answer needs: so a fixed canvas is learnt too."""
    longest_canvas: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot be packed."""
        for name in ("length", "block_length", "longest_canvas"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.filler not in get_args(Filler):
            raise ValueError(f"filler must be one of {', '.join(get_args(Filler))}; got {self.filler!r}")
        if self.filler == "batch" and not self.one_per_row:
            raise ValueError("filler up to the longest of the batch needs one_per_row: nothing may stand behind it")
        if not 0 <= self.long_canvas_probability <= 1:
            raise ValueError(f"long_canvas_probability is {self.long_canvas_probability}, but lies between 0 and 1")


class ExampleRows:
    """Numbered rows of the dialogues of one file.

    The seed fixes which dialogues share a row and which of them have a long canvas; which answer of a dialogue is
    learnt behind its history, and how much of a long answer is in sight, is drawn anew in every epoch.
    """

    def __init__(self, instructions: InstructionSet, config: ExamplePacking, *, seed: int, pad: int, eos: int) -> None:
        """Put the dialogues of `instructions` into rows; `left_out` says how many were too long.

        Raises:
            ValueError: none of them fits.
        """
        self.length = config.length
        self._instructions, self._config, self._pad, self._eos = instructions, config, pad, eos
        self._answer_noise, self._sight_noise = Stream(seed, "answer"), Stream(seed, "sight")
        self._canvas = _canvases(len(instructions), config, seed)
        # where a long canvas does not fit, the dialogue has one that it needs
        self._canvas[self._room() > config.length] = 0
        room = self._room()
        fitting = np.flatnonzero(room <= config.length)
        self.left_out = len(instructions) - len(fitting)
        if len(fitting) == 0:
            raise ValueError(
                f"none of the {len(instructions)} dialogues fits into rows of {config.length} tokens: raise the length"
            )
        order = Stream(seed, "instructions").permute(torch.arange(len(fitting)), len(fitting)).numpy()
        self._bins = list(_bins(fitting[order], room, config))
        self.rows = len(self._bins)

    def read(self, row: int, *, example: int, epoch: int) -> Row:  # noqa: ARG002  # its noise goes by the dialogue
        """Row number `row` of `epoch`."""
        tokens = np.full(self.length, self._pad, np.int64)
        segments = np.full(self.length, PADDING, np.int64)
        parts = np.zeros(self.length, np.int64)
        dialogues = torch.tensor(self._bins[row])
        which = self._answer_noise.uniform64(dialogues, 1, epoch=epoch).flatten().tolist()
        sight = self._sight_noise.uniform64(dialogues, 1, epoch=epoch).flatten().tolist()
        at = 0
        for number, dialogue in enumerate(self._bins[row]):
            text, what = self._example(dialogue, which[number], sight[number])
            span = slice(at, at + len(text))
            tokens[span], parts[span] = text, what
            segments[span] = number if self._config.isolate else 0
            at += len(text)
        if self._config.filler == "batch":
            tokens[at:], parts[at:], segments[at:] = self._eos, Part.STRETCH, 0
        return Row(tokens, segments, parts)

    def _room(self) -> npt.NDArray[np.int64]:
        """[dialogues]: the positions that each may need at most."""
        lengths, prompts = self._instructions.lengths, np.asarray(self._instructions.prompt_lengths)
        firsts = np.asarray(self._instructions.dialogue_starts[:-1])
        if self._config.filler == "canvas":
            per_dialogue = np.repeat(self._canvas, np.diff(self._instructions.dialogue_starts))
            needed = -(-(lengths - prompts) // self._config.block_length)
            blocks = np.maximum(needed, per_dialogue)
            lengths = prompts + blocks * self._config.block_length
        return np.maximum.reduceat(lengths, firsts) if len(firsts) else lengths

    def _example(
        self, dialogue: int, which: float, sight: float
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Tokens and parts of one answer of a dialogue, behind its history."""
        first, behind = (int(place) for place in self._instructions.dialogue_starts[dialogue : dialogue + 2])
        text, prompt = self._instructions.example(first + int(which * (behind - first)))
        parts = np.full(len(text), Part.RESPONSE, np.int64)
        parts[:prompt], parts[-1] = Part.PROMPT, Part.END
        if self._config.filler != "canvas":
            return text, parts
        needed = -(-(len(text) - prompt) // self._config.block_length)
        blocks = int(self._canvas[dialogue]) or 1 + int(sight * needed)
        size = prompt + blocks * self._config.block_length
        more = max(0, size - len(text))
        text = np.concatenate((text[:size], np.full(more, self._eos, np.int64)))
        return text, np.concatenate((parts[:size], np.full(more, Part.FILLER, np.int64)))


def _canvases(count: int, config: ExamplePacking, seed: int) -> npt.NDArray[np.int64]:
    """[dialogues]: the blocks of a long canvas, 0 where there is none."""
    draws = Stream(seed, "canvas").uniform64(torch.arange(count), 2).numpy()
    return np.where(draws[:, 0] < config.long_canvas_probability, 1 + (draws[:, 1] * config.longest_canvas), 0).astype(
        np.int64
    )


def _bins(order: npt.NDArray[np.int64], room: npt.NDArray[np.int64], config: ExamplePacking) -> Iterator[list[int]]:
    """Dialogues that share a row, each opened when the next dialogue does not fit into the last."""
    held: list[int] = []
    used = 0
    for dialogue in order.tolist():
        need = int(room[dialogue])
        if held and (config.one_per_row or used + need > config.length):
            yield held
            held, used = [], 0
        held.append(dialogue)
        used += need
    yield held
