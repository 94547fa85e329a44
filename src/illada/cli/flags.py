"""Flags from dataclasses, through tyro."""

import contextlib
import io
import os
import re
from collections.abc import Collection, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console

T = TypeVar("T")


def parse(what: type[T], arguments: Sequence[str], *, command: str, default: T | None = None) -> T:
    """Read `arguments` into a dataclass.

    A field that may be one of several dataclasses takes the flags of the one that is its default.

    Raises:
        ValueError: an unknown or missing flag, or a value out of its range, in one line.
    """
    program, config = f"illada {command}", (tyro.conf.AvoidSubcommands,)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if default is None:
                return tyro.cli(what, args=list(arguments), prog=program, config=config)
            return tyro.cli(what, args=list(arguments), prog=program, default=default, config=config)
    except SystemExit as leaving:
        if leaving.code in (0, None):  # --help
            raise
        raise ValueError(f"{_first_paragraph(complaint.getvalue())}; {program} --help lists the flags") from None


def take_recipe(
    arguments: list[str], recipes: Collection[str], *, command: str, more: str = ""
) -> tuple[str, list[str]]:
    """(the recipe that is named first, the flags behind it); for --help alone, the flags of `tiny`.

    Raises:
        ValueError: no recipe is named, or an unknown one; the message lists those there are.
    """
    names = ", ".join(recipes)
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] not in recipes:
            raise ValueError(f"no recipe is called {arguments[0]!r}; there are: {names}")
        return arguments[0], arguments[1:]
    if not {"--help", "-h"} & set(arguments):
        raise ValueError(f"name a recipe: illada {command} RECIPE, one of {names}")
    Console().print(f"recipes: {names}; {more}the defaults below are those of tiny\n")
    return "tiny", arguments


def default_cache() -> Path:
    """$ILLADA_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("ILLADA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "illada"


def _first_paragraph(box: str) -> str:
    """What tyro's framed message says first, as one line: up to the rule that parts it from its advice.

    The frame is drawn with dashes and bars where the terminal has no better.
    """
    lines = [line.strip(" │╭╮╰╯|+") for line in box.splitlines()]
    inside = [line for line in lines[1:] if line]
    first = list(dropwhile(_is_rule, inside))
    said = " ".join(takewhile(lambda line: not _is_rule(line), first))
    return re.sub(r"^Error parsing \w+: ", "", said).removesuffix(".")


def _is_rule(line: str) -> bool:
    return set(line) <= {"─", "-"}
