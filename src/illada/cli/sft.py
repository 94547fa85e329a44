"""`illada sft RECIPE --from CHECKPOINT --data FILES`: supervised fine-tuning."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from illada.checkpoint.huggingface.configuration import Overrides
from illada.cli.flags import default_cache, parse, take_recipe
from illada.distributed.processes import speaks_for_all
from illada.recipes.finetuning import FINETUNING, STYLES
from illada.train.sft import SftConfig, run


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Fine-tune a model on dialogues.

    `--data` takes files of JSON lines: `messages`, or `prompt` and `response`
    (`gsm8k.jsonl,prompt=question,response=answer,weight=2`). `--style NAME`, in front of the other flags, is one of
    illada, llada, dllm_var and canvas.
    """

    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """The run, checkpoint, published folder or id on the hub to start from; it must be given."""
    overrides: Annotated[Overrides, tyro.conf.arg(name="")] = field(default_factory=Overrides)
    data: tuple[str, ...] = ()
    """Files of dialogues."""
    config: Annotated[SftConfig, tyro.conf.arg(name="")] = field(default_factory=SftConfig)
    out: Path | None = None
    """The run folder; by default runs/RECIPE-sft."""
    resume: bool = False
    """Go on with the run in that folder from its newest checkpoint."""
    cache: Path = field(default_factory=default_cache)
    """Where encoded dialogues are kept for the next run."""


def command(arguments: list[str]) -> int:
    """Run the recipe that is named first, in the style that is named next, changed by the flags behind them."""
    styles = f"styles: {', '.join(STYLES)}; "
    recipe, flags = take_recipe(arguments, FINETUNING, command="sft", more=styles)
    config, flags = _styled(FINETUNING[recipe](), flags)
    chosen = parse(Arguments, flags, command=f"sft {recipe}", default=Arguments(config=config))
    if chosen.start is None:
        raise ValueError("say what to start from: --from FOLDER, a run or a checkpoint")
    files = chosen.data or chosen.config.instructions.files
    config = replace(chosen.config, instructions=replace(chosen.config.instructions, files=files))
    folder = chosen.out or Path("runs") / f"{recipe}-sft"
    console = Console(stderr=True, quiet=not speaks_for_all())
    outcome = run(
        config,
        folder,
        start=chosen.start,
        cache=chosen.cache,
        overrides=chosen.overrides,
        resume=chosen.resume,
        console=console,
    )
    if outcome.stopped_by:
        console.print(
            f"left at step {outcome.steps} ({outcome.stopped_by}): add --resume to go on", markup=False, highlight=False
        )
    Console(quiet=not speaks_for_all()).print(str(outcome.checkpoint), markup=False, highlight=False, soft_wrap=True)
    return 0


def _styled(config: SftConfig, flags: list[str]) -> tuple[SftConfig, list[str]]:
    """The recipe in the style that the flags name, and the flags without it: single fields are changed afterwards."""
    if "--style" not in flags:
        return config, flags
    place = flags.index("--style")
    name = flags[place + 1] if place + 1 < len(flags) else ""
    if name not in STYLES:
        raise ValueError(f"no style is called {name!r}; there are: {', '.join(STYLES)}")
    return STYLES[name](config), flags[:place] + flags[place + 2 :]
