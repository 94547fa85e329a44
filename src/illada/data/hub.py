"""Rows of data sets on the hub, through the library `datasets` (extra `hf`)."""

import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any


def optional(module: str, path: str) -> ModuleType:
    """A module of the extra `hf`, needed to read `path`.

    Raises:
        ValueError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ValueError(f"reading {path} needs {library}: pip install 'illada[hf]'") from error


def hub_rows(name: str, config: str | None, split: str) -> Iterator[Mapping[str, Any]]:
    """The rows of one split of a data set.

    Raises:
        ValueError: `datasets` is not installed.
    """
    datasets = optional("datasets", f"hf:{name}")
    yield from datasets.load_dataset(name, config, split=split)
