"""SavedModel -> a folder to publish; tensors pass through memory a shard at a time."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from illada.checkpoint.huggingface.configuration import write_config
from illada.checkpoint.huggingface.layouts import Layout
from illada.checkpoint.huggingface.specials import GENERATION
from illada.checkpoint.saved import SavedModel, parameter_shapes
from illada.checkpoint.stored import INDEX, SINGLE, save_tensors
from illada.data.tokenizer import Tokenizer
from illada.durable import atomic_folder


def save_published(
    target: Path, saved: SavedModel, *, layout: Layout, dtype: torch.dtype, shard_bytes: int, files: Mapping[str, str]
) -> None:
    """Write a folder to publish; it is there in full when this returns, or not at all.

    Args:
        target: the folder; it must not exist.
        saved: the model.
        layout: how it is written; no code is written with it.
        dtype: of the weights.
        shard_bytes: how large a file of weights may be; a single tensor may be larger.
        files: texts that are put beside it by name: the model card, its pictures.

    Raises:
        FileExistsError: there is such a folder.
        ValueError: the layout has no words for the model, or `shard_bytes` is not positive.
        OSError: it could not be written: the disk is full, for one.
    """
    if shard_bytes < 1:
        raise ValueError(f"a file of weights needs a size of at least 1 byte, got {shard_bytes}")
    config = write_config(saved.model_config, layout) | _token_ids(saved.tokenizer) | _loading(dtype)
    with atomic_folder(target) as folder:
        _write_json(folder / "config.json", config)
        _write_json(folder / GENERATION, _generation(saved.tokenizer))
        saved.tokenizer.save(folder)
        texts = {f"{name}_token": text for name, text in saved.tokenizer.texts.items()}
        _write_json(folder / "special_tokens_map.json", texts)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        write_weights(
            folder,
            parameter_shapes(saved.model_config),
            lambda name: saved.tensors[name].read(),
            layout=layout,
            dtype=dtype,
            shard_bytes=shard_bytes,
        )


def plan_shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in their order, cut into parts of at most `limit` bytes; what is larger by itself is a part by itself."""
    parts: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if size > room:
            parts.append([])
            room = limit
        parts[-1].append(name)
        room -= size
    return parts


def write_weights(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], Tensor],
    *,
    layout: Layout,
    dtype: torch.dtype,
    shard_bytes: int,
) -> list[str]:
    """Write the tensors of a model in a layout, and the index if they take several files; returns the files' names.

    Args:
        folder: where to write.
        shapes: of the tensors, by the names they have in a Transformer.
        read: gives one of them by its name; a shard's are in memory at a time.
        layout: how they are called.
        dtype: in which they are written.
        shard_bytes: how large a file may be.

    Raises:
        OSError: the disk is full, for one.
    """
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
    parts = plan_shards(sizes, shard_bytes)
    place: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        file = SINGLE if len(parts) == 1 else f"model-{number:05}-of-{len(parts):05}.safetensors"
        tensors = {layout.published_name(name): read(name).to(dtype) for name in part}
        # transformers refuses a file that does not say which library wrote it
        save_tensors(tensors, folder / file, metadata={"format": "pt"})
        place |= dict.fromkeys(tensors, file)
    written = sorted(set(place.values()))
    if len(parts) > 1:
        total = {"total_size": sum(sizes.values())}
        _write_json(folder / INDEX, {"metadata": total, "weight_map": dict(sorted(place.items()))})
        written.append(INDEX)
    return written


def _token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {f"{name}_token_id": getattr(tokenizer.specials, name) for name in ("bos", "eos", "pad", "mask")}


def _generation(tokenizer: Tokenizer) -> dict[str, Any]:
    ends = tokenizer.end_ids
    return {
        "bos_token_id": tokenizer.specials.bos,
        "eos_token_id": ends[0] if len(ends) == 1 else list(ends),
        "pad_token_id": tokenizer.specials.pad,
    }


def _loading(dtype: torch.dtype) -> dict[str, Any]:
    return {"torch_dtype": str(dtype).removeprefix("torch."), "use_cache": False}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
