"""Prompts that fit the context: examples go first, then the beginning of the text."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from illada.evaluate.task import Question

_TURN = 8
"""Tokens that a chat template may put around a turn, or that a text may have more once something stands around it; with
room to spare."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """How much a model holds, and how its text is counted."""

    context: int
    """Positions."""
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]

    def reserve(self, wanted: int) -> int:
        """Tokens kept free for a written answer of at most `wanted`: all, or at least a quarter of the context."""
        return min(wanted, self.context // 4)


def fit(question: Question, room: Room, *, kept: int, chat: bool) -> tuple[Question, str]:
    """The question with as many of its examples as leave `kept` tokens free behind it; and what was left out.

    The examples that stand first are left out first. Where the question does not fit even without any, its
    beginning is cut off.
    """
    limit = room.context - kept
    shots = question.shots
    while tokens_of(question, room, chat=chat) > limit and question.shots:
        question = replace(question, shots=question.shots[1:])
    note = "" if question.shots == shots else f"{len(question.shots)} of {len(shots)} examples fit the context"
    over = tokens_of(question, room, chat=chat) - limit
    if over <= 0:
        return question, note
    ask = room.decode(room.encode(question.ask)[over:])
    notes = [note] if note else []
    return replace(question, preface="", ask=ask), "; ".join([*notes, "its beginning does not fit the context"])


def tokens_of(question: Question, room: Room, *, chat: bool) -> int:
    """At most so many tokens has its prompt, as turns or as one text."""
    return len(room.encode(question.text)) + (_TURN * (2 * len(question.shots) + 2) if chat else _TURN)
