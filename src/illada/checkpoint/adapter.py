"""An adapter in a folder, as peft writes and reads it.

adapter_config.json         which layers, what rank, on which model
adapter_model.safetensors   the tensors, as `base_model.model.blocks.0.attention.q_proj.lora_A.weight`
base_model.sha256           ours: the digest of the model that it was trained on
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from torch import Tensor

from illada.checkpoint.saved import SavedModel, check_shapes
from illada.checkpoint.stored import Stored, save_tensors
from illada.model.lora import adapter_tensors, attach_adapter, check_plain, update_scale
from illada.model.transformer import Transformer

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_NAMED = ".default."
"""What stands in a model between a layer and its weight: the name of the adapter, which is not saved."""
_DOWN = ".lora_A.default.weight"
_BASE = "base_model.sha256"


def holds_adapter(folder: Path) -> bool:
    """Whether there is an adapter in this folder."""
    return (folder / CONFIG).is_file()


@dataclass(frozen=True, kw_only=True)
class AdapterCard:
    """What an adapter is, its tensors apart."""

    config: Mapping[str, Any]
    """The content of `adapter_config.json`."""
    base_digest: str | None = None
    """`illada.checkpoint.source.model_digest` of the model that it was trained on, where it was trained here."""


@dataclass(frozen=True, kw_only=True)
class SavedAdapter:
    """An adapter that was read from a folder."""

    folder: Path
    card: AdapterCard
    tensors: dict[str, Tensor]
    """By the names they have in a model with an adapter."""

    @property
    def base_model(self) -> str:
        """Path or id of the model that it was trained on.

        Raises:
            ValueError: it does not say.
        """
        if not isinstance(name := self.card.config.get("base_model_name_or_path"), str):
            raise ValueError(f"the adapter in {self.folder} does not say which model it belongs to: load that, with it")
        return name


def read_adapter(folder: Path) -> SavedAdapter:
    """Read the two files of an adapter.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: one of them is damaged, or a tensor is not called as peft calls one.
    """
    if missing := [name for name in (CONFIG, TENSORS) if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} holds no adapter: there is no {missing[0]}")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"the adapter in {folder} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"the adapter in {folder} is damaged: {CONFIG} holds no object")
    named = {_name_in_model(name): tensor for name, tensor in tensors.items()}
    digest = (folder / _BASE).read_text().strip() if (folder / _BASE).is_file() else None
    card = AdapterCard(config=config, base_digest=digest)
    return SavedAdapter(folder=folder, card=card, tensors=named)


def write_adapter(folder: Path, card: AdapterCard, tensors: Mapping[str, Tensor]) -> None:
    """Write both files; `tensors` have the names that they have in a model.

    Raises:
        OSError: the disk is full, for one.
    """
    (folder / CONFIG).write_text(json.dumps(dict(card.config), indent=2) + "\n", encoding="utf-8")
    named = {_name_in_file(name): tensor for name, tensor in tensors.items()}
    save_tensors(named, folder / TENSORS, metadata={"format": "pt"})
    if card.base_digest is not None:
        (folder / _BASE).write_text(card.base_digest + "\n")


@dataclass(frozen=True, kw_only=True)
class MergedTensor:
    """A matrix to which an adapter's update is added as it is read; in fp32."""

    base: Stored
    down: Tensor
    """A [rank, in]."""
    up: Tensor
    """B [out, rank], its scale in it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole of it."""
        return self.base.shape

    def read(self) -> Tensor:
        """The whole of it."""
        return self.rows(0, self.shape[0])

    def rows(self, start: int, stop: int) -> Tensor:
        """Some of its rows."""
        return self.base.rows(start, stop).float() + self.up[start:stop] @ self.down

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(start, stop) over the rows, as many at a time as of the matrix alone."""
        return self.base.pieces()


def merged(base: SavedModel, adapter: SavedAdapter) -> SavedModel:
    """The model with the updates of an adapter in its matrices, which are added as they are read.

    Raises:
        ValueError: the adapter is none that is supported, or has a tensor that does not fit the model; by its name.
    """
    check_plain(adapter.card.config)
    if adapter.card.config.get("alpha_pattern"):
        raise ValueError(f"the adapter in {adapter.folder} has an alpha_pattern, with which it cannot be merged here")
    tensors, rest = dict(base.tensors), dict(adapter.tensors)
    for name in [name for name in rest if name.endswith(_DOWN)]:
        matrix = name.removesuffix(_DOWN) + ".weight"
        down, up = rest.pop(name).float(), rest.pop(name.replace("lora_A", "lora_B"), None)
        stored = tensors.get(matrix)
        if stored is None or up is None or stored.shape != (up.shape[0], down.shape[1]):
            raise ValueError(
                f"{adapter.folder} does not fit the model in {base.folder}: {name} has no matrix to update"
            )
        scale = update_scale(adapter.card.config, rank=down.shape[0])
        tensors[matrix] = MergedTensor(base=stored, down=down, up=scale * up.float())
    if rest:
        raise ValueError(
            f"{adapter.folder} does not fit the model in {base.folder}: {next(iter(rest))} is no part of it"
        )
    return replace(base, folder=adapter.folder, tensors=tensors)


def put_adapter(model: Transformer, adapter: SavedAdapter) -> None:
    """Attach an adapter to a model and fill it; a tensor that is missing, unexpected or misshapen is an error by name.

    Raises:
        ModuleNotFoundError: the extra `finetune` is not installed.
        ValueError: the adapter does not fit the model, or is none that is supported.
    """
    attach_adapter(model, adapter.card.config)
    own = adapter_tensors(model)
    check_shapes(_shapes(adapter.tensors), _shapes(own), source=adapter.folder)
    for name, tensor in own.items():
        tensor.data.copy_(adapter.tensors[name])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _name_in_file(name: str) -> str:
    return _PREFIX + name.replace(_NAMED, ".")


def _name_in_model(name: str) -> str:
    layer, dot, weight = name.removeprefix(_PREFIX).rpartition(".")
    if not name.startswith(_PREFIX) or not dot:
        raise ValueError(f"the adapter's tensor {name} is not called as peft calls one: {_PREFIX}LAYER.lora_A.weight")
    return f"{layer}{_NAMED}{weight}"
