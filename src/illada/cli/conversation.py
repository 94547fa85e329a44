"""A conversation at the keyboard: its turns, its settings, and the commands that change them. No input or output."""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import get_args

from illada.durable import write_text
from illada.pipeline import LanguageModel
from illada.sample.request import SamplingParams

HELP = """/reset              forget the conversation
/save FILE          write it as JSON, in the form that `illada sft` reads
/settings           show how answers are sampled
/settings NAME VALUE   change it: /settings temperature 0.7
/quit               leave (so does the end of input)"""

_SHOWN = ("length", "canvas", "block_length", "steps", "temperature", "top_p", "guidance", "unmasking", "seed")
_LEAST_ROOM = 16
"""Tokens that an answer must have room for; before that the oldest turns are forgotten."""


@dataclass(kw_only=True)
class Conversation:
    """What has been said, and how the next answer is sampled."""

    model: LanguageModel
    params: SamplingParams
    system: str | None = None
    turns: list[dict[str, str]] = field(default_factory=list)

    def messages(self, question: str) -> list[dict[str, str]]:
        """Everything said so far, and the next question."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*first, *self.turns, {"role": "user", "content": question}]

    def make_room(self, question: str) -> int:
        """Forget the oldest turns until the next question leaves room for an answer; returns how many."""
        limit, forgotten = self.model.transformer.config.max_length, 0
        while self.turns and len(self.model.chat_template.encode(self.messages(question))) + _LEAST_ROOM > limit:
            del self.turns[:2]
            forgotten += 2
        return forgotten

    def answered(self, question: str, answer: str) -> None:
        """Remember a question and its answer."""
        self.turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def command(self, line: str) -> str:
        """Carry out a line that begins with a slash (but /quit) and say what happened.

        Raises:
            ValueError: there is no such command, or it was given wrongly.
            OSError: the file cannot be written.
        """
        name, *words = line.split()
        if name == "/reset":
            self.turns.clear()
            return "the conversation is forgotten"
        if name == "/save":
            return self._save(words)
        if name == "/settings":
            return self._settings(words)
        if name == "/help":
            return HELP
        raise ValueError(f"there is no command {name}; /help lists them")

    def _save(self, words: list[str]) -> str:
        if len(words) != 1:
            raise ValueError("say where to: /save FILE")
        file = Path(words[0]).expanduser()
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        write_text(file, json.dumps({"messages": [*first, *self.turns]}, ensure_ascii=False) + "\n")
        return f"saved in {file}"

    def _settings(self, words: list[str]) -> str:
        if not words:
            return "\n".join(f"{name:13} {_shown(getattr(self.params, name))}" for name in _SHOWN)
        if len(words) != 2:
            raise ValueError("name one setting and its value: /settings temperature 0.7")
        name, text = words
        if name not in _SHOWN:
            raise ValueError(f"there is no setting {name}; there are: {', '.join(_SHOWN)}")
        self.params = replace(self.params, **{name: _value(name, text)})  # type: ignore[arg-type]  # checked by the parameters
        return f"{name} is {_shown(getattr(self.params, name))}"


def _shown(value: object) -> str:
    return "one per token" if value is None else str(value)


def _value(name: str, text: str) -> object:
    """A setting from its text, in the type its field has."""
    kind = next(field.type for field in fields(SamplingParams) if field.name == name)
    if text == "none" and type(None) in get_args(kind):
        return None
    number = float if kind is float else int if kind is int or int in get_args(kind) else None
    try:
        return text if number is None else number(text)
    except ValueError as error:
        raise ValueError(f"{name} takes a number, got {text!r}") from error
