"""From a saved model to one that trains: all of its weights, or an adapter beside weights that stay as they are."""

from pathlib import Path

import torch

from illada.checkpoint.adapter import AdapterCard
from illada.checkpoint.saved import SavedModel, build
from illada.model.lora import LoraConfig, attach_adapter, initialize_adapter
from illada.model.transformer import Transformer


def build_to_train(
    saved: SavedModel, lora: LoraConfig, *, device: torch.device, seed: int, start: Path, digest: str
) -> tuple[Transformer, AdapterCard | None]:
    """The model and, where an adapter trains, what is to be known of that.

    Args:
        saved: the model to start from.
        lora: without a rank, all weights train, and the model is on the meta device: each process fills its part
            of it with `illada.checkpoint.saved.stored_values`.
        device: where an adapter trains.
        seed: of the adapter's first values.
        start: how the user named the model.
        digest: `illada.checkpoint.source.model_digest` of it.

    Raises:
        ModuleNotFoundError: the extra `finetune`, or `quant`, is not installed.
    """
    if lora.rank is None:
        with torch.device("meta"):
            return Transformer(saved.model_config), None
    model = build(
        saved,
        device=device,
        dtype=torch.float32 if lora.base == "fp32" else torch.bfloat16,
        quantize=lora.base if lora.base in ("int8", "int4") else None,
    )
    config = lora.for_peft(base_model=_lasting_name(start, saved.folder))
    attach_adapter(model, config)
    initialize_adapter(model, seed=seed)
    return model.train(), AdapterCard(config=config, base_digest=digest)


def _lasting_name(start: Path, folder: Path) -> str:
    """What to find the model by later, from any folder: its name in the package, its id on the hub, or its path."""
    if start.exists():
        return str(folder.resolve())
    return str(start)
