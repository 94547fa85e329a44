"""Flags from dataclasses, through tyro."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import tyro

T = TypeVar("T")


def parse(what: type[T], arguments: Sequence[str], *, command: str, default: T | None = None) -> T:
    """Read `arguments` into a dataclass; an unknown flag prints one message and exits with code 2.

    A field that may be one of several dataclasses takes the flags of the one that is its default.
    """
    program, config = f"illada {command}", (tyro.conf.AvoidSubcommands,)
    if default is None:
        return tyro.cli(what, args=list(arguments), prog=program, config=config)
    return tyro.cli(what, args=list(arguments), prog=program, default=default, config=config)


def default_cache() -> Path:
    """$ILLADA_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("ILLADA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "illada"
