"""Many texts through few forwards: what the rules of scoring ask for is collected, made one batch, and handed back.

    rules (generators) -- Look: which positions to hide --> rows --> one forward --> log-probabilities --> rules

A rule scores one candidate. It yields a `Look` for every set of rows that it can ask for without knowing the result of
another, and is sent what was seen. Rows of all candidates at work share forwards up to a number of positions, the
shortest first, and rows of other lengths only while little of the forward is padding. Equal rows are computed once: at
the first step the candidates of one question often are the same row of masks.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from illada.model.transformer import Transformer

PADDING = -1
PADDING_SHARE = 1 / 16
"""Of the positions that a forward may have: more padding costs more than another forward does."""
LOGITS_AT_A_TIME = 1 << 24
"""64 MiB in fp32."""

Bools = NDArray[np.bool_]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Look:
    """Some rows of one candidate: which positions of its target are hidden, and of which the probability is asked."""

    hidden: Bools
    """[rows, target]"""
    wanted: Bools
    """[rows, target]"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the model says at the wanted positions, in the order of `Look`; 0 and False elsewhere."""

    log_probabilities: NDArray[np.float32]
    """[rows, target]: of the target's own token, in nats."""
    top_log_probabilities: NDArray[np.float32]
    """[rows, target]: of the likeliest token."""
    is_top: Bools
    """[rows, target]: the target's own token is the likeliest."""


Rule = Generator[Look, Seen, T]
"""Scores one candidate, and returns what came of it."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A text of which the target is scored: prompt, target, and what may stand behind it."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    behind: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.target) + len(self.behind)


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[T]):
    """A rule's result, and what it cost."""

    value: T
    forwards: int
    """Rows that it asked for; guidance counts two for one."""
    positions: int
    """Token positions of those rows. What shared rows saved is not taken off."""


