"""Dialogues from JSON lines, and the examples that fine-tuning makes of them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from illada.data.chat import ChatTemplate, Message
from illada.data.formats import json_records
from illada.data.sources import read_spec


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """Turns of a user and an assistant in alternation, behind an optional system turn; the last is the assistant's."""

    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        """Refuse turns out of order."""
        roles = [message.role for message in self.messages]
        turns = roles[1:] if roles[:1] == ["system"] else roles
        expected = ["user", "assistant"] * (len(turns) // 2)
        if not turns or turns != expected:
            raise ValueError(
                "user and assistant must take turns and the assistant must have the last word; got "
                f"{', '.join(roles) or 'no messages'}"
            )
        for message in self.messages:
            if message.role == "assistant" and not message.content.strip():
                raise ValueError("an assistant's message is empty: there is nothing to learn")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A prompt, and the response behind it that ends with one end of text; token ids."""

    prompt: list[int]
    response: list[int]


@dataclass(frozen=True, kw_only=True)
class DialogueSource:
    """A file of JSON lines: `messages`, or the fields `prompt` and `response` (and `system`, where there is one)."""

    path: str
    prompt: str = "prompt"
    response: str = "response"
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight that is no share."""
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"the weight of {self.path} is {self.weight}, but it must be above 0")

    def read(self) -> Iterator[Dialogue]:
        """Every dialogue of the file, `.gz` and `.zst` decompressed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a line is no dialogue; the message names file and line.
        """
        for place, record in json_records(Path(self.path)):
            try:
                yield self._dialogue(record)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error

    def _dialogue(self, row: Any) -> Dialogue:
        if not isinstance(row, Mapping):
            raise ValueError("a line must hold a JSON object")
        if isinstance(row.get("messages"), list):
            return Dialogue(messages=tuple(map(Message.parse, row["messages"])))
        turns = [("user", self.prompt), ("assistant", self.response)]
        if isinstance(row.get("system"), str):
            turns.insert(0, ("system", "system"))
        if missing := [name for _, name in turns if not isinstance(row.get(name), str)]:
            raise ValueError(
                f"there is neither a list of messages nor text in the field {missing[0]!r}; the fields are: "
                f"{', '.join(map(str, row))}"
            )
        return Dialogue(messages=tuple(Message(role=role, content=row[name]) for role, name in turns))


def parse_dialogue_source(spec: str) -> DialogueSource:
    """Read the command-line form `FILE[,prompt=FIELD][,response=FIELD][,weight=W]`.

    Raises:
        ValueError: an unknown key, or a weight that is no number above 0.
    """
    path, values = read_spec(spec, [field.name for field in fields(DialogueSource) if field.name != "path"])
    return DialogueSource(path=path, **values)


def encode_dialogue(dialogue: Dialogue, template: ChatTemplate) -> list[Example]:
    """One example for every answer of the dialogue: all that came before it, then the answer and one end of text."""
    end = template.tokenizer.specials.eos
    return [
        Example(
            prompt=template.encode(dialogue.messages[:turn]),
            response=[*template.tokenizer.encode(message.content.strip()), end],
        )
        for turn, message in enumerate(dialogue.messages)
        if message.role == "assistant"
    ]


def encode_dialogues(dialogues: Iterable[Dialogue], template: ChatTemplate) -> Iterator[list[Example]]:
    """`encode_dialogue` for each."""
    return (encode_dialogue(dialogue, template) for dialogue in dialogues)
