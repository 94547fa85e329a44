"""What commands print: text for people, JSON for programs."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console

from illada.demo.live import DenoisingView, printable
from illada.demo.watch import watch
from illada.pipeline import LanguageModel
from illada.sample.request import Completion
from illada.sample.sampler import OnStep


def print_completion(completion: Completion, *, as_json: bool) -> None:
    """The text on standard output, and a line about it on standard error; or one JSON object."""
    if as_json:
        print(json.dumps(asdict(completion)))  # noqa: T201  # for programs: no wrapping, no colours
        return
    # the text as it is, but for control characters and what the terminal cannot write
    print(printable(completion.text, encoding=sys.stdout.encoding or "utf-8"))  # noqa: T201
    Console(stderr=True, highlight=False).print(
        f"[dim]{len(completion.tokens)} tokens, {completion.forwards} forwards, {completion.seconds:.2f} s, "
        f"finished by {completion.finish_reason}[/dim]"
    )


@contextmanager
def watched(model: LanguageModel, *, enabled: bool, title: str) -> Iterator[OnStep | None]:
    """A callback that draws the denoising on standard error, or None."""
    if not enabled:
        yield None
        return
    with DenoisingView(Console(stderr=True), title=title) as view:
        yield watch(view, model.tokenizer)
