"""Golden checkpoints, loaded by their paths alone."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
import torch

import illada
from illada.checkpoint.huggingface.layouts import LAYOUTS
from illada.model.transformer import Transformer
from illada.pipeline import LanguageModel

DATA = Path(__file__).parent / "data"

_load = cache(lambda name: illada.load(DATA / name, device="cpu"))


@pytest.fixture
def language_model() -> Callable[[str], LanguageModel]:
    return _load


@pytest.fixture
def load() -> Callable[[str], Transformer]:
    return lambda name: _load(name).transformer


@pytest.fixture
def name_of() -> Callable[[str], str]:
    """Our name of a published tensor."""
    layouts, names = (LAYOUTS["illada"], LAYOUTS["llada"]), ["head.weight"]
    names += [name for name, _ in _load("llada").transformer.named_parameters()]
    return {layout.published_name(name): name for layout in layouts for name in names}.__getitem__


@pytest.fixture(params=["illada", "llada", "llada-gqa"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def expected() -> Callable[[str], dict]:
    def read(file: str) -> dict:
        path = DATA / "expected" / file
        return json.loads(path.read_text()) if path.suffix == ".json" else safetensors.torch.load_file(path)

    return read


@pytest.fixture(autouse=True)
def _fp32() -> None:
    assert torch.get_default_dtype() == torch.float32
