"""A model of any layout -> a folder to give away, of any layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from illada.checkpoint.huggingface.card import card_files, read_run
from illada.checkpoint.huggingface.configuration import Overrides
from illada.checkpoint.huggingface.layouts import LAYOUTS
from illada.checkpoint.huggingface.writer import save_published
from illada.checkpoint.native import save_checkpoint
from illada.checkpoint.saved import SavedModel
from illada.checkpoint.source import open_model

LayoutName = Literal["native", "illada", "llada", "llama", "qwen2", "dream"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What an exported folder looks like."""

    layout: LayoutName = "native"
    """native: a checkpoint of ours, of one file. The others: as such models are published on the hub."""
    dtype: torch.dtype = torch.bfloat16
    shard_bytes: int = 5_000_000_000
    """How large a file of weights may be, in a published layout."""
    title: str | None = None
    """What the model card calls the model: the id it gets on the hub; by default the name of the folder."""
    license_name: str | None = None
    """As the hub writes it: apache-2.0, for one."""

    def __post_init__(self) -> None:
        """Refuse layouts that there are not."""
        if self.layout not in get_args(LayoutName):
            raise ValueError(f"layout must be one of {', '.join(get_args(LayoutName))}; got {self.layout!r}")


def export(
    where: str | Path,
    target: Path,
    config: ExportConfig = ExportConfig(),
    *,
    overrides: Overrides = Overrides(),  # noqa: B008  # it is frozen
) -> SavedModel:
    """Write the model that `where` names (see `illada.checkpoint.source`) to `target`, and return what was read.

    Raises:
        FileExistsError: `target` exists.
        FileNotFoundError: there is no such model.
        ValueError: it is damaged or not supported, or the layout has no words for it.
        OSError: it could not be written: the disk is full, for one.
    """
    saved = open_model(where, overrides)
    if config.layout == "native":
        save_checkpoint(
            target,
            model_config=saved.model_config,
            weights={name: tensor.read().to(config.dtype) for name, tensor in saved.tensors.items()},
            tokenizer=saved.tokenizer,
        )
        return saved
    title = config.title or target.resolve().name
    save_published(
        target,
        saved,
        layout=LAYOUTS[config.layout],
        dtype=config.dtype,
        shard_bytes=config.shard_bytes,
        files=card_files(
            saved, read_run(saved.folder), layout=config.layout, title=title, license_name=config.license_name
        ),
    )
    return saved
