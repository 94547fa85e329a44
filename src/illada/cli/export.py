"""`illada export MODEL --out FOLDER`: the weights of a run without what only training needs, in any layout."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from illada.checkpoint.export import ExportConfig, LayoutName, export
from illada.checkpoint.huggingface.configuration import Overrides
from illada.checkpoint.huggingface.hub import check_login, push
from illada.cli.flags import parse
from illada.cli.loading import DTYPES, Dtype
from illada.model.accounting import count_parameters

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a model as a folder to give away: weights, tokenizer, configuration; with a model card to publish it."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run, a checkpoint, tiny or tiny-instruct, a published folder, or an id on the hub."""
    out: Path
    """The folder to write; it must not exist yet."""
    layout: LayoutName = "native"
    """native: a checkpoint of ours. The others: as such models are published, with a model card."""
    dtype: Dtype = "bf16"
    """How the weights are stored."""
    shard_size: str = "5GB"
    """How large a file of weights may be; native has one file."""
    license: str | None = None
    """For the model card, as the hub writes it: apache-2.0, for one."""
    push_to_hub: str | None = None
    """Upload the folder to the hub under this id, OWNER/NAME."""
    private: bool = False
    """Where it is not there yet, make it private."""
    overrides: Annotated[Overrides, tyro.conf.arg(name="")] = field(default_factory=Overrides)

    def __post_init__(self) -> None:
        """Refuse what cannot be written or pushed, before anything is."""
        parse_size(self.shard_size)
        if self.push_to_hub is not None and self.layout == "native":
            raise ValueError("the hub is for published layouts: add --layout illada, for one")


def command(arguments: list[str]) -> int:
    """Read, cast, write; and push."""
    chosen = parse(Arguments, arguments, command="export")
    if chosen.push_to_hub is not None:
        check_login(chosen.push_to_hub)
    config = ExportConfig(
        layout=chosen.layout,
        dtype=DTYPES[chosen.dtype],
        shard_bytes=parse_size(chosen.shard_size),
        title=chosen.push_to_hub,
        license_name=chosen.license,
    )
    saved = export(chosen.run, chosen.out, config, overrides=chosen.overrides)
    size = sum(file.stat().st_size for file in chosen.out.iterdir())
    parameters = count_parameters(saved.model_config).total
    console = Console(stderr=True)
    console.print(f"{parameters:,} parameters, {size / 1e6:.1f} MB", highlight=False)
    if chosen.push_to_hub is not None:
        url = push(chosen.out, chosen.push_to_hub, private=chosen.private)
        console.print(url, markup=False, highlight=False, soft_wrap=True)
    Console().print(str(chosen.out), markup=False, highlight=False, soft_wrap=True)
    return 0


def parse_size(text: str) -> int:
    """The bytes in a size such as 5GB, 500MB or 2GiB.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text)
    if match is None or match[2].upper() not in _UNITS or not float(match[1]):
        raise ValueError(f"a size is a number above 0 and a unit, such as 5GB or 500MB; got {text!r}")
    return max(1, int(float(match[1]) * _UNITS[match[2].upper()]))
