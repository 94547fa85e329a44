"""`illada pretrain RECIPE`: from text to checkpoints."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from illada.checkpoint.huggingface.configuration import Overrides
from illada.checkpoint.saved import SavedModel
from illada.checkpoint.source import open_start
from illada.cli.flags import default_cache, parse, take_recipe
from illada.distributed.processes import speaks_for_all
from illada.recipes.pretraining import PRETRAINING
from illada.train.objective import attention_for
from illada.train.pretrain import PretrainConfig, run


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Pre-train a masked diffusion language model.

    Told nothing, it trains on the source code of Python's standard library. `--corpus.sources` takes files, folders
    (`books,glob=**/*.txt`), `.jsonl[.gz|.zst]` (`a.jsonl.gz,field=text,weight=0.7`), `.parquet` and `hf:DATASET`.
    """

    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)
    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Go on with the pre-training of this model: a run, a checkpoint, a published folder, or an id on the hub. Its
    shape and its tokenizer are taken; a causal model becomes a diffusion model."""
    overrides: Annotated[Overrides, tyro.conf.arg(name="")] = field(default_factory=Overrides)
    out: Path | None = None
    """The run folder; by default runs/RECIPE."""
    resume: bool = False
    """Go on with the run in that folder from its newest checkpoint."""
    cache: Path = field(default_factory=default_cache)
    """Where prepared corpora are kept for the next run."""


def command(arguments: list[str]) -> int:
    """Run the recipe that is named first, changed by the flags behind it."""
    recipe, flags = take_recipe(arguments, PRETRAINING, command="pretrain")
    default = Arguments(config=PRETRAINING[recipe]())
    chosen = parse(Arguments, flags, command=f"pretrain {recipe}", default=default)
    folder = chosen.out or Path("runs") / recipe
    console = Console(stderr=True, quiet=not speaks_for_all())
    outcome = run(
        chosen.config,
        folder,
        cache=chosen.cache,
        start=_start(chosen, PRETRAINING[recipe]()),
        resume=chosen.resume,
        console=console,
    )
    if outcome.stopped_by:
        console.print(
            f"left at step {outcome.steps} ({outcome.stopped_by}): add --resume to go on", markup=False, highlight=False
        )
    Console(quiet=not speaks_for_all()).print(str(outcome.checkpoint), markup=False, highlight=False, soft_wrap=True)
    return 0


def _start(chosen: Arguments, recipe: PretrainConfig) -> SavedModel | None:
    """The model to go on with, if there is one."""
    if chosen.start is None:
        if chosen.overrides.given:
            raise ValueError(f"{', '.join(chosen.overrides.given)} is about the model of --from, which is not given")
        return None
    # the objective and --model.attention are given together; the rest of the shape comes from the model
    if replace(chosen.config.model, attention=recipe.model.attention) != recipe.model:
        raise ValueError("the shape of the model comes from --from: leave the flags --model.* out")
    return open_start(chosen.start, chosen.overrides, attention=attention_for(chosen.config.objective))
