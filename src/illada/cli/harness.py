"""`illada lm-eval`: the command line of EleutherAI's lm-evaluation-harness, with models of ours."""

from illada.harness.command import run


def command(arguments: list[str]) -> int:
    """Hand the arguments on."""
    run(arguments)
    return 0