@dataclass(frozen=True, kw_only=True)
class Forwards:
    """How rows become log-probabilities."""

    model: Transformer
    mask_id: int
    guidance: float = 0.0
    """w of classifier-free guidance: logits = unconditional + (w + 1) (conditional - unconditional)."""
    positions: int = 1024
    """Token positions of a forward at most; a single row may be longer."""

    @torch.inference_mode()
    def run(
        self,
        candidates: Sequence[Candidate],
        rule: Callable[[Candidate], Rule[T]],
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Outcome[T]]:
        """Score every candidate. `on_progress` is called with the number of finished ones.

        Raises:
            ValueError: a candidate without a target, or one that the model's context does not hold.
        """
        self._check(candidates)
        order = sorted(range(len(candidates)), key=lambda number: candidates[number].length)
        unfinished = deque(_Job(number, candidates[number], rule(candidates[number])) for number in order)
        outcomes: dict[int, Outcome[T]] = {}
        while unfinished:
            batch: _Batch[T] = _Batch(limit=self.positions, guided=self.guidance != 0, mask_id=self.mask_id)
            while unfinished and batch.takes(unfinished[0]):
                batch.add(unfinished.popleft())
            self._look(batch)
            for job in reversed(batch.jobs):  # so that the shortest is in front again
                if job.unfinished():
                    unfinished.appendleft(job)
                else:
                    outcomes[job.number] = job.outcome(rows_per_look=2 if self.guidance else 1)
            if on_progress is not None:
                on_progress(len(outcomes))
        return [outcomes[number] for number in range(len(candidates))]

    @property
    def _shift(self) -> int:
        return 1 if self.model.config.attention == "causal" else 0

    def _check(self, candidates: Sequence[Candidate]) -> None:
        limit = self.model.config.max_length
        for candidate in candidates:
            if not candidate.target:
                raise ValueError("a candidate has 0 tokens: there is nothing to score")
            if len(candidate.prompt) < self._shift:
                raise ValueError("a causal model scores what follows a prompt, which has 0 tokens: begin it with BOS")
            if self.mask_id in candidate.target:
                raise ValueError(f"a candidate contains the token [MASK] ({self.mask_id}): give clean text")
            if candidate.length > limit:
                raise ValueError(
                    f"prompt and candidate have {candidate.length} tokens, but the model's context holds {limit}: "
                    "shorten the prompt"
                )

    def _look(self, batch: "_Batch[T]") -> None:
        """One forward over the batch's rows; every job gets its part."""
        hidden = self._hidden(batch.rows)
        pairs = batch.pairs()
        device = hidden.device
        # a causal model tells at each position of the token behind it
        position = (pairs.position - self._shift).to(device)
        conditional = hidden[pairs.row.to(device), position]
        unconditional = None
        if pairs.unconditional is not None:
            unconditional = hidden[pairs.unconditional.to(device), position]
        batch.hand_back(*self._log_probabilities(conditional, unconditional, pairs.target.to(device)))

    def _hidden(self, rows: Sequence[NDArray[np.int64]]) -> Tensor:
        """Hidden states [rows, longest, hidden]."""
        longest = max(map(len, rows))
        tokens = torch.full((len(rows), longest), self.mask_id)
        segments = torch.full((len(rows), longest), PADDING)
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = torch.from_numpy(row)
            segments[number, : len(row)] = 0
        device = self.model.embedding.weight.device
        unequal = any(len(row) < longest for row in rows)
        hidden: Tensor = self.model(tokens.to(device), segments.to(device) if unequal else None)
        return hidden

    def _log_probabilities(
        self, conditional: Tensor, unconditional: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the targets, of the likeliest tokens, and whether these are the targets: each [pairs], on the CPU."""
        step = max(1, LOGITS_AT_A_TIME // self.model.config.vocab_size)
        parts = []
        for start in range(0, len(targets), step):
            part = slice(start, start + step)
            logits = self.model.logits(conditional[part]).float()
            if unconditional is not None:
                base = self.model.logits(unconditional[part]).float()
                logits = base + (self.guidance + 1) * (logits - base)
            total = logits.logsumexp(dim=-1)
            own = logits.gather(1, targets[part, None])[:, 0]
            top, best = logits.max(dim=-1)
            parts.append((own - total, top - total, best == targets[part]))
        own, top, best = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        return own, top, best


@dataclass(kw_only=True)
class _Pairs:
    """Where the answers of a batch are: [pairs] each."""

    row: Tensor
    position: Tensor
    target: Tensor
    unconditional: Tensor | None


class _Job(Generic[T]):
    """A candidate, its rule, and what the rule asks for now. A `Look` of many rows is answered in several forwards."""

    def __init__(self, number: int, candidate: Candidate, rule: Rule[T]) -> None:
        self.number = number
        self.candidate = candidate
        self._rule = rule
        self._result: T | None = None
        self._forwards = 0
        self._base = np.array((*candidate.prompt, *candidate.target, *candidate.behind), dtype=np.int64)
        self._target = np.array(candidate.target, dtype=np.int64)
        self._begun = False

    def begin(self) -> None:
        """Ask the rule for its first look: not before there is room for it, since a look may be large."""
        if not self._begun:
            self._begun = True
            self._expect(next(self._rule))

    def _expect(self, look: Look) -> None:
        self.look = look
        self.asked = 0
        """Rows of the look that a batch has taken."""
        shape = look.hidden.shape
        self._own = np.zeros(shape, dtype=np.float32)
        self._top = np.zeros(shape, dtype=np.float32)
        self._is_top = np.zeros(shape, dtype=np.bool_)

    def left(self) -> int:
        """Rows of the look that no batch has taken."""
        return len(self.look.hidden) - self.asked

    def row(self, number: int, mask_id: int) -> NDArray[np.int64]:
        """The text with the positions of one row of the look hidden."""
        row = self._base.copy()
        start = len(self.candidate.prompt)
        row[start : start + len(self._target)][self.look.hidden[number]] = mask_id
        return row

    def unconditional(self, row: NDArray[np.int64], mask_id: int) -> NDArray[np.int64]:
        """The same with the whole prompt hidden."""
        row = row.copy()
        row[: len(self.candidate.prompt)] = mask_id
        return row

    def wanted(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(positions in the row, tokens) that are asked for in one row of the look."""
        where = self.look.wanted[number].nonzero()[0]
        return where + len(self.candidate.prompt), self._target[where]

    def receive(self, number: int, own: Tensor, top: Tensor, is_top: Tensor) -> None:
        """The answer for one row of the look."""
        where = self.look.wanted[number]
        self._own[number, where] = own.numpy()
        self._top[number, where] = top.numpy()
        self._is_top[number, where] = is_top.numpy()

    def unfinished(self) -> bool:
        """Give the rule its answer when all rows are there; False when it has returned."""
        if self.left():
            return True
        self._forwards += len(self.look.hidden)
        try:
            self._expect(
                self._rule.send(Seen(log_probabilities=self._own, top_log_probabilities=self._top, is_top=self._is_top))
            )
        except StopIteration as end:
            self._result = end.value
            return False
        return True

    def outcome(self, *, rows_per_look: int) -> Outcome[T]:
        """What the rule returned."""
        assert self._result is not None
        forwards = self._forwards * rows_per_look
        return Outcome(value=self._result, forwards=forwards, positions=forwards * self.candidate.length)


@dataclass(kw_only=True)
class _Batch(Generic[T]):
    """Rows for one forward, each only once, and who asked for which."""

    limit: int
    guided: bool
    mask_id: int
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    jobs: list[_Job[T]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._asked: list[tuple[_Job[T], int, int, int]] = []
        """(who, row of the look, place among the rows, place of the unconditional row or -1)"""
        self._longest = 0
        self._filled = 0
        """Positions that are not padding."""

    def takes(self, job: _Job[T]) -> bool:
        """Is the job's next row here already, or is there room for one as long?"""
        if not self.rows:
            return True
        length, more = job.candidate.length, 2 if self.guided else 1
        positions = (len(self.rows) + more) * max(self._longest, length)
        padding = positions - self._filled - more * length
        if positions <= self.limit and padding <= PADDING_SHARE * self.limit:
            return True
        return all(row.tobytes() in self._places for row in self._next_rows(job))

    def _next_rows(self, job: _Job[T]) -> list[NDArray[np.int64]]:
        """The row that the job asks for next, and the unconditional one in front of it where there is guidance."""
        job.begin()
        row = job.row(job.asked, self.mask_id)
        return [job.unconditional(row, self.mask_id), row] if self.guided else [row]

    def add(self, job: _Job[T]) -> None:
        """Take as many of the job's rows as there is room for, at least one."""
        self.jobs.append(job)
        job.begin()
        while job.left() and self.takes(job):
            places = [self._place(row) for row in self._next_rows(job)]
            self._asked.append((job, job.asked, places[-1], places[0] if self.guided else -1))
            job.asked += 1

    def pairs(self) -> _Pairs:
        """Every wanted position of every row that was asked for."""
        parts = []
        for job, number, place, unconditional in self._asked:
            where, tokens = job.wanted(number)
            parts.append(np.stack((np.full_like(where, place), where, tokens, np.full_like(where, unconditional))))
        row, position, target, other = torch.from_numpy(np.concatenate(parts, axis=1))
        return _Pairs(row=row, position=position, target=target, unconditional=other if self.guided else None)

    def hand_back(self, *answers: Tensor) -> None:
        """Each job its part of the pairs, in their order."""
        counts = [int(job.look.wanted[number].sum()) for job, number, _, _ in self._asked]
        columns: Iterator[tuple[Tensor, ...]] = zip(*(torch.split(each, counts) for each in answers), strict=True)
        for (job, number, _, _), parts in zip(self._asked, columns, strict=True):
            job.receive(number, *parts)

    def _place(self, row: NDArray[np.int64]) -> int:
        key = row.tobytes()
        if key not in self._places:
            self._places[key] = len(self.rows)
            self.rows.append(row)
            self._filled += len(row)
            self._longest = max(self._longest, len(row))
        return self._places[key]
