"""A published folder -> SavedModel: everything is checked here, before a weight is read."""

from pathlib import Path

import torch

from illada.checkpoint.huggingface.configuration import Overrides, layout_of, read_config, read_json
from illada.checkpoint.huggingface.layouts import Layout
from illada.checkpoint.huggingface.specials import read_tokenizer
from illada.checkpoint.saved import SavedModel, check_shapes, parameter_shapes
from illada.checkpoint.stored import StoredTensor, stored_tensors
from illada.model.config import ModelConfig

CONFIG = "config.json"


def is_published(folder: Path) -> bool:
    """Whether a folder looks like a published model, one of ours or not."""
    return (folder / CONFIG).is_file() and "model_type" in read_json(folder / CONFIG)


def open_published(folder: Path, overrides: Overrides = Overrides()) -> SavedModel:  # noqa: B008  # it is frozen
    """Read configuration and tokenizer of a published folder, and find its tensors.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a layout or a feature that is not supported, a value that the folder does not give (the message
            names the flag), or a tensor that is missing, unexpected, misshapen or contradicts another; by its name.
    """
    values = read_json(folder / CONFIG)
    config = read_config(values, overrides, source=folder / CONFIG)
    layout = layout_of(values, source=folder / CONFIG)
    tokenizer = read_tokenizer(folder, layout, values, rows=config.vocab_size, given=overrides.special_tokens)
    return SavedModel(
        folder=folder,
        model_config=config,
        tensors=find_tensors(folder, config, layout),
        tokenizer=tokenizer,
    )


def find_tensors(folder: Path, config: ModelConfig, layout: Layout) -> dict[str, StoredTensor]:
    """The tensors of a published folder by the names they have in a Transformer.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a tensor is missing, unexpected or misshapen, or a tied head differs from the embedding.
    """
    stored = stored_tensors(folder)
    _take_frequencies(stored, config)
    expected = parameter_shapes(config)
    published = {layout.published_name(name): name for name in expected}
    head = stored.pop(layout.tensors["head.weight"], None) if config.tied_head else None
    check_shapes(
        {name: tensor.shape for name, tensor in stored.items()},
        {name: expected[ours] for name, ours in published.items()},
        source=folder,
    )
    if head is not None and not _equal(head, stored[layout.tensors["embedding.weight"]]):
        raise ValueError(
            f"{folder} does not fit its configuration: head and embedding are one matrix by {layout.keys['tied_head']}"
            f", but {head.name} differs from {layout.tensors['embedding.weight']}"
        )
    return {published[name]: tensor for name, tensor in stored.items()}


def _equal(one: StoredTensor, two: StoredTensor) -> bool:
    return one.shape == two.shape and all(
        torch.equal(one.rows(start, stop).float(), two.rows(start, stop).float()) for start, stop in one.pieces()
    )


def _take_frequencies(stored: dict[str, StoredTensor], config: ModelConfig) -> None:
    """Old files of Llama hold the rates of the rotary angles as well; they are left out if they are ours.

    Raises:
        ValueError: they are others.
    """
    exponent = torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size
    for name in [name for name in stored if name.endswith("rotary_emb.inv_freq")]:
        tensor = stored.pop(name)
        rates = tensor.read().float()
        if rates.shape != exponent.shape or not torch.allclose(rates, config.rope_theta**-exponent, rtol=0.01, atol=0):
            raise ValueError(f"{tensor.file}: {name} does not follow from rope_theta {config.rope_theta}")
