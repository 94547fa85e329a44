"""A small model in every layout, as a published folder and as our own Transformer."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from illada.checkpoint.export import ExportConfig, export
from illada.checkpoint.native import save_checkpoint
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

WORDS = "the cat sat on a mat and the dog lay on a log while it rained in the old town by the sea "
SHAPES = {
    "illada": {},
    "llada": {"tied_head": False, "kv_heads": 4},
    "dream": {"qkv_bias": True, "shifted": True},
}


@dataclass(frozen=True)
class Published:
    """One model twice."""

    folder: Path
    transformer: Transformer
    tokenizer: Tokenizer


def publish(root: Path, layout: str) -> Published:
    tokenizer = Tokenizer.train([WORDS * 20], 300)
    sizes = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn_size": 48, "max_length": 64}
    config = ModelConfig(vocab_size=tokenizer.vocab_size, **sizes | SHAPES[layout])
    model = Transformer(config).eval()
    initialize(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6) if parameter.dim() > 1 else parameter.add_(0.1)
    native, folder = root / "native", root / layout
    save_checkpoint(native, model_config=config, weights=model.state_dict(), tokenizer=tokenizer)
    export(native, folder, ExportConfig(layout=layout, dtype=torch.float32))
    return Published(folder=folder, transformer=model, tokenizer=tokenizer)


@pytest.fixture(scope="session", params=SHAPES)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("published"), request.param)


@pytest.fixture(scope="session")
def illada_folder(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("published"), "illada")
