"""`illada chat`: a conversation in the terminal, in which one sees the masks turn into text."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.live import Live
from rich.text import Text

from illada.assets import INSTRUCT, fast_settings
from illada.cli.conversation import Conversation
from illada.cli.flags import default_cache, parse
from illada.cli.loading import Loading
from illada.demo.live import printable
from illada.sample.request import Completion, SamplingParams

_PROMPT = "you> "


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Talk to a model. In the conversation, /help lists the commands.

    Where standard input is no terminal, every line is a question and every answer a paragraph on standard output.
    """

    model: Path = Path(INSTRUCT)
    """A run, a checkpoint, tiny or tiny-instruct, a published folder, or an id on the hub."""
    params: Annotated[SamplingParams, tyro.conf.arg(name="")] = field(
        default_factory=lambda: SamplingParams(length=256)
    )
    fast: bool = False
    """The cheapest settings that lose nothing, as far as they are known for the model: caching, unmasking, block."""
    system: str | None = None
    """Instructions that stand in front of the conversation."""
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)


def command(arguments: list[str]) -> int:
    """Load the model and talk until the input ends."""
    chosen = parse(Arguments, arguments, command="chat")
    params = replace(chosen.params, **fast_settings(str(chosen.model))) if chosen.fast else chosen.params
    model = chosen.loading.load(chosen.model)
    conversation = Conversation(model=model, params=params, system=chosen.system)
    _ = model.chat_template  # a model without one is refused before the first question
    if sys.stdin.isatty() and sys.stdout.isatty():
        with _history(default_cache() / "chat_history"):
            _at_terminal(conversation, Console(), name=chosen.model.name)
    else:
        _through_pipe(conversation)
    return 0


def _through_pipe(conversation: Conversation) -> None:
    """One answer for every line; commands work, their results go to standard error."""
    for line in sys.stdin:
        question = line.strip()
        if question == "/quit":
            return
        if question.startswith("/"):
            _obey(conversation, question, Console(stderr=True))
        elif question:
            try:
                conversation.make_room(question)
                [completion] = conversation.model.chat([conversation.messages(question)], conversation.params)
            except ValueError as error:  # a question that fills the context, say: the next may not
                print(f"illada: {error}", file=sys.stderr)  # noqa: T201
                continue
            conversation.answered(question, completion.text)
            print(printable(completion.text, encoding=sys.stdout.encoding or "utf-8"), flush=True)  # noqa: T201


def _at_terminal(conversation: Conversation, console: Console, *, name: str) -> None:
    console.print(f"[dim]{name}; /help lists the commands, Ctrl-C stops an answer[/dim]", highlight=False)
    while True:
        try:
            question = input(_PROMPT).strip()
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print("\n[dim]/quit leaves[/dim]", highlight=False)
            continue
        if question == "/quit":
            return
        if question.startswith("/"):
            _obey(conversation, question, console)
        elif question:
            _answer(conversation, question, console)


def _obey(conversation: Conversation, line: str, console: Console) -> None:
    try:
        told = conversation.command(line)
    except (ValueError, OSError) as error:
        told = str(error)
    console.print(told, style="dim", markup=False, highlight=False)


def _answer(conversation: Conversation, question: str, console: Console) -> None:
    """Show an answer as it comes into being; Ctrl-C keeps what is certain of it."""
    certain, completion = "", None
    try:
        if forgotten := conversation.make_room(question):
            told = f"the oldest {forgotten} turns are forgotten: the context is full"
            console.print(told, style="dim", highlight=False)
        chunks = conversation.model.stream_chat(conversation.messages(question), conversation.params, provisional=True)
        with Live(console=console, auto_refresh=False, transient=True) as live, contextlib.closing(chunks):
            for chunk in chunks:
                certain += chunk.text
                completion = chunk.completion
                live.update(_drawn(certain, chunk.provisional or "", console), refresh=True)
    except KeyboardInterrupt:
        console.print("[dim]stopped[/dim]")
    except ValueError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return
    console.print(_drawn(certain, "", console), soft_wrap=True)
    if completion is not None:
        console.print(_told(completion), style="dim", highlight=False)
    conversation.answered(question, certain)


def _drawn(certain: str, provisional: str, console: Console) -> Text:
    text = Text(printable(certain, encoding=console.encoding), overflow="fold")
    return text.append(printable(provisional, encoding=console.encoding), style="bright_black")


def _told(completion: Completion) -> str:
    ended = "" if completion.finish_reason == "stop" else f", cut off by its {completion.finish_reason}"
    return f"{len(completion.tokens)} tokens, {completion.forwards} forwards, {completion.seconds:.2f} s{ended}"


@contextlib.contextmanager
def _history(file: Path) -> Iterator[None]:
    """Questions of earlier conversations under the arrow keys, where the system's readline has them."""
    try:
        import readline  # only some platforms have it
    except ImportError:
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        readline.set_history_length(1000)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)
