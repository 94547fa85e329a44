"""Prompts that fit the context: examples go first, then the beginning of the text."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from illada.evaluate.task import Question

_TURN = 8
"""Tokens that a chat template may put around a turn, with room to spare."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """How much a model holds, and how its text is counted."""

    context: int
    """Positions."""
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]

    def reserve(self, wanted: int) -> int:
        """Tokens kept free for an answer of `wanted`: all, or at least a quarter of the context."""
        return min(wanted, self.context // 4)


def fit(question: Question, room: Room, *, answer: int) -> tuple[Question, str]:
    """The question with as many of its examples as leave room for an answer of `answer` tokens; and what was left out.

    The examples that stand first are left out first. Where the question does not fit even without any, its
    beginning is cut off.
    """
    limit = room.context - room.reserve(answer)
    shots = question.shots
    while tokens_of(question, room) > limit and question.shots:
        question = replace(question, shots=question.shots[1:])
    note = "" if question.shots == shots else f"{len(question.shots)} of {len(shots)} examples fit the context"
    over = tokens_of(question, room) - limit
    if over <= 0:
        return question, note
    asked = room.encode(question.ask)
    kept = room.decode(asked[over:])
    notes = [note] if note else []
    return replace(question, preface="", ask=kept), "; ".join([*notes, "its beginning does not fit the context"])


def tokens_of(question: Question, room: Room) -> int:
    """At most so many tokens has its prompt, as one text or as turns."""
    return len(room.encode(question.text)) + _TURN * (2 * len(question.shots) + 2)
