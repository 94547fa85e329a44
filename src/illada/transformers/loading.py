"""A folder of a published layout -> the weights of a model, and back, by our own reader and writer.

What the library's loader does instead differs from one of its versions to the next, and it fills what it does not find
with random numbers. Here a tensor that is missing, unexpected or misshapen is an error by its name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from illada.checkpoint.huggingface.configuration import read_json
from illada.checkpoint.huggingface.hub import fetch
from illada.checkpoint.huggingface.layouts import Layout
from illada.checkpoint.huggingface.reader import CONFIG, find_tensors
from illada.checkpoint.huggingface.writer import write_weights
from illada.checkpoint.saved import fill
from illada.checkpoint.stored import INDEX
from illada.model.device import choose_device
from illada.model.transformer import Transformer

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_HUB = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "resume_download",
    "subfolder",
    "token",
    "variant",
)
_HARMLESS = (
    *("trust_remote_code", "code_revision", "adapter_kwargs", "weights_only", "use_safetensors", "low_cpu_mem_usage"),
    *("ignore_mismatched_sizes", "_from_auto", "_commit_hash", "_from_pipeline", "use_auth_token"),
)
"""Arguments that the library hands on, or people give out of habit, and that change nothing here."""


def find_folder(where: str | Path, revision: str | None) -> Path:
    """The folder itself, or that of an id in the hub's cache, which is filled first if need be.

    Raises:
        FileNotFoundError: there is no such folder or id.
    """
    if (Path(where) / CONFIG).is_file():
        return Path(where)
    if Path(where).exists():
        raise FileNotFoundError(f"{where} is no published model: it holds no {CONFIG}")
    return fetch(str(where) if revision in (None, "main") else f"{where}@{revision}")


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse what would be ignored.

    Raises:
        ValueError: an argument that has no effect here; the message says what to do instead.
    """
    given = {name: value for name, value in options.items() if value not in (None, False) and name not in _HARMLESS}
    if hub := sorted(given.keys() & set(_HUB)):
        raise ValueError(f"{hub[0]} has no effect here: set HF_HOME, HF_TOKEN or HF_HUB_OFFLINE, or give a folder")
    if given.get("quantization_config") is not None:
        raise ValueError("quantization_config has no effect here: illada.load(..., quantize='int8') holds few bits")
    if given:
        raise ValueError(f"from_pretrained does not know {', '.join(sorted(given))}")


def device_of(device_map: Any) -> torch.device:
    """The one device that a device_map puts everything on.

    Raises:
        ValueError: it spreads the model over several, or there is no such device.
    """
    if isinstance(device_map, dict) and set(device_map) == {""}:
        device_map = device_map[""]
    if device_map is None:
        return torch.device("cpu")
    if isinstance(device_map, torch.device | str | int) and device_map not in (
        "balanced",
        "balanced_low_0",
        "sequential",
    ):
        return choose_device(f"cuda:{device_map}" if isinstance(device_map, int) else str(device_map))
    raise ValueError(f"the model is put on one device: device_map cpu, cuda or auto; got {device_map!r}")


def dtype_of(wanted: Any, folder: Path) -> torch.dtype:
    """The dtype that is asked for; None and auto: that of config.json, as in transformers 5, or fp32.

    Raises:
        ValueError: there is no such dtype.
    """
    if wanted in (None, "auto"):
        values = read_json(folder / CONFIG)
        wanted = values.get("dtype") or values.get("torch_dtype") or "float32"
    dtype = wanted if isinstance(wanted, torch.dtype) else getattr(torch, str(wanted), None)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be one of floating-point numbers, such as bfloat16; got {wanted!r}")
    return dtype


def read_into(model: Transformer, folder: Path, layout: Layout, *, device: torch.device, dtype: torch.dtype) -> None:
    """Fill a model on the meta device from a folder, tensor by tensor.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a tensor is missing, unexpected or misshapen; by its name.
    """
    tensors = find_tensors(folder, model.config, layout)
    model.to(dtype).to_empty(device=device)
    fill(model, tensors)


def write_folder(folder: Path, tensors: Mapping[str, Tensor], layout: Layout, *, max_shard_size: int | str) -> None:
    """Write the weights, by the names they have in a Transformer, in place of those that are there.

    Raises:
        OSError: the disk is full, for one.
        ValueError: the size of a shard is none.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    written = write_weights(
        folder,
        shapes,
        lambda name: tensors[name].cpu(),
        layout=layout,
        dtype=next(iter(tensors.values())).dtype,
        shard_bytes=_bytes(max_shard_size),
    )
    for old in [*folder.glob("model*.safetensors"), folder / INDEX]:
        if old.name not in written:
            old.unlink(missing_ok=True)


def _bytes(size: int | str) -> int:
    if isinstance(size, int):
        return size
    number, unit = size[:-2], size[-2:].upper()
    if unit not in _UNITS or not number.strip().isdecimal():
        raise ValueError(f"max_shard_size is a number of bytes, or a text such as 5GB; got {size!r}")
    return int(number) * _UNITS[unit]
