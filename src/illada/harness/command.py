"""lm-eval's command line with the model `illada` in it."""

import sys
from collections.abc import Sequence

from illada.harness.model import NAME

_RUN = "run"


def run(arguments: Sequence[str]) -> None:
    """Do what `lm-eval` does with these arguments; see `with_defaults`."""
    from lm_eval.__main__ import cli_evaluate  # `illada.harness.model` has said how to install it

    before = sys.argv
    sys.argv = ["lm-eval", *with_defaults(arguments)]  # it reads them there
    try:
        cli_evaluate()
    finally:
        sys.argv = before


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """The arguments, and in front of those of an evaluation `--model illada` and `--batch_size auto`.

    What is named already stays, and a file of settings (`--config`) decides by itself. Without a sub-command it is
    `run`, whose help is shown, too.
    """
    given = list(arguments)
    command, flags = (given[0], given[1:]) if given and not given[0].startswith("-") else (_RUN, given)
    if command != _RUN or not flags:
        return given
    if {"-h", "--help"} & set(flags) or _named(flags, "--config", "-C"):
        return [_RUN, *flags]
    model = [] if _named(flags, "--model", "-M") else ["--model", NAME]
    batch = [] if _named(flags, "--batch_size", "-b") else ["--batch_size", "auto"]
    return [_RUN, *model, *batch, *flags]


def _named(flags: Sequence[str], long: str, short: str) -> bool:
    return any(flag == long or flag.startswith((f"{long}=", short)) for flag in flags)
