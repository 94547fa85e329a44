"""Chat template -> token ids, in which the text of users never becomes a special token.

A template is Jinja text, as Hugging Face tokenizers carry it. What comes from messages is protected before it is
rendered, so that every special token in the result was written by the template.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox

from illada.data.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")

_PRIVATE_USE = range(0xF0000, 0xFFFFE)
_NO_SYSTEM = "system role not supported"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a dialogue."""

    role: str
    content: str

    def __post_init__(self) -> None:
        """Refuse roles that no template knows."""
        if self.role not in ROLES:
            raise ValueError(f"the role of a message must be one of {', '.join(ROLES)}; got {self.role!r}")

    @classmethod
    def parse(cls, value: object) -> "Message":
        """A message from {"role": ..., "content": ...}.

        Raises:
            ValueError: it has another form.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("content"), str):
            raise ValueError(f'a message has the form {{"role": "user", "content": "text"}}; got {value!r}')
        return cls(role=str(value.get("role")), content=value["content"])


class Rendered(str):
    """The text of a dialogue, in which `mark` breaks up every special token that a message spells.

    So those that are whole were written by the template, and text and origin can travel through code that knows
    nothing of it.
    """

    mark: str
    """A character that no message holds."""

    def __new__(cls, text: str, mark: str = "") -> "Rendered":
        """A text, and the mark in it."""
        rendered = super().__new__(cls, text)
        rendered.mark = mark
        return rendered


class ChatTemplate:
    """Turns messages into text and token ids."""

    def __init__(self, tokenizer: Tokenizer, template: str | None = None) -> None:
        """Compile `template`, or that of the tokenizer.

        Raises:
            ValueError: there is none, or it is no Jinja.
        """
        source = tokenizer.chat_template if template is None else template
        if source is None:
            raise ValueError("the tokenizer has no chat template: give one (a file of Jinja text)")
        self.tokenizer, self.source = tokenizer, source
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.globals["raise_exception"] = _raise
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ValueError(f"the chat template is no valid Jinja: {error}") from error
        # the longest first: where one special text begins another, the whole of it is meant
        texts = sorted((text for text in tokenizer.special_texts if text), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, texts)))
        self._beginnings = tuple({text[:size] for text in texts for size in range(1, len(text))})

    def encode(
        self,
        messages: Sequence[Message | Mapping[str, str]],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> list[int]:
        """The token ids of a dialogue.

        The pieces between special tokens are encoded each by itself, as Hugging Face does; so the ids are those of
        its `apply_chat_template`, except that a special token spelt in a message stays text.

        Args:
            messages: the turns, oldest first.
            add_generation_prompt: end with what stands in front of an answer.
            continue_final: end with the last message's content, without what closes its turn.

        Raises:
            ValueError: there is no message, or the template refuses them.
        """
        head, tail = self.split(
            self.rendered(messages, add_generation_prompt=add_generation_prompt, continue_final=continue_final)
        )
        return head + self.tokenizer.encode(tail)

    def render(
        self,
        messages: Sequence[Message | Mapping[str, str]],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> str:
        """The text of a dialogue, special tokens spelt out."""
        text = self.rendered(messages, add_generation_prompt=add_generation_prompt, continue_final=continue_final)
        return text.replace(text.mark, "")

    def rendered(
        self,
        messages: Sequence[Message | Mapping[str, str]],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> Rendered:
        """The text of a dialogue that `split` turns into the ids of `encode`."""
        turns = [Message.parse(message) for message in messages]
        if not turns:
            raise ValueError("there are 0 messages, but a dialogue needs at least 1")
        if continue_final and add_generation_prompt:
            raise ValueError("a dialogue either goes on with its last message or opens a new answer: choose one")
        mark = _unused_character([turn.content for turn in turns])
        plain = [{"role": turn.role, "content": self._protected(turn.content, mark)} for turn in turns]
        text = self._run(plain, add_generation_prompt)
        if continue_final:
            text = _until_end_of(text, str(plain[-1]["content"]))
        return Rendered(text, mark)

    def split(self, text: Rendered) -> tuple[list[int], str]:
        """Token ids up to the last special token that the template wrote, and the text behind it."""
        ids: list[int] = []
        at = 0
        for special in self._special.finditer(text):
            ids += self._encode(text[at : special.start()], text.mark)
            ids.append(self.tokenizer.special_texts[special[0]])
            at = special.end()
        return ids, text[at:].replace(text.mark, "")

    def _encode(self, piece: str, mark: str) -> list[int]:
        return self.tokenizer.encode(piece.replace(mark, "")) if piece else []

    def _protected(self, content: str, mark: str) -> str:
        """The content with `mark` inside every special token it spells, so that none is left to be found.

        The same where it ends like the beginning of one, which the next message could complete.
        """
        while (found := self._special.search(content)) is not None:
            content = content[: found.start() + 1] + mark + content[found.start() + 1 :]
        for beginning in self._beginnings:
            stripped = content.rstrip()
            if stripped.endswith(beginning):
                place = len(stripped) - len(beginning) + 1
                content = content[:place] + mark + content[place:]
        return content

    def _run(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        try:
            return self._filled(messages, add_generation_prompt)
        except jinja2.TemplateError as error:
            if _NO_SYSTEM not in str(error).lower() or messages[0]["role"] != "system" or len(messages) < 2:
                raise ValueError(f"the chat template refuses this dialogue: {error}") from error
        # the rule of iLLaDA's harness: instructions then stand in front of the first question
        system, first, *others = messages
        merged = {"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}
        return self._run([merged, *others], add_generation_prompt)

    def _filled(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        names = {f"{name}_token": text for name, text in self.tokenizer.texts.items()}
        values: dict[str, Any] = {"messages": messages, "add_generation_prompt": add_generation_prompt, **names}
        return self._template.render(**values)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _unused_character(contents: Sequence[str]) -> str:
    used = set().union(*contents)
    return next(character for number in _PRIVATE_USE if (character := chr(number)) not in used)


def _until_end_of(text: str, content: str) -> str:
    """The text up to the end of the last message, which the template may have trimmed."""
    for form in (content, content.strip()):
        if form and form in text:
            return text[: text.rindex(form) + len(form)]
    return text.rstrip()
