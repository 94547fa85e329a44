"""Dispatch to a sub-command, and turn errors into one line and an exit code.

0  done, or stopped by a signal with its work saved
1  it failed: the disk is full, a library is missing
2  it was asked for wrongly: an unknown flag, a missing file, values that do not fit
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from illada._version import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("illada.cli.demo", "train, generate, infill and solve sudoku in five minutes; writes report.html"),
    "pretrain": ("illada.cli.pretrain", "pre-train a model from text"),
    "sft": ("illada.cli.sft", "fine-tune a model on dialogues"),
    "skills": ("illada.cli.skills", "write problems with exact answers, to train on"),
    "eval": ("illada.cli.eval", "measure how well a model solves tasks"),
    "compare": ("illada.cli.compare", "compare ways to train over several seeds, everything else held fixed"),
    "bench": ("illada.cli.bench", "quality against speed of the settings of generation"),
    "lm-eval": ("illada.cli.harness", "evaluate by EleutherAI's lm-evaluation-harness"),
    "score": ("illada.cli.score", "how probable each of some answers is"),
    "perplexity": ("illada.cli.perplexity", "nats per token and bits per byte of texts"),
    "generate": ("illada.cli.generate", "continue a prompt"),
    "chat": ("illada.cli.chat", "talk to a model"),
    "infill": ("illada.cli.infill", "write what stands between a prefix and a suffix"),
    "export": ("illada.cli.export", "write the weights of a run without what only training needs"),
    "plan": ("illada.cli.plan", "memory per GPU, a division that fits, days and disk of a recipe"),
    "describe": ("illada.cli.describe", "parameters, memory and FLOPs of a named size"),
}
"""Sub-commands: the module that holds `command(arguments)`, imported when called, and a line of help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    return _guarded(_dispatch, arguments)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())  # noqa: T201  # the command line is where printing belongs
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"illada {__version__}")  # noqa: T201
        return 0
    if arguments[0] not in COMMANDS:
        return _complain(f"there is no command {arguments[0]!r}; there are: {', '.join(COMMANDS)}", code=2)
    command: Callable[[list[str]], int] = import_module(COMMANDS[arguments[0]][0]).command
    return command(arguments[1:])


def _guarded(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    try:
        try:
            return command(arguments)
        finally:
            # a reader that has gone, or a full disk, is noticed here and not when Python exits
            sys.stdout.flush()
    except BrokenPipeError:
        # whoever read our output has seen enough; what Python would still flush has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        return _complain(str(error), code=2)
    except (OSError, ImportError, FloatingPointError) as error:
        return _complain(str(error), code=1)
    except KeyboardInterrupt:
        return _complain("interrupted", code=130)


def _complain(message: str, *, code: int) -> int:
    if os.environ.get("ILLADA_DEBUG") and sys.exc_info()[0] is not None:
        raise  # called from an except block only
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # as torchrun says it
    # what was asked for wrongly, all processes of a machine find alike: one says it
    if not several or code != 2 or os.environ.get("LOCAL_RANK", "0") == "0":
        speaker = f"process {os.environ.get('RANK', '0')}: " if several else ""
        print(f"illada: {speaker}{message}", file=sys.stderr)  # noqa: T201
    return code


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            f"illada {__version__}: masked diffusion language models",
            "",
            "usage: illada COMMAND [OPTIONS]    (illada COMMAND --help says more)",
            "",
            *lines,
        ]
    )
